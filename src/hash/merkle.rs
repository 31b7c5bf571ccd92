//! The hash tree of a file (BEP 52): leaves are the SHA-256 of its blocks of 16 KiB, the last block as long
//! as it is; leaves that are missing to a power of two are zero.
//!
//! Layers count from the leaves up. Nodes over no real leaf are not kept anywhere: [`pad`] says what they
//! are. Nothing here panics whatever it is given; what does not fit is `None`.

mod request;

use std::sync::LazyLock;

use super::sha256::{self, LANES};
use crate::base::limits::TOTAL_BYTES_MAX;
use crate::base::units::BLOCK_BYTES;

pub use super::sha256::Hash;
pub use request::{HashRange, Reached};

/// Layers above the leaves of the largest file's tree.
pub const HEIGHT_MAX: u32 = (TOTAL_BYTES_MAX / BLOCK_BYTES as u64).ilog2();

/// Size of one file's tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Blocks of the file, never 0.
    pub leaves: u64,
    /// Layers above the leaves; 0 if the only leaf is the root.
    pub height: u32,
}

impl Shape {
    /// The tree of a file of `length` bytes; `None` for an empty file, which has none, and beyond the limit.
    pub const fn of_file(length: u64) -> Option<Self> {
        if length == 0 || length > TOTAL_BYTES_MAX {
            return None;
        }
        let leaves = length.div_ceil(BLOCK_BYTES as u64);
        Some(Self { leaves, height: leaves.next_power_of_two().ilog2() })
    }

    /// Nodes of `layer` that stand over real leaves.
    pub const fn nodes(&self, layer: u32) -> u64 {
        if layer > self.height { 0 } else { self.leaves.div_ceil(1 << layer) }
    }
}

/// The layer of which one hash covers a piece of `piece_bytes`.
pub const fn piece_layer(piece_bytes: u32) -> u32 {
    match piece_bytes / BLOCK_BYTES {
        0 => 0,
        blocks => blocks.next_power_of_two().ilog2(),
    }
}

/// The leaf of one block.
pub fn leaf(block: &[u8]) -> Hash {
    sha256::digest(block)
}

/// The leaves of `blocks`, in order, as far as `out` has room.
pub fn leaves(blocks: &[&[u8]], out: &mut [Hash]) {
    sha256::digest_many(blocks, out);
}

/// Appends the leaves of `bytes`, which begin at a block's boundary and end at one or with the file.
pub fn push_leaves(bytes: &[u8], leaves: &mut Vec<Hash>) {
    let mut blocks = bytes.chunks(BLOCK_BYTES as usize);
    while let Some(block) = blocks.next() {
        let side_by_side: [&[u8]; LANES] = [block, blocks.next().unwrap_or_default()];
        let mut out = [[0; 32]; LANES];
        sha256::digest_many(&side_by_side, &mut out);
        let count = side_by_side.iter().filter(|block| !block.is_empty()).count();
        leaves.extend_from_slice(&out[..count]);
    }
}

/// The node over `left` and `right`.
pub fn parent(left: &Hash, right: &Hash) -> Hash {
    sha256::digest([*left, *right].as_flattened())
}

/// What stands on `layer` over no real leaf.
pub fn pad(layer: u32) -> Hash {
    /// Of each layer.
    static PADS: LazyLock<[Hash; HEIGHT_MAX as usize + 1]> = LazyLock::new(|| {
        let mut pads = [[0; 32]; HEIGHT_MAX as usize + 1];
        for layer in 1..pads.len() {
            pads[layer] = parent(&pads[layer - 1], &pads[layer - 1]);
        }
        pads
    });
    PADS[layer.min(HEIGHT_MAX) as usize]
}

/// The node `height` layers above `nodes`, which are the first on `layer` below it and are overwritten;
/// what is missing is padding. `None` if there are more than it covers, or the tree is too high.
pub fn root(nodes: &mut [Hash], layer: u32, height: u32) -> Option<Hash> {
    let top = layer.checked_add(height).filter(|&top| top <= HEIGHT_MAX)?;
    if nodes.len() as u64 > 1 << height {
        return None;
    }
    if nodes.is_empty() {
        return Some(pad(top));
    }
    let mut count = nodes.len();
    for below in layer..top {
        count = ascend(nodes.get_mut(..count)?, &pad(below));
    }
    nodes.first().copied()
}

/// Puts the layer above `nodes` in front of them; how many nodes it has.
fn ascend(nodes: &mut [Hash], filler: &Hash) -> usize {
    let above = nodes.len().div_ceil(2);
    for at in (0..above).step_by(LANES) {
        let node = |index: usize| nodes.get(index).unwrap_or(filler);
        let pair = |index: usize| [*node(2 * index), *node(2 * index + 1)];
        let pairs: [[Hash; 2]; LANES] = std::array::from_fn(|lane| pair(at + lane));
        let inputs = pairs.each_ref().map(|pair| pair.as_flattened());
        let end = above.min(at + LANES);
        // Both pairs have been read, and they do not lie before what is written.
        sha256::digest_many(&inputs, &mut nodes[at..end]);
    }
    above
}

/// The part of a file's tree from one layer up to its root, to answer hash requests from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// The lowest layer that is kept.
    base: u32,
    /// Real nodes of each layer from `base` up; the last has the root alone.
    layers: Vec<Vec<Hash>>,
}

impl Tree {
    /// The tree over all real nodes `nodes` of layer `base`; `None` if their number is not that of `shape`.
    pub fn new(shape: Shape, base: u32, nodes: Vec<Hash>) -> Option<Self> {
        if base > shape.height || shape.height > HEIGHT_MAX || nodes.len() as u64 != shape.nodes(base) {
            return None;
        }
        let mut layers = vec![nodes];
        for below in base..shape.height {
            let mut above = layers.last()?.clone();
            let count = ascend(&mut above, &pad(below));
            above.truncate(count);
            above.shrink_to_fit();
            layers.push(above);
        }
        Some(Self { base, layers })
    }

    /// The root.
    pub fn root(&self) -> Hash {
        self.layers.last().and_then(|layer| layer.first()).copied().unwrap_or_default()
    }

    /// Node `index` of `layer`, padding included; `None` below what is kept and outside the tree.
    pub fn node(&self, layer: u32, index: u64) -> Option<Hash> {
        let above = layer.checked_sub(self.base)?;
        let nodes = self.layers.get(above as usize)?;
        let width = 1u64 << (self.layers.len() - 1 - above as usize);
        let real = usize::try_from(index).ok().and_then(|index| nodes.get(index)).copied();
        real.or_else(|| (index < width).then(|| pad(layer)))
    }
}

#[cfg(test)]
mod tests;
