//! What of a torrent `verify` looks at: all of it, or the pieces of some files.

use std::path::PathBuf;

use crate::daemon::files::{TorrentFiles, layout_of};
use crate::daemon::hashing::HashSource;
use crate::daemon::store::{Glance, StateDir};
use crate::proto::metainfo::Metainfo;
use crate::storage::wanted::Wanted;

use super::super::args::VerifyArgs;
use super::super::error::CliError;
use super::super::node;

/// See the module.
pub struct Scope {
    /// Where the bytes are.
    pub source: HashSource,
    /// Ascending.
    pub pieces: Vec<u32>,
    /// Files that were not asked for, without padding.
    pub skipped_files: usize,
    wanted: Option<Wanted>,
}

impl Scope {
    /// What the arguments say.
    pub fn of(args: &VerifyArgs, metainfo: &Metainfo) -> Result<Self, CliError> {
        let source = HashSource::of_torrent(metainfo, &args.dir);
        let all = metainfo.geometry.piece_count();
        let Some(chosen) = args.filter.choose(metainfo)? else {
            return Ok(Self { source, pieces: (0..all).collect(), skipped_files: 0, wanted: None });
        };
        let wanted = Wanted::new(&layout_of(metainfo), metainfo.geometry, &chosen);
        let skips = |index: usize| !wanted.files()[index].is_wanted();
        let skipped = metainfo.files.iter().enumerate().filter(|(index, file)| !file.pad && skips(*index));
        let skipped_files = skipped.count();
        let source = with_parts(source, args, metainfo, &wanted)?;
        Ok(Self { source, pieces: wanted.pieces().ones().collect(), skipped_files, wanted: Some(wanted) })
    }

    /// Whether a file is looked at; false for the part file.
    pub fn has(&self, file: usize) -> bool {
        self.wanted
            .as_ref()
            .is_none_or(|wanted| wanted.files().get(file).is_some_and(|file| file.is_wanted()))
    }
}

/// The other bytes of shared pieces lie where the node that fetched put them.
fn with_parts(
    source: HashSource,
    args: &VerifyArgs,
    metainfo: &Metainfo,
    wanted: &Wanted,
) -> Result<HashSource, CliError> {
    let failed = |error: &dyn std::fmt::Display| CliError::Failed(error.to_string());
    let path = node::state_dir_here(args.state.as_deref())?;
    if !args.dir.is_dir() {
        return Ok(source); // The check says what is wrong.
    }
    let Some(state) = StateDir::open_existing(&path).map_err(|error| failed(&error))? else {
        return Ok(source);
    };
    let parts: PathBuf = state.parts_path(&args.dir, metainfo.info_hash).map_err(|error| failed(&error))?;
    if !parts.is_file() {
        return Ok(source);
    }
    let glance = state.glance(&args.dir, metainfo);
    let journal = match glance.map_err(|error| failed(&error))? {
        Glance::Known(journal) => Some(journal),
        Glance::Missing | Glance::Unusable(_) => None,
    };
    let mut files = TorrentFiles::new(&args.dir, metainfo.clone().into()).map_err(|error| failed(&error))?;
    let layout = files.arrange(layout_of(metainfo), journal.as_ref(), Some(wanted.files()));
    Ok(source.with_parts(layout, &parts))
}
