//! The bytes of a journal: records as in `storage/frame.rs`, the first of them the subject.
//!
//! Checksums are seeded with the torrent's info hash and the record's number, so that a record of another
//! torrent or another place is refused like a damaged one. Replay believes everything before the first bad
//! record and nothing after it.

use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

use super::{FileIdentity, JournalState, Record, Subject};
use crate::base::limits::JOURNAL_RECORD_BYTES_MAX;
use crate::storage::frame::{self, Cursor, FRAME_BYTES, PREAMBLE_BYTES, Place};

const MAGIC: &[u8; 8] = b"troc-jnl";
const VERSION: u32 = 1;
const SUBJECT_BYTES: usize = 44;

const KIND_SUBJECT: u32 = 1;
const KIND_OPENED: u32 = 2;
const KIND_CLEAN: u32 = 3;
const KIND_FILE: u32 = 4;
const KIND_DURABLE: u32 = 5;
const KIND_LOST: u32 = 6;

/// Why a journal, or its end, cannot be used.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Corrupt {
    /// The beginning is damaged or was never a journal's.
    #[error("its beginning is damaged")]
    Damaged,
    /// Written by another version of the format.
    #[error("it has format version {found}, this troc reads version {VERSION}: use the troc that wrote it")]
    Version {
        /// What the file says.
        found: u32,
    },
    /// It belongs to another torrent, or to the same with other sizes.
    #[error("it belongs to another torrent")]
    OtherTorrent,
    /// Its fingerprints were made with a secret that this node no longer has.
    #[error("it was written under another node secret")]
    OtherSecret,
    /// Only its end is damaged, as a crash may leave it; `replay` says so by `whole`.
    #[error("its end is damaged")]
    Tail,
}

/// A journal as read.
#[derive(Clone, Debug)]
pub struct Replay {
    /// What the good records say together.
    pub state: JournalState,
    /// Goes on after the last good record: its `bytes` are the length of the good part.
    pub writer: Writer,
    /// Whether the good part is all there is. A torn last record is what a crash leaves.
    pub whole: bool,
}

/// Writes the records of a journal.
#[derive(Clone, Debug)]
pub struct Writer(Place);

impl Writer {
    /// A journal's beginning is put into `out`.
    pub fn begin(subject: &Subject, out: &mut Vec<u8>) -> Self {
        let before = out.len();
        out.extend_from_slice(&frame::preamble(MAGIC, VERSION));
        let mut body = Vec::with_capacity(SUBJECT_BYTES);
        body.extend_from_slice(&subject.info_hash.0);
        body.extend_from_slice(&subject.geometry.total_bytes.to_le_bytes());
        body.extend_from_slice(&subject.geometry.piece_bytes.to_le_bytes());
        body.extend_from_slice(&subject.file_count.to_le_bytes());
        body.extend_from_slice(&subject.secret_id.to_le_bytes());
        // The subject is not seeded with the info hash: a journal of another torrent is named as such.
        frame::put(out, KIND_SUBJECT, 0, &body);
        Self(Place::first(seed_of(subject), (out.len() - before) as u64))
    }

    /// Length of the journal with all records so far.
    pub const fn bytes(&self) -> u64 {
        self.0.bytes()
    }

    /// Puts the next record into `out`.
    pub fn push(&mut self, record: &Record, out: &mut Vec<u8>) {
        let (kind, body) = encode(record);
        assert!(body.len() <= JOURNAL_RECORD_BYTES_MAX, "pieces are at most PIECE_BYTES_MAX long");
        self.0.put(kind, &body, out);
    }
}

/// A new journal that says what `state` says, without a mark of a clean stop, and what then goes on.
pub fn snapshot(state: &JournalState) -> (Vec<u8>, Writer) {
    let mut out = Vec::new();
    let mut writer = Writer::begin(state.subject(), &mut out);
    for record in state.records() {
        writer.push(&record, &mut out);
    }
    (out, writer)
}

/// Reads a journal that should be about `subject`, up to the first bad record.
pub fn replay(bytes: &[u8], subject: &Subject) -> Result<Replay, Corrupt> {
    check_preamble(bytes)?;
    let head = frame::take(&bytes[PREAMBLE_BYTES..], 0, JOURNAL_RECORD_BYTES_MAX);
    let (kind, body) = head.ok_or(Corrupt::Damaged)?;
    check_subject(kind, body, subject)?;
    let mut state = JournalState::new(*subject);
    let mut place = Place::first(seed_of(subject), (PREAMBLE_BYTES + FRAME_BYTES + body.len()) as u64);
    while let Some((kind, body)) = place.take(bytes, JOURNAL_RECORD_BYTES_MAX) {
        let Some(record) = decode(kind, body) else { break };
        if !state.apply(&record) {
            break;
        }
        place.pass(body);
    }
    let whole = place.bytes() == bytes.len() as u64;
    if !whole {
        // What follows a clean mark may have been anything, an `Opened` among it.
        state.clean = false;
    }
    Ok(Replay { state, writer: Writer(place), whole })
}

fn check_preamble(bytes: &[u8]) -> Result<(), Corrupt> {
    match frame::version(bytes, MAGIC) {
        Some(VERSION) => Ok(()),
        Some(found) => Err(Corrupt::Version { found }),
        None => Err(Corrupt::Damaged),
    }
}

fn check_subject(kind: u32, body: &[u8], subject: &Subject) -> Result<(), Corrupt> {
    if kind != KIND_SUBJECT || body.len() != SUBJECT_BYTES {
        return Err(Corrupt::Damaged);
    }
    let mut expected = Vec::new();
    Writer::begin(subject, &mut expected);
    let expected = &expected[PREAMBLE_BYTES + FRAME_BYTES..];
    if body == expected {
        return Ok(());
    }
    let all_but_secret = SUBJECT_BYTES - 8;
    let same_torrent = body[..all_but_secret] == expected[..all_but_secret];
    Err(if same_torrent { Corrupt::OtherSecret } else { Corrupt::OtherTorrent })
}

fn seed_of(subject: &Subject) -> u64 {
    xxh3_64(&subject.info_hash.0)
}

fn encode(record: &Record) -> (u32, Vec<u8>) {
    match record {
        Record::Opened => (KIND_OPENED, Vec::new()),
        Record::Clean => (KIND_CLEAN, Vec::new()),
        Record::File { file, identity } => {
            let mut body = file.to_le_bytes().to_vec();
            body.extend_from_slice(&identity.len.to_le_bytes());
            body.extend_from_slice(&identity.mtime_ns.to_le_bytes());
            body.extend_from_slice(&identity.ctime_ns.to_le_bytes());
            body.extend_from_slice(&identity.inode.to_le_bytes());
            body.extend_from_slice(&identity.dev.to_le_bytes());
            (KIND_FILE, body)
        }
        Record::Durable { piece, fingerprints } => {
            let mut body = piece.to_le_bytes().to_vec();
            body.extend(fingerprints.iter().flat_map(|fingerprint| fingerprint.to_le_bytes()));
            (KIND_DURABLE, body)
        }
        Record::Lost { piece } => (KIND_LOST, piece.to_le_bytes().to_vec()),
    }
}

/// The record; `None` for an unknown kind or a body of the wrong size.
fn decode(kind: u32, body: &[u8]) -> Option<Record> {
    let mut cursor = Cursor(body);
    let record = match kind {
        KIND_OPENED => Record::Opened,
        KIND_CLEAN => Record::Clean,
        KIND_FILE => {
            let file = cursor.u32()?;
            let (len, mtime_ns, ctime_ns) = (cursor.u64()?, cursor.i64()?, cursor.i64()?);
            let (inode, dev) = (cursor.u64()?, cursor.u64()?);
            Record::File { file, identity: FileIdentity { len, mtime_ns, ctime_ns, inode, dev } }
        }
        KIND_DURABLE => {
            let piece = cursor.u32()?;
            let fingerprints = std::iter::from_fn(|| cursor.u64()).collect();
            Record::Durable { piece, fingerprints }
        }
        KIND_LOST => Record::Lost { piece: cursor.u32()? },
        _ => return None,
    };
    cursor.0.is_empty().then_some(record)
}

#[cfg(test)]
mod tests;
