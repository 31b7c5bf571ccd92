//! Why somebody is served when it is: where a connection stands, for whoever asks. Changes nothing.

use super::class::{CLASSES, Class, earned};
use super::{Membership, SERVICE_STEP_BYTES, Scheduler, Seat};
use crate::base::ids::ConnId;
use crate::shared::counters::SERVICE_CLASSES;
use crate::shared::ledger::{Ledger, Standing};

// The counters have a word for each.
const _: () = assert!(CLASSES == SERVICE_CLASSES);

impl Class {
    /// One word, as documents and metrics write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Grant => "grant",
            Self::Owed => "owed",
            Self::Excess => "excess",
            Self::Rest => "rest",
            Self::Again => "again",
        }
    }
}

/// Where a connection stands in the order of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outlook {
    /// Its accounts.
    pub membership: Membership,
    /// The class in which it is served next.
    pub class: Class,
    /// Its place there, the first is 0; parties of one place take turns.
    pub place: u64,
    /// It has blocks to be sent and waits for its turn.
    pub waits: bool,
    /// Connections of its party on this core, which take turns.
    pub members: u32,
}

impl Scheduler {
    /// Where the connection stands now; `None` before its handshake.
    pub fn outlook(&self, conn: ConnId, ledger: &Ledger) -> Option<Outlook> {
        let seat = self.seat(conn)?;
        let (balance, group) = (self.account(seat.identity), self.account(seat.group));
        let standing = ledger.standing(balance);
        let (class, party) = match Class::of(standing, ledger.granted_bytes(group)) {
            class @ (Class::Owed | Class::Excess) => (class, seat.identity),
            _ if seat.demand.again => (Class::Again, seat.party),
            class => (class, seat.group),
        };
        let place = match class {
            Class::Owed | Class::Excess => earned(standing).map_or(0, |place| place.key),
            Class::Rest => self.steps_behind(&seat, ledger),
            Class::Grant | Class::Again => 0,
        };
        Some(Outlook {
            membership: Membership { own: seat.own, balance, group },
            class,
            place,
            waits: self.holds(conn),
            // Who is a group of its own is a member twice.
            members: self.parties.at(party).members / if balance == group { 2 } else { 1 },
        })
    }

    /// Steps of service that the seat's group has had more than whoever has had least on this core.
    fn steps_behind(&self, seat: &Seat, ledger: &Ledger) -> u64 {
        if self.goes_on(seat) {
            return 0;
        }
        let Some(since_bytes) = self.parties.at(seat.group).since_bytes else { return 0 };
        let key_bytes = ledger.service(self.account(seat.group)).wrapping_sub(since_bytes);
        let base = self.queue.base();
        if key_bytes.cast_signed() < (base * SERVICE_STEP_BYTES).cast_signed() {
            return 0;
        }
        (key_bytes / SERVICE_STEP_BYTES).saturating_sub(base)
    }

    /// The largest debt to those that wait because they gave more than they got, parked ones included; 0 if
    /// nobody does. Few are parked at a time: each has most of its share of the window in flight.
    pub fn owed_waiting_bytes(&self, ledger: &Ledger) -> u64 {
        let parked = self.parked_links.iter(self.parked).filter(|&party| self.is_earned(party));
        let debts = self.queue.first(Class::Owed).into_iter().chain(parked).map(|party| {
            let Standing { received_bytes, sent_bytes } = ledger.standing(self.account(party));
            received_bytes.saturating_sub(sent_bytes)
        });
        debts.max().unwrap_or(0)
    }

    /// Whether those who wait in the party are there by what they gave.
    fn is_earned(&self, party: u32) -> bool {
        let first = self.parties.at(party).waiting.first();
        let seat = first.and_then(|index| self.seats[index as usize]);
        seat.is_some_and(|seat| seat.identity == party)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Demand, InFlight};
    use super::*;
    use crate::base::limits::{GRANT_GROUP_BYTES, GRANT_POOL_BYTES_MAX};
    use crate::base::time::Instant;
    use crate::shared::ledger::AccountId;

    const MIB: u64 = 1 << 20;

    fn conn(index: u32) -> ConnId {
        ConnId { index, generation: 0 }
    }

    /// A connection of a party of its own.
    fn enter(scheduler: &mut Scheduler, ledger: &Ledger, index: u32, key: u64) -> AccountId {
        let own = ledger.open(key);
        scheduler.enter(conn(index), Membership { own, balance: own, group: own });
        own
    }

    #[test]
    fn what_is_shown_is_the_class_in_which_it_is_served() {
        let (mut scheduler, ledger) = (Scheduler::new(Instant(0)), Ledger::new(16));
        let own = enter(&mut scheduler, &ledger, 0, 7);
        let turn = |scheduler: &Scheduler| scheduler.outlook(conn(0), &ledger).unwrap();
        assert_eq!((turn(&scheduler).class, turn(&scheduler).waits), (Class::Grant, false));
        assert_eq!(scheduler.outlook(conn(1), &ledger), None, "it has no seat");
        let mut expect = |class, balance: &str| {
            scheduler.wait(conn(0), Demand::default(), &ledger);
            assert_eq!((turn(&scheduler).class, turn(&scheduler).waits), (class, true), "{balance}");
            let turn = scheduler.pick(&ledger).unwrap();
            assert_eq!((turn.conn, turn.class), (conn(0), class), "{balance}");
        };
        ledger.grant(own, GRANT_GROUP_BYTES);
        expect(Class::Rest, "nothing given, nothing left to be granted");
        ledger.credit(7, MIB);
        expect(Class::Owed, "a MiB given");
        ledger.debit(own, MIB);
        expect(Class::Excess, "even");
        ledger.debit(own, 100 * MIB);
        expect(Class::Rest, "many times what it gave");
        scheduler.wait(conn(0), Demand { again: true, ..Demand::default() }, &ledger);
        assert_eq!(turn(&scheduler).class, Class::Again);
    }

    #[test]
    fn who_was_served_more_stands_further_behind_among_the_rest() {
        let (mut scheduler, ledger) = (Scheduler::new(Instant(0)), Ledger::new(16));
        for (index, key) in [(0, 7), (1, 9)] {
            let own = enter(&mut scheduler, &ledger, index, key);
            ledger.grant(own, GRANT_GROUP_BYTES);
            scheduler.wait(conn(index), Demand::default(), &ledger);
        }
        let turn = scheduler.pick(&ledger).unwrap();
        let first = turn.conn;
        let begun = scheduler.charge(turn, 5 * SERVICE_STEP_BYTES, &ledger).unwrap();
        scheduler.end(begun, &ledger);
        let other = conn(1 - first.index);
        let places = [first, other].map(|conn| scheduler.outlook(conn, &ledger).unwrap().place);
        assert_eq!(places, [5, 0]);
    }

    #[test]
    fn the_debt_that_waits_is_the_largest_and_nothing_when_nobody_waits() {
        let (mut scheduler, ledger) = (Scheduler::new(Instant(0)), Ledger::new(16));
        for (index, key, given) in [(0, 7, 2 * MIB), (1, 9, 9 * MIB)] {
            enter(&mut scheduler, &ledger, index, key);
            ledger.credit(key, given);
            assert_eq!(scheduler.outlook(conn(index), &ledger).unwrap().members, 1);
        }
        assert_eq!(scheduler.owed_waiting_bytes(&ledger), 0);
        scheduler.wait(conn(0), Demand::default(), &ledger);
        assert_eq!(scheduler.owed_waiting_bytes(&ledger), 2 * MIB);
        scheduler.wait(conn(1), Demand::default(), &ledger);
        assert_eq!(scheduler.owed_waiting_bytes(&ledger), 9 * MIB);
        let turn = scheduler.pick(&ledger).unwrap();
        assert_eq!((turn.conn, turn.class), (conn(1), Class::Owed));
        assert_eq!(scheduler.owed_waiting_bytes(&ledger), 2 * MIB);
    }

    #[test]
    fn a_creditor_that_has_its_share_in_flight_waits_too_and_who_is_owed_nothing_does_not_count() {
        let (mut scheduler, ledger) = (Scheduler::new(Instant(0)), Ledger::new(16));
        for (index, key) in [(0, 7), (1, 7), (2, 9), (3, 9)] {
            enter(&mut scheduler, &ledger, index, key);
        }
        ledger.credit(7, 9 * MIB);
        scheduler.pool_bytes = GRANT_POOL_BYTES_MAX;
        for index in 0..4 {
            scheduler.wait(conn(index), Demand::default(), &ledger);
        }
        let mut sent = Vec::new();
        // The newcomers first, then the creditor: both have as much in flight as they may.
        while let Some(turn) = scheduler.pick(&ledger) {
            sent.push(scheduler.charge(turn, turn.bytes, &ledger).unwrap());
        }
        assert_eq!((scheduler.queue.len(), scheduler.waiting_parties()), (0, 2), "all that wait are parked");
        let owed =
            sent.iter().filter(|sent| sent.begun.class == Class::Owed).map(InFlight::bytes).sum::<u64>();
        assert!(owed > 0);
        assert_eq!(scheduler.owed_waiting_bytes(&ledger), 9 * MIB - owed);
        [0, 1].into_iter().for_each(|index| scheduler.forget(conn(index)));
        assert_eq!(scheduler.owed_waiting_bytes(&ledger), 0, "the others are owed nothing");
    }
}
