//! What a seed hears, and whose requests it leaves for last.

use super::*;
use crate::base::limits::SPREAD_TIME;
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
    for (after_ns, again) in [(SPREAD_TIME.0 - 1, true), (SPREAD_TIME.0, false), (SPREAD_TIME.0 + 1, false)] {
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
