//! `troc bench`: a load generator and a synthetic source, for `troc` and for any other BitTorrent node.
//!
//! Each is one thread. The generators run on epoll, so that they cost little beside what they measure and
//! share no code with the data path of a node; the source is a bare ring, which a node is compared with.

#![allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]

pub mod hash;
pub mod histogram;
pub mod judge;
pub mod leech;
pub mod net;
pub mod payload;
pub mod process;
pub mod seed;
pub mod storm;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand, ValueHint};

use crate::base::human;
use crate::base::limits::{
    BENCH_CONNECTIONS_MAX, BENCH_DEPTH_MAX, BENCH_LISTENERS_MAX, BENCH_SECONDS_MAX, METAINFO_BYTES_MAX,
};
use crate::io::sockets::raise_nofile;
use crate::proto::metainfo::Metainfo;

/// `troc bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// What to measure with.
    #[command(subcommand)]
    pub kind: BenchKind,
}

/// The sides of a measurement.
#[derive(Debug, Subcommand)]
pub enum BenchKind {
    /// Load a seeder: fetch, throw away, and say how fast and how fairly it served
    Leech(LeechArgs),
    /// Serve a payload from memory to any fetcher
    Seed(SeedArgs),
    /// Open and close connections to a seeder, or open many and hold them
    Storm(StormArgs),
    /// Hash memory on all allowed CPUs: what create and verify can reach
    Hash(HashArgs),
}

/// `troc bench leech`.
#[derive(Debug, Args)]
pub struct LeechArgs {
    /// The seeder's address
    #[arg(value_name = "ADDR:PORT", value_parser = human::parse_address)]
    pub seeder: SocketAddr,
    /// The torrent that it seeds
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub torrent: PathBuf,
    /// How many connections to open
    #[arg(long, value_name = "N", default_value_t = 16,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(BENCH_CONNECTIONS_MAX)))]
    pub connections: u32,
    /// Requests of 16 KiB kept outstanding on each connection, unless the seeder takes fewer
    #[arg(long, value_name = "D", default_value_t = 64,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(BENCH_DEPTH_MAX)))]
    pub depth: u32,
    /// How long to measure, from the moment on which every connection has had a block
    #[arg(long, value_name = "S", default_value_t = 10,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(BENCH_SECONDS_MAX)))]
    pub seconds: u32,
    /// End as soon as so many bytes came in the measured time
    #[arg(long, value_name = "BYTES")]
    pub bytes: Option<u64>,
    /// The seeder's process: its CPU time and memory are measured too
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,
    /// Run on this CPU only
    #[arg(long, value_name = "K")]
    pub cpu: Option<usize>,
    /// Dial from an address of 127.0.0.0/8 of its own on each connection
    #[arg(long)]
    pub spread: bool,
    /// Where the random starting points come from
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub rng: u64,
    /// Allow a seeder on another machine: ask its owner first
    #[arg(long)]
    pub allow_remote: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `troc bench seed`.
#[derive(Debug, Args)]
pub struct SeedArgs {
    /// The torrent to serve
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub torrent: PathBuf,
    /// Its payload: the directory that holds the file or directory with the torrent's name
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub data: PathBuf,
    /// Where to accept fetchers; port 0 takes any free one, which is then printed; may be repeated
    #[arg(long, value_name = "ADDR:PORT", required = true, value_parser = human::parse_address)]
    pub listen: Vec<SocketAddr>,
    /// Most bytes a second on each connection, such as 20MB/s
    #[arg(long, value_name = "RATE", value_parser = human::parse_rate)]
    pub rate: Option<u64>,
    /// Serve no block on a connection after so many bytes, but keep it open
    #[arg(long, value_name = "SIZE", value_parser = human::parse_size)]
    pub stall_after: Option<u64>,
    /// Run on this CPU only
    #[arg(long, value_name = "K")]
    pub cpu: Option<usize>,
    /// Serve fetchers on other machines too
    #[arg(long)]
    pub allow_remote: bool,
    /// Print the addresses as a JSON object
    #[arg(long)]
    pub json: bool,
}

/// `troc bench storm`.
#[derive(Debug, Args)]
pub struct StormArgs {
    /// The seeder's address
    #[arg(value_name = "ADDR:PORT", value_parser = human::parse_address)]
    pub seeder: SocketAddr,
    /// The torrent that it seeds
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub torrent: PathBuf,
    /// Most handshakes under way at a time; with --hold, how many connections to open
    #[arg(long, value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(BENCH_CONNECTIONS_MAX)))]
    pub connections: u32,
    /// Most connections begun in a second [default: as many as can be]
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: Option<u32>,
    /// How long to open and close; with --hold, how long to hold
    #[arg(long, value_name = "S", default_value_t = 10,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(BENCH_SECONDS_MAX)))]
    pub seconds: u32,
    /// End as soon as so many handshakes were answered
    #[arg(long, value_name = "COUNT", conflicts_with = "hold")]
    pub count: Option<u32>,
    /// Hold the connections, idle, and measure the memory that each takes
    #[arg(long)]
    pub hold: bool,
    /// The seeder's process: its CPU time and memory are measured too
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,
    /// Run on this CPU only
    #[arg(long, value_name = "K")]
    pub cpu: Option<usize>,
    /// Allow a seeder on another machine: ask its owner first
    #[arg(long)]
    pub allow_remote: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `troc bench hash`.
#[derive(Debug, Args)]
pub struct HashArgs {
    /// How long to measure
    #[arg(long, value_name = "S", default_value_t = 3,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(BENCH_SECONDS_MAX)))]
    pub seconds: u32,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Why a measurement ended without a result. Each text is one line: what, where, how to mend it.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The command line asks for what is not allowed.
    #[error("{0}")]
    Usage(String),
    /// A file, a socket or the other side failed.
    #[error("{0}")]
    Failed(String),
}

impl BenchError {
    fn io(what: &str, error: impl Into<std::io::Error>) -> Self {
        let error: std::io::Error = error.into();
        Self::Failed(format!("{what}: {error}"))
    }
}

/// Runs until the measurement is over, or, for a source, until the process is ended.
pub fn run(args: BenchArgs) -> Result<(), BenchError> {
    match args.kind {
        BenchKind::Leech(args) => run_leech(&args),
        BenchKind::Seed(args) => run_seed(&args),
        BenchKind::Storm(args) => run_storm(&args),
        BenchKind::Hash(args) => run_hash(&args),
    }
}

fn run_leech(args: &LeechArgs) -> Result<(), BenchError> {
    check_local(args.seeder, args.allow_remote)?;
    let metainfo = read_torrent(&args.torrent)?;
    process::pin(args.cpu)?;
    raise_nofile();
    let plan = leech::Plan {
        seeder: args.seeder,
        connections: args.connections,
        depth: args.depth,
        window: Duration::from_secs(args.seconds.into()),
        bytes_max: args.bytes.unwrap_or(u64::MAX),
        pid: args.pid,
        spread: args.spread,
        seed: args.rng,
    };
    let report = leech::run(&plan, &metainfo)?;
    if args.json {
        println!("{}", report.json());
    } else {
        print!("{report}");
    }
    report.verdict()
}

fn run_seed(args: &SeedArgs) -> Result<(), BenchError> {
    for addr in &args.listen {
        check_local(*addr, args.allow_remote)?;
    }
    if args.listen.len() > BENCH_LISTENERS_MAX {
        return Err(BenchError::Usage(format!("more than {BENCH_LISTENERS_MAX} addresses to listen on")));
    }
    let metainfo = read_torrent(&args.torrent)?;
    let payload = payload::Payload::read(&metainfo, &args.data)?;
    process::pin(args.cpu)?;
    raise_nofile();
    let manner = seed::Manner { rate: args.rate, stall_after: args.stall_after };
    let mut source = seed::Source::bind(&args.listen, &metainfo, payload, manner)?;
    let addrs: Vec<String> = source.local_addrs().iter().map(SocketAddr::to_string).collect();
    if args.json {
        println!("{}", serde_json::json!({ "listen": addrs }));
    } else {
        let total = metainfo.geometry.total_bytes;
        println!("serving {total} bytes on {}; end it by Ctrl-C", addrs.join(", "));
    }
    loop {
        source.turn(None);
    }
}

fn run_storm(args: &StormArgs) -> Result<(), BenchError> {
    check_local(args.seeder, args.allow_remote)?;
    let metainfo = read_torrent(&args.torrent)?;
    process::pin(args.cpu)?;
    raise_nofile();
    let plan = storm::Plan {
        seeder: args.seeder,
        connections: args.connections,
        rate: args.rate,
        window: Duration::from_secs(args.seconds.into()),
        count_max: args.count.unwrap_or(u32::MAX),
        hold: args.hold,
        pid: args.pid,
    };
    let report = storm::run(&plan, metainfo.info_hash)?;
    if args.json {
        println!("{}", report.json());
    } else {
        print!("{report}");
    }
    report.verdict()
}

fn run_hash(args: &HashArgs) -> Result<(), BenchError> {
    let report = hash::run(Duration::from_secs(args.seconds.into()))?;
    if args.json {
        println!("{}", report.json());
    } else {
        print!("{report}");
    }
    Ok(())
}

/// A load generator is a weapon: it stays on this machine unless told twice.
fn check_local(addr: SocketAddr, allow_remote: bool) -> Result<(), BenchError> {
    if addr.ip().to_canonical().is_loopback() || allow_remote {
        return Ok(());
    }
    Err(BenchError::Usage(format!(
        "{addr} is not a loopback address: use 127.0.0.1 or [::1], or add --allow-remote for machines \
         of your own"
    )))
}

fn read_torrent(path: &Path) -> Result<Metainfo, BenchError> {
    let shown = path.display();
    let length = std::fs::metadata(path).map_err(|error| BenchError::io(&shown.to_string(), error))?.len();
    if length > METAINFO_BYTES_MAX as u64 {
        return Err(BenchError::Failed(format!("{shown}: {length} bytes are too long for a .torrent file")));
    }
    let bytes = std::fs::read(path).map_err(|error| BenchError::io(&shown.to_string(), error))?;
    Metainfo::parse(&bytes).map_err(|error| BenchError::Failed(format!("{shown}: {error}")))
}

#[cfg(test)]
mod tests;
