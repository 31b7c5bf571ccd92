//! Others let us ask for pieces while they choke us (BEP 6), and choke us at any time (P26, P27).

use super::session::PeerMisbehaved as Bad;
use super::*;
use crate::base::limits::{ALLOWED_FAST_ASKED_MAX, ALLOWED_FAST_KEPT_MAX};

/// A seed that chokes us and lets us ask for some pieces.
fn choking(rig: &mut Rig, allowed: &[u32]) -> ConnId {
    let conn = rig.peer(true);
    rig.say(conn, Message::HaveAll).unwrap();
    allowed.iter().for_each(|&piece| rig.say(conn, Message::AllowedFast(piece)).unwrap());
    conn
}

#[test]
fn allowed_pieces_are_asked_for_while_we_are_choked_and_nothing_else() {
    let mut rig = Rig::new(20, false);
    let conn = choking(&mut rig, &[5, 9]);
    let asked = rig.asked(conn);
    assert_eq!(asked.len(), ALLOWED_FAST_ASKED_MAX);
    assert!(asked.iter().all(|block| [5, 9].contains(&block.piece)), "{asked:?}");
    rig.engine.check_invariants();
    let Ok(Landing::Into(place)) = rig.engine.handle_piece_header(conn, asked[0]) else { panic!() };
    rig.engine.handle_block(conn, place.chunk, place.index, rig.now);
    let peer = rig.engine.peer(conn).unwrap();
    assert_eq!((peer.received_bytes, peer.unsolicited_bytes), (16 << 10, 0));
    assert!(rig.asked(conn).iter().all(|block| [5, 9].contains(&block.piece)));
}

#[test]
fn what_it_lacks_or_what_we_have_is_not_asked_for_and_without_bep6_nothing_is() {
    let mut rig = Rig::new(20, false);
    let conn = rig.peer(true);
    rig.say(conn, Message::HaveNone).unwrap();
    rig.say(conn, Message::AllowedFast(3)).unwrap();
    assert_eq!(rig.asked(conn), []);
    rig.say(conn, Message::Have(3)).unwrap();
    let asked = rig.asked(conn);
    assert!(!asked.is_empty() && asked.iter().all(|block| block.piece == 3));
    let old = rig.peer(false);
    rig.say(old, Message::Bitfield(&[0xff, 0xff, 0xf0])).unwrap();
    rig.say(old, Message::AllowedFast(4)).unwrap();
    assert_eq!(rig.asked(old), []);
}

#[test]
fn what_is_rejected_while_we_are_choked_is_not_asked_for_again_before_we_are_unchoked() {
    let mut rig = Rig::new(20, false);
    let conn = choking(&mut rig, &[5]);
    for block in rig.asked(conn) {
        rig.say(conn, Message::Reject(block)).unwrap();
    }
    rig.pass(Span::from_secs(5));
    assert_eq!(rig.asked(conn), []);
    assert!(rig.engine.torrent(TorrentId(0)).unwrap().claims.is_empty(), "others may collect it");
    rig.say(conn, Message::Unchoke).unwrap();
    assert!(!rig.asked(conn).is_empty() && !rig.engine.peer(conn).unwrap().is_snubbed());
}

#[test]
fn a_choke_takes_back_what_was_asked_without_bep6_and_with_it_what_is_rejected() {
    for fast in [false, true] {
        let mut rig = Rig::new(20, false);
        let conn = rig.peer(fast);
        rig.say(conn, if fast { Message::HaveAll } else { Message::Bitfield(&[0xff, 0xff, 0xf0]) }).unwrap();
        rig.say(conn, Message::Unchoke).unwrap();
        let asked = rig.asked(conn);
        rig.say(conn, Message::Choke).unwrap();
        let left = |rig: &Rig| rig.engine.peer(conn).unwrap().asked.len();
        assert_eq!(left(&rig), if fast { asked.len() } else { 0 });
        if fast {
            // Those that it allows may stay, as libtorrent has it; what it sends after all is welcome.
            let Ok(Landing::Into(place)) = rig.engine.handle_piece_header(conn, asked[0]) else { panic!() };
            rig.engine.handle_block(conn, place.chunk, place.index, rig.now);
            asked[1..].iter().for_each(|&block| rig.say(conn, Message::Reject(block)).unwrap());
        }
        assert_eq!((left(&rig), rig.asked(conn)), (0, vec![]));
        rig.engine.check_invariants();
        rig.say(conn, Message::Unchoke).unwrap();
        assert!(!rig.asked(conn).is_empty(), "and it is asked again at once");
    }
}

#[test]
fn p27_so_many_allowed_pieces_are_remembered_and_one_that_does_not_exist_is_the_end() {
    for count in [ALLOWED_FAST_KEPT_MAX - 1, ALLOWED_FAST_KEPT_MAX, ALLOWED_FAST_KEPT_MAX + 1] {
        let mut rig = Rig::new(100, false);
        let pieces: Vec<u32> = (0..count as u32).flat_map(|piece| [piece, piece]).collect();
        let conn = rig.peer(true);
        pieces.iter().for_each(|&piece| rig.say(conn, Message::AllowedFast(piece)).unwrap());
        assert_eq!(rig.engine.peer(conn).unwrap().allowed.len(), count.min(ALLOWED_FAST_KEPT_MAX));
    }
    for (piece, good) in [(99, true), (100, false), (u32::MAX, false)] {
        let mut rig = Rig::new(100, false);
        let conn = rig.peer(true);
        let want = if good { Ok(()) } else { Err(Bad::NoSuchPiece) };
        assert_eq!(rig.say(conn, Message::AllowedFast(piece)), want);
    }
}

#[test]
fn p27_one_message_is_one_look_for_work_however_many_pieces_it_announces() {
    for announced in [false, true] {
        let mut rig = Rig::new(2_000, false);
        let conn = rig.peer(true);
        rig.say(conn, Message::HaveNone).unwrap();
        rig.say(conn, Message::AllowedFast(7)).unwrap();
        let mut bits = Bitfield::full(2_000);
        if !announced {
            bits.clear(7);
        }
        rig.say(conn, Message::Bitfield(bits.as_bytes())).unwrap();
        // Each look that finds nothing to ask for leaves the peer with the hungry.
        let looks = rig.engine.hungry.len();
        assert!(looks <= 1, "{looks}");
        let asked = rig.asked(conn);
        assert!(asked.iter().all(|block| block.piece == 7) && asked.is_empty() != announced, "{asked:?}");
        rig.engine.check_invariants();
    }
}

#[test]
fn p27_what_it_lacks_or_chokes_us_for_is_not_looked_for() {
    let mut rig = Rig::new(20, false);
    let conn = rig.peer(true);
    rig.say(conn, Message::HaveNone).unwrap();
    rig.say(conn, Message::AllowedFast(7)).unwrap();
    (8..20).for_each(|piece| rig.say(conn, Message::Have(piece)).unwrap());
    assert!(rig.engine.hungry.is_empty(), "it lets us ask for nothing that it has");
    rig.say(conn, Message::Have(7)).unwrap();
    assert!(!rig.asked(conn).is_empty());
}
