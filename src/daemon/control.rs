//! The control thread's loop: one task that decides, and small ones that wait for things.

mod accounts;
mod announcing;
mod discovery;
mod exchange;
mod inquiry;
mod late_layers;
mod magnet;
mod mail;
mod memory;
mod role;
mod sleep;
mod tracking;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{Receiver, UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, Semaphore};
use xxhash_rust::xxh3::xxh3_64;

use super::agenda::Agenda;
use super::clock;
use super::config::{NodeConfig, Role};
use super::discovery::News as Discovered;
use super::error::NodeError;
use super::keeping::{News, Order, keep};
use super::magnet::{Called, Said, callers};
use super::metrics::{Asked, Endpoint};
use super::mse::Mse;
use super::start::{Gates, StartConfig, Started, start};
use super::status::{NodeStatus, TorrentState};
use super::store::StateDir;
use super::swarm::{Live, Sleep, Swarm};
use super::tracker::{AnnounceError, TrackerClient, TrackerSettings};
use super::web_seed::{Bridge, Sources};
use crate::base::address::AddressClass;
use crate::base::ids::{PeerId, TorrentId};
use crate::base::limits::TRACKER_ANNOUNCES_MAX;
use crate::base::rng::Rng;
use crate::base::time::{Instant, Span};
use crate::engine::action::Report;
use crate::engine::announcer::{Announce, Announcers, Reach, TrackerIndex, TrackerOrigin};
use crate::engine::candidates::Source;
use crate::engine::encryption::Manner;
use crate::engine::fetch::PeerNumber;
use crate::engine::versions::Name;
use crate::io::Wake;
use crate::io::uring::Uring;
use crate::proto::tracker::{AnnounceReply, AnnounceRequest};
use crate::shared::sleepers::Sleepers;
use crate::shared::sync::Ordering;
use crate::storage::durability::SyncPolicy;
use crate::worker::mesh::{Edge, Mailbox, Sender, ToControl, ToWorker};

use accounts::Ledgering;
use discovery::Finding;
use inquiry::Inquiries;
use memory::RegionDone;
use sleep::Bedroom;
use tracking::Tracking;

pub use memory::CacheMemory;

/// Signals that come so close together count as one.
const SAME_WISH: Span = Span::from_secs(1);

/// Trackers are told good-bye for at most so long.
const GOOD_BYE_TIMEOUT: Span = Span::from_secs(3);

/// Events handled before the loop looks elsewhere.
const EVENTS_PER_ROUND: usize = 1024;

/// What the control thread knows of the process.
#[derive(Clone, Copy, Debug)]
pub struct Shared {
    /// Our name.
    pub peer_id: PeerId,
    /// By which trackers know us again.
    pub key: u32,
    /// Seed of choices that nobody gains from guessing.
    pub seed: u64,
    /// Where peers are accepted.
    pub listen: Option<SocketAddr>,
}

/// What the small tasks tell the loop.
enum Event {
    Checked(TorrentId),
    Started(TorrentId, Box<Result<Option<Started>, NodeError>>),
    Kept(TorrentId, News),
    Announced(TorrentId, TrackerIndex, Result<AnnounceReply, AnnounceError>, announcing::Found),
    Scraped(Asked),
    Asked(super::socket::Asked),
    Said(TorrentId, PeerNumber, Said),
    SaidLate(TorrentId, PeerNumber, Said),
    Found(TorrentId, magnet::Found),
    Region(RegionDone),
    Ledgered,
    Met(TorrentId, Name, SocketAddr),
    Discovered(Discovered),
}

/// How far the node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// Workers were told to stop; so many have not ended.
    Draining(usize),
    /// Workers have ended; journals are being closed and trackers told.
    Closing(Instant),
}

/// See the module.
pub struct Control<'a> {
    config: NodeConfig,
    shared: Shared,
    state: Arc<StateDir>,
    mailbox: Arc<Mailbox<ToControl>>,
    bell: Arc<Notify>,
    workers: Vec<Sender<ToWorker<Uring>>>,
    swarms: Vec<Swarm>,
    /// When to look at which swarm.
    agenda: Agenda,
    bedroom: Bedroom,
    /// Announces under way.
    announcing: usize,
    /// Swarms with an announce that waits for one of them to end.
    announces_queued: VecDeque<TorrentId>,
    trackers: Rc<TrackerClient>,
    web_seeds: Bridge,
    finding: Finding,
    /// Connections for the metadata of links.
    seek_places: Rc<magnet::Places>,
    /// Those of them that peers opened.
    callers: Receiver<Called>,
    events: UnboundedReceiver<Event>,
    tell: UnboundedSender<Event>,
    memory: CacheMemory,
    ledgering: Ledgering,
    metrics: Option<Endpoint>,
    /// Who has encrypted handshakes, if they are spoken.
    mse: Option<Mse>,
    inquiries: Inquiries,
    tracking: Tracking,
    on_status: &'a mut dyn FnMut(&NodeStatus),
    phase: Phase,
    stop_asked_at: Option<Instant>,
    gates: Arc<Gates>,
    failure: Option<NodeError>,
    started_at: Instant,
    status_at: Instant,
    /// When to see whether enough was served.
    role_at: Option<Instant>,
}

struct Bell(Arc<Notify>);

impl Wake for Bell {
    fn wake(&self) {
        self.0.notify_one();
    }
}

impl<'a> Control<'a> {
    /// A control thread that has not begun. Torrents start when it runs.
    pub fn new(
        config: NodeConfig,
        shared: Shared,
        state: StateDir,
        (mailbox, memory, sleepers): (Arc<Mailbox<ToControl>>, CacheMemory, Arc<Sleepers>),
        workers: &[Arc<Mailbox<ToWorker<Uring>>>],
        on_status: &'a mut dyn FnMut(&NodeStatus),
    ) -> Self {
        let bell = Arc::new(Notify::new());
        mailbox.set_waker(Arc::new(Bell(Arc::clone(&bell))));
        let (tell, events) = unbounded_channel();
        let now = clock::now();
        let web_seeds = Bridge::new(Arc::clone(&mailbox), workers.to_vec());
        Self {
            config,
            shared,
            state: Arc::new(state),
            mailbox,
            bell,
            workers: workers.iter().map(|worker| Sender::new(Arc::clone(worker))).collect(),
            swarms: Vec::new(),
            agenda: Agenda::default(),
            bedroom: Bedroom::new(sleepers),
            announcing: 0,
            announces_queued: VecDeque::new(),
            trackers: Rc::new(TrackerClient::new(TrackerSettings::default())),
            web_seeds,
            finding: Finding::default(),
            seek_places: Rc::new(magnet::Places::new()),
            callers: callers().1,
            events,
            tell,
            memory,
            ledgering: Ledgering::Over,
            metrics: None,
            mse: None,
            inquiries: Inquiries::new(),
            tracking: Tracking::default(),
            on_status,
            phase: Phase::Running,
            stop_asked_at: None,
            gates: Arc::default(),
            failure: None,
            started_at: now,
            status_at: now,
            role_at: None,
        }
    }

    /// The same with somebody who has encrypted handshakes.
    pub fn with_encryption(mut self, mse: Option<Mse>) -> Self {
        self.mse = mse;
        self
    }

    /// Runs the node to its end.
    pub async fn run(&mut self) -> Result<NodeStatus, NodeError> {
        let mut interrupt = signal(SignalKind::interrupt()).map_err(NodeError::Control)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(NodeError::Control)?;
        self.region_touched(0);
        self.listen();
        self.start_ledgering();
        self.start_tracking();
        self.start_discovery();
        self.start_torrents();
        self.show_status();
        loop {
            self.take_mail();
            self.look_after(clock::now());
            if self.is_over() {
                break;
            }
            let at = clock::tokio_at(self.wake_at());
            if !self.mailbox.park() {
                self.mailbox.unpark();
                tokio::task::yield_now().await;
                continue;
            }
            tokio::select! {
                () = self.bell.notified() => {}
                Some(event) = self.events.recv() => self.handle_events(event),
                Some(called) = self.callers.recv() => self.handle_callers(called),
                () = stop_asked(&mut interrupt, &mut terminate) => {
                    if self.asked_twice() {
                        return Err(NodeError::Killed);
                    }
                    self.stop();
                }
                () = tokio::time::sleep_until(at) => {}
            }
            self.mailbox.unpark();
        }
        let last = self.status(clock::now());
        (self.on_status)(&last);
        let fetched = self.config.role == Role::Relay || self.swarms.iter().all(Swarm::is_done);
        match self.failure.take() {
            Some(failure) => Err(failure),
            None if !fetched => Err(NodeError::Unfinished(Box::new(last))),
            None => Ok(last),
        }
    }

    /// Whether a stop is asked for again. A second signal within a second is the same wish, sent to
    /// the process and to its group, as `timeout` does.
    fn asked_twice(&mut self) -> bool {
        let now = clock::now();
        let first = *self.stop_asked_at.get_or_insert(now);
        now.since(first) >= SAME_WISH
    }

    fn start_torrents(&mut self) {
        let now = clock::now();
        for (index, metainfo) in self.config.torrents.clone().into_iter().enumerate() {
            let id = TorrentId(index as u32);
            let rng = Rng::new(self.shared.seed ^ index as u64);
            // Of a link nobody knows yet whether it is private.
            let one = metainfo.private || metainfo.is_awaited();
            let reach = if one { Reach::FirstTier } else { self.config.announce };
            let announcer = Announcers::new(&metainfo.trackers, reach, TrackerOrigin::SOURCE, rng);
            let mut swarm = Swarm::new(Arc::clone(&metainfo), announcer, self.shared.peer_id, now);
            self.know_own_address(&mut swarm, None);
            swarm.wanted = self.config.wanted.get(index).cloned().flatten();
            swarm.file_progress = self.config.file_progress;
            swarm.roster.candidates.set_encryption(self.config.encryption);
            for &peer in &self.config.peers {
                swarm.roster.add(peer, Source::Operator, now);
            }
            self.swarms.push(swarm);
            self.agenda.set(id, Some(now));
            self.discover(id);
            self.begin_torrent(id, now);
        }
    }

    /// All that have come: many torrents that start say much at once.
    fn handle_events(&mut self, first: Event) {
        self.handle_event(first);
        for _ in 0..EVENTS_PER_ROUND {
            let Ok(event) = self.events.try_recv() else { return };
            self.handle_event(event);
        }
    }

    fn handle_event(&mut self, event: Event) {
        if let Event::Checked(id)
        | Event::Started(id, _)
        | Event::Kept(id, _)
        | Event::Announced(id, ..)
        | Event::Met(id, ..)
        | Event::Said(id, ..)
        | Event::SaidLate(id, ..)
        | Event::Found(id, _) = event
        {
            self.agenda.set(id, Some(clock::now()));
        }
        match event {
            Event::Checked(id) => self.swarms[id.0 as usize].checked += 1,
            Event::Started(id, started) => match *started {
                Ok(Some(started)) => self.torrent_started(id, started),
                Ok(None) => self.fell_asleep(id),
                Err(error) => self.torrent_failed(id, error),
            },
            Event::Kept(id, news) => self.torrent_kept(id, news),
            Event::Announced(id, tracker, result, found) => self.announced(id, tracker, result, found),
            Event::Scraped(asked) => self.scraped(asked),
            Event::Asked(asked) => self.asked(asked),
            Event::Said(id, number, said) => self.said(id, number, said),
            Event::SaidLate(id, number, said) => self.said_late(id, number, said),
            Event::Found(id, found) => self.found(id, found),
            Event::Region(done) => self.region_done(done),
            Event::Ledgered => self.ledgering = Ledgering::Over,
            Event::Met(id, name, peer) => self.met(id, name, peer),
            Event::Discovered(news) => self.discovered(news),
        }
    }

    fn torrent_failed(&mut self, id: TorrentId, error: NodeError) {
        self.never_wakes(id);
        let swarm = &mut self.swarms[id.0 as usize];
        swarm.stop(error.to_string());
        // A relay of several torrents goes on with the others.
        if self.config.torrents.len() == 1 || matches!(self.config.role, Role::Get { .. }) {
            self.fail(error);
        } else {
            tracing::error!("{}: {error}", swarm.metainfo.name.escape_debug());
        }
    }

    fn torrent_started(&mut self, id: TorrentId, started: Started) {
        let now = clock::now();
        let Started { shared, pairs, durable, keeper, files } = started;
        let (orders, inbox) = unbounded_channel();
        let tell = self.tell.clone();
        let torrent = Arc::clone(&shared);
        tokio_uring::spawn(async move {
            keep(keeper, files, torrent, inbox, move |news| drop(tell.send(Event::Kept(id, news)))).await;
        });
        self.woke(id);
        let swarm = &mut self.swarms[id.0 as usize];
        if shared.is_complete() {
            swarm.begin_complete();
        }
        swarm.peer_at = now;
        swarm.live = Some(Live {
            shared: Arc::clone(&shared),
            files: Arc::clone(&pairs),
            orders,
            durable,
            closed: false,
        });
        for worker in &mut self.workers {
            worker.send(ToWorker::Add { torrent: Arc::clone(&shared), files: Arc::clone(&pairs) });
        }
        self.fetch_from_web(id);
        self.await_late_layers(id, now);
        // While workers drain it stays open like the others.
        if matches!(self.phase, Phase::Closing(_)) {
            self.close_journals();
        }
    }

    fn torrent_kept(&mut self, id: TorrentId, news: News) {
        let swarm = &mut self.swarms[id.0 as usize];
        match news {
            News::Settled(settled) => {
                swarm.note_durable(&settled.durable);
                swarm.note_lost(&settled.lost);
                let mut errors = settled.errors.into_iter();
                if let Some(why) = errors.next() {
                    self.disk_failed(id, why);
                }
            }
            News::Closed { clean } => {
                if !clean {
                    tracing::warn!("{}: not closed cleanly", swarm.metainfo.name.escape_debug());
                }
                if let Some(live) = &mut swarm.live {
                    live.closed = true;
                }
            }
        }
    }

    fn worker_ended(&mut self) {
        if let Phase::Draining(left) = self.phase {
            self.phase = Phase::Draining(left - 1);
            if left == 1 {
                self.close_journals();
            }
        }
    }

    /// What time and changed circumstances call for.
    fn look_after(&mut self, now: Instant) {
        for worker in &mut self.workers {
            worker.flush();
        }
        for id in self.agenda.take_due(now) {
            self.dial(id, now);
            self.gossip(id, now);
            self.seek(id, now);
            self.seek_late_layers(id, now);
            self.announce_due(id, now);
            self.discover(id);
            self.agenda.set(id, self.next_look(id));
        }
        while self.announcing < TRACKER_ANNOUNCES_MAX
            && let Some(id) = self.announces_queued.pop_front()
        {
            self.swarms[id.0 as usize].announce_queued = false;
            self.announce_due(id, now);
            self.agenda.set(id, self.next_look(id));
        }
        self.look_after_memory(now);
        if now.since(self.status_at) >= self.config.status_interval {
            self.show_status();
        }
        if self.phase == Phase::Running {
            self.check_role(now);
        }
    }

    fn fail(&mut self, error: NodeError) {
        self.failure.get_or_insert(error);
        self.stop();
    }

    /// Tells the workers to stop; journals are closed when they have.
    fn stop(&mut self) {
        if self.phase != Phase::Running {
            return;
        }
        self.phase = Phase::Draining(self.workers.len());
        self.dismiss_inquiries();
        self.finding.stop();
        self.gates.stop();
        self.web_seeds.stop();
        let now = clock::now();
        for (index, swarm) in self.swarms.iter_mut().enumerate() {
            if let Some(live) = &swarm.live {
                live.shared.stop_fetch();
            }
            (swarm.seeking, swarm.late_layers) = (None, None);
            swarm.announcer.handle_stop();
            self.agenda.set(TorrentId(index as u32), Some(now));
        }
        for worker in &mut self.workers {
            worker.send(ToWorker::Stop);
        }
    }

    fn close_journals(&mut self) {
        self.phase = Phase::Closing(clock::now());
        self.end_ledgering();
        for live in self.swarms.iter().filter_map(|swarm| swarm.live.as_ref()) {
            let _ = live.orders.send(Order::Close);
        }
    }

    fn is_over(&self) -> bool {
        let Phase::Closing(since) = self.phase else { return false };
        let closed = self.swarms.iter().all(|swarm| swarm.live.as_ref().is_none_or(|live| live.closed));
        let told = self.swarms.iter().all(|swarm| swarm.announcer.is_stopped());
        let kept = matches!(self.ledgering, Ledgering::Over);
        let told = told && self.finding.is_over();
        closed && kept && (told || clock::now().since(since) >= GOOD_BYE_TIMEOUT)
    }

    fn wake_at(&self) -> Instant {
        let status = self.status_at + self.config.status_interval;
        let running = self.phase == Phase::Running;
        let others = [Some(self.memory.wake_at()), self.role_at].into_iter().flatten();
        self.agenda.next().into_iter().chain(others.filter(|_| running)).fold(status, Instant::min)
    }

    /// When a swarm wants something again though nothing happens to it.
    fn next_look(&self, id: TorrentId) -> Option<Instant> {
        let swarm = &self.swarms[id.0 as usize];
        let announcer = swarm.announcer.poll_timeout().filter(|_| !swarm.announce_queued);
        let seeking = swarm.seeking.as_ref();
        let running = self.phase == Phase::Running;
        let dials = swarm.live.is_some() || seeking.is_some_and(|seeking| seeking.has_room());
        let candidates = swarm.roster.candidates.poll_timeout().filter(|_| dials && running);
        let gossip = swarm.grapevine.as_ref().and_then(|grapevine| grapevine.poll_timeout());
        let gossip = gossip.filter(|_| swarm.live.is_some() && running);
        let silence = seeking.and_then(|seeking| seeking.poll_timeout());
        let late = swarm.late_layers.as_ref().filter(|_| running && !swarm.roster.candidates.is_empty());
        let late = late.and_then(|late| late.poll_timeout());
        announcer.into_iter().chain(candidates).chain(gossip).chain(silence).chain(late).min()
    }

    fn show_status(&mut self) {
        let now = clock::now();
        self.status_at = now;
        let status = self.status(now);
        (self.on_status)(&status);
    }

    fn status(&mut self, now: Instant) -> NodeStatus {
        let mut per_core_bytes = vec![(0, 0); self.workers.len()];
        for live in self.swarms.iter().filter_map(|swarm| swarm.live.as_ref()) {
            for (sum, stats) in per_core_bytes.iter_mut().zip(&live.shared.stats) {
                sum.0 += stats.sent_bytes.get();
                sum.1 += stats.received_bytes.get();
            }
        }
        let torrents: Vec<_> = self.swarms.iter_mut().map(|swarm| swarm.status(now)).collect();
        debug_assert!(
            torrents.iter().all(|torrent| torrent.state != TorrentState::Checking || torrent.peers == 0)
        );
        NodeStatus {
            uptime_ns: now.since(self.started_at).0,
            listen: self.shared.listen,
            metrics: self.metrics.as_ref().map(|metrics| metrics.address),
            tracker: self.tracking.server.as_ref().map(|server| server.address),
            cache: self.memory.status(),
            dht: self.finding.status(),
            torrents,
            per_core_bytes,
        }
    }
}

async fn stop_asked(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// A tracker names us to ourselves; told apart only where the address is sure to be ours.
fn is_self(peer: SocketAddr, listen: Option<SocketAddr>) -> bool {
    let loopback = AddressClass::of(peer.ip()) == AddressClass::Loopback;
    listen.is_some_and(|listen| listen.port() == peer.port() && (listen.ip() == peer.ip() || loopback))
}
