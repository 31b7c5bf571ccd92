//! Nodes of the distributed hash table that peers name (BEP 5 `port`, threat D7).

use super::*;

/// A peer past a handshake with the bit of BEP 5, and what we said to it.
fn peer(rig: &mut Rig) -> (ConnId, Vec<u8>) {
    let conn = rig.accept("127.0.0.1:10000");
    let handshake = Handshake::new(HASH, THEIRS).with_fast().with_dht();
    assert_eq!(rig.engine.handle_handshake(conn, &handshake, rig.now), Admission::Here);
    let (mut outbox, mut segments) = (Vec::new(), Vec::new());
    rig.perform();
    assert!(rig.engine.take_send(conn, &mut outbox, &mut segments, rig.now));
    rig.engine.handle_sent(conn, Ok(outbox.len() as u32), rig.now);
    (conn, outbox)
}

fn named(rig: &mut Rig) -> Vec<SocketAddr> {
    rig.perform();
    let done = std::mem::take(&mut rig.done).into_iter();
    done.filter_map(|action| match action {
        Action::Report(Report::Node { address, .. }) => Some(address),
        _ => None,
    })
    .collect()
}

#[test]
fn d7_a_peer_names_one_node_at_its_own_address_and_hears_of_ours() {
    for dht_port in [None, Some(4242)] {
        let mut rig = Rig::new(3, true);
        rig.engine.config.dht_port = dht_port;
        let (conn, said) = peer(&mut rig);
        let ours = Handshake::parse(&said).unwrap().unwrap();
        assert_eq!(ours.has_dht(), dht_port.is_some());
        let mut port = Vec::new();
        Message::Port(4242).encode(&mut port);
        assert_eq!(said.ends_with(&port), dht_port.is_some(), "behind our pieces");
        for port in [0, 6881, 6882, 6883] {
            rig.say(conn, Message::Port(port)).unwrap();
        }
        let want: Vec<SocketAddr> = dht_port.map(|_| "127.0.0.1:6881".parse().unwrap()).into_iter().collect();
        assert_eq!(named(&mut rig), want);
    }
}

#[test]
fn d4_nothing_is_said_of_nodes_about_a_private_torrent() {
    let mut rig = Rig::new(3, true);
    rig.engine.config.dht_port = Some(4242);
    let (id, info_hash) = (TorrentId(1), InfoHash([9; 20]));
    rig.add(TorrentMeta { id, info_hash, private: true, ..rig.plain() }, true);
    let conn = rig.accept("127.0.0.1:10000");
    let handshake = Handshake::new(InfoHash([9; 20]), THEIRS).with_fast().with_dht();
    assert_eq!(rig.engine.handle_handshake(conn, &handshake, rig.now), Admission::Here);
    let (mut outbox, mut segments) = (Vec::new(), Vec::new());
    rig.perform();
    assert!(rig.engine.take_send(conn, &mut outbox, &mut segments, rig.now));
    let mut port = Vec::new();
    Message::Port(4242).encode(&mut port);
    assert!(!outbox.windows(port.len()).any(|window| window == port));
    rig.say(conn, Message::Port(6881)).unwrap();
    assert_eq!(named(&mut rig), []);
}
