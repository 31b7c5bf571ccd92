//! Which files of a torrent somebody wants, and how much: patterns of the command line.
//!
//! A pattern is a list of numbers, as [`FileRanges`], or a glob over the path below the torrent's name (the
//! name itself, if the torrent is a single file): `*` and `?` stay within a component, `**` goes across,
//! `[a-z]` and `{a,b}` are as in a shell.

use globset::{Glob, GlobBuilder, GlobMatcher};

use super::file_ranges::FileRanges;
use super::metainfo::{FileEntry, Metainfo};
use super::text;
use crate::base::limits::FILE_NAMES_SHOWN_MAX;
use crate::base::priority::Priority;

/// Longest name in an error, in bytes.
const NAME_SHOWN_BYTES: usize = 100;

/// Why nothing can be selected. One line each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    /// Not a pattern.
    #[error("bad pattern, {pattern}: {why}; write a glob like 'sub/**/*.bin', or numbers like 0,4-6")]
    BadPattern {
        /// As given.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
    /// `--priority` without a known priority.
    #[error("bad priority, {text}: write PATTERN=high, =normal, =low or =skip")]
    BadPriority {
        /// As given.
        text: String,
    },
    /// There is no such file.
    #[error("{pattern} matches no file of {name}: {hint}")]
    NoMatch {
        /// As given.
        pattern: String,
        /// Of the torrent.
        name: String,
        /// Names that there are.
        hint: String,
    },
    /// Nothing is left.
    #[error("no file of {name} is wanted: leave out --exclude or --priority, or name files by --files")]
    Nothing {
        /// Of the torrent.
        name: String,
    },
}

#[derive(Clone, Debug)]
enum Kind {
    Numbers(FileRanges),
    Glob(Box<GlobMatcher>),
}

/// One pattern.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    kind: Kind,
}

/// What the command line says of files. Without any pattern everything is wanted.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    files: Vec<Pattern>,
    exclude: Vec<Pattern>,
    priorities: Vec<(Pattern, Priority)>,
}

/// How much each file of one torrent is wanted; `None` where all are wanted alike.
pub type Chosen = Option<Vec<Priority>>;

impl Pattern {
    /// Parses numbers or a glob.
    pub fn parse(text: &str) -> Result<Self, SelectionError> {
        let bad = |why: String| SelectionError::BadPattern { pattern: shown(text), why };
        let numeric = text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b',' | b'-'));
        let kind = if numeric {
            let ranges = FileRanges::parse(text).ok_or_else(|| bad("these are no numbers".to_owned()))?;
            Kind::Numbers(ranges)
        } else {
            let glob = glob(text).map_err(|error| bad(error.kind().to_string()))?;
            Kind::Glob(Box::new(glob.compile_matcher()))
        };
        Ok(Self { text: text.to_owned(), kind })
    }

    /// Whether it means file number `index`.
    pub fn matches(&self, index: u32, file: &FileEntry) -> bool {
        !file.pad
            && match &self.kind {
                Kind::Numbers(ranges) => ranges.contains(index),
                Kind::Glob(glob) => glob.is_match(path_below(file)),
            }
    }

    fn matches_any(&self, metainfo: &Metainfo) -> bool {
        numbered(metainfo).any(|(index, file)| self.matches(index, file))
    }
}

impl Selection {
    /// Of the values of `--files`, `--exclude` and `--priority`.
    pub fn new(files: &[String], exclude: &[String], priorities: &[String]) -> Result<Self, SelectionError> {
        let all =
            |texts: &[String]| texts.iter().map(|text| Pattern::parse(text)).collect::<Result<Vec<_>, _>>();
        let ranked = priorities.iter().map(|text| {
            let (pattern, name) = text.rsplit_once('=').unwrap_or((text, ""));
            let priority = Priority::from_name(name);
            let priority = priority.ok_or_else(|| SelectionError::BadPriority { text: shown(text) })?;
            Ok((Pattern::parse(pattern)?, priority))
        });
        let priorities = ranked.collect::<Result<_, _>>()?;
        Ok(Self { files: all(files)?, exclude: all(exclude)?, priorities })
    }

    /// What is wanted of a torrent. `named` is what its magnet link names (BEP 53): it counts where there is
    /// no `--files`.
    pub fn choose(&self, metainfo: &Metainfo, named: Option<&FileRanges>) -> Result<Chosen, SelectionError> {
        self.check(&[metainfo])?;
        let chosen = self.rank(metainfo, named);
        let any = wanted_of(metainfo, &chosen) > 0 || numbered(metainfo).next().is_none();
        let nothing = || SelectionError::Nothing { name: shown(&metainfo.name) };
        any.then(|| simplify(metainfo, chosen)).ok_or_else(nothing)
    }

    /// What is wanted of each of several torrents: of some perhaps nothing, but each pattern means a file of
    /// one of them.
    pub fn choose_all(&self, torrents: &[&Metainfo]) -> Result<Vec<Chosen>, SelectionError> {
        if let [only] = torrents {
            return Ok(vec![self.choose(only, None)?]);
        }
        self.check(torrents)?;
        let ranked: Vec<Vec<Priority>> = torrents.iter().map(|metainfo| self.rank(metainfo, None)).collect();
        let wanted = torrents.iter().zip(&ranked).any(|(metainfo, chosen)| wanted_of(metainfo, chosen) > 0);
        if !wanted && !self.is_empty() {
            return Err(SelectionError::Nothing { name: "any torrent".to_owned() });
        }
        Ok(torrents.iter().zip(ranked).map(|(metainfo, chosen)| simplify(metainfo, chosen)).collect())
    }

    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.exclude.is_empty() && self.priorities.is_empty()
    }

    /// Every pattern means some file.
    fn check(&self, torrents: &[&Metainfo]) -> Result<(), SelectionError> {
        let ranked = self.priorities.iter().map(|(pattern, _)| pattern);
        for pattern in self.files.iter().chain(&self.exclude).chain(ranked) {
            if !torrents.iter().any(|metainfo| pattern.matches_any(metainfo)) {
                return Err(no_match(pattern, torrents));
            }
        }
        Ok(())
    }

    fn rank(&self, metainfo: &Metainfo, named: Option<&FileRanges>) -> Vec<Priority> {
        let any = |patterns: &[Pattern], index, file: &FileEntry| {
            patterns.iter().any(|pattern| pattern.matches(index, file))
        };
        let rank = |(index, file): (u32, &FileEntry)| {
            let named = named.is_none_or(|named| named.contains(index));
            let wanted = if self.files.is_empty() { named } else { any(&self.files, index, file) };
            if file.pad || !wanted || any(&self.exclude, index, file) {
                return Priority::Skip;
            }
            let ranked = self.priorities.iter().rev().find(|(pattern, _)| pattern.matches(index, file));
            ranked.map_or(Priority::Normal, |&(_, priority)| priority)
        };
        (0u32..).zip(&metainfo.files).map(rank).collect()
    }
}

/// The path that patterns are compared with.
pub fn path_below(file: &FileEntry) -> String {
    match file.path.as_slice() {
        [_, below @ ..] if !below.is_empty() => below.join("/"),
        whole => whole.join("/"),
    }
}

fn glob(text: &str) -> Result<Glob, globset::Error> {
    GlobBuilder::new(text).literal_separator(true).backslash_escape(true).build()
}

/// Files that patterns may mean, with their numbers.
fn numbered(metainfo: &Metainfo) -> impl Iterator<Item = (u32, &FileEntry)> {
    (0u32..).zip(&metainfo.files).filter(|(_, file)| !file.pad)
}

fn wanted_of(metainfo: &Metainfo, chosen: &[Priority]) -> usize {
    let wanted = metainfo.files.iter().zip(chosen);
    wanted.filter(|(file, priority)| !file.pad && priority.is_wanted()).count()
}

/// `None` if every file is wanted as any: nothing has to be told apart then.
fn simplify(metainfo: &Metainfo, chosen: Vec<Priority>) -> Chosen {
    let plain = numbered(metainfo).all(|(index, _)| chosen[index as usize] == Priority::Normal);
    (!plain).then_some(chosen)
}

fn no_match(pattern: &Pattern, torrents: &[&Metainfo]) -> SelectionError {
    let name = match torrents {
        [only] => shown(&only.name),
        _ => format!("{} torrents", torrents.len()),
    };
    let files = || torrents.iter().flat_map(|metainfo| numbered(metainfo));
    // A directory is meant, perhaps.
    let below = format!("{}/", pattern.text.trim_end_matches('/'));
    let hint = if files().any(|(_, file)| path_below(file).starts_with(&below)) {
        format!("it is a directory; write '{}**' for what is in it", shown(&below))
    } else {
        let names = files().take(FILE_NAMES_SHOWN_MAX);
        let names: Vec<String> =
            names.map(|(index, file)| format!("{index} {}", shown(&path_below(file)))).collect();
        let more = files().count().saturating_sub(names.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("its files by number are {}{more} (troc show --files lists all)", names.join(", "))
    };
    SelectionError::NoMatch { pattern: shown(&pattern.text), name, hint }
}

fn shown(name: &str) -> String {
    text::escape(name.as_bytes(), NAME_SHOWN_BYTES)
}

#[cfg(test)]
mod tests;
