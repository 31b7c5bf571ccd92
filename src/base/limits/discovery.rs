//! Bounds of discovery: DHT (BEP 5), local network (BEP 14) (threats D1 to D9), and how often an address is
//! dialled that peers name (BEP 11, 55; threats P31, P43).

use super::TORRENTS_MAX;
use crate::base::time::Span;

/// Largest datagram that is sent, and the largest that is read whole.
pub const DHT_DATAGRAM_BYTES_MAX: usize = 1400;
/// Deepest nesting in a datagram of the DHT: values lie in a list in a dictionary in a dictionary.
pub const DHT_DEPTH_MAX: usize = 4;
/// Most bencode tokens in a datagram.
pub const DHT_TOKENS_MAX: usize = 500;
/// Longest transaction id or token of somebody else that is handed back.
pub const DHT_TOKEN_BYTES_MAX: usize = 64;
/// Nodes in one reply that are used; who serves sends eight.
pub const DHT_REPLY_NODES_MAX: usize = 32;
/// Peers in one reply that are used, and peers that one look-up may bring.
pub const DHT_REPLY_PEERS_MAX: usize = 100;
/// See above.
pub const DHT_LOOKUP_PEERS_MAX: usize = 500;
/// Peers in a reply of ours: 30 of 8 bytes leave it below 600 bytes, so that a forged sender gains little.
pub const DHT_VALUES_SENT_MAX: usize = 30;
/// Nodes that one look-up asks, however many closer ones are promised (poisoned nodes).
pub const DHT_LOOKUP_ASKED_MAX: usize = 128;
/// Nodes that a look-up knows of and has not asked.
pub const DHT_LOOKUP_KNOWN_MAX: usize = 64;
/// Look-ups under way at once, over all torrents; those that want peers now go first.
pub const DHT_LOOKUPS_MAX: usize = 16;
/// Places among those for torrents whose peers are few.
pub const DHT_LOOKUPS_HUNGRY_MAX: usize = 12;
/// Queries that wait for an answer, over all look-ups.
pub const DHT_QUERIES_MAX: usize = 1024;
/// A query that is not answered by then has failed.
pub const DHT_QUERY_TIMEOUT: Span = Span::from_secs(2);
/// A query that is older does not keep a look-up from asking the next node.
pub const DHT_QUERY_SLOW: Span = Span::from_ms(500);
/// Queries and answers from one address in a second, after a burst of four times as many.
pub const DHT_QUERIES_PER_SEC: u32 = 5;
/// Addresses whose queries are counted.
pub const DHT_ASKERS_MAX: usize = 1024;
/// Datagrams that are read in a second, after a burst of four times as many; the kernel drops the others.
pub const DHT_READ_PER_SEC: u32 = 2_000;
/// Bytes of replies in a second to all together.
pub const DHT_REPLY_BYTES_PER_SEC: u32 = 64 << 10;
/// Torrents whose peers we keep for others.
pub const DHT_STORED_HASHES_MAX: usize = 2_000;
/// Peers that we keep of each.
pub const DHT_STORED_PEERS_MAX: usize = 100;
/// Peers that we keep of all together.
pub const DHT_STORED_MAX: usize = 10_000;
/// Peers that one public address may have us keep.
pub const DHT_STORED_PER_ADDRESS_MAX: u32 = 64;
/// Others' announces are kept for so long.
pub const DHT_STORED_TIME: Span = Span::from_secs(30 * 60);
/// Addresses that peers (BEP 5 `port`) and unknown askers name, waiting to be pinged.
pub const DHT_HINTS_MAX: usize = 32;
/// Nodes kept over a restart.
pub const DHT_SAVED_NODES_MAX: usize = 200;
/// Longest file of nodes.
pub const DHT_SAVED_BYTES_MAX: usize = 32 << 10;
/// Between two announces of one torrent; up to a fifth of it less, so that nodes do not stay together.
pub const DHT_ANNOUNCE_INTERVAL: Span = Span::from_secs(15 * 60);
/// First wait of a torrent whose peers are few until the next look-up; it doubles up to the interval above.
pub const DHT_HUNGRY_WAIT: Span = Span::from_secs(10);
/// First wait after a look-up that nobody answered; it doubles up to five minutes.
pub const DHT_SILENT_WAIT: Span = Span::from_secs(1);
/// See above.
pub const DHT_SILENT_WAIT_MAX: Span = Span::from_secs(300);
/// A torrent with so many connected peers looks for no more.
pub const PEERS_ENOUGH: u32 = 20;
/// Torrents that discovery serves.
pub const DISCOVERED_MAX: usize = TORRENTS_MAX;
/// Bootstrap nodes that may be named.
pub const DHT_BOOTSTRAP_MAX: usize = 32;
/// Largest datagram of local discovery.
pub const LSD_DATAGRAM_BYTES_MAX: usize = 1400;
/// Info hashes in a datagram of local discovery: as many are sent, and used.
pub const LSD_HASHES_MAX: usize = 20;
/// A torrent is announced on the local network at most once in so long (BEP 14).
pub const LSD_ANNOUNCE_GAP: Span = Span::from_secs(60);
/// And as often as that, if nothing else calls for it (BEP 14).
pub const LSD_ANNOUNCE_INTERVAL: Span = Span::from_secs(5 * 60);
/// Datagrams of local discovery that we send in a second, after a burst of four times as many.
pub const LSD_SENT_PER_SEC: u32 = 5;
/// Datagrams of one neighbour that are read in a second, after a burst of four times as many.
pub const LSD_READ_PER_SEC: u32 = 5;
/// Neighbours that are counted; others wait until one of them has been silent.
pub const LSD_NEIGHBOURS_MAX: usize = 1024;
/// Interfaces on which it is done.
pub const LSD_INTERFACES_MAX: usize = 32;
/// Between two changes of the address at which others are believed to see us.
pub const DHT_MOVE_INTERVAL: Span = Span::from_secs(600);
/// Who is said to wait for our dial is dialled before its time so often, and then once in
/// `PUNCH_HASTES_INTERVAL`: nobody is dialled on and on because somebody says so.
pub const PUNCH_HASTES_MAX: u32 = 4;
/// See above.
pub const PUNCH_HASTES_INTERVAL: Span = Span::from_secs(900);
/// How often an address is believed by hearsay in `PEX_LIVES_SPAN`, each time after it was forgotten, since
/// it could not be dialled.
pub const PEX_LIVES_MAX: u32 = 3;
/// See above.
pub const PEX_LIVES_SPAN: Span = Span::from_secs(3600);
/// Addresses of which that is remembered. Of one more the oldest of the group that had most named is dropped.
pub const PEX_LIVES_ADDRESSES_MAX: usize = super::PEX_CANDIDATES_MAX;
