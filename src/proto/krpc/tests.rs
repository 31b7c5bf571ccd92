use proptest::prelude::*;

use super::*;

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn request_of(query: Query) -> Request {
    Request { transaction: b"aa".to_vec(), id: NodeId(*b"abcdefghij0123456789"), query, read_only: false }
}

fn reply_with(peers: usize, nodes: usize) -> Reply {
    let node = |n: usize| Contact { id: NodeId([n as u8; 20]), address: address("8.8.8.8:53") };
    Reply {
        transaction: b"aa".to_vec(),
        id: NodeId([1; 20]),
        nodes: (0..nodes).map(node).collect(),
        peers: (0..peers).map(|n| SocketAddr::from(([8, 8, (n >> 8) as u8, n as u8], 6881))).collect(),
        token: Some(b"token".to_vec()),
        seen: Some(address("9.9.9.9:1")),
    }
}

#[test]
fn queries_have_the_bytes_of_bep_5() {
    let ping = request_of(Query::Ping).encode();
    assert_eq!(ping, b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:v4:tC\x00\x011:y1:qe");
    let hash = InfoHash(*b"mnopqrstuvwxyz123456");
    let text = b"d1:ad2:id20:abcdefghij0123456789\
        12:implied_porti0e9:info_hash20:mnopqrstuvwxyz1234564:porti6881e5:token8:aoeusnthe\
        1:q13:announce_peer1:t2:aa1:v4:tC\x00\x011:y1:qe";
    let query = Query::Announce { info_hash: hash, port: Some(6881), token: b"aoeusnth".to_vec() };
    assert_eq!(request_of(query).encode(), text);
    let get =
        b"d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz123456e1:q9:get_peers1:t2:aa1:y1:qe";
    let parsed = parse(get, Family::V4).unwrap();
    assert_eq!(parsed, Packet::Request(request_of(Query::GetPeers(hash))));
}

#[test]
fn what_is_encoded_is_parsed_in_both_families() {
    let hash = InfoHash([7; 20]);
    for query in [
        Query::Ping,
        Query::FindNode(NodeId([3; 20])),
        Query::GetPeers(hash),
        Query::Announce { info_hash: hash, port: Some(1), token: vec![1, 2] },
        Query::Announce { info_hash: hash, port: None, token: vec![] },
    ] {
        for read_only in [false, true] {
            let request = Request { read_only, ..request_of(query.clone()) };
            assert_eq!(parse(&request.encode(), Family::V4), Some(Packet::Request(request)));
        }
    }
    let reply = reply_with(3, 4);
    assert_eq!(parse(&reply.encode(Family::V4), Family::V4), Some(Packet::Reply(reply)));
    let node = Contact { id: NodeId([2; 20]), address: address("[2600::1]:7") };
    let reply = Reply { nodes: vec![node; 3], peers: vec![address("[2600::2]:8")], ..reply_with(0, 0) };
    assert_eq!(parse(&reply.encode(Family::V6), Family::V6), Some(Packet::Reply(reply)));
    assert_eq!(parse(&encode_error(b"x", 203, "no"), Family::V4), Some(Packet::Error(b"x".to_vec())));
}

#[test]
fn d1_datagrams_that_are_bombs_or_cut_short_are_dropped() {
    let whole = reply_with(5, 8).encode(Family::V4);
    for len in 0..whole.len() {
        assert_eq!(parse(&whole[..len], Family::V4), None, "{len}");
    }
    for bomb in [
        "l".repeat(1400),
        format!("d1:ad2:id20:{}1:x{}", "a".repeat(20), "l".repeat(1300)),
        format!("d1:rd{}", "1:ad".repeat(340)),
        format!("d1:t2:aa1:y1:r1:rl{}ee", "0:".repeat(DHT_TOKENS_MAX)),
        format!("d1:ad2:id20:{}e1:q4:ping1:t{}:{}1:y1:qe", "a".repeat(20), 65, "t".repeat(65)),
    ] {
        assert_eq!(parse(bomb.as_bytes(), Family::V4), None);
    }
}

#[test]
fn d1_a_reply_is_used_up_to_its_limits() {
    for nodes in [DHT_REPLY_NODES_MAX - 1, DHT_REPLY_NODES_MAX, DHT_REPLY_NODES_MAX + 1] {
        let Some(Packet::Reply(reply)) = parse(&reply_with(0, nodes).encode(Family::V4), Family::V4) else {
            panic!("no reply")
        };
        assert_eq!(reply.nodes.len(), nodes.min(DHT_REPLY_NODES_MAX));
    }
    for peers in [DHT_REPLY_PEERS_MAX - 1, DHT_REPLY_PEERS_MAX, DHT_REPLY_PEERS_MAX + 1] {
        let Some(Packet::Reply(reply)) = parse(&reply_with(peers, 0).encode(Family::V4), Family::V4) else {
            panic!("no reply")
        };
        assert_eq!(reply.peers.len(), peers.min(DHT_REPLY_PEERS_MAX));
    }
    for len in [DHT_TOKEN_BYTES_MAX - 1, DHT_TOKEN_BYTES_MAX, DHT_TOKEN_BYTES_MAX + 1] {
        let reply = Reply { token: Some(vec![1; len]), ..reply_with(0, 0) };
        let Some(Packet::Reply(reply)) = parse(&reply.encode(Family::V4), Family::V4) else {
            panic!("no reply")
        };
        assert_eq!(reply.token.is_some(), len <= DHT_TOKEN_BYTES_MAX);
    }
    // No host can be there: broadcast, multicast, nobody, no port.
    for text in ["255.255.255.255:1", "224.0.0.1:1", "0.0.0.0:1", "8.8.8.8:0"] {
        let bad = Contact { id: NodeId([1; 20]), address: address(text) };
        let reply = Reply { nodes: vec![bad], peers: vec![bad.address], ..reply_with(0, 0) };
        let Some(Packet::Reply(reply)) = parse(&reply.encode(Family::V4), Family::V4) else {
            panic!("no reply")
        };
        assert_eq!((reply.nodes.len(), reply.peers.len()), (0, 0), "{text}");
    }
}

/// The table of BEP 42.
#[test]
fn ids_fit_the_addresses_of_bep_42() {
    for (ip, rand, want) in [
        ("124.31.75.21", 1, [0x5f, 0xbf, 0xbf]),
        ("21.75.31.124", 86, [0x5a, 0x3c, 0xe9]),
        ("65.23.51.170", 22, [0xa5, 0xd4, 0x32]),
        ("84.124.73.14", 65, [0x1b, 0x03, 0x21]),
        ("43.213.53.83", 90, [0xe5, 0x6f, 0x6c]),
    ] {
        let ip: IpAddr = ip.parse().unwrap();
        let mut id = NodeId([0; 20]);
        id.0[..3].copy_from_slice(&want);
        id.0[19] = rand;
        assert!(fits(id, ip), "{ip}");
        id.0[1] ^= 1;
        assert!(!fits(id, ip));
        assert!(fits(fitting_id(id, ip), ip));
    }
    assert!(fits(NodeId([9; 20]), "10.0.0.1".parse().unwrap()));
    let v6 = "2600:1:2:3::4".parse().unwrap();
    assert!(fits(fitting_id(NodeId([9; 20]), v6), v6));
    assert!(!fits(NodeId([9; 20]), v6));
}

proptest! {
    #[test]
    fn d1_no_datagram_panics(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        cut in 0usize..300,
        flip: u8,
    ) {
        let _ = parse(&bytes, Family::V4);
        let mut real = reply_with(3, 8).encode(Family::V4);
        let at = cut % real.len();
        real[at] ^= flip;
        let _ = parse(&real, Family::V6);
    }
}
