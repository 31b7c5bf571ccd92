//! One torrent as the control thread sees it: where it stands, whom it knows, what is durable.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use super::keeping::Orders;
use super::status::{TorrentState, TorrentStatus};
use crate::base::bitfield::Bitfield;
use crate::base::ids::PeerId;
use crate::base::time::{Instant, Span};
use crate::engine::action::Farewell;
use crate::engine::announcer::Announcer;
use crate::engine::candidates::Candidates;
use crate::io::uring::FilePair;
use crate::proto::metainfo::Metainfo;
use crate::proto::tracker::{AnnounceEvent, AnnounceRequest};
use crate::shared::sync::Ordering;
use crate::shared::torrent::{CoreStats, SharedTorrent};
use crate::worker::mesh::Files;

/// Rates are means over so long.
const RATE_SPAN: Span = Span::from_secs(3);

/// What only a started torrent has.
#[derive(Debug)]
pub struct Live {
    /// What the workers share of it.
    pub shared: Arc<SharedTorrent>,
    /// Its files, for edge writes.
    pub files: Files<Arc<FilePair>>,
    /// The keeping task.
    pub orders: Orders,
    /// Pieces that survive a crash.
    pub durable: Bitfield,
    /// The keeping task has ended.
    pub closed: bool,
}

/// Whether a complete torrent is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sleep {
    /// Open, or being checked.
    Awake,
    /// Complete and closed: a peer has to ask for it first.
    Asleep,
    /// Complete and being opened.
    Waking,
}

/// See the module.
#[derive(Debug)]
pub struct Swarm {
    /// The torrent.
    pub metainfo: Arc<Metainfo>,
    /// Absent while it is being checked, and while it sleeps.
    pub live: Option<Live>,
    /// See [`Sleep`].
    pub sleep: Sleep,
    /// Pieces hashed so far while it is being checked.
    pub checked: u32,
    /// What stopped it, if anything did.
    pub stopped: Option<String>,
    /// Whom to connect to.
    pub candidates: Candidates,
    /// When to ask which tracker.
    pub announcer: Announcer,
    /// An announce is due and waits for others to end.
    pub announce_queued: bool,
    /// What a tracker last complained about.
    pub tracker_error: Option<String>,
    /// When a peer was last connected, or it started.
    pub peer_at: Instant,
    /// Where connected peers listen that dialled us: at most one entry per connection.
    listens: HashMap<SocketAddr, SocketAddr>,
    complete_told: bool,
    samples: VecDeque<(Instant, u64, u64)>,
}

impl Swarm {
    /// A torrent that is about to be checked.
    pub fn new(metainfo: Arc<Metainfo>, announcer: Announcer, now: Instant) -> Self {
        Self {
            metainfo,
            live: None,
            sleep: Sleep::Awake,
            checked: 0,
            stopped: None,
            candidates: Candidates::default(),
            announcer,
            announce_queued: false,
            tracker_error: None,
            peer_at: now,
            listens: HashMap::new(),
            complete_told: false,
            samples: VecDeque::new(),
        }
    }

    /// Whether every piece is durable.
    pub fn is_done(&self) -> bool {
        self.is_asleep() || self.live.as_ref().is_some_and(|live| live.durable.is_full())
    }

    /// Whether it is complete and not open.
    pub fn is_asleep(&self) -> bool {
        self.sleep != Sleep::Awake
    }

    /// Whether pieces are being fetched.
    pub fn is_fetching(&self) -> bool {
        let live = self.live.as_ref();
        self.stopped.is_none() && live.is_some_and(|live| !live.shared.is_complete())
    }

    /// The torrent began complete: its completion is no news for trackers.
    pub fn begin_complete(&mut self) {
        self.complete_told = true;
    }

    /// Tells the trackers of the completion, once.
    pub fn note_progress(&mut self) {
        let complete = self.live.as_ref().is_some_and(|live| live.shared.is_complete());
        if complete && !self.complete_told {
            self.complete_told = true;
            self.announcer.handle_completed();
        }
    }

    /// A piece's fate, as the keeping task reports it.
    pub fn note_durable(&mut self, pieces: &[u32]) {
        if let Some(live) = &mut self.live {
            for &piece in pieces {
                live.durable.set(piece);
            }
        }
    }

    /// Stops fetching; what is there is still served.
    pub fn stop(&mut self, why: String) {
        if let Some(live) = &self.live {
            live.shared.stop_fetch();
        }
        self.stopped.get_or_insert(why);
    }

    /// A peer connected or left.
    pub fn note_peer(&mut self, address: SocketAddr, left: Option<Farewell>, now: Instant) {
        self.peer_at = now;
        match left {
            None => self.candidates.handle_connected(address),
            Some(why) => {
                self.candidates.handle_gone(address, why, now);
                if let Some(listens) = self.listens.remove(&address) {
                    self.candidates.handle_gone(listens, why, now);
                }
            }
        }
    }

    /// A connected peer named the port it listens on: it need not be dialled there while it stays.
    pub fn note_listens(&mut self, address: SocketAddr, port: u16) {
        let listens = SocketAddr::new(address.ip(), port);
        // The first word counts: a peer must not make us believe that all ports of its host are it.
        if listens != address && !self.listens.contains_key(&address) {
            self.listens.insert(address, listens);
            self.candidates.handle_connected(listens);
        }
    }

    /// What to say to a tracker.
    pub fn request(&self, event: AnnounceEvent, peer_id: PeerId, port: u16, key: u32) -> AnnounceRequest {
        let (down, up) = self.live.as_ref().map_or((0, 0), |live| traffic(&live.shared));
        let asleep = if self.is_asleep() { self.metainfo.geometry.total_bytes } else { 0 };
        let verified = self.live.as_ref().map_or(asleep, |live| live.shared.verified_bytes());
        AnnounceRequest {
            info_hash: self.metainfo.info_hash,
            peer_id,
            port,
            uploaded_bytes: up,
            downloaded_bytes: down,
            left_bytes: self.metainfo.geometry.total_bytes.saturating_sub(verified),
            event,
            peers_wanted: None,
            key,
            ipv6: None,
        }
    }

    /// How it goes.
    pub fn status(&mut self, now: Instant) -> TorrentStatus {
        let pads = self.metainfo.files.iter().filter(|file| file.pad).map(|file| file.length).sum::<u64>();
        let total_bytes = self.metainfo.geometry.total_bytes - pads;
        let mut status = TorrentStatus {
            info_hash: self.metainfo.info_hash,
            name: crate::proto::text::escape(self.metainfo.name.as_bytes(), 255),
            state: TorrentState::Checking,
            total_bytes,
            verified_bytes: 0,
            durable_bytes: 0,
            downloaded_bytes: 0,
            uploaded_bytes: 0,
            wasted_bytes: 0,
            download_rate: 0,
            upload_rate: 0,
            peers: 0,
            seeds: 0,
            tracker_error: self.tracker_error.clone(),
        };
        if let Some(live) = &self.live {
            let shared = &live.shared;
            let sum =
                |field: fn(&CoreStats) -> u64| shared.stats.iter().map(|stats| field(stats)).sum::<u64>();
            (status.downloaded_bytes, status.uploaded_bytes) = traffic(shared);
            status.wasted_bytes = sum(|stats| stats.wasted_bytes.load(Ordering::Relaxed));
            status.peers = sum(|stats| stats.peers.load(Ordering::Relaxed).into()) as u32;
            status.seeds = sum(|stats| stats.seeds.load(Ordering::Relaxed).into()) as u32;
            status.verified_bytes = payload(shared.verified_bytes(), shared.is_complete(), total_bytes);
            let durable = live.durable.ones().map(|piece| u64::from(shared.meta.geometry.piece_len(piece)));
            status.durable_bytes = payload(durable.sum(), live.durable.is_full(), total_bytes);
            status.state = if shared.is_complete() { TorrentState::Seeding } else { TorrentState::Fetching };
            (status.download_rate, status.upload_rate) =
                self.rates(status.downloaded_bytes, status.uploaded_bytes, now);
        }
        if self.is_asleep() {
            (status.verified_bytes, status.durable_bytes) = (total_bytes, total_bytes);
            status.state = TorrentState::Seeding;
        }
        if let Some(why) = &self.stopped {
            status.state = TorrentState::Stopped(why.clone());
        }
        status
    }

    fn rates(&mut self, down: u64, up: u64, now: Instant) -> (u64, u64) {
        self.samples.push_back((now, down, up));
        while self.samples.len() > 2 && now.since(self.samples[1].0) >= RATE_SPAN {
            self.samples.pop_front();
        }
        let (at, down_then, up_then) = self.samples[0];
        let span_ns = u128::from(now.since(at).0.max(1));
        let rate = |bytes: u64| (u128::from(bytes) * 1_000_000_000 / span_ns) as u64;
        if self.samples.len() < 2 { (0, 0) } else { (rate(down - down_then), rate(up - up_then)) }
    }
}

/// Payload without padding: exact when complete, at most off by the padding until then.
fn payload(bytes: u64, complete: bool, total_bytes: u64) -> u64 {
    if complete { total_bytes } else { bytes.min(total_bytes) }
}

fn traffic(shared: &SharedTorrent) -> (u64, u64) {
    let sum = |field: fn(&CoreStats) -> u64| shared.stats.iter().map(|stats| field(stats)).sum();
    (
        sum(|stats| stats.received_bytes.load(Ordering::Relaxed)),
        sum(|stats| stats.sent_bytes.load(Ordering::Relaxed)),
    )
}
