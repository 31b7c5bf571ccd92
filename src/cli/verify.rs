//! `troc verify`: every piece, at the speed of the disk; names what is bad.

mod memory;
mod scope;

use std::ops::ControlFlow;
use std::path::Path;

use serde_json::json;

use crate::base::human::{Escaped, format_size};
use crate::daemon::hashing::{
    Digests, HashOptions, HashSource, Method, PieceOutcome, check_pieces, hash_pieces,
};
use crate::proto::metainfo::Metainfo;

use super::args::VerifyArgs;
use super::error::CliError;
use super::hash_progress::HashProgress;
use super::out;
use super::source::Source;

use memory::Memory;
use scope::Scope;

/// Most lines about bad pieces.
const LINES_MAX: usize = 1000;
/// Why pieces are unchecked.
const EDGES: &str = "pieces that other files have a part in can be checked only with what the node kept of \
                     those: give its --state";
/// Most files named for one range of pieces.
const FILES_NAMED: usize = 5;

/// Why a piece is not right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Trouble {
    /// Its bytes have another digest.
    Bad,
    /// A file is missing or too short.
    Missing,
    /// A file cannot be read.
    Unreadable,
    /// Its other bytes, of files that were not asked for, are not there to be hashed with it.
    Unchecked,
}

impl Trouble {
    const fn name(self) -> &'static str {
        match self {
            Self::Bad => "bad",
            Self::Missing => "missing",
            Self::Unreadable => "unreadable",
            Self::Unchecked => "unchecked",
        }
    }
}

/// Of the pieces that were looked at.
struct Counts {
    /// All of them.
    pieces: usize,
    /// Files that were not asked for.
    skipped_files: usize,
    /// Not right.
    troubled: usize,
    /// Right by their fingerprints.
    compared: usize,
}

/// Consecutive pieces with the same trouble in the same files.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    trouble: Trouble,
    first: u32,
    last: u32,
    files: Vec<usize>,
}

/// Checks every piece; fails if one is not right.
pub fn run(args: &VerifyArgs) -> Result<(), CliError> {
    let metainfo = Source::read_torrent(&args.source)?;
    let scope = Scope::of(args, &metainfo)?;
    let (source, geometry) = (&scope.source, metainfo.geometry);
    let memory = if args.fast { Memory::recall(args, &metainfo)? } else { None };
    let mut compared = 0;
    let bytes = scope.pieces.iter().map(|&piece| u64::from(geometry.piece_len(piece))).sum();
    let mut progress = HashProgress::new("verifying", bytes, args.json);
    let mut troubles: Vec<(u32, Trouble)> = Vec::new();
    let mut reason = None;
    let mut on_piece = |piece: u32, outcome: PieceOutcome| {
        match outcome {
            PieceOutcome::Hashed { digest, .. } => {
                if !digest.fits(&metainfo, piece) {
                    troubles.push((piece, Trouble::Bad));
                }
            }
            PieceOutcome::Fingerprinted { .. } => compared += 1,
            PieceOutcome::Absent { file } if scope.has(file) => troubles.push((piece, Trouble::Missing)),
            PieceOutcome::Absent { .. } => troubles.push((piece, Trouble::Unchecked)),
            PieceOutcome::Failed(error) => {
                troubles.push((piece, Trouble::Unreadable));
                reason.get_or_insert_with(|| format!("{error}: check its permissions, or its disk"));
            }
        }
        progress.advance(u64::from(geometry.piece_len(piece)));
        ControlFlow::Continue(())
    };
    let method = Method { digests: Digests::of_torrent(&metainfo), fingerprint: None };
    let (all, options) = (scope.pieces.iter().copied(), HashOptions { method, ..HashOptions::default() });
    match memory {
        Some(memory) => memory.lend(|known| check_pieces(source, all, known, &options, &mut on_piece)),
        None => hash_pieces(source, all, &options, &mut on_piece),
    }
    .map_err(|error| CliError::Failed(error.to_string()))?;
    let (took, rate) = progress.finish();
    troubles.sort_unstable();
    let findings = gather(&troubles, source);
    let empty = missing_empty_files(&metainfo, &args.dir, &scope);
    let (pieces, skipped_files) = (scope.pieces.len(), scope.skipped_files);
    if args.json {
        let seconds = took.as_secs_f64();
        let counts = Counts { pieces, skipped_files, troubled: troubles.len(), compared };
        out::line(&json_text(&metainfo, &counts, &findings, &empty, seconds))?;
    } else {
        describe(&metainfo, &findings, &empty)?;
        let (good, size) = (pieces - troubles.len(), format_size(bytes));
        let name = Escaped(&metainfo.name);
        let how = if compared > 0 { format!(" ({compared} by fingerprint)") } else { String::new() };
        let skipped =
            if skipped_files > 0 { format!("; skipped {skipped_files} files") } else { String::new() };
        out::line(&format!(
            "{name}: {good} of {pieces} pieces are right{how}, {size} read in {rate}{skipped}"
        ))?;
    }
    let unchecked = troubles.iter().any(|&(_, trouble)| trouble == Trouble::Unchecked);
    let reason = reason.or_else(|| unchecked.then(|| EDGES.to_owned()));
    verdict(args, &metainfo, (troubles.len(), pieces), empty.len(), reason)
}

fn verdict(
    args: &VerifyArgs,
    metainfo: &Metainfo,
    (pieces, all): (usize, usize),
    empty_files: usize,
    reason: Option<String>,
) -> Result<(), CliError> {
    if pieces == 0 && empty_files == 0 {
        return Ok(());
    }
    let dir = args.dir.display();
    let what = match pieces {
        0 => format!("{empty_files} empty files are missing"),
        _ => format!("{pieces} of {all} pieces are bad or missing"),
    };
    let remedy = match reason {
        Some(reason) => reason,
        None if !args.dir.join(&metainfo.name).exists() => {
            format!("give the directory that holds {}", metainfo.name)
        }
        None => format!("fetch them again with troc get {} -o {dir}", args.source),
    };
    Err(CliError::Failed(format!("{what}, {} in {dir}: {remedy}", metainfo.name)))
}

/// Troubles in ascending order, as ranges.
fn gather(troubles: &[(u32, Trouble)], source: &HashSource) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for &(piece, trouble) in troubles {
        let files = source.files_of_piece(piece);
        match findings.last_mut() {
            Some(last) if last.trouble == trouble && last.last + 1 == piece && last.files == files => {
                last.last = piece;
            }
            _ => findings.push(Finding { trouble, first: piece, last: piece, files }),
        }
    }
    findings
}

/// No piece tells whether these are there.
fn missing_empty_files(metainfo: &Metainfo, dir: &Path, scope: &Scope) -> Vec<String> {
    let files = metainfo.files.iter().enumerate().filter(|(index, _)| scope.has(*index));
    let empty = files.map(|(_, file)| file).filter(|file| file.length == 0 && !file.pad);
    let is_missing = |path: &String| std::fs::symlink_metadata(dir.join(path)).is_err();
    empty.map(|file| file.path.join("/")).filter(is_missing).collect()
}

fn describe(metainfo: &Metainfo, findings: &[Finding], empty: &[String]) -> Result<(), CliError> {
    let path = |index: &usize| {
        metainfo.files.get(*index).map_or_else(|| "other files".to_owned(), |file| file.path.join("/"))
    };
    for finding in findings.iter().take(LINES_MAX) {
        let range = match finding.last - finding.first {
            0 => format!("piece {}", finding.first),
            _ => format!("pieces {}-{}", finding.first, finding.last),
        };
        let mut names: Vec<String> = finding.files.iter().take(FILES_NAMED).map(path).collect();
        if finding.files.len() > FILES_NAMED {
            names.push(format!("and {} more", finding.files.len() - FILES_NAMED));
        }
        let line = format!("{}: {range} in {}", finding.trouble.name(), names.join(", "));
        out::line(&Escaped(&line).to_string())?;
    }
    if findings.len() > LINES_MAX {
        out::line(&format!("... and {} more ranges (--json names all)", findings.len() - LINES_MAX))?;
    }
    empty
        .iter()
        .take(LINES_MAX)
        .try_for_each(|path| out::line(&Escaped(&format!("missing: empty file {path}")).to_string()))
}

fn json_text(
    metainfo: &Metainfo,
    counts: &Counts,
    findings: &[Finding],
    empty: &[String],
    seconds: f64,
) -> String {
    let path = |index: &usize| metainfo.files.get(*index).map(|file| file.path.join("/"));
    let finding = |finding: &Finding| {
        json!({
            "trouble": finding.trouble.name(),
            "first_piece": finding.first,
            "last_piece": finding.last,
            "files": finding.files.iter().filter_map(path).collect::<Vec<_>>(),
        })
    };
    let Counts { pieces, .. } = *counts;
    json!({
        "name": metainfo.name,
        "info_hash": metainfo.info_hash.to_hex(),
        "total_bytes": metainfo.geometry.total_bytes,
        "pieces": pieces,
        "good_pieces": pieces - counts.troubled,
        "skipped_files": counts.skipped_files,
        "compared_pieces": counts.compared,
        "findings": findings.iter().map(finding).collect::<Vec<_>>(),
        "missing_empty_files": empty,
        "seconds": seconds,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::geometry::Geometry;
    use crate::daemon::hashing::SourceFile;

    #[test]
    fn neighbours_with_one_trouble_in_one_file_are_one_line() {
        let file = |path: &str, length| SourceFile { path: path.into(), length, pad: false };
        let files = vec![file("a", 50_000), file("b", 100_000)];
        let source = HashSource::new(Path::new("."), Geometry::new(150_000, 16 << 10), files);
        let all: Vec<(u32, Trouble)> = (0..10).map(|piece| (piece, Trouble::Bad)).collect();
        let ranges = |troubles: &[(u32, Trouble)]| -> Vec<(u32, u32)> {
            gather(troubles, &source).iter().map(|finding| (finding.first, finding.last)).collect()
        };
        assert_eq!(ranges(&all), [(0, 2), (3, 3), (4, 9)]);
        assert_eq!(
            ranges(&[(5, Trouble::Bad), (6, Trouble::Missing), (8, Trouble::Missing)]),
            [(5, 5), (6, 6), (8, 8)]
        );
    }
}
