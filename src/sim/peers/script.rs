//! What each behaviour says, and when.

use super::{ASKED_MAX, Behaviour, OUTPUT_BYTES_MAX, Peer};
use crate::base::bitfield::Bitfield;
use crate::base::geometry::BlockRef;
use crate::base::time::Span;
use crate::base::units::BLOCK_BYTES;
use crate::proto::wire::message::Message;
use crate::sim::profile::{PPM, chance, draw, index};
use crate::sim::world::World;

impl Peer {
    /// The first messages after the handshakes.
    pub(super) fn introduce(&mut self, at: usize) {
        let pieces = self.content.geometry.piece_count();
        let fast = self.links[at].fast;
        match self.behaviour {
            Behaviour::Garbage => {}
            _ if self.behaviour.fetches() => {
                if fast {
                    let has_none = self.wanted.pieces.count() == 0;
                    if has_none {
                        self.push(at, Message::HaveNone);
                    } else {
                        self.push_bits(at, &self.wanted.pieces.clone());
                    }
                }
                self.push(at, Message::Interested);
            }
            Behaviour::ChokeFlapper if fast => {
                self.push(at, Message::HaveAll);
                [0, pieces / 2].into_iter().for_each(|piece| self.push(at, Message::AllowedFast(piece)));
            }
            _ if fast => self.push(at, Message::HaveAll),
            _ => self.push_bits(at, &Bitfield::full(pieces)),
        }
    }

    fn push_bits(&mut self, at: usize, bits: &Bitfield) {
        self.push(at, Message::Bitfield(bits.as_bytes()));
    }

    /// Who is interested is unchoked.
    pub(super) fn handle_interested(&mut self, at: usize) {
        if self.links[at].choking {
            self.links[at].choking = false;
            self.push(at, Message::Unchoke);
        }
    }

    /// What the behaviour does of itself.
    pub(super) fn act(&mut self, world: &World, at: usize) {
        let link = &self.links[at];
        if !link.greeted || link.is_over || link.is_stuck {
            return;
        }
        match self.behaviour {
            Behaviour::Leech | Behaviour::Reader => self.ask(world, at),
            Behaviour::Flooder => self.flood(world, at),
            Behaviour::Garbage => self.babble(world, at),
            Behaviour::StallerSilent => self.links[at].requests.clear(),
            Behaviour::StallerHalf => self.answer_half(world, at),
            Behaviour::StallerLate { blocks } if self.links[at].blocks_sent >= blocks => {
                self.links[at].requests.clear();
            }
            Behaviour::Denier => self.deny(at),
            Behaviour::ChokeFlapper => self.flap(world, at),
            Behaviour::Unsolicited => {
                self.answer(world, at, 0, false);
                self.force(world, at);
            }
            Behaviour::Liar { ppm } => self.answer(world, at, ppm, false),
            Behaviour::Shuffler => self.answer(world, at, 0, true),
            Behaviour::Seed | Behaviour::Quitter { .. } | Behaviour::StallerLate { .. } => {
                self.answer(world, at, 0, false)
            }
            Behaviour::Canceller
            | Behaviour::HitAndRun
            | Behaviour::InterestFlapper
            | Behaviour::NeverReader
            | Behaviour::OverAsker
            | Behaviour::SlowReader { .. }
            | Behaviour::TinyAsker => self.be_greedy(world, at),
        }
    }

    /// Answers requests while there is room for output.
    fn answer(&mut self, world: &World, at: usize, lie_ppm: u32, in_any_order: bool) {
        while self.links[at].output.len() < OUTPUT_BYTES_MAX && !self.links[at].requests.is_empty() {
            let count = self.links[at].requests.len();
            let next = if in_any_order { world.with_rng(|rng| index(rng, count)) } else { 0 };
            let block = self.links[at].requests.remove(next);
            let lie = world.with_rng(|rng| chance(rng, lie_ppm));
            self.push_block(world, at, block, lie);
        }
    }

    fn answer_half(&mut self, world: &World, at: usize) {
        if self.links[at].requests.is_empty() {
            return;
        }
        let block = self.links[at].requests.remove(0);
        self.push_block(world, at, block, false);
        let link = &mut self.links[at];
        let keep = link.output.len().saturating_sub(block.length as usize / 2);
        link.output.truncate(keep);
        link.is_stuck = true;
    }

    fn deny(&mut self, at: usize) {
        for block in std::mem::take(&mut self.links[at].requests) {
            if self.links[at].fast {
                self.push(at, Message::Reject(block));
            }
        }
    }

    /// A few blocks, then a choke, then after a while an unchoke.
    fn flap(&mut self, world: &World, at: usize) {
        if world.now() < self.links[at].act_at {
            return world.set_deadline(self.id, self.links[at].act_at);
        }
        if self.links[at].choking {
            self.links[at].choking = false;
            self.push(at, Message::Unchoke);
        }
        let blocks = world.with_rng(|rng| rng.below(6)) as usize;
        for _ in 0..blocks.min(self.links[at].requests.len()) {
            let block = self.links[at].requests.remove(0);
            self.push_block(world, at, block, false);
        }
        if self.links[at].requests.is_empty() {
            return;
        }
        self.links[at].choking = true;
        self.push(at, Message::Choke);
        self.deny(at);
        self.pause(world, at, 2_000_000_000);
    }

    /// A block that nobody asked for, now and then.
    fn force(&mut self, world: &World, at: usize) {
        if world.now() < self.links[at].act_at {
            return world.set_deadline(self.id, self.links[at].act_at);
        }
        let block = self.any_block(world);
        self.push_block(world, at, block, false);
        self.pause(world, at, 500_000_000);
    }

    /// Requests without end; the answers stay in the network.
    fn flood(&mut self, world: &World, at: usize) {
        if world.now() < self.links[at].act_at {
            return world.set_deadline(self.id, self.links[at].act_at);
        }
        while self.links[at].output.len() < OUTPUT_BYTES_MAX / 16 {
            let block = self.any_block(world);
            self.push(at, Message::Request(block));
        }
        self.pause(world, at, 100_000_000);
    }

    /// Random bytes; or a frame whose fields are random, which gets further into a parser.
    fn babble(&mut self, world: &World, at: usize) {
        if world.now() < self.links[at].act_at {
            return world.set_deadline(self.id, self.links[at].act_at);
        }
        let (kind, word, noise) = world.with_rng(|rng| (rng.below(8), rng.next_u64(), rng.next_u64()));
        let block =
            BlockRef { piece: word as u32, begin: (word >> 32) as u32, length: noise as u32 % (1 << 20) };
        match kind {
            0 => self.push(at, Message::Have(word as u32)),
            1 => self.push(at, Message::Request(block)),
            2 => self.push(at, Message::Cancel(block)),
            3 => self.push(at, Message::Reject(block)),
            4 => self.push(at, Message::Bitfield(&noise.to_le_bytes()[..(word % 9) as usize])),
            5 => self.push(at, Message::AllowedFast(word as u32)),
            6 => self.push(at, Message::Extended { id: word as u8, payload: &noise.to_le_bytes() }),
            _ => self.links[at].output.extend(noise.to_le_bytes()),
        }
        self.pause(world, at, 300_000_000);
    }

    /// Requests what the other side has and we lack, while it lets us.
    fn ask(&mut self, world: &World, at: usize) {
        while self.links[at].asked.len() < ASKED_MAX {
            let link = &self.links[at];
            let lets = |piece| link.unchoked || link.allowed.contains(&piece);
            let has = |block: &BlockRef| link.theirs.get(block.piece) && lets(block.piece);
            let able: Vec<usize> =
                (0..self.wanted.blocks.len()).filter(|&i| has(&self.wanted.blocks[i])).take(64).collect();
            if able.is_empty() {
                return;
            }
            let block = if self.behaviour == Behaviour::Reader {
                self.wanted.blocks.remove(able[0])
            } else {
                let pick = able[world.with_rng(|rng| index(rng, able.len()))];
                self.wanted.blocks.swap_remove(pick)
            };
            self.links[at].asked.push(block);
            self.push(at, Message::Request(block));
        }
    }

    pub(super) fn any_block(&self, world: &World) -> BlockRef {
        let geometry = self.content.geometry;
        let piece = world.with_rng(|rng| rng.below(geometry.piece_count()));
        let blocks = geometry.piece_len(piece).div_ceil(BLOCK_BYTES);
        let begin = world.with_rng(|rng| rng.below(blocks)) * BLOCK_BYTES;
        BlockRef { piece, begin, length: BLOCK_BYTES.min(geometry.piece_len(piece) - begin) }
    }

    pub(super) fn pause(&mut self, world: &World, at: usize, longest_ns: u64) {
        let pause = world.with_rng(|rng| draw(rng, (1_000_000, longest_ns)));
        let act_at = world.now() + Span(pause);
        self.links[at].act_at = act_at;
        world.set_deadline(self.id, act_at);
    }
}

impl Behaviour {
    /// One that serves what is asked, in its own way or wrongly; drawn from the profile's rate of
    /// misbehaviour.
    pub fn draw(world: &World) -> Self {
        let hostile_ppm = world.with_profile(|knobs| knobs.hostile_ppm);
        world.with_rng(|rng| {
            if !chance(rng, hostile_ppm) {
                return if chance(rng, PPM / 2) { Self::Seed } else { Self::Shuffler };
            }
            match rng.below(9) {
                0 => Self::ChokeFlapper,
                1 => Self::Denier,
                2 => Self::Flooder,
                3 => Self::Garbage,
                4 => Self::Liar { ppm: 1 + rng.below(PPM) },
                5 => Self::Quitter { at_byte: draw(rng, (0, 1 << 20)) },
                6 => Self::StallerHalf,
                7 => Self::StallerSilent,
                _ => Self::Unsolicited,
            }
        })
    }

    /// Whether a torrent must finish if only such peers have it, given time.
    pub const fn is_enough(&self) -> bool {
        matches!(self, Self::ChokeFlapper | Self::Seed | Self::Shuffler)
    }
}
