//! One connection: what both sides said, what we asked for, what they asked for.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::admission::Counted;
use super::allowance::{Asks, ColdReads, Drain};
use super::allowed_fast::Offered;
use super::egress::Locality;
use super::encryption::Manner;
use super::exchange::Talk;
use super::held::Held;
use super::metadata::MetadataAsks;
use super::pace::{BURST_BLOCKS_MAX, Burst, Pace, REQQ_DEFAULT};
use super::proof::Proof;
use super::scheduler::{InFlight, Turn};
use super::versions::Name;
use super::view::Meter;
use crate::base::address::AddressClass;
use crate::base::bitfield::Bitfield;
use crate::base::geometry::BlockRef;
use crate::base::ids::{ConnId, PeerId, SlotId, TorrentId, WebSeedId};
use crate::base::limits::{
    ALLOWED_FAST_KEPT_MAX, COMEBACKS_MAX, HASH_ASKS_WAITING_MAX, REJECTS_WAITING_MAX, RELIEVED_TIME,
    REQUESTS_OUT_MAX, REQUESTS_QUEUED_MAX, WEB_SEED_REQUESTS_OUT_MIN,
};
use crate::base::segment::Segment;
use crate::base::time::{Instant, Span};
use crate::proto::wire::hashes::HashRequest;
use crate::shared::ledger::AccountId;

/// Who opened the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// They did.
    Incoming,
    /// We did.
    Outgoing,
    /// Our own bridge, to this web seed: nobody out there is named by its address.
    WebSeed(WebSeedId),
}

/// How far the connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// TCP is being connected.
    Dialing,
    /// Their handshake is awaited.
    Handshaking,
    /// Messages flow.
    Open,
    /// `Action::Close` was given; only `handle_closed` is still to come.
    Closing,
}

/// Which BitTorrent a connection is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// BEP 3.
    #[default]
    V1,
    /// BEP 52: it answers hash requests.
    V2,
}

/// A request of ours that waits for its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Chunk of the block.
    pub chunk: u32,
    /// Block in the chunk.
    pub block: u32,
    /// When it was asked for.
    pub at: Instant,
}

/// A choice that each side states about the other (BEP 3): all start choked and not interested.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flags {
    /// We do not serve them.
    pub unchoked: bool,
    /// We want their pieces.
    pub interested: bool,
    /// They serve us.
    pub unchokes_us: bool,
    /// They did so at some time.
    pub has_unchoked: bool,
    /// They want our pieces.
    pub wants_us: bool,
}

/// A chunk whose slot a send holds.
#[derive(Clone, Copy, Debug)]
pub struct Pin {
    /// The chunk.
    pub chunk: u32,
    /// Where its bytes are while it is pinned.
    pub slot: SlotId,
    /// Offset of its first byte in the slot's payload area.
    pub residue: u32,
}

/// Follows one request of a peer at a time from its arrival to the end of the send that carries its
/// block: a time per request would cost memory and a clock.
#[derive(Clone, Copy, Debug, Default)]
pub enum Probe {
    /// The next request will be followed.
    #[default]
    Idle,
    /// So many requests stand before it; it came at that time.
    Queued(usize, Instant),
    /// Its block is in the send.
    Sending(Instant),
}

impl Probe {
    /// A request came and joins `before` others.
    pub fn note_request(&mut self, before: usize, now: Instant) {
        if matches!(self, Self::Idle) {
            *self = Self::Queued(before, now);
        }
    }

    /// The first `count` requests moved into the send.
    pub fn note_taken(&mut self, count: usize) {
        if let Self::Queued(before, at) = *self {
            *self = if before < count { Self::Sending(at) } else { Self::Queued(before - count, at) };
        }
    }

    /// The send ended whole: how long the request took, if its block was in it.
    pub fn note_sent(&mut self, now: Instant) -> Option<Span> {
        let Self::Sending(at) = *self else { return None };
        *self = Self::Idle;
        Some(now.since(at))
    }

    /// Requests left the queue otherwise: which one stands where is not known any more.
    pub fn forget(&mut self) {
        if matches!(self, Self::Queued(..)) {
            *self = Self::Idle;
        }
    }
}

/// What is on its way to the peer.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// Encoded control messages that wait for the next send.
    pub frames: Vec<u8>,
    /// What the send in flight, or the continuation of a short one, still has to send.
    pub segments: VecDeque<Segment>,
    /// Chunks pinned for it, in the order of their blocks; one pin holds for a run of blocks.
    pub pins: Vec<Pin>,
    /// What was sent and is still read.
    pub held: Held,
    /// Bytes of `segments` that are still to go, all and payload.
    pub left_bytes: u64,
    /// See `left_bytes`.
    pub left_payload_bytes: u64,
    /// The chunk that its last block came from: who goes on in it is no new reader of it.
    pub reading: Option<u32>,
    /// A send is in flight.
    pub in_flight: bool,
    /// The connection is among those whose control frames leave next.
    pub due: bool,
    /// It is its turn: the next send carries blocks.
    pub turn: Option<Turn>,
    /// The piece of the last block that went into a send, and how much of it in a row.
    pub piece: Option<(u32, u32)>,
    /// What the payload of the send was charged as.
    pub begun: Option<InFlight>,
    /// It stands among those that the tick makes ready again.
    pub throttled: bool,
    /// How much a send carries.
    pub burst: Burst,
}

/// One connection of one core.
#[derive(Debug)]
pub struct Peer {
    /// Its id.
    pub conn: ConnId,
    /// The other end.
    pub address: SocketAddr,
    /// Who opened it.
    pub origin: Origin,
    /// How it stands in the counts of strangers.
    pub counted: Counted,
    /// How far it is.
    pub stage: Stage,
    /// Which torrent, once known.
    pub torrent: Option<TorrentId>,
    /// What it calls itself; zeros before its handshake.
    pub peer_id: PeerId,
    /// By which it is blamed for its blocks, and banned: of its address.
    pub key: u64,
    /// By which it is credited for them: the same, or of the key that it proved.
    pub account_key: u64,
    /// How far that proof is.
    pub proof: Proof,
    /// What it says of other peers, and hears.
    pub talk: Talk,
    /// What it asks of the metadata.
    pub metadata: MetadataAsks,
    /// Hash requests that were taken and wait for a limit; at most `HASH_ASKS_WAITING_MAX`.
    pub hash_asks: VecDeque<HashRequest>,
    /// Of what was sent to it, what has earned its group hashes.
    pub paid_bytes: u64,
    /// Accounts that it keeps open: its own and its group's, once messages flow.
    pub accounts: Option<[AccountId; 2]>,
    /// Who wants and serves whom.
    pub flags: Flags,
    /// While it is unchoked: it is not choked before.
    pub kept_until: Instant,
    /// What it may ask for while it is choked.
    pub offered: Option<Box<Offered>>,
    /// Pieces that it gives us while we are choked; at most `ALLOWED_FAST_KEPT_MAX`.
    pub allowed: Vec<u32>,
    /// What they have.
    pub bits: Bitfield,
    /// Bits may still come as one message (BEP 3: only first).
    pub fresh: bool,
    /// It named a node of the distributed hash table already.
    pub node_named: bool,
    /// They speak the fast extension (BEP 6).
    pub fast: bool,
    /// By which name of the torrent it was dialled.
    pub name: Name,
    /// What both sides speak.
    pub version: Version,
    /// It was asked for leaves ahead in vain (`ahead.rs`), and is not again.
    pub leafless: bool,
    /// Our hash requests that it has not answered, whether or not the answer is still of use.
    pub hashes_due: u32,
    /// They said that they fetch nothing (BEP 21).
    pub upload_only: bool,
    /// What we said of that, to a peer that hears it.
    pub told_upload_only: Option<bool>,
    /// Requests they queue (BEP 10).
    pub reqq: usize,
    /// Our requests, oldest first.
    pub asked: VecDeque<Asked>,
    /// Requests we took back; their blocks may still come and are no offence.
    pub grace: u32,
    /// The chunk we are asking them for.
    pub current: Option<u32>,
    /// See [`Pace`].
    pub pace: Pace,
    /// When a block last came, or the first request since then went out.
    pub block_at: Instant,
    /// It took too long: nothing more is asked before then, unless a block comes.
    pub snubbed_until: Option<Instant>,
    /// For how long it is left alone when it is late the next time.
    pub alone_next: Span,
    /// How often it was asked again because one came, since it was last left alone for long.
    pub comebacks: u32,
    /// Their requests, in the order in which they are served.
    pub requests: VecDeque<BlockRef>,
    /// Requests that were served or rejected, as many as may be under way: a cancel that crossed the answer
    /// is no offence.
    pub answered: u32,
    /// Since when the first of them waits, or when some of them were last sent.
    pub waits_since: Instant,
    /// Times one of them, for the metrics.
    pub probe: Probe,
    /// The first of them waits for its chunk.
    pub missed: bool,
    /// What goes out.
    pub out: Outgoing,
    /// How much of the torrent's have log they were told.
    pub have_cursor: usize,
    /// When the stage began.
    pub since: Instant,
    /// When anything last came.
    pub heard_at: Instant,
    /// When a send last began or made progress.
    pub sent_at: Instant,
    /// Invalid requests so far.
    pub strikes: u32,
    /// Requests in a row that we could not serve, though they were valid.
    pub vain_requests: u32,
    /// Rejects that wait for the next send.
    pub rejects_waiting: u32,
    /// Payload nobody asked for.
    pub unsolicited_bytes: u64,
    /// Keep-alives and other idle messages since the last tick.
    pub idle_messages: u32,
    /// How fast it reads what pins slots.
    pub drain: Drain,
    /// What may be read from disk for it.
    pub cold_reads: ColdReads,
    /// How much more it may ask for and take back.
    pub asks: Asks,
    /// Payload received.
    pub received_bytes: u64,
    /// Payload sent.
    pub sent_bytes: u64,
    /// How fast payload comes, and goes.
    pub meters: [Meter; 2],
    /// How it began.
    pub manner: Manner,
    /// Why it is being closed.
    pub farewell: Option<super::action::Farewell>,
}

impl Peer {
    /// A connection that has just begun.
    pub fn new(conn: ConnId, address: SocketAddr, origin: Origin, key: u64, now: Instant) -> Self {
        let stage = match origin {
            Origin::Incoming | Origin::WebSeed(_) => Stage::Handshaking,
            Origin::Outgoing => Stage::Dialing,
        };
        Self {
            conn,
            address,
            origin,
            counted: Counted::Not,
            stage,
            torrent: None,
            peer_id: PeerId([0; 20]),
            key,
            account_key: key,
            proof: Proof::default(),
            talk: Talk::new(now),
            metadata: MetadataAsks::default(),
            hash_asks: VecDeque::new(),
            paid_bytes: 0,
            accounts: None,
            flags: Flags::default(),
            kept_until: now,
            offered: None,
            allowed: Vec::new(),
            bits: Bitfield::new(0),
            fresh: true,
            node_named: false,
            fast: false,
            name: Name::First,
            version: Version::V1,
            leafless: false,
            hashes_due: 0,
            upload_only: false,
            told_upload_only: None,
            reqq: REQQ_DEFAULT,
            asked: VecDeque::new(),
            grace: 0,
            current: None,
            pace: Pace::default(),
            block_at: now,
            snubbed_until: None,
            alone_next: RELIEVED_TIME,
            comebacks: 0,
            requests: VecDeque::new(),
            answered: 0,
            waits_since: now,
            probe: Probe::default(),
            missed: false,
            out: Outgoing::default(),
            have_cursor: 0,
            since: now,
            heard_at: now,
            sent_at: now,
            strikes: 0,
            vain_requests: 0,
            rejects_waiting: 0,
            unsolicited_bytes: 0,
            idle_messages: 0,
            drain: Drain::default(),
            cold_reads: ColdReads::default(),
            asks: Asks::default(),
            received_bytes: 0,
            sent_bytes: 0,
            meters: [Meter::default(); 2],
            manner: Manner::Plain,
            farewell: None,
        }
    }

    /// Whether it took too long, and is left alone for that.
    pub const fn is_snubbed(&self) -> bool {
        self.snubbed_until.is_some()
    }

    /// A block came that was taken back. Who was snubbed for its silence gives again, and is asked again:
    /// true. So often at most, or one that stalls over and over would have its requests for itself.
    pub fn come_back(&mut self, now: Instant) -> bool {
        let back = self.is_snubbed() && self.comebacks < COMEBACKS_MAX;
        if back {
            self.snubbed_until = None;
            self.comebacks += 1;
            self.pace.begin_anew(now.since(self.block_at));
        }
        back
    }

    /// Whether requests are outstanding and no block has come for far too long.
    pub fn is_late(&self, now: Instant) -> bool {
        let late = self.pace.patience().is_some_and(|patience| now.since(self.block_at) > patience);
        late && !self.asked.is_empty() && !self.is_snubbed()
    }

    /// Whether they have every piece.
    pub fn is_seed(&self) -> bool {
        self.bits.is_whole()
    }

    /// Whether it gives blocks of a piece: it has that, and lets us ask for it.
    pub fn gives(&self, piece: u32) -> bool {
        let lets = self.flags.unchokes_us || self.allowed.contains(&piece);
        lets && self.is_open() && !self.is_snubbed() && self.bits.get(piece)
    }

    /// Whether it lets us ask for a piece that it has.
    pub fn lets_ask(&self) -> bool {
        self.flags.unchokes_us || self.allowed.iter().any(|&piece| self.bits.get(piece))
    }

    /// Whether a web server is behind it, and no peer that others could be told of.
    pub const fn is_web_seed(&self) -> bool {
        matches!(self.origin, Origin::WebSeed(_))
    }

    /// Whether messages flow.
    pub const fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open)
    }

    /// Where it is.
    pub fn locality(&self) -> Locality {
        match AddressClass::of(self.address.ip()).is_stranger() {
            true => Locality::Public,
            false => Locality::Local,
        }
    }

    /// Requests to keep outstanding.
    pub fn depth(&self) -> usize {
        let depth = self.pace.depth(self.reqq);
        if self.is_web_seed() { depth.max(WEB_SEED_REQUESTS_OUT_MIN) } else { depth }
    }

    /// Whether a send may begin: the connection stands, and none is in flight.
    pub const fn may_send(&self) -> bool {
        matches!(self.stage, Stage::Handshaking | Stage::Open) && !self.out.in_flight
    }

    /// One of their requests left the queue: a cancel for it may be on its way.
    pub fn note_answered(&mut self) {
        self.answered = (self.answered + 1).min(REQUESTS_QUEUED_MAX as u32);
    }

    /// The first bound on what is kept for it that does not hold, for checks.
    pub fn over_a_limit(&self) -> Option<String> {
        let pins_max = 2 * BURST_BLOCKS_MAX;
        [
            ("requests queued", self.requests.len(), REQUESTS_QUEUED_MAX),
            ("requests out", self.asked.len(), REQUESTS_OUT_MAX),
            ("rejects waiting", self.rejects_waiting as usize, REJECTS_WAITING_MAX as usize),
            ("allowed pieces", self.allowed.len(), ALLOWED_FAST_KEPT_MAX),
            ("hash requests waiting", self.hash_asks.len(), HASH_ASKS_WAITING_MAX),
            ("slots pinned for a send", self.out.pins.len(), pins_max),
        ]
        .into_iter()
        .find(|(_, count, most)| count > most)
        .map(|(what, count, most)| format!("{count} {what}, {most} are allowed"))
    }

    /// Place of a request among those outstanding; the front one in the usual case.
    pub fn asked_index(&self, chunk: u32, block: u32) -> Option<usize> {
        self.asked.iter().position(|asked| asked.chunk == chunk && asked.block == block)
    }
}

/// The connections of a core, by their id.
#[derive(Debug, Default)]
pub struct Peers {
    entries: Vec<Option<Box<Peer>>>,
    count: usize,
}

impl Peers {
    /// Adds a connection; its place must be free.
    pub fn insert(&mut self, peer: Peer) {
        let index = peer.conn.index as usize;
        if self.entries.len() <= index {
            self.entries.resize_with(index + 1, || None);
        }
        assert!(self.entries[index].is_none(), "connection {index} is taken");
        self.entries[index] = Some(Box::new(peer));
        self.count += 1;
    }

    /// Takes a connection out.
    pub fn remove(&mut self, conn: ConnId) -> Option<Box<Peer>> {
        self.get(conn)?;
        self.count -= 1;
        self.entries[conn.index as usize].take()
    }

    /// The connection, if the id is still good.
    pub fn get(&self, conn: ConnId) -> Option<&Peer> {
        self.entries.get(conn.index as usize)?.as_deref().filter(|peer| peer.conn == conn)
    }

    /// The connection, if the id is still good.
    pub fn get_mut(&mut self, conn: ConnId) -> Option<&mut Peer> {
        self.entries.get_mut(conn.index as usize)?.as_deref_mut().filter(|peer| peer.conn == conn)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.entries.iter().filter_map(Option::as_deref)
    }

    /// All of them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Peer> {
        self.entries.iter_mut().filter_map(Option::as_deref_mut)
    }

    /// Every `parts`th of them from place `part` on.
    pub fn part(&self, part: usize, parts: usize) -> impl Iterator<Item = &Peer> {
        self.entries.iter().skip(part).step_by(parts).filter_map(Option::as_deref)
    }

    /// Those in the next `count` places from `from` on, and where to go on; `None` at the end.
    pub fn places(&self, from: usize, count: usize) -> (impl Iterator<Item = &Peer>, Option<usize>) {
        let next = from.saturating_add(count);
        let some = self.entries.iter().skip(from).take(count).filter_map(Option::as_deref);
        (some, Some(next).filter(|&next| next < self.entries.len()))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_times_one_request_from_its_arrival_to_the_end_of_its_send() {
        let mut probe = Probe::default();
        probe.note_request(2, Instant(10));
        probe.note_request(3, Instant(11));
        probe.note_taken(2);
        assert_eq!(probe.note_sent(Instant(20)), None, "it still stands in the queue");
        probe.note_taken(1);
        probe.note_request(0, Instant(21));
        probe.forget();
        assert_eq!(probe.note_sent(Instant(30)), Some(Span(20)));
        probe.note_request(0, Instant(40));
        probe.forget();
        probe.note_taken(1);
        assert_eq!(probe.note_sent(Instant(50)), None, "it was taken back");
    }
}
