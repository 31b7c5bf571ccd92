//! Which pieces are wanted when some files are not.
//!
//! A piece is wanted if it has bytes of a wanted file, as much as the most wanted of them.

use super::layout::{FileIndex, Layout};
use crate::base::bitfield::Bitfield;
use crate::base::geometry::Geometry;
use crate::base::priority::Priority;

/// What is wanted of a torrent; it never changes while the torrent is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    files: Box<[Priority]>,
    pieces: Box<[Priority]>,
    bits: Bitfield,
    bytes: u64,
}

impl Wanted {
    /// Of the priority of each file, padding counted, which is never wanted.
    pub fn new(layout: &Layout, geometry: Geometry, files: &[Priority]) -> Self {
        assert_eq!(files.len(), layout.file_count() as usize);
        let mut pieces = vec![Priority::Skip; geometry.piece_count() as usize];
        let mut bits = Bitfield::new(geometry.piece_count());
        let (mut files, mut bytes): (Box<[Priority]>, u64) = (files.into(), 0);
        for (file, priority) in (0u32..).map(FileIndex).zip(&mut files) {
            if layout.is_pad(file) {
                *priority = Priority::Skip;
            }
            if !priority.is_wanted() {
                continue;
            }
            bytes += layout.file_len(file);
            for piece in layout.pieces_of_file(geometry, file) {
                let class = &mut pieces[piece as usize];
                *class = (*class).max(*priority);
                bits.set(piece);
            }
        }
        Self { files, pieces: pieces.into(), bits, bytes }
    }

    /// How much a file is wanted. Panics beyond the last.
    pub fn file(&self, file: FileIndex) -> Priority {
        self.files[file.0 as usize]
    }

    /// How much each file is wanted, padding counted.
    pub fn files(&self) -> &[Priority] {
        &self.files
    }

    /// How much a piece is wanted. Panics beyond the last.
    pub fn piece(&self, piece: u32) -> Priority {
        self.pieces[piece as usize]
    }

    /// The wanted pieces.
    pub const fn pieces(&self) -> &Bitfield {
        &self.bits
    }

    /// Size of the wanted files together, in bytes.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// How many bytes of a file lie in pieces for which `has` holds.
pub fn bytes_in(layout: &Layout, geometry: Geometry, file: FileIndex, has: impl Fn(u32) -> bool) -> u64 {
    let (start, end) = (layout.file_start(file), layout.file_start(file) + layout.file_len(file));
    let part = |piece: u32| {
        let piece_end = geometry.piece_start(piece) + u64::from(geometry.piece_len(piece));
        piece_end.min(end) - geometry.piece_start(piece).max(start)
    };
    layout.pieces_of_file(geometry, file).filter(|&piece| has(piece)).map(part).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;
    use crate::storage::layout::FileSpan;

    const PIECE: u32 = 16 << 10;

    /// Against a map byte by byte, in units of a quarter of a piece.
    #[test]
    fn pieces_of_random_torrents_equal_a_naive_map() {
        const UNIT: u64 = PIECE as u64 / 4;
        let all = [Priority::Skip, Priority::Low, Priority::Normal, Priority::High];
        let mut rng = Rng::new(1);
        for round in 0..2_000 {
            let count = 1 + rng.below(6);
            let spans: Vec<FileSpan> = (0..count)
                .map(|_| FileSpan { length: u64::from(rng.below(11)) * UNIT, pad: rng.below(5) == 0 })
                .collect();
            let files: Vec<Priority> = (0..count).map(|_| all[rng.below(4) as usize]).collect();
            let layout = Layout::new(spans.iter().copied());
            let geometry = Geometry::new(layout.total_bytes(), PIECE);
            let wanted = Wanted::new(&layout, geometry, &files);
            let units: Vec<(usize, Priority)> = spans
                .iter()
                .zip(&files)
                .enumerate()
                .flat_map(|(file, (span, &priority))| {
                    let priority = if span.pad { Priority::Skip } else { priority };
                    (0..span.length / UNIT).map(move |_| (file, priority))
                })
                .collect();
            let naive: Vec<Priority> = units
                .chunks(4)
                .map(|units| units.iter().map(|(_, priority)| *priority).max().unwrap())
                .collect();
            for (piece, &priority) in (0u32..).zip(&naive) {
                assert_eq!(wanted.piece(piece), priority, "round {round}, piece {piece}");
                assert_eq!(wanted.pieces().get(piece), priority.is_wanted());
            }
            assert_eq!(wanted.pieces().len() as usize, naive.len());
            let bytes = units.iter().filter(|(_, priority)| priority.is_wanted()).count() as u64 * UNIT;
            assert_eq!(wanted.bytes(), bytes);
            let has = |piece: u32| !(piece + round).is_multiple_of(3);
            for file in 0..count {
                let naive = (0u32..).zip(units.chunks(4)).filter(|(piece, _)| has(*piece));
                let naive = naive.flat_map(|(_, units)| units).filter(|(of, _)| *of == file as usize);
                let bytes = bytes_in(&layout, geometry, FileIndex(file), has);
                assert_eq!(bytes, naive.count() as u64 * UNIT, "round {round}, file {file}");
            }
        }
    }

    #[test]
    fn an_empty_file_that_is_wanted_wants_no_piece() {
        let lengths = [0, u64::from(PIECE), 0];
        let layout = Layout::new(lengths.into_iter().map(|length| FileSpan { length, pad: false }));
        let geometry = Geometry::new(layout.total_bytes(), PIECE);
        let wanted = Wanted::new(&layout, geometry, &[Priority::High, Priority::Skip, Priority::Normal]);
        assert_eq!((wanted.pieces().count(), wanted.bytes()), (0, 0));
        assert_eq!(wanted.file(FileIndex(2)), Priority::Normal);
    }
}
