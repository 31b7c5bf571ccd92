//! The control socket of real nodes: what `troc peers` and `troc ledger` say while bytes flow, and what
//! hostile or clumsy askers get.

mod support;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;

use troc::base::limits::{CONTROL_CONNECTIONS_MAX, CONTROL_QUESTION_BYTES_MAX};

use support::node::{Node, get, relay, troc};
use support::torrent::Torrent;
use support::{PATIENCE, http, poll};

/// Bytes of the torrent: not a whole number of pieces or blocks.
const TOTAL_BYTES: u64 = (6 << 20) + 12_345;

const PEERS: &[u8] = b"{\"version\":1,\"ask\":\"peers\"}\n";

/// Runs `troc VERB --state STATE` and more words.
fn ask(verb: &str, state: &Path, words: &[&str]) -> Output {
    let mut command = troc(verb, state);
    command.arg("--state").arg(state).args(words).output().expect("it starts")
}

/// The answers of all nodes that run with `state`.
fn nodes(verb: &str, state: &Path) -> Vec<Value> {
    let output = ask(verb, state, &["--json"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{verb}: {errors}");
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    answer["nodes"].as_array().expect("nodes").clone()
}

/// The control sockets in a state directory.
fn sockets(state: &Path) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(state).expect("the state directory").map(|entry| entry.expect("an entry").path());
    let mut found: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "sock")).collect();
    found.sort_unstable();
    found
}

/// What a socket says to `question`; the asking side is done then unless `stays`.
fn raw(path: &Path, question: &[u8]) -> String {
    let mut stream = connect(path);
    // It may be answered, and the connection ended, before all of it is written.
    let _ = stream.write_all(question);
    let _ = stream.shutdown(Shutdown::Write);
    read(stream)
}

fn connect(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).expect("somebody listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

fn read(mut stream: UnixStream) -> String {
    let mut answer = Vec::new();
    // Whoever said more than was read is told so by a reset, behind the answer.
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert!(error.kind() == ErrorKind::ConnectionReset && !answer.is_empty(), "{error}");
    }
    String::from_utf8(answer).expect("an answer in UTF-8")
}

/// Sum of a metric's samples over all labels.
fn metric(address: SocketAddr, name: &str) -> f64 {
    let (_, page) = http(address, "GET /metrics");
    let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let values: Vec<f64> = page
        .lines()
        .filter(of_name)
        .map(|line| line.rsplit_once(' ').expect("a sample").1.parse().expect("a number"))
        .collect();
    assert!(!values.is_empty(), "no {name}");
    values.iter().sum()
}

/// A relay with everything on two cores, and where it listens.
fn relay_of(torrent: &Torrent, scratch: &Path, state: &Path, words: &[&str]) -> (Node, SocketAddr) {
    let file = torrent.write(&scratch.join("file.torrent"), None);
    let mut command = relay(&file, &torrent.source, scratch);
    // Known by their addresses, so that each side has one account of the other.
    command.args(["--cores", "2", "--no-identity", "--state"]).arg(state).args(words);
    let mut node = Node::spawn("relay", &mut command, scratch);
    let address = node.wait_seeding();
    (node, address)
}

fn torrent(scratch: &Path, name: &str, bytes: u64) -> Torrent {
    Torrent::single(&scratch.join(format!("source-{name}")), name, bytes, 256 << 10, 7)
}

fn single<'a>(rows: &'a Value, what: &str) -> &'a Value {
    let rows = rows.as_array().unwrap_or_else(|| panic!("no {what}"));
    assert_eq!(rows.len(), 1, "{what}: {rows:?}");
    &rows[0]
}

#[test]
fn peers_and_ledger_show_a_transfer_and_add_up_with_the_metrics() {
    let scratch = tempfile::tempdir().expect("scratch");
    let scratch = scratch.path();
    let states = ["seeder", "getter"].map(|name| scratch.join(name));
    let torrent = torrent(scratch, "file.bin", TOTAL_BYTES);
    let (mut seeder, address) = relay_of(&torrent, scratch, &states[0], &["--metrics", "127.0.0.1:0"]);
    let status = seeder.wait("its metrics", |status| status.0["metrics"].is_string());
    let metrics = status.0["metrics"].as_str().and_then(|text| text.parse().ok()).expect("an address");
    let file = scratch.join("file.torrent");
    let mut command = get(&file, &scratch.join("copy"), scratch);
    command.args(["--seed", "--cores", "2", "--peer", &address.to_string(), "--state"]).arg(&states[1]);
    let mut getter = Node::spawn("get", &mut command, scratch);
    getter.wait("the end", |status| status.bytes("durable_bytes") == TOTAL_BYTES);
    // The seeder hears of its last send in its next turn; it parts from the getter when that has all, unless
    // nobody looks: its ledger stays.
    let sent = poll("all sends have ended", || {
        let sent = metric(metrics, "troc_sent_bytes_total") as u64;
        (sent >= TOTAL_BYTES).then_some(sent)
    });
    assert_eq!(metric(metrics, "troc_class_sent_bytes_total") as u64, sent, "each byte is of one class");
    let node = &nodes("ledger", &states[0])[0];
    assert_eq!((node["version"].as_u64(), node["got_bytes"].as_u64()), (Some(1), Some(sent)));
    let party = single(&node["parties"], "accounts of the seeder");
    assert_eq!((party["got_bytes"].as_u64(), party["gave_bytes"].as_u64()), (Some(sent), Some(0)));
    assert_eq!(party["balance_bytes"].as_i64(), Some(-(sent as i64)));
    assert_eq!(metric(metrics, "troc_free_rider_share"), 1.0, "it gave nothing to who had all");
    assert_eq!(metric(metrics, "troc_ledger_accounts") as u64, 1);
    let class = party["class"].as_str().expect("a class");
    assert!(["grant", "rest"].contains(&class), "{party}");
    // Of the other side the same bytes, with the sign turned round: verified, so without what came twice.
    let node = &nodes("ledger", &states[1])[0];
    let party = single(&node["parties"], "accounts of the getter");
    assert_eq!((party["gave_bytes"].as_u64(), party["got_bytes"].as_u64()), (Some(TOTAL_BYTES), Some(0)));
    assert_eq!(party["class"], "owed");
    assert!(party["why"].as_str().expect("why").starts_with("gave 6.01 MiB more than it got"), "{party}");
    let table = ask("ledger", &states[1], &["--top", "1"]);
    let table = String::from_utf8(table.stdout).expect("UTF-8");
    assert!(table.starts_with("node ") && table.contains("1 account, gave 6.01 MiB, got 0 B"), "{table}");
    assert!(table.contains("\nPARTY ") && table.contains("owed"), "{table}");
}

#[test]
fn a_connection_is_shown_on_both_sides_while_it_lasts() {
    let scratch = tempfile::tempdir().expect("scratch");
    let scratch = scratch.path();
    let states = ["seeder", "getter"].map(|name| scratch.join(name));
    let torrent = torrent(scratch, "file.bin", TOTAL_BYTES);
    let (_seeder, address) = relay_of(&torrent, scratch, &states[0], &[]);
    let mut command = get(&scratch.join("file.torrent"), &scratch.join("copy"), scratch);
    // Slow enough that it never ends during the test.
    command.args(["--download-limit", "16KiB/s", "--peer", &address.to_string(), "--state"]).arg(&states[1]);
    let mut getter = Node::spawn("get", &mut command, scratch);
    getter.wait("a first block", |status| status.bytes("downloaded_bytes") > 0);
    let connected = |state: &Path| {
        poll("a connection", || {
            let node = nodes("peers", state).remove(0);
            (node["peers"][0]["stage"] == "open").then_some(node)
        })
    };
    let [from_seeder, from_getter] = [connected(&states[0]), connected(&states[1])];
    let taker = single(&from_seeder["peers"], "peers of the seeder");
    let giver = single(&from_getter["peers"], "peers of the getter");
    assert_eq!(
        (from_seeder["connections"].as_u64(), from_getter["connections"].as_u64()),
        (Some(1), Some(1))
    );
    assert_eq!(giver["address"].as_str(), Some(address.to_string().as_str()));
    assert_eq!((taker["direction"].as_str(), giver["direction"].as_str()), (Some("in"), Some("out")));
    for peer in [taker, giver] {
        assert!(peer["client"].as_str().expect("a client").starts_with("troc "), "{peer}");
        assert_eq!(peer["encryption"], "none");
        assert_eq!(peer["torrent"], torrent.info_hash_hex());
        assert!(!peer["why"].as_str().expect("why").is_empty() && peer["class"].is_string(), "{peer}");
    }
    assert!(taker["flags"].as_str().expect("flags").contains('U'), "{taker}");
    assert!(giver["flags"].as_str().expect("flags").contains('D'), "{giver}");
    assert_eq!(giver["have_pieces"], giver["pieces"], "it has all");
    assert!(giver["gave_bytes"].as_u64() > Some(0) && giver["got_bytes"].as_u64() == Some(0), "{giver}");
    let ledger = nodes("ledger", &states[1]).remove(0);
    let party = single(&ledger["parties"], "accounts of the getter");
    assert_eq!(
        (party["address"].as_str(), party["connections"].as_u64()),
        (giver["address"].as_str(), Some(1))
    );
    let table = String::from_utf8(ask("peers", &states[1], &[]).stdout).expect("UTF-8");
    assert!(table.contains(": 1 connection\nADDRESS ") && table.contains(&address.to_string()), "{table}");
}

#[test]
fn nodes_that_share_a_state_directory_answer_each_for_itself_and_dead_ones_are_left_out() {
    let scratch = tempfile::tempdir().expect("scratch");
    let scratch = scratch.path();
    let state = scratch.join("state");
    fs::create_dir(&state).expect("the state directory");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o755)).expect("permissions");
    // As a killed node leaves it, and one that somebody listens at.
    drop(UnixListener::bind(state.join("control-1.sock")).expect("a socket"));
    let mut running = Vec::new();
    for name in ["one.bin", "two.bin"] {
        let own = scratch.join(name);
        fs::create_dir(&own).expect("a directory");
        running.push(relay_of(&torrent(&own, name, 100_000), &own, &state, &[]));
    }
    let found = sockets(&state);
    assert_eq!(found.len(), 2, "what was left is cleared away: {found:?}");
    for path in &found {
        let mode = fs::metadata(path).expect("the socket").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", path.display());
    }
    let mut pids: Vec<u64> =
        nodes("peers", &state).iter().map(|node| node["pid"].as_u64().expect("a pid")).collect();
    pids.dedup();
    assert_eq!(pids.len(), 2);
    // Killed: its socket stays, and nobody is there.
    let (mut killed, _) = running.remove(0);
    killed.process.kill();
    assert_eq!((sockets(&state).len(), nodes("peers", &state).len()), (2, 1));
    drop(running);
    let output = ask("peers", &state, &[]);
    let errors = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!((output.status.code(), errors.lines().count()), (Some(1), 1), "{errors}");
    assert!(errors.contains("no node is running") && errors.contains("troc relay"), "{errors}");
}

#[test]
fn garbage_gets_one_line_and_the_node_goes_on() {
    let scratch = tempfile::tempdir().expect("scratch");
    let scratch = scratch.path();
    let state = scratch.join("state");
    let (_node, _) = relay_of(&torrent(scratch, "file.bin", 100_000), scratch, &state, &[]);
    let path = &sockets(&state)[0];
    let deep = "[".repeat(CONTROL_QUESTION_BYTES_MAX - 1);
    for (question, part) in [
        (&b"\n"[..], "not a question"),
        (b"", "not a question"),
        (b"GET / HTTP/1.1\r\n\r\n", "not a question"),
        (b"\xff\xfe\0\x1b[2J\n", "not a question"),
        (deep.as_bytes(), "not a question"),
        (b"{\"version\":1,\"ask\":\"stop\"}\n", "not a question"),
        (b"{\"version\":7,\"ask\":\"peers\"}\n", "version 7 is not known"),
        (b"{\"version\":1,\"ask\":\"peers\",\"top\":10001}\n", "more than 10000 rows"),
    ] {
        let answer = raw(path, question);
        assert!(answer.contains(part) && answer.starts_with("{\""), "{question:?}: {answer}");
        assert_eq!(answer.matches('\n').count(), 1, "{answer}");
    }
    // Without an end: as long as the limit it is read, and one byte more is not waited for.
    for (length, good) in [
        (CONTROL_QUESTION_BYTES_MAX - 1, true),
        (CONTROL_QUESTION_BYTES_MAX, true),
        (CONTROL_QUESTION_BYTES_MAX + 1, false),
        (64 * CONTROL_QUESTION_BYTES_MAX, false),
    ] {
        let mut question = PEERS[..PEERS.len() - 1].to_vec();
        question.resize(length, b' ');
        question.push(b'\n');
        let answer = raw(path, &question);
        assert_eq!(answer.contains("\"connections\":0"), good, "{length}: {answer}");
        assert_eq!(answer.contains("too long"), !good, "{length}: {answer}");
    }
    // Two questions in one connection: the first is answered.
    assert_eq!(raw(path, &[PEERS, PEERS].concat()).matches("\"connections\"").count(), 1);
    // One byte at a time.
    let mut slow = connect(path);
    PEERS.iter().for_each(|byte| slow.write_all(&[*byte]).expect("it takes a byte"));
    assert!(read(slow).contains("\"connections\":0"));
}

#[test]
fn as_many_askers_as_the_limit_are_served_and_the_next_when_one_has_gone() {
    let scratch = tempfile::tempdir().expect("scratch");
    let scratch = scratch.path();
    let state = scratch.join("state");
    let (mut node, _) = relay_of(&torrent(scratch, "file.bin", 100_000), scratch, &state, &[]);
    let path = &sockets(&state)[0];
    let mut silent: Vec<UnixStream> = (1..CONTROL_CONNECTIONS_MAX).map(|_| connect(path)).collect();
    assert!(raw(path, PEERS).contains("\"connections\":0"), "one place is left");
    silent.push(connect(path));
    std::thread::scope(|scope| {
        let late = scope.spawn(|| raw(path, PEERS));
        silent.pop();
        assert!(late.join().expect("an answer").contains("\"connections\":0"));
    });
    // A node that is told to stop stops, whoever is connected, and takes its socket with it.
    node.process.terminate();
    node.expect_done();
    silent.into_iter().for_each(|stream| assert_eq!(read(stream), ""));
    assert_eq!(sockets(&state).len(), 0);
}

#[test]
fn whoever_asks_while_the_node_stops_gets_an_answer_or_a_reason_and_nobody_hangs() {
    let scratch = tempfile::tempdir().expect("scratch");
    let scratch = scratch.path();
    let state = scratch.join("state");
    let (mut node, _) = relay_of(&torrent(scratch, "file.bin", 100_000), scratch, &state, &[]);
    let path = sockets(&state)[0].clone();
    let ask_on = || {
        let mut answers = Vec::new();
        while let Ok(mut stream) = UnixStream::connect(&path) {
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            let mut text = String::new();
            // The process may end between the question and the answer.
            let _ = stream.write_all(PEERS);
            let _ = stream.read_to_string(&mut text);
            answers.push(text);
        }
        answers
    };
    std::thread::scope(|scope| {
        let askers = [(); 3].map(|()| scope.spawn(ask_on));
        poll("a first answer", || raw_if(&path).filter(|answer| answer.contains("\"connections\"")));
        node.process.terminate();
        for asker in askers {
            for answer in asker.join().expect("answers") {
                let known =
                    ["\"connections\":0", "the node is stopping"].iter().any(|part| answer.contains(part));
                assert!(answer.is_empty() || known, "{answer}");
            }
        }
    });
    node.expect_done();
    assert_eq!(sockets(&state).len(), 0);
}

fn raw_if(path: &Path) -> Option<String> {
    path.exists().then(|| raw(path, PEERS))
}

#[test]
fn a_state_directory_with_a_long_path_works_too() {
    let scratch = tempfile::tempdir().expect("scratch");
    let scratch = scratch.path();
    let state = scratch.join("d".repeat(100)).join("e".repeat(100));
    let (_node, _) = relay_of(&torrent(scratch, "file.bin", 100_000), scratch, &state, &[]);
    assert_eq!(nodes("peers", &state).len(), 1);
    assert_eq!(nodes("ledger", &state)[0]["accounts"].as_u64(), Some(0));
}
