//! The datagrams of the distributed hash table: BEP 5, with IPv6 (BEP 32), the sender's address as others
//! see it (BEP 42) and read-only nodes (BEP 43).
//!
//! What is longer, deeper or of more parts than any honest datagram is dropped without an answer: a source
//! address may be forged, so nothing is explained to anybody.

use std::net::{IpAddr, SocketAddr};

use super::bencode::{self, Item, Value};
use super::tracker::compact::{Family, read_v4, read_v6, usable, write_peer};
use crate::base::address::{AddressClass, canonical};
use crate::base::ids::InfoHash;
use crate::base::limits::{
    DHT_DATAGRAM_BYTES_MAX, DHT_DEPTH_MAX, DHT_REPLY_NODES_MAX, DHT_REPLY_PEERS_MAX, DHT_TOKEN_BYTES_MAX,
    DHT_TOKENS_MAX,
};

/// By which clients tell each other's software apart.
const VERSION: &[u8] = b"tC\x00\x01";

/// The name of a node; as long as an info hash, so that the two have a distance.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub [u8; 20]);

/// A node as others name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contact {
    /// Its name.
    pub id: NodeId,
    /// Where it is.
    pub address: SocketAddr,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// Whether somebody is there.
    Ping,
    /// For the nodes closest to a target.
    FindNode(NodeId),
    /// For peers of a torrent, or else for the nodes closest to it.
    GetPeers(InfoHash),
    /// To remember the asker as a peer of a torrent.
    Announce {
        /// Of which torrent.
        info_hash: InfoHash,
        /// Where it accepts peers; `None`: where the datagram comes from.
        port: Option<u16>,
        /// What our answer to its `get_peers` said, as proof of its address.
        token: Vec<u8>,
    },
}

/// A query with its sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// To be handed back.
    pub transaction: Vec<u8>,
    /// The sender's name.
    pub id: NodeId,
    /// See [`Query`].
    pub query: Query,
    /// The sender answers no queries: nobody should remember it as a node (BEP 43).
    pub read_only: bool,
}

/// What comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// That of the query.
    pub transaction: Vec<u8>,
    /// The sender's name.
    pub id: NodeId,
    /// Nodes that it knows, at most [`DHT_REPLY_NODES_MAX`] of this family.
    pub nodes: Vec<Contact>,
    /// Peers that it knows, at most [`DHT_REPLY_PEERS_MAX`].
    pub peers: Vec<SocketAddr>,
    /// To be handed back with an announce.
    pub token: Option<Vec<u8>>,
    /// The address from which it saw the query come (BEP 42).
    pub seen: Option<SocketAddr>,
}

/// One datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// `q`
    Request(Request),
    /// `r`
    Reply(Reply),
    /// `e`, with its transaction.
    Error(Vec<u8>),
}

impl NodeId {
    /// The XOR metric.
    #[must_use]
    pub fn distance(self, other: Self) -> [u8; 20] {
        std::array::from_fn(|at| self.0[at] ^ other.0[at])
    }
}

impl std::fmt::Debug for NodeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        InfoHash(self.0).fmt(f)
    }
}

/// Reads a datagram that came by a socket of `family`; `None` for anything that is not one.
pub fn parse(bytes: &[u8], family: Family) -> Option<Packet> {
    if bytes.len() > DHT_DATAGRAM_BYTES_MAX {
        return None;
    }
    let value = bencode::parse(bytes, DHT_DEPTH_MAX, DHT_TOKENS_MAX).ok()?;
    let transaction = short(value.get(b"t")?)?;
    match value.get(b"y")?.as_bytes()? {
        b"q" => request(value, transaction).map(Packet::Request),
        b"r" => reply(value, transaction, family).map(Packet::Reply),
        b"e" => Some(Packet::Error(transaction)),
        _ => None,
    }
}

fn request(value: Value<'_>, transaction: Vec<u8>) -> Option<Request> {
    let arguments = value.get(b"a")?;
    let info_hash = || id(arguments, b"info_hash").map(|id| InfoHash(id.0));
    let query = match value.get(b"q")?.as_bytes()? {
        b"ping" => Query::Ping,
        b"find_node" => Query::FindNode(id(arguments, b"target")?),
        b"get_peers" => Query::GetPeers(info_hash()?),
        b"announce_peer" => {
            let implied = arguments.get(b"implied_port").and_then(Value::as_int).is_some_and(|n| n != 0);
            let port = || u16::try_from(arguments.get(b"port")?.as_int()?).ok().filter(|&port| port != 0);
            let port = if implied { None } else { Some(port()?) };
            Query::Announce { info_hash: info_hash()?, port, token: short(arguments.get(b"token")?)? }
        }
        _ => return None,
    };
    let read_only = value.get(b"ro").and_then(Value::as_int).is_some_and(|n| n != 0);
    Some(Request { transaction, id: id(arguments, b"id")?, query, read_only })
}

fn reply(value: Value<'_>, transaction: Vec<u8>, family: Family) -> Option<Reply> {
    let values = value.get(b"r")?;
    let nodes = values.get(nodes_key(family).as_bytes()).and_then(Value::as_bytes).unwrap_or_default();
    let peers = values.get(b"values").and_then(Value::as_list).into_iter().flatten();
    let peers = peers.filter_map(Value::as_bytes).filter_map(one_peer).take(DHT_REPLY_PEERS_MAX);
    Some(Reply {
        transaction,
        id: id(values, b"id")?,
        nodes: parse_nodes(nodes, family),
        peers: peers.collect(),
        token: values.get(b"token").and_then(short),
        seen: value.get(b"ip").and_then(Value::as_bytes).and_then(one_peer),
    })
}

/// The nodes of a compact list: those that can be, at most [`DHT_REPLY_NODES_MAX`].
pub fn parse_nodes(bytes: &[u8], family: Family) -> Vec<Contact> {
    let contact = |entry: &[u8]| {
        let (id, address) = entry.split_first_chunk::<20>()?;
        Some(Contact { id: NodeId(*id), address: one_peer(address)? })
    };
    let entries = bytes.chunks_exact(family.node_bytes());
    entries.take(DHT_REPLY_NODES_MAX).filter_map(contact).collect()
}

/// The compact list of nodes, as [`parse_nodes`] reads it.
pub fn write_nodes(nodes: &[Contact]) -> Vec<u8> {
    let mut out = Vec::with_capacity(nodes.len() * Family::V6.node_bytes());
    for node in nodes {
        out.extend_from_slice(&node.id.0);
        write_peer(&mut out, node.address);
    }
    out
}

/// One compact address of either family that a host can have.
fn one_peer(bytes: &[u8]) -> Option<SocketAddr> {
    let address = match (<&[u8; 6]>::try_from(bytes), <&[u8; 18]>::try_from(bytes)) {
        (Ok(v4), _) => read_v4(v4),
        (_, Ok(v6)) => read_v6(v6),
        _ => return None,
    };
    usable(address)
}

fn id(values: Value<'_>, key: &[u8]) -> Option<NodeId> {
    values.get(key)?.as_bytes()?.try_into().ok().map(NodeId)
}

fn short(value: Value<'_>) -> Option<Vec<u8>> {
    value.as_bytes().filter(|bytes| bytes.len() <= DHT_TOKEN_BYTES_MAX).map(<[u8]>::to_vec)
}

const fn nodes_key(family: Family) -> &'static str {
    match family {
        Family::V4 => "nodes",
        Family::V6 => "nodes6",
    }
}

impl Request {
    /// The datagram.
    pub fn encode(&self) -> Vec<u8> {
        let id = ("id", Item::Bytes(&self.id.0));
        let (name, arguments) = match &self.query {
            Query::Ping => ("ping", Item::dict([id])),
            Query::FindNode(target) => ("find_node", Item::dict([id, ("target", Item::Bytes(&target.0))])),
            Query::GetPeers(hash) => ("get_peers", Item::dict([id, ("info_hash", Item::Bytes(&hash.0))])),
            Query::Announce { info_hash, port, token } => {
                let arguments = [
                    id,
                    ("info_hash", Item::Bytes(&info_hash.0)),
                    ("implied_port", Item::Int(i64::from(port.is_none()))),
                    ("port", Item::Int(port.unwrap_or(0).into())),
                    ("token", Item::Bytes(token)),
                ];
                ("announce_peer", Item::dict(arguments))
            }
        };
        let ro = self.read_only.then_some(("ro", Item::Int(1)));
        let fields = [
            ("a", arguments),
            ("q", name.into()),
            ("t", Item::Bytes(&self.transaction)),
            ("v", Item::Bytes(VERSION)),
            ("y", "q".into()),
        ];
        Item::dict(fields.into_iter().chain(ro)).to_bytes()
    }
}

impl Reply {
    /// The datagram; `family` is that of the nodes.
    pub fn encode(&self, family: Family) -> Vec<u8> {
        let nodes = write_nodes(&self.nodes);
        let compact = |peer: &SocketAddr| {
            let mut out = Vec::with_capacity(18);
            write_peer(&mut out, *peer);
            out
        };
        let peers: Vec<Vec<u8>> = self.peers.iter().map(compact).collect();
        let seen = self.seen.as_ref().map(compact);
        let mut values = vec![("id", Item::Bytes(&self.id.0))];
        if !nodes.is_empty() {
            values.push((nodes_key(family), Item::Bytes(&nodes)));
        }
        if !peers.is_empty() {
            values.push(("values", Item::List(peers.iter().map(|peer| Item::Bytes(peer)).collect())));
        }
        values.extend(self.token.as_deref().map(|token| ("token", Item::Bytes(token))));
        let ip = seen.as_deref().map(|seen| ("ip", Item::Bytes(seen)));
        let fields = [
            ("r", Item::dict(values)),
            ("t", Item::Bytes(&self.transaction)),
            ("v", Item::Bytes(VERSION)),
            ("y", "r".into()),
        ];
        Item::dict(fields.into_iter().chain(ip)).to_bytes()
    }
}

/// An error with one of BEP 5's codes.
pub fn encode_error(transaction: &[u8], code: u16, text: &str) -> Vec<u8> {
    let error = Item::List(vec![Item::Int(code.into()), text.into()]);
    Item::dict([("e", error), ("t", Item::Bytes(transaction)), ("y", "e".into())]).to_bytes()
}

/// BEP 42: the first 21 bits that an id at `address` must have, for the low three bits of `last`, its last
/// byte.
fn prefix(address: IpAddr, last: u8) -> [u8; 3] {
    const CASTAGNOLI: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);
    let rand = last & 7;
    let checksum = match address {
        IpAddr::V4(v4) => {
            let mut bytes = (u32::from(v4) & 0x030f_3fff).to_be_bytes();
            bytes[0] |= rand << 5;
            CASTAGNOLI.checksum(&bytes)
        }
        IpAddr::V6(v6) => {
            let mut bytes = ((u128::from(v6) >> 64) as u64 & 0x0103_070f_1f3f_7fff).to_be_bytes();
            bytes[0] |= rand << 5;
            CASTAGNOLI.checksum(&bytes)
        }
    };
    let [a, b, c, _] = checksum.to_be_bytes();
    [a, b, c & 0xf8]
}

/// Whether a node at `address` may have this id (BEP 42). On local networks it may have any.
pub fn fits(id: NodeId, address: IpAddr) -> bool {
    let address = canonical(address);
    let [a, b, c, .., last] = id.0;
    AddressClass::of(address) != AddressClass::Global || [a, b, c & 0xf8] == prefix(address, last)
}

/// `random` made into an id that a node at `address` may have (BEP 42).
#[must_use]
pub fn fitting_id(mut random: NodeId, address: IpAddr) -> NodeId {
    let [a, b, c] = prefix(canonical(address), random.0[19]);
    let low = random.0[2] & 7;
    random.0[..3].copy_from_slice(&[a, b, c | low]);
    random
}

#[cfg(test)]
mod tests;
