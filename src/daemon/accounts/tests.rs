use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::base::limits::HALF_LIFE_ADDRESS;
use crate::base::network::Grouping;
use crate::engine::identity::Identity;
use crate::storage::ledger::{Flaw, PartyKind};

const MIB: u64 = 1 << 20;
const NOW: Instant = Instant(1 << 50);
const WALL_S: u64 = 1_700_000_000;

/// A state directory, and how much it remembers of parties 7 and 9.
struct Node {
    state: TempDir,
}

impl Node {
    fn new() -> Self {
        Self { state: tempfile::tempdir().unwrap() }
    }

    fn state(&self) -> StateDir {
        StateDir::open(self.state.path()).unwrap()
    }

    fn start_at(&self, wall_s: u64) -> (Accounts, Arc<Ledger>) {
        let ledger = Arc::new(Ledger::new(1 << 10));
        (Accounts::open(&self.state(), Arc::clone(&ledger), Role::Relay, wall_s, NOW), ledger)
    }

    fn start(&self) -> (Accounts, Arc<Ledger>) {
        self.start_at(WALL_S)
    }

    fn path(&self) -> std::path::PathBuf {
        self.state.path().join("ledger")
    }

    fn said(&self) -> Vec<(u64, u64)> {
        let replay = self.state().glance_ledger().unwrap().unwrap().unwrap();
        replay.balances.iter().map(|balance| (balance.key, balance.received_bytes)).collect()
    }
}

fn given(ledger: &Ledger, party: u64) -> u64 {
    let id = ledger.open(party);
    let given = ledger.standing(id).received_bytes;
    ledger.close(id);
    given
}

fn give(ledger: &Ledger, party: u64, bytes: u64) {
    let id = ledger.open(party);
    ledger.credit(party, bytes);
    ledger.close(id);
}

#[test]
fn balances_are_there_after_a_crash_and_after_a_stop() {
    let node = Node::new();
    tokio_uring::start(async {
        let (mut accounts, ledger) = node.start();
        accounts.look_after(WALL_S, NOW).await;
        assert!(!node.path().exists(), "nothing to remember, nothing written");
        give(&ledger, 7, 3 * MIB);
        accounts.look_after(WALL_S, NOW).await;
        give(&ledger, 9, 2 * MIB);
        accounts.look_after(WALL_S, NOW).await;
        give(&ledger, 9, MIB);
        drop(accounts); // as a crash leaves it: the last was not written

        let (mut accounts, ledger) = node.start();
        assert_eq!((given(&ledger, 7), given(&ledger, 9), given(&ledger, 11)), (3 * MIB, 2 * MIB, 0));
        give(&ledger, 11, MIB);
        accounts.look_after(WALL_S, NOW).await;
        assert_eq!(node.said(), [(7, 3 * MIB), (9, 2 * MIB), (11, MIB)], "what was remembered stays so");
    });
}

#[test]
fn a_party_is_found_again_at_the_next_start() {
    let node = Node::new();
    let of = || Identity::of("8.8.8.8:1".parse().unwrap(), &Grouping::default(), node.state().party_secret());
    assert_eq!(of(), of());
    let other =
        Identity::of("8.8.8.8:1".parse().unwrap(), &Grouping::default(), Node::new().state().party_secret());
    assert_ne!(of(), other, "on another node it has another name");
    assert_ne!(node.state().party_secret(), node.state().fingerprint().of(b""));
}

#[test]
fn time_that_a_node_is_down_counts_and_jumps_of_the_clock_give_nothing() {
    let half_life_s = HALF_LIFE_ADDRESS.as_ms() / 1000;
    for (wall_s, left) in [
        (0, 8 * MIB),
        (WALL_S - 1, 8 * MIB),
        (WALL_S + half_life_s - 1, 8 * MIB),
        (WALL_S + half_life_s, 4 * MIB),
        (WALL_S + 3 * half_life_s, MIB),
        (u64::MAX, 0),
    ] {
        let node = Node::new();
        tokio_uring::start(async {
            let (mut accounts, ledger) = node.start();
            give(&ledger, 7, 8 * MIB);
            let key = ledger.open_as(9, PartyKind::Key);
            ledger.credit(9, 8 * MIB);
            ledger.close(key);
            accounts.look_after(WALL_S, NOW).await;
            drop(accounts);
            let (_, ledger) = node.start_at(wall_s);
            assert_eq!(given(&ledger, 7), left, "{wall_s}");
            let keyed = if wall_s == u64::MAX { 4 * MIB } else { 8 * MIB };
            assert_eq!(given(&ledger, 9), keyed, "{wall_s}");
        });
    }
}

#[test]
fn time_passes_while_a_node_runs() {
    let node = Node::new();
    tokio_uring::start(async {
        let (mut accounts, ledger) = node.start();
        give(&ledger, 7, 8 * MIB);
        accounts.look_after(WALL_S, NOW + HALF_LIFE_ADDRESS).await;
        assert_eq!(given(&ledger, 7), 4 * MIB);
        accounts.look_after(0, Instant(0)).await;
        assert_eq!(given(&ledger, 7), 4 * MIB, "backwards");
    });
}

fn set_aside(accounts: &Accounts, node: &Node, path: &Path) -> bool {
    assert!(accounts.kept.is_some(), "it goes on");
    let aside = node.path().with_extension("damaged");
    let is_there = aside.exists();
    assert!(!is_there || std::fs::read(&aside).unwrap() == std::fs::read(path).unwrap());
    is_there
}

#[test]
fn a_damaged_ledger_is_read_as_far_as_it_is_good_and_set_aside() {
    let node = Node::new();
    tokio_uring::start(async {
        let (mut accounts, ledger) = node.start();
        for party in [7, 9] {
            give(&ledger, party, party * MIB);
            accounts.look_after(WALL_S, NOW).await;
        }
        drop(accounts);
        let good = std::fs::read(node.path()).unwrap();
        for (bytes, nine) in [(&good[..], 9 * MIB), (&good[..good.len() - 1], 0)] {
            std::fs::write(node.path(), bytes).unwrap();
            let (accounts, ledger) = node.start();
            assert_eq!((given(&ledger, 7), given(&ledger, 9)), (7 * MIB, nine));
            assert_eq!(set_aside(&accounts, &node, &node.path()), nine == 0);
        }
        std::fs::write(node.path(), [&good[..], b"more"].concat()).unwrap();
        let (mut accounts, ledger) = node.start();
        assert!(set_aside(&accounts, &node, &node.path()));
        assert_eq!(given(&ledger, 9), 9 * MIB);
        accounts.look_after(WALL_S, NOW).await;
        drop(accounts);
        assert_eq!(node.state().open_ledger().unwrap().set_aside, None, "it is whole again");

        std::fs::write(node.path(), b"something else").unwrap();
        let (accounts, ledger) = node.start();
        assert!(set_aside(&accounts, &node, &node.path()));
        assert_eq!(given(&ledger, 7), 0);
    });
}

#[test]
fn a_ledger_of_another_version_or_secret_is_set_aside() {
    let node = Node::new();
    tokio_uring::start(async {
        let (mut accounts, ledger) = node.start();
        give(&ledger, 7, 7 * MIB);
        accounts.look_after(WALL_S, NOW).await;
        drop(accounts);
        let good = std::fs::read(node.path()).unwrap();
        let mut newer = good.clone();
        newer[8] += 1;
        let check = xxhash_rust::xxh3::xxh3_64(&newer[..12]) as u32;
        newer[12..16].copy_from_slice(&check.to_le_bytes());
        std::fs::write(node.path(), &newer).unwrap();
        let opened = node.state().open_ledger().unwrap();
        assert_eq!(opened.set_aside.unwrap().0, Flaw::Version { found: 2 });
        let (accounts, ledger) = {
            drop(opened.file);
            node.start()
        };
        assert_eq!((given(&ledger, 7), set_aside(&accounts, &node, &node.path())), (0, true));
        drop(accounts);

        std::fs::write(node.path(), &good).unwrap();
        std::fs::remove_file(node.state.path().join("secret")).unwrap();
        let opened = node.state().open_ledger().unwrap();
        assert_eq!((opened.set_aside.unwrap().0, opened.replay), (Flaw::OtherSecret, None));
    });
}

#[test]
fn a_second_node_on_the_same_state_directory_leaves_the_ledger_alone() {
    let node = Node::new();
    tokio_uring::start(async {
        let (mut first, ledger) = node.start();
        give(&ledger, 7, 7 * MIB);
        first.look_after(WALL_S, NOW).await;
        let error = node.state().open_ledger().unwrap_err().to_string();
        assert!(
            error.contains(&format!("process {}", std::process::id())) && !error.contains('\n'),
            "{error}"
        );
        let (mut second, other) = node.start();
        assert!(second.kept.is_none());
        give(&other, 9, 9 * MIB);
        second.look_after(WALL_S, NOW + HALF_LIFE_ADDRESS).await;
        assert_eq!(given(&other, 9), 9 * MIB / 2, "its balances age all the same");
        assert_eq!(node.said(), [(7, 7 * MIB)]);
        drop(first);
        assert_eq!(given(&node.start().1, 7), 7 * MIB);
    });
}

#[test]
fn a_ledger_that_cannot_be_written_is_tried_again_and_stops_nobody() {
    let node = Node::new();
    let hidden = node.state.path().with_extension("hidden");
    tokio_uring::start(async {
        let (mut accounts, ledger) = node.start();
        give(&ledger, 7, 7 * MIB);
        std::fs::rename(node.state.path(), &hidden).unwrap();
        for _ in 0..2 {
            accounts.look_after(WALL_S, NOW).await;
            assert!(accounts.failing);
        }
        std::fs::rename(&hidden, node.state.path()).unwrap();
        accounts.look_after(WALL_S, NOW).await;
        assert!(!accounts.failing);
    });
    assert_eq!(node.said(), [(7, 7 * MIB)]);
}
