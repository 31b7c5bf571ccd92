//! `kill -9` of real fetches at seeded byte counts. Whatever was reported as durable is there after
//! the restart and is not fetched again; no byte on disk is ever wrong; the end is identical.

mod support;

use std::net::SocketAddr;
use std::path::Path;

use support::node::{Node, Status, get, relay};
use support::torrent::Torrent;
use troc::base::rng::Rng;

/// Four tests of so many kills each: 200 in all.
const KILLS: u32 = 50;
/// One fetch is killed at most so often before it may complete.
const KILLS_PER_FETCH_MAX: u32 = 6;
const TOTAL_BYTES: u64 = 64 << 20;
const PIECE_BYTES: u64 = 256 << 10;
/// Slow enough that several kills fall into one fetch, whatever the machine.
const RATE: &str = "160MiB/s";

/// Boundaries inside a page, inside a block and inside a piece.
const FILES: &[(&str, u64)] =
    &[("a", 1), ("b", 4_095), ("c", (40 << 20) + 7), ("d", 16_385), ("e", (24 << 20) - 20_488)];

/// What one run of `troc get` told before its end.
struct Run {
    durable_at_start: u64,
    last: Status,
    killed: bool,
    /// Useful bytes that had come when the first line after the check was said.
    useful_at_start: u64,
}

fn is_past_checking(status: &Status) -> bool {
    matches!(status.state(), "fetching" | "seeding")
}

/// Fetches until `bytes` more than at the start are verified, then kills; or to the end.
fn run_until(torrent: &Path, dir: &Path, scratch: &Path, seed: SocketAddr, bytes: u64) -> Run {
    let mut command = get(torrent, dir, scratch);
    command.args(["--peer", &seed.to_string(), "--download-limit", RATE, "--unsynced", "4MiB"]);
    let mut node = Node::spawn("get", &mut command, scratch);
    let first = node.wait("the end of its check", is_past_checking);
    let useful_at_start = useful(&first);
    let (durable_at_start, verified_at_start) = (first.bytes("durable_bytes"), first.bytes("verified_bytes"));
    let mut last = first;
    while last.bytes("verified_bytes") - verified_at_start < bytes {
        let Some(status) = node.next_status() else {
            node.expect_done();
            return Run { durable_at_start, last, killed: false, useful_at_start };
        };
        last = status;
    }
    // A last line may be on its way: it counts, for the node has said it.
    node.process.kill();
    while let Some(status) = node.next_status() {
        last = status;
    }
    Run { durable_at_start, last, killed: true, useful_at_start }
}

/// Every page on disk, and within it every piece's part, is as in the source or was never written.
/// Returns the bytes that are right.
fn assert_no_wrong_byte(torrent: &Torrent, dir: &Path, when: &str) -> u64 {
    let (mut right, mut start) = (0, 0);
    for path in torrent.paths() {
        let wanted = std::fs::read(torrent.source.join(path)).expect("the source is there");
        let found = std::fs::read(dir.join(path)).unwrap_or_default();
        assert!(found.len() <= wanted.len(), "{when}: {} is too long", path.display());
        let mut at = 0;
        while at < found.len() {
            let end = segment_end(at, start).min(found.len());
            let same = found[at..end] == wanted[at..end];
            let never_written = || found[at..end].iter().all(|byte| *byte == 0);
            assert!(same || never_written(), "{when}: bytes {at}..{end} of {} are wrong", path.display());
            right += if same { (end - at) as u64 } else { 0 };
            at = end;
        }
        start += wanted.len();
    }
    right
}

/// Where the page or the piece ends that holds byte `at` of a file that starts at `start`.
fn segment_end(at: usize, start: usize) -> usize {
    let page_end = (at + 1).next_multiple_of(4096);
    let piece_end = (start + at + 1).next_multiple_of(PIECE_BYTES as usize) - start;
    page_end.min(piece_end)
}

fn useful(status: &Status) -> u64 {
    status.bytes("downloaded_bytes") - status.bytes("wasted_bytes")
}

fn check(run: &Run, durable_before: u64, when: &str) {
    assert!(
        run.durable_at_start >= durable_before,
        "{when}: {durable_before} bytes were durable before the kill, {} after it",
        run.durable_at_start
    );
    // What had come before the first line is not counted: some of it may be durable by then.
    let useful = useful(&run.last) - run.useful_at_start;
    assert!(
        useful <= TOTAL_BYTES - run.durable_at_start,
        "{when}: {useful} bytes fetched, though only {} were not durable",
        TOTAL_BYTES - run.durable_at_start
    );
}

fn kill_and_resume(seed: u64, files: &[(&str, u64)]) {
    // Beside the build: on a disk, where /tmp may be memory.
    let temp = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("temporary directory");
    let path = |name: &str| temp.path().join(name);
    let torrent = Torrent::multi(&path("source"), "crash", files, PIECE_BYTES, seed);
    assert_eq!(torrent.total_bytes, TOTAL_BYTES);
    let file = torrent.write(&path("crash.torrent"), None);
    let mut source = Node::spawn("relay", &mut relay(&file, &path("source"), temp.path()), temp.path());
    let addr = source.wait_seeding();

    let mut rng = Rng::new(seed);
    let (mut kills, mut fetches, mut kept) = (0, 0, 0);
    while kills < KILLS {
        fetches += 1;
        let dir = path(&format!("dir-{fetches}"));
        let scratch = path(&format!("scratch-{fetches}"));
        let kills_end = KILLS.min(kills + 1 + rng.below(KILLS_PER_FETCH_MAX));
        let mut durable = 0;
        loop {
            // From "at once" to "when nearly all is there"; after the last kill it may complete.
            let bytes = if kills < kills_end { rng.below(TOTAL_BYTES as u32).into() } else { u64::MAX };
            let run = run_until(&file, &dir, &scratch, addr, bytes);
            let when = format!("seed {seed}, fetch {fetches}, kill {kills} after {bytes} bytes");
            check(&run, durable, &when);
            durable = run.last.bytes("durable_bytes").max(run.durable_at_start);
            let right = assert_no_wrong_byte(&torrent, &dir, &when);
            assert!(right >= durable, "{when}: {durable} bytes are called durable, {right} are right");
            if !run.killed {
                break;
            }
            kills += 1;
            kept += u32::from(durable > 0);
        }
        torrent.assert_identical(&dir, &format!("seed {seed}, fetch {fetches}"));
        std::fs::remove_dir_all(&dir).expect("remove what was fetched");
    }
    // Otherwise nothing was at stake.
    assert!(kept >= KILLS / 5, "only {kept} of {kills} kills found durable pieces");
    println!("seed {seed}: {kills} kills in {fetches} fetches, {kept} with durable pieces");
}

#[test]
fn kill_1_one_file() {
    kill_and_resume(1, &[("whole", TOTAL_BYTES)]);
}

#[test]
fn kill_2_one_file() {
    kill_and_resume(2, &[("whole", TOTAL_BYTES)]);
}

#[test]
fn kill_3_awkward_files() {
    kill_and_resume(3, FILES);
}

#[test]
fn kill_4_awkward_files() {
    kill_and_resume(4, FILES);
}
