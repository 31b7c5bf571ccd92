//! A torrent of a seed's choice: sizes, files that start and end anywhere, padding, payload.

use std::rc::Rc;

use super::content::Content;
use super::disk::{Disk, SimFile};
use super::profile::{PPM, chance, draw, index};
use crate::base::geometry::Geometry;
use crate::base::rng::Rng;
use crate::base::units::{BLOCK_BYTES, PAGE_BYTES};
use crate::hash::sha1;
use crate::shared::torrent::TorrentMeta;
use crate::storage::journal::{FileIdentity, Subject};
use crate::storage::layout::{FileIndex, FileSpan, Layout};

/// What all nodes of a run fetch.
#[derive(Clone, Debug)]
pub struct SimTorrent {
    /// Its payload.
    pub content: Rc<Content>,
    /// Its files.
    pub layout: Layout,
    /// SHA-1 of each piece.
    pub piece_hashes: Vec<[u8; 20]>,
}

/// Blocks per piece that a seed chooses from: powers of two and others, up to three chunks.
const PIECE_BLOCKS: [u32; 10] = [1, 2, 3, 4, 5, 8, 16, 17, 32, 40];

impl SimTorrent {
    /// A torrent of the seed's choice.
    pub fn from_seed(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x0074_6f72_7265_6e74);
        let piece_bytes = PIECE_BLOCKS[index(&mut rng, PIECE_BLOCKS.len())] * BLOCK_BYTES;
        let total = match rng.below(8) {
            0 => draw(&mut rng, (1, 100_000)),
            1 => draw(&mut rng, (1 << 20, 4 << 20)),
            _ => draw(&mut rng, (100_000, 1 << 20)),
        };
        let layout = Layout::new(files(&mut rng, total, piece_bytes).into_iter());
        let geometry = Geometry::new(layout.total_bytes(), piece_bytes);
        let mut content = Content::from_seed(seed, geometry);
        for file in (0..layout.file_count()).map(FileIndex).filter(|&file| layout.is_pad(file)) {
            let start = layout.file_start(file) as usize;
            content.bytes[start..start + layout.file_len(file) as usize].fill(0);
        }
        let pieces = 0..geometry.piece_count();
        let piece_hashes = pieces.map(|piece| sha1::digest(content.piece(piece))).collect();
        Self { content: Rc::new(content), layout, piece_hashes }
    }

    /// A torrent of one file and no surprises.
    pub fn plain(seed: u64, total_bytes: u64, piece_bytes: u32) -> Self {
        let layout = Layout::new(std::iter::once(FileSpan { length: total_bytes, pad: false }));
        let content = Content::from_seed(seed, Geometry::new(total_bytes, piece_bytes));
        let pieces = 0..content.geometry.piece_count();
        let piece_hashes = pieces.map(|piece| sha1::digest(content.piece(piece))).collect();
        Self { content: Rc::new(content), layout, piece_hashes }
    }

    /// Its sizes.
    pub fn geometry(&self) -> Geometry {
        self.content.geometry
    }

    /// What workers are told of it.
    pub fn meta(&self) -> TorrentMeta {
        let (info_hash, geometry) = (self.content.info_hash, self.geometry());
        TorrentMeta {
            piece_hashes: self.piece_hashes.clone().into(),
            layout: self.layout.clone(),
            ..TorrentMeta::plain(info_hash, geometry.total_bytes, geometry.piece_bytes)
        }
    }

    /// What its journals are about.
    pub fn subject(&self) -> Subject {
        let file_count = self.layout.file_count();
        Subject { info_hash: self.content.info_hash, geometry: self.geometry(), file_count, secret_id: 1 }
    }

    /// The name of a file on a simulated disk.
    pub fn file_name(file: FileIndex) -> String {
        format!("file {}", file.0)
    }

    /// The files that hold bytes, on a disk; `None` for padding, empty files and missing ones.
    pub fn open_files(&self, disk: &Disk) -> Vec<Option<SimFile>> {
        let open = |file: FileIndex| {
            let wanted = !self.layout.is_pad(file) && self.layout.file_len(file) > 0;
            wanted.then(|| disk.find(&Self::file_name(file))).flatten()
        };
        (0..self.layout.file_count()).map(|file| open(FileIndex(file))).collect()
    }

    /// What the files on a disk look like, as a start compares them with the journal.
    pub fn identities(&self, disk: &Disk) -> Vec<Option<FileIdentity>> {
        let identity = |file: FileIndex| {
            let found = disk.find(&Self::file_name(file)).filter(|_| !self.layout.is_pad(file))?;
            let (len, inode) = (disk.len(found), u64::from(found.number) + 1);
            Some(FileIdentity { len, mtime_ns: 1, ctime_ns: 1, inode, dev: 1 })
        };
        (0..self.layout.file_count()).map(|file| identity(FileIndex(file))).collect()
    }

    /// The bytes of a piece as `image` has them; zeros where a file is missing or short.
    pub fn piece_on_disk<'a>(
        &self,
        disk: &'a Disk,
        piece: u32,
        image: impl Fn(&'a Disk, SimFile) -> &'a [u8],
    ) -> Vec<u8> {
        let (start, len) = (self.geometry().piece_start(piece), self.geometry().piece_len(piece));
        let mut bytes = vec![0; len as usize];
        for extent in self.layout.extents(start, len) {
            let found = extent.file.and_then(|file| disk.find(&Self::file_name(file)));
            let Some(found) = found else { continue };
            let all = image(disk, found);
            let from = (extent.file_offset as usize).min(all.len());
            let part = &all[from..all.len().min(from + extent.len as usize)];
            bytes[extent.offset as usize..][..part.len()].copy_from_slice(part);
        }
        bytes
    }

    /// Writes all files, durably: the disk of a node that seeds.
    pub fn put_on(&self, disk: &mut Disk) {
        for file in self.layout.disk_files() {
            let start = self.layout.file_start(file) as usize;
            let bytes = &self.content.bytes[start..start + self.layout.file_len(file) as usize];
            let found = disk.open(&Self::file_name(file));
            disk.write(found, 0, bytes).expect("a seed's disk has room for the torrent");
            let mark = disk.sync_begin();
            disk.sync_end(found, mark);
        }
    }
}

/// Files of about `total` bytes: one, or several that start on pages or anywhere, some of them empty,
/// perhaps padded to pieces (BEP 47).
fn files(rng: &mut Rng, total: u64, piece_bytes: u32) -> Vec<FileSpan> {
    let count = if chance(rng, PPM / 3) { 1 } else { 2 + u64::from(rng.below(6)) };
    let (padded, paged) = (chance(rng, PPM / 3), chance(rng, PPM / 3));
    let mut files = Vec::new();
    let mut end = 0;
    for left in (1..=count).rev() {
        let mean = (total.saturating_sub(end) / left).max(1);
        let mut length = match rng.below(8) {
            0 if left > 1 => 0,
            1 => draw(rng, (1, u64::from(PAGE_BYTES))),
            _ => draw(rng, (mean / 2 + 1, mean * 3 / 2 + 1)),
        };
        if paged {
            length = length.next_multiple_of(u64::from(PAGE_BYTES));
        }
        files.push(FileSpan { length, pad: false });
        end += length;
        let pad = end.next_multiple_of(u64::from(piece_bytes)) - end;
        if padded && left > 1 && pad > 0 {
            files.push(FileSpan { length: pad, pad: true });
            end += pad;
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{Profile, World};

    #[test]
    fn a_torrent_that_was_put_on_a_disk_is_right_there() {
        for seed in 0..40 {
            let torrent = SimTorrent::from_seed(seed);
            let world = World::new(seed, Profile::calm());
            let host = world.add_host();
            world.disk(host, |disk, _, _| {
                torrent.put_on(disk);
                for piece in 0..torrent.geometry().piece_count() {
                    let bytes = torrent.piece_on_disk(disk, piece, Disk::durable);
                    assert_eq!(sha1::digest(&bytes), torrent.piece_hashes[piece as usize]);
                }
            });
        }
    }
}
