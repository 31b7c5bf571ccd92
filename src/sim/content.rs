//! The payload of a simulated torrent, known to every scripted peer byte by byte.

use crate::base::geometry::{BlockRef, Geometry};
use crate::base::ids::InfoHash;
use crate::base::rng::Rng;

/// A torrent's bytes. Invariant: `bytes` is as long as `geometry` says.
#[derive(Clone, Debug)]
pub struct Content {
    /// How the torrent is named on the wire.
    pub info_hash: InfoHash,
    /// Its sizes.
    pub geometry: Geometry,
    /// Its payload, all files one after the other.
    pub bytes: Vec<u8>,
}

impl Content {
    /// Payload of a seed's choice: incompressible, and different at every place.
    pub fn from_seed(seed: u64, geometry: Geometry) -> Self {
        let mut rng = Rng::new(seed);
        let words = geometry.total_bytes.div_ceil(8);
        let mut bytes: Vec<u8> = (0..words).flat_map(|_| rng.next_u64().to_le_bytes()).collect();
        bytes.truncate(usize::try_from(geometry.total_bytes).unwrap_or(usize::MAX));
        let mut info_hash = InfoHash([0; 20]);
        info_hash.0.iter_mut().for_each(|byte| *byte = rng.next_u64() as u8);
        Self { info_hash, geometry, bytes }
    }

    /// The bytes of a block; `None` if it does not lie in the torrent.
    pub fn block(&self, block: BlockRef) -> Option<&[u8]> {
        if !self.geometry.contains(block) {
            return None;
        }
        let start = self.geometry.piece_start(block.piece) + u64::from(block.begin);
        self.bytes.get(usize::try_from(start).ok()?..)?.get(..block.length as usize)
    }

    /// The bytes of a piece; empty beyond the end.
    pub fn piece(&self, piece: u32) -> &[u8] {
        let length = self.geometry.piece_len(piece);
        self.block(BlockRef { piece, begin: 0, length }).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_tile_the_payload_and_nothing_lies_beyond() {
        let content = Content::from_seed(3, Geometry::new(100_000, 32 << 10));
        assert_eq!(content.bytes.len(), 100_000);
        let tiled: Vec<u8> = (0..4).flat_map(|piece| content.piece(piece).to_vec()).collect();
        assert_eq!(tiled, content.bytes);
        assert_eq!(content.block(BlockRef { piece: 3, begin: 0, length: 1_697 }), None);
        assert!(content.piece(4).is_empty());
        assert_ne!(content.info_hash, Content::from_seed(4, content.geometry).info_hash);
    }
}
