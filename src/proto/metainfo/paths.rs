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
pub(super) fn resolve_clashes(files: &mut [FileEntry]) -> Result<(), MetainfoError> {
    let clashing = clashes(&keys(files, |name| name.to_owned()));
    if clashing.is_empty() {
        return Ok(());
    }
    if clashing.len() > PATH_CLASHES_MAX {
        return Err(MetainfoError::Clashes);
    }
    let mut taken: HashSet<Vec<String>> = HashSet::new();
    for file in files.iter().filter(|file| !file.pad) {
        taken.extend((1..=file.path.len()).map(|len| file.path[..len].to_vec()));
    }
    for (_, index) in clashing {
        let Some(file) = files.get_mut(index) else { continue };
        let mut path = file.path.clone();
        let Some(name) = path.pop() else { continue };
        // One of these is free: clashes took fewer than PATH_CLASHES_MAX of them, files that
        // happen to have such a name the others, and those are finite.
        let free = (1u32..).map(|n| with_mark(&name, &format!(".{n}"))).find(|candidate| {
            path.push(candidate.clone());
            let is_new = taken.insert(path.clone());
            path.pop();
            is_new
        });
        path.extend(free);
        check_length(&path)?;
        file.path = path;
    }
    Ok(())
}

/// Two files that are one on a file system that ignores case or Unicode normal forms, if any:
/// their places in `files`. Ordinary Linux file systems keep them apart, so it is for whoever
/// knows the file system to ask and to refuse.
pub fn case_twins(files: &[FileEntry]) -> Option<(usize, usize)> {
    let nfd = DecomposingNormalizerBorrowed::new_nfd();
    let fold = |name: &str| nfd.normalize(&nfd.normalize(name).to_lowercase()).into_owned();
    clashes(&keys(files, fold)).first().copied()
}

/// The paths of all but padding files, as strings that sort a directory right before its content.
fn keys(files: &[FileEntry], fold: impl Fn(&str) -> String) -> Vec<(String, usize)> {
    let key = |file: &FileEntry| file.path.iter().map(|name| fold(name) + "\0").collect();
    files.iter().enumerate().filter(|(_, file)| !file.pad).map(|(index, file)| (key(file), index)).collect()
}

/// Pairs of files of which the second cannot have its path because of the first, in file order.
///
/// NUL is in no name and sorts before everything, so all that starts with a path follows it
/// directly in sorted order: n log n.
fn clashes(keys: &[(String, usize)]) -> Vec<(usize, usize)> {
    let mut order: Vec<&(String, usize)> = keys.iter().collect();
    order.sort_unstable();
    let mut pairs: Vec<(usize, usize)> = order
        .windows(2)
        .filter(|pair| pair[1].0.starts_with(&pair[0].0))
        // Equal paths: the later file gives way. A file that is also a directory: the file does.
        .map(|pair| if pair[0].0 == pair[1].0 { (pair[0].1, pair[1].1) } else { (pair[1].1, pair[0].1) })
        .collect();
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
