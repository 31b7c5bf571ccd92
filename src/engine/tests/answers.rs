//! What is answered beside payload, against limits and groups of strangers (P30, P32).

use super::*;
use crate::base::limits::{
    ASK_COST_BYTES, HASH_ASKS_WAITING_MAX, HASH_PATIENCE, HASHES_OF_GROUP_BYTES_MAX, METADATA_COPIES_MAX,
    METADATA_COPIES_OF_GROUP_MAX,
};
use crate::base::units::BLOCK_BYTES;
use crate::proto::wire::extension::EXTENSION_HANDSHAKE_ID;
use crate::proto::wire::hashes::HashRequest;
use crate::proto::wire::metadata::{METADATA_PIECE_BYTES, MetadataMessage, UT_METADATA};
use crate::shared::budget::{Budget, LanBudget};

const STRANGER: &str = "8.8.8.8:6881";
const NEIGHBOUR: &str = "192.168.1.7:6881";

/// A seed of a torrent with an info dictionary of so many bytes.
fn seed_of(info_bytes: usize, upload: Budgets, limits: TorrentLimits) -> Rig {
    let none = Budgets::default();
    let mut rig = Rig::limited(1, true, (upload, none), limits.clone());
    let meta = TorrentMeta { info: vec![7; info_bytes].into(), ..rig.plain() };
    rig.shared = SharedTorrent::with_limits(meta, &Bitfield::full(1), 1, limits);
    rig.engine.handle_torrent(Arc::clone(&rig.shared));
    rig
}

/// A peer from `address` that wants metadata.
fn seeker(rig: &mut Rig, address: &str) -> ConnId {
    let conn = rig.accept(address);
    assert_eq!(rig.shake(conn, true), Admission::Here);
    let payload = b"d1:md11:ut_metadatai7eee";
    rig.say(conn, Message::Extended { id: EXTENSION_HANDSHAKE_ID, payload }).unwrap();
    rig.read(conn);
    conn
}

fn ask(rig: &mut Rig, conn: ConnId, piece: u32) {
    let mut payload = Vec::new();
    MetadataMessage::Request(piece).encode(&mut payload);
    rig.say(conn, Message::Extended { id: UT_METADATA, payload: &payload }).unwrap();
}

/// Bytes of metadata and of payload that leave in ten seconds: a peer at `address` waits for 400 pieces of
/// the one, another one, out there, asks for the other without end.
fn ten_seconds(address: &str, upload: Budgets, limits: TorrentLimits) -> (u64, u64) {
    let mut rig = seed_of(400 * METADATA_PIECE_BYTES as usize, upload, limits);
    let leech = rig.accept("9.9.9.9:7");
    assert_eq!(rig.shake(leech, true), Admission::Here);
    rig.read(leech);
    rig.say(leech, Message::Interested).unwrap();
    rig.read(leech);
    let conn = seeker(&mut rig, address);
    (0..400).for_each(|piece| ask(&mut rig, conn, piece));
    let end = rig.now + Span::from_secs(10);
    let (mut answers, mut blocks) = (0, 0);
    while rig.now < end {
        rig.engine.handle_tick(rig.now);
        loop {
            while rig.engine.peer(leech).is_some_and(|peer| peer.requests.len() < 32) {
                rig.say(leech, Message::Request(block(0, 0, BLOCK_BYTES))).unwrap();
            }
            let sends = rig.perform();
            if sends.is_empty() {
                break;
            }
            for to in sends {
                let (mut outbox, mut segments) = (Vec::new(), Vec::new());
                if rig.engine.take_send(to, &mut outbox, &mut segments, rig.now) {
                    let sum: u32 = segments.iter().map(Segment::len).sum();
                    rig.engine.handle_sent(to, Ok(sum), rig.now);
                    *(if to == conn { &mut answers } else { &mut blocks }) += u64::from(sum);
                }
            }
        }
        let due = rig.engine.poll_timeout().expect("there are peers");
        rig.now = due.max(rig.now + Span(100_000));
    }
    (answers, blocks)
}

#[test]
fn p30_metadata_counts_in_the_limit_that_it_is_under_and_payload_keeps_most_of_it() {
    let rate = 1 << 20;
    let budget = || Arc::new(Budget::new(rate, Instant(0)));
    let none = Budgets::default();
    let node = |lan| Budgets { node: Some(budget()), lan };
    let limited = TorrentLimits { upload: Some(budget()), download: None };
    for (address, upload, limits) in [
        (STRANGER, node(LanBudget::Shared), TorrentLimits::default()),
        (NEIGHBOUR, node(LanBudget::Shared), TorrentLimits::default()),
        (STRANGER, none, limited),
    ] {
        let (answers, blocks) = ten_seconds(address, upload, limits);
        assert!((rate..=rate * 10 / 4 + (64 << 10)).contains(&answers), "{answers} bytes of answers");
        let sum = answers + blocks;
        assert!((rate * 9..=rate * 10 + (256 << 10)).contains(&sum), "{answers} and {blocks}");
    }
    let all = 400 * u64::from(METADATA_PIECE_BYTES);
    let (exempt, _) = ten_seconds(NEIGHBOUR, node(LanBudget::Exempt), TorrentLimits::default());
    assert!(exempt >= all, "a neighbour that no limit is for has all of it: {exempt}");
    let slow = LanBudget::Own(Arc::new(Budget::new(64 << 10, Instant(0))));
    let (own, _) = ten_seconds(NEIGHBOUR, node(slow), TorrentLimits::default());
    assert!(own <= (64 << 10) * 10 / 4 + (64 << 10), "local networks with a limit of their own: {own}");
}

#[test]
fn p30_who_comes_anew_has_no_more_metadata_than_its_group_may_have() {
    let mut rig = seed_of(METADATA_PIECE_BYTES as usize, Budgets::default(), TorrentLimits::default());
    let mut given = 0;
    for round in 0..2 * METADATA_COPIES_OF_GROUP_MAX {
        // Other addresses of the same group, each for the first time.
        let conn = seeker(&mut rig, &format!("8.8.8.{}:6881", round + 1));
        for _ in 0..METADATA_COPIES_MAX {
            ask(&mut rig, conn, 0);
            given += u64::from(rig.read(conn).0.len() > METADATA_PIECE_BYTES as usize);
        }
        rig.engine.handle_gone(conn);
        rig.perform();
    }
    assert_eq!(given, METADATA_COPIES_OF_GROUP_MAX);
    for (address, what) in [("9.9.9.9:1", "another group"), (NEIGHBOUR, "a neighbour")] {
        let conn = seeker(&mut rig, address);
        ask(&mut rig, conn, 0);
        assert!(rig.read(conn).0.len() > METADATA_PIECE_BYTES as usize, "{what}");
    }
}

#[test]
fn p32_hash_requests_wait_for_a_limit_that_is_shut_and_so_many_do() {
    for asked in [HASH_ASKS_WAITING_MAX, HASH_ASKS_WAITING_MAX + 1, HASH_ASKS_WAITING_MAX + 2] {
        let budget = Arc::new(Budget::new(8, Instant(0)));
        let upload = Budgets { node: Some(budget), lan: LanBudget::Shared };
        let (mut rig, request) = v2::limited_seed(upload);
        let conn = rig.peer(true);
        (0..asked).for_each(|_| rig.say(conn, Message::HashRequest(request)).unwrap());
        // The first passes, as a block would; the next one has to wait for 96 s.
        let (bytes, _) = rig.read(conn);
        let told = frames(&bytes);
        let rejects = told.iter().filter(|said| matches!(said, Message::HashReject(_))).count();
        let hashes = told.iter().filter(|said| matches!(said, Message::Hashes { .. })).count();
        assert_eq!((hashes, rejects), (1, asked.saturating_sub(HASH_ASKS_WAITING_MAX + 1)), "{asked}");
        rig.now = rig.now + Span::from_secs(100);
        rig.engine.handle_tick(rig.now);
        let (bytes, _) = rig.read(conn);
        let next = frames(&bytes);
        assert_eq!(next.iter().filter(|said| matches!(said, Message::Hashes { .. })).count(), 1);
    }
}

#[test]
fn p32_a_group_that_had_its_hashes_gets_no_more_by_whatever_connection() {
    let (mut rig, request) = v2::limited_seed(Budgets::default());
    let ask = |rig: &mut Rig, address: &str| {
        let conn = rig.accept(address);
        assert_eq!(rig.shake(conn, true), Admission::Here);
        rig.read(conn);
        rig.say(conn, Message::HashRequest(request)).unwrap();
        let (bytes, _) = rig.read(conn);
        frames(&bytes).iter().any(|said| matches!(said, Message::Hashes { .. }))
    };
    assert!(ask(&mut rig, "8.8.8.8:1"));
    // Nearly all that is left, as if it had been asked for bit by bit.
    let conn = rig.accept("8.8.8.9:1");
    let length = (HASHES_OF_GROUP_BYTES_MAX / 32) as u32 - 128;
    let most = HashRequest { length, proof_layers: 0, ..request };
    let Engine { rations, config, peers, .. } = &mut rig.engine;
    assert!(rations.take_hashes(config, peers.get_mut(conn).unwrap(), &most, rig.now));
    let given = (10..100).filter(|host| ask(&mut rig, &format!("8.8.8.{host}:1"))).count();
    assert!((10..30).contains(&given), "{given}");
    assert!(ask(&mut rig, "9.9.9.9:1"), "somebody else");
    let neighbours = (1..100).filter(|port| ask(&mut rig, &format!("10.0.0.1:{port}"))).count();
    assert_eq!(neighbours, 99);
}

/// Limits of what is sent: so little that one answer shuts them for minutes.
fn trickle() -> (Arc<Budget>, Budgets) {
    let budget = Arc::new(Budget::new(8, Instant(0)));
    (Arc::clone(&budget), Budgets { node: Some(budget), lan: LanBudget::Shared })
}

/// Leaves so many of what the group of `conn` may have of hashes.
fn leave_hashes(rig: &mut Rig, conn: ConnId, left: u32, request: HashRequest) {
    let length = (HASHES_OF_GROUP_BYTES_MAX / 32) as u32 - left;
    let most = HashRequest { length, proof_layers: 0, ..request };
    let Engine { rations, config, peers, .. } = &mut rig.engine;
    assert!(rations.take_hashes(config, peers.get_mut(conn).unwrap(), &most, rig.now));
}

fn stranger(rig: &mut Rig, address: &str) -> ConnId {
    let conn = rig.accept(address);
    assert_eq!(rig.shake(conn, true), Admission::Here);
    rig.read(conn);
    conn
}

fn rejects(rig: &mut Rig, conn: ConnId) -> usize {
    let (bytes, _) = rig.read(conn);
    frames(&bytes).iter().filter(|said| matches!(said, Message::HashReject(_))).count()
}

#[test]
fn p32_hashes_that_are_rejected_after_they_were_taken_cost_the_group_nothing() {
    let (mut rig, request) = v2::limited_seed(Budgets::default());
    let leaves = HashRequest { base_layer: 0, length: 2, proof_layers: 5, ..request };
    let conn = stranger(&mut rig, "8.8.8.8:1");
    leave_hashes(&mut rig, conn, 2 * (2 + 5), leaves);
    // The first waits for its piece, beside which no other may: those are taken and rejected.
    (0..10).for_each(|_| rig.say(conn, Message::HashRequest(leaves)).unwrap());
    assert_eq!(rejects(&mut rig, conn), 9);
    let other = stranger(&mut rig, "8.8.8.9:1");
    for rejected in [0, 1] {
        rig.say(other, Message::HashRequest(leaves)).unwrap();
        assert_eq!(rejects(&mut rig, other), rejected, "one more is left to the group");
    }
}

#[test]
fn p32_a_piece_that_is_not_read_in_time_costs_neither_the_limit_nor_the_peer() {
    let (budget, upload) = trickle();
    let (mut rig, request) = v2::limited_seed(upload);
    let leaves = HashRequest { base_layer: 0, length: 2, proof_layers: 5, ..request };
    let conn = stranger(&mut rig, "8.8.8.8:1");
    leave_hashes(&mut rig, conn, 2 + 5, leaves);
    rig.say(conn, Message::HashRequest(leaves)).unwrap();
    assert!(!budget.is_open_for_answers(rig.now), "it is charged");
    // Nobody reads the piece meanwhile.
    rig.now = rig.now + HASH_PATIENCE;
    rig.engine.handle_tick(rig.now);
    assert!(budget.is_open_for_answers(rig.now));
    assert_eq!(rejects(&mut rig, conn), 1);
    rig.say(conn, Message::HashRequest(leaves)).unwrap();
    assert_eq!(rejects(&mut rig, conn), 0, "it may ask once more");
}

#[test]
fn p32_a_piece_that_is_not_read_before_its_peer_leaves_costs_the_limit_nothing() {
    let (budget, upload) = trickle();
    let (mut rig, request) = v2::limited_seed(upload);
    let leaves = HashRequest { base_layer: 0, length: 2, proof_layers: 5, ..request };
    let conn = stranger(&mut rig, "8.8.8.8:1");
    rig.say(conn, Message::HashRequest(leaves)).unwrap();
    assert!(!budget.is_open_for_answers(rig.now), "it is charged");
    rig.engine.handle_gone(conn);
    rig.engine.handle_closed(conn);
    assert!(budget.is_open_for_answers(rig.now));
}

#[test]
fn p30_p32_what_waits_for_a_limit_when_its_peer_leaves_costs_the_group_nothing() {
    let (_, upload) = trickle();
    let (mut rig, request) = v2::limited_seed(upload);
    for round in 1..=4 {
        let conn = stranger(&mut rig, &format!("8.8.8.{round}:1"));
        if round == 1 {
            leave_hashes(&mut rig, conn, 3 * (request.length + request.proof_layers), request);
        }
        // The first that asks is answered, and shuts the limit.
        (0..2).for_each(|_| rig.say(conn, Message::HashRequest(request)).unwrap());
        assert_eq!(rejects(&mut rig, conn), 0, "{round}");
        rig.engine.handle_gone(conn);
        rig.perform();
    }

    let mut rig = seed_of(METADATA_PIECE_BYTES as usize, trickle().1, TorrentLimits::default());
    for round in 1..=2 * METADATA_COPIES_OF_GROUP_MAX {
        let conn = seeker(&mut rig, &format!("8.8.8.{round}:6881"));
        ask(&mut rig, conn, 0);
        let (bytes, _) = rig.read(conn);
        // The others are not rejected: they wait.
        assert_eq!(bytes.is_empty(), round > 1, "{round}");
        rig.engine.handle_gone(conn);
        rig.perform();
    }
}

#[test]
fn p32_leaves_that_turn_out_to_be_others_cost_nobody_anything() {
    let (budget, upload) = trickle();
    let (mut rig, request) = v2::limited_seed(upload);
    let leaves = HashRequest { base_layer: 0, length: 2, proof_layers: 5, ..request };
    let conn = stranger(&mut rig, "8.8.8.8:1");
    leave_hashes(&mut rig, conn, 2 + 5, leaves);
    let credit_bytes = |rig: &Rig| rig.engine.peer(conn).unwrap().asks.credit_bytes();
    let before = credit_bytes(&rig);
    rig.say(conn, Message::HashRequest(leaves)).unwrap();
    rig.perform();
    assert!(!budget.is_open_for_answers(rig.now), "it is charged");
    let hash = rig.done.iter().find(|action| matches!(action, Action::Leaves { .. }));
    let Some(&Action::Leaves { torrent, piece, of }) = hash else { panic!("{:?}", rig.done) };
    rig.engine.handle_leaves(torrent, piece, of, &[[9; 32]; 64]);
    assert_eq!(rejects(&mut rig, conn), 1);
    assert!(budget.is_open_for_answers(rig.now), "nor the limit");
    assert_eq!(before - credit_bytes(&rig), ASK_COST_BYTES, "nor the peer, but for its message");
    let other = stranger(&mut rig, "8.8.8.9:1");
    rig.say(other, Message::HashRequest(leaves)).unwrap();
    assert_eq!(rejects(&mut rig, other), 0, "nor the group");
}

#[test]
fn p32_a_limit_is_charged_for_what_is_answered_and_for_nothing_else() {
    let all = |most: u32| move |at: u32| (0..most).map(move |next| (at, next));
    let asks =
        (0..8).flat_map(all(3)).flat_map(|(base, index)| (0..4).map(move |log| (base, 2 * index, 1 << log)));
    let (mut told, mut rejected) = (0, 0);
    for (base_layer, index, length) in asks {
        let (budget, upload) = trickle();
        let (mut rig, request) = v2::limited_seed(upload);
        let conn = stranger(&mut rig, "8.8.8.8:1");
        rig.say(conn, Message::HashRequest(HashRequest { base_layer, index, length, ..request })).unwrap();
        let rejects = rejects(&mut rig, conn);
        assert_eq!(budget.is_open_for_answers(rig.now), rejects == 1, "{base_layer} {index} {length}");
        (told, rejected) = (told + 1 - rejects, rejected + rejects);
    }
    assert!(told > 10 && rejected > 10, "{told} and {rejected}");
}
