//! The process: configuration, supervisor, control thread, trackers, state store.
//!
//! The control thread runs on a tokio-uring runtime and does what may block or wait:
//! opening and syncing files, the journal, trackers, signals, status. Payload never passes through
//! it, but for the edges of chunks that do not fill a page. Web seeds (`web_seed.rs`) and encrypted
//! handshakes (`mse.rs`) have threads of their own.

mod accounts;
mod agenda;
pub mod cache_size;
pub mod clock;
pub mod config;
mod control;
mod deliver;
pub mod discovery;
mod error;
pub mod explain;
pub mod file_progress;
pub mod files;
pub mod hashing;
mod keeping;
mod late_layers;
mod magnet;
mod metrics;
mod mse;
pub mod pressure;
mod random;
mod remembering;
mod run;
pub mod seeding;
mod seeking;
mod serving;
pub mod socket;
mod start;
pub mod status;
pub mod store;
mod supervisor;
mod swarm;
pub mod tracker;
pub mod tracker_server;
mod web_seed;

pub use error::NodeError;
pub use run::run;
pub use supervisor::allowed_cpus;
