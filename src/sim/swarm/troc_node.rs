//! A node of ours: real engines, one per core, and what a worker would do for them. Hashing and disks take no
//! time; no payload exists.

use std::collections::VecDeque;
use std::sync::Arc;

use super::content::Content;
use super::net::{EndId, Net, Parcel, Tag};
use crate::base::bitfield::Bitfield;
use crate::base::ids::{ConnId, CoreId, PeerId, TorrentId};
use crate::base::network::Grouping;
use crate::base::segment::Segment;
use crate::base::time::Instant;
use crate::engine::action::{Action, Note, To};
use crate::engine::versions::Name;
use crate::engine::{Admission, Engine, EngineConfig, Landing, assembly_chunks};
use crate::proto::wire::handshake::{HANDSHAKE_BYTES, Handshake};
use crate::proto::wire::message::{Frame, next_frame};
use crate::shared::budget::Budgets;
use crate::shared::cache::Cache;
use crate::shared::ledger::Ledger;
use crate::shared::torrent::SharedTorrent;

/// The one torrent.
const TORRENT: TorrentId = TorrentId(0);

/// Slots beyond twice what the torrent needs: the share of each connection comes out of them.
const SLOTS_SPARE: u32 = 512;

/// Accounts of a node: more than there are parties.
const ACCOUNTS: usize = 1 << 12;

/// See the module.
#[derive(Debug)]
pub struct TrocNode {
    engines: Vec<Engine>,
    shared: Arc<SharedTorrent>,
    /// The ledger that all cores share.
    ledger: Arc<Ledger>,
    content: Arc<Content>,
    /// Of each core, the ends of its connections by their place, and how often the place was used.
    ends: Vec<Vec<(Option<EndId>, u32)>>,
    mail: VecDeque<(usize, Note)>,
    /// Blocks that hold wrong bytes, by chunk.
    spoilt: Vec<u16>,
    /// Payload that came and was thrown away.
    wasted_bytes: u64,
    next_core: usize,
}

/// What a node of ours is made with.
#[derive(Clone, Debug)]
pub struct TrocSpec {
    /// How many engines.
    pub cores: usize,
    /// It has everything.
    pub complete: bool,
    /// Its name.
    pub peer_id: PeerId,
    /// Of its choices.
    pub seed: u64,
}

impl TrocNode {
    /// A node without peers.
    pub fn new(content: &Arc<Content>, spec: &TrocSpec, now: Instant) -> Self {
        let pieces = content.geometry.piece_count();
        let have = if spec.complete { Bitfield::full(pieces) } else { Bitfield::new(pieces) };
        let shared = SharedTorrent::new(content.meta(TORRENT), &have, spec.cores);
        let chunks = content.geometry.chunk_count();
        let cache = Arc::new(Cache::new(2 * chunks + SLOTS_SPARE));
        let ledger = Arc::new(Ledger::new(ACCOUNTS));
        let engine = |core: usize| {
            let config = EngineConfig {
                core: CoreId(core as u8),
                cores: spec.cores,
                peer_id: spec.peer_id,
                listen_port: None,
                dht_port: None,
                sequential: false,
                seed: spec.seed.wrapping_add(core as u64),
                secret: spec.seed,
                grouping: Grouping::default(),
                identity: None,
                upload: Budgets::default(),
                download: Budgets::default(),
            };
            let mut engine = Engine::new(config, Arc::clone(&cache), now).with_ledger(Arc::clone(&ledger));
            engine.handle_torrent(Arc::clone(&shared));
            engine
        };
        Self {
            engines: (0..spec.cores).map(engine).collect(),
            shared,
            ledger: Arc::clone(&ledger),
            content: Arc::clone(content),
            ends: vec![Vec::new(); spec.cores],
            mail: VecDeque::new(),
            spoilt: vec![0; chunks as usize],
            wasted_bytes: 0,
            next_core: 0,
        }
    }

    /// Pieces that it has.
    pub fn have_count(&self) -> u32 {
        self.shared.have_count()
    }

    /// Whether it has a piece.
    pub fn has(&self, piece: u32) -> bool {
        self.shared.has(piece)
    }

    /// Payload that came and was thrown away.
    pub const fn wasted_bytes(&self) -> u64 {
        self.wasted_bytes
    }

    /// What its engines say that they received, and that they threw away of it, in bytes.
    pub fn stats(&self) -> (u64, u64) {
        let sum = |(received, wasted), core: &crate::shared::torrent::CoreStats| {
            (received + core.received_bytes.get(), wasted + core.wasted_bytes.get())
        };
        self.shared.stats.iter().map(|core| &**core).fold((0, 0), sum)
    }

    /// What it owes and is owed.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The engine of a core.
    pub fn engine(&self, core: usize) -> &Engine {
        &self.engines[core]
    }

    fn place(&mut self, net: &mut Net, end: EndId, core: usize) -> ConnId {
        let places = &mut self.ends[core];
        let index = places.iter().position(|(end, _)| end.is_none()).unwrap_or(places.len());
        if index == places.len() {
            places.push((None, 0));
        }
        places[index].0 = Some(end);
        let (index, generation) = (index as u32, places[index].1);
        net.set_tag(end, Tag { core, index, generation, shaken: net.tag(end).shaken });
        ConnId { index, generation }
    }

    fn vacate(&mut self, core: usize, conn: ConnId) -> Option<EndId> {
        let place =
            self.ends[core].get_mut(conn.index as usize).filter(|place| place.1 == conn.generation)?;
        place.1 += 1;
        place.0.take()
    }

    fn end_of(&self, core: usize, conn: ConnId) -> Option<EndId> {
        let &(end, generation) = self.ends[core].get(conn.index as usize)?;
        end.filter(|_| generation == conn.generation)
    }

    /// It connects to somebody.
    pub fn dialing(&mut self, net: &mut Net, end: EndId) {
        let core = self.next_core;
        self.next_core = (self.next_core + 1) % self.engines.len();
        let conn = self.place(net, end, core);
        self.engines[core].handle_dialing(conn, net.peer_address(end), (TORRENT, Name::First), net.now());
    }

    /// Somebody connects to it.
    pub fn accepted(&mut self, net: &mut Net, end: EndId) {
        let core = self.next_core;
        self.next_core = (self.next_core + 1) % self.engines.len();
        let conn = self.place(net, end, core);
        self.engines[core].handle_accepted(conn, net.peer_address(end), net.now());
    }

    /// A dial ended well.
    pub fn dialed(&mut self, net: &mut Net, end: EndId) {
        let (core, conn) = conn_of(net.tag(end));
        self.engines[core].handle_dialed(conn, true, net.now());
    }

    /// The other side is gone.
    pub fn gone(&mut self, net: &mut Net, end: EndId) {
        let (core, conn) = conn_of(net.tag(end));
        self.engines[core].handle_gone(conn);
    }

    /// The kernel has taken all of a send.
    pub fn sent(&mut self, net: &mut Net, end: EndId) {
        let (core, conn) = conn_of(net.tag(end));
        let left_bytes = self.engines[core].peer(conn).map(|peer| peer.out.left_bytes);
        if let Some(bytes) = left_bytes {
            self.engines[core].handle_sent(conn, Ok(bytes as u32), net.now());
        }
    }

    /// A parcel came.
    pub fn receive(&mut self, net: &mut Net, end: EndId, parcel: Parcel) {
        match parcel {
            Parcel::Control(bytes) => self.read(net, end, &bytes),
            Parcel::Block { block, good } => {
                let (core, conn) = conn_of(net.tag(end));
                match self.engines[core].handle_piece_header(conn, block) {
                    Ok(Landing::Into(place)) => {
                        let spoilt = &mut self.spoilt[place.chunk as usize];
                        *spoilt = *spoilt & !(1 << place.index) | u16::from(!good) << place.index;
                        self.engines[core].handle_block(conn, place.chunk, place.index, net.now());
                    }
                    Ok(Landing::Discard) | Err(_) => self.wasted_bytes += u64::from(block.length),
                }
            }
        }
    }

    fn read(&mut self, net: &mut Net, end: EndId, mut bytes: &[u8]) {
        let now = net.now();
        let mut tag = net.tag(end);
        if !tag.shaken {
            let Ok(Some(theirs)) = Handshake::parse(bytes) else { panic!("no handshake from {end:?}") };
            bytes = &bytes[HANDSHAKE_BYTES..];
            tag.shaken = true;
            net.set_tag(end, tag);
            let (core, conn) = conn_of(tag);
            match self.engines[core].handle_handshake(conn, &theirs, now) {
                Admission::Here => {}
                Admission::Elsewhere => self.perform_all(net, core),
                Admission::Later | Admission::Refused => return,
            }
        }
        let (core, conn) = conn_of(net.tag(end));
        let engine = &mut self.engines[core];
        let bitfield_bytes = self.content.geometry.piece_count().div_ceil(8);
        while let Some((frame, used)) = next_frame(bytes, bitfield_bytes).expect("nodes speak the protocol") {
            bytes = &bytes[used..];
            let Frame::Message(message) = frame else { panic!("blocks are parcels of their own") };
            if engine.handle_message(conn, message, now).is_err() {
                return;
            }
        }
    }

    /// Carries out all that the engines want.
    pub fn run(&mut self, net: &mut Net) {
        let now = net.now();
        for core in 0..self.engines.len() {
            self.engines[core].handle_tick(now);
            self.perform_all(net, core);
        }
        while let Some((core, note)) = self.mail.pop_front() {
            self.engines[core].handle_note(note, now);
            self.perform_all(net, core);
        }
    }

    /// When time alone will change something.
    pub fn wakes_at(&self) -> Option<Instant> {
        self.engines.iter().filter_map(Engine::poll_timeout).min()
    }

    fn perform_all(&mut self, net: &mut Net, core: usize) {
        while let Some(action) = self.engines[core].poll_action(net.now()) {
            self.perform(net, core, action);
        }
    }

    fn perform(&mut self, net: &mut Net, core: usize, action: Action) {
        let engine = &mut self.engines[core];
        match action {
            Action::Send(conn) => self.send(net, core, conn),
            Action::Unsent { conn, bytes } => {
                if let Some(end) = self.end_of(core, conn) {
                    net.set_unsent(end, bytes);
                }
            }
            Action::Backlog(conn) => {
                let bytes = self.end_of(core, conn).map_or(0, |end| net.backlog_bytes(end));
                self.engines[core].handle_backlog(conn, bytes, net.now());
            }
            Action::Close(conn) => {
                if let Some(end) = self.vacate(core, conn) {
                    net.close(end);
                }
                self.engines[core].handle_closed(conn);
            }
            Action::HandOver { conn, to, handshake } => {
                let Some(end) = self.vacate(core, conn) else { return };
                self.engines[core].forget(conn);
                let to = usize::from(to.0);
                let moved = self.place(net, end, to);
                let address = net.peer_address(end);
                self.engines[to].handle_handover(moved, address, &handshake, net.now());
                self.perform_all(net, to);
            }
            Action::Decrypt(_) => unreachable!("no simulated peer speaks in ciphers"),
            Action::Seek { .. } => unreachable!("no simulated node has a link alone"),
            Action::Hash { chunk, last, .. } => {
                let digest = last.then(|| self.digest(chunk));
                if digest.is_some_and(|digest| digest != Content::DIGEST) {
                    let geometry = &self.content.geometry;
                    self.wasted_bytes += u64::from(geometry.piece_len(geometry.chunk_piece(chunk)));
                }
                self.engines[core].handle_hashed(TORRENT, chunk, digest.map(Into::into));
            }
            Action::Autopsy { piece, .. } => {
                let prints = self.prints(piece);
                self.engines[core].handle_autopsy(TORRENT, piece, &prints);
            }
            Action::Write { chunk, .. } => engine.handle_written(TORRENT, chunk, Ok(())),
            Action::Load { chunk, .. } => engine.handle_loaded(TORRENT, chunk, Ok(())),
            Action::Tell(to, note) => {
                let told = |&other: &usize| match to {
                    To::Core(core) => usize::from(core.0) == other,
                    To::Others => other != core,
                    To::Mask(mask) => mask & (1 << other) != 0,
                };
                self.mail.extend((0..self.engines.len()).filter(told).map(|other| (other, note)));
            }
            Action::Interrupt(_) | Action::Listen(_) | Action::Leaves { .. } | Action::Report(_) => {}
        }
    }

    /// The digest of the piece that ends with `chunk`.
    fn digest(&self, chunk: u32) -> [u8; 20] {
        let piece = self.content.geometry.chunk_piece(chunk);
        let right =
            assembly_chunks(&self.shared, piece).iter().all(|&chunk| self.spoilt[chunk as usize] == 0);
        if right { Content::DIGEST } else { [0; 20] }
    }

    fn prints(&self, piece: u32) -> Vec<u64> {
        let chunks = assembly_chunks(&self.shared, piece).into_iter();
        let blocks = chunks.flat_map(|chunk| {
            (0..self.content.geometry.chunk_blocks(chunk)).map(move |block| (chunk, block))
        });
        blocks.map(|(chunk, block)| u64::from(self.spoilt[chunk as usize] >> block & 1)).collect()
    }

    fn send(&mut self, net: &mut Net, core: usize, conn: ConnId) {
        let engine = &mut self.engines[core];
        if engine.peer(conn).is_none_or(|peer| peer.out.in_flight) {
            return;
        }
        let (mut outbox, mut segments) = (Vec::new(), Vec::new());
        if !engine.take_send(conn, &mut outbox, &mut segments, net.now()) {
            return;
        }
        let Some(end) = self.end_of(core, conn) else { return };
        let pins = self.engines[core].peer(conn).map(|peer| peer.out.pins.clone()).unwrap_or_default();
        let geometry = self.content.geometry;
        let mut parcels = Vec::with_capacity(segments.len());
        for segment in segments {
            match segment {
                Segment::Outbox { .. } => parcels.push(Parcel::Control(std::mem::take(&mut outbox))),
                Segment::Header { slot, block, .. } => {
                    let pin = pins.iter().rev().find(|pin| pin.slot == slot).expect("what is sent is pinned");
                    parcels.push(Parcel::Block { block: geometry.block(pin.chunk, block), good: true });
                }
                Segment::Payload { .. } | Segment::Inbox { .. } => {}
            }
        }
        net.send(end, parcels);
    }

    /// It stops: all its connections close.
    pub fn leave(&mut self, net: &mut Net) {
        for place in self.ends.iter_mut().flatten() {
            if let Some(end) = place.0.take() {
                net.close(end);
            }
        }
    }
}

const fn conn_of(tag: Tag) -> (usize, ConnId) {
    (tag.core, ConnId { index: tag.index, generation: tag.generation })
}
