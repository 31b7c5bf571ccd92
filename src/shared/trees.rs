//! The hash trees of a v2 or hybrid torrent (BEP 52), as far as its metainfo has them: from the layer of
//! pieces up.
//!
//! Files begin with a piece each, so the pieces of a file are nodes of its tree that follow one another.
//! Built when the torrent starts, away from the data path, since a peer may ask for any node.

use std::collections::HashMap;
use std::ops::Range;

use crate::base::geometry::Geometry;
use crate::base::units::BLOCK_BYTES;
use crate::hash::merkle::{Hash, Shape, Tree, piece_layer};

/// The tree of one file.
#[derive(Debug)]
pub struct FileTree {
    /// Its pieces in the torrent.
    pub pieces: Range<u32>,
    /// Its size.
    pub shape: Shape,
    /// From the layer of pieces up, or the root alone if the file is shorter than a piece.
    upper: Tree,
}

/// All trees of a torrent.
#[derive(Debug)]
pub struct Trees {
    piece_layer: u32,
    /// In the order of their pieces; empty files have none.
    files: Box<[FileTree]>,
    by_root: HashMap<Hash, u32>,
}

impl FileTree {
    /// The layer of the nodes that stand for its pieces.
    fn base(&self, piece_layer: u32) -> u32 {
        piece_layer.min(self.shape.height)
    }

    /// The root.
    pub fn root(&self) -> Hash {
        self.upper.root()
    }

    /// A node, if it stands no lower than pieces.
    pub fn node(&self, layer: u32, index: u64) -> Option<Hash> {
        self.upper.node(layer, index)
    }
}

impl Trees {
    /// The trees of files, each by its first piece, its length and the hashes of its pieces in order. `None`
    /// if they do not fit.
    pub fn new(geometry: Geometry, files: impl Iterator<Item = (u32, u64, Vec<Hash>)>) -> Option<Self> {
        let piece_layer = piece_layer(geometry.piece_bytes);
        let (mut trees, mut by_root, mut end) = (Vec::new(), HashMap::new(), 0);
        for (first, length, pieces) in files {
            let shape = Shape::of_file(length)?;
            let range = first..first.checked_add(u32::try_from(pieces.len()).ok()?)?;
            if first < end || range.end > geometry.piece_count() {
                return None;
            }
            end = range.end;
            let upper = Tree::new(shape, piece_layer.min(shape.height), pieces)?;
            // Of two files that are the same either answers for both.
            by_root.entry(upper.root()).or_insert(trees.len() as u32);
            trees.push(FileTree { pieces: range, shape, upper });
        }
        Some(Self { piece_layer, files: trees.into(), by_root })
    }

    /// The tree with that root.
    pub fn find(&self, root: &Hash) -> Option<&FileTree> {
        self.files.get(*self.by_root.get(root)? as usize)
    }

    /// The tree that a piece is part of.
    pub fn of_piece(&self, piece: u32) -> Option<&FileTree> {
        let at = self.files.partition_point(|file| file.pieces.end <= piece);
        self.files.get(at).filter(|file| file.pieces.contains(&piece))
    }

    /// What a piece must hash to.
    pub fn piece_root(&self, piece: u32) -> Option<Hash> {
        let file = self.of_piece(piece)?;
        file.node(file.base(self.piece_layer), (piece - file.pieces.start).into())
    }

    /// Layers of a piece's own tree above its leaves.
    pub fn piece_height(&self, piece: u32) -> u32 {
        self.of_piece(piece).map_or(0, |file| file.base(self.piece_layer))
    }

    /// The first leaf of a piece in the tree of its file.
    pub fn first_leaf(&self, piece: u32) -> u64 {
        let first = self.of_piece(piece).map_or(0, |file| file.pieces.start);
        u64::from(piece.saturating_sub(first)) << self.piece_layer
    }

    /// The piece of a file in which a run of nodes lies that are lower than pieces, if it is one.
    pub fn piece_of_run(&self, file: &FileTree, layer: u32, index: u64, length: u64) -> Option<u32> {
        let height = file.base(self.piece_layer).checked_sub(layer)?;
        let (first, last) = (index >> height, index.checked_add(length)?.checked_sub(1)? >> height);
        let piece = file.pieces.start.checked_add(u32::try_from(first).ok()?)?;
        (first == last && file.pieces.contains(&piece)).then_some(piece)
    }
}

/// Leaves of `bytes` bytes of a file.
pub const fn leaf_count(bytes: u32) -> u32 {
    bytes.div_ceil(BLOCK_BYTES)
}
