//! Carries out what the choker decides: unchokes, chokes, what they do to requests, and blocks out of turn.

use super::choker::{Due, Member};
use super::scheduler::class::{Class, earned};
use super::session::reject;
use super::*;
use crate::base::limits::{CHOKE_ROUND, SERVED_WITHIN, UNCHOKED_TURN};
use crate::base::time::Span;
use crate::base::units::BLOCK_BYTES;
use crate::proto::wire::message::Message;

impl Engine {
    /// Whether the peer competes with others for being unchoked.
    pub(super) fn competes(&self, peer: &Peer) -> bool {
        self.choker.competes(peer.address.ip(), &self.config.grouping)
    }

    /// A peer wants blocks from now on, or wants none any more; its flag says which.
    pub(super) fn interest_changed(&mut self, conn: ConnId, now: Instant) {
        let Some(peer) = self.peers.get(conn) else { return };
        let Some([_, group]) = peer.accounts else { return };
        match (peer.flags.wants_us, peer.flags.unchoked, self.competes(peer)) {
            (true, false, false) => self.unchoke(conn, CHOKE_ROUND, now),
            (true, false, true) => {
                let room = self.choker.has_room();
                self.choker.turns.push(conn, group);
                match room {
                    true => self.unchoke(conn, CHOKE_ROUND, now),
                    false => self.offer_allowed_fast(conn),
                }
            }
            (true, true, true) => self.choker.note_unchoked(),
            (false, true, true) => self.choker.note_gone(),
            (false, false, true) => self.choker.turns.remove(conn, group),
            (_, _, false) => {}
        }
    }

    /// The connection is being closed; it competes no more.
    pub(super) fn leave_choker(&mut self, conn: ConnId) {
        let Some(peer) = self.peers.get(conn).filter(|peer| peer.flags.wants_us) else { return };
        let Some([_, group]) = peer.accounts.filter(|_| self.competes(peer)) else { return };
        if peer.flags.unchoked {
            self.choker.note_gone();
        } else {
            self.choker.turns.remove(conn, group);
        }
    }

    /// Eight times a second: whom to unchoke, and once in a round whom to choke.
    pub(super) fn review_choker(&mut self, now: Instant) {
        let rivals = self.choker.unchoked() + self.choker.turns.len();
        let others = (self.leeches as usize).saturating_sub(rivals);
        match self.choker.look(others, now) {
            Some(Due::Unchoke(count)) => self.unchoke_by_turns(count, CHOKE_ROUND, now),
            Some(Due::Round) => self.hold_round(now),
            None => {}
        }
    }

    fn hold_round(&mut self, now: Instant) {
        if self.choker.limit() == usize::MAX {
            return;
        }
        let members = self.peers.iter().filter_map(|peer| self.member(peer)).collect();
        let decision = self.choker.decide(members, now);
        // Those whose turn comes are found before who is choked stands behind them.
        decision.unchoke.into_iter().for_each(|conn| self.unchoke(conn, CHOKE_ROUND, now));
        self.unchoke_by_turns(decision.turns, UNCHOKED_TURN, now);
        decision.choke.into_iter().for_each(|conn| self.choke(conn));
    }

    /// A peer as the choker sees it, if it is unchoked or may be for what it gave.
    fn member(&self, peer: &Peer) -> Option<Member> {
        let [own, _] = peer.accounts.filter(|_| peer.is_open() && self.competes(peer))?;
        let (unchoked, wants) = (peer.flags.unchoked, peer.flags.wants_us);
        if !unchoked && !wants {
            return None;
        }
        // Debts are paid; beyond that who leaves our requests unanswered has earned nothing.
        let earned = earned(self.ledger.standing(own))
            .filter(|place| place.class == Class::Owed || !peer.is_snubbed());
        let kept_until = unchoked.then_some(peer.kept_until);
        (unchoked || earned.is_some()).then_some(Member { conn: peer.conn, earned, wants, kept_until })
    }

    fn unchoke_by_turns(&mut self, count: usize, hold: Span, now: Instant) {
        for _ in 0..count {
            let Some(conn) = self.choker.turns.pop() else { return };
            self.unchoke(conn, hold, now);
        }
    }

    pub(super) fn unchoke(&mut self, conn: ConnId, hold: Span, now: Instant) {
        let competes = self.peers.get(conn).is_some_and(|peer| self.competes(peer));
        let Some(peer) = self.peers.get_mut(conn).filter(|peer| !peer.flags.unchoked) else { return };
        peer.flags.unchoked = true;
        peer.kept_until = now + hold;
        Message::Unchoke.encode(&mut peer.out.frames);
        if competes {
            peer.accounts.into_iter().for_each(|[_, group]| self.choker.turns.remove(conn, group));
            self.choker.note_unchoked();
        }
        self.make_ready(conn);
    }

    /// Chokes a peer. What is in a send goes out; of what is queued only requests stay that it may make while
    /// it is choked, and, on a slow link, those for the rest of the piece in the middle of which it is: half
    /// of one would have been sent for nothing.
    pub(super) fn choke(&mut self, conn: ConnId) {
        let Some(peer) = self.peers.get(conn).filter(|peer| peer.flags.unchoked) else { return };
        let begun = self.begun_piece(peer).filter(|_| peer.fast && self.gets_though_choked(peer));
        let Some(peer) = self.peers.get_mut(conn) else { return };
        peer.flags.unchoked = false;
        Message::Choke.encode(&mut peer.out.frames);
        let (wants, accounts) = (peer.flags.wants_us, peer.accounts);
        self.egress.forget(conn);
        if wants && let Some([_, group]) = accounts {
            self.choker.note_gone();
            self.choker.turns.push(conn, group);
        }
        self.turn_down(conn, begun);
        self.make_ready(conn);
    }

    /// Rejects what a choked peer has queued, or drops it without BEP 6, as BEP 3 has it. Not what it may ask
    /// for while it is choked, nor what is left of the piece `begun`.
    pub(super) fn turn_down(&mut self, conn: ConnId, begun: Option<u32>) {
        let Some(torrent) = self.peers.get(conn).and_then(|peer| self.torrent(peer.torrent?)) else { return };
        let piece_bytes = torrent.shared.meta.geometry.piece_bytes;
        let Some(peer) = self.peers.get_mut(conn) else { return };
        let mut left_bytes =
            peer.out.piece.map_or(0, |(_, given_bytes)| piece_bytes.saturating_sub(given_bytes));
        let mut outcome = Ok(());
        // In place: those that stay keep their order behind the last one.
        for _ in 0..peer.requests.len() {
            let Some(block) = peer.requests.pop_front() else { break };
            let offered = peer.offered.as_ref().is_some_and(|offered| offered.has(block.piece));
            let goes_on = begun == Some(block.piece) && block.length <= left_bytes;
            left_bytes -= if goes_on { block.length } else { 0 };
            if offered || goes_on {
                peer.requests.push_back(block);
            } else {
                let answered = reject(peer, block);
                outcome = outcome.and(answered);
            }
        }
        peer.probe.forget();
        peer.missed = false;
        if outcome.is_err() {
            self.close(conn, Farewell::Misbehaved);
        }
    }

    /// An unchoked peer that the order leaves waiting gets a block out of turn before it can take us for one
    /// that snubs it. One of each address group, by lot: a party does not get more by more connections, on
    /// one core and under the same limits.
    pub(super) fn serve_at_least(&mut self, conn: ConnId, now: Instant) {
        let Some(peer) = self.peers.get(conn) else { return };
        let waits = peer.flags.unchoked && !peer.requests.is_empty();
        let late = waits && now.since(peer.waits_since).0 >= SERVED_WITHIN.0;
        let free = peer.may_send() && peer.out.segments.is_empty() && peer.out.turn.is_none();
        if !late || !free {
            return;
        }
        let Some(members) = self.egress.passed_over(conn, now - SERVED_WITHIN) else { return };
        if members > 1 && self.rng.below(members) > 0 || !self.choker.take_spare() {
            return;
        }
        let turn = self.egress.out_of_turn(conn, BLOCK_BYTES.into());
        let Some(peer) = self.peers.get_mut(conn) else { return };
        peer.out.turn = turn;
        if !std::mem::replace(&mut peer.out.due, true) {
            self.due.push_back(conn);
        }
    }
}
