//! What a running node says of itself, about four times a second.

use std::net::SocketAddr;

pub use super::discovery::DhtStatus;
use super::seeding::Seeding;
use crate::base::ids::InfoHash;

/// Where a torrent stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TorrentState {
    /// Existing files are hashed; nothing is fetched yet.
    Checking,
    /// Pieces are missing and being fetched.
    Fetching,
    /// All pieces are verified and served.
    Seeding,
    /// Stopped by an error that the operator must mend; what is durable stays.
    Stopped(String),
}

/// One torrent of a running node. Byte counts are payload only.
#[derive(Clone, Debug)]
pub struct TorrentStatus {
    /// Which torrent.
    pub info_hash: InfoHash,
    /// Its name, made safe for a terminal.
    pub name: String,
    /// See [`TorrentState`].
    pub state: TorrentState,
    /// Size of the torrent without padding.
    pub total_bytes: u64,
    /// Bytes in verified pieces.
    pub verified_bytes: u64,
    /// Bytes in pieces that survive a crash.
    pub durable_bytes: u64,
    /// Received from peers since the start, duplicates included.
    pub downloaded_bytes: u64,
    /// Sent to peers since the start.
    pub uploaded_bytes: u64,
    /// Received and thrown away: duplicates, bad pieces, unasked blocks.
    pub wasted_bytes: u64,
    /// Bytes per second over the last few seconds.
    pub download_rate: u64,
    /// Bytes per second over the last few seconds.
    pub upload_rate: u64,
    /// Connected peers.
    pub peers: u32,
    /// Connected peers that have everything.
    pub seeds: u32,
    /// The last thing a tracker complained about, made safe for a terminal.
    pub tracker_error: Option<String>,
    /// How long a `get` has served it since all was there, if it is to.
    pub seeding: Option<Seeding>,
}

/// The cache of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheStatus {
    /// What it may take now, in bytes.
    pub bytes: u64,
    /// What it may take while memory is not short, in bytes.
    pub full_bytes: u64,
}

/// The whole node.
#[derive(Clone, Debug)]
pub struct NodeStatus {
    /// Since the node started, in nanoseconds.
    pub uptime_ns: u64,
    /// Where peers are accepted, the kernel's choice of port included.
    pub listen: Option<SocketAddr>,
    /// Where metrics are served, the kernel's choice of port included.
    pub metrics: Option<SocketAddr>,
    /// What the cache may take.
    pub cache: CacheStatus,
    /// The distributed hash table, once for each address family in which it is used.
    pub dht: Vec<DhtStatus>,
    /// In the order of `NodeConfig::torrents`.
    pub torrents: Vec<TorrentStatus>,
    /// Payload bytes sent and received by each worker.
    pub per_core_bytes: Vec<(u64, u64)>,
}
