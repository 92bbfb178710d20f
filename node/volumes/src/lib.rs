//! Volumes: a pure mount plan and the mounts that carry it out.
