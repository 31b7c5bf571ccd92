//! Floods of connections and of messages that say nothing (P1, P3 to P6, P25, P41).

use super::session::PeerMisbehaved as Bad;
use super::*;
use crate::base::limits::{
    BANS_MAX, CONNECTIONS_PER_PUBLIC_ADDRESS_MAX, HALF_OPEN_MAX, HANDSHAKE_TIMEOUT, HAVE_FRAMES_WAITING_MAX,
    IDLE_MESSAGES_MAX, REQUEST_FRAMES_WAITING_MAX, REQUESTS_QUEUED_MAX,
};

fn stranger(n: u32) -> String {
    format!("8.{}.{}.{}:6881", n >> 16, n >> 8 & 255, n & 255)
}

#[test]
fn p3_strangers_that_say_nothing_give_way_at_the_limit_and_local_peers_do_not() {
    let mut rig = Rig::new(3, true);
    let local: Vec<_> = (0..100).map(|n| rig.accept(&format!("10.0.0.1:{}", 1000 + n))).collect();
    // Four groups with as many each.
    let conns: Vec<_> = (0..HALF_OPEN_MAX).map(|n| rig.accept(&stranger(n))).collect();
    rig.perform();
    assert!(conns.iter().all(|&conn| !rig.was_closed(conn)));
    let newcomer = rig.accept(&stranger(HALF_OPEN_MAX));
    rig.perform();
    assert!(rig.was_closed(conns[0]), "the oldest");
    assert_eq!(rig.shake(newcomer, true), Admission::Here);
    assert_eq!(rig.shake(conns[1], true), Admission::Here);
    let late: Vec<_> = (1..=3).map(|n| rig.accept(&stranger(HALF_OPEN_MAX + n))).collect();
    rig.perform();
    let closed = |conns: &[ConnId]| conns.iter().filter(|&&conn| rig.was_closed(conn)).count();
    assert_eq!((closed(&conns), closed(&late), closed(&local)), (2, 0, 0), "two shook hands");
    assert!(rig.is_open(newcomer) && rig.is_open(conns[1]));
    rig.pass(HANDSHAKE_TIMEOUT);
    rig.pass(Span::from_secs(1));
    assert_eq!(rig.engine.peer_count(), 2, "who says nothing goes");
}

#[test]
fn p5_connections_of_one_stranger_stop_at_the_limit_and_counts_go_back() {
    let mut rig = Rig::new(3, true);
    let mut open = Vec::new();
    for n in 0..CONNECTIONS_PER_PUBLIC_ADDRESS_MAX {
        let conn = rig.accept(&format!("8.8.8.8:{}", 1000 + n));
        assert_eq!(rig.shake(conn, true), Admission::Here);
        open.push(conn);
    }
    let over = rig.accept("[::ffff:8.8.8.8]:7");
    rig.perform();
    assert!(rig.was_closed(over), "the same address, spelt otherwise");
    for conn in open {
        rig.engine.handle_gone(conn);
    }
    rig.perform();
    assert!(rig.engine.strangers.is_empty() && rig.engine.peer_count() == 0);
}

#[test]
fn p4_p41_strange_torrents_ourselves_and_the_nameless_get_no_answer() {
    let nobody = PeerId([0; 20]);
    for (info_hash, name) in [(InfoHash([8; 20]), THEIRS), (HASH, OURS), (HASH, nobody)] {
        let handshake = Handshake::new(info_hash, name);
        let mut rig = Rig::new(3, true);
        let conn = rig.accept("127.0.0.1:1000");
        assert_eq!(rig.engine.handle_handshake(conn, &handshake, rig.now), Admission::Refused);
        assert_eq!(rig.read(conn), (Vec::new(), 0));
        assert!(rig.was_closed(conn));
    }
}

#[test]
fn p6_p25_messages_that_say_nothing_stop_at_the_limit_of_a_second() {
    type Flood = (&'static str, fn(u32) -> Message<'static>, u32);
    let floods: [Flood; 10] = [
        ("keep-alive", |_| Message::KeepAlive, 1),
        ("unknown", |_| Message::Unknown { id: 99 }, 1),
        ("suggest", Message::Suggest, 1),
        ("not interested", |_| Message::NotInterested, 1),
        ("extension handshake", |_| Message::Extended { id: 0, payload: b"de" }, 1),
        ("unchoke again", |_| Message::Unchoke, 1),
        ("reject of what nobody asked for", |_| Message::Reject(block(0, 0, 16 << 10)), 1),
        ("cancel of what was never asked for", |_| Message::Cancel(block(0, 0, 16 << 10)), 1),
        ("choke, unchoke", |n| if n % 2 == 0 { Message::Choke } else { Message::Unchoke }, 2),
        ("interest and none", |n| if n % 2 == 0 { Message::Interested } else { Message::NotInterested }, 2),
    ];
    for (name, flood, each) in floods {
        let mut rig = Rig::new(3, false);
        let conn = rig.peer(false);
        rig.say(conn, Message::Bitfield(&[0b1110_0000])).unwrap();
        // A second's worth, twice: the next second forgives.
        for _ in 0..2 {
            for n in 0..IDLE_MESSAGES_MAX * each {
                assert_eq!(rig.say(conn, flood(n)), Ok(()), "{name} {n}");
            }
            rig.pass(Span::from_secs(1));
        }
        let flooded = (0..=IDLE_MESSAGES_MAX * each + 1).try_for_each(|n| rig.say(conn, flood(n)));
        assert_eq!(flooded, Err(Bad::IdleFlood), "{name}");
        assert!(!rig.is_open(conn));
    }
}

#[test]
fn p25_a_peer_that_reads_nothing_is_asked_for_nothing_more() {
    for (waiting, asked) in [(-1, true), (0, true), (1, false)] {
        let mut rig = Rig::new(3, false);
        let conn = rig.peer(true);
        rig.say(conn, Message::HaveAll).unwrap();
        let frames = &mut rig.engine.peers.get_mut(conn).unwrap().out.frames;
        frames.resize(REQUEST_FRAMES_WAITING_MAX.saturating_add_signed(waiting), 0);
        rig.say(conn, Message::Unchoke).unwrap();
        assert_eq!(!rig.engine.peer(conn).unwrap().asked.is_empty(), asked, "{waiting}");
    }
}

#[test]
fn p25_rejects_and_cancels_that_crossed_their_block_are_no_flood_and_so_many_of_them() {
    let mut rig = Rig::new(3, true);
    let conn = rig.leech(true);
    // More than may be under way: no more is forgiven for it.
    for _ in 0..2 {
        for n in 0..REQUESTS_QUEUED_MAX as u32 {
            rig.say(conn, Message::Request(block(0, (n % 64) << 14, 16 << 10))).unwrap();
        }
        assert_eq!(rig.read(conn).1, REQUESTS_QUEUED_MAX as u32);
    }
    let late = Message::Cancel(block(0, 0, 16 << 10));
    for n in 0..REQUESTS_QUEUED_MAX as u32 + IDLE_MESSAGES_MAX {
        assert_eq!(rig.say(conn, late), Ok(()), "{n}");
    }
    assert_eq!(rig.say(conn, late), Err(Bad::IdleFlood));

    let mut rig = Rig::new(3, false);
    let conn = rig.seed();
    let asked = rig.asked(conn);
    rig.engine.relieve(conn, rig.now);
    for n in 0..asked.len() as u32 + IDLE_MESSAGES_MAX {
        assert_eq!(rig.say(conn, Message::Reject(asked[0])), Ok(()), "{n}");
    }
    assert_eq!(rig.say(conn, Message::Reject(asked[0])), Err(Bad::IdleFlood));
}

#[test]
fn p35_who_reads_nothing_is_told_of_so_many_pieces_and_of_the_others_once_it_reads() {
    for (waiting, told) in [(-1, true), (0, true), (1, false)] {
        let mut rig = Rig::new(2, false);
        let conn = rig.leech(true);
        let frames = &mut rig.engine.peers.get_mut(conn).unwrap().out.frames;
        frames.resize(HAVE_FRAMES_WAITING_MAX.saturating_add_signed(waiting), 0);
        let before = frames.len();
        rig.engine.note_have(TorrentId(0), 0);
        rig.perform();
        assert_eq!(rig.engine.peer(conn).unwrap().out.frames.len() > before, told, "{waiting}");
    }
    let mut rig = Rig::new(10_000, false);
    let conn = rig.leech(true);
    rig.engine.note_have(TorrentId(0), 0);
    rig.perform();
    let stuck: u32 = rig.begin_send(conn).iter().map(Segment::len).sum();
    for piece in 1..10_000 {
        rig.engine.note_have(TorrentId(0), piece);
        rig.perform();
        let waiting_bytes = rig.engine.peer(conn).unwrap().out.frames.len();
        assert!(waiting_bytes < HAVE_FRAMES_WAITING_MAX + 10, "{waiting_bytes} after {piece}");
    }
    rig.engine.handle_sent(conn, Ok(stuck), rig.now);
    let (bytes, _) = rig.read(conn);
    assert_eq!(frames(&bytes), (1..10_000).map(Message::Have).collect::<Vec<_>>());
}

#[test]
fn p20_the_newest_bans_are_kept_and_an_ipv6_stranger_is_banned_with_its_network() {
    let mut rig = Rig::new(3, true);
    let key = |n: u32| u64::from(n) * 2 + 1;
    for n in 0..BANS_MAX as u32 + 1 {
        rig.engine.handle_note(Note::Ban { key: key(n) }, rig.now);
        rig.engine.handle_note(Note::Ban { key: key(n) }, rig.now);
        assert_eq!(rig.engine.bans.len(), BANS_MAX.min(n as usize + 1));
    }
    assert!(!rig.engine.bans.contains(&key(0)) && rig.engine.bans.contains(&key(1)));
    let of = |address: &str| rig.engine.peer_key(address.parse().unwrap());
    assert_eq!(of("[2600::1]:1"), of("[2600::ffff]:2"));
    assert_ne!(of("[2600::1]:1"), of("[2600:0:0:1::1]:1"));
    assert_ne!(of("[fd00::1]:1"), of("[fd00::2]:1"), "the operator's own");
}

#[test]
fn a_connection_handed_over_late_is_closed_by_a_core_that_stops_or_knows_the_peer_as_a_liar() {
    let address = "127.0.0.1:1000".parse().unwrap();
    let conn = ConnId { index: 0, generation: 0 };
    let handshake = Handshake::new(HASH, THEIRS);
    for stop in [true, false] {
        let mut rig = Rig::new(3, true);
        if stop {
            rig.engine.handle_stop();
        } else {
            let key = rig.engine.peer_key(address);
            rig.engine.handle_note(Note::Ban { key }, rig.now);
        }
        // As the core that hands over counts it.
        rig.shared.stats[0].peers.fetch_add(1, crate::shared::sync::Ordering::Relaxed);
        let admission = rig.engine.handle_handover(conn, address, &handshake, rig.now);
        assert_eq!(admission, Admission::Refused);
        rig.perform();
        assert!(rig.was_closed(conn) && rig.engine.peer_count() == 0);
        assert_eq!(rig.shared.stats[0].peers.load(crate::shared::sync::Ordering::Relaxed), 0);
    }
}
