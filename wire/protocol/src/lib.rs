//! What crosses a boundary: ids, addresses, envelopes, frames, the message table and the codec.

pub mod time;
