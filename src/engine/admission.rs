//! How many connections strangers may bring: caps per public address and on handshakes that have
//! not come yet, per core (threats P1, P3, P5). Local networks and friends are the operator's own and exempt.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use crate::base::address::canonical;
use crate::base::limits::{CONNECTIONS_PER_PUBLIC_ADDRESS_MAX, HALF_OPEN_MAX};
use crate::base::network::Grouping;

/// How a connection stands in the counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Counted {
    /// Not at all: from a local network, dialled by us, or refused.
    #[default]
    Not,
    /// Its handshake is awaited.
    HalfOpen,
    /// Messages flow.
    Open,
}

/// The strangers of one core. Invariant: what `enter` counted, `leave` takes back once.
#[derive(Debug, Default)]
pub struct Strangers {
    grouping: Grouping,
    half_open: u32,
    connections: HashMap<IpAddr, u32>,
}

impl Strangers {
    /// Nobody yet; who is a stranger is for the operator to say.
    pub fn new(grouping: Grouping) -> Self {
        Self { grouping, ..Self::default() }
    }

    /// A connection from `address` came. `None` if it is one too many.
    pub fn enter(&mut self, address: IpAddr) -> Option<Counted> {
        if !self.grouping.is_stranger(address) {
            return Some(Counted::Not);
        }
        let home = home(address);
        let present = self.connections.get(&home).copied().unwrap_or(0);
        if self.half_open >= HALF_OPEN_MAX || present >= CONNECTIONS_PER_PUBLIC_ADDRESS_MAX {
            return None;
        }
        self.half_open += 1;
        self.connections.insert(home, present + 1);
        Some(Counted::HalfOpen)
    }

    /// Its handshake came.
    pub fn open(&mut self, counted: &mut Counted) {
        if *counted == Counted::HalfOpen {
            *counted = Counted::Open;
            self.half_open -= 1;
        }
    }

    /// It ended, or went to another core.
    pub fn leave(&mut self, address: IpAddr, counted: Counted) {
        if counted == Counted::Not {
            return;
        }
        self.half_open -= u32::from(counted == Counted::HalfOpen);
        let home = home(address);
        match self.connections.get_mut(&home) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.connections.remove(&home)),
        }
    }

    /// Whether nobody is counted.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.half_open == 0 && self.connections.is_empty()
    }
}

/// What counts as one address: an IPv4 address however it is wrapped, or the /64 that any IPv6 host
/// has to itself.
fn home(address: IpAddr) -> IpAddr {
    match canonical(address) {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::network::GroupPrefixes;

    fn public(n: u32) -> IpAddr {
        IpAddr::from((0x0808_0000 | n).to_be_bytes())
    }

    #[test]
    fn p5_one_public_address_brings_so_many_and_no_more_however_it_is_spelt() {
        for (a, b) in [("8.8.8.8", "::ffff:8.8.8.8"), ("2600::1", "2600::ffff:0:0:2")] {
            let (a, b): (IpAddr, IpAddr) = (a.parse().unwrap(), b.parse().unwrap());
            let mut strangers = Strangers::default();
            for n in 0..CONNECTIONS_PER_PUBLIC_ADDRESS_MAX {
                let address = if n % 2 == 0 { a } else { b };
                assert_eq!(strangers.enter(address), Some(Counted::HalfOpen), "{n}");
            }
            assert_eq!((strangers.enter(a), strangers.enter(b)), (None, None));
            assert!(strangers.enter("2600:1::1".parse().unwrap()).is_some(), "another network");
            strangers.leave(b, Counted::HalfOpen);
            assert!(strangers.enter(a).is_some(), "one left, one may come");
        }
    }

    #[test]
    fn p3_handshakes_that_do_not_come_stop_strangers_at_the_limit_and_nobody_else() {
        let mut strangers = Strangers::default();
        for n in 0..HALF_OPEN_MAX {
            assert_eq!(strangers.enter(public(n)), Some(Counted::HalfOpen), "{n}");
        }
        assert_eq!(strangers.enter(public(HALF_OPEN_MAX)), None);
        for local in ["127.0.0.1", "10.1.2.3", "192.168.0.1", "::1", "fd00::1", "169.254.1.1"] {
            for _ in 0..100 {
                assert_eq!(strangers.enter(local.parse().unwrap()), Some(Counted::Not), "{local}");
            }
        }
        let mut one = Counted::HalfOpen;
        strangers.open(&mut one);
        assert_eq!(one, Counted::Open);
        strangers.open(&mut one);
        assert!(strangers.enter(public(HALF_OPEN_MAX)).is_some(), "a handshake came: room for one");
        assert_eq!(strangers.enter(public(HALF_OPEN_MAX + 1)), None);
    }

    #[test]
    fn friends_bring_as_many_as_they_like() {
        let friends = vec!["8.8.0.0/16".parse().unwrap()];
        let mut strangers = Strangers::new(Grouping::new(friends, GroupPrefixes::default()).unwrap());
        for _ in 0..=CONNECTIONS_PER_PUBLIC_ADDRESS_MAX {
            assert_eq!(strangers.enter(public(1)), Some(Counted::Not));
        }
        assert_eq!(strangers.enter("8.9.0.1".parse().unwrap()), Some(Counted::HalfOpen));
    }

    #[test]
    fn counts_go_back_to_nothing() {
        let mut strangers = Strangers::default();
        let mut opened = strangers.enter(public(1)).unwrap();
        strangers.open(&mut opened);
        let waiting = strangers.enter(public(1)).unwrap();
        strangers.leave(public(1), opened);
        assert!(!strangers.is_empty());
        strangers.leave(public(1), waiting);
        strangers.leave(public(1), Counted::Not);
        assert!(strangers.is_empty());
    }
}
