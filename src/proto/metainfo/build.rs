//! Making a .torrent file.

use super::{FileEntry, Metainfo, MetainfoError, paths};
use crate::base::limits::{PIECE_BYTES_MAX, PIECES_MAX};
use crate::base::units::CHUNK_BYTES;
use crate::proto::bencode::Item;

mod v2;

pub use v2::{FileHashes, V2Builder, aligned};

/// Pieces that a torrent gets if its size allows.
const PIECES_WANTED: u64 = 2048;
/// Piece length from which on more pieces are better than longer ones.
const PIECE_BYTES_WANTED: u32 = 16 << 20;

/// All that goes into a .torrent file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetainfoBuilder {
    /// Name of the file or of the top directory.
    pub name: String,
    /// Files in payload order, paths starting with `name`; a lone file at just `name` makes a
    /// single-file torrent.
    pub files: Vec<FileEntry>,
    /// Piece length: a multiple of 16 KiB.
    pub piece_bytes: u32,
    /// SHA-1 of each piece, in order.
    pub piece_hashes: Vec<[u8; 20]>,
    /// Tracker tiers (BEP 12).
    pub trackers: Vec<Vec<String>>,
    /// HTTP sources (BEP 19).
    pub web_seeds: Vec<String>,
    /// Only the trackers may name peers (BEP 27).
    pub private: bool,
    /// Free text.
    pub comment: Option<String>,
    /// Free text: the program.
    pub created_by: Option<String>,
    /// Seconds since 1970.
    pub creation_date: Option<i64>,
}

impl MetainfoBuilder {
    /// The bytes of the .torrent file, and what they parse to: whatever [`Metainfo::parse`] would
    /// refuse or change about the files fails here.
    pub fn build(&self) -> Result<(Vec<u8>, Metainfo), MetainfoError> {
        self.parsed(Item::dict(self.root(self.info())).to_bytes())
    }

    /// `bytes`, and what they parse to, if no path comes out otherwise.
    fn parsed(&self, bytes: Vec<u8>) -> Result<(Vec<u8>, Metainfo), MetainfoError> {
        let parsed = Metainfo::parse(&bytes)?;
        let wanted = self.files.iter().filter(|file| !file.pad);
        for (wanted, got) in wanted.zip(parsed.files.iter().filter(|file| !file.pad)) {
            if wanted.path != got.path {
                return Err(MetainfoError::Unportable { path: paths::shown(&wanted.path) });
            }
        }
        Ok((bytes, parsed))
    }

    /// The entries beside `info`, and itself.
    fn root<'a>(&'a self, info: Item<'a>) -> Vec<(&'static str, Item<'a>)> {
        let mut root = vec![("info", info)];
        root.extend(self.trackers.iter().flatten().next().map(|url| ("announce", url.as_str().into())));
        if self.trackers.iter().flatten().count() > 1 {
            root.push((
                "announce-list",
                Item::List(self.trackers.iter().map(|tier| strings(tier)).collect()),
            ));
        }
        if !self.web_seeds.is_empty() {
            root.push(("url-list", strings(&self.web_seeds)));
        }
        root.extend(self.comment.as_deref().map(|text| ("comment", text.into())));
        root.extend(self.created_by.as_deref().map(|text| ("created by", text.into())));
        root.extend(self.creation_date.map(|date| ("creation date", Item::Int(date))));
        root
    }

    fn info(&self) -> Item<'_> {
        let mut info = self.common_info();
        info.extend(self.v1_info(&self.files));
        Item::dict(info)
    }

    /// What an info dictionary has in every version.
    fn common_info(&self) -> Vec<(&'static str, Item<'_>)> {
        let mut info =
            vec![("name", self.name.as_str().into()), ("piece length", Item::Int(self.piece_bytes.into()))];
        info.extend(self.private.then_some(("private", Item::Int(1))));
        info
    }

    /// What it has besides for v1.
    fn v1_info<'a>(&'a self, files: &'a [FileEntry]) -> [(&'static str, Item<'a>); 2] {
        let list = match files {
            [file] if file.path == [self.name.as_str()] && !file.pad => ("length", int(file.length)),
            files => ("files", Item::List(files.iter().map(entry).collect())),
        };
        [list, ("pieces", Item::Bytes(self.piece_hashes.as_flattened()))]
    }
}

/// The piece length that `troc create` takes for `total_bytes` of content: a power of two, at
/// least one chunk (256 KiB), so that there are about a thousand or two pieces; beyond 32 GiB
/// 16 MiB, so that a piece is complete and passed on soon; longer only where the limit on the
/// number of pieces asks for it.
pub fn suggest_piece_bytes(total_bytes: u64) -> u32 {
    let pieces = |bytes: u32| total_bytes.div_ceil(bytes.into());
    let mut bytes = CHUNK_BYTES;
    while bytes < PIECE_BYTES_WANTED && pieces(bytes) > PIECES_WANTED {
        bytes *= 2;
    }
    while bytes < PIECE_BYTES_MAX && pieces(bytes) > PIECES_MAX.into() {
        bytes *= 2;
    }
    bytes
}

fn entry(file: &FileEntry) -> Item<'_> {
    let names = file.path.get(1..).unwrap_or_default();
    let mut entry = vec![("length", int(file.length)), ("path", strings(names))];
    if file.pad {
        entry.push(("attr", "p".into()));
    }
    Item::dict(entry)
}

/// A list of strings.
pub(super) fn strings(texts: &[String]) -> Item<'_> {
    Item::List(texts.iter().map(|text| text.as_str().into()).collect())
}

/// Beyond i64 a length is far over every limit; it only has to stay so.
fn int(value: u64) -> Item<'static> {
    Item::Int(i64::try_from(value).unwrap_or(i64::MAX))
}
