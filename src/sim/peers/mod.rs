//! Scripted remote peers. They speak the wire protocol over the simulated network without the
//! engine, so that a mistake of the engine is not made twice.
//!
//! A peer may listen, dial, or both. What it does with requests and when it breaks the rules is
//! its [`Behaviour`]; this file moves the bytes.

mod greedy;
mod script;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use super::content::Content;
use super::net::{EndId, EndState, Inbound};
use super::profile::{draw, index};
use super::run::Actor;
use super::timeline::{ActorId, HostId};
use super::world::World;
use crate::base::bitfield::Bitfield;
use crate::base::geometry::BlockRef;
use crate::base::ids::PeerId;
use crate::base::time::{Instant, Span};
use crate::proto::wire::handshake::{HANDSHAKE_BYTES, Handshake};
use crate::proto::wire::message::{Frame, Message, next_frame, piece_header};

/// What a peer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Requests as much as may wait, cancels it all, and so on.
    Canceller,
    /// Chokes and unchokes again every few blocks, forgetting what was requested.
    ChokeFlapper,
    /// Has all pieces, rejects or ignores every request.
    Denier,
    /// Requests all the time and never reads an answer.
    Flooder,
    /// Opens with a good handshake, then sends random bytes.
    Garbage,
    /// Requests as much as may wait, leaves, and comes back at once.
    HitAndRun,
    /// Says that it is interested and that it is not, without end.
    InterestFlapper,
    /// Fetches all pieces and checks every byte.
    Leech,
    /// Corrupts one bit in so many blocks per million.
    Liar {
        /// Corrupted blocks per million.
        ppm: u32,
    },
    /// Requests as much as may wait and never reads an answer, but says now and then that it lives.
    NeverReader,
    /// Requests far more than may wait, and reads the answers.
    OverAsker,
    /// Closes after sending so many bytes.
    Quitter {
        /// Bytes sent before the end, handshake included.
        at_byte: u64,
    },
    /// A leech that reads from end to end.
    Reader,
    /// Has all pieces and answers in order.
    Seed,
    /// Has all pieces and answers in any order.
    Shuffler,
    /// Answers in order until it has sent so many blocks, then nothing more.
    StallerLate {
        /// Blocks sent before.
        blocks: u64,
    },
    /// Requests as much as may wait and reads so many bytes a second.
    SlowReader {
        /// Bytes read each second.
        bytes: usize,
    },
    /// Unchokes, sends half a block, then nothing more.
    StallerHalf,
    /// Unchokes and never answers.
    StallerSilent,
    /// Requests blocks of one byte, as many as may wait.
    TinyAsker,
    /// Sends blocks that nobody requested beside those that were.
    Unsolicited,
}

/// What a peer saw and did; kept by its creator too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Connections that were opened, either way.
    pub links: u32,
    /// Blocks sent, corrupted ones included.
    pub blocks_sent: u64,
    /// Blocks sent with a wrong bit.
    pub lies: u64,
    /// Blocks received.
    pub blocks_got: u64,
    /// Received blocks that differ from the torrent: must stay 0 for any node that serves.
    pub wrong_blocks: u64,
    /// Received blocks that were not requested.
    pub unrequested_blocks: u64,
    /// Frames received that are no frames of the protocol.
    pub bad_frames: u64,
    /// Pieces that the peer has whole.
    pub pieces: u32,
}

/// One scripted peer.
pub struct Peer {
    id: ActorId,
    content: Rc<Content>,
    behaviour: Behaviour,
    /// Where it connects to, and where again after an end.
    dials: Vec<SocketAddr>,
    links: Vec<Link>,
    wanted: Wanted,
    redial_at: Instant,
    report: Rc<RefCell<Report>>,
}

/// What a leech has.
struct Wanted {
    pieces: Bitfield,
    /// Blocks of pieces that are not whole yet.
    blocks: Vec<BlockRef>,
}

/// One connection of a peer.
struct Link {
    end: EndId,
    is_dialer: bool,
    /// Where we connected to, if we did.
    to: Option<SocketAddr>,
    /// The other side's handshake has come.
    greeted: bool,
    /// Ours is sent.
    greeting_sent: bool,
    /// Both sides speak BEP 6.
    fast: bool,
    is_over: bool,
    input: Vec<u8>,
    output: Vec<u8>,
    bytes_sent: u64,
    /// What the other side wants from us.
    requests: Vec<BlockRef>,
    choking: bool,
    /// The other side lets us request.
    unchoked: bool,
    /// What it lets us request though it chokes us.
    allowed: Vec<u32>,
    /// What the other side has.
    theirs: Bitfield,
    /// What we requested and did not get yet.
    asked: Vec<BlockRef>,
    /// When the behaviour acts by itself again.
    act_at: Instant,
    blocks_sent: u64,
    is_stuck: bool,
    /// When something last came.
    heard_at: Instant,
    /// When a slow reader reads again.
    read_at: Instant,
}

/// Requests of a leech on their way.
const ASKED_MAX: usize = 32;
/// A leech that hears nothing for so long tries another connection.
const LEECH_PATIENCE: Span = Span::from_secs(60);
/// A peer queues no more output than that.
const OUTPUT_BYTES_MAX: usize = 256 << 10;

impl Peer {
    /// A peer on `host` that listens at `port`, if one is given, and connects to `dials`.
    pub fn new(
        world: &World,
        host: HostId,
        content: Rc<Content>,
        behaviour: Behaviour,
        port: Option<u16>,
        dials: Vec<SocketAddr>,
    ) -> Self {
        let id = world.add_actor(host);
        if let Some(port) = port {
            world.listen(id, port);
        }
        let pieces = Bitfield::new(content.geometry.piece_count());
        let wanted = Wanted { pieces, blocks: blocks_of(&content) };
        let report = Rc::new(RefCell::new(Report::default()));
        let redial_at = world.now();
        Self { id, content, behaviour, dials, links: Vec::new(), wanted, redial_at, report }
    }

    /// The actor that it is.
    pub const fn id(&self) -> ActorId {
        self.id
    }

    /// What it saw and did, kept up to date.
    pub fn report(&self) -> Rc<RefCell<Report>> {
        Rc::clone(&self.report)
    }

    fn connect(&mut self, world: &World) {
        while let Some(end) = world.accept(self.id) {
            self.open(world, end, None);
        }
        if world.now() < self.redial_at {
            return world.set_deadline(self.id, self.redial_at);
        }
        for to in self.dials.clone() {
            if !self.links.iter().any(|link| link.to == Some(to)) {
                let end = world.dial(self.id, to);
                self.open(world, end, Some(to));
            }
        }
    }

    fn open(&mut self, world: &World, end: EndId, to: Option<SocketAddr>) {
        self.report.borrow_mut().links += 1;
        self.links.push(Link {
            end,
            is_dialer: to.is_some(),
            to,
            greeted: false,
            greeting_sent: false,
            fast: false,
            is_over: false,
            input: Vec::new(),
            output: Vec::new(),
            bytes_sent: 0,
            requests: Vec::new(),
            choking: true,
            unchoked: false,
            allowed: Vec::new(),
            theirs: Bitfield::new(self.content.geometry.piece_count()),
            asked: Vec::new(),
            act_at: world.now(),
            blocks_sent: 0,
            is_stuck: false,
            heard_at: world.now(),
            read_at: world.now(),
        });
    }

    /// Lets go of links that are over; the blocks they owed are wanted again.
    fn bury(&mut self, world: &World) {
        let before = self.links.len();
        for link in self.links.iter_mut().filter(|link| link.is_over) {
            world.close(link.end);
            if !self.behaviour.is_greedy() {
                self.wanted.blocks.append(&mut link.asked);
            }
        }
        self.links.retain(|link| !link.is_over);
        if self.links.len() < before {
            let pause = world.with_rng(|rng| draw(rng, self.behaviour.redial_ns()));
            self.redial_at = world.now() + Span(pause);
            world.set_deadline(self.id, self.redial_at);
        }
    }

    fn run_link(&mut self, world: &World, at: usize) {
        let link = &mut self.links[at];
        match world.end_state(link.end) {
            EndState::Connecting => return,
            EndState::Open => {}
            EndState::Failed(_) | EndState::Closed => {
                link.is_over = true;
                return;
            }
        }
        if link.is_dialer && !link.greeting_sent {
            self.greet(world, at);
        }
        let appetite = self.appetite(world, at);
        self.receive(world, at, appetite);
        if matches!(self.behaviour, Behaviour::Leech | Behaviour::Reader) {
            self.lose_patience(world, at);
        }
        self.act(world, at);
        self.flush(world, at);
    }

    /// The other side may have lost power, or have dropped a request without a word.
    fn lose_patience(&mut self, world: &World, at: usize) {
        let link = &mut self.links[at];
        link.is_over |= world.now() >= link.heard_at + LEECH_PATIENCE;
        world.set_deadline(self.id, link.heard_at + LEECH_PATIENCE);
    }

    fn greet(&mut self, world: &World, at: usize) {
        let mut id = PeerId(*b"-SM0001-000000000000");
        let digits = world.with_rng(|rng| rng.next_u64()).to_be_bytes();
        id.0[12..].copy_from_slice(&digits);
        let mut handshake = Handshake::new(self.content.info_hash, id);
        if world.with_rng(|rng| rng.below(2)) == 0 {
            handshake = handshake.with_fast();
        }
        let link = &mut self.links[at];
        link.fast = handshake.has_fast();
        link.greeting_sent = true;
        link.output.extend(handshake.encode());
    }

    fn receive(&mut self, world: &World, at: usize, appetite: usize) {
        let mut left = appetite;
        while left > 0 {
            let link = &mut self.links[at];
            match world.read(link.end, left.min(64 << 10), &mut link.input) {
                Ok(Inbound::Pending) => break,
                Ok(Inbound::Bytes(0)) | Err(_) => {
                    link.is_over = true;
                    break;
                }
                Ok(Inbound::Bytes(count)) => {
                    link.heard_at = world.now();
                    left -= count;
                }
            }
        }
        if !self.links[at].greeted && !self.receive_handshake(world, at) {
            return;
        }
        while !self.links[at].is_over && self.receive_frame(at) {}
    }

    fn receive_handshake(&mut self, world: &World, at: usize) -> bool {
        let link = &mut self.links[at];
        match Handshake::parse(&link.input) {
            Ok(None) => false,
            Ok(Some(theirs)) if theirs.info_hash == self.content.info_hash => {
                link.input.drain(..HANDSHAKE_BYTES);
                link.greeted = true;
                if !link.greeting_sent {
                    self.greet(world, at);
                }
                let link = &mut self.links[at];
                link.fast &= theirs.has_fast();
                self.introduce(at);
                true
            }
            Ok(Some(_)) | Err(_) => {
                link.is_over = true;
                false
            }
        }
    }

    /// Takes one frame from the input; false when none is whole.
    fn receive_frame(&mut self, at: usize) -> bool {
        let bits = self.content.geometry.piece_count().div_ceil(8);
        // Taken out, so that what it says may borrow from it while the link changes.
        let mut input = std::mem::take(&mut self.links[at].input);
        let used = match next_frame(&input, bits) {
            Ok(None) => 0,
            Ok(Some((Frame::Message(message), used))) => {
                self.handle_message(at, message);
                used
            }
            Ok(Some((Frame::Piece { piece, begin, length }, used))) => {
                match input.get(used..used + length as usize) {
                    Some(bytes) => {
                        self.handle_block(at, BlockRef { piece, begin, length }, bytes);
                        used + length as usize
                    }
                    None => 0,
                }
            }
            Err(_) => {
                self.report.borrow_mut().bad_frames += 1;
                self.links[at].is_over = true;
                0
            }
        };
        input.drain(..used);
        self.links[at].input = input;
        used > 0
    }

    fn handle_message(&mut self, at: usize, message: Message<'_>) {
        let pieces = self.content.geometry.piece_count();
        let link = &mut self.links[at];
        match message {
            Message::Choke => {
                link.unchoked = false;
                if !link.fast {
                    self.wanted.blocks.append(&mut link.asked);
                }
            }
            Message::Unchoke => link.unchoked = true,
            Message::AllowedFast(piece) => link.allowed.push(piece),
            Message::Interested => self.handle_interested(at),
            Message::Have(piece) if piece < pieces => {
                link.theirs.set(piece);
            }
            Message::Bitfield(bytes) => match Bitfield::from_wire(bytes, pieces) {
                Some(theirs) => link.theirs = theirs,
                None => self.report.borrow_mut().bad_frames += 1,
            },
            Message::HaveAll => link.theirs = Bitfield::full(pieces),
            Message::Request(block) => link.requests.push(block),
            Message::Cancel(block) => link.requests.retain(|request| *request != block),
            Message::Reject(block) => {
                if link.unchoked && block.piece < pieces {
                    // It no longer has what it announced; a new `have` says when it does.
                    link.theirs.clear(block.piece);
                }
                link.allowed.retain(|&piece| piece != block.piece);
                if let Some(found) = link.asked.iter().position(|asked| *asked == block) {
                    let block = link.asked.swap_remove(found);
                    if !self.behaviour.is_greedy() {
                        self.wanted.blocks.push(block);
                    }
                }
            }
            _ => {}
        }
    }

    fn handle_block(&mut self, at: usize, block: BlockRef, bytes: &[u8]) {
        let mut report = self.report.borrow_mut();
        report.blocks_got += 1;
        report.wrong_blocks += u64::from(self.content.block(block) != Some(bytes));
        let link = &mut self.links[at];
        let Some(found) = link.asked.iter().position(|asked| *asked == block) else {
            report.unrequested_blocks += 1;
            return;
        };
        link.asked.swap_remove(found);
        let is_missing = |other: &BlockRef| other.piece == block.piece;
        let waits = self.wanted.blocks.iter().any(is_missing)
            || self.links.iter().any(|link| link.asked.iter().any(is_missing));
        if !waits && self.wanted.pieces.set(block.piece) {
            report.pieces = self.wanted.pieces.count();
        }
    }

    /// Hands output to the network, as much as it takes.
    fn flush(&mut self, world: &World, at: usize) {
        let link = &mut self.links[at];
        let budget = match self.behaviour {
            Behaviour::Quitter { at_byte } => at_byte.saturating_sub(link.bytes_sent),
            _ => u64::MAX,
        };
        let mut left = link.output.len().min(usize::try_from(budget).unwrap_or(usize::MAX));
        let mut sent = 0;
        while left > 0 {
            match world.write(link.end, &link.output[sent..sent + left]) {
                Ok(0) => break,
                Ok(count) => (sent, left) = (sent + count, left - count),
                Err(_) => {
                    link.is_over = true;
                    break;
                }
            }
        }
        link.output.drain(..sent);
        link.bytes_sent += sent as u64;
        if matches!(self.behaviour, Behaviour::Quitter { at_byte } if link.bytes_sent >= at_byte) {
            link.is_over = true;
        }
    }

    fn push(&mut self, at: usize, message: Message<'_>) {
        message.encode(&mut self.links[at].output);
    }

    /// Appends a block to the output, with one bit wrong if `lie` is set.
    fn push_block(&mut self, world: &World, at: usize, block: BlockRef, lie: bool) {
        let Some(bytes) = self.content.block(block) else { return };
        let link = &mut self.links[at];
        link.output.extend(piece_header(block));
        let start = link.output.len();
        link.output.extend_from_slice(bytes);
        if lie {
            let place = start + world.with_rng(|rng| index(rng, bytes.len()));
            link.output[place] ^= 0x10;
        }
        link.blocks_sent += 1;
        let mut report = self.report.borrow_mut();
        report.blocks_sent += 1;
        report.lies += u64::from(lie);
    }
}

impl Actor for Peer {
    fn turn(&mut self, world: &World) {
        self.connect(world);
        for at in 0..self.links.len() {
            self.run_link(world, at);
        }
        self.bury(world);
    }
}

/// Every block of a torrent.
fn blocks_of(content: &Content) -> Vec<BlockRef> {
    let geometry = content.geometry;
    (0..geometry.chunk_count())
        .flat_map(|chunk| (0..geometry.chunk_blocks(chunk)).map(move |block| geometry.block(chunk, block)))
        .collect()
}
