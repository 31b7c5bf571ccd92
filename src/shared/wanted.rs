//! What of a torrent is asked for: everything but the padding at the ends of pieces.
//!
//! Padding files (BEP 47) are zeros that nobody has to send, and in a v2 torrent a piece ends where its file
//! ends (BEP 52): the padding that we put behind it, so that all pieces are of one length, exists nowhere
//! else. So a block ends where content ends, a block or chunk of padding alone does not exist for whoever
//! collects, and the worker sets padding to zero before it hashes. Whoever asks us for it is served zeros.
//!
//! Padding in the midst of a piece is asked for as before, and so is a piece of nothing but padding, which
//! no encoder makes.

use std::ops::Range;

use super::torrent::TorrentMeta;
use crate::base::geometry::BlockRef;
use crate::base::units::{BLOCK_BYTES, CHUNK_BYTES};

impl TorrentMeta {
    /// Bytes of piece `piece` that are asked for.
    pub fn wanted_piece_len(&self, piece: u32) -> u32 {
        let len = self.geometry.piece_len(piece);
        if !self.layout.has_pads() {
            return len;
        }
        match self.layout.content_len(self.geometry.piece_start(piece), len) {
            0 => len,
            content => content,
        }
    }

    /// Bytes of chunk `chunk` that are asked for; 0 if it is padding alone.
    pub fn wanted_chunk_len(&self, chunk: u32) -> u32 {
        let len = self.wanted_piece_len(self.geometry.chunk_piece(chunk));
        len.saturating_sub(self.geometry.chunk_begin(chunk)).min(CHUNK_BYTES)
    }

    /// Blocks of chunk `chunk` that are asked for.
    pub fn wanted_blocks(&self, chunk: u32) -> u32 {
        self.wanted_chunk_len(chunk).div_ceil(BLOCK_BYTES)
    }

    /// Block number `block` of chunk `chunk` as it is asked for.
    pub fn wanted_block(&self, chunk: u32, block: u32) -> BlockRef {
        let offset = block * BLOCK_BYTES;
        BlockRef {
            piece: self.geometry.chunk_piece(chunk),
            begin: self.geometry.chunk_begin(chunk) + offset,
            length: self.wanted_chunk_len(chunk).saturating_sub(offset).min(BLOCK_BYTES),
        }
    }

    /// The chunks of a piece that are asked for, in order.
    pub fn wanted_chunks(&self, piece: u32) -> Range<u32> {
        let first = self.geometry.chunk_of(piece, 0);
        first..first + self.wanted_piece_len(piece).div_ceil(CHUNK_BYTES)
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;
    use crate::base::ids::InfoHash;
    use crate::storage::layout::{FileSpan, Layout};

    fn meta(lengths: &[(u64, bool)], piece_bytes: u32) -> TorrentMeta {
        let layout = Layout::new(lengths.iter().map(|&(length, pad)| FileSpan { length, pad }));
        let plain = TorrentMeta::plain(InfoHash([0; 20]), layout.total_bytes(), piece_bytes);
        TorrentMeta { layout, ..plain }
    }

    #[test]
    fn blocks_end_where_content_ends_and_blocks_of_padding_do_not_exist() {
        // A file of a chunk, a block and a byte, padded to 1 MiB; one of 5 bytes behind it.
        let length = u64::from(CHUNK_BYTES + BLOCK_BYTES + 1);
        let meta = meta(&[(length, false), ((1 << 20) - length, true), (5, false)], 1 << 20);
        assert_eq!(meta.wanted_chunks(0).collect::<Vec<_>>(), [0, 1]);
        assert_eq!((0..4).map(|chunk| meta.wanted_blocks(chunk)).collect::<Vec<_>>(), [16, 2, 0, 0]);
        assert_eq!(meta.wanted_block(0, 15), meta.geometry.block(0, 15));
        assert_eq!(meta.wanted_block(1, 0).length, BLOCK_BYTES);
        assert_eq!(meta.wanted_block(1, 1), BlockRef { length: 1, ..meta.geometry.block(1, 1) });
        assert_eq!((meta.wanted_piece_len(1), meta.wanted_block(4, 0).length), (5, 5));
    }

    #[test]
    fn padding_in_the_midst_of_a_piece_and_a_piece_of_it_alone_are_asked_for() {
        let block = u64::from(BLOCK_BYTES);
        let meta = meta(&[(9, false), (block - 9, true), (9, false), (3 * block - 9, true)], 2 * BLOCK_BYTES);
        assert_eq!(meta.wanted_piece_len(0), BLOCK_BYTES + 9);
        assert_eq!(meta.wanted_block(0, 0).length, BLOCK_BYTES);
        assert_eq!(meta.wanted_piece_len(1), 2 * BLOCK_BYTES, "nothing else is there");
    }
}
