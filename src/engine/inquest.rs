//! Inquests: which blocks of a failed v2 piece are wrong, and who gave them (BEP 52).
//!
//! A peer that speaks v2 and has the piece is asked for its leaves, preferably one that gave nothing of it.
//! What it answers must lead to the hash of the piece, which we know, so nobody can lie: neither to shield
//! itself nor to blame others. Then our own leaves are compared: the givers of blocks that differ are banned
//! and nobody else, good blocks stay, and the others are collected again. Nothing waits for ever: after
//! `HASH_PATIENCE` the next peer is asked, and without one the piece is fetched again as of old
//! (`parole.rs`).
//!
//! ```text
//! failed -> asked (part by part) -> Action::Leaves -> compared -> collected again where it is wrong
//!             | rejected, late or gone: the next witness, at last Action::Autopsy
//! ```

use std::collections::BTreeSet;

use super::action::Leaves;
use super::session::{PeerMisbehaved, idle};
use super::*;
use crate::base::limits::{HASH_PATIENCE, HASHES_PER_REQUEST_MAX, INQUEST_WITNESSES_MAX, INQUESTS_MAX};
use crate::base::units::BLOCKS_PER_CHUNK;
use crate::hash::merkle::{Hash, HashRange};
use crate::proto::wire::hashes::HashRequest;
use crate::proto::wire::message::Message;
use crate::shared::trees::Trees;

/// One failed piece. Its chunks stay `Filled` meanwhile.
#[derive(Debug)]
pub struct Inquest {
    /// Who was asked, the last one now.
    witnesses: Vec<ConnId>,
    /// When it was asked.
    since: Instant,
    /// Leaves that are proven, from the first on.
    leaves: Vec<Hash>,
}

impl Engine {
    /// Begins to look for the wrong blocks of a failed piece of this core; false if nobody can be asked.
    pub(super) fn begin_inquest(&mut self, id: TorrentId, piece: u32) -> bool {
        let Some(torrent) = self.torrents[id.0 as usize].as_mut() else { return false };
        let trees = torrent.shared.meta.trees.as_deref();
        // A piece of one block needs none: its giver is known.
        let has_leaves = trees.is_some_and(|trees| trees.piece_height(piece) > 0);
        if !has_leaves || torrent.inquests.len() >= INQUESTS_MAX {
            return false;
        }
        let since = self.ticked_at;
        torrent.inquests.insert(piece, Inquest { witnesses: Vec::new(), since, leaves: Vec::new() });
        if self.ask_witness(id, piece, self.ticked_at) {
            return true;
        }
        if let Some(torrent) = self.torrents[id.0 as usize].as_mut() {
            torrent.inquests.remove(&piece);
        }
        false
    }

    /// Asks the next peer for the leaves of a piece; false if there is none.
    fn ask_witness(&mut self, id: TorrentId, piece: u32, now: Instant) -> bool {
        let Some(torrent) = self.torrents[id.0 as usize].as_ref() else { return false };
        let Some(inquest) = torrent.inquests.get(&piece) else { return false };
        if inquest.witnesses.len() >= INQUEST_WITNESSES_MAX {
            return false;
        }
        let givers = self.givers(id, piece);
        let knows = |peer: &&Peer| {
            let speaks = peer.is_open() && peer.version == peer::Version::V2 && peer.bits.get(piece);
            speaks && !inquest.witnesses.contains(&peer.conn)
        };
        let peers = torrent.peers.iter().filter_map(|&conn| self.peers.get(conn)).filter(knows);
        let Some(witness) = peers.min_by_key(|peer| givers.contains(&peer.key)) else { return false };
        // Who gave all of it alone and is the only one to ask has no reason to answer.
        if givers.contains(&witness.key) && givers.len() == 1 {
            return false;
        }
        let conn = witness.conn;
        let Some(torrent) = self.torrents[id.0 as usize].as_mut() else { return false };
        let Some(inquest) = torrent.inquests.get_mut(&piece) else { return false };
        inquest.witnesses.push(conn);
        inquest.since = now;
        self.ask_leaves(id, piece);
        true
    }

    /// Asks the witness for the leaves that are missing.
    fn ask_leaves(&mut self, id: TorrentId, piece: u32) {
        let Some(torrent) = self.torrents[id.0 as usize].as_ref() else { return };
        let Some(request) = request_of(torrent, piece) else { return };
        let Some(&conn) = torrent.inquests.get(&piece).and_then(|inquest| inquest.witnesses.last()) else {
            return;
        };
        if let Some(peer) = self.peers.get_mut(conn) {
            Message::HashRequest(request).encode(&mut peer.out.frames);
            self.make_ready(conn);
        }
    }

    /// Who gave blocks of a piece whose slots are stable.
    fn givers(&self, id: TorrentId, piece: u32) -> BTreeSet<u64> {
        let Some(torrent) = self.torrent(id) else { return BTreeSet::new() };
        let (meta, chunks) = (&torrent.shared.meta, &torrent.shared.chunks);
        let blocks = meta.wanted_chunks(piece).flat_map(|chunk| {
            let slot = chunks.view(chunk).slot;
            (0..meta.wanted_blocks(chunk)).map(move |block| (slot, block))
        });
        blocks.map(|(slot, block)| self.cache.giver(slot, block).blame).collect()
    }

    /// The piece for which `conn` was asked exactly this.
    fn inquest_of(&self, conn: ConnId, request: &HashRequest) -> Option<(TorrentId, u32)> {
        let id = self.peers.get(conn)?.torrent?;
        let torrent = self.torrents[id.0 as usize].as_ref()?;
        let is_asked = |piece: u32, inquest: &Inquest| {
            inquest.witnesses.last() == Some(&conn) && request_of(torrent, piece).as_ref() == Some(request)
        };
        torrent.inquests.iter().find_map(|(&piece, inquest)| is_asked(piece, inquest).then_some((id, piece)))
    }

    /// A peer gives hashes.
    pub(super) fn hashes_given(
        &mut self,
        conn: ConnId,
        request: HashRequest,
        hashes: &[Hash],
    ) -> Result<(), PeerMisbehaved> {
        let Some((id, piece)) = self.inquest_of(conn, &request) else {
            // Asked for before somebody else was, or never.
            return self.peers.get_mut(conn).map_or(Ok(()), idle);
        };
        let Some(torrent) = self.torrents[id.0 as usize].as_mut() else { return Ok(()) };
        let Some(trees) = torrent.shared.meta.trees.as_deref() else { return Ok(()) };
        if !is_proven(trees, piece, &request, hashes) {
            return Err(PeerMisbehaved::BadHashes);
        }
        let Some(inquest) = torrent.inquests.get_mut(&piece) else { return Ok(()) };
        inquest.leaves.extend_from_slice(&hashes[..request.length as usize]);
        if inquest.leaves.len() < 1 << trees.piece_height(piece) {
            self.ask_leaves(id, piece);
        } else {
            self.actions.push_back(Action::Leaves { torrent: id, piece, of: Leaves::Failed });
        }
        Ok(())
    }

    /// A peer gives no hashes.
    pub(super) fn hashes_refused(
        &mut self,
        conn: ConnId,
        request: HashRequest,
        now: Instant,
    ) -> Result<(), PeerMisbehaved> {
        match self.inquest_of(conn, &request) {
            Some((id, piece)) => {
                self.next_witness(id, piece, now);
                Ok(())
            }
            None => self.peers.get_mut(conn).map_or(Ok(()), idle),
        }
    }

    /// The witness does not answer.
    fn next_witness(&mut self, id: TorrentId, piece: u32, now: Instant) {
        if !self.ask_witness(id, piece, now) {
            if let Some(torrent) = self.torrents[id.0 as usize].as_mut() {
                torrent.inquests.remove(&piece);
            }
            self.actions.push_back(Action::Autopsy { torrent: id, piece });
        }
    }

    /// Once a second: witnesses that are gone or late.
    pub(super) fn review_inquests(&mut self, now: Instant) {
        for index in 0..self.torrents.len() {
            let Some(torrent) = self.torrents[index].as_ref() else { continue };
            let id = torrent.id();
            let waits_in_vain = |inquest: &Inquest| {
                let witness = inquest.witnesses.last().and_then(|&conn| self.peers.get(conn));
                now.since(inquest.since) >= HASH_PATIENCE || !witness.is_some_and(Peer::is_open)
            };
            let vain = torrent.inquests.iter().filter(|(_, inquest)| waits_in_vain(inquest));
            let vain: Vec<u32> = vain.map(|(&piece, _)| piece).collect();
            vain.into_iter().for_each(|piece| self.next_witness(id, piece, now));
        }
    }

    /// The leaves of a piece, in order.
    pub fn handle_leaves(&mut self, id: TorrentId, piece: u32, of: Leaves, leaves: &[Hash]) {
        match of {
            Leaves::Verified => self.leaves_came(id, piece, leaves),
            Leaves::Failed => self.end_inquest(id, piece, leaves),
        }
    }

    /// `ours` are the leaves of what was received: what differs is thrown away, its givers are banned.
    fn end_inquest(&mut self, id: TorrentId, piece: u32, ours: &[Hash]) {
        let Some(Some(torrent)) = self.torrents.get_mut(id.0 as usize) else { return };
        let Some(inquest) = torrent.inquests.remove(&piece) else { return };
        let shared = Arc::clone(&torrent.shared);
        let bad: Vec<bool> = ours.iter().zip(&inquest.leaves).map(|(ours, right)| ours != right).collect();
        if !bad.contains(&true) {
            // The slots are not what was hashed. That cannot be; if it is, nothing is believed.
            self.actions.push_back(Action::Autopsy { torrent: id, piece });
            return;
        }
        let mut liars = BTreeSet::new();
        let mut wasted_bytes = 0;
        for (chunk, bad) in shared.meta.wanted_chunks(piece).zip(bad.chunks(BLOCKS_PER_CHUNK as usize)) {
            let slot = shared.chunks.view(chunk).slot;
            for block in (0u32..).zip(bad).filter(|(_, bad)| **bad).map(|(block, _)| block) {
                liars.insert(self.cache.giver(slot, block).blame);
                wasted_bytes += u64::from(shared.meta.wanted_block(chunk, block).length);
            }
            let mask = (0u32..).zip(bad).fold(0, |mask, (block, &bad)| mask | u16::from(bad) << block);
            if mask != 0 {
                self.reopen(id, chunk, mask);
            }
        }
        shared.stats[self.config.core.0 as usize].wasted_bytes.add(wasted_bytes);
        liars.into_iter().for_each(|key| self.ban_everywhere(key));
        self.food = true;
    }

    /// Blocks of a chunk are to be collected again: by whoever takes the chunk over, or anew if none was
    /// good.
    fn reopen(&mut self, id: TorrentId, chunk: u32, bad: u16) {
        let Some(torrent) = self.torrents[id.0 as usize].as_mut() else { return };
        let shared = Arc::clone(&torrent.shared);
        let (slot, piece) = (shared.chunks.view(chunk).slot, shared.meta.geometry.chunk_piece(chunk));
        torrent.owned.insert(piece, self.rolled_at);
        if bad.count_ones() < shared.meta.wanted_blocks(chunk) {
            self.cache.forget_blocks(slot, bad);
            shared.chunks.reopen(chunk);
            torrent.offers.push(chunk);
            self.actions.push_back(Action::Tell(To::Others, Note::Offer { torrent: id, chunk }));
        } else {
            shared.chunks.reset(chunk);
            self.cache.release(slot);
            self.forget_piece(id, piece);
            self.actions.push_back(Action::Tell(To::Others, Note::Missing { torrent: id, piece }));
        }
    }
}

/// What the witness of a piece is asked next: all leaves of it, or as many as one request may ask for.
fn request_of(torrent: &Torrent, piece: u32) -> Option<HashRequest> {
    let trees = torrent.shared.meta.trees.as_deref()?;
    let inquest = torrent.inquests.get(&piece)?;
    let height = trees.piece_height(piece);
    let length = (1u32 << height).min(HASHES_PER_REQUEST_MAX);
    let index = u32::try_from(trees.first_leaf(piece) + inquest.leaves.len() as u64).ok()?;
    let root = trees.of_piece(piece)?.root();
    Some(HashRequest { root, base_layer: 0, index, length, proof_layers: height.checked_sub(1)? })
}

/// Whether hashes lead to what a piece must be.
fn is_proven(trees: &Trees, piece: u32, request: &HashRequest, hashes: &[Hash]) -> bool {
    let HashRequest { base_layer: base, index, length, proof_layers, .. } = *request;
    let range = HashRange { base, index, length, proof_layers };
    let Some(file) = trees.of_piece(piece) else { return false };
    let Some(reached) = range.climb(file.shape, hashes) else { return false };
    reached.layer == trees.piece_height(piece)
        && file.node(reached.layer, reached.index) == Some(reached.hash)
}
