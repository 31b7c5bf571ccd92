//! Everything that time causes: handshakes that never come, silence, stalls, keep-alives, rates.

use crate::base::limits::{
    HANDSHAKE_TIMEOUT, IDLE_TIMEOUT, KEEPALIVE_INTERVAL, SEND_STALL_TIMEOUT, SEND_STUCK_TIMEOUT,
    SNUB_TIMEOUT, SNUB_TIMEOUT_MAX, SNUBBED_TIME,
};
use crate::base::time::Span;
use crate::proto::wire::message::Message;

use super::*;

/// Between two looks at who is hungry or throttled.
const TICK: Span = Span::from_ms(50);

/// Between two looks at a connection.
const ROLL: Span = Span::from_secs(1);

/// Connections are looked after in so many parts, one after the other, so that ten thousand do not
/// take one turn.
pub(super) const ROLL_PARTS: usize = 8;

/// Between two parts.
const ROLL_STEP: Span = Span(ROLL.0 / ROLL_PARTS as u64);

impl Engine {
    /// When `handle_tick` is next due; `None` while there is nobody to look after.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.peers.is_empty() {
            return None;
        }
        let pressing = !self.throttled.is_empty() || !self.hungry.is_empty();
        let roll = self.rolled_at + ROLL_STEP;
        let tick = if pressing { self.ticked_at + TICK } else { roll };
        let asks = self.ingress.poll_timeout().filter(|_| !self.hungry.is_empty());
        let limited = self.egress.poll_timeout().into_iter().chain(asks);
        Some(limited.fold(roll.min(tick), Instant::min))
    }

    /// Time has passed.
    pub fn handle_tick(&mut self, now: Instant) {
        self.egress.roll(now, &self.ledger);
        self.food |= self.ingress.opens(now);
        if now.since(self.ticked_at) >= TICK {
            self.ticked_at = now;
            for conn in std::mem::take(&mut self.throttled) {
                if let Some(peer) = self.peers.get_mut(conn) {
                    peer.out.throttled = false;
                }
                self.make_ready(conn);
            }
            self.feed_hungry(now);
            self.relieve_late(now);
            self.tell_if_idle(now);
        }
        let steps = now.since(self.rolled_at).0 / ROLL_STEP.0;
        if steps > 0 {
            self.rolled_at = now;
            self.review_choker(now);
            for _ in 0..steps.min(ROLL_PARTS as u64) {
                self.roll_part(now);
            }
        }
    }

    /// Looks after the next part of the connections.
    fn roll_part(&mut self, now: Instant) {
        self.part = (self.part + 1) % ROLL_PARTS;
        let span = now.since(std::mem::replace(&mut self.parts_at[self.part], now));
        let part: Vec<ConnId> = self.peers.part(self.part, ROLL_PARTS).map(|peer| peer.conn).collect();
        let gives = |peer: &&Peer| {
            peer.received_bytes > 0 && peer.lets_ask() && peer.flags.interested && !peer.is_snubbed()
        };
        self.givers[self.part] = self.peers.part(self.part, ROLL_PARTS).filter(gives).count() as u32;
        self.givers_sum = self.givers.iter().sum();
        for conn in part {
            self.look_after(conn, span, now);
        }
        if self.part == 0 {
            self.appetite.roll();
            self.pressure.roll(self.cache.refusals());
            self.give_up_stale(now);
            self.review_gifts();
            self.review_paroles(now);
            self.review_leaf_asks(now);
            self.review_inquests(now);
        }
    }

    /// Once a second for each connection.
    fn look_after(&mut self, conn: ConnId, span: Span, now: Instant) {
        let Some(peer) = self.peers.get_mut(conn) else { return };
        peer.pace.roll(span);
        peer.roll_meters(span);
        peer.drain.roll(span, peer.out.holds_slots());
        peer.cold_reads.roll(span);
        peer.asks.roll(span);
        peer.idle_messages = 0;
        match peer.stage {
            Stage::Dialing | Stage::Handshaking => {
                if now.since(peer.since) >= HANDSHAKE_TIMEOUT {
                    self.close(conn, Farewell::TimedOut);
                }
            }
            Stage::Open => {
                if self.prove(conn, now).is_err() {
                    self.close(conn, Farewell::Misbehaved);
                    return;
                }
                self.look_after_open(conn, now);
            }
            Stage::Closing => {}
        }
        self.hear_again(conn);
    }

    fn look_after_open(&mut self, conn: ConnId, now: Instant) {
        let Some(peer) = self.peers.get_mut(conn) else { return };
        let silent = now.since(peer.heard_at) >= IDLE_TIMEOUT;
        // What the kernel sends without a copy is held though no send is in flight.
        let sending = peer.out.in_flight || peer.out.holds_slots();
        let stuck = |span| sending && now.since(peer.sent_at.max(peer.since)) >= span;
        let deaf = stuck(SEND_STALL_TIMEOUT) && now.since(peer.heard_at) >= SEND_STALL_TIMEOUT;
        let stuck = stuck(SEND_STUCK_TIMEOUT);
        if silent || deaf || stuck || self.peers.get(conn).is_some_and(|peer| self.hoards(peer)) {
            self.close(conn, Farewell::TimedOut);
            return;
        }
        let Some(peer) = self.peers.get_mut(conn) else { return };
        if !peer.out.in_flight && now.since(peer.sent_at.max(peer.since)) >= KEEPALIVE_INTERVAL {
            Message::KeepAlive.encode(&mut peer.out.frames);
        }
        let waits = !peer.asked.is_empty() && !peer.is_snubbed();
        // Who is slow and steady does not snub us.
        let patience = peer.pace.patience().unwrap_or(SNUB_TIMEOUT);
        let timeout = patience.max(SNUB_TIMEOUT).min(SNUB_TIMEOUT_MAX);
        let gave_at = peer.block_at;
        let waited = now.since(gave_at);
        if waits && waited >= timeout {
            // What only it gives stays asked of it: taking it back would lose its turn and what is under way.
            if waited >= SNUB_TIMEOUT_MAX || !self.waits_for_rare(conn) {
                self.snub(conn, (gave_at + SNUBBED_TIME).max(now + SNUB_TIMEOUT));
            }
        } else if peer.snubbed_until.is_some_and(|until| now >= until) {
            // Another chance, with a short queue.
            (peer.snubbed_until, peer.comebacks) = (None, 0);
            peer.block_at = now;
            peer.pace = pace::Pace::default();
            self.hungry.push(conn);
        }
        self.say_upload_only(conn);
        self.review_interest(conn);
        self.rank_again(conn);
        self.serve_at_least(conn, now);
        self.make_ready(conn);
    }

    /// Takes our interest back when the peer has nothing that we lack, and parts from it when
    /// neither side lacks anything.
    fn review_interest(&mut self, conn: ConnId) {
        let Some(peer) = self.peers.get_mut(conn) else { return };
        let Some(torrent) = peer.torrent.and_then(|id| self.torrents[id.0 as usize].as_ref()) else { return };
        if torrent.shared.is_satisfied() && (peer.is_seed() || peer.upload_only && !peer.flags.wants_us) {
            self.close(conn, Farewell::Useless);
            return;
        }
        let wanted = torrent.wants_pieces() && torrent.shared.lacks_any_of(&peer.bits);
        if wanted && !peer.flags.interested {
            // A piece was lost that they have.
            self.become_interested(conn);
            self.hungry.push(conn);
        } else if !wanted && peer.flags.interested {
            peer.flags.interested = false;
            Message::NotInterested.encode(&mut peer.out.frames);
        }
    }
}
