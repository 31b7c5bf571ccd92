//! The simulator: whole nodes and scripted peers in one thread, with virtual time, a network, disks,
//! faults and a seed. For tests and benches only; nothing of it runs in production.
//!
//! A run is determined by its seed, its [`profile::Profile`] and its actors. Reproducing a failure
//! means running its seed again.

mod audit;
pub mod content;
pub mod disk;
pub mod io;
pub mod net;
pub mod node;
pub mod peers;
pub mod profile;
pub mod run;
pub mod scenario;
pub mod swarm;
pub mod timeline;
pub mod torrent;
pub mod world;

#[cfg(test)]
mod tests;

pub use content::Content;
pub use disk::{Disk, SimFile, SyncMark};
pub use io::{SimIo, SimSocket};
pub use net::{EndId, EndState, Inbound};
pub use node::{Canary, Node, NodeSpec};
pub use peers::{Behaviour, Peer, Report};
pub use profile::Profile;
pub use run::{Actor, Outcome, Run};
pub use scenario::{Verdict, run_seed};
pub use timeline::{ActorId, HostId, SimWake};
pub use torrent::SimTorrent;
pub use world::World;
