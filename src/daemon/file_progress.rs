//! How far each file is.

use crate::base::limits::FILES_TOLD_MAX;
use crate::proto::metainfo::Metainfo;
use crate::shared::torrent::SharedTorrent;
use crate::storage::layout::FileIndex;
use crate::storage::wanted::{Wanted, bytes_in};

/// How far the wanted files of a torrent are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesStatus {
    /// Files that are wanted.
    pub wanted: u32,
    /// Of these, files all of whose pieces are verified.
    pub done: u32,
    /// The first [`FILES_TOLD_MAX`] of those that are wanted.
    pub list: Vec<FileStatus>,
}

/// How far a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileStatus {
    /// Its number in the metainfo, padding counted.
    pub index: u32,
    /// Its path below the download directory, as the metainfo has it.
    pub path: String,
    /// Size in bytes.
    pub length: u64,
    /// Bytes in verified pieces.
    pub verified_bytes: u64,
}

impl FilesStatus {
    /// As it is now.
    pub fn of(metainfo: &Metainfo, shared: &SharedTorrent) -> Self {
        let mut status = Self { wanted: 0, done: 0, list: Vec::new() };
        for (index, entry) in (0u32..).zip(&metainfo.files) {
            let file = FileIndex(index);
            let is_wanted = shared.wanted.as_ref().is_none_or(|wanted| wanted.file(file).is_wanted());
            if entry.pad || !is_wanted {
                continue;
            }
            let verified_bytes = bytes_of(shared, file, |piece| shared.has(piece));
            status.wanted += 1;
            status.done += u32::from(verified_bytes == entry.length);
            if status.list.len() < FILES_TOLD_MAX {
                let (path, length) = (entry.path.join("/"), entry.length);
                status.list.push(FileStatus { index, path, length, verified_bytes });
            }
        }
        status
    }
}

/// Bytes of wanted files that lie in pieces for which `has` holds.
pub fn wanted_bytes(shared: &SharedTorrent, wanted: &Wanted, has: impl Fn(u32) -> bool) -> u64 {
    let files = (0u32..).map(FileIndex).zip(wanted.files()).filter(|(_, priority)| priority.is_wanted());
    files.map(|(file, _)| bytes_of(shared, file, &has)).sum()
}

fn bytes_of(shared: &SharedTorrent, file: FileIndex, has: impl Fn(u32) -> bool) -> u64 {
    bytes_in(&shared.meta.layout, shared.meta.geometry, file, has)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::bitfield::Bitfield;
    use crate::base::priority::Priority;
    use crate::daemon::files::layout_of;
    use crate::daemon::files::tests::metainfo;
    use crate::shared::torrent::{TorrentLimits, TorrentMeta};

    fn shared(metainfo: &Metainfo, wanted: Option<&[Priority]>, have: &[u32]) -> Arc<SharedTorrent> {
        let (geometry, layout) = (metainfo.geometry, layout_of(metainfo));
        let mut bits = Bitfield::new(geometry.piece_count());
        for &piece in have {
            bits.set(piece);
        }
        let wanted = wanted.map(|wanted| Arc::new(Wanted::new(&layout, geometry, wanted)));
        let plain = TorrentMeta::plain(metainfo.info_hash, geometry.total_bytes, geometry.piece_bytes);
        let meta = TorrentMeta { layout, ..plain };
        SharedTorrent::with_wanted(meta, &bits, 1, TorrentLimits::default(), wanted)
    }

    #[test]
    fn files_count_by_the_bytes_that_they_have_in_verified_pieces() {
        const PIECE: u64 = 16 << 10;
        let info = metainfo(&[("t/a", PIECE + 100), ("t/.pad/1", 50), ("t/b", PIECE), ("t/empty", 0)]);
        let whole = FilesStatus::of(&info, &shared(&info, None, &[1]));
        let of = |status: &FilesStatus| -> Vec<(u32, u64)> {
            status.list.iter().map(|file| (file.index, file.verified_bytes)).collect()
        };
        assert_eq!((whole.wanted, whole.done), (3, 1), "an empty file is there");
        assert_eq!(of(&whole), [(0, 100), (2, PIECE - 150), (3, 0)]);
        let wanted = [Priority::Skip, Priority::Skip, Priority::High, Priority::Skip];
        let shared = shared(&info, Some(&wanted), &[1, 2]);
        let part = FilesStatus::of(&info, &shared);
        assert_eq!((part.wanted, part.done, of(&part)), (1, 1, vec![(2, PIECE)]));
        assert!(shared.is_satisfied() && part.list[0].path == "t/b");
        let wanted = shared.wanted.as_ref().unwrap();
        assert_eq!(wanted_bytes(&shared, wanted, |piece| piece == 2), 150);
    }

    #[test]
    fn so_many_files_are_told_and_all_are_counted() {
        for count in [FILES_TOLD_MAX - 1, FILES_TOLD_MAX, FILES_TOLD_MAX + 1] {
            let names: Vec<String> = (0..count).map(|number| format!("t/{number}")).collect();
            let files: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 1)).collect();
            let info = metainfo(&files);
            let status = FilesStatus::of(&info, &shared(&info, None, &[]));
            assert_eq!((status.wanted as usize, status.list.len()), (count, count.min(FILES_TOLD_MAX)));
        }
    }
}
