//! The piece layers of what a magnet link names, out of what peers send (BEP 52); sans-io. One per link, on
//! the control thread, once its info dictionary was found and before there is a torrent.
//!
//! A layer is asked for in runs of `LAYER_HASHES_PER_REQUEST` hashes, and each comes with what proves it by
//! the file's root, which the dictionary has. So each answer is judged alone, all peers give at once, and
//! whoever gives a wrong one is known. Who refuses or is silent is parted from, and others are asked for the
//! same. What is kept is proven, and no more than the dictionary says that there is; who means to be slow
//! has to give what is right.

use std::collections::BTreeMap;

use super::fetch::{Fault, FetchAction, PeerNumber, Wishes};
use crate::base::limits::{
    HASH_PATIENCE, LAYER_HASHES_PER_REQUEST, LAYER_REQUESTS_OUT, LAYERS_PATIENCE, LAYERS_TIME_MAX,
};
use crate::base::time::Instant;
use crate::hash::merkle::{Hash, HashRange};
use crate::proto::metainfo::WantedLayer;
use crate::proto::wire::hashes::HashRequest;

/// Whole layers by the roots of their files.
pub type Layers = BTreeMap<Hash, Vec<Hash>>;

/// What a fetch wants done. In the end there are all of them, right, or none: nobody gave them in time, and
/// the torrent is of use without.
pub type LayersAction = FetchAction<HashRequest, Option<Layers>>;

/// Whether a torrent is of any use without its layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// There is nothing else by which its pieces could be verified.
    Must,
    /// A hybrid, of which the v1 part will do.
    May,
}

/// See the module.
///
/// Invariant: each run is told of by `next`, or stands once in `again` or in what a peer was asked for, or
/// was taken; `left` counts those that were not.
#[derive(Debug)]
pub struct LayersFetch {
    layers: Vec<Layer>,
    need: Need,
    peers: BTreeMap<PeerNumber, Peer>,
    /// The first run that nobody was asked for.
    next: Run,
    /// Runs that somebody was asked for in vain.
    again: Vec<Run>,
    left: u64,
    begun_at: Instant,
    /// When hashes were last taken.
    got_at: Instant,
    wishes: Wishes<HashRequest, Option<Layers>>,
}

#[derive(Debug)]
struct Layer {
    wanted: WantedLayer,
    /// As many as there are, from the first answer on.
    hashes: Vec<Hash>,
}

/// What one request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    layer: usize,
    number: u32,
}

#[derive(Debug)]
struct Peer {
    asked: Vec<Run>,
    /// When it last gave something, or was first asked.
    heard_at: Instant,
    gave: bool,
}

impl Layer {
    const fn runs(&self) -> u32 {
        self.wanted.hashes().div_ceil(LAYER_HASHES_PER_REQUEST)
    }

    /// The request for a run, proven up to the root: to the end of the layer, rounded up to a subtree.
    fn request(&self, number: u32) -> HashRequest {
        let WantedLayer { root, shape, height } = self.wanted;
        let index = number * LAYER_HASHES_PER_REQUEST;
        let length = (self.wanted.hashes() - index).next_power_of_two();
        HashRequest {
            root,
            base_layer: height,
            index,
            length: length.clamp(2, LAYER_HASHES_PER_REQUEST),
            proof_layers: shape.height - height - 1,
        }
    }

    /// Takes what a peer answered to `request`, if that is right.
    fn take(&mut self, request: &HashRequest, hashes: &[Hash]) -> bool {
        let HashRequest { base_layer: base, index, length, proof_layers, .. } = *request;
        let range = HashRange { base, index, length, proof_layers };
        let Some(reached) = range.climb(self.wanted.shape, hashes) else { return false };
        if reached.layer != self.wanted.shape.height || reached.hash != self.wanted.root {
            return false;
        }
        let all = self.wanted.hashes() as usize;
        self.hashes.resize(all, [0; 32]);
        // What is beyond the file's last piece is padding, as the root proves.
        for (place, hash) in self.hashes[index as usize..].iter_mut().zip(&hashes[..length as usize]) {
            *place = *hash;
        }
        true
    }
}

impl LayersFetch {
    /// A fetch of these layers, each of two hashes or more, from nobody yet.
    pub fn new(wanted: &[WantedLayer], need: Need, now: Instant) -> Self {
        let layers: Vec<Layer> = wanted.iter().map(|&wanted| Layer { wanted, hashes: Vec::new() }).collect();
        let left = layers.iter().map(|layer| u64::from(layer.runs())).sum();
        Self {
            layers,
            need,
            peers: BTreeMap::new(),
            next: Run { layer: 0, number: 0 },
            again: Vec::new(),
            left,
            begun_at: now,
            got_at: now,
            wishes: Wishes::new(),
        }
    }

    /// A peer that speaks v2 can be asked.
    pub fn handle_ready(&mut self, peer: PeerNumber, now: Instant) {
        if self.is_done() || self.peers.contains_key(&peer) {
            return;
        }
        self.peers.insert(peer, Peer { asked: Vec::new(), heard_at: now, gave: false });
        self.ask(peer, now);
    }

    /// A peer gives hashes, in answer to `request` by its own word.
    pub fn handle_hashes(&mut self, peer: PeerNumber, request: &HashRequest, hashes: &[Hash], now: Instant) {
        if !self.peers.contains_key(&peer) {
            return;
        }
        let Some(run) = self.take_asked(peer, request) else { return self.part(peer, Fault::Lied, now) };
        if !self.layers[run.layer].take(request, hashes) {
            self.again.push(run);
            return self.part(peer, Fault::Lied, now);
        }
        self.got_at = now;
        self.left -= 1;
        if let Some(giver) = self.peers.get_mut(&peer) {
            giver.heard_at = now;
            giver.gave = true;
        }
        if self.left > 0 {
            return self.ask(peer, now);
        }
        let whole = std::mem::take(&mut self.layers).into_iter();
        self.finish(Some(whole.map(|layer| (layer.wanted.root, layer.hashes)).collect()));
    }

    /// A peer will not give hashes.
    pub fn handle_reject(&mut self, peer: PeerNumber, request: &HashRequest, now: Instant) {
        if !self.peers.contains_key(&peer) {
            return;
        }
        let Some(run) = self.take_asked(peer, request) else { return self.part(peer, Fault::Lied, now) };
        self.again.push(run);
        self.part(peer, Fault::Refused, now);
    }

    /// The connection to a peer ended: others are asked for what it did not give.
    pub fn handle_gone(&mut self, peer: PeerNumber, now: Instant) {
        let Some(gone) = self.peers.remove(&peer) else { return };
        self.again.extend(gone.asked);
        let others: Vec<PeerNumber> = self.peers.keys().copied().collect();
        others.into_iter().for_each(|other| self.ask(other, now));
    }

    /// Time has passed.
    pub fn handle_tick(&mut self, now: Instant) {
        let silent = |peer: &Peer| peer.silent_at().is_some_and(|at| at <= now);
        let silent: Vec<PeerNumber> =
            self.peers.iter().filter(|(_, peer)| silent(peer)).map(|(&number, _)| number).collect();
        silent.into_iter().for_each(|peer| self.part(peer, Fault::Silent, now));
        if self.given_up_at().is_some_and(|at| at <= now) {
            self.finish(None);
        }
    }

    /// When `handle_tick` is next due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.peers.values().filter_map(Peer::silent_at).chain(self.given_up_at()).min()
    }

    /// The next intention.
    pub fn poll_action(&mut self) -> Option<LayersAction> {
        self.wishes.poll()
    }

    /// Whether all of them were found, or are waited for no longer.
    pub const fn is_done(&self) -> bool {
        self.wishes.is_over()
    }

    /// How many peers gave something.
    pub fn peers(&self) -> usize {
        self.peers.values().filter(|peer| peer.gave).count()
    }

    fn given_up_at(&self) -> Option<Instant> {
        let waits = self.need == Need::May && !self.is_done();
        waits.then(|| (self.got_at + LAYERS_PATIENCE).min(self.begun_at + LAYERS_TIME_MAX))
    }

    /// What a peer was asked for by exactly this request, which is answered.
    fn take_asked(&mut self, peer: PeerNumber, request: &HashRequest) -> Option<Run> {
        let asked = &mut self.peers.get_mut(&peer)?.asked;
        let is_it = |run: &Run| self.layers[run.layer].request(run.number) == *request;
        let at = asked.iter().position(is_it)?;
        Some(asked.swap_remove(at))
    }

    fn ask(&mut self, peer: PeerNumber, now: Instant) {
        while let Some(giver) =
            self.peers.get_mut(&peer).filter(|giver| giver.asked.len() < LAYER_REQUESTS_OUT)
        {
            let Some(run) = self.again.pop().or_else(|| next_run(&self.layers, &mut self.next)) else {
                return;
            };
            if giver.asked.is_empty() {
                giver.heard_at = now;
            }
            giver.asked.push(run);
            self.wishes.ask(peer, self.layers[run.layer].request(run.number));
        }
    }

    fn part(&mut self, peer: PeerNumber, fault: Fault, now: Instant) {
        self.wishes.part(peer, fault);
        self.handle_gone(peer, now);
    }

    /// Nobody is asked any more.
    fn finish(&mut self, found: Option<Layers>) {
        self.peers.clear();
        self.again.clear();
        self.wishes.end(found);
    }
}

impl Peer {
    /// When it will have been silent for too long.
    fn silent_at(&self) -> Option<Instant> {
        (!self.asked.is_empty()).then(|| self.heard_at + HASH_PATIENCE)
    }
}

/// The first run that nobody was asked for.
fn next_run(layers: &[Layer], next: &mut Run) -> Option<Run> {
    let layer = layers.get(next.layer)?;
    let run = *next;
    next.number += 1;
    if next.number == layer.runs() {
        *next = Run { layer: run.layer + 1, number: 0 };
    }
    Some(run)
}

#[cfg(test)]
mod tests;
