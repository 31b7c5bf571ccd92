//! What a send carries, and what becomes of it.
//!
//! A request is only queued. `next_upload` asks the scheduler whose turn it is, `take_send` composes one
//! send: control frames that wait, and on its connection's turn blocks, which `take_blocks` chooses.
//! Payload is charged when it is submitted, and what never left is refunded.

use crate::base::geometry::{BlockRef, Geometry};
use crate::base::limits::SLOTS_HELD_MAX;
use crate::base::segment::{SEGMENTS_MAX, Segment};
use crate::base::units::{BLOCK_BYTES, CHUNK_BYTES};
use crate::proto::wire::message::piece_header;

use super::loading::Found;
use super::peer::{Outgoing, Pin};
use super::proof::Proof;
use super::scheduler::Turn;
use super::scheduler::class::Class;
use super::session::weight;
use super::*;

impl Engine {
    /// Composes the next send of `conn` into `segments`, and the bytes that its outbox segments name
    /// into `outbox`. False if there is nothing to send now.
    pub fn take_send(
        &mut self,
        conn: ConnId,
        outbox: &mut Vec<u8>,
        segments: &mut Vec<Segment>,
        now: Instant,
    ) -> bool {
        let Some(peer) = self.peers.get_mut(conn) else { return false };
        if !peer.may_send() {
            return false;
        }
        let turn = peer.out.turn.take();
        if peer.out.segments.is_empty() {
            if self.answer_waiting(conn, now).is_err() {
                self.close(conn, Farewell::Misbehaved);
                return false;
            }
            let Some(peer) = self.peers.get_mut(conn) else { return false };
            outbox.clear();
            outbox.append(&mut peer.out.frames);
            peer.rejects_waiting = 0;
            if !outbox.is_empty() {
                peer.out.push(Segment::Outbox { offset: 0, len: outbox.len() as u32 });
            }
            if let Some(turn) = turn {
                self.take_blocks(conn, turn, outbox, now);
            }
        }
        let Some(peer) = self.peers.get_mut(conn) else { return false };
        segments.extend(peer.out.segments.iter().take(SEGMENTS_MAX));
        peer.out.in_flight = !segments.is_empty();
        if peer.out.in_flight {
            peer.sent_at = now;
        }
        peer.out.in_flight
    }

    /// The connection has requests: it waits until they are to be served.
    pub(super) fn wait_for_turn(&mut self, conn: ConnId) {
        // Who wanted only what others have or are being given may have asked for something else by now.
        if self.egress.waits_again(conn) {
            self.rank_again(conn);
        } else if !self.egress.holds(conn) {
            let demand = self.bring_forward(conn);
            self.egress.wait(conn, demand, &self.ledger);
        }
    }

    /// Whose blocks are sent next, if any may be sent now.
    pub(super) fn next_upload(&mut self, now: Instant) -> Option<ConnId> {
        let next = self.pick_upload(now);
        if next.is_none() {
            self.choker.note_uplink(!self.egress.is_idle());
        }
        next
    }

    fn pick_upload(&mut self, now: Instant) -> Option<ConnId> {
        while let Some((conn, turn)) = self.egress.next(now, &self.ledger) {
            let Some(peer) = self.peers.get(conn) else { continue };
            // Who has a send in flight comes to wait again when that ends.
            let wants = peer.out.segments.is_empty() && !peer.requests.is_empty();
            if !peer.may_send() || !wants {
                continue;
            }
            if !self.is_served(peer, turn.class) {
                // It is choked, and its turn would be one in *rest*: see `make_ready`.
                self.turn_down(conn, None);
                self.make_ready(conn);
                continue;
            }
            self.peers.get_mut(conn)?.out.turn = Some(turn);
            return Some(conn);
        }
        None
    }

    /// Blocks of one turn: no more than the connection takes at a time, and its party's room in what may
    /// be in flight, so that others have their turn soon. See `TURN_BLOCKS_EXCESS`.
    pub(super) fn turn_blocks(peer: &Peer, turn: Turn) -> usize {
        let room = turn.bytes.div_ceil(BLOCK_BYTES.into()) as usize;
        let least = if turn.class == Class::Excess { TURN_BLOCKS_EXCESS } else { 1 };
        peer.out.burst.blocks().min(room.max(least))
    }

    /// Moves queued requests into the send, as far as the turn goes, their chunks are in memory and limits
    /// allow, and charges them to the peer.
    fn take_blocks(&mut self, conn: ConnId, turn: Turn, outbox: &mut Vec<u8>, now: Instant) {
        let Some(peer) = self.peers.get(conn) else { return };
        let Some(id) = peer.torrent else { return };
        let (burst, slots_max) = (Self::turn_blocks(peer, turn), self.send_slots_max());
        let spreads_in = self.spreads_in(conn, turn.class);
        let begun = turn.goes_on.then(|| self.begun_piece(peer));
        let (mut weighs, mut taken, mut piece, mut waits_anew) = (0, 0, None, false);
        while weighs < burst {
            let Some(&block) = self.peers.get(conn).and_then(|peer| next_request(peer, slots_max)) else {
                break;
            };
            let is_next = piece.replace(block.piece) != Some(block.piece);
            let spreads = |enough| !is_next || self.still_spreads(conn, enough, block.piece);
            // Who comes first for the sake of a piece gets no more than the rest of that.
            let in_turn = begun.is_none_or(|begun| begun == Some(block.piece));
            waits_anew =
                !in_turn || !spreads_in.is_none_or(spreads) || !self.egress.claim(conn, block.length, now);
            if waits_anew {
                break;
            }
            if !self.take_block(conn, id, block, outbox) {
                self.egress.put_back(conn, block.length);
                break;
            }
            self.note_given(conn, block, now);
            weighs += weight(block.length);
            taken += 1;
        }
        self.counters.blocks_sent.add(taken);
        let Some(peer) = self.peers.get_mut(conn) else { return };
        let bytes = peer.out.left_payload_bytes;
        if bytes > 0 {
            peer.probe.note_taken(taken as usize);
            peer.out.burst.begin(now);
            peer.waits_since = now;
            // Nor does a block out of turn begin a piece that comes first from then on.
            peer.out.piece = peer.out.piece.filter(|_| !turn.is_extra);
            peer.out.begun = self.egress.charge(conn, turn, bytes, &self.ledger);
            self.counters.class_sent_bytes[turn.class as usize].add(bytes);
            return;
        }
        if turn.is_extra {
            self.egress.missed_turn(conn);
            self.choker.put_spare_back();
        }
        if waits_anew {
            // Another core took the last of what its limits let pass, or somebody else was given the piece.
            self.wait_for_turn(conn);
        }
    }

    /// What the peer gave by now may have changed its place in the order: who has come to deserve better
    /// rises at its next full chunk, or within a second.
    pub(super) fn rank_again(&mut self, conn: ConnId) {
        if self.egress.holds(conn) {
            let demand = self.bring_forward(conn);
            self.egress.rank_again(conn, demand, &self.ledger);
        }
    }

    /// The connection is over: what was charged and never left is refunded, its accounts are closed.
    pub(super) fn settle_account(&mut self, peer: &mut Peer) {
        if let Some(begun) = peer.out.begun.take() {
            self.egress.end(peer.conn, begun, &self.ledger);
            // How much of a send left that our own closing cut off is not known: nobody is to gain by it.
            if !peer.out.in_flight {
                self.egress.refund(peer.conn, peer.out.left_payload_bytes, &self.ledger);
            }
        }
        self.egress.leave(peer.conn, &self.ledger);
        peer.accounts.take().into_iter().flatten().for_each(|account| self.ledger.close(account));
    }

    /// The tick tries again to send to `conn`.
    pub(super) fn throttle(&mut self, conn: ConnId) {
        if let Some(peer) = self.peers.get_mut(conn)
            && !std::mem::replace(&mut peer.out.throttled, true)
        {
            self.throttled.push(conn);
        }
    }

    /// Moves the front request into the send; false if it has to wait.
    fn take_block(&mut self, conn: ConnId, id: TorrentId, block: BlockRef, outbox: &mut Vec<u8>) -> bool {
        let Some(geometry) = self.torrent(id).map(|torrent| torrent.shared.meta.geometry) else {
            return false;
        };
        let first = geometry.chunk_of(block.piece, block.begin);
        let last = geometry.chunk_of(block.piece, block.begin + block.length - 1);
        let mut pins = [None; 2];
        for (pin, chunk) in pins.iter_mut().zip(first..=last) {
            match self.hold_chunk(conn, id, chunk) {
                Found::Here(held) => *pin = Some(held),
                missing => {
                    self.let_go_of_unsent(conn, id);
                    self.postpone(conn, id, block, matches!(missing, Found::Coming));
                    return false;
                }
            }
        }
        let Some(peer) = self.peers.get_mut(conn) else { return false };
        peer.requests.pop_front();
        peer.note_answered();
        peer.missed = false;
        peer.out.note_piece(block);
        append_block(&mut peer.out, geometry, block, &pins, outbox);
        true
    }

    /// Gives back what was pinned for a block that cannot be sent yet, if no other block of the send
    /// lies there.
    fn let_go_of_unsent(&mut self, conn: ConnId, id: TorrentId) {
        let Some(peer) = self.peers.get_mut(conn) else { return };
        let Some(&last) = peer.out.pins.last() else { return };
        let sent = peer.out.segments.iter().rev().any(|segment| match *segment {
            Segment::Payload { slot, .. } => slot == last.slot,
            _ => false,
        });
        if !sent {
            peer.out.pins.pop();
            self.unpin_all(id, &[last]);
        }
    }

    /// A send ended: `bytes` of it are out.
    pub fn handle_sent(&mut self, conn: ConnId, result: Result<u32, i32>, now: Instant) {
        let Some(peer) = self.peers.get_mut(conn) else { return };
        peer.out.in_flight = false;
        let Ok(bytes) = result else {
            self.close(conn, Farewell::Gone);
            return;
        };
        peer.sent_at = now;
        let payload = peer.out.advance(bytes.into());
        peer.sent_bytes += payload;
        peer.drain.note_sent(payload);
        peer.cold_reads.note_sent(payload);
        peer.asks.earn(payload);
        self.choker.note_sent(payload);
        let whole = peer.out.left_bytes == 0;
        if whole && let Some(begun) = peer.out.begun.take() {
            self.egress.end(conn, begun, &self.ledger);
            if let Some(unsent_bytes) = peer.out.burst.end(begun.bytes(), now) {
                self.actions.push_back(Action::Unsent { conn, bytes: unsent_bytes });
            }
        }
        if whole && let Some(took) = peer.probe.note_sent(now) {
            self.counters.request_ns.record(took.0);
        }
        if whole {
            peer.out.hold_burst();
        }
        let proven = whole && matches!(peer.proof, Proof::Good(_));
        // Taken out and put back, to keep the allocation.
        let mut pins = std::mem::take(&mut peer.out.pins);
        if let Some(id) = peer.torrent
            && let Some(torrent) = self.torrent(id)
        {
            torrent.stats(self.config.core).sent_bytes.add(payload);
            if whole {
                self.unpin_all(id, &pins);
                pins.clear();
            }
        }
        if let Some(peer) = self.peers.get_mut(conn) {
            peer.out.pins = pins;
        }
        if proven {
            self.take_identity(conn);
        }
        self.tell_haves(conn);
        self.hear_again(conn);
        self.make_ready(conn);
    }

    /// So much of what a connection was sent stands in this machine's queue.
    pub fn handle_backlog(&mut self, conn: ConnId, bytes: u64, now: Instant) {
        self.egress.note_backlog(conn, bytes, now, &self.ledger);
    }

    pub(super) fn unpin_all(&self, id: TorrentId, pins: &[Pin]) {
        if let Some(torrent) = self.torrent(id) {
            pins.iter().for_each(|pin| torrent.shared.chunks.unpin(pin.chunk));
        }
    }
}

/// Blocks of a turn in the class *excess* at least, however little its party has room for: one is on its way
/// while the other is chosen. Who is owed needs none: it is first again until its debt is that of others.
/// Long turns starve the others' connections (ARCHITECTURE.md, "Many connections fill a link").
pub(super) const TURN_BLOCKS_EXCESS: usize = 2;

/// The request that is served next, unless the connection pins as many slots as it may.
fn next_request(peer: &Peer, slots_max: usize) -> Option<&BlockRef> {
    let pins_more = peer.out.pins.len() < slots_max && peer.out.slots_held() < SLOTS_HELD_MAX;
    peer.requests.front().filter(|_| pins_more)
}

/// Appends header and payload of one block. A whole block of the grid has its header beside its
/// payload; any other gets one in the outbox.
fn append_block(
    out: &mut Outgoing,
    geometry: Geometry,
    block: BlockRef,
    pins: &[Option<Pin>; 2],
    outbox: &mut Vec<u8>,
) {
    let mut left = block.length;
    let mut begin = block.begin;
    for (at, &Pin { chunk, slot, residue }) in pins.iter().flatten().enumerate() {
        let index = begin % CHUNK_BYTES / BLOCK_BYTES;
        if at == 0 && geometry.block(chunk, index) == block {
            out.push(Segment::Header { slot, block: index, skip: 0 });
        } else if at == 0 {
            let (offset, header) = (outbox.len() as u32, piece_header(block));
            outbox.extend_from_slice(&header);
            out.push(Segment::Outbox { offset, len: header.len() as u32 });
        }
        let in_chunk = begin - geometry.chunk_begin(chunk);
        let len = left.min(geometry.chunk_len(chunk) - in_chunk);
        out.push(Segment::Payload { slot, offset: residue + in_chunk, len });
        left -= len;
        begin += len;
    }
    assert_eq!(left, 0, "a request spans at most two chunks: {block:?}");
}

impl Outgoing {
    /// A block goes into the send.
    fn note_piece(&mut self, block: BlockRef) {
        let before = self.piece.filter(|&(piece, _)| piece == block.piece).map_or(0, |(_, bytes)| bytes);
        self.piece = Some((block.piece, before.saturating_add(block.length)));
    }

    fn push(&mut self, segment: Segment) {
        let len = u64::from(segment.len());
        self.left_bytes += len;
        self.left_payload_bytes += if segment.is_payload() { len } else { 0 };
        self.segments.push_back(segment);
    }

    /// Takes `bytes` off the front; returns how many of them were payload.
    fn advance(&mut self, bytes: u64) -> u64 {
        let payload_before = self.left_payload_bytes;
        if bytes >= self.left_bytes {
            self.segments.clear();
            (self.left_bytes, self.left_payload_bytes) = (0, 0);
            return payload_before;
        }
        let mut left = bytes as u32;
        while let Some(front) = self.segments.front_mut().filter(|_| left > 0) {
            let step = front.len().min(left);
            self.left_bytes -= u64::from(step);
            self.left_payload_bytes -= if front.is_payload() { u64::from(step) } else { 0 };
            *front = front.skip(step);
            left -= step;
            if front.is_empty() {
                self.segments.pop_front();
            }
        }
        payload_before - self.left_payload_bytes
    }
}
