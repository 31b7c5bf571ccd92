use super::*;
use crate::base::ids::InfoHash;

const NOW: Instant = Instant(1_000_000_000_000);
const INTERVAL: Span = Span::from_secs(300);

fn tracker() -> Tracker {
    let rules = Rules { interval: INTERVAL, allow: None, grouping: Grouping::default() };
    Tracker::new(rules, Rng::new(3))
}

fn hash(n: u32) -> InfoHash {
    let mut hash = [0; 20];
    hash[..4].copy_from_slice(&n.to_be_bytes());
    InfoHash(hash)
}

/// A stranger in a group of its own.
fn stranger(n: u32) -> SocketAddr {
    SocketAddr::from(([20 + (n >> 16) as u8, (n >> 8) as u8, n as u8, 1], 6881))
}

fn local(n: u32) -> SocketAddr {
    SocketAddr::from(([10, (n >> 16) as u8, (n >> 8) as u8, n as u8], 6881))
}

fn asked(info_hash: InfoHash, peer: SocketAddr, left_bytes: u64) -> Asked {
    Asked { info_hash, peer, left_bytes, event: AnnounceEvent::None, wanted: None }
}

/// Announces; whom it is told of.
fn announce(
    tracker: &mut Tracker,
    info_hash: InfoHash,
    peer: SocketAddr,
    left: u64,
    now: Instant,
) -> Vec<SocketAddr> {
    tracker.handle_announce(&asked(info_hash, peer, left), Families::Both, now).unwrap().peers
}

#[test]
fn peers_of_a_torrent_hear_of_one_another_and_seeds_of_leechers_alone() {
    let mut tracker = tracker();
    let (seed, other_seed, leech, v6) =
        (stranger(1), stranger(2), stranger(3), "[2600::1]:1".parse().unwrap());
    assert_eq!(announce(&mut tracker, hash(1), seed, 0, NOW), []);
    assert_eq!(announce(&mut tracker, hash(1), other_seed, 0, NOW), []);
    let mut heard = announce(&mut tracker, hash(1), leech, 5, NOW);
    heard.sort_unstable();
    assert_eq!(heard, [seed, other_seed]);
    assert_eq!(announce(&mut tracker, hash(1), v6, 5, NOW).len(), 3);
    let mut heard = announce(&mut tracker, hash(1), seed, 0, NOW);
    heard.sort_unstable();
    assert_eq!(heard, [leech, v6]);
    assert_eq!(announce(&mut tracker, hash(2), stranger(4), 1, NOW), [], "another torrent");
    for (families, count) in [(Families::V4, 2), (Families::V6, 1)] {
        let answer = tracker.handle_announce(&asked(hash(1), leech, 5), families, NOW).unwrap();
        assert_eq!((answer.peers.len(), answer.seeders, answer.leechers), (count, 2, 2), "{families:?}");
    }
    assert_eq!(tracker.figures().peers, 5);
}

#[test]
fn who_stops_or_falls_silent_is_forgotten() {
    let mut tracker = tracker();
    announce(&mut tracker, hash(1), stranger(1), 1, NOW);
    announce(&mut tracker, hash(1), stranger(2), 1, NOW + Span::from_secs(10));
    let mut stops = asked(hash(1), stranger(2), 1);
    stops.event = AnnounceEvent::Stopped;
    let answer = tracker.handle_announce(&stops, Families::Both, NOW).unwrap();
    assert_eq!((answer.peers.len(), answer.leechers), (0, 1));
    let last = NOW + Span(2 * INTERVAL.0);
    assert_eq!(tracker.handle_scrape(&[hash(1)], last)[0].leechers, 1);
    tracker.handle_tick(Instant(last.0 + 1));
    assert_eq!(tracker.figures().torrents, 0);
    assert!(tracker.order.is_empty() && tracker.groups.is_empty() && tracker.figures.peers == 0);
}

#[test]
fn completions_are_counted_once_for_each_leecher() {
    let mut tracker = tracker();
    announce(&mut tracker, hash(1), stranger(1), 1, NOW);
    for _ in 0..3 {
        let mut done = asked(hash(1), stranger(1), 0);
        done.event = AnnounceEvent::Completed;
        tracker.handle_announce(&done, Families::Both, NOW).unwrap();
    }
    announce(&mut tracker, hash(1), stranger(2), 1, NOW);
    let want = Scraped { seeders: 1, leechers: 1, completed: 1 };
    assert_eq!(tracker.handle_scrape(&[hash(1), hash(2)], NOW), [want, Scraped::default()]);
}

#[test]
fn n14_a_group_of_strangers_has_so_many_entries_and_its_oldest_go() {
    for count in [SERVED_GROUP_ENTRIES_MAX - 1, SERVED_GROUP_ENTRIES_MAX, SERVED_GROUP_ENTRIES_MAX + 1] {
        let mut tracker = tracker();
        announce(&mut tracker, hash(0), stranger(9), 1, NOW);
        for n in 0..count as u32 {
            let peer = SocketAddr::from(([8, 8, 8, n as u8], 1 + (n >> 8) as u16));
            announce(&mut tracker, hash(1 + n), peer, 1, NOW + Span(1 + u64::from(n)));
        }
        assert_eq!(tracker.figures().peers, 1 + count.min(SERVED_GROUP_ENTRIES_MAX));
        let last = Instant(NOW.0 + 1 + count as u64);
        assert_eq!(tracker.handle_scrape(&[hash(0)], last)[0].leechers, 1, "others stay");
        let first = u32::from(count <= SERVED_GROUP_ENTRIES_MAX);
        assert_eq!(tracker.handle_scrape(&[hash(1)], last)[0].leechers, first);
    }
    let mut tracker = tracker();
    for n in 0..SERVED_GROUP_ENTRIES_MAX as u32 + 1 {
        announce(&mut tracker, hash(n), local(1), 1, NOW);
    }
    assert_eq!(tracker.figures().peers, SERVED_GROUP_ENTRIES_MAX + 1, "a fleet is no stranger");
}

#[test]
fn n14_a_torrent_has_so_many_peers_and_the_oldest_go() {
    for count in [SERVED_SWARM_MAX - 1, SERVED_SWARM_MAX, SERVED_SWARM_MAX + 1] {
        let mut tracker = tracker();
        for n in 0..count as u32 {
            announce(&mut tracker, hash(1), local(n), 1, NOW + Span(u64::from(n)));
        }
        assert_eq!(tracker.figures().peers, count.min(SERVED_SWARM_MAX));
        let oldest = tracker.swarms[&hash(1)].is_leecher(local(0));
        assert_eq!(oldest, count <= SERVED_SWARM_MAX);
    }
}

#[test]
fn n14_there_are_so_many_torrents_and_the_oldest_go() {
    for count in [SERVED_TORRENTS_MAX - 1, SERVED_TORRENTS_MAX, SERVED_TORRENTS_MAX + 1] {
        let mut tracker = tracker();
        for n in 0..count as u32 {
            announce(&mut tracker, hash(n), local(n), 1, NOW + Span(u64::from(n)));
        }
        assert_eq!(tracker.figures().torrents, count.min(SERVED_TORRENTS_MAX));
        assert_eq!(tracker.swarms.contains_key(&hash(0)), count <= SERVED_TORRENTS_MAX);
        assert_eq!(tracker.order.len(), tracker.swarms.len());
    }
}

#[test]
fn n14_all_torrents_together_have_so_many_peers() {
    for extra in [-1, 0, 1] {
        let mut tracker = tracker();
        // Most of them are there without having come.
        announce(&mut tracker, hash(0), local(0), 1, NOW);
        announce(&mut tracker, hash(1), local(1), 1, NOW + Span(1));
        tracker.figures.peers = (SERVED_PEERS_MAX as i64 - 1 + extra) as usize;
        announce(&mut tracker, hash(2), local(2), 1, NOW + Span(2));
        assert!(tracker.figures.peers <= SERVED_PEERS_MAX);
        assert_eq!(tracker.swarms.contains_key(&hash(0)), extra < 1, "{extra}");
    }
}

#[test]
fn so_many_peers_are_named_and_not_always_the_same() {
    let mut tracker = tracker();
    (0..1_000).for_each(|n| _ = announce(&mut tracker, hash(1), stranger(n), 1, NOW));
    let mut ask = |wanted| {
        let question = Asked { wanted, ..asked(hash(1), stranger(5), 1) };
        tracker.handle_announce(&question, Families::Both, NOW).unwrap().peers
    };
    for (wanted, named) in [
        (None, SERVED_NUMWANT),
        (Some(0), 0),
        (Some(SERVED_NUMWANT_MAX - 1), SERVED_NUMWANT_MAX - 1),
        (Some(SERVED_NUMWANT_MAX), SERVED_NUMWANT_MAX),
        (Some(SERVED_NUMWANT_MAX + 1), SERVED_NUMWANT_MAX),
        (Some(u32::MAX), SERVED_NUMWANT_MAX),
    ] {
        let peers = ask(wanted);
        assert_eq!(peers.len(), named as usize);
        assert_eq!(peers.iter().collect::<HashSet<_>>().len(), peers.len());
        assert!(!peers.contains(&stranger(5)));
    }
    let all: HashSet<SocketAddr> = (0..30).flat_map(|_| ask(None)).collect();
    assert!(all.len() > 400, "{}", all.len());
}

#[test]
fn n3_a_stranger_is_not_told_of_local_peers() {
    let mut tracker = tracker();
    for peer in ["127.0.0.1:1", "10.0.0.1:1", "8.8.8.8:1"] {
        announce(&mut tracker, hash(1), peer.parse().unwrap(), 1, NOW);
    }
    for (peer, count) in [("127.0.0.1:2", 3), ("10.0.0.2:1", 2), ("9.9.9.9:1", 1)] {
        assert_eq!(announce(&mut tracker, hash(1), peer.parse().unwrap(), 1, NOW).len(), count, "{peer}");
        let mut stops = asked(hash(1), peer.parse().unwrap(), 1);
        stops.event = AnnounceEvent::Stopped;
        tracker.handle_announce(&stops, Families::Both, NOW).unwrap();
    }
}

#[test]
fn a_torrent_that_is_not_on_the_list_is_refused() {
    let rules =
        Rules { interval: INTERVAL, allow: Some(HashSet::from([hash(1)])), grouping: Grouping::default() };
    let mut tracker = Tracker::new(rules, Rng::new(1));
    announce(&mut tracker, hash(1), stranger(1), 1, NOW);
    let refused = tracker.handle_announce(&asked(hash(2), stranger(1), 1), Families::Both, NOW);
    assert_eq!(refused, Err(Refusal::NotAllowed));
    assert_eq!((tracker.figures().torrents, tracker.figures().refused), (1, 1));
    tracker.allow(hash(2));
    announce(&mut tracker, hash(2), stranger(1), 1, NOW);
    assert_eq!(tracker.figures().torrents, 2, "a name that was found later");
}
