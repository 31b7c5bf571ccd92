//! Making a .torrent file for v2, or for both (BEP 52).

use std::collections::BTreeMap;

use super::{Item, MetainfoBuilder, int};
use crate::hash::merkle::{self, Hash, Shape};
use crate::proto::metainfo::{FileEntry, Metainfo, MetainfoError};

/// All that goes into a .torrent file for v2, or for both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct V2Builder {
    /// What v1 has, too: files sorted by path and without padding, a piece length that is a power of two.
    /// With the SHA-1 of the pieces of [`aligned`] files it becomes a hybrid, without any of v2 alone.
    pub common: MetainfoBuilder,
    /// The hashes of each file of `common`, in order; `None` for empty ones.
    pub hashes: Vec<Option<FileHashes>>,
}

/// The hashes of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileHashes {
    /// The root of its tree.
    pub pieces_root: Hash,
    /// The roots over its pieces; none if one piece is all of it.
    pub layer: Vec<Hash>,
}

impl FileHashes {
    /// The root over the `leaves` (overwritten) of one piece of a file of `length` bytes. `None` if they
    /// are more than a piece has.
    pub fn piece_root(length: u64, piece_bytes: u32, leaves: &mut [Hash]) -> Option<Hash> {
        merkle::root(leaves, 0, merkle::piece_layer(piece_bytes).min(Shape::of_file(length)?.height))
    }

    /// Of a file of `length` bytes, from the roots of all its pieces. `None` for an empty file, or if they
    /// are not as many as it has.
    pub fn new(length: u64, piece_bytes: u32, roots: Vec<Hash>) -> Option<Self> {
        let shape = Shape::of_file(length)?;
        if roots.len() as u64 != length.div_ceil(piece_bytes.into()) {
            return None;
        }
        if let [root] = roots[..] {
            return Some(Self { pieces_root: root, layer: Vec::new() });
        }
        let layer = merkle::piece_layer(piece_bytes);
        let pieces_root = merkle::root(&mut roots.clone(), layer, shape.height.checked_sub(layer)?)?;
        Some(Self { pieces_root, layer: roots })
    }
}

impl V2Builder {
    /// The bytes of the .torrent file, and what they parse to, as [`MetainfoBuilder::build`].
    pub fn build(&self) -> Result<(Vec<u8>, Metainfo), MetainfoError> {
        let common = &self.common;
        let padded = aligned(&common.name, &common.files, common.piece_bytes);
        let mut info = common.common_info();
        info.push(("meta version", Item::Int(2)));
        info.push(("file tree", self.file_tree()));
        if !common.piece_hashes.is_empty() {
            info.extend(common.v1_info(&padded));
        }
        let mut root = common.root(Item::dict(info));
        root.push(("piece layers", self.piece_layers()));
        common.parsed(Item::dict(root).to_bytes())
    }

    fn piece_layers(&self) -> Item<'_> {
        let mut layers: BTreeMap<&[u8], Item<'_>> = BTreeMap::new();
        for hashes in self.hashes.iter().flatten().filter(|hashes| !hashes.layer.is_empty()) {
            layers.insert(&hashes.pieces_root, Item::Bytes(hashes.layer.as_flattened()));
        }
        Item::Dict(layers)
    }

    fn file_tree(&self) -> Item<'_> {
        let mut tree = BTreeMap::new();
        for (file, hashes) in self.common.files.iter().zip(&self.hashes) {
            let mut properties = vec![("length", int(file.length))];
            properties
                .extend(hashes.as_ref().map(|hashes| ("pieces root", Item::Bytes(&hashes.pieces_root))));
            let leaf = Item::dict([("", Item::dict(properties))]);
            // A lone file is named by the torrent, the others lie below that name.
            insert(&mut tree, if file.path.len() > 1 { &file.path[1..] } else { &file.path }, leaf);
        }
        Item::Dict(tree)
    }
}

/// Puts `leaf` at `path`, which is as deep as the walk that found it, below `tree`. What is in its way
/// gives way: no two files of one directory are in each other's.
fn insert<'a>(tree: &mut BTreeMap<&'a [u8], Item<'a>>, path: &'a [String], leaf: Item<'a>) {
    let [name, rest @ ..] = path else { return };
    let entry = tree.entry(name.as_bytes()).or_insert_with(|| Item::Dict(BTreeMap::new()));
    match entry {
        Item::Dict(below) if !rest.is_empty() => insert(below, rest, leaf),
        entry => *entry = leaf,
    }
}

/// `files` of the torrent `name` as the v1 part of a hybrid lists them: padding behind each that does not end
/// with a piece, the last one, too, unless it is the only one (as libtorrent does).
pub fn aligned(name: &str, files: &[FileEntry], piece_bytes: u32) -> Vec<FileEntry> {
    let piece_bytes = u64::from(piece_bytes);
    let lone = files.len() == 1;
    let pad = |file: &FileEntry| match file.length % piece_bytes {
        0 => None,
        used => (!lone).then(|| FileEntry::padding(name, piece_bytes - used)),
    };
    files.iter().flat_map(|file| [Some(file.clone()), pad(file)]).flatten().collect()
}
