//! Nodes of the distributed hash table, kept so that a start does not hang on the bootstrap nodes.
//!
//! A hint and no more: a file that is damaged, too long or of another network is as good as none, nothing of
//! it is believed before it has answered, and the last of several processes to write has it.

use std::io::{Read, Write};
use std::path::PathBuf;

use super::{StateDir, private, xxh3_64_with_seed};
use crate::base::limits::{DHT_SAVED_BYTES_MAX, DHT_SAVED_NODES_MAX};
use crate::proto::bencode::{Item, Value, parse};
use crate::proto::krpc::{Contact, parse_nodes, write_nodes};
use crate::proto::tracker::compact::Family;

const NAMES: [&str; 2] = ["dht-nodes", "dht-nodes6"];

impl StateDir {
    /// The nodes that were kept for the network named `network`.
    pub fn read_nodes(&self, family: Family, network: &str) -> Vec<Contact> {
        let mut bytes = Vec::new();
        let opened = private().read(true).open(self.nodes_path(family));
        let read = opened.and_then(|file| file.take(DHT_SAVED_BYTES_MAX as u64 + 1).read_to_end(&mut bytes));
        let whole = read.is_ok() && bytes.len() <= DHT_SAVED_BYTES_MAX;
        if whole { decode(&bytes, family, network).unwrap_or_default() } else { Vec::new() }
    }

    /// Keeps nodes: all of them, or what was there before.
    pub fn write_nodes(&self, family: Family, network: &str, nodes: &[Contact]) -> std::io::Result<()> {
        let path = self.nodes_path(family);
        let temp = path.with_extension(std::process::id().to_string());
        let mut file = private().write(true).create(true).truncate(true).open(&temp)?;
        let written = file.write_all(&encode(network, nodes)).and_then(|()| std::fs::rename(&temp, &path));
        if written.is_err() {
            let _ = std::fs::remove_file(&temp);
        }
        written
    }

    /// A name for a node of the table that listens on `port`: the same at each start.
    pub fn dht_seed(&self, port: u16) -> u64 {
        xxh3_64_with_seed(&self.secret.0, 0x6468_7400 + u64::from(port))
    }

    fn nodes_path(&self, family: Family) -> PathBuf {
        self.path.join(NAMES[usize::from(family == Family::V6)])
    }
}

fn encode(network: &str, nodes: &[Contact]) -> Vec<u8> {
    let nodes = write_nodes(&nodes[..nodes.len().min(DHT_SAVED_NODES_MAX)]);
    Item::dict([("network", network.into()), ("nodes", Item::Bytes(&nodes))]).to_bytes()
}

fn decode(bytes: &[u8], family: Family, network: &str) -> Option<Vec<Contact>> {
    let value = parse(bytes, 1, 8).ok()?;
    value.get(b"network").and_then(Value::as_str).filter(|found| *found == network)?;
    let nodes = value.get(b"nodes")?.as_bytes()?;
    let nodes = nodes.chunks(family.node_bytes()).take(DHT_SAVED_NODES_MAX);
    Some(nodes.flat_map(|node| parse_nodes(node, family)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::krpc::NodeId;

    fn nodes(count: usize) -> Vec<Contact> {
        let node = |n: usize| Contact {
            id: NodeId([n as u8; 20]),
            address: std::net::SocketAddr::from(([8, 8, (n >> 8) as u8, n as u8], 1)),
        };
        (0..count).map(node).collect()
    }

    #[test]
    fn d9_nodes_are_found_again_up_to_the_limit_and_in_their_own_network_only() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        assert_eq!(state.read_nodes(Family::V4, "public"), []);
        for count in [0, 1, DHT_SAVED_NODES_MAX - 1, DHT_SAVED_NODES_MAX, DHT_SAVED_NODES_MAX + 1] {
            state.write_nodes(Family::V4, "public", &nodes(count)).unwrap();
            let found = state.read_nodes(Family::V4, "public");
            assert_eq!(found, nodes(count.min(DHT_SAVED_NODES_MAX)));
            assert_eq!(state.read_nodes(Family::V4, "10.0.0.1:5"), []);
            assert_eq!(state.read_nodes(Family::V6, "public"), []);
        }
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(dir.path().join("dht-nodes")).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn d9_a_damaged_file_is_as_good_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let whole = encode("public", &nodes(3));
        for len in 0..whole.len() {
            std::fs::write(dir.path().join("dht-nodes"), &whole[..len]).unwrap();
            assert_eq!(state.read_nodes(Family::V4, "public"), [], "{len}");
        }
        for junk in [vec![b'l'; DHT_SAVED_BYTES_MAX], vec![b'1'; 2 * DHT_SAVED_BYTES_MAX]] {
            std::fs::write(dir.path().join("dht-nodes"), junk).unwrap();
            assert_eq!(state.read_nodes(Family::V4, "public"), []);
        }
    }
}
