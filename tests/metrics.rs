//! The metrics of real nodes: read over HTTP while bytes flow, compared with what the README lists and
//! with one another.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use troc::base::limits::METRICS_CONNECTIONS_MAX;

use support::node::{Node, get, relay};
use support::torrent::Torrent;
use support::{http, poll};

/// Bytes of the torrent: not a whole number of pieces or blocks.
const TOTAL_BYTES: u64 = (6 << 20) + 12_345;

/// A page of samples: name with labels, and value.
struct Page {
    samples: BTreeMap<String, f64>,
    /// Names of samples as the README writes them, by the type that the page states.
    names: BTreeSet<String>,
}

impl Page {
    fn read(address: SocketAddr) -> Self {
        let (head, body) = http(address, "GET /metrics");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
        assert!(body.ends_with("# EOF\n"), "{body}");
        let (mut samples, mut names) = (BTreeMap::new(), BTreeSet::new());
        for line in body.lines() {
            if let Some(declared) = line.strip_prefix("# TYPE ") {
                let (name, kind) = declared.split_once(' ').expect("a type");
                let suffix = match kind {
                    "counter" => "_total",
                    "info" => "_info",
                    _ => "",
                };
                assert!(names.insert(format!("{name}{suffix}")), "{name} stands there twice");
            } else if !line.starts_with('#') {
                let (name, value) = line.rsplit_once(' ').expect("a sample");
                let before = samples.insert(name.to_owned(), value.parse().expect("a number"));
                assert!(before.is_none(), "{name} stands there twice");
            }
        }
        Self { samples, names }
    }

    /// Sum of a name's samples over all labels.
    fn sum(&self, name: &str) -> u64 {
        let of_name = |sample: &str| {
            sample == name || sample.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'))
        };
        let values: Vec<f64> =
            self.samples.iter().filter(|(sample, _)| of_name(sample)).map(|(_, value)| *value).collect();
        assert!(!values.is_empty(), "no {name}");
        values.iter().sum::<f64>() as u64
    }
}

/// Names in the README's table of metrics.
fn documented() -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = std::fs::read_to_string(path).expect("README.md");
    let table =
        text.split("| metric |").nth(1).and_then(|rest| rest.split("\n\n").next()).expect("the table");
    let cells = table.lines().skip(2).map(|row| row.split('|').nth(1).expect("a cell").to_owned());
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()).collect()
}

fn spawn(name: &str, command: &mut Command, scratch: &Path) -> (Node, SocketAddr) {
    command.args(["--metrics", "127.0.0.1:0"]);
    let mut node = Node::spawn(name, command, scratch);
    let status = node.wait("where its metrics are", |status| status.0["metrics"].is_string());
    let address = status.0["metrics"].as_str().and_then(|address| address.parse().ok()).expect("an address");
    (node, address)
}

#[test]
fn figures_move_during_a_transfer_add_up_after_it_and_are_those_of_the_readme() {
    let scratch = tempfile::tempdir().expect("scratch");
    let scratch = scratch.path();
    let torrent = Torrent::single(&scratch.join("source"), "file.bin", TOTAL_BYTES, 256 << 10, 7);
    let file = torrent.write(&scratch.join("file.torrent"), None);
    let mut command = relay(&file, &torrent.source, scratch);
    let (mut seeder, seeder_metrics) = spawn("relay", command.args(["--cores", "2"]), scratch);
    let address = seeder.wait_seeding();
    let before = Page::read(seeder_metrics);
    assert_eq!(before.sum("troc_sent_bytes_total"), 0);
    assert_eq!(before.sum("troc_torrents"), 1);
    assert_eq!(before.names, documented(), "README.md and the program differ");

    // It goes on serving at the end, and a limit makes it likely that a page is read before.
    let mut command = get(&file, &scratch.join("copy"), scratch);
    command.args(["--seed", "--cores", "2", "--download-limit", "4MiB/s", "--peer", &address.to_string()]);
    let (mut getter, getter_metrics) = spawn("get", &mut command, scratch);
    getter.wait("a first block", |status| status.bytes("downloaded_bytes") > 0);
    let during = poll("a send has ended", || {
        let page = Page::read(seeder_metrics);
        (page.sum("troc_sent_bytes_total") > 0).then_some(page)
    });
    assert_eq!(during.sum("troc_peers"), 1);

    getter.wait("the end", |status| status.bytes("durable_bytes") == TOTAL_BYTES);
    let received = Page::read(getter_metrics);
    // The seeder hears of its last send in its next turn.
    let sent = poll("all sends have ended", || {
        let page = Page::read(seeder_metrics);
        (page.sum("troc_sent_bytes_total") >= TOTAL_BYTES).then_some(page)
    });
    let blocks = TOTAL_BYTES.div_ceil(16 << 10);
    assert_eq!(sent.sum("troc_sent_bytes_total"), received.sum("troc_received_bytes_total"));
    assert_eq!(sent.sum("troc_torrent_sent_bytes_total"), sent.sum("troc_sent_bytes_total"));
    assert_eq!(
        received.sum("troc_received_bytes_total") - received.sum("troc_wasted_bytes_total"),
        TOTAL_BYTES
    );
    assert_eq!(received.sum("troc_blocks_received_total"), blocks);
    assert_eq!((sent.sum("troc_identities_total"), received.sum("troc_identities_total")), (1, 1));
    assert!(sent.sum("troc_blocks_sent_total") >= blocks);
    assert_eq!(
        sent.sum("troc_cache_hits_total") + sent.sum("troc_cache_misses_total"),
        sent.sum("troc_blocks_sent_total")
    );
    assert!(sent.sum("troc_cache_misses_total") > 0, "the first blocks come from the disk");
    assert_eq!(sent.sum("troc_loaded_bytes_total"), TOTAL_BYTES, "every chunk is read once");
    assert_eq!(received.sum("troc_hashed_bytes_total"), TOTAL_BYTES);
    assert_eq!(received.sum("troc_written_bytes_total"), TOTAL_BYTES);
    assert_eq!((sent.sum("troc_handshakes_total"), received.sum("troc_handshakes_total")), (1, 1));
    assert_eq!((sent.sum("troc_bans_total"), received.sum("troc_hash_failures_total")), (0, 0));
    assert!(sent.sum("troc_request_seconds_count") > 0);
    for (before, after) in [(&before, &during), (&during, &sent)] {
        for name in ["troc_turns_total", "troc_ring_enters_total", "troc_ring_completions_total"] {
            assert!(before.sum(name) <= after.sum(name), "{name} went back");
        }
    }
    for page in [&sent, &received] {
        let whole =
            page.samples.iter().filter(|(name, _)| name.starts_with("troc_turn_seconds_bucket{le=\"+Inf\""));
        assert_eq!(whole.map(|(_, count)| *count as u64).sum::<u64>(), page.sum("troc_turn_seconds_count"));
        assert!(page.sum("troc_turns_total") > 0 && page.sum("troc_ring_enters_total") > 0);
        assert!(page.sum("troc_turn_seconds_count") > 0 && page.sum("troc_sends_total") > 0);
        assert_eq!(page.names, documented());
    }
}

#[test]
fn only_reading_one_page_is_possible() {
    let scratch = tempfile::tempdir().expect("scratch");
    let scratch = scratch.path();
    let torrent = Torrent::single(&scratch.join("source"), "file.bin", 100_000, 64 << 10, 8);
    let file = torrent.write(&scratch.join("file.torrent"), None);
    let (_node, address) = spawn("relay", &mut relay(&file, &torrent.source, scratch), scratch);
    for (request, want) in [
        ("GET /", "404"),
        ("GET /metrics/x", "404"),
        ("POST /metrics", "405"),
        ("HEAD /metrics", "200"),
        ("hello", "400"),
    ] {
        let (head, body) = http(address, request);
        assert!(head.starts_with(&format!("HTTP/1.1 {want} ")), "{request}: {head}");
        assert!(!body.contains("troc_"), "{request}: {body}");
    }
    // Readers who say nothing fill every place but one, and one who speaks is still heard; when they fill
    // all, it is heard as soon as one of them goes.
    let connect = |_| TcpStream::connect(address).expect("a connection");
    let mut idle: Vec<_> = (1..METRICS_CONNECTIONS_MAX).map(connect).collect();
    assert!(!Page::read(address).names.is_empty());
    idle.push(connect(0));
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| Page::read(address));
        idle.pop();
        assert!(!reader.join().expect("a page").names.is_empty());
    });
}

#[test]
fn a_taken_port_ends_the_start_with_one_line_and_an_open_address_is_warned_of() {
    let scratch = tempfile::tempdir().expect("scratch");
    let scratch = scratch.path();
    let torrent = Torrent::single(&scratch.join("source"), "file.bin", 100_000, 64 << 10, 9);
    let file = torrent.write(&scratch.join("file.torrent"), None);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = (taken.local_addr().expect("its address"), taken);
    let mut command = relay(&file, &torrent.source, scratch);
    let output = command.args(["--metrics", &taken.0.to_string()]).output().expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(errors.contains(&format!("troc: cannot serve metrics on {}: ", taken.0)), "{errors}");
    assert!(!errors.contains("no authentication"), "{errors}");

    let mut command = relay(&file, &torrent.source, scratch);
    let mut node = Node::spawn("open", command.args(["--metrics", "0.0.0.0:0"]), scratch);
    node.wait_seeding();
    assert_eq!(node.process.errors().matches("there is no authentication").count(), 1);
}
