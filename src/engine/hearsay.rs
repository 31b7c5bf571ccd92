//! Which of the addresses that peers name are believed (BEP 11; threat P31). One per torrent, on the control
//! thread; sans-io.
//!
//! What one group of addresses names, what all of them name together, and the ports of one stranger's address
//! are bounded: nobody fills the place of others, and nobody has us flood a host. A place is free again when
//! the candidate is forgotten: that is looked at when one is missing, once for each message. An address that
//! was forgotten so often of late is not believed again, or whoever names it had us dial it on and on.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use super::candidates::Candidates;
use crate::base::address::GroupKey;
use crate::base::limits::{
    PEX_CANDIDATES_MAX, PEX_CANDIDATES_PER_GROUP_MAX, PEX_LIVES_ADDRESSES_MAX, PEX_LIVES_MAX, PEX_LIVES_SPAN,
    PEX_PORTS_PER_ADDRESS_MAX,
};
use crate::base::network::Grouping;
use crate::base::time::Instant;

/// See the module.
#[derive(Debug, Default)]
pub struct Hearsay {
    /// Who named them.
    named: HashMap<SocketAddr, GroupKey>,
    by_group: HashMap<GroupKey, usize>,
    by_stranger: HashMap<IpAddr, usize>,
    /// How often addresses were forgotten since `lives_since`.
    lives: Lives,
    lives_since: Instant,
}

/// How often addresses were forgotten of late. When these are too many, the oldest of the group that had most
/// named is dropped: whoever would have one forgotten drops its own, and nobody else's.
#[derive(Debug, Default)]
struct Lives {
    by_address: HashMap<SocketAddr, u32>,
    /// By who named them first, in the order in which they were forgotten first.
    by_group: HashMap<GroupKey, VecDeque<SocketAddr>>,
}

impl Hearsay {
    /// What is believed of what the peer at `from` names: addresses that are not known already, as far as
    /// there is room. The caller enters them among the `candidates`.
    pub fn take(
        &mut self,
        from: IpAddr,
        named: impl IntoIterator<Item = SocketAddr>,
        (candidates, grouping): (&Candidates, &Grouping),
        now: Instant,
    ) -> Vec<SocketAddr> {
        if now.since(self.lives_since) >= PEX_LIVES_SPAN {
            self.lives = Lives::default();
            self.lives_since = now;
        }
        let group = grouping.group_key(from);
        let (mut taken, mut looked) = (Vec::new(), false);
        for address in named {
            let stranger = grouping.is_stranger(address.ip()).then(|| address.ip());
            if candidates.knows(address) || taken.contains(&address) {
                continue;
            }
            let news = !self.named.contains_key(&address);
            let fits = news && self.has_room(group, stranger);
            // Looking for places that nobody needs any more takes a walk: once for what one peer names.
            if !fits && !looked {
                looked = true;
                self.forget(&taken, candidates, grouping);
            }
            let worn = self.lives.of(address) >= PEX_LIVES_MAX;
            if worn || self.named.contains_key(&address) || !self.has_room(group, stranger) {
                continue;
            }
            self.named.insert(address, group);
            *self.by_group.entry(group).or_default() += 1;
            stranger.into_iter().for_each(|ip| *self.by_stranger.entry(ip).or_default() += 1);
            taken.push(address);
        }
        taken
    }

    /// Whether one more is taken of what a group names, at the address of a stranger if it is one.
    fn has_room(&self, group: GroupKey, stranger: Option<IpAddr>) -> bool {
        let ports = stranger.map_or(0, |ip| self.by_stranger.get(&ip).copied().unwrap_or(0));
        self.named.len() < PEX_CANDIDATES_MAX
            && self.named_by(group) < PEX_CANDIDATES_PER_GROUP_MAX
            && ports < PEX_PORTS_PER_ADDRESS_MAX
    }

    fn named_by(&self, group: GroupKey) -> usize {
        self.by_group.get(&group).copied().unwrap_or(0)
    }

    /// Frees the places of candidates that are not known any more, but for those that are about to be.
    fn forget(&mut self, taken: &[SocketAddr], candidates: &Candidates, grouping: &Grouping) {
        let gone = |address: &SocketAddr, _: &mut _| !candidates.knows(*address) && !taken.contains(address);
        self.named.extract_if(gone).for_each(|(address, group)| self.lives.note(address, group));
        (self.by_group, self.by_stranger) = (HashMap::new(), HashMap::new());
        for (address, group) in &self.named {
            *self.by_group.entry(*group).or_default() += 1;
            if grouping.is_stranger(address.ip()) {
                *self.by_stranger.entry(address.ip()).or_default() += 1;
            }
        }
    }
}

impl Lives {
    fn of(&self, address: SocketAddr) -> u32 {
        self.by_address.get(&address).copied().unwrap_or(0)
    }

    /// An address was forgotten that a group had named.
    fn note(&mut self, address: SocketAddr, group: GroupKey) {
        if let Some(lives) = self.by_address.get_mut(&address) {
            *lives += 1;
            return;
        }
        self.by_address.insert(address, 1);
        self.by_group.entry(group).or_default().push_back(address);
        if self.by_address.len() > PEX_LIVES_ADDRESSES_MAX {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let most = self.by_group.iter_mut().max_by_key(|(group, addresses)| (addresses.len(), **group));
        let Some((&group, addresses)) = most else { return };
        if let Some(oldest) = addresses.pop_front() {
            self.by_address.remove(&oldest);
        }
        if addresses.is_empty() {
            self.by_group.remove(&group);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits::CANDIDATES_MAX;
    use crate::base::time::Instant;
    use crate::engine::candidates::Source;

    const NOW: Instant = Instant(1);

    /// A node that enters what it believes.
    #[derive(Default)]
    struct Node {
        hearsay: Hearsay,
        candidates: Candidates,
        now: Instant,
    }

    impl Node {
        /// How many of `count` addresses, from the `first`-th on, are taken from `from`.
        fn hear(&mut self, from: &str, first: u32, count: usize) -> usize {
            let named = (first..first + count as u32).map(|n| SocketAddr::from((victim(n), 6881)));
            self.take(from, named)
        }

        fn take(&mut self, from: &str, named: impl Iterator<Item = SocketAddr>) -> usize {
            let of = (&self.candidates, &Grouping::default());
            let taken = self.hearsay.take(from.parse().unwrap(), named, of, self.now);
            taken.iter().for_each(|&address| self.candidates.add(address, Source::Pex, self.now));
            taken.len()
        }
    }

    fn victim(n: u32) -> [u8; 4] {
        [20, (n >> 16) as u8, (n >> 8) as u8, n as u8]
    }

    #[test]
    fn p31_so_many_of_what_one_group_names_are_taken_and_others_have_their_place() {
        let most = PEX_CANDIDATES_PER_GROUP_MAX;
        for count in [most - 1, most, most + 1, 10 * most] {
            let mut node = Node::default();
            assert_eq!(node.hear("8.8.8.8", 0, count), count.min(most));
            let left = most - count.min(most);
            assert_eq!(node.hear("8.8.8.9", 100_000, 50), left.min(50), "a neighbour is the same group");
            assert_eq!(node.hear("9.9.9.9", 200_000, 50), 50, "somebody else is not");
        }
    }

    #[test]
    fn p31_all_hearsay_together_leaves_room_for_trackers() {
        for extra in [0, 1, 500] {
            let mut node = Node::default();
            let mut taken = 0;
            for group in 0..20 {
                taken += node.hear(&format!("8.8.{group}.1"), 1_000 * group, PEX_CANDIDATES_PER_GROUP_MAX);
                assert!(taken <= PEX_CANDIDATES_MAX);
            }
            assert_eq!(taken, PEX_CANDIDATES_MAX);
            assert_eq!(node.hear("7.7.7.7", 500_000, extra), 0);
            let before = node.candidates.len();
            for n in 0..(CANDIDATES_MAX - PEX_CANDIDATES_MAX) as u32 {
                let named = SocketAddr::from(([30, 0, (n >> 8) as u8, n as u8], 1));
                node.candidates.add(named, Source::Tracker, NOW);
            }
            assert_eq!(node.candidates.len() - before, CANDIDATES_MAX - PEX_CANDIDATES_MAX);
        }
    }

    #[test]
    fn p31_ten_thousand_ports_of_one_host_are_two_candidates() {
        let mut node = Node::default();
        let mut ports = |from: &str, host: [u8; 4]| {
            node.take(from, (1..10_000).map(|port| SocketAddr::from((host, port))))
        };
        assert_eq!(ports("8.8.8.8", [20, 0, 0, 1]), PEX_PORTS_PER_ADDRESS_MAX);
        assert_eq!(ports("9.9.9.9", [20, 0, 0, 1]), 0, "whoever names it");
        // Neighbours in a local network are many machines behind one address, as in a laboratory.
        assert_eq!(ports("10.0.0.1", [10, 0, 0, 7]), PEX_CANDIDATES_PER_GROUP_MAX);
    }

    #[test]
    fn ports_of_a_host_that_were_forgotten_may_be_named_again() {
        let mut node = Node::default();
        let hear = |node: &mut Node, ports: std::ops::Range<u16>| {
            node.take("8.8.8.8", ports.map(|port| SocketAddr::from(([20, 0, 0, 1], port))))
        };
        assert_eq!(hear(&mut node, 1..9), PEX_PORTS_PER_ADDRESS_MAX);
        assert_eq!(hear(&mut node, 1..9), 0);
        node.candidates.forget_hints();
        assert_eq!(
            hear(&mut node, 1..9),
            PEX_PORTS_PER_ADDRESS_MAX,
            "the same, though nothing else was full"
        );
    }

    #[test]
    fn p31_an_address_that_is_forgotten_again_and_again_is_believed_so_often_and_no_more() {
        let mut node = Node::default();
        for _ in 0..2 {
            for life in 1..=PEX_LIVES_MAX + 1 {
                assert_eq!(node.hear("8.8.8.8", 0, 1), usize::from(life <= PEX_LIVES_MAX), "{life}");
                node.candidates.forget_hints();
            }
            assert_eq!(node.hear("9.9.9.9", 0, 1), 0, "whoever names it");
            assert_eq!(node.hear("9.9.9.9", 1, 1), 1, "another one");
            node.candidates.forget_hints();
            node.now = Instant(node.now.0 + PEX_LIVES_SPAN.0 - 1);
            assert_eq!(node.hear("8.8.8.8", 0, 1), 0);
            node.now = Instant(node.now.0 + 1);
        }
    }

    #[test]
    fn p31_whoever_has_many_addresses_forgotten_has_others_believed_no_more_often() {
        let mut node = Node::default();
        let at_once = PEX_CANDIDATES_PER_GROUP_MAX as u32;
        for first in (0..=2 * PEX_LIVES_ADDRESSES_MAX as u32).step_by(at_once as usize) {
            assert_eq!(node.hear("8.8.8.8", first, at_once as usize), at_once as usize);
            node.candidates.forget_hints();
        }
        for life in 1..=PEX_LIVES_MAX + 1 {
            let believed = node.hear("9.9.9.9", 500_000, 1);
            assert_eq!(believed, usize::from(life <= PEX_LIVES_MAX), "{life}");
            node.candidates.forget_hints();
        }
    }

    #[test]
    fn p31_of_too_many_that_were_forgotten_the_oldest_of_the_group_with_most_is_dropped() {
        let most = PEX_LIVES_ADDRESSES_MAX;
        let group = |address: &str| Grouping::default().group_key(address.parse().unwrap());
        let (few, many) = (group("9.9.9.9"), group("8.8.8.8"));
        let address = |n: usize| SocketAddr::from((victim(n as u32), 6881));
        for count in [most - 1, most, most + 1] {
            let mut lives = Lives::default();
            (0..3).for_each(|_| lives.note(address(0), few));
            (1..count).for_each(|n| lives.note(address(n), many));
            // Again, by whomever: it keeps its place.
            lives.note(address(2), few);
            let of = [0, 1, 2, count - 1].map(|n| lives.of(address(n)));
            assert_eq!(of, [3, u32::from(count <= most), 2, 1], "{count} forgotten");
            assert_eq!(lives.by_address.len(), count.min(most));
            assert_eq!(lives.by_group.values().map(VecDeque::len).sum::<usize>(), count.min(most));
        }
        // One each: somebody gives way, and a group without any is kept no longer.
        let mut lives = Lives::default();
        for n in 0..=most {
            let named_by = IpAddr::from([20, (n >> 8) as u8, n as u8, 1]);
            lives.note(address(n), Grouping::default().group_key(named_by));
        }
        assert_eq!((lives.by_address.len(), lives.by_group.len()), (most, most));
    }

    #[test]
    fn what_was_forgotten_gives_its_place_back() {
        let most = PEX_CANDIDATES_PER_GROUP_MAX;
        let mut node = Node::default();
        assert_eq!(node.hear("8.8.8.8", 0, most), most);
        assert_eq!(node.hear("8.8.8.8", 5_000, 10), 0);
        assert_eq!(node.hear("8.8.8.8", 0, most), 0, "what is known is no news");
        node.candidates.forget_hints();
        assert_eq!(node.hear("8.8.8.8", 5_000, 10), 10);
    }
}
