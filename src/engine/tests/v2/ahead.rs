//! Blocks that are verified as they come: leaves asked for before their piece is whole.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::base::limits::{BELIEVED_AFTER_PIECES, DOUBT_TIME, LEAVES_AHEAD_MAX};
use crate::base::units::{BLOCKS_PER_CHUNK, CHUNK_BYTES};
use crate::engine::Judged;
use crate::engine::inquest::Inquest;

/// A node, what a worker keeps of its hashes, and what its peers gave.
struct Scene {
    rig: Rig,
    /// Leaves of each piece.
    leaves: Vec<Vec<Hash>>,
    /// What is hashed of each piece.
    hashed: BTreeMap<u32, Vec<Hash>>,
    /// Blocks whose places hold wrong bytes.
    wrong: BTreeSet<(u32, u32)>,
    /// Who gave each block last.
    given: BTreeMap<(u32, u32), ConnId>,
    /// Hash requests that were read, with whom they were for.
    asked: Vec<(ConnId, HashRequest)>,
    /// Chunks whose hash the piece goes on with.
    kept: u32,
}

impl Scene {
    /// A file of `pieces` pieces of `piece_bytes`.
    fn new(kind: Kind, pieces: u32, piece_bytes: u32) -> Self {
        let mut rig = Rig::new(1, false);
        let total_bytes = u64::from(pieces) * u64::from(piece_bytes);
        let geometry = Geometry::new(total_bytes, piece_bytes);
        let count = piece_bytes / BLOCK_BYTES;
        let leaves = |piece: u32| (0..count).map(|block| leaf(piece, block)).collect::<Vec<_>>();
        let leaves: Vec<Vec<Hash>> = (0..pieces).map(leaves).collect();
        let height = count.ilog2();
        let root = |leaves: &Vec<Hash>| merkle::root(&mut leaves.clone(), 0, height).unwrap();
        let roots = leaves.iter().map(root).collect();
        let trees = Trees::new(geometry, std::iter::once((0, total_bytes, roots))).unwrap();
        let meta = meta_of(kind, TorrentMeta::plain(HASH, total_bytes, piece_bytes), trees);
        rig.shared = rig.add(meta, false);
        let (hashed, wrong, given, asked) = Default::default();
        Self { rig, leaves, hashed, wrong, given, asked, kept: 0 }
    }

    /// A peer that speaks v2, has everything and serves us.
    fn seed(&mut self) -> ConnId {
        let address = format!("127.0.0.1:{}", 10_000 + self.rig.conns);
        let conn = self.rig.accept(&address);
        let hybrid = self.rig.shared.meta.v2_hash;
        let theirs = Handshake::new(hybrid.unwrap_or(HASH), THEIRS).with_extension().with_fast().with_v2();
        assert_eq!(self.rig.engine.handle_handshake(conn, &theirs, self.rig.now), Admission::Here);
        // Our handshake is no frame.
        self.rig.read(conn);
        self.rig.say(conn, Message::HaveAll).unwrap();
        self.rig.say(conn, Message::Unchoke).unwrap();
        conn
    }

    /// The blocks that a peer is asked for; requests for hashes are noted.
    fn hear(&mut self, conn: ConnId) -> Vec<BlockRef> {
        let (bytes, _) = self.rig.read(conn);
        let mut blocks = Vec::new();
        for message in frames(&bytes) {
            match message {
                Message::Request(block) => blocks.push(block),
                Message::Cancel(cancelled) => blocks.retain(|&block| block != cancelled),
                Message::HashRequest(request) => self.asked.push((conn, request)),
                _ => {}
            }
        }
        blocks
    }

    /// Lands a block, right or not; false if it is not wanted any more.
    fn give(&mut self, conn: ConnId, block: BlockRef, right: bool) -> bool {
        let Ok(Landing::Into(place)) = self.rig.engine.handle_piece_header(conn, block) else { return false };
        let key = (block.piece, block.begin / BLOCK_BYTES);
        if right {
            self.wrong.remove(&key)
        } else {
            self.wrong.insert(key)
        };
        self.given.insert(key, conn);
        self.rig.engine.handle_block(conn, place.chunk, place.index, self.rig.now);
        true
    }

    /// The leaves of what lies in the places of a chunk.
    fn leaves_of(&self, chunk: u32) -> Vec<Hash> {
        let geometry = self.rig.shared.meta.geometry;
        let piece = geometry.chunk_piece(chunk);
        let first = geometry.chunk_begin(chunk) / BLOCK_BYTES;
        let blocks = first..first + geometry.chunk_blocks(chunk);
        let leaf = |block| match self.wrong.contains(&(piece, block)) {
            true => [0xbb; 32],
            false => self.leaves[piece as usize][block as usize],
        };
        blocks.map(leaf).collect()
    }

    fn hash(&mut self, chunk: u32, first: bool, last: bool) {
        let meta = &self.rig.shared.meta;
        let piece = meta.geometry.chunk_piece(chunk);
        let begin = (meta.geometry.chunk_begin(chunk) / BLOCK_BYTES) as usize;
        let v1 = (!meta.piece_hashes.is_empty()).then_some([0; 20]);
        let ours = self.leaves_of(chunk);
        let hashed = self.hashed.entry(piece).or_default();
        hashed.truncate(if first { 0 } else { begin });
        assert_eq!(hashed.len(), begin, "chunks are hashed in order");
        if self.rig.engine.judge_chunk(TorrentId(0), chunk, &ours) == Judged::Again {
            return;
        }
        self.kept += 1;
        hashed.extend(ours);
        let height = trees(&self.rig).piece_height(piece);
        let v2 = last.then(|| merkle::root(&mut hashed.clone(), 0, height).unwrap());
        // SHA-1 says of what was hashed the same.
        let v1 = v1.map(|right| if v2 == trees(&self.rig).piece_root(piece) { right } else { [9; 20] });
        let digest = last.then_some(PieceDigest { v1, v2 });
        self.rig.engine.handle_hashed(TorrentId(0), chunk, digest);
    }

    /// What a worker does.
    fn work(&mut self) {
        let mut left = usize::MAX;
        while left > 0 {
            self.rig.perform();
            left = 0;
            for action in std::mem::take(&mut self.rig.done) {
                left += usize::from(is_work(&action));
                match action {
                    Action::Hash { chunk, first, last, .. } => self.hash(chunk, first, last),
                    Action::Write { torrent, chunk } => {
                        self.rig.engine.handle_written(torrent, chunk, Ok(()))
                    }
                    Action::Leaves { torrent, piece, of: Leaves::Begun } => {
                        let ours = self.hashed.get(&piece).cloned().unwrap_or_default();
                        self.rig.engine.handle_leaves(torrent, piece, Leaves::Begun, &ours);
                    }
                    Action::Leaves { torrent, piece, of } => {
                        let chunks = self.rig.shared.meta.wanted_chunks(piece);
                        let ours: Vec<Hash> = chunks.flat_map(|chunk| self.leaves_of(chunk)).collect();
                        self.rig.engine.handle_leaves(torrent, piece, of, &ours);
                    }
                    other => self.rig.done.push(other),
                }
            }
            self.rig.engine.check_invariants();
        }
    }

    /// Answers a hash request as it should be.
    fn answer(&mut self, conn: ConnId, request: HashRequest) -> Result<(), session::PeerMisbehaved> {
        let count = request.length as usize;
        let at = request.index as usize;
        let all: Vec<Hash> = self.leaves.concat();
        self.rig.say(conn, Message::Hashes { request, hashes: &all[at..at + count] })
    }

    /// Answers all that is asked.
    fn answer_all(&mut self) {
        for (conn, request) in std::mem::take(&mut self.asked) {
            if self.rig.is_open(conn) {
                self.answer(conn, request).unwrap();
            }
        }
    }

    /// Everybody gives what he is asked for, wrong bytes for `spoilt` the first time, until the node has all
    /// or nobody is asked for anything. `heard` is called after each round of questions.
    fn fetch(&mut self, conns: &[ConnId], spoilt: Option<(u32, u32)>, mut heard: impl FnMut(&mut Self)) {
        let mut lied = false;
        for _ in 0..10_000 {
            let mut given = 0;
            for &conn in conns {
                for block in self.hear(conn) {
                    let is_spoilt = spoilt == Some((block.piece, block.begin / BLOCK_BYTES)) && !lied;
                    lied |= is_spoilt;
                    given += u32::from(self.give(conn, block, !is_spoilt));
                }
                heard(self);
                self.work();
            }
            if given == 0 || self.rig.shared.is_complete() {
                return;
            }
        }
    }

    fn wasted_bytes(&self) -> u64 {
        self.rig.shared.stats[0].wasted_bytes.get()
    }
}

/// Whether a worker does it, and says how it went.
const fn is_work(action: &Action) -> bool {
    matches!(action, Action::Hash { .. } | Action::Write { .. } | Action::Leaves { .. })
}

const LONG: u32 = 16 << 20;

#[test]
fn p21_p22_who_spoils_any_block_of_16_mib_is_banned_at_once_and_costs_that_block() {
    for (kind, spoilt) in [(Kind::V2, 1023), (Kind::V2, 5), (Kind::Hybrid, 1023), (Kind::Hybrid, 300)] {
        let mut scene = Scene::new(kind, 1, LONG);
        let conns = [scene.seed(), scene.seed()];
        let mut liar = None;
        scene.fetch(&conns, Some((0, spoilt)), |scene| {
            scene.answer_all();
            if scene.wrong.contains(&(0, spoilt)) {
                liar = scene.given.get(&(0, spoilt)).copied();
            }
        });
        let liar = liar.unwrap();
        let honest = conns.into_iter().find(|&conn| conn != liar).unwrap();
        assert!(scene.rig.was_closed(liar) && scene.rig.is_open(honest), "{spoilt}");
        assert!(scene.rig.shared.is_complete(), "{spoilt}");
        assert_eq!(scene.wasted_bytes(), u64::from(BLOCK_BYTES), "{spoilt}");
        // Nothing is hashed over but the chunk of that block.
        assert_eq!(scene.kept, LONG / CHUNK_BYTES);
        assert_eq!(scene.given[&(0, spoilt)], honest);
    }
}

#[test]
fn p21_the_giver_of_a_wrong_block_is_found_while_most_of_the_piece_is_missing() {
    let mut scene = Scene::new(Kind::V2, 1, LONG);
    let conns = [scene.seed(), scene.seed()];
    let mut blocks_before = None;
    scene.fetch(&conns, Some((0, 0)), |scene| {
        scene.answer_all();
        if conns.iter().any(|&conn| scene.rig.was_closed(conn)) {
            blocks_before.get_or_insert(scene.given.len());
        }
    });
    assert!(blocks_before.is_some_and(|blocks| blocks < 512), "{blocks_before:?}");
}

#[test]
fn p21_what_was_hashed_before_the_leaves_came_is_compared_when_they_come() {
    for kind in [Kind::V2, Kind::Hybrid] {
        let mut scene = Scene::new(kind, 1, PIECE_BYTES);
        let conns = [scene.seed(), scene.seed()];
        let mut held = Vec::new();
        for _ in 0..100 {
            for conn in conns {
                for block in scene.hear(conn) {
                    if block.begin < 2 * CHUNK_BYTES {
                        scene.give(conn, block, block.begin != BLOCK_BYTES);
                    } else {
                        held.push((conn, block));
                    }
                }
            }
            scene.work();
        }
        assert_eq!(scene.kept, 2, "half of the piece is hashed");
        let liar = scene.given[&(0, 1)];
        assert!(conns.iter().all(|&conn| scene.rig.is_open(conn)));
        scene.answer_all();
        scene.work();
        assert!(scene.rig.was_closed(liar), "before the piece is whole");
        for (conn, block) in held {
            scene.give(conn, block, true);
        }
        scene.fetch(&conns, None, Scene::answer_all);
        assert!(scene.rig.shared.has(0));
        assert_eq!(scene.wasted_bytes(), u64::from(BLOCK_BYTES));
    }
}

#[test]
fn who_gives_a_piece_is_asked_for_its_leaves_only_if_nobody_else_has_it() {
    let mut scene = Scene::new(Kind::V2, 1, PIECE_BYTES);
    let alone = scene.seed();
    scene.hear(alone);
    assert_eq!(scene.asked.len(), 1);
    let mut scene = Scene::new(Kind::V2, 1, PIECE_BYTES);
    let other = scene.rig.peer(true);
    scene.rig.say(other, Message::HaveAll).unwrap();
    let giver = scene.seed();
    assert!(!scene.hear(giver).is_empty());
    scene.hear(other);
    assert_eq!(scene.asked.iter().map(|&(conn, _)| conn).collect::<Vec<_>>(), [other]);
}

#[test]
fn p32_wrong_leaves_of_a_begun_piece_convict_their_sender_and_the_piece_is_verified_when_whole() {
    for spoil in 0..4 {
        let mut scene = Scene::new(Kind::V2, 2, PIECE_BYTES);
        let sender = scene.seed();
        scene.hear(sender);
        let (_, request) = scene.asked.pop().unwrap();
        let piece = request.index / LEAVES;
        let mut hashes = scene.leaves[piece as usize].clone();
        match spoil {
            0 => hashes[LEAVES as usize - 1][31] ^= 1,
            1 => drop(hashes.pop()),
            2 => hashes.push([0; 32]),
            // Those of the other piece.
            _ => hashes = scene.leaves[1 - piece as usize].clone(),
        }
        assert!(scene.rig.say(sender, Message::Hashes { request, hashes: &hashes }).is_err(), "{spoil}");
        scene.work();
        assert!(scene.rig.was_closed(sender));
        let honest = scene.seed();
        // What was asked of the one that is gone is asked of this one, which rejects it.
        scene.rig.pass(Span::from_secs(1));
        let conns = [honest];
        scene.fetch(&conns, None, |scene| {
            for (conn, request) in std::mem::take(&mut scene.asked) {
                scene.rig.say(conn, Message::HashReject(request)).unwrap();
            }
        });
        assert!(scene.rig.shared.is_complete() && scene.rig.is_open(honest), "{spoil}");
        assert_eq!(scene.wasted_bytes(), 0);
    }
}

#[test]
fn p32_leaves_of_another_piece_than_was_asked_for_mean_nothing() {
    let mut scene = Scene::new(Kind::V2, 2, PIECE_BYTES);
    let conn = scene.seed();
    let blocks = scene.hear(conn);
    let (_, request) = scene.asked.pop().unwrap();
    let other = HashRequest { index: LEAVES - request.index, ..request };
    scene.answer(conn, other).unwrap();
    assert!(scene.rig.is_open(conn));
    // The answer itself counts still.
    scene.asked.push((conn, request));
    blocks.into_iter().for_each(|block| assert!(scene.give(conn, block, true)));
    scene.fetch(&[conn], None, Scene::answer_all);
    assert!(scene.rig.shared.is_complete());
}

#[test]
fn who_is_silent_about_leaves_costs_nothing_and_is_not_asked_again() {
    let mut scene = Scene::new(Kind::V2, 8, PIECE_BYTES);
    let conns = [scene.seed(), scene.seed()];
    let (mut asked, mut pieces) = (Vec::new(), BTreeMap::<u32, u32>::new());
    scene.fetch(&conns, None, |scene| {
        for (conn, request) in std::mem::take(&mut scene.asked) {
            asked.push(conn);
            *pieces.entry(request.index / LEAVES).or_default() += 1;
        }
        scene.rig.pass(HASH_PATIENCE);
        // Who has all parts from a seed.
        assert!(scene.rig.shared.is_complete() || conns.iter().all(|&conn| scene.rig.is_open(conn)));
    });
    assert!(scene.rig.shared.is_complete());
    // Each once, and no piece twice at a time.
    asked.sort_unstable_by_key(|conn| conn.index);
    assert_eq!(asked, conns);
    assert!(pieces.values().all(|&times| times <= 2), "{pieces:?}");
}

#[test]
fn a_peer_is_believed_after_so_many_pieces_until_something_wrong_comes() {
    let pieces = BELIEVED_AFTER_PIECES as u32;
    for given in [pieces - 1, pieces, pieces + 1] {
        let mut scene = Scene::new(Kind::V2, 2, PIECE_BYTES);
        let conn = scene.seed();
        let peer = scene.rig.engine.peer(conn).unwrap();
        let (account, chunk) = (peer.account_key, peer.current.unwrap());
        scene.rig.engine.ledger.credit(account, u64::from(given) * u64::from(PIECE_BYTES));
        let asks = |scene: &mut Scene, spoilt_at: Option<Instant>, at: Instant| {
            let torrent = scene.rig.engine.torrents[0].as_mut().unwrap();
            torrent.inquests.clear();
            torrent.spoilt_at = spoilt_at;
            scene.rig.engine.peers.get_mut(conn).unwrap().hashes_due = 0;
            scene.rig.engine.ask_ahead(conn, chunk, at);
            scene.rig.engine.torrents[0].as_ref().unwrap().inquests.len()
        };
        let (now, doubted) = (scene.rig.now, usize::from(given < pieces));
        assert_eq!(asks(&mut scene, None, now), doubted, "{given}");
        assert_eq!(asks(&mut scene, Some(now), now + DOUBT_TIME), doubted, "{given}");
        assert_eq!(asks(&mut scene, Some(now), Instant((now + DOUBT_TIME).0 - 1)), 1, "something wrong came");
    }
}

#[test]
fn p32_leaves_of_so_many_pieces_are_asked_for_ahead() {
    for (known, asks) in [(LEAVES_AHEAD_MAX - 1, 1), (LEAVES_AHEAD_MAX, 0), (LEAVES_AHEAD_MAX + 1, 0)] {
        let mut scene = Scene::new(Kind::V2, 4, PIECE_BYTES);
        let torrent = scene.rig.engine.torrents[0].as_mut().unwrap();
        for piece in 100..100 + known as u32 {
            torrent.inquests.insert(piece, Inquest::new(Leaves::Begun, scene.rig.now));
        }
        let conn = scene.seed();
        scene.hear(conn);
        assert_eq!(scene.asked.len(), asks, "{known}");
    }
}

#[test]
fn pieces_of_one_chunk_are_verified_when_whole() {
    assert_eq!(CHUNK_BYTES, BLOCKS_PER_CHUNK * BLOCK_BYTES);
    for (piece_bytes, asks) in [(CHUNK_BYTES, 0), (2 * CHUNK_BYTES, 1)] {
        let mut scene = Scene::new(Kind::V2, 1, piece_bytes);
        let conn = scene.seed();
        scene.hear(conn);
        assert_eq!(scene.asked.len(), asks);
    }
}
