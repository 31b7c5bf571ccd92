//! [`SimIo`]: the world as one core sees it, behind the same trait as the kernel's ring.
//!
//! It is stricter than a kernel. Whatever breaks the contract of `io` panics: a stale id, a buffer
//! touched while an operation uses it, memory changed under a send or a write, direct and buffered
//! access to one page. `turn` never blocks: it brings what is ready, by the seed's choice and order,
//! and notes when this core wants to run again.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use super::disk::{DiskDone, DiskOp, Job, SimFile};
use super::net::{EndId, EndState, Inbound};
use super::profile::{PPM, Profile, chance};
use super::timeline::ActorId;
use super::world::World;
use crate::base::ids::{ConnId, SlotId};
use crate::base::slots::Slots;
use crate::base::time::{Instant, Span};
use crate::base::units::PAGE_BYTES;
use crate::io::arena::Arena;
use crate::io::{Completion, Errno, FileOp, INBOX_BYTES, Io, SEGMENTS_MAX, Segment};

/// How long a send without a copy may be held after it was counted, in nanoseconds.
const HOLD_NS: (u64, u64) = (1, 50_000_000);

/// A connection on its way to another core. Dropped on the way, it is closed.
#[derive(Debug)]
pub struct SimSocket {
    end: EndId,
    holder: Arc<()>,
}

/// One core of a simulated node.
#[derive(Debug)]
pub struct SimIo {
    world: World,
    actor: ActorId,
    arena: Arc<Arena>,
    conns: Slots<Conn>,
    files: BTreeMap<u64, Pending>,
    files_submitted: u64,
    delivered: usize,
    /// Bytes that the turn under way has sent and received.
    moved_bytes: u64,
}

#[derive(Debug)]
struct Conn {
    end: EndId,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    stage: Stage,
    recv: Option<Receive>,
    send: Option<Transmit>,
    /// Sends whose memory is still read, and until when.
    held: VecDeque<(Transmit, Instant)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Dialled; `Dialed` is to come.
    Dialing,
    /// The dial failed, and the caller knows.
    Failed,
    Open,
    /// `close` was called; `Closed` comes at that time or later.
    Closing(Instant),
}

#[derive(Debug)]
struct Receive {
    segments: Vec<Segment>,
    /// Into whatever buffer there is: the inbox comes with the bytes.
    any: bool,
    interrupted: bool,
}

#[derive(Debug)]
struct Transmit {
    segments: Vec<Segment>,
    /// The bytes as they were when the send began: they must not change before it ends.
    bytes: Vec<u8>,
}

/// A file operation in flight.
#[derive(Debug)]
struct Pending {
    token: u64,
    slot: SlotId,
    offset: u32,
    /// What a write took from the slot when it began.
    written: Vec<u8>,
}

/// A completion that could be delivered in this turn.
#[derive(Clone, Copy)]
enum Ready {
    Accept,
    Dial(ConnId),
    Receive(ConnId),
    Send(ConnId),
    Release(ConnId),
    Close(ConnId),
    File,
}

impl World {
    /// The world as `actor` sees it: at most `connections_max` connections, payload in `arena`.
    pub fn io(&self, actor: ActorId, arena: Arc<Arena>, connections_max: u32) -> SimIo {
        SimIo {
            world: self.clone(),
            actor,
            arena,
            conns: Slots::new(connections_max),
            files: BTreeMap::new(),
            files_submitted: 0,
            delivered: 0,
            moved_bytes: 0,
        }
    }
}

impl SimIo {
    /// Connections that have an id, closing ones included.
    pub fn connections(&self) -> u32 {
        self.conns.len()
    }

    /// Nothing is in flight and no connection is left.
    pub fn is_quiet(&self) -> bool {
        self.conns.is_empty() && self.files.is_empty()
    }

    /// Completions that the last turn brought.
    pub const fn delivered(&self) -> usize {
        self.delivered
    }

    /// The memory that payload lies in.
    pub fn arena(&self) -> Arc<Arena> {
        Arc::clone(&self.arena)
    }

    /// Whether a receive is in flight.
    pub fn is_receiving(&self, conn: ConnId) -> bool {
        self.conns.get(conn).is_some_and(|conn| conn.recv.is_some())
    }

    /// Whether a send is in flight.
    pub fn is_sending(&self, conn: ConnId) -> bool {
        self.conns.get(conn).is_some_and(|conn| conn.send.is_some())
    }

    fn add(&mut self, end: EndId, stage: Stage) -> Option<ConnId> {
        let (inbox, outbox) = (Vec::new(), Vec::new());
        self.conns
            .insert(Conn { end, inbox, outbox, stage, recv: None, send: None, held: VecDeque::new() })
            .ok()
    }

    fn conn(&mut self, id: ConnId) -> &mut Conn {
        self.conns.get_mut(id).unwrap_or_else(|| panic!("{id:?} is stale"))
    }

    /// A connection on which a receive may start; `None` while it closes.
    fn receiver(&mut self, id: ConnId) -> Option<&mut Conn> {
        let conn = self.conn(id);
        if matches!(conn.stage, Stage::Closing(_)) {
            return None;
        }
        assert!(conn.stage == Stage::Open, "{id:?}: receive on a connection that is not open");
        assert!(conn.recv.is_none(), "{id:?}: a second receive");
        Some(conn)
    }

    /// All that could complete now.
    fn ready(&self) -> Vec<Ready> {
        self.world.state(|state| {
            let mut ready = Vec::new();
            ready.extend((0..state.timeline.accepted(self.actor).len()).map(|_| Ready::Accept));
            ready.extend((0..state.timeline.files_done(self.actor).len()).map(|_| Ready::File));
            for (id, conn) in self.conns.iter() {
                let (is_readable, is_writable) =
                    (state.net.is_readable(conn.end), state.net.is_writable(conn.end));
                match conn.stage {
                    Stage::Dialing if state.net.state(conn.end) != EndState::Connecting => {
                        ready.push(Ready::Dial(id));
                    }
                    Stage::Closing(at) if at <= state.timeline.now => ready.push(Ready::Close(id)),
                    _ => {}
                }
                if conn.recv.as_ref().is_some_and(|recv| recv.interrupted || is_readable) {
                    ready.push(Ready::Receive(id));
                }
                if conn.held.front().is_some_and(|(_, until)| *until <= state.timeline.now) {
                    ready.push(Ready::Release(id));
                }
                if conn.send.is_some() && is_writable {
                    ready.push(Ready::Send(id));
                }
            }
            ready
        })
    }

    fn complete(&mut self, ready: Ready, done: &mut Vec<Completion>) {
        match ready {
            Ready::Accept => self.complete_accept(done),
            Ready::Dial(conn) => self.complete_dial(conn, done),
            Ready::Receive(conn) => self.complete_recv(conn, done),
            Ready::Send(conn) => self.complete_send(conn, done),
            Ready::Release(conn) => self.complete_release(conn, done),
            Ready::Close(conn) => self.complete_close(conn, done),
            Ready::File => self.complete_file(done),
        }
    }

    fn complete_accept(&mut self, done: &mut Vec<Completion>) {
        let Some(end) = self.world.accept(self.actor) else { return };
        match self.add(end, Stage::Open) {
            Some(conn) => done.push(Completion::Accepted { conn, address: self.world.remote(end) }),
            None => self.world.close(end),
        }
    }

    fn complete_dial(&mut self, id: ConnId, done: &mut Vec<Completion>) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        let result = match self.world.end_state(conn.end) {
            EndState::Failed(errno) => Err(errno),
            EndState::Connecting | EndState::Open | EndState::Closed => Ok(()),
        };
        conn.stage = if result.is_ok() { Stage::Open } else { Stage::Failed };
        done.push(Completion::Dialed { conn: id, result });
    }

    fn complete_recv(&mut self, id: ConnId, done: &mut Vec<Completion>) {
        // An earlier completion of this turn may have ended the connection.
        let Some(conn) = self.conns.get_mut(id) else { return };
        let Some(recv) = conn.recv.take() else { return };
        let wanted = recv.segments.iter().map(|segment| segment.len() as usize).sum();
        let mut bytes = Vec::new();
        let result = match self.world.read(conn.end, wanted, &mut bytes) {
            Ok(Inbound::Bytes(count)) => Ok(count as u32),
            Ok(Inbound::Pending) => Err(Errno::CANCELED),
            Err(_) if matches!(conn.stage, Stage::Closing(_)) => Err(Errno::CANCELED),
            Err(errno) => Err(errno),
        };
        if recv.any {
            // As another connection may have left it.
            conn.inbox = vec![0x5a; INBOX_BYTES];
        }
        scatter(&self.arena, &mut conn.inbox, &recv.segments, &bytes);
        self.moved_bytes += u64::from(result.unwrap_or(0));
        done.push(Completion::Received { conn: id, result });
    }

    fn complete_send(&mut self, id: ConnId, done: &mut Vec<Completion>) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        let Some(send) = conn.send.take() else { return };
        send.check(&self.arena, &conn.outbox);
        let result = match self.world.write(conn.end, &send.bytes) {
            // Filled up by another completion of this turn.
            Ok(0) if !matches!(conn.stage, Stage::Closing(_)) => {
                conn.send = Some(send);
                return;
            }
            Ok(0) => Err(Errno::CANCELED),
            Ok(count) => Ok(count as u32),
            Err(_) if matches!(conn.stage, Stage::Closing(_)) => Err(Errno::CANCELED),
            Err(errno) => Err(errno),
        };
        let held = result.is_ok()
            && conn.stage == Stage::Open
            && send.is_payload()
            && self.world.with_rng(|rng| chance(rng, PPM / 4));
        if held {
            let until = self.world.state(|state| {
                let until = state.timeline.now + Span(state.timeline.draw(HOLD_NS));
                state.timeline.rouse_at(self.actor, until);
                until
            });
            conn.held.push_back((send, until));
        }
        self.moved_bytes += u64::from(result.unwrap_or(0));
        done.push(Completion::Sent { conn: id, result, held });
    }

    fn complete_release(&mut self, id: ConnId, done: &mut Vec<Completion>) {
        let Some(conn) = self.conns.get_mut(id).filter(|conn| conn.stage == Stage::Open) else { return };
        let Some((send, _)) = conn.held.pop_front() else { return };
        send.check(&self.arena, &conn.outbox);
        if let Some((_, next)) = conn.held.front() {
            self.world.state(|state| state.timeline.rouse_at(self.actor, *next));
        }
        done.push(Completion::Released { conn: id });
    }

    fn complete_close(&mut self, id: ConnId, done: &mut Vec<Completion>) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        for send in conn.held.drain(..).map(|(send, _)| send).chain(conn.send.take()) {
            send.check(&self.arena, &conn.outbox);
        }
        if let Some(recv) = conn.recv.take() {
            // Until now the kernel might have received into the segments: nobody else may use them.
            let total: u32 = recv.segments.iter().map(Segment::len).sum();
            if !recv.any && self.world.with_rng(|rng| chance(rng, PPM / 4)) {
                scatter(&self.arena, &mut conn.inbox, &recv.segments, &vec![0xa5; total as usize]);
            }
        }
        self.conns.remove(id);
        done.push(Completion::Closed { conn: id });
    }

    fn complete_file(&mut self, done: &mut Vec<Completion>) {
        let next = self.world.state(|state| {
            let files = state.timeline.files_done(self.actor);
            (!files.is_empty()).then(|| files.remove(0))
        });
        let Some(DiskDone { token, is_write, result, bytes }) = next else { return };
        let Some(op) = self.files.remove(&token) else { panic!("no file operation {token}") };
        if is_write {
            let now = self.arena.payload(op.slot, op.offset, op.written.len() as u32);
            assert!(now == op.written, "slot {:?} changed under a write", op.slot);
            done.push(Completion::Written { token: op.token, result });
        } else {
            self.arena.copy_in(op.slot, op.offset, &bytes);
            done.push(Completion::Read { token: op.token, result });
        }
    }

    fn submit(&mut self, op: FileOp<SimFile>, job: Job) {
        let aligned = [op.file_offset, u64::from(op.offset), u64::from(op.len)]
            .iter()
            .all(|value| value.is_multiple_of(u64::from(PAGE_BYTES)));
        assert!(!op.direct || aligned, "direct I/O that is not aligned: {op:?}");
        assert!(op.len > 0, "a file operation of no bytes");
        let written = match &job {
            Job::Write { bytes } => bytes.clone(),
            Job::Read { .. } => Vec::new(),
        };
        let token = self.files_submitted;
        self.files_submitted += 1;
        self.files.insert(token, Pending { token: op.token, slot: op.slot, offset: op.offset, written });
        let op = DiskOp { token, file: op.file, offset: op.file_offset, direct: op.direct, job };
        self.world.submit(self.actor, op);
    }
}

impl Io for SimIo {
    type Socket = SimSocket;
    type File = SimFile;

    fn now(&self) -> Instant {
        self.world.now()
    }

    fn dial(&mut self, address: SocketAddr) -> Option<ConnId> {
        if self.conns.is_full() {
            return None;
        }
        let end = self.world.dial(self.actor, address);
        self.add(end, Stage::Dialing)
    }

    fn attach(&mut self, socket: SimSocket) -> Result<ConnId, SimSocket> {
        if self.conns.is_full() {
            return Err(socket);
        }
        debug_assert_eq!(Arc::strong_count(&socket.holder), 1, "a socket has one owner");
        self.world.state(|state| state.attach(socket.end, self.actor));
        self.add(socket.end, Stage::Open).ok_or(socket)
    }

    fn detach(&mut self, conn: ConnId) -> Option<SimSocket> {
        let found = self.conns.get(conn)?;
        let is_busy = found.recv.is_some() || found.send.is_some() || !found.held.is_empty();
        if is_busy || found.stage != Stage::Open {
            return None;
        }
        let end = self.conns.remove(conn)?.end;
        let holder = Arc::new(());
        self.world.state(|state| state.detach(end, Arc::downgrade(&holder)));
        Some(SimSocket { end, holder })
    }

    fn inbox(&mut self, conn: ConnId) -> &mut Vec<u8> {
        let found = self.conn(conn);
        assert!(found.recv.is_none(), "{conn:?}: the inbox belongs to the receive in flight");
        &mut found.inbox
    }

    fn outbox(&mut self, conn: ConnId) -> &mut Vec<u8> {
        let found = self.conn(conn);
        assert!(found.send.is_none(), "{conn:?}: the outbox belongs to the send in flight");
        &mut found.outbox
    }

    fn recv_any(&mut self, conn: ConnId) {
        let Some(found) = self.receiver(conn) else { return };
        found.inbox = Vec::new();
        let segments = vec![Segment::Inbox { offset: 0, len: INBOX_BYTES as u32 }];
        found.recv = Some(Receive { segments, any: true, interrupted: false });
        self.world.state(|state| state.timeline.rouse(self.actor));
    }

    fn recv(&mut self, conn: ConnId, segments: &[Segment]) {
        check_segments(segments);
        let Some(found) = self.receiver(conn) else { return };
        if found.inbox.is_empty() {
            found.inbox.resize(INBOX_BYTES, 0);
        }
        for segment in segments {
            let fits = match *segment {
                Segment::Inbox { offset, len } => offset as usize + len as usize <= found.inbox.len(),
                Segment::Payload { .. } => true,
                Segment::Header { .. } | Segment::Outbox { .. } => false,
            };
            assert!(fits, "{conn:?}: cannot receive into {segment:?}");
        }
        found.recv = Some(Receive { segments: segments.to_vec(), any: false, interrupted: false });
        self.world.state(|state| state.timeline.rouse(self.actor));
    }

    fn interrupt_recv(&mut self, conn: ConnId) {
        let Some(found) = self.conns.get_mut(conn) else { return };
        if let Some(recv) = &mut found.recv {
            recv.interrupted = true;
            self.world.state(|state| state.timeline.rouse(self.actor));
        }
    }

    /// The simulated kernel takes only what the network carries.
    fn set_unsent(&mut self, _conn: ConnId, _bytes: u32) {}

    /// Nor has it a queue of its own.
    fn backlog_bytes(&self, _conn: ConnId) -> u64 {
        0
    }

    fn send(&mut self, conn: ConnId, segments: &[Segment]) {
        check_segments(segments);
        let arena = Arc::clone(&self.arena);
        let found = self.conn(conn);
        if matches!(found.stage, Stage::Closing(_)) {
            return;
        }
        assert!(found.stage == Stage::Open, "{conn:?}: send on a connection that is not open");
        assert!(found.send.is_none(), "{conn:?}: a second send");
        let bytes = gather(&arena, &found.outbox, segments);
        found.send = Some(Transmit { segments: segments.to_vec(), bytes });
        self.world.state(|state| state.timeline.rouse(self.actor));
    }

    fn close(&mut self, conn: ConnId) {
        let Some(found) = self.conns.get_mut(conn) else { return };
        if matches!(found.stage, Stage::Closing(_)) {
            return;
        }
        let end = found.end;
        let at = self.world.state(|state| {
            state.net.close(&mut state.timeline, end);
            let takes = Span(state.timeline.draw(state.timeline.profile.close_ns));
            let at = state.timeline.now + takes;
            state.timeline.rouse_at(self.actor, at);
            at
        });
        self.conn(conn).stage = Stage::Closing(at);
    }

    fn read(&mut self, op: FileOp<SimFile>) {
        // The whole target must lie in the slot.
        let len = self.arena.payload(op.slot, op.offset, op.len).len();
        self.submit(op, Job::Read { len });
    }

    fn write(&mut self, op: FileOp<SimFile>) {
        let bytes = self.arena.payload(op.slot, op.offset, op.len).to_vec();
        self.submit(op, Job::Write { bytes });
    }

    /// Nobody may name the slots any more: panics if something in flight does.
    fn forget(&mut self, slots: Range<u32>) -> bool {
        let named = |slot: SlotId| slots.contains(&slot.0);
        for (id, conn) in self.conns.iter() {
            let lists = conn.recv.iter().map(|recv| &recv.segments);
            let lists = lists.chain(conn.send.iter().map(|send| &send.segments));
            let mut lists = lists.chain(conn.held.iter().map(|(send, _)| &send.segments));
            let uses = |segments: &Vec<Segment>| segments.iter().filter_map(Segment::slot).any(named);
            assert!(!lists.any(uses), "{id:?} uses slots of {slots:?}, which are to go");
        }
        assert!(!self.files.values().any(|file| named(file.slot)), "a file operation uses {slots:?}");
        true
    }

    fn turn(&mut self, deadline: Option<Instant>, done: &mut Vec<Completion>) {
        let mut ready = self.ready();
        let (batch_max, defer_ppm) = self.world.with_profile(|knobs| (knobs.batch_max, knobs.defer_ppm));
        self.world.with_rng(|rng| rng.shuffle(&mut ready));
        let before = done.len();
        let mut is_left = false;
        for item in ready {
            let is_full = done.len() - before >= batch_max as usize;
            if is_full || self.world.with_rng(|rng| chance(rng, defer_ppm)) {
                is_left = true;
            } else {
                self.complete(item, done);
            }
        }
        self.delivered = done.len() - before;
        let count = self.delivered as u64;
        let moved_bytes = std::mem::take(&mut self.moved_bytes);
        self.world.state(|state| {
            let Profile { completion_ns, byte_ps, .. } = state.timeline.profile;
            let cost = Span(count * completion_ns + moved_bytes * byte_ps / 1_000);
            state.timeline.charge(self.actor, cost);
            state.timeline.record("turn", &[u64::from(self.actor.0), count]);
            if is_left {
                let later = Span(state.timeline.draw((1, 1_000_000)));
                state.timeline.rouse_at(self.actor, state.timeline.now + later);
            }
            if let Some(deadline) = deadline {
                state.timeline.set_deadline(self.actor, deadline);
            }
        });
    }
}

impl Transmit {
    /// Whether all of it lies in the arena: only that can be sent without a copy.
    fn is_payload(&self) -> bool {
        self.segments
            .iter()
            .all(|segment| matches!(segment, Segment::Payload { .. } | Segment::Header { .. }))
    }

    fn check(&self, arena: &Arena, outbox: &[u8]) {
        assert!(gather(arena, outbox, &self.segments) == self.bytes, "memory changed under a send");
    }
}

fn check_segments(segments: &[Segment]) {
    assert!((1..=SEGMENTS_MAX).contains(&segments.len()), "{} segments", segments.len());
    assert!(segments.iter().any(|segment| !segment.is_empty()), "an operation of no bytes");
}

/// The bytes that the segments name, in order.
fn gather(arena: &Arena, outbox: &[u8], segments: &[Segment]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for segment in segments {
        bytes.extend_from_slice(match *segment {
            Segment::Payload { slot, offset, len } => arena.payload(slot, offset, len),
            Segment::Header { slot, block, skip } => &arena.header(slot, block)[skip as usize..],
            Segment::Outbox { offset, len } => &outbox[offset as usize..][..len as usize],
            Segment::Inbox { .. } => panic!("cannot send from an inbox"),
        });
    }
    bytes
}

/// Places bytes in the segments, in order.
fn scatter(arena: &Arena, inbox: &mut [u8], segments: &[Segment], mut bytes: &[u8]) {
    for segment in segments {
        let (part, rest) = bytes.split_at(bytes.len().min(segment.len() as usize));
        match *segment {
            Segment::Payload { slot, offset, .. } => arena.copy_in(slot, offset, part),
            Segment::Inbox { offset, .. } => inbox[offset as usize..][..part.len()].copy_from_slice(part),
            Segment::Header { .. } | Segment::Outbox { .. } => panic!("cannot receive into {segment:?}"),
        }
        bytes = rest;
    }
}
