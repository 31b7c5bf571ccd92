//! How much is asked of all peers together, and of each for the sake of the others: late choices are better
//! ones.
//!
//! What is asked of one peer nobody else is asked for meanwhile. On slow links with many peers that each have
//! a few requests the queue is minutes long: whole pieces wait behind peers that are busy with others, and
//! what is taken back comes all the same. So what is outstanding in all is what came in `APPETITE_SECS`, or
//! `APPETITE_BLOCKS_MIN`; on a fast link that is more than all peers together are asked for. While nothing
//! comes it doubles each second: peers that stay silent do not keep us from asking others.
//!
//! Whoever has nothing to do and answers fast is asked for a block in any case: a few slow ones that took all
//! places would keep everybody from finding out that more could come. And so is a seed for
//! `REQUESTS_OUT_MIN`, while there are few: what nobody else has yet comes only from there, and all places
//! were taken by what others have.
//!
//! At the start nobody knows how much will come, and to find out by doubling costs a fast swarm round trips:
//! nothing is bounded before blocks came in `APPETITE_FREE_SECS` seconds.

use super::*;
use crate::base::limits::{
    APPETITE_BLOCKS_MIN, APPETITE_FREE_SECS, APPETITE_SECS, APPETITE_SEEDS_FEW, HUNGRY_LOOKS_MAX,
    REQUESTS_OUT_MIN,
};
use crate::base::units::BLOCKS_PER_CHUNK;

/// Most doublings while nothing comes: then everybody has long been asked.
const DOUBLINGS_MAX: u32 = 16;

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct Appetite {
    /// Blocks that came of late: so many a second, times `APPETITE_SECS`.
    recent_blocks: u64,
    /// Blocks that came since time was last counted.
    came_blocks: u64,
    /// Seconds in which none came though some were outstanding.
    silent: u32,
    /// Requests outstanding.
    asked: usize,
    /// Somebody could have been asked for more since the hungry were fed last.
    refused: bool,
    /// Seconds in which blocks came; no more are counted than matter.
    known_secs: u32,
}

impl Appetite {
    /// Requests outstanding.
    #[cfg(test)]
    pub const fn asked(&self) -> usize {
        self.asked
    }

    /// Most of them.
    pub fn limit(&self) -> usize {
        if self.known_secs < APPETITE_FREE_SECS {
            return usize::MAX;
        }
        let least = (APPETITE_BLOCKS_MIN as u64) << self.silent;
        least.max(self.recent_blocks) as usize
    }

    /// Whether another block may be asked for.
    pub fn has_room(&mut self) -> bool {
        let room = self.asked < self.limit();
        self.refused |= !room;
        room
    }

    /// Whether somebody could have been asked for more since the hungry were fed last.
    pub const fn is_short(&self) -> bool {
        self.refused
    }

    /// The same, and the hungry are fed now.
    pub const fn take_short(&mut self) -> bool {
        std::mem::replace(&mut self.refused, false)
    }

    /// A block is asked for.
    pub const fn note_asked(&mut self) {
        self.asked += 1;
    }

    /// So many requests are outstanding no more, whatever became of them.
    pub const fn note_gone(&mut self, count: usize) {
        self.asked -= count;
    }

    /// A block came that was asked for. Whether somebody waits for it to ask for more: on a fast link what is
    /// outstanding then doubles with each round trip.
    pub const fn note_block(&mut self) -> bool {
        self.came_blocks += 1;
        self.recent_blocks += 1;
        self.silent = 0;
        self.refused
    }

    /// A second has passed.
    pub fn roll(&mut self) {
        let came_blocks = std::mem::take(&mut self.came_blocks);
        self.recent_blocks -= self.recent_blocks.div_ceil(APPETITE_SECS).min(self.recent_blocks);
        if came_blocks > 0 {
            self.known_secs = (self.known_secs + 1).min(APPETITE_FREE_SECS);
        } else if self.asked > 0 {
            self.silent = (self.silent + 1).min(DOUBLINGS_MAX);
        } else if self.recent_blocks == 0 {
            // What comes next has nothing to do with what came before.
            self.known_secs = 0;
        }
    }
}

impl Engine {
    /// Blocks that may be asked of one peer for the sake of the others: while the cache has hardly room for
    /// more begun pieces, whoever is asked first would be asked for all that fits, and the others for
    /// nothing.
    pub(super) fn share_of_cache(&self) -> usize {
        if !self.cache.is_tight() {
            return usize::MAX;
        }
        let givers = self.givers_sum.max(1) as usize;
        let blocks = self.cache.promised_max() as usize * BLOCKS_PER_CHUNK as usize / self.config.cores;
        // Less than a chunk would only make others join it.
        (blocks / givers).max(BLOCKS_PER_CHUNK as usize)
    }

    /// Whether a peer may be asked for one block more.
    pub(super) fn may_ask(&mut self, conn: ConnId) -> bool {
        self.is_exempt(conn) || self.appetite.has_room()
    }

    /// Whether a peer may be asked whatever is asked of all: a web seed for a long range, one of few seeds
    /// that gave something for a few blocks, though it be slow, and whoever has nothing to do for one, unless
    /// it is known to be slow. Else a few that give a block a second would hold all that may be outstanding,
    /// and nobody would find out that others are faster.
    fn is_exempt(&self, conn: ConnId) -> bool {
        let Some(peer) = self.peers.get(conn) else { return false };
        peer.is_web_seed()
            || peer.asked.is_empty() && !peer.pace.is_slow()
            || peer.asked.len() < REQUESTS_OUT_MIN && self.is_one_of_few_seeds(peer)
    }

    fn is_one_of_few_seeds(&self, peer: &Peer) -> bool {
        let torrent = peer.torrent.and_then(|id| self.torrent(id));
        peer.is_seed()
            && peer.received_bytes > 0
            && torrent.is_some_and(|torrent| torrent.shared.givers.seeds() <= APPETITE_SEEDS_FEW)
    }

    /// Lets peers that could be asked for more try again: all of them, unless a block came and nothing else.
    pub(super) fn feed(&mut self, now: Instant) {
        let (food, crumbs) = (std::mem::take(&mut self.food), std::mem::take(&mut self.crumbs));
        if self.hungry.is_empty() {
            return;
        }
        if food {
            self.feed_hungry(now);
        } else if crumbs {
            self.feed_some(now);
        }
    }

    /// The same for a few of them, whoever they are: a block that came has made room for one, and to go
    /// through all for each would cost as much as there are. The tick goes through all.
    fn feed_some(&mut self, now: Instant) {
        // Those who stand there more than once are few until the next time that all are gone through.
        if self.hungry.len() <= HUNGRY_LOOKS_MAX || self.hungry.len() > 2 * self.peers.len() {
            return self.feed_hungry(now);
        }
        for _ in 0..HUNGRY_LOOKS_MAX {
            let at = self.rng.below(self.hungry.len() as u32) as usize;
            let conn = self.hungry.swap_remove(at);
            self.feed_one(conn, now);
        }
    }

    fn feed_one(&mut self, conn: ConnId, now: Instant) {
        if self.may_ask(conn) {
            self.ask_more(conn, now);
        } else {
            self.hungry.push(conn);
        }
    }

    /// Lets every peer that could be asked for more try again.
    pub(super) fn feed_hungry(&mut self, now: Instant) {
        (self.food, self.crumbs) = (false, false);
        let mut hungry = std::mem::take(&mut self.hungry);
        hungry.sort_unstable_by_key(|conn| conn.index);
        hungry.dedup();
        if self.appetite.take_short() {
            // Where not all may be asked for more, all have the same chance.
            let first = self.rng.below(hungry.len().max(1) as u32) as usize;
            hungry.rotate_left(first);
        }
        hungry.drain(..).for_each(|conn| self.feed_one(conn, now));
        if self.hungry.is_empty() {
            self.hungry = hungry;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks came in as many seconds as matter, and none of late.
    fn measured() -> Appetite {
        Appetite { known_secs: APPETITE_FREE_SECS, ..Appetite::default() }
    }

    #[test]
    fn nothing_is_bounded_before_blocks_came_for_so_long_and_again_after_a_pause() {
        let mut appetite = Appetite::default();
        for secs in 0..APPETITE_FREE_SECS {
            assert_eq!(appetite.limit(), usize::MAX, "{secs}");
            appetite.note_block();
            appetite.roll();
        }
        assert_eq!(appetite.limit(), APPETITE_BLOCKS_MIN);
        appetite.roll();
        assert_eq!(appetite.limit(), usize::MAX, "nothing is outstanding, and nothing came");
    }

    #[test]
    fn so_much_is_outstanding_at_least_and_no_more() {
        let mut appetite = measured();
        for asked in 0..APPETITE_BLOCKS_MIN {
            assert!(appetite.has_room(), "{asked}");
            appetite.note_asked();
        }
        assert!(!appetite.has_room());
        appetite.note_gone(1);
        assert!(appetite.has_room());
        appetite.note_asked();
        appetite.note_asked();
        assert!(!appetite.has_room(), "one more was outstanding when it was decided");
    }

    #[test]
    fn it_doubles_with_each_round_trip_and_then_follows_what_comes() {
        let mut appetite = measured();
        for _ in 0..APPETITE_BLOCKS_MIN {
            appetite.note_block();
        }
        assert_eq!(appetite.limit(), APPETITE_BLOCKS_MIN, "what came is no more than that");
        for _ in 0..3 {
            let came = appetite.limit();
            for _ in 0..came {
                appetite.note_block();
            }
            assert_eq!(appetite.limit(), 2 * came);
        }
        for rate in [100, 1_000, 10] {
            for _ in 0..60 {
                for _ in 0..rate {
                    appetite.note_block();
                }
                appetite.roll();
            }
            let wants = rate * (APPETITE_SECS as usize - 1);
            assert!(appetite.limit().abs_diff(wants) <= wants / 10, "{rate}: {}", appetite.limit());
        }
    }

    #[test]
    fn peers_that_stay_silent_do_not_keep_us_from_asking_others() {
        let mut appetite = measured();
        (0..APPETITE_BLOCKS_MIN).for_each(|_| appetite.note_asked());
        for silent in 1..=20 {
            appetite.roll();
            assert_eq!(appetite.limit(), APPETITE_BLOCKS_MIN << silent.min(DOUBLINGS_MAX));
        }
        appetite.note_block();
        assert_eq!(appetite.limit(), APPETITE_BLOCKS_MIN);
    }
}
