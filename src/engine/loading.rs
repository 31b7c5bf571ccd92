//! Chunks that requests need: pinned where they are in memory, read from disk where they are not.
//!
//! `hold_chunk` is the way in. Every chunk is read once, however many connections and cores want it; who
//! comes while it is read waits, and is made ready when it is there.

use crate::shared::chunks::ChunkState;

use super::peer::Pin;
use super::session::reject;
use super::*;
use crate::base::geometry::BlockRef;

/// Chunks behind the first missing one that are read ahead for a peer.
const READ_AHEAD_CHUNKS: usize = 4;

/// How often one look-up follows a chunk that other cores load and evict meanwhile.
const LOOKS: usize = 4;

/// Where a requested chunk is.
pub(super) enum Found {
    /// In memory, and held for the send.
    Here(Pin),
    /// It is being read; the connection will be made ready.
    Coming,
    /// It cannot be had: no slot is free, or its piece was lost.
    Nowhere,
}

impl Engine {
    /// Pins a chunk for the send of `conn`, or starts to read it, or waits for whoever reads it.
    pub(super) fn hold_chunk(&mut self, conn: ConnId, id: TorrentId, chunk: u32) -> Found {
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

    /// The front request cannot be served now: its chunks are on their way, or it is refused.
    pub(super) fn postpone(&mut self, conn: ConnId, id: TorrentId, block: BlockRef, coming: bool) {
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
        self.chunk_came(id, chunk);
    }
}
