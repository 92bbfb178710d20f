//! sled as kactor uses it: several stores in one process, and crashes at every step of a checkpoint.

mod crashes;
mod life;
mod together;
