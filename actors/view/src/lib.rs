//! The typed view of the cluster that controllers and the scheduler decide on.
