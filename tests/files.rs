//! Some files of a torrent and not the others: the built binary on loopback, killed and started again.

mod support;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use support::clients::{Client, Job, Kind, Start};
use support::node::{Node, Status, get, relay, troc};
use support::torrent::Torrent;
use support::tracker::{Announced, Tracker};
use troc::base::rng::Rng;

const PIECE_BYTES: u64 = 64 << 10;

/// No boundary falls on one of pieces; the middle one spans many, and both its ends are shared.
const FILES: &[(&str, u64)] = &[
    ("a.bin", 100_000),
    ("sub/b.txt", 30_001),
    ("sub/c.bin", 1_500_007),
    ("sub/deep/d.txt", 9),
    ("e.bin", 400_000),
    ("empty", 0),
];

/// A source that serves all of a torrent.
struct Scene {
    temp: tempfile::TempDir,
    torrent: Torrent,
    file: PathBuf,
    source: SocketAddr,
    /// Where it is fetched into, below the scratch directory.
    fetched: String,
    _relay: Node,
}

impl Scene {
    fn new(files: &[(&str, u64)], piece_bytes: u64, seed: u64) -> Self {
        // Beside the build: on a disk, where /tmp may be memory.
        let temp = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("temporary directory");
        let torrent = Torrent::multi(&temp.path().join("source"), "t", files, piece_bytes, seed);
        let file = torrent.write(&temp.path().join("t.torrent"), None);
        let mut command = relay(&file, &temp.path().join("source"), temp.path());
        let mut relay = Node::spawn("relay", &mut command, temp.path());
        let source = relay.wait_seeding();
        Self { temp, torrent, file, source, fetched: "fetched".to_owned(), _relay: relay }
    }

    fn dir(&self) -> PathBuf {
        self.temp.path().join(&self.fetched)
    }

    fn state(&self) -> PathBuf {
        self.temp.path().join("get-state")
    }

    /// A fetch from the source.
    fn get(&self, more: &[&str]) -> Command {
        let mut command = get(&self.file, &self.dir(), self.temp.path());
        command.arg("--peer").arg(self.source.to_string()).args(more);
        command
    }

    /// Runs a fetch to its end; its last line.
    fn fetch(&self, more: &[&str]) -> Status {
        last_status(&mut Node::spawn("get", &mut self.get(more), self.temp.path()))
    }

    fn verify(&self, more: &[&str]) -> Output {
        let mut command = troc("verify", self.temp.path());
        command.env("TROC_STATE", self.state()).arg(&self.file).arg(self.dir()).args(more);
        command.output().expect("troc runs")
    }

    /// Paths below the torrent's directory of all that was fetched.
    fn found(&self) -> BTreeSet<String> {
        let (mut found, root) = (BTreeSet::new(), self.dir().join("t"));
        walk(&root, &root, &mut found);
        let beside: Vec<_> = std::fs::read_dir(self.dir()).expect("it was made").collect();
        assert!(beside.len() <= 1, "beside the payload: {beside:?}");
        found
    }

    fn assert_right(&self, names: &[&str]) {
        for name in names {
            let read = |dir: &Path| std::fs::read(dir.join("t").join(name)).expect("the file is there");
            assert!(read(&self.dir()) == read(&self.torrent.source), "{name} differs from the source");
        }
    }

    fn parts(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.state()).expect("the state directory");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        paths.filter(|path| path.extension().is_some_and(|name| name == "parts")).collect()
    }
}

fn walk(root: &Path, dir: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            walk(root, &path, found);
        } else {
            let below = path.strip_prefix(root).expect("below the root");
            found.insert(below.to_str().expect("UTF-8").to_owned());
        }
    }
}

fn last_status(node: &mut Node) -> Status {
    let mut last = None;
    while let Some(status) = node.next_status() {
        last = Some(status);
    }
    node.expect_done();
    last.expect("it says how it goes")
}

fn useful(status: &Status) -> u64 {
    status.bytes("downloaded_bytes") - status.bytes("wasted_bytes")
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// Bytes of the pieces that hold bytes of some files.
fn bytes_of_pieces(files: &[(&str, u64)], piece_bytes: u64, wanted: &[&str]) -> u64 {
    let total: u64 = files.iter().map(|file| file.1).sum();
    let (mut pieces, mut start) = (BTreeSet::new(), 0);
    for (name, length) in files {
        if wanted.contains(name) && *length > 0 {
            pieces.extend(start / piece_bytes..=(start + length - 1) / piece_bytes);
        }
        start += length;
    }
    pieces.iter().map(|piece| piece_bytes.min(total - piece * piece_bytes)).sum()
}

#[test]
fn a_directory_holds_exactly_what_was_asked_for_and_the_rest_is_fetched_once() {
    let scene = Scene::new(FILES, PIECE_BYTES, 1);
    let first = ["sub/b.txt", "sub/deep/d.txt"];
    let status = scene.fetch(&["--files", "**/*.txt"]);
    assert_eq!(scene.found(), names(&first), "nothing else, not even the empty file");
    scene.assert_right(&first);
    assert_eq!((status.bytes("total_bytes"), status.bytes("durable_bytes")), (30_010, 30_010));
    assert_eq!((status.bytes("files_wanted"), status.bytes("files_done")), (2, 2));
    assert_eq!(status.0["torrents"][0]["files"][1]["path"], "t/sub/deep/d.txt");
    let fetched = useful(&status);
    assert_eq!(fetched, bytes_of_pieces(FILES, PIECE_BYTES, &first));
    assert_eq!(scene.parts().len(), 1, "what the pieces share with others");

    let output = scene.verify(&["--files", "**/*.txt"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("skipped 4 files"), "{output:?}");
    assert!(!scene.verify(&[]).status.success(), "the others are missing");

    // Again, of what is there: nothing comes. Then a file between the two, with both its ends shared.
    assert_eq!(useful(&scene.fetch(&["--files", "1,3"])), 0);
    let middle = useful(&scene.fetch(&["--files", "sub/c.bin"]));
    let both = bytes_of_pieces(FILES, PIECE_BYTES, &["sub/b.txt", "sub/c.bin", "sub/deep/d.txt"]);
    assert_eq!(fetched + middle, both, "no piece came twice");
    assert_eq!(scene.found(), names(&["sub/b.txt", "sub/c.bin", "sub/deep/d.txt"]));
    scene.assert_right(&["sub/c.bin"]);

    let rest = useful(&scene.fetch(&[]));
    assert_eq!(fetched + middle + rest, scene.torrent.total_bytes, "no piece came twice");
    scene.torrent.assert_identical(&scene.dir(), "troc get");
    assert!(scene.verify(&[]).status.success());
    assert_eq!(scene.parts(), [] as [PathBuf; 0], "every file has its bytes itself");
}

#[test]
fn what_was_fetched_is_kept_and_served_whatever_is_wanted_later() {
    let scene = Scene::new(FILES, PIECE_BYTES, 2);
    scene.fetch(&["--exclude", "sub/**"]);
    assert_eq!(scene.found(), names(&["a.bin", "e.bin", "empty"]), "an empty file is made if it is wanted");
    let status = scene.fetch(&["--files", "a.bin"]);
    assert_eq!((useful(&status), status.bytes("files_wanted")), (0, 1));
    assert_eq!(scene.found(), names(&["a.bin", "e.bin", "empty"]), "nothing is deleted");

    // Somebody who wants what this one no longer does.
    let mut command = get(&scene.file, &scene.dir(), scene.temp.path());
    command.args(["--files", "a.bin", "--seed", "--listen", "127.0.0.1:0"]);
    let mut partial = Node::spawn("partial", &mut command, scene.temp.path());
    let address = partial.wait_seeding();
    let other = scene.temp.path().join("other");
    let mut command = get(&scene.file, &other, scene.temp.path());
    command.env("TROC_STATE", scene.temp.path().join("other-state"));
    command.args(["--files", "e.bin", "--peer", &address.to_string()]);
    last_status(&mut Node::spawn("other", &mut command, scene.temp.path()));
    let read = |dir: &Path| std::fs::read(dir.join("t/e.bin")).expect("the file is there");
    assert!(read(&other) == read(&scene.torrent.source));
}

#[test]
fn everything_selected_and_nothing() {
    let scene = Scene::new(FILES, PIECE_BYTES, 3);
    for (more, what) in [
        (&["--files", "*.mkv"][..], "*.mkv matches no file of t: its files by number are 0 a.bin"),
        (&["--exclude", "**"], "no file of t is wanted"),
        (&["--files", "sub"], "write 'sub/**'"),
        (&["--priority", "a.bin"], "bad priority"),
    ] {
        let output = scene.get(more).output().expect("troc runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && said.contains(what), "{more:?}: {said}");
        assert!(said.trim_end().lines().count() <= 2, "one line, and the warning for root: {said}");
        assert!(!scene.dir().exists(), "{more:?}: a directory for nothing");
    }
    let status = scene.fetch(&["--files", "**", "--priority", "e.bin=high", "--sequential"]);
    assert_eq!(status.bytes("files_done"), FILES.len() as u64);
    scene.torrent.assert_identical(&scene.dir(), "troc get");
}

#[test]
fn show_names_the_numbers_and_tries_a_pattern() {
    let scene = Scene::new(FILES, PIECE_BYTES, 4);
    let show = |more: &[&str]| {
        let output = troc("show", scene.temp.path()).arg(&scene.file).args(more).output().expect("troc runs");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (_, all) = show(&["--files"]);
    assert!(all.contains("    2   1.43 MiB  t/sub/c.bin"), "{all}");
    let (status, some) = show(&["--match", "sub/*"]);
    assert_eq!(status, Some(0));
    assert_eq!(some.lines().count(), 2, "{some}");
    assert_eq!(show(&["--match", "nothing"]).0, Some(2));
}

/// Killed at any moment, with selections that change: no file is made that no run asked for, and all that is
/// there in the end is right.
#[test]
fn kill_and_change_the_selection() {
    const LARGE: &[(&str, u64)] =
        &[("a", 3_000_001), ("b", 700_000), ("c", 5_000_003), ("d", 65_537), ("e", 1), ("f", 4_000_000)];
    let mut scene = Scene::new(LARGE, PIECE_BYTES, 5);
    let mut rng = Rng::new(5);
    let (mut kills, mut kept) = (0, 0);
    for fetch in 0..6 {
        scene.fetched = format!("fetched-{fetch}");
        let mut wanted = BTreeSet::new();
        for _ in 0..6 {
            let files: Vec<&str> = LARGE.iter().map(|file| file.0).filter(|_| rng.below(3) == 0).collect();
            wanted.extend(files.iter().map(|&file| file.to_owned()));
            if !files.is_empty() {
                let was_killed = run_and_kill(&scene, &files, rng.below(1_500_000).into());
                kills += u32::from(was_killed);
                kept += u32::from(was_killed && !scene.parts().is_empty());
            }
            assert!(scene.found().is_subset(&wanted), "{:?} of {wanted:?}", scene.found());
        }
        scene.fetch(&[]);
        scene.torrent.assert_identical(&scene.dir(), "troc get");
        assert!(scene.verify(&[]).status.success());
        std::fs::remove_dir_all(scene.dir()).expect("remove what was fetched");
    }
    // Otherwise nothing was at stake.
    assert!(kills >= 12 && kept >= 6, "{kills} kills, {kept} with a part file");
    println!("{kills} kills, {kept} with a part file");
}

/// Fetches some files until so many bytes more than at the start are verified. False if that was all.
fn run_and_kill(scene: &Scene, files: &[&str], bytes: u64) -> bool {
    let pattern = format!("{{{}}}", files.join(","));
    let more = ["--files", &pattern, "--download-limit", "20MiB/s", "--unsynced", "256KiB"];
    let mut node = Node::spawn("get", &mut scene.get(&more), scene.temp.path());
    let mut begin = None;
    while let Some(status) = node.next_status() {
        if matches!(status.state(), "fetching" | "seeding") {
            let verified = status.bytes("verified_bytes");
            if verified - *begin.get_or_insert(verified) >= bytes && status.state() == "fetching" {
                node.process.kill();
                return true;
            }
        }
    }
    node.expect_done();
    false
}

/// A client that knows a tracker, and fetches or serves everything.
fn client(scene: &Scene, kind: Kind, job: Job, tracker: &Tracker, dir: &Path) -> Client {
    let client = kind.start(&Start {
        job,
        torrent: &scene.torrent,
        tracker,
        dir,
        scratch: &scene.temp.path().join("client"),
        ip: std::net::Ipv4Addr::LOCALHOST,
    });
    client.wait_ready(tracker);
    client
}

#[test]
fn a_part_is_fetched_from_transmission() {
    if !Kind::Transmission.available() {
        return;
    }
    let scene = Scene::new(FILES, PIECE_BYTES, 6);
    let tracker = Tracker::start();
    let other = client(&scene, Kind::Transmission, Job::Seed, &tracker, &scene.torrent.source);
    let mut command = get(&scene.file, &scene.dir(), scene.temp.path());
    command.args(["--files", "sub/c.bin", "--peer", &other.addr.to_string()]);
    last_status(&mut Node::spawn("get", &mut command, scene.temp.path()));
    assert_eq!(scene.found(), names(&["sub/c.bin"]));
    scene.assert_right(&["sub/c.bin"]);
}

/// What a partial node has it serves to `kind`; what it has not comes from elsewhere.
fn a_partial_node_serves(kind: Kind) {
    if !kind.available() {
        return;
    }
    let scene = Scene::new(FILES, PIECE_BYTES, 7);
    let tracker = Tracker::start();
    scene.fetch(&["--exclude", "sub/c.bin"]);
    let tracked = scene.torrent.write(&scene.temp.path().join("tracked.torrent"), Some(&tracker.url()));
    let mut command = get(&tracked, &scene.dir(), scene.temp.path());
    command.args(["--exclude", "sub/c.bin", "--seed", "--listen", "127.0.0.1:0"]);
    let mut partial = Node::spawn("partial", &mut command, scene.temp.path());
    let address = partial.wait_seeding();
    let left = tracker.wait(scene.torrent.info_hash, address.port(), "itself", |peer| Some(peer.left));
    assert!(left > 0, "it lacks the pieces that nobody wanted");
    let out = scene.temp.path().join("client-fetched");
    let mut other = client(&scene, kind, Job::Fetch, &tracker, &out);
    let sent = partial.wait("all that it has, served", |status| {
        status.bytes("uploaded_bytes") >= scene.torrent.total_bytes - left
    });
    assert_eq!(sent.state(), "seeding");
    // The rest from a node that has it.
    let mut command = relay(&tracked, &scene.torrent.source, &scene.temp.path().join("whole"));
    let mut whole = Node::spawn("whole", &mut command, scene.temp.path());
    whole.wait_seeding();
    other.wait_complete(&tracker);
    scene.torrent.assert_identical(&out, &format!("{kind:?}"));
    let port = address.port();
    let said = |peer: &Announced| peer.paused.then_some(peer.completed);
    let completed = tracker.wait(scene.torrent.info_hash, port, "that it wants no more", said);
    assert!(!completed, "it has not everything");
}

#[test]
fn a_partial_node_serves_libtorrent() {
    a_partial_node_serves(Kind::Libtorrent);
}

#[test]
fn a_partial_node_serves_aria2() {
    a_partial_node_serves(Kind::Aria2);
}

#[test]
fn a_relay_that_is_started_again_wants_what_it_wanted_until_it_is_told_otherwise() {
    let scene = Scene::new(FILES, PIECE_BYTES, 21);
    let scratch = scene.temp.path().join("again");
    std::fs::create_dir_all(&scratch).expect("directory");
    std::fs::create_dir_all(scene.dir()).expect("directory");
    let all: Vec<&str> = FILES.iter().map(|file| file.0).collect();
    for (flags, wanted) in [
        (&["--files", "sub/*.txt"][..], &["sub/b.txt"][..]),
        (&[], &["sub/b.txt"]),
        (&["--files", "**"], &all),
        (&[], &all),
    ] {
        let mut command = relay(&scene.file, &scene.dir(), &scratch);
        command.args(flags).arg("--peer").arg(scene.source.to_string());
        let mut node = Node::spawn("again", &mut command, &scratch);
        node.wait_seeding();
        node.process.terminate();
        node.expect_done();
        assert_eq!(scene.found(), names(wanted), "{flags:?}");
        scene.assert_right(wanted);
    }
}
