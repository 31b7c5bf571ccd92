//! The .torrent file (BEP 3, 12, 19, 27, 47), of version 2 (BEP 52), too, and of both.
//!
//! [`Metainfo::parse`] is the only way in: whoever holds a [`Metainfo`] holds sizes that add up,
//! within the limits, and paths that stay below the download directory. Symbolic links (BEP 47) are
//! left out, which moves no offset because they have no content.
//!
//! Files of a v2 torrent begin at pieces. So that all that follows need not know, they are listed as
//! a hybrid lists them for v1: with padding in between.

use bytes::Bytes;
use sha1::{Digest, Sha1};

use super::bencode::{self, Value};
use super::urls;
use crate::base::geometry::Geometry;
use crate::base::ids::InfoHash;
use crate::base::limits::{
    FILES_MAX, METAINFO_BYTES_MAX, METAINFO_DEPTH_MAX, METAINFO_TOKENS_MAX, PIECE_BYTES_MAX, PIECES_MAX,
    TOTAL_BYTES_MAX, TRACKERS_MAX, WEB_SEEDS_MAX,
};
use crate::base::piece_hashes::PieceHashes;
use crate::base::units::BLOCK_BYTES;

mod build;
mod error;
mod link;
mod paths;
mod tree;
mod v2;
mod whole;

pub use build::{FileHashes, MetainfoBuilder, V2Builder, aligned, suggest_piece_bytes};
pub use error::MetainfoError;
pub use link::{Bare, Found};
pub use paths::case_twins;
pub use v2::{PieceTree, V2, V2File, WantedLayer};

use tree::FileTree;

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
    /// What names the torrent to peers and trackers: SHA-1 of the raw bytes of the info dictionary, or
    /// the beginning of their SHA-256 if the torrent has no v1 part.
    pub info_hash: InfoHash,
    /// The v2 part, if there is one.
    pub v2: Option<V2>,
    /// Name of the file or of the top directory: one safe path component.
    pub name: String,
    /// Sizes.
    pub geometry: Geometry,
    /// SHA-1 of each piece, in order; none without a v1 part.
    pub piece_hashes: PieceHashes,
    /// Files in payload order; paths start with `name`.
    pub files: Vec<FileEntry>,
    /// Symbolic links (BEP 47) that the torrent has and that are not made.
    pub symlinks_skipped: u32,
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
    /// The info dictionary, byte by byte; empty while only a magnet link is known ([`Metainfo::of_link`]).
    pub info: Bytes,
    /// It has a v2 part of which the piece layers are missing, so that it is what its v1 part says.
    pub v2_left_out: bool,
}

impl FileEntry {
    /// A padding file of `length` bytes in the torrent `name`, at the path that BEP 47 suggests.
    pub fn padding(name: &str, length: u64) -> Self {
        Self { path: vec![name.to_owned(), ".pad".to_owned(), length.to_string()], length, pad: true }
    }
}

impl Metainfo {
    /// Parses a whole .torrent file.
    pub fn parse(bytes: &[u8]) -> Result<Self, MetainfoError> {
        if bytes.len() > METAINFO_BYTES_MAX {
            return Err(MetainfoError::TooLong { bytes: bytes.len() });
        }
        Reading::of(bytes)?.whole()
    }
}

/// What bytes say that may be no whole torrent: piece layers may be absent.
struct Reading {
    metainfo: Metainfo,
    /// Whether there was a word of piece layers at all.
    has_layers: bool,
}

impl Reading {
    /// A torrent, if nothing is missing. A hybrid from who had only a link comes without layers, and is what
    /// its v1 part says.
    fn whole(mut self) -> Result<Metainfo, MetainfoError> {
        let bare = self.metainfo.v2.as_ref().and_then(|v2| v2.bare_files().next());
        let Some(file) = bare else { return Ok(self.metainfo) };
        if !self.has_layers && self.metainfo.has_v1() {
            (self.metainfo.v2, self.metainfo.v2_left_out) = (None, true);
            return Ok(self.metainfo);
        }
        let path = self.metainfo.files.get(file.index as usize).map(|file| paths::shown(&file.path));
        Err(MetainfoError::MissingLayer { path: path.unwrap_or_default() })
    }

    /// Reads bytes of whatever length.
    fn of(bytes: &[u8]) -> Result<Self, MetainfoError> {
        let root = bencode::parse(bytes, METAINFO_DEPTH_MAX, METAINFO_TOKENS_MAX)?;
        let info = root.get(b"info").ok_or(MetainfoError::Missing { key: "info" })?;
        let parts = parts(info)?;
        let raw_info = Bytes::copy_from_slice(info.raw());
        let piece_hashes =
            if parts == Parts::V2 { PieceHashes::default() } else { piece_hashes(info, &raw_info)? };
        let piece_bytes = piece_bytes(info, parts)?;
        let mut name = name(info)?;
        let tree = if parts == Parts::V1 { None } else { Some(FileTree::read(info, &name)?) };
        let (files, symlinks_skipped) = match &tree {
            Some(tree) if parts == Parts::V2 => {
                // The name of a lone file stands in the tree; the other one is only to be shown.
                name = tree.files.first().and_then(|file| file.path.first()).cloned().unwrap_or(name);
                (tree.laid_out(&name, piece_bytes), tree.symlinks_skipped)
            }
            _ => files(info, &name)?,
        };
        let total_bytes = total_bytes(&files, piece_bytes)?;
        let pieces = total_bytes.div_ceil(piece_bytes.into());
        check_piece_count(if parts == Parts::V2 { pieces } else { piece_hashes.len() as u64 }, pieces)?;
        let geometry = Geometry::new(total_bytes, piece_bytes);
        let v2 = tree.map(|tree| v2::read((root, info), &tree, &files, geometry)).transpose()?;
        let short = v2.as_ref().filter(|_| parts == Parts::V2).map(V2::short_info_hash);
        let metainfo = Metainfo {
            info_hash: short.unwrap_or_else(|| InfoHash(Sha1::digest(info.raw()).into())),
            v2,
            name,
            geometry,
            piece_hashes,
            files,
            symlinks_skipped,
            trackers: trackers(root),
            web_seeds: web_seeds(root),
            private: info.get(b"private").and_then(Value::as_int).is_some_and(|int| int != 0),
            comment: free_text(root, "comment.utf-8", "comment"),
            created_by: free_text(root, "created by.utf-8", "created by"),
            creation_date: root.get(b"creation date").and_then(Value::as_int),
            info: raw_info,
            v2_left_out: false,
        };
        Ok(Self { metainfo, has_layers: root.get(b"piece layers").is_some() })
    }
}

/// The protocols that a torrent is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parts {
    V1,
    V2,
    Both,
}

/// By `meta version`, which is to be looked at before anything else (BEP 52).
fn parts(info: Value<'_>) -> Result<Parts, MetainfoError> {
    let has = |key: &str| info.get(key.as_bytes()).is_some();
    match info.get(b"meta version").map(Value::as_int) {
        None if has("file tree") && !has("pieces") => {
            Err(MetainfoError::Missing { key: "info.meta version" })
        }
        None | Some(Some(1)) => Ok(Parts::V1),
        Some(Some(2)) if has("pieces") => Ok(Parts::Both),
        Some(Some(2)) => Ok(Parts::V2),
        Some(Some(value)) => Err(MetainfoError::Version { value }),
        Some(None) => Err(MetainfoError::Malformed { key: "info.meta version" }),
    }
}

/// A look into `raw_info`, a copy of `info`.
fn piece_hashes(info: Value<'_>, raw_info: &Bytes) -> Result<PieceHashes, MetainfoError> {
    let pieces = info.get(b"pieces").ok_or(MetainfoError::Missing { key: "info.pieces" })?;
    // A string ends with its content.
    let end = pieces.range().end - info.range().start;
    let hashes = pieces.as_bytes().map(|content| raw_info.slice(end - content.len()..end));
    hashes.and_then(PieceHashes::new).ok_or(MetainfoError::Malformed { key: "info.pieces" })
}

fn piece_bytes(info: Value<'_>, parts: Parts) -> Result<u32, MetainfoError> {
    let value = info.get(b"piece length").ok_or(MetainfoError::Missing { key: "info.piece length" })?;
    let value = value.as_int().ok_or(MetainfoError::Malformed { key: "info.piece length" })?;
    let fits = |bytes: &u32| *bytes > 0 && *bytes <= PIECE_BYTES_MAX && bytes.is_multiple_of(BLOCK_BYTES);
    let bytes = u32::try_from(value).ok().filter(fits).ok_or(MetainfoError::PieceLength { value })?;
    if parts != Parts::V1 && !bytes.is_power_of_two() {
        return Err(MetainfoError::PieceLengthV2 { value });
    }
    Ok(bytes)
}

fn name(info: Value<'_>) -> Result<String, MetainfoError> {
    let utf8 = info.get(b"name.utf-8").and_then(Value::as_str).map(str::as_bytes);
    let plain = || info.get(b"name").map(|name| name.as_bytes());
    match utf8.map(Some).or_else(plain) {
        Some(Some(name)) => paths::element(name),
        Some(None) => Err(MetainfoError::Malformed { key: "info.name" }),
        None => Err(MetainfoError::Missing { key: "info.name" }),
    }
}

/// The files, and how many symbolic links were left out.
fn files(info: Value<'_>, name: &str) -> Result<(Vec<FileEntry>, u32), MetainfoError> {
    let list = match (info.get(b"files"), info.get(b"length")) {
        (Some(_), Some(_)) => return Err(MetainfoError::Malformed { key: "info.length" }),
        (None, None) => return Err(MetainfoError::Missing { key: "info.files" }),
        (None, Some(length)) => {
            let length = file_length(length).ok_or(MetainfoError::Malformed { key: "info.length" })?;
            return Ok((vec![FileEntry { path: vec![name.to_owned()], length, pad: false }], 0));
        }
        (Some(files), None) => files.as_list().ok_or(MetainfoError::Malformed { key: "info.files" })?,
    };
    let mut files = Vec::new();
    let mut symlinks_skipped = 0;
    for (index, entry) in list.enumerate() {
        if index == FILES_MAX {
            return Err(MetainfoError::TooManyFiles);
        }
        match file(entry, name)? {
            Some(file) => files.push(file),
            None => symlinks_skipped += 1,
        }
    }
    paths::resolve_clashes(&mut files)?;
    Ok((files, symlinks_skipped))
}

/// One entry of `files`; `None` for a symbolic link.
fn file(entry: Value<'_>, name: &str) -> Result<Option<FileEntry>, MetainfoError> {
    const LENGTH: MetainfoError = MetainfoError::Malformed { key: "info.files[].length" };
    let attributes = entry.get(b"attr").and_then(Value::as_bytes).unwrap_or_default();
    let length = match entry.get(b"length") {
        Some(length) => Some(file_length(length).ok_or(LENGTH)?),
        None => None,
    };
    if attributes.contains(&b'l') {
        // BEP 47: the length of a link is zero. One with content would move all that follows.
        return if length.unwrap_or(0) == 0 { Ok(None) } else { Err(LENGTH) };
    }
    let length = length.ok_or(MetainfoError::Missing { key: "info.files[].length" })?;
    if attributes.contains(&b'p') {
        return Ok(Some(FileEntry::padding(name, length)));
    }
    Ok(Some(FileEntry { path: path(entry, name)?, length, pad: false }))
}

fn path(entry: Value<'_>, name: &str) -> Result<Vec<String>, MetainfoError> {
    const MALFORMED: MetainfoError = MetainfoError::Malformed { key: "info.files[].path" };
    let is_utf8 =
        |list: &Value<'_>| list.as_list().is_some_and(|mut names| names.all(|n| n.as_str().is_some()));
    let list = entry.get(b"path.utf-8").filter(is_utf8).or_else(|| entry.get(b"path"));
    let names = list.ok_or(MetainfoError::Missing { key: "info.files[].path" })?;
    let mut path = vec![name.to_owned()];
    for element in names.as_list().ok_or(MALFORMED)? {
        path.push(paths::element(element.as_bytes().ok_or(MALFORMED)?)?);
        paths::check_length(&path)?;
    }
    if path.len() == 1 {
        return Err(MetainfoError::UnsafePath { path: String::new() });
    }
    Ok(path)
}

fn file_length(value: Value<'_>) -> Option<u64> {
    value.as_int().and_then(|length| u64::try_from(length).ok())
}

fn total_bytes(files: &[FileEntry], piece_bytes: u32) -> Result<u64, MetainfoError> {
    if files.iter().any(|file| file.pad && file.length >= piece_bytes.into()) {
        return Err(MetainfoError::Padding);
    }
    let sum =
        |total: u64, file: &FileEntry| total.checked_add(file.length).filter(|&sum| sum <= TOTAL_BYTES_MAX);
    let total = files.iter().try_fold(0, sum).ok_or(MetainfoError::TooLarge)?;
    if files.iter().all(|file| file.pad || file.length == 0) {
        return Err(MetainfoError::Empty);
    }
    Ok(total)
}

fn check_piece_count(found: u64, wanted: u64) -> Result<(), MetainfoError> {
    if found != wanted {
        return Err(MetainfoError::PieceCount { found, wanted });
    }
    if found > PIECES_MAX.into() {
        return Err(MetainfoError::TooManyPieces { found });
    }
    Ok(())
}

/// The usable trackers, each once, at most `TRACKERS_MAX`. BEP 12: the tiers of `announce-list`
/// replace `announce`, unless none of them is usable.
fn trackers(root: Value<'_>) -> Vec<Vec<String>> {
    let mut seen: Vec<String> = Vec::new();
    let mut tiers = Vec::new();
    for tier in root.get(b"announce-list").and_then(Value::as_list).into_iter().flatten() {
        // Some tools forget the inner list: a lone string is a tier of one.
        let lone = tier.as_bytes().into_iter();
        let urls = lone.chain(tier.as_list().into_iter().flatten().filter_map(Value::as_bytes));
        let mut usable = Vec::new();
        for url in urls {
            if seen.len() == TRACKERS_MAX {
                break;
            }
            if let Some(url) = urls::tracker(url).filter(|url| !seen.contains(url)) {
                seen.push(url.clone());
                usable.push(url);
            }
        }
        if !usable.is_empty() {
            tiers.push(usable);
        }
    }
    if tiers.is_empty() {
        let announce = root.get(b"announce").and_then(Value::as_bytes).and_then(urls::tracker);
        tiers.extend(announce.map(|url| vec![url]));
    }
    tiers
}

/// `url-list` is one URL or a list of them (BEP 19).
fn web_seeds(root: Value<'_>) -> Vec<String> {
    let Some(value) = root.get(b"url-list") else { return Vec::new() };
    let lone = value.as_bytes().into_iter();
    let urls = lone.chain(value.as_list().into_iter().flatten().filter_map(Value::as_bytes));
    let mut seeds: Vec<String> = Vec::new();
    for url in urls.filter_map(urls::web_seed) {
        if seeds.len() == WEB_SEEDS_MAX {
            break;
        }
        if !seeds.contains(&url) {
            seeds.push(url);
        }
    }
    seeds
}

fn free_text(root: Value<'_>, utf8: &str, plain: &str) -> Option<String> {
    let bytes = [utf8, plain].into_iter().find_map(|key| root.get(key.as_bytes())?.as_bytes())?;
    Some(String::from_utf8_lossy(bytes).into_owned())
}

#[cfg(test)]
mod tests;
