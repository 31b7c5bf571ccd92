//! A snapshot as OpenMetrics text. Every name and its meaning stands here once; README.md lists them.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::fairness::lag_bytes;
use super::{Snapshot, TorrentFigures, Traffic};
use crate::engine::scheduler::class::Class;
use crate::shared::counters::{CoreCounters, Histogram};
use crate::shared::retirer::RegionCounts;

/// The type that goes with the text.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A name, what it means, and where a figure comes from.
type Row<T> = (&'static str, &'static str, fn(&T) -> u64);

const CORE_COUNTERS: &[Row<CoreCounters>] = &[
    ("troc_blocks_sent", "Blocks put into sends", |core| core.blocks_sent.get()),
    ("troc_blocks_received", "Blocks of chunks that the core completed", |core| core.blocks_received.get()),
    ("troc_written_bytes", "Bytes of chunks written to disk", |core| core.written_bytes.get()),
    ("troc_hashed_bytes", "Bytes hashed to verify them", |core| core.hashed_bytes.get()),
    ("troc_copied_bytes", "Received bytes copied once more in user space", |core| core.copied_bytes.get()),
    // The words of a core are read one after the other: a miss may be seen before its block.
    ("troc_cache_hits", "Blocks sent whose chunk was in memory", |core| {
        core.blocks_sent.get().saturating_sub(core.cache_misses.get())
    }),
    ("troc_cache_misses", "Blocks that waited for their chunk to be read", |core| core.cache_misses.get()),
    ("troc_turns", "Rounds of the worker", |core| core.turns.get()),
    ("troc_ring_enters", "Calls of io_uring_enter", |core| core.ring_enters.get()),
    ("troc_ring_completions", "Completions taken from the ring", |core| core.completions.get()),
    ("troc_ring_overflows", "Calls that found the completion queue overflowing", |core| {
        core.ring_overflows.get()
    }),
    ("troc_receives_starved", "Receives that found every shared buffer full", |core| {
        core.receives_starved.get()
    }),
    ("troc_sends", "Sends given to the kernel", |core| core.sends.get()),
    ("troc_zero_copy_sends", "Sends given to the kernel as zero-copy sends", |core| {
        core.zero_copy_sends.get()
    }),
    ("troc_zero_copy_copied", "Zero-copy sends that the kernel copied after all", |core| {
        core.zero_copy_copied.get()
    }),
    ("troc_handshakes", "Connections whose handshake was accepted", |core| core.handshakes.get()),
    ("troc_identities", "Connections whose peer proved its key", |core| core.identities.get()),
    ("troc_connections_refused", "Connections closed because the table was full", |core| core.refused.get()),
    ("troc_accept_failures", "Accepts that failed", |core| core.accept_failures.get()),
    ("troc_bans", "Peers banned for what they gave", |core| core.bans.get()),
    ("troc_hash_failures", "Pieces whose hash was wrong", |core| core.hash_failures.get()),
];

const CORE_GAUGES: &[Row<CoreCounters>] = &[
    (
        "troc_ready_connections",
        "Connections with messages to send, parties that waited for blocks, when the last turn began to act",
        |core| core.ready.get(),
    ),
    (
        "troc_owed_waiting_bytes",
        "Debt to whoever is owed most of those that waited when the last turn ended",
        |core| core.owed_waiting_bytes.get(),
    ),
    ("troc_hashes_waiting", "Chunks that wait to be hashed", |core| core.hashes_waiting.get()),
    ("troc_chunks_writing", "Chunks that are being written", |core| core.chunks_writing.get()),
];

const TRAFFIC_COUNTERS: &[Row<Traffic>] = &[
    ("troc_sent_bytes", "Payload sent", |traffic| traffic.sent_bytes),
    ("troc_received_bytes", "Payload received, what was thrown away included", |traffic| {
        traffic.received_bytes
    }),
    ("troc_web_seed_bytes", "Of the payload received, blocks of web seeds", |traffic| traffic.web_seed_bytes),
    ("troc_wasted_bytes", "Payload received and thrown away", |traffic| traffic.wasted_bytes),
    ("troc_loaded_bytes", "Payload read from disk to be sent", |traffic| traffic.loaded_bytes),
];

const TORRENT_COUNTERS: &[Row<TorrentFigures>] = &[
    ("troc_torrent_sent_bytes", "Payload sent", |torrent| torrent.traffic.sent_bytes),
    ("troc_torrent_received_bytes", "Payload received, what was thrown away included", |torrent| {
        torrent.traffic.received_bytes
    }),
    ("troc_torrent_web_seed_bytes", "Of the payload received, blocks of web seeds", |torrent| {
        torrent.traffic.web_seed_bytes
    }),
    ("troc_torrent_wasted_bytes", "Payload received and thrown away", |torrent| torrent.traffic.wasted_bytes),
    ("troc_torrent_loaded_bytes", "Payload read from disk to be sent", |torrent| {
        torrent.traffic.loaded_bytes
    }),
];

const TORRENT_GAUGES: &[Row<TorrentFigures>] = &[
    ("troc_torrent_peers", "Connected peers", |torrent| torrent.traffic.peers),
    ("troc_torrent_seeds", "Connected peers that have everything", |torrent| torrent.traffic.seeds),
    ("troc_torrent_web_seeds", "Connections to web seeds", |torrent| torrent.traffic.web_seeds),
    ("troc_torrent_verified_bytes", "Bytes in verified pieces", |torrent| torrent.verified_bytes),
    ("troc_torrent_size_bytes", "Bytes of the torrent", |torrent| torrent.total_bytes),
];

/// Nanoseconds and plain numbers as OpenMetrics wants them.
const SECONDS: f64 = 1e-9;
const PLAIN: f64 = 1.0;

type HistogramRow = (&'static str, &'static str, f64, fn(&CoreCounters) -> &Histogram);

const HISTOGRAMS: &[HistogramRow] = &[
    ("troc_turn_seconds", "Work of a turn, without its wait", SECONDS, |core| &core.turn_ns),
    ("troc_turn_completions", "Completions that a turn took", PLAIN, |core| &core.batch),
    (
        "troc_request_seconds",
        "From a request to the end of the send with its block, sampled",
        SECONDS,
        |core| &core.request_ns,
    ),
];

/// The page. A string takes any text, so that the error cannot happen.
pub(super) fn render(snapshot: Snapshot) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(snapshot));
    let mut page = String::new();
    text::encode(&mut page, &registry)?;
    Ok(page)
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let page = &mut Page(&mut encoder);
        self.node(page)?;
        self.fairness(page)?;
        let cores = || label("core", self.cores.iter().enumerate().map(|(core, own)| (core, &**own)));
        page.rows(MetricType::Counter, CORE_COUNTERS, cores)?;
        page.rows(MetricType::Gauge, CORE_GAUGES, cores)?;
        let traffic = || label("core", self.traffic.iter().enumerate());
        page.rows(MetricType::Counter, TRAFFIC_COUNTERS, traffic)?;
        let peers: &[Row<Traffic>] = &[("troc_peers", "Connected peers", |traffic| traffic.peers)];
        page.rows(MetricType::Gauge, peers, traffic)?;
        let torrents =
            || label("info_hash", self.torrents.iter().map(|torrent| (torrent.label.as_str(), torrent)));
        page.rows(MetricType::Counter, TORRENT_COUNTERS, torrents)?;
        page.rows(MetricType::Gauge, TORRENT_GAUGES, torrents)?;
        HISTOGRAMS.iter().try_for_each(|row| page.histogram(row, &self.cores))
    }
}

impl Snapshot {
    /// What belongs to no core and no torrent.
    fn node(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let info = ("troc_build", "The program", [("version", env!("CARGO_PKG_VERSION"))]);
        page.0.encode_descriptor(info.0, info.1, None, MetricType::Info)?.encode_info(&info.2)?;
        let uptime = "troc_uptime_seconds";
        let mut metric =
            page.0.encode_descriptor(uptime, "Since the node started", None, MetricType::Gauge)?;
        metric.encode_gauge(&(self.uptime_ns as f64 * SECONDS))?;
        let states = [("complete", self.complete), ("incomplete", self.incomplete)];
        page.values("troc_torrents", "Running torrents", MetricType::Gauge, "state", states)?;
        let [all, touched, free] = self.slots;
        let held = touched.saturating_sub(free + self.slots_gone);
        let slots = [("free", free), ("held", held), ("gone", self.slots_gone), ("untouched", all - touched)];
        let help = "Slots of 256 KiB: free, with a chunk, out of use, and never used so far";
        page.values("troc_cache_slots", help, MetricType::Gauge, "state", slots)?;
        let help = "Bytes that the cache may take, and which limit decided that";
        let limit = [(self.cache_size.decided_by(), self.cache_size.bytes)];
        page.values("troc_cache_limit_bytes", help, MetricType::Gauge, "decided_by", limit)?;
        let RegionCounts { present, leaving, gone, .. } = self.regions;
        let regions = [("present", present), ("leaving", leaving), ("gone", gone)];
        let regions = regions.map(|(state, count)| (state, u64::from(count)));
        let help = "Regions of 64 MiB that the cache may use, gives back, and has given back";
        page.values("troc_cache_regions", help, MetricType::Gauge, "state", regions)?;
        let help = "Times the cache shrank because memory was short";
        let mut metric = page.0.encode_descriptor("troc_cache_shrinks", help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, u64>(&self.shrinks, None)?;
        let help = "Chunks that left the cache to make room";
        let mut metric = page.0.encode_descriptor("troc_cache_evictions", help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, u64>(&self.evictions, None)?;
        let waiting = self.mailboxes.iter().enumerate().map(|(core, &count)| (core.to_string(), count));
        let waiting = waiting.chain([("control".to_owned(), self.control_mailbox)]);
        let help = "Messages that wait for a worker, or for the control thread";
        page.values("troc_mailbox_messages", help, MetricType::Gauge, "receiver", waiting)
    }
}

impl Snapshot {
    /// Who gives, gets: how much went to whom.
    fn fairness(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let help = "Payload put into sends, by class of service";
        let of_core = |(core, counters): (usize, &std::sync::Arc<CoreCounters>)| {
            let bytes = counters.class_sent_bytes.each_ref().map(|count| count.get());
            let class = |(class, bytes): (Class, u64)| {
                ([("core", core.to_string()), ("class", class.name().to_owned())], bytes)
            };
            Class::ALL.into_iter().zip(bytes).map(class).collect::<Vec<_>>()
        };
        let samples = self.cores.iter().enumerate().flat_map(of_core);
        page.family("troc_class_sent_bytes", help, MetricType::Counter, samples)?;
        let fairness = self.fairness;
        let states = [("connected", fairness.connected), ("remembered", fairness.remembered)];
        let help = "Accounts of peers and groups of addresses";
        page.values("troc_ledger_accounts", help, MetricType::Gauge, "state", states)?;
        let help = "Groups of addresses that gave, of those with accounts";
        page.gauge("troc_contributors", help, Some(fairness.contributors as f64))?;
        let help = "Jain index of bytes sent for each byte received, over contributors";
        page.gauge("troc_jain_index", help, fairness.jain)?;
        let help = "Part of sent bytes that went to groups that gave nothing, of those with accounts";
        page.gauge("troc_free_rider_share", help, fairness.free_rider_share)?;
        let help = "Difference between the largest and the smallest troc_owed_waiting_bytes above zero";
        let lag = lag_bytes(self.cores.iter().map(|core| &**core));
        page.gauge("troc_core_lag_bytes", help, Some(lag as f64))
    }
}

/// Each item with a label of its own.
fn label<'a, T: 'a>(
    key: &'static str,
    items: impl Iterator<Item = (impl fmt::Display, &'a T)>,
) -> impl Iterator<Item = ([(&'static str, String); 1], &'a T)> {
    items.map(move |(value, item)| ([(key, value.to_string())], item))
}

type Label = [(&'static str, String); 1];

struct Page<'a, 'b>(&'a mut DescriptorEncoder<'b>);

impl Page<'_, '_> {
    /// One family per row, one sample per item.
    fn rows<'t, T: 't, I: Iterator<Item = (Label, &'t T)>>(
        &mut self,
        kind: MetricType,
        rows: &[Row<T>],
        items: impl Fn() -> I,
    ) -> fmt::Result {
        rows.iter().try_for_each(|(name, help, value)| {
            self.family(name, help, kind, items().map(|(label, item)| (label, value(item))))
        })
    }

    /// One family whose samples differ in one label.
    fn values(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        key: &'static str,
        values: impl IntoIterator<Item = (impl Into<String>, u64)>,
    ) -> fmt::Result {
        self.family(name, help, kind, values.into_iter().map(|(label, value)| ([(key, label.into())], value)))
    }

    /// One figure; none while there is nothing to say.
    fn gauge(&mut self, name: &str, help: &str, value: Option<f64>) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        value.map_or(Ok(()), |value| metric.encode_gauge(&value))
    }

    fn family<const LABELS: usize>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        samples: impl Iterator<Item = ([(&'static str, String); LABELS], u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for (label, value) in samples {
            let mut sample = family.encode_family(&label)?;
            match kind {
                MetricType::Counter => sample.encode_counter::<NoLabelSet, _, u64>(&value, None)?,
                _ => sample.encode_gauge(&value)?,
            }
        }
        Ok(())
    }

    fn histogram(
        &mut self,
        (name, help, unit, of): &HistogramRow,
        cores: &[std::sync::Arc<CoreCounters>],
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (index, core) in cores.iter().enumerate() {
            let histogram = of(core);
            // The library writes it as +Inf, and adds the buckets up.
            let bound = |bound: Option<u64>| bound.map_or(f64::INFINITY, |bound| bound as f64 * unit);
            let buckets: Vec<_> = histogram.buckets().map(|(upper, count)| (bound(upper), count)).collect();
            let count = buckets.iter().map(|(_, count)| count).sum();
            let sum = histogram.sum() as f64 * unit;
            let label = [("core", index.to_string())];
            family.encode_family(&label)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }
}
