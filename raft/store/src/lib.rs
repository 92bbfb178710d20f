//! The Store handle: propose, read, watch; and a model log that stands in for openraft.
