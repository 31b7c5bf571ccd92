//! Whom a seed serves. Nobody can repay it; while pieces are rare it gives by evidence of passing on.
//!
//! - *Injection*: some piece is held by fewer than `INJECTION_COPIES` others. A group weighs the more in the
//!   class *rest*, the more of what it was given came back as an announcement of others. A piece that was
//!   given to somebody who passes on is not given again before it was seen elsewhere, for a while.
//! - *Abundance*: everybody weighs the same.

use super::scheduler::{Demand, WEIGHT_ONE};
use super::*;
use crate::base::limits::{INJECTION_COPIES, SPREAD_LOOKS_MAX, SPREAD_TIME, SPREAD_WEIGHT_MAX};
use crate::shared::injection::at_ms;
use crate::shared::ledger::AccountId;

impl Engine {
    /// How a connection that asks for blocks stands with its torrent. Brings a request to the front that is
    /// to be served before others.
    pub(super) fn demand(&mut self, conn: ConnId) -> Demand {
        let Some(peer) = self.peers.get_mut(conn) else { return Demand::default() };
        let Some([_, group]) = peer.accounts else { return Demand::default() };
        let Some(Some(torrent)) = peer.torrent.map(|id| self.torrents[id.0 as usize].as_ref()) else {
            return Demand::default();
        };
        let shared = &torrent.shared;
        let injection = shared.injection();
        if !shared.is_complete() || !injection.has_rare(INJECTION_COPIES, |piece| shared.availability(piece))
        {
            return Demand::default();
        }
        let spreads_soon = |piece| {
            injection.given(piece).is_some_and(|given| {
                let fresh =
                    u64::from(at_ms(self.ticked_at).wrapping_sub(given.at_ms)) * 1_000_000 < SPREAD_TIME.0;
                given.group != group && fresh && passes_on(&self.ledger, given.group)
            })
        };
        let looks = peer.requests.len().min(SPREAD_LOOKS_MAX);
        let fresh = (0..looks).find(|&at| !spreads_soon(peer.requests[at].piece));
        if let Some(at @ 1..) = fresh {
            // The blocks before it keep their order behind it.
            peer.requests.rotate_left(at);
            peer.probe.forget();
        }
        Demand { again: fresh.is_none(), weight: weight(&self.ledger, group) }
    }

    /// A block of a piece goes to `conn`.
    pub(super) fn note_given(&self, conn: ConnId, piece: u32, now: Instant) {
        let Some(peer) = self.peers.get(conn) else { return };
        let Some([_, group]) = peer.accounts else { return };
        let Some(Some(torrent)) = peer.torrent.map(|id| self.torrents[id.0 as usize].as_ref()) else {
            return;
        };
        if torrent.shared.is_complete() && torrent.shared.availability(piece) == 0 {
            torrent.shared.injection().note_given(piece, group, now);
        }
    }

    /// A peer announced a piece that it did not have before.
    pub(super) fn note_announced(&self, conn: ConnId, piece: u32) {
        let Some(peer) = self.peers.get(conn) else { return };
        let Some([_, group]) = peer.accounts else { return };
        let Some(Some(torrent)) = peer.torrent.map(|id| self.torrents[id.0 as usize].as_ref()) else {
            return;
        };
        if torrent.shared.is_complete()
            && let Some(giver) = torrent.shared.injection().note_announced(piece, group)
        {
            self.ledger.note_spread(giver, torrent.shared.meta.geometry.piece_len(piece).into());
        }
    }
}

/// Weight of a group: one, and up to `SPREAD_WEIGHT_MAX` for who passes on at least half of what it gets.
fn weight(ledger: &Ledger, group: AccountId) -> u64 {
    let (spread, sent) = (ledger.spread_bytes(group), ledger.standing(group).sent_bytes);
    let part = (2 * spread).min(sent);
    WEIGHT_ONE + part.saturating_mul((SPREAD_WEIGHT_MAX - 1) * WEIGHT_ONE) / sent.max(1)
}

/// Whether a group passes most of what it gets on.
fn passes_on(ledger: &Ledger, group: AccountId) -> bool {
    weight(ledger, group) > SPREAD_WEIGHT_MAX * WEIGHT_ONE / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_passes_half_on_weighs_most_and_who_keeps_all_weighs_one() {
        let ledger = Ledger::new(16);
        let group = ledger.open(1);
        assert_eq!(weight(&ledger, group), WEIGHT_ONE, "nothing is known");
        ledger.debit(group, 1_000);
        assert_eq!(weight(&ledger, group), WEIGHT_ONE);
        ledger.note_spread(group, 250);
        let half = weight(&ledger, group);
        assert!(half > WEIGHT_ONE * SPREAD_WEIGHT_MAX / 3 && half < WEIGHT_ONE * SPREAD_WEIGHT_MAX);
        ledger.note_spread(group, 250);
        assert_eq!(weight(&ledger, group), WEIGHT_ONE * SPREAD_WEIGHT_MAX);
        ledger.note_spread(group, u64::MAX / 8);
        assert_eq!(weight(&ledger, group), WEIGHT_ONE * SPREAD_WEIGHT_MAX);
    }
}
