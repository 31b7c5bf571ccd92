//! Hash requests of peers (BEP 52): nodes of a file's tree, from what the metainfo has or from the bytes of a
//! piece.
//!
//! Nodes that stand for pieces or more are answered at once. Lower ones are hashed anew from the chunks of
//! the piece, which are read where they are not in memory and pinned meanwhile:
//!
//! ```text
//! Wanted -> Action::Leaves -> handle_leaves -> Message::Hashes
//!    ^  | a chunk is being read, or no slot is free: tried again when it has come, or by the second
//!    +--+ given up after HASH_PATIENCE: Message::HashReject
//! ```
//!
//! A peer waits for one such answer at a time, and asks so often; whatever does not fit is rejected, since
//! who asks can ask others. It would ask in vain for a torrent without trees, or for a piece that is not
//! here. What may be answered waits first until the upload limits let it pass (`answers.rs`).

use super::action::Leaves;
use super::answers::answer_bytes;
use super::session::{PeerMisbehaved, idle};
use super::torrent::Torrent;
use super::*;
use crate::base::limits::{
    HASH_ANSWERS_WAITING_BYTES_MAX, HASH_ASKS_WAITING_MAX, HASH_PATIENCE, LEAF_ASKS_MAX,
    LEAF_ASKS_OF_CORE_MAX, LEAF_BYTES_PER_ASK_BYTE, LEAF_PIECE_BYTES_MAX, STRIKES_MAX,
};
use crate::hash::merkle::{Hash, HashRange, Shape, Tree};
use crate::proto::wire::hashes::HashRequest;
use crate::proto::wire::message::Message;
use crate::shared::chunks::ChunkState;
use crate::shared::trees::{FileTree, Trees};

/// A request that has to wait for the chunks of a piece.
#[derive(Clone, Copy, Debug)]
pub struct LeafAsk {
    conn: ConnId,
    torrent: TorrentId,
    piece: u32,
    request: HashRequest,
    since: Instant,
    /// Its chunks are pinned and are being hashed.
    hashing: bool,
}

impl LeafAsk {
    fn is_for(&self, torrent: TorrentId, piece: u32) -> bool {
        self.torrent == torrent && self.piece == piece
    }
}

/// What a request comes to.
#[derive(Clone, Copy)]
enum Answer {
    Now,
    OfPiece(u32),
    Never,
    Nonsense,
}

impl Engine {
    /// A peer asks for hashes.
    pub(super) fn hashes_wanted(
        &mut self,
        conn: ConnId,
        request: HashRequest,
        now: Instant,
    ) -> Result<(), PeerMisbehaved> {
        let Some(peer) = self.peers.get_mut(conn) else { return Ok(()) };
        peer.asks.note_message();
        let Some(Some(torrent)) = peer.torrent.map(|id| self.torrents[id.0 as usize].as_ref()) else {
            return Ok(());
        };
        match answer(torrent, &request) {
            Answer::Nonsense => {
                peer.strikes += 1;
                if peer.strikes > STRIKES_MAX {
                    return Err(PeerMisbehaved::TooManyStrikes);
                }
                reject_hashes(peer, request)?;
            }
            Answer::Now | Answer::OfPiece(_)
                if peer.hash_asks.len() < HASH_ASKS_WAITING_MAX
                    && self.rations.take_hashes(&self.config, peer, &request, now) =>
            {
                peer.hash_asks.push_back(request);
                self.answer_hashes(conn, now)?;
            }
            Answer::Now | Answer::OfPiece(_) | Answer::Never => reject_hashes(peer, request)?,
        }
        self.make_ready(conn);
        Ok(())
    }

    /// Answers a request that was taken, or begins to; false while the limits do not let it pass. What cannot
    /// be answered any more is rejected and costs nothing.
    pub(super) fn give_hashes(
        &mut self,
        conn: ConnId,
        request: HashRequest,
        now: Instant,
    ) -> Result<bool, PeerMisbehaved> {
        let Some(id) = self.peers.get(conn).and_then(|peer| peer.torrent) else { return Ok(true) };
        let Some(torrent) = self.torrents[id.0 as usize].as_ref() else { return Ok(true) };
        let answer = answer(torrent, &request);
        let gives = match answer {
            Answer::Now => true,
            Answer::OfPiece(_) => may_wait(&self.leaf_asks, id, conn),
            Answer::Never | Answer::Nonsense => false,
        };
        if gives && !self.claim_hashes(conn, &request, now) {
            return Ok(false);
        }
        let known = if let Answer::Now = answer { known_hashes(torrent, &request) } else { None };
        let Some(peer) = self.peers.get_mut(conn) else { return Ok(true) };
        match (answer, known) {
            (Answer::OfPiece(piece), _) if gives => {
                peer.asks.note_answer(hashing_cost(torrent, piece));
                let ask = LeafAsk { conn, torrent: id, piece, request, since: now, hashing: false };
                self.leaf_asks.push(ask);
                self.bring_leaves(id, piece);
            }
            (Answer::Now, Some(hashes)) => {
                peer.asks.note_answer(hashes.as_flattened().len() as u64);
                Message::Hashes { request, hashes: &hashes }.encode(&mut peer.out.frames);
            }
            _ => {
                if gives {
                    self.egress.put_answer_back(conn, answer_bytes(&request));
                }
                self.rations.put_hashes_back(&self.config, peer.address, &request);
                reject_hashes(peer, request)?;
            }
        }
        Ok(true)
    }

    /// Has the chunks of a piece hashed that somebody asks for, or read them first.
    fn bring_leaves(&mut self, id: TorrentId, piece: u32) {
        let Some(torrent) = self.torrents[id.0 as usize].as_ref() else { return };
        let shared = Arc::clone(&torrent.shared);
        let mut asks = self.leaf_asks.iter_mut().filter(|ask| ask.is_for(id, piece));
        let Some(&mut LeafAsk { conn, .. }) = asks.find(|ask| !ask.hashing) else { return };
        if self.leaf_asks.iter().any(|ask| ask.is_for(id, piece) && ask.hashing) {
            // What is under way answers these, too: a piece is hashed once for all that ask.
            self.hash_for_all(id, piece);
            return;
        }
        if !shared.has(piece) {
            // Lost while it was read. It is looked at again, and given up, by the second.
            return;
        }
        let pinned: Vec<u32> = shared
            .meta
            .wanted_chunks(piece)
            .map_while(|chunk| shared.chunks.pin(chunk, false).map(|_| chunk))
            .collect();
        if pinned.len() == shared.meta.wanted_chunks(piece).count() {
            self.hash_for_all(id, piece);
            self.actions.push_back(Action::Leaves { torrent: id, piece, of: Leaves::Verified });
            return;
        }
        pinned.into_iter().for_each(|chunk| shared.chunks.unpin(chunk));
        for chunk in shared.meta.wanted_chunks(piece) {
            if shared.chunks.view(chunk).state == ChunkState::Empty && !self.load_for(conn, id, chunk) {
                break;
            }
            self.cache.wait_for_load(&shared.chunks, chunk, self.config.core);
        }
    }

    fn hash_for_all(&mut self, id: TorrentId, piece: u32) {
        self.leaf_asks.iter_mut().filter(|ask| ask.is_for(id, piece)).for_each(|ask| ask.hashing = true);
    }

    /// A chunk has been read, or could not be: who waits for the leaves of its piece may go on.
    pub(super) fn chunk_came(&mut self, id: TorrentId, chunk: u32) {
        let Some(Some(torrent)) = self.torrents.get(id.0 as usize) else { return };
        let piece = torrent.shared.meta.geometry.chunk_piece(chunk);
        if self.leaf_asks.iter().any(|ask| ask.is_for(id, piece)) {
            self.bring_leaves(id, piece);
        }
    }

    /// The leaves of a verified piece, in order, its chunks are pinned no longer.
    pub(super) fn leaves_came(&mut self, id: TorrentId, piece: u32, leaves: &[Hash]) {
        let Some(torrent) = self.torrents[id.0 as usize].as_ref() else { return };
        let (shared, cost) = (Arc::clone(&torrent.shared), hashing_cost(torrent, piece));
        shared.meta.wanted_chunks(piece).for_each(|chunk| shared.chunks.unpin(chunk));
        let asks: Vec<LeafAsk> =
            self.leaf_asks.extract_if(.., |ask| ask.is_for(id, piece) && ask.hashing).collect();
        let Some(trees) = shared.meta.trees.as_deref() else { return };
        let tree = tree_of_piece(trees, piece, leaves);
        for LeafAsk { conn, request, .. } in asks {
            let Some(peer) = self.peers.get_mut(conn).filter(|peer| peer.is_open()) else { continue };
            let answer = tree.as_ref().and_then(|tree| answer_of_piece(trees, piece, tree, &request));
            match answer {
                Some(hashes) => Message::Hashes { request, hashes: &hashes }.encode(&mut peer.out.frames),
                // The piece was lost meanwhile.
                None => {
                    Message::HashReject(request).encode(&mut peer.out.frames);
                    peer.asks.earn(cost);
                    self.put_hashes_back(conn, &request);
                }
            }
            self.make_ready(conn);
        }
    }

    /// A connection is over: its places are free, but for what is being hashed.
    pub(super) fn forget_leaf_asks(&mut self, conn: ConnId, address: SocketAddr) {
        let of_it = |ask: &mut LeafAsk| ask.conn == conn && !ask.hashing;
        for ask in self.leaf_asks.extract_if(.., of_it) {
            self.rations.put_hashes_back(&self.config, address, &ask.request);
            self.egress.put_answer_back(conn, answer_bytes(&ask.request));
        }
    }

    /// Once a second: whoever waits for chunks that do not come.
    pub(super) fn review_leaf_asks(&mut self, now: Instant) {
        let torrents = &self.torrents;
        let has = |ask: &LeafAsk| {
            torrents[ask.torrent.0 as usize].as_ref().is_some_and(|torrent| torrent.shared.has(ask.piece))
        };
        let late = |ask: &mut LeafAsk| !ask.hashing && (now.since(ask.since) >= HASH_PATIENCE || !has(ask));
        let late: Vec<LeafAsk> = self.leaf_asks.extract_if(.., late).collect();
        for LeafAsk { conn, torrent, piece, request, .. } in late {
            let torrent = self.torrents[torrent.0 as usize].as_ref();
            if let Some(peer) = self.peers.get_mut(conn).filter(|peer| peer.is_open()) {
                Message::HashReject(request).encode(&mut peer.out.frames);
                peer.asks.earn(torrent.map_or(0, |torrent| hashing_cost(torrent, piece)));
                self.put_hashes_back(conn, &request);
                self.make_ready(conn);
            }
        }
        let waiting: Vec<(TorrentId, u32)> =
            self.leaf_asks.iter().map(|ask| (ask.torrent, ask.piece)).collect();
        waiting.into_iter().for_each(|(torrent, piece)| self.bring_leaves(torrent, piece));
    }
}

/// What the leaves of a piece cost of what a peer may ask for.
fn hashing_cost(torrent: &Torrent, piece: u32) -> u64 {
    u64::from(torrent.shared.meta.wanted_piece_len(piece)) / LEAF_BYTES_PER_ASK_BYTE
}

/// Says that hashes will not come. As with blocks, who does not read the answers is in error.
fn reject_hashes(peer: &mut Peer, request: HashRequest) -> Result<(), PeerMisbehaved> {
    if peer.out.frames.len() > HASH_ANSWERS_WAITING_BYTES_MAX {
        return Err(PeerMisbehaved::ReadsNothing);
    }
    Message::HashReject(request).encode(&mut peer.out.frames);
    idle(peer)
}

/// Whether one more request, of a torrent, may wait for a piece beside `asks`.
fn may_wait(asks: &[LeafAsk], id: TorrentId, conn: ConnId) -> bool {
    let of_torrent = asks.iter().filter(|ask| ask.torrent == id).count();
    let room = asks.len() < LEAF_ASKS_OF_CORE_MAX && of_torrent < LEAF_ASKS_MAX;
    room && asks.iter().all(|ask| ask.conn != conn)
}

const fn range(request: &HashRequest) -> HashRange {
    let HashRequest { base_layer: base, index, length, proof_layers, .. } = *request;
    HashRange { base, index, length, proof_layers }
}

fn answer(torrent: &Torrent, request: &HashRequest) -> Answer {
    let shared = &torrent.shared;
    let Some(trees) = shared.meta.trees.as_deref() else { return Answer::Never };
    let range = range(request);
    let Some(file) = trees.find(&request.root) else { return Answer::Nonsense };
    if !range.fits(file.shape) {
        return Answer::Nonsense;
    }
    // Of a layer all is known or nothing, and of those above it, too.
    if file.node(range.base, 0).is_some() {
        return Answer::Now;
    }
    let piece = trees.piece_of_run(file, range.base, range.index.into(), range.length.into());
    match piece.filter(|&piece| shared.has(piece)) {
        Some(piece) if shared.meta.geometry.piece_bytes <= LEAF_PIECE_BYTES_MAX => Answer::OfPiece(piece),
        _ => Answer::Never,
    }
}

/// The answer to a request that needs no leaves.
fn known_hashes(torrent: &Torrent, request: &HashRequest) -> Option<Vec<Hash>> {
    let file = torrent.shared.meta.trees.as_deref()?.find(&request.root)?;
    range(request).answer(file.shape, |layer, index| file.node(layer, index))
}

/// The tree over the leaves of a piece; `None` if they are not what they should be.
fn tree_of_piece(trees: &Trees, piece: u32, leaves: &[Hash]) -> Option<Tree> {
    let shape = Shape { leaves: leaves.len() as u64, height: trees.piece_height(piece) };
    Tree::new(shape, 0, leaves.to_vec()).filter(|tree| Some(tree.root()) == trees.piece_root(piece))
}

/// The answer to a request that needs the leaves of a piece.
fn answer_of_piece(trees: &Trees, piece: u32, tree: &Tree, request: &HashRequest) -> Option<Vec<Hash>> {
    let file: &FileTree = trees.find(&request.root)?;
    let height = trees.piece_height(piece);
    let first = trees.first_leaf(piece);
    range(request).answer(file.shape, |layer, index| match layer < height {
        true => tree.node(layer, index.checked_sub(first >> layer)?),
        false => file.node(layer, index),
    })
}
