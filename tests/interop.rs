//! Real transfers between `troc` and each other client: both directions, found by a tracker and by
//! being told, the result compared by SHA-256.

mod support;

use std::path::Path;

use support::clients::{Job, Kind, Speech};
use support::node::{Node, get, relay, troc};
use support::scene::Scene;

/// A torrent of 16 MiB.
fn scene() -> Scene {
    Scene::new(16 << 20, 256 << 10, 16)
}

/// `client` seeds, `troc get` fetches.
fn seeds_to_get(kind: Kind, tracked: bool) {
    if !kind.available() {
        return;
    }
    let scene = scene();
    let client = scene.client(kind, Job::Seed, Speech::Any);
    let mut command = get(&scene.file(tracked), &scene.path("fetched"), scene.temp.path());
    if !tracked {
        command.arg("--peer").arg(client.addr.to_string());
    }
    Node::spawn("get", &mut command, scene.temp.path()).expect_done();
    scene.assert_fetched("troc get");
}

/// `troc relay` seeds, `client` fetches, and `troc` or the client dials as the tracker told.
fn fetches_from_relay(kind: Kind) {
    if !kind.available() {
        return;
    }
    let scene = scene();
    let mut client = scene.client(kind, Job::Fetch, Speech::Any);
    let mut command = relay(&scene.file(true), &scene.path("source"), scene.temp.path());
    let mut node = Node::spawn("relay", &mut command, scene.temp.path());
    node.wait_seeding();
    client.wait_complete(&scene.tracker);
    scene.assert_fetched(&format!("{kind:?}"));
}

/// A complete `troc get --seed` dials `client` because it was told to.
fn is_dialled_by_a_seed(kind: Kind) {
    if !kind.available() {
        return;
    }
    let scene = scene();
    let mut client = scene.client(kind, Job::Fetch, Speech::Any);
    let mut command = get(&scene.file(false), &scene.path("source"), scene.temp.path());
    command.args(["--seed", "--peer"]).arg(client.addr.to_string());
    let mut node = Node::spawn("get", &mut command, scene.temp.path());
    node.wait("seeding", |status| status.state() == "seeding");
    client.wait_complete(&scene.tracker);
    scene.assert_fetched(&format!("{kind:?}"));
}

/// `client` dials a relay because it was told to. Not every client can be told.
fn dials_a_relay(kind: Kind) {
    if !kind.available() {
        return;
    }
    let scene = scene();
    let mut client = scene.client(kind, Job::Fetch, Speech::Any);
    let mut command = relay(&scene.file(false), &scene.path("source"), scene.temp.path());
    let mut node = Node::spawn("relay", &mut command, scene.temp.path());
    let addr = node.wait_seeding();
    assert!(client.dial(addr), "{kind:?} cannot be told of a peer");
    client.wait_complete(&scene.tracker);
    scene.assert_fetched(&format!("{kind:?}"));
}

macro_rules! directions {
    ($module:ident, $kind:expr) => {
        mod $module {
            use super::*;

            #[test]
            fn seeds_to_get_found_by_tracker() {
                seeds_to_get($kind, true);
            }

            #[test]
            fn seeds_to_get_told_its_address() {
                seeds_to_get($kind, false);
            }

            #[test]
            fn fetches_from_relay_found_by_tracker() {
                fetches_from_relay($kind);
            }

            #[test]
            fn fetches_from_a_seed_that_dials_it() {
                is_dialled_by_a_seed($kind);
            }
        }
    };
}

directions!(aria2, Kind::Aria2);
directions!(libtorrent, Kind::Libtorrent);
directions!(rtorrent, Kind::Rtorrent);
directions!(transmission, Kind::Transmission);

#[test]
fn libtorrent_dials_a_relay() {
    dials_a_relay(Kind::Libtorrent);
}

#[test]
fn rtorrent_dials_a_relay() {
    dials_a_relay(Kind::Rtorrent);
}

#[test]
fn troc_fetches_from_troc() {
    let scene = scene();
    let mut command = relay(&scene.file(false), &scene.path("source"), scene.temp.path());
    let mut seed = Node::spawn("relay", &mut command, scene.temp.path());
    let addr = seed.wait_seeding();
    let mut command = get(&scene.file(false), &scene.path("fetched"), scene.temp.path());
    command.arg("--peer").arg(addr.to_string());
    let mut fetcher = Node::spawn("get", &mut command, scene.temp.path());
    fetcher.expect_done();
    scene.assert_fetched("troc get");
}

/// The same bytes make the same torrent: `troc create` against the metainfo made by hand.
#[test]
fn create_agrees_with_metainfo_made_by_hand() {
    let scene = scene();
    let out = scene.path("created.torrent");
    let mut command = troc("create", scene.temp.path());
    command.arg(scene.path("source").join("payload.bin")).arg("-o").arg(&out);
    command.args(["--piece-size", "256KiB", "--tracker"]).arg(scene.tracker.url());
    let output = command.output().expect("troc runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let shown = troc("show", scene.temp.path()).arg(&out).arg("--json").output().expect("troc runs");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains(&scene.torrent.info_hash_hex()), "another info hash: {shown}");
    seeded_by_libtorrent(&scene, &out);
}

/// libtorrent reads what `troc create` wrote.
fn seeded_by_libtorrent(scene: &Scene, file: &Path) {
    if !Kind::Libtorrent.available() {
        return;
    }
    let code = "import libtorrent, sys; print(libtorrent.torrent_info(sys.argv[1]).info_hash())";
    let output = std::process::Command::new(support::clients::python())
        .args(["-c", code])
        .arg(file)
        .output()
        .expect("python runs");
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert_eq!(said, scene.torrent.info_hash_hex(), "{}", String::from_utf8_lossy(&output.stderr));
}
