//! Whole nodes back to back in virtual time: a network that delays, loses and forges.

use super::*;

const MS: u64 = 1_000_000;
const HASH: InfoHash = InfoHash([0xab; 20]);

/// Nodes by their addresses, and datagrams under way.
struct Net {
    nodes: BTreeMap<SocketAddr, Dht>,
    wire: BTreeMap<(Instant, u64), (SocketAddr, SocketAddr, Vec<u8>)>,
    sent: u64,
    now: Instant,
    events: Vec<(SocketAddr, DhtEvent)>,
}

fn public(n: u8) -> SocketAddr {
    SocketAddr::from(([60 + n / 8, n, 3, 1 + n % 8], 6881))
}

fn secret(n: u8) -> [u8; 32] {
    std::array::from_fn(|at| n.wrapping_mul(31).wrapping_add(at as u8))
}

fn config(n: u8, mode: Mode, bootstrap: &[SocketAddr]) -> DhtConfig {
    let id = Some(fitting_id(NodeId(std::array::from_fn(|at| secret(n)[at] ^ n)), public(n).ip()));
    let bootstrap = bootstrap.to_vec();
    DhtConfig { family: Family::V4, mode, secret: secret(n), id, bootstrap, nodes: Vec::new() }
}

impl Net {
    fn new() -> Self {
        let now = Instant(1_000 * MS);
        Self { nodes: BTreeMap::new(), wire: BTreeMap::new(), sent: 0, now, events: Vec::new() }
    }

    /// `count` nodes, the first of which all others begin at, after a minute.
    fn of(count: u8) -> Self {
        let mut net = Self::new();
        for n in 0..count {
            let bootstrap = if n == 0 { vec![] } else { vec![public(0)] };
            net.nodes.insert(public(n), Dht::new(config(n, Mode::Serving, &bootstrap), net.now));
        }
        net.run(Span::from_secs(60));
        net
    }

    fn collect(&mut self) {
        for (&from, node) in &mut self.nodes {
            while let Some((to, bytes)) = node.poll_send() {
                self.sent += 1;
                self.wire.insert((self.now + Span(20 * MS), self.sent), (from, to, bytes));
            }
            while let Some(event) = node.poll_event() {
                self.events.push((from, event));
            }
        }
    }

    fn run(&mut self, span: Span) {
        let end = self.now + span;
        loop {
            self.collect();
            let timeout = self.nodes.values().map(Dht::poll_timeout).min().unwrap_or(end);
            let arrival = self.wire.first_key_value().map_or(end, |(&(at, _), _)| at);
            self.now = timeout.min(arrival).max(self.now);
            if self.now >= end {
                self.now = end;
                return;
            }
            while let Some(entry) = self.wire.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let (from, to, bytes) = entry.remove();
                if let Some(node) = self.nodes.get_mut(&to) {
                    node.handle_datagram(from, &bytes, self.now);
                }
            }
            self.nodes.values_mut().for_each(|node| node.handle_tick(self.now));
        }
    }

    fn peers(&self, of: SocketAddr) -> Vec<SocketAddr> {
        let peers = self.events.iter().filter(|(who, _)| *who == of).filter_map(|(_, event)| match event {
            DhtEvent::Peers(HASH, peers) => Some(peers.clone()),
            _ => None,
        });
        peers.flatten().collect()
    }
}

fn aim(announce: Option<u16>) -> Aim {
    Aim::Peers { info_hash: HASH, announce }
}

/// What a serving node with a neighbour answers to one query of `from`.
fn asked(node: &mut Dht, from: SocketAddr, query: Query, now: Instant) -> Option<Packet> {
    let id = NodeId([9; 20]);
    let request = Request { transaction: b"tt".to_vec(), id, query, read_only: true };
    node.handle_datagram(from, &request.encode(), now);
    let (to, bytes) = node.poll_send()?;
    assert_eq!(to, from);
    parse(&bytes, Family::V4)
}

#[test]
fn who_announces_is_found_by_who_looks_in_a_network_of_fifty() {
    let mut net = Net::of(50);
    assert!(net.nodes.values().all(|node| node.node_count() >= BUCKET));
    let now = net.now;
    net.nodes.get_mut(&public(7)).unwrap().look_up(aim(Some(4242)), now);
    net.run(Span::from_secs(10));
    let announced = |event: &DhtEvent| matches!(event, DhtEvent::Done { announced: BUCKET, .. });
    assert!(net.events.iter().any(|(who, event)| *who == public(7) && announced(event)), "{:?}", net.events);
    // Somebody who has just come, and knows the bootstrap node only.
    let late = public(200);
    net.nodes.insert(late, Dht::new(config(200, Mode::ReadOnly, &[public(0)]), net.now));
    let began = net.now;
    net.nodes.get_mut(&late).unwrap().look_up(aim(None), began);
    net.run(Span::from_ms(500));
    assert_eq!(net.peers(late), [SocketAddr::new(public(7).ip(), 4242)]);
    net.run(Span::from_secs(5));
    // Nobody remembers a node that says that it answers nothing (BEP 43).
    assert!(net.nodes.values().all(|node| node.contacts().iter().all(|node| node.address != late)));
}

#[test]
fn nodes_that_are_gone_are_passed_over_and_forgotten() {
    let mut net = Net::of(30);
    (1..15).for_each(|n| drop(net.nodes.remove(&public(n))));
    let now = net.now;
    net.nodes.get_mut(&public(20)).unwrap().look_up(aim(Some(1)), now);
    net.run(Span::from_secs(30));
    let done = |event: &DhtEvent| matches!(event, DhtEvent::Done { announced: 8, .. });
    assert!(net.events.iter().any(|(who, event)| *who == public(20) && done(event)), "{:?}", net.events);
    net.run(Span::from_secs(3600));
    let gone = |contact: &Contact| !net.nodes.contains_key(&contact.address);
    assert_eq!(net.nodes[&public(20)].contacts().iter().filter(|contact| gone(contact)).count(), 0);
}

#[test]
fn nodes_that_are_kept_suffice_without_a_bootstrap_node() {
    let mut net = Net::of(20);
    let kept = net.nodes[&public(5)].contacts();
    let now = net.now;
    net.nodes.get_mut(&public(3)).unwrap().look_up(aim(Some(77)), now);
    net.run(Span::from_secs(5));
    let mut config = config(5, Mode::Serving, &[]);
    config.nodes = kept;
    net.nodes.insert(public(5), Dht::new(config, net.now));
    let now = net.now;
    net.nodes.get_mut(&public(5)).unwrap().look_up(aim(None), now);
    net.run(Span::from_secs(5));
    assert_eq!(net.peers(public(5)), [SocketAddr::new(public(3).ip(), 77)]);
}

#[test]
fn a_look_up_without_any_node_is_over_at_once() {
    let mut net = Net::new();
    net.nodes.insert(public(1), Dht::new(config(1, Mode::Serving, &[]), net.now));
    let now = net.now;
    net.nodes.get_mut(&public(1)).unwrap().look_up(aim(Some(1)), now);
    net.run(Span::from_ms(1));
    let over = DhtEvent::Done { info_hash: HASH, answers: 0, announced: 0 };
    assert_eq!(net.events, [(public(1), over)]);
}

/// A node with a walk under way to `public(1)`, and the transaction of its question.
fn walking() -> (Dht, Vec<u8>, Instant) {
    let now = Instant(1_000 * MS);
    let mut node = Dht::new(config(0, Mode::Serving, &[public(1)]), now);
    node.look_up(aim(None), now);
    let (to, bytes) = node.poll_send().unwrap();
    assert_eq!(to, public(1));
    let Some(Packet::Request(request)) = parse(&bytes, Family::V4) else { panic!("no request") };
    (node, request.transaction, now)
}

fn reply(transaction: &[u8], peers: &[&str]) -> Reply {
    Reply {
        transaction: transaction.to_vec(),
        id: NodeId([5; 20]),
        nodes: Vec::new(),
        peers: peers.iter().map(|text| text.parse().unwrap()).collect(),
        token: None,
        seen: None,
    }
}

#[test]
fn d5_answers_of_somebody_else_or_to_nothing_are_dropped() {
    let peer = ["8.8.8.8:1"];
    for (from, flip) in [(public(2), 0), (SocketAddr::new(public(1).ip(), 1), 0), (public(1), 1)] {
        let (mut node, mut transaction, now) = walking();
        transaction[0] ^= flip;
        node.handle_datagram(from, &reply(&transaction, &peer).encode(Family::V4), now);
        assert_eq!((node.poll_event(), node.node_count()), (None, 0), "{from} {flip}");
    }
    let (mut node, transaction, now) = walking();
    let bytes = reply(&transaction, &peer).encode(Family::V4);
    node.handle_datagram(public(1), &bytes, now);
    assert!(matches!(node.poll_event(), Some(DhtEvent::Peers(HASH, _))));
    let (count, drawn) = (node.node_count(), node.drawn);
    assert_eq!(count, 1);
    // The same again, or late.
    node.poll_event();
    node.handle_datagram(public(1), &bytes, now);
    assert_eq!((node.poll_event(), node.drawn), (None, drawn));
    let (mut node, transaction, now) = walking();
    node.handle_tick(now + DHT_QUERY_TIMEOUT);
    while node.poll_event().is_some() {}
    node.handle_datagram(public(1), &reply(&transaction, &peer).encode(Family::V4), now + DHT_QUERY_TIMEOUT);
    assert_eq!(node.poll_event(), None);
}

#[test]
fn d6_a_public_node_names_no_address_that_only_we_can_reach() {
    let named = ["127.0.0.1:1", "10.0.0.1:1", "169.254.169.254:80", "192.168.1.1:1", "8.8.8.8:9"];
    let (mut node, transaction, now) = walking();
    let mut bad = reply(&transaction, &named);
    bad.nodes = bad.peers.iter().map(|&address| Contact { id: NodeId([7; 20]), address }).collect();
    node.handle_datagram(public(1), &bad.encode(Family::V4), now);
    let want = DhtEvent::Peers(HASH, vec!["8.8.8.8:9".parse().unwrap()]);
    assert_eq!(node.poll_event(), Some(want));
    let asked: Vec<SocketAddr> = std::iter::from_fn(|| node.poll_send()).map(|(to, _)| to).collect();
    assert_eq!(asked, ["8.8.8.8:9".parse().unwrap()]);
}

#[test]
fn d6_what_local_peers_announce_is_told_to_neighbours_only() {
    let now = Instant(1_000 * MS);
    let mut node = Dht::new(config(0, Mode::Serving, &[]), now);
    let local: SocketAddr = "10.0.0.7:5".parse().unwrap();
    for (from, want) in [(local, vec![local]), (public(9), vec![])] {
        let Some(Packet::Reply(reply)) = asked(&mut node, from, Query::GetPeers(HASH), now) else {
            panic!("no reply")
        };
        let token = reply.token.unwrap();
        let announce = |port| Query::Announce { info_hash: HASH, port, token: token.clone() };
        if from == local {
            assert!(matches!(asked(&mut node, from, announce(None), now), Some(Packet::Reply(_))));
        }
        let Some(Packet::Reply(reply)) = asked(&mut node, from, Query::GetPeers(HASH), now) else {
            panic!("no reply")
        };
        assert_eq!(reply.peers, want);
    }
}

#[test]
fn d1_an_announce_needs_the_token_of_its_own_address() {
    let now = Instant(1_000 * MS);
    let mut node = Dht::new(config(0, Mode::Serving, &[]), now);
    let Some(Packet::Reply(reply)) = asked(&mut node, public(1), Query::GetPeers(HASH), now) else {
        panic!("no reply")
    };
    let token = reply.token.unwrap();
    for (from, token, kept) in [(public(2), token.clone(), 0), (public(1), vec![], 0), (public(1), token, 1)]
    {
        let query = Query::Announce { info_hash: HASH, port: Some(5), token };
        let answer = asked(&mut node, from, query, now);
        assert_eq!(matches!(answer, Some(Packet::Error(_))), kept == 0);
        assert_eq!(node.stored(), kept);
    }
}

/// The amplification meter: what an address that is forged gets for what a forger sends.
#[test]
fn d1_forged_queries_bring_little_to_whom_they_name() {
    let mut net = Net::of(30);
    let victim = public(150);
    let node = net.nodes.get_mut(&public(0)).unwrap();
    (0..100).for_each(|n| node.store.add(HASH, SocketAddr::from(([8, 8, 8, n], 6881)), net.now));
    let query = Query::GetPeers(HASH);
    let request = Request { transaction: b"tt".to_vec(), id: NodeId([9; 20]), query, read_only: true };
    let bytes = request.encode();
    let (mut sent, mut got, mut largest) = (0, 0, 0);
    for second in 0..60 {
        for _ in 0..200 {
            sent += bytes.len();
            node.handle_datagram(victim, &bytes, net.now + Span::from_secs(second));
        }
        while let Some((to, reply)) = node.poll_send() {
            assert_eq!(to, victim);
            got += reply.len();
            largest = largest.max(reply.len());
        }
    }
    assert!(largest <= 600, "{largest} bytes for {}", bytes.len());
    assert!(got / 60 <= 4_000, "{} bytes a second", got / 60);
    assert!(got < sent / 5, "{got} bytes for {sent}");
}

#[test]
fn d1_all_askers_together_get_so_many_bytes_a_second() {
    let now = Instant(1_000 * MS);
    let mut node = Dht::new(config(0, Mode::Serving, &[]), now);
    let mut got = 0;
    for n in 0..DHT_ASKERS_MAX as u32 {
        for _ in 0..20 {
            let from = SocketAddr::from(((0x0800_0000 + n * 7).to_be_bytes(), 1));
            let request = Request {
                transaction: b"tt".to_vec(),
                id: NodeId([9; 20]),
                query: Query::Ping,
                read_only: true,
            };
            node.handle_datagram(from, &request.encode(), now);
        }
    }
    while let Some((_, reply)) = node.poll_send() {
        got += reply.len();
    }
    assert!(
        got <= 4 * DHT_REPLY_BYTES_PER_SEC as usize && got > 3 * DHT_REPLY_BYTES_PER_SEC as usize,
        "{got}"
    );
}

#[test]
fn d7_so_many_hinted_nodes_are_pinged_and_only_who_answers_is_remembered() {
    for count in [DHT_HINTS_MAX - 1, DHT_HINTS_MAX, DHT_HINTS_MAX + 1, 500] {
        let now = Instant(1_000 * MS);
        let mut node = Dht::new(config(0, Mode::Serving, &[]), now);
        (0..count).for_each(|n| node.handle_hint(SocketAddr::from(([8, 8, 8, 8], 1 + n as u16)), now));
        let pings = std::iter::from_fn(|| node.poll_send()).count();
        assert_eq!((pings, node.node_count()), (count.min(DHT_HINTS_MAX), 0));
        assert!(node.hints.len() <= DHT_HINTS_MAX);
    }
    let mut net = Net::of(2);
    let now = net.now;
    net.nodes.insert(public(9), Dht::new(config(9, Mode::Serving, &[]), now));
    net.nodes.get_mut(&public(0)).unwrap().handle_hint(public(9), now);
    net.run(Span::from_secs(1));
    assert!(net.nodes[&public(0)].contacts().iter().any(|contact| contact.address == public(9)));
}

#[test]
fn the_id_fits_the_address_at_which_enough_hosts_see_us() {
    let (mut node, _, _) = walking();
    let here: IpAddr = "9.8.7.6".parse().unwrap();
    let before = node.id();
    assert!(!fits(before, here));
    for n in 0..VOTES as u8 - 1 {
        node.vote(public(n).ip(), here);
        node.vote(public(0).ip(), here);
        node.vote("127.0.0.1".parse().unwrap(), here);
        node.vote(public(n).ip(), "10.0.0.1".parse().unwrap());
    }
    assert_eq!(node.id(), before);
    node.vote(public(100).ip(), here);
    assert!(fits(node.id(), here));
    assert_eq!(node.poll_event(), Some(DhtEvent::External(here)));
}

#[test]
fn d1_a_read_only_node_answers_nobody() {
    let now = Instant(1_000 * MS);
    let mut node = Dht::new(config(0, Mode::ReadOnly, &[]), now);
    assert_eq!(asked(&mut node, public(1), Query::Ping, now), None);
}
