//! How much of what others ask is answered: so much per address, and so much altogether (threats D1).
//!
//! Source addresses are forged easily. Whoever is sent answers that it did not ask for gets at most a few
//! small datagrams a second from this node.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use crate::base::address::AddressClass;
use crate::base::time::{Instant, Span};

/// A right that grows with time, up to four seconds' worth.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    /// In nanoseconds of growth.
    credit_ns: u64,
    at: Instant,
}

/// So long may a burst be saved up.
const BURST: Span = Span::from_secs(4);

impl Bucket {
    /// Full.
    pub const fn new(now: Instant) -> Self {
        Self { credit_ns: BURST.0, at: now }
    }

    /// Takes `amount` of something of which each second brings `per_sec`, if there is as much.
    pub fn take(&mut self, amount: u32, per_sec: u32, now: Instant) -> bool {
        self.credit_ns = (self.credit_ns + now.since(self.at).0).min(BURST.0);
        self.at = self.at.max(now);
        let price = u64::from(amount) * 1_000_000_000 / u64::from(per_sec.max(1));
        let enough = price <= self.credit_ns;
        if enough {
            self.credit_ns -= price;
        }
        enough
    }

    /// Whether nothing was taken lately.
    fn is_full(&self, now: Instant) -> bool {
        self.credit_ns + now.since(self.at).0 >= BURST.0
    }
}

/// Counts what comes from each address: a public one whatever its port, on local networks with its port.
#[derive(Debug)]
pub struct Guard {
    per_sec: u32,
    max: usize,
    askers: HashMap<(IpAddr, u16), Bucket>,
}

impl Guard {
    /// Lets through `per_sec` of each of at most `max` addresses; of more, nothing.
    pub fn new(per_sec: u32, max: usize) -> Self {
        Self { per_sec, max, askers: HashMap::new() }
    }

    /// Whether one more datagram of `from` is looked at.
    pub fn admits(&mut self, from: SocketAddr, now: Instant) -> bool {
        let port = if AddressClass::of(from.ip()).is_stranger() { 0 } else { from.port() };
        let key = (from.ip(), port);
        if self.askers.len() >= self.max && !self.askers.contains_key(&key) {
            self.askers.retain(|_, bucket| !bucket.is_full(now));
            if self.askers.len() >= self.max {
                return false;
            }
        }
        self.askers.entry(key).or_insert_with(|| Bucket::new(now)).take(1, self.per_sec, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant(5);

    fn at(host: u8, port: u16) -> SocketAddr {
        SocketAddr::from(([8, 8, 8, host], port))
    }

    #[test]
    fn d1_an_address_is_answered_so_often_whatever_its_port() {
        let mut guard = Guard::new(5, 8);
        let taken = |guard: &mut Guard, now| (0..100).filter(|&n| guard.admits(at(1, n + 1), now)).count();
        assert_eq!(taken(&mut guard, NOW), 20, "a burst");
        assert_eq!(taken(&mut guard, NOW + Span::from_secs(2)), 10);
        assert_eq!(taken(&mut guard, NOW + Span::from_secs(100)), 20);
        let local = |guard: &mut Guard, port| guard.admits(SocketAddr::from(([127, 0, 0, 1], port)), NOW);
        assert!((1..=7).all(|port| local(&mut guard, port)), "neighbours by their ports");
    }

    #[test]
    fn d1_so_many_addresses_are_counted_and_the_others_wait() {
        for count in [7u8, 8, 9] {
            let mut guard = Guard::new(5, 8);
            let admitted = (0..count).filter(|&host| guard.admits(at(host, 1), NOW)).count();
            assert_eq!(admitted, usize::from(count.min(8)));
            assert!(guard.admits(at(200, 1), NOW + BURST), "who was silent makes room");
        }
    }
}
