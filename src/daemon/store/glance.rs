//! A look at what a node has verified, by a process that keeps no journal itself: nothing is created,
//! locked or set aside, and a node may use the torrent meanwhile.

use std::path::Path;

use super::{SECRET_NAME, Secret, StateDir, StoreError, canonical, load_secret, read_journal};
use crate::base::limits::JOURNAL_BYTES_MAX;
use crate::proto::metainfo::Metainfo;
use crate::storage::journal::{Corrupt, JournalState, replay};

/// What such a look finds.
#[derive(Debug)]
pub enum Glance {
    /// What the journal says, up to its first bad record if it has one.
    Known(JournalState),
    /// The torrent was never fetched or relayed in that directory.
    Missing,
    /// There is a journal, of no use: of another secret, for instance.
    Unusable(Corrupt),
}

impl StateDir {
    /// Opens `path` for [`Self::glance`]; `None` if no node has ever kept its state there.
    pub fn open_existing(path: &Path) -> Result<Option<Self>, StoreError> {
        let at = |source| StoreError::Other { path: path.to_owned(), source };
        if !path.join(SECRET_NAME).try_exists().map_err(at)? {
            return Ok(None);
        }
        let path = path.canonicalize().map_err(at)?;
        let secret = Secret(load_secret(&path, SECRET_NAME)?);
        Ok(Some(Self { path, secret }))
    }

    /// What the journal of a torrent in `download_dir`, which must exist, says now. A node that appends to
    /// it or replaces it meanwhile does no harm: replay believes whole records only, and what a record says
    /// of a piece's bytes stays true of these bytes.
    pub fn glance(&self, download_dir: &Path, metainfo: &Metainfo) -> Result<Glance, StoreError> {
        let dir = canonical(download_dir)?;
        let path = self.journal_path(&dir, metainfo.info_hash);
        let found = read_journal(&path, JOURNAL_BYTES_MAX);
        let Some(bytes) = found.map_err(|source| StoreError::Other { path, source })? else {
            return Ok(Glance::Missing);
        };
        Ok(match replay(&bytes, &self.subject(metainfo)) {
            Ok(replay) => Glance::Known(replay.state),
            Err(reason) => Glance::Unusable(reason),
        })
    }
}
