//! A swarm, event by event.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::content::Content;
use super::model::ModelNode;
use super::net::{EndId, Event, Net, Parcel};
use super::plan::{Group, Home, Kind, Plan, Role, Stay};
use super::policy::{Policy, Rogue};
use super::tally::Tally;
use super::troc_node::{TrocNode, TrocSpec};
use crate::base::ids::PeerId;
use crate::base::rng::Rng;
use crate::base::time::{Instant, Span};

/// Between two looks for more peers.
const ANNOUNCE: Span = Span::from_secs(30);

/// Who has lost most of its peers looks for others so soon.
const ANNOUNCE_SOON: Span = Span::from_ms(500);

/// When no piece became whole for so long and nobody who has everything is there, the swarm is dead.
const DEAD_AFTER: Span = Span::from_secs(200);

/// Where everybody listens.
const PORT: u16 = 6881;

#[derive(Debug)]
enum Brain {
    Troc(Box<TrocNode>),
    Model(Box<ModelNode>),
    /// It has not come yet, or it has gone.
    Away,
}

#[derive(Debug)]
struct Host {
    brain: Brain,
    address: Ipv4Addr,
    /// To whom it is connected, whoever dialled.
    peers: Vec<usize>,
    /// Those of them that it dialled: who comes keeps nobody from looking for others.
    dialled: Vec<usize>,
    wakes_at: Option<Instant>,
    /// It is to be run after the event.
    dirty: bool,
    pieces: u32,
    /// It looks for more peers soon.
    seeks: bool,
    /// Addresses it has had.
    lives: u32,
}

impl Host {
    /// It is connected to another no more.
    fn forget(&mut self, other: usize) {
        self.peers.retain(|&peer| peer != other);
        self.dialled.retain(|&peer| peer != other);
    }
}

/// See the module.
#[derive(Debug)]
pub struct Swarm {
    plan: Plan,
    content: Arc<Content>,
    net: Net,
    hosts: Vec<Host>,
    rng: Rng,
    /// The figures so far.
    pub tally: Tally,
    dirty: Vec<usize>,
    piece_at: Instant,
    fetching: usize,
    /// Once all of this group are done, trade is not counted any more.
    pub freezes_with: Option<usize>,
}

/// Runs a swarm to its end.
pub fn run(plan: &Plan) -> Tally {
    let mut swarm = Swarm::new(plan);
    while swarm.step() {}
    swarm.finish()
}

impl Swarm {
    /// The swarm of a plan; nobody has come yet.
    pub fn new(plan: &Plan) -> Self {
        let mut net = Net::new(plan.delay, plan.queue, plan.unsent_bytes);
        let mut rng = Rng::new(plan.seed);
        let mut hosts = Vec::new();
        for (at, group) in plan.groups.iter().enumerate() {
            for number in 0..group.count {
                let id = net.add_host(group.rates);
                let address = address(group.home, at, id, 0);
                let joins = Span((u64::from(rng.below(u32::MAX)) * (group.within.0 >> 16)) >> 16);
                let joins = if group.role == Role::Seed { Span(number as u64) } else { joins };
                net.schedule(net.now() + joins, Event::Join(id));
                let (peers, dialled) = (Vec::new(), Vec::new());
                let (brain, wakes_at) = (Brain::Away, None);
                hosts.push(Host {
                    brain,
                    address,
                    peers,
                    dialled,
                    wakes_at,
                    dirty: false,
                    pieces: 0,
                    seeks: false,
                    lives: 0,
                });
            }
        }
        let (tally, now) = (Tally::new(plan, net.now()), net.now());
        let fetching = tally.hosts.iter().filter(|host| host.role != Role::Seed).count();
        let content = Arc::new(plan.content);
        let (plan, dirty, freezes_with) = (plan.clone(), Vec::new(), None);
        Self { plan, content, net, hosts, rng, tally, dirty, piece_at: now, fetching, freezes_with }
    }

    fn group(&self, host: usize) -> &Group {
        &self.plan.groups[self.tally.hosts[host].group]
    }

    /// The next event; false at the end.
    pub fn step(&mut self) -> bool {
        let Some(event) = self.net.next_event() else { return false };
        let now = self.net.now();
        let begun = self.tally.span.0;
        let seeded = |host: &Host| host.pieces == self.content.geometry.piece_count();
        let dead = now.since(self.piece_at) > DEAD_AFTER && !self.hosts.iter().any(seeded);
        if self.fetching == 0 || now.since(begun) >= self.plan.end || dead {
            return false;
        }
        self.handle(event);
        self.settle();
        true
    }

    /// The time since the beginning.
    pub fn time(&self) -> Span {
        self.net.now().since(self.tally.span.0)
    }

    /// How many still fetch.
    pub const fn fetching(&self) -> usize {
        self.fetching
    }

    /// A node of ours that is there.
    pub fn troc(&self, host: usize) -> Option<&TrocNode> {
        match &self.hosts[host].brain {
            Brain::Troc(node) => Some(node),
            _ => None,
        }
    }

    /// The figures at the end.
    pub fn finish(mut self) -> Tally {
        self.tally.span.1 = self.net.now();
        for host in 0..self.hosts.len() {
            self.note_leaving(host);
        }
        self.tally
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Wake(host) => {
                if self.hosts[host].wakes_at == Some(self.net.now()) {
                    self.hosts[host].wakes_at = None;
                    self.soil(host);
                }
            }
            Event::Uplink(host) => {
                self.tally.note_step(self.net.now().0 ^ host as u64);
                self.net.handle_uplink(host);
            }
            Event::Deliver(end, parcel) => self.deliver(end, parcel),
            Event::Gone(end) => self.gone(end),
            Event::Accept(end) => self.accept(end),
            Event::Dialed(end) => {
                if self.net.is_open(end) {
                    let host = self.net.host(end);
                    match &mut self.hosts[host].brain {
                        Brain::Troc(node) => node.dialed(&mut self.net, end),
                        Brain::Model(node) => node.dialed(&mut self.net, end),
                        Brain::Away => return,
                    }
                    self.soil(host);
                }
            }
            Event::Join(host) => self.join(host),
            Event::Leave(host) => self.leave(host),
            Event::Announce(host) => self.announce(host),
        }
    }

    fn soil(&mut self, host: usize) {
        if !std::mem::replace(&mut self.hosts[host].dirty, true) {
            self.dirty.push(host);
        }
    }

    /// Lets everybody who was touched do what they want, until nobody wants anything.
    fn settle(&mut self) {
        loop {
            while let Some(end) = self.net.next_sent() {
                let host = self.net.host(end);
                if let Brain::Troc(node) = &mut self.hosts[host].brain {
                    node.sent(&mut self.net, end);
                    self.soil(host);
                }
            }
            while let Some(host) = self.net.next_roomy() {
                if let Brain::Model(node) = &mut self.hosts[host].brain {
                    node.fill(&mut self.net);
                }
            }
            let Some(host) = self.dirty.pop() else { return };
            self.hosts[host].dirty = false;
            self.run_host(host);
        }
    }

    fn run_host(&mut self, host: usize) {
        let tick = self.plan.tick;
        let pieces_before = self.hosts[host].pieces;
        let (wakes_at, pieces) = match &mut self.hosts[host].brain {
            Brain::Troc(node) => {
                node.run(&mut self.net);
                let soonest = self.net.now() + tick;
                (node.wakes_at().map(|at| at.max(soonest)), node.have_count())
            }
            Brain::Model(node) => {
                node.run(&mut self.net);
                (Some(node.wakes_at()), node.store.have_count())
            }
            Brain::Away => return,
        };
        let now = self.net.now();
        if let Some(at) = wakes_at
            && self.hosts[host].wakes_at.is_none_or(|old| at < old || old < now)
        {
            self.hosts[host].wakes_at = Some(at);
            self.net.schedule(at, Event::Wake(host));
        }
        if pieces != pieces_before {
            self.hosts[host].pieces = pieces;
            self.note_pieces(host);
        }
        self.pass_rumours(host);
        self.be_reborn(host);
    }

    fn note_pieces(&mut self, host: usize) {
        let now = self.net.now();
        self.piece_at = now;
        let complete = self.hosts[host].pieces == self.content.geometry.piece_count();
        let tally = &mut self.tally.hosts[host];
        tally.first_piece_at.get_or_insert(now);
        if !complete || tally.done_at.is_some() || tally.role == Role::Seed {
            return;
        }
        tally.done_at = Some(now);
        self.fetching -= 1;
        if let Some(group) = self.freezes_with {
            let all_done = self.tally.of_group(group).all(|host| host.done_at.is_some());
            self.tally.frozen |= all_done;
        }
        match self.group(host).stay {
            Stay::UntilDone => self.net.schedule(now, Event::Leave(host)),
            Stay::After(span) => self.net.schedule(now + span, Event::Leave(host)),
            Stay::Always | Stay::For(_) | Stay::UntilSent(_) => {}
        }
    }

    fn deliver(&mut self, end: EndId, parcel: Parcel) {
        let (from, to) = (self.net.host(end.other()), self.net.host(end));
        let open = self.net.acknowledge(end, &parcel);
        self.tally.note_step(self.net.now().0 ^ u64::from(end.0) << 32);
        if !open {
            return;
        }
        if let Parcel::Block { block, .. } = parcel {
            self.tally.note_block(from, to, block.length.into());
            if let Stay::UntilSent(bytes) = self.group(from).stay
                && self.tally.hosts[from].gave_bytes >= bytes
            {
                self.net.schedule(self.net.now(), Event::Leave(from));
            }
        }
        match &mut self.hosts[to].brain {
            Brain::Troc(node) => node.receive(&mut self.net, end, parcel),
            Brain::Model(node) => node.receive(&mut self.net, end, parcel),
            Brain::Away => return,
        }
        self.soil(to);
    }

    fn accept(&mut self, end: EndId) {
        let host = self.net.host(end);
        match &mut self.hosts[host].brain {
            Brain::Troc(node) => node.accepted(&mut self.net, end),
            Brain::Model(node) => node.accepted(&mut self.net, end),
            Brain::Away => {
                self.net.close(end);
                return;
            }
        }
        let dialer = self.net.host(end.other());
        self.hosts[host].peers.push(dialer);
        self.soil(host);
    }

    fn gone(&mut self, end: EndId) {
        let (host, other) = (self.net.host(end), self.net.host(end.other()));
        self.hosts[host].forget(other);
        self.hosts[other].forget(host);
        let few = self.hosts[host].dialled.len() < self.group(host).view / 2;
        if few && !std::mem::replace(&mut self.hosts[host].seeks, true) {
            self.net.schedule(self.net.now() + ANNOUNCE_SOON, Event::Announce(host));
        }
        if !self.net.is_open(end) {
            return;
        }
        match &mut self.hosts[host].brain {
            Brain::Troc(node) => node.gone(&mut self.net, end),
            Brain::Model(node) => node.gone(&mut self.net, end),
            Brain::Away => return,
        }
        self.soil(host);
    }

    fn join(&mut self, host: usize) {
        let now = self.net.now();
        let Group { role, kind, stay, .. } = *self.group(host);
        let complete = role == Role::Seed;
        let seed = self.rng.next_u64();
        self.hosts[host].brain = match kind {
            Kind::Troc { cores } => {
                let mut peer_id = *b"-tC0100-............";
                peer_id[12..].copy_from_slice(&self.rng.next_u64().to_le_bytes());
                let spec = TrocSpec { cores, complete, peer_id: PeerId(peer_id), seed };
                Brain::Troc(Box::new(TrocNode::new(&self.content, &spec, now)))
            }
            Kind::Model(policy) => {
                let mut node = ModelNode::new(&self.content, policy, complete, seed, now);
                node.up_rate = self.net.rates(host).up;
                Brain::Model(Box::new(node))
            }
        };
        self.tally.hosts[host].joined_at = Some(now);
        if complete {
            self.hosts[host].pieces = self.content.geometry.piece_count();
        }
        if let Stay::For(span) = stay {
            self.net.schedule(now + span, Event::Leave(host));
        }
        self.announce(host);
        self.soil(host);
    }

    /// Connects to some that are there, unless it has enough.
    fn announce(&mut self, host: usize) {
        let soon = std::mem::take(&mut self.hosts[host].seeks);
        if matches!(self.hosts[host].brain, Brain::Away) {
            return;
        }
        let Group { view, connections, .. } = *self.group(host);
        let there = |&other: &usize| other != host && !matches!(self.hosts[other].brain, Brain::Away);
        let mut others: Vec<usize> = (0..self.hosts.len()).filter(there).collect();
        others.retain(|other| !self.hosts[host].peers.contains(other));
        let mut lacks = view.saturating_sub(self.hosts[host].dialled.len());
        while lacks > 0 && !others.is_empty() {
            let other = others.swap_remove(self.rng.below(others.len() as u32) as usize);
            for _ in 0..connections {
                self.dial(host, other);
            }
            lacks -= 1;
        }
        if !soon {
            self.net.schedule(self.net.now() + ANNOUNCE, Event::Announce(host));
        }
    }

    fn dial(&mut self, host: usize, other: usize) {
        let port = 10_000 + self.rng.below(50_000) as u16;
        let from = SocketAddr::from((self.hosts[host].address, port));
        let at = SocketAddr::from((self.hosts[other].address, PORT));
        let end = self.net.dial(host, from, other, at);
        self.hosts[host].peers.push(other);
        self.hosts[host].dialled.push(other);
        match &mut self.hosts[host].brain {
            Brain::Troc(node) => node.dialing(&mut self.net, end),
            Brain::Model(node) => node.dialing(&mut self.net, end),
            Brain::Away => {}
        }
        self.soil(host);
    }

    fn leave(&mut self, host: usize) {
        self.note_leaving(host);
        match std::mem::replace(&mut self.hosts[host].brain, Brain::Away) {
            Brain::Troc(mut node) => node.leave(&mut self.net),
            Brain::Model(mut node) => node.leave(&mut self.net),
            Brain::Away => return,
        }
        let tally = &mut self.tally.hosts[host];
        tally.left_at = Some(self.net.now());
        if tally.done_at.is_none() && tally.role != Role::Seed {
            self.fetching -= 1;
        }
        self.hosts[host].pieces = 0;
        self.hosts[host].peers.clear();
        self.hosts[host].dialled.clear();
    }

    fn note_leaving(&mut self, host: usize) {
        let tally = &mut self.tally.hosts[host];
        tally.busy = self.net.busy(host);
        match &self.hosts[host].brain {
            Brain::Troc(node) => {
                (tally.wasted_bytes, tally.pieces) = (node.wasted_bytes(), node.have_count());
            }
            Brain::Model(node) => {
                (tally.wasted_bytes, tally.pieces) = (node.wasted_bytes(), node.store.have_count());
            }
            Brain::Away => {}
        }
    }

    /// Colluders come in pairs, by number: what one got, the other announces.
    fn pass_rumours(&mut self, host: usize) {
        let Brain::Model(node) = &mut self.hosts[host].brain else { return };
        let rumours = std::mem::take(&mut node.rumours);
        if rumours.is_empty() {
            return;
        }
        let partner = host ^ 1;
        let Some(Brain::Model(other)) = self.hosts.get_mut(partner).map(|host| &mut host.brain) else {
            return;
        };
        if other.policy == Policy::Rogue(Rogue::Colluder) {
            rumours.into_iter().for_each(|piece| other.tell(piece));
            self.soil(partner);
        }
    }

    /// Whitewashers come back to whom they have taken from, as somebody else.
    fn be_reborn(&mut self, host: usize) {
        let Brain::Model(node) = &mut self.hosts[host].brain else { return };
        for end in std::mem::take(&mut node.reborn) {
            let other = self.net.host(end.other());
            if let Brain::Model(node) = &mut self.hosts[host].brain {
                node.gone(&mut self.net, end);
            }
            let life = &mut self.hosts[host];
            life.lives += 1;
            let (home, lives) = (self.group(host).home, self.hosts[host].lives);
            self.hosts[host].address = address(home, self.tally.hosts[host].group, host, lives);
            if !matches!(self.hosts[other].brain, Brain::Away) {
                self.dial(host, other);
            }
        }
    }
}

/// Where a host lives, the `life`th time.
fn address(home: Home, group: usize, host: usize, life: u32) -> Ipv4Addr {
    let (group, host) = (group as u32, host as u32);
    match home {
        // 11.0.0.0/8 to 99.0.0.0/8 are public but for a few small nets above.
        Home::Apart => Ipv4Addr::from((11 << 24) + ((host << 10 | life & 0x3ff) << 8) + 7),
        Home::OneNet => Ipv4Addr::from((8 << 24) + (group << 8) + 1 + host % 250),
        Home::Private => Ipv4Addr::from((10 << 24) + (group << 16) + host + 1),
    }
}
