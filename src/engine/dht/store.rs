//! Peers that others announce to us, and the tokens that prove their addresses (BEP 5).

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use crate::base::address::AddressClass;
use crate::base::ids::InfoHash;
use crate::base::limits::{
    DHT_STORED_HASHES_MAX, DHT_STORED_MAX, DHT_STORED_PEERS_MAX, DHT_STORED_PER_ADDRESS_MAX, DHT_STORED_TIME,
    DHT_VALUES_SENT_MAX,
};
use crate::base::rng::Rng;
use crate::base::time::{Instant, Span};
use crate::hash::sha1::Sha1;

/// A token is good for as long again as it is given out.
const TOKEN_TIME: Span = Span::from_secs(5 * 60);

const TOKEN_BYTES: usize = 8;

/// Proof that somebody receives what is sent to an address.
#[derive(Debug)]
pub struct Tokens {
    secret: [u8; 32],
}

impl Tokens {
    /// `secret` is from the kernel's generator.
    pub const fn new(secret: [u8; 32]) -> Self {
        Self { secret }
    }

    /// The token of an address now.
    pub fn give(&self, to: IpAddr, now: Instant) -> Vec<u8> {
        self.of(to, now.0 / TOKEN_TIME.0)
    }

    /// Whether it is the address's token of this or the last period.
    pub fn is_good(&self, token: &[u8], from: IpAddr, now: Instant) -> bool {
        let period = now.0 / TOKEN_TIME.0;
        token == self.of(from, period) || period > 0 && token == self.of(from, period - 1)
    }

    fn of(&self, address: IpAddr, period: u64) -> Vec<u8> {
        let mut digest = Sha1::new();
        digest.update(&self.secret);
        digest.update(&period.to_be_bytes());
        match address {
            IpAddr::V4(v4) => digest.update(&v4.octets()),
            IpAddr::V6(v6) => digest.update(&v6.octets()),
        }
        digest.finish()[..TOKEN_BYTES].to_vec()
    }
}

/// The peers. Invariant: `order` has each of them once, the oldest first; `per_address` counts public ones.
#[derive(Debug, Default)]
pub struct Store {
    peers: HashMap<InfoHash, HashMap<SocketAddr, Instant>>,
    /// When each announce was made; one that was repeated since is behind, too.
    order: VecDeque<(Instant, InfoHash, SocketAddr)>,
    count: usize,
    per_address: HashMap<IpAddr, u32>,
}

impl Store {
    /// Somebody is a peer. Beyond a limit nothing changes: who came first stays until its time is over.
    pub fn add(&mut self, info_hash: InfoHash, peer: SocketAddr, now: Instant) {
        self.expire(now);
        if let Some(at) = self.peers.get_mut(&info_hash).and_then(|peers| peers.get_mut(&peer)) {
            if now.since(*at) >= TOKEN_TIME {
                *at = now;
                self.order.push_back((now, info_hash, peer));
            }
            return;
        }
        let is_public = AddressClass::of(peer.ip()).is_stranger();
        let of_address = self.per_address.get(&peer.ip()).copied().unwrap_or(0);
        let of_hash = self.peers.get(&info_hash).map(HashMap::len);
        let full = self.count >= DHT_STORED_MAX
            || of_hash.is_none() && self.peers.len() >= DHT_STORED_HASHES_MAX
            || of_hash.is_some_and(|peers| peers >= DHT_STORED_PEERS_MAX)
            || is_public && of_address >= DHT_STORED_PER_ADDRESS_MAX;
        if full {
            return;
        }
        self.peers.entry(info_hash).or_default().insert(peer, now);
        self.order.push_back((now, info_hash, peer));
        self.count += 1;
        if is_public {
            self.per_address.insert(peer.ip(), of_address + 1);
        }
    }

    /// Some peers of a torrent, others each time.
    pub fn peers(&mut self, info_hash: InfoHash, rng: &mut Rng, now: Instant) -> Vec<SocketAddr> {
        self.expire(now);
        let peers = self.peers.get(&info_hash).map(|peers| peers.keys().copied().collect());
        let mut peers: Vec<SocketAddr> = peers.unwrap_or_default();
        peers.sort_unstable();
        rng.shuffle(&mut peers);
        peers.truncate(DHT_VALUES_SENT_MAX);
        peers
    }

    /// How many peers are kept.
    pub const fn count(&self) -> usize {
        self.count
    }

    fn expire(&mut self, now: Instant) {
        while let Some(&(at, info_hash, peer)) = self.order.front()
            && now.since(at) >= DHT_STORED_TIME
        {
            self.order.pop_front();
            let Some(peers) = self.peers.get_mut(&info_hash) else { continue };
            if peers.get(&peer) != Some(&at) {
                continue;
            }
            peers.remove(&peer);
            if peers.is_empty() {
                self.peers.remove(&info_hash);
            }
            self.count -= 1;
            if let Some(count) = self.per_address.get_mut(&peer.ip()) {
                *count -= 1;
                if *count == 0 {
                    self.per_address.remove(&peer.ip());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant(1_000_000_000);

    fn hash(n: u32) -> InfoHash {
        let mut hash = InfoHash([0; 20]);
        hash.0[..4].copy_from_slice(&n.to_be_bytes());
        hash
    }

    fn public(n: u32, port: u16) -> SocketAddr {
        SocketAddr::from(([8, (n >> 16) as u8, (n >> 8) as u8, n as u8], port))
    }

    #[test]
    fn d1_a_token_is_good_for_its_address_and_a_while() {
        let (tokens, here) = (Tokens::new([1; 32]), public(1, 1).ip());
        let token = tokens.give(here, NOW);
        for (after, good) in [(0, true), (TOKEN_TIME.0, true), (2 * TOKEN_TIME.0, false)] {
            assert_eq!(tokens.is_good(&token, here, NOW + Span(after)), good, "{after}");
        }
        assert!(!tokens.is_good(&token, public(2, 1).ip(), NOW));
        assert!(!Tokens::new([2; 32]).is_good(&token, here, NOW) && !tokens.is_good(b"", here, NOW));
    }

    #[test]
    fn d3_a_flood_of_announces_stops_at_each_limit() {
        let count = |adds: &mut dyn Iterator<Item = (u32, SocketAddr)>| {
            let mut store = Store::default();
            adds.for_each(|(n, peer)| store.add(hash(n), peer, NOW));
            store.count()
        };
        for n in [DHT_STORED_HASHES_MAX - 1, DHT_STORED_HASHES_MAX, DHT_STORED_HASHES_MAX + 1] {
            let kept = count(&mut (0..n as u32).map(|n| (n, public(n, 1))));
            assert_eq!(kept, n.min(DHT_STORED_HASHES_MAX));
        }
        for n in [DHT_STORED_PEERS_MAX - 1, DHT_STORED_PEERS_MAX, DHT_STORED_PEERS_MAX + 1] {
            assert_eq!(count(&mut (0..n as u32).map(|n| (0, public(n, 1)))), n.min(DHT_STORED_PEERS_MAX));
        }
        let most = DHT_STORED_PER_ADDRESS_MAX;
        for n in [most - 1, most, most + 1] {
            assert_eq!(count(&mut (0..n).map(|n| (n, public(0, 1)))), n.min(most) as usize);
        }
        for n in [DHT_STORED_MAX - 1, DHT_STORED_MAX, DHT_STORED_MAX + 1] {
            assert_eq!(count(&mut (0..n as u32).map(|n| (n / 50, public(n, 1)))), n.min(DHT_STORED_MAX));
        }
    }

    #[test]
    fn announces_are_forgotten_unless_they_are_repeated() {
        let (mut store, mut rng) = (Store::default(), Rng::new(1));
        store.add(hash(1), public(1, 1), NOW);
        store.add(hash(1), public(2, 1), NOW);
        let later = NOW + Span(DHT_STORED_TIME.0 / 2);
        store.add(hash(1), public(1, 1), later);
        let end = NOW + DHT_STORED_TIME;
        assert_eq!(store.peers(hash(1), &mut rng, end - Span(1)).len(), 2);
        assert_eq!(store.peers(hash(1), &mut rng, end), [public(1, 1)]);
        assert_eq!(store.peers(hash(1), &mut rng, later + DHT_STORED_TIME), []);
        assert_eq!((store.count(), store.per_address.len(), store.order.len()), (0, 0, 0));
    }

    #[test]
    fn as_many_peers_as_fit_a_small_reply_are_told() {
        let (mut store, mut rng) = (Store::default(), Rng::new(1));
        for n in 0..DHT_STORED_PEERS_MAX as u32 {
            store.add(hash(1), public(n, 1), NOW);
            assert_eq!(store.peers(hash(1), &mut rng, NOW).len(), (n as usize + 1).min(DHT_VALUES_SENT_MAX));
        }
    }
}
