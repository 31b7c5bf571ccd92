//! How much a turn carries.

use super::*;
use crate::base::units::BLOCK_BYTES;
use crate::engine::scheduler::Turn;
use crate::engine::scheduler::class::Class;
use crate::engine::upload::TURN_BLOCKS_EXCESS;

/// A client that reads fast enough for the longest sends, and how many blocks those have.
fn fast(rig: &mut Rig) -> (ConnId, usize) {
    let conn = rig.leech(true);
    for at in 0..8 {
        rig.say(conn, Message::Request(block(0, at * BLOCK_BYTES, BLOCK_BYTES))).unwrap();
        rig.read(conn);
    }
    (conn, rig.engine.peer(conn).unwrap().out.burst.blocks())
}

#[test]
fn a_turn_carries_what_its_party_has_room_for_and_in_excess_enough_to_be_seen() {
    let mut rig = Rig::new(2, true);
    let (conn, most) = fast(&mut rig);
    assert!(most > TURN_BLOCKS_EXCESS + 1);
    let carries = |class, bytes| {
        let peer = rig.engine.peer(conn).unwrap();
        Engine::turn_blocks(peer, Turn { conn, class, bytes, is_extra: false, goes_on: false })
    };
    for room in [1, TURN_BLOCKS_EXCESS - 1, TURN_BLOCKS_EXCESS, TURN_BLOCKS_EXCESS + 1] {
        let bytes = room as u64 * u64::from(BLOCK_BYTES);
        assert_eq!(carries(Class::Excess, bytes), room.max(TURN_BLOCKS_EXCESS), "room for {room}");
        for class in [Class::Grant, Class::Owed, Class::Rest, Class::Again] {
            assert_eq!(carries(class, bytes), room, "{class:?}, room for {room}");
        }
        assert_eq!(carries(Class::Rest, bytes - 1), room, "a block that is begun is sent whole");
    }
    assert_eq!(carries(Class::Excess, u64::MAX), most, "no more than the connection takes at a time");
}
