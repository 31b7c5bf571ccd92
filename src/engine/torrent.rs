//! One torrent as one core sees it: its peers here, its claims, and what it knows to be missing.

use std::collections::HashMap;
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3DefaultBuilder;

use super::claims::Claim;
use super::inquest::Inquest;
use super::parole::Parole;
use super::tap::Tap;
use crate::base::bitfield::Bitfield;
use crate::base::ids::{ConnId, CoreId, TorrentId};
use crate::base::limits::GIFT_FRESH_TIME;
use crate::base::priority::Priority;
use crate::base::rng::Rng;
use crate::base::time::{Instant, Span};
use crate::shared::torrent::{CoreStats, SharedTorrent};

/// Chunk and piece indices are ours, not a peer's: a fast hash will do.
pub type IndexMap<V> = HashMap<u32, V, Xxh3DefaultBuilder>;

/// A piece that this core owns and hashes, chunk by chunk in order.
#[derive(Debug)]
pub struct Assembly {
    /// The next chunk to hash.
    pub next_chunk: u32,
    /// A hash of it is under way.
    pub hashing: bool,
    /// Where to go on once that has ended, if blocks before turned out to be wrong.
    pub rewind: Option<u32>,
}

/// What a failed piece consisted of: fingerprint and giver of each block, to find the liar when
/// the piece comes right.
#[derive(Debug)]
pub struct Evidence {
    /// One entry per block, in order.
    pub blocks: Vec<(u64, u64)>,
}

/// Indices in some order, each at most once.
#[derive(Debug)]
pub struct IndexList {
    order: Vec<u32>,
    listed: Bitfield,
}

impl IndexList {
    /// A list of `order`, all below `end`.
    fn new(order: Vec<u32>, end: u32) -> Self {
        let mut listed = Bitfield::new(end);
        for &index in &order {
            assert!(listed.set(index), "{index} twice");
        }
        Self { order, listed }
    }

    /// Appends an index that is not listed yet.
    pub fn push(&mut self, index: u32) {
        if self.listed.set(index) {
            self.order.push(index);
        }
    }

    /// Takes out what stands at `at`; the last index takes its place.
    pub fn swap_remove(&mut self, at: usize) -> u32 {
        let index = self.order.swap_remove(at);
        self.listed.clear(index);
        index
    }

    /// Takes out what stands at `at` and keeps the order of the others.
    pub fn remove(&mut self, at: usize) -> u32 {
        let index = self.order.remove(at);
        self.listed.clear(index);
        index
    }

    /// The indices in order.
    pub fn as_slice(&self) -> &[u32] {
        &self.order
    }
}

/// The pieces to begin, one list for each class of priority, the most wanted first.
#[derive(Debug)]
pub struct Missing([IndexList; Priority::CLASSES.len()]);

impl Missing {
    /// Of pieces in the order of all; each keeps it within its class.
    fn new(order: Vec<u32>, shared: &SharedTorrent) -> Self {
        let pieces = shared.meta.geometry.piece_count();
        // Where all are wanted alike the other lists stay empty, and take no memory.
        let mut classes = [const { Vec::new() }; Priority::CLASSES.len()];
        match shared.wanted {
            None => classes[Priority::Normal.class()] = order,
            Some(_) => {
                for piece in order {
                    classes[shared.priority(piece).class()].push(piece);
                }
            }
        }
        let mut class = 0;
        Self(classes.map(|order| {
            let used = shared.wanted.is_some() || class == Priority::Normal.class();
            class += 1;
            IndexList::new(order, if used { pieces } else { 0 })
        }))
    }

    /// Appends a piece that is not listed yet.
    pub fn push(&mut self, piece: u32, priority: Priority) {
        self.0[priority.class()].push(piece);
    }

    /// Whether nothing is left to begin.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|list| list.as_slice().is_empty())
    }

    /// All of them, the most wanted first.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.0.iter().flat_map(|list| list.as_slice()).copied()
    }

    /// The list of one class.
    pub fn class(&mut self, class: usize) -> &mut IndexList {
        &mut self.0[class]
    }
}

/// See the module.
#[derive(Debug)]
pub struct Torrent {
    /// What all cores share of it.
    pub shared: Arc<SharedTorrent>,
    /// Open connections of this core.
    pub peers: Vec<ConnId>,
    /// Chunks that this core collects.
    pub claims: IndexMap<Claim>,
    /// How long it takes to collect one, smoothed over about eight.
    pub chunk_span: Span,
    /// Partial chunks that some core offered.
    pub offers: IndexList,
    /// Pieces that this core has begun and of which chunks are unclaimed.
    pub begun: Vec<u32>,
    /// Pieces to begin: shuffled; those found verified or begun are taken out when seen.
    pub missing: Missing,
    /// Pieces owned by this core.
    pub assembling: IndexMap<Assembly>,
    /// When each piece that this core owns was begun or last got a chunk, by the second.
    pub owned: IndexMap<Instant>,
    /// Verified pieces whose chunks are being written: how many are left.
    pub writing: IndexMap<u32>,
    /// Pieces verified since the torrent was added, on any core; peers have cursors into it.
    pub have_log: Vec<u32>,
    /// The log grew since peers were last told.
    pub haves_due: bool,
    /// Peers whose next block waits for a chunk to be read.
    pub waiting: IndexMap<Vec<ConnId>>,
    /// Failed pieces.
    pub evidence: IndexMap<Evidence>,
    /// Failed pieces that are fetched again from one peer alone.
    pub paroles: IndexMap<Parole>,
    /// Pieces whose leaves are asked for or known: at most `INQUESTS_MAX` that failed, and `LEAVES_AHEAD_MAX`
    /// that are begun.
    pub inquests: IndexMap<Inquest>,
    /// When bytes last turned out to be wrong.
    pub spoilt_at: Option<Instant>,
    /// When this core last told the others that its peers are idle.
    pub idle_told_at: Instant,
    /// What limits what is asked for of it.
    pub download: Option<Tap>,
    /// How long what a seed gives first is awaited from there, and who wants the same is held back.
    pub gift_span: Span,
}

impl Torrent {
    /// A torrent that this core begins to serve. `sequential` keeps the missing pieces in order.
    pub fn new(shared: Arc<SharedTorrent>, sequential: bool, rng: &mut Rng) -> Self {
        let geometry = shared.meta.geometry;
        let download = shared.limits.download.clone().map(Tap::exact);
        let mut missing: Vec<u32> =
            (0..geometry.piece_count()).filter(|&piece| shared.lacks(piece)).collect();
        if sequential {
            missing.reverse();
        } else {
            rng.shuffle(&mut missing);
        }
        let missing = Missing::new(missing, &shared);
        Self {
            shared,
            peers: Vec::new(),
            claims: IndexMap::default(),
            chunk_span: Span::ZERO,
            gift_span: GIFT_FRESH_TIME,
            offers: IndexList::new(Vec::new(), geometry.chunk_count()),
            begun: Vec::new(),
            missing,
            assembling: IndexMap::default(),
            owned: IndexMap::default(),
            writing: IndexMap::default(),
            have_log: Vec::new(),
            haves_due: false,
            waiting: IndexMap::default(),
            evidence: IndexMap::default(),
            paroles: IndexMap::default(),
            inquests: IndexMap::default(),
            spoilt_at: None,
            idle_told_at: Instant(0),
            download,
        }
    }

    /// A chunk was collected within `span`.
    pub const fn note_collected(&mut self, span: Span) {
        self.chunk_span = Span((7 * self.chunk_span.0 + span.0) / 8);
    }

    /// Its id.
    pub fn id(&self) -> TorrentId {
        self.shared.meta.id
    }

    /// This core's counters.
    pub fn stats(&self, core: CoreId) -> &CoreStats {
        &self.shared.stats[core.0 as usize]
    }

    /// Whether pieces are missing and may be fetched.
    pub fn wants_pieces(&self) -> bool {
        !self.shared.is_satisfied() && !self.shared.fetch_stopped()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_listed_once_and_may_come_back() {
        let mut list = IndexList::new(vec![3, 1, 2], 4);
        list.push(1);
        assert_eq!(list.as_slice(), [3, 1, 2]);
        assert_eq!((list.swap_remove(0), list.as_slice()), (3, &[2, 1][..]));
        list.push(3);
        assert_eq!((list.remove(0), list.as_slice()), (2, &[1, 3][..]));
        list.push(2);
        assert_eq!(list.as_slice(), [1, 3, 2]);
    }
}
