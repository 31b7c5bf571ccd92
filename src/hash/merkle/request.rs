//! Parts of a tree that peers ask for, and the proofs that come with them (BEP 52: hash request, hashes).
//!
//! What is asked for is a run of nodes of one layer, aligned so that it fills a subtree, and the uncles on
//! the way from that subtree's root towards the file's: one for each layer, but those which follow from the
//! run. The layer right above the run counts as a proof layer, too, although none of its hashes is sent if
//! the run has two nodes; so a proof of `proof_layers` ends `proof_layers + 1` layers above the run, where
//! the hash that was computed is compared with a known one.

use super::{HEIGHT_MAX, Hash, Shape, pad, parent, root};
use crate::base::limits::HASHES_PER_REQUEST_MAX;

/// What a hash request asks for, as it stands on the wire behind the file's root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HashRange {
    /// The layer of the hashes; 0 is the leaves'.
    pub base: u32,
    /// Place of the first on that layer.
    pub index: u32,
    /// How many: a power of two from 2 on, unless the file's last node ends it.
    pub length: u32,
    /// Layers above `base` whose hashes are to be provable, the root's not counted.
    pub proof_layers: u32,
}

/// The node that a proof has led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Its layer.
    pub layer: u32,
    /// Its place.
    pub index: u64,
    /// What it must be if the hashes are right.
    pub hash: Hash,
}

impl HashRange {
    /// Whether it is one that a tree of `shape` can answer.
    pub fn fits(&self, shape: Shape) -> bool {
        if self.base >= shape.height || shape.height > HEIGHT_MAX {
            return false;
        }
        let (index, length) = (u64::from(self.index), u64::from(self.length));
        let span = length.next_power_of_two();
        let ends = length == span || index + length == shape.nodes(self.base);
        (2..=u64::from(HASHES_PER_REQUEST_MAX)).contains(&length)
            && ends
            && index.is_multiple_of(span)
            && index + span <= 1 << (shape.height - self.base)
            && self.proof_layers < shape.height - self.base
    }

    /// Layers from the nodes up to the root of the subtree that they fill.
    const fn subtree_height(&self) -> u32 {
        // Of 2^31 and more nothing is asked (`fits`).
        if self.length > 1 << 31 { 32 } else { self.length.next_power_of_two().ilog2() }
    }

    /// Hashes of the proof.
    const fn uncles(&self) -> u32 {
        (self.proof_layers + 1).saturating_sub(self.subtree_height())
    }

    /// Hashes in the answer.
    pub const fn hashes(&self) -> usize {
        self.length as usize + self.uncles() as usize
    }

    /// The answer: the nodes, then the uncles from below to above. `None` if the request does not fit the
    /// tree, or `node` (layer, place) does not know all of it; of padding it is not asked.
    pub fn answer(&self, shape: Shape, node: impl Fn(u32, u64) -> Option<Hash>) -> Option<Vec<Hash>> {
        if !self.fits(shape) {
            return None;
        }
        let get = |layer: u32, index: u64| match index < shape.nodes(layer) {
            true => node(layer, index),
            false => Some(pad(layer)),
        };
        let mut hashes = Vec::with_capacity(self.hashes());
        for index in u64::from(self.index)..u64::from(self.index) + u64::from(self.length) {
            hashes.push(get(self.base, index)?);
        }
        let foot = self.subtree_height();
        for layer in foot..foot + self.uncles() {
            hashes.push(get(self.base + layer, (u64::from(self.index) >> layer) ^ 1)?);
        }
        Some(hashes)
    }

    /// Where `hashes`, the answer of a peer, lead. The caller compares with the node that it knows at that
    /// place: nothing is proved before. `None` if they are not as many as the request asks for.
    pub fn climb(&self, shape: Shape, hashes: &[Hash]) -> Option<Reached> {
        if !self.fits(shape) || hashes.len() != self.hashes() {
            return None;
        }
        let (nodes, uncles) = hashes.split_at_checked(self.length as usize)?;
        let foot = self.subtree_height();
        let mut hash = root(&mut nodes.to_vec(), self.base, foot)?;
        let mut layer = self.base + foot;
        let mut index = u64::from(self.index) >> foot;
        for uncle in uncles {
            hash = if index.is_multiple_of(2) { parent(&hash, uncle) } else { parent(uncle, &hash) };
            (layer, index) = (layer + 1, index >> 1);
        }
        Some(Reached { layer, index, hash })
    }
}
