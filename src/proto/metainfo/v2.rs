//! What a torrent says for BitTorrent v2 (BEP 52), checked against itself and, in a hybrid, against its v1
//! part.

use std::collections::HashMap;
use std::ops::Range;

use super::tree::FileTree;
use super::{FileEntry, MetainfoError, paths};
use crate::base::geometry::Geometry;
use crate::base::ids::InfoHash;
use crate::base::units::BLOCK_BYTES;
use crate::hash::merkle::{self, Hash, Shape};
use crate::hash::sha256;
use crate::proto::bencode::Value;
use crate::proto::magnet::short;

const LAYERS: &str = "piece layers";

/// The v2 part of a torrent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct V2 {
    /// SHA-256 of the raw bytes of the info dictionary.
    pub info_hash: Hash,
    /// All files but empty ones, in payload order. Each begins at a piece, and each piece is of one file.
    pub files: Vec<V2File>,
}

/// The hashes of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct V2File {
    /// Its place in [`Metainfo::files`](super::Metainfo::files).
    pub index: u32,
    /// Size in bytes, not 0.
    pub length: u64,
    /// Its pieces.
    pub pieces: Range<u32>,
    /// The root of its tree.
    pub pieces_root: Hash,
    /// Size of its tree.
    pub shape: Shape,
    /// The layer of the tree of which `layer` holds the nodes.
    pub layer_height: u32,
    /// The root of the subtree of each piece, checked against `pieces_root`. Of a file of one piece it is the
    /// file's root.
    pub layer: Vec<Hash>,
}

/// By what a piece is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PieceTree {
    /// The file, by its place in [`Metainfo::files`](super::Metainfo::files).
    pub file: u32,
    /// Real bytes of the piece, without the padding behind the end of a file.
    pub length: u32,
    /// Layers from the leaves up to `root`.
    pub height: u32,
    /// The root over its leaves.
    pub root: Hash,
}

/// A piece layer that is to be had from peers, since an info dictionary does not bring it (BEP 9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedLayer {
    /// The root of the file's tree.
    pub root: Hash,
    /// Size of the tree.
    pub shape: Shape,
    /// Layers from the leaves up to the wanted one.
    pub height: u32,
}

impl WantedLayer {
    /// Its hashes: one for each piece of the file.
    pub const fn hashes(&self) -> u32 {
        self.shape.nodes(self.height) as u32
    }
}

impl super::Metainfo {
    /// By what peers, trackers and the DHT know it: a hybrid torrent has two names (BEP 52), and a swarm by
    /// each.
    pub fn names(&self) -> impl Iterator<Item = InfoHash> {
        let second = self.v2.as_ref().map(V2::short_info_hash).filter(|name| *name != self.info_hash);
        std::iter::once(self.info_hash).chain(second)
    }
}

impl V2 {
    /// The file that piece `piece` is of.
    pub fn file_of(&self, piece: u32) -> Option<&V2File> {
        let at = self.files.partition_point(|file| file.pieces.end <= piece);
        self.files.get(at).filter(|file| file.pieces.contains(&piece))
    }

    /// By what piece `piece` is verified; `None` beyond the last.
    pub fn piece(&self, piece: u32) -> Option<PieceTree> {
        self.file_of(piece)?.piece(piece)
    }

    /// Files of which no piece layer was found: there are none once a torrent is whole.
    pub(super) fn bare_files(&self) -> impl Iterator<Item = &V2File> {
        self.files.iter().filter(|file| file.layer.is_empty())
    }

    /// `info_hash` in hexadecimal.
    pub fn info_hash_hex(&self) -> String {
        self.info_hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// What stands for `info_hash` in handshakes and announces.
    pub fn short_info_hash(&self) -> InfoHash {
        short(&self.info_hash)
    }
}

impl V2File {
    /// By what piece `piece` of the torrent is verified; `None` if it is of another file.
    pub fn piece(&self, piece: u32) -> Option<PieceTree> {
        let number = piece.checked_sub(self.pieces.start)?;
        let left =
            self.length.checked_sub(u64::from(number) * self.piece_bytes()).filter(|&left| left > 0)?;
        let height = self.layer_height;
        let root = *self.layer.get(number as usize)?;
        Some(PieceTree { file: self.index, length: left.min(self.piece_bytes()) as u32, height, root })
    }

    /// What is to be asked for.
    pub(super) const fn wanted_layer(&self) -> WantedLayer {
        WantedLayer { root: self.pieces_root, shape: self.shape, height: self.layer_height }
    }

    fn is_layer(&self, layer: &[Hash]) -> bool {
        let above = self.shape.height - self.layer_height;
        layer.len() == self.pieces.len()
            && merkle::root(&mut layer.to_vec(), self.layer_height, above) == Some(self.pieces_root)
    }

    /// What the subtree of one piece spans.
    const fn piece_bytes(&self) -> u64 {
        (BLOCK_BYTES as u64) << self.layer_height
    }
}

impl PieceTree {
    /// Whether `leaves` (overwritten) are those of the piece: one for each begun block.
    pub fn verify(&self, leaves: &mut [Hash]) -> bool {
        let wanted = self.length.div_ceil(BLOCK_BYTES);
        leaves.len() == wanted as usize && merkle::root(leaves, 0, self.height) == Some(self.root)
    }
}

/// Puts together what the tree and the piece layers say about `files`: those of the v1 part, or the tree's
/// own. Layers that are absent are left empty.
pub(super) fn read(
    (root, info): (Value<'_>, Value<'_>),
    tree: &FileTree,
    files: &[FileEntry],
    geometry: Geometry,
) -> Result<V2, MetainfoError> {
    let mut files = place(tree, files, geometry)?;
    let mut known = layers_by_root(root)?;
    for file in &mut files {
        let root = file.pieces_root;
        if file.pieces.len() == 1 {
            file.layer = vec![file.pieces_root];
            continue;
        }
        let Some((bytes, used)) = known.get_mut(&root[..]) else { continue };
        *used = true;
        let (hashes, rest) = bytes.as_chunks::<32>();
        if !rest.is_empty() || !file.is_layer(hashes) {
            return Err(MetainfoError::WrongLayer { path: shown(tree, root) });
        }
        file.layer = hashes.to_vec();
    }
    if known.values().any(|(_, used)| !used) {
        return Err(MetainfoError::Malformed { key: LAYERS });
    }
    Ok(V2 { info_hash: sha256::digest(info.raw()), files })
}

/// The path of the file with this root, for a message.
fn shown(tree: &FileTree, pieces_root: Hash) -> String {
    let at = tree.roots.iter().position(|root| *root == Some(pieces_root));
    at.and_then(|at| tree.files.get(at)).map(|file| paths::shown(&file.path)).unwrap_or_default()
}

/// Piece layers by the root that they belong to, and whether they have been used.
type LayersByRoot<'a> = HashMap<&'a [u8], (&'a [u8], bool)>;

/// The piece layers, none of them used yet.
fn layers_by_root<'a>(root: Value<'a>) -> Result<LayersByRoot<'a>, MetainfoError> {
    let malformed = MetainfoError::Malformed { key: LAYERS };
    let Some(layers) = root.get(LAYERS.as_bytes()) else { return Ok(HashMap::new()) };
    let entries = layers.as_dict().ok_or_else(|| malformed.clone())?;
    let entry = |(root, layer): (&'a [u8], Value<'a>)| {
        layer.as_bytes().map(|layer| (root, (layer, false))).ok_or_else(|| malformed.clone())
    };
    entries.map(entry).collect()
}

/// Where the files of `tree` lie among `files`, which must be the same ones in the same order, each
/// non-empty one at the piece that follows the one before.
fn place(tree: &FileTree, files: &[FileEntry], geometry: Geometry) -> Result<Vec<V2File>, MetainfoError> {
    let mut leaves = tree.files.iter().zip(&tree.roots);
    let mut placed = Vec::new();
    let (mut offset, mut next_piece) = (0u64, 0u64);
    for (index, file) in files.iter().enumerate() {
        let start = offset;
        offset += file.length;
        if file.pad {
            continue;
        }
        let mismatch = || MetainfoError::Mismatch { path: paths::shown(&file.path) };
        let (leaf, root) = leaves.next().ok_or_else(mismatch)?;
        if leaf != file {
            return Err(mismatch());
        }
        let (Some(pieces_root), Some(shape)) = (root, Shape::of_file(file.length)) else { continue };
        let first = next_piece;
        if start != first * u64::from(geometry.piece_bytes) {
            return Err(mismatch());
        }
        next_piece += file.length.div_ceil(geometry.piece_bytes.into());
        placed.push(V2File {
            index: index as u32,
            length: file.length,
            // Checked before: not more than `PIECES_MAX`.
            pieces: first as u32..next_piece as u32,
            pieces_root: *pieces_root,
            shape,
            layer_height: merkle::piece_layer(geometry.piece_bytes).min(shape.height),
            layer: Vec::new(),
        });
    }
    let left = leaves.next().map(|(file, _)| paths::shown(&file.path));
    if left.is_some() || next_piece != u64::from(geometry.piece_count()) {
        return Err(MetainfoError::Mismatch { path: left.unwrap_or_default() });
    }
    Ok(placed)
}
