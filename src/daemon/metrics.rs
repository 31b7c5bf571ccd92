//! `--metrics ADDR:PORT`: what the node counts, for Prometheus and whatever else reads OpenMetrics text.
//!
//! The server (`server.rs`) runs on the control thread. It asks the control loop for a [`Snapshot`] and
//! renders it (`page.rs`). Nothing is computed while nobody asks, and the workers take no part.

mod fairness;
mod page;
mod server;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use super::cache_size::CacheSize;
use super::error::NodeError;
use crate::base::limits::METRICS_TORRENTS_MAX;
use crate::shared::cache::Cache;
use crate::shared::counters::CoreCounters;
use crate::shared::ledger::Ledger;
use crate::shared::retirer::RegionCounts;
use crate::shared::sync::Ordering;
use crate::shared::torrent::{CoreStats, SharedTorrent};

use fairness::Fairness;
pub use server::Asked;

/// An open port, and what is served there.
#[derive(Debug)]
pub struct Endpoint {
    /// Where, the kernel's choice of port included.
    pub address: SocketAddr,
    /// What the control loop reads.
    pub sources: Sources,
    listener: Option<TcpListener>,
}

impl Endpoint {
    /// Opens the port; 0 takes any free one. Nothing is answered before `start`.
    pub fn open(address: SocketAddr, sources: Sources) -> Result<Self, NodeError> {
        let open = || {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok((listener.local_addr()?, Some(listener)))
        };
        let (address, listener) = open().map_err(|error| NodeError::Metrics { address, error })?;
        Ok(Self { address, sources, listener })
    }

    /// Serves from now on, on the calling thread's runtime. `ask` hands each question to the control loop.
    pub fn start(&mut self, ask: impl Fn(Asked) + 'static) {
        if let Some(listener) = self.listener.take() {
            tokio_uring::spawn(server::serve(listener, ask));
        }
    }
}

/// Where the figures are.
#[derive(Debug)]
pub struct Sources {
    /// One entry per worker.
    pub cores: Vec<Arc<CoreCounters>>,
    /// The arena's slots.
    pub cache: Arc<Cache>,
    /// How large it is, and why.
    pub cache_size: CacheSize,
    /// Who gave and who got.
    pub ledger: Arc<Ledger>,
}

/// The node at one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// Since the node started, in nanoseconds.
    pub uptime_ns: u64,
    /// Counters of each worker, read when the page is written.
    pub cores: Vec<Arc<CoreCounters>>,
    /// Messages that wait for each worker.
    pub mailboxes: Vec<u64>,
    /// Messages that wait for the control thread.
    pub control_mailbox: u64,
    /// Traffic of each worker over all torrents.
    pub traffic: Vec<Traffic>,
    /// The first torrents, then the rest as one without a hash.
    pub torrents: Vec<TorrentFigures>,
    /// Running torrents: those with every piece, and the others.
    pub complete: u64,
    /// See `complete`.
    pub incomplete: u64,
    /// Slots of the arena: all, used at least once, and free of these.
    pub slots: [u64; 3],
    /// Slots that were used, of regions that are not present.
    pub slots_gone: u64,
    /// Regions of the arena.
    pub regions: RegionCounts,
    /// How often the cache has shrunk because memory was short.
    pub shrinks: u64,
    /// Chunks that left the cache to make room.
    pub evictions: u64,
    /// How large the cache may get, and which limit decided it.
    pub cache_size: CacheSize,
    /// How fairly it has shared out.
    pub fairness: Fairness,
}

/// Payload moved, and with whom. Bytes since the start; peers as of now.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    /// Sent to peers.
    pub sent_bytes: u64,
    /// Received from peers, what was thrown away included.
    pub received_bytes: u64,
    /// Of that, blocks of web seeds.
    pub web_seed_bytes: u64,
    /// Received and thrown away.
    pub wasted_bytes: u64,
    /// Read from disk to be sent.
    pub loaded_bytes: u64,
    /// Connected peers.
    pub peers: u64,
    /// Connected peers that have everything.
    pub seeds: u64,
    /// Connections to web seeds.
    pub web_seeds: u64,
}

/// One torrent, or the sum of those without a label of their own.
#[derive(Debug)]
pub struct TorrentFigures {
    /// 40 hexadecimal digits, or `other`.
    pub label: String,
    /// Over all workers.
    pub traffic: Traffic,
    /// Bytes in verified pieces, padding included.
    pub verified_bytes: u64,
    /// Its size, padding included.
    pub total_bytes: u64,
}

impl Traffic {
    fn of(stats: &CoreStats) -> Self {
        Self {
            sent_bytes: stats.sent_bytes.get(),
            received_bytes: stats.received_bytes.get(),
            web_seed_bytes: stats.web_seed_bytes.get(),
            wasted_bytes: stats.wasted_bytes.get(),
            loaded_bytes: stats.loaded_bytes.get(),
            peers: stats.peers.load(Ordering::Relaxed).into(),
            seeds: stats.seeds.load(Ordering::Relaxed).into(),
            web_seeds: stats.web_seeds.load(Ordering::Relaxed).into(),
        }
    }

    const fn add(&mut self, other: &Self) {
        self.sent_bytes += other.sent_bytes;
        self.received_bytes += other.received_bytes;
        self.web_seed_bytes += other.web_seed_bytes;
        self.wasted_bytes += other.wasted_bytes;
        self.loaded_bytes += other.loaded_bytes;
        self.peers += other.peers;
        self.seeds += other.seeds;
        self.web_seeds += other.web_seeds;
    }
}

impl TorrentFigures {
    fn new(label: String) -> Self {
        Self { label, traffic: Traffic::default(), verified_bytes: 0, total_bytes: 0 }
    }
}

impl Sources {
    /// The node with its running torrents, in the order in which they were given: the first
    /// `METRICS_TORRENTS_MAX` have a label of their own, so that no list of torrents floods a database.
    pub fn snapshot<'a>(
        &self,
        uptime_ns: u64,
        torrents: impl Iterator<Item = (usize, &'a SharedTorrent)>,
    ) -> Snapshot {
        let mut snapshot = Snapshot {
            uptime_ns,
            cores: self.cores.clone(),
            mailboxes: Vec::new(),
            control_mailbox: 0,
            traffic: vec![Traffic::default(); self.cores.len()],
            torrents: Vec::new(),
            complete: 0,
            incomplete: 0,
            slots: [self.cache.slot_count(), self.cache.touched_count(), self.cache.free_count()]
                .map(u64::from),
            slots_gone: 0,
            regions: RegionCounts::default(),
            shrinks: 0,
            evictions: self.cache.evictions(),
            cache_size: self.cache_size,
            fairness: Fairness::of(&self.ledger),
        };
        let mut other = None;
        for (index, torrent) in torrents {
            let mut own = TorrentFigures::new(torrent.meta.info_hash.to_hex());
            let figures = if index < METRICS_TORRENTS_MAX {
                &mut own
            } else {
                other.get_or_insert_with(|| TorrentFigures::new("other".to_owned()))
            };
            for (sum, stats) in snapshot.traffic.iter_mut().zip(&torrent.stats) {
                let traffic = Traffic::of(stats);
                sum.add(&traffic);
                figures.traffic.add(&traffic);
            }
            figures.verified_bytes += torrent.verified_bytes();
            figures.total_bytes += torrent.meta.geometry.total_bytes;
            if index < METRICS_TORRENTS_MAX {
                snapshot.torrents.push(own);
            }
            let complete = torrent.is_complete();
            *(if complete { &mut snapshot.complete } else { &mut snapshot.incomplete }) += 1;
        }
        snapshot.torrents.extend(other);
        snapshot
    }
}

#[cfg(test)]
mod tests;
