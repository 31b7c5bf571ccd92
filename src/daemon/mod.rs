//! The process: configuration, supervisor, control thread, trackers, state store.

pub mod config;
pub mod files;
pub mod status;
pub mod store;
