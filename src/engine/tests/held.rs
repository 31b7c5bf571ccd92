//! Sends whose memory the kernel reads for longer than it counts them.

use super::*;
use crate::base::limits::SLOTS_HELD_MAX;

/// Pins of the first chunk.
fn pins(rig: &Rig) -> u32 {
    rig.shared.chunks.view(0).pins.into()
}

/// Asks for a block and starts its send; how long that is.
fn start(rig: &mut Rig, conn: ConnId, at: u32) -> u32 {
    rig.say(conn, Message::Request(BlockRef { piece: 0, begin: at << 14, length: 1 << 14 })).unwrap();
    let (mut outbox, mut segments) = (Vec::new(), Vec::new());
    rig.perform();
    if !rig.engine.take_send(conn, &mut outbox, &mut segments, rig.now) {
        rig.perform();
        assert!(rig.engine.take_send(conn, &mut outbox, &mut segments, rig.now));
    }
    segments.iter().map(Segment::len).sum()
}

#[test]
fn what_the_kernel_holds_stays_pinned_until_it_lets_go_in_order() {
    let mut rig = Rig::new(3, true);
    let conn = rig.leech(true);
    // A burst in two sends, both held, then one that is copied, then one more held.
    let bytes = start(&mut rig, conn, 0);
    rig.engine.handle_held(conn);
    rig.engine.handle_sent(conn, Ok(100), rig.now);
    let (mut outbox, mut segments) = (Vec::new(), Vec::new());
    assert!(rig.engine.take_send(conn, &mut outbox, &mut segments, rig.now));
    rig.engine.handle_held(conn);
    rig.engine.handle_sent(conn, Ok(bytes - 100), rig.now);
    assert_eq!(pins(&rig), 1);
    let bytes = start(&mut rig, conn, 1);
    assert_eq!(pins(&rig), 2);
    rig.engine.handle_sent(conn, Ok(bytes), rig.now);
    assert_eq!(pins(&rig), 1);
    let bytes = start(&mut rig, conn, 2);
    rig.engine.handle_held(conn);
    rig.engine.handle_sent(conn, Ok(bytes), rig.now);
    for left in [2, 2, 1] {
        assert_eq!(pins(&rig), left);
        rig.engine.handle_released(conn);
    }
    assert_eq!(pins(&rig), 0);
}

#[test]
fn memory_that_is_free_before_its_burst_is_out_is_given_back_with_it() {
    let mut rig = Rig::new(3, true);
    let conn = rig.leech(true);
    let bytes = start(&mut rig, conn, 0);
    rig.engine.handle_held(conn);
    rig.engine.handle_sent(conn, Ok(100), rig.now);
    rig.engine.handle_released(conn);
    assert_eq!(pins(&rig), 1);
    let (mut outbox, mut segments) = (Vec::new(), Vec::new());
    assert!(rig.engine.take_send(conn, &mut outbox, &mut segments, rig.now));
    rig.engine.handle_sent(conn, Ok(bytes - 100), rig.now);
    assert_eq!(pins(&rig), 0);
}

#[test]
fn a_connection_that_ends_gives_all_its_pins_back() {
    let mut rig = Rig::new(3, true);
    let conn = rig.leech(true);
    for at in 0..3 {
        let bytes = start(&mut rig, conn, at);
        rig.engine.handle_held(conn);
        rig.engine.handle_sent(conn, Ok(bytes), rig.now);
    }
    start(&mut rig, conn, 3);
    assert_eq!(pins(&rig), 4);
    rig.engine.handle_gone(conn);
    assert_eq!(pins(&rig), 4, "the kernel may still read");
    rig.engine.handle_closed(conn);
    assert_eq!(pins(&rig), 0);
    // Stale by now.
    rig.engine.handle_released(conn);
}

#[test]
fn who_reads_here_and_there_holds_so_many_slots_and_waits_for_the_next() {
    let mut rig = Rig::new(40, true);
    let conn = rig.leech(true);
    let held = |rig: &Rig| rig.engine.peer(conn).unwrap().out.slots_held();
    for n in 0..SLOTS_HELD_MAX as u32 + 1 {
        rig.say(conn, Message::Request(block(n / 4, n % 4 * (256 << 10), 16 << 10))).unwrap();
    }
    // The kernel takes all that it is given, and lets go of nothing.
    let (mut outbox, mut sends) = (Vec::new(), 0);
    for _ in 0..200 {
        rig.perform();
        let mut segments = Vec::new();
        if rig.engine.take_send(conn, &mut outbox, &mut segments, rig.now) {
            rig.engine.handle_held(conn);
            let sent = segments.iter().map(Segment::len).sum();
            rig.engine.handle_sent(conn, Ok(sent), rig.now);
            sends += 1;
        }
        assert!(held(&rig) <= SLOTS_HELD_MAX);
    }
    assert_eq!((held(&rig), rig.engine.peer(conn).unwrap().requests.len()), (SLOTS_HELD_MAX, 1));
    // With the first slots that are free it goes on, and at the end all are free.
    rig.engine.handle_released(conn);
    assert!(rig.perform().contains(&conn), "it is ready");
    let last = rig.begin_send(conn).iter().map(Segment::len).sum();
    rig.engine.handle_sent(conn, Ok(last), rig.now);
    (1..sends).for_each(|_| rig.engine.handle_released(conn));
    assert_eq!((held(&rig), rig.engine.peer(conn).unwrap().requests.len()), (0, 0));
}
