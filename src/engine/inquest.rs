//! Inquests: which blocks of a failed v2 piece are wrong, and who gave them (BEP 52). What is asked for
//! pieces that are not whole yet (`ahead.rs`) is asked in the same way.
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
use super::ahead::{answers_ahead, wrong_blocks};
use super::claims::BlockMask;
use super::session::{PeerMisbehaved, idle};
use super::*;
use crate::base::limits::{HASH_PATIENCE, HASHES_PER_REQUEST_MAX, INQUEST_WITNESSES_MAX, INQUESTS_MAX};
use crate::base::units::BLOCKS_PER_CHUNK;
use crate::hash::merkle::{Hash, HashRange};
use crate::proto::wire::hashes::HashRequest;
use crate::proto::wire::message::Message;
use crate::shared::trees::Trees;

/// One piece whose leaves are asked for or known. The chunks of one that failed stay `Filled` meanwhile.
#[derive(Debug)]
pub struct Inquest {
    /// What for: it failed, or it is `Begun`.
    of: Leaves,
    state: State,
    /// Who was asked, the last one now.
    witnesses: Vec<ConnId>,
    /// When it was asked.
    since: Instant,
    /// Leaves that are proven, from the first on.
    leaves: Vec<Hash>,
}

/// How far the leaves of a piece are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The last witness is to give them.
    Asked,
    /// All are there.
    Known,
    /// Of a piece that is begun: nobody gives them.
    InVain,
}

impl Inquest {
    pub(super) const fn new(of: Leaves, since: Instant) -> Self {
        Self { of, state: State::Asked, witnesses: Vec::new(), since, leaves: Vec::new() }
    }

    /// The leaves, once they are all there.
    pub(super) fn known(&self) -> Option<&[Hash]> {
        (self.state == State::Known).then_some(&self.leaves[..])
    }

    /// Who is to answer.
    pub(super) fn asks(&self) -> Option<ConnId> {
        self.witnesses.last().copied().filter(|_| self.state == State::Asked)
    }
}

impl Engine {
    /// Begins to look for the wrong blocks of a failed piece of this core; false if nobody can be asked.
    pub(super) fn begin_inquest(&mut self, id: TorrentId, piece: u32) -> bool {
        let Some(torrent) = self.torrents[id.0 as usize].as_mut() else { return false };
        torrent.spoilt_at = Some(self.ticked_at);
        let trees = torrent.shared.meta.trees.as_deref();
        // A piece of one block needs none: its giver is known.
        let has_leaves = trees.is_some_and(|trees| trees.piece_height(piece) > 0);
        let early = torrent.inquests.remove(&piece);
        let failed = torrent.inquests.values().filter(|inquest| inquest.of == Leaves::Failed).count();
        if !has_leaves || failed >= INQUESTS_MAX {
            return false;
        }
        early.is_some_and(|early| self.go_on(id, piece, early))
            || self.open_inquest(id, piece, Leaves::Failed, None, self.ticked_at)
    }

    /// The piece failed while its leaves were asked for ahead: goes on with that, if it is of use.
    fn go_on(&mut self, id: TorrentId, piece: u32, early: Inquest) -> bool {
        let givers = self.givers(id, piece);
        let Some(torrent) = self.torrents[id.0 as usize].as_mut() else { return false };
        let gave = |conn: ConnId| self.peers.get(conn).is_none_or(|peer| givers.contains(&peer.key));
        let is_useful = match early.state {
            State::Known => true,
            // Who gave some of it may keep silent: whoever did not is asked instead, if there is one.
            State::Asked => {
                let mut others = torrent.peers.iter().filter_map(|&conn| self.peers.get(conn));
                let better = others.any(|peer| has_leaves(peer, piece) && !gave(peer.conn));
                !early.asks().is_none_or(gave) || givers.len() > 1 && !better
            }
            State::InVain => false,
        };
        if is_useful {
            if early.state == State::Known {
                self.actions.push_back(Action::Leaves { torrent: id, piece, of: Leaves::Failed });
            }
            torrent.inquests.insert(piece, Inquest { of: Leaves::Failed, ..early });
        }
        is_useful
    }

    /// Asks for the leaves of a piece that `giver` begins, or that failed; false if nobody can be asked.
    pub(super) fn open_inquest(
        &mut self,
        id: TorrentId,
        piece: u32,
        of: Leaves,
        giver: Option<ConnId>,
        now: Instant,
    ) -> bool {
        let Some(witness) = self.next_to_ask(id, piece, &Inquest::new(of, now), giver) else { return false };
        let Some(torrent) = self.torrents[id.0 as usize].as_mut() else { return false };
        torrent.inquests.insert(piece, Inquest::new(of, now));
        self.ask_witness(id, piece, witness, now);
        true
    }

    /// Whom to ask next for the leaves of a piece, if there is anybody: preferably who gives nothing of it,
    /// as a liar would keep silent.
    fn next_to_ask(
        &self,
        id: TorrentId,
        piece: u32,
        inquest: &Inquest,
        giver: Option<ConnId>,
    ) -> Option<ConnId> {
        if inquest.witnesses.len() >= INQUEST_WITNESSES_MAX {
            return None;
        }
        let torrent = self.torrents[id.0 as usize].as_ref()?;
        let peers = torrent.peers.iter().filter_map(|&conn| self.peers.get(conn));
        let knows = |peer: &&Peer| has_leaves(peer, piece) && !inquest.witnesses.contains(&peer.conn);
        if inquest.of != Leaves::Failed {
            let ready = peers.filter(knows).filter(|peer| answers_ahead(peer));
            let geometry = torrent.shared.meta.geometry;
            let gives = |peer: &&Peer| {
                let mut asked = peer.asked.iter();
                Some(peer.conn) == giver || asked.any(|asked| geometry.chunk_piece(asked.chunk) == piece)
            };
            return ready.min_by_key(gives).map(|peer| peer.conn);
        }
        let givers = self.givers(id, piece);
        let witness = peers.filter(knows).min_by_key(|peer| givers.contains(&peer.key))?;
        // Who gave all of it alone and is the only one to ask has no reason to answer.
        let is_sole = givers.contains(&witness.key) && givers.len() == 1;
        (!is_sole).then_some(witness.conn)
    }

    fn ask_witness(&mut self, id: TorrentId, piece: u32, witness: ConnId, now: Instant) {
        let Some(torrent) = self.torrents[id.0 as usize].as_mut() else { return };
        let Some(inquest) = torrent.inquests.get_mut(&piece) else { return };
        inquest.witnesses.push(witness);
        inquest.since = now;
        self.ask_leaves(id, piece);
    }

    /// Asks the witness for the leaves that are missing.
    fn ask_leaves(&mut self, id: TorrentId, piece: u32) {
        let Some(torrent) = self.torrents[id.0 as usize].as_ref() else { return };
        let Some(request) = request_of(torrent, piece) else { return };
        let Some(conn) = torrent.inquests.get(&piece).and_then(Inquest::asks) else { return };
        if let Some(peer) = self.peers.get_mut(conn) {
            peer.hashes_due = peer.hashes_due.saturating_add(1);
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
            inquest.asks() == Some(conn) && request_of(torrent, piece).as_ref() == Some(request)
        };
        torrent.inquests.iter().find_map(|(&piece, inquest)| is_asked(piece, inquest).then_some((id, piece)))
    }

    /// A peer answers a hash request, perhaps one that somebody else has answered since, or whose piece is
    /// whole. If it was not asked at all it says nothing.
    fn note_answer(&mut self, conn: ConnId) -> Result<(), PeerMisbehaved> {
        let Some(peer) = self.peers.get_mut(conn) else { return Ok(()) };
        match peer.hashes_due.checked_sub(1) {
            Some(due) => peer.hashes_due = due,
            None => return idle(peer),
        }
        Ok(())
    }

    /// A peer gives hashes.
    pub(super) fn hashes_given(
        &mut self,
        conn: ConnId,
        request: HashRequest,
        hashes: &[Hash],
    ) -> Result<(), PeerMisbehaved> {
        let answers = self.note_answer(conn);
        let Some((id, piece)) = self.inquest_of(conn, &request) else { return answers };
        let Some(torrent) = self.torrents[id.0 as usize].as_mut() else { return Ok(()) };
        let Some(trees) = torrent.shared.meta.trees.as_deref() else { return Ok(()) };
        if !is_proven(trees, piece, &request, hashes) {
            return Err(PeerMisbehaved::BadHashes);
        }
        let Some(inquest) = torrent.inquests.get_mut(&piece) else { return Ok(()) };
        inquest.leaves.extend_from_slice(&hashes[..request.length as usize]);
        if inquest.leaves.len() < 1 << trees.piece_height(piece) {
            self.ask_leaves(id, piece);
            return Ok(());
        }
        inquest.state = State::Known;
        let of = inquest.of;
        if of == Leaves::Failed || torrent.assembling.contains_key(&piece) {
            self.actions.push_back(Action::Leaves { torrent: id, piece, of });
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
        let answers = self.note_answer(conn);
        let Some((id, piece)) = self.inquest_of(conn, &request) else { return answers };
        self.next_witness(id, piece, now);
        Ok(())
    }

    /// The witness does not answer.
    fn next_witness(&mut self, id: TorrentId, piece: u32, now: Instant) {
        let Some(torrent) = self.torrents[id.0 as usize].as_ref() else { return };
        let Some(inquest) = torrent.inquests.get(&piece) else { return };
        let (of, asked) = (inquest.of, inquest.asks());
        let next = self.next_to_ask(id, piece, inquest, None);
        if of != Leaves::Failed
            && let Some(peer) = asked.and_then(|conn| self.peers.get_mut(conn))
        {
            peer.leafless = true;
        }
        if let Some(witness) = next {
            return self.ask_witness(id, piece, witness, now);
        }
        let Some(torrent) = self.torrents[id.0 as usize].as_mut() else { return };
        if of == Leaves::Failed {
            torrent.inquests.remove(&piece);
            self.actions.push_back(Action::Autopsy { torrent: id, piece });
        } else if let Some(inquest) = torrent.inquests.get_mut(&piece) {
            (inquest.state, inquest.leaves) = (State::InVain, Vec::new());
        }
    }

    /// Once a second: witnesses that are gone or late.
    pub(super) fn review_inquests(&mut self, now: Instant) {
        for index in 0..self.torrents.len() {
            let Some(torrent) = self.torrents[index].as_ref() else { continue };
            let id = torrent.id();
            let waits_in_vain = |inquest: &Inquest| {
                let witness = inquest.asks().and_then(|conn| self.peers.get(conn));
                let is_late = now.since(inquest.since) >= HASH_PATIENCE;
                inquest.state == State::Asked && (is_late || !witness.is_some_and(Peer::is_open))
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
            Leaves::Begun => self.compare_begun(id, piece, leaves),
        }
    }

    /// `ours` are the leaves of what was received: what differs is thrown away, its givers are banned. What
    /// comes instead is verified as it comes.
    fn end_inquest(&mut self, id: TorrentId, piece: u32, ours: &[Hash]) {
        let Some(Some(torrent)) = self.torrents.get_mut(id.0 as usize) else { return };
        let Some(inquest) = torrent.inquests.get_mut(&piece) else { return };
        let per_chunk = BLOCKS_PER_CHUNK as usize;
        let pairs = ours.chunks(per_chunk).zip(inquest.leaves.chunks(per_chunk));
        let chunks = torrent.shared.meta.wanted_chunks(piece).zip(pairs);
        let wrong = chunks.map(|(chunk, (ours, right))| (chunk, wrong_blocks(ours, right)));
        let wrong: Vec<(u32, BlockMask)> = wrong.filter(|&(_, blocks)| blocks != 0).collect();
        if wrong.is_empty() {
            // The slots are not what was hashed. That cannot be; if it is, nothing is believed.
            torrent.inquests.remove(&piece);
            self.actions.push_back(Action::Autopsy { torrent: id, piece });
            return;
        }
        inquest.of = Leaves::Begun;
        self.convict(id, &wrong);
    }

    /// Blocks of whole chunks of this core are not what they should be: their givers, and nobody else, are
    /// banned, and they are to come again.
    pub(super) fn convict(&mut self, id: TorrentId, wrong: &[(u32, BlockMask)]) {
        let Some(Some(torrent)) = self.torrents.get_mut(id.0 as usize) else { return };
        torrent.spoilt_at = Some(self.ticked_at);
        let shared = Arc::clone(&torrent.shared);
        let mut liars = BTreeSet::new();
        let mut wasted_bytes = 0;
        for &(chunk, mask) in wrong {
            let slot = shared.chunks.view(chunk).slot;
            for block in (0..BLOCKS_PER_CHUNK).filter(|block| mask & 1 << block != 0) {
                liars.insert(self.cache.giver(slot, block).blame);
                wasted_bytes += u64::from(shared.meta.wanted_block(chunk, block).length);
            }
            self.reopen(id, chunk, mask);
        }
        shared.stats[self.config.core.0 as usize].wasted_bytes.add(wasted_bytes);
        liars.into_iter().for_each(|key| self.ban_everywhere(key));
        self.food = true;
    }

    /// Blocks of a chunk are to be collected again: by whoever takes the chunk over, or anew if none was
    /// good.
    fn reopen(&mut self, id: TorrentId, chunk: u32, bad: BlockMask) {
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

/// Whether a peer speaks v2 and has the piece.
fn has_leaves(peer: &Peer, piece: u32) -> bool {
    peer.is_open() && peer.version == peer::Version::V2 && peer.bits.get(piece)
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
