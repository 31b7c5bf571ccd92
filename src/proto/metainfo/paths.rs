//! Names that a stranger chose, made safe (threats T11 to T16).
//!
//! Refused, because no honest torrent has them: an empty name, `.`, `..`, and any name with a
//! slash or NUL, which covers absolute paths. Made safe: hidden characters and invalid UTF-8
//! become `_`; a name over 255 bytes is cut before its extension and marked with a digest of the
//! whole. Backslashes, colons and Windows device names are ordinary on Linux and stay.

use std::collections::HashSet;

use icu_normalizer::DecomposingNormalizerBorrowed;
use sha1::{Digest, Sha1};

use super::{FileEntry, MetainfoError};
use crate::base::limits::{PATH_BYTES_MAX, PATH_CLASHES_MAX, PATH_ELEMENT_BYTES_MAX, PATH_ELEMENTS_MAX};
use crate::proto::text;

/// Longest extension, with its dot, that shortening a name keeps.
const EXTENSION_BYTES_MAX: usize = 16;
/// Longest path that an error message shows.
const SHOWN_BYTES_MAX: usize = 120;

/// One safe path component for `name`.
pub(super) fn element(name: &[u8]) -> Result<String, MetainfoError> {
    if matches!(name, b"" | b"." | b"..") || name.iter().any(|byte| matches!(byte, b'/' | 0)) {
        return Err(MetainfoError::UnsafePath { path: text::escape(name, SHOWN_BYTES_MAX) });
    }
    let visible =
        |char| if text::is_hidden(char) || char == char::REPLACEMENT_CHARACTER { '_' } else { char };
    let safe: String = String::from_utf8_lossy(name).chars().map(visible).collect();
    if safe.len() <= PATH_ELEMENT_BYTES_MAX {
        return Ok(safe);
    }
    let digest = Sha1::digest(name);
    Ok(with_mark(&safe, &format!("~{:02x}{:02x}{:02x}{:02x}", digest[0], digest[1], digest[2], digest[3])))
}

/// Refuses a path of too many or too long components.
pub(super) fn check_length(path: &[String]) -> Result<(), MetainfoError> {
    let bytes = path.iter().map(|name| name.len() + 1).sum::<usize>().saturating_sub(1);
    if path.len() > PATH_ELEMENTS_MAX || bytes > PATH_BYTES_MAX {
        return Err(MetainfoError::LongPath { path: shown(path) });
    }
    Ok(())
}

/// `path` for an error message.
pub(super) fn shown(path: &[String]) -> String {
    text::escape(path.join("/").as_bytes(), SHOWN_BYTES_MAX)
}

/// Gives each file that shares its path with an earlier one, or whose path is a directory of
/// another, a path of its own: `a.txt` becomes `a.1.txt`. Padding files have no path on disk.
///
/// The numbers count through the whole torrent, so that a torrent full of such names costs one
/// look-up for each, not one for each clash.
pub(super) fn resolve_clashes(files: &mut [FileEntry]) -> Result<(), MetainfoError> {
    let keys = sorted_keys(files, str::to_owned);
    let clashing = clashes(&keys);
    if clashing.len() > PATH_CLASHES_MAX {
        return Err(MetainfoError::Clashes);
    }
    let mut given = HashSet::new();
    let mut numbers = 1u32..;
    for (_, index) in clashing {
        let Some(file) = files.get_mut(index) else { continue };
        let Some(name) = file.path.pop() else { continue };
        let directory = key(&file.path, str::to_owned);
        // Far fewer than 2^32 paths are taken: a free one is found.
        let free = numbers.by_ref().map(|n| with_mark(&name, &format!(".{n}"))).find(|candidate| {
            let path = format!("{directory}{candidate}\0");
            !has_path(&keys, &path) && given.insert(path)
        });
        file.path.extend(free);
        check_length(&file.path)?;
    }
    Ok(())
}

/// Two files that are one on a file system that ignores case or Unicode normal forms, if any:
/// their places in `files`. Ordinary Linux file systems keep them apart, so it is for whoever
/// knows the file system to ask and to refuse.
pub fn case_twins(files: &[FileEntry]) -> Option<(usize, usize)> {
    let nfd = DecomposingNormalizerBorrowed::new_nfd();
    let fold = |name: &str| nfd.normalize(&nfd.normalize(name).to_lowercase()).into_owned();
    clashes(&sorted_keys(files, fold)).first().copied()
}

/// The paths of all but padding files, each with its place in `files`, sorted.
fn sorted_keys(files: &[FileEntry], fold: impl Fn(&str) -> String) -> Vec<(String, usize)> {
    let on_disk = files.iter().enumerate().filter(|(_, file)| !file.pad);
    let mut keys: Vec<_> = on_disk.map(|(index, file)| (key(&file.path, &fold), index)).collect();
    keys.sort_unstable();
    keys
}

/// `path` as one string. NUL is in no name and sorts before everything, so in sorted order all
/// that lies below a path follows it directly.
fn key(path: &[String], fold: impl Fn(&str) -> String) -> String {
    path.iter().map(|name| fold(name) + "\0").collect()
}

/// Whether `path` is one of the sorted `keys` or a directory of one.
fn has_path(keys: &[(String, usize)], path: &str) -> bool {
    let at = keys.partition_point(|(key, _)| key.as_str() < path);
    keys.get(at).is_some_and(|(key, _)| key.starts_with(path))
}

/// Pairs of files of which the second cannot have its path because of the first, in file order.
fn clashes(keys: &[(String, usize)]) -> Vec<(usize, usize)> {
    let mut pairs = Vec::new();
    // The earliest file with the path that the walk is at.
    let mut first = keys.first().map_or(0, |key| key.1);
    for pair in keys.windows(2) {
        let [(path, index), (next_path, next)] = pair else { continue };
        if path == next_path {
            // The later file gives way.
            pairs.push((first, *next));
            continue;
        }
        if next_path.starts_with(path) {
            // A file that is also a directory gives way, with all that share its path.
            pairs.extend([(*next, first), (*next, *index)]);
        }
        first = *next;
    }
    pairs.sort_unstable_by_key(|&(_, loser)| loser);
    pairs.dedup_by_key(|&mut (_, loser)| loser);
    pairs
}

/// `name` with `mark` before its extension, the stem cut so that the whole is a legal name.
fn with_mark(name: &str, mark: &str) -> String {
    let dot = name.rfind('.').filter(|&dot| dot > 0 && name.len() - dot <= EXTENSION_BYTES_MAX);
    let (stem, extension) = name.split_at(dot.unwrap_or(name.len()));
    let room = PATH_ELEMENT_BYTES_MAX.saturating_sub(mark.len() + extension.len()).min(stem.len());
    let end = (0..=room).rev().find(|&at| stem.is_char_boundary(at)).unwrap_or(0);
    format!("{}{mark}{extension}", &stem[..end])
}
