//! Decisions: what to ask whom, whom to serve, what to hash, write and announce. Sans-io, one
//! instance per core.
//!
//! Four kinds of method. Getters. `handle_*` take facts in: a message came, a block landed, a chunk
//! was hashed, written or read, a core or a clock said something. `plan_*` and `take_*` compose one
//! receive or send. `poll_action` hands intentions out, one at a time, until it returns `None`;
//! `poll_timeout` says when `handle_tick` is next due. Time is an argument and never goes back.
//!
//! ```text
//! session.rs    handshakes and messages            peer.rs      one connection
//! download.rs   requests out, blocks in            claims.rs    who writes which block
//! relief.rs     whose requests others take over    appetite.rs  how much is asked of all together
//! endgame.rs    blocks that are raced for
//! picker.rs     which chunk to ask a peer for      torrent.rs   one torrent on this core
//! assembly.rs   hash, verify, blame, write         action.rs    the intentions
//! upload.rs     what a send carries                tick.rs      everything that time causes
//! loading.rs    chunks that requests need, from disk
//! upload_only.rs  that we fetch nothing any more
//! choker.rs     whom to unchoke                    unchoking.rs the same carried out
//! allowed_fast.rs  what may be asked for while choked
//! scheduler/    whom to serve next                 identity.rs  who is who
//! egress.rs     the same under limits, each for those that it is for
//! ingress.rs    limits of what is asked for        tap.rs       what a core draws from a limit
//! seeding.rs    whom a seed serves, which nobody can repay
//! priority.rs   in which order peers are dialled
//! proof.rs      who proves a key
//! admission.rs  how many connections strangers may bring
//! versions.rs   v1 or v2 of a connection        dialing.rs   those that we open
//! leaves.rs     hash requests of peers         inquest.rs   who spoilt which block of a v2 piece
//! ahead.rs      the same before the piece is whole
//! parole.rs     who fetches a piece again that several peers spoilt together
//! allowance.rs  what one peer may cost in slots and disk reads
//! announcer.rs  when to ask which tracker (one per torrent, on the control thread)
//! exchange.rs   peers that name peers, one connection's part
//! grapevine.rs  the same over all cores: gossip.rs who is told of whom, hearsay.rs who is believed,
//!               rendezvous.rs who is brought together (one per torrent, on the control thread)
//! tracker.rs    the memory of a tracker of our own
//! held.rs       blocks that were sent without a copy
//! pace.rs       how much is asked for and sent at a time
//! encryption.rs which connections begin with an encrypted handshake
//! metadata.rs   the info dictionary to whoever has only a link
//! answers.rs    what is answered beside payload, and to whom how much
//! metadata_fetch.rs  the same from peers (one per link, on the control thread; fetch.rs: what both want)
//! layers_fetch.rs    and its piece layers, which it does not bring (the same)
//! view.rs       what whoever asks is shown of a connection
//! web_seed.rs   connections to web seeds (web_seed/: what their bridge decides)
//! dht/          a node of the distributed hash table (the same)
//! nodes.rs      nodes of that table that peers name
//! lsd.rs        what to say on the local network (the same)
//! roster.rs     whom we know and are connected to (the same; candidates.rs: whom to dial)
//! ```

pub mod action;
mod admission;
mod ahead;
pub mod allowance;
pub mod allowed_fast;
pub mod announcer;
mod answers;
mod appetite;
mod assembly;
pub mod candidates;
#[cfg(test)]
mod check;
pub mod choker;
pub mod claims;
pub mod dht;
mod dialing;
mod download;
mod egress;
pub mod encryption;
mod endgame;
pub mod exchange;
pub mod fetch;
pub mod gossip;
pub mod grapevine;
pub mod hearsay;
mod held;
pub mod identity;
mod ingress;
mod inquest;
pub mod layers_fetch;
mod leaves;
mod loading;
pub mod lsd;
mod metadata;
pub mod metadata_fetch;
mod nodes;
pub mod pace;
mod parole;
pub mod peer;
mod picker;
pub mod priority;
pub mod proof;
mod relief;
pub mod rendezvous;
pub mod roster;
pub mod scheduler;
mod seeding;
mod session;
mod tap;
mod tick;
pub mod torrent;
pub mod tracker;
mod unchoking;
mod upload;
mod upload_only;
pub mod versions;
pub mod view;
pub mod web_seed;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use crate::base::ids::{ConnId, CoreConn, CoreId, InfoHash, PeerId, TorrentId};
use crate::base::limits::{BANS_MAX, LEDGER_ACCOUNTS_OF_ONE};
use crate::base::network::Grouping;
use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::hash::signature::NodeKey;
use crate::shared::budget::Budgets;
use crate::shared::cache::Cache;
use crate::shared::counters::CoreCounters;
use crate::shared::ledger::Ledger;
use crate::shared::sleepers::Sleepers;
use crate::shared::torrent::SharedTorrent;

use action::{Action, Farewell, Note, Report, To};
use admission::Strangers;
use allowance::Pressure;
use appetite::Appetite;
use choker::Choker;
use egress::Egress;
use encryption::Encryption;
use identity::Identity;
use ingress::Ingress;
use peer::{Origin, Peer, Peers, Stage};
use torrent::Torrent;

pub use ahead::Judged;
pub use assembly::piece_chunks as assembly_chunks;
pub use assembly::wanted_chunks;
pub use download::Expected;
pub use download::Landing;
pub use session::Admission;

/// What an engine is told at its start.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Which core it decides for.
    pub core: CoreId,
    /// How many there are.
    pub cores: usize,
    /// Our name in handshakes; the same on all cores.
    pub peer_id: PeerId,
    /// The port we accept on, for the extension handshake.
    pub listen_port: Option<u16>,
    /// The port of our node of the distributed hash table, if we have one (BEP 5).
    pub dht_port: Option<u16>,
    /// Ask for pieces in order instead of rarest first.
    pub sequential: bool,
    /// Seed of choices that nobody gains from guessing.
    pub seed: u64,
    /// Secret under which peers' addresses and keys are hashed; the same on all cores.
    pub secret: u64,
    /// Which addresses are one party; the same on all cores.
    pub grouping: Grouping,
    /// By which we prove to other nodes who we are; the same on all cores. `None`: we do not.
    pub identity: Option<Arc<NodeKey>>,
    /// Limits of payload sent, over all cores.
    pub upload: Budgets,
    /// Limits of payload asked for, over all cores.
    pub download: Budgets,
}

/// One core's decisions. See the module.
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
    cache: Arc<Cache>,
    counters: Arc<CoreCounters>,
    peers: Peers,
    torrents: Vec<Option<Torrent>>,
    by_hash: HashMap<InfoHash, TorrentId>,
    actions: VecDeque<Action>,
    /// Connections with control frames, or the rest of a short send, and no send in flight.
    due: VecDeque<ConnId>,
    /// Connections with requests, in the order of service.
    egress: Egress,
    ingress: Ingress,
    choker: Choker,
    appetite: Appetite,
    encryption: Encryption,
    ledger: Arc<Ledger>,
    /// What proofs of identity cost.
    steps: proof::Steps,
    /// Connections whose next block waits for a slot, or leave to read from disk; each once. The tick
    /// tries again.
    throttled: Vec<ConnId>,
    /// Connections that could be asked for more but there was nothing to ask, or no slot for it.
    hungry: Vec<ConnId>,
    /// Something happened that may feed the hungry.
    food: bool,
    /// A block came while the appetite was short: one more may be asked for.
    crumbs: bool,
    /// Peers that gave something and let us ask, by the part of the connections that was looked after, and
    /// all of them.
    givers: [u32; tick::ROLL_PARTS],
    givers_sum: u32,
    /// In the order of their coming; the oldest goes when there are too many.
    bans: VecDeque<u64>,
    strangers: Strangers,
    rations: answers::Rations,
    /// Hash requests that wait for a piece; at most `LEAF_ASKS_OF_CORE_MAX`.
    leaf_asks: Vec<leaves::LeafAsk>,
    /// Open connections whose peer wants our pieces.
    leeches: u32,
    rng: Rng,
    ticked_at: Instant,
    rolled_at: Instant,
    /// The part of the connections that was looked after last, and when each part was.
    part: usize,
    parts_at: [Instant; tick::ROLL_PARTS],
    /// Some torrent's have log grew since peers were last told.
    haves_due: bool,
    /// Chunks handed out to be written and not reported yet.
    chunks_writing: u32,
    pressure: Pressure,
    stopping: bool,
    exchange: exchange::Exchange,
    sleepers: Arc<Sleepers>,
    /// Connections whose torrent is being woken; at most `CONNECTIONS_PARKED_MAX`.
    parked: Vec<(TorrentId, ConnId)>,
}

impl Engine {
    /// An engine without torrents or peers.
    pub fn new(config: EngineConfig, cache: Arc<Cache>, now: Instant) -> Self {
        let strangers = Strangers::new(config.grouping.clone());
        assert!((config.core.0 as usize) < config.cores);
        let rng = Rng::new(config.seed);
        let (egress, ingress) = (Egress::new(&config.upload, now), Ingress::new(&config.download));
        Self {
            config,
            cache,
            counters: Arc::new(CoreCounters::new()),
            peers: Peers::default(),
            torrents: Vec::new(),
            by_hash: HashMap::new(),
            actions: VecDeque::new(),
            due: VecDeque::new(),
            egress,
            ingress,
            choker: Choker::new(now),
            appetite: Appetite::default(),
            encryption: Encryption::default(),
            ledger: Arc::new(Ledger::new(LEDGER_ACCOUNTS_OF_ONE)),
            steps: proof::Steps::default(),
            throttled: Vec::new(),
            hungry: Vec::new(),
            food: false,
            crumbs: false,
            givers: [0; tick::ROLL_PARTS],
            givers_sum: 0,
            bans: VecDeque::new(),
            strangers,
            rations: answers::Rations::default(),
            leaf_asks: Vec::new(),
            leeches: 0,
            rng,
            ticked_at: now,
            rolled_at: now,
            part: 0,
            parts_at: [now; tick::ROLL_PARTS],
            haves_due: false,
            chunks_writing: 0,
            pressure: Pressure::default(),
            stopping: false,
            exchange: exchange::Exchange::Off,
            sleepers: Arc::default(),
            parked: Vec::new(),
        }
    }

    /// The same engine, counting where somebody else can read it.
    pub fn with_counters(mut self, counters: Arc<CoreCounters>) -> Self {
        self.counters = counters;
        self
    }

    /// The same engine, with accounts that other cores share.
    pub fn with_ledger(mut self, ledger: Arc<Ledger>) -> Self {
        self.ledger = ledger;
        self
    }

    /// The same engine, with another choker.
    pub fn with_choker(mut self, choker: Choker) -> Self {
        self.choker = choker;
        self
    }

    /// What this core counts; the worker adds what is its own.
    pub const fn counters(&self) -> &Arc<CoreCounters> {
        &self.counters
    }

    /// Connections that have control frames to send, and parties of which some wait for blocks: many
    /// connections of a party count once, one that has frames and waits for blocks counts twice.
    pub fn ready_count(&self) -> usize {
        self.due.len() + self.egress.waiting_parties()
    }

    /// Chunks handed out to be written and not reported yet.
    pub const fn chunks_writing(&self) -> u32 {
        self.chunks_writing
    }

    /// Torrents that are not open, and that it may ask for.
    pub fn set_sleepers(&mut self, sleepers: Arc<Sleepers>) {
        self.sleepers = sleepers;
    }

    /// The slots that it allocates from.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// A torrent of this core.
    pub fn torrent(&self, id: TorrentId) -> Option<&Torrent> {
        self.torrents.get(id.0 as usize)?.as_ref()
    }

    /// Whether this core knows a torrent.
    pub fn knows(&self, info_hash: &InfoHash) -> bool {
        self.by_hash.contains_key(info_hash)
    }

    /// A connection of this core.
    pub fn peer(&self, conn: ConnId) -> Option<&Peer> {
        self.peers.get(conn)
    }

    /// All connections of this core.
    pub fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.peers.iter()
    }

    /// How many connections there are.
    pub fn peer_count(&self) -> usize {
        self.peers.len()
    }

    /// The next intention, or `None` when there is nothing more to do for now.
    pub fn poll_action(&mut self, now: Instant) -> Option<Action> {
        self.feed(now);
        if std::mem::take(&mut self.haves_due) {
            self.flush_haves();
        }
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        if let Some(conn) = self.due.pop_front() {
            if let Some(peer) = self.peers.get_mut(conn) {
                peer.out.due = false;
            }
            return Some(Action::Send(conn));
        }
        let upload = self.next_upload(now).map(Action::Send);
        if upload.is_none() {
            self.ingress.give_back();
        }
        upload.or_else(|| self.egress.next_ask().map(Action::Backlog))
    }

    /// A torrent to fetch and serve from now on.
    pub fn handle_torrent(&mut self, shared: Arc<SharedTorrent>) {
        let id = shared.meta.id;
        let index = id.0 as usize;
        if self.torrents.len() <= index {
            self.torrents.resize_with(index + 1, || None);
        }
        self.by_hash.insert(shared.meta.info_hash, id);
        self.by_hash.extend(shared.meta.v2_hash.map(|v2| (v2, id)));
        self.torrents[index] = Some(Torrent::new(shared, self.config.sequential, &mut self.rng));
    }

    /// What another core said.
    pub fn handle_note(&mut self, note: Note, now: Instant) {
        match note {
            Note::Have { torrent, piece } => self.note_have(torrent, piece),
            Note::Filled { torrent, chunk } => self.chunk_filled(torrent, chunk),
            Note::Loaded { torrent, chunk } => self.wake_waiting(torrent, chunk),
            Note::Offer { torrent, chunk } => self.note_offer(torrent, chunk),
            Note::Idle { torrent } => self.offer_slowest(torrent, now),
            Note::Missing { torrent, piece } => self.forget_piece(torrent, piece),
            Note::Ban { key } => self.ban(key),
        }
    }

    /// The node stops: no more requests go out, peers are closed once what is verified is written.
    pub fn handle_stop(&mut self) {
        self.stopping = true;
        let open: Vec<ConnId> = self.peers.iter().map(|peer| peer.conn).collect();
        for conn in open {
            self.close(conn, Farewell::Useless);
        }
    }

    /// Whether verified bytes still wait to be written.
    pub fn is_writing(&self) -> bool {
        self.torrents.iter().flatten().any(|torrent| !torrent.writing.is_empty())
    }

    /// By what a peer is blamed for its blocks, and banned.
    pub fn peer_key(&self, address: SocketAddr) -> u64 {
        Identity::of(address, &self.config.grouping, self.config.secret).key
    }

    fn close(&mut self, conn: ConnId, why: Farewell) {
        let Some(peer) = self.peers.get_mut(conn) else { return };
        if peer.stage == Stage::Closing {
            return;
        }
        let was_open = peer.is_open();
        self.leave_choker(conn);
        let Some(peer) = self.peers.get_mut(conn) else { return };
        peer.stage = Stage::Closing;
        peer.farewell = Some(why);
        peer.requests.clear();
        peer.out.frames.clear();
        self.egress.forget(conn);
        self.leeches -= u32::from(std::mem::take(&mut peer.flags.wants_us));
        self.actions.push_back(Action::Close(conn));
        if was_open {
            self.drop_requests(conn);
            self.leave_swarm(conn);
        }
    }

    /// Takes an open peer out of its torrent's list and counts.
    fn leave_swarm(&mut self, conn: ConnId) {
        self.forget_announced(conn);
        let Some(peer) = self.peers.get(conn) else { return };
        let Some(Some(torrent)) = peer.torrent.map(|id| self.torrents[id.0 as usize].as_mut()) else {
            return;
        };
        torrent.peers.retain(|&other| other != conn);
        if peer.flags.has_unchoked {
            torrent.shared.givers.leave(&peer.bits);
        }
        use crate::shared::sync::Ordering;
        let stats = torrent.stats(self.config.core);
        stats.peers.fetch_sub(1, Ordering::Relaxed);
        if peer.is_seed() {
            stats.seeds.fetch_sub(1, Ordering::Relaxed);
        }
        if peer.is_web_seed() {
            stats.web_seeds.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The connection's last operation has ended: nothing lands in its blocks' places any more.
    pub fn handle_closed(&mut self, conn: ConnId) {
        if self.peers.get(conn).is_some_and(|peer| peer.stage != Stage::Closing) {
            self.close(conn, Farewell::Gone);
        }
        self.parked.retain(|&(_, parked)| parked != conn);
        let Some(mut peer) = self.peers.remove(conn) else { return };
        self.strangers.leave(conn, peer.address.ip(), peer.counted);
        // First what it is given back, while it has a place among those that limits hold.
        self.forget_asks(&mut peer);
        self.settle_account(&mut peer);
        if let Some(Some(torrent)) = peer.torrent.map(|id| self.torrents[id.0 as usize].as_mut()) {
            for pin in peer.out.take_pins() {
                torrent.shared.chunks.unpin(pin.chunk);
            }
            let id = torrent.id();
            let mut released = Vec::new();
            for (&chunk, claim) in &mut torrent.claims {
                (0..claim.blocks).for_each(|block| claim.unland(block, conn));
                if claim.releasing && !claim.is_landing() {
                    released.push(chunk);
                }
            }
            for chunk in released {
                self.finish_release(id, chunk);
            }
            let why = peer.farewell.unwrap_or(Farewell::Gone);
            let (conn, address) = (CoreConn { core: self.config.core, conn }, peer.address);
            let report = match peer.origin {
                Origin::WebSeed(seed) => Report::WebSeedLeft { torrent: id, seed, why },
                _ => Report::Disconnected { torrent: id, conn: Some(conn), address, why },
            };
            self.actions.push_back(Action::Report(report));
        }
        self.food = true;
    }

    /// The connection is another core's now.
    pub fn forget(&mut self, conn: ConnId) {
        if let Some(peer) = self.peers.remove(conn) {
            self.strangers.leave(conn, peer.address.ip(), peer.counted);
        }
    }

    fn ban(&mut self, key: u64) {
        if !self.bans.contains(&key) {
            self.bans.push_back(key);
        }
        if self.bans.len() > BANS_MAX {
            self.bans.pop_front();
        }
        let liars: Vec<ConnId> =
            self.peers.iter().filter(|peer| peer.key == key).map(|peer| peer.conn).collect();
        for conn in liars {
            self.close(conn, Farewell::Misbehaved);
        }
    }

    fn ban_everywhere(&mut self, key: u64) {
        self.counters.bans.add(1);
        self.ban(key);
        self.actions.push_back(Action::Tell(To::Others, Note::Ban { key }));
    }

    /// The connection may have something to send: control frames leave at once, blocks when it is their
    /// turn.
    fn make_ready(&mut self, conn: ConnId) {
        let Some(peer) = self.peers.get(conn).filter(|peer| peer.may_send()) else { return };
        let wants = !peer.requests.is_empty() && peer.out.segments.is_empty();
        if wants && self.may_be_served(peer) {
            self.wait_for_turn(conn);
        } else if wants {
            // It is choked, and neither what it gave nor its grant allows for more.
            self.turn_down(conn, None);
        }
        let Some(peer) = self.peers.get_mut(conn) else { return };
        let asks = peer.metadata.waits() || !peer.hash_asks.is_empty();
        let due = !peer.out.frames.is_empty() || !peer.out.segments.is_empty() || asks;
        if due && peer.may_send() && !std::mem::replace(&mut peer.out.due, true) {
            self.due.push_back(conn);
        }
    }
}

#[cfg(test)]
mod tests;
