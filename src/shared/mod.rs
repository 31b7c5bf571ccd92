//! The only memory that cores share: lock-free, and model-checked with `--features loom`.
//!
//! Everything here is an atomic word with a small state machine around it. The rule for payload:
//! a slot's bytes have one writer while its chunk is `Filling` or `Loading` (the core that won the
//! transition), only its piece's owner while it is `Filled` (headers and padding, before it is hashed), and
//! none once it is `Ready`; the transition publishes the bytes
//! (release), the look-up sees them (acquire).

pub mod budget;
pub mod cache;
pub mod chunks;
pub mod counters;
pub mod givers;
pub mod injection;
pub mod judge;
pub mod lane;
pub mod ledger;
#[cfg(all(test, feature = "loom"))]
mod models;
pub mod retirer;
pub mod sleepers;
pub mod sync;
pub mod torrent;
pub mod trees;
pub mod wanted;
pub mod witnesses;
