//! Runs actors in a world: who is ready takes a turn, and when nobody is, time moves on.

use std::collections::BTreeMap;

use super::timeline::ActorId;
use super::world::World;
use crate::base::time::Instant;

/// A core of a node with all that runs on it, or a scripted peer.
pub trait Actor {
    /// Does what there is to do now, without waiting. To be run again it sets a deadline in the
    /// world, or waits for something to come up for it.
    fn turn(&mut self, world: &World);
}

/// A world and those who act in it.
pub struct Run {
    world: World,
    actors: BTreeMap<ActorId, Box<dyn Actor>>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The condition holds.
    Done,
    /// It does not, and nothing more will happen.
    Quiet,
    /// It does not, and the time is over.
    TimeOver,
    /// It does not, and somebody runs again and again although nothing comes of it.
    Livelock,
}

/// Turns without anything on the network or a disk after which a run counts as stuck.
const IDLE_TURNS_MAX: u32 = 100_000;

impl Run {
    /// Nobody acts yet.
    pub const fn new(world: World) -> Self {
        Self { world, actors: BTreeMap::new() }
    }

    /// The world.
    pub const fn world(&self) -> &World {
        &self.world
    }

    /// Lets `actor` act under an id that `World::add_actor` gave.
    pub fn add(&mut self, id: ActorId, actor: impl Actor + 'static) {
        self.actors.insert(id, Box::new(actor));
    }

    /// Takes an actor out, for instance because its host crashed.
    pub fn remove(&mut self, id: ActorId) -> Option<Box<dyn Actor>> {
        self.world.end_actor(id);
        self.actors.remove(&id)
    }

    /// Runs until `is_done`, asked after each turn, says so, or until `limit`.
    pub fn until(&mut self, limit: Instant, mut is_done: impl FnMut(&World) -> bool) -> Outcome {
        let mut turns = 0;
        let mut progress = self.world.progress();
        loop {
            while let Some(id) = self.world.take_ready() {
                if let Some(actor) = self.actors.get_mut(&id) {
                    actor.turn(&self.world);
                }
                if is_done(&self.world) {
                    return Outcome::Done;
                }
                turns += 1;
            }
            if !self.world.step(limit) {
                return if self.world.is_idle() { Outcome::Quiet } else { Outcome::TimeOver };
            }
            if self.world.progress() > progress {
                (turns, progress) = (0, self.world.progress());
            } else if turns > IDLE_TURNS_MAX {
                return Outcome::Livelock;
            }
        }
    }
}
