//! Two engines on one torrent against scripted peers, in virtual time: random facts, and after each
//! one all invariants; then everybody becomes helpful, and the torrent must become complete.

use std::collections::HashMap;

use crate::base::bitfield::Bitfield;
use crate::base::geometry::{BlockRef, Geometry};
use crate::base::ids::SlotId;
use crate::base::segment::Segment;
use crate::base::time::Span;
use crate::engine::*;
use crate::proto::wire::handshake::{HANDSHAKE_BYTES, Handshake};
use crate::proto::wire::message::{Frame, Message, next_frame};
use crate::shared::budget::Budget;
use crate::shared::torrent::{TorrentLimits, TorrentMeta};

const TORRENT: TorrentId = TorrentId(0);
const HASH: InfoHash = InfoHash([7; 20]);
const RIGHT: [u8; 20] = [1; 20];

/// What the worker of a core would still have to do.
#[derive(Debug)]
enum Job {
    Hash { chunk: u32, last: bool },
    Autopsy { piece: u32 },
    Write { chunk: u32 },
    Closed(ConnId),
}

struct Node {
    engine: Engine,
    mail: VecDeque<Note>,
    jobs: VecDeque<Job>,
}

struct Remote {
    node: usize,
    conn: ConnId,
    bits: Bitfield,
    fast: bool,
    choking: bool,
    liar: bool,
    greeted: bool,
    open: bool,
    pending: Vec<BlockRef>,
    planned: Vec<Expected>,
    current: Option<Expected>,
}

struct World {
    rng: Rng,
    now: Instant,
    shared: Arc<SharedTorrent>,
    nodes: Vec<Node>,
    remotes: Vec<Remote>,
    /// Whether what lies in a block's place is right.
    places: HashMap<(SlotId, u32), bool>,
    next_index: u32,
    ops: u32,
    /// Blocks that were asked of us, and those that we sent.
    asked: usize,
    served: usize,
}

/// Networks that peers are in: three public groups of addresses, and two private networks.
const NETS: [[u8; 3]; 5] = [[82, 1, 1], [82, 1, 2], [83, 7, 7], [10, 0, 0], [192, 168, 5]];

/// What a torrent with a limit may send and ask for, in bytes a second.
const LIMIT: u64 = 512 << 10;

/// A torrent without anything; every other one, by seed, has limits of its own.
fn shared(seed: u64, total_bytes: u64, piece_bytes: u32, cores: usize, now: Instant) -> Arc<SharedTorrent> {
    let geometry = Geometry::new(total_bytes, piece_bytes);
    let piece_hashes = vec![RIGHT; geometry.piece_count() as usize].into();
    let meta =
        TorrentMeta { id: TORRENT, piece_hashes, ..TorrentMeta::plain(HASH, total_bytes, piece_bytes) };
    let limit = || (seed % 4 > 1).then(|| Arc::new(Budget::new(LIMIT, now)));
    let limits = TorrentLimits { upload: limit(), download: limit() };
    SharedTorrent::with_limits(meta, &Bitfield::new(geometry.piece_count()), cores, limits)
}

impl World {
    fn new(seed: u64, cores: usize, total_bytes: u64, piece_bytes: u32) -> Self {
        let now = Instant(1_000_000_000);
        let shared = shared(seed, total_bytes, piece_bytes, cores, now);
        let cache = Arc::new(Cache::new(shared.meta.geometry.chunk_count() + 1));
        let node = |core: usize| {
            let config = EngineConfig {
                core: CoreId(core as u8),
                cores,
                peer_id: PeerId([1; 20]),
                listen_port: None,
                dht_port: None,
                sequential: seed.is_multiple_of(3),
                seed,
                secret: 1,
                grouping: Grouping::default(),
                identity: None,
                upload: Budgets::default(),
                download: Budgets::default(),
            };
            let mut engine = Engine::new(config, Arc::clone(&cache), now);
            engine.handle_torrent(Arc::clone(&shared));
            Node { engine, mail: VecDeque::new(), jobs: VecDeque::new() }
        };
        let nodes = (0..cores).map(node).collect();
        let (rng, remotes, places) = (Rng::new(seed), Vec::new(), HashMap::new());
        Self { rng, now, shared, nodes, remotes, places, next_index: 0, ops: 0, asked: 0, served: 0 }
    }

    fn chance(&mut self, of: u32) -> bool {
        self.rng.below(of) == 0
    }

    fn pick(&mut self) -> Option<usize> {
        let open: Vec<usize> = (0..self.remotes.len()).filter(|&at| self.remotes[at].open).collect();
        (!open.is_empty()).then(|| open[self.rng.below(open.len() as u32) as usize])
    }

    fn fresh_conn(&mut self) -> ConnId {
        self.next_index += 1;
        ConnId { index: self.next_index, generation: 0 }
    }

    fn connect(&mut self, node: usize, share: u32, liar: bool) {
        let conn = self.fresh_conn();
        let [a, b, c] = NETS[self.rng.below(NETS.len() as u32) as usize];
        // No two have one address, or a ban of one would be one of both.
        let address = ([a, b, c, 1 + (conn.index % 250) as u8], 1000 + conn.index as u16).into();
        let fast = self.chance(2);
        let mut theirs = Handshake::new(HASH, PeerId([2; 20]));
        if fast {
            theirs = theirs.with_fast();
        }
        let mut bits = Bitfield::new(self.shared.meta.geometry.piece_count());
        for piece in (0..bits.len()).filter(|_| self.rng.below(100) < share) {
            bits.set(piece);
        }
        self.nodes[node].engine.handle_accepted(conn, address, self.now);
        self.nodes[node].engine.handle_handshake(conn, &theirs, self.now);
        self.remotes.push(Remote {
            node,
            conn,
            bits: bits.clone(),
            fast,
            choking: true,
            liar,
            greeted: false,
            open: true,
            pending: Vec::new(),
            planned: Vec::new(),
            current: None,
        });
        self.settle();
        let at = self.remotes.len() - 1;
        if bits.count() > 0 {
            self.say(at, Message::Bitfield(bits.as_bytes()));
        }
        if self.chance(2) {
            self.say(at, Message::Interested);
        }
        self.settle();
    }

    fn say(&mut self, at: usize, message: Message<'_>) {
        let remote = &self.remotes[at];
        if remote.open {
            let engine = &mut self.nodes[remote.node].engine;
            engine.handle_message(remote.conn, message, self.now).unwrap();
        }
    }

    fn set_choking(&mut self, at: usize, choking: bool) {
        self.remotes[at].choking = choking;
        self.say(at, if choking { Message::Choke } else { Message::Unchoke });
        if choking {
            for block in std::mem::take(&mut self.remotes[at].pending) {
                if self.remotes[at].fast {
                    self.say(at, Message::Reject(block));
                }
            }
        }
    }

    /// It asks for a block that is here, if it may.
    fn ask(&mut self, at: usize) {
        let remote = &self.remotes[at];
        let peer = self.nodes[remote.node].engine.peer(remote.conn);
        let piece = self.rng.below(self.shared.meta.geometry.piece_count());
        if peer.is_some_and(|peer| peer.flags.unchoked) && self.shared.has(piece) {
            let chunk = assembly::piece_chunks(&self.shared, piece)[0];
            let index = self.rng.below(self.shared.meta.geometry.chunk_blocks(chunk));
            self.say(at, Message::Request(self.shared.meta.geometry.block(chunk, index)));
            self.asked += 1;
        }
    }

    /// What the receiving half does before each receive.
    fn plan(&mut self, at: usize) {
        let remote = &mut self.remotes[at];
        let engine = &mut self.nodes[remote.node].engine;
        remote.planned.drain(..).for_each(|block| engine.unland(remote.conn, block.chunk, block.index));
        if let Some(block) = remote.current
            && !engine.still_lands(remote.conn, block.chunk, block.index)
        {
            engine.unland(remote.conn, block.chunk, block.index);
            remote.current = None;
        }
        let current = remote.current.map(|block| (block.chunk, block.index));
        engine.plan_receive(remote.conn, current, 8, &mut remote.planned);
    }

    /// The header of an answer comes.
    fn begin_block(&mut self, at: usize) {
        if self.remotes[at].current.is_some() || self.remotes[at].pending.is_empty() {
            return;
        }
        let first = self.chance(2);
        let any = self.rng.below(self.remotes[at].pending.len() as u32) as usize;
        let remote = &mut self.remotes[at];
        let block = remote.pending.remove(if first { 0 } else { any });
        let engine = &mut self.nodes[remote.node].engine;
        if remote.planned.first().is_some_and(|planned| planned.block == block) {
            remote.current = Some(remote.planned.remove(0));
        }
        remote.planned.drain(..).for_each(|block| engine.unland(remote.conn, block.chunk, block.index));
        if remote.current.is_none()
            && let Landing::Into(expected) = engine.handle_piece_header(remote.conn, block).unwrap()
        {
            remote.current = Some(expected);
        }
    }

    /// The last byte of the block that is half received comes.
    fn end_block(&mut self, at: usize) {
        let look_first = self.chance(2);
        let remote = &mut self.remotes[at];
        let Some(block) = remote.current.take() else { return };
        let engine = &mut self.nodes[remote.node].engine;
        if look_first && !engine.still_lands(remote.conn, block.chunk, block.index) {
            engine.unland(remote.conn, block.chunk, block.index);
            return;
        }
        self.places.insert((block.slot, block.index), !remote.liar);
        engine.handle_block(remote.conn, block.chunk, block.index, self.now);
    }

    fn run_job(&mut self, node: usize) {
        let Some(job) = self.nodes[node].jobs.pop_front() else { return };
        let engine = &mut self.nodes[node].engine;
        match job {
            Job::Hash { chunk, last } => {
                let right = blocks(&self.shared, self.shared.meta.geometry.chunk_piece(chunk))
                    .all(|place| self.places.get(&place).copied().unwrap_or(false));
                let digest = if right { RIGHT } else { [0; 20] };
                engine.handle_hashed(TORRENT, chunk, last.then_some(digest.into()));
            }
            Job::Autopsy { piece } => {
                let prints: Vec<u64> =
                    blocks(&self.shared, piece).map(|place| u64::from(self.places[&place])).collect();
                engine.handle_autopsy(TORRENT, piece, &prints);
            }
            Job::Write { chunk } => engine.handle_written(TORRENT, chunk, Ok(())),
            Job::Closed(conn) => {
                engine.handle_closed(conn);
                // Nothing lands any more.
                let gone = |remote: &&mut Remote| remote.node == node && remote.conn == conn;
                if let Some(remote) = self.remotes.iter_mut().find(gone) {
                    remote.pending.clear();
                    remote.planned.clear();
                    remote.current = None;
                }
            }
        }
    }

    fn take_mail(&mut self, node: usize) {
        if let Some(note) = self.nodes[node].mail.pop_front() {
            self.nodes[node].engine.handle_note(note, self.now);
        }
    }

    /// Carries out all intentions, then looks at all invariants.
    fn settle(&mut self) {
        self.ops += 1;
        for node in 0..self.nodes.len() {
            while let Some(action) = self.nodes[node].engine.poll_action(self.now) {
                self.perform(node, action);
            }
            self.nodes[node].engine.check_invariants();
            self.nodes[node].engine.check_settled();
        }
    }

    fn perform(&mut self, node: usize, action: Action) {
        let found = |conn: ConnId| move |remote: &Remote| remote.node == node && remote.conn == conn;
        match action {
            Action::Decrypt(_) => unreachable!("nobody speaks in ciphers here"),
            Action::Seek { .. } => unreachable!("no link is looked for"),
            Action::Send(conn) => self.send(node, conn),
            Action::Backlog(conn) => {
                let bytes = if self.rng.below(2) == 0 { 0 } else { u64::MAX };
                self.nodes[node].engine.handle_backlog(conn, bytes, self.now);
            }
            Action::Unsent { .. } | Action::Listen(_) | Action::Leaves { .. } => {}
            Action::Interrupt(conn) => {
                if let Some(at) = self.remotes.iter().position(found(conn)) {
                    self.plan(at);
                }
            }
            Action::Close(conn) => {
                if let Some(at) = self.remotes.iter().position(found(conn)) {
                    self.remotes[at].open = false;
                }
                self.nodes[node].jobs.push_back(Job::Closed(conn));
            }
            Action::HandOver { conn, to, handshake } => {
                let address = self.nodes[node].engine.peer(conn).unwrap().address;
                self.nodes[node].engine.forget(conn);
                let moved = self.fresh_conn();
                let other = &mut self.nodes[to.0 as usize].engine;
                assert_eq!(other.handle_handover(moved, address, &handshake, self.now), Admission::Here);
                let at = self.remotes.iter().position(found(conn)).unwrap();
                (self.remotes[at].node, self.remotes[at].conn) = (to.0 as usize, moved);
            }
            Action::Hash { chunk, last, .. } => self.nodes[node].jobs.push_back(Job::Hash { chunk, last }),
            // At once, as the worker does it.
            Action::Autopsy { piece, .. } => {
                self.nodes[node].jobs.push_front(Job::Autopsy { piece });
                self.run_job(node);
            }
            Action::Write { chunk, .. } => self.nodes[node].jobs.push_back(Job::Write { chunk }),
            Action::Load { torrent, chunk, .. } => {
                self.nodes[node].engine.handle_loaded(torrent, chunk, Ok(()));
            }
            Action::Tell(to, note) => {
                for other in 0..self.nodes.len() {
                    let told = match to {
                        To::Core(core) => core.0 as usize == other,
                        To::Others => other != node,
                        To::Mask(mask) => mask & (1 << other) != 0,
                    };
                    if told {
                        self.nodes[other].mail.push_back(note);
                    }
                }
            }
            Action::Report(_) => {}
        }
    }

    fn send(&mut self, node: usize, conn: ConnId) {
        let (mut outbox, mut segments) = (Vec::new(), Vec::new());
        if !self.nodes[node].engine.take_send(conn, &mut outbox, &mut segments, self.now) {
            return;
        }
        let at = self.remotes.iter().position(|remote| remote.node == node && remote.conn == conn).unwrap();
        let skip = if self.remotes[at].greeted { 0 } else { HANDSHAKE_BYTES };
        self.remotes[at].greeted = true;
        let bytes = segments.iter().map(Segment::len).sum();
        self.served += segments.iter().filter(|segment| segment.is_payload()).count();
        self.nodes[node].engine.handle_sent(conn, Ok(bytes), self.now);
        let bitfield_bytes = self.remotes[at].bits.as_bytes().len() as u32;
        let mut left = &outbox[skip..];
        while let Some((frame, used)) = next_frame(left, bitfield_bytes).unwrap() {
            left = &left[used..];
            match frame {
                Frame::Message(Message::Request(block)) => {
                    assert!(self.remotes[at].bits.get(block.piece), "it lacks that piece");
                    if !self.remotes[at].choking {
                        self.remotes[at].pending.push(block);
                    } else if self.remotes[at].fast {
                        self.say(at, Message::Reject(block));
                    }
                }
                Frame::Message(Message::Cancel(block)) if self.rng.below(2) == 0 => {
                    self.remotes[at].pending.retain(|&other| other != block);
                }
                _ => {}
            }
        }
    }

    fn pass(&mut self, span: Span) {
        self.now = self.now + span;
        for node in &mut self.nodes {
            node.engine.handle_tick(self.now);
        }
    }

    fn random_op(&mut self) {
        let node = self.rng.below(self.nodes.len() as u32) as usize;
        let op = self.rng.below(28);
        let Some(at) = self.pick().filter(|_| op != 0) else {
            if self.remotes.iter().filter(|remote| remote.open).count() < 6 {
                let (share, liar) = (self.rng.below(130), self.chance(6));
                self.connect(node, share, liar);
            }
            return;
        };
        match op {
            1 => {
                let choking = !self.remotes[at].choking;
                self.set_choking(at, choking);
            }
            2 => {
                let piece = self.rng.below(self.remotes[at].bits.len());
                self.remotes[at].bits.set(piece);
                self.say(at, Message::Have(piece));
            }
            3 => self.plan(at),
            4 if self.chance(4) => {
                let remote = &self.remotes[at];
                self.nodes[remote.node].engine.handle_gone(remote.conn);
            }
            5 if self.chance(10) => self.pass(Span::from_secs(25)),
            5 | 6 => {
                let ms = u64::from(self.rng.below(3_000));
                self.pass(Span::from_ms(ms));
            }
            7 if self.remotes[at].fast && !self.remotes[at].pending.is_empty() => {
                let block = self.remotes[at].pending.remove(0);
                self.say(at, Message::Reject(block));
            }
            8..=11 => self.run_job(node),
            12..=14 => self.take_mail(node),
            15..=19 => self.begin_block(at),
            24..=27 => self.ask(at),
            _ => self.end_block(at),
        }
    }

    /// Everybody answers everything, and a good seed is there.
    fn finish(&mut self) {
        self.connect(0, 100, false);
        let seed = self.remotes.len() - 1;
        for _ in 0..3_000 {
            if self.shared.is_complete() && self.nodes.iter().all(|node| !node.engine.is_writing()) {
                return;
            }
            for at in 0..self.remotes.len() {
                // A peer that goes on lying to the end can spoil every attempt at the last piece.
                self.remotes[at].liar = false;
                if self.remotes[at].open && self.remotes[at].choking {
                    self.set_choking(at, false);
                }
                self.settle();
                for _ in 0..8 {
                    self.plan(at);
                    self.begin_block(at);
                    self.end_block(at);
                    self.settle();
                }
            }
            for node in 0..self.nodes.len() {
                while !self.nodes[node].mail.is_empty() || !self.nodes[node].jobs.is_empty() {
                    self.take_mail(node);
                    self.run_job(node);
                    self.settle();
                }
            }
            assert!(self.remotes[seed].open, "an honest seed was dropped");
            self.pass(Span::from_ms(400));
            self.settle();
        }
        let claims: Vec<_> =
            self.nodes.iter().map(|node| &node.engine.torrent(TORRENT).unwrap().claims).collect();
        panic!("stalled at {} pieces; claims {claims:?}", self.shared.have_count());
    }
}

/// The places of a piece's blocks.
fn blocks(shared: &SharedTorrent, piece: u32) -> impl Iterator<Item = (SlotId, u32)> {
    piece_places(shared, piece).into_iter()
}

fn piece_places(shared: &SharedTorrent, piece: u32) -> Vec<(SlotId, u32)> {
    let places = |chunk: u32| {
        let slot = shared.chunks.view(chunk).slot;
        (0..shared.meta.geometry.chunk_blocks(chunk)).map(move |block| (slot, block))
    };
    assembly::piece_chunks(shared, piece).into_iter().flat_map(places).collect()
}

/// Blocks that were asked of us and sent.
fn scenario(seed: u64, cores: usize) -> [usize; 2] {
    let (total_bytes, piece_bytes) =
        [(700_001, 48 << 10), (1_300_000, 272 << 10), (200_000, 16 << 10)][seed as usize % 3];
    let mut world = World::new(seed, cores, total_bytes, piece_bytes);
    for _ in 0..600 {
        world.random_op();
        world.settle();
    }
    world.finish();
    for node in &world.nodes {
        assert!(node.engine.torrent(TORRENT).unwrap().claims.is_empty(), "claims are left, seed {seed}");
    }
    for chunk in 0..world.shared.meta.geometry.chunk_count() {
        assert_eq!(world.shared.chunks.view(chunk).pins, 0, "a pin is left, seed {seed}");
    }
    [world.asked, world.served]
}

/// Scenarios of these seeds; something was asked of us, and most of it sent.
fn scenarios(seeds: std::ops::Range<u64>, cores: usize) {
    let sum = |[asked, served]: [usize; 2], seed| {
        let [more_asked, more_served] = scenario(seed, cores);
        [asked + more_asked, served + more_served]
    };
    let [asked, served] = seeds.fold([0; 2], sum);
    assert!(asked > 200 && served > asked / 2, "{served} of {asked}");
}

#[test]
fn one_core_keeps_its_invariants_and_gets_done_whatever_peers_do() {
    scenarios(0..120, 1);
}

#[test]
fn two_cores_keep_their_invariants_and_get_done_whatever_peers_do() {
    scenarios(1_000..1_120, 2);
}

/// One engine, and one peer per set of pieces; nobody answers.
fn asked_of(sets: &[&[u32]], sequential: bool, seed: u64) -> Vec<Vec<u32>> {
    let mut world = World::new(1, 1, 64 * (16 << 10), 16 << 10);
    let mut config = world.nodes[0].engine.config.clone();
    (config.sequential, config.seed) = (sequential, seed);
    world.nodes[0].engine = Engine::new(config, Arc::clone(&world.nodes[0].engine.cache), world.now);
    world.nodes[0].engine.handle_torrent(Arc::clone(&world.shared));
    for set in sets {
        world.connect(0, 0, false);
        let at = world.remotes.len() - 1;
        // Only who has let us ask once counts.
        [false, true].into_iter().for_each(|chokes| world.set_choking(at, chokes));
        for &piece in *set {
            world.remotes[at].bits.set(piece);
            world.say(at, Message::Have(piece));
        }
    }
    (0..sets.len()).for_each(|at| {
        world.set_choking(at, false);
        world.settle();
    });
    world.remotes.iter().map(|remote| remote.pending.iter().map(|block| block.piece).collect()).collect()
}

#[test]
fn the_rarest_pieces_are_asked_for_first() {
    let all: Vec<u32> = (0..64).collect();
    let common: Vec<u32> = (8..64).collect();
    for seed in 0..20 {
        let asked = asked_of(&[&all, &common, &common], false, seed);
        let mut first: Vec<u32> = asked[0][..8].to_vec();
        first.sort_unstable();
        assert_eq!(first, (0..8).collect::<Vec<u32>>(), "all 64 fit in the sample");
    }
}

#[test]
fn in_sequential_order_pieces_come_in_order_and_only_those_that_the_peer_has() {
    let all: Vec<u32> = (0..64).collect();
    let asked = asked_of(&[&all], true, 1);
    assert_eq!(asked[0], all[..asked[0].len()]);
    let odd: Vec<u32> = (0..64).filter(|piece| piece % 2 == 1).collect();
    let asked = asked_of(&[&odd, &all], true, 1);
    assert_eq!(asked[0], odd[..asked[0].len()]);
    assert_eq!(asked[1][..3], [0, 2, 4], "what the first is asked for is not asked twice");
}

#[test]
fn a_piece_that_left_the_disk_is_wanted_again_of_the_peers_that_are_there() {
    let mut world = World::new(1, 1, 64 * (16 << 10), 16 << 10);
    world.connect(0, 0, false);
    world.remotes[0].bits.set(3);
    world.say(0, Message::Have(3));
    world.set_choking(0, false);
    world.settle();
    let conn = world.remotes[0].conn;
    let interested = |world: &World| world.nodes[0].engine.peer(conn).unwrap().flags.interested;
    world.begin_block(0);
    world.end_block(0);
    for _ in 0..3 {
        world.settle();
        world.run_job(0);
    }
    world.pass(Span::from_secs(2));
    world.settle();
    assert!(world.shared.has(3) && !interested(&world));
    world.shared.clear_have(3);
    world.nodes[0].engine.handle_note(Note::Missing { torrent: TORRENT, piece: 3 }, world.now);
    world.settle();
    assert!(interested(&world));
}
