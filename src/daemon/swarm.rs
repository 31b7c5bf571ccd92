//! One torrent as the control thread sees it: where it stands, whom it knows, what is durable.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use super::keeping::Orders;
use super::late_layers::LateLayers;
use super::seeding::{SeedGoal, Seeding};
use super::seeking::Seeking;
use super::status::{FilesStatus, TorrentState, TorrentStatus, wanted_bytes};
use crate::base::bitfield::Bitfield;
use crate::base::ids::{CoreConn, InfoHash, PeerId};
use crate::base::priority::Priority;
use crate::base::time::{Instant, Span};
use crate::base::units::BLOCK_BYTES;
use crate::engine::announcer::{Announcers, TrackerChange};
use crate::engine::candidates::{Names, Source};
use crate::engine::grapevine::Grapevine;
use crate::engine::roster::Roster;
use crate::engine::versions::Name;
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

impl Live {
    /// Whether every piece that is wanted is durable.
    fn is_done(&self) -> bool {
        match &self.shared.wanted {
            None => self.durable.is_full(),
            // Asked often: looked through only where it can be so.
            Some(wanted) => {
                self.shared.is_satisfied() && wanted.pieces().ones().all(|piece| self.durable.get(piece))
            }
        }
    }
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
    /// How much each file is wanted; `None` if all are alike.
    pub wanted: Option<Arc<[Priority]>>,
    /// Whether progress is told file by file though all are.
    pub file_progress: bool,
    /// What stopped it, if anything did.
    pub stopped: Option<String>,
    /// Whom it knows and is connected to.
    pub roster: Roster,
    /// What its peers tell one another of peers, once one speaks of that.
    pub grapevine: Option<Box<Grapevine>>,
    /// When to ask which tracker.
    pub announcer: Announcers,
    /// An announce is due and waits for others to end.
    pub announce_queued: bool,
    /// What a tracker last complained about.
    pub tracker_error: Option<String>,
    /// What a web seed last failed at.
    pub web_seed_error: Option<String>,
    /// When a peer was last connected, or it started.
    pub peer_at: Instant,
    /// While only its magnet link is known.
    pub seeking: Option<Box<Seeking>>,
    /// While it goes on by its v1 part for want of piece layers.
    pub late_layers: Option<Box<LateLayers>>,
    /// Since all is there, if it is served on.
    pub seeding: Option<Seeding>,
    complete_told: bool,
    samples: VecDeque<(Instant, u64, u64)>,
}

impl Swarm {
    /// A torrent that is about to be checked.
    pub fn new(metainfo: Arc<Metainfo>, announcer: Announcers, peer_id: PeerId, now: Instant) -> Self {
        let mut roster = Roster::new(peer_id);
        roster.candidates.set_names(names(&metainfo));
        Self {
            metainfo,
            live: None,
            sleep: Sleep::Awake,
            checked: 0,
            wanted: None,
            file_progress: false,
            stopped: None,
            roster,
            grapevine: None,
            announcer,
            announce_queued: false,
            tracker_error: None,
            web_seed_error: None,
            peer_at: now,
            seeking: None,
            late_layers: None,
            seeding: None,
            complete_told: false,
            samples: VecDeque::new(),
        }
    }

    /// Whether every piece that is wanted is durable.
    pub fn is_done(&self) -> bool {
        self.is_asleep() || self.live.as_ref().is_some_and(Live::is_done)
    }

    /// Whether all is done that a `get` is to do with it: with `seed`, whether it was served enough.
    pub fn is_enough(&mut self, seed: Option<SeedGoal>, now: Instant) -> bool {
        let Some(goal) = seed else { return self.is_done() };
        if self.seeding.is_none() && !self.is_done() {
            return false;
        }
        let (total_bytes, sent_bytes) = (self.total_bytes(), self.sent_bytes());
        self.seeding.get_or_insert_with(|| Seeding::new(goal, now)).note(sent_bytes, total_bytes, now)
    }

    /// Size of what is wanted, without padding.
    fn total_bytes(&self) -> u64 {
        if let Some(wanted) = &self.wanted {
            let files = self.metainfo.files.iter().zip(wanted.iter());
            return files
                .filter(|(file, wanted)| !file.pad && wanted.is_wanted())
                .map(|(file, _)| file.length)
                .sum();
        }
        let pads = self.metainfo.files.iter().filter(|file| file.pad).map(|file| file.length).sum::<u64>();
        self.metainfo.geometry.total_bytes - pads
    }

    fn sent_bytes(&self) -> u64 {
        self.live.as_ref().map_or(0, |live| traffic(&live.shared).1)
    }

    /// Whether it is complete and not open.
    pub fn is_asleep(&self) -> bool {
        self.sleep != Sleep::Awake
    }

    /// Whether pieces are being fetched.
    pub fn is_fetching(&self) -> bool {
        let live = self.live.as_ref();
        self.stopped.is_none() && live.is_some_and(|live| !live.shared.is_satisfied())
    }

    /// What its magnet link names was found, and is about to be checked.
    pub fn begin_found(&mut self, metainfo: Arc<Metainfo>, now: Instant) {
        if metainfo.private {
            // Whoever named peers did not know.
            self.roster.candidates.forget_public();
        }
        self.metainfo = metainfo;
        self.roster.candidates.set_names(names(&self.metainfo));
        self.peer_at = now;
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

    /// Pieces that survive a crash from now on.
    pub fn note_durable(&mut self, pieces: &[u32]) {
        if let Some(live) = &mut self.live {
            for &piece in pieces {
                live.durable.set(piece);
            }
        }
    }

    /// Pieces that were written and may not be on disk after all: they are served as long as they read
    /// right, and do not count as durable, though they may have been before they were written anew.
    pub fn note_lost(&mut self, pieces: &[u32]) {
        if let Some(live) = &mut self.live {
            for &piece in pieces {
                live.durable.clear(piece);
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

    /// A tracker answered; it names `peers`. Returns the connections that are to be closed: when a
    /// private torrent has another tracker than before, those that are not the new one's (BEP 27).
    pub fn note_reply(
        &mut self,
        change: TrackerChange,
        peers: impl Iterator<Item = SocketAddr>,
        now: Instant,
    ) -> Vec<CoreConn> {
        let parts = self.metainfo.private && change == TrackerChange::Switched;
        let strangers = if parts { self.roster.part() } else { Vec::new() };
        self.note_peers(Source::Tracker, peers, now);
        strangers
    }

    /// Somebody named peers. Of a private torrent only trackers and the operator may (BEP 27).
    pub fn note_peers(&mut self, source: Source, peers: impl Iterator<Item = SocketAddr>, now: Instant) {
        self.note_peers_by((source, Name::First), peers, now);
    }

    /// The same, of peers that know the torrent by a name of it: they are dialled by that.
    pub fn note_peers_by(
        &mut self,
        (source, name): (Source, Name),
        peers: impl Iterator<Item = SocketAddr>,
        now: Instant,
    ) {
        if self.metainfo.private && !source.may_name_private() {
            return;
        }
        peers.for_each(|peer| self.roster.add_by(peer, (source, name), now));
    }

    /// Which name of it a hash is.
    pub fn name_of(&self, info_hash: InfoHash) -> Name {
        Name::of(self.metainfo.names(), info_hash)
    }

    /// The hash that is a name of it.
    pub fn hash_of(&self, name: Name) -> InfoHash {
        let second = self.metainfo.names().nth(1).filter(|_| name == Name::Second);
        second.unwrap_or(self.metainfo.info_hash)
    }

    /// More may be known of where a peer is at home.
    pub fn note_home(&mut self, conn: CoreConn) {
        if let Some(grapevine) = &mut self.grapevine {
            grapevine.note_home(conn, &self.roster);
        }
    }

    /// Whether nothing more is fetched though not everything is there: as libtorrent has it, `left` counts
    /// all that is not there, and such a node never completes (BEP 21).
    fn is_partial_seed(&self) -> bool {
        let shared = self.live.as_ref().map(|live| &live.shared);
        shared.is_some_and(|shared| shared.is_satisfied() && !shared.is_complete())
    }

    /// What to say to a tracker.
    pub fn request(&self, event: AnnounceEvent, peer_id: PeerId, port: u16, key: u32) -> AnnounceRequest {
        let (down, up) = self.live.as_ref().map_or((0, 0), |live| traffic(&live.shared));
        let event = if event == AnnounceEvent::None && self.is_partial_seed() {
            AnnounceEvent::Paused
        } else {
            event
        };
        let asleep = if self.is_asleep() { self.metainfo.geometry.total_bytes } else { 0 };
        let verified = self.live.as_ref().map_or(asleep, |live| live.shared.verified_bytes());
        let left = self.metainfo.geometry.total_bytes.saturating_sub(verified);
        AnnounceRequest {
            info_hash: self.metainfo.info_hash,
            peer_id,
            port,
            uploaded_bytes: up,
            downloaded_bytes: down,
            // Nobody knows how much a link names; whoever needs nothing is taken for a seed.
            left_bytes: if self.metainfo.is_awaited() { BLOCK_BYTES.into() } else { left },
            event,
            peers_wanted: None,
            key,
            ipv6: None,
        }
    }

    /// How it goes.
    pub fn status(&mut self, now: Instant) -> TorrentStatus {
        let total_bytes = self.total_bytes();
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
            web_seeds: 0,
            web_seed_bytes: 0,
            tracker_error: self.tracker_error.clone(),
            web_seed_error: self.web_seed_error.clone(),
            seeding: self.seeding,
            files: None,
        };
        if let Some(live) = &self.live {
            let shared = &live.shared;
            let sum =
                |field: fn(&CoreStats) -> u64| shared.stats.iter().map(|stats| field(stats)).sum::<u64>();
            (status.downloaded_bytes, status.uploaded_bytes) = traffic(shared);
            status.wasted_bytes = sum(|stats| stats.wasted_bytes.get());
            status.peers = sum(|stats| stats.peers.load(Ordering::Relaxed).into()) as u32;
            status.seeds = sum(|stats| stats.seeds.load(Ordering::Relaxed).into()) as u32;
            status.web_seeds = sum(|stats| stats.web_seeds.load(Ordering::Relaxed).into()) as u32;
            status.web_seed_bytes = sum(|stats| stats.web_seed_bytes.get());
            status.verified_bytes = payload(shared.verified_bytes(), shared.is_complete(), total_bytes);
            let durable = live.durable.ones().map(|piece| u64::from(shared.meta.geometry.piece_len(piece)));
            status.durable_bytes = payload(durable.sum(), live.durable.is_full(), total_bytes);
            if let Some(wanted) = &shared.wanted {
                status.verified_bytes = wanted_bytes(shared, wanted, |piece| shared.has(piece));
                status.durable_bytes = wanted_bytes(shared, wanted, |piece| live.durable.get(piece));
            }
            if self.file_progress || shared.wanted.is_some() {
                status.files = Some(FilesStatus::of(&self.metainfo, shared));
            }
            status.state = if shared.is_satisfied() { TorrentState::Seeding } else { TorrentState::Fetching };
            (status.download_rate, status.upload_rate) =
                self.rates(status.downloaded_bytes, status.uploaded_bytes, now);
        }
        if self.is_asleep() {
            (status.verified_bytes, status.durable_bytes) = (total_bytes, total_bytes);
            status.state = TorrentState::Seeding;
        }
        if self.metainfo.is_awaited() {
            status.state = TorrentState::Metadata;
            status.peers = self.seeking.as_ref().map_or(0, |seeking| seeking.peers() as u32);
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

fn names(metainfo: &Metainfo) -> Names {
    if metainfo.names().nth(1).is_some() { Names::Two } else { Names::One }
}

/// Payload without padding: exact when complete, at most off by the padding until then.
fn payload(bytes: u64, complete: bool, total_bytes: u64) -> u64 {
    if complete { total_bytes } else { bytes.min(total_bytes) }
}

fn traffic(shared: &SharedTorrent) -> (u64, u64) {
    let sum = |field: fn(&CoreStats) -> u64| shared.stats.iter().map(|stats| field(stats)).sum();
    (sum(|stats| stats.received_bytes.get()), sum(|stats| stats.sent_bytes.get()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::{ConnId, CoreId};
    use crate::base::rng::Rng;
    use crate::engine::announcer::{Reach, TrackerOrigin};
    use crate::engine::peer::Origin;
    use crate::proto::magnet::Magnet;

    const NOW: Instant = Instant(1_000_000_000);

    /// A swarm with a connection to a peer that its tracker named, at 10.0.0.1.
    fn connected(private: bool) -> (Swarm, CoreConn) {
        let info = "d6:lengthi1e4:name1:a12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaa";
        let bytes = format!("d4:info{info}7:privatei{}eee", u8::from(private));
        let metainfo = Arc::new(Metainfo::parse(bytes.as_bytes()).unwrap());
        let reach = Reach::FirstTier;
        let announcer = Announcers::new(&[], reach, TrackerOrigin::Operator, Rng::new(1));
        let mut swarm = Swarm::new(metainfo, announcer, PeerId([1; 20]), NOW);
        assert_eq!(swarm.note_reply(TrackerChange::Same, [address(1)].into_iter(), NOW), []);
        assert_eq!(swarm.roster.candidates.poll_dial(NOW), Some(address(1)));
        let conn = CoreConn { core: CoreId(0), conn: ConnId { index: 1, generation: 0 } };
        let peer_id = PeerId([2; 20]);
        assert_eq!(swarm.roster.handle_connected(conn, address(1), Origin::Outgoing, peer_id), None);
        (swarm, conn)
    }

    fn address(host: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, host], 6881))
    }

    /// A torrent of which only the link is known.
    fn awaited() -> Swarm {
        let link = Magnet::parse("magnet:?xt=urn:btih:0123456789abcdef0123456789abcdef01234567").unwrap();
        let announcer = Announcers::new(&[], Reach::FirstTier, TrackerOrigin::Operator, Rng::new(1));
        Swarm::new(Arc::new(Metainfo::of_link(&link).unwrap()), announcer, PeerId([1; 20]), NOW)
    }

    #[test]
    fn trackers_do_not_take_who_has_only_a_link_for_a_seed() {
        let mut swarm = awaited();
        let request = swarm.request(AnnounceEvent::Started, PeerId([1; 20]), 1, 2);
        assert_eq!(request.left_bytes, u64::from(BLOCK_BYTES));
        let status = swarm.status(NOW);
        assert_eq!((status.state, status.total_bytes, status.peers), (TorrentState::Metadata, 0, 0));
        assert!(!swarm.is_done() && !swarm.is_fetching());
    }

    #[test]
    fn of_a_torrent_that_turns_out_to_be_private_peers_are_forgotten_whom_nobody_named_who_may() {
        for private in [false, true] {
            let mut swarm = awaited();
            let sources = [Source::Operator, Source::Tracker, Source::Dht, Source::Pex, Source::Lsd];
            for (host, source) in (1..).zip(sources) {
                swarm.note_peers(source, [address(host)].into_iter(), NOW);
            }
            // One that was asked for the metadata, too.
            swarm.roster.candidates.poll_dial(NOW);
            let found = Arc::clone(&connected(private).0.metainfo);
            swarm.begin_found(found, NOW);
            for (host, source) in (1..).zip(sources) {
                let stays = !private || source.may_name_private();
                assert_eq!(swarm.roster.candidates.knows(address(host)), stays, "{source:?}");
            }
        }
    }

    #[test]
    fn only_trackers_and_the_operator_name_peers_of_a_private_torrent() {
        for (source, may) in [
            (Source::Operator, true),
            (Source::Tracker, true),
            (Source::Dht, false),
            (Source::Pex, false),
            (Source::Lsd, false),
        ] {
            for private in [false, true] {
                let (mut swarm, _) = connected(private);
                swarm.note_peers(source, [address(2)].into_iter(), NOW);
                assert_eq!(swarm.roster.candidates.knows(address(2)), may || !private, "{source:?}");
            }
        }
    }

    #[test]
    fn only_a_private_torrent_parts_from_the_peers_of_a_tracker_that_it_leaves() {
        for (private, change, parts) in [
            (true, TrackerChange::Switched, true),
            (true, TrackerChange::Same, false),
            (false, TrackerChange::Switched, false),
        ] {
            let (mut swarm, conn) = connected(private);
            let closed = swarm.note_reply(change, [address(2)].into_iter(), NOW);
            assert_eq!(closed, if parts { vec![conn] } else { vec![] }, "{private} {change:?}");
            assert_eq!(swarm.roster.candidates.knows(address(1)), !parts);
            assert_eq!(swarm.roster.candidates.poll_dial(NOW), Some(address(2)), "the new one's are dialled");
        }
    }
}
