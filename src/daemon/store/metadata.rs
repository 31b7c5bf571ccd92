//! What was found for magnet links, as .torrent files, so that a start with the same link asks nobody.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use super::{StateDir, StoreError, library, private, set_aside};
use crate::base::ids::InfoHash;
use crate::base::limits::{KEPT_TORRENT_BYTES_MAX, TORRENTS_MAX};
use crate::proto::metainfo::Metainfo;

/// How the files are named, behind the first hash of the link.
const SUFFIX: &str = ".torrent";

impl StateDir {
    /// Keeps what the link of this first hash names: after a crash there is all of it or what was there
    /// before. With [`TORRENTS_MAX`] of them no more are kept.
    pub fn keep_torrent(&self, link: InfoHash, torrent: &[u8]) -> Result<(), StoreError> {
        let path = self.kept_path(link);
        let at = |source| StoreError::Other { path: path.clone(), source };
        if !path.exists() && self.torrents_kept().map_err(at)? >= TORRENTS_MAX {
            return Err(at(io::Error::other(format!("{TORRENTS_MAX} are kept already: delete some"))));
        }
        let temp = path.with_extension(format!("torrent.{}", std::process::id()));
        let written = library::replace(&temp, &path, torrent);
        if written.is_err() {
            let _ = std::fs::remove_file(&temp);
        }
        written.map_err(at)
    }

    /// Puts what is known in place of the links among `torrents`, and of hybrids without piece layers, and
    /// says of which. What is damaged is set aside, with a warning: it will be found again.
    pub fn recall_links(&self, torrents: &mut [Arc<Metainfo>]) -> Vec<usize> {
        let mut recalled = Vec::new();
        let lacks = |torrent: &Metainfo| torrent.is_awaited() || torrent.v2_left_out;
        for (index, torrent) in torrents.iter_mut().enumerate().filter(|(_, torrent)| lacks(torrent)) {
            match self.kept(torrent) {
                Ok(Some(found)) if torrent.is_awaited() || !found.v2_left_out => {
                    *torrent = Arc::new(found);
                    recalled.push(index);
                }
                Ok(_) => {}
                Err(error) => tracing::warn!("{error}; the metadata is looked for among peers instead"),
            }
        }
        recalled
    }

    fn kept(&self, link: &Metainfo) -> Result<Option<Metainfo>, StoreError> {
        let path = self.kept_path(link.info_hash);
        let at = |source| StoreError::Other { path: path.clone(), source };
        let mut torrent = Vec::new();
        match private().read(true).open(&path) {
            Ok(file) => file.take(KEPT_TORRENT_BYTES_MAX).read_to_end(&mut torrent).map_err(at)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(at(error)),
        };
        if let Ok(Some(found)) = link.recalled(&torrent) {
            return Ok(Some(found));
        }
        let copy = set_aside(&path).and_then(|copy| std::fs::remove_file(&path).map(|()| copy));
        let copy = copy.map_err(at)?;
        tracing::warn!("damaged, {}: kept as {}", path.display(), copy.display());
        Ok(None)
    }

    fn torrents_kept(&self) -> io::Result<usize> {
        let entries = std::fs::read_dir(&self.path)?;
        // Copies in a library have the name of its directory, too.
        let of_link = |name: &str| name.strip_suffix(SUFFIX).and_then(InfoHash::from_hex).is_some();
        Ok(entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(of_link)).count())
    }

    fn kept_path(&self, link: InfoHash) -> PathBuf {
        self.path.join(format!("{link}{SUFFIX}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::sha1;
    use crate::proto::magnet::Magnet;

    const INFO: &[u8] = b"d6:lengthi1e4:name1:a12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaae";

    fn link() -> Arc<Metainfo> {
        let hash = InfoHash(sha1::digest(INFO));
        let magnet = Magnet::parse(&format!("magnet:?xt=urn:btih:{hash}&tr=http%3A%2F%2Ft%2F")).unwrap();
        Arc::new(Metainfo::of_link(&magnet).unwrap())
    }

    /// Of a torrent with that info dictionary, and other trackers than the link has.
    fn torrent(info: &[u8]) -> Vec<u8> {
        [b"d8:announce9:http://o/4:info", info, b"e"].concat()
    }

    #[test]
    fn what_is_kept_is_there_at_the_next_start_with_the_trackers_of_its_link() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let mut torrents = [link()];
        state.recall_links(&mut torrents);
        assert!(torrents[0].is_awaited());
        state.keep_torrent(torrents[0].info_hash, &torrent(INFO)).unwrap();
        state.keep_torrent(torrents[0].info_hash, &torrent(INFO)).unwrap();
        assert_eq!(StateDir::open(dir.path()).unwrap().recall_links(&mut torrents), [0]);
        assert_eq!((&torrents[0].name[..], &torrents[0].info[..]), ("a", INFO));
        assert_eq!(torrents[0].trackers, [["http://t/"]]);
    }

    #[test]
    fn a_file_that_lacks_piece_layers_is_what_was_found_since() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let whole = Metainfo::parse(&torrent(INFO)).unwrap();
        let mut torrents = [Arc::new(Metainfo { v2_left_out: true, ..whole })];
        assert_eq!(state.recall_links(&mut torrents), [0; 0], "nothing was found yet");
        state.keep_torrent(torrents[0].info_hash, &torrent(INFO)).unwrap();
        assert_eq!(state.recall_links(&mut torrents), [0]);
        assert!(!torrents[0].v2_left_out);
    }

    #[test]
    fn a_copy_that_is_damaged_anyhow_is_set_aside_and_no_torrent() {
        let whole = torrent(INFO);
        let mut other = INFO.to_vec();
        other[20] ^= 1;
        let damaged = [&torrent(&other)[..], &whole[..whole.len() - 1], b"", &[&whole[..], b"x"].concat()];
        for damaged in damaged {
            let dir = tempfile::tempdir().unwrap();
            let state = StateDir::open(dir.path()).unwrap();
            let hash = link().info_hash;
            state.keep_torrent(hash, &whole).unwrap();
            std::fs::write(state.kept_path(hash), damaged).unwrap();
            let mut torrents = [link()];
            state.recall_links(&mut torrents);
            assert!(torrents[0].is_awaited());
            assert!(!state.kept_path(hash).exists() && dir.path().join(format!("{hash}.damaged")).exists());
            state.keep_torrent(hash, &whole).unwrap();
            state.recall_links(&mut torrents);
            assert!(!torrents[0].is_awaited());
        }
    }

    #[test]
    fn copies_of_a_library_are_not_counted_as_what_links_named() {
        let dir = tempfile::tempdir().unwrap();
        let download = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        state.library(download.path()).unwrap().remember(InfoHash([1; 20]), &torrent(INFO)).unwrap();
        assert_eq!(state.torrents_kept().unwrap(), 0);
        state.keep_torrent(InfoHash([1; 20]), &torrent(INFO)).unwrap();
        assert_eq!(state.torrents_kept().unwrap(), 1);
    }
}
