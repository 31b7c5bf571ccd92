//! An order of service under random steps: after each one its invariants, and who waits.

use std::collections::BTreeSet;

use crate::base::rng::Rng;
use crate::base::time::Span;
use crate::base::units::BLOCK_BYTES;
use crate::engine::scheduler::class::{CLASSES, Class};
use crate::engine::scheduler::*;

const CONNS: u32 = 40;

/// Connections that may be there, each under accounts of its own choice.
struct World {
    rng: Rng,
    now: Instant,
    scheduler: Scheduler,
    ledger: Ledger,
    /// By index; none while it is not there.
    seats: Vec<Option<(ConnId, Membership)>>,
    waiting: BTreeSet<u32>,
    sent: Vec<InFlight>,
    next_group: u64,
    /// Bytes charged, less those refunded.
    charged_bytes: u64,
    /// Turns by class.
    turns: [u32; CLASSES],
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            now: Instant(0),
            scheduler: Scheduler::new(Instant(0)),
            ledger: Ledger::new(1 << 12),
            seats: vec![None; CONNS as usize],
            waiting: BTreeSet::new(),
            sent: Vec::new(),
            next_group: 0,
            charged_bytes: 0,
            turns: [0; CLASSES],
        }
    }

    /// One of 13 identities in one of five groups, which are others from time to time. In every third case
    /// the group's balance counts.
    fn membership(&mut self) -> Membership {
        self.next_group += u64::from(self.rng.below(16) == 0);
        let own = self.ledger.open(u64::from(1 + self.rng.below(13)));
        let group = self.ledger.open(100 + self.next_group + u64::from(self.rng.below(5)));
        let balance = if self.rng.below(3) == 0 { group } else { own };
        Membership { own, balance, group }
    }

    fn demand(&mut self) -> Demand {
        let again = self.rng.below(4) == 0;
        Demand {
            again,
            weight: WEIGHT_ONE * u64::from(1 + self.rng.below(16)),
            begun: self.rng.below(4) == 0,
        }
    }

    fn close(&self, membership: Membership) {
        [membership.own, membership.group].into_iter().for_each(|account| self.ledger.close(account));
    }

    fn come_or_go(&mut self, index: u32) {
        let place = index as usize;
        if let Some((conn, membership)) = self.seats[place].take() {
            self.scheduler.leave(conn, &self.ledger);
            self.waiting.remove(&index);
            self.close(membership);
            return;
        }
        let conn = ConnId { index, generation: self.rng.below(1 << 30) };
        let membership = self.membership();
        self.scheduler.enter(conn, membership);
        self.seats[place] = Some((conn, membership));
    }

    fn reseat(&mut self, index: u32) {
        let Some((conn, before)) = self.seats[index as usize] else { return };
        let membership = self.membership();
        self.scheduler.reseat(conn, membership, &self.ledger);
        self.seats[index as usize] = Some((conn, membership));
        self.waiting.remove(&index);
        self.close(before);
    }

    fn charge(&mut self, turn: Turn) {
        let bytes = u64::from(self.rng.below(1 << 19));
        self.sent.push(self.scheduler.charge(turn, bytes, &self.ledger).unwrap());
        self.turns[turn.class as usize] += 1;
        let back = if self.rng.below(8) == 0 { bytes / 2 } else { 0 };
        self.scheduler.refund(turn.conn, back, &self.ledger);
        self.charged_bytes += bytes - back;
    }

    fn pick(&mut self) {
        match self.scheduler.pick(&self.ledger) {
            Some(turn) => {
                assert!(self.waiting.remove(&turn.conn.index), "{:?} did not wait", turn.conn);
                self.charge(turn);
            }
            None => {
                // Or its party waits until something has left this machine.
                let parked = self.scheduler.parked_count > 0;
                assert!(self.waiting.is_empty() || !self.sent.is_empty() || parked);
            }
        }
    }

    fn end(&mut self) {
        if !self.sent.is_empty() {
            let at = self.rng.below(self.sent.len() as u32) as usize;
            self.scheduler.end(self.sent.swap_remove(at), &self.ledger);
        }
    }

    /// What the kernel says of those asked for: nothing, or a lot.
    fn answer(&mut self) {
        while let Some(conn) = self.scheduler.next_ask() {
            let bytes = u64::from(self.rng.below(2)) << 30;
            self.scheduler.note_backlog(conn, bytes, self.now, &self.ledger);
        }
    }

    fn roll(&mut self) {
        self.now = self.now + Span::from_ms(7);
        self.scheduler.roll(self.now, &self.ledger);
    }

    fn step(&mut self) {
        let index = self.rng.below(CONNS);
        let conn = self.seats[index as usize].map(|(conn, _)| conn);
        match (self.rng.below(16), conn) {
            (0, _) => self.come_or_go(index),
            (1, _) if self.rng.below(4) == 0 => self.reseat(index),
            (2, _) => self.roll(),
            (13, _) => self.answer(),
            (3, Some(conn)) => {
                self.scheduler.forget(conn);
                self.waiting.remove(&index);
            }
            (4, Some(conn)) => {
                let turn = self.scheduler.out_of_turn(conn, BLOCK_BYTES.into()).unwrap();
                self.waiting.remove(&index);
                self.charge(turn);
            }
            (5, Some(conn)) => {
                let demand = self.demand();
                self.scheduler.rank_again(conn, demand, &self.ledger);
            }
            (6, _) => {
                let giver = u64::from(1 + self.rng.below(13));
                self.ledger.credit(giver, u64::from(self.rng.below(1 << 20)));
            }
            (7..=9, _) => self.end(),
            (10..=12, Some(conn)) => {
                let demand = self.demand();
                self.scheduler.wait(conn, demand, &self.ledger);
                self.waiting.insert(index);
            }
            _ => self.pick(),
        }
    }

    fn check(&self) {
        self.scheduler.check();
        assert_eq!(self.scheduler.is_idle(), self.waiting.is_empty());
        for (conn, _) in self.seats.iter().flatten() {
            assert_eq!(self.scheduler.holds(*conn), self.waiting.contains(&conn.index), "{conn:?}");
        }
    }

    /// Everything ends; whoever waits is served.
    fn finish(&mut self) {
        while !self.waiting.is_empty() {
            self.pick();
            self.end();
            self.answer();
            self.roll();
            self.check();
        }
        while !self.sent.is_empty() {
            self.end();
        }
        let sent = |key| self.ledger.standing(self.ledger.open(key)).sent_bytes;
        assert_eq!((1..=13).map(sent).sum::<u64>(), self.charged_bytes, "sent = submitted less refunded");
        for index in 0..CONNS {
            if self.seats[index as usize].is_some() {
                self.come_or_go(index);
            }
        }
        self.check();
        assert_eq!((self.scheduler.parties.accounts(), self.scheduler.parties.busy()), (0, 0));
    }
}

#[test]
fn random_steps_lose_nobody_and_charge_what_is_sent() {
    for seed in 0..8 {
        let mut world = World::new(seed);
        for _ in 0..10_000 {
            world.step();
            world.check();
        }
        world.finish();
        let seen = Class::ALL.map(|class| world.turns[class as usize] > 0);
        assert_eq!(seen, [true; CLASSES], "each class had turns, seed {seed}: {:?}", world.turns);
    }
}
