//! Handshakes and messages: what a peer says, and what we answer at once.

use crate::base::bitfield::Bitfield;
use crate::base::geometry::BlockRef;
use crate::base::ids::{ConnId, CoreConn, CoreId, TorrentId};
use crate::base::limits::{
    CONNECTIONS_PARKED_MAX, IDLE_MESSAGES_MAX, REJECTS_WAITING_MAX, REQUEST_BYTES_MAX, REQUESTS_QUEUED_MAX,
    STRIKES_MAX, VAIN_REQUESTS_MAX,
};
use crate::base::units::BLOCK_BYTES;
use crate::proto::wire::extension::{EXTENSION_HANDSHAKE_ID, ExtensionHandshake, ExtensionIds};
use crate::proto::wire::handshake::Handshake;
use crate::proto::wire::message::Message;
use crate::proto::wire::metadata::UT_METADATA;
use crate::shared::sleepers::Absence;
use crate::shared::sync::Ordering;

use super::admission::Counted;
use super::egress::Lane;
use super::exchange::{Exchange, PEX_ID, PUNCH_ID, announce};
use super::nodes::name_node;
use super::proof::TROC_ID;
use super::scheduler::Membership;
use super::versions::{answer_name, version};
use super::*;

/// The peer id of somebody who has none.
const NO_NAME: PeerId = PeerId([0; 20]);

/// What to do with a connection after its handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It stays on this core; messages may be read.
    Here,
    /// `Action::HandOver` or `Action::Seek` was given: read nothing more, keep what has been read for who
    /// gets it.
    Elsewhere,
    /// Its torrent is being opened: read nothing more, keep what has been read, and shake again when
    /// `take_parked` names it.
    Later,
    /// `Action::Close` was given.
    Refused,
}

/// Why a peer is to be dropped: the peer's fault, never ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerMisbehaved {
    /// A piece index beyond the torrent.
    #[error("named a piece that does not exist")]
    NoSuchPiece,
    /// A bitfield of the wrong size, late or twice.
    #[error("sent a bitfield that does not fit")]
    BadBitfield,
    /// Too many invalid requests.
    #[error("sent too many invalid requests")]
    TooManyStrikes,
    /// Too many messages that say nothing.
    #[error("floods us with idle messages")]
    IdleFlood,
    /// Too much payload that nobody asked for.
    #[error("sent payload that nobody asked for")]
    Unsolicited,
    /// Hashes that do not lead to what is known.
    #[error("sent hashes that prove nothing")]
    BadHashes,
    /// Answers pile up that it does not read.
    #[error("asks on and on and does not read the answers")]
    ReadsNothing,
    /// An extension message that cannot be read.
    #[error("sent a malformed extension message")]
    BadExtension,
}

impl Engine {
    /// A peer connected to us.
    pub fn handle_accepted(&mut self, conn: ConnId, address: SocketAddr, now: Instant) {
        self.enter(conn, address, now);
    }

    /// Takes an incoming connection in; false if it is being closed at once.
    fn enter(&mut self, conn: ConnId, address: SocketAddr, now: Instant) -> bool {
        let key = self.peer_key(address);
        let counted = self.strangers.enter(conn, address.ip());
        let mut peer = Peer::new(conn, address, Origin::Incoming, key, now);
        peer.counted = counted.unwrap_or_default();
        self.peers.insert(peer);
        if counted.is_none() || self.stopping || self.bans.contains(&key) {
            self.close(conn, Farewell::Useless);
        }
        if let Some(surplus) = self.strangers.surplus() {
            self.peers.get_mut(surplus).into_iter().for_each(|peer| peer.counted = Counted::Open);
            self.close(surplus, Farewell::TimedOut);
        }
        self.peers.get(conn).is_some_and(|peer| peer.stage != Stage::Closing)
    }

    /// A peer's handshake came.
    pub fn handle_handshake(&mut self, conn: ConnId, theirs: &Handshake, now: Instant) -> Admission {
        let Some(peer) = self.peers.get(conn) else { return Admission::Refused };
        if peer.stage == Stage::Closing {
            return Admission::Refused;
        }
        if !self.may_shake(peer) {
            self.close(conn, Farewell::Useless);
            return Admission::Refused;
        }
        let (origin, dialled_for) = (peer.origin, peer.torrent);
        let known = self.by_hash.get(&theirs.info_hash).copied();
        let named = ![NO_NAME, self.config.peer_id].contains(&theirs.peer_id);
        if known.is_none()
            && origin == Origin::Incoming
            && named
            && let Some(elsewhere) = self.admit_absent(conn, theirs)
        {
            return elsewhere;
        }
        let torrent = match origin {
            Origin::Incoming => known,
            Origin::Outgoing | Origin::WebSeed(_) => dialled_for.filter(|_| known == dialled_for),
        };
        // No client calls itself nothing but zeros; who does so would be one with all others that do.
        let Some(torrent) = torrent.filter(|_| named) else {
            // An unknown torrent, or ourselves, or nobody: nothing is said (threats P4, P41).
            self.close(conn, Farewell::Useless);
            return Admission::Refused;
        };
        if origin == Origin::Incoming {
            let to = self.place(torrent);
            if to != self.config.core {
                self.actions.push_back(Action::HandOver { conn, to, handshake: *theirs });
                return Admission::Elsewhere;
            }
        }
        match origin {
            Origin::WebSeed(_) => self.admit_web_seed(conn, torrent, theirs, now),
            _ => self.admit(conn, torrent, theirs, now),
        }
        Admission::Here
    }

    /// What becomes of a connection for a torrent that is not open; `None` if it is of no use.
    fn admit_absent(&mut self, conn: ConnId, theirs: &Handshake) -> Option<Admission> {
        let (torrent, absence) = self.sleepers.find(&theirs.info_hash).filter(|_| !self.stopping)?;
        match absence {
            Absence::Closed => self.park(conn, torrent).then_some(Admission::Later),
            Absence::Sought => {
                self.actions.push_back(Action::Seek { conn, torrent });
                Some(Admission::Elsewhere)
            }
        }
    }

    /// Lets a connection wait for its torrent to be opened, if there is room.
    fn park(&mut self, conn: ConnId, torrent: TorrentId) -> bool {
        if self.parked.len() >= CONNECTIONS_PARKED_MAX {
            return false;
        }
        if !self.parked.iter().any(|&(other, _)| other == torrent) {
            self.actions.push_back(Action::Report(Report::Wanted { torrent }));
        }
        self.parked.push((torrent, conn));
        true
    }

    /// Connections that waited for a torrent that is there now: their handshakes are to be handled again.
    pub fn take_parked(&mut self, torrent: TorrentId) -> Vec<ConnId> {
        let parked = self.parked.extract_if(.., |(waits_for, _)| *waits_for == torrent);
        let waits =
            |conn: &ConnId| self.peers.get(*conn).is_some_and(|peer| peer.stage == Stage::Handshaking);
        parked.map(|(_, conn)| conn).filter(waits).collect()
    }

    /// Chooses the core for a new connection of `torrent` and counts it there at once, so that a
    /// burst of connections spreads.
    fn place(&self, torrent: TorrentId) -> CoreId {
        let Some(torrent) = self.torrent(torrent) else { return self.config.core };
        let to = torrent.shared.least_loaded();
        if to != self.config.core {
            torrent.shared.stats[to.0 as usize].peers.fetch_add(1, Ordering::Relaxed);
        }
        to
    }

    /// A connection that was to move to core `to` never gets there: it does not count there either.
    pub fn handle_handover_failed(&mut self, theirs: &Handshake, to: CoreId) {
        if let Some(torrent) = self.by_hash.get(&theirs.info_hash).and_then(|&id| self.torrent(id)) {
            torrent.stats(to).peers.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Another core handed over a connection whose handshake it read.
    pub fn handle_handover(
        &mut self,
        conn: ConnId,
        address: SocketAddr,
        theirs: &Handshake,
        now: Instant,
    ) -> Admission {
        let welcome = self.enter(conn, address, now);
        // `place` counted it already; `admit` counts it again.
        self.handle_handover_failed(theirs, self.config.core);
        let Some(&torrent) = self.by_hash.get(&theirs.info_hash) else {
            self.close(conn, Farewell::Useless);
            return Admission::Refused;
        };
        // It may come after this core was told to stop, or heard of a ban.
        if !welcome {
            return Admission::Refused;
        }
        self.admit(conn, torrent, theirs, now);
        Admission::Here
    }

    fn admit(&mut self, conn: ConnId, id: TorrentId, theirs: &Handshake, now: Instant) {
        let Some(torrent) = self.torrents[id.0 as usize].as_mut() else { return };
        let Some(peer) = self.peers.get_mut(conn) else { return };
        self.counters.handshakes.add(1);
        let shared = &torrent.shared;
        self.strangers.open(conn, peer.address.ip(), &mut peer.counted);
        peer.stage = Stage::Open;
        peer.torrent = Some(id);
        peer.fast = theirs.has_fast();
        peer.version = version(&shared.meta, peer.origin, theirs);
        peer.peer_id = theirs.peer_id;
        peer.bits = Bitfield::new(shared.meta.geometry.piece_count());
        peer.since = now;
        peer.have_cursor = torrent.have_log.len();
        let identity = Identity::of(peer.address, &self.config.grouping, self.config.secret);
        let (own, group) = (self.ledger.open(identity.key), self.ledger.open(identity.group));
        self.ledger.join(own, if identity.group == identity.key { 0 } else { identity.group });
        peer.accounts = Some([own, group]);
        let balance = if identity.one_machine { group } else { own };
        let limit = shared.limits.upload.as_ref();
        let lane = Lane { locality: peer.locality(), torrent: id, limit };
        self.egress.enter(conn, Membership { own, balance, group }, lane, now);
        torrent.peers.push(conn);
        torrent.stats(self.config.core).peers.fetch_add(1, Ordering::Relaxed);
        if peer.origin == Origin::Incoming {
            let ours = our_handshake(&self.config, answer_name(&shared.meta, peer.version));
            peer.out.frames.extend_from_slice(&ours.encode());
        }
        if theirs.has_extension() {
            greet(&self.config, shared, peer, self.exchange);
        }
        announce_pieces(shared, peer);
        name_node(&self.config, theirs, shared, peer);
        let (address, origin, peer_id) = (peer.address, peer.origin, theirs.peer_id);
        let here = CoreConn { core: self.config.core, conn };
        let report = Report::Connected { torrent: id, conn: here, address, origin, peer_id };
        self.actions.push_back(Action::Report(report));
        self.make_ready(conn);
    }

    /// A message came. An error means that the peer is being closed.
    pub fn handle_message(
        &mut self,
        conn: ConnId,
        message: Message<'_>,
        now: Instant,
    ) -> Result<(), PeerMisbehaved> {
        let outcome = self.message(conn, message, now);
        if outcome.is_err() {
            self.close(conn, Farewell::Misbehaved);
        }
        outcome
    }

    fn message(&mut self, conn: ConnId, message: Message<'_>, now: Instant) -> Result<(), PeerMisbehaved> {
        let Some(peer) = self.peers.get_mut(conn).filter(|peer| peer.is_open()) else { return Ok(()) };
        peer.heard_at = now;
        let first = std::mem::take(&mut peer.fresh);
        // The extension handshake may come before the bitfield.
        peer.fresh = first && matches!(message, Message::Extended { .. } | Message::KeepAlive);
        match message {
            Message::KeepAlive | Message::Suggest(_) | Message::Unknown { .. } => idle(peer),
            Message::Port(port) => self.node_named(conn, port),
            Message::Choke => {
                // Flapping costs us requests each time (threat P25).
                idle(peer)?;
                self.choked(conn)
            }
            Message::Unchoke => self.unchoked(conn, now),
            Message::Interested => self.wants_us(conn, true, now),
            Message::NotInterested => self.wants_us(conn, false, now),
            Message::AllowedFast(piece) => self.allowed_fast(conn, piece, now),
            Message::Have(piece) => self.has_piece(conn, piece, now),
            Message::Bitfield(bytes) => {
                let bits = Bitfield::from_wire(bytes, peer.bits.len());
                let bits = bits.ok_or(PeerMisbehaved::BadBitfield)?;
                if first { self.has_bits(conn, bits, now) } else { self.has_more(conn, &bits, now) }
            }
            Message::HaveAll if first => {
                let bits = Bitfield::full(peer.bits.len());
                self.has_bits(conn, bits, now)
            }
            Message::HaveNone if first => Ok(()),
            Message::HaveAll | Message::HaveNone => Err(PeerMisbehaved::BadBitfield),
            Message::Request(block) => {
                peer.asks.note_message();
                self.requested(conn, block)
            }
            Message::Cancel(block) => self.cancelled(conn, block),
            Message::Reject(block) => self.rejected(conn, block),
            Message::Extended { id: EXTENSION_HANDSHAKE_ID, payload } => self.greeted(conn, payload),
            Message::Extended { id: TROC_ID, payload } => self.identified(conn, payload, now),
            Message::Extended { id: PEX_ID, payload } => self.exchanged(conn, payload, now),
            Message::Extended { id: PUNCH_ID, payload } => self.punched(conn, payload, now),
            Message::Extended { id: UT_METADATA, payload } => self.asked_for_metadata(conn, payload, now),
            Message::Extended { .. } => idle(peer),
            Message::HashRequest(request) => self.hashes_wanted(conn, request, now),
            Message::Hashes { request, hashes } => self.hashes_given(conn, request, hashes),
            Message::HashReject(request) => self.hashes_refused(conn, request, now),
        }
    }

    /// The peer's bytes are not the protocol.
    pub fn handle_broken(&mut self, conn: ConnId) {
        self.close(conn, Farewell::Misbehaved);
    }

    /// The control thread wants the connection closed: the peer has another, or has lost its tracker.
    pub fn handle_unwanted(&mut self, conn: ConnId) {
        self.close(conn, Farewell::Useless);
    }

    /// The other side closed, or the connection broke.
    pub fn handle_gone(&mut self, conn: ConnId) {
        self.close(conn, Farewell::Gone);
    }

    fn wants_us(&mut self, conn: ConnId, wants: bool, now: Instant) -> Result<(), PeerMisbehaved> {
        let Some(peer) = self.peers.get_mut(conn) else { return Ok(()) };
        if peer.flags.wants_us == wants || !wants {
            idle(peer)?;
        }
        if peer.flags.wants_us == wants {
            return Ok(());
        }
        peer.flags.wants_us = wants;
        self.leeches = if wants { self.leeches + 1 } else { self.leeches - 1 };
        self.interest_changed(conn, now);
        Ok(())
    }

    fn has_piece(&mut self, conn: ConnId, piece: u32, now: Instant) -> Result<(), PeerMisbehaved> {
        let Some(peer) = self.peers.get_mut(conn) else { return Ok(()) };
        if piece >= peer.bits.len() {
            return Err(PeerMisbehaved::NoSuchPiece);
        }
        if !peer.bits.set(piece) {
            return idle(peer);
        }
        if self.gains(conn, piece) {
            self.become_interested(conn);
            // Nothing else has changed of what may be asked for: one look for each piece would be dear.
            if self.peers.get(conn).is_some_and(|peer| peer.gives(piece)) {
                self.ask_more(conn, now);
            }
        }
        Ok(())
    }

    /// Notes one of the peer's bits that is newly set; whether we lack the piece.
    fn gains(&mut self, conn: ConnId, piece: u32) -> bool {
        self.note_announced(conn, piece);
        let Some(peer) = self.peers.get(conn) else { return false };
        let Some(torrent) = peer.torrent.and_then(|id| self.torrents[id.0 as usize].as_ref()) else {
            return false;
        };
        if peer.flags.has_unchoked {
            torrent.shared.givers.gain(piece, &peer.bits);
        }
        if peer.is_seed() {
            torrent.stats(self.config.core).seeds.fetch_add(1, Ordering::Relaxed);
        }
        let lacking = torrent.shared.lacks(piece);
        if lacking {
            self.take_over(conn, piece);
        }
        lacking
    }

    /// A bitfield that is not the first message. BEP 3 has no such thing, but aria2 sends one in
    /// place of many haves; what it adds counts, and pieces are never taken back by it.
    fn has_more(&mut self, conn: ConnId, bits: &Bitfield, now: Instant) -> Result<(), PeerMisbehaved> {
        let Some(peer) = self.peers.get_mut(conn) else { return Ok(()) };
        idle(peer)?;
        let mut useful = false;
        for piece in bits.ones() {
            let fresh = self.peers.get_mut(conn).is_some_and(|peer| peer.bits.set(piece));
            useful |= fresh && self.gains(conn, piece);
        }
        if useful {
            self.become_interested(conn);
            self.ask_more(conn, now);
        }
        Ok(())
    }

    fn has_bits(&mut self, conn: ConnId, bits: Bitfield, now: Instant) -> Result<(), PeerMisbehaved> {
        let Some(peer) = self.peers.get_mut(conn) else { return Ok(()) };
        if peer.bits.count() != 0 {
            return Err(PeerMisbehaved::BadBitfield);
        }
        peer.bits = bits;
        let Some(torrent) = peer.torrent.and_then(|id| self.torrents[id.0 as usize].as_ref()) else {
            return Ok(());
        };
        debug_assert!(!peer.flags.has_unchoked, "nothing was said before, so it gives nothing yet");
        let useful = peer.bits.ones().any(|piece| torrent.shared.lacks(piece));
        if peer.is_seed() {
            torrent.stats(self.config.core).seeds.fetch_add(1, Ordering::Relaxed);
        }
        self.note_announced_all(conn);
        if useful {
            self.become_interested(conn);
            self.ask_more(conn, now);
        }
        Ok(())
    }

    /// Says that we want their pieces, once.
    pub(super) fn become_interested(&mut self, conn: ConnId) {
        let Some(peer) = self.peers.get_mut(conn) else { return };
        if !peer.flags.interested && !self.stopping {
            peer.flags.interested = true;
            Message::Interested.encode(&mut peer.out.frames);
            self.make_ready(conn);
        }
    }

    fn requested(&mut self, conn: ConnId, block: BlockRef) -> Result<(), PeerMisbehaved> {
        let Some(peer) = self.peers.get_mut(conn) else { return Ok(()) };
        let Some(torrent) = peer.torrent.and_then(|id| self.torrents[id.0 as usize].as_ref()) else {
            return Ok(());
        };
        let shared = &torrent.shared;
        let valid = shared.meta.geometry.contains(block) && block.length <= REQUEST_BYTES_MAX;
        let room = peer.requests.len() < REQUESTS_QUEUED_MAX;
        if valid && room && shared.has(block.piece) && takes_request(peer, block.piece) {
            peer.vain_requests = 0;
            if peer.requests.is_empty() {
                peer.waits_since = peer.heard_at;
            }
            peer.probe.note_request(peer.requests.len(), peer.heard_at);
            peer.requests.push_back(block);
        } else {
            // A request that raced with our choke is no offence; one out of bounds is.
            reject(peer, block)?;
            let offence = !valid || !room;
            peer.strikes += u32::from(offence);
            peer.vain_requests += u32::from(!offence);
            if peer.strikes > STRIKES_MAX || peer.vain_requests > VAIN_REQUESTS_MAX {
                return Err(PeerMisbehaved::TooManyStrikes);
            }
        }
        self.make_ready(conn);
        Ok(())
    }

    fn cancelled(&mut self, conn: ConnId, block: BlockRef) -> Result<(), PeerMisbehaved> {
        let Some(peer) = self.peers.get_mut(conn) else { return Ok(()) };
        // With nothing queued there is nothing to look through.
        if !peer.requests.is_empty() {
            peer.asks.note_message();
        }
        let Some(at) = peer.requests.iter().position(|&queued| queued == block) else {
            // Answered already: an honest cancel that crossed its block. Or never asked for.
            let Some(left) = peer.answered.checked_sub(1) else { return idle(peer) };
            peer.answered = left;
            return Ok(());
        };
        peer.requests.remove(at);
        peer.probe.forget();
        let outcome = reject(peer, block);
        self.make_ready(conn);
        outcome
    }

    fn greeted(&mut self, conn: ConnId, payload: &[u8]) -> Result<(), PeerMisbehaved> {
        let theirs = ExtensionHandshake::parse(payload).map_err(|_| PeerMisbehaved::BadExtension)?;
        let Some(peer) = self.peers.get_mut(conn) else { return Ok(()) };
        if let Some(reqq) = theirs.reqq {
            peer.reqq = reqq as usize;
        }
        peer.upload_only = theirs.upload_only;
        peer.metadata.set_id(theirs.messages.ut_metadata);
        if let (Some(port), Some(torrent)) = (theirs.port, peer.torrent) {
            let conn = CoreConn { core: self.config.core, conn };
            let report = Report::Listens { torrent, conn, port };
            self.actions.push_back(Action::Report(report));
        }
        idle(peer)?;
        self.note_spoken(conn, &theirs);
        if let Some(id) = theirs.messages.troc_id {
            self.say_hello(conn, id);
        }
        Ok(())
    }
}

/// Counts a message that changes nothing; too many in a row are a flood (threats P6, P25).
pub(super) fn idle(peer: &mut Peer) -> Result<(), PeerMisbehaved> {
    peer.idle_messages += 1;
    if peer.idle_messages > IDLE_MESSAGES_MAX { Err(PeerMisbehaved::IdleFlood) } else { Ok(()) }
}

/// Whether the peer may ask for blocks of a piece; counts it if it is choked.
fn takes_request(peer: &mut Peer, piece: u32) -> bool {
    peer.flags.unchoked || peer.offered.as_mut().is_some_and(|offered| offered.take(piece))
}

/// Says that a request will not be served, to a peer that understands it (BEP 6). One that asks on
/// and on without reading the answers is in error: they would fill our memory (threat P13).
pub(super) fn reject(peer: &mut Peer, block: BlockRef) -> Result<(), PeerMisbehaved> {
    peer.note_answered();
    if !peer.fast {
        return Ok(());
    }
    if peer.rejects_waiting >= REJECTS_WAITING_MAX {
        return Err(PeerMisbehaved::ReadsNothing);
    }
    peer.rejects_waiting += 1;
    Message::Reject(block).encode(&mut peer.out.frames);
    Ok(())
}

pub(super) fn our_handshake(config: &EngineConfig, info_hash: InfoHash) -> Handshake {
    let ours = Handshake::new(info_hash, config.peer_id).with_fast().with_extension();
    if config.dht_port.is_some() { ours.with_dht() } else { ours }
}

/// Our extension handshake (BEP 10).
pub(super) fn greet(config: &EngineConfig, shared: &SharedTorrent, peer: &mut Peer, exchange: Exchange) {
    let troc_id = config.identity.as_ref().map(|_| TROC_ID);
    let metadata_size = u32::try_from(shared.meta.info.len()).ok().filter(|&bytes| bytes > 0);
    let ut_metadata = metadata_size.map(|_| UT_METADATA);
    let mut messages = ExtensionIds { troc_id, ut_metadata, ..ExtensionIds::default() };
    announce(exchange, shared.meta.private, &mut messages);
    let ours = ExtensionHandshake {
        messages,
        metadata_size,
        reqq: Some(REQUESTS_QUEUED_MAX as u32),
        version: Some(concat!("troc ", env!("CARGO_PKG_VERSION")).to_owned()),
        your_ip: Some(peer.address.ip()),
        port: config.listen_port,
        upload_only: shared.is_satisfied(),
    };
    peer.told_upload_only = Some(ours.upload_only);
    let mut payload = Vec::with_capacity(128);
    ours.encode(&mut payload);
    Message::Extended { id: EXTENSION_HANDSHAKE_ID, payload: &payload }.encode(&mut peer.out.frames);
}

/// Our pieces: bitfield, or its one-byte forms where the peer knows them (BEP 6).
fn announce_pieces(shared: &SharedTorrent, peer: &mut Peer) {
    let bits = shared.have_bits();
    let message = match (peer.fast, bits.count()) {
        (true, 0) => Message::HaveNone,
        (false, 0) => return,
        (true, _) if bits.is_full() => Message::HaveAll,
        _ => Message::Bitfield(bits.as_bytes()),
    };
    message.encode(&mut peer.out.frames);
}

/// Blocks that a request of `length` bytes weighs in the queue: at least one.
pub(super) const fn weight(length: u32) -> usize {
    length.div_ceil(BLOCK_BYTES) as usize
}
