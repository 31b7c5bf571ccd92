//! Peers that are slow, silent, or neither read nor write (P1, P2, P35, P36, P37, P42).

use super::*;
use crate::base::limits::{
    DRAIN_WINDOW, HANDSHAKE_TIMEOUT, IDLE_TIMEOUT, KEEPALIVE_INTERVAL, SEND_STUCK_TIMEOUT, SNUB_TIMEOUT,
    SNUB_TIMEOUT_MAX,
};

/// One look at each connection before `span` has passed.
const fn nearly(span: Span) -> Span {
    Span(span.0 - Span::from_secs(1).0)
}

#[test]
fn p1_p2_a_handshake_has_one_deadline_whatever_trickles_in() {
    let mut rig = Rig::new(3, true);
    let conn = rig.accept("127.0.0.1:1000");
    rig.pass(Span(HANDSHAKE_TIMEOUT.0 - 1));
    assert!(!rig.was_closed(conn), "before the deadline");
    rig.pass(Span::from_secs(1));
    assert!(rig.was_closed(conn), "at the first look behind it");
    assert_eq!(rig.engine.peer_count(), 0);
    assert_eq!(rig.engine.poll_timeout(), None, "nobody is left to look after");
}

#[test]
fn p42_a_peer_is_silent_for_so_long_and_no_longer() {
    let mut rig = Rig::new(3, true);
    let (silent, alive) = (rig.peer(true), rig.peer(true));
    rig.pass(nearly(IDLE_TIMEOUT));
    rig.say(alive, Message::KeepAlive).unwrap();
    assert!(rig.is_open(silent));
    rig.pass(Span::from_secs(1));
    assert!(!rig.is_open(silent) && rig.is_open(alive));
}

#[test]
fn we_say_that_we_are_there() {
    let mut rig = Rig::new(3, true);
    let conn = rig.peer(true);
    rig.pass(nearly(KEEPALIVE_INTERVAL));
    assert_eq!(rig.read(conn).0, b"");
    rig.pass(Span::from_secs(1));
    assert_eq!(frames(&rig.read(conn).0), [Message::KeepAlive]);
}

#[test]
fn p35_a_peer_that_writes_but_never_reads_is_dropped() {
    let mut rig = Rig::new(3, true);
    let conn = rig.leech(true);
    rig.say(conn, Message::Request(block(0, 0, 16 << 10))).unwrap();
    rig.perform();
    rig.begin_send(conn);
    let tenth = Span(SEND_STUCK_TIMEOUT.0 / 10);
    for _ in 0..9 {
        rig.pass(tenth);
        rig.say(conn, Message::KeepAlive).unwrap();
    }
    assert!(rig.is_open(conn));
    rig.pass(tenth);
    assert!(!rig.is_open(conn));
    assert_eq!(rig.shared.chunks.view(0).pins, 0, "its block is unpinned");
}

#[test]
fn a_keep_alive_that_is_just_being_sent_is_not_stuck() {
    let mut rig = Rig::new(3, true);
    let conn = rig.peer(true);
    rig.pass(KEEPALIVE_INTERVAL);
    let (mut outbox, mut segments) = (Vec::new(), Vec::new());
    assert!(rig.engine.take_send(conn, &mut outbox, &mut segments, rig.now));
    rig.pass(Span::from_secs(2));
    assert!(rig.is_open(conn));
}

/// A peer that let us ask once, has the first piece since then, and chokes us.
fn choking_giver(rig: &mut Rig) -> ConnId {
    let conn = rig.peer(true);
    for message in [Message::HaveNone, Message::Unchoke, Message::Choke, Message::Have(0)] {
        rig.say(conn, message).unwrap();
    }
    conn
}

#[test]
fn p36_p37_who_promises_and_does_not_deliver_is_asked_no_more_and_others_are() {
    let mut rig = Rig::new(1, false);
    let liar = rig.seed();
    let first = rig.asked(liar);
    assert_eq!(first.len(), 7, "the whole torrent: {first:?}");
    let honest = choking_giver(&mut rig);
    rig.pass(nearly(SNUB_TIMEOUT));
    assert!(!rig.engine.peer(liar).unwrap().is_snubbed());
    rig.pass(Span::from_secs(1));
    assert!(rig.engine.peer(liar).unwrap().is_snubbed());
    rig.say(honest, Message::Unchoke).unwrap();
    let mut second = rig.asked(honest);
    second.sort_unstable();
    assert_eq!(second, first, "its reservation is released");
}

#[test]
fn p36_who_alone_has_what_it_was_asked_for_is_waited_for_until_somebody_else_has_it() {
    // Who never lets us ask is nobody.
    for (others_come, timeout) in [(false, SNUB_TIMEOUT_MAX), (true, SNUB_TIMEOUT)] {
        let mut rig = Rig::new(1, false);
        let only = rig.seed();
        assert_eq!(rig.asked(only).len(), 7);
        let rider = rig.peer(true);
        rig.say(rider, Message::HaveAll).unwrap();
        if others_come {
            choking_giver(&mut rig);
        }
        rig.pass(nearly(timeout));
        assert!(!rig.engine.peer(only).unwrap().is_snubbed(), "others come: {others_come}");
        rig.pass(Span::from_secs(1));
        assert!(rig.engine.peer(only).unwrap().is_snubbed(), "others come: {others_come}");
    }
}

#[test]
fn p36_who_chokes_us_and_allows_us_a_piece_is_not_waited_for_while_somebody_gives_it() {
    let mut rig = Rig::new(1, false);
    let liar = rig.peer(true);
    rig.say(liar, Message::HaveAll).unwrap();
    rig.say(liar, Message::AllowedFast(0)).unwrap();
    assert!(!rig.asked(liar).is_empty());
    choking_giver(&mut rig);
    rig.pass(nearly(SNUB_TIMEOUT));
    assert!(!rig.engine.peer(liar).unwrap().is_snubbed());
    rig.pass(Span::from_secs(1));
    assert!(rig.engine.peer(liar).unwrap().is_snubbed());
}

#[test]
fn p35_who_hardly_reads_is_parted_from_only_while_others_wait_for_slots() {
    for pressed in [false, true] {
        let mut rig = Rig::new(3, true);
        let conn = rig.leech(true);
        rig.say(conn, Message::Request(block(0, 0, 16 << 10))).unwrap();
        rig.perform();
        rig.begin_send(conn);
        while rig.engine.allocate(TorrentId(0), 8).is_some() {}
        for second in 1..=120 {
            // Enough for the deadlines of a stuck send, and far too little.
            if second % 10 == 0 && rig.is_open(conn) {
                rig.say(conn, Message::KeepAlive).unwrap();
                rig.engine.handle_sent(conn, Ok(100), rig.now);
                rig.begin_send(conn);
            }
            assert!(!pressed || !rig.is_open(conn) || rig.engine.allocate(TorrentId(0), 8).is_none());
            rig.pass(Span::from_secs(1));
            let late = Span::from_secs(second) >= DRAIN_WINDOW;
            assert_eq!(rig.is_open(conn), !(pressed && late), "pressed {pressed}, second {second}");
        }
    }
}

#[test]
fn p36_a_peer_with_long_pauses_is_waited_for_four_times_as_long_but_not_for_good() {
    let four_times = |pause: Span| Span(4 * pause.0);
    for (pauses, timeout) in [
        (vec![Span::from_secs(4)], SNUB_TIMEOUT),
        (vec![Span::from_secs(8)], four_times(Span::from_secs(8))),
        (vec![Span::from_secs(8), Span::from_secs(30)], SNUB_TIMEOUT_MAX),
    ] {
        let mut rig = Rig::new(1, false);
        let slow = rig.seed();
        let asked = rig.asked(slow);
        choking_giver(&mut rig);
        for (&pause, &block) in pauses.iter().zip(&asked) {
            rig.pass(pause);
            let Ok(Landing::Into(place)) = rig.engine.handle_piece_header(slow, block) else { panic!() };
            rig.engine.handle_block(slow, place.chunk, place.index, rig.now);
        }
        let begun = rig.now;
        while !rig.engine.peer(slow).unwrap().is_snubbed() {
            assert!(rig.now.since(begun) <= timeout, "{pauses:?}");
            rig.pass(Span::from_secs(1));
        }
        assert!(rig.now.since(begun) >= timeout, "{pauses:?}: {:?}", rig.now.since(begun));
    }
}
