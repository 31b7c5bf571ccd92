//! How a torrent's bytes divide into pieces, chunks and blocks.
//!
//! Pieces are what the metainfo hashes. A chunk is the part of one piece, at most 256 KiB, that
//! one arena slot holds. A block is what one request asks for. No chunk spans two pieces, so a
//! piece shorter than 256 KiB is one chunk.

use super::units::{BLOCK_BYTES, CHUNK_BYTES};

/// A torrent's sizes. Invariant: `piece_bytes` is a positive multiple of 16 KiB, and
/// `total_bytes > 0` unless the torrent is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Payload of all files together, padding included.
    pub total_bytes: u64,
    /// Nominal piece length; the last piece may be shorter.
    pub piece_bytes: u32,
}

/// A block of a torrent, by piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockRef {
    /// Piece index.
    pub piece: u32,
    /// Offset in the piece, in bytes.
    pub begin: u32,
    /// Length in bytes.
    pub length: u32,
}

impl Geometry {
    /// Sizes as the metainfo gives them. Panics if `piece_bytes` breaks the invariant: parsers check first.
    pub const fn new(total_bytes: u64, piece_bytes: u32) -> Self {
        assert!(piece_bytes > 0 && piece_bytes.is_multiple_of(BLOCK_BYTES));
        Self { total_bytes, piece_bytes }
    }

    /// Number of pieces.
    pub const fn piece_count(&self) -> u32 {
        self.total_bytes.div_ceil(self.piece_bytes as u64) as u32
    }

    /// Length of piece `piece`; 0 beyond the end.
    pub const fn piece_len(&self, piece: u32) -> u32 {
        let start = self.piece_start(piece);
        if start >= self.total_bytes {
            return 0;
        }
        let left = self.total_bytes - start;
        if left < self.piece_bytes as u64 { left as u32 } else { self.piece_bytes }
    }

    /// Offset of piece `piece` in the torrent.
    pub const fn piece_start(&self, piece: u32) -> u64 {
        piece as u64 * self.piece_bytes as u64
    }

    /// Chunks in a full piece.
    pub const fn chunks_per_piece(&self) -> u32 {
        self.piece_bytes.div_ceil(CHUNK_BYTES)
    }

    /// Number of chunk indices, those of the last piece included as if it were full.
    pub const fn chunk_count(&self) -> u32 {
        self.piece_count() * self.chunks_per_piece()
    }

    /// The chunk that holds offset `begin` of piece `piece`.
    pub const fn chunk_of(&self, piece: u32, begin: u32) -> u32 {
        piece * self.chunks_per_piece() + begin / CHUNK_BYTES
    }

    /// The piece of chunk `chunk`.
    pub const fn chunk_piece(&self, chunk: u32) -> u32 {
        chunk / self.chunks_per_piece()
    }

    /// Offset of chunk `chunk` in its piece.
    pub const fn chunk_begin(&self, chunk: u32) -> u32 {
        chunk % self.chunks_per_piece() * CHUNK_BYTES
    }

    /// Offset of chunk `chunk` in the torrent.
    pub const fn chunk_start(&self, chunk: u32) -> u64 {
        self.piece_start(self.chunk_piece(chunk)) + self.chunk_begin(chunk) as u64
    }

    /// Length of chunk `chunk`; 0 if the last piece is too short to have it.
    pub const fn chunk_len(&self, chunk: u32) -> u32 {
        let left = self.piece_len(self.chunk_piece(chunk)).saturating_sub(self.chunk_begin(chunk));
        if left < CHUNK_BYTES { left } else { CHUNK_BYTES }
    }

    /// Blocks in chunk `chunk`; the last may be shorter than 16 KiB.
    pub const fn chunk_blocks(&self, chunk: u32) -> u32 {
        self.chunk_len(chunk).div_ceil(BLOCK_BYTES)
    }

    /// Block number `block` of chunk `chunk`.
    pub const fn block(&self, chunk: u32, block: u32) -> BlockRef {
        let offset = block * BLOCK_BYTES;
        let left = self.chunk_len(chunk).saturating_sub(offset);
        BlockRef {
            piece: self.chunk_piece(chunk),
            begin: self.chunk_begin(chunk) + offset,
            length: if left < BLOCK_BYTES { left } else { BLOCK_BYTES },
        }
    }

    /// Whether `block` lies wholly inside the torrent and is not empty. Never overflows.
    pub const fn contains(&self, block: BlockRef) -> bool {
        let end = block.begin as u64 + block.length as u64;
        block.piece < self.piece_count() && block.length > 0 && end <= self.piece_len(block.piece) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_all_chunks_tile_the_torrent() {
        for (total, piece) in
            [(1u64, 16 << 10), (1 << 20, 1 << 18), ((5 << 20) + 12_345, 1 << 20), (700_001, 48 << 10)]
        {
            let geometry = Geometry::new(total, piece);
            let mut at = 0u64;
            for chunk in 0..geometry.chunk_count() {
                assert!(geometry.chunk_len(chunk) == 0 || geometry.chunk_start(chunk) == at);
                for index in 0..geometry.chunk_blocks(chunk) {
                    let block = geometry.block(chunk, index);
                    assert!(geometry.contains(block));
                    assert_eq!(geometry.chunk_of(block.piece, block.begin), chunk);
                    assert_eq!(geometry.piece_start(block.piece) + u64::from(block.begin), at);
                    at += u64::from(block.length);
                }
            }
            assert_eq!(at, total);
        }
    }

    #[test]
    fn a_request_that_overflows_or_overlaps_the_end_is_outside() {
        let geometry = Geometry::new(100_000, 32 << 10);
        for (piece, begin, length, inside) in [
            (0, 0, 1, true),
            (0, 0, 0, false),
            (0, 32 << 10, 1, false),
            (0, u32::MAX, u32::MAX, false),
            (3, 0, 1_696, true),
            (3, 0, 1_697, false),
            (4, 0, 1, false),
            (u32::MAX, 0, 1, false),
        ] {
            assert_eq!(
                geometry.contains(BlockRef { piece, begin, length }),
                inside,
                "{piece} {begin} {length}"
            );
        }
    }
}
