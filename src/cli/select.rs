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
        // A pattern that is meant for another one may be meant for the link: nobody can know. So with a link
        // among several it has to mean a file of each, as is looked at again when that is found.
        let chosen = match known.len() == torrents.len() {
            true => selection.choose_all(&known),
            false => known.iter().map(|metainfo| selection.choose(metainfo, None)).collect(),
        };
        let mut chosen = chosen.map_err(usage)?.into_iter();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::magnet::Magnet;

    fn torrent(name: &str, file: &str) -> Arc<Metainfo> {
        let files = format!("d6:lengthi1e4:pathl{}:{file}eed6:lengthi1e4:pathl1:xee", file.len());
        let pieces = "12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaa";
        let info = format!("d5:filesl{files}e4:name{}:{name}{pieces}e", name.len());
        Arc::new(Metainfo::parse(format!("d4:info{info}e").as_bytes()).unwrap())
    }

    fn link() -> Arc<Metainfo> {
        let link = Magnet::parse("magnet:?xt=urn:btih:0123456789abcdef0123456789abcdef01234567").unwrap();
        Arc::new(Metainfo::of_link(&link).unwrap())
    }

    fn choose(pattern: &str, torrents: &[Arc<Metainfo>]) -> Result<Vec<bool>, String> {
        let filter = FilterArgs { files: vec![pattern.to_owned()], exclude: Vec::new() };
        let args = SelectArgs { filter, ..SelectArgs::default() };
        let chosen = args.choose(torrents).map_err(|error| error.to_string())?;
        Ok(chosen.into_iter().map(|wanted| wanted.is_some()).collect())
    }

    #[test]
    fn with_a_link_among_several_sources_a_pattern_means_a_file_of_each_or_is_an_error_that_names_it() {
        let (one, other) = (torrent("one", "a"), torrent("other", "b"));
        let both = [Arc::clone(&one), Arc::clone(&other)];
        assert_eq!(choose("a", &both), Ok(vec![true, true]), "all are known: one of them has it");
        let with_link = [one, link(), other];
        let error = choose("a", &with_link).unwrap_err();
        assert!(error.starts_with("a matches no file of other:") && !error.contains('\n'), "{error}");
        assert_eq!(
            choose("x", &with_link),
            Ok(vec![true, false, true]),
            "the link is chosen of once it is known"
        );
        assert_eq!(choose("a", &[link()]), Ok(vec![false]));
    }
}
