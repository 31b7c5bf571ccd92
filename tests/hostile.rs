//! Hostile peers against the built binary, by hand-written bytes. Each test bears its rows of the threat
//! list; after each the node still serves an honest peer, byte by byte.

mod support;

#[path = "hostile/relay.rs"]
mod relay;
#[path = "hostile/wire.rs"]
mod wire;

use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::Ordering;

use relay::{PIECE, Scene, proc_value, sockets, wait_sockets};
use support::node::{self, Node};
use wire::{BLOCK, FakeSeed, HANDSHAKE, Manner, Payload, Peer, assert_serves};
use wire::{handshake, message, piece, request, seed, words};

const ME: &[u8; 20] = b"-XX0001-by-hand-1234";

#[test]
fn p4_p41_what_is_no_handshake_for_us_is_closed_without_a_byte() {
    let scene = Scene::new();
    let relay = scene.relay();
    let hash = scene.payload.info_hash;
    let own_id = Peer::connect(relay.addr).shake(&hash);
    let good = handshake(&hash, ME);
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let mut cases: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"\n".to_vec(),
        vec![0; 68],
        vec![0xff; 4096],
        with(0, 18),
        with(0, 20),
        with(0, 0),
        with(1, b'b'),
        with(19, b'L'),
        with(47, !good[47]),
        handshake(&hash, &own_id),
    ];
    // A scan of torrents that it was never told about.
    cases.extend((0..100u8).map(|n| handshake(&[n; 20], ME)));
    for case in cases {
        let mut peer = Peer::connect(relay.addr);
        peer.send(&case);
        assert_eq!(peer.wait_closed(), 0, "{:?}", &case[..case.len().min(20)]);
    }
    assert_serves(relay.addr, &scene.payload);
}

#[test]
fn p1_p3_many_silent_connections_do_not_keep_an_honest_one_out() {
    let scene = Scene::new();
    let relay = scene.relay();
    let pid = relay.node.process.pid();
    let base = sockets(pid);
    assert_serves(relay.addr, &scene.payload);
    let silent: Vec<Peer> = (0..400).map(|_| Peer::connect(relay.addr)).collect();
    let half: Vec<Peer> = (0..100)
        .map(|n| {
            let mut peer = Peer::connect(relay.addr);
            peer.send(&handshake(&scene.payload.info_hash, ME)[..n % HANDSHAKE]);
            peer
        })
        .collect();
    assert_serves(relay.addr, &scene.payload);
    drop((silent, half));
    wait_sockets(pid, base);
    assert_serves(relay.addr, &scene.payload);
}

#[test]
fn p6_p25_p29_floods_of_messages_that_say_nothing_end_the_connection() {
    let scene = Scene::new();
    let relay = scene.relay();
    let floods = [
        vec![0; 4],
        [message(2, b""), message(3, b"")].concat(),
        [message(0, b""), message(1, b"")].concat(),
        message(20, b"\0de"),
        message(99, b"what?"),
        message(4, &[0; 4]),
    ];
    for flood in floods {
        let mut peer = Peer::open(relay.addr, &scene.payload.info_hash);
        let many = flood.repeat(50_000);
        // Not all of it is taken: it is closed long before.
        peer.send(&many);
        peer.wait_closed();
    }
    assert_serves(relay.addr, &scene.payload);
}

#[test]
fn p7_a_length_of_four_gibibytes_is_refused_at_its_fourth_byte() {
    let scene = Scene::new();
    let relay = scene.relay();
    let pid = relay.node.process.pid();
    assert_serves(relay.addr, &scene.payload);
    let before = proc_value(pid, "status", "VmRSS");
    for length in [u32::MAX, u32::MAX - 3, 1 << 31, 1 << 24, (128 << 10) + 10] {
        for id in [None, Some(4), Some(5), Some(7), Some(20), Some(250)] {
            let mut peer = Peer::open(relay.addr, &scene.payload.info_hash);
            for byte in length.to_be_bytes().into_iter().chain(id) {
                peer.send(&[byte]);
            }
            peer.wait_closed();
        }
    }
    let grown = proc_value(pid, "status", "VmRSS").saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} KiB more");
    assert_serves(relay.addr, &scene.payload);
}

/// Whether a message of this id with a payload of this many bytes is well formed.
fn fits(id: u8, payload: usize, bitfield: usize) -> bool {
    match id {
        0..=3 | 14 | 15 => payload == 0,
        4 | 13 | 17 => payload == 4,
        5 => payload == bitfield,
        6 | 8 | 16 => payload == 12,
        7 => payload > 8,
        9 => payload == 2,
        20 => payload > 0,
        21 | 23 => payload == 48,
        22 => payload >= 48 && (payload - 48).is_multiple_of(32),
        _ => true,
    }
}

#[test]
fn p8_every_id_with_every_length_up_to_64_is_taken_or_the_end() {
    let scene = Scene::new();
    let relay = scene.relay();
    let bitfield = scene.payload.pieces().div_ceil(8) as usize;
    for length in 0..=64 {
        let mut strange = Peer::open(relay.addr, &scene.payload.info_hash);
        let mut unknown = 0;
        for id in 0..=255 {
            let mut bytes = vec![0; length];
            if id == 16 && length == 12 {
                bytes = words(0, 0, BLOCK);
            } else if id == 20 && length > 0 {
                // An extension that nobody has.
                bytes[0] = 200;
            }
            let known = matches!(id, 0..=9 | 13..=17 | 20..=23);
            if !known {
                strange.send(&message(id, &bytes));
                unknown += 1;
                // Below what is a flood.
                if unknown % 150 == 0 {
                    strange.send(&message(2, b""));
                    strange.wait_for(1);
                    strange = Peer::open(relay.addr, &scene.payload.info_hash);
                }
                continue;
            }
            let mut peer = Peer::open(relay.addr, &scene.payload.info_hash);
            peer.send(&[message(id, &bytes), message(2, b"")].concat());
            let taken = peer.find(1).is_some();
            assert_eq!(taken, fits(id, length, bitfield), "id {id} with {length} bytes");
        }
        strange.send(&message(2, b""));
        strange.wait_for(1);
    }
    assert_serves(relay.addr, &scene.payload);
}

#[test]
fn p9_p10_pieces_that_do_not_exist_are_the_end() {
    let scene = Scene::new();
    let relay = scene.relay();
    let pieces = scene.payload.pieces();
    assert_eq!(pieces, 17);
    for (id, payload) in [
        (5, vec![0xff, 0xff, 0xff]),
        (5, vec![0, 0, 0x40]),
        (5, vec![0, 0]),
        (5, vec![0; 4]),
        (4, pieces.to_be_bytes().to_vec()),
        (4, u32::MAX.to_be_bytes().to_vec()),
        (16, words(pieces, 0, BLOCK)),
        (16, words(0, u32::MAX, u32::MAX)),
    ] {
        let mut peer = Peer::open(relay.addr, &scene.payload.info_hash);
        peer.send(&message(id, &payload));
        peer.wait_closed();
    }
    assert_serves(relay.addr, &scene.payload);
}

#[test]
fn p11_only_requests_inside_the_torrent_are_served_and_with_the_right_bytes() {
    let scene = Scene::sized((1 << 20) + 20_000, 512 << 10);
    let relay = scene.relay();
    let (limit, last) = (128 << 10, 20_000);
    let good = [
        (0, 0, BLOCK),
        (0, 5, 1),
        (1, 12_345, limit - 1),
        (1, 250 << 10, limit),
        (1, (512 << 10) - 1, 1),
        (2, last - 3_616, 3_616),
        (2, 0, last),
    ];
    let bad = [
        (0, 0, limit + 1),
        (0, 0, 0),
        (0, 0, u32::MAX),
        (0, u32::MAX, 1),
        (0, u32::MAX, u32::MAX),
        (0, u32::MAX - 9, 10),
        (0, (512 << 10) - 1, 2),
        (2, last - 3_616, BLOCK),
        (2, last, 1),
        (3, 0, 1),
        (u32::MAX, 0, BLOCK),
        (u32::MAX, u32::MAX, u32::MAX),
    ];
    let mut peer = Peer::served(relay.addr, &scene.payload.info_hash);
    for (piece, begin, length) in good {
        let found = peer.fetch(piece, begin, length);
        let wanted = scene.payload.block(piece, begin, length);
        assert!(found.as_deref() == Some(wanted), "{piece} {begin} {length}");
        for (piece, begin, length) in bad {
            if piece % 2 == 0 {
                assert_eq!(peer.fetch(piece, begin, length), None, "{piece} {begin} {length}");
            }
        }
    }
    // Too many of them are the end.
    peer.send(&request(0, 0, 0).repeat(101));
    peer.wait_closed();
    assert_serves(relay.addr, &scene.payload);
}

#[test]
fn p12_requests_while_choked_are_rejected_and_in_the_end_the_end() {
    let scene = Scene::new();
    let relay = scene.relay();
    let mut peer = Peer::open(relay.addr, &scene.payload.info_hash);
    for _ in 0..300 {
        assert_eq!(peer.fetch(0, 0, BLOCK), None);
    }
    peer.send(&request(0, 0, BLOCK).repeat(2_000));
    peer.wait_closed();
    assert_serves(relay.addr, &scene.payload);
}

#[test]
fn p13_p16_who_asks_without_reading_costs_no_memory_and_keeps_nobody_waiting() {
    let scene = Scene::new();
    let relay = scene.relay();
    let pid = relay.node.process.pid();
    assert_serves(relay.addr, &scene.payload);
    let before = proc_value(pid, "status", "VmRSS");
    let ask = request(0, 0, BLOCK);
    let cancel = message(8, &words(0, 0, BLOCK));
    let floods = [
        ask.repeat(100_000),
        [ask.clone(), cancel].concat().repeat(100_000),
        request(0, 0, 0).repeat(100_000),
    ];
    let attackers: Vec<Peer> = (0..60)
        .map(|n| {
            let mut peer = Peer::served(relay.addr, &scene.payload.info_hash);
            // It stops taking them, or closes: either way not all is written.
            peer.stream.set_write_timeout(Some(std::time::Duration::from_millis(20))).expect("time limit");
            peer.send(&floods[n % floods.len()]);
            peer
        })
        .collect();
    assert_serves(relay.addr, &scene.payload);
    let grown = proc_value(pid, "status", "VmRSS").saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} KiB more for {} attackers", attackers.len());
}

#[test]
fn p16_a_hundred_thousand_cancels_of_nothing_end_one_connection_and_nothing_else() {
    let scene = Scene::new();
    let relay = scene.relay();
    let mut peer = Peer::served(relay.addr, &scene.payload.info_hash);
    let cancels: Vec<u8> = (0..100_000).flat_map(|n| message(8, &words(n, n, n))).collect();
    // It may be closed before all of them are out.
    peer.send(&cancels);
    peer.wait_closed();
    assert_serves(relay.addr, &scene.payload);
}

#[test]
fn p17_payload_that_nobody_asked_for_is_the_end() {
    let scene = Scene::new();
    let before = support::torrent::sha256(&scene.source_file());
    let relay = scene.relay();
    for (index, begin) in [(0, 0), (16, 0), (17, 0), (u32::MAX, u32::MAX), (3, 77)] {
        let mut peer = Peer::open(relay.addr, &scene.payload.info_hash);
        peer.send(&piece(index, begin, &vec![0xee; BLOCK as usize]).repeat(100));
        peer.wait_closed();
    }
    assert_serves(relay.addr, &scene.payload);
    assert!(before == support::torrent::sha256(&scene.source_file()), "the file is as it was");
}

#[test]
fn p29_extension_handshakes_that_are_bombs() {
    let scene = Scene::new();
    let relay = scene.relay();
    let text = |text: String| [b"\0".to_vec(), text.into_bytes()].concat();
    let many: String = (0..3_000).map(|n| format!("5:x{n:04}i{}e", n % 300)).collect();
    let endures = [
        text("de".into()),
        text(format!("d1:v60000:{}e", "v".repeat(60_000))),
        text(format!("d1:md{many}ee")),
        text("d4:reqqi-1ee".into()),
        text("d4:reqqi9223372036854775807ee".into()),
        text("d1:pi0e4:reqqi0ee".into()),
        text("d1:pi65536e4:reqqi1ee".into()),
        text("d1:md11:ut_metadatai-5e6:ut_pexi256eee".into()),
        text("d13:metadata_sizei9223372036854775807ee".into()),
        text("d1:v3:\x1b[2e".into()),
    ];
    let ends = [
        text("l".repeat(10_000)),
        text("d1:m".repeat(1_000)),
        text("i1e".into()),
        text("d1:v9999999999:x".into()),
        text(format!("d1:v{}:{}e", 1 << 20, "v".repeat(1 << 20))),
        text("d4:reqqi99999999999999999999ee".into()),
        text("d".into()),
    ];
    for (bombs, taken) in [(&endures[..], true), (&ends[..], false)] {
        for bomb in bombs {
            let mut peer = Peer::open(relay.addr, &scene.payload.info_hash);
            peer.send(&[message(20, bomb), message(2, b"")].concat());
            let shown = String::from_utf8_lossy(&bomb[..bomb.len().min(40)]).into_owned();
            assert_eq!(peer.find(1).is_some(), taken, "{shown}");
        }
    }
    assert_serves(relay.addr, &scene.payload);
}

#[test]
fn p38_an_end_at_any_byte_leaks_nothing() {
    let scene = Scene::new();
    let relay = scene.relay();
    let pid = relay.node.process.pid();
    let base = sockets(pid);
    assert_serves(relay.addr, &scene.payload);
    let session = [
        handshake(&scene.payload.info_hash, ME),
        message(20, b"\0d4:reqqi9ee"),
        message(5, &[0x80, 0, 0]),
        message(2, b""),
        request(0, 0, BLOCK).repeat(4),
        piece(1, 0, b"unasked"),
    ]
    .concat();
    for at in 0..session.len() {
        for reset in [false, true] {
            let mut peer = Peer::connect(relay.addr);
            peer.send(&session[..at]);
            if reset { peer.reset() } else { peer.finish() }
        }
    }
    assert_serves(relay.addr, &scene.payload);
    wait_sockets(pid, base);
}

#[test]
fn u9_without_descriptors_accepting_rests_and_goes_on() {
    let scene = Scene::new();
    let limited = node::relay(&scene.file, &scene.torrent.source, scene.temp.path());
    let mut command = Command::new("prlimit");
    command.arg("--nofile=100:100").arg(limited.get_program()).args(limited.get_args());
    command.envs(limited.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut node = Node::spawn("relay", &mut command, scene.temp.path());
    let addr = node.wait_seeding();
    let crowd: Vec<Peer> = (0..200).map(|_| Peer::connect(addr)).collect();
    drop(crowd);
    assert_serves(addr, &scene.payload);
}

/// `troc get` that listens, and knows the peers in `peers`.
fn getter(scene: &Scene, dir: &str, peers: &[&FakeSeed]) -> Node {
    let mut command = node::get(&scene.file, &scene.path(dir), &scene.path(&format!("{dir}-scratch")));
    command.args(["--listen", "127.0.0.1:0"]);
    for peer in peers {
        command.args(["--peer", &peer.addr.to_string()]);
    }
    Node::spawn("get", &mut command, scene.temp.path())
}

/// Waits until a getter takes connections for its torrent: before, it is checking what is there.
fn wait_fetching(node: &mut Node) -> SocketAddr {
    let status = node.wait("the end of its check", |status| status.state() == "fetching");
    status.listen().expect("it listens")
}

fn assert_nothing_wrong(scene: &Scene, dir: &str) {
    let found = std::fs::read(scene.path(dir).join(&scene.torrent.name)).unwrap_or_default();
    for (at, (found, wanted)) in found.chunks(4096).zip(scene.payload.bytes.chunks(4096)).enumerate() {
        let never_written = found.iter().all(|byte| *byte == 0);
        assert!(found == wanted || never_written, "page {at} is wrong");
    }
}

#[test]
fn p20_a_liar_alone_is_dropped_and_no_byte_of_it_reaches_the_file() {
    let scene = Scene::new();
    let liar = FakeSeed::start(&scene.payload, Manner::Liar);
    let mut node = getter(&scene, "dir", &[&liar]);
    let addr = wait_fetching(&mut node);
    support::poll("the liar is dropped", || (liar.ended.load(Ordering::SeqCst) > 0).then_some(()));
    let status = node.wait("the waste to be counted", |status| status.bytes("wasted_bytes") > 0);
    assert_eq!(status.bytes("verified_bytes"), 0);
    assert_nothing_wrong(&scene, "dir");
    let mut honest = Peer::open(addr, &scene.payload.info_hash);
    seed(&mut honest, &scene.payload, Manner::Honest);
    node.expect_done();
    scene.torrent.assert_identical(&scene.path("dir"), "get");
    assert_eq!(liar.accepted.load(Ordering::SeqCst), 1, "it is not asked again");
}

#[test]
fn p21_p22_a_liar_among_the_honest_is_found_and_the_honest_stay() {
    let scene = Scene::sized(4 << 20, 1 << 20);
    let liar = FakeSeed::start(&scene.payload, Manner::Liar);
    let honest = [(); 2].map(|()| FakeSeed::start(&scene.payload, Manner::Honest));
    let mut node = getter(&scene, "dir", &[&liar, &honest[0], &honest[1]]);
    node.expect_done();
    scene.torrent.assert_identical(&scene.path("dir"), "get");
    for honest in &honest {
        assert_eq!(honest.accepted.load(Ordering::SeqCst), 1, "an honest peer was sent away");
    }
}

#[test]
fn p18_p29_odd_but_honest_seeds_are_fetched_from() {
    let scene = Scene::sized((512 << 10) + 7, PIECE);
    for manner in [Manner::Twice, Manner::QueuesOne, Manner::Honest] {
        let odd = FakeSeed::start(&scene.payload, manner);
        let dir = format!("{manner:?}");
        getter(&scene, &dir, &[&odd]).expect_done();
        scene.torrent.assert_identical(&scene.path(&dir), &dir);
    }
}

#[test]
fn p38_seeds_that_break_off_anywhere_cost_nothing_but_time() {
    // More than all of them together give.
    let scene = Scene::sized(8 << 20, PIECE);
    let mut node = getter(&scene, "dir", &[]);
    let addr = wait_fetching(&mut node);
    let pid = node.process.pid();
    let base = sockets(pid);
    let limits = (0..30).chain((1..40).map(|n| n * 4_999)).chain([16_396, 16_397, 16_398]);
    for limit in limits {
        let mut peer = Peer::open(addr, &scene.payload.info_hash);
        seed(&mut peer, &scene.payload, Manner::ResetsAfter(limit));
        if limit % 2 == 0 { peer.reset() } else { peer.finish() }
    }
    wait_sockets(pid, base);
    assert_nothing_wrong(&scene, "dir");
    seed(&mut Peer::open(addr, &scene.payload.info_hash), &scene.payload, Manner::Honest);
    node.expect_done();
    scene.torrent.assert_identical(&scene.path("dir"), "get");
}

#[test]
fn p20_many_liars_one_after_the_other_do_not_stop_a_fetch() {
    let scene = Scene::new();
    let mut node = getter(&scene, "dir", &[]);
    let addr = wait_fetching(&mut node);
    for _ in 0..20 {
        let mut peer = Peer::open(addr, &scene.payload.info_hash);
        seed(&mut peer, &scene.payload, Manner::Liar);
        peer.wait_closed();
    }
    assert_nothing_wrong(&scene, "dir");
    seed(&mut Peer::open(addr, &scene.payload.info_hash), &scene.payload, Manner::Honest);
    node.expect_done();
    scene.torrent.assert_identical(&scene.path("dir"), "get");
}

#[test]
fn s6_bytes_that_change_under_a_seed_are_never_served_and_are_fetched_again_where_they_can_be() {
    use std::os::unix::fs::FileExt;
    let scene = Scene::sized(4 << 20, 1 << 20);
    let copy = Scene::sized(4 << 20, 1 << 20);
    let healthy = scene.relay();
    let mut command = node::relay(&copy.file, &copy.torrent.source, copy.temp.path());
    command.args(["--peer", &healthy.addr.to_string()]);
    let mut node = Node::spawn("relay", &mut command, copy.temp.path());
    let addr = node.wait_seeding();

    let mut peer = Peer::served(addr, &copy.payload.info_hash);
    let right = |found: &Option<Vec<u8>>, payload: &Payload, piece, begin| {
        found.as_deref() == Some(payload.block(piece, begin, BLOCK))
    };
    // Piece 1: its first chunk is in memory when its second is damaged on disk.
    assert!(right(&peer.fetch(1, 0, BLOCK), &copy.payload, 1, 0));
    let file = std::fs::OpenOptions::new().write(true).open(copy.source_file()).expect("payload");
    let at = (1 << 20) + (300 << 10);
    file.write_all_at(&[!copy.payload.bytes[at]], at as u64).expect("damage");
    let first = peer.fetch(1, 304 << 10, BLOCK);
    assert!(first.is_none() || right(&first, &copy.payload, 1, 304 << 10), "wrong bytes were served");
    // All of it comes right again, from the other relay.
    let mut waiting = Peer::served(addr, &copy.payload.info_hash);
    support::poll("the piece is mended", || {
        let found = waiting.fetch(1, 288 << 10, BLOCK);
        assert!(found.is_none() || right(&found, &copy.payload, 1, 288 << 10), "wrong bytes were served");
        found.map(drop)
    });
    assert_serves(addr, &copy.payload);
    support::poll("the file is mended", || {
        (support::torrent::sha256(&copy.source_file()) == support::torrent::sha256(&scene.source_file()))
            .then_some(())
    });
}
