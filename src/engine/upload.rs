//! The scheduler: whom to send what.
//!
//! A request is only queued. Connections with something to send stand in one queue, each once, and
//! are served in turn; each send carries up to the burst of its connection. Small deciders:
//! `take_send` composes one send, `take_blocks` chooses its blocks, `hold_chunk` pins what is in
//! memory and brings what is not.

use crate::base::geometry::{BlockRef, Geometry};
use crate::base::limits::SLOTS_HELD_MAX;
use crate::base::segment::{SEGMENTS_MAX, Segment};
use crate::base::units::{BLOCK_BYTES, CHUNK_BYTES};
use crate::proto::wire::message::piece_header;
use crate::shared::chunks::ChunkState;

use super::peer::{Outgoing, Pin};
use super::session::{reject, weight};
use super::*;

/// Chunks behind the first missing one that are read ahead for a peer.
const READ_AHEAD_CHUNKS: usize = 4;

/// How often one look-up follows a chunk that other cores load and evict meanwhile.
const LOOKS: usize = 4;

/// Where a requested chunk is.
enum Found {
    /// In memory, and held for the send.
    Here(Pin),
    /// It is being read; the connection will be made ready.
    Coming,
    /// It cannot be had: no slot is free, or its piece was lost.
    Nowhere,
}

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
        if peer.out.in_flight || !matches!(peer.stage, Stage::Handshaking | Stage::Open) {
            return false;
        }
        if peer.out.segments.is_empty() {
            outbox.clear();
            outbox.append(&mut peer.out.frames);
            peer.rejects_waiting = 0;
            if !outbox.is_empty() {
                peer.out.push(Segment::Outbox { offset: 0, len: outbox.len() as u32 });
            }
            self.take_blocks(conn, outbox, now);
        }
        let Some(peer) = self.peers.get_mut(conn) else { return false };
        segments.extend(peer.out.segments.iter().take(SEGMENTS_MAX));
        peer.out.in_flight = !segments.is_empty();
        if peer.out.in_flight {
            peer.sent_at = now;
        }
        peer.out.in_flight
    }

    /// Moves queued requests into the send, as far as their chunks are in memory and limits allow.
    fn take_blocks(&mut self, conn: ConnId, outbox: &mut Vec<u8>, now: Instant) {
        let Some(peer) = self.peers.get(conn) else { return };
        let Some(id) = peer.torrent else { return };
        let (burst, slots_max) = (peer.out.burst.blocks(), self.send_slots_max());
        let (mut weighs, mut taken) = (0, 0);
        while weighs < burst {
            let Some(&block) = self.peers.get(conn).and_then(|peer| next_request(peer, slots_max)) else {
                break;
            };
            if let Some(budget) = &self.config.upload
                && budget.claim(block.length, now) == 0
            {
                self.throttle(conn);
                break;
            }
            if !self.take_block(conn, id, block, outbox) {
                if let Some(budget) = &self.config.upload {
                    budget.refund(block.length);
                }
                break;
            }
            weighs += weight(block.length);
            taken += 1;
        }
        self.counters.blocks_sent.add(taken);
        if let Some(peer) = self.peers.get_mut(conn) {
            peer.probe.note_taken(taken as usize);
            peer.out.burst.begin(now);
        }
    }

    /// The tick tries again to send to `conn`.
    fn throttle(&mut self, conn: ConnId) {
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
        peer.missed = false;
        append_block(&mut peer.out, geometry, block, &pins, outbox);
        true
    }

    /// Pins a chunk for the send of `conn`, or starts to read it, or waits for whoever reads it.
    fn hold_chunk(&mut self, conn: ConnId, id: TorrentId, chunk: u32) -> Found {
        for _ in 0..LOOKS {
            if let Some(pin) = self.try_hold(conn, id, chunk) {
                return Found::Here(pin);
            }
            if let Some(found) = self.bring_chunk(conn, id, chunk) {
                return found;
            }
        }
        // Pinned to the limit, or it comes and goes: the tick tries again.
        Found::Nowhere
    }

    /// Pins a chunk that is in memory: once for all blocks of a send that follow one another in it.
    fn try_hold(&mut self, conn: ConnId, id: TorrentId, chunk: u32) -> Option<Pin> {
        let shared = &self.torrents.get(id.0 as usize)?.as_ref()?.shared;
        let out = &mut self.peers.get_mut(conn)?.out;
        if let Some(&held) = out.pins.last()
            && held.chunk == chunk
        {
            return Some(held);
        }
        let geometry = shared.meta.geometry;
        if !shared.has(geometry.chunk_piece(chunk)) {
            return None;
        }
        let slot = shared.chunks.pin(chunk, out.reading != Some(chunk))?;
        let pin = Pin { chunk, slot, residue: shared.meta.residue(chunk) };
        out.reading = Some(chunk);
        out.pins.push(pin);
        Some(pin)
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

    /// The front request cannot be served now: its chunks are on their way, or it is refused.
    fn postpone(&mut self, conn: ConnId, id: TorrentId, block: BlockRef, coming: bool) {
        let Some(torrent) = self.torrents[id.0 as usize].as_ref() else { return };
        let lost = !torrent.shared.has(block.piece);
        if coming {
            self.note_miss(conn);
            self.read_ahead(conn, id);
        } else if lost && let Some(peer) = self.peers.get_mut(conn) {
            peer.requests.pop_front();
            peer.missed = false;
            peer.probe.forget();
            if reject(peer, block).is_err() {
                self.close(conn, Farewell::Misbehaved);
            }
            self.make_ready(conn);
        } else {
            // No free slot: the tick tries again.
            self.throttle(conn);
        }
    }

    /// The front request has to wait for its chunk; counted once, however often it is looked at.
    fn note_miss(&mut self, conn: ConnId) {
        if let Some(peer) = self.peers.get_mut(conn)
            && !std::mem::replace(&mut peer.missed, true)
        {
            self.counters.cache_misses.add(1);
        }
    }

    /// Starts to read a chunk that is in no slot, or waits for whoever reads it. `None` if it has come
    /// meanwhile.
    fn bring_chunk(&mut self, conn: ConnId, id: TorrentId, chunk: u32) -> Option<Found> {
        let shared = Arc::clone(&self.torrent(id)?.shared);
        if !shared.has(shared.meta.geometry.chunk_piece(chunk)) {
            return Some(Found::Nowhere);
        }
        let coming = match shared.chunks.view(chunk).state {
            ChunkState::Empty if !self.load_for(conn, id, chunk) => return Some(Found::Nowhere),
            // Whoever reads it, only a core that has registered is told.
            ChunkState::Empty | ChunkState::Loading => {
                self.cache.wait_for_load(&shared.chunks, chunk, self.config.core)
            }
            _ => false,
        };
        coming.then(|| {
            self.wait_for(conn, id, chunk);
            Found::Coming
        })
    }

    fn wait_for(&mut self, conn: ConnId, id: TorrentId, chunk: u32) {
        if let Some(Some(torrent)) = self.torrents.get_mut(id.0 as usize) {
            let waiting = torrent.waiting.entry(chunk).or_default();
            if !waiting.contains(&conn) {
                waiting.push(conn);
            }
        }
    }

    /// Starts to read a chunk unless another core was faster; false if no slot is free.
    pub(super) fn load(&mut self, id: TorrentId, chunk: u32) -> bool {
        let Some(slot) = self.allocate(id, chunk) else { return false };
        let Some(torrent) = self.torrents[id.0 as usize].as_ref() else { return false };
        if torrent.shared.chunks.begin_load(chunk, slot) {
            let len = torrent.shared.meta.geometry.chunk_len(chunk);
            torrent.stats(self.config.core).loaded_bytes.add(len.into());
            self.actions.push_back(Action::Load { torrent: id, chunk, slot });
        } else {
            self.cache.release(slot);
        }
        true
    }

    /// Starts to read the chunks that the peer's queue will come to.
    fn read_ahead(&mut self, conn: ConnId, id: TorrentId) {
        let Some(peer) = self.peers.get(conn) else { return };
        let Some(torrent) = self.torrents[id.0 as usize].as_ref() else { return };
        let geometry = torrent.shared.meta.geometry;
        let mut ahead = Vec::new();
        for block in &peer.requests {
            let chunk = geometry.chunk_of(block.piece, block.begin);
            let wanted = torrent.shared.chunks.view(chunk).state == ChunkState::Empty
                && torrent.shared.has(block.piece);
            if wanted && !ahead.contains(&chunk) {
                ahead.push(chunk);
            }
            if ahead.len() == READ_AHEAD_CHUNKS {
                break;
            }
        }
        for chunk in ahead {
            self.load_for(conn, id, chunk);
        }
    }

    /// A load of this core ended. `lost`: the bytes on disk are not what they were.
    pub fn handle_loaded(&mut self, id: TorrentId, chunk: u32, result: Result<(), Option<i32>>) {
        let Some(Some(torrent)) = self.torrents.get_mut(id.0 as usize) else { return };
        let shared = &torrent.shared;
        let waiters = match result {
            Ok(()) => self.cache.finish_load(&shared.chunks, chunk),
            Err(errno) => {
                let waiters = self.cache.fail_load(&shared.chunks, chunk);
                let piece = shared.meta.geometry.chunk_piece(chunk);
                if shared.clear_have(piece) {
                    self.actions.push_back(Action::Report(match errno {
                        Some(errno) => Report::DiskFailed { torrent: id, errno },
                        None => Report::PieceLost { torrent: id, piece },
                    }));
                    self.actions.push_back(Action::Tell(To::Others, Note::Missing { torrent: id, piece }));
                    self.forget_piece(id, piece);
                }
                waiters
            }
        };
        let mask = waiters & !(1 << self.config.core.0);
        if mask != 0 {
            let note = Note::Loaded { torrent: id, chunk };
            self.actions.push_back(Action::Tell(To::Mask(mask), note));
        }
        self.wake_waiting(id, chunk);
    }

    /// Makes ready whoever waited for a chunk.
    pub(super) fn wake_waiting(&mut self, id: TorrentId, chunk: u32) {
        let Some(Some(torrent)) = self.torrents.get_mut(id.0 as usize) else { return };
        for conn in torrent.waiting.remove(&chunk).unwrap_or_default() {
            self.make_ready(conn);
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
        peer.asks.note_sent(payload);
        let whole = peer.out.left_bytes == 0;
        if whole && let Some(took) = peer.probe.note_sent(now) {
            self.counters.request_ns.record(took.0);
        }
        if whole {
            if !peer.out.pins.is_empty() {
                peer.out.burst.end(now);
            }
            peer.out.hold_burst();
        }
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
        self.hear_again(conn);
        self.make_ready(conn);
    }

    pub(super) fn unpin_all(&self, id: TorrentId, pins: &[Pin]) {
        if let Some(torrent) = self.torrent(id) {
            pins.iter().for_each(|pin| torrent.shared.chunks.unpin(pin.chunk));
        }
    }
}

/// The oldest request, unless the connection pins as many slots as it may.
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
