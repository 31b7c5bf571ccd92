//! A tracker's memory: who is in which swarm, and who is told of whom (BEP 3, 7, 15, 23, 48). Sans-io.
//!
//! Everything is bounded, and of too much the oldest goes: entries of one group of strangers' addresses, so
//! that nobody fills it alone; peers of a torrent; torrents; peers of all. A peer that does not announce
//! again is forgotten after twice the interval.

mod swarm;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;

use crate::base::address::{AddressClass, GroupKey};
use crate::base::ids::InfoHash;
use crate::base::limits::{
    SERVED_GROUP_ENTRIES_MAX, SERVED_NUMWANT, SERVED_NUMWANT_MAX, SERVED_PEERS_MAX, SERVED_SWARM_MAX,
    SERVED_TORRENTS_MAX,
};
use crate::base::network::Grouping;
use crate::base::rng::Rng;
use crate::base::time::{Instant, Span};
use crate::proto::tracker::AnnounceEvent;
use crate::proto::tracker::serve::{Answer, Asked, Families, Refusal, Scraped};

use swarm::Swarm;

/// What the operator decides.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Between two announces of a peer.
    pub interval: Span,
    /// The only torrents that there are; `None` takes any.
    pub allow: Option<HashSet<InfoHash>>,
    /// Which addresses are one party.
    pub grouping: Grouping,
}

/// What it has done and has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Torrents now.
    pub torrents: usize,
    /// Peers of all torrents now.
    pub peers: usize,
    /// Announces answered.
    pub announces: u64,
    /// Questions of BEP 48 answered.
    pub scrapes: u64,
    /// Questions refused.
    pub refused: u64,
}

/// An entry of a group: when it last announced, and what.
type Entry = (Instant, InfoHash, SocketAddr);

/// See the module.
#[derive(Debug)]
pub struct Tracker {
    rules: Rules,
    rng: Rng,
    swarms: HashMap<InfoHash, Swarm>,
    /// By the last announce, the oldest first.
    order: BTreeSet<(Instant, InfoHash)>,
    /// Of strangers alone: neighbours are honest.
    groups: HashMap<GroupKey, BTreeSet<Entry>>,
    figures: Figures,
}

impl Tracker {
    /// Knows nobody.
    pub fn new(rules: Rules, rng: Rng) -> Self {
        let (swarms, order, groups) = (HashMap::new(), BTreeSet::new(), HashMap::new());
        Self { rules, rng, swarms, order, groups, figures: Figures::default() }
    }

    /// A peer announces itself.
    pub fn handle_announce(
        &mut self,
        asked: &Asked,
        families: Families,
        now: Instant,
    ) -> Result<Answer, Refusal> {
        self.check(&asked.info_hash).inspect_err(|_| self.figures.refused += 1)?;
        self.figures.announces += 1;
        self.expire_swarm(asked.info_hash, now);
        let leaves = asked.event == AnnounceEvent::Stopped;
        if leaves {
            self.remove(asked.info_hash, asked.peer);
        } else if asked.peer.port() != 0 {
            self.enter(asked, now);
        }
        let wanted = asked.wanted.unwrap_or(SERVED_NUMWANT).min(SERVED_NUMWANT_MAX);
        let mut answer = Answer { interval: self.rules.interval, ..Answer::default() };
        if let Some(swarm) = self.swarms.get(&asked.info_hash) {
            (answer.seeders, answer.leechers) = swarm.counts();
            let class = AddressClass::of(asked.peer.ip());
            let may_hear =
                |other: SocketAddr| other != asked.peer && class.may_name(AddressClass::of(other.ip()));
            if !leaves {
                let wanted = wanted as usize;
                answer.peers = swarm.select(wanted, asked.left_bytes == 0, families, may_hear, &mut self.rng);
            }
        }
        Ok(answer)
    }

    /// How large swarms are (BEP 48); an unknown one is empty.
    pub fn handle_scrape(&mut self, hashes: &[InfoHash], now: Instant) -> Vec<Scraped> {
        self.figures.scrapes += 1;
        hashes.iter().for_each(|&hash| self.expire_swarm(hash, now));
        let find = |hash| self.swarms.get(hash).map_or_else(Scraped::default, Swarm::scraped);
        hashes.iter().map(find).collect()
    }

    /// Forgets all who have not announced for too long. To be called once in a while.
    pub fn handle_tick(&mut self, now: Instant) {
        let hashes: Vec<InfoHash> = self.swarms.keys().copied().collect();
        hashes.into_iter().for_each(|hash| self.expire_swarm(hash, now));
    }

    /// Allows a torrent, where only some are.
    pub fn allow(&mut self, hash: InfoHash) {
        if let Some(allow) = &mut self.rules.allow {
            allow.insert(hash);
        }
    }

    /// See [`Figures`].
    pub fn figures(&self) -> Figures {
        Figures { torrents: self.swarms.len(), ..self.figures }
    }

    fn check(&self, hash: &InfoHash) -> Result<(), Refusal> {
        match &self.rules.allow {
            Some(allow) if !allow.contains(hash) => Err(Refusal::NotAllowed),
            _ => Ok(()),
        }
    }

    fn enter(&mut self, asked: &Asked, now: Instant) {
        let (hash, peer) = (asked.info_hash, asked.peer);
        let completed = self.swarms.get(&hash).map_or(0, |swarm| {
            let came = asked.event == AnnounceEvent::Completed && swarm.is_leecher(peer);
            swarm.completed() + u64::from(came)
        });
        self.remove(hash, peer);
        let group = self.group(peer);
        if let Some(group) = group {
            self.make_room_in_group(group);
        }
        self.make_room(hash);
        let swarm = self.swarms.entry(hash).or_insert_with(|| Swarm::new(now));
        self.order.remove(&(swarm.announced_at(), hash));
        swarm.enter(peer, asked.left_bytes == 0, completed, now);
        self.order.insert((now, hash));
        self.figures.peers += 1;
        if let Some(group) = group {
            self.groups.entry(group).or_default().insert((now, hash, peer));
        }
    }

    /// One more peer of a group may come.
    fn make_room_in_group(&mut self, group: GroupKey) {
        while let Some(entries) = self.groups.get(&group).filter(|all| all.len() >= SERVED_GROUP_ENTRIES_MAX)
            && let Some(&(_, hash, peer)) = entries.first()
        {
            self.remove(hash, peer);
        }
    }

    /// One more peer of a torrent may come.
    fn make_room(&mut self, hash: InfoHash) {
        while let Some(swarm) = self.swarms.get(&hash).filter(|swarm| swarm.len() >= SERVED_SWARM_MAX)
            && let Some(peer) = swarm.oldest()
        {
            self.remove(hash, peer);
        }
        while (self.swarms.len() >= SERVED_TORRENTS_MAX && !self.swarms.contains_key(&hash))
            || self.figures.peers >= SERVED_PEERS_MAX
        {
            let Some(&(_, oldest)) = self.order.first() else { return };
            self.remove_swarm(oldest);
        }
    }

    fn remove_swarm(&mut self, hash: InfoHash) {
        while let Some(peer) = self.swarms.get(&hash).and_then(Swarm::oldest) {
            self.remove(hash, peer);
        }
    }

    /// Takes a peer out, and its torrent if that was the last.
    fn remove(&mut self, hash: InfoHash, peer: SocketAddr) {
        let Some(swarm) = self.swarms.get_mut(&hash) else { return };
        let Some(at) = swarm.remove(peer) else { return };
        self.figures.peers -= 1;
        if swarm.len() == 0 {
            let at = swarm.announced_at();
            self.order.remove(&(at, hash));
            self.swarms.remove(&hash);
        }
        if let Some(group) = self.group(peer)
            && let Some(entries) = self.groups.get_mut(&group)
        {
            entries.remove(&(at, hash, peer));
            if entries.is_empty() {
                self.groups.remove(&group);
            }
        }
    }

    fn expire_swarm(&mut self, hash: InfoHash, now: Instant) {
        let age = Span(self.rules.interval.0.saturating_mul(2));
        while let Some(peer) = self.swarms.get(&hash).and_then(|swarm| swarm.expired(age, now)) {
            self.remove(hash, peer);
        }
    }

    fn group(&self, peer: SocketAddr) -> Option<GroupKey> {
        let grouping = &self.rules.grouping;
        grouping.is_stranger(peer.ip()).then(|| grouping.group_key(peer.ip()))
    }
}

#[cfg(test)]
mod tests;
