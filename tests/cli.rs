//! The built binary as a person meets it: help, exit status, one-line errors, and the way of real data
//! through `create`, `show` and `verify`.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use sha1::{Digest, Sha1};

mod support;

use support::node::Node;

/// Runs `troc` with `words` in `dir`; no terminal, no state from the person's home.
fn troc(dir: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_troc"));
    command.args(words).current_dir(dir).env("TROC_STATE", dir.join("state")).env_remove("TROC_LOG");
    command.output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Runs it, wants success, and gives what it printed.
fn good(dir: &Path, words: &[&str]) -> String {
    let output = troc(dir, words);
    assert_eq!(output.status.code(), Some(0), "{words:?}: {}", stderr(&output));
    stdout(&output)
}

/// Runs it, wants `status` and one error line in good form, and gives that line.
fn bad(dir: &Path, words: &[&str], status: i32) -> String {
    let output = troc(dir, words);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(status), "{words:?}: {text}");
    let mut errors: Vec<&str> = text.lines().filter(|line| !line.starts_with("troc: warning: ")).collect();
    // Progress without a terminal is a line every five seconds.
    errors.retain(|line| !line.starts_with("hashing: ") && !line.starts_with("verifying: "));
    assert_eq!(errors.len(), 1, "{words:?} wants one line: {text}");
    let line = errors[0].strip_prefix("troc: ").unwrap_or_else(|| panic!("{words:?}: {text}"));
    assert!(line.contains(": ") && !line.contains("panicked"), "{words:?} has no remedy: {line}");
    assert!(line.chars().all(|char| !char.is_control()), "{line:?}");
    line.to_owned()
}

fn json(text: &str) -> serde_json::Value {
    let last = text.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// `len` bytes that differ from place to place and from `seed` to `seed`.
fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

fn write(dir: &Path, path: &str, bytes: &[u8]) {
    let path = dir.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// A directory `data` whose files are empty, tiny, aligned and not, with their bytes in payload order.
fn data(dir: &Path) -> Vec<u8> {
    let files: [(&str, usize); 7] = [
        ("data/a/empty", 0),
        ("data/a/one", 1),
        ("data/b", 300_001),
        ("data/c/d/e.bin", 1_048_576),
        ("data/c/d/f", 4_095),
        ("data/long", 2_500_003),
        ("data/zero", 0),
    ];
    let mut payload = Vec::new();
    for (index, (path, len)) in files.into_iter().enumerate() {
        let content = bytes(index as u64, len);
        write(dir, path, &content);
        payload.extend(content);
    }
    payload
}

const VERBS: [&str; 12] = [
    "create",
    "show",
    "get",
    "relay",
    "tracker",
    "verify",
    "peers",
    "ledger",
    "bench",
    "doctor",
    "completions",
    "man",
];

#[test]
fn every_verb_has_help_that_names_its_flags() {
    let dir = tempfile::tempdir().unwrap();
    let top = good(dir.path(), &["--help"]);
    assert!(VERBS.iter().all(|verb| top.contains(&format!("\n  {verb}"))), "{top}");
    assert!(top.contains("Exit status: 0 done, 1 failed, 2 wrong usage"));
    let node = "--listen --peer --metrics --cores --cache --state --upload-limit --download-limit \
                --torrent-upload-limit --torrent-download-limit --lan-upload-limit --lan-download-limit \
                --lan-unlimited --no-dht --dht --dht-bootstrap --dht-listen --no-lsd --lsd --no-pex --pex \
                --announce-all";
    for (verb, flags) in [
        ("create", "--output --piece-size --tracker --web-seed --private --v1 --v2 --hybrid"),
        ("show", "--json --files --scrape"),
        ("get", &format!("{node} --output --seed --seed-ratio --seed-time --sequential --json")),
        ("relay", &format!("{node} --dir --tracker --json")),
        ("tracker", "--listen --interval --allow --friends --json"),
        ("verify", "--fast --state --json"),
        ("peers", "--state --json --top"),
        ("ledger", "--state --json --top"),
        ("doctor", "--dir --json"),
    ] {
        let help = good(dir.path(), &[verb, "--help"]);
        for flag in flags.split(' ') {
            assert!(
                help.contains(&format!("{flag} ")) || help.contains(&format!("{flag}\n")),
                "{verb} {flag}"
            );
        }
        assert!(
            help.contains(&format!("Usage: troc {verb}")) && !help.contains("--status-interval-ms"),
            "{help}"
        );
        assert!(!help.contains("NodeArgs") && !help.contains("LimitArgs"), "{help}");
    }
    assert!(good(dir.path(), &["--version"]).starts_with("troc "));
}

#[test]
fn wrong_usage_is_one_line_and_status_2() {
    let dir = tempfile::tempdir().unwrap();
    data(dir.path());
    good(dir.path(), &["create", "data", "-o", "data.torrent"]);
    for (words, part) in [
        (&[][..], "no verb"),
        (&["frobnicate"], "frobnicate"),
        (&["get", "data.torrent"], "--output"),
        (&["get", "data.torrent", "-o", "d", "--upload-limit", "5Mb/s"], "bits or bytes"),
        (&["get", "data.torrent", "-o", "d", "--upload-limit", "0", "--peer", "127.0.0.1:1"], "no limit"),
        (&["relay", "data.torrent", "--dir", "data", "--lan-upload-limit", "0"], "--lan-upload-limit 0"),
        (&["get", "data.torrent", "-o", "d", "--torrent-download-limit", "0"], "no limit"),
        (&["get", "data.torrent", "-o", "d", "--seed-ratio", "0"], "--seed to serve on"),
        (&["get", "data.torrent", "-o", "d", "--seed-ratio", "1:2"], "1, 1.5 or 2"),
        (&["get", "data.torrent", "-o", "d", "--seed-time", "5y"], "30m, 2h or 1h30m"),
        (&["get", "data.torrent", "-o", "d", "--cores", "0"], "--cores"),
        (&["get", "data.torrent", "-o", "d", "--listen", "nowhere"], "--listen"),
        (&["get", "data.torrent", "-o", "d", "--peer", "127.0.0.1"], "bad peer"),
        (&["get", "data.torrent", "-o", "d", "--peer", "127.0.0.1:1", "--state", "d/s"], "state inside"),
        (&["get", "data.torrent", "-o", "d", "--no-dht"], "nobody to fetch from"),
        (&["get", "data.torrent", "-o", "d", "--dht", "--listen", "127.0.0.1:0"], "--dht-bootstrap"),
        (&["get", "data.torrent", "-o", "d", "--dht-bootstrap", "127.0.0.1"], "bad --dht-bootstrap"),
        (&["create", "data", "-o", "x", "--piece-size", "100KiB"], "piece size"),
        (&["create", "data", "-o", "x", "--piece-size", "8KiB"], "piece size"),
        (&["create", "data", "-o", "x", "--piece-size", "128MiB"], "piece size"),
        (&["create", "data", "-o", "x", "--tracker", "gopher://t"], "bad tracker"),
        (&["create", "data", "-o", "x", "--web-seed", "udp://t:1"], "bad web seed"),
        (&["relay", "--dir", "data"], "nothing to relay, data: "),
        (&["create", "data", "-o", "data/b"], "refusing to overwrite"),
        (&["create", "data", "-o", "x", "--v1", "--hybrid"], "cannot be used with"),
    ] {
        let line = bad(dir.path(), words, 2);
        assert!(line.contains(part), "{words:?}: {line}");
    }
    assert!(!dir.path().join("x").exists());
}

#[test]
fn missing_things_are_named_with_status_1() {
    let dir = tempfile::tempdir().unwrap();
    data(dir.path());
    good(dir.path(), &["create", "data", "-o", "data.torrent"]);
    for (words, part) in [
        (&["show", "nowhere.torrent"][..], "cannot read torrent, nowhere.torrent"),
        (&["show", "/dev/zero"], "not a regular file, /dev/zero"),
        (&["show", "data"], "not a regular file, data"),
        (&["create", "nowhere", "-o", "x"], "cannot read, nowhere"),
        (&["create", "data", "-o", "no/where.torrent"], "no such directory, no"),
        (&["create", "/dev/null", "-o", "x"], "neither file nor directory, /dev/null"),
        (&["create", "data/zero", "-o", "x"], "nothing to share, data/zero"),
        (&["verify", "data.torrent", "nowhere"], "cannot open directory, nowhere"),
        (&["relay", "data.torrent", "--dir", "nowhere"], "no such directory, nowhere"),
        (&["relay", "data", "--dir", "data"], "no .torrent files, data"),
        (&["man", "--dir", "nowhere"], "cannot write manual pages, nowhere"),
        (&["doctor", "--dir", "nowhere"], "file system"),
        (&["peers", "--state", "nowhere"], "no node is running, nowhere: start one with `troc relay`"),
        (&["ledger"], "no node is running, "),
    ] {
        let line = bad(dir.path(), words, 1);
        assert!(line.contains(part), "{words:?}: {line}");
    }
}

#[test]
fn a_tree_goes_through_create_show_and_verify_in_any_piece_size() {
    let dir = tempfile::tempdir().unwrap();
    let payload = data(dir.path());
    let default = json(&good(dir.path(), &["create", "data", "-o", "data.torrent", "--json"]));
    assert_eq!(default["total_bytes"], payload.len());
    assert_eq!(default["piece_bytes"], 256 << 10);
    for size in ["16KiB", "64K", "1MiB", "4MiB"] {
        let words = ["create", "data", "-o", "data.torrent", "--piece-size", size, "--private"];
        let text = good(dir.path(), &words);
        assert!(text.starts_with("data.torrent: 3.67 MiB in 7 files, "), "{text}");
        let shown = json(&good(dir.path(), &["show", "data.torrent", "--json"]));
        let piece_bytes = shown["piece_bytes"].as_u64().unwrap() as usize;
        let hashes: Vec<u8> = payload.chunks(piece_bytes).flat_map(Sha1::digest).collect();
        let torrent = fs::read(dir.path().join("data.torrent")).unwrap();
        let at = torrent.windows(hashes.len()).position(|window| window == hashes);
        assert!(at.is_some(), "{size}: the digests differ");
        assert_eq!(shown["pieces"], payload.len().div_ceil(piece_bytes));
        assert_eq!(shown["private"], true);
        let report = good(dir.path(), &["verify", "data.torrent", "."]);
        assert!(report.contains("pieces are right"), "{report}");
    }
    let shown = json(&good(dir.path(), &["show", "data.torrent", "--json"]));
    let paths: Vec<&str> =
        shown["files"].as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap()).collect();
    let want =
        ["data/a/empty", "data/a/one", "data/b", "data/c/d/e.bin", "data/c/d/f", "data/long", "data/zero"];
    assert_eq!(paths, want);
}

#[test]
fn one_file_makes_a_single_file_torrent_with_its_trackers() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "image.iso", &bytes(1, 700_001));
    let trackers = ["http://tracker.example/announce", "udp://other.example:6969"];
    let words =
        ["create", "image.iso", "-o", "i.torrent", "--tracker", trackers[0], "--tracker", trackers[1]];
    good(dir.path(), &words);
    let table = good(dir.path(), &["show", "i.torrent"]);
    for part in ["name        image.iso\n", "size        683 KiB (700001 bytes)\n", "private     no\n"] {
        assert!(table.contains(part), "{table}");
    }
    assert!(
        table.contains("tier 1: http://tracker.example/announce\n            tier 2: udp://other"),
        "{table}"
    );
    let shown = json(&good(dir.path(), &["show", "i.torrent", "--json"]));
    assert_eq!(shown["trackers"], serde_json::json!([[trackers[0]], [trackers[1]]]));
    assert_eq!(shown["files"], serde_json::json!([{ "path": "image.iso", "length": 700_001, "pad": false }]));
    // Made again in place, and never listed in itself.
    good(dir.path(), &["create", "image.iso", "-o", "i.torrent"]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn a_corrupted_byte_is_named_by_piece_and_file() {
    let dir = tempfile::tempdir().unwrap();
    let payload = data(dir.path());
    good(dir.path(), &["create", "data", "-o", "data.torrent", "--piece-size", "64KiB"]);
    let path = dir.path().join("data/long");
    let mut content = fs::read(&path).unwrap();
    content[1_000_000] ^= 1;
    fs::write(&path, &content).unwrap();
    let offset = payload.len() - content.len() + 1_000_000;
    let piece = offset / (64 << 10);
    let output = troc(dir.path(), &["verify", "data.torrent", "."]);
    assert!(stdout(&output).contains(&format!("bad: piece {piece} in data/long\n")), "{}", stdout(&output));
    let line = bad(dir.path(), &["verify", "data.torrent", "."], 1);
    assert!(
        line.starts_with("1 of 59 pieces are bad or missing, data in .: fetch them again with"),
        "{line}"
    );

    fs::remove_file(dir.path().join("data/b")).unwrap();
    fs::remove_file(dir.path().join("data/zero")).unwrap();
    let output = troc(dir.path(), &["verify", "data.torrent", ".", "--json"]);
    let report = json(&stdout(&output));
    let troubles: Vec<&str> =
        report["findings"].as_array().unwrap().iter().map(|f| f["trouble"].as_str().unwrap()).collect();
    assert!(troubles.contains(&"missing") && troubles.contains(&"bad"), "{report}");
    assert_eq!(report["missing_empty_files"], serde_json::json!(["data/zero"]));
    let line = bad(dir.path(), &["verify", "data.torrent", "data"], 1);
    assert!(line.ends_with("give the directory that holds data"), "{line}");
}

/// A relay below `dir` of what is in `data`, and the names of its torrents once all are seeded.
fn relay_names(dir: &Path, sources: &[&str]) -> Vec<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_troc"));
    command.arg("relay").args(sources).args(["--dir", "data", "--listen", "127.0.0.1:0", "--cores", "1"]);
    command.args(["--json", "--cache", "64MiB"]).current_dir(dir).env("TROC_STATE", dir.join("state"));
    let mut node = Node::spawn("relay", &mut command, dir);
    let mut names = Vec::new();
    node.wait("all to be seeded", |status| {
        let torrents = status.0["torrents"].as_array().unwrap();
        torrents.iter().all(|torrent| torrent["state"] == "seeding")
    });
    let last = support::node::Status(json(&node.process.lines().join("\n")));
    for torrent in last.0["torrents"].as_array().unwrap() {
        names.push(torrent["name"].as_str().unwrap().to_owned());
    }
    node.process.terminate();
    node.expect_done();
    names.sort();
    names
}

#[test]
fn a_relay_without_source_relays_what_was_relayed_there_before() {
    let dir = tempfile::tempdir().unwrap();
    data(dir.path());
    fs::create_dir(dir.path().join("torrents")).unwrap();
    for name in ["b", "long"] {
        let torrent = format!("torrents/{name}.torrent");
        good(dir.path(), &["create", &format!("data/{name}"), "-o", &torrent]);
    }
    assert_eq!(relay_names(dir.path(), &["torrents"]), ["b", "long"]);
    fs::remove_dir_all(dir.path().join("torrents")).unwrap();
    assert_eq!(relay_names(dir.path(), &[]), ["b", "long"]);

    fs::create_dir(dir.path().join("other")).unwrap();
    let line = bad(dir.path(), &["relay", "--dir", "other"], 2);
    assert!(line.starts_with("nothing to relay, other: ") && line.contains("as SOURCE"), "{line}");

    let state = fs::read_dir(dir.path().join("state")).unwrap().map(|entry| entry.unwrap().path());
    let kept: Vec<_> =
        state.filter(|path| path.extension().is_some_and(|extension| extension == "torrent")).collect();
    assert_eq!(kept.len(), 2, "{kept:?}");
    let whole = fs::read(&kept[0]).unwrap();
    fs::write(&kept[0], &whole[..whole.len() / 2]).unwrap();
    assert_eq!(relay_names(dir.path(), &[]).len(), 1);
    let said = fs::read_to_string(dir.path().join("relay.stderr")).unwrap();
    let named = said.lines().filter(|line| line.contains("bad torrent, ") && line.contains("left out; "));
    assert_eq!(named.count(), 1, "{said}");
    // A right one in the wrong place is not believed either.
    fs::write(&kept[1], &whole).unwrap();
    bad(dir.path(), &["relay", "--dir", "data"], 2);
}

/// What `verify` printed as JSON with `words` behind, its exit status, and its warnings.
fn verify_json(dir: &Path, words: &[&str]) -> (serde_json::Value, Option<i32>, String) {
    let output = troc(dir, &[&["verify", "long.torrent", "data", "--json"], words].concat());
    (json(&stdout(&output)), output.status.code(), stderr(&output))
}

#[test]
fn a_fast_check_compares_what_a_relay_verified_and_hashes_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    data(dir.path());
    good(dir.path(), &["create", "data/long", "-o", "long.torrent", "--piece-size", "512KiB"]);
    let (report, status, said) = verify_json(dir.path(), &["--fast"]);
    assert_eq!((&report["good_pieces"], &report["compared_pieces"]), (&5.into(), &0.into()), "{report}");
    assert!(status == Some(0) && said.contains("no node has kept its state there, "), "{said}");
    assert!(!dir.path().join("state").exists(), "a check leaves nothing behind");

    assert_eq!(relay_names(dir.path(), &["long.torrent"]), ["long"]);
    let (report, status, said) = verify_json(dir.path(), &["--fast"]);
    assert_eq!((&report["good_pieces"], &report["compared_pieces"]), (&5.into(), &5.into()), "{report}");
    assert!(status == Some(0) && said.is_empty(), "{said}");
    let text = good(dir.path(), &["verify", "long.torrent", "data", "--fast"]);
    assert!(text.contains("5 of 5 pieces are right (5 by fingerprint), "), "{text}");
    let (report, _, _) = verify_json(dir.path(), &[]);
    assert_eq!(report["compared_pieces"], 0, "not asked for");

    // Damage is judged by SHA-1, what is cut off is missing.
    let path = dir.path().join("data/long");
    let whole = fs::read(&path).unwrap();
    let mut content = whole[..whole.len() - 1].to_vec();
    content[1_000_000] ^= 1;
    fs::write(&path, &content).unwrap();
    let (report, status, _) = verify_json(dir.path(), &["--fast"]);
    assert_eq!((&report["good_pieces"], &report["compared_pieces"]), (&3.into(), &3.into()), "{report}");
    let found = report["findings"].as_array().unwrap();
    let found: Vec<_> =
        found.iter().map(|f| (f["trouble"].as_str().unwrap(), f["first_piece"].as_u64())).collect();
    assert_eq!(found, [("bad", Some(1)), ("missing", Some(4))]);
    assert_eq!(status, Some(1));
    fs::write(&path, &whole).unwrap();

    // A copy in another directory is another matter, and so is another node's secret.
    fs::create_dir(dir.path().join("copy")).unwrap();
    fs::copy(&path, dir.path().join("copy/long")).unwrap();
    let output = troc(dir.path(), &["verify", "long.torrent", "copy", "--fast"]);
    assert!(
        stderr(&output).contains("no journal of this torrent in this directory, "),
        "{}",
        stderr(&output)
    );
    assert!(stdout(&output).contains("5 of 5 pieces are right, "), "{}", stdout(&output));
    fs::write(dir.path().join("state/secret"), [7; 32]).unwrap();
    let (report, status, said) = verify_json(dir.path(), &["--fast"]);
    assert_eq!((&report["good_pieces"], &report["compared_pieces"]), (&5.into(), &0.into()), "{report}");
    assert!(status == Some(0) && said.contains("written under another node secret, "), "{said}");
    let line = bad(dir.path(), &["verify", "long.torrent", "nowhere", "--fast"], 1);
    assert!(line.starts_with("cannot open directory, nowhere: "), "{line}");
}

#[test]
fn a_relay_compares_files_that_were_written_since_and_finds_damage() {
    let dir = tempfile::tempdir().unwrap();
    data(dir.path());
    good(dir.path(), &["create", "data/long", "-o", "long.torrent", "--piece-size", "512KiB"]);
    assert_eq!(relay_names(dir.path(), &["long.torrent"]), ["long"]);
    let path = dir.path().join("data/long");
    let mut content = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, &content).unwrap();
    assert_eq!(relay_names(dir.path(), &["long.torrent"]), ["long"]);

    content[1_000_000] ^= 1;
    fs::write(&path, &content).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_troc"));
    command.args(["relay", "long.torrent", "--dir", "data", "--listen", "127.0.0.1:0", "--cores", "1"]);
    command.args(["--json", "--cache", "64MiB"]).current_dir(dir.path());
    let mut node = Node::spawn("relay", command.env("TROC_STATE", dir.path().join("state")), dir.path());
    let left = content.len() as u64 - (512 << 10);
    node.wait("all but the damaged piece", |status| {
        let torrent = &status.0["torrents"][0];
        torrent["state"] == "fetching" && torrent["verified_bytes"] == left
    });
    node.process.terminate();
    node.expect_done();
}

#[test]
fn links_are_left_out_and_special_files_refused() {
    let dir = tempfile::tempdir().unwrap();
    data(dir.path());
    std::os::unix::fs::symlink("/etc/passwd", dir.path().join("data/link")).unwrap();
    let output = troc(dir.path(), &["create", "data", "-o", "data.torrent"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stderr(&output).contains("troc: warning: symbolic link left out, link"), "{}", stderr(&output));
    assert!(!good(dir.path(), &["show", "data.torrent"]).contains("link"));
    let socket = std::os::unix::net::UnixListener::bind(dir.path().join("data/socket")).unwrap();
    let line = bad(dir.path(), &["create", "data", "-o", "data.torrent"], 1);
    assert!(line.starts_with("neither file nor directory, ") && line.contains("data/socket"), "{line}");
    drop(socket);
}

#[test]
fn hostile_torrents_get_one_line_and_never_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    let info = |rest: &str| format!("d4:infod{rest}ee").into_bytes();
    let pieces = "6:pieces20:aaaaaaaaaaaaaaaaaaaa";
    let deep = [b"d4:info".to_vec(), b"l".repeat(1_000_000)].concat();
    let path = |path: &str| {
        info(&format!("5:filesld6:lengthi1e4:path{path}ee4:name1:n12:piece lengthi16384e{pieces}"))
    };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty", Vec::new()),
        ("text", b"hello".to_vec()),
        ("html", b"<!DOCTYPE html>\x1b[31m\n<html>".to_vec()),
        ("t1 nesting", deep),
        ("t3 length lie", b"d4:info99999999999999999999:x".to_vec()),
        ("t3 huge string", b"d4:info4294967296:x".to_vec()),
        ("t4 integer", info("6:lengthi99999999999999999999e")),
        (
            "t6 trailing",
            [info(&format!("6:lengthi1e4:name1:n12:piece lengthi16384e{pieces}")), b"x".to_vec()].concat(),
        ),
        ("t7 piece length", info(&format!("6:lengthi1e4:name1:n12:piece lengthi0e{pieces}"))),
        ("t7 negative piece length", info(&format!("6:lengthi1e4:name1:n12:piece lengthi-1e{pieces}"))),
        ("t8 pieces", info("6:lengthi1e4:name1:n12:piece lengthi16384e6:pieces3:abc")),
        ("t9 negative length", info(&format!("6:lengthi-1e4:name1:n12:piece lengthi16384e{pieces}"))),
        (
            "t9 overflow",
            info(&format!("6:lengthi9223372036854775807e4:name1:n12:piece lengthi16384e{pieces}")),
        ),
        ("t10 no files", info(&format!("5:filesle4:name1:n12:piece lengthi16384e{pieces}"))),
        ("t11 parent", path("l2:..6:passwde")),
        ("t11 slash", path("l11:/etc/passwde")),
        ("t11 name", info(&format!("6:lengthi1e4:name2:..12:piece lengthi16384e{pieces}"))),
        ("t12 nul", path("l3:a\0be")),
        ("no info", b"d8:announce1:ae".to_vec()),
    ];
    for (name, torrent) in cases {
        fs::write(dir.path().join("bad.torrent"), &torrent).unwrap();
        for words in [
            &["show", "bad.torrent"][..],
            &["verify", "bad.torrent", "."],
            &["get", "bad.torrent", "-o", "out", "--peer", "127.0.0.1:1"],
            &["relay", "bad.torrent", "--dir", "."],
        ] {
            let line = bad(dir.path(), words, 1);
            assert!(line.starts_with("bad torrent, bad.torrent: "), "{name}: {line}");
        }
    }
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["bad.torrent"], "nothing was made");
}

#[test]
fn t12_names_cannot_steer_the_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let pieces = "6:pieces20:aaaaaaaaaaaaaaaaaaaa";
    let comment = "7:comment13:a\x1b[2J\nname  b";
    let torrent =
        format!("d{comment}4:infod6:lengthi1e4:name7:n\x1b]0;x\x0712:piece lengthi16384e{pieces}ee");
    fs::write(dir.path().join("t.torrent"), torrent).unwrap();
    let table = good(dir.path(), &["show", "t.torrent"]);
    assert!(table.chars().all(|char| char == '\n' || !char.is_control()), "{table:?}");
    assert!(table.contains("comment     a\\u{1b}[2J\\u{a}name  b"), "{table}");
    let line = bad(dir.path(), &["verify", "t.torrent", "."], 1);
    assert!(line.contains("1 of 1 pieces are bad or missing"), "{line}");
}

#[test]
fn magnet_links_are_shown() {
    let dir = tempfile::tempdir().unwrap();
    let hash = "0123456789abcdef0123456789abcdef01234567";
    let link =
        format!("magnet:?xt=urn:btih:{hash}&dn=some%1b%5bname&tr=udp%3A%2F%2Ft.example%3A1&x.pe=[::1]:2");
    let table = good(dir.path(), &["show", &link]);
    assert!(table.contains("name        some\\u{1b}[name\n") && table.contains(hash), "{table}");
    let shown = json(&good(dir.path(), &["show", &link, "--json"]));
    assert_eq!((&shown["kind"], &shown["info_hash"]), (&"magnet".into(), &hash.into()));
    assert_eq!((&shown["trackers"][0], &shown["peers"][0]), (&"udp://t.example:1".into(), &"[::1]:2".into()));
    assert!(bad(dir.path(), &["show", "magnet:?dn=x"], 1).contains("no `xt="));
}

#[test]
fn completions_and_manual_pages_come_from_the_same_definition() {
    let dir = tempfile::tempdir().unwrap();
    for (shell, part) in [("bash", "_troc()"), ("zsh", "#compdef troc"), ("fish", "complete -c troc")] {
        assert!(good(dir.path(), &["completions", shell]).contains(part), "{shell}");
    }
    assert!(good(dir.path(), &["man"]).contains(".TH troc 1"));
    good(dir.path(), &["man", "--dir", "."]);
    let page = fs::read_to_string(dir.path().join("troc-get.1")).unwrap();
    assert!(page.contains("upload\\-limit"), "{page}");
}

#[test]
fn the_doctor_names_level_and_remedy_of_each_finding() {
    let dir = tempfile::tempdir().unwrap();
    let output = troc(dir.path(), &["doctor", "--json"]);
    // 1 where the host refuses something that a node needs.
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}", stderr(&output));
    let report = json(&stdout(&output));
    let checks = report["checks"].as_array().unwrap();
    for name in
        ["kernel", "processors", "memory", "cache", "locked memory", "open files", "somaxconn", "file system"]
    {
        assert!(checks.iter().any(|check| check["name"] == name), "{name}: {report}");
    }
    for check in checks {
        let level = check["level"].as_str().unwrap();
        assert!(["ok", "warn", "bad"].contains(&level));
        assert_eq!(check["remedy"].is_null(), level == "ok", "{check}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    for index in 0..5000 {
        write(dir.path(), &format!("many/{index:04}"), b"x");
    }
    good(dir.path(), &["create", "many", "-o", "many.torrent"]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_troc"));
    command.args(["show", "many.torrent", "--files"]).current_dir(dir.path());
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command.stdout(writer).output().unwrap();
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), String::new()));
    let table = good(dir.path(), &["show", "many.torrent"]);
    assert!(
        table.contains("many/0019\n") && table.contains("... and 4980 more (--files lists all)"),
        "{table}"
    );
}
