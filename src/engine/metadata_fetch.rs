//! The info dictionary of a magnet link out of what peers send (BEP 9); sans-io. One per link, on the control
//! thread, before there is a torrent.
//!
//! Pieces of the metadata have no hashes of their own, only the whole has. So each peer gives a copy of its
//! own, of the size that it announced, and whoever gave a wrong one is known: nobody is blamed for others,
//! and no lie about a size can spoil what somebody else gives. The first whole copy with the right hash ends
//! the fetch.
//!
//! `METADATA_GIVERS_MAX` give at a time. Those whom we dial and those who come to us have a place each, lent
//! to the others while nobody waits for it. Who takes longer than its turn gives way to its like that waits
//! and begins anew later, with a turn twice as long; after `METADATA_TURNS_MAX` turns, while all places are
//! taken that are for its like, it is parted from. Who had fewer turns mostly goes first, and waits for one
//! first turn at most unless somebody as fresh is giving: those that drip, however many, keep nobody from a
//! turn of his own.
//!
//! Copies of all fetches together are bounded by a `Hoard`.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use super::fetch::{Fault, FetchAction, PeerNumber, Wishes};
use super::peer::Origin;
use crate::base::limits::{
    METADATA_CALLERS_MAX, METADATA_COPIES_BYTES_MAX, METADATA_GIVERS_MAX, METADATA_PEERS_MAX,
    METADATA_REQUESTS_OUT, METADATA_SILENCE, METADATA_TURN, METADATA_TURNS_MAX, METAINFO_BYTES_MAX,
};
use crate::base::time::{Instant, Span};
use crate::proto::magnet::{Match, Topics};
use crate::proto::wire::metadata::{METADATA_PIECE_BYTES, piece_range};

/// Turns are not doubled more often than that.
const DOUBLINGS_MAX: u32 = 5;

/// What a fetch wants done; a peer is asked for a piece.
pub type MetadataAction = FetchAction<u32, Found>;

/// What a fetch comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// All of it, right.
    Info(Vec<u8>),
    /// What is asked for has two hashes that no dictionary has together: there is one that is by one of them
    /// what is asked for.
    Torn,
}

/// The copies that are not whole yet, over all fetches that share it.
#[derive(Clone, Debug, Default)]
pub struct Hoard(Rc<Cell<Sum>>);

/// How many copies, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    copies: usize,
    bytes: usize,
}

impl Hoard {
    /// Whether a copy of `own_bytes` may have one more piece. From half of `METADATA_COPIES_BYTES_MAX` on
    /// each may have its even part of the other half: who has more goes, and not who came later.
    fn has_room(&self, own_bytes: usize) -> bool {
        let (half, Sum { copies, bytes }) = (METADATA_COPIES_BYTES_MAX / 2, self.0.get());
        bytes < half || own_bytes < half / copies.max(1)
    }

    fn change(&self, by: impl Fn(&mut Sum)) {
        let mut sum = self.0.get();
        by(&mut sum);
        self.0.set(sum);
    }
}

/// What a copy takes of a hoard, until it is dropped.
#[derive(Debug)]
struct Held {
    of: Hoard,
    bytes: usize,
}

impl Held {
    /// A copy begins.
    fn new(of: Hoard) -> Self {
        of.change(|sum| sum.copies += 1);
        Self { of, bytes: 0 }
    }

    fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.of.change(|sum| sum.bytes += bytes);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let bytes = self.bytes;
        self.of.change(|sum| (sum.copies, sum.bytes) = (sum.copies - 1, sum.bytes - bytes));
    }
}

/// See the module.
#[derive(Debug)]
pub struct MetadataFetch {
    wanted: Topics,
    hoard: Hoard,
    peers: BTreeMap<PeerNumber, Peer>,
    /// Those that wait to give, and since when, in that order. Invariant: they are in `peers` and have no
    /// copy.
    waiting: VecDeque<(PeerNumber, Instant)>,
    wishes: Wishes<u32, Found>,
}

#[derive(Debug)]
struct Peer {
    /// Who opened the connection.
    origin: Origin,
    /// Of the whole metadata, by its own word: the first that it gave.
    total_bytes: u32,
    /// Turns that were over before it was done.
    turns: u32,
    copy: Option<Copy>,
}

/// What a giver gave. Invariant: `left` pieces are `None`; `asked` has no piece that is there.
#[derive(Debug)]
struct Copy {
    pieces: Vec<Option<Box<[u8]>>>,
    left: usize,
    next: u32,
    asked: Vec<u32>,
    held: Held,
    since: Instant,
    heard_at: Instant,
}

/// When and how a giver's turn ends.
#[derive(Clone, Copy, Debug)]
struct End {
    at: Instant,
    /// The place was lent by others: that counts as no turn.
    lent: bool,
}

impl Copy {
    fn new(total_bytes: u32, of: Hoard, now: Instant) -> Self {
        let count = total_bytes.div_ceil(METADATA_PIECE_BYTES) as usize;
        let (pieces, asked) = (vec![None; count], Vec::with_capacity(METADATA_REQUESTS_OUT));
        let held = Held::new(of);
        Self { pieces, left: count, next: 0, asked, held, since: now, heard_at: now }
    }

    /// The next piece to ask for, if more may be outstanding.
    fn ask(&mut self) -> Option<u32> {
        let more = self.asked.len() < METADATA_REQUESTS_OUT && (self.next as usize) < self.pieces.len();
        let piece = more.then_some(self.next)?;
        self.next += 1;
        self.asked.push(piece);
        Some(piece)
    }
}

impl Peer {
    /// Whether it came to us.
    fn is_caller(&self) -> bool {
        self.origin == Origin::Incoming
    }

    /// Whether both came to us, or neither did.
    fn is_like(&self, other: &Self) -> bool {
        self.is_caller() == other.is_caller()
    }

    /// How long it may give while its like waits.
    fn turn(&self) -> Span {
        Span(METADATA_TURN.0 << self.turns.min(DOUBLINGS_MAX))
    }

    /// Takes a piece; `Err` if it cannot be one. Pieces that were not asked for are no offence: they may be
    /// late answers of an earlier turn.
    fn take(&mut self, piece: u32, total_bytes: u32, bytes: &[u8], now: Instant) -> Result<(), Fault> {
        let range = piece_range(piece, self.total_bytes).ok_or(Fault::Lied)?;
        if total_bytes != self.total_bytes || bytes.len() != range.len() {
            return Err(Fault::Lied);
        }
        let Some(copy) = &mut self.copy else { return Ok(()) };
        if let Some(at) = copy.asked.iter().position(|&asked| asked == piece) {
            if !copy.held.of.has_room(copy.held.bytes) {
                return Err(Fault::Long);
            }
            copy.held.add(bytes.len());
            copy.asked.swap_remove(at);
            copy.pieces[piece as usize] = Some(bytes.into());
            copy.left -= 1;
            copy.heard_at = now;
        }
        Ok(())
    }

    /// The whole copy, once it is there.
    fn whole(&self) -> Option<Vec<u8>> {
        let copy = self.copy.as_ref().filter(|copy| copy.left == 0)?;
        let mut whole = Vec::with_capacity(self.total_bytes as usize);
        copy.pieces.iter().flatten().for_each(|piece| whole.extend_from_slice(piece));
        Some(whole)
    }
}

impl MetadataFetch {
    /// A fetch of the info dictionary with these hashes, from nobody yet. Its copies count in `hoard`.
    pub const fn new(wanted: Topics, hoard: Hoard) -> Self {
        Self { wanted, hoard, peers: BTreeMap::new(), waiting: VecDeque::new(), wishes: Wishes::new() }
    }

    /// A peer's extension handshake came: it has metadata of `total_bytes`, or none. What it says again
    /// changes nothing.
    pub fn handle_ready(
        &mut self,
        (peer, origin): (PeerNumber, Origin),
        total_bytes: Option<u32>,
        now: Instant,
    ) {
        if self.is_done() || self.peers.contains_key(&peer) {
            return;
        }
        let fits = |bytes: &u32| *bytes > 0 && *bytes as usize <= METAINFO_BYTES_MAX;
        let Some(total_bytes) = total_bytes.filter(fits) else {
            self.wishes.part(peer, Fault::HasNone);
            return;
        };
        self.peers.insert(peer, Peer { origin, total_bytes, turns: 0, copy: None });
        self.waiting.push_back((peer, now));
        self.fill_places(now);
    }

    /// A piece came, of metadata that has `total_bytes` by the word of the message.
    pub fn handle_data(
        &mut self,
        peer: PeerNumber,
        piece: u32,
        (total_bytes, bytes): (u32, &[u8]),
        now: Instant,
    ) {
        let Some(giver) = self.peers.get_mut(&peer) else { return };
        if let Err(fault) = giver.take(piece, total_bytes, bytes, now) {
            self.part(peer, fault, now);
            return;
        }
        let Some(whole) = giver.whole() else { return self.ask(peer) };
        match self.wanted.judge(&whole) {
            Match::Right => self.finish(Found::Info(whole)),
            Match::Torn => self.finish(Found::Torn),
            Match::Wrong => self.part(peer, Fault::Lied, now),
        }
    }

    /// A peer will not give a piece.
    pub fn handle_reject(&mut self, peer: PeerNumber, piece: u32, now: Instant) {
        let copy = self.peers.get(&peer).and_then(|giver| giver.copy.as_ref());
        if copy.is_some_and(|copy| copy.asked.contains(&piece)) {
            self.part(peer, Fault::Refused, now);
        }
    }

    /// The connection to a peer ended.
    pub fn handle_gone(&mut self, peer: PeerNumber, now: Instant) {
        self.peers.remove(&peer);
        self.waiting.retain(|&(other, _)| other != peer);
        self.fill_places(now);
    }

    /// Time has passed.
    pub fn handle_tick(&mut self, now: Instant) {
        let silent = |copy: &Copy| now.since(copy.heard_at) >= METADATA_SILENCE;
        for peer in self.givers(|_, copy| silent(copy)) {
            self.part(peer, Fault::Silent, now);
        }
        while let Some((peer, end)) = self.over(now) {
            self.give_way(peer, end, now);
        }
        self.fill_places(now);
    }

    /// When `handle_tick` is next due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let due = |peer: &Peer| {
            let copy = peer.copy.as_ref()?;
            let over = self.ends(peer, copy).map(|end| end.at);
            over.into_iter().chain([copy.heard_at + METADATA_SILENCE]).min()
        };
        self.peers.values().filter_map(due).min()
    }

    /// The next intention.
    pub fn poll_action(&mut self) -> Option<MetadataAction> {
        self.wishes.poll()
    }

    /// Whether all of it was found.
    pub const fn is_done(&self) -> bool {
        self.wishes.is_over()
    }

    /// How many peers have metadata, by their own word.
    pub fn peers(&self) -> usize {
        self.peers.len()
    }

    fn givers(&self, pick: impl Fn(&Peer, &Copy) -> bool) -> Vec<PeerNumber> {
        let picked = |peer: &Peer| peer.copy.as_ref().is_some_and(|copy| pick(peer, copy));
        self.peers.iter().filter(|(_, peer)| picked(peer)).map(|(&number, _)| number).collect()
    }

    /// When a giver has to give way, since others wait for its place; `None` while nobody does.
    fn ends(&self, giver: &Peer, copy: &Copy) -> Option<End> {
        let giving = || self.peers.values().filter_map(|peer| Some((peer, peer.copy.as_ref()?)));
        let has_its_place = |other: &Peer| giving().any(|(peer, _)| peer.is_like(other));
        let began_last = || giving().all(|(_, other)| other.since <= copy.since);
        let end = |other: &Peer, waits_since: Instant| {
            // Nobody's turn ends at once because somebody came after a long while.
            let from = copy.since.max(waits_since);
            if !other.is_like(giver) {
                let is_lent = !has_its_place(other) && began_last();
                return is_lent.then_some(End { at: from + METADATA_TURN, lent: true });
            }
            let as_fresh = |peer: &Peer| peer.is_like(other) && peer.turns <= other.turns;
            let span = if giving().any(|(peer, _)| as_fresh(peer)) { giver.turn() } else { METADATA_TURN };
            Some(End { at: from + span, lent: false })
        };
        let ends = self.waiting.iter().filter_map(|&(other, since)| end(self.peers.get(&other)?, since));
        ends.min_by_key(|end| end.at)
    }

    /// The giver that has been at it for longest, of those that have to give way.
    fn over(&self, now: Instant) -> Option<(PeerNumber, End)> {
        let over = |(&number, peer): (&PeerNumber, &Peer)| {
            let copy = peer.copy.as_ref()?;
            let end = self.ends(peer, copy).filter(|end| end.at <= now)?;
            Some((copy.since, (number, end)))
        };
        let over = self.peers.iter().filter_map(over).min_by_key(|&(since, (number, _))| (since, number));
        over.map(|(_, over)| over)
    }

    /// Ends a giver's turn: who waits for its place has it.
    fn give_way(&mut self, peer: PeerNumber, end: End, now: Instant) {
        let crowded = self.peers.get(&peer).is_some_and(|giver| self.is_crowded(giver));
        let Some(giver) = self.peers.get_mut(&peer) else { return };
        giver.copy = None;
        giver.turns += u32::from(!end.lent);
        let had_its_turns = giver.turns >= METADATA_TURNS_MAX;
        self.fill_places(now);
        if crowded && had_its_turns {
            // There is no place for anybody else.
            self.part(peer, Fault::Silent, now);
        } else {
            self.waiting.push_back((peer, now));
        }
    }

    /// Whether all places are taken that one more like this peer could have.
    fn is_crowded(&self, peer: &Peer) -> bool {
        let places = if peer.is_caller() { METADATA_CALLERS_MAX } else { METADATA_PEERS_MAX };
        self.peers.values().filter(|other| other.is_like(peer)).count() >= places
    }

    /// Has those that wait begin, as far as there are places.
    fn fill_places(&mut self, now: Instant) {
        while self.givers(|_, _| true).len() < METADATA_GIVERS_MAX {
            let Some(peer) = self.next() else { return };
            self.waiting.retain(|&(other, _)| other != peer);
            if let Some(giver) = self.peers.get_mut(&peer) {
                giver.copy = Some(Copy::new(giver.total_bytes, self.hoard.clone(), now));
                self.ask(peer);
            }
        }
    }

    /// Who of those that wait goes first: for whose like nobody gives, then whoever is due, by when it came
    /// and how long its turn is. So fresh ones go first, but not for ever.
    fn next(&self) -> Option<PeerNumber> {
        let rank = |&(number, since): &(PeerNumber, Instant)| {
            let peer = self.peers.get(&number)?;
            let lent = self.peers.values().any(|other| other.copy.is_some() && other.is_like(peer));
            Some((lent, since + peer.turn()))
        };
        self.waiting.iter().min_by_key(|waiting| rank(waiting)).map(|&(number, _)| number)
    }

    fn ask(&mut self, peer: PeerNumber) {
        let copy = self.peers.get_mut(&peer).and_then(|giver| giver.copy.as_mut());
        let pieces = copy.into_iter().flat_map(|copy| std::iter::from_fn(move || copy.ask()));
        pieces.for_each(|piece| self.wishes.ask(peer, piece));
    }

    fn part(&mut self, peer: PeerNumber, fault: Fault, now: Instant) {
        self.wishes.part(peer, fault);
        self.handle_gone(peer, now);
    }

    /// Nobody is asked any more.
    fn finish(&mut self, found: Found) {
        self.peers.clear();
        self.waiting.clear();
        self.wishes.end(found);
    }
}

#[cfg(test)]
mod tests;
