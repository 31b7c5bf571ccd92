//! Why a node could not start or had to stop: one line each, with what to do.

use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error;

use super::files::FileError;
use super::hashing::HashError;
use super::status::NodeStatus;
use super::store::StoreError;
use super::tracker_server::TrackerServerError;
use crate::io::arena::ArenaError;
use crate::io::sockets::ListenError;
use crate::io::uring::SetupError;

/// See the module.
#[derive(Debug, Error)]
pub enum NodeError {
    /// The download directory is not there.
    #[error("no such directory, {}: create it first, or name another", .0.display())]
    NoDirectory(PathBuf),
    /// The state directory or a journal.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A payload file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Existing files could not be checked.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// The address to accept peers on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The address to serve metrics on.
    #[error(
        "cannot serve metrics on {address}: {error}; give --metrics another address (`ss -ltnp` names who \
         listens there)"
    )]
    Metrics {
        /// Where.
        address: SocketAddr,
        /// The kernel's answer.
        error: std::io::Error,
    },
    /// The tracker's port.
    #[error(transparent)]
    Tracker(#[from] TrackerServerError),
    /// The socket of the distributed hash table.
    #[error(
        "no socket for the distributed hash table at {}: {source}; give --dht-listen another address \
         (`ss -lnup` names who listens there), or --no-dht",
        address.map_or_else(|| "any address".to_owned(), |address| address.to_string())
    )]
    Dht {
        /// Where, if that was said.
        address: Option<SocketAddr>,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// Payload memory.
    #[error(transparent)]
    Arena(#[from] ArenaError),
    /// A worker could not start or died.
    #[error("worker {core}: {why}")]
    Worker {
        /// Which.
        core: u8,
        /// One line.
        why: String,
    },
    /// The control thread could not start.
    #[error("control thread: {0}: run `troc doctor` to see what this host allows")]
    Control(std::io::Error),
    /// io_uring is refused.
    #[error(transparent)]
    Ring(#[from] SetupError),
    /// Randomness.
    #[error("no randomness from the kernel: {0}")]
    Random(String),
    /// Nobody to fetch from.
    #[error(
        "no peers for {seconds} s, {name}: check --peer and the trackers, then start again; \
         what is there is kept{tracker}"
    )]
    NoPeers {
        /// For so long.
        seconds: u64,
        /// The torrent.
        name: String,
        /// What a tracker said last, if anything.
        tracker: String,
    },
    /// Nobody who has what a magnet link names.
    #[error(
        "no metadata for {seconds} s, {name}: nobody was found who has what the magnet link names; check its \
         `x.pe` and `tr` parts, --peer, --dht and --lsd, or give the .torrent file{why}"
    )]
    NoMetadata {
        /// For so long.
        seconds: u64,
        /// The torrent, as the link calls it.
        name: String,
        /// What was wrong with the last peer or tracker, if anything was.
        why: String,
    },
    /// What a magnet link names was found and cannot be used.
    #[error("cannot use what the magnet link names, {name}: {why}")]
    Metadata {
        /// The torrent, as the link calls it.
        name: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// Reading or writing payload failed.
    #[error("{name}: {why}")]
    Disk {
        /// The torrent.
        name: String,
        /// What happened and what to do.
        why: String,
    },
    /// A `get` was told to stop before all was there: how far it came.
    #[error("stopped, as asked, before all was fetched: start again to go on; what is verified is kept")]
    Unfinished(Box<NodeStatus>),
    /// Stopped before the files were checked.
    #[error("stopped during the check of existing files; the next start checks them again")]
    CheckStopped,
    /// Stopped twice.
    #[error("stopped at once, as asked; the next start checks what was being written")]
    Killed,
}
