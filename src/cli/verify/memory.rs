//! What `verify --fast` knows before it reads: the fingerprints in the journal of `get` or `relay`.

use crate::daemon::hashing::Known;
use crate::daemon::store::{Glance, StateDir};
use crate::hash::fingerprint::Fingerprint;
use crate::proto::metainfo::Metainfo;
use crate::storage::journal::JournalState;

use super::super::args::VerifyArgs;
use super::super::error::CliError;
use super::super::{node, out};

/// A journal, and the function that made its fingerprints.
pub struct Memory {
    fingerprint: Fingerprint,
    journal: JournalState,
}

impl Memory {
    /// What is known of the torrent in the directory; `None`, and a warning, if that is nothing.
    pub fn recall(args: &VerifyArgs, metainfo: &Metainfo) -> Result<Option<Self>, CliError> {
        let path = node::state_dir_here(args.state.as_deref())?;
        let failed = |error: &dyn std::fmt::Display| CliError::Failed(error.to_string());
        if !args.dir.is_dir() {
            return Ok(None); // As without --fast: the check says what is wrong.
        }
        let warn = |why: &str| {
            out::warn(&format!("{why}, {}: every piece is hashed", path.display()));
            Ok(None)
        };
        let Some(state) = StateDir::open_existing(&path).map_err(|error| failed(&error))? else {
            return warn("no node has kept its state there");
        };
        let glance = state.glance(&args.dir, metainfo);
        match glance.map_err(|error| failed(&error))? {
            Glance::Known(journal) => Ok(Some(Self { fingerprint: state.fingerprint(), journal })),
            Glance::Missing => warn("no journal of this torrent in this directory"),
            Glance::Unusable(reason) => warn(&format!("journal not usable, {reason}")),
        }
    }

    /// Calls `check` with what is known.
    pub fn lend<T>(&self, check: impl FnOnce(&Known<'_>) -> T) -> T {
        let of_piece = |piece| self.journal.fingerprints(piece);
        check(&Known { fingerprint: self.fingerprint, of_piece: &of_piece })
    }
}
