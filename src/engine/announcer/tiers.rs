//! The announcers of one torrent: one for all its trackers, which asks one after the other (BEP 12), or one
//! for each tier, where the operator wants all tiers to know us.

use super::{Announce, Announcer, TrackerChange, TrackerIndex, TrackerOrigin};
use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::proto::tracker::AnnounceReply;

/// Who hears of a torrent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Reach {
    /// The first tracker that answers.
    #[default]
    FirstTier,
    /// The first of each tier that answers.
    AllTiers,
}

/// See the module. Invariant: an index is that within its announcer and the number of trackers before it.
#[derive(Debug)]
pub struct Announcers {
    parts: Vec<Announcer>,
}

impl Announcers {
    /// Schedules over `tiers`, as [`Announcer::new`] makes them.
    pub fn new(tiers: &[Vec<String>], reach: Reach, origin: TrackerOrigin, mut rng: Rng) -> Self {
        let parts = match reach {
            Reach::FirstTier => vec![Announcer::new(tiers, origin, rng)],
            Reach::AllTiers => {
                // As many trackers altogether, each once, in its first tier.
                let whole = Announcer::new(tiers, origin, rng.clone());
                let urls = |tier: usize| {
                    let of_tier = whole.trackers.iter().filter(move |tracker| tracker.tier == tier);
                    of_tier.map(|tracker| tracker.url.to_string()).collect::<Vec<_>>()
                };
                let tiers = (0..whole.tiers.len()).map(urls);
                tiers.map(|urls| Announcer::new(&[urls], origin, Rng::new(rng.next_u64()))).collect()
            }
        };
        Self { parts }
    }

    /// See [`Announcer::handle_reply`].
    pub fn handle_reply(&mut self, now: Instant, at: TrackerIndex, reply: &AnnounceReply) -> TrackerChange {
        let found = self.find(at);
        found.map_or(TrackerChange::Same, |(part, at)| part.handle_reply(now, at, reply))
    }

    /// See [`Announcer::handle_failure`].
    pub fn handle_failure(&mut self, now: Instant, at: TrackerIndex) {
        if let Some((part, at)) = self.find(at) {
            part.handle_failure(now, at);
        }
    }

    /// See [`Announcer::handle_completed`].
    pub fn handle_completed(&mut self) {
        self.parts.iter_mut().for_each(Announcer::handle_completed);
    }

    /// See [`Announcer::handle_stop`].
    pub fn handle_stop(&mut self) {
        self.parts.iter_mut().for_each(Announcer::handle_stop);
    }

    /// See [`Announcer::handle_peers_wanted`].
    pub fn handle_peers_wanted(&mut self, now: Instant) {
        self.parts.iter_mut().for_each(|part| part.handle_peers_wanted(now));
    }

    /// See [`Announcer::poll_announce`].
    pub fn poll_announce(&mut self, now: Instant) -> Option<Announce> {
        let mut before = 0;
        for part in &mut self.parts {
            if let Some(mut announce) = part.poll_announce(now) {
                announce.tracker.0 += before;
                return Some(announce);
            }
            before += part.count();
        }
        None
    }

    /// See [`Announcer::poll_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.parts.iter().filter_map(Announcer::poll_timeout).min()
    }

    /// See [`Announcer::is_stopped`].
    pub fn is_stopped(&self) -> bool {
        self.parts.iter().all(Announcer::is_stopped)
    }

    fn find(&mut self, TrackerIndex(at): TrackerIndex) -> Option<(&mut Announcer, TrackerIndex)> {
        let mut at = at;
        for part in &mut self.parts {
            if at < part.count() {
                return Some((part, TrackerIndex(at)));
            }
            at -= part.count();
        }
        None
    }
}

impl From<Announcer> for Announcers {
    fn from(part: Announcer) -> Self {
        Self { parts: vec![part] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits::TRACKERS_MAX;
    use crate::base::time::Span;
    use crate::proto::tracker::AnnounceEvent;

    const NOW: Instant = Instant(1_000_000_000);

    fn tiers(tiers: &[&[&str]]) -> Vec<Vec<String>> {
        tiers.iter().map(|urls| urls.iter().map(|url| (*url).to_owned()).collect()).collect()
    }

    fn announcers(tiers_of: &[&[&str]], reach: Reach) -> Announcers {
        Announcers::new(&tiers(tiers_of), reach, TrackerOrigin::Operator, Rng::new(1))
    }

    fn due(announcers: &mut Announcers, now: Instant) -> Vec<Announce> {
        std::iter::from_fn(|| announcers.poll_announce(now)).collect()
    }

    #[test]
    fn all_tiers_hear_of_us_at_once_and_one_tracker_of_each() {
        let all = [&["http://a/", "http://b/"][..], &["http://c/"], &["http://a/", "http://d/"]];
        assert_eq!(due(&mut announcers(&all, Reach::FirstTier), NOW).len(), 1);
        let mut announcers = announcers(&all, Reach::AllTiers);
        let asked = due(&mut announcers, NOW);
        let urls: Vec<&str> = asked.iter().map(|announce| &*announce.url).collect();
        assert!(["http://a/", "http://b/"].contains(&urls[0]) && urls[1..] == ["http://c/", "http://d/"]);
        // A failure in one tier is followed by its next tracker and nothing else.
        announcers.handle_failure(NOW, asked[0].tracker);
        let next = due(&mut announcers, NOW);
        assert!(next.len() == 1 && urls[0] != &*next[0].url && next[0].url.len() == 9, "{next:?}");
        // Each tier has an interval of its own.
        for (seconds, announce) in [(100, &next[0]), (200, &asked[1]), (300, &asked[2])] {
            let reply = AnnounceReply { interval: Span::from_secs(seconds), ..AnnounceReply::default() };
            assert_eq!(announcers.handle_reply(NOW, announce.tracker, &reply), TrackerChange::Same);
        }
        let later = due(&mut announcers, NOW + Span::from_secs(250));
        assert_eq!(
            later.iter().map(|announce| &announce.url).collect::<Vec<_>>(),
            [&next[0].url, &asked[1].url]
        );
        later.iter().for_each(|again| announcers.handle_failure(NOW, again.tracker));
        announcers.handle_stop();
        let byes = due(&mut announcers, NOW);
        assert!(byes.iter().all(|bye| bye.event == AnnounceEvent::Stopped));
        assert_eq!(byes.len(), 3);
        byes.iter().for_each(|bye| announcers.handle_failure(NOW, bye.tracker));
        assert!(announcers.is_stopped());
    }

    #[test]
    fn n11_no_more_trackers_are_asked_in_all_tiers_than_the_limit() {
        for count in [TRACKERS_MAX - 1, TRACKERS_MAX, TRACKERS_MAX + 1] {
            let all: Vec<Vec<String>> = (0..count).map(|n| vec![format!("http://{n}/")]).collect();
            let mut announcers = Announcers::new(&all, Reach::AllTiers, TrackerOrigin::Operator, Rng::new(1));
            assert_eq!(due(&mut announcers, NOW).len(), count.min(TRACKERS_MAX));
        }
    }

    #[test]
    fn an_outcome_that_nobody_asked_for_changes_nothing() {
        let mut announcers = announcers(&[&["http://a/"]], Reach::AllTiers);
        for at in [0, 1, u16::MAX] {
            announcers.handle_failure(NOW, TrackerIndex(at));
            let reply = AnnounceReply::default();
            assert_eq!(announcers.handle_reply(NOW, TrackerIndex(at), &reply), TrackerChange::Same);
        }
        assert_eq!(due(&mut announcers, NOW).len(), 1);
    }
}
