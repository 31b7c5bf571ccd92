//! Parties: the connections of one account on this core, and what they have in flight together.

use std::collections::HashMap;

use super::flight::{Flight, PATIENCE};
use super::lists::{Links, List};
use super::window::Reader;
use crate::base::limits::MEMBER_TURN_BYTES;
use crate::base::time::Instant;
use crate::shared::ledger::AccountId;

/// The party of all who want of a seed only what others have or are being given; it has no account.
pub const AGAIN: u32 = 0;

/// Connections of one account.
#[derive(Debug)]
pub struct Party {
    /// None of `AGAIN` only.
    pub account: Option<AccountId>,
    /// Those that wait, by index, in turn.
    pub waiting: List,
    /// The service of its account at which its service on this core began; none before the first look.
    pub since_bytes: Option<u64>,
    /// Payload of its connections that is in flight.
    pub flight: Flight,
    /// How it read what it was sent last.
    pub reader: Reader,
    /// When something was sent to a connection of it last, in whatever party that waited.
    pub served_at: Option<Instant>,
    /// Connections in it, whether they wait or not.
    pub(super) members: u32,
    sends: u32,
    busy: bool,
    /// Tells apart parties that had the same number.
    generation: u32,
    turn: Option<MemberTurn>,
}

/// The turn of one connection of a party, from its first send until the next connection's.
#[derive(Clone, Copy, Debug)]
struct MemberTurn {
    /// By index.
    conn: u32,
    /// What it got so far.
    bytes: u64,
    /// When its last send began.
    epoch: u64,
    /// Whether the kernel was asked, a moment ago, what it has not sent of that.
    asked: bool,
}

/// Whether the next connection of a party may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Yes.
    Free,
    /// Only when what this one got has left the machine: ask about it.
    Ask(u32),
    /// The same, and it was asked a moment ago.
    Asked,
}

/// A party, which may be gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartyId {
    pub(super) number: u32,
    generation: u32,
}

/// All parties of a core, by number. `AGAIN` is always there.
#[derive(Debug)]
pub struct Parties {
    all: Vec<Party>,
    vacant: Vec<u32>,
    by_account: HashMap<AccountId, u32>,
    busy: u32,
}

impl Party {
    fn new(account: Option<AccountId>, generation: u32) -> Self {
        Self {
            account,
            waiting: List::default(),
            since_bytes: None,
            flight: Flight::default(),
            reader: Reader::default(),
            served_at: None,
            members: 1,
            sends: 0,
            busy: false,
            generation,
            turn: None,
        }
    }

    /// One of its connections comes to wait: before the others while its turn is not over.
    pub fn wait(&mut self, conn: u32, links: &mut Links) {
        if self.turn.is_some_and(|turn| turn.goes_on(conn)) {
            links.push_front(&mut self.waiting, conn);
        } else {
            links.push_back(&mut self.waiting, conn);
        }
    }

    /// Whether something that it was sent is stuck: in flight, and counts no longer.
    pub fn is_stuck(&mut self, epoch: u64) -> bool {
        if self.sends == 0 {
            return false;
        }
        self.flight.roll_to(epoch);
        self.flight.counted_bytes() == 0
    }

    /// Whether the turn among its members is that of a connection, by index.
    pub fn is_turn_of(&self, conn: u32) -> bool {
        self.turn.is_some_and(|turn| turn.conn == conn)
    }

    /// Whether the connection that is first may begin, or the one before it still stands in our queue.
    pub fn next(&mut self, epoch: u64) -> Next {
        let first = self.waiting.first();
        let held = |turn: &&mut MemberTurn| Some(turn.conn) != first && epoch - turn.epoch < PATIENCE as u64;
        match self.turn.as_mut().filter(held) {
            None => Next::Free,
            Some(turn) if turn.asked => Next::Asked,
            Some(turn) => {
                turn.asked = true;
                Next::Ask(turn.conn)
            }
        }
    }

    /// The kernel may be asked anew.
    pub fn ask_anew(&mut self) {
        self.turn.iter_mut().for_each(|turn| turn.asked = false);
    }

    /// Nothing of what the connection got stands in our queue, or it is gone: its turn is over.
    pub fn end_turn(&mut self, conn: u32) -> bool {
        self.turn.take_if(|turn| turn.conn == conn).is_some()
    }
}

impl MemberTurn {
    const fn goes_on(self, conn: u32) -> bool {
        self.conn == conn && self.bytes < MEMBER_TURN_BYTES
    }
}

impl Default for Parties {
    fn default() -> Self {
        Self { all: vec![Party::new(None, 0)], vacant: Vec::new(), by_account: HashMap::new(), busy: 0 }
    }
}

impl Parties {
    /// How many numbers are in use, or were.
    #[cfg(test)]
    pub const fn len(&self) -> usize {
        self.all.len()
    }

    /// A party that has members.
    pub fn at(&self, party: u32) -> &Party {
        &self.all[party as usize]
    }

    /// See `at`.
    pub fn at_mut(&mut self, party: u32) -> &mut Party {
        &mut self.all[party as usize]
    }

    /// Parties that wait or have something in flight.
    pub const fn busy(&self) -> u32 {
        self.busy
    }

    /// How many accounts have connections.
    #[cfg(test)]
    pub fn accounts(&self) -> usize {
        self.by_account.len()
    }

    /// The party of an account, with one member more.
    pub fn join(&mut self, account: AccountId) -> u32 {
        if let Some(&party) = self.by_account.get(&account) {
            self.at_mut(party).members += 1;
            return party;
        }
        let party = match self.vacant.pop() {
            Some(number) => {
                let generation = self.at(number).generation.wrapping_add(1);
                *self.at_mut(number) = Party::new(Some(account), generation);
                number
            }
            None => {
                self.all.push(Party::new(Some(account), 0));
                self.all.len() as u32 - 1
            }
        };
        self.by_account.insert(account, party);
        party
    }

    /// A party has one member less, which does not wait. What it has in flight is forgotten with the last.
    pub fn leave(&mut self, number: u32) {
        let party = self.at_mut(number);
        party.members -= 1;
        if party.members > 0 {
            return;
        }
        assert!(party.waiting.is_empty());
        party.sends = 0;
        if let Some(account) = party.account {
            self.by_account.remove(&account);
        }
        self.review(number);
        self.vacant.push(number);
    }

    /// A send of a connection, by index, begins.
    #[cfg(test)]
    pub fn begin(&mut self, number: u32, conn: u32, epoch: u64, bytes: u64) -> PartyId {
        self.begin_aged(number, conn, [epoch; 2], bytes)
    }

    /// The same in the first of two epochs; it counts as if it had begun in the other one.
    pub fn begin_aged(&mut self, number: u32, conn: u32, [epoch, begun]: [u64; 2], bytes: u64) -> PartyId {
        let party = self.at_mut(number);
        party.flight.begin_aged(epoch, begun, bytes);
        party.sends += 1;
        let before = party.turn.filter(|turn| turn.goes_on(conn)).map_or(0, |turn| turn.bytes);
        party.turn = Some(MemberTurn { conn, bytes: before + bytes, epoch, asked: false });
        let generation = party.generation;
        self.review(number);
        PartyId { number, generation }
    }

    /// It ended; false if the party is gone.
    pub fn end(&mut self, id: PartyId, epoch: u64, begun: u64, bytes: u64) -> bool {
        let party = self.at_mut(id.number);
        if party.generation != id.generation || party.sends == 0 {
            return false;
        }
        party.flight.end(epoch, begun, bytes);
        party.sends -= 1;
        self.review(id.number);
        true
    }

    /// Who waits in the party, or what it has in flight, has changed.
    pub fn review(&mut self, number: u32) {
        let party = self.at_mut(number);
        let busy = party.sends > 0 || !party.waiting.is_empty();
        match (std::mem::replace(&mut party.busy, busy), busy) {
            (false, true) => self.busy += 1,
            (true, false) => self.busy -= 1,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    #[test]
    fn a_member_goes_on_until_its_turn_is_over() {
        for (bytes, stays) in
            [(MEMBER_TURN_BYTES - 1, true), (MEMBER_TURN_BYTES, false), (MEMBER_TURN_BYTES + 1, false)]
        {
            let (mut parties, mut links) = (Parties::default(), Links::default());
            let party = parties.join(AccountId::from_index(7));
            parties.begin(party, 1, 0, bytes);
            [2, 1].into_iter().for_each(|conn| parties.at_mut(party).wait(conn, &mut links));
            let first = if stays { 1 } else { 2 };
            assert_eq!(parties.at(party).waiting.first(), Some(first), "after {bytes}");
        }
    }

    #[test]
    fn the_next_member_waits_for_what_the_one_before_got_but_not_for_long() {
        let (mut parties, mut links) = (Parties::default(), Links::default());
        let number = parties.join(AccountId::from_index(7));
        parties.at_mut(number).wait(2, &mut links);
        assert_eq!(parties.at_mut(number).next(9), Next::Free, "nobody began before");
        parties.begin(number, 1, 9, MEMBER_TURN_BYTES);
        let party = parties.at_mut(number);
        let patience = PATIENCE as u64;
        for (epoch, next) in [(9, Next::Ask(1)), (8 + patience, Next::Asked), (9 + patience, Next::Free)] {
            assert_eq!(party.next(epoch), next, "epoch {epoch}");
        }
        party.ask_anew();
        assert_eq!(party.next(9), Next::Ask(1));
        assert!(!party.end_turn(2) && party.end_turn(1) && !party.end_turn(1), "it ends once, and its own");
        assert_eq!(party.next(9), Next::Free);
    }

    #[test]
    fn a_member_does_not_wait_for_what_it_got_itself() {
        let (mut parties, mut links) = (Parties::default(), Links::default());
        let number = parties.join(AccountId::from_index(7));
        parties.begin(number, 1, 9, MEMBER_TURN_BYTES);
        parties.at_mut(number).wait(1, &mut links);
        assert_eq!(parties.at_mut(number).next(9), Next::Free);
    }

    #[test]
    fn what_a_party_that_is_gone_had_in_flight_ends_nowhere() {
        let mut parties = Parties::default();
        let party = parties.join(AccountId::from_index(7));
        let before = parties.begin(party, 1, 0, 5);
        parties.leave(party);
        assert_eq!((parties.busy(), parties.accounts()), (0, 0));
        assert_eq!(parties.join(AccountId::from_index(8)), party, "the number is used again");
        let now = parties.begin(party, 2, 0, 6);
        assert!(!parties.end(before, 0, 0, 5));
        assert_eq!(parties.at(party).flight.counted_bytes(), 6);
        assert!(parties.end(now, 0, 0, 6));
        assert_eq!((parties.at(party).flight.counted_bytes(), parties.busy()), (0, 0));
    }

    #[test]
    fn a_number_that_was_used_as_often_as_can_be_counted_is_used_again() {
        let mut parties = Parties::default();
        let party = parties.join(AccountId::from_index(7));
        parties.at_mut(party).generation = u32::MAX;
        let before = parties.begin(party, 1, 0, 5);
        parties.leave(party);
        assert_eq!(parties.join(AccountId::from_index(8)), party);
        parties.begin(party, 2, 0, 6);
        assert!(!parties.end(before, 0, 0, 5), "it is another party");
    }

    #[test]
    fn busy_is_who_waits_or_sends() {
        let (mut parties, mut links, mut rng) = (Parties::default(), Links::default(), Rng::new(9));
        let numbers: Vec<u32> = (1..9).map(|account| parties.join(AccountId::from_index(account))).collect();
        let mut sends: Vec<PartyId> = Vec::new();
        for _ in 0..5_000 {
            let at = rng.below(8);
            let number = numbers[at as usize];
            match rng.below(3) {
                0 if links.is_listed(at) => links.remove(&mut parties.at_mut(number).waiting, at),
                0 => parties.at_mut(number).wait(at, &mut links),
                1 => sends.push(parties.begin(number, at, 0, 1)),
                _ if !sends.is_empty() => {
                    let id = sends.swap_remove(rng.below(sends.len() as u32) as usize);
                    assert!(parties.end(id, 0, 0, 1));
                }
                _ => {}
            }
            parties.review(number);
            let busy = |&&number: &&u32| {
                !parties.at(number).waiting.is_empty() || sends.iter().any(|id| id.number == number)
            };
            assert_eq!(parties.busy() as usize, numbers.iter().filter(busy).count());
        }
    }
}
