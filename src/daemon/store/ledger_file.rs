//! The ledger in the state directory: one log for all torrents, kept by the first node that takes its lock.

use super::{JournalFile, StateDir, StoreError, lock, read_journal, set_aside, xxh3_64_with_seed};
use crate::base::limits::LEDGER_BYTES_MAX;
use crate::storage::ledger::{Flaw, Replay, Subject, replay};

use std::path::PathBuf;

const NAME: &str = "ledger";

/// The ledger's log, locked for this process.
#[derive(Debug)]
pub struct OpenedLedger {
    /// To be replaced, and then appended to.
    pub file: JournalFile,
    /// Whose it is.
    pub subject: Subject,
    /// What it said; `None` if there was none, or none that could be used.
    pub replay: Option<Replay>,
    /// Why it, or its end, could not be used, and where a copy was put.
    pub set_aside: Option<(Flaw, PathBuf)>,
}

impl StateDir {
    /// Opens and locks the ledger. One that cannot be used is set aside.
    pub fn open_ledger(&self) -> Result<OpenedLedger, StoreError> {
        let path = self.ledger_path();
        let lock = lock(&path.with_extension("lock"), &self.path).map_err(|error| match error {
            StoreError::InUse { holder, .. } => StoreError::LedgerInUse { holder },
            other => other,
        })?;
        let at = |source| StoreError::Other { path: path.clone(), source };
        let subject = self.ledger_subject();
        let bytes = read_journal(&path, LEDGER_BYTES_MAX).map_err(at)?;
        let found = bytes.map(|bytes| replay(&bytes, subject));
        let flaw = match &found {
            Some(Err(flaw)) => Some(*flaw),
            Some(Ok(replay)) if !replay.whole => Some(Flaw::Tail),
            _ => None,
        };
        let set_aside = flaw.map(|flaw| set_aside(&path).map(|copy| (flaw, copy))).transpose().map_err(at)?;
        let replay = found.and_then(Result::ok);
        let end = replay.as_ref().map_or(0, |replay| replay.bytes);
        let file = JournalFile::open(path.clone(), end, lock).map_err(at)?;
        Ok(OpenedLedger { file, subject, replay, set_aside })
    }

    /// What the ledger says now, without its lock: a node may keep it meanwhile. `None` if there is none.
    pub fn glance_ledger(&self) -> Result<Option<Result<Replay, Flaw>>, StoreError> {
        let path = self.ledger_path();
        let bytes = read_journal(&path, LEDGER_BYTES_MAX);
        let bytes = bytes.map_err(|source| StoreError::Other { path, source })?;
        Ok(bytes.map(|bytes| replay(&bytes, self.ledger_subject())))
    }

    fn ledger_path(&self) -> PathBuf {
        self.path.join(NAME)
    }

    fn ledger_subject(&self) -> Subject {
        let hash = |seed| xxh3_64_with_seed(&self.secret.0, seed);
        Subject { secret_id: hash(2), seed: hash(4) }
    }
}
