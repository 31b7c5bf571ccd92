//! The load scripts run: each once, very small, with the binary under test. What they measure here means
//! nothing; that they measure, write their tables and refuse strangers does.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use support::process::Process;
use support::{poll, skip};

/// Whether Python and `taskset` are there, which all scripts need.
fn can_run(script: &str) -> bool {
    let found = ["python3", "taskset"].iter().all(|program| has(program));
    if !found {
        skip(script, "python3 or taskset is not installed");
    }
    found
}

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

fn run(script: &str, words: &[&str]) -> Output {
    command(script, words).output().expect("the script starts")
}

fn command(script: &str, words: &[&str]) -> Command {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(script);
    let mut command = Command::new(path);
    command.args(words).args(["--troc", env!("CARGO_BIN_EXE_troc")]);
    // No bytecode beside the sources.
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// Runs a script for seconds on 16 MiB; its table and the one file of text that it wrote.
fn small(script: &str, words: &[&str]) -> (String, String) {
    let temp = tempfile::tempdir().expect("temporary directory");
    let [scratch, results] =
        ["scratch", "results"].map(|name| temp.path().join(name).to_str().expect("UTF-8").to_owned());
    let common = ["--size", "16MiB", "--pairs", "1", "--scratch", &scratch];
    // The others take as long as what they fetch.
    let seconds: &[&str] =
        if ["load-fetch", "load-magnet", "load-web"].contains(&script) { &[] } else { &["--seconds", "1"] };
    let output = run(script, &[&common[..], seconds, &["--results", &results], words].concat());
    let table = String::from_utf8(output.stdout).expect("UTF-8");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {}\n{table}\n{errors}", output.status);
    let written: Vec<PathBuf> =
        std::fs::read_dir(&results).expect("results").map(|entry| entry.expect("entry").path()).collect();
    let text: Vec<&PathBuf> =
        written.iter().filter(|path| path.extension().is_some_and(|end| end == "md")).collect();
    let [text] = text[..] else { panic!("{script} wrote {written:?}") };
    let text = std::fs::read_to_string(text).expect("what was written");
    assert!(text.contains(&table), "the file lacks the table");
    for fact in ["- machine: ", "- kernel: ", "- commit: ", &format!("- command: scripts/{script} ")] {
        assert!(text.contains(fact), "no {fact:?} in {text}");
    }
    for line in text.lines().filter(|line| line.starts_with("![")) {
        let name = line.rsplit('(').next().and_then(|rest| rest.strip_suffix(')')).expect("a link");
        let plot = std::fs::read_to_string(Path::new(&results).join(name)).expect("the plot");
        assert!(plot.starts_with("<svg") && plot.contains("<rect"), "{plot}");
    }
    (table, text)
}

/// The cells of the row for a measurement and a client, by the names of the columns.
fn cell(table: &str, what: &str, client: &str, column: &str) -> f64 {
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let (mut names, mut above) = (Vec::new(), Vec::new());
    for line in table.lines() {
        let row = cells(line);
        if row[0].starts_with("--") {
            names = above;
        } else if row[0] == what && row.get(1).is_some_and(|name| name == client) {
            let place = names.iter().position(|name| name == column).expect("the column");
            return row[place].parse().unwrap_or_else(|_| panic!("{what}, {client}, {column}: {line}"));
        }
        above = row;
    }
    panic!("no row for {what}, {client} in\n{table}");
}

#[test]
fn load_serve_puts_the_node_beside_the_bare_loop() {
    if !can_run("load-serve") {
        return;
    }
    let (table, text) = small("load-serve", &["--connections", "20"]);
    for client in ["troc --cores 1", "bare loop"] {
        assert!(cell(&table, "serve 20", client, "gb_per_s") > 0.0, "{table}");
        assert!((cell(&table, "serve 20", client, "connections_served") - 20.0).abs() < 0.5, "{table}");
    }
    assert!(text.contains("-gb_per_cpu_s.svg)"), "{text}");
}

#[test]
fn load_fetch_ends_although_sources_stall() {
    if !can_run("load-fetch") {
        return;
    }
    let words = ["--sources", "8", "--stalled", "2", "--rate", "5000000"];
    let (table, _) = small("load-fetch", &words);
    assert!(cell(&table, "two", "troc", "wall_s") > 0.0, "{table}");
    for what in ["many 8, 0 stall", "many 8, 2 stall"] {
        // The kernel keeps each source to its rate: more than the sum cannot come.
        let share = cell(&table, what, "troc", "of_sum_of_rates");
        assert!(share > 0.0 && share < 1.1, "{table}");
    }
}

#[test]
fn load_connections_opens_holds_and_serves() {
    if !can_run("load-connections") {
        return;
    }
    let (table, _) = small("load-connections", &["--connections", "20"]);
    assert!((cell(&table, "idle", "troc --cores 1", "held") - 20.0).abs() < 0.5, "{table}");
    assert!(cell(&table, "storm", "troc --cores 1", "handshakes") > 0.0, "{table}");
    assert!(cell(&table, "active", "troc --cores 1", "worst_of_mean") > 0.0, "{table}");
}

#[test]
fn load_magnet_finds_payload_by_a_table_of_real_nodes() {
    if !can_run("load-magnet") {
        return;
    }
    let (table, text) = small("load-magnet", &["--nodes", "4", "--size", "1MiB"]);
    assert!(cell(&table, "magnet", "troc", "first_payload_s") > 0.0, "{table}");
    assert!(table.contains("- troc: median from start to first payload, in seconds: "), "{table}");
    assert!(text.contains("- table: "), "{text}");
    if !text.contains(", 2 of libtorrent") {
        return skip("load-magnet", "libtorrent is not installed");
    }
    assert!(cell(&table, "magnet", "libtorrent", "first_payload_s") > 0.0, "{table}");
}

#[test]
fn load_cold_reads_beside_fio() {
    if !can_run("load-cold") {
        return;
    }
    if !has("fio") {
        return skip("load-cold", "fio is not installed");
    }
    let (table, _) = small("load-cold", &["--connections", "4"]);
    for client in ["troc --cores 1", "fio"] {
        assert!(cell(&table, "cold", client, "gb_per_s") > 0.0, "{table}");
    }
    if !table.contains("| libtorrent") {
        return skip("load-cold", "libtorrent is not installed");
    }
    assert!(cell(&table, "cold", "libtorrent", "gb_per_cpu_s") > 0.0, "{table}");
}

#[test]
fn load_hostile_puts_the_honest_beside_each_kind() {
    if !can_run("load-hostile") {
        return;
    }
    let words = ["--connections", "2", "--hostile", "4", "--kinds", "one-byte", "request-and-leave"];
    let (table, _) = small("load-hostile", &words);
    for what in ["hostile one-byte", "hostile request-and-leave"] {
        assert!(cell(&table, what, "troc, alone", "gb_per_s") > 0.0, "{table}");
        assert!(cell(&table, what, "troc, beside them", "of_clean gb_per_s") > 0.0, "{table}");
    }
}

#[test]
fn hostile_connections_are_for_this_machine_only() {
    if !can_run("load-hostile") {
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/lib/hostile.py");
    for addr in ["192.0.2.1:6881", "[2001:db8::1]:6881"] {
        let mut command = Command::new("python3");
        command.arg(&script).args([addr, "--kind", "one-byte", "--info-hash", &"00".repeat(20)]);
        command.args(["--piece-bytes", "65536", "--total-bytes", "65536"]);
        let output = command.env("PYTHONDONTWRITEBYTECODE", "1").output().expect("Python starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{addr}: {errors}");
        assert!(errors.contains("is not a loopback address"), "{addr}: {errors}");
    }
}

#[test]
fn load_hash_reads_beside_fio_and_compares_what_it_hashed() {
    if !can_run("load-hash") {
        return;
    }
    if !has("fio") {
        return skip("load-hash", "fio is not installed");
    }
    let (table, _) = small("load-hash", &[]);
    for client in ["fio", "SHA-1 in memory", "troc create", "troc verify", "troc verify --fast"] {
        assert!(cell(&table, "hash", client, "gb_per_s") > 0.0, "{table}");
    }
}

#[test]
fn load_torrents_has_all_seeding_again_and_serves_some() {
    if !can_run("load-torrents") {
        return;
    }
    // More than a relay keeps open.
    let words = ["--torrents", "70", "--kib", "32", "--seconds", "1", "--fetch", "2", "--json"];
    let output = run("load-torrents", &words);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{errors}", output.status);
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one object");
    assert_eq!(result["torrents"], 70, "{result}");
    assert_eq!(result["fetched"], 2, "{result}");
    assert!(result["descriptors_each"].as_f64().is_some_and(|each| each < 1.0), "all are closed: {result}");
}

#[test]
fn compare_takes_turns_with_whoever_is_installed() {
    if !can_run("compare") {
        return;
    }
    let serve = ["--only", "serve", "--connections", "4", "--clients", "aria2", "nginx sendfile"];
    let (table, text) = small("compare", &serve);
    assert!(cell(&table, "serve 4", "bare loop", "gb_per_s") > 0.0, "{table}");
    assert!(text.contains("- others: "), "{text}");
    for client in
        ["aria2", "nginx sendfile"].into_iter().filter(|client| text.contains(&format!("{client}: ")))
    {
        assert!(cell(&table, "serve 4", client, "gb_per_s") > 0.0, "{table}");
    }
    let (table, _) = small("compare", &["--only", "fetch", "--clients", "nobody"]);
    assert!(cell(&table, "fetch", "troc", "cpu_s") > 0.0, "{table}");
}

#[test]
fn compare_has_versions_and_streams_beside_one_another() {
    if !can_run("compare") {
        return;
    }
    let (table, _) = small("compare", &["--only", "versions", "--clients", "nobody"]);
    for version in ["v2", "v1"] {
        let (served, fetched) = (format!("troc --cores 1, {version}"), format!("troc, {version}"));
        assert!(cell(&table, "versions serve", &served, "gb_per_s") > 0.0, "{table}");
        assert!(cell(&table, "versions fetch", &fetched, "cpu_s") > 0.0, "{table}");
    }
    let (table, _) = small("compare", &["--only", "encryption", "--clients", "nobody"]);
    for stream in ["plain", "plain after the handshake", "RC4"] {
        assert!(cell(&table, "encryption", stream, "seeder_cpu_s") > 0.0, "{table}");
    }
}

/// Whether network namespaces can be made: that needs root with its rights, and iproute2.
fn can_swarm() -> bool {
    if !can_run("swarm") {
        return false;
    }
    let output = run("swarm", &["--check"]);
    if !output.status.success() {
        skip("swarm", String::from_utf8_lossy(&output.stderr).trim());
    }
    output.status.success()
}

#[test]
fn a_swarm_ends_with_what_was_sent_and_is_not_faster_than_its_links() {
    if !can_swarm() {
        return;
    }
    // Later words win.
    let links = ["--size", "4MiB", "--rates", "40Mbit:3", "--rate", "40Mbit"];
    // What a namespace may have by default is for the machine to say; this one it always may.
    let (table, text) = small("swarm", &[&["--mix", "troc:3", "--congestion", "reno"][..], &links].concat());
    let figure = |column| cell(&table, "own, troc:3", "1", column);
    assert!(figure("unfinished") < 0.5, "{table}");
    // The clock starts at the seed's first 64 KiB, and the buckets are full then.
    assert!(figure("of_bound") > 0.8, "{table}");
    for node in ["troc-1", "troc-2", "troc-3"] {
        assert!(cell(&table, node, "troc", "received_mib") > 3.9, "{table}");
    }
    assert!(text.contains("- hosts: TCP reno"), "{text}");
}

#[test]
fn a_swarm_joins_by_a_magnet_link_and_one_means_alone() {
    if !can_swarm() {
        return;
    }
    for means in ["dht", "tracker", "pex", "lsd", "peers"] {
        let join =
            ["--mix", "troc:2", "--join", "magnet", "--by", means, "--size", "4MiB", "--rate", "40Mbit"];
        let (table, _) = small("swarm", &join);
        assert!(cell(&table, "own, troc:2", "1", "unfinished") < 0.5, "{means}: {table}");
        assert!(cell(&table, "own, troc:2", "1", "last_first_payload_s") > 0.0, "{means}: {table}");
        for node in ["troc-1", "troc-2"] {
            assert!(cell(&table, node, "troc", "received_mib") > 3.9, "{means}: {table}");
        }
    }
}

/// The namespaces that a run of the script has.
fn namespaces(pid: u32) -> Vec<String> {
    let entries = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(&format!("troc-swarm-{pid}-"))).collect()
}

#[test]
fn a_swarm_that_is_ended_leaves_nothing_behind() {
    if !can_swarm() {
        return;
    }
    let temp = tempfile::tempdir().expect("temporary directory");
    let scratch = temp.path().to_str().expect("UTF-8");
    // Would take for minutes.
    let words =
        ["--mix", "troc:2", "--size", "16MiB", "--rate", "1Mbit", "--stay-quiet", "--scratch", scratch];
    let mut process = Process::spawn("swarm", &mut command("swarm", &words), temp.path());
    let pid = process.id();
    // The switch, two fetchers and the seed.
    poll("its namespaces", || (namespaces(pid).len() == 4).then_some(()));
    let seated = || std::fs::read_dir(temp.path()).expect("scratch").flatten();
    let runs = || seated().filter(|entry| entry.file_name().to_string_lossy().starts_with("troc-swarm-"));
    assert_eq!(runs().count(), 1);
    process.terminate();
    assert_eq!(process.wait().code(), Some(143));
    assert_eq!(namespaces(pid), [""; 0]);
    assert_eq!(runs().count(), 0);
}

#[test]
fn strangers_are_not_loaded() {
    if !can_run("load-serve") {
        return;
    }
    for script in ["load-serve", "load-connections"] {
        // TEST-NET-1 (RFC 5737), and names, which may mean anybody.
        for seeder in ["192.0.2.1:6881", "[2001:db8::1]:6881", "example.org:6881"] {
            let output = run(script, &["--seeder", seeder, "--torrent", "any.torrent"]);
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && errors.contains(seeder), "{script} {seeder}: {errors}");
            assert_eq!(errors.lines().count(), 1, "{errors}");
        }
    }
}

#[test]
fn runs_are_bounded() {
    if !can_run("load-serve") {
        return;
    }
    for script in [
        "load-serve",
        "load-fetch",
        "load-connections",
        "load-cold",
        "load-hash",
        "load-hostile",
        "load-magnet",
        "compare",
        "swarm",
    ] {
        for words in [["--seconds", "601"], ["--seconds", "0"], ["--pairs", "101"], ["--pairs", "0"]] {
            let output = run(script, &words);
            assert_eq!(output.status.code(), Some(2), "{script} {words:?}");
        }
    }
}
