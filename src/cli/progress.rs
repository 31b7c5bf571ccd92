//! A running node for people (a bar, or a line now and then) and for programs (`--json`).
//!
//! Time is what the node says of itself (`uptime_ns`), so that the same code runs in tests without a clock.

use std::io::{self, IsTerminal};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget};
use serde::Serialize;

use crate::base::human::{
    Escaped, format_duration, format_eta, format_percent, format_rate, format_ratio, format_size, format_took,
};
use crate::base::limits::FILES_TOLD_MAX;
use crate::base::time::Span;
use crate::daemon::seeding::{SeedEnd, SeedGoal, Seeding};
use crate::daemon::status::{CacheStatus, DhtStatus, NodeStatus, TorrentState, TorrentStatus};

use super::error::CliError;
use super::file_progress::{self, FilesLine};
use super::{bar, out};

const NS_PER_MS: u64 = 1_000_000;
const NS_PER_SEC: u64 = 1_000_000_000;
/// Between two plain lines.
const LINE_INTERVAL_NS: u64 = 5 * NS_PER_SEC;
/// More torrents than this share one bar.
const BARS_MAX: usize = 8;
/// Columns of a bar between its brackets.
const BAR_WIDTH: usize = 25;

/// Renders each status of a node as the command line asked.
pub struct NodeProgress {
    form: Form,
    interval_ns: u64,
    shown_ns: Option<u64>,
    listening: bool,
}

enum Form {
    /// JSON lines on standard output.
    Json,
    /// Text lines on standard error.
    Lines,
    /// One bar per torrent, or one for all.
    Bars { all: MultiProgress, bars: Vec<ProgressBar> },
}

impl NodeProgress {
    /// JSON if asked for, else a bar on a terminal, else lines.
    pub fn new(json: bool) -> Self {
        let (form, interval_ns) = match json {
            // The node itself tells its status as often as a line is wanted.
            true => (Form::Json, 0),
            false if io::stderr().is_terminal() => {
                let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(5));
                (Form::Bars { all, bars: Vec::new() }, 0)
            }
            false => (Form::Lines, LINE_INTERVAL_NS),
        };
        Self { form, interval_ns, shown_ns: None, listening: false }
    }

    /// Shows `status`, unless the last one was shown too short a time ago.
    pub fn update(&mut self, status: &NodeStatus) {
        let due = |shown| status.uptime_ns >= self.interval_ns.saturating_add(shown);
        if self.shown_ns.is_none_or(due) {
            self.show(status);
        }
    }

    /// Shows the last status of all, and for people a summary of each torrent.
    pub fn finish(mut self, status: &NodeStatus) -> Result<(), CliError> {
        match &self.form {
            Form::Json => {
                if self.shown_ns != Some(status.uptime_ns) {
                    self.show(status);
                }
                Ok(())
            }
            Form::Lines | Form::Bars { .. } => {
                if let Form::Bars { all, .. } = &self.form {
                    let _ = all.clear();
                }
                status.torrents.iter().try_for_each(|torrent| {
                    out::line(&summary(torrent, status.uptime_ns))?;
                    torrent.files.iter().flat_map(file_progress::table).try_for_each(|row| out::line(&row))
                })
            }
        }
    }

    fn show(&mut self, status: &NodeStatus) {
        self.shown_ns = Some(status.uptime_ns);
        self.announce_listen(status);
        match &mut self.form {
            // A reader that went away, or a full disk behind it, does not stop a node that serves others.
            Form::Json => drop(out::line(&json_line(status))),
            Form::Lines => {
                rows(status).iter().for_each(|row| out::complain(&row.line()));
                cache_line(status).iter().for_each(|line| out::complain(line));
            }
            Form::Bars { all, bars } => draw(all, bars, &rows(status)),
        }
    }

    /// Says once where peers can connect, the kernel's choice of port included.
    fn announce_listen(&mut self, status: &NodeStatus) {
        let Some(address) = status.listen.filter(|_| !self.listening) else { return };
        self.listening = true;
        let metrics = status.metrics.map(|address| format!("; metrics at http://{address}/metrics"));
        let tracker = status.tracker.map(|address| format!("; tracker at http://{address}/announce"));
        let parts = [metrics, tracker].map(Option::unwrap_or_default).concat();
        let text = format!("accepting peers at {address}{parts}");
        match &self.form {
            Form::Json => {}
            Form::Lines => out::complain(&text),
            Form::Bars { all, .. } => drop(all.println(text)),
        }
    }
}

/// What people should know of the cache: nothing while it has what it may have.
fn cache_line(status: &NodeStatus) -> Option<String> {
    let CacheStatus { bytes, full_bytes } = status.cache;
    let [now, full] = [bytes, full_bytes].map(format_size);
    (bytes < full_bytes).then(|| format!("cache: {now} of {full} while memory is short"))
}

/// What one bar or line shows.
struct Row {
    name: String,
    done: u64,
    total: u64,
    text: String,
}

impl Row {
    fn line(&self) -> String {
        format!("{}: {}% {}", self.name, format_percent(self.done, self.total), self.text)
    }
}

/// One row per torrent, or one for all if they are many.
fn rows(status: &NodeStatus) -> Vec<Row> {
    if status.torrents.len() <= BARS_MAX {
        return status.torrents.iter().map(|torrent| row(torrent, &status.dht)).collect();
    }
    let sum =
        |field: fn(&TorrentStatus) -> u64| status.torrents.iter().map(field).fold(0, u64::saturating_add);
    let (done, total) = (sum(|t| t.verified_bytes), sum(|t| t.total_bytes));
    let (down, up) = (sum(|t| t.download_rate), sum(|t| t.upload_rate));
    let text = rates_text(done, total, down, up, sum(|t| u64::from(t.peers)));
    vec![Row { name: format!("{} torrents", status.torrents.len()), done, total, text }]
}

/// `dht`: the hash table in which its peers may be found, if it is used.
fn row(torrent: &TorrentStatus, dht: &[DhtStatus]) -> Row {
    let (done, total) = (torrent.verified_bytes, torrent.total_bytes);
    let rates = rates_text(done, total, torrent.download_rate, torrent.upload_rate, u64::from(torrent.peers));
    let mut text = match torrent.state {
        TorrentState::Metadata => {
            let peers = peers_text(torrent.peers.into());
            format!("looking for metadata, {peers}{}", lonely_text(torrent, dht))
        }
        _ => format!("{}  {rates}", state_name(&torrent.state)),
    };
    if let Some(files) = &torrent.files {
        text = format!("{text}  {}", file_progress::count_text(files));
    }
    let problem = match &torrent.state {
        TorrentState::Stopped(why) => Some(why),
        _ => torrent.tracker_error.as_ref().or(torrent.web_seed_error.as_ref()),
    };
    if let Some(goal) = torrent.seeding.as_ref().and_then(|seeding| goal_text(seeding, torrent)) {
        text = format!("{text}  {goal}");
    }
    if let Some(problem) = problem {
        text = format!("{text}  ({})", Escaped(problem));
    }
    // Nobody knows its size yet: that is no reason to show it as done.
    let total = if torrent.state == TorrentState::Metadata { 1 } else { total };
    Row { name: Escaped(&torrent.name).to_string(), done, total, text }
}

fn rates_text(done: u64, total: u64, down: u64, up: u64, peers: u64) -> String {
    let mut text = format!("{} of {}", format_size(done), format_size(total));
    if done < total {
        text = format!("{text}  down {}  ETA {}", format_rate(down), format_eta(total - done, down));
    }
    format!("{text}  up {}  {}", format_rate(up), peers_text(peers))
}

/// Why there may be no peers of a link: long before that is an error.
fn lonely_text(torrent: &TorrentStatus, dht: &[DhtStatus]) -> &'static str {
    let knows_nobody = !dht.is_empty() && dht.iter().all(|table| table.nodes == 0);
    if torrent.peers == 0 && knows_nobody { "; no node of the hash table answers yet" } else { "" }
}

fn peers_text(peers: u64) -> String {
    let noun = if peers == 1 { "peer" } else { "peers" };
    format!("{peers} {noun}")
}

/// How far a torrent is with what it is served for: `ratio 0.25 of 1.50, 12m 00s of 1h 00m`.
fn goal_text(seeding: &Seeding, torrent: &TorrentStatus) -> Option<String> {
    let SeedGoal { ratio_thousandths, time } = seeding.goal;
    let ratio = ratio_thousandths
        .map(|goal| format!("ratio {} of {}", format_ratio(ratio(torrent)), format_ratio(goal.into())));
    let seconds = |span: Span| format_duration(span.0 / NS_PER_SEC);
    let time = time.map(|goal| format!("{} of {}", seconds(seeding.span), seconds(goal)));
    let parts: Vec<String> = ratio.into_iter().chain(time).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// What was sent over the torrent's size, in thousandths.
fn ratio(torrent: &TorrentStatus) -> u128 {
    u128::from(torrent.uploaded_bytes) * 1000 / u128::from(torrent.total_bytes.max(1))
}

/// Why a torrent is not served on.
fn end_text(seeding: &Seeding) -> Option<String> {
    let SeedGoal { ratio_thousandths, time } = seeding.goal;
    match seeding.end? {
        SeedEnd::Ratio => {
            Some(format!("ended at a ratio of {}", format_ratio(ratio_thousandths.unwrap_or(0).into())))
        }
        SeedEnd::Time => {
            Some(format!("ended after {} as a seed", format_took(time.map_or(0, |time| time.0))))
        }
    }
}

const fn state_name(state: &TorrentState) -> &'static str {
    match state {
        TorrentState::Metadata => "metadata",
        TorrentState::Checking => "checking",
        TorrentState::Fetching => "fetching",
        TorrentState::Seeding => "seeding",
        TorrentState::Stopped(_) => "stopped",
    }
}

fn draw(all: &MultiProgress, bars: &mut Vec<ProgressBar>, rows: &[Row]) {
    while bars.len() < rows.len() {
        bars.push(all.add(bar::plain(ProgressBar::new(1))));
    }
    for (shown, row) in bars.iter().zip(rows) {
        shown.set_message(bar::text(&row.name, row.done, row.total, BAR_WIDTH, &row.text));
    }
}

/// What became of one torrent: `name: 2.00 GiB complete in 3s, fetched 2.00 GiB at 640 MiB/s, ...`.
fn summary(torrent: &TorrentStatus, uptime_ns: u64) -> String {
    let (down, up) = (torrent.downloaded_bytes, torrent.uploaded_bytes);
    let mean = |bytes: u64| {
        let rate = u128::from(bytes) * u128::from(NS_PER_SEC) / u128::from(uptime_ns.max(1));
        format_rate(u64::try_from(rate).unwrap_or(u64::MAX))
    };
    let have = if torrent.state == TorrentState::Metadata {
        "no metadata".to_owned()
    } else if torrent.verified_bytes >= torrent.total_bytes {
        format!("{} complete", format_size(torrent.total_bytes))
    } else {
        let percent = format_percent(torrent.verified_bytes, torrent.total_bytes);
        format!("{percent}% of {}", format_size(torrent.total_bytes))
    };
    let end = torrent.seeding.as_ref().and_then(end_text).map(|end| format!("; {end}")).unwrap_or_default();
    format!(
        "{}: {have}, {}; fetched {} at {}, sent {} at {}, ratio {}{end}",
        Escaped(&torrent.name),
        format_took(uptime_ns),
        format_size(down),
        mean(down),
        format_size(up),
        mean(up),
        format_ratio(ratio(torrent)),
    )
}

#[derive(Serialize)]
struct NodeLine<'a> {
    uptime_ms: u64,
    listen: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metrics: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tracker: Option<String>,
    cache_bytes: u64,
    cache_full_bytes: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    dht: Vec<DhtLine>,
    torrents: Vec<TorrentLine<'a>>,
    per_core: Vec<CoreLine>,
}

#[derive(Serialize)]
struct DhtLine {
    listen: Option<String>,
    nodes: usize,
    stored_peers: usize,
}

#[derive(Serialize)]
struct TorrentLine<'a> {
    info_hash: String,
    name: &'a str,
    state: &'static str,
    error: Option<&'a str>,
    total_bytes: u64,
    verified_bytes: u64,
    durable_bytes: u64,
    downloaded_bytes: u64,
    uploaded_bytes: u64,
    wasted_bytes: u64,
    download_rate: u64,
    upload_rate: u64,
    peers: u32,
    seeds: u32,
    web_seeds: u32,
    web_seed_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    web_seed_error: Option<&'a str>,
    /// What ended it, of what was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    seed_end: Option<&'static str>,
    /// Where progress is told file by file.
    #[serde(flatten)]
    files: Option<FilesLine<'a>>,
}

#[derive(Serialize)]
struct CoreLine {
    sent_bytes: u64,
    received_bytes: u64,
}

fn dht_line(dht: &DhtStatus) -> DhtLine {
    let listen = dht.listen.map(|address| address.to_string());
    DhtLine { listen, nodes: dht.nodes, stored_peers: dht.stored_peers }
}

fn json_line(status: &NodeStatus) -> String {
    let mut files_left = FILES_TOLD_MAX;
    let torrents = status.torrents.iter().map(|torrent| TorrentLine {
        info_hash: torrent.info_hash.to_hex(),
        name: &torrent.name,
        state: state_name(&torrent.state),
        error: match &torrent.state {
            TorrentState::Stopped(why) => Some(why),
            _ => None,
        },
        total_bytes: torrent.total_bytes,
        verified_bytes: torrent.verified_bytes,
        durable_bytes: torrent.durable_bytes,
        downloaded_bytes: torrent.downloaded_bytes,
        uploaded_bytes: torrent.uploaded_bytes,
        wasted_bytes: torrent.wasted_bytes,
        download_rate: torrent.download_rate,
        upload_rate: torrent.upload_rate,
        peers: torrent.peers,
        seeds: torrent.seeds,
        web_seeds: torrent.web_seeds,
        web_seed_bytes: torrent.web_seed_bytes,
        web_seed_error: torrent.web_seed_error.as_deref(),
        seed_end: torrent.seeding.and_then(|seeding| seeding.end).map(|end| match end {
            SeedEnd::Ratio => "ratio",
            SeedEnd::Time => "time",
        }),
        files: torrent.files.as_ref().map(|files| FilesLine::of(files, &mut files_left)),
    });
    let cores = status
        .per_core_bytes
        .iter()
        .map(|&(sent_bytes, received_bytes)| CoreLine { sent_bytes, received_bytes });
    let line = NodeLine {
        uptime_ms: status.uptime_ns / NS_PER_MS,
        listen: status.listen.map(|address| address.to_string()),
        metrics: status.metrics.map(|address| address.to_string()),
        tracker: status.tracker.map(|address| address.to_string()),
        cache_bytes: status.cache.bytes,
        cache_full_bytes: status.cache.full_bytes,
        dht: status.dht.iter().map(dht_line).collect(),
        torrents: torrents.collect(),
        per_core: cores.collect(),
    };
    // Numbers and strings only: there is nothing in it that JSON could not say.
    serde_json::to_string(&line).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::InfoHash;
    use crate::base::time::Instant;

    fn status(torrents: usize) -> NodeStatus {
        let torrent = TorrentStatus {
            info_hash: InfoHash([0xab; 20]),
            name: "data\u{1b}[31m".to_owned(),
            state: TorrentState::Fetching,
            total_bytes: 4 << 20,
            verified_bytes: 1 << 20,
            durable_bytes: 1 << 19,
            downloaded_bytes: 2 << 20,
            uploaded_bytes: 1 << 20,
            wasted_bytes: 7,
            download_rate: 1 << 20,
            upload_rate: 512,
            peers: 3,
            seeds: 1,
            web_seeds: 0,
            web_seed_bytes: 0,
            tracker_error: None,
            web_seed_error: None,
            seeding: None,
            files: None,
        };
        NodeStatus {
            dht: Vec::new(),
            uptime_ns: 2 * NS_PER_SEC,
            listen: "127.0.0.1:12345".parse().ok(),
            metrics: None,
            tracker: None,
            cache: CacheStatus { bytes: 64 << 20, full_bytes: 64 << 20 },
            torrents: vec![torrent; torrents],
            per_core_bytes: vec![(1, 2), (3, 4)],
        }
    }

    #[test]
    fn a_json_line_has_the_shape_that_programs_rely_on() {
        let want = concat!(
            r#"{"uptime_ms":2000,"listen":"127.0.0.1:12345","cache_bytes":67108864,"#,
            r#""cache_full_bytes":67108864,"torrents":[{"info_hash":""#,
            "abababababababababababababababababababab",
            r#"","name":"data\u001b[31m","state":"fetching","error":null,"total_bytes":4194304,"#,
            r#""verified_bytes":1048576,"durable_bytes":524288,"downloaded_bytes":2097152,"#,
            r#""uploaded_bytes":1048576,"wasted_bytes":7,"download_rate":1048576,"upload_rate":512,"#,
            r#""peers":3,"seeds":1,"web_seeds":0,"web_seed_bytes":0}],"#,
            r#""per_core":[{"sent_bytes":1,"received_bytes":2},{"sent_bytes":3,"received_bytes":4}]}"#,
        );
        assert_eq!(json_line(&status(1)), want);
        let mut stopped = status(1);
        stopped.listen = None;
        stopped.torrents[0].state = TorrentState::Stopped("disk full".to_owned());
        let line = json_line(&stopped);
        assert!(
            line.contains(r#""listen":null"#) && line.contains(r#""state":"stopped","error":"disk full""#)
        );
    }

    #[test]
    fn a_line_for_people_tells_rates_peers_and_eta() {
        assert_eq!(
            rows(&status(1))[0].line(),
            "data\\u{1b}[31m: 25.0% fetching  1.00 MiB of 4.00 MiB  down 1.00 MiB/s  ETA 3s  \
             up 512 B/s  3 peers"
        );
        let many = rows(&status(BARS_MAX + 1));
        assert_eq!((many.len(), many[0].name.as_str()), (1, "9 torrents"));
        let mut link = status(1);
        (link.torrents[0].state, link.torrents[0].total_bytes) = (TorrentState::Metadata, 0);
        (link.torrents[0].verified_bytes, link.torrents[0].tracker_error) = (0, None);
        let row = rows(&link)[0].line();
        assert!(row.contains(": 0.0% looking for metadata, 3 peers"), "{row}");
        assert!(json_line(&link).contains(r#""state":"metadata","error":null"#));
        assert!(summary(&link.torrents[0], NS_PER_SEC).contains(": no metadata, 1.0s"));
        for (nodes, peers, lonely) in [(0, 0, true), (0, 1, false), (1, 0, false)] {
            link.dht = vec![DhtStatus { nodes, ..DhtStatus::default() }];
            link.torrents[0].peers = peers;
            let row = rows(&link)[0].line();
            assert_eq!(row.contains("no node of the hash table answers yet"), lonely, "{row}");
        }
        let mut trouble = status(1);
        trouble.torrents[0].tracker_error = Some("go\naway".to_owned());
        assert!(rows(&trouble)[0].line().ends_with("(go\\u{a}away)"));
    }

    #[test]
    fn a_cache_that_has_shrunk_is_spoken_of_until_it_is_whole() {
        let mut status = status(1);
        assert_eq!(cache_line(&status), None);
        status.cache.full_bytes = 1 << 30;
        assert_eq!(cache_line(&status).unwrap(), "cache: 64.0 MiB of 1.00 GiB while memory is short");
    }

    #[test]
    fn the_summary_survives_zero_and_huge_numbers() {
        let mut status = status(1);
        let torrent = &mut status.torrents[0];
        assert_eq!(
            summary(torrent, 2 * NS_PER_SEC),
            "data\\u{1b}[31m: 25.0% of 4.00 MiB, 2.0s; fetched 2.00 MiB at 1.00 MiB/s, \
             sent 1.00 MiB at 512 KiB/s, ratio 0.25"
        );
        (torrent.total_bytes, torrent.downloaded_bytes, torrent.uploaded_bytes) = (0, 0, u64::MAX);
        assert!(summary(torrent, 0).contains("0 B complete"));
    }

    #[test]
    fn how_far_a_seed_is_and_why_it_ended_is_told() {
        let goal = SeedGoal { ratio_thousandths: Some(1_500), time: Some(Span::from_secs(3600)) };
        let mut seeding = Seeding::new(goal, Instant(0));
        assert!(!seeding.note(1 << 20, 4 << 20, Instant(725 * NS_PER_SEC)));
        let mut status = status(1);
        status.torrents[0].seeding = Some(seeding);
        let line = rows(&status)[0].line();
        assert!(line.ends_with("3 peers  ratio 0.25 of 1.50, 12m 05s of 1h 00m"), "{line}");
        assert!(!json_line(&status).contains("seed_end"));
        for (sent, at, text, json) in [
            (6 << 20, 1, "; ended at a ratio of 1.50", r#""seed_end":"ratio""#),
            (0, 3600, "; ended after 1h 00m as a seed", r#""seed_end":"time""#),
        ] {
            let mut seeding = seeding;
            assert!(seeding.note(sent, 4 << 20, Instant(at * NS_PER_SEC)));
            status.torrents[0].seeding = Some(seeding);
            assert!(summary(&status.torrents[0], 1).ends_with(text));
            assert!(json_line(&status).contains(json));
        }
        status.torrents[0].seeding = Some(Seeding::new(SeedGoal::default(), Instant(0)));
        assert!(rows(&status)[0].line().ends_with("3 peers"), "without a goal there is nothing to tell");
    }

    #[test]
    fn what_was_shown_lately_is_not_shown_again() {
        let mut progress =
            NodeProgress { form: Form::Lines, interval_ns: 1000, shown_ns: None, listening: true };
        let mut now = NodeStatus { torrents: Vec::new(), ..status(0) };
        for (uptime_ns, shown_ns) in [(5, 5), (1004, 5), (1005, 1005), (u64::MAX, u64::MAX)] {
            now.uptime_ns = uptime_ns;
            progress.update(&now);
            assert_eq!(progress.shown_ns, Some(shown_ns));
        }
    }
}
