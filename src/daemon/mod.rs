//! The process: configuration, supervisor, control thread, trackers, state store.

pub mod config;
pub mod files;
pub mod hashing;
pub mod status;
pub mod store;
pub mod tracker;
