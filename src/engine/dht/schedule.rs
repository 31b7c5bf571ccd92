//! Which torrent is looked up when, and announced how often; sans-io.
//!
//! A torrent that is new is looked up at once. Then every quarter of an hour, and more often while its peers
//! are few: after ten seconds, then twice as long each time. One that was a link is looked up anew once its
//! metadata is there: who else began then with a link turned others away, as it did itself. So many walks go
//! on at once; those whose peers are few come first, but not on all places, so that thousands of sleeping
//! torrents are announced slowly and all the same.

use std::collections::{BTreeSet, HashMap};

use super::lookup::Aim;
use crate::base::ids::InfoHash;
use crate::base::limits::{
    DHT_ANNOUNCE_INTERVAL, DHT_HUNGRY_WAIT, DHT_LOOKUPS_HUNGRY_MAX, DHT_LOOKUPS_MAX, DHT_SILENT_WAIT,
    DHT_SILENT_WAIT_MAX, DISCOVERED_MAX,
};
use crate::base::rng::Rng;
use crate::base::time::{Instant, Span};

/// What a torrent needs of discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Need {
    /// Peers: only its magnet link is known.
    Metadata,
    /// Peers: it has few of them, and something is missing.
    Peers,
    /// To be found by others.
    Presence,
}

impl Need {
    const fn is_hungry(self) -> bool {
        matches!(self, Self::Metadata | Self::Peers)
    }
}

#[derive(Debug)]
struct Entry {
    port: Option<u16>,
    need: Need,
    due: Instant,
    announced_at: Option<Instant>,
    /// Waits after look-ups that found too little, and after those that nobody answered.
    hungry_wait: Span,
    silent_wait: Span,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    /// With the need and the port that it had when the walk began.
    Walking(Need, Option<u16>),
}

/// See the module. Invariant: each torrent that waits stands in the queue of its need, once.
#[derive(Debug)]
pub struct Schedule {
    entries: HashMap<InfoHash, Entry>,
    hungry: BTreeSet<(Instant, InfoHash)>,
    present: BTreeSet<(Instant, InfoHash)>,
    walking: usize,
    walking_hungry: usize,
    rng: Rng,
}

impl Schedule {
    /// Nobody is wanted yet.
    pub fn new(seed: u64) -> Self {
        let rng = Rng::new(seed);
        let (hungry, present) = (BTreeSet::new(), BTreeSet::new());
        Self { entries: HashMap::new(), hungry, present, walking: 0, walking_hungry: 0, rng }
    }

    /// A torrent is to be found, and to be announced at `port`, if there is one; or its need has changed.
    pub fn want(&mut self, info_hash: InfoHash, port: Option<u16>, need: Need, now: Instant) {
        if let Some(entry) = self.entries.get(&info_hash) {
            let (waits, before, due) = (entry.state == State::Waiting, entry.need, entry.due);
            if waits {
                self.queue(before).remove(&(due, info_hash));
            }
            let entry = self.entries.get_mut(&info_hash).expect("just seen");
            if entry.port != port && entry.announced_at.is_none() {
                // It may be announced now, before anybody looks for it in vain.
                entry.due = entry.due.min(now);
            }
            entry.port = port;
            if need == Need::Peers && before != need {
                entry.hungry_wait = DHT_HUNGRY_WAIT;
                let wait = if before == Need::Metadata { Span::ZERO } else { DHT_HUNGRY_WAIT };
                entry.due = entry.due.min(now + wait);
            }
            entry.need = need;
            let due = entry.due;
            if waits {
                self.queue(need).insert((due, info_hash));
            }
            return;
        }
        if self.entries.len() >= DISCOVERED_MAX {
            return;
        }
        let entry = Entry {
            port,
            need,
            due: now,
            announced_at: None,
            hungry_wait: DHT_HUNGRY_WAIT,
            silent_wait: DHT_SILENT_WAIT,
            state: State::Waiting,
        };
        self.entries.insert(info_hash, entry);
        self.queue(need).insert((now, info_hash));
    }

    /// A torrent is no longer to be found.
    pub fn forget(&mut self, info_hash: InfoHash) {
        let Some(entry) = self.entries.remove(&info_hash) else { return };
        match entry.state {
            State::Waiting => drop(self.queue(entry.need).remove(&(entry.due, info_hash))),
            State::Walking(need, _) => self.walk_ended(need),
        }
    }

    /// Whether a torrent is wanted.
    pub fn wants(&self, info_hash: InfoHash) -> bool {
        self.entries.contains_key(&info_hash)
    }

    /// The next walk to begin now, if one is due and there is a place for it. Answered by
    /// [`Self::handle_done`].
    pub fn poll(&mut self, now: Instant) -> Option<Aim> {
        if self.walking >= DHT_LOOKUPS_MAX {
            return None;
        }
        let is_due =
            |queue: &BTreeSet<(Instant, InfoHash)>| queue.first().filter(|(at, _)| *at <= now).copied();
        let hungry = is_due(&self.hungry).filter(|_| self.walking_hungry < DHT_LOOKUPS_HUNGRY_MAX);
        let (due, info_hash) = hungry.or_else(|| is_due(&self.present))?;
        let entry = self.entries.get_mut(&info_hash)?;
        let need = entry.need;
        entry.state = State::Walking(need, entry.port);
        // Announced anew shortly before it would be forgotten, not with each look-up.
        let old = |at: Instant| now.since(at) >= Span(DHT_ANNOUNCE_INTERVAL.0 / 2);
        let announce = entry.port.filter(|_| entry.announced_at.is_none_or(old));
        self.queue(need).remove(&(due, info_hash));
        self.walking += 1;
        self.walking_hungry += usize::from(need.is_hungry());
        Some(Aim::Peers { info_hash, announce })
    }

    /// A walk is over: so many nodes answered it, and so many were told where we are.
    pub fn handle_done(&mut self, info_hash: InfoHash, answers: usize, announced: usize, now: Instant) {
        let part = u128::from(DHT_ANNOUNCE_INTERVAL.0 / 5) * u128::from(self.rng.next_u64());
        let jitter = Span((part >> 64) as u64);
        let Some(entry) = self.entries.get_mut(&info_hash) else { return };
        let State::Walking(began_with, port) = entry.state else { return };
        entry.state = State::Waiting;
        if announced > 0 {
            entry.announced_at = Some(now);
        }
        let usual = Span(DHT_ANNOUNCE_INTERVAL.0 - jitter.0);
        let wait = match (answers, entry.need) {
            (1.., _) if entry.port != port && entry.announced_at.is_none() => Span::ZERO,
            (1.., Need::Peers) if began_with == Need::Metadata => Span::ZERO,
            (0, _) => doubled(&mut entry.silent_wait, DHT_SILENT_WAIT_MAX),
            (_, Need::Metadata | Need::Peers) => doubled(&mut entry.hungry_wait, usual),
            (_, Need::Presence) => usual,
        };
        if answers > 0 {
            entry.silent_wait = DHT_SILENT_WAIT;
        }
        entry.due = now + wait;
        let (due, need) = (entry.due, entry.need);
        self.queue(need).insert((due, info_hash));
        self.walk_ended(began_with);
    }

    /// There are nodes now: torrents for which nobody answered are due at once.
    pub fn handle_reachable(&mut self, now: Instant) {
        let silent = |entry: &Entry| entry.state == State::Waiting && entry.silent_wait != DHT_SILENT_WAIT;
        let waiting = self.entries.iter().filter(|(_, entry)| silent(entry));
        let waiting: Vec<InfoHash> = waiting.map(|(&info_hash, _)| info_hash).collect();
        for info_hash in waiting {
            let Some(entry) = self.entries.get_mut(&info_hash) else { continue };
            let (need, before) = (entry.need, entry.due);
            entry.due = before.min(now);
            entry.silent_wait = DHT_SILENT_WAIT;
            let due = entry.due;
            self.queue(need).remove(&(before, info_hash));
            self.queue(need).insert((due, info_hash));
        }
    }

    /// When [`Self::poll`] may have something though nothing happens.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.walking >= DHT_LOOKUPS_MAX {
            return None;
        }
        let hungry = self.hungry.first().filter(|_| self.walking_hungry < DHT_LOOKUPS_HUNGRY_MAX);
        hungry.into_iter().chain(self.present.first()).map(|&(at, _)| at).min()
    }

    /// Torrents that are looked up now.
    pub const fn walking(&self) -> usize {
        self.walking
    }

    fn walk_ended(&mut self, need: Need) {
        self.walking -= 1;
        self.walking_hungry -= usize::from(need.is_hungry());
    }

    const fn queue(&mut self, need: Need) -> &mut BTreeSet<(Instant, InfoHash)> {
        match need {
            Need::Metadata | Need::Peers => &mut self.hungry,
            Need::Presence => &mut self.present,
        }
    }
}

/// The wait, which is twice as long the next time.
fn doubled(wait: &mut Span, most: Span) -> Span {
    let now = Span(wait.0.min(most.0));
    *wait = Span(wait.0.saturating_mul(2).min(most.0));
    now
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

    /// When walks for one torrent begin until `end`, and whether they announce.
    fn walks(need: Need, answers: usize, end: Span) -> Vec<(u64, bool)> {
        let mut schedule = Schedule::new(1);
        schedule.want(hash(1), Some(6881), need, NOW);
        let (mut walks, mut now) = (Vec::new(), NOW);
        while now.since(NOW) <= end {
            while let Some(Aim::Peers { info_hash, announce }) = schedule.poll(now) {
                walks.push((now.since(NOW).0 / 1_000_000_000, announce.is_some()));
                let announced = if announce.is_some() { answers } else { 0 };
                schedule.handle_done(info_hash, answers, announced, now);
            }
            now = schedule.poll_timeout().unwrap();
        }
        walks
    }

    #[test]
    fn a_torrent_is_announced_at_once_and_every_quarter_of_an_hour_or_somewhat_sooner() {
        let found = walks(Need::Presence, 8, Span::from_secs(7200));
        assert_eq!(found[0], (0, true));
        for pair in found.windows(2) {
            assert!((720..=900).contains(&(pair[1].0 - pair[0].0)) && pair[1].1, "{found:?}");
        }
        assert!((8..=10).contains(&found.len()));
    }

    #[test]
    fn while_peers_are_few_look_ups_come_later_and_later_and_announces_do_not_come_more_often() {
        let found = walks(Need::Peers, 8, Span::from_secs(1200));
        let times: Vec<u64> = found.iter().map(|(at, _)| *at).collect();
        assert_eq!(times, [0, 10, 30, 70, 150, 310, 630]);
        assert_eq!(found.iter().filter(|(_, announced)| *announced).count(), 2);
    }

    #[test]
    fn while_nobody_answers_it_is_tried_again_soon_and_then_seldom() {
        let times: Vec<u64> = walks(Need::Peers, 0, Span::from_secs(900)).iter().map(|(at, _)| *at).collect();
        assert_eq!(times, [0, 1, 3, 7, 15, 31, 63, 127, 255, 511, 811]);
    }

    #[test]
    fn as_soon_as_somebody_answers_those_that_nobody_answered_are_due() {
        let mut schedule = Schedule::new(1);
        schedule.want(hash(1), Some(1), Need::Presence, NOW);
        for _ in 0..5 {
            let now = schedule.poll_timeout().unwrap();
            assert!(schedule.poll(now).is_some());
            schedule.handle_done(hash(1), 0, 0, now);
        }
        let now = schedule.poll_timeout().unwrap() - Span(1);
        schedule.handle_reachable(now);
        assert_eq!(schedule.poll_timeout(), Some(now));
        assert!(schedule.poll(now).is_some());
        schedule.handle_done(hash(1), 8, 8, now);
        let due = schedule.poll_timeout();
        schedule.handle_reachable(now);
        assert_eq!((schedule.poll_timeout(), schedule.present.len()), (due, 1));
    }

    #[test]
    fn d4_so_many_walks_go_on_at_once_and_sleeping_torrents_leave_places_to_hungry_ones() {
        let mut schedule = Schedule::new(1);
        (0..10_000).for_each(|n| schedule.want(hash(n), Some(1), Need::Presence, NOW));
        let poll_all = |schedule: &mut Schedule, now| {
            std::iter::from_fn(|| schedule.poll(now))
                .map(|aim| match aim {
                    Aim::Peers { info_hash, .. } => info_hash,
                    Aim::Nodes => unreachable!(),
                })
                .collect::<Vec<_>>()
        };
        let walking = poll_all(&mut schedule, NOW);
        assert_eq!((walking.len(), schedule.poll_timeout()), (DHT_LOOKUPS_MAX, None));
        // One that wants peers comes next, before 9,984 others.
        schedule.want(hash(99_999), None, Need::Peers, NOW);
        schedule.handle_done(walking[0], 8, 8, NOW);
        assert_eq!(poll_all(&mut schedule, NOW), [hash(99_999)]);
        // However many want peers, some places stay.
        let mut schedule = Schedule::new(1);
        (0..100).for_each(|n| schedule.want(hash(n), None, Need::Peers, NOW));
        assert_eq!(poll_all(&mut schedule, NOW).len(), DHT_LOOKUPS_HUNGRY_MAX);
        (200..300).for_each(|n| schedule.want(hash(n), None, Need::Presence, NOW));
        assert_eq!(poll_all(&mut schedule, NOW).len(), DHT_LOOKUPS_MAX - DHT_LOOKUPS_HUNGRY_MAX);
    }

    #[test]
    fn a_torrent_is_announced_as_soon_as_it_has_a_port() {
        let aim = |announce| Some(Aim::Peers { info_hash: hash(1), announce });
        for walking in [false, true] {
            let mut schedule = Schedule::new(1);
            schedule.want(hash(1), None, Need::Peers, NOW);
            assert_eq!(schedule.poll(NOW), aim(None));
            if walking {
                schedule.want(hash(1), Some(5), Need::Peers, NOW);
            }
            schedule.handle_done(hash(1), 8, 0, NOW);
            if !walking {
                assert_eq!(schedule.poll(NOW), None);
                schedule.want(hash(1), Some(5), Need::Peers, NOW);
            }
            assert_eq!(schedule.poll(NOW), aim(Some(5)), "{walking}");
            schedule.handle_done(hash(1), 8, 8, NOW);
            assert_eq!(schedule.poll(NOW), None);
        }
    }

    #[test]
    fn a_link_is_looked_up_anew_once_its_metadata_is_there() {
        // While it is walked towards, or between two walks.
        for walking in [true, false] {
            let mut schedule = Schedule::new(1);
            schedule.want(hash(1), Some(1), Need::Metadata, NOW);
            assert!(schedule.poll(NOW).is_some());
            if walking {
                schedule.want(hash(1), Some(1), Need::Peers, NOW);
            }
            schedule.handle_done(hash(1), 8, 8, NOW);
            if !walking {
                assert_eq!(schedule.poll_timeout(), Some(NOW + DHT_HUNGRY_WAIT));
                schedule.want(hash(1), Some(1), Need::Peers, NOW);
            }
            assert!(schedule.poll(NOW).is_some(), "{walking}");
            schedule.handle_done(hash(1), 8, 0, NOW);
            assert_eq!(schedule.poll_timeout(), Some(NOW + DHT_HUNGRY_WAIT));
            assert_eq!(schedule.walking_hungry, 0);
        }
    }

    #[test]
    fn needs_change_and_torrents_leave_at_any_time() {
        let mut schedule = Schedule::new(1);
        schedule.want(hash(1), Some(1), Need::Presence, NOW);
        assert!(schedule.poll(NOW).is_some());
        schedule.want(hash(1), Some(1), Need::Peers, NOW);
        schedule.handle_done(hash(1), 8, 8, NOW);
        assert_eq!(schedule.poll_timeout(), Some(NOW + DHT_HUNGRY_WAIT));
        schedule.want(hash(1), Some(1), Need::Presence, NOW);
        assert_eq!(schedule.present.len() + schedule.hungry.len(), 1);
        schedule.forget(hash(1));
        assert_eq!((schedule.poll_timeout(), schedule.walking()), (None, 0));
        schedule.want(hash(2), None, Need::Peers, NOW);
        assert!(schedule.poll(NOW).is_some());
        schedule.forget(hash(2));
        schedule.handle_done(hash(2), 8, 8, NOW);
        assert_eq!((schedule.walking(), schedule.walking_hungry, schedule.wants(hash(2))), (0, 0, false));
    }

    #[test]
    fn no_more_torrents_are_served_than_the_limit() {
        for count in [DISCOVERED_MAX - 1, DISCOVERED_MAX, DISCOVERED_MAX + 1] {
            let mut schedule = Schedule::new(1);
            (0..count as u32).for_each(|n| schedule.want(hash(n), None, Need::Presence, NOW));
            assert_eq!(schedule.entries.len(), count.min(DISCOVERED_MAX));
        }
    }
}
