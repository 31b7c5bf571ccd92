//! What a relay was told to want of a torrent, so that a start that says nothing of it wants the same.
//!
//! One file for each torrent and download directory of which not all files are wanted alike: a letter for
//! each file, the first of its priority's name.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{StateDir, StoreError, canonical, journal_stem, library, private};
use crate::base::ids::InfoHash;
use crate::base::limits::FILES_MAX;
use crate::base::priority::Priority;

/// What is kept of a torrent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeptSelection {
    /// Nothing: all files are wanted alike.
    None,
    /// How much each is wanted.
    Files(Arc<[Priority]>),
    /// A file that is damaged, or of a torrent with other files.
    Damaged(PathBuf),
}

impl StateDir {
    /// Keeps what is wanted of each file of a torrent in `download_dir`; `None`, all alike, leaves no file.
    /// After a crash there is all of it or what was there before.
    pub fn keep_selection(
        &self,
        download_dir: &Path,
        info_hash: InfoHash,
        wanted: Option<&[Priority]>,
    ) -> Result<(), StoreError> {
        let path = self.selection_path(download_dir, info_hash)?;
        let done = match wanted {
            Some(wanted) => {
                let letters: Vec<u8> = wanted.iter().map(|&priority| letter(priority)).collect();
                let temp = path.with_extension(format!("wanted.{}", std::process::id()));
                let written = library::replace(&temp, &path, &letters);
                if written.is_err() {
                    let _ = std::fs::remove_file(&temp);
                }
                written
            }
            None => match std::fs::remove_file(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                removed => removed,
            },
        };
        done.map_err(|source| StoreError::Other { path, source })
    }

    /// What was kept of a torrent that has so many files.
    pub fn kept_selection(
        &self,
        download_dir: &Path,
        info_hash: InfoHash,
        files: usize,
    ) -> Result<KeptSelection, StoreError> {
        let path = self.selection_path(download_dir, info_hash)?;
        let mut letters = Vec::new();
        let read = match private().read(true).open(&path) {
            Ok(file) => file.take(FILES_MAX as u64 + 1).read_to_end(&mut letters),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(KeptSelection::None),
            Err(error) => Err(error),
        };
        if let Err(source) = read {
            return Err(StoreError::Other { path, source });
        }
        let wanted: Option<Arc<[Priority]>> = letters.iter().map(|&byte| priority(byte)).collect();
        let whole = wanted.filter(|wanted| wanted.len() == files);
        Ok(whole.map_or(KeptSelection::Damaged(path), KeptSelection::Files))
    }

    fn selection_path(&self, download_dir: &Path, info_hash: InfoHash) -> Result<PathBuf, StoreError> {
        let stem = journal_stem(info_hash, &canonical(download_dir)?);
        Ok(self.path.join(format!("{stem}.wanted")))
    }
}

fn letter(priority: Priority) -> u8 {
    priority.name().as_bytes()[0]
}

fn priority(byte: u8) -> Option<Priority> {
    let all = [Priority::Skip, Priority::Low, Priority::Normal, Priority::High];
    all.into_iter().find(|&priority| letter(priority) == byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Priority::{High, Low, Normal, Skip};

    const HASH: InfoHash = InfoHash([7; 20]);

    #[test]
    fn what_was_kept_is_found_again_for_the_same_directory_until_all_is_wanted() {
        let (state, download) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let other = tempfile::tempdir().unwrap();
        let wanted = [Skip, Low, Normal, High];
        let open = || StateDir::open(state.path()).unwrap();
        assert_eq!(open().kept_selection(download.path(), HASH, 4).unwrap(), KeptSelection::None);
        open().keep_selection(download.path(), HASH, Some(&wanted)).unwrap();
        let kept = open().kept_selection(&download.path().join("."), HASH, 4).unwrap();
        assert_eq!(kept, KeptSelection::Files(Arc::new(wanted)));
        assert_eq!(open().kept_selection(other.path(), HASH, 4).unwrap(), KeptSelection::None);
        for _ in 0..2 {
            open().keep_selection(download.path(), HASH, None).unwrap();
            assert_eq!(open().kept_selection(download.path(), HASH, 4).unwrap(), KeptSelection::None);
        }
    }

    #[test]
    fn a_file_that_is_damaged_or_of_other_files_is_told_from_none() {
        let (state, download) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let state = StateDir::open(state.path()).unwrap();
        state.keep_selection(download.path(), HASH, Some(&[Skip, High])).unwrap();
        let path = state.selection_path(download.path(), HASH).unwrap();
        for (bytes, files) in [(&b"sh"[..], 3), (b"s", 2), (b"", 2), (b"s?", 2), (b"sh\n", 2)] {
            std::fs::write(&path, bytes).unwrap();
            let kept = state.kept_selection(download.path(), HASH, files).unwrap();
            assert_eq!(kept, KeptSelection::Damaged(path.clone()), "{bytes:?}");
        }
    }
}
