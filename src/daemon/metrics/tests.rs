use super::*;
use crate::base::bitfield::Bitfield;
use crate::base::geometry::Geometry;
use crate::base::ids::{InfoHash, TorrentId};
use crate::daemon::cache_size::Host;
use crate::shared::torrent::TorrentMeta;

/// A torrent of two pieces that has sent as many bytes as its number plus one, on core 1.
fn torrent(index: usize, have: &[u32]) -> Arc<SharedTorrent> {
    let geometry = Geometry::new(100_000, 64 << 10);
    let mut bits = Bitfield::new(geometry.piece_count());
    for &piece in have {
        bits.set(piece);
    }
    let mut info_hash = [0; 20];
    info_hash[..8].copy_from_slice(&(index as u64).to_be_bytes());
    let plain = TorrentMeta::plain(InfoHash(info_hash), geometry.total_bytes, geometry.piece_bytes);
    let meta = TorrentMeta { id: TorrentId(index as u32), ..plain };
    let torrent = SharedTorrent::new(meta, &bits, 2);
    torrent.stats[1].sent_bytes.set(index as u64 + 1);
    torrent
}

fn sources() -> Sources {
    let cores = (0..2).map(|_| Arc::new(CoreCounters::new())).collect();
    let host = Host { memory_bytes: Some(0), ..Host::default() };
    let cache_size = CacheSize::choose(Some(1 << 30), 64 << 20, &host);
    let ledger = Arc::new(Ledger::new(16));
    let id = ledger.open(7);
    ledger.credit(7, 1 << 20);
    ledger.debit(id, 1 << 20);
    Sources { cores, cache: Arc::new(Cache::new(8)), cache_size, ledger }
}

pub(super) fn snapshot(torrents: &[Arc<SharedTorrent>]) -> Snapshot {
    let sources = sources();
    sources.cores[1].turn_ns.record(1_500);
    sources.cores[1].blocks_sent.add(10);
    sources.cores[1].cache_misses.add(3);
    sources.cores[1].class_sent_bytes[1].add(77);
    sources.cores[0].owed_waiting_bytes.set(5);
    sources.cores[1].owed_waiting_bytes.set(8);
    sources.snapshot(2_500_000_000, torrents.iter().map(|torrent| &**torrent).enumerate())
}

#[test]
fn torrents_beyond_the_limit_share_one_label_and_lose_no_byte() {
    for count in [METRICS_TORRENTS_MAX - 1, METRICS_TORRENTS_MAX, METRICS_TORRENTS_MAX + 1, 500] {
        let torrents: Vec<_> = (0..count).map(|index| torrent(index, &[])).collect();
        let snapshot = snapshot(&torrents);
        assert_eq!(snapshot.torrents.len(), count.min(METRICS_TORRENTS_MAX + 1));
        assert_eq!(snapshot.torrents.iter().any(|own| own.label == "other"), count > METRICS_TORRENTS_MAX);
        let sum: u64 = snapshot.torrents.iter().map(|own| own.traffic.sent_bytes).sum();
        assert_eq!(sum, (1..=count as u64).sum::<u64>());
        assert_eq!((snapshot.traffic[0].sent_bytes, snapshot.traffic[1].sent_bytes), (0, sum));
        assert_eq!(snapshot.incomplete, count as u64);
    }
}

#[test]
fn a_page_says_type_meaning_and_value_of_each_figure() {
    let page = page::render(snapshot(&[torrent(6, &[0, 1]), torrent(7, &[0])])).unwrap();
    for line in [
        "# TYPE troc_torrent_sent_bytes counter",
        "troc_torrent_sent_bytes_total{info_hash=\"0000000000000006000000000000000000000000\"} 7",
        "troc_sent_bytes_total{core=\"0\"} 0",
        "troc_sent_bytes_total{core=\"1\"} 15",
        "troc_cache_hits_total{core=\"1\"} 7",
        "troc_cache_slots{state=\"untouched\"} 8",
        "troc_cache_limit_bytes{decided_by=\"minimum\"} 67108864",
        "troc_torrents{state=\"complete\"} 1",
        "troc_torrents{state=\"incomplete\"} 1",
        "troc_torrent_verified_bytes{info_hash=\"0000000000000007000000000000000000000000\"} 65536",
        "troc_uptime_seconds 2.5",
        "troc_turn_seconds_count{core=\"1\"} 1",
        "troc_turn_seconds_bucket{le=\"0.000001024\",core=\"1\"} 0",
        "troc_turn_seconds_bucket{le=\"0.000002048\",core=\"1\"} 1",
        "troc_turn_seconds_bucket{le=\"+Inf\",core=\"1\"} 1",
        "troc_class_sent_bytes_total{core=\"1\",class=\"owed\"} 77",
        "troc_class_sent_bytes_total{core=\"0\",class=\"again\"} 0",
        "troc_ledger_accounts{state=\"connected\"} 1",
        "troc_jain_index 1.0",
        "troc_free_rider_share 0.0",
        "troc_contributors 1.0",
        "troc_owed_waiting_bytes{core=\"1\"} 8",
        "troc_core_lag_bytes 3.0",
        "# EOF",
    ] {
        assert!(page.lines().any(|found| found == line), "no {line}\n{page}");
    }
    let types = page.lines().filter(|line| line.starts_with("# TYPE ")).count();
    assert!(types > 40 && types == page.lines().filter(|line| line.starts_with("# HELP ")).count());
}

#[test]
fn a_port_that_is_taken_is_named_with_what_to_do() {
    let first = Endpoint::open("127.0.0.1:0".parse().unwrap(), sources()).unwrap();
    let text = Endpoint::open(first.address, sources()).unwrap_err().to_string();
    let port = first.address.port().to_string();
    assert_ne!(port, "0");
    assert!(text.contains(&port) && text.contains("--metrics") && !text.contains('\n'), "{text}");
}
