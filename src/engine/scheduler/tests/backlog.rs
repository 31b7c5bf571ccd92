//! What stands in this machine's queue: a party has no more of its connections there than one.

use super::*;
use crate::base::limits::SEND_WINDOW_BYTES_AT_FIRST;
use crate::engine::scheduler::backlog::{ASK_AGAIN, BACKLOG_SPAN};
use crate::engine::scheduler::flight::EPOCH;

/// Of each socket so much stands in the device's queue on a full link, and so much the kernel takes in all
/// (TCP small queues and `TCP_NOTSENT_LOWAT`, in the laboratory).
const QUEUED_BYTES: u64 = 48 << 10;
const TAKEN_BYTES: u64 = 72 << 10;

/// One connection in the kernel.
#[derive(Default)]
struct Socket {
    taken_bytes: u64,
    sending: Option<(InFlight, u64)>,
    got_bytes: u64,
}

impl Socket {
    fn backlog_bytes(&self) -> u64 {
        self.taken_bytes.min(QUEUED_BYTES)
    }

    /// The kernel takes what it has room for; the send that ended with that.
    fn take(&mut self) -> Option<InFlight> {
        let (sent, left_bytes) = self.sending.as_mut()?;
        let takes = (*left_bytes).min(TAKEN_BYTES - self.taken_bytes);
        *left_bytes -= takes;
        self.taken_bytes += takes;
        (*left_bytes == 0).then_some(*sent)
    }
}

/// Whether the kernel says what stands in its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kernel {
    Says,
    IsSilent,
}

/// A full link of 100 Mbit/s, which connections share by what stands in its queue of each. Bytes of each
/// connection after ten seconds.
fn on_a_queue(rig: &mut Rig, conns: &[ConnId], kernel: Kernel) -> Vec<u64> {
    const MS_BYTES: u64 = 12_500;
    let mut sockets: Vec<Socket> = conns.iter().map(|_| Socket::default()).collect();
    conns.iter().for_each(|&conn| rig.wait(conn));
    for ms in 1..=10_000 {
        let queued_bytes = sockets.iter().map(Socket::backlog_bytes).sum::<u64>().max(1);
        for socket in &mut sockets {
            let out = (MS_BYTES * socket.backlog_bytes() / queued_bytes).min(socket.taken_bytes);
            socket.taken_bytes -= out;
            socket.got_bytes += out;
        }
        for (socket, &conn) in sockets.iter_mut().zip(conns) {
            if let Some(sent) = socket.take() {
                socket.sending = None;
                rig.scheduler.end(sent, &rig.ledger);
                rig.wait(conn);
            }
        }
        rig.scheduler.roll(Instant(0) + Span::from_ms(ms), &rig.ledger);
        begin_all(rig, &mut sockets, kernel, Instant(0) + Span::from_ms(ms));
    }
    sockets.iter().map(|socket| socket.got_bytes).collect()
}

/// Begins whatever may begin.
fn begin_all(rig: &mut Rig, sockets: &mut [Socket], kernel: Kernel, now: Instant) {
    while rig.scheduler.window.is_open_to(Owed) {
        if let Some(turn) = rig.scheduler.pick(&rig.ledger) {
            let sent = rig.scheduler.charge(turn, turn.bytes.min(BURST_BYTES), &rig.ledger).unwrap();
            sockets[turn.conn.index as usize].sending = Some((sent, sent.bytes()));
        } else if let Some(conn) = rig.scheduler.next_ask() {
            let bytes = sockets[conn.index as usize].backlog_bytes();
            let said = if kernel == Kernel::Says { bytes } else { 0 };
            rig.scheduler.note_backlog(conn, said, now, &rig.ledger);
        } else {
            break;
        }
    }
}

/// One connection beside 500 of a group.
fn one_and_many() -> (Rig, Vec<ConnId>) {
    let mut rig = Rig::new();
    let mut conns = vec![rig.enter(1)];
    conns.extend((0..500).map(|party| rig.enter_group(1_000 + party, 2)));
    (rig, conns)
}

#[test]
fn s1_500_connections_of_a_group_have_no_more_in_the_queue_than_one() {
    let of_one = |kernel| {
        let (mut rig, conns) = one_and_many();
        let got = on_a_queue(&mut rig, &conns, kernel);
        assert!(got.iter().sum::<u64>() >= 120_000_000, "the link is full: {}", got.iter().sum::<u64>());
        got[1..].iter().sum::<u64>() as f64 / got[0] as f64
    };
    let (known, unknown) = (of_one(Kernel::Says), of_one(Kernel::IsSilent));
    assert!((0.8..=1.05).contains(&known), "{known}");
    assert!(unknown > 1.2, "{unknown}: the order alone does not see to it");
}

#[test]
fn s1_beside_many_others_a_group_waits_for_a_longer_queue() {
    let mut rig = Rig::new();
    let mut conns: Vec<ConnId> = (0..20).map(|party| rig.enter(1 + party)).collect();
    conns.extend((0..500).map(|party| rig.enter_group(1_000 + party, 100)));
    let got = on_a_queue(&mut rig, &conns, Kernel::Says);
    let of_one = got[20..].iter().sum::<u64>() as f64 * 20.0 / got[..20].iter().sum::<u64>() as f64;
    assert!((0.8..=1.05).contains(&of_one), "{of_one}");
}

#[test]
fn a_party_alone_is_asked_for_nothing_and_waits_for_nothing() {
    let mut rig = Rig::new();
    let conns: Vec<ConnId> = (0..8).map(|_| rig.enter(1)).collect();
    conns.iter().for_each(|&conn| rig.wait(conn));
    for _ in 0..64 {
        let turn = rig.scheduler.pick(&rig.ledger).expect("all but what is picked wait");
        let sent = rig.scheduler.charge(turn, MEMBER_TURN_BYTES, &rig.ledger).unwrap();
        rig.scheduler.end(sent, &rig.ledger);
        rig.wait(turn.conn);
        assert_eq!(rig.scheduler.next_ask(), None);
    }
}

/// A group of two, the first of which has had its turn, beside another; both of the group wait.
fn a_turn_is_over() -> (Rig, [ConnId; 2]) {
    let mut rig = Rig::new();
    let (first, second, other) = (rig.enter(1), rig.enter(1), rig.enter(2));
    [first, second].into_iter().for_each(|conn| rig.wait(conn));
    let turn = rig.scheduler.pick(&rig.ledger).unwrap();
    assert_eq!(turn.conn, first);
    let sent = rig.scheduler.charge(turn, MEMBER_TURN_BYTES, &rig.ledger).unwrap();
    rig.scheduler.end(sent, &rig.ledger);
    // The other wants nothing for now, but has something in flight.
    rig.wait(other);
    let others = rig.scheduler.out_of_turn(other, BLOCK).unwrap();
    rig.scheduler.charge(others, BLOCK, &rig.ledger).unwrap();
    rig.wait(first);
    (rig, [first, second])
}

#[test]
fn the_next_begins_when_little_of_the_one_before_is_left_in_the_queue() {
    // So much is sent in that time at the rate that is supposed at first.
    let most = SEND_WINDOW_BYTES_AT_FIRST * (BACKLOG_SPAN.0 + 1) / EPOCH.0;
    for (bytes, begins) in [(most - 1, true), (most, true), (most + 1, false)] {
        let (mut rig, [first, second]) = a_turn_is_over();
        assert_eq!(rig.scheduler.pick(&rig.ledger), None);
        assert_eq!((rig.scheduler.next_ask(), rig.scheduler.next_ask()), (Some(first), None));
        rig.scheduler.note_backlog(first, bytes, Instant(0), &rig.ledger);
        let next = rig.scheduler.pick(&rig.ledger).map(|turn| turn.conn);
        assert_eq!(next, begins.then_some(second), "{bytes} left");
        rig.scheduler.check();
    }
}

#[test]
fn the_kernel_is_asked_again_after_a_moment_and_not_before() {
    let [soonest, latest] = ASK_AGAIN;
    let (mut rig, [first, _]) = a_turn_is_over();
    assert_eq!(rig.scheduler.pick(&rig.ledger), None);
    let little = SEND_WINDOW_BYTES_AT_FIRST * (BACKLOG_SPAN.0 + 1) / EPOCH.0 + 1;
    rig.scheduler.note_backlog(first, little, Instant(0), &rig.ledger);
    assert_eq!(rig.scheduler.due(), Instant(0) + soonest);
    let (mut rig, [first, _]) = a_turn_is_over();
    assert_eq!(rig.scheduler.due(), Instant(0) + EPOCH, "nobody waits for the queue");
    assert_eq!(rig.scheduler.pick(&rig.ledger), None);
    assert_eq!(rig.scheduler.next_ask(), Some(first));
    rig.scheduler.note_backlog(first, u64::MAX, Instant(0), &rig.ledger);
    assert_eq!(rig.scheduler.due(), Instant(0) + latest);
    for (ns, asks) in [(latest.0 - 1, None), (latest.0, Some(first)), (latest.0 + 1, None)] {
        rig.scheduler.roll(Instant(ns), &rig.ledger);
        assert_eq!(rig.scheduler.pick(&rig.ledger), None);
        assert_eq!(rig.scheduler.next_ask(), asks, "after {ns} ns");
    }
}

#[test]
fn who_leaves_or_belongs_elsewhere_holds_nobody_up() {
    for moves in [false, true] {
        let (mut rig, [first, second]) = a_turn_is_over();
        assert_eq!(rig.scheduler.pick(&rig.ledger), None);
        assert_eq!(rig.scheduler.next_ask(), Some(first));
        if moves {
            let [own, group] = [7, 1].map(|account| rig.ledger.open(account));
            rig.scheduler.reseat(first, Membership { own, balance: own, group }, &rig.ledger);
        } else {
            rig.scheduler.leave(first, &rig.ledger);
        }
        rig.scheduler.check();
        assert_eq!(rig.scheduler.pick(&rig.ledger).map(|turn| turn.conn), Some(second), "{moves}");
    }
}

#[test]
fn whose_turn_it_is_goes_on_though_another_of_its_group_waits() {
    let mut rig = Rig::new();
    let (first, second, other) = (rig.enter(1), rig.enter(1), rig.enter(2));
    [first, second].into_iter().for_each(|conn| rig.wait(conn));
    let turn = rig.scheduler.pick(&rig.ledger).unwrap();
    let sent = rig.scheduler.charge(turn, BLOCK, &rig.ledger).unwrap();
    rig.scheduler.end(sent, &rig.ledger);
    rig.wait(other);
    let others = rig.scheduler.out_of_turn(other, BLOCK).unwrap();
    rig.scheduler.charge(others, BLOCK, &rig.ledger).unwrap();
    assert_eq!(rig.scheduler.pick(&rig.ledger), None, "the second waits for what the first got");
    rig.wait(first);
    assert_eq!(rig.scheduler.pick(&rig.ledger).map(|turn| turn.conn), Some(first));
    rig.scheduler.check();
}

#[test]
fn who_has_earned_its_place_does_not_wait_for_the_queue() {
    let (mut rig, [_, second]) = a_turn_is_over();
    rig.ledger.credit(1, 64 * MIB);
    rig.scheduler.rank_again(second, Demand::default(), &rig.ledger);
    let turn = rig.scheduler.pick(&rig.ledger).unwrap();
    assert_eq!((turn.class, rig.scheduler.next_ask()), (Owed, None));
}
