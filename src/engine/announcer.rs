//! When to announce one torrent, and to which of its trackers (BEP 3, BEP 12).
//!
//! The contract:
//! - tiers are tried in order, a tier's trackers in an order shuffled once; who answers moves to the
//!   front of its tier, and nobody behind it is asked until it fails;
//! - one round asks each tracker at most once, so that a slow failure at the front never keeps
//!   those behind from being asked;
//! - a tracker that failed is left alone for a back-off that doubles;
//! - one announce is in flight at a time, and one per tier while good-byes are said;
//! - `Started` comes first at each tracker, `Completed` once, `Stopped` wherever `Started` arrived.
//!
//! Facts go in by `handle_*`, announces come out by [`Announcer::poll_announce`].

mod tiers;

use std::sync::Arc;

pub use tiers::{Announcers, Reach};

use crate::base::limits::{
    TRACKER_BACKOFF_MAX, TRACKER_BACKOFF_MIN, TRACKER_INTERVAL_MAX, TRACKER_INTERVAL_MIN,
    TRACKER_INTERVAL_OPERATOR_MIN, TRACKERS_MAX, URL_BYTES_MAX,
};
use crate::base::rng::Rng;
use crate::base::time::{Instant, Span};
use crate::proto::tracker::{AnnounceEvent, AnnounceReply};

/// Who named a tracker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TrackerOrigin {
    /// The command line or a local .torrent file.
    Operator,
    /// Somebody out there, of whom the operator knows nothing.
    Stranger,
}

impl TrackerOrigin {
    /// Of what a SOURCE names, be it a .torrent file or a magnet link: both came from somebody, and the
    /// operator gives both to have their trackers and peers asked. A fleet names its own by either. What
    /// trackers say in turn, redirects and peers, is not the operator's word.
    pub const SOURCE: Self = Self::Operator;
}

/// A tracker of this announcer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TrackerIndex(u16);

/// An announce to be sent now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announce {
    /// To be handed back with the outcome.
    pub tracker: TrackerIndex,
    /// Where to; may hold a passkey, not for logs.
    pub url: Arc<str>,
    /// What to say.
    pub event: AnnounceEvent,
}

/// Whether a reply came from another tracker than the one before. A private torrent must then
/// part from the peers of the old one (BEP 27).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrackerChange {
    /// The same, or the first ever.
    Same,
    /// Another one.
    Switched,
}

/// The announce schedule of one torrent.
#[derive(Debug)]
pub struct Announcer {
    origin: TrackerOrigin,
    trackers: Vec<Tracker>,
    tiers: Vec<Tier>,
    phase: Phase,
    /// Who answered last.
    current: Option<usize>,
    /// When the next round may begin.
    due: Instant,
    /// How far `due` may be brought forward.
    due_min: Instant,
    completed: Completed,
    rng: Rng,
}

#[derive(Debug)]
struct Tracker {
    url: Arc<str>,
    tier: usize,
    presence: Presence,
    failures: u32,
    /// End of the back-off.
    not_before: Instant,
    /// Failed in this round already.
    tried: bool,
}

#[derive(Debug, Default)]
struct Tier {
    order: Vec<usize>,
    in_flight: Option<(usize, AnnounceEvent)>,
}

/// What a tracker knows of us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    Unknown,
    Registered,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    Stopping,
}

/// The one event that must not get lost when an announce fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Completed {
    NotYet,
    ToTell,
    Told,
}

impl Announcer {
    /// How many trackers it has.
    fn count(&self) -> u16 {
        // At most `TRACKERS_MAX`.
        u16::try_from(self.trackers.len()).unwrap_or(u16::MAX)
    }

    /// A schedule over `tiers`, the first announce of which is due at once. URLs that are empty, too
    /// long or there before are left out, and so are all beyond [`TRACKERS_MAX`].
    pub fn new(tiers: &[Vec<String>], origin: TrackerOrigin, mut rng: Rng) -> Self {
        let mut trackers: Vec<Tracker> = Vec::new();
        let mut kept: Vec<Tier> = Vec::new();
        for urls in tiers {
            let mut tier = Tier::default();
            for url in urls {
                let usable = !url.is_empty() && url.len() <= URL_BYTES_MAX;
                let known = trackers.iter().any(|tracker| *tracker.url == **url);
                if usable && !known && trackers.len() < TRACKERS_MAX {
                    tier.order.push(trackers.len());
                    trackers.push(Tracker::new(url, kept.len()));
                }
            }
            if !tier.order.is_empty() {
                rng.shuffle(&mut tier.order);
                kept.push(tier);
            }
        }
        let (due, phase, completed) = (Instant::default(), Phase::Running, Completed::NotYet);
        Self { origin, trackers, tiers: kept, phase, current: None, due, due_min: due, completed, rng }
    }

    /// The tracker answered. Nothing happens if it was not asked.
    pub fn handle_reply(
        &mut self,
        now: Instant,
        TrackerIndex(index): TrackerIndex,
        reply: &AnnounceReply,
    ) -> TrackerChange {
        let index = usize::from(index);
        let Some(event) = self.take_in_flight(index) else { return TrackerChange::Same };
        let Some(tracker) = self.trackers.get_mut(index) else { return TrackerChange::Same };
        tracker.failures = 0;
        tracker.not_before = now;
        match event {
            AnnounceEvent::Stopped => tracker.presence = Presence::Unknown,
            AnnounceEvent::Started => tracker.presence = Presence::Registered,
            AnnounceEvent::Completed => self.completed = Completed::Told,
            AnnounceEvent::None | AnnounceEvent::Paused => {}
        }
        self.move_to_front(index);
        self.begin_round();
        let (wait_min, wait) = waits(self.origin, reply);
        self.due_min = now + wait_min;
        self.due = now + wait + self.jitter(Span(wait.0 / 16));
        match self.current.replace(index) {
            Some(before) if before != index => TrackerChange::Switched,
            _ => TrackerChange::Same,
        }
    }

    /// The tracker refused, or could not be reached, or answered nonsense. The next one is due at once.
    pub fn handle_failure(&mut self, now: Instant, TrackerIndex(index): TrackerIndex) {
        let index = usize::from(index);
        let Some(event) = self.take_in_flight(index) else { return };
        let Some(failures) = self.trackers.get(index).map(|tracker| tracker.failures) else { return };
        let doubled = TRACKER_BACKOFF_MIN.0.saturating_mul(1 << failures.min(20));
        let wait = Span(doubled.min(TRACKER_BACKOFF_MAX.0));
        let not_before = now + wait + self.jitter(Span(wait.0 / 8));
        let Some(tracker) = self.trackers.get_mut(index) else { return };
        tracker.failures = failures.saturating_add(1);
        tracker.not_before = not_before;
        tracker.tried = true;
        if event == AnnounceEvent::Stopped {
            // Good-bye is said once; the tracker forgets us by itself.
            tracker.presence = Presence::Unknown;
        }
    }

    /// The last missing piece has arrived; to be told at once. Not for nodes that begin complete.
    pub fn handle_completed(&mut self) {
        if self.completed == Completed::NotYet {
            self.completed = Completed::ToTell;
        }
    }

    /// We leave: from now on only good-byes are due, one per tracker that knows us.
    pub fn handle_stop(&mut self) {
        self.phase = Phase::Stopping;
    }

    /// More peers are wanted: the next announce comes as soon as the tracker's minimum interval allows.
    pub fn handle_peers_wanted(&mut self, now: Instant) {
        self.due = self.due.min(self.due_min.max(now));
    }

    /// The next announce to send now, if one is due. The caller answers each by
    /// [`Self::handle_reply`] or [`Self::handle_failure`].
    pub fn poll_announce(&mut self, now: Instant) -> Option<Announce> {
        let (index, event) = match self.phase {
            Phase::Stopping => (self.next_good_bye()?, AnnounceEvent::Stopped),
            Phase::Running => {
                let index = self.next_tracker(now)?;
                (index, self.event_for(index))
            }
        };
        let tracker = self.trackers.get(index)?;
        let announce =
            Announce { tracker: TrackerIndex(u16::try_from(index).ok()?), url: tracker.url.clone(), event };
        self.tiers.get_mut(tracker.tier)?.in_flight = Some((index, event));
        Some(announce)
    }

    /// When to call [`Self::poll_announce`] next; `None` while only an outcome can bring news.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Stopping => self.next_good_bye().map(|_| Instant::default()),
            Phase::Running if self.is_in_flight() => None,
            Phase::Running => {
                let backed_off = self.trackers.iter().map(|tracker| tracker.not_before).min()?;
                Some(backed_off.max(self.due_with_events()))
            }
        }
    }

    /// Whether all good-byes after [`Self::handle_stop`] are said or have failed.
    pub fn is_stopped(&self) -> bool {
        self.phase == Phase::Stopping && !self.is_in_flight() && self.next_good_bye().is_none()
    }

    /// Whether there is any tracker at all.
    pub fn has_trackers(&self) -> bool {
        !self.trackers.is_empty()
    }

    fn is_in_flight(&self) -> bool {
        self.tiers.iter().any(|tier| tier.in_flight.is_some())
    }

    fn due_with_events(&self) -> Instant {
        match self.completed {
            Completed::ToTell => Instant::default(),
            Completed::NotYet | Completed::Told => self.due,
        }
    }

    fn event_for(&self, index: usize) -> AnnounceEvent {
        match (self.trackers.get(index).map(|tracker| tracker.presence), self.completed) {
            (Some(Presence::Registered), Completed::ToTell) => AnnounceEvent::Completed,
            (Some(Presence::Registered), _) => AnnounceEvent::None,
            _ => AnnounceEvent::Started,
        }
    }

    fn next_good_bye(&self) -> Option<usize> {
        let idle = self.tiers.iter().filter(|tier| tier.in_flight.is_none());
        let mut indices = idle.flat_map(|tier| tier.order.iter().copied());
        indices.find(|&index| {
            self.trackers.get(index).is_some_and(|tracker| tracker.presence == Presence::Registered)
        })
    }

    fn next_tracker(&mut self, now: Instant) -> Option<usize> {
        if self.is_in_flight() || now < self.due_with_events() {
            return None;
        }
        let free = |tracker: &Tracker| tracker.not_before <= now;
        // Completion is told first to who counted us as incomplete.
        let current = self.current.filter(|_| self.completed == Completed::ToTell);
        if let Some(index) = current.filter(|&index| self.trackers.get(index).is_some_and(free)) {
            return Some(index);
        }
        let untried = self.first_in_order(|tracker| free(tracker) && !tracker.tried);
        if untried.is_some() {
            return untried;
        }
        let again = self.first_in_order(free)?;
        self.begin_round();
        Some(again)
    }

    fn first_in_order(&self, wanted: impl Fn(&Tracker) -> bool) -> Option<usize> {
        let mut indices = self.tiers.iter().flat_map(|tier| tier.order.iter().copied());
        indices.find(|&index| self.trackers.get(index).is_some_and(&wanted))
    }

    fn begin_round(&mut self) {
        self.trackers.iter_mut().for_each(|tracker| tracker.tried = false);
    }

    fn take_in_flight(&mut self, index: usize) -> Option<AnnounceEvent> {
        let tier = self.tiers.get_mut(self.trackers.get(index)?.tier)?;
        let (_, event) = tier.in_flight.take_if(|(asked, _)| *asked == index)?;
        Some(event)
    }

    fn move_to_front(&mut self, index: usize) {
        let Some(tracker) = self.trackers.get(index) else { return };
        let Some(tier) = self.tiers.get_mut(tracker.tier) else { return };
        if let Some(place) = tier.order.iter().position(|&at| at == index)
            && let Some(head) = tier.order.get_mut(..=place)
        {
            head.rotate_right(1);
        }
    }

    /// A random span below `bound`, so that nodes that began together do not stay together.
    fn jitter(&mut self, bound: Span) -> Span {
        let product = u128::from(bound.0) * u128::from(self.rng.next_u64());
        Span((product >> 64) as u64)
    }
}

impl Tracker {
    fn new(url: &str, tier: usize) -> Self {
        let not_before = Instant::default();
        Self { url: url.into(), tier, presence: Presence::Unknown, failures: 0, not_before, tried: false }
    }
}

/// The shortest and the regular wait after `reply` (threats N7). A tracker that names no interval
/// is asked at the shortest one that anybody may set.
fn waits(origin: TrackerOrigin, reply: &AnnounceReply) -> (Span, Span) {
    let floor = match origin {
        TrackerOrigin::Operator => TRACKER_INTERVAL_OPERATOR_MIN,
        TrackerOrigin::Stranger => TRACKER_INTERVAL_MIN,
    };
    let asked = if reply.interval == Span::ZERO { TRACKER_INTERVAL_MIN } else { reply.interval };
    let wait_min = reply.min_interval.unwrap_or(floor).clamp(floor, TRACKER_INTERVAL_MAX);
    (wait_min, asked.clamp(wait_min, TRACKER_INTERVAL_MAX))
}

#[cfg(test)]
mod tests;
