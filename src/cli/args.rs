//! What may stand on the command line. This file reflects the text; each verb's own file gives it meaning.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;

use crate::base::human;
use crate::base::limits::{CONTROL_ROWS_MAX, LEDGER_INTERVAL, UNSYNCED_BYTES_MAX};
use crate::base::network::{GroupPrefixes, Network};
use crate::base::time::Span;
use crate::cli::bench::BenchArgs;
use crate::cli::select::{FilterArgs, SelectArgs};
use crate::engine::encryption::Encryption;
use crate::io::uring::ZeroCopy;

/// A thread-per-core BitTorrent relay.
#[derive(Debug, Parser)]
#[command(
    name = "troc",
    version,
    about = "A thread-per-core BitTorrent relay: serves chunks from many sources at line rate",
    after_help = "Exit status: 0 done, 1 failed, 2 wrong usage. TROC_LOG=info logs to standard error.",
    max_term_width = 100,
    propagate_version = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The verbs, one file each.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Turn a file or a directory into a .torrent
    Create(CreateArgs),
    /// Show what a .torrent or a magnet link says
    Show(ShowArgs),
    /// Fetch a torrent; what is there already is checked and kept
    Get(GetArgs),
    /// Serve and fetch torrents until told to stop
    Relay(RelayArgs),
    /// Be a tracker, by HTTP and UDP: tell peers of one another
    Tracker(TrackerArgs),
    /// Check every piece on disk and name what is bad
    Verify(VerifyArgs),
    /// Show each connection of the nodes that run, and why it is served now
    #[command(after_help = PEERS_COLUMNS)]
    Peers(AskArgs),
    /// Show who gave and who got, and where each stands in the order of service
    #[command(after_help = LEDGER_COLUMNS)]
    Ledger(AskArgs),
    /// Measure any BitTorrent seeder or fetcher
    Bench(BenchArgs),
    /// Say what this host allows and how to mend what it does not
    Doctor(DoctorArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Print the manual page, or write one page per verb
    Man(ManArgs),
}

/// `troc create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// File or directory with the payload
    #[arg(value_hint = ValueHint::AnyPath)]
    pub path: PathBuf,
    /// Where to write the .torrent; an older one is replaced, any other file is not
    #[arg(short, long, value_name = "OUT.torrent", value_hint = ValueHint::FilePath)]
    pub output: PathBuf,
    /// Length of a piece, a power of two from 16KiB to 64MiB [default: by size]
    #[arg(long, value_name = "SIZE", value_parser = human::parse_size)]
    pub piece_size: Option<u64>,
    /// Tracker (http, https or udp); each further one is a tier of its own
    #[arg(long = "tracker", value_name = "URL", value_hint = ValueHint::Url)]
    pub trackers: Vec<String>,
    /// HTTP source of the same bytes (BEP 19)
    #[arg(long = "web-seed", value_name = "URL", value_hint = ValueHint::Url)]
    pub web_seeds: Vec<String>,
    /// Let only its trackers name peers (BEP 27)
    #[arg(long)]
    pub private: bool,
    /// A v1 torrent, which every client reads (the default)
    #[arg(long, group = "format")]
    pub v1: bool,
    /// A torrent for BitTorrent v2 alone (BEP 52)
    #[arg(long, group = "format")]
    pub v2: bool,
    /// A torrent for v1 and v2 at once (BEP 52)
    #[arg(long, group = "format")]
    pub hybrid: bool,
    /// Print the result as JSON, and one line a second while hashing
    #[arg(long)]
    pub json: bool,
}

/// `troc show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// A .torrent file or a magnet link
    #[arg(value_hint = ValueHint::FilePath)]
    pub source: String,
    /// Print one JSON object, with every file
    #[arg(long)]
    pub json: bool,
    /// List every file instead of the first 20, with the numbers that --files of get and relay takes
    #[arg(long)]
    pub files: bool,
    /// Ask the trackers how many seeds and peers they count, and how often it was completed (BEP 48)
    #[arg(long)]
    pub scrape: bool,
    /// List the files that a pattern of get and relay means, all of them
    #[arg(long = "match", value_name = "PATTERN")]
    pub pattern: Option<String>,
}

/// `troc verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// A .torrent file
    #[arg(value_hint = ValueHint::FilePath)]
    pub source: String,
    /// Directory into which it was fetched
    #[arg(value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
    /// Compare with the fingerprints of what get or relay verified here; hash only what they do not settle
    #[arg(long)]
    pub fast: bool,
    /// Where get or relay keep their journals [default: $TROC_STATE, $XDG_STATE_HOME/troc, or
    /// ~/.local/state/troc]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub state: Option<PathBuf>,
    /// See [`FilterArgs`].
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Print the result as JSON, and one line a second while checking
    #[arg(long)]
    pub json: bool,
}

/// What `get` and `relay` have in common.
#[derive(Debug, Args)]
pub struct NodeArgs {
    /// Where to accept peers; port 0 takes any free one [default: 0.0.0.0:6881, and any free port for get]
    #[arg(long, value_name = "ADDR:PORT", value_parser = human::parse_address)]
    pub listen: Option<SocketAddr>,
    /// A peer to connect to, an address or a host name; may be repeated
    #[arg(long = "peer", value_name = "ADDR:PORT")]
    pub peers: Vec<String>,
    /// An HTTP source of the same bytes, beside those that the torrent names (BEP 19); may be repeated
    #[arg(long = "web-seed", value_name = "URL", value_hint = ValueHint::Url)]
    pub web_seeds: Vec<String>,
    /// Serve metrics for Prometheus over HTTP, without authentication; port 0 takes any free one
    #[arg(long, value_name = "ADDR:PORT", value_parser = human::parse_address)]
    pub metrics: Option<SocketAddr>,
    /// Number of worker threads [default: one per allowed CPU]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub cores: Option<u16>,
    /// Memory for chunks, within what the host allows [default: a quarter of what is available]
    #[arg(long, value_name = "SIZE", value_parser = human::parse_size)]
    pub cache: Option<u64>,
    /// Journals, part files, locks and keys, outside the payload [default: $TROC_STATE,
    /// $XDG_STATE_HOME/troc, or ~/.local/state/troc]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub state: Option<PathBuf>,
    /// See [`LimitArgs`].
    #[command(flatten)]
    pub limits: LimitArgs,
    /// See [`SelectArgs`].
    #[command(flatten)]
    pub select: SelectArgs,
    /// Do not tell other nodes of troc by a lasting key who this one is
    #[arg(long)]
    pub no_identity: bool,
    /// A network of your own machines, each of which counts for itself; may be repeated
    #[arg(long, value_name = "CIDR")]
    pub friends: Vec<Network>,
    /// Bits that public addresses have in common which share grants and turns, IPv4 and IPv6
    #[arg(long, value_name = "V4,V6", default_value_t = GroupPrefixes::default())]
    pub group_prefix: GroupPrefixes,
    /// Announce to one tracker of each tier, not to the first that answers; private torrents excepted
    #[arg(long)]
    pub announce_all: bool,
    /// Do not look for peers in the distributed hash table
    #[arg(long, overrides_with = "dht")]
    pub no_dht: bool,
    /// Look for peers in the distributed hash table even if all that is named is local
    #[arg(long, overrides_with = "no_dht")]
    pub dht: bool,
    /// A node by which to enter the table, instead of the public ones; may be repeated
    #[arg(long, value_name = "HOST:PORT")]
    pub dht_bootstrap: Vec<String>,
    /// Where datagrams of the table come in [default: the address and port of --listen, by UDP]
    #[arg(long, value_name = "ADDR:PORT", value_parser = human::parse_address)]
    pub dht_listen: Option<SocketAddr>,
    /// Do not look for peers on the local network, where that is the default: on a private --listen address
    #[arg(long, overrides_with = "lsd")]
    pub no_lsd: bool,
    /// Look for peers on the local network by multicast (BEP 14)
    #[arg(long, overrides_with = "no_lsd")]
    pub lsd: bool,
    /// Neither tell peers of one another nor dial whom they name
    #[arg(long, overrides_with = "pex")]
    pub no_pex: bool,
    /// Tell peers of one another and dial whom they name (the default)
    #[arg(long, overrides_with = "no_pex")]
    pub pex: bool,
    /// Print one JSON object per line and second instead of a progress bar
    #[arg(long)]
    pub json: bool,
    /// Time between two lines of --json
    #[arg(overrides_with = "status_interval_ms", long, value_name = "N", default_value_t = 1000, hide = true,
          value_parser = clap::value_parser!(u32).range(1..=3_600_000))]
    pub status_interval_ms: u32,
    /// How long `get` waits for a first or new peer before it gives up
    #[arg(long, value_name = "N", default_value_t = 60_000, hide = true,
          value_parser = clap::value_parser!(u32).range(10..=3_600_000))]
    pub no_peers_timeout_ms: u32,
    /// Encrypted handshakes (MSE), against networks that hinder BitTorrent
    #[arg(long, value_name = "POLICY", default_value = "accept")]
    pub encryption: EncryptionArg,
    /// Long sends leave memory without a copy: never, on connections whose card does that, or always
    #[arg(long, value_name = "WHEN", default_value = "off")]
    pub zero_copy: ZeroCopyArg,
    /// Time between two looks at what of the ledger is to be written
    #[arg(long, value_name = "N", default_value_t = LEDGER_INTERVAL.as_ms() as u32, hide = true,
          value_parser = clap::value_parser!(u32).range(10..=3_600_000))]
    pub ledger_interval_ms: u32,
    /// Written bytes that may wait to be made durable
    #[arg(long, value_name = "SIZE", default_value_t = UNSYNCED_BYTES_MAX, hide = true,
          value_parser = human::parse_size)]
    pub unsynced: u64,
}

/// How much is sent and received: the whole node, each torrent, and local networks apart.
#[derive(Clone, Copy, Debug, Args)]
pub struct LimitArgs {
    /// Most to send to all peers together, such as 100MiB/s or 1Gbit/s
    #[arg(long, value_name = "RATE", value_parser = human::parse_rate)]
    pub upload_limit: Option<u64>,
    /// Most to receive from all peers together
    #[arg(long, value_name = "RATE", value_parser = human::parse_rate)]
    pub download_limit: Option<u64>,
    /// Most to send of each torrent
    #[arg(long, value_name = "RATE", value_parser = human::parse_rate)]
    pub torrent_upload_limit: Option<u64>,
    /// Most to receive of each torrent
    #[arg(long, value_name = "RATE", value_parser = human::parse_rate)]
    pub torrent_download_limit: Option<u64>,
    /// Most to send to peers with private and loopback addresses; no other limit counts them then
    #[arg(long, value_name = "RATE", value_parser = human::parse_rate, conflicts_with = "lan_unlimited")]
    pub lan_upload_limit: Option<u64>,
    /// Most to receive from such peers; no other limit counts them then
    #[arg(long, value_name = "RATE", value_parser = human::parse_rate, conflicts_with = "lan_unlimited")]
    pub lan_download_limit: Option<u64>,
    /// No limit counts peers with private and loopback addresses
    #[arg(long)]
    pub lan_unlimited: bool,
}

/// `--encryption`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum EncryptionArg {
    /// Neither taken nor offered.
    Off,
    /// Taken from whoever offers it, offered to whoever hangs up on a plain handshake.
    Accept,
    /// Offered first; the stream stays plain where the other side lets it.
    Prefer,
    /// Nothing else, and RC4 to the end; no send leaves memory without a copy.
    Require,
}

impl From<EncryptionArg> for Encryption {
    fn from(arg: EncryptionArg) -> Self {
        match arg {
            EncryptionArg::Off => Self::Off,
            EncryptionArg::Accept => Self::Accept,
            EncryptionArg::Prefer => Self::Prefer,
            EncryptionArg::Require => Self::Require,
        }
    }
}

/// `--zero-copy`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ZeroCopyArg {
    /// Where the kernel says that it does.
    Auto,
    /// Never.
    Off,
    /// Whatever the kernel says.
    Force,
}

impl From<ZeroCopyArg> for ZeroCopy {
    fn from(arg: ZeroCopyArg) -> Self {
        match arg {
            ZeroCopyArg::Auto => Self::Auto,
            ZeroCopyArg::Off => Self::Off,
            ZeroCopyArg::Force => Self::Force,
        }
    }
}

/// `troc get`.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// A .torrent file or a magnet link
    #[arg(value_hint = ValueHint::FilePath)]
    pub source: String,
    /// Directory to fetch into; made if it is missing
    #[arg(short, long = "output", value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub output: PathBuf,
    /// Go on serving after all is fetched
    #[arg(long)]
    pub seed: bool,
    /// Serve until so many times the torrent's size is sent, counted from the start; implies --seed
    #[arg(long, value_name = "RATIO", value_parser = human::parse_ratio)]
    pub seed_ratio: Option<u64>,
    /// Serve for so long after all is fetched, such as 90s, 30m or 2h; implies --seed
    #[arg(long, value_name = "DURATION", value_parser = human::parse_duration)]
    pub seed_time: Option<Span>,
    /// Fetch pieces in order instead of rarest first
    #[arg(long)]
    pub sequential: bool,
    /// See [`NodeArgs`].
    #[command(flatten)]
    pub node: NodeArgs,
}

/// `troc relay`.
#[derive(Debug, Args)]
pub struct RelayArgs {
    /// .torrent files, directories that hold some, and magnet links [default: all that were relayed in
    /// --dir before]
    #[arg(value_name = "SOURCE", value_hint = ValueHint::AnyPath)]
    pub sources: Vec<String>,
    /// Directory that holds the payload, or into which it is fetched
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
    /// Be a tracker of these torrents too, by HTTP and UDP; port 0 takes any free one
    #[arg(long, value_name = "ADDR:PORT", value_parser = human::parse_address)]
    pub tracker: Option<SocketAddr>,
    /// See [`NodeArgs`].
    #[command(flatten)]
    pub node: NodeArgs,
}

/// `troc tracker`.
#[derive(Debug, Args)]
pub struct TrackerArgs {
    /// Where to serve HTTP and UDP; port 0 takes any free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:6969",
          value_parser = human::parse_address)]
    pub listen: SocketAddr,
    /// How often peers are to announce, from 5s to 24h [default: 5m]
    #[arg(long, value_name = "DURATION", value_parser = human::parse_duration)]
    pub interval: Option<Span>,
    /// Only these torrents: an info hash, a .torrent file, or a file with a hash a line; may be repeated
    #[arg(long, value_name = "HASH|FILE", value_hint = ValueHint::FilePath)]
    pub allow: Vec<String>,
    /// A network of your own machines, each of which counts for itself; may be repeated
    #[arg(long, value_name = "CIDR")]
    pub friends: Vec<Network>,
    /// Print one JSON object per line and second
    #[arg(long)]
    pub json: bool,
}

/// `troc peers` and `troc ledger`.
#[derive(Debug, Args)]
pub struct AskArgs {
    /// State directory of the nodes to ask [default: $TROC_STATE, $XDG_STATE_HOME/troc, or
    /// ~/.local/state/troc]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub state: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Most rows of each node
    #[arg(long, value_name = "N", default_value_t = 50,
          value_parser = clap::value_parser!(u32).range(1..=CONTROL_ROWS_MAX as i64))]
    pub top: u32,
}

/// What `troc peers` prints, the fastest connections first.
const PEERS_COLUMNS: &str = "\
Columns:
  DIR      in (it came to us), out, or web (a web seed)
  HAS      how much of the torrent it has
  DOWN UP  rates of the last seconds
  GAVE     what came from it
  GOT      what went to it
  ASKED    requests of ours that wait for their blocks
  QUEUED   requests of its that wait to be served
  SENDING  what is under way to it
  CLASS    its class in the order of service, with its place while it waits (#0 is first)
  WHY      why it stands there

FLAGS:
  D U      we take from it; it takes from us
  d u      we would take but it chokes us; it would take but we choke it
  K ?      it would give but we want nothing; we would give but it wants nothing
  S I      it fell silent; it came to us";

/// What `troc ledger` prints, who gave most first.
const LEDGER_COLUMNS: &str = "\
Columns:
  PARTY    an address, or the begin of its hash when it is not connected
  KIND     peer, key (of a node that proved it), or group of addresses (who is alone in one, too)
  GROUP    of a peer
  CONNS    its connections now
  GAVE     verified bytes that came from it
  GOT      bytes sent to it
  BALANCE  the difference
  CLASS    its class in the order of service: grant (newcomers, a tenth of what is sent), owed, excess,
           rest, or again
  WHY      why it stands there";

/// `troc doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Directory whose file system is looked at
    #[arg(long, value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `troc completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: Shell,
}

/// `troc man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write troc.1 and one page per verb into this directory
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, action = ArgAction::Set)]
    pub dir: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_that_other_tools_rely_on_are_read() {
        for line in [
            "create p -o o --piece-size 1MiB --tracker http://a/ --tracker udp://b:1 --web-seed http://c/",
            "create p -o o.torrent --private --hybrid",
            "show magnet:?xt=urn:btih:00 --json",
            "get x -o d --peer 1.2.3.4:5 --peer [::1]:6 --listen 0.0.0.0:0 --seed --cores 2 --cache 1GiB",
            "get x -o d --upload-limit 1MiB/s --download-limit 1Gbit/s --no-dht --no-lsd --no-pex --json",
            "get x -o d --torrent-upload-limit 1MiB/s --torrent-download-limit 8Mbit/s --lan-unlimited",
            "get x -o d --lan-upload-limit 1Gbit/s --lan-download-limit 100MiB/s --upload-limit 1MB/s",
            "get x -o d --seed-ratio 1.5 --seed-time 1h30m",
            "get x -o d --seed --seed-time 90",
            "get x -o d --web-seed http://a/ --web-seed https://b/c",
            "relay --dir d --torrent-upload-limit 1MiB/s --lan-unlimited",
            "get x.torrent -o d --sequential --no-identity --status-interval-ms 100",
            "relay --dir d",
            "relay --dir d --tracker 0.0.0.0:6969 --pex",
            "tracker",
            "tracker --listen [::]:6969 --interval 1m --allow list --friends 192.0.2.0/24 --json",
            "relay --dir d --friends 203.0.113.0/24 --friends 2001:db8::/32 --group-prefix 20,56",
            "relay a.torrent --dir d --metrics 127.0.0.1:9420",
            "relay a.torrent b.torrent --dir d --listen [::]:6881 --cores 4 --state s --no-dht --json",
            "verify x.torrent d",
            "verify x.torrent d --fast --state s --json",
            "verify x.torrent d --files sub/** --exclude 3 --state s",
            "get x -o d --files *.bin --files 0,4-6 --exclude a --priority b=high --file-progress",
            "show x --match sub/*",
            "bench leech 127.0.0.1:1 --torrent f --connections 16 --depth 64 --seconds 3 --pid 1",
            "bench seed --torrent f --data d --listen 127.0.0.1:0",
            "bench seed --torrent f --data d --listen [::1]:0 --listen [::1]:0 --rate 20MB/s --stall-after 1",
            "bench storm 127.0.0.1:1 --torrent f --connections 10000 --rate 20000 --seconds 3 --hold",
            "bench hash --seconds 1 --json",
            "peers",
            "peers --state s --json --top 10000",
            "ledger --state s --json --top 1",
            "doctor --json",
            "completions bash",
            "man",
        ] {
            let words = std::iter::once("troc").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_ok(), "{line}");
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for line in [
            "create p",
            "create p -o o --v1 --v2",
            "get x -o d --cores 0",
            "get x -o d --cores 65",
            "get x -o d --listen 6881",
            "get x -o d --metrics 9420",
            "get x -o d --friends 203.0.113.7/24",
            "get x -o d --group-prefix 24",
            "get x -o d --upload-limit 5Mb/s",
            "get x -o d --lan-unlimited --lan-upload-limit 1MB/s",
            "get x -o d --lan-unlimited --lan-download-limit 1MB/s",
            "get x -o d --seed-ratio 1:2",
            "get x -o d --seed-time 5parsecs",
            "relay --dir d --seed-ratio 1",
            "get x",
            "relay a",
            "verify x",
            "peers --top 0",
            "peers x",
            "ledger --top 10001",
            "frobnicate",
        ] {
            let words = std::iter::once("troc").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_err(), "{line}");
        }
    }
}
