//! BitTorrent v2 against one engine with virtual time (BEP 52).

mod ahead;

use super::*;
use crate::base::limits::{
    ASK_COST_BYTES, ASK_GRANT_BYTES, HASH_PATIENCE, LEAF_ASKS_MAX, LEAF_ASKS_OF_CORE_MAX,
    LEAF_BYTES_PER_ASK_BYTE,
};
use crate::base::units::BLOCK_BYTES;
use crate::engine::action::Leaves;
use crate::engine::versions::Name;
use crate::hash::merkle::{self, Hash, HashRange};
use crate::proto::wire::hashes::HashRequest;
use crate::shared::judge::PieceDigest;
use crate::shared::trees::Trees;

const PIECE_BYTES: u32 = 1 << 20;
const LEAVES: u32 = PIECE_BYTES / BLOCK_BYTES;
const LAST_BYTES: u32 = 100_000;
const V2_HASH: InfoHash = InfoHash([8; 20]);

/// Layers of a whole piece above its leaves.
const HEIGHT: u32 = 6;

/// The leaf of a block; nothing here has bytes.
fn leaf(piece: u32, block: u32) -> Hash {
    let mut leaf = [1; 32];
    leaf[..4].copy_from_slice(&piece.to_be_bytes());
    leaf[4..8].copy_from_slice(&block.to_be_bytes());
    leaf
}

fn leaves(piece: u32, pieces: u32) -> Vec<Hash> {
    let count = if piece + 1 == pieces { LAST_BYTES.div_ceil(BLOCK_BYTES) } else { LEAVES };
    (0..count).map(|block| leaf(piece, block)).collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    V2,
    Hybrid,
}

/// A seed of a v2 torrent with limits, and a request for hashes of pieces that it can answer at once.
pub(super) fn limited_seed(upload: Budgets) -> (Rig, HashRequest) {
    let none = Budgets::default();
    let rig = rig_of(Rig::limited(1, false, (upload, none), TorrentLimits::default()), Kind::V2, 5, true);
    let request = asks(&rig, HEIGHT, 0, 4, 2);
    (rig, request)
}

/// A file of `pieces` pieces, the last of 100,000 bytes.
fn rig(kind: Kind, pieces: u32, complete: bool) -> Rig {
    rig_of(Rig::new(1, false), kind, pieces, complete)
}

fn rig_of(mut rig: Rig, kind: Kind, pieces: u32, complete: bool) -> Rig {
    rig.shared = rig.add(meta(kind, pieces), complete);
    rig
}

fn meta(kind: Kind, pieces: u32) -> TorrentMeta {
    let total_bytes = u64::from(pieces - 1) * u64::from(PIECE_BYTES) + u64::from(LAST_BYTES);
    let geometry = Geometry::new(total_bytes, PIECE_BYTES);
    let roots =
        (0..pieces).map(|piece| merkle::root(&mut leaves(piece, pieces), 0, HEIGHT).unwrap()).collect();
    let trees = Trees::new(geometry, std::iter::once((0, total_bytes, roots))).unwrap();
    meta_of(kind, TorrentMeta::plain(HASH, total_bytes, PIECE_BYTES), trees)
}

/// A torrent with these trees: a hybrid if it is to be.
fn meta_of(kind: Kind, plain: TorrentMeta, trees: Trees) -> TorrentMeta {
    let trees = Some(Arc::new(trees));
    match kind {
        Kind::V2 => TorrentMeta { trees, piece_hashes: Default::default(), ..plain },
        Kind::Hybrid => TorrentMeta { trees, v2_hash: Some(V2_HASH), ..plain },
    }
}

fn trees(rig: &Rig) -> &Trees {
    rig.shared.meta.trees.as_deref().unwrap()
}

fn asks(rig: &Rig, base_layer: u32, index: u32, length: u32, proof_layers: u32) -> HashRequest {
    HashRequest { root: trees(rig).of_piece(0).unwrap().root(), base_layer, index, length, proof_layers }
}

/// Hashes the leaves that are wanted; `bad` are blocks of piece 0 that are wrong.
fn hash_leaves(rig: &mut Rig, bad: &[u32]) {
    let pieces = rig.shared.meta.geometry.piece_count();
    for action in std::mem::take(&mut rig.done) {
        if let Action::Leaves { torrent, piece, of } = action {
            let mut leaves = leaves(piece, pieces);
            bad.iter()
                .filter(|_| of == Leaves::Failed)
                .for_each(|&block| leaves[block as usize] = [0xbb; 32]);
            rig.engine.handle_leaves(torrent, piece, of, &leaves);
        }
    }
}

/// What `conn` is told of hashes: how many, or that they do not come; and whether they prove what they
/// should.
fn answers(rig: &mut Rig, conn: ConnId) -> Vec<Option<usize>> {
    rig.perform();
    hash_leaves(rig, &[]);
    let (bytes, _) = rig.read(conn);
    let shape = trees(rig).of_piece(0).unwrap().shape;
    let told = frames(&bytes).into_iter().filter_map(|message| match message {
        Message::Hashes { request, hashes } => {
            let reached = range(&request).climb(shape, hashes).unwrap();
            let is_known =
                trees(rig).of_piece(0).unwrap().node(reached.layer, reached.index) == Some(reached.hash);
            assert!(is_known, "{request:?}");
            Some(Some(hashes.len()))
        }
        Message::HashReject(_) => Some(None),
        _ => None,
    });
    told.collect()
}

fn range(request: &HashRequest) -> HashRange {
    let HashRequest { base_layer: base, index, length, proof_layers, .. } = *request;
    HashRange { base, index, length, proof_layers }
}

#[test]
fn hashes_of_pieces_are_told_at_once_and_those_of_blocks_when_their_piece_is_read() {
    let mut rig = rig(Kind::V2, 5, true);
    let conn = rig.peer(true);
    let layer = asks(&rig, HEIGHT, 0, 4, 2);
    rig.say(conn, Message::HashRequest(layer)).unwrap();
    assert_eq!(answers(&mut rig, conn), [Some(5)], "four pieces, and the half of the tree behind them");
    // All blocks of piece 1, and two of the last piece, with proofs up to the root.
    for (request, hashes) in
        [(asks(&rig, 0, LEAVES, LEAVES, HEIGHT - 1), 64), (asks(&rig, 1, 4 * LEAVES / 2 + 2, 2, 7), 2 + 7)]
    {
        rig.say(conn, Message::HashRequest(request)).unwrap();
        assert_eq!(answers(&mut rig, conn), [Some(hashes)]);
    }
    assert!(rig.is_open(conn));
}

#[test]
fn p32_hash_requests_of_a_wrong_root_layer_index_length_or_proof_are_rejected() {
    let mut rig = rig(Kind::V2, 5, true);
    let conn = rig.peer(true);
    let good = asks(&rig, HEIGHT, 0, 2, 2);
    let top = trees(&rig).of_piece(0).unwrap().shape.height;
    for request in [
        HashRequest { root: [0; 32], ..good },
        HashRequest { base_layer: top, ..good },
        HashRequest { base_layer: u32::MAX, ..good },
        HashRequest { index: 1, ..good },
        HashRequest { index: 8, ..good },
        HashRequest { index: u32::MAX - 1, ..good },
        HashRequest { length: 0, ..good },
        HashRequest { length: 3, ..good },
        HashRequest { length: 16, ..good },
        HashRequest { length: u32::MAX, ..good },
        HashRequest { proof_layers: 3, ..good },
        HashRequest { proof_layers: u32::MAX, ..good },
    ] {
        rig.say(conn, Message::HashRequest(request)).unwrap();
        assert_eq!(answers(&mut rig, conn), [None], "{request:?}");
    }
    // Blocks of two pieces at once are more than is hashed for one request.
    let wide = asks(&rig, 0, 0, 2 * LEAVES, 0);
    rig.say(conn, Message::HashRequest(wide)).unwrap();
    assert_eq!(answers(&mut rig, conn), [None]);
    assert_eq!(rig.engine.peer(conn).unwrap().strikes, 12);
}

#[test]
fn p32_what_is_not_here_and_a_torrent_without_trees_are_asked_for_in_vain() {
    let mut partial = rig(Kind::V2, 3, false);
    let conn = partial.peer(true);
    let leaves = asks(&partial, 0, 0, 2, 0);
    partial.say(conn, Message::HashRequest(leaves)).unwrap();
    assert_eq!(answers(&mut partial, conn), [None]);
    let mut v1 = Rig::new(3, true);
    let conn = v1.peer(true);
    v1.say(conn, Message::HashRequest(leaves)).unwrap();
    let (bytes, _) = v1.read(conn);
    assert_eq!(frames(&bytes), [Message::HashReject(leaves)]);
}

#[test]
fn p32_each_peer_waits_for_one_piece_and_so_many_peers_wait() {
    let mut rig = rig(Kind::V2, 3, true);
    let leaves = asks(&rig, 0, 0, 2, HEIGHT - 1);
    let conns: Vec<ConnId> = (0..=LEAF_ASKS_MAX).map(|_| rig.peer(true)).collect();
    for &conn in &conns {
        rig.say(conn, Message::HashRequest(leaves)).unwrap();
    }
    rig.say(conns[0], Message::HashRequest(leaves)).unwrap();
    let rejected = |rig: &mut Rig, conn| {
        let (bytes, _) = rig.read(conn);
        frames(&bytes).contains(&Message::HashReject(leaves))
    };
    assert!(rejected(&mut rig, conns[LEAF_ASKS_MAX]), "one too many");
    assert!(!rejected(&mut rig, conns[LEAF_ASKS_MAX - 1]));
    assert!(rejected(&mut rig, conns[0]), "its second");
    // They are answered all the same, once each.
    assert_eq!(answers(&mut rig, conns[0]), [Some(2 + 5)]);
    assert_eq!(answers(&mut rig, conns[LEAF_ASKS_MAX - 1]), [Some(2 + 5)]);
}

#[test]
fn p32_who_leaves_frees_its_place_among_those_that_wait() {
    let mut rig = rig(Kind::V2, 3, true);
    let leaves = asks(&rig, 0, 0, 2, HEIGHT - 1);
    let conns: Vec<ConnId> = (0..LEAF_ASKS_MAX).map(|_| rig.peer(true)).collect();
    for &conn in &conns {
        rig.say(conn, Message::HashRequest(leaves)).unwrap();
    }
    rig.engine.handle_closed(conns[0]);
    let next = rig.peer(true);
    rig.say(next, Message::HashRequest(leaves)).unwrap();
    assert_eq!(answers(&mut rig, next), [Some(2 + 5)]);
}

#[test]
fn p32_so_many_peers_of_one_core_wait_whatever_their_torrents() {
    for asked in [LEAF_ASKS_OF_CORE_MAX - 1, LEAF_ASKS_OF_CORE_MAX, LEAF_ASKS_OF_CORE_MAX + 1] {
        let mut rig = rig(Kind::V2, 3, true);
        let leaves = asks(&rig, 0, 0, 2, HEIGHT - 1);
        let name = |torrent: usize| InfoHash([100 + torrent as u8; 20]);
        for torrent in 1..=asked / LEAF_ASKS_MAX + 1 {
            let (id, info_hash) = (TorrentId(torrent as u32), name(torrent));
            rig.add(TorrentMeta { id, info_hash, ..meta(Kind::V2, 3) }, true);
        }
        let rejected = (0..asked).filter(|ask| {
            let conn = rig.accept(&format!("127.0.0.1:{}", 10_000 + ask));
            let handshake = Handshake::new(name(ask / LEAF_ASKS_MAX + 1), THEIRS).with_fast();
            assert_eq!(rig.engine.handle_handshake(conn, &handshake, rig.now), Admission::Here);
            rig.read(conn);
            rig.say(conn, Message::HashRequest(leaves)).unwrap();
            frames(&rig.read(conn).0).contains(&Message::HashReject(leaves))
        });
        assert_eq!(rejected.count(), asked.saturating_sub(LEAF_ASKS_OF_CORE_MAX), "{asked}");
    }
}

#[test]
fn p16_p32_who_has_pieces_hashed_over_and_over_is_read_from_at_the_rate_of_requests() {
    let mut rig = rig(Kind::V2, 3, true);
    let conn = rig.peer(true);
    let leaves = asks(&rig, 0, 0, 2, HEIGHT - 1);
    let cost = u64::from(PIECE_BYTES) / LEAF_BYTES_PER_ASK_BYTE + ASK_COST_BYTES;
    for asked in 1..=ASK_GRANT_BYTES / cost {
        assert!(rig.engine.listens(conn), "{asked}");
        rig.say(conn, Message::HashRequest(leaves)).unwrap();
        assert_eq!(answers(&mut rig, conn), [Some(2 + 5)]);
    }
    rig.say(conn, Message::HashRequest(leaves)).unwrap();
    assert!(!rig.engine.listens(conn));
    rig.pass(Span::from_secs(1));
    assert!(rig.engine.listens(conn));
}

/// Lands what `conn` was asked for.
fn land(rig: &mut Rig, conn: ConnId, block: BlockRef) {
    let Ok(Landing::Into(expected)) = rig.engine.handle_piece_header(conn, block) else {
        panic!("{block:?} was asked for")
    };
    rig.engine.handle_block(conn, expected.chunk, expected.index, rig.now);
}

/// Hashes what waits: piece 0 is wrong if there are `bad` blocks.
fn hash(rig: &mut Rig, bad: &[u32]) {
    for action in std::mem::take(&mut rig.done) {
        match action {
            Action::Hash { torrent, chunk, last, .. } => {
                let piece = rig.shared.meta.geometry.chunk_piece(chunk);
                let right = trees(rig).piece_root(piece);
                let v2 = if piece != 0 || bad.is_empty() { right } else { Some([0xbb; 32]) };
                let digest = PieceDigest { v1: None, v2 };
                rig.engine.handle_hashed(torrent, chunk, last.then_some(digest));
            }
            Action::Write { torrent, chunk } => rig.engine.handle_written(torrent, chunk, Ok(())),
            other => rig.done.push(other),
        }
    }
}

#[test]
fn a_piece_is_asked_for_up_to_its_last_byte() {
    let mut rig = rig(Kind::V2, 1, false);
    let seed = rig.seed();
    let asked = rig.asked(seed);
    assert_eq!(asked.len(), 7);
    assert_eq!(asked.last().map(|block| block.length), Some(LAST_BYTES % BLOCK_BYTES));
}

/// Two givers of a piece of which `bad` blocks are wrong, and a witness that gave nothing.
struct Case {
    rig: Rig,
    givers: [ConnId; 2],
    witness: ConnId,
    given: Vec<(ConnId, BlockRef)>,
}

fn spoilt() -> Case {
    let mut rig = rig(Kind::V2, 2, false);
    let givers = [rig.seed(), rig.seed()];
    let witness = rig.peer(true);
    let mut given = Vec::new();
    while given.len() < (LEAVES + LAST_BYTES.div_ceil(BLOCK_BYTES)) as usize {
        let before = given.len();
        for conn in givers {
            for block in rig.asked(conn) {
                land(&mut rig, conn, block);
                given.push((conn, block));
            }
        }
        assert!(given.len() > before, "{} blocks", given.len());
    }
    rig.say(witness, Message::HaveAll).unwrap();
    for _ in 0..8 {
        rig.perform();
        hash(&mut rig, &[0]);
    }
    assert!(rig.shared.has(1) && !rig.shared.has(0));
    Case { rig, givers, witness, given }
}

impl Case {
    fn request(&self) -> HashRequest {
        asks(&self.rig, 0, 0, LEAVES, HEIGHT - 1)
    }

    fn is_asked(&mut self, conn: ConnId) -> bool {
        let request = self.request();
        let (bytes, _) = self.rig.read(conn);
        frames(&bytes).contains(&Message::HashRequest(request))
    }

    /// Blocks of piece 0 that a giver gave.
    fn blocks_of(&self, conn: ConnId) -> Vec<u32> {
        let of = self.given.iter().filter(|(giver, block)| *giver == conn && block.piece == 0);
        of.map(|(_, block)| block.begin / BLOCK_BYTES).collect()
    }
}

#[test]
fn p21_p22_the_giver_of_one_bad_block_of_a_v2_piece_is_banned_and_only_that_block_comes_again() {
    let mut case = spoilt();
    let (liar, honest) = (case.givers[0], case.givers[1]);
    let bad = case.blocks_of(liar)[0];
    assert!(!case.blocks_of(honest).is_empty());
    assert!(case.is_asked(case.witness), "who gave nothing is asked first");
    let (request, hashes) = (case.request(), leaves(0, 2));
    case.rig.say(case.witness, Message::Hashes { request, hashes: &hashes }).unwrap();
    case.rig.perform();
    hash_leaves(&mut case.rig, &[bad]);
    case.rig.perform();
    assert!(case.rig.was_closed(liar) && case.rig.is_open(honest) && case.rig.is_open(case.witness));
    let again = case.rig.asked(honest);
    assert_eq!(again, [case.rig.shared.meta.wanted_block(bad / 16, bad % 16)]);
    land(&mut case.rig, honest, again[0]);
    for _ in 0..4 {
        case.rig.perform();
        hash(&mut case.rig, &[]);
    }
    assert!(case.rig.shared.has(0));
    assert_eq!(case.rig.shared.stats[0].wasted_bytes.get(), u64::from(BLOCK_BYTES));
}

#[test]
fn p32_hashes_of_a_wrong_length_index_or_layer_or_that_prove_nothing_convict_nobody_but_their_sender() {
    for spoil in 0..3 {
        let mut case = spoilt();
        assert!(case.is_asked(case.witness));
        let (mut request, mut hashes) = (case.request(), leaves(0, 2));
        match spoil {
            0 => hashes[5][0] ^= 1,
            1 => drop(hashes.pop()),
            _ => hashes.push([0; 32]),
        }
        let witness = case.witness;
        assert!(case.rig.say(witness, Message::Hashes { request, hashes: &hashes }).is_err());
        case.rig.perform();
        assert!(case.rig.was_closed(witness));
        assert!(case.givers.iter().all(|&conn| case.rig.is_open(conn)));
        // What was not asked for like that means nothing.
        request.index = LEAVES;
        case.rig.say(case.givers[0], Message::Hashes { request, hashes: &leaves(0, 2) }).unwrap();
        request.base_layer = 1;
        case.rig.say(case.givers[0], Message::Hashes { request, hashes: &leaves(0, 2) }).unwrap();
        // The next one is asked: a suspect, which cannot lie either.
        case.rig.pass(Span::from_secs(1));
        let [a, b] = case.givers;
        assert!(case.is_asked(a) || case.is_asked(b));
    }
}

#[test]
fn a_witness_that_refuses_or_is_silent_is_passed_over_and_at_last_the_piece_is_fetched_as_of_old() {
    let mut case = spoilt();
    assert!(case.is_asked(case.witness));
    let request = case.request();
    case.rig.say(case.witness, Message::HashReject(request)).unwrap();
    let [a, b] = case.givers;
    let next = if case.is_asked(a) { a } else { b };
    case.rig.pass(HASH_PATIENCE);
    case.rig.pass(Span::from_secs(1));
    let last = if next == a { b } else { a };
    assert!(case.is_asked(last));
    case.rig.say(last, Message::HashReject(request)).unwrap();
    case.rig.perform();
    assert!(case.rig.done.contains(&Action::Autopsy { torrent: TorrentId(0), piece: 0 }));
}

#[test]
fn a_hybrid_is_known_by_both_names_and_whoever_can_goes_on_with_v2() {
    use crate::engine::peer::Version;
    for (name, bit, version, answer) in [
        (HASH, false, Version::V1, HASH),
        (HASH, true, Version::V2, V2_HASH),
        (V2_HASH, false, Version::V2, V2_HASH),
    ] {
        let mut rig = rig(Kind::Hybrid, 2, true);
        let conn = rig.accept("127.0.0.1:10000");
        let theirs = Handshake::new(name, THEIRS);
        let theirs = if bit { theirs.with_v2() } else { theirs };
        assert_eq!(rig.engine.handle_handshake(conn, &theirs, rig.now), Admission::Here);
        assert_eq!(rig.engine.peer(conn).unwrap().version, version);
        let mut outbox = Vec::new();
        rig.perform();
        assert!(rig.engine.take_send(conn, &mut outbox, &mut Vec::new(), rig.now));
        assert_eq!(Handshake::parse(&outbox).unwrap().unwrap().info_hash, answer);
    }
}

#[test]
fn of_a_hybrid_we_offer_v2_and_take_either_answer() {
    use crate::engine::peer::Version;
    for (answer, version) in [(HASH, Version::V1), (V2_HASH, Version::V2)] {
        let mut rig = rig(Kind::Hybrid, 2, true);
        let conn = ConnId { index: 0, generation: 0 };
        let to = "127.0.0.1:9".parse().unwrap();
        rig.engine.handle_dialing(conn, to, (TorrentId(0), Name::First), rig.now);
        rig.engine.handle_dialed(conn, true, rig.now);
        let mut outbox = Vec::new();
        assert!(rig.engine.take_send(conn, &mut outbox, &mut Vec::new(), rig.now));
        let ours = Handshake::parse(&outbox).unwrap().unwrap();
        assert!(ours.info_hash == HASH && ours.has_v2());
        let theirs = Handshake::new(answer, THEIRS);
        assert_eq!(rig.engine.handle_handshake(conn, &theirs, rig.now), Admission::Here);
        assert_eq!(rig.engine.peer(conn).unwrap().version, version);
    }
}

#[test]
fn who_was_found_by_the_second_name_of_a_hybrid_is_dialled_by_it() {
    use crate::engine::peer::Version;
    let mut rig = rig(Kind::Hybrid, 2, true);
    let conn = ConnId { index: 0, generation: 0 };
    let to = "127.0.0.1:9".parse().unwrap();
    rig.engine.handle_dialing(conn, to, (TorrentId(0), Name::Second), rig.now);
    rig.engine.handle_dialed(conn, true, rig.now);
    let mut outbox = Vec::new();
    assert!(rig.engine.take_send(conn, &mut outbox, &mut Vec::new(), rig.now));
    assert_eq!(Handshake::parse(&outbox).unwrap().unwrap().info_hash, V2_HASH);
    assert_eq!(rig.engine.handle_handshake(conn, &Handshake::new(V2_HASH, THEIRS), rig.now), Admission::Here);
    assert_eq!(rig.engine.peer(conn).unwrap().version, Version::V2);
}

#[test]
fn t22_a_hybrid_whose_halves_disagree_is_fetched_no_further_and_nobody_is_blamed() {
    let mut rig = rig(Kind::Hybrid, 1, false);
    let seed = rig.seed();
    for _ in 0..4 {
        rig.asked(seed).into_iter().for_each(|block| land(&mut rig, seed, block));
    }
    rig.perform();
    for action in std::mem::take(&mut rig.done) {
        if let Action::Hash { torrent, chunk, .. } = action {
            let digest = PieceDigest { v1: Some([0; 20]), v2: Some([9; 32]) };
            rig.engine.handle_hashed(torrent, chunk, Some(digest));
        }
    }
    rig.perform();
    assert!(rig.done.contains(&Action::Report(Report::Torn { torrent: TorrentId(0), piece: 0 })));
    assert!(rig.shared.fetch_stopped() && !rig.shared.has(0) && rig.is_open(seed));
}
