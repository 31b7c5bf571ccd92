//! Which request of a client is served next, and whom a seed serves. Nobody can repay a seed; while pieces
//! are rare it gives by evidence of passing on.
//!
//! Who holds a piece is counted by groups of addresses, and only those that this node gave some of it, or
//! that are seen giving (`shared/witnesses.rs`): what a stranger announces ends no injection. What a group
//! has that keeps all counts only while it is awaited from there: nobody else will get it.
//!
//! - *Injection*: some piece is held by fewer than `INJECTION_COPIES` others. A group weighs the more in the
//!   class *rest*, the more of what it was given came back as an announcement of others, and the less of it
//!   is still awaited. A piece that was given to somebody who passes on, or who is new, is not given again
//!   before it was seen elsewhere, and one that others have waits for those that are rarer: both for a while.
//! - *Abundance*: everybody weighs the same.

use super::scheduler::class::Class;
use super::scheduler::{Demand, WEIGHT_LEAST, WEIGHT_ONE};
use super::*;
use crate::base::geometry::BlockRef;
use crate::base::limits::{
    AWAITED_BLOCKS_FEW, BEGUN_PIECE_BYTES_MAX, BEGUN_PIECE_SPANS, CONTRIBUTION_BYTES_MIN, EVIDENCE_BYTES_MIN,
    GIFT_FRESH_PIECES, GIFT_FRESH_TIME, GIFT_FRESH_TIME_MAX, KEEPERS_PART, SPREAD_LOOKS_MAX,
    SPREAD_WEIGHT_MAX,
};
use crate::base::time::Span;
use crate::base::units::BLOCK_BYTES;
use crate::shared::injection::{Given, TICK, at_ticks};
use crate::shared::ledger::AccountId;

impl Engine {
    /// How a connection that asks for blocks stands with its torrent. While a seed injects, the first of its
    /// requests for a piece that is rare, and that nobody is being given, comes to the front.
    pub(super) fn bring_forward(&mut self, conn: ConnId) -> Demand {
        let Some((demand, at)) = self.demand(conn) else { return Demand::default() };
        if at > 0
            && let Some(peer) = self.peers.get_mut(conn)
        {
            // The blocks before it keep their order behind the others.
            peer.requests.rotate_left(at);
            peer.missed = false;
            peer.probe.forget();
        }
        demand
    }

    /// The demand of a client, and the index of its request to be served next: 0, unless a seed injects and
    /// another one spreads a rare piece.
    fn demand(&self, conn: ConnId) -> Option<(Demand, usize)> {
        let peer = self.peers.get(conn)?;
        let begun = self.begun_piece(peer);
        let is_begun = |at: usize| peer.requests.get(at).is_some_and(|block| begun == Some(block.piece));
        let Some((group, torrent, enough)) = self.injects(conn) else {
            return Some((Demand { begun: is_begun(0), ..Demand::default() }, 0));
        };
        let is_fresh = |block: &BlockRef| self.is_to_spread(torrent, group, enough, block.piece);
        let fresh = peer.requests.iter().take(SPREAD_LOOKS_MAX).position(is_fresh);
        let again = fresh.is_none() && !self.was_held_back(peer);
        let few = AWAITED_BLOCKS_FEW.max(2 * (torrent.shared.meta.geometry.piece_bytes / BLOCK_BYTES));
        let at = fresh.unwrap_or(0);
        let weight = group_weight(&self.ledger, group, few.into());
        Some((Demand { again, weight, begun: is_begun(at) }, at))
    }

    /// The piece that a connection was given the begin of, if whole pieces one after the other are worth it:
    /// nobody can pass on half of one. Not for more than one piece in a row.
    pub(super) fn begun_piece(&self, peer: &Peer) -> Option<u32> {
        let [least, most] = BEGUN_PIECE_SPANS;
        let piece_bytes = self.torrent(peer.torrent?)?.shared.meta.geometry.piece_bytes;
        let (piece, given_bytes) = peer.out.piece?;
        let goes_on = piece_bytes <= BEGUN_PIECE_BYTES_MAX && given_bytes < piece_bytes;
        let worth = || (least..=most).contains(&self.egress.sending(peer.conn, piece_bytes.into()));
        (goes_on && worth()).then_some(piece)
    }

    /// How many copies of a piece are enough, while a turn may carry only what is to spread: a seed injects,
    /// and the turn is neither earned nor for what others have, nor of somebody whose requests may be stale.
    pub(super) fn spreads_in(&self, conn: ConnId, class: Class) -> Option<u32> {
        let bound = class.is_unearned() && !self.was_held_back(self.peers.get(conn)?);
        bound.then(|| self.injects(conn))?.map(|(_, _, enough)| enough)
    }

    /// Whether a piece is still to spread when its turn comes: it was not given to others in the meantime.
    pub(super) fn still_spreads(&self, conn: ConnId, enough: u32, piece: u32) -> bool {
        self.client(conn).is_none_or(|(group, torrent)| self.is_to_spread(torrent, group, enough, piece))
    }

    /// The group and torrent of a connection that a seed serves while it injects, and how many copies are
    /// enough.
    fn injects(&self, conn: ConnId) -> Option<(AccountId, &Torrent, u32)> {
        let (group, torrent) = self.client(conn).filter(|(_, torrent)| torrent.shared.is_complete())?;
        let enough = torrent.shared.injection().enough(|piece| self.copies(torrent, piece))?;
        Some((group, torrent, enough))
    }

    /// Whether what a connection asks for may have grown stale while it waited: once it is served it asks for
    /// something else.
    fn was_held_back(&self, peer: &Peer) -> bool {
        let torrent = peer.torrent.and_then(|id| self.torrent(id));
        torrent.is_some_and(|torrent| self.ticked_at.since(peer.waits_since) >= torrent.gift_span)
    }

    /// Whether a group that gets a piece of a seed helps it to spread: too few have it, and nobody else was
    /// just given it who may pass it on.
    fn is_to_spread(&self, torrent: &Torrent, group: AccountId, enough: u32, piece: u32) -> bool {
        let spreads_soon = || {
            let given = torrent.shared.injection().given(piece).filter(|given| given.group != group);
            given.is_some_and(|given| {
                torrent.awaits(given, self.ticked_at) && may_pass_on(&self.ledger, given.group)
            })
        };
        self.copies(torrent, piece) < enough && !spreads_soon()
    }

    /// A block goes to `conn`. Only whole ones prove anything: a byte of each piece would be cheap.
    pub(super) fn note_given(&self, conn: ConnId, block: BlockRef, now: Instant) {
        let (piece, Some((group, torrent))) = (block.piece, self.client(conn)) else { return };
        let shared = &torrent.shared;
        // Padding is asked for by nobody who knows of it.
        let left_bytes = shared.meta.wanted_piece_len(piece).saturating_sub(block.begin);
        if block.length < BLOCK_BYTES.min(left_bytes) {
            // Nor does who asks for less than a block get around being awaited.
            if shared.is_complete() {
                self.ledger.await_block(group);
            }
            return;
        }
        if shared.is_complete() && self.copies(torrent, piece) == 0 {
            let kept = |before: Given| {
                keeps_all(&self.ledger, before.group) && !torrent.awaits(before, self.ticked_at)
            };
            // First, since another core may find that it is awaited no longer.
            self.ledger.await_block(group);
            let change = shared.injection().note_given(piece, group, now, kept);
            if !change.awaited {
                self.ledger.await_no_longer(group, 1);
            }
            change.no_longer.into_iter().for_each(|before| self.await_no_longer(before));
        }
        shared.witnesses.note_given(piece, group);
    }

    /// A peer announced a piece that it did not have before.
    pub(super) fn note_announced(&self, conn: ConnId, piece: u32) {
        let Some((group, torrent)) = self.client(conn) else { return };
        let shared = &torrent.shared;
        if shared.is_complete()
            && let Some(giver) = shared.injection().note_announced(piece, group)
        {
            self.await_no_longer(giver);
            self.ledger.note_spread(giver.group, u64::from(giver.blocks) * u64::from(BLOCK_BYTES));
        }
        shared.witnesses.note_announced(piece, group, is_trusted(&self.ledger, group));
    }

    /// A peer said at once what it has.
    pub(super) fn note_announced_all(&self, conn: ConnId) {
        let (Some((group, torrent)), Some(peer)) = (self.client(conn), self.peers.get(conn)) else { return };
        let shared = &torrent.shared;
        let trusted = is_trusted(&self.ledger, group);
        peer.bits.ones().for_each(|piece| shared.witnesses.note_announced(piece, group, trusted));
    }

    /// A peer is gone, and what it had.
    pub(super) fn forget_announced(&self, conn: ConnId) {
        let (Some((group, torrent)), Some(peer)) = (self.client(conn), self.peers.get(conn)) else { return };
        peer.bits.ones().for_each(|piece| torrent.shared.witnesses.forget(piece, group));
    }

    /// How many others are believed to hold a piece, and to give it; no more than matters are counted. Who
    /// keeps what it gets counts for as long as it is awaited whether others have it from there.
    fn copies(&self, torrent: &Torrent, piece: u32) -> u32 {
        let shared = &torrent.shared;
        let is_awaited = |group| {
            let given = shared.injection().given(piece);
            given.is_some_and(|given| given.group == group && torrent.awaits(given, self.ticked_at))
        };
        let keeps = |group| keeps_all(&self.ledger, group) && !is_awaited(group);
        shared.witnesses.copies(piece, |group| is_trusted(&self.ledger, group), keeps)
    }

    fn await_no_longer(&self, given: Given) {
        self.ledger.await_no_longer(given.group, given.blocks);
    }

    /// The group of a connection and its torrent, if that may be injected here one day: of one of which
    /// pieces are left out nobody asks who else holds them.
    fn client(&self, conn: ConnId) -> Option<(AccountId, &Torrent)> {
        let peer = self.peers.get(conn)?;
        let [_, group] = peer.accounts?;
        let torrent = self.torrent(peer.torrent?)?;
        torrent.shared.may_be_complete().then_some((group, torrent))
    }

    /// How fast links are has changed: what is given is awaited from there for as long as some pieces take.
    pub(super) fn review_gifts(&mut self) {
        for torrent in self.torrents.iter_mut().flatten() {
            let pieces_bytes =
                u64::from(GIFT_FRESH_PIECES) * u64::from(torrent.shared.meta.geometry.piece_bytes);
            let span = self.egress.longest_sending(pieces_bytes);
            torrent.gift_span = span.clamp(GIFT_FRESH_TIME, GIFT_FRESH_TIME_MAX);
        }
    }
}

impl Torrent {
    /// Whether what was given may still come to others from there.
    fn awaits(&self, given: Given, now: Instant) -> bool {
        is_fresh(given.at_ticks, at_ticks(now), self.gift_span)
    }
}

/// Whether a piece was given away a short while ago. It may have been after the tick whose time is compared,
/// but not by much: the clock goes round.
const fn is_fresh(given_ticks: u16, now_ticks: u16, span: Span) -> bool {
    const { assert!(GIFT_FRESH_TIME_MAX.0 / TICK.0 < i16::MAX as u64) };
    let span = (span.0 / TICK.0) as i16;
    let passed = now_ticks.wrapping_sub(given_ticks).cast_signed();
    -span <= passed && passed < span
}

/// Weight of a group: one, and up to `SPREAD_WEIGHT_MAX` for who passes on at least half of what it gets; a
/// quarter of that for half as much. Half of it for who holds `few` blocks back, a fifth for twice as many,
/// `WEIGHT_LEAST` at the least: a slow one passes on all that it gets, but late.
fn group_weight(ledger: &Ledger, group: AccountId, few: u64) -> u64 {
    let (spread, sent) = (ledger.spread_bytes(group), ledger.standing(group).sent_bytes.max(1));
    // In 256ths.
    let part = (u128::from(spread) * 512 / u128::from(sent)).min(256) as u64;
    let weight = WEIGHT_ONE + (SPREAD_WEIGHT_MAX - 1) * WEIGHT_ONE * part * part / (256 * 256);
    let awaited = u64::from(ledger.awaited_blocks(group));
    let halved = few * few + awaited * awaited;
    ((weight * few * few + halved / 2) / halved).max(WEIGHT_LEAST)
}

/// Whether a group is seen passing on what it gets: an eighth of it at least.
fn passes_on(ledger: &Ledger, group: AccountId) -> bool {
    ledger.spread_bytes(group) >= (ledger.standing(group).sent_bytes / 8).max(1)
}

/// Whether a group got enough to be known, and next to nothing of it came back from others. Of an honest one
/// in a large swarm a small part does: the others had most of it from elsewhere.
fn keeps_all(ledger: &Ledger, group: AccountId) -> bool {
    let (sent_bytes, spread_bytes) = (ledger.standing(group).sent_bytes, ledger.spread_bytes(group));
    let known = sent_bytes >= EVIDENCE_BYTES_MIN && !is_trusted(ledger, group);
    known && spread_bytes < sent_bytes / KEEPERS_PART
}

/// Whether a group passes on what it gets, or is so new that nobody can know.
fn may_pass_on(ledger: &Ledger, group: AccountId) -> bool {
    ledger.standing(group).sent_bytes < EVIDENCE_BYTES_MIN || passes_on(ledger, group)
}

/// Whether a group is believed to have what it announces: it gave us verified blocks, or passes on.
fn is_trusted(ledger: &Ledger, group: AccountId) -> bool {
    ledger.standing(group).received_bytes >= CONTRIBUTION_BYTES_MIN || passes_on(ledger, group)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits::AWAITED_BLOCKS_MAX;

    #[test]
    fn a_piece_is_awaited_for_so_long_and_no_longer() {
        let span = (GIFT_FRESH_TIME.0 / TICK.0) as u16;
        let is_fresh = |given, now| is_fresh(given, now, GIFT_FRESH_TIME);
        for given in [5, u16::MAX - 5] {
            for (passed, fresh) in [(0, true), (span - 1, true), (span, false), (span + 1, false)] {
                assert_eq!(is_fresh(given, given.wrapping_add(passed)), fresh, "{passed}");
            }
            assert!(is_fresh(given, given.wrapping_sub(1)), "it was given after the last tick");
            for passed in [span, i16::MAX as u16, i16::MAX as u16 + 1, u16::MAX - span] {
                assert!(!is_fresh(given, given.wrapping_add(passed)), "{passed}");
            }
        }
    }

    #[test]
    fn who_is_new_may_pass_on_and_who_kept_all_does_not() {
        for (sent, may) in
            [(EVIDENCE_BYTES_MIN - 1, true), (EVIDENCE_BYTES_MIN, false), (EVIDENCE_BYTES_MIN + 1, false)]
        {
            let ledger = Ledger::new(16);
            let group = ledger.open(1);
            ledger.debit(group, sent);
            assert_eq!(may_pass_on(&ledger, group), may, "{sent}");
            ledger.note_spread(group, sent);
            assert!(may_pass_on(&ledger, group));
        }
    }

    #[test]
    fn who_got_much_and_gave_nothing_keeps_all() {
        for (sent, keeps) in
            [(EVIDENCE_BYTES_MIN - 1, false), (EVIDENCE_BYTES_MIN, true), (EVIDENCE_BYTES_MIN + 1, true)]
        {
            let ledger = Ledger::new(16);
            let group = ledger.open(1);
            ledger.debit(group, sent);
            assert_eq!(keeps_all(&ledger, group), keeps, "{sent}");
            ledger.note_spread(group, sent / KEEPERS_PART - 1);
            assert_eq!(keeps_all(&ledger, group), keeps, "next to nothing");
            ledger.note_spread(group, 1);
            assert!(!keeps_all(&ledger, group) && !passes_on(&ledger, group));
            ledger.note_spread(group, sent / 8);
            assert!(passes_on(&ledger, group));
            let other = ledger.open(3);
            ledger.debit(other, sent);
            ledger.credit(3, CONTRIBUTION_BYTES_MIN);
            assert!(!keeps_all(&ledger, other), "it gave us something");
        }
    }

    #[test]
    fn who_holds_much_back_weighs_little_but_never_nothing() {
        let ledger = Ledger::new(16);
        let group = ledger.open(1);
        ledger.debit(group, 1_000);
        ledger.note_spread(group, 1_000);
        let most = WEIGHT_ONE * SPREAD_WEIGHT_MAX;
        let last = AWAITED_BLOCKS_MAX;
        for (blocks, weight) in
            [(0, most), (7, 145), (8, most / 2), (9, 113), (16, most / 5), (last, WEIGHT_LEAST)]
        {
            (ledger.awaited_blocks(group)..blocks).for_each(|_| ledger.await_block(group));
            assert_eq!(group_weight(&ledger, group, 8), weight, "{blocks}");
        }
    }

    #[test]
    fn who_passes_half_on_weighs_most_and_who_keeps_all_weighs_one() {
        let ledger = Ledger::new(16);
        let group = ledger.open(1);
        assert_eq!(group_weight(&ledger, group, 8), WEIGHT_ONE, "nothing is known");
        ledger.debit(group, 1_000);
        assert_eq!(group_weight(&ledger, group, 8), WEIGHT_ONE);
        ledger.note_spread(group, 250);
        assert_eq!(group_weight(&ledger, group, 8), WEIGHT_ONE + (SPREAD_WEIGHT_MAX - 1) * WEIGHT_ONE / 4);
        ledger.note_spread(group, 250);
        assert_eq!(group_weight(&ledger, group, 8), WEIGHT_ONE * SPREAD_WEIGHT_MAX);
        ledger.note_spread(group, u64::MAX / 8);
        assert_eq!(group_weight(&ledger, group, 8), WEIGHT_ONE * SPREAD_WEIGHT_MAX);
    }
}
