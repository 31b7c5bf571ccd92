//! From all blocks there to durable: hash, verify, blame, write.
//!
//! ```text
//! Filled -> hashing -> verified -> writing -> written -> (control thread) durable
//!                 \-> autopsy -> Empty, and its givers are suspects
//! ```

use std::collections::BTreeSet;

use super::torrent::{Assembly, Evidence};
use super::*;
use crate::base::limits::HAVE_FRAMES_WAITING_MAX;
use crate::base::time::Span;
use crate::proto::wire::message::Message;
use crate::shared::chunks::ChunkState;
use crate::shared::judge::{PieceDigest, Verdict};

/// Failed pieces whose evidence is kept, per torrent.
const EVIDENCE_MAX: usize = 64;

/// A begun piece that got no chunk for so long may be given up.
const STALE_AFTER: Span = Span::from_secs(30);

impl Engine {
    /// A chunk of a piece that this core owns is whole.
    pub(super) fn chunk_filled(&mut self, id: TorrentId, chunk: u32) {
        let Some(Some(torrent)) = self.torrents.get_mut(id.0 as usize) else { return };
        let geometry = torrent.shared.meta.geometry;
        let piece = geometry.chunk_piece(chunk);
        // A note may come late: the piece was given up, and another core has begun it since.
        if torrent.shared.owner(piece) != Some(self.config.core) {
            return;
        }
        let next_chunk = geometry.chunk_of(piece, 0);
        torrent.owned.insert(piece, self.rolled_at);
        torrent.assembling.entry(piece).or_insert(Assembly { next_chunk, hashing: false, rewind: None });
        self.hash_next(id, piece);
    }

    /// Has the next chunk of a piece hashed, if it is there.
    pub(super) fn hash_next(&mut self, id: TorrentId, piece: u32) {
        let Some(torrent) = self.torrents[id.0 as usize].as_mut() else { return };
        let Some(assembly) = torrent.assembling.get_mut(&piece) else { return };
        let chunk = assembly.next_chunk;
        if assembly.hashing || torrent.shared.chunks.view(chunk).state != ChunkState::Filled {
            return;
        }
        assembly.hashing = true;
        let geometry = torrent.shared.meta.geometry;
        let first = geometry.chunk_begin(chunk) == 0;
        let last = Some(chunk) == torrent.shared.meta.wanted_chunks(piece).last();
        self.actions.push_back(Action::Hash { torrent: id, chunk, first, last });
    }

    /// A chunk was hashed; `digest` is the piece's, after its last chunk.
    pub fn handle_hashed(&mut self, id: TorrentId, chunk: u32, digest: Option<PieceDigest>) {
        let Some(Some(torrent)) = self.torrents.get_mut(id.0 as usize) else { return };
        let piece = torrent.shared.meta.geometry.chunk_piece(chunk);
        let Some(digest) = digest else {
            if let Some(assembly) = torrent.assembling.get_mut(&piece) {
                assembly.next_chunk += 1;
                assembly.hashing = false;
            }
            self.hash_next(id, piece);
            return;
        };
        torrent.assembling.remove(&piece);
        match torrent.shared.meta.judge(piece, &digest) {
            Verdict::Right => self.piece_verified(id, piece),
            Verdict::Wrong => {
                self.counters.hash_failures.add(1);
                if self.begin_inquest(id, piece) {
                    return;
                }
                // The evidence is taken before the slots are given back.
                self.actions.push_back(Action::Autopsy { torrent: id, piece });
            }
            Verdict::Torn => self.piece_torn(id, piece),
        }
    }

    /// Nothing that a peer can send makes this piece right: the torrent is not fetched any further.
    fn piece_torn(&mut self, id: TorrentId, piece: u32) {
        let Some(torrent) = self.torrents[id.0 as usize].as_mut() else { return };
        torrent.shared.stop_fetch();
        self.actions.push_back(Action::Report(Report::Torn { torrent: id, piece }));
        self.give_up(id, piece);
    }

    fn piece_verified(&mut self, id: TorrentId, piece: u32) {
        let Some(torrent) = self.torrents[id.0 as usize].as_mut() else { return };
        let shared = &torrent.shared;
        let chunks = wanted_chunks(shared, piece);
        credit_givers(shared, &self.cache, &self.ledger, &chunks);
        torrent.writing.insert(piece, chunks.len() as u32);
        let suspects = torrent.evidence.contains_key(&piece);
        if suspects {
            // Before the writes, whose pins keep the slots until they are done.
            self.actions.push_back(Action::Autopsy { torrent: id, piece });
        }
        for chunk in chunks {
            // The pin keeps the slot until the write is done.
            shared.chunks.publish(chunk, 1);
            self.chunks_writing += 1;
            self.actions.push_back(Action::Write { torrent: id, chunk });
        }
        shared.set_have(piece);
        torrent.owned.remove(&piece);
        torrent.paroles.remove(&piece);
        torrent.inquests.remove(&piece);
        shared.disown_piece(piece);
        self.cache.unreserve(shared.meta.geometry.chunks_per_piece());
        self.note_have(id, piece);
        self.actions.push_back(Action::Tell(To::Others, Note::Have { torrent: id, piece }));
    }

    /// The fingerprints of a piece's blocks, in order: of a failed one, or of one that failed before
    /// and is now verified.
    pub fn handle_autopsy(&mut self, id: TorrentId, piece: u32, prints: &[u64]) {
        let Some(Some(torrent)) = self.torrents.get_mut(id.0 as usize) else { return };
        let shared = &torrent.shared;
        let mut blocks = Vec::with_capacity(prints.len());
        for chunk in wanted_chunks(shared, piece) {
            let slot = shared.chunks.view(chunk).slot;
            for block in 0..shared.meta.wanted_blocks(chunk) {
                let print = prints.get(blocks.len()).copied().unwrap_or(0);
                blocks.push((print, self.cache.giver(slot, block).blame));
            }
        }
        if shared.has(piece) {
            let liars = torrent.evidence.remove(&piece).map(|evidence| liars(&evidence.blocks, &blocks));
            liars.into_iter().flatten().for_each(|key| self.ban_everywhere(key));
            return;
        }
        self.piece_failed(id, piece, blocks);
    }

    /// A piece is not what it should be; `blocks` are its evidence. A sole giver is banned. Otherwise
    /// the piece is fetched again from one peer alone, if the evidence can be kept.
    fn piece_failed(&mut self, id: TorrentId, piece: u32, blocks: Vec<(u64, u64)>) {
        let Some(torrent) = self.torrents[id.0 as usize].as_mut() else { return };
        let bytes = u64::from(torrent.shared.meta.wanted_piece_len(piece));
        torrent.spoilt_at = Some(self.ticked_at);
        let stats = torrent.stats(self.config.core);
        stats.wasted_bytes.add(bytes);
        let givers: BTreeSet<u64> = blocks.iter().map(|&(_, giver)| giver).collect();
        let sole = (givers.len() == 1).then(|| givers.iter().next().copied()).flatten();
        let room = torrent.evidence.len() < EVIDENCE_MAX || torrent.evidence.contains_key(&piece);
        if room && sole.is_none() {
            torrent.evidence.entry(piece).or_insert(Evidence { blocks });
        }
        // Before the chunks are empty, so that no other core takes one.
        let parole = room && sole.is_none() && self.begin_parole(id, piece);
        self.empty_piece(id, piece);
        if !parole {
            self.open_to_all(id, piece);
        }
        if let Some(key) = sole {
            self.ban_everywhere(key);
        }
    }

    /// Gives up begun pieces that get nowhere, when the room that is promised to them is needed for
    /// others, or the memory that they hold for other programs: whoever had their chunks may be gone.
    pub(super) fn give_up_stale(&mut self, now: Instant) {
        let is_tight = self.cache.is_tight();
        if !is_tight && self.cache.present_count() == self.cache.slot_count() {
            return;
        }
        for index in 0..self.torrents.len() {
            let Some(torrent) = self.torrents[index].as_ref() else { continue };
            let stale = torrent.owned.iter().filter(|(_, at)| now.since(**at) >= STALE_AFTER);
            let stale = stale.map(|(&piece, _)| piece);
            let stale: Vec<u32> =
                stale.filter(|&piece| is_tight || self.lies_beyond(torrent, piece)).collect();
            for piece in stale {
                self.give_up(TorrentId(index as u32), piece);
            }
        }
    }

    /// Whether a chunk of the piece lies in a region of the cache that leaves.
    fn lies_beyond(&self, torrent: &Torrent, piece: u32) -> bool {
        let chunks = wanted_chunks(&torrent.shared, piece).into_iter();
        let mut views = chunks.map(|chunk| torrent.shared.chunks.view(chunk));
        views.any(|view| view.state != ChunkState::Empty && self.cache.is_leaving(view.slot))
    }

    /// Gives up a piece of this core of which no chunk is being collected or hashed: anybody may begin
    /// it anew.
    pub(super) fn give_up(&mut self, id: TorrentId, piece: u32) {
        if self.empty_piece(id, piece) {
            self.open_to_all(id, piece);
        }
    }

    /// Ends this core's ownership of an empty piece.
    fn open_to_all(&mut self, id: TorrentId, piece: u32) {
        let Some(torrent) = self.torrents[id.0 as usize].as_mut() else { return };
        torrent.owned.remove(&piece);
        torrent.paroles.remove(&piece);
        torrent.shared.disown_piece(piece);
        self.cache.unreserve(torrent.shared.meta.geometry.chunks_per_piece());
        self.forget_piece(id, piece);
        self.actions.push_back(Action::Tell(To::Others, Note::Missing { torrent: id, piece }));
    }

    /// Throws away what is there of a piece of this core; false if a chunk is being collected or
    /// hashed.
    pub(super) fn empty_piece(&mut self, id: TorrentId, piece: u32) -> bool {
        let Some(torrent) = self.torrents[id.0 as usize].as_mut() else { return false };
        let shared = &torrent.shared;
        let state = |chunk: u32| shared.chunks.view(chunk).state;
        let idle =
            |chunk: u32| matches!(state(chunk), ChunkState::Empty | ChunkState::Partial | ChunkState::Filled);
        let hashing = torrent.assembling.get(&piece).is_some_and(|assembly| assembly.hashing);
        let chunks = wanted_chunks(shared, piece);
        if hashing || shared.has(piece) || !chunks.iter().all(|&chunk| idle(chunk)) {
            return false;
        }
        for chunk in chunks {
            let mine = match state(chunk) {
                ChunkState::Partial => shared.chunks.claim_partial(chunk).is_some(),
                ChunkState::Filled => true,
                _ => false,
            };
            if mine {
                let slot = shared.chunks.reset(chunk);
                self.cache.release(slot);
            }
        }
        torrent.assembling.remove(&piece);
        torrent.inquests.remove(&piece);
        true
    }

    /// A piece is verified, here or on another core: our peers are to be told, and asked no more.
    pub(super) fn note_have(&mut self, id: TorrentId, piece: u32) {
        if let Some(Some(torrent)) = self.torrents.get_mut(id.0 as usize) {
            torrent.have_log.push(piece);
            torrent.haves_due = true;
            self.haves_due = true;
        }
    }

    /// Queues haves of newly verified pieces for every peer, seeds included: one send per peer and turn. Who
    /// has the piece learns how rare it still is; a seed sees who passes on.
    pub(super) fn flush_haves(&mut self) {
        for index in 0..self.torrents.len() {
            let Some(torrent) = self.torrents[index].as_mut().filter(|torrent| torrent.haves_due) else {
                continue;
            };
            torrent.haves_due = false;
            for conn in torrent.peers.clone() {
                self.tell_haves(conn);
                self.make_ready(conn);
            }
        }
    }

    /// Queues haves that the peer was not told of yet, so many at a time. While some are left a send is under
    /// way or about to be, and its end calls this again.
    pub(super) fn tell_haves(&mut self, conn: ConnId) {
        let told = |peer: &&mut Peer| peer.is_open() && !peer.is_web_seed();
        let Some(peer) = self.peers.get_mut(conn).filter(told) else { return };
        let Some(torrent) = peer.torrent.and_then(|id| self.torrents[id.0 as usize].as_ref()) else { return };
        while let Some(&piece) = torrent.have_log.get(peer.have_cursor)
            && peer.out.frames.len() <= HAVE_FRAMES_WAITING_MAX
        {
            Message::Have(piece).encode(&mut peer.out.frames);
            peer.have_cursor += 1;
        }
    }

    /// A chunk was written, or could not be.
    pub fn handle_written(&mut self, id: TorrentId, chunk: u32, result: Result<(), i32>) {
        let Some(Some(torrent)) = self.torrents.get_mut(id.0 as usize) else { return };
        torrent.shared.chunks.unpin(chunk);
        self.chunks_writing -= 1;
        let piece = torrent.shared.meta.geometry.chunk_piece(chunk);
        self.food = true;
        if let Err(errno) = result {
            torrent.shared.stop_fetch();
            torrent.writing.remove(&piece);
            self.actions.push_back(Action::Report(Report::DiskFailed { torrent: id, errno }));
            return;
        }
        // Absent if another chunk of the piece failed: the piece never counts as written.
        let Some(left) = torrent.writing.get_mut(&piece) else { return };
        *left -= 1;
        if *left == 0 {
            torrent.writing.remove(&piece);
            self.actions.push_back(Action::Report(Report::PieceWritten { torrent: id, piece }));
        }
    }
}

/// The chunks of a piece that are collected, in order: those that are not padding alone.
pub fn wanted_chunks(shared: &SharedTorrent, piece: u32) -> Vec<u32> {
    shared.meta.wanted_chunks(piece).collect()
}

/// The chunks of a piece, in order.
pub fn piece_chunks(shared: &SharedTorrent, piece: u32) -> Vec<u32> {
    let geometry = shared.meta.geometry;
    let first = geometry.chunk_of(piece, 0);
    (first..first + geometry.chunks_per_piece()).filter(|&chunk| geometry.chunk_len(chunk) > 0).collect()
}

/// A verified piece's bytes count for who gave them; what was read from disk was given by nobody.
fn credit_givers(shared: &SharedTorrent, cache: &Cache, ledger: &Ledger, chunks: &[u32]) {
    // Neighbouring blocks mostly have one giver.
    let (mut giver, mut bytes) = (0, 0);
    for &chunk in chunks {
        let slot = shared.chunks.view(chunk).slot;
        for block in 0..shared.meta.wanted_blocks(chunk) {
            let account = cache.giver(slot, block).account;
            if account != giver {
                ledger.credit(giver, bytes);
                (giver, bytes) = (account, 0);
            }
            bytes += u64::from(shared.meta.wanted_block(chunk, block).length);
        }
    }
    ledger.credit(giver, bytes);
}

/// Who gave a block in the failed piece that is not what the verified piece has there.
fn liars(failed: &[(u64, u64)], good: &[(u64, u64)]) -> BTreeSet<u64> {
    let differ = failed.iter().zip(good).filter(|(bad, good)| bad.0 != good.0);
    differ.map(|(bad, _)| bad.1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_givers_of_blocks_that_differ_are_liars() {
        let failed = [(1, 10), (9, 11), (3, 10), (9, 12)];
        let good = [(1, 13), (2, 13), (3, 11), (4, 11)];
        assert_eq!(liars(&failed, &good), BTreeSet::from([11, 12]));
    }
}
