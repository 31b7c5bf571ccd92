//! A payload, a tracker and directories: what a transfer with one other client begins with.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use tempfile::TempDir;

use super::clients::{Client, Job, Kind, Speech, Start};
use super::torrent::Torrent;
use super::tracker::Tracker;

/// `source` has the payload, `fetched` is where it goes.
pub struct Scene {
    /// Where everything lies.
    pub temp: TempDir,
    /// By which the client is found.
    pub tracker: Tracker,
    /// One file.
    pub torrent: Torrent,
}

impl Scene {
    /// A payload of so many bytes, drawn by `seed`.
    pub fn new(bytes: u64, piece_bytes: u64, seed: u64) -> Self {
        let temp = tempfile::tempdir().expect("temporary directory");
        let torrent = Torrent::single(&temp.path().join("source"), "payload.bin", bytes, piece_bytes, seed);
        Self { temp, tracker: Tracker::start(), torrent }
    }

    /// A path below the scratch directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// The .torrent file for `troc`: it names the tracker only where that is how peers are found.
    pub fn file(&self, tracked: bool) -> PathBuf {
        let url = self.tracker.url();
        self.torrent.write(&self.path("troc.torrent"), tracked.then_some(url.as_str()))
    }

    /// Starts the other client and waits until its tracker knows it.
    pub fn client(&self, kind: Kind, job: Job, speech: Speech) -> Client {
        let client = self.start(job, |start| kind.start_speaking(start, speech));
        client.wait_ready(&self.tracker);
        client
    }

    /// Starts the other client with what it is told besides.
    pub fn start(&self, job: Job, start: impl FnOnce(&Start<'_>) -> Client) -> Client {
        let dir = self.path(if job == Job::Seed { "source" } else { "fetched" });
        let (torrent, tracker, scratch) = (&self.torrent, &self.tracker, &self.path("client"));
        start(&Start { job, torrent, tracker, dir: &dir, scratch, ip: Ipv4Addr::LOCALHOST })
    }

    /// Requires that all was fetched and is right.
    pub fn assert_fetched(&self, who: &str) {
        self.torrent.assert_identical(&self.path("fetched"), who);
    }
}
