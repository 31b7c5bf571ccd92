//! `troc show`: what a .torrent or a magnet link says.

use std::fmt::Write;

use serde_json::json;

use crate::base::human::{Escaped, format_size};
use crate::proto::magnet::Magnet;
use crate::proto::metainfo::{FileEntry, Metainfo, V2};

use super::args::ShowArgs;
use super::error::CliError;
use super::out;
use super::scrape;
use super::select::FilterArgs;
use super::source::Source;

/// Files listed unless all are asked for.
const FILES_SHOWN: usize = 20;

/// Prints the source as a table, or as JSON.
pub fn run(args: &ShowArgs) -> Result<(), CliError> {
    let source = Source::read(&args.source)?;
    if args.pattern.is_some() {
        let Source::Torrent(metainfo) = &source else {
            let text = "a magnet link lists no files: give --match with a .torrent".to_owned();
            return Err(CliError::Usage(text));
        };
        return out::line(matching(metainfo, args)?.trim_end());
    }
    let counts = if args.scrape { scrape::ask(&source)? } else { Vec::new() };
    let text = if args.json {
        let mut json = match &source {
            Source::Torrent(metainfo) => torrent_json(metainfo),
            Source::Magnet(magnet) => magnet_json(magnet),
        };
        if args.scrape {
            json["scrape"] = counts.iter().map(scrape::json).collect();
        }
        json.to_string()
    } else {
        let mut table = match &source {
            Source::Torrent(metainfo) => torrent_table(metainfo, args.files),
            Source::Magnet(magnet) => magnet_table(magnet),
        };
        table.rows("counted", counts.iter().map(scrape::text));
        table.0
    };
    out::line(text.trim_end())
}

/// Rows of a name and a value; foreign text goes in raw and comes out escaped.
struct Table(String);

impl Table {
    fn row(&mut self, name: &str, value: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{name:<11} {}", Escaped(value));
    }

    /// The name stands beside the first of `values` only.
    fn rows(&mut self, name: &str, values: impl IntoIterator<Item = String>) {
        for (index, value) in values.into_iter().enumerate() {
            self.row(if index == 0 { name } else { "" }, &value);
        }
    }
}

/// The files that a pattern means, one a line, with their numbers.
fn matching(metainfo: &Metainfo, args: &ShowArgs) -> Result<String, CliError> {
    let filter = FilterArgs { files: args.pattern.iter().cloned().collect(), exclude: Vec::new() };
    let chosen = filter.choose(metainfo)?;
    let meant = |index: usize| chosen.as_ref().is_none_or(|chosen| chosen[index].is_wanted());
    let files = metainfo.files.iter().enumerate().filter(|(index, file)| !file.pad && meant(*index));
    if args.json {
        let file = |(index, file): (usize, &FileEntry)| {
            let path = file.path.join("/");
            json!({ "index": index, "path": path, "length": file.length })
        };
        return Ok(json!({ "files": files.map(file).collect::<Vec<_>>() }).to_string());
    }
    Ok(files.map(|(index, file)| Escaped(&file_row(index, file)).to_string() + "\n").collect())
}

fn file_row(index: usize, file: &FileEntry) -> String {
    format!("{index:>5} {:>10}  {}", format_size(file.length), file.path.join("/"))
}

fn torrent_table(metainfo: &Metainfo, all_files: bool) -> Table {
    let geometry = metainfo.geometry;
    let mut table = Table(String::new());
    table.row("name", &metainfo.name);
    table.rows("info hash", metainfo.has_v1().then(|| metainfo.info_hash.to_hex()));
    table.rows("v2 hash", metainfo.v2.as_ref().map(V2::info_hash_hex));
    let content_bytes = metainfo.content_bytes();
    table.row("size", &format!("{} ({content_bytes} bytes)", format_size(content_bytes)));
    table.row(
        "pieces",
        &format!("{} of {}", geometry.piece_count(), format_size(u64::from(geometry.piece_bytes))),
    );
    table.row("private", if metainfo.private { "yes" } else { "no" });
    table.rows("created", metainfo.creation_date.map(date));
    table.rows("created by", metainfo.created_by.clone());
    table.rows("comment", metainfo.comment.clone());
    let tiers = metainfo.trackers.iter().zip(1..);
    table
        .rows("trackers", tiers.flat_map(|(tier, n)| tier.iter().map(move |url| format!("tier {n}: {url}"))));
    table.rows("web seeds", metainfo.web_seeds.clone());
    table.row("magnet", &metainfo.magnet_link());
    if metainfo.symlinks_skipped > 0 {
        table.row("links", &format!("{} symbolic links, which are not made", metainfo.symlinks_skipped));
    }
    let files: Vec<(usize, &FileEntry)> =
        metainfo.files.iter().enumerate().filter(|(_, file)| !file.pad).collect();
    table.row("files", &files.len().to_string());
    let shown = if all_files { files.len() } else { FILES_SHOWN.min(files.len()) };
    for &(index, file) in &files[..shown] {
        table.row("", &file_row(index, file));
    }
    if shown < files.len() {
        table.row("", &format!("... and {} more (--files lists all)", files.len() - shown));
    }
    table
}

fn torrent_json(metainfo: &Metainfo) -> serde_json::Value {
    let file =
        |file: &FileEntry| json!({ "path": file.path.join("/"), "length": file.length, "pad": file.pad });
    json!({
        "kind": "torrent",
        "name": metainfo.name,
        "info_hash": metainfo.has_v1().then(|| metainfo.info_hash.to_hex()),
        "v2_hash": metainfo.v2.as_ref().map(V2::info_hash_hex),
        "magnet": metainfo.magnet_link(),
        "total_bytes": metainfo.geometry.total_bytes,
        "content_bytes": metainfo.content_bytes(),
        "piece_bytes": metainfo.geometry.piece_bytes,
        "pieces": metainfo.geometry.piece_count(),
        "private": metainfo.private,
        "trackers": metainfo.trackers,
        "web_seeds": metainfo.web_seeds,
        "comment": metainfo.comment,
        "created_by": metainfo.created_by,
        "creation_date": metainfo.creation_date,
        "symlinks_skipped": metainfo.symlinks_skipped,
        "files": metainfo.files.iter().map(file).collect::<Vec<_>>(),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn peers(magnet: &Magnet) -> Vec<String> {
    let address = |host: &str, port: u16| match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    };
    magnet.peers.iter().map(|peer| address(&peer.host, peer.port)).collect()
}

fn magnet_table(magnet: &Magnet) -> Table {
    let mut table = Table(String::new());
    table.rows("name", magnet.name.clone());
    table.rows("info hash", magnet.info_hash.map(|hash| hash.to_hex()));
    table.rows("v2 hash", magnet.v2_hash.map(|hash| hex(&hash)));
    table.rows("trackers", magnet.trackers.clone());
    table.rows("web seeds", magnet.web_seeds.clone());
    table.rows("peers", peers(magnet));
    let named = magnet.selection.as_ref().map_or_else(String::new, |files| format!("{files} of those "));
    table.row("files", &format!("{named}not in a link: troc get fetches them, and first what they are"));
    table
}

fn magnet_json(magnet: &Magnet) -> serde_json::Value {
    json!({
        "kind": "magnet",
        "name": magnet.name,
        "info_hash": magnet.info_hash.map(|hash| hash.to_hex()),
        "v2_hash": magnet.v2_hash.map(|hash| hex(&hash)),
        "trackers": magnet.trackers,
        "web_seeds": magnet.web_seeds,
        "peers": peers(magnet),
        "selection": magnet.selection.as_ref().map(ToString::to_string),
    })
}

/// Seconds since 1970 as a date; what no calendar has is shown as a number (T24).
fn date(seconds: i64) -> String {
    /// The first second of the year 10000.
    const END: i64 = 253_402_300_800;
    if !(0..END).contains(&seconds) {
        return format!("{seconds} seconds from 1970, which is no likely date");
    }
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days since 0000-03-01, so that the leap day ends a year: eras of 400 years, years, months.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = year + era * 400 + carry;
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{:02} UTC", second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t24_dates_are_shown_and_absurd_ones_clamped() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_709_251_199, "2024-02-29 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
            (253_402_300_799, "9999-12-31 23:59:59 UTC"),
        ] {
            assert_eq!(date(seconds), text);
        }
        for seconds in [-1, 253_402_300_800, i64::MIN, i64::MAX] {
            assert!(date(seconds).starts_with(&seconds.to_string()));
        }
    }

    #[test]
    fn t12_foreign_text_stays_in_its_row() {
        let mut table = Table(String::new());
        table.rows("comment", ["a\nname b\u{1b}[2J".to_owned(), "c".to_owned()]);
        assert_eq!(table.0, "comment     a\\u{a}name b\\u{1b}[2J\n            c\n");
    }
}
