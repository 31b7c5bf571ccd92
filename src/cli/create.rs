//! `troc create`: a file or a directory becomes a .torrent.

mod walk;
mod write;

use std::ops::ControlFlow;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::base::geometry::Geometry;
use crate::base::human::{Escaped, format_size};
use crate::base::limits::{PIECE_BYTES_MAX, PIECES_MAX};
use crate::base::units::BLOCK_BYTES;
use crate::daemon::hashing::{HashOptions, HashSource, PieceOutcome, SourceFile, hash_pieces};
use crate::proto::metainfo::{FileEntry, Metainfo, MetainfoBuilder, suggest_piece_bytes};
use crate::proto::urls;

use super::args::CreateArgs;
use super::error::CliError;
use super::hash_progress::HashProgress;
use super::out;

use walk::Tree;

/// Reads everything below the path once and writes the .torrent.
pub fn run(args: &CreateArgs) -> Result<(), CliError> {
    if args.v2 || args.hybrid {
        let flag = if args.v2 { "--v2" } else { "--hybrid" };
        return Err(CliError::NotYet(format!(
            "{flag}: leave it out for a v1 torrent, which every client reads"
        )));
    }
    check_urls(args)?;
    write::check_output(&args.output)?;
    let tree = Tree::walk(&args.path, &args.output)?;
    let geometry = geometry(args, &tree)?;
    let mut progress = HashProgress::new("hashing", geometry.total_bytes, args.json);
    let piece_hashes = hash(&tree, geometry, &mut progress)?;
    let (took, rate) = progress.finish();
    tree.check_unchanged()?;
    let (bytes, metainfo) = build(args, &tree, geometry, piece_hashes)?;
    write::replace(&args.output, &bytes)?;
    if args.json {
        return out::line(&json_text(&metainfo, &args.output, took.as_secs_f64()));
    }
    out::line(&format!(
        "{}: {} in {}, {} pieces of {}, info hash {} (hashed in {rate})",
        Escaped(&args.output.display().to_string()),
        format_size(geometry.total_bytes),
        files_text(metainfo.files.len()),
        geometry.piece_count(),
        format_size(u64::from(geometry.piece_bytes)),
        metainfo.info_hash,
    ))
}

fn files_text(count: usize) -> String {
    if count == 1 { "1 file".to_owned() } else { format!("{count} files") }
}

fn check_urls(args: &CreateArgs) -> Result<(), CliError> {
    if let Some(url) = args.trackers.iter().find(|url| urls::tracker(url.as_bytes()).is_none()) {
        return Err(CliError::Usage(format!("bad tracker, {url}: give an http, https or udp URL")));
    }
    if let Some(url) = args.web_seeds.iter().find(|url| urls::web_seed(url.as_bytes()).is_none()) {
        return Err(CliError::Usage(format!("bad web seed, {url}: give an http or https URL")));
    }
    Ok(())
}

/// The sizes, if a torrent can have them: told before hours of hashing, not after.
fn geometry(args: &CreateArgs, tree: &Tree) -> Result<Geometry, CliError> {
    let place = args.path.display();
    if tree.total_bytes == 0 {
        return Err(CliError::Failed(format!("nothing to share, {place}: there is not one byte in it")));
    }
    let wanted = args.piece_size.unwrap_or_else(|| u64::from(suggest_piece_bytes(tree.total_bytes)));
    let range = BLOCK_BYTES..=PIECE_BYTES_MAX;
    let piece_bytes =
        u32::try_from(wanted).ok().filter(|size| size.is_power_of_two() && range.contains(size));
    let Some(piece_bytes) = piece_bytes else {
        let text = format!("bad piece size, {wanted} bytes: give a power of two from 16KiB to 64MiB");
        return Err(CliError::Usage(text));
    };
    if tree.total_bytes.div_ceil(u64::from(piece_bytes)) > u64::from(PIECES_MAX) {
        let text = format!("too many pieces, {place}: give a larger --piece-size");
        return Err(CliError::Usage(text));
    }
    Ok(Geometry::new(tree.total_bytes, piece_bytes))
}

fn hash(tree: &Tree, geometry: Geometry, progress: &mut HashProgress) -> Result<Vec<[u8; 20]>, CliError> {
    let file = |file: &walk::Found| SourceFile { path: file.path.clone(), length: file.length, pad: false };
    let source = HashSource::new(&tree.dir, geometry, tree.files.iter().map(file).collect());
    let mut hashes = vec![[0; 20]; geometry.piece_count() as usize];
    let mut problem = None;
    let mut on_piece = |piece: u32, outcome: PieceOutcome| {
        let place = hashes.get_mut(piece as usize);
        match (outcome, place) {
            (PieceOutcome::Hashed { digest, .. }, Some(place)) => *place = digest,
            (PieceOutcome::Absent { file }, _) => {
                problem = source.files().get(file).map(|f| walk::changed(&f.path))
            }
            (PieceOutcome::Failed(error), _) => {
                problem = Some(CliError::Failed(format!("cannot read, {error}: mend it and try again")));
            }
            (PieceOutcome::Hashed { .. } | PieceOutcome::Fingerprinted { .. }, _) => {}
        }
        progress.advance(u64::from(geometry.piece_len(piece)));
        if problem.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    hash_pieces(&source, 0..geometry.piece_count(), &HashOptions::default(), &mut on_piece)
        .map_err(|error| CliError::Failed(error.to_string()))?;
    match problem {
        Some(problem) => Err(problem),
        None => Ok(hashes),
    }
}

fn build(
    args: &CreateArgs,
    tree: &Tree,
    geometry: Geometry,
    piece_hashes: Vec<[u8; 20]>,
) -> Result<(Vec<u8>, Metainfo), CliError> {
    let file = |file: &walk::Found| FileEntry { path: file.names.clone(), length: file.length, pad: false };
    let builder = MetainfoBuilder {
        name: tree.name.clone(),
        files: tree.files.iter().map(file).collect(),
        piece_bytes: geometry.piece_bytes,
        piece_hashes,
        trackers: args.trackers.iter().map(|url| vec![url.clone()]).collect(),
        web_seeds: args.web_seeds.clone(),
        private: args.private,
        comment: None,
        created_by: Some(concat!("troc ", env!("CARGO_PKG_VERSION")).to_owned()),
        creation_date: today(),
    };
    let place = args.path.display();
    builder.build().map_err(|error| CliError::Failed(format!("cannot make a torrent, {place}: {error}")))
}

#[expect(clippy::disallowed_methods, reason = "the shell of the program may read the clock")]
fn today() -> Option<i64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_secs()).ok()
}

fn json_text(metainfo: &Metainfo, output: &Path, seconds: f64) -> String {
    json!({
        "output": output.to_string_lossy(),
        "name": metainfo.name,
        "info_hash": metainfo.info_hash.to_hex(),
        "total_bytes": metainfo.geometry.total_bytes,
        "piece_bytes": metainfo.geometry.piece_bytes,
        "pieces": metainfo.geometry.piece_count(),
        "files": metainfo.files.len(),
        "seconds": seconds,
    })
    .to_string()
}
