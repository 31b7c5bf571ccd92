//! Other people's clients behind one face: each seeds or fetches one torrent.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::Process;
use super::torrent::Torrent;
use super::tracker::Tracker;
use super::{free_port, qbittorrent, rtorrent, skip, transmission};

/// Which client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// aria2c.
    Aria2,
    /// libtorrent-rasterbar by its Python binding.
    Libtorrent,
    /// qbittorrent-nox.
    Qbittorrent,
    /// rtorrent.
    Rtorrent,
    /// transmission-daemon.
    Transmission,
}

/// What a client has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// Hash what lies in the directory, then serve it.
    Seed,
    /// Fetch into the directory.
    Fetch,
    /// The same at a rate at which nothing is complete in the time of a test.
    Starve,
}

/// Which connections a client makes and takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    /// As it does by itself.
    Any,
    /// Encrypted ones alone.
    Encrypted,
}

/// Everything a client needs to start.
pub struct Start<'a> {
    /// What it does.
    pub job: Job,
    /// The torrent.
    pub torrent: &'a Torrent,
    /// Every client announces here; it tells when the client is ready, and when it is done.
    pub tracker: &'a Tracker,
    /// Where the payload is or will be.
    pub dir: &'a Path,
    /// A directory of its own for configuration and logs.
    pub scratch: &'a Path,
    /// The loopback address it listens on and dials from.
    pub ip: Ipv4Addr,
}

/// A running client.
pub struct Client {
    /// Which one.
    pub kind: Kind,
    /// Where it accepts peers.
    pub addr: SocketAddr,
    process: Process,
    info_hash: [u8; 20],
    job: Job,
    scratch: PathBuf,
}

/// The interpreter that has libtorrent: `TROC_VENV` or `.venv` in the project.
pub fn python() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv").into_os_string();
    PathBuf::from(std::env::var_os("TROC_VENV").unwrap_or_else(default)).join("bin/python")
}

impl Kind {
    /// Whether the client is installed; says a named skip, or fails under `CI=true`, if it is not.
    pub fn available(self) -> bool {
        let mut command = match self {
            Self::Aria2 => Command::new("aria2c"),
            Self::Libtorrent => Command::new(python()),
            Self::Qbittorrent => Command::new("qbittorrent-nox"),
            Self::Rtorrent => Command::new("rtorrent"),
            Self::Transmission => Command::new("transmission-daemon"),
        };
        match self {
            Self::Libtorrent => command.args(["-c", "import libtorrent"]),
            Self::Rtorrent => command.arg("-h"),
            Self::Aria2 | Self::Qbittorrent | Self::Transmission => command.arg("--version"),
        };
        let found = command.output().is_ok_and(|output| output.status.success());
        if !found {
            skip(&format!("{self:?}"), "the client is not installed (run scripts/setup)");
        }
        found
    }

    /// Starts the client.
    pub fn start(self, start: &Start<'_>) -> Client {
        self.start_speaking(start, Speech::Any)
    }

    /// Starts the client, which speaks so.
    pub fn start_speaking(self, start: &Start<'_>, speech: Speech) -> Client {
        std::fs::create_dir_all(start.scratch).expect("scratch directory");
        let file = start.torrent.write(&start.scratch.join("own.torrent"), Some(&start.tracker.url()));
        self.start_with(start, file, speech)
    }

    /// The same with a magnet link for the .torrent file. Not rtorrent.
    pub fn start_by_link(self, start: &Start<'_>, link: &str) -> Client {
        std::fs::create_dir_all(start.scratch).expect("scratch directory");
        self.start_with(start, link.into(), Speech::Any)
    }

    fn start_with(self, start: &Start<'_>, file: PathBuf, speech: Speech) -> Client {
        let port = free_port();
        std::fs::create_dir_all(start.dir).expect("download directory");
        let addr = SocketAddr::from((start.ip, port));
        let mut command = match self {
            Self::Aria2 => aria2(start, addr, &file),
            Self::Libtorrent => libtorrent(start, addr, &file),
            Self::Qbittorrent => qbittorrent::command(start, addr, &file),
            Self::Rtorrent => rtorrent::command(start, addr, &file),
            Self::Transmission => transmission::command(start, addr, speech),
        };
        if speech == Speech::Encrypted {
            match self {
                Self::Aria2 => command.args(["--bt-force-encryption=true", "--bt-min-crypto-level=arc4"]),
                Self::Libtorrent => command.arg("--encrypt"),
                Self::Transmission => &mut command,
                Self::Qbittorrent | Self::Rtorrent => panic!("not asked of {self:?}"),
            };
        }
        let process = Process::spawn(&format!("{self:?}"), &mut command, start.scratch);
        if self == Self::Transmission {
            transmission::add(start, &file);
        }
        Client {
            kind: self,
            addr,
            process,
            info_hash: start.torrent.info_hash,
            job: start.job,
            scratch: start.scratch.to_owned(),
        }
    }
}

impl Client {
    /// Waits until the client has announced itself: a seed as complete, a fetcher at all.
    pub fn wait_ready(&self, tracker: &Tracker) {
        match self.job {
            Job::Seed => tracker.wait_complete(self.info_hash, self.addr.port()),
            Job::Fetch | Job::Starve => tracker.wait_announced(self.info_hash, self.addr.port()),
        };
    }

    /// Waits until the client says that it has everything, on disk.
    pub fn wait_complete(&mut self, tracker: &Tracker) {
        match self.kind {
            Kind::Aria2 => self.process.expect_success(),
            Kind::Libtorrent => {
                self.process.expect_line("finished", |line| line.contains(r#""finished""#).then_some(()));
            }
            Kind::Rtorrent => rtorrent::wait_complete(&self.scratch, self.info_hash),
            Kind::Qbittorrent | Kind::Transmission => {
                tracker.wait_complete(self.info_hash, self.addr.port());
            }
        }
    }

    /// Has the client dial `peer`. False if it has no way to be told so.
    pub fn dial(&mut self, peer: SocketAddr) -> bool {
        match self.kind {
            Kind::Libtorrent => self.process.say(&format!("peer {} {}", peer.ip(), peer.port())),
            Kind::Rtorrent => rtorrent::add_peer(&self.scratch, self.info_hash, peer),
            Kind::Aria2 | Kind::Qbittorrent | Kind::Transmission => return false,
        }
        true
    }
}

fn aria2(start: &Start<'_>, addr: SocketAddr, file: &Path) -> Command {
    let mut command = Command::new("aria2c");
    command
        .args([
            "--no-conf=true",
            "--file-allocation=none",
            "--summary-interval=0",
            "--console-log-level=warn",
        ])
        .args(["--enable-dht=false", "--enable-dht6=false", "--bt-enable-lpd=false", "--disable-ipv6=true"])
        .args(["--enable-peer-exchange=false", "--check-integrity=true", "--bt-tracker-interval=1"])
        .arg(match start.job {
            Job::Seed => "--seed-ratio=0.0",
            Job::Fetch | Job::Starve => "--seed-time=0",
        })
        .arg(format!("--stop-with-process={}", std::process::id()))
        .arg(format!("--listen-port={}", addr.port()))
        .arg(format!("--interface={}", addr.ip()))
        .arg(format!("--dir={}", start.dir.display()))
        .arg(file);
    command
}

fn libtorrent(start: &Start<'_>, addr: SocketAddr, file: &Path) -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/libtorrent_peer.py");
    let mut command = Command::new(python());
    command.arg(script).arg("--torrent").arg(file).arg("--dir").arg(start.dir);
    command.arg("--listen").arg(addr.to_string()).arg("--bind");
    if start.job == Job::Seed {
        command.arg("--seed");
    }
    if start.job == Job::Starve {
        command.args(["--download-limit", "1000"]);
    }
    command
}
