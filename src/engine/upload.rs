//! The scheduler: whom to send what.
//!
//! A request is only queued. Connections with something to send stand in one queue, each once, and
//! are served in turn (equal shares of bytes, as every turn carries up to the same burst). Three
//! small deciders: `take_send` composes one send, `take_blocks` chooses its blocks, `find_chunk`
//! brings a chunk that is not in memory.

use crate::base::geometry::BlockRef;
use crate::base::segment::{SEGMENTS_MAX, Segment};
use crate::base::units::{BLOCK_BYTES, CHUNK_BYTES};
use crate::proto::wire::message::piece_header;
use crate::shared::chunks::ChunkState;
use crate::shared::sync::Ordering;
use crate::storage::plan;

use super::peer::Outgoing;
use super::session::{reject, weight};
use super::*;

/// Blocks of one send at most: 512 KiB.
const BURST_BLOCKS_MAX: usize = 32;

/// Connections in the queue from which on turns are kept short.
const CROWD: usize = 32;

/// Blocks of one send while the queue is long: 128 KiB.
const BURST_BLOCKS_CROWDED: usize = 8;

/// Chunks behind the first missing one that are read ahead for a peer.
const READ_AHEAD_CHUNKS: usize = 4;

/// How often one look-up follows a chunk that other cores load and evict meanwhile.
const LOOKS: usize = 4;

/// Where a requested chunk is.
enum Found {
    /// Pinned.
    Here(crate::base::ids::SlotId),
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
                peer.out.segments.push_back(Segment::Outbox { offset: 0, len: outbox.len() as u32 });
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
        // With many in the queue a turn is short and the same for all: who drains fast gets no more.
        let crowded = self.ready.len() >= CROWD;
        let burst = peer.out.burst_blocks.min(if crowded { BURST_BLOCKS_CROWDED } else { BURST_BLOCKS_MAX });
        let mut blocks = 0;
        while blocks < burst {
            let Some(peer) = self.peers.get_mut(conn) else { return };
            let Some(&block) = peer.requests.front() else { return };
            if let Some(budget) = &self.config.upload
                && budget.claim(block.length, now) == 0
            {
                self.throttled.push(conn);
                return;
            }
            if !self.take_block(conn, id, block, outbox) {
                if let Some(budget) = &self.config.upload {
                    budget.refund(block.length);
                }
                return;
            }
            blocks += weight(block.length);
        }
    }

    /// Moves the front request into the send; false if it has to wait.
    fn take_block(&mut self, conn: ConnId, id: TorrentId, block: BlockRef, outbox: &mut Vec<u8>) -> bool {
        let Some(torrent) = self.torrents[id.0 as usize].as_ref() else { return false };
        let geometry = torrent.shared.meta.geometry;
        let first = geometry.chunk_of(block.piece, block.begin);
        let last = geometry.chunk_of(block.piece, block.begin + block.length - 1);
        let mut slots = [None; 2];
        for (place, chunk) in slots.iter_mut().zip(first..=last) {
            match self.find_chunk(conn, id, chunk) {
                Found::Here(slot) => *place = Some((chunk, slot)),
                missing => {
                    self.unpin_all(id, slots.into_iter().flatten().map(|(chunk, _)| chunk));
                    self.postpone(conn, id, block, matches!(missing, Found::Coming));
                    return false;
                }
            }
        }
        let Some(torrent) = self.torrents[id.0 as usize].as_ref() else { return false };
        let Some(peer) = self.peers.get_mut(conn) else { return false };
        peer.requests.pop_front();
        append_block(&mut peer.out, &torrent.shared, block, &slots, outbox);
        true
    }

    /// The front request cannot be served now: its chunks are on their way, or it is refused.
    fn postpone(&mut self, conn: ConnId, id: TorrentId, block: BlockRef, coming: bool) {
        let Some(torrent) = self.torrents[id.0 as usize].as_ref() else { return };
        let lost = !torrent.shared.has(block.piece);
        if coming {
            self.read_ahead(conn, id);
        } else if lost && let Some(peer) = self.peers.get_mut(conn) {
            peer.requests.pop_front();
            if reject(peer, block).is_err() {
                self.close(conn, Farewell::Misbehaved);
            }
            self.make_ready(conn);
        } else {
            // No free slot: the tick tries again.
            self.throttled.push(conn);
        }
    }

    /// Pins a chunk, or starts to read it, or waits for whoever reads it.
    fn find_chunk(&mut self, conn: ConnId, id: TorrentId, chunk: u32) -> Found {
        let Some(torrent) = self.torrents[id.0 as usize].as_ref() else { return Found::Nowhere };
        let shared = Arc::clone(&torrent.shared);
        if !shared.has(shared.meta.geometry.chunk_piece(chunk)) {
            return Found::Nowhere;
        }
        for _ in 0..LOOKS {
            if let Some(slot) = shared.chunks.pin(chunk) {
                return Found::Here(slot);
            }
            let coming = match shared.chunks.view(chunk).state {
                ChunkState::Empty if !self.load(id, chunk) => return Found::Nowhere,
                // Whoever reads it, only a core that has registered is told.
                ChunkState::Empty | ChunkState::Loading => {
                    self.cache.wait_for_load(&shared.chunks, chunk, self.config.core)
                }
                _ => false,
            };
            if coming {
                self.wait_for(conn, id, chunk);
                return Found::Coming;
            }
        }
        // Pinned to the limit, or it comes and goes: the tick tries again.
        Found::Nowhere
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
    fn load(&mut self, id: TorrentId, chunk: u32) -> bool {
        let Some(slot) = self.allocate(id, chunk) else { return false };
        let Some(torrent) = self.torrents[id.0 as usize].as_ref() else { return false };
        if torrent.shared.chunks.begin_load(chunk, slot) {
            let len = torrent.shared.meta.geometry.chunk_len(chunk);
            torrent.stats(self.config.core).loaded_bytes.fetch_add(len.into(), Ordering::Relaxed);
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
            self.load(id, chunk);
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
        let (payload, left) = advance(&mut peer.out, bytes);
        peer.sent_bytes += payload;
        let whole = left == 0;
        let burst = &mut peer.out.burst_blocks;
        *burst = if whole { (*burst * 2).min(BURST_BLOCKS_MAX) } else { (*burst / 2).max(1) };
        let id = peer.torrent;
        let pins = if whole { std::mem::take(&mut peer.out.pins) } else { Vec::new() };
        if let Some(id) = id {
            if let Some(torrent) = self.torrents[id.0 as usize].as_ref() {
                torrent.stats(self.config.core).sent_bytes.fetch_add(payload, Ordering::Relaxed);
            }
            self.unpin_all(id, pins.iter().copied());
        }
        if let Some(peer) = self.peers.get_mut(conn)
            && whole
        {
            // Keep the allocation.
            peer.out.pins = pins;
            peer.out.pins.clear();
        }
        self.make_ready(conn);
    }

    fn unpin_all(&self, id: TorrentId, chunks: impl Iterator<Item = u32>) {
        if let Some(torrent) = self.torrents[id.0 as usize].as_ref() {
            chunks.for_each(|chunk| torrent.shared.chunks.unpin(chunk));
        }
    }
}

/// Appends header and payload of one block. A whole block of the grid has its header beside its
/// payload; any other gets one in the outbox.
fn append_block(
    out: &mut Outgoing,
    shared: &SharedTorrent,
    block: BlockRef,
    slots: &[Option<(u32, crate::base::ids::SlotId)>; 2],
    outbox: &mut Vec<u8>,
) {
    let geometry = shared.meta.geometry;
    let mut left = block.length;
    let mut begin = block.begin;
    for (at, &(chunk, slot)) in slots.iter().flatten().enumerate() {
        let index = begin % CHUNK_BYTES / BLOCK_BYTES;
        if at == 0 && geometry.block(chunk, index) == block {
            out.segments.push_back(Segment::Header { slot, block: index, skip: 0 });
        } else if at == 0 {
            let (offset, header) = (outbox.len() as u32, piece_header(block));
            outbox.extend_from_slice(&header);
            out.segments.push_back(Segment::Outbox { offset, len: header.len() as u32 });
        }
        let in_chunk = begin - geometry.chunk_begin(chunk);
        let len = left.min(geometry.chunk_len(chunk) - in_chunk);
        let residue =
            plan::residue(&shared.meta.layout, geometry.chunk_start(chunk), geometry.chunk_len(chunk));
        out.segments.push_back(Segment::Payload { slot, offset: residue + in_chunk, len });
        out.pins.push(chunk);
        left -= len;
        begin += len;
    }
    assert_eq!(left, 0, "a request spans at most two chunks: {block:?}");
}

/// Takes `bytes` off the front of a send; returns how many were payload and how many are left.
fn advance(out: &mut Outgoing, mut bytes: u32) -> (u64, u64) {
    let mut payload = 0;
    while bytes > 0 {
        let Some(front) = out.segments.front_mut() else { break };
        let step = front.len().min(bytes);
        if matches!(front, Segment::Payload { .. }) {
            payload += u64::from(step);
        }
        *front = front.skip(step);
        bytes -= step;
        if front.is_empty() {
            out.segments.pop_front();
        }
    }
    (payload, out.segments.iter().map(|segment| u64::from(segment.len())).sum())
}
