//! Bounds of piece layers that peers give for a magnet link (BEP 52; threat P45).

use super::METAINFO_BYTES_MAX;
use crate::base::time::Span;

/// Hashes of a piece layer that one request asks for: as many as BEP 52 advises.
pub const LAYER_HASHES_PER_REQUEST: u32 = 512;
/// Requests outstanding at a peer; each answer is some 16 KiB.
pub const LAYER_REQUESTS_OUT: usize = 4;
/// A hybrid torrent is waited for so long without a hash of its layers; then its v1 part has to do.
pub const LAYERS_PATIENCE: Span = Span::from_secs(10);
/// The same, whatever comes.
pub const LAYERS_TIME_MAX: Span = Span::from_secs(60);
/// Peers that are asked for layers that a hybrid went on without, each time that they are looked for again.
pub const LATE_LAYERS_PEERS_MAX: usize = 32;
/// Between two times.
pub const LATE_LAYERS_INTERVAL: Span = Span::from_secs(600);
/// Longest .torrent that is kept of what a link named: the longest that is read, and the link's trackers.
pub const KEPT_TORRENT_BYTES_MAX: u64 = METAINFO_BYTES_MAX as u64 + (1 << 20);
