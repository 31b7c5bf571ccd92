//! The process: configuration, supervisor, control thread, trackers, state store.

pub mod config;
pub mod hashing;
pub mod status;
