//! What a torrent's journal holds, as values: identities of files, and pieces that are durable.
//! `codec` turns them into bytes and back.
//!
//! A journal belongs to one torrent in one download directory. It is appended to, never changed in
//! place, and now and then replaced by a snapshot of what it says.

use crate::base::bitfield::Bitfield;
use crate::base::geometry::Geometry;
use crate::base::ids::InfoHash;

pub mod codec;

pub use codec::{Corrupt, Replay, Writer, replay, snapshot};

/// By what a file is recognised after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileIdentity {
    /// Size in bytes.
    pub len: u64,
    /// Last change of the content, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Last change of content or attributes, in nanoseconds since 1970.
    pub ctime_ns: i64,
    /// Inode number.
    pub inode: u64,
    /// Device number.
    pub dev: u64,
}

impl FileIdentity {
    /// Whether both are the same file with the same size, whenever it was last written.
    pub const fn same_file(&self, other: &Self) -> bool {
        self.len == other.len && self.inode == other.inode && self.dev == other.dev
    }
}

/// One fact of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The node has begun to use the torrent; a `Clean` before it no longer counts.
    Opened,
    /// The node has stopped; counts only as the last record.
    Clean,
    /// What a file looked like when it was opened, or at the clean stop.
    File {
        /// Index of the file, padding counted; one more than the last is the part file (`storage/layout.rs`).
        file: u32,
        /// See [`FileIdentity`].
        identity: FileIdentity,
    },
    /// A piece has been verified and has reached the disk.
    Durable {
        /// Index of the piece.
        piece: u32,
        /// The secret-seeded XXH3 of each of its chunks, in order.
        fingerprints: Box<[u64]>,
    },
    /// A piece that was durable has been found missing or spoilt.
    Lost {
        /// Index of the piece.
        piece: u32,
    },
}

/// What a journal is about: its first record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Which torrent.
    pub info_hash: InfoHash,
    /// Its sizes.
    pub geometry: Geometry,
    /// Number of files, padding counted.
    pub file_count: u32,
    /// Tells whether the fingerprints were made with the node's present secret; says nothing of it.
    pub secret_id: u64,
}

impl Subject {
    /// Chunks of piece `piece`.
    pub const fn chunks_of(&self, piece: u32) -> usize {
        self.geometry.piece_len(piece).div_ceil(crate::base::units::CHUNK_BYTES) as usize
    }
}

/// All that the records of a journal say together.
///
/// Invariant: `fingerprints[piece]` has one entry per chunk if the piece is durable, none otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalState {
    subject: Subject,
    files: Vec<Option<FileIdentity>>,
    fingerprints: Vec<Box<[u64]>>,
    clean: bool,
}

impl JournalState {
    /// Nothing durable, no file known.
    pub fn new(subject: Subject) -> Self {
        let pieces = subject.geometry.piece_count() as usize;
        Self {
            subject,
            files: vec![None; subject.file_count as usize + 1],
            fingerprints: vec![Box::default(); pieces],
            clean: false,
        }
    }

    /// Adds what `record` says; false, and nothing changes, if it does not fit the torrent.
    pub fn apply(&mut self, record: &Record) -> bool {
        match record {
            Record::Opened | Record::Clean => {}
            Record::File { file, identity } => match self.files.get_mut(*file as usize) {
                Some(slot) => *slot = Some(*identity),
                None => return false,
            },
            Record::Durable { piece, fingerprints } => {
                let fits = fingerprints.len() == self.subject.chunks_of(*piece);
                match self.fingerprints.get_mut(*piece as usize) {
                    Some(slot) if fits => slot.clone_from(fingerprints),
                    _ => return false,
                }
            }
            Record::Lost { piece } => match self.fingerprints.get_mut(*piece as usize) {
                Some(slot) => *slot = Box::default(),
                None => return false,
            },
        }
        self.clean = matches!(record, Record::Clean);
        true
    }

    /// What the journal is about.
    pub const fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Whether the last record was the mark of a clean stop.
    pub const fn is_clean(&self) -> bool {
        self.clean
    }

    /// What is known of a file, the part file behind the last included; `None` also beyond that.
    pub fn file(&self, file: u32) -> Option<FileIdentity> {
        self.files.get(file as usize).copied().flatten()
    }

    /// Whether a piece is durable; false beyond the last.
    pub fn is_durable(&self, piece: u32) -> bool {
        !self.fingerprints(piece).is_empty()
    }

    /// The fingerprints of a durable piece's chunks; empty for any other.
    pub fn fingerprints(&self, piece: u32) -> &[u64] {
        self.fingerprints.get(piece as usize).map_or(&[], |slot| slot)
    }

    /// The durable pieces.
    pub fn durable(&self) -> Bitfield {
        let mut pieces = Bitfield::new(self.subject.geometry.piece_count());
        for piece in (0..pieces.len()).filter(|&piece| self.is_durable(piece)) {
            pieces.set(piece);
        }
        pieces
    }

    /// About how long a journal is that says this and no more, in bytes.
    pub fn snapshot_bytes(&self) -> u64 {
        let files = self.files.iter().flatten().count() as u64 * 64;
        let pieces: u64 = self
            .fingerprints
            .iter()
            .filter(|slot| !slot.is_empty())
            .map(|slot| 24 + 8 * slot.len() as u64)
            .sum();
        files + pieces
    }

    /// The fewest records that say the same, the mark of a clean stop excepted.
    pub fn records(&self) -> impl Iterator<Item = Record> {
        let files = (0u32..).zip(&self.files);
        let files = files.filter_map(|(file, slot)| slot.map(|identity| Record::File { file, identity }));
        let pieces = (0u32..).zip(&self.fingerprints).filter(|(_, slot)| !slot.is_empty());
        let pieces = pieces.map(|(piece, slot)| Record::Durable { piece, fingerprints: slot.clone() });
        files.chain(pieces)
    }
}
