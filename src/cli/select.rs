//! Which files are meant: `--files`, `--exclude`, `--priority`.

use std::sync::Arc;

use clap::Args;

use crate::base::priority::Priority;
use crate::proto::metainfo::Metainfo;
use crate::proto::selection::{Selection, SelectionError};

use super::error::CliError;

/// How much each file of a torrent is wanted; `None` if all are alike.
pub type Wanted = Option<Arc<[Priority]>>;

/// Which files are meant and which not.
#[derive(Clone, Debug, Default, Args)]
pub struct FilterArgs {
    /// Only these files: a glob like 'sub/**/*.bin' of paths below the torrent's name, or numbers like
    /// 0,4-6 as `troc show --files` prints them; may be repeated
    #[arg(long, value_name = "PATTERN")]
    pub files: Vec<String>,
    /// Not these files; may be repeated
    #[arg(long, value_name = "PATTERN")]
    pub exclude: Vec<String>,
}

/// Which files are wanted, and how much.
#[derive(Clone, Debug, Default, Args)]
pub struct SelectArgs {
    /// See [`FilterArgs`].
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Files that come before or after others: high, normal, low, or skip for not at all; may be repeated,
    /// the last that matches counts
    #[arg(long = "priority", value_name = "PATTERN=PRIORITY")]
    pub priorities: Vec<String>,
    /// Tell progress file by file, as --files does
    #[arg(long)]
    pub file_progress: bool,
}

impl FilterArgs {
    /// Whether nothing was said.
    pub const fn is_empty(&self) -> bool {
        self.files.is_empty() && self.exclude.is_empty()
    }

    /// What is meant of one torrent.
    pub fn choose(&self, metainfo: &Metainfo) -> Result<Option<Vec<Priority>>, CliError> {
        let selection = Selection::new(&self.files, &self.exclude, &[]).map_err(usage)?;
        selection.choose(metainfo, None).map_err(usage)
    }
}

impl SelectArgs {
    /// What the command line says, of whatever torrent.
    pub fn selection(&self) -> Result<Selection, CliError> {
        let FilterArgs { files, exclude } = &self.filter;
        Selection::new(files, exclude, &self.priorities).map_err(usage)
    }

    /// What is wanted of each torrent.
    pub fn choose(&self, torrents: &[Arc<Metainfo>]) -> Result<Vec<Wanted>, CliError> {
        let selection = self.selection()?;
        // Of what a link names it is chosen once that is known.
        let known: Vec<&Metainfo> =
            torrents.iter().map(Arc::as_ref).filter(|metainfo| !metainfo.is_awaited()).collect();
        if known.is_empty() {
            return Ok(vec![None; torrents.len()]);
        }
        let mut chosen = selection.choose_all(&known).map_err(usage)?.into_iter();
        let of = |metainfo: &Arc<Metainfo>| {
            if metainfo.is_awaited() { None } else { chosen.next().flatten().map(Arc::from) }
        };
        Ok(torrents.iter().map(of).collect())
    }
}

/// What is asked for cannot be.
pub fn usage(error: SelectionError) -> CliError {
    CliError::Usage(error.to_string())
}
