//! A whole node in the simulator: production workers on [`SimIo`], and a control thread.

mod cache;
mod control;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use crate::base::bitfield::Bitfield;
use crate::base::ids::{CoreId, PeerId};
use crate::base::limits::LEDGER_ACCOUNTS_OF_ONE;
use crate::base::network::Grouping;
use crate::engine::candidates::Source;
use crate::engine::choker::{Choker, Rivals};
use crate::engine::roster::Roster;
use crate::engine::{Engine, EngineConfig, assembly_chunks};
use crate::hash::fingerprint::Fingerprint;
use crate::hash::sha1;
use crate::hash::signature::NodeKey;
use crate::io::Errno;
use crate::io::arena::Arena;
use crate::shared::budget::{Budget, Budgets, LanBudget};
use crate::shared::cache::Cache;
use crate::shared::chunks::ChunkState;
use crate::shared::ledger::Ledger;
use crate::shared::retirer::{RegionCounts, Retirer};
use crate::shared::sync::Ordering;
use crate::shared::torrent::SharedTorrent;
use crate::storage::durability::SyncPolicy;
use crate::storage::journal::replay;
use crate::storage::layout::FileIndex;
use crate::storage::resume::{self, Resume};
use crate::worker::mesh::{Mailbox, Sender, ToControl, ToWorker};
use crate::worker::{Links, Running, Worker};

use super::disk::Disk;
use super::io::SimIo;
use super::run::{Actor, Run};
use super::timeline::{ActorId, HostId};
use super::torrent::SimTorrent;
use super::world::World;
use cache::CacheControl;
use control::{Control, Work};

pub(super) use control::JOURNAL;

/// A deliberate mistake, to prove that the simulation catches it. Only the simulated control thread
/// makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canary {
    /// No mistake.
    None,
    /// Pieces count as durable before the sync of their files has ended.
    EarlyDurable,
    /// The edges of chunks are never written, though the answer says so.
    LostEdges,
    /// The mark of a clean stop stays where its sync has failed.
    KeptMark,
}

/// How a node is started.
#[derive(Clone, Debug)]
pub struct NodeSpec {
    /// Where.
    pub host: HostId,
    /// How many workers it has.
    pub cores: usize,
    /// The port it accepts on.
    pub port: u16,
    /// Slots of its cache.
    pub slots: u32,
    /// Slots that leave the cache together.
    pub region_slots: u32,
    /// Connections per worker.
    pub connections_max: u32,
    /// Whom the operator told it to connect to.
    pub peers: Vec<SocketAddr>,
    /// Pieces in order.
    pub sequential: bool,
    /// Limits of payload, in bytes per second: up, down.
    pub limits: (Option<u64>, Option<u64>),
    /// Its choices.
    pub seed: u64,
    /// All peers compete for being unchoked, and so many are on each core at least; none: as in production.
    pub unchoked_min: Option<usize>,
    /// The mistake it makes.
    pub canary: Canary,
}

/// What a node has to say, kept up to date by its control thread.
#[derive(Debug)]
pub struct NodeLog {
    /// Pieces that survive a crash, as far as the node knows.
    pub durable: Bitfield,
    /// Pieces written since the start.
    pub written: u32,
    /// Pieces that were written although they were durable.
    pub fetched_twice: Vec<u32>,
    /// Peers it parted from for misbehaviour.
    pub accused: Vec<SocketAddr>,
    /// Something on the disk failed; it has stopped fetching.
    pub failed: bool,
    /// Set from outside: stop cleanly.
    pub stop_wanted: bool,
    /// It has stopped; whether its journal is clean.
    pub closed: Option<bool>,
    /// Dials that its list of candidates took for pending when all workers had ended.
    pub dials_left: usize,
}

/// A running node.
pub struct Node {
    /// As it was started.
    pub spec: NodeSpec,
    /// What it has to say.
    pub log: Rc<RefCell<NodeLog>>,
    /// What its cores share of the torrent.
    pub shared: Arc<SharedTorrent>,
    /// What it believed at its start without reading it.
    pub believed: Bitfield,
    cache: Arc<Cache>,
    retirer: Rc<RefCell<Retirer>>,
    control: ActorId,
    workers: Vec<(ActorId, Rc<RefCell<Core>>)>,
}

/// One worker as an actor.
struct Core {
    id: ActorId,
    core: CoreId,
    worker: Worker<SimIo>,
    mailbox: Arc<Mailbox<ToWorker<SimIo>>>,
    control: Sender<ToControl>,
    stopped: bool,
}

/// The same core, in the hands of the run and of the node.
struct SharedCore(Rc<RefCell<Core>>);

impl Actor for SharedCore {
    fn turn(&mut self, world: &World) {
        let mut core = self.0.borrow_mut();
        let core = &mut *core;
        if core.stopped {
            core.control.flush();
            return;
        }
        let mail = !core.mailbox.park();
        let running = core.worker.turn();
        if running == Running::Stopped {
            core.stopped = true;
            core.control.send(ToControl::Stopped { core: core.core.0 });
        }
        // A thread would go into its next turn and sleep in there; this one sleeps here.
        if mail || core.worker.io().delivered() > 0 || !core.mailbox.park() {
            world.rouse(core.id);
        }
    }
}

impl NodeLog {
    /// Of a node that starts with what is durable.
    const fn new(durable: Bitfield) -> Self {
        Self {
            durable,
            written: 0,
            fetched_twice: Vec::new(),
            accused: Vec::new(),
            failed: false,
            stop_wanted: false,
            closed: None,
            dials_left: 0,
        }
    }
}

impl Node {
    /// Starts a node on what its disk holds. An error is the disk's: there is no room for the files.
    pub fn start(run: &mut Run, torrent: &Rc<SimTorrent>, spec: NodeSpec) -> Result<Self, Errno> {
        let world = run.world().clone();
        let boot = Boot::new(&world, torrent, &spec)?;
        let Boot { shared, believed, machine } = boot;
        let durable = machine.durable();
        let arena = Arc::new(Arena::new(0).expect("address space for one region"));
        let ledger = Arc::new(Ledger::new(LEDGER_ACCOUNTS_OF_ONE));
        let cache = Arc::new(Cache::with_regions(spec.slots.min(arena.slot_count()), spec.region_slots));
        let retirer = Rc::new(RefCell::new(Retirer::new(Arc::clone(&cache), spec.cores)));
        let control_id = world.add_actor(spec.host);
        let control_box = Arc::new(Mailbox::new());
        control_box.set_waker(Arc::new(world.wake_of(control_id)));
        let mailboxes: Vec<_> = (0..spec.cores).map(|_| Arc::new(Mailbox::new())).collect();
        let config = engine_config(&world, &spec);
        let mut workers = Vec::new();
        for core in 0..spec.cores {
            let id = world.add_actor(spec.host);
            world.listen(id, spec.port);
            mailboxes[core].set_waker(Arc::new(world.wake_of(id)));
            let io = world.io(id, Arc::clone(&arena), spec.connections_max);
            let core = CoreId(core as u8);
            let config = EngineConfig { core, seed: config.seed + u64::from(core.0), ..config.clone() };
            let choker = match spec.unchoked_min {
                Some(least) => Choker::with(Rivals::Everybody, least, world.now()),
                None => Choker::new(world.now()),
            };
            let engine = Engine::new(config, Arc::clone(&cache), world.now())
                .with_ledger(Arc::clone(&ledger))
                .with_choker(choker);
            let mailbox = Arc::clone(&mailboxes[core.0 as usize]);
            let cores = mailboxes.iter().map(|mailbox| Sender::new(Arc::clone(mailbox))).collect();
            let control = Sender::new(Arc::clone(&control_box));
            let links =
                Links { mailbox: Arc::clone(&mailbox), cores, control, decrypter: None, seeker: None };
            let worker = Worker::new(core, io, Arc::clone(&arena), engine, links, fingerprint());
            let control = Sender::new(Arc::clone(&control_box));
            let actor = Rc::new(RefCell::new(Core { id, core, worker, mailbox, control, stopped: false }));
            run.add(id, SharedCore(Rc::clone(&actor)));
            workers.push((id, actor));
        }
        let files = world.disk(spec.host, |disk, _, _| torrent.open_files(disk));
        let mut senders: Vec<_> = mailboxes.iter().map(|mailbox| Sender::new(Arc::clone(mailbox))).collect();
        for sender in &mut senders {
            let files = files.clone().into();
            sender.send(ToWorker::Add { torrent: Arc::clone(&shared), files });
        }
        let mut roster = Roster::new(config.peer_id);
        for &peer in &spec.peers {
            roster.add(peer, Source::Operator, world.now());
        }
        let log = Rc::new(RefCell::new(NodeLog::new(durable)));
        let control = Control {
            actor: control_id,
            host: spec.host,
            torrent: Rc::clone(torrent),
            shared: Arc::clone(&shared),
            files,
            mailbox: control_box,
            workers: senders,
            machine,
            roster,
            canary: spec.canary,
            log: Rc::clone(&log),
            work: Work::default(),
            cache: CacheControl::new(arena, Rc::clone(&retirer)),
        };
        run.add(control_id, control);
        Ok(Self { spec, log, shared, believed, cache, retirer, control: control_id, workers })
    }

    /// Whether every piece is durable.
    pub fn is_done(&self) -> bool {
        self.log.borrow().durable.is_full()
    }

    /// Asks for a clean stop; `log.closed` tells when it is over.
    pub fn stop(&self, world: &World) {
        self.log.borrow_mut().stop_wanted = true;
        world.rouse(self.control);
    }

    /// Has the cache shrink or grow to so many regions.
    pub fn resize_cache(&self, world: &World, regions: u32) {
        self.retirer.borrow_mut().set_target(regions);
        world.rouse(self.control);
    }

    /// Where the regions of its cache are.
    pub fn cache_regions(&self) -> RegionCounts {
        self.retirer.borrow().counts()
    }

    /// The first bound of a connection that does not hold.
    pub fn over_a_limit(&self) -> Option<String> {
        let over = |core: &Rc<RefCell<Core>>| {
            let core = core.borrow();
            core.worker.engine().peers().find_map(|peer| {
                let what = peer.over_a_limit()?;
                Some(format!("core {}: {}: {what}", core.core.0, peer.address))
            })
        };
        self.workers.iter().find_map(|(_, core)| over(core))
    }

    /// How far it is, for whoever looks into a failure.
    pub fn describe(&self) -> String {
        let log = self.log.borrow();
        let mut text = format!(
            "{} durable, {} verified of {} pieces, failed {}, {} slots touched, {} free, {:?}, closed {:?}",
            log.durable.count(),
            self.shared.have_count(),
            self.shared.meta.geometry.piece_count(),
            log.failed,
            self.cache.touched_count(),
            self.cache.free_count(),
            self.cache_regions(),
            log.closed,
        );
        for (_, core) in &self.workers {
            let core = core.borrow();
            text += &format!("\n    core {} stopped {}", core.core.0, core.stopped);
            for peer in core.worker.engine().peers() {
                text += &format!(
                    "\n      {} {:?} {:?} {:?} has {} asked {} requests {} snubbed {} got {} sent {}",
                    peer.address,
                    peer.origin,
                    peer.stage,
                    peer.flags,
                    peer.bits.count(),
                    peer.asked.len(),
                    peer.requests.len(),
                    peer.is_snubbed(),
                    peer.received_bytes,
                    peer.sent_bytes
                );
            }
        }
        for chunk in 0..self.shared.meta.geometry.chunk_count() {
            let view = self.shared.chunks.view(chunk);
            if !is_at_rest(view.state) {
                text += &format!("\n    chunk {chunk}: {view:?}");
            }
        }
        text
    }

    /// Takes its actors out of the run: it has stopped, was killed or lost power.
    pub fn remove(self, run: &mut Run) {
        run.remove(self.control);
        for (id, _) in &self.workers {
            run.remove(*id);
        }
    }

    /// What must hold once all workers have ended: nothing is in flight, nobody is connected, nobody
    /// is counted. The first thing that does not hold.
    pub fn leak_after_stop(&self) -> Option<String> {
        for (_, core) in &self.workers {
            let mut core = core.borrow_mut();
            if !core.stopped || core.worker.engine().peer_count() > 0 {
                return Some(format!("core {} has not ended", core.core.0));
            }
            if !core.worker.io().is_quiet() {
                return Some(format!("core {} has operations or connections left", core.core.0));
            }
        }
        let dials = self.log.borrow().dials_left;
        if dials > 0 {
            return Some(format!("{dials} dials are pending for ever"));
        }
        let sum = |count: fn(&crate::shared::torrent::CoreStats) -> u32| -> u32 {
            self.shared.stats.iter().fold(0, |sum, stats| sum.wrapping_add(count(stats)))
        };
        let peers = sum(|stats| stats.peers.load(Ordering::Relaxed));
        let seeds = sum(|stats| stats.seeds.load(Ordering::Relaxed));
        if (peers, seeds) != (0, 0) {
            return Some(format!("{peers} peers and {seeds} seeds are counted, none is connected"));
        }
        let givers = &self.shared.givers;
        let given = (0..self.shared.meta.geometry.piece_count()).find(|&piece| givers.of(piece) != 0);
        if (given, givers.seeds()) != (None, 0) {
            return Some(format!(
                "somebody counts as giving piece {given:?}, or all, and nobody is connected"
            ));
        }
        None
    }

    /// What must hold of the slots besides, once everything is there: each is either free or holds a
    /// chunk that nothing uses.
    pub fn slot_leak(&self) -> Option<String> {
        let chunks = 0..self.shared.meta.geometry.chunk_count();
        let views: Vec<_> = chunks.map(|chunk| self.shared.chunks.view(chunk)).collect();
        if let Some(chunk) = views.iter().position(|view| view.pins > 0) {
            return Some(format!("chunk {chunk} is pinned: {:?}", views[chunk]));
        }
        if let Some(chunk) = views.iter().position(|view| !is_at_rest(view.state)) {
            return Some(format!("chunk {chunk} is {:?}", views[chunk]));
        }
        let held = views.iter().filter(|view| view.state != ChunkState::Empty).count() as u32;
        let mut retirer = self.retirer.borrow_mut();
        retirer.collect();
        let (free, touched) = (self.cache.free_count(), self.cache.touched_count());
        let gone = retirer.slot_count();
        (held + free + gone != touched).then(|| {
            format!("{touched} slots were used, {held} hold chunks, {free} are free, {gone} are gone")
        })
    }
}

const fn is_at_rest(state: ChunkState) -> bool {
    matches!(state, ChunkState::Empty | ChunkState::Ready)
}

/// All nodes of a run share one secret: they have nothing to hide from one another.
fn fingerprint() -> Fingerprint {
    Fingerprint::new(0x7365_6372_6574)
}

fn engine_config(world: &World, spec: &NodeSpec) -> EngineConfig {
    let mut peer_id = PeerId(*b"-TR0000-000000000000");
    peer_id.0[12..].copy_from_slice(&world.with_rng(|rng| rng.next_u64()).to_be_bytes());
    let budgets = |rate: Option<u64>| Budgets {
        node: rate.map(|rate| Arc::new(Budget::new(rate, world.now()))),
        lan: LanBudget::Shared,
    };
    EngineConfig {
        core: CoreId(0),
        cores: spec.cores,
        peer_id,
        listen_port: Some(spec.port),
        dht_port: None,
        sequential: spec.sequential,
        seed: spec.seed,
        secret: spec.seed,
        grouping: Grouping::default(),
        identity: Some(Arc::new(node_key(spec.seed))),
        upload: budgets(spec.limits.0),
        download: budgets(spec.limits.1),
    }
}

/// Another for each seed, as a node has one for each state directory.
fn node_key(seed: u64) -> NodeKey {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    NodeKey::new(&bytes, &bytes)
}

/// A start, as `daemon::start` does it: what the journal says, what must be hashed, room for the rest.
struct Boot {
    shared: Arc<SharedTorrent>,
    believed: Bitfield,
    machine: crate::storage::durability::Durability,
}

impl Boot {
    fn new(world: &World, torrent: &SimTorrent, spec: &NodeSpec) -> Result<Self, Errno> {
        let now = world.now();
        let (resume, mut machine, found) = world.disk(spec.host, |disk, _, _| {
            let journal = disk.find(JOURNAL).map(|file| replay(disk.live(file), &torrent.subject()));
            let actual = torrent.identities(disk);
            let journal = journal.and_then(Result::ok);
            let policy = SyncPolicy::default();
            let (resume, machine) =
                resume::start(journal, torrent.subject(), &torrent.layout, &actual, policy);
            let found = check(torrent, disk, &resume);
            (resume, machine, found)
        });
        let believed = resume.state.durable();
        world.disk(spec.host, |disk, _, _| {
            if !believed.is_full() || !found.is_empty() {
                for file in torrent.layout.disk_files() {
                    let opened = disk.open(&SimTorrent::file_name(file));
                    disk.allocate(opened, torrent.layout.file_len(file))?;
                }
            }
            for (index, identity) in (0u32..).zip(torrent.identities(disk)) {
                let file = FileIndex(index);
                if let Some(identity) = identity
                    && (resume.state.file(index).is_none() || resume.unknown.contains(&file))
                {
                    machine.handle_file(file, identity);
                }
            }
            Ok(())
        })?;
        let mut have = believed.clone();
        for (piece, _) in &found {
            have.set(*piece);
        }
        let shared = SharedTorrent::new(torrent.meta(), &have, spec.cores);
        for piece in believed.ones() {
            set_fingerprints(&shared, piece, resume.state.fingerprints(piece));
        }
        for (piece, prints) in found {
            set_fingerprints(&shared, piece, &prints);
            let files: Vec<_> = torrent.layout.files_of_piece(torrent.geometry(), piece).collect();
            let _ = machine.handle_written(piece, files, prints.into(), now);
        }
        machine.flush();
        Ok(Self { shared, believed, machine })
    }
}

fn set_fingerprints(shared: &SharedTorrent, piece: u32, prints: &[u64]) {
    for (chunk, &print) in assembly_chunks(shared, piece).into_iter().zip(prints) {
        shared.set_fingerprint(chunk, print);
    }
}

/// Hashes what is not known; the pieces that are right, with the fingerprints of their chunks. It reads
/// directly, as production does where it can: what is dirty is written first, and what a failed sync
/// has thrown away is not seen, though the page cache still shows it.
fn check(torrent: &SimTorrent, disk: &mut Disk, resume: &Resume) -> Vec<(u32, Vec<u64>)> {
    for file in torrent.open_files(disk).into_iter().flatten().filter(|_| resume.rehash.count() > 0) {
        let mark = disk.sync_begin();
        disk.sync_end(file, mark);
    }
    let mut found = Vec::new();
    for piece in resume.rehash.ones() {
        let bytes = torrent.piece_on_disk(disk, piece, Disk::durable);
        if sha1::digest(&bytes) == torrent.piece_hashes[piece as usize] {
            let chunks = bytes.chunks(crate::base::units::CHUNK_BYTES as usize);
            found.push((piece, chunks.map(|chunk| fingerprint().of(chunk)).collect()));
        }
    }
    found
}
