//! The API as its callers see it, on a store in memory: one file per part of the contract.

mod access;
mod lifecycle;
mod reads;
mod refusals;
mod services;
mod together;
mod watches;
mod world;
mod writes;
