//! Requests out of bounds, in vain and without end (P9 to P14, P16, P17, P28, P29).

use super::session::PeerMisbehaved as Bad;
use super::*;
use crate::base::limits::{
    APPETITE_BLOCKS_MIN, APPETITE_FREE_SECS, APPETITE_SEEDS_FEW, ASK_COST_BYTES, ASK_GRANT_BYTES,
    COLD_READ_BYTES_PER_SEC, COLD_READ_GRANT_BYTES, REJECTS_WAITING_MAX, REQUEST_BYTES_MAX, REQUESTS_OUT_MIN,
    REQUESTS_QUEUED_MAX, STRIKES_MAX, UNSOLICITED_BYTES_MAX, VAIN_REQUESTS_MAX,
};

const BLOCK: u32 = 16 << 10;

fn request(piece: u32, begin: u32, length: u32) -> Message<'static> {
    Message::Request(block(piece, begin, length))
}

#[test]
fn p9_p28_pieces_are_announced_once_and_first() {
    use Message::{Bitfield as Bits, Extended, Have, HaveAll, HaveNone, Interested};
    const GREETING: Message<'static> = Extended { id: 0, payload: b"de" };
    let cases: &[(&[Message<'_>], bool)] = &[
        (&[Bits(&[0b1110_0000])], true),
        (&[GREETING, Bits(&[0b1110_0000])], true),
        (&[Message::KeepAlive, HaveAll], true),
        (&[HaveNone, Have(0), Have(2)], true),
        (&[Bits(&[0b1111_0000])], false),
        (&[Bits(&[])], false),
        (&[Bits(&[0, 0])], false),
        (&[Bits(&[0]), Bits(&[0])], true),
        (&[Bits(&[0x80]), HaveAll], false),
        (&[HaveAll, Bits(&[0x80])], true),
        (&[HaveAll, HaveNone], false),
        (&[HaveAll, HaveAll], false),
        (&[HaveNone, HaveNone], false),
        (&[HaveNone, HaveAll], false),
        (&[Interested, Bits(&[0x80])], true),
        (&[Interested, Bits(&[0x10])], false),
        (&[Have(1), HaveAll], false),
    ];
    for complete in [false, true] {
        for (messages, good) in cases {
            let mut rig = Rig::new(3, complete);
            let conn = rig.peer(true);
            let all = messages.iter().try_for_each(|&message| rig.say(conn, message));
            let want = if *good { Ok(()) } else { Err(Bad::BadBitfield) };
            assert_eq!(all, want, "{messages:?}");
            assert_eq!(rig.is_open(conn), *good);
            rig.perform();
            let gone = if *good { 1 } else { 0 };
            assert_eq!(rig.shared.stats[0].peers.load(crate::shared::sync::Ordering::Relaxed), gone);
            if *good {
                rig.say(conn, Message::Unchoke).unwrap();
            }
            rig.engine.check_invariants();
            rig.engine.handle_gone(conn);
            rig.perform();
            let left: u32 = (0..3).map(|piece| rig.shared.givers.of(piece)).sum();
            assert_eq!(left, 0, "{messages:?}: what it said is forgotten with it");
        }
    }
}

#[test]
fn who_never_let_us_ask_makes_no_piece_less_rare() {
    let mut rig = Rig::new(3, false);
    let conn = rig.peer(true);
    rig.say(conn, Message::Have(0)).unwrap();
    assert_eq!(rig.shared.givers.of(0), 0);
    // Once is enough: it may be our turn again.
    for message in [Message::Unchoke, Message::Choke, Message::Unchoke, Message::Have(1)] {
        rig.say(conn, message).unwrap();
        assert_eq!(rig.shared.givers.of(0), 1);
        rig.engine.check_invariants();
    }
    assert_eq!(rig.shared.givers.of(1), 1);
    rig.engine.handle_gone(conn);
    assert_eq!(rig.shared.givers.of(0), 0);
}

#[test]
fn p10_a_have_beyond_the_last_piece_is_the_end() {
    for (piece, good) in [(0, true), (2, true), (3, false), (4, false), (u32::MAX, false)] {
        let mut rig = Rig::new(3, true);
        let conn = rig.peer(true);
        assert_eq!(rig.say(conn, Message::Have(piece)).is_ok(), good, "{piece}");
    }
}

#[test]
fn p11_only_requests_inside_the_torrent_and_the_limit_are_taken() {
    let last = 100_000;
    let cases = [
        (0, 0, BLOCK, true),
        (0, 0, 1, true),
        (0, 1, REQUEST_BYTES_MAX - 1, true),
        (0, 1, REQUEST_BYTES_MAX, true),
        (0, 1, REQUEST_BYTES_MAX + 1, false),
        (0, (1 << 20) - BLOCK, BLOCK, true),
        (0, (1 << 20) - BLOCK + 1, BLOCK, false),
        (2, last - last % BLOCK, last % BLOCK, true),
        (2, last - last % BLOCK, last % BLOCK + 1, false),
        (2, last, 1, false),
        (0, 0, 0, false),
        (0, u32::MAX, 1, false),
        (0, u32::MAX, u32::MAX, false),
        (0, 1, u32::MAX, false),
        (0, u32::MAX - BLOCK + 1, BLOCK, false),
        (3, 0, BLOCK, false),
        (u32::MAX, 0, BLOCK, false),
        (u32::MAX, u32::MAX, u32::MAX, false),
    ];
    for (piece, begin, length, good) in cases {
        let mut rig = Rig::new(3, true);
        let conn = rig.leech(true);
        rig.say(conn, request(piece, begin, length)).unwrap();
        let (bytes, blocks) = rig.read(conn);
        let rejected = frames_or_none(&bytes).contains(&Message::Reject(block(piece, begin, length)));
        assert_eq!((rejected, blocks > 0), (!good, good), "{piece} {begin} {length}");
        assert_eq!(rig.engine.peer(conn).unwrap().strikes, u32::from(!good));
    }
}

/// Frames, unless a block's own header is among them.
fn frames_or_none(bytes: &[u8]) -> Vec<Message<'_>> {
    let mut at = 0;
    let mut all = Vec::new();
    while let Ok(Some((Frame::Message(message), used))) = next_frame(&bytes[at..], 0) {
        at += used;
        all.push(message);
    }
    all
}

#[test]
fn p11_strikes_end_at_their_limit() {
    let mut rig = Rig::new(3, true);
    let conn = rig.leech(true);
    for strike in 0..STRIKES_MAX {
        assert_eq!(rig.say(conn, Message::Request(NO_BLOCK)), Ok(()), "{strike}");
        rig.read(conn);
    }
    rig.say(conn, request(0, 0, BLOCK)).unwrap();
    assert_eq!(rig.read(conn).1, 1, "at the limit it is still served");
    assert_eq!(rig.say(conn, Message::Request(NO_BLOCK)), Err(Bad::TooManyStrikes));
    assert!(!rig.is_open(conn));
}

#[test]
fn p12_vain_requests_are_rejected_and_end_at_their_limit() {
    for complete in [true, false] {
        let mut rig = Rig::new(3, complete);
        // Choked, or for pieces that we lack.
        let conn = if complete { rig.peer(true) } else { rig.leech(true) };
        for n in 0..VAIN_REQUESTS_MAX {
            assert_eq!(rig.say(conn, request(n % 2, 0, BLOCK)), Ok(()), "{n}");
            assert_eq!(frames(&rig.read(conn).0), [Message::Reject(block(n % 2, 0, BLOCK))]);
        }
        assert_eq!(rig.engine.peer(conn).unwrap().strikes, 0);
        assert_eq!(rig.say(conn, request(0, 0, BLOCK)), Err(Bad::TooManyStrikes));
    }
}

#[test]
fn p12_a_request_that_is_served_forgives_those_in_vain() {
    let mut rig = Rig::new(3, true);
    let conn = rig.peer(false);
    for _ in 0..VAIN_REQUESTS_MAX {
        rig.say(conn, request(0, 0, BLOCK)).unwrap();
    }
    assert_eq!(rig.read(conn).0, b"", "without the fast extension nothing is said");
    rig.say(conn, Message::Interested).unwrap();
    rig.say(conn, request(0, 0, BLOCK)).unwrap();
    assert_eq!(rig.engine.peer(conn).unwrap().vain_requests, 0);
}

#[test]
fn p13_the_queue_ends_at_its_limit() {
    let mut rig = Rig::new(3, true);
    let conn = rig.leech(true);
    for n in 0..REQUESTS_QUEUED_MAX as u32 {
        rig.say(conn, request(0, n % 64 * BLOCK, BLOCK)).unwrap();
    }
    let peer = |rig: &Rig| {
        let peer = rig.engine.peer(conn).unwrap();
        (peer.requests.len(), peer.strikes)
    };
    assert_eq!(peer(&rig), (REQUESTS_QUEUED_MAX, 0));
    rig.say(conn, request(0, 0, BLOCK)).unwrap();
    assert_eq!(peer(&rig), (REQUESTS_QUEUED_MAX, 1));
    assert_eq!(rig.read(conn).1 as usize, REQUESTS_QUEUED_MAX, "all that were taken are served");
}

#[test]
fn p13_p16_answers_that_nobody_reads_do_not_pile_up() {
    let mut rig = Rig::new(3, true);
    let conn = rig.leech(true);
    for n in 0..REJECTS_WAITING_MAX {
        rig.say(conn, request(0, 0, BLOCK)).unwrap();
        assert_eq!(rig.say(conn, Message::Cancel(block(0, 0, BLOCK))), Ok(()), "{n}");
    }
    rig.say(conn, request(0, 0, BLOCK)).unwrap();
    assert_eq!(rig.say(conn, Message::Cancel(block(0, 0, BLOCK))), Err(Bad::ReadsNothing));
}

#[test]
fn p16_who_reads_may_cancel_without_end() {
    let mut rig = Rig::new(3, true);
    let conn = rig.leech(true);
    for n in 0..2 * REJECTS_WAITING_MAX {
        rig.say(conn, Message::Cancel(NO_BLOCK)).unwrap();
        rig.say(conn, request(0, 0, BLOCK)).unwrap();
        rig.say(conn, Message::Cancel(block(0, 0, BLOCK))).unwrap();
        if n % 100 == 0 {
            rig.read(conn);
        }
    }
    assert!(rig.is_open(conn));
}

#[test]
fn p35_a_send_pins_its_share_of_half_the_slots_and_a_block_lies_where_it_may() {
    // Of 64 slots.
    for (peers, most) in [(8, 4), (15, 2), (16, 2), (17, 2)] {
        for wanted in [most - 1, most, most + 1] {
            let mut rig = Rig::new(200, true);
            let conns: Vec<_> = (0..peers).map(|_| rig.leech(true)).collect();
            for n in 0..wanted {
                rig.say(conns[0], request(n, 0, BLOCK)).unwrap();
            }
            // All chunks are brought first: a send waits for none.
            rig.perform();
            let pins = |rig: &Rig| rig.engine.peer(conns[0]).unwrap().out.pins.len();
            let segments = rig.begin_send(conns[0]);
            assert!(!segments.is_empty());
            assert!(pins(&rig) <= most as usize, "{peers} peers, {wanted} wanted");
            let sum = segments.iter().map(Segment::len).sum();
            rig.engine.handle_sent(conns[0], Ok(sum), rig.now);
            rig.read(conns[0]);
            // Once more, with all of them in memory.
            (0..wanted).for_each(|n| rig.say(conns[0], request(n, 0, BLOCK)).unwrap());
            rig.begin_send(conns[0]);
            assert_eq!(pins(&rig), wanted.min(most) as usize, "{peers} peers, {wanted} wanted");
        }
    }
}

#[test]
fn p16_who_asks_and_takes_back_is_heard_until_its_credit_is_used_up_and_again_once_it_has_some() {
    let most = (ASK_GRANT_BYTES / ASK_COST_BYTES) as u32;
    for (messages, heard) in [(most - 1, true), (most, false), (most + 1, false)] {
        let mut rig = Rig::new(3, true);
        let conn = rig.leech(false);
        for n in 0..messages {
            let block = block(0, 0, BLOCK);
            let message = if n % 2 == 0 { Message::Request(block) } else { Message::Cancel(block) };
            rig.say(conn, message).unwrap();
        }
        assert_eq!(rig.engine.listens(conn), heard, "{messages}");
        rig.done.clear();
        rig.pass(Span::from_secs(1));
        assert_eq!(rig.done.contains(&Action::Listen(conn)), !heard, "a second brings some");
        assert!(rig.engine.listens(conn) && rig.is_open(conn));
    }
}

#[test]
fn p16_cancels_of_nothing_are_free_while_nothing_is_queued_and_blocks_pay_for_their_requests() {
    let mut rig = Rig::new(3, true);
    let conn = rig.leech(true);
    let most = (ASK_GRANT_BYTES / ASK_COST_BYTES) as u32;
    for n in 0..3 * most {
        rig.say(conn, Message::Cancel(NO_BLOCK)).unwrap();
        rig.say(conn, request(0, n % 64 * BLOCK, BLOCK)).unwrap();
        if n % 100 == 0 {
            rig.read(conn);
        }
        assert!(rig.engine.listens(conn), "{n}");
    }
}

#[test]
fn p14_tiny_requests_read_each_chunk_once() {
    let mut rig = Rig::new(3, true);
    let conn = rig.leech(true);
    for n in 0..REQUESTS_QUEUED_MAX as u32 {
        rig.say(conn, request(0, n, 1)).unwrap();
    }
    assert_eq!(rig.read(conn).1 as usize, REQUESTS_QUEUED_MAX);
    let loaded = rig.shared.stats[0].loaded_bytes.get();
    assert_eq!(loaded, 256 << 10, "one chunk, read once");
}

#[test]
fn p17_payload_that_nobody_asked_for_is_discarded_and_ends_at_its_limit() {
    let mut rig = Rig::new(3, false);
    let conn = rig.seed();
    rig.perform();
    rig.engine.handle_message(conn, Message::Choke, rig.now).unwrap();
    // What was asked for before the choke may still come.
    let graced = {
        for block in rig.asked(conn) {
            rig.say(conn, Message::Reject(block)).unwrap();
        }
        rig.engine.peer(conn).unwrap().grace
    };
    assert_eq!(graced, 0);
    let blocks = UNSOLICITED_BYTES_MAX / u64::from(BLOCK);
    for n in 0..blocks {
        assert_eq!(rig.engine.handle_piece_header(conn, block(0, 0, BLOCK)), Ok(Landing::Discard), "{n}");
    }
    assert_eq!(rig.engine.handle_piece_header(conn, block(0, 0, 1)), Err(Bad::Unsolicited));
    let wasted = rig.shared.stats[0].wasted_bytes.get();
    assert_eq!(wasted, UNSOLICITED_BYTES_MAX + 1);
}

#[test]
fn p17_a_block_that_does_not_match_its_request_lands_nowhere() {
    let mut rig = Rig::new(3, false);
    let conn = rig.seed();
    let asked = rig.asked(conn)[0];
    for wrong in [
        block(asked.piece, asked.begin, asked.length - 1),
        block(asked.piece, asked.begin + 1, asked.length),
        block(asked.piece ^ 1, asked.begin, asked.length),
        block(u32::MAX, u32::MAX, asked.length),
        block(asked.piece, u32::MAX, asked.length),
    ] {
        assert_eq!(rig.engine.handle_piece_header(conn, wrong), Ok(Landing::Discard), "{wrong:?}");
    }
    assert!(matches!(rig.engine.handle_piece_header(conn, asked), Ok(Landing::Into(_))));
}

#[test]
fn p18_a_block_that_came_twice_changes_nothing() {
    let mut rig = Rig::new(1, false);
    let conn = rig.seed();
    let asked = rig.asked(conn)[0];
    let Ok(Landing::Into(expected)) = rig.engine.handle_piece_header(conn, asked) else { panic!() };
    rig.engine.handle_block(conn, expected.chunk, expected.index, rig.now);
    assert_eq!(rig.engine.handle_piece_header(conn, asked), Ok(Landing::Discard));
    let peer = rig.engine.peer(conn).unwrap();
    assert_eq!((peer.received_bytes, peer.unsolicited_bytes), (u64::from(BLOCK), u64::from(BLOCK)));
}

#[test]
fn p29_a_peer_that_queues_little_is_asked_for_little() {
    for (reqq, depth) in [("1", 1), ("3", 3), ("4", 4), ("5", 5), ("0", 16), ("-1", 16)] {
        let mut rig = Rig::new(3, false);
        let conn = rig.peer(true);
        let payload = format!("d4:reqqi{reqq}ee");
        rig.say(conn, Message::Extended { id: 0, payload: payload.as_bytes() }).unwrap();
        rig.say(conn, Message::HaveAll).unwrap();
        rig.say(conn, Message::Unchoke).unwrap();
        assert_eq!(rig.asked(conn).len(), depth, "reqq {reqq}");
    }
}

#[test]
fn a_peer_that_rejects_what_it_announced_is_left_alone_for_a_while() {
    let mut rig = Rig::new(3, false);
    let seed = rig.seed();
    let mut times = 0;
    for _ in 0..10 {
        let asked = rig.asked(seed);
        times += u32::from(!asked.is_empty());
        for block in asked {
            rig.say(seed, Message::Reject(block)).unwrap();
        }
        assert_eq!(rig.asked(seed), [], "not at once");
        rig.pass(Span::from_secs(10));
    }
    assert!((2..=4).contains(&times), "asked {times} times in 100 seconds");
}

#[test]
fn a_dial_that_cannot_begin_is_answered() {
    let mut rig = Rig::new(3, false);
    let address = "10.0.0.1:6881".parse().unwrap();
    rig.engine.handle_dial_refused(address, TorrentId(0));
    rig.perform();
    let why = Farewell::DialFailed;
    let report = Report::Disconnected { torrent: TorrentId(0), conn: None, address, why };
    assert!(rig.done.contains(&Action::Report(report)));
}

#[test]
fn p15_who_jumps_about_on_disk_is_read_for_within_its_budget_and_others_are_unharmed() {
    let mut rig = Rig::new(200, true);
    let loaded = |rig: &Rig| rig.shared.stats[0].loaded_bytes.get();
    let chunk = |n: u32| (n / 4, n % 4 * (256 << 10));
    let storm = rig.leech(true);
    for (piece, begin) in (0..REQUESTS_QUEUED_MAX as u32).map(chunk) {
        rig.say(storm, Message::Request(block(piece, begin, 1))).unwrap();
    }
    let granted = COLD_READ_GRANT_BYTES / (256 << 10);
    assert_eq!(u64::from(rig.read(storm).1), granted, "a byte for each chunk that it may have read");
    assert_eq!(loaded(&rig), COLD_READ_GRANT_BYTES);

    // Who reads from end to end is served at once, however much it is.
    let honest = rig.leech(true);
    let (mut asked, mut got) = (0, 0);
    for (piece, begin) in (600..760).map(chunk) {
        for n in 0..16 {
            rig.say(honest, Message::Request(block(piece, begin + n * BLOCK, BLOCK))).unwrap();
            asked += 1;
        }
        got += rig.read(honest).1;
    }
    assert_eq!(got, asked, "{} MiB", asked / 64);

    for second in 1..=3 {
        let before = loaded(&rig);
        rig.pass(Span::from_secs(1));
        let blocks = u64::from(rig.read(storm).1);
        assert_eq!(blocks, COLD_READ_BYTES_PER_SEC / (256 << 10), "second {second}");
        assert_eq!(loaded(&rig) - before, COLD_READ_BYTES_PER_SEC);
    }
}

/// A peer gives the block that it was asked for first.
fn give_first(rig: &mut Rig, conn: ConnId) -> Option<()> {
    let first = rig.engine.peer(conn).unwrap().asked.front().copied()?;
    let block = rig.shared.meta.geometry.block(first.chunk, first.block);
    let Ok(Landing::Into(place)) = rig.engine.handle_piece_header(conn, block) else { panic!() };
    rig.engine.handle_block(conn, place.chunk, place.index, rig.now);
    Some(())
}

#[test]
fn once_it_is_known_how_fast_blocks_come_all_peers_together_are_asked_for_so_much_or_more_if_none_comes() {
    let mut rig = Rig::new(40, false);
    let slow = rig.seed();
    for _ in 0..=APPETITE_FREE_SECS {
        give_first(&mut rig, slow).unwrap();
        rig.pass(Span::from_secs(1));
    }
    let seeds = [(); 8].map(|()| rig.seed());
    let asked = |rig: &Rig| {
        let peers = seeds.iter().chain([&slow]);
        peers.map(|&seed| rig.engine.peer(seed).unwrap().asked.len()).sum::<usize>()
    };
    rig.perform();
    let each = |rig: &Rig| seeds.iter().all(|&seed| !rig.engine.peer(seed).unwrap().asked.is_empty());
    assert!(each(&rig), "nobody is known to be slow: one block each");
    let most = APPETITE_BLOCKS_MIN + seeds.len() + APPETITE_SEEDS_FEW as usize * (REQUESTS_OUT_MIN - 1);
    assert!((APPETITE_BLOCKS_MIN..=most).contains(&asked(&rig)), "{}", asked(&rig));
    rig.pass(Span::from_secs(4));
    assert!(asked(&rig) > most, "who is silent keeps nobody else from being asked");
    rig.engine.check_invariants();
}

#[test]
fn few_seeds_are_asked_for_some_blocks_whatever_is_outstanding_and_many_for_one() {
    for count in [APPETITE_SEEDS_FEW - 1, APPETITE_SEEDS_FEW, APPETITE_SEEDS_FEW + 1] {
        let mut rig = Rig::new(40, false);
        let first = rig.seed();
        for _ in 0..=APPETITE_FREE_SECS {
            give_first(&mut rig, first).unwrap();
            rig.pass(Span::from_secs(1));
        }
        let others: Vec<ConnId> = (1..count).map(|_| rig.seed()).collect();
        rig.perform();
        let all: usize = others.iter().map(|&seed| rig.engine.peer(seed).unwrap().asked.len()).sum();
        assert!(all <= APPETITE_BLOCKS_MIN + others.len(), "{all} of seeds that gave nothing");
        others.iter().for_each(|&seed| give_first(&mut rig, seed).unwrap());
        rig.perform();
        let asked = |&seed: &ConnId| rig.engine.peer(seed).unwrap().asked.len();
        let (least, last) = (others.iter().map(asked).min().unwrap(), asked(others.last().unwrap()));
        if count <= APPETITE_SEEDS_FEW {
            assert!(least >= REQUESTS_OUT_MIN, "{count}: {least}");
        } else {
            assert_eq!(last, 1, "{count}");
        }
        rig.engine.check_invariants();
    }
}

#[test]
fn p36_a_few_that_give_a_block_a_second_keep_no_fast_peer_from_being_asked() {
    let mut rig = Rig::new(40, false);
    let slow = [(); 4].map(|()| rig.seed());
    for second in 0..8 {
        rig.pass(Span::from_secs(1));
        give_first(&mut rig, slow[second % 4]).unwrap();
    }
    // It answers within a hundredth of a second: what may be outstanding follows.
    let fast = rig.seed();
    let mut given = 0;
    for _ in 0..200 {
        rig.pass(Span::from_ms(10));
        given += (0..64).map_while(|_| give_first(&mut rig, fast)).count();
    }
    assert!(given > 200, "{given} blocks in two seconds");
    rig.engine.check_invariants();
}
