//! A digest thread: SHA-1 of up to [`LANES`] pieces side by side, leaves of their trees, and fingerprints of
//! their chunks.

use std::ops::Range;

use crossbeam::channel::{Receiver, Sender};

use super::units::Job;
use super::{Buffer, Digests, Method, PieceDigest, PieceOutcome, Pool, UNIT_BYTES};
use crate::base::geometry::Geometry;
use crate::base::units::CHUNK_BYTES;
use crate::hash::merkle::{self, Hash};
use crate::hash::sha1::{LANES, Sha1, update_many};

/// What is digested side by side: at most one part for each lane.
pub(super) type Row = Vec<Part>;

/// What the reader hands to one lane of a digest thread; the parts of a piece arrive in order.
pub(super) struct Part {
    /// Below [`LANES`].
    pub(super) lane: usize,
    pub(super) piece: u32,
    /// Offset in the piece.
    pub(super) begin: u32,
    pub(super) content: Content,
}

/// What there is of a piece.
pub(super) enum Content {
    /// Bytes `range` of `buffer`; they may go on into later pieces.
    Bytes { buffer: Buffer, range: Range<usize> },
    /// The piece cannot be digested; none of it follows.
    Fault(PieceOutcome),
}

/// One digest thread.
pub(super) struct Digester<'a> {
    pub(super) job: &'a Job,
    pub(super) method: Method,
    pub(super) results: Sender<(u32, PieceOutcome)>,
    pub(super) pool: &'a Pool,
}

/// A piece in progress.
#[derive(Default)]
struct Lane {
    hasher: Sha1,
    leaves: Vec<Hash>,
    fingerprints: Vec<u64>,
}

/// What is left of a part.
struct Cursor<'a> {
    lane: usize,
    piece: u32,
    begin: u32,
    bytes: &'a [u8],
}

impl Digester<'_> {
    /// Digests what comes until nothing more can come.
    pub(super) fn run(&self, rows: &Receiver<Row>) {
        let mut lanes: [Lane; LANES] = Default::default();
        for row in rows {
            let mut parts = Vec::with_capacity(row.len());
            for Part { lane, piece, begin, content } in row {
                match content {
                    Content::Bytes { buffer, range } => parts.push((lane, piece, begin, buffer, range)),
                    Content::Fault(fault) => {
                        lanes[lane] = Lane::default();
                        let _ = self.results.send((piece, fault));
                    }
                }
            }
            let cursors = parts.iter().map(|(lane, piece, begin, buffer, range)| Cursor {
                lane: *lane,
                piece: *piece,
                begin: *begin,
                bytes: &buffer[range.clone()],
            });
            self.digest(&mut lanes, cursors.collect());
            parts.into_iter().for_each(|(.., buffer, _)| self.pool.give(buffer));
        }
    }

    /// Takes from each part what belongs to one piece, side by side, until nothing is left.
    fn digest(&self, lanes: &mut [Lane; LANES], mut cursors: Vec<Cursor<'_>>) {
        let geometry = self.job.geometry;
        while !cursors.is_empty() {
            let mut parts: [&[u8]; LANES] = [&[]; LANES];
            for cursor in &cursors {
                let part = cursor.of_piece(geometry);
                if self.method.digests.has_leaves() {
                    let real = self.job.real_len(cursor.piece).saturating_sub(cursor.begin) as usize;
                    merkle::push_leaves(&part[..part.len().min(real)], &mut lanes[cursor.lane].leaves);
                }
                parts[cursor.lane] = part;
            }
            self.append(lanes, parts);
            cursors.retain_mut(|cursor| {
                let lane = &mut lanes[cursor.lane];
                cursor.begin += parts[cursor.lane].len() as u32;
                cursor.bytes = &cursor.bytes[parts[cursor.lane].len()..];
                if cursor.begin == geometry.piece_len(cursor.piece) {
                    let _ = self.results.send((cursor.piece, self.outcome(std::mem::take(lane))));
                    (cursor.piece, cursor.begin) = (cursor.piece + 1, 0);
                }
                !cursor.bytes.is_empty()
            });
        }
    }

    fn append(&self, lanes: &mut [Lane; LANES], parts: [&[u8]; LANES]) {
        if let Some(fingerprint) = self.method.fingerprint {
            for (lane, part) in lanes.iter_mut().zip(parts) {
                // Parts of a piece begin at chunk boundaries: a unit is a whole number of chunks.
                let chunks = part.chunks(CHUNK_BYTES as usize);
                lane.fingerprints.extend(chunks.map(|chunk| fingerprint.of(chunk)));
            }
        }
        if self.method.digests.has_sha1() {
            let [a, b, c, d] = lanes;
            let hashers = [&mut a.hasher, &mut b.hasher, &mut c.hasher, &mut d.hasher];
            let mut parts = parts.into_iter();
            update_many(&mut hashers.map(|hasher| (hasher, parts.next().unwrap_or_default())));
        }
    }

    fn outcome(&self, Lane { hasher, leaves, fingerprints }: Lane) -> PieceOutcome {
        match self.method.digests {
            Digests::Nothing => PieceOutcome::Fingerprinted { fingerprints },
            digests => {
                let sha1 = digests.has_sha1().then(|| hasher.finish());
                PieceOutcome::Hashed { digest: PieceDigest { sha1, leaves }, fingerprints }
            }
        }
    }
}

impl<'a> Cursor<'a> {
    /// The bytes up to the end of the piece.
    fn of_piece(&self, geometry: Geometry) -> &'a [u8] {
        let left = (geometry.piece_len(self.piece) - self.begin) as usize;
        &self.bytes[..self.bytes.len().min(left)]
    }
}

const _: () = assert!(UNIT_BYTES.is_multiple_of(CHUNK_BYTES));
