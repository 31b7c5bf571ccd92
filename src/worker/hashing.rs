//! Which chunks are hashed in a turn, and the hashing itself.
//!
//! A chunk waits a little for others to be hashed beside it: side by side they take less than half of the
//! time. Begun pieces go first, because a piece holds the slots of all of its chunks until the last is
//! hashed. A turn hashes as much as waits when it begins to, however much that is: if it were less than a
//! turn brings the queue would grow, and with it the memory that holds what waits.

use std::collections::VecDeque;

use super::{Worker, disk};
use crate::base::ids::TorrentId;
use crate::base::time::{Instant, Span};
use crate::base::units::{BLOCK_BYTES, CHUNK_BYTES};
use crate::engine::action::Leaves;
use crate::hash::merkle::{self, Hash};
use crate::hash::sha1::{LANES, Sha1, update_many};
use crate::io::Io;
use crate::shared::judge::PieceDigest;
use crate::shared::torrent::TorrentMeta;

/// Bytes that one turn hashes at most besides what waits already: about a millisecond.
const HASH_BYTES_PER_TURN: u64 = 8 * CHUNK_BYTES as u64;

/// How long a chunk waits for others to be hashed beside it ([`LANES`]).
const HASH_WAIT: Span = Span::from_ms(2);

/// What was hashed of a piece so far, by each version that its torrent has.
#[derive(Clone, Debug, Default)]
pub(super) struct PieceHash {
    sha1: Sha1,
    leaves: Vec<Hash>,
}

/// A chunk to be hashed. Invariant: those that wait belong to different pieces, as the engine asks
/// for a piece's next chunk only when the one before is done.
#[derive(Clone, Copy, Debug)]
pub(super) struct HashJob {
    pub(super) torrent: TorrentId,
    pub(super) chunk: u32,
    pub(super) first: bool,
    pub(super) last: bool,
    pub(super) since: Instant,
}

/// Chunks that wait to be hashed.
#[derive(Debug, Default)]
pub(super) struct HashQueue {
    jobs: VecDeque<HashJob>,
    /// Pieces whose leaves are wanted, and whether they are right.
    leaves: VecDeque<(TorrentId, u32, Leaves)>,
}

impl HashQueue {
    /// Adds a chunk: of a piece of which some is hashed, in front of the others.
    pub(super) fn push(&mut self, job: HashJob) {
        if job.first {
            self.jobs.push_back(job);
        } else {
            self.jobs.push_front(job);
        }
    }

    /// Adds a piece whose leaves are wanted. Its slots stay as they are meanwhile.
    pub(super) fn push_leaves(&mut self, torrent: TorrentId, piece: u32, of: Leaves) {
        self.leaves.push_back((torrent, piece, of));
    }

    /// Whether a turn has to come for what waits, however few chunks that are.
    pub(super) fn is_pressing(&self) -> bool {
        self.is_row_full() || !self.leaves.is_empty()
    }

    /// How many chunks wait.
    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Whether nothing does.
    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.leaves.is_empty()
    }

    /// Whether as many wait as are hashed side by side.
    fn is_row_full(&self) -> bool {
        self.jobs.len() >= LANES
    }

    /// When what waits is hashed though the row is not full.
    pub(super) fn due_at(&self) -> Option<Instant> {
        // A begun piece goes first, but who waits behind it may have come before.
        self.jobs.iter().take(LANES).map(|job| job.since + HASH_WAIT).min()
    }

    /// Bytes that may be hashed now.
    fn budget_bytes(&self) -> u64 {
        HASH_BYTES_PER_TURN + self.jobs.len() as u64 * u64::from(CHUNK_BYTES)
    }

    /// The chunks to be hashed side by side; none if they may wait for more.
    fn take_row(&mut self, now: Instant) -> Option<[Option<HashJob>; LANES]> {
        let due = self.is_row_full() || self.due_at().is_some_and(|due| now >= due);
        due.then(|| std::array::from_fn(|_| self.jobs.pop_front()))
    }
}

impl<I: Io> Worker<I> {
    /// Hashes up to a turn's budget and lets the engine go on with the outcome.
    pub(super) fn run_hashes(&mut self, now: Instant) {
        let (mut bytes, budget) = (0, self.hashes.budget_bytes());
        // Nobody comes any more for whom it would be worth waiting.
        let due = if self.stopping { now + HASH_WAIT } else { now };
        while bytes < budget
            && let Some(row) = self.hashes.take_row(due)
        {
            let hashed = self.hash_row(row);
            self.counters.hashed_bytes.add(hashed);
            bytes += hashed;
            self.perform_all(now);
        }
        // Several peers may ask for leaves at once: a turn has a budget for them, too, and takes one piece at
        // least.
        let mut bytes = 0;
        while bytes < HASH_BYTES_PER_TURN
            && let Some((torrent, piece, of)) = self.hashes.leaves.pop_front()
        {
            bytes += self.leaves(torrent, piece, of);
            self.perform_all(now);
        }
    }

    /// Hashes chunks side by side; returns how many bytes they had.
    fn hash_row(&mut self, jobs: [Option<HashJob>; LANES]) -> u64 {
        let mut hashes = jobs.map(|job| job.map_or_else(PieceHash::default, |job| self.begin_hash(job)));
        let parts = jobs.map(|job| job.map_or(&[][..], |job| self.chunk_bytes(job)));
        let bytes = parts.iter().map(|part| part.len() as u64).sum();
        let mut v1 = parts;
        for ((job, part), PieceHash { leaves, .. }) in jobs.iter().zip(&mut v1).zip(&mut hashes) {
            let Some(job) = job else { continue };
            let Some(meta) = self.engine.torrent(job.torrent).map(|torrent| &torrent.shared.meta) else {
                continue;
            };
            if meta.trees.is_some() {
                merkle::push_leaves(&part[..meta.wanted_chunk_len(job.chunk) as usize], leaves);
            }
            if meta.piece_hashes.is_empty() {
                *part = &[];
            }
        }
        let [a, b, c, d] = &mut hashes;
        update_many(&mut [
            (&mut a.sha1, v1[0]),
            (&mut b.sha1, v1[1]),
            (&mut c.sha1, v1[2]),
            (&mut d.sha1, v1[3]),
        ]);
        for (job, hash) in jobs.into_iter().zip(hashes) {
            if let Some(job) = job {
                self.end_hash(job, hash);
            }
        }
        bytes
    }

    /// What was hashed of the piece so far. Headers go in before the chunk can be published and served, and
    /// so does padding, which nobody sends.
    fn begin_hash(&mut self, job: HashJob) -> PieceHash {
        let Some(torrent) = self.engine.torrent(job.torrent) else { return PieceHash::default() };
        let shared = &torrent.shared;
        let slot = shared.chunks.view(job.chunk).slot;
        disk::zero_padding(&self.arena, shared, job.chunk, slot);
        self.write_headers(shared, job.chunk, slot);
        if job.first {
            return PieceHash::default();
        }
        let key = (job.torrent, shared.meta.geometry.chunk_piece(job.chunk));
        self.hashers.remove(&key).unwrap_or_default()
    }

    /// The bytes of a chunk that is stable.
    fn chunk_bytes(&self, job: HashJob) -> &[u8] {
        let Some(torrent) = self.engine.torrent(job.torrent) else { return &[] };
        let slot = torrent.shared.chunks.view(job.chunk).slot;
        disk::payload(&self.arena, &torrent.shared, job.chunk, slot)
    }

    fn end_hash(&mut self, job: HashJob, hash: PieceHash) {
        let Some(torrent) = self.engine.torrent(job.torrent) else { return };
        let meta = &torrent.shared.meta;
        let piece = meta.geometry.chunk_piece(job.chunk);
        let digest = if job.last {
            Some(hash.finish(meta, piece, job.chunk))
        } else {
            self.hashers.insert((job.torrent, piece), hash);
            None
        };
        self.engine.handle_hashed(job.torrent, job.chunk, digest);
    }

    /// Hashes the blocks of a piece that lies in stable slots; returns how many bytes they have.
    fn leaves(&mut self, id: TorrentId, piece: u32, of: Leaves) -> u64 {
        let Some(torrent) = self.engine.torrent(id) else { return 0 };
        let shared = &torrent.shared;
        let (mut leaves, hashed) = (Vec::new(), shared.meta.wanted_piece_len(piece));
        for chunk in shared.meta.wanted_chunks(piece) {
            let slot = shared.chunks.view(chunk).slot;
            let bytes = disk::payload(&self.arena, shared, chunk, slot);
            merkle::push_leaves(&bytes[..shared.meta.wanted_chunk_len(chunk) as usize], &mut leaves);
        }
        self.engine.handle_leaves(id, piece, of, &leaves);
        hashed.into()
    }
}

impl PieceHash {
    /// The digest of a piece of which `chunk` was the last that is not padding alone.
    fn finish(mut self, meta: &TorrentMeta, piece: u32, chunk: u32) -> PieceDigest {
        let v1 = (!meta.piece_hashes.is_empty()).then(|| {
            let hashed = meta.geometry.chunk_begin(chunk) + meta.geometry.chunk_len(chunk);
            update_zeros(&mut self.sha1, meta.geometry.piece_len(piece).saturating_sub(hashed));
            self.sha1.finish()
        });
        let height = meta.trees.as_ref().map(|trees| trees.piece_height(piece));
        let v2 = height.and_then(|height| merkle::root(&mut self.leaves, 0, height));
        PieceDigest { v1, v2 }
    }
}

/// Appends padding that was in no slot.
fn update_zeros(sha1: &mut Sha1, mut bytes: u32) {
    const ZEROS: [u8; BLOCK_BYTES as usize] = [0; BLOCK_BYTES as usize];
    while bytes > 0 {
        let step = bytes.min(BLOCK_BYTES);
        sha1.update(&ZEROS[..step as usize]);
        bytes -= step;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(chunk: u32, first: bool, since: Instant) -> HashJob {
        HashJob { torrent: TorrentId(0), chunk, first, last: false, since }
    }

    fn chunks(row: Option<[Option<HashJob>; LANES]>) -> Option<Vec<u32>> {
        row.map(|jobs| jobs.into_iter().flatten().map(|job| job.chunk).collect())
    }

    #[test]
    fn a_full_row_is_hashed_at_once_and_a_shorter_one_once_it_has_waited() {
        let mut queue = HashQueue::default();
        assert_eq!((chunks(queue.take_row(Instant(0))), queue.due_at()), (None, None));
        (0..LANES as u32 - 1).for_each(|chunk| queue.push(job(chunk, true, Instant(5))));
        let due = Instant(5) + HASH_WAIT;
        assert_eq!(queue.due_at(), Some(due));
        assert_eq!(chunks(queue.take_row(Instant(due.0 - 1))), None);
        assert_eq!(chunks(queue.take_row(due)), Some(vec![0, 1, 2]));
        (0..=LANES as u32).for_each(|chunk| queue.push(job(chunk, true, Instant(5))));
        assert_eq!(chunks(queue.take_row(Instant(5))), Some(vec![0, 1, 2, 3]));
        assert_eq!((chunks(queue.take_row(Instant(5))), queue.len()), (None, 1));
    }

    #[test]
    fn leaves_that_are_wanted_have_a_turn_come_at_once() {
        let mut queue = HashQueue::default();
        assert!(queue.is_empty() && !queue.is_pressing());
        queue.push_leaves(TorrentId(0), 3, Leaves::Verified);
        assert!(queue.is_pressing() && !queue.is_empty());
        assert_eq!((queue.len(), queue.due_at()), (0, None), "no chunk waits for others");
    }

    #[test]
    fn pieces_that_are_begun_go_before_others() {
        let mut queue = HashQueue::default();
        (0..4).for_each(|chunk| queue.push(job(chunk, true, Instant(0))));
        queue.push(job(11, false, Instant(1)));
        assert_eq!(chunks(queue.take_row(Instant(1))), Some(vec![11, 0, 1, 2]));
    }

    #[test]
    fn what_waits_when_a_turn_begins_fits_in_its_budget() {
        let mut queue = HashQueue::default();
        assert_eq!(queue.budget_bytes(), HASH_BYTES_PER_TURN);
        (0..1_000).for_each(|chunk| queue.push(job(chunk, true, Instant(0))));
        assert!(queue.budget_bytes() >= 1_000 * u64::from(CHUNK_BYTES));
    }
}
