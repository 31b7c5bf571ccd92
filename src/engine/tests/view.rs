//! What is shown of connections, in parts.

use super::*;
use crate::base::limits::VIEW_PLACES_PER_TURN;
use crate::base::units::BLOCK_BYTES;
use crate::engine::scheduler::class::Class;
use crate::engine::view::PeerView;

/// All connections, the size of each part, and how many parts there were.
fn view_all(engine: &Engine) -> (Vec<PeerView>, Vec<usize>) {
    let (mut all, mut sizes, mut room) = (Vec::new(), Vec::new(), Vec::with_capacity(VIEW_PLACES_PER_TURN));
    let mut from = Some(0);
    while let Some(at) = from {
        from = engine.view_peers(at, &mut room);
        assert_eq!(room.capacity(), VIEW_PLACES_PER_TURN, "a worker allocates nothing for it");
        sizes.push(room.len());
        all.extend(room.iter().copied());
    }
    (all, sizes)
}

#[test]
fn no_part_shows_more_than_the_limit_and_together_they_show_everybody_once() {
    let limit = VIEW_PLACES_PER_TURN;
    for (count, parts) in [
        (0, vec![0]),
        (limit - 1, vec![limit - 1]),
        (limit, vec![limit]),
        (limit + 1, vec![limit, 1]),
        (3 * limit, vec![limit; 3]),
    ] {
        let mut rig = Rig::new(1, true);
        for port in 10_000..10_000 + count {
            rig.accept(&format!("127.0.0.1:{port}"));
        }
        let (all, sizes) = view_all(&rig.engine);
        assert_eq!(sizes, parts, "{count} connections");
        let addresses: std::collections::HashSet<SocketAddr> = all.iter().map(|peer| peer.address).collect();
        assert_eq!(addresses.len(), count);
    }
}

#[test]
fn a_part_shows_no_more_than_the_asker_has_room_for() {
    let mut rig = Rig::new(1, true);
    (0..3).for_each(|_| {
        rig.peer(true);
    });
    let mut room = Vec::new();
    assert_eq!(rig.engine.view_peers(0, &mut room), Some(0));
    assert_eq!((room.len(), room.capacity()), (0, 0));
    assert_eq!(rig.engine.view_peers(7, &mut Vec::with_capacity(9)), None, "a place beyond the end");
}

#[test]
fn a_connection_shows_what_it_asked_for_what_it_got_and_out_of_which_class() {
    let mut rig = Rig::new(2, true);
    let conn = rig.leech(true);
    let other = rig.accept("127.0.0.1:9");
    for begin in [0, BLOCK_BYTES, 2 * BLOCK_BYTES] {
        rig.say(conn, Message::Request(block(0, begin, BLOCK_BYTES))).unwrap();
    }
    let (all, _) = view_all(&rig.engine);
    let shown = |address: SocketAddr, all: &[PeerView]| {
        *all.iter().find(|peer| peer.address == address).expect("it is connected")
    };
    let address = rig.engine.peer(conn).unwrap().address;
    let view = shown(address, &all);
    assert!(view.flags.wants_us && view.flags.unchoked && view.stage == Stage::Open);
    assert_eq!((view.queued, view.sent_bytes, view.pieces), (3, 0, [0, 2]));
    assert_eq!(view.turn.map(|turn| (turn.class, turn.waits)), Some((Class::Grant, true)));
    let stranger = shown(rig.engine.peer(other).unwrap().address, &all);
    assert_eq!((stranger.turn, stranger.stage), (None, Stage::Handshaking), "before its handshake");

    assert_eq!(rig.read(conn).1, 3);
    rig.pass(Span::from_secs(2));
    let view = shown(address, &view_all(&rig.engine).0);
    let bytes = 3 * u64::from(BLOCK_BYTES);
    assert_eq!((view.queued, view.sent_bytes, view.sending_bytes), (0, bytes, 0));
    assert!(view.rates[1] > 0 && view.rates[0] == 0, "{:?}", view.rates);
    let by_class = &rig.engine.counters().class_sent_bytes;
    assert_eq!(by_class.each_ref().map(|count| count.get()), [bytes, 0, 0, 0, 0], "newcomers are granted");
}
