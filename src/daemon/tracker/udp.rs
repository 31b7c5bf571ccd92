//! One announce or scrape by UDP (BEP 15), over a connected socket: the kernel drops what comes from any
//! other source (threats N9).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use crate::base::ids::InfoHash;
use crate::base::limits::TRACKER_PEERS_MAX;
use crate::base::time::Span;
use crate::daemon::clock;
use crate::proto::tracker::compact::Family;
use crate::proto::tracker::scrape::Scrape;
use crate::proto::tracker::udp::{
    Answer, ConnectionId, TransactionId, announce_request, connect_request, parse_announce, parse_connect,
    parse_scrape, retransmit_waits, scrape_request,
};
use crate::proto::tracker::{AnnounceReply, AnnounceRequest};

use super::error::AnnounceFault;
use super::span_until;

/// Room for the longest reply that is used: header and IPv6 peers. What is longer is cut off.
const REPLY_BYTES: usize = 20 + 18 * TRACKER_PEERS_MAX;

/// What is asked once a connect exchange has proved our address.
pub(super) trait Question {
    /// What is answered.
    type Reply;
    /// The datagram.
    fn packet(&self, connection: ConnectionId, transaction: TransactionId) -> Vec<u8>;
    /// Reads an answer that came by a socket of `family`.
    fn parse(&self, answer: &[u8], transaction: TransactionId, family: Family) -> Answer<Self::Reply>;
}

impl Question for AnnounceRequest {
    type Reply = AnnounceReply;

    fn packet(&self, connection: ConnectionId, transaction: TransactionId) -> Vec<u8> {
        announce_request(connection, transaction, self).to_vec()
    }

    fn parse(&self, answer: &[u8], transaction: TransactionId, family: Family) -> Answer<AnnounceReply> {
        parse_announce(answer, transaction, family)
    }
}

impl Question for InfoHash {
    type Reply = Scrape;

    fn packet(&self, connection: ConnectionId, transaction: TransactionId) -> Vec<u8> {
        scrape_request(connection, transaction, *self).to_vec()
    }

    fn parse(&self, answer: &[u8], transaction: TransactionId, _: Family) -> Answer<Scrape> {
        parse_scrape(answer, transaction)
    }
}

/// Asks the first of `addresses` that answers; each gets an equal share of what is left
/// of the time.
pub(super) async fn ask<Q: Question>(
    addresses: &[SocketAddr],
    question: &Q,
    first_wait: Span,
    deadline: Instant,
) -> Result<Q::Reply, AnnounceFault> {
    let mut fault = AnnounceFault::NoAddress;
    for (place, address) in addresses.iter().enumerate() {
        let share = Span(span_until(deadline).0 / (addresses.len() - place) as u64);
        match ask_one(*address, question, first_wait, share).await {
            Ok(reply) => return Ok(reply),
            // The tracker has spoken; its other addresses would say the same.
            Err(AnnounceFault::Reply(error)) => return Err(AnnounceFault::Reply(error)),
            Err(other) => fault = other,
        }
    }
    Err(fault)
}

async fn ask_one<Q: Question>(
    address: SocketAddr,
    question: &Q,
    first_wait: Span,
    total: Span,
) -> Result<Q::Reply, AnnounceFault> {
    let deadline = Instant::now() + clock::duration(total);
    let (any, family) = match address {
        SocketAddr::V4(_) => (SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), Family::V4),
        SocketAddr::V6(_) => (SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)), Family::V6),
    };
    let socket = UdpSocket::bind(any).await.map_err(|error| AnnounceFault::Network(error.kind()))?;
    socket.connect(address).await.map_err(|error| AnnounceFault::Network(error.kind()))?;

    let transaction = draw_transaction()?;
    let packet = connect_request(transaction);
    let waits = retransmit_waits(first_wait, total);
    let connection = exchange(&socket, &packet, waits, |answer| parse_connect(answer, transaction)).await?;

    let transaction = draw_transaction()?;
    let packet = question.packet(connection, transaction);
    let waits = retransmit_waits(first_wait, span_until(deadline));
    exchange(&socket, &packet, waits, |answer| question.parse(answer, transaction, family)).await
}

/// Sends `packet` again after each wait until an answer to it arrives.
async fn exchange<T>(
    socket: &UdpSocket,
    packet: &[u8],
    waits: impl Iterator<Item = Span>,
    parse: impl Fn(&[u8]) -> Answer<T>,
) -> Result<T, AnnounceFault> {
    let network = |error: std::io::Error| AnnounceFault::Network(error.kind());
    let mut buffer = vec![0; REPLY_BYTES];
    let mut waited = Span::ZERO;
    for wait in waits {
        socket.send(packet).await.map_err(network)?;
        let until = Instant::now() + clock::duration(wait);
        // A flood of foreign datagrams must not hold us beyond the wait.
        while Instant::now() < until {
            let Ok(received) = timeout_at(until, socket.recv(&mut buffer)).await else { break };
            let len = received.map_err(network)?;
            match parse(buffer.get(..len).unwrap_or_default()) {
                Answer::Ours(value) => return Ok(value),
                Answer::Failed(error) => return Err(AnnounceFault::Reply(error)),
                Answer::Foreign => {}
            }
        }
        waited = Span(waited.0 + wait.0);
    }
    Err(AnnounceFault::Timeout(waited))
}

/// From the kernel's generator: who cannot see the request must not guess it.
fn draw_transaction() -> Result<TransactionId, AnnounceFault> {
    getrandom::u32().map(TransactionId).map_err(|_| AnnounceFault::Exhausted)
}
