//! The world that simulated nodes and scripted peers share: one clock, one network, a disk per
//! host, one seed. Same seed, same profile and same actors give the same run, step by step;
//! [`World::trace_hash`] proves it.

use std::cell::RefCell;
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Weak;

use super::disk::{Disk, DiskEvent, DiskOp, Job, SimFile};
use super::net::{EndId, EndState, Inbound, Net};
use super::profile::{Draw, Profile};
use super::timeline::{ActorId, Event, HostId, SimWake, Timeline};
use crate::base::rng::Rng;
use crate::base::time::{Instant, Span};
use crate::io::Errno;

/// A handle to the world; clones are the same world. Everything runs on one thread.
#[derive(Clone)]
pub struct World(Rc<RefCell<State>>);

/// Invariant: `flying` holds one entry per file operation that was submitted and is not done.
pub(super) struct State {
    pub(super) timeline: Timeline,
    pub(super) net: Net,
    disks: Vec<Disk>,
    flying: Vec<Flying>,
    /// Events of the network and the disks so far.
    progress: u64,
    /// Sockets that belong to no actor; whose owner is gone is closed.
    detached: Vec<(EndId, Weak<()>)>,
}

/// What a file operation in flight touches.
#[derive(Clone, Copy)]
struct Flying {
    actor: ActorId,
    token: u64,
    file: SimFile,
    start: u64,
    end: u64,
    direct: bool,
    is_write: bool,
}

impl World {
    /// A world without hosts.
    pub fn new(seed: u64, profile: Profile) -> Self {
        Self(Rc::new(RefCell::new(State {
            timeline: Timeline::new(seed, profile),
            net: Net::default(),
            disks: Vec::new(),
            flying: Vec::new(),
            progress: 0,
            detached: Vec::new(),
        })))
    }

    /// The virtual time.
    pub fn now(&self) -> Instant {
        self.state(|state| state.timeline.now)
    }

    /// A hash of all that has happened.
    pub fn trace_hash(&self) -> u64 {
        self.state(|state| state.timeline.trace_hash())
    }

    /// How many steps the trace has.
    pub fn steps(&self) -> u64 {
        self.state(|state| state.timeline.steps())
    }

    /// The knobs; may be turned while the world runs.
    pub fn with_profile<R>(&self, turn: impl FnOnce(&mut Profile) -> R) -> R {
        self.state(|state| turn(&mut state.timeline.profile))
    }

    /// The world's only source of chance.
    pub fn with_rng<R>(&self, roll: impl FnOnce(&mut Rng) -> R) -> R {
        self.state(|state| roll(&mut state.timeline.rng))
    }

    /// Adds something to the trace, so that a run that differs in it has another hash.
    pub fn record(&self, what: &str, numbers: &[u64]) {
        self.state(|state| state.timeline.record(what, numbers));
    }

    // ---- Hosts and actors ----

    /// Adds a host with an empty disk.
    pub fn add_host(&self) -> HostId {
        self.state(|state| {
            let host = state.net.add_host(&mut state.timeline);
            state.disks.push(Disk::new(host.0, state.timeline.profile.quota_bytes));
            host
        })
    }

    /// An address of the host.
    pub fn address(&self, host: HostId, port: u16) -> SocketAddr {
        self.state(|state| SocketAddr::new(state.net.address(host), port))
    }

    /// Sets the speed of a host's link in each direction.
    pub fn set_link(&self, host: HostId, bytes_per_sec: u64) {
        self.state(|state| state.net.set_link(host, bytes_per_sec));
    }

    /// Adds an actor, ready to run. Who runs it is the caller's business: see `run`.
    pub fn add_actor(&self, host: HostId) -> ActorId {
        self.state(|state| state.timeline.add_actor(host))
    }

    /// The host of an actor.
    pub fn host_of(&self, actor: ActorId) -> HostId {
        self.state(|state| state.timeline.host_of(actor))
    }

    /// What makes the actor run; callable from anywhere.
    pub fn wake_of(&self, actor: ActorId) -> SimWake {
        self.state(|state| state.timeline.wake_of(actor))
    }

    /// The actor runs at `at` at the latest; forgotten once it runs.
    pub fn set_deadline(&self, actor: ActorId, at: Instant) {
        self.state(|state| state.timeline.set_deadline(actor, at));
    }

    /// The actor runs as soon as it can.
    pub fn rouse(&self, actor: ActorId) {
        self.state(|state| state.timeline.rouse(actor));
    }

    /// A value of a knob.
    pub fn draw(&self, knob: impl FnOnce(&Profile) -> Draw) -> u64 {
        self.state(|state| {
            let range = knob(&state.timeline.profile);
            state.timeline.draw(range)
        })
    }

    /// Ends one actor: it never runs again.
    pub fn end_actor(&self, actor: ActorId) {
        self.state(|state| state.timeline.end_actor(actor));
    }

    /// The power of a host fails: its actors end, its connections fall silent, its disk keeps what
    /// was synced and an unknown part of the rest. Until [`World::power_on`] it answers nobody.
    pub fn crash(&self, host: HostId) {
        self.state(|state| {
            let State { timeline, net, disks, .. } = state;
            timeline.record("crash", &[u64::from(host.0)]);
            timeline.end_actors(host);
            net.end_host(timeline, host, true);
            disks[host.0 as usize].crash(&timeline.profile, &mut timeline.rng);
            state.flying.retain(|op| op.file.host != host.0);
        });
    }

    /// The power of a host is back; new actors may be added.
    pub fn power_on(&self, host: HostId) {
        self.state(|state| state.net.light_host(host));
    }

    /// The processes of a host are killed: its connections close, its disk stays as it is, and
    /// file operations in flight still take effect.
    pub fn kill(&self, host: HostId) {
        self.state(|state| {
            state.timeline.record("kill", &[u64::from(host.0)]);
            state.timeline.end_actors(host);
            state.net.end_host(&mut state.timeline, host, false);
        });
    }

    // ---- Time ----

    /// Lets the next thing happen, unless it lies beyond `limit`; the clock moves to it. False if
    /// nothing happened.
    pub fn step(&self, limit: Instant) -> bool {
        self.state(|state| {
            state.sweep();
            let Some(event) = state.timeline.pop(limit) else { return false };
            state.progress += u64::from(matches!(event, Event::Net(_) | Event::Disk(_)));
            match event {
                Event::Net(event) => state.net.handle(&mut state.timeline, event),
                Event::Disk(event) => state.handle_disk(event),
                Event::Rouse(actor) => state.timeline.rouse(actor),
                Event::Alarm(actor) => state.timeline.alarm(actor),
                Event::Free => {}
            }
            true
        })
    }

    /// Whether nothing at all is left to happen.
    pub fn is_idle(&self) -> bool {
        self.state(|state| state.timeline.is_empty())
    }

    /// How often the network or a disk did something. Timers do not count.
    pub fn progress(&self) -> u64 {
        self.state(|state| state.progress)
    }

    /// One of the actors that want to run now, by the seed's choice; it is taken to have run.
    pub fn take_ready(&self) -> Option<ActorId> {
        self.state(|state| state.timeline.take_ready())
    }

    // ---- Streams, for scripted peers ----

    /// Listens at a port of the actor's host. Several actors share a port: each connection goes to
    /// one of them.
    pub fn listen(&self, actor: ActorId, port: u16) {
        let address = self.address(self.host_of(actor), port);
        self.state(|state| state.net.listen(address, actor));
    }

    /// Starts to connect; see [`World::end_state`].
    pub fn dial(&self, actor: ActorId, to: SocketAddr) -> EndId {
        self.state(|state| state.net.dial(&mut state.timeline, to, actor))
    }

    /// The next connection that somebody made to the actor.
    pub fn accept(&self, actor: ActorId) -> Option<EndId> {
        self.state(|state| state.timeline.accepted(actor).pop_front())
    }

    /// How far a connection is.
    pub fn end_state(&self, end: EndId) -> EndState {
        self.state(|state| state.net.state(end))
    }

    /// The address of the other side.
    pub fn remote(&self, end: EndId) -> SocketAddr {
        self.state(|state| state.net.remote(end))
    }

    /// The own address of a connection.
    pub fn local(&self, end: EndId) -> SocketAddr {
        self.state(|state| state.net.local(end))
    }

    /// Appends up to `max` received bytes to `out`.
    pub fn read(&self, end: EndId, max: usize, out: &mut Vec<u8>) -> Result<Inbound, Errno> {
        self.state(|state| state.net.read(&mut state.timeline, end, max, out))
    }

    /// Sends what fits now; `Ok(0)` if nothing does.
    pub fn write(&self, end: EndId, bytes: &[u8]) -> Result<usize, Errno> {
        self.state(|state| state.net.write(&mut state.timeline, end, bytes))
    }

    /// Sends no more, still receives.
    pub fn shut_send(&self, end: EndId) {
        self.state(|state| state.net.shut_send(&mut state.timeline, end));
    }

    /// Closes a connection.
    pub fn close(&self, end: EndId) {
        self.state(|state| state.net.close(&mut state.timeline, end));
    }

    /// Open connections of a host.
    pub fn open_ends(&self, host: HostId) -> usize {
        self.state(|state| state.net.open_ends(host))
    }

    // ---- Disks ----

    /// Works on a host's disk, at once. The closure also gets the knobs and the generator, as
    /// `Disk::sync` wants them.
    pub fn disk<R>(&self, host: HostId, work: impl FnOnce(&mut Disk, &Profile, &mut Rng) -> R) -> R {
        self.state(|state| {
            let timeline = &mut state.timeline;
            work(&mut state.disks[host.0 as usize], &timeline.profile, &mut timeline.rng)
        })
    }

    /// File operations of a host in flight.
    pub fn file_ops(&self, host: HostId) -> usize {
        self.state(|state| state.flying.iter().filter(|op| op.file.host == host.0).count())
    }

    pub(super) fn submit(&self, actor: ActorId, op: DiskOp) {
        self.state(|state| state.submit(actor, op));
    }

    pub(super) fn state<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        f(&mut self.0.borrow_mut())
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "World(at {} ns, trace {:016x})", self.now().0, self.trace_hash())
    }
}

impl State {
    /// Lets a socket go that no actor owns until another takes it.
    pub(super) fn detach(&mut self, end: EndId, holder: Weak<()>) {
        self.detached.push((end, holder));
    }

    /// The actor takes over a socket.
    pub(super) fn attach(&mut self, end: EndId, actor: ActorId) {
        self.detached.retain(|(detached, _)| *detached != end);
        self.net.set_owner(&mut self.timeline, end, actor);
    }

    /// Closes the sockets that were dropped on their way to another actor.
    fn sweep(&mut self) {
        let mut at = 0;
        while at < self.detached.len() {
            if self.detached[at].1.strong_count() == 0 {
                let (end, _) = self.detached.swap_remove(at);
                self.net.close(&mut self.timeline, end);
            } else {
                at += 1;
            }
        }
    }

    fn submit(&mut self, actor: ActorId, op: DiskOp) {
        let (range, len, is_write) = match &op.job {
            Job::Read { len } => (self.timeline.profile.read_ns, *len, false),
            Job::Write { bytes } => (self.timeline.profile.write_ns, bytes.len(), true),
        };
        let flying = Flying {
            actor,
            token: op.token,
            file: op.file,
            start: op.offset,
            end: op.offset + len as u64,
            direct: op.direct,
            is_write,
        };
        if let Some(other) = self.flying.iter().find(|other| clash(other, &flying)) {
            panic!(
                "file operations clash: bytes {}..{} and {}..{} of {:?} are in flight together",
                other.start, other.end, flying.start, flying.end, flying.file
            );
        }
        self.flying.push(flying);
        let epoch = self.disks[op.file.host as usize].epoch;
        let takes = Span(self.timeline.draw(range) / 2);
        let at = self.timeline.now + takes;
        self.timeline.schedule(at, Event::Disk(DiskEvent::Apply { actor, epoch, op }));
    }

    fn handle_disk(&mut self, event: DiskEvent) {
        let timeline = &mut self.timeline;
        match event {
            DiskEvent::Apply { actor, epoch, op } => {
                let (file, host) = (op.file, op.file.host as usize);
                if self.disks[host].epoch != epoch {
                    return;
                }
                let is_write = matches!(op.job, Job::Write { .. });
                let range = if is_write { timeline.profile.write_ns } else { timeline.profile.read_ns };
                let offset = op.offset;
                let done = self.disks[host].execute(op, &timeline.profile, &mut timeline.rng);
                let count = done.result.map_or(u64::MAX, u64::from);
                timeline.record("file", &[u64::from(file.number), offset, u64::from(is_write), count]);
                let at = timeline.now + Span(timeline.draw(range) / 2);
                timeline.schedule(at, Event::Disk(DiskEvent::Done { actor, epoch, file, done }));
            }
            DiskEvent::Done { actor, epoch, file, done } => {
                if self.disks[file.host as usize].epoch != epoch {
                    return;
                }
                self.flying.retain(|op| (op.actor, op.token) != (actor, done.token));
                if timeline.is_alive(actor) {
                    timeline.files_done(actor).push(done);
                    timeline.rouse(actor);
                }
            }
        }
    }
}

/// Whether two operations must not be in flight together: their outcome would depend on the order
/// in which the kernel takes them, or direct and buffered access would meet in one page.
fn clash(a: &Flying, b: &Flying) -> bool {
    const PAGE: u64 = crate::base::units::PAGE_BYTES as u64;
    if a.file != b.file || !(a.is_write || b.is_write) {
        return false;
    }
    let overlaps = a.start < b.end && b.start < a.end;
    let shares_page = a.start / PAGE < b.end.div_ceil(PAGE) && b.start / PAGE < a.end.div_ceil(PAGE);
    if a.direct == b.direct {
        return overlaps;
    }
    // A direct read may bring more of an edge page than its chunk: the rest is ignored, so a buffered
    // write there, by the chunk's neighbour, does no harm.
    let is_harmless = |direct: &Flying, other: &Flying| direct.direct && !direct.is_write && other.is_write;
    if is_harmless(a, b) || is_harmless(b, a) { false } else { shares_page }
}
