//! The other clients among themselves, through the tests' own tracker: when one of these fails, the
//! machine or the harness is at fault and not `troc`.

mod support;

use std::net::Ipv4Addr;

use support::clients::{Job, Kind, Start};
use support::torrent::Torrent;
use support::tracker::Tracker;

/// `seed` serves 16 MiB to `fetcher`, found by the tracker or by being told.
fn transfer(seed: Kind, fetcher: Kind) {
    if !seed.available() || !fetcher.available() {
        return;
    }
    let temp = tempfile::tempdir().expect("temporary directory");
    let tracker = Tracker::start();
    let torrent = Torrent::single(&temp.path().join("source"), "payload.bin", 16 << 20, 256 << 10, 7);
    let start = |kind: Kind, job, dir: &str| {
        kind.start(&Start {
            job,
            torrent: &torrent,
            tracker: &tracker,
            dir: &temp.path().join(dir),
            scratch: &temp.path().join(format!("{kind:?}")),
            ip: Ipv4Addr::LOCALHOST,
        })
    };
    // The fetcher first: a seed that will not be dialled (transmission shuns loopback) dials it.
    let mut fetching = start(fetcher, Job::Fetch, "fetched");
    fetching.wait_ready(&tracker);
    let seeding = start(seed, Job::Seed, "source");
    seeding.wait_ready(&tracker);
    fetching.dial(seeding.addr);
    fetching.wait_complete(&tracker);
    torrent.assert_identical(&temp.path().join("fetched"), &format!("{fetcher:?}"));
}

#[test]
fn aria2_fetches_from_libtorrent() {
    transfer(Kind::Libtorrent, Kind::Aria2);
}

#[test]
fn libtorrent_fetches_from_transmission() {
    transfer(Kind::Transmission, Kind::Libtorrent);
}

#[test]
fn transmission_fetches_from_rtorrent() {
    transfer(Kind::Rtorrent, Kind::Transmission);
}

#[test]
fn rtorrent_fetches_from_aria2() {
    transfer(Kind::Aria2, Kind::Rtorrent);
}
