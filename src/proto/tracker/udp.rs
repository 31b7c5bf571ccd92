//! The UDP tracker protocol (BEP 15): a connect exchange that proves our address, then announces.
//!
//! A reply counts only if its transaction id is the one we drew and its action the one we asked
//! for; everything else is somebody else's or late and is dropped (threats N9).

use crate::base::ids::InfoHash;
use crate::base::time::Span;

use super::compact::{Family, append};
use super::scrape::Scrape;
use super::{AnnounceEvent, AnnounceReply, AnnounceRequest, PeerList, ReplyError, safe_text, seconds};

/// Length of a connect request.
pub const CONNECT_BYTES: usize = 16;
/// Length of a scrape request for one torrent.
pub const SCRAPE_BYTES: usize = 36;
/// Length of an announce request.
pub const ANNOUNCE_BYTES: usize = 98;

/// Marks a connect request (BEP 15).
const PROTOCOL_ID: u64 = 0x0417_2710_1980;
const ACTION_CONNECT: u32 = 0;
const ACTION_ANNOUNCE: u32 = 1;
const ACTION_SCRAPE: u32 = 2;
const ACTION_ERROR: u32 = 3;

/// A word that ties a reply to its request; drawn from the kernel, so that it cannot be guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionId(pub u32);

/// What a connect exchange yields; valid for a minute from receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionId(pub u64);

/// A datagram seen by one who waits for an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<T> {
    /// The answer.
    Ours(T),
    /// An error packet with our transaction id, or an answer that cannot be read.
    Failed(ReplyError),
    /// Not an answer to us: too short, other transaction id, other action. To be dropped.
    Foreign,
}

/// A connect request.
pub fn connect_request(transaction: TransactionId) -> [u8; CONNECT_BYTES] {
    let mut packet = [0; CONNECT_BYTES];
    let mut out = Fields(&mut packet);
    out.put(&PROTOCOL_ID.to_be_bytes());
    out.put(&ACTION_CONNECT.to_be_bytes());
    out.put(&transaction.0.to_be_bytes());
    packet
}

/// Reads the answer to a connect request.
pub fn parse_connect(packet: &[u8], transaction: TransactionId) -> Answer<ConnectionId> {
    match parse_header(packet, transaction) {
        Header::Body(ACTION_CONNECT, body) => match body.first_chunk::<8>() {
            Some(id) => Answer::Ours(ConnectionId(u64::from_be_bytes(*id))),
            None => Answer::Foreign,
        },
        Header::Error(error) => Answer::Failed(error),
        Header::Body(..) | Header::Foreign => Answer::Foreign,
    }
}

/// An announce request. `ipv6` of the request is not part of this protocol: the address family
/// of the socket decides what the tracker learns and answers.
pub fn announce_request(
    connection: ConnectionId,
    transaction: TransactionId,
    request: &AnnounceRequest,
) -> [u8; ANNOUNCE_BYTES] {
    let event: u32 = match request.event {
        // BEP 15 has no number for what BEP 21 adds.
        AnnounceEvent::None | AnnounceEvent::Paused => 0,
        AnnounceEvent::Completed => 1,
        AnnounceEvent::Started => 2,
        AnnounceEvent::Stopped => 3,
    };
    // -1 leaves the number to the tracker.
    let peers_wanted = request.peers_wanted.map_or(-1, |n| i32::try_from(n).unwrap_or(i32::MAX));
    let mut packet = [0; ANNOUNCE_BYTES];
    let mut out = Fields(&mut packet);
    out.put(&connection.0.to_be_bytes());
    out.put(&ACTION_ANNOUNCE.to_be_bytes());
    out.put(&transaction.0.to_be_bytes());
    out.put(&request.info_hash.0);
    out.put(&request.peer_id.0);
    out.put(&request.downloaded_bytes.to_be_bytes());
    out.put(&request.left_bytes.to_be_bytes());
    out.put(&request.uploaded_bytes.to_be_bytes());
    out.put(&event.to_be_bytes());
    // Zero: our address is the one that the datagram comes from.
    out.put(&0_u32.to_be_bytes());
    out.put(&request.key.to_be_bytes());
    out.put(&peers_wanted.to_be_bytes());
    out.put(&request.port.to_be_bytes());
    packet
}

/// Reads the answer to an announce; `family` is that of the socket it came by.
pub fn parse_announce(packet: &[u8], transaction: TransactionId, family: Family) -> Answer<AnnounceReply> {
    let body = match parse_header(packet, transaction) {
        Header::Body(ACTION_ANNOUNCE, body) => body,
        Header::Error(error) => return Answer::Failed(error),
        Header::Body(..) | Header::Foreign => return Answer::Foreign,
    };
    let Some((fixed, peers)) = body.split_first_chunk::<12>() else { return Answer::Foreign };
    let [i0, i1, i2, i3, l0, l1, l2, l3, s0, s1, s2, s3] = *fixed;
    let interval = i32::from_be_bytes([i0, i1, i2, i3]);
    let mut list = PeerList::default();
    append(&mut list, peers, family);
    Answer::Ours(AnnounceReply {
        interval: seconds(i64::from(interval)),
        min_interval: None,
        peers: list.peers,
        seeders: Some(u32::from_be_bytes([s0, s1, s2, s3])),
        leechers: Some(u32::from_be_bytes([l0, l1, l2, l3])),
        warning: None,
    })
}

/// A request for the counts of one torrent.
pub fn scrape_request(
    connection: ConnectionId,
    transaction: TransactionId,
    info_hash: InfoHash,
) -> [u8; SCRAPE_BYTES] {
    let mut packet = [0; SCRAPE_BYTES];
    let mut out = Fields(&mut packet);
    out.put(&connection.0.to_be_bytes());
    out.put(&ACTION_SCRAPE.to_be_bytes());
    out.put(&transaction.0.to_be_bytes());
    out.put(&info_hash.0);
    packet
}

/// Reads the answer to a scrape of one torrent.
pub fn parse_scrape(packet: &[u8], transaction: TransactionId) -> Answer<Scrape> {
    let body = match parse_header(packet, transaction) {
        Header::Body(ACTION_SCRAPE, body) => body,
        Header::Error(error) => return Answer::Failed(error),
        Header::Body(..) | Header::Foreign => return Answer::Foreign,
    };
    let Some(&[s0, s1, s2, s3, c0, c1, c2, c3, l0, l1, l2, l3]) = body.first_chunk::<12>() else {
        return Answer::Foreign;
    };
    Answer::Ours(Scrape {
        seeds: u32::from_be_bytes([s0, s1, s2, s3]),
        peers: u32::from_be_bytes([l0, l1, l2, l3]),
        completed: u32::from_be_bytes([c0, c1, c2, c3]),
    })
}

/// How long to wait for each copy of one request: `first` doubled each time, cut off when `total`
/// is used up. BEP 15 has 15 s x 2^n; other clients start shorter, since most loss is the first packet's.
pub fn retransmit_waits(first: Span, total: Span) -> impl Iterator<Item = Span> {
    let mut left = total.0;
    let mut next = first.0.max(1);
    std::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        let wait = next.min(left);
        left -= wait;
        next = next.saturating_mul(2);
        Some(Span(wait))
    })
}

enum Header<'a> {
    Body(u32, &'a [u8]),
    Error(ReplyError),
    Foreign,
}

fn parse_header(packet: &[u8], transaction: TransactionId) -> Header<'_> {
    let Some((action, rest)) = packet.split_first_chunk::<4>() else { return Header::Foreign };
    let Some((id, body)) = rest.split_first_chunk::<4>() else { return Header::Foreign };
    if u32::from_be_bytes(*id) != transaction.0 {
        return Header::Foreign;
    }
    match u32::from_be_bytes(*action) {
        ACTION_ERROR => Header::Error(ReplyError::Refused(safe_text(body))),
        action => Header::Body(action, body),
    }
}

/// Fills a packet from the front. The packet is as long as its fields together.
struct Fields<'a>(&'a mut [u8]);

impl Fields<'_> {
    fn put(&mut self, bytes: &[u8]) {
        let (field, rest) = std::mem::take(&mut self.0).split_at_mut(bytes.len());
        field.copy_from_slice(bytes);
        self.0 = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::PeerId;
    use proptest::prelude::*;

    const TX: TransactionId = TransactionId(0x0102_0304);

    fn request() -> AnnounceRequest {
        AnnounceRequest {
            info_hash: InfoHash([7; 20]),
            peer_id: PeerId([8; 20]),
            port: 0x1ae1,
            uploaded_bytes: 3,
            downloaded_bytes: 1,
            left_bytes: 2,
            event: AnnounceEvent::Started,
            peers_wanted: None,
            key: 0x0a0b_0c0d,
            ipv6: None,
        }
    }

    fn reply(action: u32, transaction: u32, body: &[u8]) -> Vec<u8> {
        [&action.to_be_bytes(), &transaction.to_be_bytes(), body].concat()
    }

    #[test]
    fn n9_scrapes_have_the_bytes_of_bep_15_and_only_whole_answers_count() {
        let packet = scrape_request(ConnectionId(0x1122_3344_5566_7788), TX, InfoHash([7; 20]));
        let head = [0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0, 0, 0, 2, 1, 2, 3, 4];
        assert_eq!((&packet[..16], &packet[16..]), (&head[..], &[7; 20][..]));
        let whole = reply(2, TX.0, &[0, 0, 0, 5, 0, 0, 0, 50, 0, 0, 0, 10]);
        let want = Scrape { seeds: 5, peers: 10, completed: 50 };
        assert_eq!(parse_scrape(&whole, TX), Answer::Ours(want));
        (0..whole.len()).for_each(|len| assert_eq!(parse_scrape(&whole[..len], TX), Answer::Foreign));
        assert_eq!(parse_scrape(&reply(1, TX.0, &[0; 12]), TX), Answer::Foreign);
        assert_eq!(parse_scrape(&reply(2, TX.0 + 1, &[0; 12]), TX), Answer::Foreign);
        assert!(matches!(parse_scrape(&reply(3, TX.0, b"no"), TX), Answer::Failed(_)));
    }

    #[test]
    fn requests_have_the_bytes_of_bep_15() {
        let connect = connect_request(TX);
        assert_eq!(connect, [0, 0, 4, 0x17, 0x27, 0x10, 0x19, 0x80, 0, 0, 0, 0, 1, 2, 3, 4]);
        let packet = announce_request(ConnectionId(0x1122_3344_5566_7788), TX, &request());
        let expected = [
            &[0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0, 0, 0, 1, 1, 2, 3, 4][..],
            &[7; 20],
            &[8; 20],
            &[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3],
            &[0, 0, 0, 2, 0, 0, 0, 0, 10, 11, 12, 13, 0xff, 0xff, 0xff, 0xff, 0x1a, 0xe1],
        ]
        .concat();
        assert_eq!(packet.to_vec(), expected);
    }

    #[test]
    fn answers_are_read() {
        let connect = reply(0, TX.0, &[0, 0, 0, 0, 0, 0, 0, 9]);
        assert_eq!(parse_connect(&connect, TX), Answer::Ours(ConnectionId(9)));
        let body = [0, 0, 7, 8, 0, 0, 0, 5, 0, 0, 0, 6, 1, 2, 3, 4, 0, 80];
        let Answer::Ours(got) = parse_announce(&reply(1, TX.0, &body), TX, Family::V4) else {
            panic!("not read")
        };
        assert_eq!((got.interval, got.seeders, got.leechers), (Span::from_secs(1800), Some(6), Some(5)));
        assert_eq!(got.peers, ["1.2.3.4:80".parse().unwrap()]);
        let refused = parse_announce(&reply(3, TX.0, b"no \x1b"), TX, Family::V4);
        assert_eq!(refused, Answer::Failed(ReplyError::Refused("no \\u{1b}".into())));
    }

    #[test]
    fn n7_negative_interval_is_zero() {
        let body = [0xff; 12];
        let Answer::Ours(got) = parse_announce(&reply(1, TX.0, &body), TX, Family::V4) else { panic!() };
        assert_eq!(got.interval, Span::ZERO);
    }

    #[test]
    fn n9_what_is_not_ours_is_foreign() {
        let body = [0; 12];
        for (action, transaction) in [(1, TX.0 + 1), (0, TX.0), (2, TX.0), (u32::MAX, TX.0), (3, 0)] {
            let packet = reply(action, transaction, &body);
            assert_eq!(parse_announce(&packet, TX, Family::V4), Answer::Foreign, "{action} {transaction}");
        }
        assert_eq!(parse_connect(&reply(1, TX.0, &body), TX), Answer::Foreign);
    }

    #[test]
    fn n9_truncated_at_every_byte_is_foreign() {
        let connect = reply(0, TX.0, &[0; 8]);
        (0..connect.len()).for_each(|n| assert_eq!(parse_connect(&connect[..n], TX), Answer::Foreign));
        let announce = reply(1, TX.0, &[0; 12]);
        for n in 0..announce.len() {
            assert_eq!(parse_announce(&announce[..n], TX, Family::V6), Answer::Foreign);
        }
    }

    #[test]
    fn retransmission_doubles_until_the_total_is_used_up() {
        let waits = |first, total| {
            retransmit_waits(Span::from_secs(first), Span::from_secs(total)).map(|w| w.0 / 1_000_000_000)
        };
        assert_eq!(waits(3, 30).collect::<Vec<_>>(), [3, 6, 12, 9]);
        assert_eq!(waits(15, 3825).collect::<Vec<_>>(), [15, 30, 60, 120, 240, 480, 960, 1920]);
        assert_eq!(waits(15, 10).collect::<Vec<_>>(), [10]);
        assert_eq!(waits(3, 0).count(), 0);
        assert!(retransmit_waits(Span::ZERO, Span(1000)).count() < 12);
    }

    proptest! {
        #[test]
        fn any_datagram_is_survived(packet in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_connect(&packet, TX);
            let _ = parse_announce(&packet, TX, Family::V4);
        }

        /// Behind a header that is right, so that the body is read.
        #[test]
        fn any_body_is_foreign_or_gives_usable_peers(
            body in proptest::collection::vec(any::<u8>(), 0..200),
            action in 0..4u32,
            v6: bool,
        ) {
            let packet = reply(action, TX.0, &body);
            let (family, peer_bytes) = if v6 { (Family::V6, 18) } else { (Family::V4, 6) };
            match parse_announce(&packet, TX, family) {
                Answer::Ours(reply) => {
                    prop_assert!(action == 1 && reply.peers.len() <= (body.len() - 12) / peer_bytes);
                    prop_assert!(reply.peers.iter().all(|peer| peer.port() != 0 && peer.is_ipv6() == v6));
                }
                Answer::Failed(_) => prop_assert_eq!(action, 3),
                Answer::Foreign => prop_assert!(action == 0 || action == 2 || body.len() < 12),
            }
            let connected = matches!(parse_connect(&packet, TX), Answer::Ours(_));
            prop_assert_eq!(connected, action == 0 && body.len() >= 8);
        }
    }
}
