//! One core: the turn that binds the engine to the kernel. The only production module that sees
//! both.
//!
//! ```text
//! io.turn()          submit, wait, collect a bounded number of completions
//! dispatch           each completion to inbound.rs, disk.rs or the engine; O(1) each
//! mail               a bounded number of messages from other cores and the control thread
//! engine.handle_tick
//! perform            the engine's actions, and hashing under a budget (hashing.rs)
//! ```

mod count;
pub mod disk;
mod hashing;
mod inbound;
mod leaves;
pub mod mesh;
mod shake;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::base::ids::{ConnId, CoreId, TorrentId};
use crate::base::segment::Segment;
use crate::base::time::Instant;
use crate::base::units::BLOCK_BYTES;
use crate::engine::action::{Action, To};
use crate::engine::{Admission, Engine, wanted_chunks};
use crate::hash::fingerprint::Fingerprint;
use crate::io::arena::Arena;
use crate::io::{Completion, Errno, Io};
use crate::proto::wire::handshake::Handshake;
use crate::shared::counters::CoreCounters;
use crate::shared::torrent::SharedTorrent;

use disk::{Direction, Disk, Finished, Place};
use hashing::{HashJob, HashQueue, PieceHash};
use inbound::{Flow, Inbound, Target};
use leaves::LeafJobs;
use mesh::{Caller, Files, Mailbox, Sender, ToControl, ToWorker};

/// Messages taken from the mailbox in one turn.
const MAIL_PER_TURN: usize = 256;

/// Actions performed in one turn.
const ACTIONS_PER_TURN: usize = 4096;

/// Whom a worker talks to.
pub struct Links<I: Io> {
    /// Its own mailbox.
    pub mailbox: Arc<Mailbox<ToWorker<I>>>,
    /// One sender per core, the own one included.
    pub cores: Vec<Sender<ToWorker<I>>>,
    /// The control thread.
    pub control: Sender<ToControl>,
    /// Who has encrypted handshakes, if anybody.
    pub decrypter: Option<Decrypter<I>>,
    /// Who looks for the metadata of links, if anybody.
    pub seeker: Option<Seeker<I>>,
}

/// Takes connections that may begin with an encrypted handshake. Never waits.
pub type Decrypter<I> = Arc<dyn Fn(Caller<<I as Io>::Socket>) + Send + Sync>;

/// Takes connections whose handshake names a link that is looked for. Never waits.
pub type Seeker<I> = Arc<dyn Fn(TorrentId, Caller<<I as Io>::Socket>) + Send + Sync>;

/// How a worker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Running {
    /// Call `turn` again.
    Yes,
    /// It was told to stop and nothing is in flight any more.
    Stopped,
}

/// See the module.
pub struct Worker<I: Io> {
    core: CoreId,
    io: I,
    arena: Arc<Arena>,
    engine: Engine,
    counters: Arc<CoreCounters>,
    links: Links<I>,
    inbound: Vec<Option<Inbound>>,
    files: Vec<Option<Files<I::File>>>,
    disk: Disk,
    hashes: HashQueue,
    hashers: HashMap<(TorrentId, u32), PieceHash>,
    leaf_jobs: LeafJobs,
    fingerprint: Fingerprint,
    done: Vec<Completion>,
    segments: Vec<Segment>,
    /// Arena regions that are known to be in use.
    regions_touched: u32,
    /// The last turn ended before the engine had said all.
    more_actions: bool,
    stopping: bool,
}

impl<I: Io> fmt::Debug for Worker<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Worker({})", self.core.0)
    }
}

impl<I: Io> Worker<I> {
    /// A worker that is about to take its first turn.
    pub fn new(
        core: CoreId,
        io: I,
        arena: Arc<Arena>,
        engine: Engine,
        links: Links<I>,
        fingerprint: Fingerprint,
    ) -> Self {
        Self {
            core,
            io,
            arena,
            counters: Arc::clone(engine.counters()),
            engine,
            links,
            inbound: Vec::new(),
            files: Vec::new(),
            disk: Disk::default(),
            hashes: HashQueue::default(),
            hashers: HashMap::new(),
            leaf_jobs: LeafJobs::new(),
            fingerprint,
            done: Vec::new(),
            segments: Vec::new(),
            regions_touched: 0,
            more_actions: false,
            stopping: false,
        }
    }

    /// The decisions of this core, for checks.
    pub const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The kernel side of this core, for the simulator.
    pub const fn io(&mut self) -> &mut I {
        &mut self.io
    }

    /// One round. Waits in the kernel for as long as there is nothing to do.
    pub fn turn(&mut self) -> Running {
        let mut done = std::mem::take(&mut self.done);
        let deadline = self.deadline();
        self.io.turn(deadline, &mut done);
        self.links.mailbox.unpark();
        let now = self.io.now();
        self.counters.batch.record(done.len() as u64);
        for completion in done.drain(..) {
            self.dispatch(completion, now);
        }
        self.done = done;
        self.take_mail(now);
        self.engine.handle_tick(now);
        self.counters.ready.set(self.engine.ready_count() as u64);
        self.perform_all(now);
        self.run_hashes(now);
        self.run_leaves(now);
        self.note_touched();
        self.flush();
        self.count_turn(now);
        if self.stopping && self.is_quiet() && self.flush() { Running::Stopped } else { Running::Yes }
    }

    /// Until when the kernel may let this core sleep: not at all while there is work.
    fn deadline(&mut self) -> Option<Instant> {
        let more = std::mem::take(&mut self.more_actions);
        let busy = more || self.hashes.is_row_full() || !self.leaf_jobs.is_empty() || !self.flush();
        if busy || !self.links.mailbox.park() {
            return Some(Instant(0));
        }
        self.engine.poll_timeout().into_iter().chain(self.hashes.due_at()).min()
    }

    fn flush(&mut self) -> bool {
        let mut all = self.links.control.flush();
        for core in &mut self.links.cores {
            all &= core.flush();
        }
        all
    }

    /// Tells the control thread when three quarters of a region of the arena are in use, so that the
    /// next one is zeroed before it is needed: 64 MiB take milliseconds that no turn can spare.
    fn note_touched(&mut self) {
        let slots = self.arena.slots_per_region();
        let regions = (self.engine.cache().touched_count() + slots / 4).div_ceil(slots);
        if regions > self.regions_touched {
            self.regions_touched = regions;
            self.links.control.send(ToControl::Touched { region: regions - 1 });
        }
    }

    fn is_quiet(&self) -> bool {
        self.disk.is_idle()
            && !self.more_actions
            && self.hashes.is_empty()
            && self.leaf_jobs.is_empty()
            && self.engine.peer_count() == 0
            && !self.engine.is_writing()
    }

    fn dispatch(&mut self, completion: Completion, now: Instant) {
        match completion {
            Completion::Accepted { conn, address } => {
                self.place_inbound(conn);
                self.engine.handle_accepted(conn, address, now);
                self.receive(conn);
            }
            Completion::Dialed { conn, result } => {
                self.engine.handle_dialed(conn, result.is_ok(), now);
                if result.is_ok() {
                    self.receive(conn);
                }
            }
            Completion::Received { conn, result } => self.received(conn, result, now),
            Completion::Sent { conn, result, held } => {
                if held {
                    self.engine.handle_held(conn);
                }
                self.engine.handle_sent(conn, result.map_err(|errno| errno.0), now);
                self.shrink_outbox(conn);
            }
            Completion::Released { conn } => self.engine.handle_released(conn),
            Completion::Closed { conn } => {
                if let Some(place) = self.inbound.get_mut(conn.index as usize) {
                    *place = None;
                }
                self.engine.handle_closed(conn);
            }
            Completion::Read { token, result } | Completion::Written { token, result } => {
                let files = &self.files;
                let find = |id: TorrentId| files.get(id.0 as usize)?.clone();
                let finished = self.disk.handle_done(&mut self.io, find, token, result);
                self.finish(finished);
            }
        }
    }

    /// Gives back the memory of a long outbox, say of a bitfield, once all of it is sent.
    fn shrink_outbox(&mut self, conn: ConnId) {
        const KEPT_BYTES: usize = 256;
        let is_empty = self.engine.peer(conn).is_some_and(|peer| peer.out.segments.is_empty());
        if is_empty && self.io.outbox(conn).capacity() > KEPT_BYTES {
            *self.io.outbox(conn) = Vec::new();
        }
    }

    fn place_inbound(&mut self, conn: ConnId) {
        let index = conn.index as usize;
        if self.inbound.len() <= index {
            self.inbound.resize_with(index + 1, || None);
        }
        self.inbound[index] = Some(Inbound::default());
    }

    /// Starts the next receive, unless the connection is closing.
    fn receive(&mut self, conn: ConnId) {
        use crate::engine::peer::Stage;
        let alive = self.engine.peer(conn).is_some_and(|peer| peer.stage != Stage::Closing);
        let Some(Some(inbound)) = self.inbound.get_mut(conn.index as usize).filter(|_| alive) else { return };
        if !inbound.in_flight && self.engine.listens(conn) {
            let inbox = self.io.inbox(conn);
            match inbound.plan(conn, &mut self.engine, inbox, &mut self.segments) {
                Target::Any => self.io.recv_any(conn),
                Target::Planned => self.io.recv(conn, &self.segments),
            }
        }
    }

    fn received(&mut self, conn: ConnId, result: Result<u32, Errno>, now: Instant) {
        let Some(Some(inbound)) = self.inbound.get_mut(conn.index as usize) else { return };
        match result {
            Ok(bytes @ 1..) => {
                let mut inbox = std::mem::take(self.io.inbox(conn));
                let flow = inbound.received(conn, bytes, &mut inbox, &mut self.engine, &self.arena, now);
                if flow == Flow::Shaken {
                    self.shake(conn, &mut inbox, now);
                }
                *self.io.inbox(conn) = inbox;
            }
            Err(Errno::CANCELED) => inbound.cancel(conn, &mut self.engine),
            Ok(0) | Err(_) => {
                inbound.cancel(conn, &mut self.engine);
                self.engine.handle_gone(conn);
            }
        }
        self.receive(conn);
    }

    fn take_mail(&mut self, now: Instant) {
        for _ in 0..MAIL_PER_TURN {
            let Some(message) = self.links.mailbox.pop() else { return };
            match message {
                ToWorker::Note(note) => self.engine.handle_note(note, now),
                ToWorker::Add { torrent, files } => {
                    let index = torrent.meta.id.0 as usize;
                    if self.files.len() <= index {
                        self.files.resize_with(index + 1, || None);
                    }
                    self.files[index] = Some(files);
                    let id = torrent.meta.id;
                    self.engine.handle_torrent(torrent);
                    self.shake_parked(id, now);
                }
                ToWorker::Dial { torrent, name, address } => match self.io.dial(address) {
                    Some(conn) => {
                        self.place_inbound(conn);
                        self.engine.handle_dialing(conn, address, (torrent, name), now);
                    }
                    None => self.engine.handle_dial_refused(address, torrent),
                },
                // Without room the socket is closed, which the bridge sees.
                ToWorker::Adopt { socket, address, torrent, seed } => {
                    if let Ok(conn) = self.io.attach(socket) {
                        self.place_inbound(conn);
                        self.engine.handle_adopted(conn, address, (torrent, seed), now);
                        self.receive(conn);
                    }
                }
                ToWorker::Decrypted { socket, address, opened, heard } => {
                    self.go_on(socket, address, opened, &heard, now);
                }
                ToWorker::Close { conn } => self.engine.handle_unwanted(conn),
                ToWorker::Tell { conn, tale, payload } => self.engine.handle_tale(conn, tale, &payload),
                // The other core heard of the torrent first; so will this one, in a moment.
                ToWorker::HandOver { handshake, .. }
                    if !self.stopping && !self.engine.knows(&handshake.info_hash) =>
                {
                    self.links.cores[self.core.0 as usize].send(message);
                }
                ToWorker::HandOver { socket, address, handshake, rest } => match self.io.attach(socket) {
                    Ok(conn) => self.take_over(conn, address, &handshake, &rest, now),
                    Err(_) => self.engine.handle_handover_failed(&handshake, self.core),
                },
                ToWorker::Forget { region } => {
                    let could = self.io.forget(self.engine.cache().region(region));
                    self.links.control.send(ToControl::Forgotten { region, could });
                }
                ToWorker::Edges { job, result } => {
                    let finished = self.disk.handle_edges(job, result);
                    self.finish(finished);
                }
                ToWorker::View(viewing) => self.show(viewing),
                ToWorker::Stop => {
                    self.stopping = true;
                    self.engine.handle_stop();
                }
            }
        }
    }

    fn perform_all(&mut self, now: Instant) {
        for _ in 0..ACTIONS_PER_TURN {
            let Some(action) = self.engine.poll_action(now) else { return };
            self.perform(action, now);
        }
        self.more_actions = true;
    }

    fn perform(&mut self, action: Action, now: Instant) {
        match action {
            Action::Interrupt(conn) => {
                if let Some(Some(inbound)) = self.inbound.get(conn.index as usize)
                    && inbound.in_flight
                    && self.engine.peer(conn).is_some()
                {
                    self.io.interrupt_recv(conn);
                }
            }
            Action::Listen(conn) => self.receive(conn),
            Action::Close(conn) => self.io.close(conn),
            Action::Send(conn) => {
                if self.engine.peer(conn).is_none_or(|peer| peer.out.in_flight) {
                    return;
                }
                self.segments.clear();
                if self.engine.take_send(conn, self.io.outbox(conn), &mut self.segments, now) {
                    self.io.send(conn, &self.segments);
                }
            }
            Action::Unsent { conn, bytes } => self.io.set_unsent(conn, bytes),
            Action::Backlog(conn) => {
                self.engine.handle_backlog(conn, self.io.backlog_bytes(conn), now);
            }
            Action::HandOver { conn, to, handshake } => self.hand_over(conn, to, handshake),
            Action::Decrypt(conn) => self.decrypt(conn),
            Action::Seek { conn, torrent } => self.give_to_seeker(conn, torrent),
            Action::Hash { torrent, chunk, first, last } => {
                self.hashes.push(HashJob { torrent, chunk, first, last, since: now });
            }
            Action::Autopsy { torrent, piece } => self.autopsy(torrent, piece),
            Action::Leaves { torrent, piece, of } => self.leaves(torrent, piece, of),
            Action::Write { torrent, chunk } => self.write(torrent, chunk),
            Action::Load { torrent, chunk, slot } => {
                let Some((shared, files)) = self.place(torrent) else { return };
                let place = Place { torrent: &shared, files: &files };
                let finished = self.disk.load(&mut self.io, &self.arena, &place, chunk, slot);
                self.finish(finished);
            }
            Action::Tell(to, note) => self.tell(to, note),
            Action::Report(report) => self.links.control.send(ToControl::Report(report)),
        }
    }

    fn tell(&mut self, to: To, note: crate::engine::action::Note) {
        let own = self.core;
        let told = |core: CoreId| match to {
            To::Core(one) => core == one,
            To::Others => core != own,
            To::Mask(mask) => mask & (1 << core.0) != 0,
        };
        for (index, sender) in self.links.cores.iter_mut().enumerate() {
            if told(CoreId(index as u8)) {
                sender.send(ToWorker::Note(note));
            }
        }
    }

    fn hand_over(&mut self, conn: ConnId, to: CoreId, handshake: Handshake) {
        // It may have ended since the engine decided so.
        let place = self.inbound.get_mut(conn.index as usize).filter(|_| self.engine.peer(conn).is_some());
        let (Some(inbound), Some(peer)) = (place.and_then(Option::take), self.engine.peer(conn)) else {
            self.engine.handle_handover_failed(&handshake, to);
            return;
        };
        let address = peer.address;
        let inbox = self.io.inbox(conn);
        let rest = inbox[crate::proto::wire::handshake::HANDSHAKE_BYTES..inbound.rest()].to_vec();
        let Some(socket) = self.io.detach(conn) else {
            self.engine.handle_handover_failed(&handshake, to);
            self.engine.handle_gone(conn);
            return;
        };
        self.engine.forget(conn);
        self.links.cores[to.0 as usize].send(ToWorker::HandOver { socket, address, handshake, rest });
    }

    fn place(&self, torrent: TorrentId) -> Option<(Arc<SharedTorrent>, Files<I::File>)> {
        let shared = Arc::clone(&self.engine.torrent(torrent)?.shared);
        Some((shared, self.files.get(torrent.0 as usize)?.clone()?))
    }

    fn write(&mut self, torrent: TorrentId, chunk: u32) {
        let Some((shared, files)) = self.place(torrent) else { return };
        let slot = shared.chunks.view(chunk).slot;
        let print = self.fingerprint.of(disk::payload(&self.arena, &shared, chunk, slot));
        shared.set_fingerprint(chunk, print);
        let place = Place { torrent: &shared, files: &files };
        let control = &mut self.links.control;
        let finished =
            self.disk.write(&mut self.io, &self.arena, &place, (chunk, slot), self.core, &mut |message| {
                control.send(message);
            });
        self.finish(finished);
    }

    /// A disk job ended.
    fn finish(&mut self, finished: Option<Finished>) {
        let Some(Finished { torrent, chunk, slot, direction, result }) = finished else { return };
        match direction {
            Direction::Write => {
                if result.is_ok() {
                    self.count_written(torrent, chunk);
                }
                let result = result.map_err(|errno| errno.unwrap_or(libc::EIO));
                self.engine.handle_written(torrent, chunk, result);
            }
            Direction::Load => {
                let result = result.and_then(|()| self.check_loaded(torrent, chunk, slot));
                self.engine.handle_loaded(torrent, chunk, result);
            }
        }
    }

    /// Bytes that were read are served only if they are what was once verified.
    fn check_loaded(
        &self,
        torrent: TorrentId,
        chunk: u32,
        slot: crate::base::ids::SlotId,
    ) -> Result<(), Option<i32>> {
        let Some(torrent) = self.engine.torrent(torrent) else { return Err(None) };
        let shared = &torrent.shared;
        let print = self.fingerprint.of(disk::payload(&self.arena, shared, chunk, slot));
        match shared.fingerprint(chunk) {
            0 => shared.set_fingerprint(chunk, print),
            known if known != print => return Err(None),
            _ => {}
        }
        self.write_headers(shared, chunk, slot);
        Ok(())
    }

    fn write_headers(&self, shared: &SharedTorrent, chunk: u32, slot: crate::base::ids::SlotId) {
        let geometry = shared.meta.geometry;
        let (piece, begin) = (geometry.chunk_piece(chunk), geometry.chunk_begin(chunk));
        self.arena.write_headers(slot, piece, begin, geometry.chunk_len(chunk));
    }

    fn autopsy(&mut self, id: TorrentId, piece: u32) {
        let Some(torrent) = self.engine.torrent(id) else { return };
        let shared = &torrent.shared;
        let chunks = wanted_chunks(shared, piece).into_iter();
        let bytes = chunks.map(|chunk| {
            let slot = shared.chunks.view(chunk).slot;
            disk::payload(&self.arena, shared, chunk, slot)
        });
        let blocks = bytes.flat_map(|chunk| chunk.chunks(BLOCK_BYTES as usize));
        let prints: Vec<u64> = blocks.map(|block| self.fingerprint.of(block)).collect();
        self.engine.handle_autopsy(id, piece, &prints);
    }
}
