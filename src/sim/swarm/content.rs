//! What a swarm shares: sizes without bytes.

use crate::base::geometry::Geometry;
use crate::base::ids::{InfoHash, TorrentId};
use crate::shared::torrent::TorrentMeta;

/// A torrent of whole blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// Its sizes.
    pub geometry: Geometry,
}

impl Content {
    /// The digest of every piece whose blocks are right.
    pub const DIGEST: [u8; 20] = [5; 20];
    /// Its name.
    pub const INFO_HASH: InfoHash = InfoHash([7; 20]);

    /// So many pieces of so many bytes.
    pub const fn new(pieces: u32, piece_bytes: u32) -> Self {
        Self { geometry: Geometry::new(pieces as u64 * piece_bytes as u64, piece_bytes) }
    }

    /// What an engine is told of it.
    pub fn meta(&self, id: TorrentId) -> TorrentMeta {
        let piece_hashes = vec![Self::DIGEST; self.geometry.piece_count() as usize].into();
        let Geometry { total_bytes, piece_bytes, .. } = self.geometry;
        TorrentMeta { id, piece_hashes, ..TorrentMeta::plain(Self::INFO_HASH, total_bytes, piece_bytes) }
    }
}
