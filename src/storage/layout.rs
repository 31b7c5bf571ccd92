//! Which file each byte of a torrent lies in.
//!
//! Bytes of files that nobody wants, and that yet share a piece with a wanted one, lie *apart*: all of them
//! in one part file outside the payload, each at its offset in the torrent, so that their place depends on
//! nothing but the torrent. The part file counts as one more file, behind the last.

use crate::base::geometry::Geometry;

/// A file of the torrent, counted in payload order, padding included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileIndex(pub u32);

/// What the layout needs to know of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSpan {
    /// Size in bytes.
    pub length: u64,
    /// A padding file (BEP 47): all zero bytes, never on disk.
    pub pad: bool,
}

/// A run of bytes that lie together in one file, or in no file at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where the bytes lie; `None` is padding, which is all zeros.
    pub file: Option<FileIndex>,
    /// Offset in that file, in bytes.
    pub file_offset: u64,
    /// Offset in the range that was asked for, in bytes.
    pub offset: u32,
    /// Length in bytes; never 0.
    pub len: u32,
}

/// The files of a torrent, end to end.
///
/// Invariant: `starts` ascends and has one more entry than there are files, the last being the total.
#[derive(Clone, Debug)]
pub struct Layout {
    starts: Box<[u64]>,
    pads: Box<[bool]>,
    /// Files that lie apart; `None` if there are none.
    apart: Option<Box<[bool]>>,
    has_pads: bool,
}

impl Layout {
    /// Files in payload order; files of length 0 keep their index. Panics if the lengths overflow
    /// 64 bits: parsers check first.
    pub fn new(files: impl Iterator<Item = FileSpan>) -> Self {
        let (mut starts, mut pads) = (vec![0], Vec::new());
        let mut end = 0u64;
        for file in files {
            end = end.checked_add(file.length).expect("parsers bound the sum of all file lengths");
            starts.push(end);
            pads.push(file.pad);
        }
        let has_pads = pads.contains(&true);
        Self { starts: starts.into(), pads: pads.into(), apart: None, has_pads }
    }

    /// The same with files that lie apart, one entry per file. Panics if there are more or fewer.
    pub fn with_apart(mut self, apart: Vec<bool>) -> Self {
        assert_eq!(apart.len(), self.pads.len());
        self.apart = apart.contains(&true).then(|| apart.into());
        self
    }

    /// The part file.
    pub fn parts(&self) -> FileIndex {
        FileIndex(self.file_count())
    }

    /// Whether the file lies apart. The part file itself does not.
    pub fn is_apart(&self, file: FileIndex) -> bool {
        self.apart.as_ref().is_some_and(|apart| apart.get(file.0 as usize) == Some(&true))
    }

    /// Whether any file lies apart.
    pub const fn has_apart(&self) -> bool {
        self.apart.is_some()
    }

    /// How many files there are, padding included.
    pub fn file_count(&self) -> u32 {
        self.pads.len() as u32
    }

    /// Payload of all files together, padding included, in bytes.
    pub fn total_bytes(&self) -> u64 {
        self.starts[self.pads.len()]
    }

    /// Size of a file in bytes. Panics beyond the last file, as do all that take a file.
    pub fn file_len(&self, file: FileIndex) -> u64 {
        self.starts[file.0 as usize + 1] - self.file_start(file)
    }

    /// Offset of a file in the torrent, in bytes.
    pub fn file_start(&self, file: FileIndex) -> u64 {
        self.starts[file.0 as usize]
    }

    /// Whether the file is padding, which the part file is not.
    pub fn is_pad(&self, file: FileIndex) -> bool {
        file != self.parts() && self.pads[file.0 as usize]
    }

    /// Whether any file is padding.
    pub const fn has_pads(&self) -> bool {
        self.has_pads
    }

    /// How many of `len` bytes from offset `start` there are without the padding at their end, and without
    /// what lies beyond the end of the torrent.
    pub fn content_len(&self, start: u64, len: u32) -> u32 {
        let end = start.saturating_add(u64::from(len)).min(self.total_bytes());
        if !self.has_pads || end <= start {
            return end.saturating_sub(start) as u32;
        }
        // The first file that ends at or behind `end`; what follows it does not matter.
        let mut file = self.starts.partition_point(|&at| at < end).saturating_sub(1);
        let mut content_end = end;
        while content_end > start && (self.pads[file] || self.starts[file] == self.starts[file + 1]) {
            content_end = content_end.min(self.starts[file]);
            let Some(before) = file.checked_sub(1) else { break };
            file = before;
        }
        content_end.saturating_sub(start) as u32
    }

    /// Every file of the torrent that exists on disk, empty ones included. The part file is not of the
    /// torrent.
    pub fn disk_files(&self) -> impl Iterator<Item = FileIndex> {
        (0..self.file_count()).map(FileIndex).filter(|&file| !self.is_pad(file) && !self.is_apart(file))
    }

    /// Every file that lies apart.
    pub fn apart_files(&self) -> impl Iterator<Item = FileIndex> {
        (0..self.file_count()).map(FileIndex).filter(|&file| !self.is_pad(file) && self.is_apart(file))
    }

    /// The runs that make up `len` bytes from offset `start` of the torrent, ascending; what lies
    /// beyond the end is left out, and so are empty files.
    pub fn extents(&self, start: u64, len: u32) -> impl Iterator<Item = Extent> {
        self.runs(start, len).map(|(file, extent)| Extent {
            file: if self.is_pad(file) { None } else { Some(file) },
            ..extent
        })
    }

    /// The files on disk that hold bytes of piece `piece`, ascending.
    pub fn files_of_piece(&self, geometry: Geometry, piece: u32) -> impl Iterator<Item = FileIndex> {
        let (start, len) = (geometry.piece_start(piece), geometry.piece_len(piece));
        self.extents(start, len).filter_map(|extent| extent.file)
    }

    /// The pieces that hold bytes of `file`; empty for an empty file.
    pub fn pieces_of_file(&self, geometry: Geometry, file: FileIndex) -> std::ops::Range<u32> {
        let (start, len) = (self.file_start(file), self.file_len(file));
        let piece_bytes = u64::from(geometry.piece_bytes);
        let first = (start / piece_bytes) as u32;
        if len == 0 { first..first } else { first..((start + len - 1) / piece_bytes) as u32 + 1 }
    }

    /// As `extents`, with the index of padding files too.
    pub(super) fn runs(&self, start: u64, len: u32) -> impl Iterator<Item = (FileIndex, Extent)> {
        let end = start.saturating_add(u64::from(len)).min(self.total_bytes());
        // The last file that starts at or before `start` holds it: empty files come earlier.
        let mut file = self.starts.partition_point(|&at| at <= start).saturating_sub(1);
        let mut at = start;
        std::iter::from_fn(move || {
            while at < end {
                let (file_start, file_end) = (self.starts[file], self.starts[file + 1]);
                let index = FileIndex(file as u32);
                file += 1;
                if file_end > at {
                    let run = (file_end.min(end) - at) as u32;
                    let offset = (at - start) as u32;
                    let (index, file_offset) = match self.is_apart(index) && !self.is_pad(index) {
                        true => (self.parts(), at),
                        false => (index, at - file_start),
                    };
                    at += u64::from(run);
                    return Some((index, Extent { file: Some(index), file_offset, offset, len: run }));
                }
            }
            None
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(lengths: &[(u64, bool)]) -> Layout {
        Layout::new(lengths.iter().map(|&(length, pad)| FileSpan { length, pad }))
    }

    /// One entry per byte: the file, unless padding, and the offset in the file.
    fn oracle(lengths: &[(u64, bool)]) -> Vec<(Option<FileIndex>, u64)> {
        let bytes = lengths.iter().enumerate().flat_map(|(index, &(length, pad))| {
            let file = if pad { None } else { Some(FileIndex(index as u32)) };
            (0..length).map(move |offset| (file, offset))
        });
        bytes.collect()
    }

    /// All torrents of up to 4 files of 0 to 3 bytes, some of them padding, and all ranges in them.
    #[test]
    fn extents_of_all_small_torrents_equal_a_byte_by_byte_map() {
        for shape in 0..8u32.pow(4) {
            let files = (0..4).map(|at| shape / 8u32.pow(at) % 8);
            let lengths: Vec<_> = files.map(|code| (u64::from(code % 4), code >= 4)).collect();
            let (layout, bytes) = (layout(&lengths), oracle(&lengths));
            assert_eq!(layout.total_bytes(), bytes.len() as u64);
            for start in 0..=bytes.len() + 1 {
                for len in 0..=bytes.len() + 2 - start {
                    check_range(&layout, &bytes, start, len);
                    check_content(&layout, &bytes, start, len);
                }
            }
        }
    }

    fn check_content(layout: &Layout, bytes: &[(Option<FileIndex>, u64)], start: usize, len: usize) {
        let range = &bytes[start.min(bytes.len())..(start + len).min(bytes.len())];
        let content = range.iter().rposition(|(file, _)| file.is_some()).map_or(0, |last| last + 1);
        assert_eq!(layout.content_len(start as u64, len as u32) as usize, content, "{start} {len}");
    }

    fn check_range(layout: &Layout, bytes: &[(Option<FileIndex>, u64)], start: usize, len: usize) {
        let mut at = start;
        for extent in layout.extents(start as u64, len as u32) {
            assert!(extent.len > 0);
            assert_eq!(extent.offset as usize, at - start);
            for step in 0..u64::from(extent.len) {
                assert_eq!(bytes[at], (extent.file, extent.file_offset + step));
                at += 1;
            }
        }
        assert_eq!(at, (start + len).min(bytes.len()).max(start));
    }

    #[test]
    fn pieces_and_files_name_each_other() {
        let layout = layout(&[(0, false), (20_000, false), (0, false), (12_768, true), (40_000, false)]);
        let geometry = Geometry::new(layout.total_bytes(), 16 << 10);
        for file in layout.disk_files() {
            let pieces = layout.pieces_of_file(geometry, file);
            for piece in 0..geometry.piece_count() {
                let named = layout.files_of_piece(geometry, piece).any(|other| other == file);
                assert_eq!(named, pieces.contains(&piece), "{file:?} {piece}");
            }
        }
        assert_eq!(layout.disk_files().count(), 4);
    }

    /// As above, with every choice of files that lie apart: their bytes are where the torrent has them.
    #[test]
    fn bytes_of_files_apart_lie_at_their_offset_in_the_torrent() {
        for shape in 0..6u32.pow(3) * 8 {
            let codes = (0..3).map(|at| shape / 8 / 6u32.pow(at) % 6);
            let lengths: Vec<_> = codes.map(|code| (u64::from(code % 3), code >= 3)).collect();
            let apart: Vec<bool> = (0..3).map(|at| shape >> at & 1 == 1).collect();
            let plain = layout(&lengths);
            let split = plain.clone().with_apart(apart.clone());
            assert_eq!(split.has_apart(), apart.contains(&true));
            let lies_apart = |file: FileIndex| apart[file.0 as usize];
            let bytes: Vec<_> = (0u64..).zip(oracle(&lengths)).collect();
            let moved = bytes.iter().map(|&(at, (file, offset))| match file {
                Some(file) if lies_apart(file) => (Some(split.parts()), at),
                _ => (file, offset),
            });
            let moved: Vec<_> = moved.collect();
            for start in 0..=moved.len() {
                check_range(&split, &moved, start, moved.len() - start);
            }
            assert!(split.disk_files().all(|file| !lies_apart(file)));
            assert!(split.apart_files().all(lies_apart));
            assert_eq!(split.disk_files().count() + split.apart_files().count(), plain.disk_files().count());
        }
    }

    #[test]
    fn a_range_beyond_the_end_is_cut_and_never_overflows() {
        let layout = layout(&[(5, false)]);
        assert_eq!(layout.extents(u64::MAX, u32::MAX).count(), 0);
        assert_eq!(layout.extents(5, 1).count(), 0);
        assert_eq!(layout.extents(4, u32::MAX).map(|extent| extent.len).collect::<Vec<_>>(), [1]);
        assert_eq!(Layout::new(std::iter::empty()).extents(0, 10).count(), 0);
    }
}
