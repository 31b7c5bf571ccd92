//! Info dictionaries that were found for magnet links, so that a start with the same link asks nobody.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use sha1::{Digest, Sha1};

use super::{StateDir, StoreError, library, private, set_aside};
use crate::base::ids::InfoHash;
use crate::base::limits::{METAINFO_BYTES_MAX, TORRENTS_MAX};
use crate::proto::metainfo::Metainfo;

/// How the files are named, behind the info-hash.
const SUFFIX: &str = ".info";

impl StateDir {
    /// Keeps an info dictionary: after a crash there is all of it or what was there before. With
    /// [`TORRENTS_MAX`] of them no more are kept.
    pub fn keep_info(&self, info_hash: InfoHash, info: &[u8]) -> Result<(), StoreError> {
        let path = self.info_path(info_hash);
        let at = |source| StoreError::Other { path: path.clone(), source };
        if !path.exists() && self.infos_kept().map_err(at)? >= TORRENTS_MAX {
            return Err(at(io::Error::other(format!("{TORRENTS_MAX} are kept already: delete some"))));
        }
        let temp = path.with_extension(format!("info.{}", std::process::id()));
        let written = library::replace(&temp, &path, info);
        if written.is_err() {
            let _ = std::fs::remove_file(&temp);
        }
        written.map_err(at)
    }

    /// Puts what is known in place of the links among `torrents`, and says of which. What is damaged is
    /// set aside, with a warning: it will be found again.
    pub fn recall_links(&self, torrents: &mut [Arc<Metainfo>]) -> Vec<usize> {
        let mut recalled = Vec::new();
        for (index, torrent) in torrents.iter_mut().enumerate().filter(|(_, torrent)| torrent.is_awaited()) {
            match self.kept_info(torrent) {
                Ok(Some(found)) => {
                    *torrent = Arc::new(found);
                    recalled.push(index);
                }
                Ok(None) => {}
                Err(error) => tracing::warn!("{error}; the metadata is looked for among peers instead"),
            }
        }
        recalled
    }

    fn kept_info(&self, link: &Metainfo) -> Result<Option<Metainfo>, StoreError> {
        let path = self.info_path(link.info_hash);
        let at = |source| StoreError::Other { path: path.clone(), source };
        let mut info = Vec::new();
        match private().read(true).open(&path) {
            Ok(file) => file.take(METAINFO_BYTES_MAX as u64 + 1).read_to_end(&mut info).map_err(at)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(at(error)),
        };
        if Sha1::digest(&info)[..] != link.info_hash.0 {
            let copy = set_aside(&path).and_then(|copy| std::fs::remove_file(&path).map(|()| copy));
            let copy = copy.map_err(at)?;
            tracing::warn!("damaged, {}: kept as {}", path.display(), copy.display());
            return Ok(None);
        }
        link.found(&info).map(Some).map_err(|error| at(io::Error::other(error)))
    }

    fn infos_kept(&self) -> io::Result<usize> {
        let entries = std::fs::read_dir(&self.path)?;
        Ok(entries.flatten().filter(|entry| entry.file_name().to_string_lossy().ends_with(SUFFIX)).count())
    }

    fn info_path(&self, info_hash: InfoHash) -> PathBuf {
        self.path.join(format!("{info_hash}{SUFFIX}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::magnet::Magnet;

    const INFO: &[u8] = b"d6:lengthi1e4:name1:a12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaae";

    fn link() -> Arc<Metainfo> {
        let hash = InfoHash(Sha1::digest(INFO).into());
        let magnet = Magnet::parse(&format!("magnet:?xt=urn:btih:{hash}&tr=http%3A%2F%2Ft%2F")).unwrap();
        Arc::new(Metainfo::of_link(&magnet).unwrap())
    }

    #[test]
    fn what_is_kept_is_there_at_the_next_start_with_the_trackers_of_its_link() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let mut torrents = [link()];
        state.recall_links(&mut torrents);
        assert!(torrents[0].is_awaited());
        state.keep_info(torrents[0].info_hash, INFO).unwrap();
        state.keep_info(torrents[0].info_hash, INFO).unwrap();
        StateDir::open(dir.path()).unwrap().recall_links(&mut torrents);
        assert_eq!((&torrents[0].name[..], &torrents[0].info[..]), ("a", INFO));
        assert_eq!(torrents[0].trackers, [["http://t/"]]);
    }

    #[test]
    fn a_copy_that_is_damaged_anyhow_is_set_aside_and_no_torrent() {
        let mut flipped = INFO.to_vec();
        flipped[20] ^= 1;
        for damaged in [&flipped[..], &INFO[..INFO.len() - 1], b"", &[INFO, b"x"].concat()] {
            let dir = tempfile::tempdir().unwrap();
            let state = StateDir::open(dir.path()).unwrap();
            let hash = link().info_hash;
            state.keep_info(hash, INFO).unwrap();
            std::fs::write(state.info_path(hash), damaged).unwrap();
            let mut torrents = [link()];
            state.recall_links(&mut torrents);
            assert!(torrents[0].is_awaited());
            assert!(!state.info_path(hash).exists() && dir.path().join(format!("{hash}.damaged")).exists());
            state.keep_info(hash, INFO).unwrap();
            state.recall_links(&mut torrents);
            assert!(!torrents[0].is_awaited());
        }
    }
}
