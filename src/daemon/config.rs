//! What a node is told to do, after the command line has been parsed and checked.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::discovery::DiscoveryConfig;
use super::seeding::SeedGoal;
use crate::base::ids::InfoHash;
use crate::base::network::Grouping;
use crate::base::priority::Priority;
use crate::base::time::Span;
use crate::engine::announcer::Reach;
use crate::engine::encryption::Encryption;
use crate::engine::exchange::Exchange;
use crate::io::uring::ZeroCopy;
use crate::proto::file_ranges::FileRanges;
use crate::proto::metainfo::Metainfo;
use crate::proto::selection::Selection;

/// Whether the node ends when its torrents are complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `troc get`: end when all is fetched and durable, unless told to seed on.
    Get {
        /// Stay as a seed after completion, and until when.
        seed: Option<SeedGoal>,
    },
    /// `troc relay`: serve until told to stop.
    Relay,
}

/// Limits of one direction, in bytes per second; `None` is no limit. None of them is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimits {
    /// Over all torrents, but for local networks if these are apart.
    pub node: Option<u64>,
    /// Of each torrent, with the same exception.
    pub torrent: Option<u64>,
    /// See [`LanLimit`].
    pub lan: LanLimit,
}

/// What limits the peers of local networks: private, link-local and loopback addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LanLimit {
    /// What limits all others.
    #[default]
    Shared,
    /// Nothing.
    Exempt,
    /// So many bytes per second, and nothing else.
    Own(u64),
}

/// Whether other nodes are told who this one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// It proves a key that it keeps, so that its credit survives a change of address.
    Signed,
    /// It is known by its address alone.
    Address,
}

/// Everything that `daemon::run` needs.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// See [`Role`].
    pub role: Role,
    /// Torrents to fetch and serve, parsed and validated, or what a magnet link tells of one.
    pub torrents: Vec<Arc<Metainfo>>,
    /// How much each file of a torrent is wanted, one entry per torrent; `None`, and no entry, is all alike.
    pub wanted: Vec<Option<Arc<[Priority]>>>,
    /// Whether progress is told file by file of torrents that are wanted whole, too.
    pub file_progress: bool,
    /// What is wanted of torrents that are found by a link.
    pub selection: Selection,
    /// Files that a magnet link names of its torrent (`so`, BEP 53).
    pub link_files: Vec<(InfoHash, FileRanges)>,
    /// Peers that a magnet link names for its torrent (`x.pe`): dialled whatever their network.
    pub link_peers: Vec<(InfoHash, SocketAddr)>,
    /// Directory under which every payload file lies.
    pub dir: PathBuf,
    /// Journals, locks and the node secret; outside `dir`.
    pub state_dir: PathBuf,
    /// Where to accept peers; `None` accepts none. Port 0 lets the kernel choose.
    pub listen: Option<SocketAddr>,
    /// Where to serve metrics over HTTP, if anywhere. Port 0 lets the kernel choose.
    pub metrics: Option<SocketAddr>,
    /// Where to be a tracker of the torrents, if anywhere. Port 0 lets the kernel choose.
    pub tracker: Option<SocketAddr>,
    /// Peers given by the operator: dialled whatever their network.
    pub peers: Vec<SocketAddr>,
    /// HTTP sources given by the operator, of each torrent (BEP 19).
    pub web_seeds: Vec<String>,
    /// Which trackers hear of a torrent.
    pub announce: Reach,
    /// Where to look for peers besides trackers.
    pub discovery: DiscoveryConfig,
    /// Workers; `None` is one per allowed CPU.
    pub cores: Option<usize>,
    /// Arena size in bytes, within what the host allows; `None` is a quarter of available memory.
    pub cache_bytes: Option<u64>,
    /// Which handshakes are taken and offered.
    pub encryption: Encryption,
    /// Which sends leave without a copy.
    pub zero_copy: ZeroCopy,
    /// Of payload sent.
    pub upload: RateLimits,
    /// Of payload asked for.
    pub download: RateLimits,
    /// See [`Identity`].
    pub identity: Identity,
    /// Whether peers are told of one another, and listened to.
    pub exchange: Exchange,
    /// Ask for pieces in order instead of rarest first.
    pub sequential: bool,
    /// Which addresses are one party when service is shared out.
    pub grouping: Grouping,
    /// Between two looks at what of the ledger is to be written.
    pub ledger_interval: Span,
    /// How often the status is told.
    pub status_interval: Span,
    /// Written bytes that may wait for their fdatasync before one is asked for.
    pub unsynced_bytes: u64,
    /// A `get` without any peer for so long gives up.
    pub no_peers_timeout: Span,
}

impl NodeConfig {
    /// What is wanted of a torrent that was found by its link: what the command line says, else what the link
    /// names (BEP 53). The error is one line.
    pub fn choose_files(&self, metainfo: &Metainfo) -> Result<Option<Arc<[Priority]>>, String> {
        let named = self.link_files.iter().find(|(of, _)| metainfo.names().any(|name| name == *of));
        let chosen = self.selection.choose(metainfo, named.map(|(_, files)| files));
        chosen.map(|chosen| chosen.map(Arc::from)).map_err(|error| error.to_string())
    }
}
