//! The control thread of a simulated node: what `daemon` decides, with virtual time in place of a
//! runtime. It writes edges, keeps the journal, dials and stops; the durability machine, the journal's
//! bytes and the list of candidates are the real ones.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use super::cache::CacheControl;
use super::{Canary, NodeLog};
use crate::base::ids::{CoreConn, CoreId, TorrentId};
use crate::base::time::{Instant, Span};
use crate::engine::action::{Farewell, Report};
use crate::engine::assembly_chunks;
use crate::engine::roster::Roster;
use crate::engine::versions::Name;
use crate::io::Errno;
use crate::shared::sync::Ordering;
use crate::shared::torrent::SharedTorrent;
use crate::sim::disk::{DiskDone, DiskOp, Job, SimFile, SyncMark};
use crate::sim::io::SimIo;
use crate::sim::profile::chance;
use crate::sim::run::Actor;
use crate::sim::timeline::{ActorId, HostId};
use crate::sim::torrent::SimTorrent;
use crate::sim::world::World;
use crate::storage::durability::{Durability, Intent};
use crate::storage::layout::FileIndex;
use crate::worker::mesh::{Edge, Mailbox, Sender, ToControl, ToWorker};

/// The name of the journal on a simulated disk.
pub(in crate::sim) const JOURNAL: &str = "journal";

/// The name under which its replacement is made.
const JOURNAL_NEW: &str = "journal.new";

/// An operation of the journal or a sync, begun and not yet ended.
enum Pending {
    Append { ok: bool },
    Replace { mark: SyncMark, ok: bool },
    SyncJournal { mark: SyncMark },
    Cut { ok: bool },
    Sync { index: FileIndex, file: SimFile, mark: SyncMark },
}

/// One edge on its way to the disk.
struct EdgeWrite {
    batch: u64,
    file: SimFile,
    offset: u64,
    bytes: Vec<u8>,
}

/// The edges of one write job.
struct EdgeBatch {
    core: u8,
    job: u32,
    left: usize,
    result: Result<(), i32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// Workers were told to stop; so many have not ended.
    Draining(usize),
    /// Everything is being made durable.
    Flushing,
    /// The journal gets its last records.
    Closing,
    Closed,
}

/// See the module.
pub(super) struct Control {
    pub(super) actor: ActorId,
    pub(super) host: HostId,
    pub(super) torrent: Rc<SimTorrent>,
    pub(super) shared: Arc<SharedTorrent>,
    pub(super) files: Vec<Option<SimFile>>,
    pub(super) mailbox: Arc<Mailbox<ToControl>>,
    pub(super) workers: Vec<Sender<ToWorker<SimIo>>>,
    pub(super) machine: Durability,
    pub(super) roster: Roster,
    pub(super) canary: Canary,
    pub(super) log: Rc<RefCell<NodeLog>>,
    pub(super) work: Work,
    pub(super) cache: CacheControl,
}

/// What a control thread has under way.
pub(super) struct Work {
    phase: Phase,
    pending: Vec<(Instant, Pending)>,
    edges: BTreeMap<u64, EdgeWrite>,
    batches: BTreeMap<u64, EdgeBatch>,
    numbers: u64,
}

impl Default for Work {
    fn default() -> Self {
        let (edges, batches) = (BTreeMap::new(), BTreeMap::new());
        Self { phase: Phase::Running, pending: Vec::new(), edges, batches, numbers: 0 }
    }
}

impl Actor for Control {
    fn turn(&mut self, world: &World) {
        self.mailbox.unpark();
        self.take_files(world);
        self.take_pending(world);
        self.take_mail(world);
        if self.log.borrow().stop_wanted {
            self.stop();
        }
        self.keep(world);
        if self.work.phase == Phase::Running {
            self.cache.look_after(world, &self.shared, &mut self.workers);
        }
        self.dial(world);
        let mut all_sent = true;
        for worker in &mut self.workers {
            all_sent &= worker.flush();
        }
        if !self.mailbox.park() || !all_sent {
            world.rouse(self.actor);
        }
        self.set_deadline(world);
    }
}

impl Control {
    fn set_deadline(&self, world: &World) {
        let pending = self.work.pending.iter().map(|(at, _)| *at).min();
        let dial = self.roster.candidates.poll_timeout().filter(|_| self.work.phase == Phase::Running);
        let sync = self.machine.poll_timeout();
        let cache = self.cache.poll_timeout().filter(|_| self.work.phase == Phase::Running);
        if let Some(at) = pending.into_iter().chain(dial).chain(sync).chain(cache).min() {
            world.set_deadline(self.actor, at);
        }
    }

    /// Something on the disk failed: fetching stops, as in production, until somebody restarts the
    /// node.
    fn fail(&self) {
        self.log.borrow_mut().failed = true;
        self.shared.stop_fetch();
    }

    // ---- Mail ----

    fn take_mail(&mut self, world: &World) {
        while let Some(message) = self.mailbox.pop() {
            match message {
                ToControl::Report(report) => self.handle_report(report, world.now()),
                ToControl::Edges { core, job, edges, .. } => self.write_edges(world, core, job, edges),
                // Simulated nodes have no web seeds.
                ToControl::Touched { .. } | ToControl::Viewed { .. } | ToControl::WebSeed { .. } => {}
                ToControl::Forgotten { region, could } => self.cache.handle_forgotten(world, region, could),
                ToControl::Stopped { core } => self.worker_ended(CoreId(core)),
                ToControl::Failed { core, why } => panic!("worker {core}: {why}"),
            }
        }
    }

    fn handle_report(&mut self, report: Report, now: Instant) {
        match report {
            Report::PieceWritten { piece, .. } => self.piece_written(piece, now),
            Report::PieceLost { piece, .. } => {
                self.log.borrow_mut().durable.clear(piece);
                self.machine.handle_lost(piece);
                self.roster.candidates.handle_wanting(now);
            }
            Report::DiskFailed { .. } | Report::Torn { .. } => self.fail(),
            // Torrents of simulated nodes are always open.
            Report::Wanted { .. } | Report::WebSeedLeft { .. } | Report::Node { .. } => {}
            Report::Connected { conn, address, origin, peer_id, .. } => {
                let unwanted = self.roster.handle_connected(conn, address, origin, peer_id);
                self.close(unwanted);
            }
            Report::Listens { conn, port, .. } => {
                let unwanted = self.roster.handle_listens(conn, port);
                self.close(unwanted);
            }
            Report::Speaks { .. } | Report::Exchanged { .. } | Report::Punch { .. } => {}
            Report::Disconnected { conn, address, why, .. } => {
                if why == Farewell::Misbehaved {
                    self.log.borrow_mut().accused.push(address);
                }
                self.roster.handle_gone(conn, address, why, now);
            }
        }
    }

    fn close(&mut self, unwanted: Option<CoreConn>) {
        if let Some(CoreConn { core, conn }) = unwanted {
            self.workers[core.0 as usize].send(ToWorker::Close { conn });
        }
    }

    fn piece_written(&mut self, piece: u32, now: Instant) {
        let mut log = self.log.borrow_mut();
        log.written += 1;
        if log.durable.get(piece) {
            log.fetched_twice.push(piece);
        }
        let chunks = assembly_chunks(&self.shared, piece);
        let prints = chunks.into_iter().map(|chunk| self.shared.fingerprint(chunk)).collect();
        let files: Vec<_> = self.torrent.layout.files_of_piece(self.torrent.geometry(), piece).collect();
        // Refused for a file whose sync has failed: the node has stopped fetching then.
        let _ = self.machine.handle_written(piece, files, prints, now);
        if self.shared.is_complete() {
            self.machine.flush();
        }
    }

    // ---- Edges, through the page cache ----

    fn write_edges(&mut self, world: &World, core: u8, job: u32, edges: Vec<Edge>) {
        self.work.numbers += 1;
        let batch = self.work.numbers;
        let mut left = 0;
        for edge in edges {
            let Some(file) = self.files[edge.file.0 as usize] else { continue };
            if self.canary == Canary::LostEdges {
                continue;
            }
            left += 1;
            let write = EdgeWrite { batch, file, offset: edge.offset, bytes: edge.bytes.to_vec() };
            self.submit_edge(world, write);
        }
        self.work.batches.insert(batch, EdgeBatch { core, job, left, result: Ok(()) });
        self.end_batch(batch);
    }

    fn submit_edge(&mut self, world: &World, write: EdgeWrite) {
        self.work.numbers += 1;
        let token = self.work.numbers;
        let job = Job::Write { bytes: write.bytes.clone() };
        world
            .submit(self.actor, DiskOp { token, file: write.file, offset: write.offset, direct: false, job });
        self.work.edges.insert(token, write);
    }

    fn take_files(&mut self, world: &World) {
        let done: Vec<DiskDone> = world.state(|state| std::mem::take(state.timeline.files_done(self.actor)));
        for DiskDone { token, result, .. } in done {
            let Some(write) = self.work.edges.remove(&token) else { continue };
            let number = write.batch;
            match result {
                Ok(count) if (count as usize) < write.bytes.len() => {
                    let bytes = write.bytes[count as usize..].to_vec();
                    let offset = write.offset + u64::from(count);
                    self.submit_edge(world, EdgeWrite { bytes, offset, ..write });
                    continue;
                }
                Ok(_) => {}
                Err(errno) => {
                    if let Some(batch) = self.work.batches.get_mut(&number) {
                        batch.result = Err(errno.0);
                    }
                }
            }
            if let Some(batch) = self.work.batches.get_mut(&number) {
                batch.left -= 1;
            }
            self.end_batch(number);
        }
    }

    fn end_batch(&mut self, number: u64) {
        if self.work.batches.get(&number).is_some_and(|batch| batch.left == 0)
            && let Some(EdgeBatch { core, job, result, .. }) = self.work.batches.remove(&number)
        {
            self.workers[core as usize].send(ToWorker::Edges { job, result });
        }
    }

    // ---- Durability ----

    fn keep(&mut self, world: &World) {
        loop {
            while let Some(intent) = self.machine.poll(world.now()) {
                self.begin(world, intent);
            }
            let quiet = self.work.pending.is_empty();
            match self.work.phase {
                Phase::Flushing if quiet => self.close_journal(world),
                Phase::Closing if quiet => {
                    let clean = self.machine.is_idle() && self.machine.state().is_clean();
                    self.work.phase = Phase::Closed;
                    self.log.borrow_mut().closed = Some(clean);
                }
                _ => return,
            }
        }
    }

    fn close_journal(&mut self, world: &World) {
        self.work.phase = Phase::Closing;
        if !self.machine.is_idle() || self.log.borrow().failed {
            return;
        }
        let identities = world.disk(self.host, |disk, _, _| self.torrent.identities(disk));
        let known = (0u32..).map(FileIndex).zip(identities);
        self.machine.close(known.filter_map(|(file, identity)| identity.map(|identity| (file, identity))));
    }

    fn begin(&mut self, world: &World, intent: Intent) {
        let pending = world.disk(self.host, |disk, knobs, rng| {
            // A journal must not outlive the names of the files that it speaks of.
            disk.sync_dir();
            match intent {
                Intent::Append { bytes } => {
                    let journal = disk.open(JOURNAL);
                    let failed = chance(rng, knobs.write_error_ppm);
                    let len = if failed { bytes.len() / 2 } else { bytes.len() };
                    let ok = disk.append(journal, &bytes[..len]).is_ok() && !failed;
                    Pending::Append { ok }
                }
                Intent::Replace { bytes } => {
                    let journal = disk.open(JOURNAL_NEW);
                    let failed = chance(rng, knobs.write_error_ppm);
                    let ok = disk.set_len(journal, 0).is_ok() && disk.append(journal, &bytes).is_ok();
                    Pending::Replace { mark: disk.sync_begin(), ok: ok && !failed }
                }
                Intent::Cut { len } => {
                    let journal = disk.open(JOURNAL);
                    let kept = self.canary == Canary::KeptMark;
                    Pending::Cut { ok: kept || disk.set_len(journal, len).is_ok() }
                }
                Intent::SyncJournal => Pending::SyncJournal { mark: disk.sync_begin() },
                Intent::Sync { file } => {
                    let found = disk.open(&SimTorrent::file_name(file));
                    Pending::Sync { index: file, file: found, mark: disk.sync_begin() }
                }
            }
        });
        if let Pending::Sync { index, .. } = pending
            && self.canary == Canary::EarlyDurable
        {
            // What must never happen: the journal says durable before the sync has ended.
            let _ = self.machine.handle_synced(index, true);
            return;
        }
        let takes = world.draw(|knobs| knobs.write_ns);
        self.work.pending.push((world.now() + Span(takes), pending));
    }

    fn take_pending(&mut self, world: &World) {
        let now = world.now();
        let (due, later) = std::mem::take(&mut self.work.pending).into_iter().partition(|(at, _)| *at <= now);
        self.work.pending = later;
        let due: Vec<(Instant, Pending)> = due;
        for (_, pending) in due {
            self.end(world, pending);
        }
    }

    fn end(&mut self, world: &World, pending: Pending) {
        let (ok, durable) = match pending {
            Pending::Append { ok } => {
                self.machine.handle_appended(ok);
                (ok, Vec::new())
            }
            Pending::Replace { mark, ok } => {
                let ok = ok && self.end_sync(world, JOURNAL_NEW, mark).is_ok();
                if ok {
                    world.disk(self.host, |disk, _, _| disk.rename(JOURNAL_NEW, JOURNAL));
                }
                (ok, self.machine.handle_replaced(ok))
            }
            Pending::SyncJournal { mark } => {
                let ok = self.end_sync(world, JOURNAL, mark).is_ok();
                (ok, self.machine.handle_journal_synced(ok))
            }
            Pending::Cut { ok } => {
                self.machine.handle_cut();
                (ok, Vec::new())
            }
            Pending::Sync { index, mark, file } => {
                let ok = world.disk(self.host, |disk, knobs, rng| disk.sync_since(file, mark, knobs, rng));
                // What is lost by it is given up until the next start.
                let _ = self.machine.handle_synced(index, ok.is_ok());
                (ok.is_ok(), Vec::new())
            }
        };
        for piece in durable {
            self.log.borrow_mut().durable.set(piece);
        }
        if !ok {
            self.fail();
        }
    }

    fn end_sync(&self, world: &World, name: &str, mark: SyncMark) -> Result<(), Errno> {
        world.disk(self.host, |disk, knobs, rng| {
            let file = disk.open(name);
            disk.sync_since(file, mark, knobs, rng)
        })
    }

    // ---- Peers and the end ----

    fn dial(&mut self, world: &World) {
        if self.work.phase != Phase::Running {
            return;
        }
        let load = |core: &usize| self.shared.stats[*core].peers.load(Ordering::Relaxed);
        while let Some(address) = self.roster.candidates.poll_dial(world.now()) {
            let core = (0..self.workers.len()).min_by_key(load).unwrap_or(0);
            self.workers[core].send(ToWorker::Dial { torrent: TorrentId(0), name: Name::First, address });
        }
    }

    fn stop(&mut self) {
        if self.work.phase != Phase::Running {
            return;
        }
        self.work.phase = Phase::Draining(self.workers.len());
        self.shared.stop_fetch();
        for worker in &mut self.workers {
            worker.send(ToWorker::Stop);
        }
    }

    fn worker_ended(&mut self, _core: CoreId) {
        let Phase::Draining(left) = self.work.phase else { panic!("a worker ended without a stop") };
        self.work.phase = Phase::Draining(left - 1);
        if left == 1 {
            self.work.phase = Phase::Flushing;
            self.machine.flush();
            self.log.borrow_mut().dials_left = self.roster.candidates.dialing();
        }
    }
}
