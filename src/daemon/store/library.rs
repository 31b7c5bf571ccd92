//! The .torrent files of all that was relayed with a state directory, so that a relay can start again
//! without being told.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{StateDir, StoreError, journal_stem, private};
use crate::base::ids::InfoHash;
use crate::base::limits::TORRENTS_MAX;

/// What is remembered for one download directory: a copy of each .torrent, beside its journal.
///
/// Invariant: `known` has an entry for each such file that was there or was written; at most `max` by
/// what is written here.
#[derive(Debug)]
pub struct Library {
    state: PathBuf,
    dir: PathBuf,
    known: BTreeSet<InfoHash>,
    max: usize,
}

/// What became of a .torrent that was to be remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remembered {
    /// It is on disk.
    Yes,
    /// There are [`TORRENTS_MAX`] already.
    Full,
}

impl StateDir {
    /// What is remembered for `download_dir`, which must exist.
    pub fn library(&self, download_dir: &Path) -> Result<Library, StoreError> {
        self.library_of(download_dir, TORRENTS_MAX)
    }

    fn library_of(&self, download_dir: &Path, max: usize) -> Result<Library, StoreError> {
        self.check_outside(download_dir)?;
        let dir = super::canonical(download_dir)?;
        let at = |source| StoreError::Other { path: self.path.clone(), source };
        let mut known = BTreeSet::new();
        for entry in std::fs::read_dir(&self.path).map_err(at)? {
            let name = entry.map_err(at)?.file_name();
            let hash = name.to_str().and_then(|name| name.get(..40)).and_then(InfoHash::from_hex);
            known.extend(hash.filter(|&hash| name == *file_name(hash, &dir)));
        }
        Ok(Library { state: self.path.clone(), dir, known, max })
    }
}

impl Library {
    /// The torrents that are remembered, ascending, with where each .torrent lies.
    pub fn torrents(&self) -> impl Iterator<Item = (InfoHash, PathBuf)> {
        self.known.iter().map(|&hash| (hash, self.path(hash)))
    }

    /// Keeps a copy of a .torrent: after a crash there is all of it, or what was there before. Writes
    /// nothing if the same is there already.
    pub fn remember(&mut self, hash: InfoHash, torrent: &[u8]) -> Result<Remembered, StoreError> {
        let path = self.path(hash);
        if self.known.contains(&hash) {
            if is_same(&path, torrent) {
                return Ok(Remembered::Yes);
            }
        } else if self.known.len() >= self.max {
            return Ok(Remembered::Full);
        }
        let temp = path.with_extension(format!("torrent.{}", std::process::id()));
        let written = replace(&temp, &path, torrent);
        if written.is_err() {
            // What is left of it would only take room, which may be what was missing.
            let _ = std::fs::remove_file(&temp);
        }
        written.map_err(|source| StoreError::Other { path, source })?;
        self.known.insert(hash);
        Ok(Remembered::Yes)
    }

    fn path(&self, hash: InfoHash) -> PathBuf {
        self.state.join(file_name(hash, &self.dir))
    }
}

fn file_name(hash: InfoHash, dir: &Path) -> String {
    format!("{}.torrent", journal_stem(hash, dir))
}

fn is_same(path: &Path, bytes: &[u8]) -> bool {
    let len = std::fs::symlink_metadata(path).map(|meta| meta.len());
    len.is_ok_and(|len| len == bytes.len() as u64) && std::fs::read(path).is_ok_and(|found| found == bytes)
}

pub(super) fn replace(temp: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = private().write(true).create(true).truncate(true).open(temp)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(temp, path)?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASHES: [InfoHash; 4] =
        [InfoHash([1; 20]), InfoHash([2; 20]), InfoHash([3; 20]), InfoHash([4; 20])];

    fn known(library: &Library) -> Vec<InfoHash> {
        library.torrents().map(|(hash, _)| hash).collect()
    }

    #[test]
    fn what_is_remembered_is_found_again_for_the_same_directory_only() {
        let (state, download) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let other = tempfile::tempdir().unwrap();
        let open = || StateDir::open(state.path()).unwrap();
        let mut library = open().library(download.path()).unwrap();
        assert_eq!(known(&library), []);
        for hash in [HASHES[1], HASHES[0], HASHES[1]] {
            assert_eq!(library.remember(hash, &hash.0).unwrap(), Remembered::Yes);
        }
        assert_eq!(library.remember(HASHES[1], b"another file of it").unwrap(), Remembered::Yes);
        for junk in ["0101.torrent", "x", &format!("{}-zz.torrent", HASHES[2])] {
            std::fs::write(state.path().join(junk), b"").unwrap();
        }
        let again = open().library(&download.path().join(".")).unwrap();
        assert_eq!(known(&again), HASHES[..2]);
        let texts: Vec<_> = again.torrents().map(|(_, path)| std::fs::read(path).unwrap()).collect();
        assert_eq!(texts, [HASHES[0].0.to_vec(), b"another file of it".to_vec()]);
        assert_eq!(known(&open().library(other.path()).unwrap()), []);
        let left = std::fs::read_dir(state.path()).unwrap().count();
        assert_eq!(left, 1 + 2 + 3, "the secret, two .torrent files, and what was there");
    }

    #[test]
    fn no_more_are_remembered_than_the_limit() {
        let (state, download) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut library = StateDir::open(state.path()).unwrap().library_of(download.path(), 3).unwrap();
        let answers = HASHES.map(|hash| library.remember(hash, b"d").unwrap());
        assert_eq!(answers, [Remembered::Yes, Remembered::Yes, Remembered::Yes, Remembered::Full]);
        assert_eq!(library.remember(HASHES[0], b"new").unwrap(), Remembered::Yes);
        assert_eq!(known(&library), HASHES[..3]);
    }

    /// Threat S7 for the state directory.
    #[test]
    fn what_cannot_be_written_leaves_what_was_there() {
        let (state, download) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut library = StateDir::open(state.path()).unwrap().library(download.path()).unwrap();
        library.remember(HASHES[0], b"old").unwrap();
        let path = library.path(HASHES[0]);
        let temp = path.with_extension(format!("torrent.{}", std::process::id()));
        std::fs::create_dir(&temp).unwrap();
        let error = library.remember(HASHES[0], b"new").unwrap_err().to_string();
        assert!(error.contains("--state") && !error.contains('\n'), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
    }
}
