//! Which block comes next: through the whole torrent in order, from a piece on, and round again.

use crate::base::geometry::{BlockRef, Geometry};
use crate::base::units::BLOCK_BYTES;

/// See the module. Never ends; the torrent is not empty.
#[derive(Clone, Debug)]
pub struct Walk {
    geometry: Geometry,
    piece: u32,
    begin: u32,
}

impl Walk {
    /// Starts at the front of `piece`, which exists.
    pub const fn new(geometry: Geometry, piece: u32) -> Self {
        Self { geometry, piece, begin: 0 }
    }

    /// The torrent's sizes.
    pub const fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The next block.
    pub fn next_block(&mut self) -> BlockRef {
        let piece_len = self.geometry.piece_len(self.piece);
        let length = BLOCK_BYTES.min(piece_len - self.begin);
        let block = BlockRef { piece: self.piece, begin: self.begin, length };
        self.begin += length;
        if self.begin == piece_len {
            self.begin = 0;
            self.piece = (self.piece + 1) % self.geometry.piece_count();
        }
        block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_asks_for_every_byte_once_and_only_for_what_exists() {
        let geometry = Geometry::new(100_001, 32 << 10);
        let mut walk = Walk::new(geometry, 2);
        for _round in 0..2 {
            let blocks: Vec<BlockRef> = (0..7).map(|_| walk.next_block()).collect();
            assert!(blocks.iter().all(|block| geometry.contains(*block)), "{blocks:?}");
            assert_eq!(blocks.iter().map(|block| u64::from(block.length)).sum::<u64>(), 100_001);
            assert_eq!((blocks[0].piece, blocks[6].piece), (2, 1));
        }
    }
}
