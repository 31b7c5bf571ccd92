//! `troc create`: a file or a directory becomes a .torrent.

mod plan;
mod walk;
mod write;

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::base::human::{Escaped, format_size};
use crate::base::limits::PIECE_BYTES_MAX;
use crate::base::units::BLOCK_BYTES;
use crate::proto::metainfo::{Metainfo, MetainfoBuilder, MetainfoError, V2, V2Builder, suggest_piece_bytes};
use crate::proto::urls;

use super::args::CreateArgs;
use super::error::CliError;
use super::hash_progress::HashProgress;
use super::out;

use plan::{Hashes, Plan};
use walk::Tree;

/// Reads everything below the path once and writes the .torrent.
pub fn run(args: &CreateArgs) -> Result<(), CliError> {
    check_urls(args)?;
    write::check_output(&args.output)?;
    let tree = Tree::walk(&args.path, &args.output)?;
    let plan = Plan::new(args, &tree, piece_bytes(args, &tree)?)?;
    let mut progress = HashProgress::new("hashing", plan.geometry.total_bytes, args.json);
    let hashes = plan.hash(&tree, &mut progress)?;
    let (took, rate) = progress.finish();
    tree.check_unchanged()?;
    let place = args.path.display();
    let (bytes, metainfo) = build(args, &tree, plan, hashes)
        .map_err(|error| CliError::Failed(format!("cannot make a torrent, {place}: {error}")))?;
    write::replace(&args.output, &bytes)?;
    if args.json {
        return out::line(&json_text(&metainfo, &args.output, took.as_secs_f64()));
    }
    out::line(&format!(
        "{}: {} in {}, {} pieces of {}, {} (hashed in {rate})",
        Escaped(&args.output.display().to_string()),
        format_size(metainfo.content_bytes()),
        files_text(file_count(&metainfo)),
        metainfo.geometry.piece_count(),
        format_size(u64::from(metainfo.geometry.piece_bytes)),
        hashes_text(&metainfo),
    ))
}

/// Files that are on disk.
fn file_count(metainfo: &Metainfo) -> usize {
    metainfo.files.iter().filter(|file| !file.pad).count()
}

fn hashes_text(metainfo: &Metainfo) -> String {
    let v1 = metainfo.has_v1().then(|| format!("info hash {}", metainfo.info_hash));
    let v2 = metainfo.v2.as_ref().map(|v2| format!("v2 hash {}", v2.info_hash_hex()));
    v1.into_iter().chain(v2).collect::<Vec<_>>().join(", ")
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

/// The piece length, if a torrent can have it: told before hours of hashing, not after.
fn piece_bytes(args: &CreateArgs, tree: &Tree) -> Result<u32, CliError> {
    let place = args.path.display();
    if tree.total_bytes == 0 {
        return Err(CliError::Failed(format!("nothing to share, {place}: there is not one byte in it")));
    }
    let wanted = args.piece_size.unwrap_or_else(|| u64::from(suggest_piece_bytes(tree.total_bytes)));
    let range = BLOCK_BYTES..=PIECE_BYTES_MAX;
    let piece_bytes =
        u32::try_from(wanted).ok().filter(|size| size.is_power_of_two() && range.contains(size));
    piece_bytes.ok_or_else(|| {
        CliError::Usage(format!("bad piece size, {wanted} bytes: give a power of two from 16KiB to 64MiB"))
    })
}

fn build(
    args: &CreateArgs,
    tree: &Tree,
    plan: Plan,
    hashes: Hashes,
) -> Result<(Vec<u8>, Metainfo), MetainfoError> {
    let builder = MetainfoBuilder {
        name: tree.name.clone(),
        files: plan.files,
        piece_bytes: plan.geometry.piece_bytes,
        piece_hashes: hashes.pieces,
        trackers: args.trackers.iter().map(|url| vec![url.clone()]).collect(),
        web_seeds: args.web_seeds.clone(),
        private: args.private,
        comment: None,
        created_by: Some(concat!("troc ", env!("CARGO_PKG_VERSION")).to_owned()),
        creation_date: today(),
    };
    match hashes.files {
        Some(files) => V2Builder { common: builder, hashes: files }.build(),
        None => builder.build(),
    }
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
        "info_hash": metainfo.has_v1().then(|| metainfo.info_hash.to_hex()),
        "v2_hash": metainfo.v2.as_ref().map(V2::info_hash_hex),
        "total_bytes": metainfo.content_bytes(),
        "piece_bytes": metainfo.geometry.piece_bytes,
        "pieces": metainfo.geometry.piece_count(),
        "files": file_count(metainfo),
        "seconds": seconds,
    })
    .to_string()
}
