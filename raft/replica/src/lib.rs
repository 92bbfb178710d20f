//! One replica: openraft glue, journal, sled, snapshots.
