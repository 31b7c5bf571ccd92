//! One walk towards a target: ever closer nodes are asked until the closest ones have all answered (BEP 5).
//!
//! What others promise is bounded: so many nodes are asked altogether and so many remembered, of a public
//! address one, and nodes whose id does not fit their address (BEP 42) neither end a walk nor are told
//! where we are.

use std::collections::HashSet;
use std::net::SocketAddr;

use super::table::BUCKET;
use crate::base::address::AddressClass;
use crate::base::ids::InfoHash;
use crate::base::limits::{DHT_LOOKUP_ASKED_MAX, DHT_LOOKUP_KNOWN_MAX, DHT_LOOKUP_PEERS_MAX};
use crate::proto::krpc::{Contact, NodeId, fits};

/// Queries of one walk under way at once, slow ones not counted.
pub const PARALLEL: usize = 4;

/// What a walk is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// To know more nodes.
    Nodes,
    /// To find peers, and then to be found at this port, if any.
    Peers {
        /// Of which torrent.
        info_hash: InfoHash,
        /// Where we accept peers of it.
        announce: Option<u16>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Known,
    Asked,
    Answered { token: Option<Vec<u8>> },
    Silent,
}

#[derive(Debug)]
struct Candidate {
    contact: Contact,
    state: State,
}

/// See the module.
#[derive(Debug)]
pub struct Lookup {
    /// What for.
    pub aim: Aim,
    target: NodeId,
    /// Sorted by distance, each address once.
    candidates: Vec<Candidate>,
    /// Addresses whose ids are not known.
    strangers: Vec<SocketAddr>,
    seen: HashSet<SocketAddr>,
    asked: usize,
    answers: usize,
    peers: HashSet<SocketAddr>,
}

impl Lookup {
    /// A walk from `contacts`, and from addresses of nodes whose ids are not known.
    pub fn new(aim: Aim, target: NodeId, contacts: &[Contact], strangers: &[SocketAddr]) -> Self {
        let mut lookup = Self {
            aim,
            target,
            candidates: Vec::new(),
            strangers: Vec::new(),
            seen: HashSet::new(),
            asked: 0,
            answers: 0,
            peers: HashSet::new(),
        };
        contacts.iter().for_each(|&contact| lookup.add(contact));
        let unseen = |address: &SocketAddr| contacts.iter().all(|contact| contact.address != *address);
        lookup.strangers = strangers.iter().copied().filter(unseen).collect();
        lookup
    }

    /// Where to.
    pub const fn target(&self) -> NodeId {
        self.target
    }

    /// Nodes that have answered.
    pub const fn answers(&self) -> usize {
        self.answers
    }

    /// Peers that were found.
    pub fn peer_count(&self) -> usize {
        self.peers.len()
    }

    /// Somebody named a node.
    pub fn add(&mut self, contact: Contact) {
        // A public host counts once, whatever ports it is said to have.
        let public = AddressClass::of(contact.address.ip()).is_stranger();
        let port = if public { 1 } else { contact.address.port() };
        if !self.seen.insert(SocketAddr::new(contact.address.ip(), port)) {
            return;
        }
        let distance = contact.id.distance(self.target);
        let place =
            self.candidates.partition_point(|known| known.contact.id.distance(self.target) < distance);
        self.candidates.insert(place, Candidate { contact, state: State::Known });
        let known = self.candidates.iter().filter(|known| known.state == State::Known).count();
        if known > DHT_LOOKUP_KNOWN_MAX
            && let Some(last) = self.candidates.iter().rposition(|known| known.state == State::Known)
        {
            self.candidates.remove(last);
        }
    }

    /// Whom to ask next, if anybody while `in_flight` queries are under way.
    pub fn poll_ask(&mut self, in_flight: usize) -> Option<(SocketAddr, Option<NodeId>)> {
        if in_flight >= PARALLEL || self.asked >= DHT_LOOKUP_ASKED_MAX {
            return None;
        }
        // While nobody has answered, half of the questions go to the bootstrap nodes: all others may be gone.
        let to_stranger = self.answers == 0 && self.asked.is_multiple_of(2) && !self.strangers.is_empty();
        let asked = match self.next_known().filter(|_| !to_stranger) {
            Some(at) => {
                self.candidates[at].state = State::Asked;
                let contact = self.candidates[at].contact;
                (contact.address, Some(contact.id))
            }
            None => (self.strangers.pop()?, None),
        };
        self.asked += 1;
        Some(asked)
    }

    /// A node answered. Returns those peers that it names first.
    pub fn handle_answer(
        &mut self,
        contact: Contact,
        token: Option<Vec<u8>>,
        peers: impl Iterator<Item = SocketAddr>,
    ) -> Vec<SocketAddr> {
        self.answers += 1;
        let known = self.candidates.iter().any(|known| known.contact == contact);
        if !known {
            self.add(contact);
        }
        if let Some(known) = self.candidates.iter_mut().find(|known| known.contact == contact) {
            known.state = State::Answered { token };
        }
        let mut fresh = Vec::new();
        for peer in peers {
            if self.peers.len() < DHT_LOOKUP_PEERS_MAX && self.peers.insert(peer) {
                fresh.push(peer);
            }
        }
        fresh
    }

    /// A node did not answer, or not as the node that it was said to be.
    pub fn handle_silence(&mut self, address: SocketAddr) {
        let asked = |known: &&mut Candidate| known.contact.address == address && known.state == State::Asked;
        if let Some(known) = self.candidates.iter_mut().find(asked) {
            known.state = State::Silent;
        }
    }

    /// Whether it ends while `in_flight` queries are under way, slow ones counted: the closest nodes have
    /// all answered, or there is nobody left.
    pub fn is_over(&self, in_flight: usize) -> bool {
        let nobody = self.next_known().is_none() && self.strangers.is_empty();
        self.is_settled() || in_flight == 0 && (nobody || self.asked >= DHT_LOOKUP_ASKED_MAX)
    }

    fn is_settled(&self) -> bool {
        let mut answered = 0;
        for known in &self.candidates {
            match known.state {
                State::Known | State::Asked => return false,
                State::Answered { .. } if is_fit(known.contact) => answered += 1,
                _ => {}
            }
            if answered >= BUCKET {
                return true;
            }
        }
        false
    }

    /// The closest nodes that gave a token, with it.
    pub fn closest(&self) -> Vec<(SocketAddr, Vec<u8>)> {
        let answered = self.candidates.iter().filter(|known| is_fit(known.contact));
        let answered = answered.filter_map(|known| match &known.state {
            State::Answered { token: Some(token) } => Some((known.contact.address, token.clone())),
            _ => None,
        });
        answered.take(BUCKET).collect()
    }

    /// The closest node that is to be asked: nobody behind the closest ones that have answered.
    fn next_known(&self) -> Option<usize> {
        let mut answered = 0;
        for (at, known) in self.candidates.iter().enumerate() {
            match known.state {
                State::Known => return Some(at),
                State::Answered { .. } if is_fit(known.contact) => answered += 1,
                _ => {}
            }
            if answered >= BUCKET {
                return None;
            }
        }
        None
    }
}

fn is_fit(contact: Contact) -> bool {
    fits(contact.id, contact.address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    const TARGET: NodeId = NodeId([0; 20]);

    fn contact(distance: u8, host: u8) -> Contact {
        let mut id = NodeId([0; 20]);
        (id.0[0], id.0[1]) = (distance, host);
        Contact { id, address: SocketAddr::from(([10, 0, distance, host], 1)) }
    }

    fn peers_of(n: usize) -> impl Iterator<Item = SocketAddr> {
        (0..n).map(|n| SocketAddr::from(([8, 8, (n >> 8) as u8, n as u8], 1)))
    }

    fn lookup(contacts: &[Contact]) -> Lookup {
        Lookup::new(Aim::Nodes, TARGET, contacts, &[])
    }

    #[test]
    fn the_closest_are_asked_first_and_the_walk_ends_when_they_have_answered() {
        let all: Vec<Contact> = (1..=20).rev().map(|distance| contact(distance, 1)).collect();
        let mut lookup = lookup(&all);
        let mut asked = Vec::new();
        while let Some((address, id)) = lookup.poll_ask(0) {
            asked.push(address);
            let contact = Contact { id: id.unwrap(), address };
            lookup.handle_answer(contact, Some(vec![1]), [].into_iter());
        }
        let closest: Vec<SocketAddr> = (1..=BUCKET as u8).map(|n| contact(n, 1).address).collect();
        assert_eq!(asked, closest);
        assert!(lookup.is_over(1));
        assert_eq!(lookup.closest().iter().map(|(address, _)| *address).collect::<Vec<_>>(), closest);
    }

    #[test]
    fn who_is_silent_is_passed_over() {
        let all: Vec<Contact> = (1..=10).map(|distance| contact(distance, 1)).collect();
        let mut lookup = lookup(&all);
        for _ in 0..PARALLEL {
            let (address, _) = lookup.poll_ask(0).unwrap();
            lookup.handle_silence(address);
        }
        assert!(!lookup.is_over(0) && lookup.poll_ask(PARALLEL).is_none());
        assert_eq!(lookup.poll_ask(0).unwrap().0, contact(5, 1).address);
        assert_eq!(lookup.closest(), []);
    }

    #[test]
    fn d2_a_walk_ends_however_many_closer_nodes_are_promised() {
        let mut lookup = lookup(&[contact(255, 1)]);
        let (mut asked, mut rng) = (0, Rng::new(1));
        while let Some((address, id)) = lookup.poll_ask(0) {
            asked += 1;
            lookup.handle_answer(Contact { id: id.unwrap(), address }, Some(vec![]), [].into_iter());
            for _ in 0..32 {
                // Ids that fit no address: they come ever closer and never count.
                let mut id = NodeId([0; 20]);
                id.0[4..8].copy_from_slice(&(u32::MAX - asked).to_be_bytes());
                let ip = (rng.next_u64() as u32 & 0x00ff_ffff | 0x0800_0000).to_be_bytes();
                lookup.add(Contact { id, address: SocketAddr::from((ip, 1)) });
            }
            assert!(lookup.candidates.len() <= DHT_LOOKUP_ASKED_MAX + DHT_LOOKUP_KNOWN_MAX);
        }
        assert_eq!(asked as usize, DHT_LOOKUP_ASKED_MAX);
        assert!(lookup.is_over(0) && !lookup.is_over(1));
        assert_eq!(lookup.closest().len(), 1, "none of them is told where we are");
    }

    #[test]
    fn d2_a_public_host_is_asked_once_and_a_look_up_has_so_many_peers() {
        let mut lookup = lookup(&[]);
        for port in 1..100 {
            let id = NodeId([port as u8; 20]);
            lookup.add(Contact { id, address: SocketAddr::from(([8, 8, 8, 8], port)) });
        }
        assert_eq!(lookup.candidates.len(), 1);
        for (named, new) in [(DHT_LOOKUP_PEERS_MAX - 1, DHT_LOOKUP_PEERS_MAX - 1), (1000, 1), (1000, 0)] {
            assert_eq!(lookup.handle_answer(contact(1, 1), None, peers_of(named)).len(), new);
        }
        assert_eq!(lookup.peer_count(), DHT_LOOKUP_PEERS_MAX);
    }
}
