//! `troc`: a thread-per-core BitTorrent relay on io_uring.
//!
//! The modules are listed bottom-up: a module imports only those above it (`tests/tidy.rs` holds
//! it to that). `base` to `storage` and `engine` are pure: no I/O, no clock, no threads; facts go
//! in by `handle_*`, intentions come out by `poll_*`. ARCHITECTURE.md has the map.

pub mod base;
pub mod cli;
pub mod daemon;
pub mod engine;
pub mod hash;
pub mod io;
pub mod proto;
pub mod shared;
pub mod sim;
pub mod storage;
pub mod worker;
