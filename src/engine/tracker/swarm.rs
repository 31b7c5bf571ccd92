//! The peers of one torrent, as a tracker knows them.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;

use crate::base::limits::SERVED_LOOKS_PER_PEER;
use crate::base::rng::Rng;
use crate::base::time::{Instant, Span};
use crate::proto::tracker::serve::{Families, Scraped};

/// Which list a peer is on, where on it, and when it last announced.
#[derive(Clone, Copy, Debug)]
struct Place {
    list: usize,
    index: usize,
    at: Instant,
}

/// See the module. The lists are seeds and leechers of IPv4, then of IPv6.
#[derive(Debug)]
pub struct Swarm {
    places: HashMap<SocketAddr, Place>,
    lists: [Vec<SocketAddr>; 4],
    order: BTreeSet<(Instant, SocketAddr)>,
    completed: u64,
    announced_at: Instant,
}

impl Swarm {
    /// Nobody is there.
    pub fn new(now: Instant) -> Self {
        let (places, order) = (HashMap::new(), BTreeSet::new());
        Self { places, lists: [const { Vec::new() }; 4], order, completed: 0, announced_at: now }
    }

    /// How many peers there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// When somebody last announced.
    pub const fn announced_at(&self) -> Instant {
        self.announced_at
    }

    /// How many have become complete.
    pub const fn completed(&self) -> u64 {
        self.completed
    }

    /// Whether a peer is known and lacks something.
    pub fn is_leecher(&self, peer: SocketAddr) -> bool {
        self.places.get(&peer).is_some_and(|place| place.list % 2 == 1)
    }

    /// Seeds and leechers.
    pub fn counts(&self) -> (u32, u32) {
        let count = |first: usize| (self.lists[first].len() + self.lists[first + 2].len()) as u32;
        (count(0), count(1))
    }

    /// The same, and how many have become complete.
    pub fn scraped(&self) -> Scraped {
        let (seeders, leechers) = self.counts();
        Scraped { seeders, leechers, completed: u32::try_from(self.completed).unwrap_or(u32::MAX) }
    }

    /// A peer that is not there comes.
    pub fn enter(&mut self, peer: SocketAddr, seed: bool, completed: u64, now: Instant) {
        let list = 2 * usize::from(peer.is_ipv6()) + usize::from(!seed);
        self.places.insert(peer, Place { list, index: self.lists[list].len(), at: now });
        self.lists[list].push(peer);
        self.order.insert((now, peer));
        (self.completed, self.announced_at) = (completed, now);
    }

    /// Takes a peer out; when it had announced.
    pub fn remove(&mut self, peer: SocketAddr) -> Option<Instant> {
        let Place { list, index, at } = self.places.remove(&peer)?;
        self.order.remove(&(at, peer));
        self.lists[list].swap_remove(index);
        if let Some(moved) = self.lists[list].get(index)
            && let Some(place) = self.places.get_mut(moved)
        {
            place.index = index;
        }
        Some(at)
    }

    /// Who announced longest ago.
    pub fn oldest(&self) -> Option<SocketAddr> {
        self.order.first().map(|&(_, peer)| peer)
    }

    /// Somebody who announced longer than `age` ago.
    pub fn expired(&self, age: Span, now: Instant) -> Option<SocketAddr> {
        self.order.first().filter(|(at, _)| now.since(*at) > age).map(|&(_, peer)| peer)
    }

    /// Up to `wanted` peers from anywhere among them; a seed is told of no seeds.
    pub fn select(
        &self,
        wanted: usize,
        for_seed: bool,
        families: Families,
        may_hear: impl Fn(SocketAddr) -> bool,
        rng: &mut Rng,
    ) -> Vec<SocketAddr> {
        let mut parts: Vec<&[SocketAddr]> = Vec::new();
        for (index, list) in self.lists.iter().enumerate() {
            let wanted = families.has(index >= 2) && !(for_seed && index % 2 == 0);
            if wanted {
                parts.push(list);
            }
        }
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let begin = rng.below(u32::try_from(total).unwrap_or(u32::MAX)) as usize;
        let all = || parts.iter().flat_map(|part| part.iter().copied());
        let looks = total.min(wanted.saturating_mul(SERVED_LOOKS_PER_PEER));
        all().skip(begin).chain(all()).take(looks).filter(|&peer| may_hear(peer)).take(wanted).collect()
    }
}
