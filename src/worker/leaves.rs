//! Leaves of verified pieces for peers that ask (`engine/leaves.rs`): hashed a part in each turn, since a
//! piece is long and who asks is nobody to wait for.

use std::collections::VecDeque;
use std::ops::Range;

use super::Worker;
use crate::base::ids::TorrentId;
use crate::base::time::Instant;
use crate::base::units::CHUNK_BYTES;
use crate::engine::action::Leaves;
use crate::hash::merkle::Hash;
use crate::io::Io;

/// Bytes that one turn hashes of them: about a millisecond.
const LEAF_BYTES_PER_TURN: u64 = 8 * CHUNK_BYTES as u64;

/// Pieces that wait, in the order of their coming; the first may be hashed in part. The engine bounds them:
/// each once, and `LEAF_ASKS_OF_CORE_MAX` in all.
pub(super) type LeafJobs = VecDeque<LeafJob>;

/// A piece whose chunks are pinned.
#[derive(Debug)]
pub(super) struct LeafJob {
    torrent: TorrentId,
    piece: u32,
    /// Those that are left.
    chunks: Range<u32>,
    leaves: Vec<Hash>,
}

impl LeafJob {
    /// A piece of which nothing is hashed yet.
    pub(super) const fn new(torrent: TorrentId, piece: u32, chunks: Range<u32>) -> Self {
        Self { torrent, piece, chunks, leaves: Vec::new() }
    }
}

impl<I: Io> Worker<I> {
    /// Hashes as much as one turn may.
    pub(super) fn run_leaves(&mut self, now: Instant) {
        let mut bytes = 0;
        while bytes < LEAF_BYTES_PER_TURN
            && let Some(mut job) = self.leaf_jobs.pop_front()
        {
            if let Some(chunk) = job.chunks.next() {
                self.push_leaves(job.torrent, chunk, &mut job.leaves);
                bytes += u64::from(CHUNK_BYTES);
            }
            if job.chunks.is_empty() {
                self.engine.handle_leaves(job.torrent, job.piece, Leaves::Verified, &job.leaves);
                self.perform_all(now);
            } else {
                self.leaf_jobs.push_front(job);
            }
        }
    }
}
