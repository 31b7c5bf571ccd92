//! Announces and scrapes by UDP (BEP 15).

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::rc::Rc;
use std::time::Duration;

use super::Desk;
use crate::base::time::Instant;
use crate::daemon::clock;
use crate::proto::tracker::serve::{
    Families, Refusal, UdpQuestion, announced, connected, failed, parse_datagram, scraped,
};

/// Longest question: a scrape of as many torrents as fit.
const QUESTION_BYTES: usize = 2_048;

/// Wait after an error of the socket.
const PAUSE: Duration = Duration::from_millis(10);

/// Serves until the runtime ends; `ours` is where it listens.
pub(super) async fn serve(socket: UdpSocket, ours: IpAddr, desk: Rc<Desk>) {
    let socket = match tokio::net::UdpSocket::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => return tracing::error!("the tracker does not serve UDP: {error}"),
    };
    let mut packet = vec![0; QUESTION_BYTES];
    loop {
        match socket.recv_from(&mut packet).await {
            Ok((length, from)) => {
                if let Some(reply) = answer(&packet[..length], from, ours, &desk, clock::now()) {
                    // What the kernel has no room for now is lost; clients ask again.
                    let _ = socket.try_send_to(&reply, from);
                }
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// What a datagram is answered, if anything.
fn answer(packet: &[u8], from: SocketAddr, ours: IpAddr, desk: &Desk, now: Instant) -> Option<Vec<u8>> {
    let source = from.ip().to_canonical();
    let stale = |id| !desk.ids.is_good(id, source, now);
    Some(match parse_datagram(packet, source)? {
        UdpQuestion::Connect(transaction) => connected(transaction, desk.ids.give(source, now)),
        UdpQuestion::Announce(id, transaction, _) | UdpQuestion::Scrape(id, transaction, _) if stale(id) => {
            failed(transaction, Refusal::Stale)
        }
        UdpQuestion::Announce(_, transaction, asked) => {
            let families = if source.is_ipv6() { Families::V6 } else { Families::V4 };
            match desk.announce(asked, None, families, Some(ours)) {
                Ok(answer) => announced(transaction, &answer),
                Err(refusal) => failed(transaction, refusal),
            }
        }
        UdpQuestion::Scrape(_, transaction, hashes) => {
            scraped(transaction, &desk.tracker.borrow_mut().handle_scrape(&hashes, now))
        }
    })
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::base::ids::{InfoHash, PeerId};
    use crate::base::limits::SERVED_INTERVAL;
    use crate::base::network::Grouping;
    use crate::base::rng::Rng;
    use crate::daemon::tracker_server::connection_id::ConnectionIds;
    use crate::engine::tracker::{Rules, Tracker};
    use crate::proto::tracker::compact::Family;
    use crate::proto::tracker::udp::{
        Answer, ConnectionId, TransactionId, announce_request, connect_request, parse_announce, parse_connect,
    };
    use crate::proto::tracker::{AnnounceEvent, AnnounceRequest};

    const NOW: Instant = Instant(1_000_000_000_000);
    const TX: TransactionId = TransactionId(9);
    const OURS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

    fn desk() -> Desk {
        let rules = Rules { interval: SERVED_INTERVAL, allow: None, grouping: Grouping::default() };
        Desk {
            tracker: RefCell::new(Tracker::new(rules, Rng::new(1))),
            ids: ConnectionIds::new(&[7; 32]),
            on_peer: Box::new(|_, _| {}),
            our_port: None,
        }
    }

    fn announce(id: ConnectionId, port: u16) -> [u8; 98] {
        let request = AnnounceRequest {
            info_hash: InfoHash([1; 20]),
            peer_id: PeerId([2; 20]),
            port,
            uploaded_bytes: 0,
            downloaded_bytes: 0,
            left_bytes: 1,
            event: AnnounceEvent::Started,
            peers_wanted: None,
            key: 0,
            ipv6: None,
        };
        announce_request(id, TX, &request)
    }

    #[test]
    fn n16_who_does_not_receive_at_its_address_gets_nothing_and_leaves_nothing() {
        let desk = desk();
        let (client, victim): (SocketAddr, SocketAddr) =
            ("8.8.8.8:5".parse().unwrap(), "9.9.9.9:6".parse().unwrap());
        let ask = |packet: &[u8], from| answer(packet, from, OURS, &desk, NOW);
        let reply = ask(&connect_request(TX), client).unwrap();
        let Answer::Ours(id) = parse_connect(&reply, TX) else { panic!() };
        // The id of one address, or none, in the name of another.
        for packet in [&announce(id, 1)[..], &announce(ConnectionId(0), 1)] {
            let reply = ask(packet, victim).unwrap();
            assert!(reply.len() < packet.len());
            assert!(matches!(parse_announce(&reply, TX, Family::V4), Answer::Failed(_)));
        }
        assert_eq!(desk.tracker.borrow().figures().peers, 0);
        assert!(matches!(
            parse_announce(&ask(&announce(id, 1), client).unwrap(), TX, Family::V4),
            Answer::Ours(_)
        ));
        assert_eq!(desk.tracker.borrow().figures().peers, 1);
        assert_eq!(ask(b"hello", client), None);
    }

    #[test]
    fn two_that_announce_hear_of_one_another() {
        let desk = desk();
        let from = |text: &str| text.parse::<SocketAddr>().unwrap();
        let heard = |from: SocketAddr, port| {
            let id = desk.ids.give(from.ip().to_canonical(), NOW);
            let reply = answer(&announce(id, port), from, OURS, &desk, NOW).unwrap();
            match parse_announce(&reply, TX, Family::V4) {
                Answer::Ours(reply) => reply.peers,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(heard(from("8.8.8.8:50000"), 6881), []);
        assert_eq!(heard(from("[::ffff:9.9.9.9]:50000"), 6882), [from("8.8.8.8:6881")]);
        assert_eq!(heard(from("8.8.8.8:50000"), 6881), [from("9.9.9.9:6882")]);
    }
}
