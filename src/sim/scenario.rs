//! A swarm of a seed's choice, from the first dial until every honest node has everything: nodes and
//! scripted peers, some of them hostile, faults of network and disks, kills, power cuts, clean stops
//! and restarts. What must hold is checked on the way and at the end.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use super::audit;
use super::node::{Canary, Node, NodeSpec};
use super::peers::{Behaviour, Peer, Report};
use super::profile::{PPM, Profile, chance, draw, index};
use super::run::{Actor, Outcome, Run};
use super::timeline::{ActorId, HostId};
use super::torrent::SimTorrent;
use super::world::World;
use crate::base::bitfield::Bitfield;
use crate::base::limits::CACHED_PIECES_MIN;
use crate::base::rng::Rng;
use crate::base::time::{Instant, Span};

/// What a seed came to, when nothing was wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Equal for equal runs.
    pub trace_hash: u64,
    /// Steps of the trace.
    pub steps: u64,
    /// Virtual time until everybody had everything.
    pub took: Span,
    /// Power cuts, kills and clean stops.
    pub ends: u32,
    /// Nodes that disk trouble stopped.
    pub failures: u32,
    /// Times that a cache was told to shrink or grow.
    pub resizes: u32,
    /// Blocks that leeches received from nodes, every one of them right.
    pub leeched_blocks: u64,
}

/// Faults end after at most so long; from then on everybody must get everything.
const TROUBLE: (u64, u64) = (5_000_000_000, 60_000_000_000);

/// By when everybody must have everything, counted from the end of the faults. A node leaves a peer
/// that it found useless alone for five minutes.
const PATIENCE: Span = Span::from_secs(1_800);

/// A clean stop takes no longer.
const STOP_PATIENCE: Span = Span::from_secs(60);

/// What happens to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    PowerCut,
    Kill,
    Stop,
}

/// A place where a node runs, is restarted and runs again.
struct Place {
    spec: NodeSpec,
    node: Option<Node>,
    fates: Vec<(Instant, Fate)>,
    restart_at: Option<Instant>,
    /// A clean stop was asked for then.
    stopping_since: Option<Instant>,
    /// What was known to be durable when the last node ended.
    durable: Bitfield,
    accused_seen: usize,
}

/// The run of one seed.
struct Scenario<'a> {
    run: Run,
    world: World,
    torrent: Rc<SimTorrent>,
    places: Vec<Place>,
    leeches: Vec<Rc<RefCell<Report>>>,
    /// Who must never be accused, by address; those that are missing may be.
    honest: BTreeMap<IpAddr, ()>,
    clock: ActorId,
    rng: Rng,
    /// Decides how large caches are from time to time.
    cache_rng: Rng,
    verdict: Verdict,
    tell: &'a mut dyn FnMut(String),
}

/// Does nothing; its deadlines let time pass though nobody else has any.
struct Clock;

impl Actor for Clock {
    fn turn(&mut self, _: &World) {}
}

/// Runs a seed to its end. An error says what did not hold. `tell` hears what happens.
pub fn run_seed(seed: u64, canary: Canary, tell: &mut dyn FnMut(String)) -> Result<Verdict, String> {
    let mut scenario = Scenario::new(seed, canary, tell);
    scenario.play()?;
    scenario.finish()
}

impl<'a> Scenario<'a> {
    fn new(seed: u64, canary: Canary, tell: &'a mut dyn FnMut(String)) -> Self {
        let mut profile = Profile::from_seed(seed);
        if canary == Canary::KeptMark {
            // Shown only by a sync that fails in a stop: of a seed's own faults one in 60 would do.
            profile.sync_error_ppm = PPM / 4;
        }
        let world = World::new(seed, profile);
        let torrent = Rc::new(SimTorrent::from_seed(seed));
        let clock = world.add_actor(world.add_host());
        let mut scenario = Self {
            run: Run::new(world.clone()),
            world,
            torrent,
            places: Vec::new(),
            leeches: Vec::new(),
            honest: BTreeMap::new(),
            clock,
            rng: Rng::new(seed ^ 0x7363_656e_6172_696f),
            cache_rng: Rng::new(seed ^ 0x63_6163_6865),
            verdict: Verdict::default(),
            tell,
        };
        scenario.run.add(clock, Clock);
        scenario.draw_places(canary);
        scenario.draw_peers();
        scenario
    }

    fn say(&mut self, what: impl FnOnce() -> String) {
        let now = self.world.now().0;
        (self.tell)(format!("{:>10.6} s  {}", now as f64 / 1e9, what()));
    }

    // ---- The draw ----

    fn draw_places(&mut self, canary: Canary) {
        let count = 1 + index(&mut self.rng, 3);
        let sizes = self.torrent.geometry();
        self.say(|| format!("{sizes:?}, {count} nodes"));
        for number in 0..count {
            let host = self.world.add_host();
            self.honest.insert(self.world.address(host, 1).ip(), ());
            let mut spec = self.draw_spec(host);
            spec.canary = canary;
            if number > 0 && chance(&mut self.rng, PPM / 4) {
                self.world.disk(host, |disk, _, _| self.torrent.put_on(disk));
            } else if chance(&mut self.rng, PPM / 8) {
                let quota = draw(&mut self.rng, (0, sizes.total_bytes * 2));
                self.world.disk(host, |disk, _, _| disk.set_quota(quota));
            }
            let fates = self.draw_fates();
            self.say(|| format!("node {number}: {spec:?}, {fates:?}"));
            let durable = Bitfield::new(sizes.piece_count());
            let restart_at = Some(self.world.now());
            let place =
                Place { spec, node: None, fates, restart_at, stopping_since: None, durable, accused_seen: 0 };
            self.places.push(place);
        }
        for number in 0..count {
            for other in (0..count).filter(|&other| other != number) {
                if chance(&mut self.rng, PPM / 3 * 2) {
                    let address = self.address(other);
                    self.places[number].spec.peers.push(address);
                }
            }
        }
    }

    fn draw_spec(&mut self, host: HostId) -> NodeSpec {
        let rng = &mut self.rng;
        let cores = 1 + index(rng, 3);
        let sizes = self.torrent.geometry();
        // Begun pieces hold their slots until they are whole: with fewer slots than begun pieces of
        // several chunks need, a node may stand still. Pieces of one chunk need but one.
        let least = if sizes.chunks_per_piece() == 1 { 1 } else { sizes.chunk_count() };
        let slots = if chance(rng, PPM / 3) { 248 } else { least + 1 + rng.below(6) };
        let connections_max = if chance(rng, PPM / 4) { 3 + rng.below(6) } else { 64 };
        let mut limit = || chance(rng, PPM / 8).then(|| draw(rng, (64 << 10, 4 << 20)));
        let limits = (limit(), limit());
        let (sequential, seed) = (chance(rng, PPM / 4), rng.next_u64() >> 1);
        let (peers, canary) = (Vec::new(), Canary::None);
        // Two nodes of three choke as soon as two peers, or three, want what the uplink cannot give.
        let unchoked_min = (!seed.is_multiple_of(3)).then_some(1 + seed as usize % 2);
        let rng = &mut self.cache_rng;
        let region_slots = if chance(rng, PPM / 2) { 1 + rng.below(8) } else { slots };
        NodeSpec {
            host,
            cores,
            port: 1,
            slots,
            region_slots,
            connections_max,
            peers,
            sequential,
            limits,
            seed,
            unchoked_min,
            canary,
        }
    }

    /// Up to three ends, most of them early: small torrents are soon fetched.
    fn draw_fates(&mut self) -> Vec<(Instant, Fate)> {
        let now = self.world.now();
        let rng = &mut self.rng;
        let mut fates: Vec<_> = (0..rng.below(4))
            .map(|_| {
                let longest = 10_000_000u64 << rng.below(11);
                let fate = match rng.below(3) {
                    0 => Fate::PowerCut,
                    1 => Fate::Kill,
                    _ => Fate::Stop,
                };
                (now + Span(draw(rng, (0, longest))), fate)
            })
            .collect();
        fates.sort_by_key(|(at, _)| *at);
        fates
    }

    fn address(&self, place: usize) -> SocketAddr {
        let spec = &self.places[place].spec;
        self.world.address(spec.host, spec.port)
    }

    /// One peer that is enough and stays, others of any kind, and leeches.
    fn draw_peers(&mut self) {
        let sources = [Behaviour::Seed, Behaviour::Shuffler, Behaviour::ChokeFlapper];
        let source = sources[index(&mut self.rng, sources.len())];
        let all: Vec<_> = (0..self.places.len()).collect();
        self.add_peer(source, &all, &[]);
        for _ in 0..self.rng.below(4) {
            let behaviour = Behaviour::draw(&self.world);
            let (mut known_to, mut dials) = (Vec::new(), Vec::new());
            for &place in &all {
                let set = if chance(&mut self.rng, PPM / 2) { &mut known_to } else { &mut dials };
                set.push(place);
            }
            self.add_peer(behaviour, &known_to, &dials);
        }
        for _ in 0..self.rng.below(3) {
            let place = index(&mut self.rng, all.len());
            let report = self.add_peer(Behaviour::Leech, &[], &[place]);
            self.leeches.push(report);
        }
    }

    fn add_peer(&mut self, behaviour: Behaviour, known_to: &[usize], dials: &[usize]) -> Rc<RefCell<Report>> {
        self.say(|| format!("{behaviour:?}, dialled by {known_to:?}, dials {dials:?}"));
        let host = self.world.add_host();
        let address = self.world.address(host, 1);
        for &place in known_to {
            self.places[place].spec.peers.push(address);
        }
        if !is_guilty(behaviour) {
            self.honest.insert(address.ip(), ());
        }
        let dials = dials.iter().map(|&place| self.address(place)).collect();
        let content = Rc::clone(&self.torrent.content);
        let peer = Peer::new(&self.world, host, content, behaviour, Some(1), dials);
        let report = peer.report();
        self.run.add(peer.id(), peer);
        report
    }

    // ---- The course ----

    fn play(&mut self) -> Result<(), String> {
        let began = self.world.now();
        let calm_at = began + Span(draw(&mut self.rng, TROUBLE));
        let limit = calm_at + PATIENCE;
        let mut is_calm = false;
        loop {
            let now = self.world.now();
            if !is_calm && now >= calm_at {
                is_calm = true;
                self.calm_down();
            }
            self.look_after(is_calm)?;
            self.audit()?;
            if self.is_over() {
                self.verdict.took = now.since(began);
                return Ok(());
            }
            if now >= limit {
                return Err(format!("not done in time: {}", self.state_of_affairs()));
            }
            let step = if is_calm { Span::from_secs(10) } else { Span::from_ms(500) };
            let mut next = now + step;
            for place in &self.places {
                // What is due already waits for the node to run.
                let fate = place.fates.first().map(|(at, _)| *at).filter(|&at| at > now);
                next = place.restart_at.into_iter().chain(fate).fold(next, Instant::min);
            }
            next = if is_calm { next.min(limit) } else { next.min(calm_at) };
            self.pass(next.max(now + Span(1)))?;
        }
    }

    /// Lets time pass until `next`, or until somebody has to be looked after.
    fn pass(&mut self, next: Instant) -> Result<(), String> {
        self.world.set_deadline(self.clock, next);
        let Self { run, places, leeches, .. } = self;
        let pieces = places[0].durable.len();
        let outcome = run.until(next, |_| {
            let calls = places.iter().any(Place::calls);
            let done = places.iter().all(Place::is_done) && fed(leeches, pieces);
            calls || done
        });
        if outcome == Outcome::Livelock {
            return Err(format!("a livelock: {}", self.state_of_affairs()));
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.places.iter().all(Place::is_done) && fed(&self.leeches, self.torrent.geometry().piece_count())
    }

    /// No more faults from now on; disks have room.
    fn calm_down(&mut self) {
        self.say(|| "the faults are over".to_owned());
        self.world.with_profile(|knobs| {
            let calm = Profile::calm();
            let Profile { short_ppm, tiny_ppm, defer_ppm, batch_max, short_file_ppm, .. } = *knobs;
            let (latency_ns, hostile_ppm) = (knobs.latency_ns, knobs.hostile_ppm);
            *knobs = Profile { latency_ns, hostile_ppm, short_ppm, tiny_ppm, defer_ppm, ..calm };
            (knobs.batch_max, knobs.short_file_ppm) = (batch_max, short_file_ppm);
        });
        for place in &self.places {
            self.world.disk(place.spec.host, |disk, _, _| disk.set_quota(u64::MAX));
        }
    }

    /// Restarts, fates and stops that are due.
    fn look_after(&mut self, is_calm: bool) -> Result<(), String> {
        for number in 0..self.places.len() {
            let now = self.world.now();
            self.check_accused(number)?;
            let place = &mut self.places[number];
            if place.restart_at.is_some_and(|at| at <= now) {
                self.restart(number)?;
            } else if let Some(since) = place.stopping_since {
                let closed = place.node.as_ref().and_then(|node| node.log.borrow().closed);
                match closed {
                    Some(clean) => self.stopped(number, clean)?,
                    None if now >= since + STOP_PATIENCE => {
                        return Err(format!("node {number} does not stop: {}", self.state_of_affairs()));
                    }
                    None => {}
                }
            } else if place.node.is_some() {
                let failed = place.node.as_ref().is_some_and(|node| node.log.borrow().failed);
                let due = place.fates.first().is_some_and(|(at, _)| *at <= now && !is_calm);
                if failed {
                    self.verdict.failures += 1;
                    self.end(number, Fate::Stop);
                } else if due {
                    let (_, fate) = place.fates.remove(0);
                    self.end(number, fate);
                }
            }
            if is_calm {
                self.places[number].fates.clear();
            } else {
                self.resize_cache(number);
            }
        }
        Ok(())
    }

    /// Memory gets short, or is there again; in the end it is as it is. Room for a few pieces stays, as
    /// in production.
    fn resize_cache(&mut self, number: usize) {
        let Place { spec, node: Some(node), .. } = &self.places[number] else { return };
        let all = spec.slots.min(248).div_ceil(spec.region_slots);
        let piece = self.torrent.geometry().chunks_per_piece();
        let least = (CACHED_PIECES_MIN as u32 * piece).div_ceil(spec.region_slots).min(all);
        if all > 1 && chance(&mut self.cache_rng, PPM / 4) {
            let regions = least + self.cache_rng.below(all - least + 1);
            node.resize_cache(&self.world, regions);
            self.verdict.resizes += 1;
        }
    }

    fn end(&mut self, number: usize, fate: Fate) {
        self.say(|| format!("node {number}: {fate:?}"));
        let place = &mut self.places[number];
        let host = place.spec.host;
        match fate {
            Fate::PowerCut => self.world.crash(host),
            Fate::Kill => self.world.kill(host),
            Fate::Stop => {
                place.stopping_since = Some(self.world.now());
                if let Some(node) = &place.node {
                    node.stop(&self.world);
                }
                return;
            }
        }
        self.buried(number);
    }

    /// The node is gone; it is started again later.
    fn buried(&mut self, number: usize) {
        self.verdict.ends += 1;
        let pause = Span(draw(&mut self.rng, (1_000_000, 3_000_000_000)));
        let place = &mut self.places[number];
        if let Some(node) = place.node.take() {
            place.durable = node.log.borrow().durable.clone();
            node.remove(&mut self.run);
        }
        place.accused_seen = 0;
        place.restart_at = Some(self.world.now() + pause);
    }

    /// A clean stop is over.
    fn stopped(&mut self, number: usize, clean: bool) -> Result<(), String> {
        self.say(|| format!("node {number}: stopped, clean: {clean}"));
        let place = &mut self.places[number];
        place.stopping_since = None;
        let Some(node) = &place.node else { return Ok(()) };
        if !clean && !node.log.borrow().failed {
            return Err(format!("node {number} stopped without trouble, but not cleanly"));
        }
        if let Some(leak) = node.leak_after_stop() {
            return Err(format!("node {number} after its stop: {leak}"));
        }
        self.world
            .disk(place.spec.host, |disk, _, _| audit::clean_mark(&self.torrent, disk))
            .map_err(|wrong| format!("node {number} after its stop: {wrong}"))?;
        // The process ends: whoever connected too late is closed by its kernel.
        self.world.kill(place.spec.host);
        self.buried(number);
        Ok(())
    }

    fn restart(&mut self, number: usize) -> Result<(), String> {
        let place = &mut self.places[number];
        let host = place.spec.host;
        let later = Some(self.world.now() + Span::from_ms(100));
        if self.world.file_ops(host) > 0 {
            place.restart_at = later;
            return Ok(());
        }
        self.world.power_on(host);
        match Node::start(&mut self.run, &self.torrent, place.spec.clone()) {
            Ok(node) => {
                // Where a failed sync took the file's length along all is hashed again, and found.
                let lost = place.durable.ones().find(|&piece| !node.shared.has(piece));
                let count = node.believed.count();
                place.node = Some(node);
                place.restart_at = None;
                self.say(|| format!("node {number}: started with {count} durable pieces"));
                if let Some(piece) = lost {
                    return Err(format!(
                        "node {number}: piece {piece} was durable and is not after a restart"
                    ));
                }
            }
            // No room: somebody makes some and starts it again.
            Err(_) => place.restart_at = Some(self.world.now() + Span::from_secs(2)),
        }
        Ok(())
    }

    // ---- What must hold ----

    fn check_accused(&mut self, number: usize) -> Result<(), String> {
        let place = &mut self.places[number];
        let Some(node) = &place.node else { return Ok(()) };
        let log = node.log.borrow();
        for address in &log.accused[place.accused_seen..] {
            if self.honest.contains_key(&address.ip()) {
                return Err(format!("node {number} accused {address}, which is honest"));
            }
        }
        place.accused_seen = log.accused.len();
        if let Some(piece) = log.fetched_twice.first() {
            return Err(format!("node {number} fetched piece {piece} again, which was durable"));
        }
        Ok(())
    }

    fn audit(&mut self) -> Result<(), String> {
        for (number, place) in self.places.iter().enumerate() {
            if let Some(over) = place.node.as_ref().and_then(Node::over_a_limit) {
                return Err(format!("node {number}: {over}"));
            }
            self.world
                .disk(place.spec.host, |disk, _, _| audit::disk(&self.torrent, disk))
                .map_err(|wrong| format!("node {number}: {wrong}"))?;
        }
        for leech in &self.leeches {
            let report = leech.borrow();
            if report.wrong_blocks > 0 || report.bad_frames > 0 {
                return Err(format!("a leech was sent what is wrong: {report:?}"));
            }
        }
        Ok(())
    }

    /// Everybody has everything: all stop, nothing may be left over.
    fn finish(mut self) -> Result<Verdict, String> {
        self.say(|| "everybody has everything".to_owned());
        for number in 0..self.places.len() {
            self.end(number, Fate::Stop);
        }
        let limit = self.world.now() + STOP_PATIENCE;
        let places = &self.places;
        let closed =
            |place: &Place| place.node.as_ref().is_none_or(|node| node.log.borrow().closed.is_some());
        self.world.set_deadline(self.clock, limit);
        self.run.until(limit, |_| places.iter().all(closed));
        for number in 0..self.places.len() {
            let closed = self.places[number].node.as_ref().and_then(|node| node.log.borrow().closed);
            let Some(clean) = closed else {
                return Err(format!("node {number} does not stop: {}", self.state_of_affairs()));
            };
            let leak = self.places[number].node.as_ref().and_then(Node::slot_leak);
            if let Some(leak) = leak {
                return Err(format!("node {number} at the end: {leak}"));
            }
            self.stopped(number, clean)?;
        }
        self.audit()?;
        self.verdict.leeched_blocks = self.leeches.iter().map(|leech| leech.borrow().blocks_got).sum();
        (self.verdict.trace_hash, self.verdict.steps) = (self.world.trace_hash(), self.world.steps());
        Ok(self.verdict)
    }

    fn state_of_affairs(&self) -> String {
        let mut text = format!("at {} s", self.world.now().0 / 1_000_000_000);
        for (number, place) in self.places.iter().enumerate() {
            match &place.node {
                None => text += &format!("\n  node {number} is down, to restart at {:?}", place.restart_at),
                Some(node) => text += &format!("\n  node {number}: {}", node.describe()),
            }
        }
        for leech in &self.leeches {
            text += &format!("\n  leech: {:?}", leech.borrow());
        }
        text
    }
}

impl Place {
    fn is_done(&self) -> bool {
        self.fates.is_empty()
            && self.stopping_since.is_none()
            && self.node.as_ref().is_some_and(Node::is_done)
    }

    /// Something happened that cannot wait for the next look.
    fn calls(&self) -> bool {
        self.node.as_ref().is_some_and(|node| {
            let log = node.log.borrow();
            let failed = log.failed && self.stopping_since.is_none();
            let closed = log.closed.is_some() && self.stopping_since.is_some();
            failed || closed
        })
    }
}

/// Whether every leech has every piece.
fn fed(leeches: &[Rc<RefCell<Report>>], pieces: u32) -> bool {
    leeches.iter().all(|leech| leech.borrow().pieces == pieces)
}

/// Whether a node may say that such a peer misbehaves.
const fn is_guilty(behaviour: Behaviour) -> bool {
    matches!(
        behaviour,
        Behaviour::Liar { .. } | Behaviour::Garbage | Behaviour::Flooder | Behaviour::Unsolicited
    )
}
