//! `troc` itself: spawned, read line by line.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::process::Process;

/// A running `troc get` or `troc relay`.
pub struct Node {
    /// The process.
    pub process: Process,
}

/// One status line of `--json`.
#[derive(Clone, Debug)]
pub struct Status(pub Value);

impl Status {
    fn parse(line: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(line).ok()?;
        value.get("torrents").is_some().then_some(Self(value))
    }

    /// Where peers are accepted.
    pub fn listen(&self) -> Option<SocketAddr> {
        self.0["listen"].as_str()?.parse().ok()
    }

    /// A number of the first torrent.
    pub fn bytes(&self, field: &str) -> u64 {
        self.0["torrents"][0][field].as_u64().unwrap_or_else(|| panic!("no {field} in {}", self.0))
    }

    /// `checking`, `fetching`, `seeding` or `stopped`, of the first torrent.
    pub fn state(&self) -> &str {
        self.0["torrents"][0]["state"].as_str().unwrap_or_else(|| panic!("no state in {}", self.0))
    }
}

/// A `troc` command with its state below `scratch`, one worker, and nothing from the environment.
pub fn troc(verb: &str, scratch: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_troc"));
    command.arg(verb).env("TROC_STATE", scratch.join(format!("{verb}-state")));
    command
}

/// `troc get` of `torrent` into `dir`.
pub fn get(torrent: &Path, dir: &Path, scratch: &Path) -> Command {
    let mut command = troc("get", scratch);
    command.arg(torrent).arg("-o").arg(dir).args([
        "--json",
        "--status-interval-ms",
        "10",
        "--cache",
        "64MiB",
    ]);
    command
}

/// `troc relay` of `torrent`, whose payload is below `dir`, on a port of the kernel's choice.
pub fn relay(torrent: &Path, dir: &Path, scratch: &Path) -> Command {
    let mut command = troc("relay", scratch);
    command.arg(torrent).arg("--dir").arg(dir).args([
        "--listen",
        "127.0.0.1:0",
        "--json",
        "--cache",
        "64MiB",
    ]);
    command
}

impl Node {
    /// Starts a command made by [`get`] or [`relay`].
    pub fn spawn(name: &str, command: &mut Command, scratch: &Path) -> Self {
        Self { process: Process::spawn(name, command, scratch) }
    }

    /// Waits for a status line that satisfies `holds`.
    pub fn wait(&mut self, what: &str, holds: impl Fn(&Status) -> bool) -> Status {
        self.process.expect_line(what, |line| Status::parse(line).filter(&holds))
    }

    /// Waits until it listens and seeds.
    pub fn wait_seeding(&mut self) -> SocketAddr {
        let status = self.wait("seeding", |status| status.state() == "seeding" && status.listen().is_some());
        status.listen().unwrap_or_else(|| self.process.fail("does not listen"))
    }

    /// Waits until it listens, whatever it does.
    pub fn wait_listening(&mut self) -> SocketAddr {
        let status = self.wait("its address", |status| status.listen().is_some());
        status.listen().unwrap_or_else(|| self.process.fail("does not listen"))
    }

    /// The next status line, or `None` at the end of the process.
    pub fn next_status(&mut self) -> Option<Status> {
        loop {
            if let Some(status) = Status::parse(&self.process.next_line()?) {
                return Some(status);
            }
        }
    }

    /// Requires that the process ends with status 0.
    pub fn expect_done(&mut self) {
        self.process.expect_success();
    }
}
