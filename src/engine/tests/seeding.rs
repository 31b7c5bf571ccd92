//! What a seed hears, and whose requests it leaves for last.

use super::*;
use crate::base::limits::{HELD_BACK_TIME, SPREAD_LOOKS_MAX};
use crate::base::units::BLOCK_BYTES;

#[test]
fn everybody_is_told_of_a_new_piece_who_has_it_too() {
    let mut rig = Rig::new(2, false);
    let conns = [rig.seed(), rig.leech(true)];
    conns.into_iter().for_each(|conn| drop(rig.read(conn)));
    rig.engine.note_have(TorrentId(0), 1);
    rig.engine.flush_haves();
    for conn in conns {
        let (bytes, _) = rig.read(conn);
        assert!(frames(&bytes).contains(&Message::Have(1)), "{conn:?}");
    }
}

#[test]
fn a_request_for_what_others_have_waits_for_so_long_and_no_longer() {
    for (after_ns, again) in
        [(HELD_BACK_TIME.0 - 1, true), (HELD_BACK_TIME.0, false), (HELD_BACK_TIME.0 + 1, false)]
    {
        let mut rig = Rig::new(2, true);
        let [asks, has] = [(); 2].map(|()| rig.leech(true));
        rig.say(has, Message::Have(0)).unwrap();
        rig.say(asks, Message::Request(block(1, 0, BLOCK_BYTES))).unwrap();
        assert!(!rig.engine.bring_forward(asks).again, "nobody else has it");
        rig.read(asks);
        rig.say(asks, Message::Request(block(0, 0, BLOCK_BYTES))).unwrap();
        assert!(rig.engine.bring_forward(asks).again, "somebody has it");
        rig.now = rig.now + Span(after_ns);
        rig.engine.handle_tick(rig.now);
        assert_eq!(rig.engine.bring_forward(asks).again, again, "after {after_ns} ns");
    }
}

#[test]
fn only_so_many_requests_are_looked_at_for_one_that_comes_first() {
    for (before, found) in
        [(SPREAD_LOOKS_MAX - 1, true), (SPREAD_LOOKS_MAX, false), (SPREAD_LOOKS_MAX + 1, false)]
    {
        let mut rig = Rig::new(2, true);
        let [asks, has] = [(); 2].map(|()| rig.leech(true));
        rig.say(has, Message::Have(0)).unwrap();
        let len = BLOCK_BYTES / 2;
        (0..before as u32).for_each(|at| rig.say(asks, Message::Request(block(0, at * len, len))).unwrap());
        rig.say(asks, Message::Request(block(1, 0, BLOCK_BYTES))).unwrap();
        assert_eq!(rig.engine.bring_forward(asks).again, !found, "behind {before} others");
        let first = rig.engine.peer(asks).unwrap().requests[0].piece;
        assert_eq!(first, u32::from(found), "behind {before} others");
    }
}
