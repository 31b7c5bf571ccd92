//! The virtual clock: what happens next, who may run, and a hash of all that happened.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use xxhash_rust::xxh3::Xxh3;

use super::disk::{DiskDone, DiskEvent};
use super::net::{EndId, NetEvent};
use super::profile::{Draw, Profile, chance, draw, index};
use crate::base::rng::Rng;
use crate::base::time::{Instant, Span};
use crate::io::Wake;

/// One simulated machine: an address, a link and a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostId(pub u32);

/// One thing that runs: a core of a node, a control thread, a scripted peer. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ActorId(pub u32);

/// Marks an actor as able to run; see [`Wake`].
#[derive(Clone, Debug, Default)]
pub struct SimWake(Arc<AtomicBool>);

impl Wake for SimWake {
    fn wake(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What the queue holds.
#[derive(Debug)]
pub(super) enum Event {
    Net(NetEvent),
    Disk(DiskEvent),
    /// The actor shall run.
    Rouse(ActorId),
    /// The actor's deadline may have come.
    Alarm(ActorId),
    /// An actor's turn is over: the clock stops here, so that it runs if anything came up meanwhile.
    Free,
}

#[derive(Debug)]
struct Actor {
    host: HostId,
    alive: bool,
    ready: bool,
    /// The actor is busy with its last turn until then.
    busy_until: Instant,
    /// The actor shall run then, whatever happens.
    deadline: Option<Instant>,
    /// When its next `Alarm` is due: at most one counts, others in the queue are stale.
    alarm: Option<Instant>,
    /// Something came up in its last turn, and `Free` is in the queue for its end: once a turn, or
    /// what comes up for a busy actor would keep it running for ever.
    waits: bool,
    wake: SimWake,
    accepted: VecDeque<EndId>,
    files_done: Vec<DiskDone>,
}

/// Invariant: no event lies before `now`; `events[i]` is taken exactly once, by its queue entry.
#[derive(Debug)]
pub(super) struct Timeline {
    pub(super) now: Instant,
    pub(super) rng: Rng,
    pub(super) profile: Profile,
    /// Time, seeded tie-break, number: events of one instant happen in an order of the seed.
    queue: BinaryHeap<Reverse<(Instant, u64, Queued)>>,
    events_pushed: u64,
    actors: Vec<Actor>,
    trace: Trace,
}

/// Orders by number alone, so that the heap never compares events.
#[derive(Debug)]
struct Queued {
    number: u64,
    event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.number.cmp(&other.number)
    }
}

/// A running hash of what happened; equal for equal runs.
#[derive(Default)]
struct Trace {
    hash: Xxh3,
    steps: u64,
}

impl std::fmt::Debug for Trace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x} after {} steps", self.hash.digest(), self.steps)
    }
}

impl Timeline {
    pub(super) fn new(seed: u64, profile: Profile) -> Self {
        Self {
            // Not 0: code that confuses "never" with time zero shall be seen to.
            now: Instant(1_000_000_000),
            rng: Rng::new(seed),
            profile,
            queue: BinaryHeap::new(),
            events_pushed: 0,
            actors: Vec::new(),
            trace: Trace::default(),
        }
    }

    /// A value of a knob.
    pub(super) fn draw(&mut self, range: Draw) -> u64 {
        draw(&mut self.rng, range)
    }

    /// Whether a fault of this rate strikes.
    pub(super) fn chance(&mut self, ppm: u32) -> bool {
        chance(&mut self.rng, ppm)
    }

    /// A length in `1..=len` as a short transfer of `len` bytes would have it, 0 for 0.
    pub(super) fn shorten(&mut self, len: usize) -> usize {
        if len <= 1 || !self.chance(self.profile.short_ppm) {
            return len;
        }
        if self.chance(self.profile.tiny_ppm) { 1 } else { 1 + index(&mut self.rng, len) }
    }

    pub(super) fn schedule(&mut self, at: Instant, event: Event) {
        let tie = self.rng.next_u64();
        let queued = Queued { number: self.events_pushed, event };
        self.events_pushed += 1;
        self.queue.push(Reverse((at.max(self.now), tie, queued)));
    }

    /// The next event, unless it lies beyond `limit`; the clock moves to it.
    pub(super) fn pop(&mut self, limit: Instant) -> Option<Event> {
        if self.queue.peek()?.0.0 > limit {
            return None;
        }
        let Reverse((at, _, queued)) = self.queue.pop()?;
        assert!(at >= self.now, "time runs forward");
        self.now = at;
        Some(queued.event)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Adds a step to the trace.
    pub(super) fn record(&mut self, what: &str, numbers: &[u64]) {
        self.trace.steps += 1;
        self.trace.hash.update(&self.now.0.to_le_bytes());
        self.trace.hash.update(what.as_bytes());
        for number in numbers {
            self.trace.hash.update(&number.to_le_bytes());
        }
    }

    pub(super) fn trace_hash(&self) -> u64 {
        self.trace.hash.digest()
    }

    pub(super) const fn steps(&self) -> u64 {
        self.trace.steps
    }

    pub(super) fn add_actor(&mut self, host: HostId) -> ActorId {
        self.actors.push(Actor {
            host,
            alive: true,
            ready: true,
            busy_until: self.now,
            deadline: None,
            alarm: None,
            waits: false,
            wake: SimWake::default(),
            accepted: VecDeque::new(),
            files_done: Vec::new(),
        });
        ActorId(self.actors.len() as u32 - 1)
    }

    fn actor(&mut self, id: ActorId) -> &mut Actor {
        &mut self.actors[id.0 as usize]
    }

    pub(super) fn host_of(&self, id: ActorId) -> HostId {
        self.actors[id.0 as usize].host
    }

    pub(super) fn is_alive(&self, id: ActorId) -> bool {
        self.actors[id.0 as usize].alive
    }

    pub(super) fn wake_of(&self, id: ActorId) -> SimWake {
        self.actors[id.0 as usize].wake.clone()
    }

    /// Ends all actors of a host; nothing reaches them any more.
    pub(super) fn end_actors(&mut self, host: HostId) {
        for actor in self.actors.iter_mut().filter(|actor| actor.host == host) {
            actor.alive = false;
            actor.ready = false;
            actor.accepted.clear();
            actor.files_done.clear();
        }
    }

    /// Ends one actor.
    pub(super) fn end_actor(&mut self, id: ActorId) {
        let actor = self.actor(id);
        actor.alive = false;
        actor.accepted.clear();
        actor.files_done.clear();
    }

    /// Something came up for the actor: it shall run as soon as it can.
    pub(super) fn rouse(&mut self, id: ActorId) {
        self.actor(id).ready = true;
    }

    /// The actor shall run at `at`, even if it runs before.
    pub(super) fn rouse_at(&mut self, id: ActorId, at: Instant) {
        self.schedule(at, Event::Rouse(id));
    }

    /// The actor shall run at `at` at the latest; forgotten when it runs before.
    pub(super) fn set_deadline(&mut self, id: ActorId, at: Instant) {
        if at <= self.now {
            return self.rouse(id);
        }
        let actor = self.actor(id);
        let at = actor.deadline.map_or(at, |deadline| deadline.min(at));
        actor.deadline = Some(at);
        if actor.alarm.is_none_or(|alarm| alarm > at) {
            actor.alarm = Some(at);
            self.schedule(at, Event::Alarm(id));
        }
    }

    pub(super) fn alarm(&mut self, id: ActorId) {
        let now = self.now;
        let actor = self.actor(id);
        if actor.alarm != Some(now) {
            return;
        }
        actor.alarm = None;
        match actor.deadline.take() {
            Some(deadline) if deadline > now => self.set_deadline(id, deadline),
            Some(_) => self.rouse(id),
            None => {}
        }
    }

    /// The turn that the actor is in takes so much longer.
    pub(super) fn charge(&mut self, id: ActorId, span: Span) {
        let busy_until = &mut self.actor(id).busy_until;
        *busy_until = *busy_until + span;
    }

    pub(super) fn push_accepted(&mut self, id: ActorId, end: EndId) {
        self.actor(id).accepted.push_back(end);
        self.rouse(id);
    }

    pub(super) fn accepted(&mut self, id: ActorId) -> &mut VecDeque<EndId> {
        &mut self.actor(id).accepted
    }

    pub(super) fn files_done(&mut self, id: ActorId) -> &mut Vec<DiskDone> {
        &mut self.actor(id).files_done
    }

    /// Picks one of the actors that can run now and charges it for a turn. One that is still busy
    /// runs when it is done.
    pub(super) fn take_ready(&mut self) -> Option<ActorId> {
        let now = self.now;
        let mut able = Vec::new();
        let mut late = Vec::new();
        for (number, actor) in self.actors.iter_mut().enumerate().filter(|(_, actor)| actor.alive) {
            actor.ready |= actor.wake.0.swap(false, Ordering::Relaxed);
            if !actor.ready {
                continue;
            }
            if actor.busy_until <= now {
                able.push(ActorId(number as u32));
            } else if !std::mem::replace(&mut actor.waits, true) {
                late.push(actor.busy_until);
            }
        }
        for at in late {
            self.schedule(at, Event::Free);
        }
        if able.is_empty() {
            return None;
        }
        let id = able[index(&mut self.rng, able.len())];
        let busy_ns = self.draw(self.profile.turn_ns).max(1);
        let actor = self.actor(id);
        (actor.ready, actor.waits) = (false, false);
        actor.deadline = None;
        actor.busy_until = now + Span(busy_ns);
        self.record("run", &[u64::from(id.0)]);
        Some(id)
    }
}
