//! The v1 .torrent file (BEP 3, 12, 19, 27, 47).

use std::ops::Range;

use crate::base::geometry::Geometry;
use crate::base::ids::InfoHash;

/// One file of a torrent, in payload order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// Path below the download directory, one safe component each; never empty.
    pub path: Vec<String>,
    /// Size in bytes.
    pub length: u64,
    /// A padding file (BEP 47): all zero bytes, never on disk.
    pub pad: bool,
}

/// A parsed and validated .torrent file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metainfo {
    /// SHA-1 of the raw bytes of the info dictionary.
    pub info_hash: InfoHash,
    /// Name of the file or of the top directory: one safe path component.
    pub name: String,
    /// Sizes.
    pub geometry: Geometry,
    /// SHA-1 of each piece, in order.
    pub piece_hashes: Vec<[u8; 20]>,
    /// Files in payload order; paths start with `name`.
    pub files: Vec<FileEntry>,
    /// Tracker tiers (BEP 12); a lone `announce` is one tier of one.
    pub trackers: Vec<Vec<String>>,
    /// HTTP sources (BEP 19).
    pub web_seeds: Vec<String>,
    /// Only its trackers may name peers (BEP 27).
    pub private: bool,
    /// Free text, as found.
    pub comment: Option<String>,
    /// Free text, as found.
    pub created_by: Option<String>,
    /// Seconds since 1970, as found.
    pub creation_date: Option<i64>,
    /// Where the info dictionary lies in the file it was read from.
    pub info_range: Range<usize>,
}
