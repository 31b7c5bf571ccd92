//! The world itself, before anybody relies on what it says about a node.

mod disk;
mod greedy;
mod io;
mod limits;
mod net;
mod shrink;
mod sources;
mod swarm;

use std::sync::Arc;

use super::{HostId, Profile, SimIo, World};
use crate::base::time::Span;
use crate::io::arena::Arena;
use crate::io::{Completion, Io};

/// A world with two hosts.
fn two_hosts(seed: u64, profile: Profile) -> (World, HostId, HostId) {
    let world = World::new(seed, profile);
    let (a, b) = (world.add_host(), world.add_host());
    (world, a, b)
}

/// A core of a host with room for 64 connections, listening at port 1 of its host.
fn core(world: &World, host: HostId) -> SimIo {
    let actor = world.add_actor(host);
    world.listen(actor, 1);
    world.io(actor, Arc::new(Arena::new(0).unwrap()), 64)
}

/// Lets time pass for `cores` until each has had all that comes within `span`.
fn settle(world: &World, cores: &mut [&mut SimIo], span: Span) -> Vec<Vec<Completion>> {
    let limit = world.now() + span;
    let mut done: Vec<Vec<Completion>> = cores.iter().map(|_| Vec::new()).collect();
    loop {
        for (core, done) in cores.iter_mut().zip(&mut done) {
            core.turn(None, done);
        }
        if !world.step(limit) {
            return done;
        }
    }
}
