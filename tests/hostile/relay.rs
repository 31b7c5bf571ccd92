//! A relay with a small torrent, and what the system says of a process.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;

use super::support::node::{Node, relay};
use super::support::poll;
use super::support::torrent::Torrent;
use super::wire::Payload;

/// Four blocks in a piece.
pub const PIECE: u32 = 64 << 10;
/// Sixteen pieces and a short one, whose last block is short too.
pub const TOTAL: u64 = (1 << 20) + 20_000;

/// A torrent on disk in a directory of its own.
pub struct Scene {
    /// The directory; removed at the end.
    pub temp: TempDir,
    /// The torrent; its payload lies in `source`.
    pub torrent: Torrent,
    /// Its .torrent file.
    pub file: PathBuf,
    /// Its bytes.
    pub payload: Arc<Payload>,
}

impl Scene {
    /// The usual small one.
    pub fn new() -> Self {
        Self::sized(TOTAL, PIECE)
    }

    /// The usual one where other users come too: what was cloned below a home they may not enter.
    pub fn public() -> Self {
        Self::in_dir(tempfile::tempdir().expect("temporary directory"), TOTAL, PIECE)
    }

    /// One of so many bytes.
    pub fn sized(total: u64, piece_bytes: u32) -> Self {
        let temp = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("temporary directory");
        Self::in_dir(temp, total, piece_bytes)
    }

    fn in_dir(temp: TempDir, total: u64, piece_bytes: u32) -> Self {
        let torrent = Torrent::single(&temp.path().join("source"), "whole", total, piece_bytes.into(), 1);
        let file = torrent.write(&temp.path().join("a.torrent"), None);
        let payload = Payload::of(&torrent, piece_bytes);
        Self { temp, torrent, file, payload }
    }

    /// A path in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// Where the payload of the source lies.
    pub fn source_file(&self) -> PathBuf {
        self.torrent.source.join(&self.torrent.name)
    }

    /// A relay that serves it.
    pub fn relay(&self) -> Relay {
        let mut command = relay(&self.file, &self.torrent.source, self.temp.path());
        let mut node = Node::spawn("relay", &mut command, self.temp.path());
        let addr = node.wait_seeding();
        Relay { node, addr }
    }
}

/// A running one.
pub struct Relay {
    /// The process.
    pub node: Node,
    /// Where it accepts.
    pub addr: SocketAddr,
}

/// Waits until a process has exactly `base` sockets again.
pub fn wait_sockets(pid: u32, base: usize) {
    poll("sockets go back", || (sockets(pid) == base).then_some(()));
}

/// Open sockets of a process. All that do not belong to a peer are open before the first status line:
/// listeners, and the pair by which signals come. Other descriptors come and go with journal and syncs.
pub fn sockets(pid: u32) -> usize {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("a living process");
    // A descriptor that was closed since it was listed has no target.
    let targets = entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    targets.filter(|target| target.as_os_str().as_encoded_bytes().starts_with(b"socket:")).count()
}

/// Open descriptors of a process.
pub fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).expect("a living process").count()
}

/// A line `name: value` of a file in /proc.
pub fn proc_value(pid: u32, file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).expect("a living process");
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("the line is there");
    let number = line.trim_start_matches(':').split_whitespace().next().expect("a value");
    number.parse().expect("a number")
}
