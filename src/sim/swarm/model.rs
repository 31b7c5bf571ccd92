//! A model node: the standard messages, rarest first, and a policy that decides whom it serves.

use std::collections::VecDeque;
use std::sync::Arc;

use super::content::Content;
use super::net::{EndId, Net, Parcel, Tag};
use super::policy::{Policy, Rogue};
use super::store::{Store, Stored};
use crate::base::bitfield::Bitfield;
use crate::base::geometry::BlockRef;
use crate::base::ids::PeerId;
use crate::base::limits::KEEPALIVE_INTERVAL;
use crate::base::rng::Rng;
use crate::base::time::{Instant, Span};
use crate::base::units::BLOCK_BYTES;
use crate::proto::wire::handshake::{HANDSHAKE_BYTES, Handshake};
use crate::proto::wire::message::{Frame, Message, next_frame};

/// Between two rounds of choking (BEP 3).
pub const ROUND: Span = Span::from_secs(10);

/// Rounds of which is remembered what came.
pub const ROUNDS_KEPT: usize = 4;

/// Blocks outstanding at a peer, beside what half a second brings.
const DEPTH: usize = 5;

/// And at most.
const DEPTH_MAX: usize = 128;

/// Requests of a peer that are kept.
const QUEUED_MAX: usize = 250;

/// Without a block for so long a peer that owes some is given up (BEP 3: snubbed).
const SNUBBED_AFTER: Span = Span::from_secs(60);

/// What a model node knows of one connection.
#[derive(Debug)]
pub struct Contact {
    /// Its end.
    pub end: EndId,
    /// What the other side has, as it says.
    pub bits: Bitfield,
    /// We serve it.
    pub unchoked: bool,
    /// It serves us.
    pub unchokes_us: bool,
    /// It wants our pieces.
    pub wants_us: bool,
    /// What we asked for.
    pub asked: Vec<BlockRef>,
    /// What it asked for.
    pub requests: VecDeque<BlockRef>,
    /// Payload that it gave.
    pub got_bytes: u64,
    /// Payload that it got.
    pub gave_bytes: u64,
    /// What it gave in each of the last rounds, the current one first.
    pub got_rounds: [u64; ROUNDS_KEPT + 1],
    /// What it got since the round began, for shares.
    pub gave_round: u64,
    /// Its share in what is sent, if the policy has shares.
    pub weight: u64,
    /// When it was last unchoked.
    pub unchoked_at: Instant,
    /// The round in which a seed last chose it.
    pub served_round: u64,
    /// What it is thought to want before it reciprocates, in bytes a round.
    pub price: u64,
    /// Rounds in a row in which it served us.
    pub streak: u32,
    interested: bool,
    /// It knows what we have.
    greeted: bool,
    open: bool,
    frames: Vec<u8>,
    spoke_at: Instant,
    block_at: Instant,
    snubbed: bool,
}

impl Contact {
    /// Says so while it has nothing else to say: who is silent for long is dropped (BEP 3).
    fn keep_alive(&mut self, now: Instant) {
        if self.open && self.greeted && now.since(self.spoke_at) >= KEEPALIVE_INTERVAL {
            Message::KeepAlive.encode(&mut self.frames);
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct ModelNode {
    /// What it has.
    pub store: Store,
    /// Its connections, by place; those that are gone stay as they were.
    pub contacts: Vec<Contact>,
    /// Whom it serves.
    pub policy: Policy,
    /// Its choices.
    pub rng: Rng,
    /// How often it chose whom to serve.
    pub rounds: u64,
    /// Bytes a second that its link sends.
    pub up_rate: u64,
    peer_id: PeerId,
    round_at: Instant,
    wasted_bytes: u64,
    /// Pieces of others that it announces as its own, and its own that others are to announce.
    pub rumours: Vec<u32>,
    /// Contacts that it wants to meet again under another address.
    pub reborn: Vec<EndId>,
}

impl ModelNode {
    /// A node without peers.
    pub fn new(content: &Arc<Content>, policy: Policy, complete: bool, seed: u64, now: Instant) -> Self {
        let mut rng = Rng::new(seed);
        let mut peer_id = *b"-MO0000-............";
        peer_id[12..].copy_from_slice(&rng.next_u64().to_le_bytes());
        Self {
            store: Store::new(content, complete),
            contacts: Vec::new(),
            policy,
            rounds: 0,
            up_rate: 0,
            peer_id: PeerId(peer_id),
            round_at: now + Span(u64::from(rng.below(1_000)) * 1_000_000),
            wasted_bytes: 0,
            rumours: Vec::new(),
            reborn: Vec::new(),
            rng,
        }
    }

    /// Payload that came and was of no use.
    pub const fn wasted_bytes(&self) -> u64 {
        self.wasted_bytes
    }

    /// Places of those that are connected.
    pub fn open(&self) -> impl Iterator<Item = usize> {
        (0..self.contacts.len()).filter(|&at| self.contacts[at].open)
    }

    fn enter(&mut self, net: &mut Net, end: EndId) {
        let index = self.contacts.len() as u32;
        net.set_tag(end, Tag { index, ..Tag::default() });
        self.contacts.push(Contact {
            end,
            bits: Bitfield::new(self.store.have().len()),
            unchoked: false,
            unchokes_us: false,
            wants_us: false,
            asked: Vec::new(),
            requests: VecDeque::new(),
            got_bytes: 0,
            gave_bytes: 0,
            got_rounds: [0; ROUNDS_KEPT + 1],
            gave_round: 0,
            weight: 0,
            unchoked_at: Instant(0),
            served_round: 0,
            price: 0,
            streak: 0,
            interested: false,
            greeted: false,
            open: true,
            frames: Vec::new(),
            spoke_at: net.now(),
            block_at: net.now(),
            snubbed: false,
        });
    }

    fn greet(&mut self, at: usize) {
        let ours = Handshake::new(Content::INFO_HASH, self.peer_id).encode();
        let contact = &mut self.contacts[at];
        contact.frames.extend(ours);
        contact.greeted = true;
        let shown = match self.policy {
            Policy::Rogue(Rogue::FalseHaves) => Bitfield::full(self.store.have().len()),
            Policy::Rogue(Rogue::Mute) => return,
            _ => self.store.have().clone(),
        };
        if shown.count() > 0 {
            Message::Bitfield(shown.as_bytes()).encode(&mut contact.frames);
        }
    }

    /// It connects to somebody.
    pub fn dialing(&mut self, net: &mut Net, end: EndId) {
        self.enter(net, end);
    }

    /// Somebody connects to it.
    pub fn accepted(&mut self, net: &mut Net, end: EndId) {
        self.enter(net, end);
    }

    /// A dial ended well.
    pub fn dialed(&mut self, net: &mut Net, end: EndId) {
        self.greet(net.tag(end).index as usize);
    }

    /// The other side is gone, or is to go.
    pub fn gone(&mut self, net: &mut Net, end: EndId) {
        let at = net.tag(end).index as usize;
        let contact = &mut self.contacts[at];
        if !std::mem::replace(&mut contact.open, false) {
            return;
        }
        (contact.unchoked, contact.wants_us, contact.unchokes_us) = (false, false, false);
        contact.requests.clear();
        let asked = std::mem::take(&mut contact.asked);
        let bits = std::mem::replace(&mut contact.bits, Bitfield::new(0));
        asked.into_iter().for_each(|block| self.store.unask(block));
        self.store.sub_availability(&bits);
        net.close(end);
    }

    /// A parcel came.
    pub fn receive(&mut self, net: &mut Net, end: EndId, parcel: Parcel) {
        match parcel {
            Parcel::Control(bytes) => self.read(net, end, &bytes),
            Parcel::Block { block, good } => self.take(net, end, block, good),
        }
    }

    fn read(&mut self, net: &mut Net, end: EndId, mut bytes: &[u8]) {
        let mut tag = net.tag(end);
        let at = tag.index as usize;
        if !tag.shaken {
            let shaken = Handshake::parse(bytes).is_ok_and(|theirs| theirs.is_some());
            assert!(shaken, "no handshake at {end:?}");
            bytes = &bytes[HANDSHAKE_BYTES..];
            tag.shaken = true;
            net.set_tag(end, tag);
            // Who dialled has spoken first.
            if end.0 % 2 == 1 {
                self.greet(at);
            }
        }
        let bitfield_bytes = self.store.have().len().div_ceil(8);
        while let Some((frame, used)) = next_frame(bytes, bitfield_bytes).expect("nodes speak the protocol") {
            bytes = &bytes[used..];
            if let Frame::Message(message) = frame {
                self.hear(net, at, message);
            }
        }
    }

    fn hear(&mut self, net: &mut Net, at: usize, message: Message<'_>) {
        let contact = &mut self.contacts[at];
        if !contact.open {
            return;
        }
        match message {
            Message::Choke => {
                contact.unchokes_us = false;
                let asked = std::mem::take(&mut contact.asked);
                asked.into_iter().for_each(|block| self.store.unask(block));
            }
            Message::Unchoke => {
                contact.unchokes_us = true;
                contact.block_at = net.now();
            }
            Message::Interested => {
                contact.wants_us = true;
                self.policy.wanted().then(|| self.admit(at, net.now()));
            }
            Message::NotInterested => {
                contact.wants_us = false;
                contact.requests.clear();
            }
            Message::Have(piece) => self.note_have(at, piece),
            Message::Bitfield(bytes) => {
                let bits = Bitfield::from_wire(bytes, self.store.have().len()).expect("of that size");
                bits.ones().for_each(|piece| self.note_have(at, piece));
            }
            Message::HaveAll => (0..self.store.have().len()).for_each(|piece| self.note_have(at, piece)),
            Message::Request(block) if contact.unchoked && contact.requests.len() < QUEUED_MAX => {
                contact.requests.push_back(block);
            }
            Message::Cancel(block) => contact.requests.retain(|&other| other != block),
            _ => {}
        }
    }

    fn note_have(&mut self, at: usize, piece: u32) {
        let contact = &mut self.contacts[at];
        if contact.bits.set(piece) {
            self.store.add_availability(piece);
        }
        if !contact.interested && !self.store.have().get(piece) {
            contact.interested = true;
            Message::Interested.encode(&mut contact.frames);
        }
    }

    fn take(&mut self, net: &Net, end: EndId, block: BlockRef, good: bool) {
        let contact = &mut self.contacts[net.tag(end).index as usize];
        contact.asked.retain(|&other| other != block);
        contact.got_bytes += u64::from(block.length);
        contact.got_rounds[0] += u64::from(block.length);
        (contact.block_at, contact.snubbed) = (net.now(), false);
        match self.store.put(block, good) {
            Stored::Duplicate => self.wasted_bytes += u64::from(block.length),
            Stored::Spoilt => {
                self.wasted_bytes += self.store.piece_bytes();
                self.cancel(block);
            }
            Stored::Part => self.cancel(block),
            Stored::Piece => {
                self.cancel(block);
                self.announce(block.piece);
            }
        }
    }

    /// Nobody else is to send a block that has come.
    fn cancel(&mut self, block: BlockRef) {
        for contact in self.contacts.iter_mut().filter(|contact| contact.open) {
            if let Some(at) = contact.asked.iter().position(|&other| other == block) {
                contact.asked.remove(at);
                Message::Cancel(block).encode(&mut contact.frames);
            }
        }
    }

    fn announce(&mut self, piece: u32) {
        match self.policy {
            Policy::Rogue(Rogue::Mute | Rogue::FalseHaves) => return,
            Policy::Rogue(Rogue::Colluder) => self.rumours.push(piece),
            _ => {}
        }
        self.tell(piece);
    }

    /// Says that it has a piece, true or not.
    pub fn tell(&mut self, piece: u32) {
        for contact in self.contacts.iter_mut().filter(|contact| contact.open && contact.greeted) {
            if !contact.bits.get(piece) || self.policy == Policy::Rogue(Rogue::Colluder) {
                Message::Have(piece).encode(&mut contact.frames);
            }
        }
    }

    /// Chooses whom to serve, asks for more, sends what it has to say.
    pub fn run(&mut self, net: &mut Net) {
        let now = net.now();
        if now >= self.round_at {
            self.round_at = now + ROUND;
            self.rounds += 1;
            self.round(now);
            for contact in &mut self.contacts {
                contact.got_rounds.rotate_right(1);
                (contact.got_rounds[0], contact.gave_round) = (0, 0);
                contact.keep_alive(now);
            }
            self.drop_snubbers(now);
        }
        let whitewashes = self.policy == Policy::Rogue(Rogue::Whitewasher);
        for at in 0..self.contacts.len() {
            if !self.contacts[at].open {
                continue;
            }
            self.ask(at);
            self.lose_interest(at);
            let contact = &mut self.contacts[at];
            if !contact.frames.is_empty() {
                let frames = std::mem::take(&mut contact.frames);
                contact.spoke_at = now;
                net.push(contact.end, Parcel::Control(frames));
            }
            if whitewashes && contact.got_bytes >= Rogue::GRANT_BYTES {
                self.reborn.push(contact.end);
            }
        }
        self.fill(net);
    }

    fn ask(&mut self, at: usize) {
        let contact = &mut self.contacts[at];
        if !contact.unchokes_us || !contact.interested || contact.snubbed {
            return;
        }
        let rate = (contact.got_rounds[0] + contact.got_rounds[1]) / (2 * ROUND.0 / 1_000_000_000);
        let depth = (DEPTH + (rate / 2 / u64::from(BLOCK_BYTES)) as usize).min(DEPTH_MAX);
        while contact.asked.len() < depth {
            let Some(block) = self.store.pick(&contact.bits, &contact.asked, &mut self.rng) else { return };
            contact.asked.push(block);
            Message::Request(block).encode(&mut contact.frames);
        }
    }

    fn lose_interest(&mut self, at: usize) {
        let contact = &mut self.contacts[at];
        if contact.interested && !self.store.wants(&contact.bits) {
            contact.interested = false;
            Message::NotInterested.encode(&mut contact.frames);
        }
    }

    fn drop_snubbers(&mut self, now: Instant) {
        for contact in self.contacts.iter_mut().filter(|contact| contact.open) {
            if !contact.asked.is_empty() && now.since(contact.block_at) >= SNUBBED_AFTER {
                contact.snubbed = true;
                std::mem::take(&mut contact.asked).into_iter().for_each(|block| self.store.unask(block));
            }
        }
    }

    /// Starts and ends service.
    pub fn set_unchoked(&mut self, at: usize, unchoked: bool, now: Instant) {
        let contact = &mut self.contacts[at];
        if contact.unchoked == unchoked {
            return;
        }
        contact.unchoked = unchoked;
        if unchoked {
            contact.unchoked_at = now;
            Message::Unchoke.encode(&mut contact.frames);
        } else {
            contact.requests.clear();
            Message::Choke.encode(&mut contact.frames);
        }
    }

    /// Puts blocks on the link while it has nothing to send.
    pub fn fill(&mut self, net: &mut Net) {
        let good = self.policy != Policy::Rogue(Rogue::Polluter);
        while let Some(first) = self.contacts.first()
            && net.has_room(net.host(first.end))
        {
            let Some(at) = self.next_to_serve(net) else { return };
            let contact = &mut self.contacts[at];
            let Some(block) = contact.requests.pop_front() else { return };
            contact.gave_bytes += u64::from(block.length);
            contact.gave_round += u64::from(block.length);
            net.push(contact.end, Parcel::Block { block, good });
        }
    }

    /// When time alone will change something.
    pub const fn wakes_at(&self) -> Instant {
        self.round_at
    }

    /// It stops: all its connections close.
    pub fn leave(&mut self, net: &mut Net) {
        for contact in &mut self.contacts {
            contact.open = false;
            net.close(contact.end);
        }
    }
}
