//! How many connections strangers may bring: caps per public address, per group of addresses and on all, and
//! on handshakes that have not come yet, per core (threats P1, P3, P5). Local networks and friends are the
//! operator's own and exempt.
//!
//! A handshake comes within a round trip, so of too many that are awaited the oldest is worth least: of the
//! group that has most, one host with a whole network gives way to everybody else, and not they to it.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;

use crate::base::address::{GroupKey, home};
use crate::base::ids::ConnId;
use crate::base::limits::{
    CONNECTIONS_PER_GROUP_MAX, CONNECTIONS_PER_PUBLIC_ADDRESS_MAX, HALF_OPEN_MAX, STRANGERS_MAX,
};
use crate::base::network::Grouping;

/// How a connection stands in the counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Counted {
    /// Not at all: from a local network, dialled by us, or refused.
    #[default]
    Not,
    /// Its handshake is awaited.
    HalfOpen,
    /// It is awaited no more: messages flow, or it gave way and is being closed.
    Open,
}

/// The strangers of one core. Invariant: what `enter` counted, `leave` takes back once.
#[derive(Debug, Default)]
pub struct Strangers {
    grouping: Grouping,
    connections: u32,
    half_open: u32,
    /// How often one entered: half-open ones are told apart by it, and the oldest has the least.
    entered: u64,
    by_home: HashMap<IpAddr, u32>,
    groups: HashMap<GroupKey, Group>,
    /// Groups with half-open connections; the last one is the next to give way.
    crowds: BTreeSet<Crowd>,
}

/// Half-open connections of a group, and its oldest.
type Crowd = (usize, Reverse<u64>, GroupKey);

#[derive(Debug, Default)]
struct Group {
    connections: u32,
    /// Half-open ones, in the order of their coming.
    half_open: VecDeque<(u64, ConnId)>,
}

impl Strangers {
    /// Nobody yet; who is a stranger is for the operator to say.
    pub fn new(grouping: Grouping) -> Self {
        Self { grouping, ..Self::default() }
    }

    /// A connection from `address` came. `None` if it is one too many. See [`Self::surplus`].
    pub fn enter(&mut self, conn: ConnId, address: IpAddr) -> Option<Counted> {
        if !self.grouping.is_stranger(address) {
            return Some(Counted::Not);
        }
        let (home, key) = (home(address), self.grouping.group_key(address));
        let present = self.by_home.get(&home).copied().unwrap_or(0);
        let group = self.groups.get(&key).map_or(0, |group| group.connections);
        if present >= CONNECTIONS_PER_PUBLIC_ADDRESS_MAX
            || group >= CONNECTIONS_PER_GROUP_MAX
            || self.connections >= STRANGERS_MAX
        {
            return None;
        }
        self.connections += 1;
        self.half_open += 1;
        self.entered += 1;
        self.by_home.insert(home, present + 1);
        let at = self.entered;
        self.change(key, |group| {
            group.connections += 1;
            group.half_open.push_back((at, conn));
        });
        Some(Counted::HalfOpen)
    }

    /// The half-open connection that is to be closed after one entered, if these are too many now: the oldest
    /// of the group that has most. It counts as one that is open from here on.
    pub fn surplus(&mut self) -> Option<ConnId> {
        if self.half_open <= HALF_OPEN_MAX {
            return None;
        }
        let &(_, _, key) = self.crowds.last()?;
        let (_, conn) = self.change(key, |group| group.half_open.pop_front())?;
        self.half_open -= 1;
        Some(conn)
    }

    /// Its handshake came.
    pub fn open(&mut self, conn: ConnId, address: IpAddr, counted: &mut Counted) {
        if *counted == Counted::HalfOpen {
            *counted = Counted::Open;
            self.half_open -= 1;
            let key = self.grouping.group_key(address);
            self.change(key, |group| group.half_open.retain(|&(_, other)| other != conn));
        }
    }

    /// It ended, or went to another core.
    pub fn leave(&mut self, conn: ConnId, address: IpAddr, mut counted: Counted) {
        if counted == Counted::Not {
            return;
        }
        self.open(conn, address, &mut counted);
        self.connections -= 1;
        let home = home(address);
        match self.by_home.get_mut(&home) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.by_home.remove(&home)),
        }
        self.change(self.grouping.group_key(address), |group| group.connections -= 1);
    }

    /// Changes a group, keeps its place among the crowds, and forgets it when it has nobody.
    fn change<T>(&mut self, key: GroupKey, change: impl FnOnce(&mut Group) -> T) -> T {
        let group = self.groups.entry(key).or_default();
        if let Some(crowd) = group.crowd(key) {
            self.crowds.remove(&crowd);
        }
        let outcome = change(group);
        self.crowds.extend(group.crowd(key));
        if group.connections == 0 {
            self.groups.remove(&key);
        }
        outcome
    }

    /// Whether nobody is counted.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        let none = self.by_home.is_empty() && self.groups.is_empty() && self.crowds.is_empty();
        self.connections == 0 && self.half_open == 0 && none
    }
}

impl Group {
    fn crowd(&self, key: GroupKey) -> Option<Crowd> {
        self.half_open.front().map(|&(oldest, _)| (self.half_open.len(), Reverse(oldest), key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::network::GroupPrefixes;
    use crate::base::rng::Rng;

    const FIRST: ConnId = conn(0);

    const fn conn(index: u32) -> ConnId {
        ConnId { index, generation: 0 }
    }

    fn public(n: u32) -> IpAddr {
        IpAddr::from((0x0808_0000 | n).to_be_bytes())
    }

    /// A host of an IPv6 network, both by number.
    fn v6(network: u16, host: u16) -> IpAddr {
        IpAddr::from([0x2600, 0, network, host, 0, 0, 0, 1])
    }

    #[test]
    fn p5_one_public_address_brings_so_many_and_no_more_however_it_is_spelt() {
        for (a, b) in [("8.8.8.8", "::ffff:8.8.8.8"), ("2600::1", "2600::ffff:0:0:2")] {
            let (a, b): (IpAddr, IpAddr) = (a.parse().unwrap(), b.parse().unwrap());
            let mut strangers = Strangers::default();
            for n in 0..CONNECTIONS_PER_PUBLIC_ADDRESS_MAX {
                let address = if n % 2 == 0 { a } else { b };
                assert_eq!(strangers.enter(conn(n), address), Some(Counted::HalfOpen), "{n}");
            }
            assert_eq!((strangers.enter(conn(7), a), strangers.enter(conn(8), b)), (None, None));
            assert!(strangers.enter(conn(9), "2600:1::1".parse().unwrap()).is_some(), "another network");
            strangers.leave(conn(1), b, Counted::HalfOpen);
            assert!(strangers.enter(conn(7), a).is_some(), "one left, one may come");
        }
    }

    #[test]
    fn p3_one_host_that_has_a_whole_network_keeps_nobody_else_out() {
        let mut strangers = Strangers::default();
        let each = CONNECTIONS_PER_PUBLIC_ADDRESS_MAX;
        for n in 0..HALF_OPEN_MAX {
            assert_eq!(strangers.enter(conn(n), v6(1, (n / each) as u16)), Some(Counted::HalfOpen));
            assert_eq!(strangers.surplus(), None, "{n}");
        }
        for n in 0..100 {
            let newcomer = conn(HALF_OPEN_MAX + n);
            assert!(strangers.enter(newcomer, public(n << 8)).is_some());
            assert_eq!(strangers.surplus(), Some(conn(n)), "its oldest");
            strangers.leave(conn(n), v6(1, (n / each) as u16), Counted::Open);
        }
        // It comes again and again, and only its own make room for it.
        for n in 0..100 {
            assert!(strangers.enter(conn(5_000 + n), v6(1, (1_000 + n) as u16)).is_some());
            assert_eq!(strangers.surplus(), Some(conn(100 + n)));
        }
        let local = |address: &str| address.parse().unwrap();
        for address in ["127.0.0.1", "10.1.2.3", "192.168.0.1", "::1", "fd00::1", "169.254.1.1"] {
            for _ in 0..100 {
                assert_eq!(strangers.enter(FIRST, local(address)), Some(Counted::Not), "{address}");
            }
        }
        assert_eq!(strangers.surplus(), None);
    }

    #[test]
    fn p3_of_groups_that_have_as_many_the_one_gives_way_that_came_first() {
        let mut strangers = Strangers::default();
        for n in 0..=HALF_OPEN_MAX {
            assert!(strangers.enter(conn(n), public(n << 6)).is_some());
        }
        assert_eq!(strangers.surplus(), Some(conn(0)));
        let mut opened = Counted::HalfOpen;
        strangers.open(conn(1), public(1 << 6), &mut opened);
        strangers.open(conn(1), public(1 << 6), &mut opened);
        assert_eq!(opened, Counted::Open);
        assert!(strangers.enter(conn(3_000), public(3_000 << 6)).is_some());
        assert_eq!(strangers.surplus(), None, "a handshake came: room for one");
    }

    #[test]
    fn p5_a_group_brings_so_many_and_others_may_still_come() {
        let mut strangers = Strangers::default();
        for n in 0..CONNECTIONS_PER_GROUP_MAX + 2 {
            let mut counted = strangers.enter(conn(n), v6(1, n as u16));
            assert_eq!(counted.is_some(), n < CONNECTIONS_PER_GROUP_MAX, "{n}");
            counted.iter_mut().for_each(|counted| strangers.open(conn(n), v6(1, n as u16), counted));
        }
        assert!(strangers.enter(conn(9_999), v6(2, 0)).is_some());
        strangers.leave(conn(7), v6(1, 7), Counted::Open);
        assert!(strangers.enter(conn(7), v6(1, 5_000)).is_some(), "one left, one may come");
    }

    #[test]
    fn p5_strangers_leave_places_to_those_whom_we_dial() {
        let mut strangers = Strangers::default();
        let of = |n: u32| v6((n / CONNECTIONS_PER_GROUP_MAX) as u16, (n % CONNECTIONS_PER_GROUP_MAX) as u16);
        for n in 0..STRANGERS_MAX + 2 {
            let mut counted = strangers.enter(conn(n), of(n));
            assert_eq!(counted.is_some(), n < STRANGERS_MAX, "{n}");
            counted.iter_mut().for_each(|counted| strangers.open(conn(n), of(n), counted));
        }
        strangers.leave(conn(7), of(7), Counted::Open);
        assert!(strangers.enter(conn(7), of(STRANGERS_MAX)).is_some(), "one left, one may come");
    }

    #[test]
    fn friends_bring_as_many_as_they_like() {
        let friends = vec!["8.8.0.0/16".parse().unwrap()];
        let mut strangers = Strangers::new(Grouping::new(friends, GroupPrefixes::default()).unwrap());
        for _ in 0..=CONNECTIONS_PER_PUBLIC_ADDRESS_MAX {
            assert_eq!(strangers.enter(FIRST, public(1)), Some(Counted::Not));
        }
        assert_eq!(strangers.enter(FIRST, "8.9.0.1".parse().unwrap()), Some(Counted::HalfOpen));
    }

    #[test]
    fn counts_go_back_to_nothing_whatever_happens() {
        let (mut strangers, mut rng) = (Strangers::default(), Rng::new(3));
        let mut present: Vec<(ConnId, IpAddr, Counted)> = Vec::new();
        for n in 0..20_000 {
            let at = rng.below(present.len().max(1) as u32) as usize;
            match rng.below(4) {
                0 | 1 => {
                    let address = public(rng.below(1 << 13));
                    present
                        .extend(strangers.enter(conn(n), address).map(|counted| (conn(n), address, counted)));
                    if let Some(gone) = strangers.surplus() {
                        let place = present.iter().position(|&(conn, ..)| conn == gone).unwrap();
                        assert_eq!(present[place].2, Counted::HalfOpen);
                        present[place].2 = Counted::Open;
                    }
                }
                2 => present.iter_mut().skip(at).take(1).for_each(|(conn, address, counted)| {
                    strangers.open(*conn, *address, counted);
                }),
                _ if !present.is_empty() => {
                    let (conn, address, counted) = present.swap_remove(at);
                    strangers.leave(conn, address, counted);
                }
                _ => {}
            }
            assert!(strangers.half_open <= HALF_OPEN_MAX);
            let waiting = present.iter().filter(|(.., counted)| *counted == Counted::HalfOpen).count();
            assert_eq!(strangers.half_open as usize, waiting);
        }
        strangers.leave(FIRST, public(1), Counted::Not);
        present.drain(..).for_each(|(conn, address, counted)| strangers.leave(conn, address, counted));
        assert!(strangers.is_empty());
    }
}
