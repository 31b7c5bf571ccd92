//! Peers that want much and give nothing: what each of them asks for, and how it reads.

use super::{Behaviour, OUTPUT_BYTES_MAX, Peer};
use crate::base::geometry::BlockRef;
use crate::base::limits::REQUESTS_QUEUED_MAX;
use crate::base::time::Span;
use crate::proto::wire::message::Message;
use crate::sim::profile::Draw;
use crate::sim::world::World;

/// What is written of one kind before the network has taken it.
const FLOOD_BYTES: usize = OUTPUT_BYTES_MAX / 16;

/// Requests beyond what may wait, of one that asks for too many.
const TOO_MANY: usize = REQUESTS_QUEUED_MAX + 40;

/// A slow reader reads once in that time.
const SLOW_READ_EVERY: Span = Span::from_secs(1);

impl Behaviour {
    /// Whether it is there to be served.
    pub(super) const fn fetches(&self) -> bool {
        matches!(self, Self::Leech | Self::Reader | Self::Flooder) || self.is_greedy()
    }

    /// Whether it wants much and gives nothing.
    pub(super) const fn is_greedy(&self) -> bool {
        matches!(
            self,
            Self::Canceller
                | Self::HitAndRun
                | Self::InterestFlapper
                | Self::NeverReader
                | Self::OverAsker
                | Self::SlowReader { .. }
                | Self::TinyAsker
        )
    }

    /// How long it stays away after a connection has ended.
    pub(super) const fn redial_ns(&self) -> Draw {
        match self {
            Self::HitAndRun => (1_000_000, 5_000_000),
            _ => (1_000_000_000, 5_000_000_000),
        }
    }
}

impl Peer {
    /// Bytes that it would read now.
    pub(super) fn appetite(&mut self, world: &World, at: usize) -> usize {
        let link = &mut self.links[at];
        match self.behaviour {
            Behaviour::Flooder if link.greeted => 0,
            Behaviour::NeverReader if link.unchoked => 0,
            Behaviour::SlowReader { bytes } if link.unchoked => {
                let due = world.now() >= link.read_at;
                if due {
                    link.read_at = world.now() + SLOW_READ_EVERY;
                }
                world.set_deadline(self.id, link.read_at);
                if due { bytes } else { 0 }
            }
            _ => usize::MAX,
        }
    }

    /// What it does of itself.
    pub(super) fn be_greedy(&mut self, world: &World, at: usize) {
        if self.behaviour == Behaviour::InterestFlapper {
            return self.flap_interest(at);
        }
        if !self.links[at].unchoked {
            return;
        }
        match self.behaviour {
            Behaviour::Canceller => self.ask_and_cancel(world, at),
            Behaviour::HitAndRun => self.hit_and_run(world, at),
            Behaviour::OverAsker => self.want(world, at, TOO_MANY, u32::MAX),
            Behaviour::TinyAsker => self.want(world, at, REQUESTS_QUEUED_MAX, 1),
            _ => {
                self.want(world, at, REQUESTS_QUEUED_MAX, u32::MAX);
                self.say_it_lives(world, at);
            }
        }
    }

    /// Requests random blocks until so many are outstanding.
    fn want(&mut self, world: &World, at: usize, count: usize, bytes_max: u32) {
        while self.links[at].asked.len() < count {
            let block = self.any_block(world);
            let block = BlockRef { length: block.length.min(bytes_max), ..block };
            self.links[at].asked.push(block);
            self.push(at, Message::Request(block));
        }
    }

    fn ask_and_cancel(&mut self, world: &World, at: usize) {
        while self.links[at].output.len() < FLOOD_BYTES {
            let blocks: Vec<_> = (0..REQUESTS_QUEUED_MAX).map(|_| self.any_block(world)).collect();
            blocks.iter().for_each(|&block| self.push(at, Message::Request(block)));
            // The last one first: each is looked for through the whole queue.
            blocks.iter().rev().for_each(|&block| self.push(at, Message::Cancel(block)));
        }
    }

    fn hit_and_run(&mut self, world: &World, at: usize) {
        if self.links[at].asked.is_empty() {
            self.want(world, at, REQUESTS_QUEUED_MAX, u32::MAX);
            self.pause(world, at, 2_000_000);
        } else if world.now() >= self.links[at].act_at {
            self.links[at].is_over = true;
        } else {
            world.set_deadline(self.id, self.links[at].act_at);
        }
    }

    fn flap_interest(&mut self, at: usize) {
        while self.links[at].output.len() < FLOOD_BYTES {
            self.push(at, Message::NotInterested);
            self.push(at, Message::Interested);
        }
    }

    fn say_it_lives(&mut self, world: &World, at: usize) {
        if world.now() >= self.links[at].act_at {
            self.push(at, Message::KeepAlive);
            self.links[at].act_at = world.now() + Span::from_secs(30);
        }
        world.set_deadline(self.id, self.links[at].act_at);
    }
}
