//! Of a group one connection at a time stands in this machine's own queue: from the question to the send.

use super::*;
use crate::base::limits::{GRANT_GROUP_BYTES, MEMBER_TURN_BYTES};
use crate::base::units::BLOCK_BYTES;
use crate::engine::scheduler::backlog::ASK_AGAIN;
use crate::engine::scheduler::class::Class;
use crate::engine::scheduler::flight::{EPOCH, PATIENCE};

/// What the kernel says stands in its queue of whoever is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kernel {
    Says(u64),
    IsSilent,
}

/// What the engine wanted, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Sends(ConnId),
    Asks(ConnId),
}

use Step::{Asks, Sends};

/// Two connections of one group, the first of which has had its turn, beside another group that is busy.
struct Queue {
    rig: Rig,
    first: ConnId,
    second: ConnId,
    kernel: Kernel,
    steps: Vec<(Instant, Step)>,
    /// Payload that each connection was sent.
    sent_bytes: HashMap<ConnId, u64>,
}

impl Queue {
    /// What is taken from the queue of *grant* or *rest*; the kernel takes all sends at once.
    fn new(class: Class, kernel: Kernel) -> Self {
        let mut rig = Rig::new(4, true);
        let [other, first, second] =
            ["9.9.9.9:1", "8.8.8.8:1", "8.8.8.9:1"].map(|address| leech(&mut rig, address));
        if class == Class::Rest {
            let [_, group] = rig.engine.peer(first).unwrap().accounts.unwrap();
            rig.engine.ledger.grant(group, GRANT_GROUP_BYTES);
        }
        // What the other gets stays in flight, so that its party is busy.
        want(&mut rig, other, 1);
        assert_eq!(rig.perform(), [other]);
        rig.begin_send(other);
        let (steps, sent_bytes) = (Vec::new(), HashMap::new());
        let mut queue = Self { rig, first, second, kernel, steps, sent_bytes };
        queue.want(first, (MEMBER_TURN_BYTES / u64::from(BLOCK_BYTES)) as u32 + 4);
        queue.turn();
        assert!(queue.steps.iter().all(|&(_, step)| step == Sends(first)), "{:?}", queue.steps);
        assert!(queue.sent_bytes[&first] >= MEMBER_TURN_BYTES);
        queue.steps.clear();
        queue
    }

    fn want(&mut self, conn: ConnId, blocks: u32) {
        want(&mut self.rig, conn, blocks);
    }

    /// Does all that is wanted now.
    fn turn(&mut self) {
        self.rig.engine.handle_tick(self.rig.now);
        while let Some(action) = self.rig.engine.poll_action(self.rig.now) {
            match action {
                Action::Send(conn) => self.send(conn),
                Action::Backlog(conn) => {
                    self.steps.push((self.rig.now, Asks(conn)));
                    if let Kernel::Says(bytes) = self.kernel {
                        self.rig.engine.handle_backlog(conn, bytes, self.rig.now);
                    }
                }
                Action::Load { torrent, chunk, .. } => self.rig.engine.handle_loaded(torrent, chunk, Ok(())),
                _ => {}
            }
        }
        self.rig.engine.check_settled();
    }

    fn send(&mut self, conn: ConnId) {
        let (mut outbox, mut segments) = (Vec::new(), Vec::new());
        if !self.rig.engine.take_send(conn, &mut outbox, &mut segments, self.rig.now) {
            return;
        }
        let payload = segments.iter().filter(|segment| segment.is_payload());
        let payload: u64 = payload.map(|segment| u64::from(segment.len())).sum();
        if payload > 0 {
            self.steps.push((self.rig.now, Sends(conn)));
            *self.sent_bytes.entry(conn).or_default() += payload;
        }
        let sum = segments.iter().map(Segment::len).sum();
        self.rig.engine.handle_sent(conn, Ok(sum), self.rig.now);
    }

    /// Lets time pass, from one thing that is due to the next.
    fn pass(&mut self, span: Span) {
        let end = self.rig.now + span;
        while self.rig.now < end {
            let due = self.rig.engine.poll_timeout().expect("there are peers");
            assert!(due > self.rig.now, "it would spin");
            self.rig.now = due.min(end);
            self.turn();
        }
    }

    /// When the second connection's first send begins, which has to be within a second.
    fn second_begins(&mut self) -> Span {
        let from = self.rig.now;
        self.turn();
        self.pass(Span::from_secs(1));
        let begins = self.steps.iter().find(|&&(_, step)| step == Sends(self.second));
        begins.unwrap_or_else(|| panic!("it waits for ever: {:?}", self.steps)).0.since(from)
    }

    /// When the kernel was asked.
    fn asked_at(&self) -> Vec<Instant> {
        self.steps.iter().filter(|(_, step)| *step == Asks(self.first)).map(|&(at, _)| at).collect()
    }
}

/// A stranger that we serve.
fn leech(rig: &mut Rig, address: &str) -> ConnId {
    let conn = rig.accept(address);
    assert_eq!(rig.shake(conn, true), Admission::Here);
    rig.read(conn);
    rig.say(conn, Message::Interested).unwrap();
    rig.read(conn);
    conn
}

/// Asks for the first blocks of the first piece.
fn want(rig: &mut Rig, conn: ConnId, blocks: u32) {
    for at in 0..blocks {
        rig.say(conn, Message::Request(block(0, at * BLOCK_BYTES, BLOCK_BYTES))).unwrap();
    }
}

#[test]
fn the_next_of_a_group_begins_only_when_the_kernel_says_that_the_queue_is_empty() {
    for class in [Class::Grant, Class::Rest] {
        let mut queue = Queue::new(class, Kernel::Says(u64::MAX));
        let (first, second) = (queue.first, queue.second);
        queue.want(second, 1);
        queue.turn();
        queue.pass(Span::from_ms(100));
        let asks = queue.steps.len();
        assert!(queue.steps.iter().all(|&(_, step)| step == Asks(first)), "{class:?}: {:?}", queue.steps);
        assert!(asks > 20, "{class:?}: asked {asks} times");
        queue.kernel = Kernel::Says(0);
        queue.pass(ASK_AGAIN[1]);
        let after: Vec<Step> = queue.steps[asks..].iter().map(|&(_, step)| step).collect();
        assert_eq!(after, [Asks(first), Sends(second)], "{class:?}");
    }
}

#[test]
fn a_queue_that_never_empties_holds_nobody_up_for_ever_and_is_asked_about_no_more_often_than_said() {
    // An answer at which the kernel is asked again as late, or as soon, as can be.
    for (bytes, between) in [(u64::MAX, ASK_AGAIN[1]), (5 << 10, ASK_AGAIN[0])] {
        let mut queue = Queue::new(Class::Rest, Kernel::Says(bytes));
        queue.want(queue.second, 1);
        let waited = queue.second_begins();
        let most = Span(EPOCH.0 * (PATIENCE as u64 + 1));
        assert!(waited <= most, "{waited:?} with {bytes}");
        let asked_at = queue.asked_at();
        assert!(asked_at.len() > 1);
        let soonest = asked_at.windows(2).map(|pair| pair[1].since(pair[0])).min();
        assert!(soonest >= Some(between), "{soonest:?} with {bytes}");
    }
}

#[test]
fn a_question_that_is_never_answered_is_asked_once_and_holds_nobody_up_for_ever() {
    let mut queue = Queue::new(Class::Rest, Kernel::IsSilent);
    queue.want(queue.second, 1);
    let waited = queue.second_begins();
    assert!(waited <= Span(EPOCH.0 * (PATIENCE as u64 + 1)), "{waited:?}");
    assert_eq!(queue.asked_at().len(), 1);
}

#[test]
fn an_answer_for_a_connection_that_is_gone_says_nothing_of_who_has_its_place() {
    let mut queue = Queue::new(Class::Rest, Kernel::IsSilent);
    let (gone, second) = (queue.first, queue.second);
    queue.want(second, 1);
    queue.turn();
    assert_eq!(queue.asked_at().len(), 1);
    queue.rig.engine.handle_gone(gone);
    queue.rig.engine.handle_closed(gone);
    queue.turn();
    assert_eq!(queue.steps.last(), Some(&(queue.rig.now, Sends(second))), "at once: nobody is in its way");
    // Another one of that group has its place, and its turn.
    let next = ConnId { generation: gone.generation + 1, ..gone };
    queue.rig.engine.handle_accepted(next, "8.8.8.7:1".parse().unwrap(), queue.rig.now);
    assert_eq!(queue.rig.shake(next, true), Admission::Here);
    queue.rig.read(next);
    queue.rig.say(next, Message::Interested).unwrap();
    queue.pass(Span::from_secs(1));
    queue.want(next, MEMBER_TURN_BYTES as u32 / BLOCK_BYTES);
    queue.turn();
    queue.want(second, 1);
    queue.steps.clear();
    queue.turn();
    assert_eq!(queue.steps, [(queue.rig.now, Asks(next))]);
    for (of, steps) in [(gone, vec![]), (next, vec![(queue.rig.now, Sends(second))])] {
        queue.steps.clear();
        queue.rig.engine.handle_backlog(of, 0, queue.rig.now);
        queue.turn();
        assert_eq!(queue.steps, steps, "an answer for {of:?}");
    }
}
