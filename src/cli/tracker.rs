//! `troc tracker`: a tracker for fleets that have none.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;

use serde::Serialize;

use crate::base::ids::InfoHash;
use crate::base::limits::{
    SERVED_ALLOW_BYTES_MAX, SERVED_INTERVAL, SERVED_INTERVAL_MAX, SERVED_INTERVAL_MIN,
};
use crate::base::network::{GroupPrefixes, Grouping};
use crate::base::time::Span;
use crate::daemon::tracker_server::{TrackerConfig, run as serve};
use crate::engine::tracker::{Figures, Rules};

use super::args::TrackerArgs;
use super::error::CliError;
use super::out;
use super::source::read_file;

/// Between two lines of `--json`.
const STATUS_INTERVAL: Span = Span::from_secs(1);

#[derive(Serialize)]
struct Line {
    listen: String,
    torrents: usize,
    peers: usize,
    announces: u64,
    scrapes: u64,
    refused: u64,
}

/// Serves until a signal comes.
pub fn run(args: &TrackerArgs) -> Result<(), CliError> {
    let rules = Rules {
        interval: interval(args.interval)?,
        allow: allowed(&args.allow)?,
        grouping: Grouping::new(args.friends.clone(), GroupPrefixes::default())
            .map_err(|error| CliError::Usage(format!("--friends: {error}")))?,
    };
    let config = TrackerConfig { listen: args.listen, rules, status_interval: STATUS_INTERVAL };
    let (json, mut told) = (args.json, false);
    let mut on_status = |listen, figures| {
        let first = !std::mem::replace(&mut told, true);
        let text =
            if json { line(listen, figures) } else { format!("http://{listen}/announce\nudp://{listen}") };
        if json || first {
            // Whoever read it has gone: the tracker stays.
            let _ = out::line(&text);
        }
    };
    serve(config, &mut on_status).map_err(|error| CliError::Failed(error.to_string()))
}

fn line(listen: SocketAddr, figures: Figures) -> String {
    let Figures { torrents, peers, announces, scrapes, refused } = figures;
    let line = Line { listen: listen.to_string(), torrents, peers, announces, scrapes, refused };
    // Numbers and a string: there is nothing in it that JSON could not say.
    serde_json::to_string(&line).unwrap_or_default()
}

fn interval(given: Option<Span>) -> Result<Span, CliError> {
    let interval = given.unwrap_or(SERVED_INTERVAL);
    if (SERVED_INTERVAL_MIN..=SERVED_INTERVAL_MAX).contains(&interval) {
        return Ok(interval);
    }
    Err(CliError::Usage("--interval is out of range: give one from 5s to 24h".to_owned()))
}

/// The torrents that `--allow` names; `None` if it was not given.
fn allowed(given: &[String]) -> Result<Option<HashSet<InfoHash>>, CliError> {
    let mut all = HashSet::new();
    for one in given {
        match InfoHash::from_hex(&one.to_ascii_lowercase()) {
            Some(hash) => _ = all.insert(hash),
            None if one.ends_with(".torrent") => all.extend(read_file(Path::new(one))?.names()),
            None => all.extend(read_list(one)?),
        }
    }
    Ok((!given.is_empty()).then_some(all))
}

/// One info hash a line; empty lines and what follows a `#` are comments.
fn read_list(path: &str) -> Result<Vec<InfoHash>, CliError> {
    let failed = |error: std::io::Error| {
        CliError::Failed(format!("cannot read list, {path}: {error}: give --allow a file or an info hash"))
    };
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    file.take(SERVED_ALLOW_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > SERVED_ALLOW_BYTES_MAX {
        return Err(CliError::Failed(format!("list too long, {path}: give --allow one of at most 16 MiB")));
    }
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()).enumerate();
    let hashes = lines.filter(|(_, line)| !line.is_empty()).map(|(at, line)| {
        InfoHash::from_hex(&line.to_ascii_lowercase()).ok_or_else(|| {
            CliError::Failed(format!(
                "bad info hash, {path} line {}: write 40 hexadecimal digits, one torrent a line",
                at + 1
            ))
        })
    });
    hashes.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_within_the_limits_and_no_others() {
        for (seconds, fits) in
            [(4, false), (5, true), (6, true), (86_399, true), (86_400, true), (86_401, false)]
        {
            assert_eq!(interval(Some(Span::from_secs(seconds))).is_ok(), fits, "{seconds}");
        }
        assert_eq!(interval(None).unwrap(), SERVED_INTERVAL);
    }

    #[test]
    fn a_list_has_a_torrent_a_line_and_says_which_line_is_bad() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list");
        let (a, b) = ("ab".repeat(20), "cd".repeat(20));
        std::fs::write(&path, format!("# ours\n{a}  # first\n\n{}\n", b.to_uppercase())).unwrap();
        let path = path.display().to_string();
        let hashes = |text: &str| InfoHash::from_hex(text).unwrap();
        assert_eq!(read_list(&path).unwrap(), [hashes(&a), hashes(&b)]);
        assert_eq!(allowed(&[a.clone(), path.clone()]).unwrap().unwrap().len(), 2);
        assert_eq!(allowed(&[]).unwrap(), None);
        std::fs::write(&path, format!("{a}\nxyz\n")).unwrap();
        let error = read_list(&path).unwrap_err().to_string();
        assert!(error.contains("line 2") && error.starts_with("bad info hash"), "{error}");
        assert!(allowed(&["nowhere".to_owned()]).unwrap_err().to_string().starts_with("cannot read list"));
    }

    #[test]
    fn n14_a_list_is_read_up_to_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list").display().to_string();
        for (bytes, fits) in [(-1, true), (0, true), (1, false)] {
            let length = (SERVED_ALLOW_BYTES_MAX as i64 + bytes) as usize;
            std::fs::write(&path, "#".repeat(length)).unwrap();
            assert_eq!(read_list(&path).is_ok(), fits, "{bytes}");
        }
    }
}
