//! By UDP (BEP 15). No answer to somebody who has not proved its address is longer than the question.

use std::net::{IpAddr, SocketAddr};

use super::super::compact::write_peer;
use super::super::udp::{ConnectionId, TransactionId};
use super::{Answer, Asked, Refusal, Scraped};
use crate::base::ids::InfoHash;
use crate::base::limits::SERVED_SCRAPES_MAX;
use crate::proto::tracker::AnnounceEvent;

const PROTOCOL_ID: u64 = 0x0417_2710_1980;
const CONNECT: u32 = 0;
const ANNOUNCE: u32 = 1;
const SCRAPE: u32 = 2;
const ERROR: u32 = 3;

/// What is asked; whether the connection id is good is for the caller to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UdpQuestion {
    /// For a connection id.
    Connect(TransactionId),
    /// For peers.
    Announce(ConnectionId, TransactionId, Asked),
    /// How large swarms are (BEP 48).
    Scrape(ConnectionId, TransactionId, Vec<InfoHash>),
}

/// Reads a datagram that came from `from`; `None` for what is no question, which is not answered.
pub fn parse_datagram(packet: &[u8], from: IpAddr) -> Option<UdpQuestion> {
    let (id, rest) = packet.split_first_chunk::<8>()?;
    let (action, rest) = rest.split_first_chunk::<4>()?;
    let (transaction, body) = rest.split_first_chunk::<4>()?;
    let id = u64::from_be_bytes(*id);
    let transaction = TransactionId(u32::from_be_bytes(*transaction));
    match u32::from_be_bytes(*action) {
        CONNECT if id == PROTOCOL_ID => Some(UdpQuestion::Connect(transaction)),
        ANNOUNCE => Some(UdpQuestion::Announce(ConnectionId(id), transaction, announce(body, from)?)),
        SCRAPE => {
            let (hashes, _rest) = body.as_chunks::<20>();
            let hashes: Vec<_> = hashes.iter().take(SERVED_SCRAPES_MAX).map(|hash| InfoHash(*hash)).collect();
            (!hashes.is_empty()).then_some(UdpQuestion::Scrape(ConnectionId(id), transaction, hashes))
        }
        _ => None,
    }
}

/// The body of an announce, 82 bytes and whatever BEP 41 appends. Its address is not believed.
fn announce(body: &[u8], from: IpAddr) -> Option<Asked> {
    let (info_hash, rest) = body.split_first_chunk::<20>()?;
    let (_peer_id, rest) = rest.split_first_chunk::<20>()?;
    let (_downloaded, rest) = rest.split_first_chunk::<8>()?;
    let (left, rest) = rest.split_first_chunk::<8>()?;
    let (_uploaded, rest) = rest.split_first_chunk::<8>()?;
    let (event, rest) = rest.split_first_chunk::<4>()?;
    let (_address_and_key, rest) = rest.split_first_chunk::<8>()?;
    let (wanted, rest) = rest.split_first_chunk::<4>()?;
    let port = u16::from_be_bytes(*rest.first_chunk()?);
    let event = match u32::from_be_bytes(*event) {
        1 => AnnounceEvent::Completed,
        2 => AnnounceEvent::Started,
        3 => AnnounceEvent::Stopped,
        _ => AnnounceEvent::None,
    };
    Some(Asked {
        info_hash: InfoHash(*info_hash),
        peer: SocketAddr::new(from, port),
        left_bytes: u64::from_be_bytes(*left),
        event,
        wanted: u32::try_from(i32::from_be_bytes(*wanted)).ok(),
    })
}

/// Gives a connection id: as long as the question.
pub fn connected(transaction: TransactionId, id: ConnectionId) -> Vec<u8> {
    let mut out = header(CONNECT, transaction);
    out.extend(id.0.to_be_bytes());
    out
}

/// The answer to an announce.
pub fn announced(transaction: TransactionId, answer: &Answer) -> Vec<u8> {
    let mut out = header(ANNOUNCE, transaction);
    let seconds = u32::try_from(answer.interval.as_ms() / 1_000).unwrap_or(u32::MAX);
    for word in [seconds, answer.leechers, answer.seeders] {
        out.extend(word.to_be_bytes());
    }
    answer.peers.iter().for_each(|&peer| write_peer(&mut out, peer));
    out
}

/// The answer to a scrape.
pub fn scraped(transaction: TransactionId, scraped: &[Scraped]) -> Vec<u8> {
    let mut out = header(SCRAPE, transaction);
    for found in scraped {
        for word in [found.seeders, found.completed, found.leechers] {
            out.extend(word.to_be_bytes());
        }
    }
    out
}

/// Says why not, in fewer bytes than any question but a connect has.
pub fn failed(transaction: TransactionId, refusal: Refusal) -> Vec<u8> {
    let mut out = header(ERROR, transaction);
    out.extend(refusal.to_string().as_bytes());
    out
}

fn header(action: u32, transaction: TransactionId) -> Vec<u8> {
    [action.to_be_bytes(), transaction.0.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::PeerId;
    use crate::base::limits::SERVED_NUMWANT_MAX;
    use crate::base::time::Span;
    use crate::proto::tracker::AnnounceRequest;
    use crate::proto::tracker::compact::Family;
    use crate::proto::tracker::udp::{
        Answer as Read, announce_request, connect_request, parse_announce, parse_connect,
    };
    use proptest::prelude::*;

    const TX: TransactionId = TransactionId(7);
    const ID: ConnectionId = ConnectionId(0x0102_0304_0506_0708);
    const FROM: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(8, 8, 8, 8));

    fn request() -> AnnounceRequest {
        AnnounceRequest {
            info_hash: InfoHash([1; 20]),
            peer_id: PeerId([2; 20]),
            port: 6881,
            uploaded_bytes: 1,
            downloaded_bytes: 2,
            left_bytes: 3,
            event: AnnounceEvent::Started,
            peers_wanted: None,
            key: 5,
            ipv6: None,
        }
    }

    #[test]
    fn what_our_client_asks_is_understood_and_it_understands_the_answers() {
        assert_eq!(parse_datagram(&connect_request(TX), FROM), Some(UdpQuestion::Connect(TX)));
        let Read::Ours(id) = parse_connect(&connected(TX, ID), TX) else { panic!() };
        assert_eq!(id, ID);
        let asked = Asked {
            info_hash: InfoHash([1; 20]),
            peer: SocketAddr::new(FROM, 6881),
            left_bytes: 3,
            event: AnnounceEvent::Started,
            wanted: None,
        };
        let packet = announce_request(ID, TX, &request());
        assert_eq!(parse_datagram(&packet, FROM), Some(UdpQuestion::Announce(ID, TX, asked)));
        let peers = vec!["1.2.3.4:5".parse().unwrap(); 1];
        let answer = Answer { interval: Span::from_secs(300), seeders: 1, leechers: 2, peers };
        let Read::Ours(read) = parse_announce(&announced(TX, &answer), TX, Family::V4) else { panic!() };
        assert_eq!((read.interval, read.peers, read.leechers), (answer.interval, answer.peers, Some(2)));
        assert!(matches!(parse_announce(&failed(TX, Refusal::Stale), TX, Family::V4), Read::Failed(_)));
    }

    #[test]
    fn n16_no_answer_to_a_stranger_is_longer_than_its_question() {
        let (connect, announce) = (connect_request(TX), announce_request(ID, TX, &request()));
        assert!(connected(TX, ID).len() <= connect.len());
        // All but an answer with a good connection id.
        let scrape = [&ID.0.to_be_bytes()[..], &SCRAPE.to_be_bytes(), &TX.0.to_be_bytes(), &[1; 20]].concat();
        for question in [&announce[..], &scrape] {
            assert!(failed(TX, Refusal::Stale).len() <= question.len());
        }
        for cut in 0..announce.len() {
            assert_eq!(parse_datagram(&announce[..cut], FROM), None, "{cut}");
        }
        let foreign = [&1_u64.to_be_bytes()[..], &[0; 8]].concat();
        assert_eq!(parse_datagram(&foreign, FROM), None, "a connect without the protocol's number");
    }

    #[test]
    fn n15_answers_fit_a_datagram() {
        let peers = vec!["[2a00::1]:6".parse().unwrap(); SERVED_NUMWANT_MAX as usize];
        let answer = Answer { peers, ..Answer::default() };
        assert!(announced(TX, &answer).len() <= 1_480);
        for count in [SERVED_SCRAPES_MAX - 1, SERVED_SCRAPES_MAX, SERVED_SCRAPES_MAX + 1] {
            let mut packet = [&ID.0.to_be_bytes()[..], &SCRAPE.to_be_bytes(), &TX.0.to_be_bytes()].concat();
            packet.extend(vec![1; 20 * count]);
            let Some(UdpQuestion::Scrape(_, _, hashes)) = parse_datagram(&packet, FROM) else { panic!() };
            assert_eq!(hashes.len(), count.min(SERVED_SCRAPES_MAX));
        }
        let found = Scraped { seeders: 1, leechers: 2, completed: 3 };
        assert_eq!(scraped(TX, &[found])[8..], [0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0, 2]);
    }

    proptest! {
        #[test]
        fn any_datagram_is_read_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_datagram(&bytes, FROM);
        }
    }
}
