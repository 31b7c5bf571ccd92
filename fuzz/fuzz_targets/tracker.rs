//! Answers of trackers over HTTP and UDP, and their addresses.
#![no_main]

use libfuzzer_sys::fuzz_target;
use troc::base::limits::TRACKER_PEERS_MAX;
use troc::proto::tracker::compact::Family;
use troc::proto::tracker::http::parse_reply;
use troc::proto::tracker::udp::{Answer, TransactionId, parse_announce, parse_connect};
use troc::proto::tracker::url::TrackerUrl;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(reply) = parse_reply(bytes) {
        assert!(reply.peers.len() <= TRACKER_PEERS_MAX);
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = TrackerUrl::parse(text);
    }
    let Some((number, packet)) = bytes.split_first_chunk::<4>() else { return };
    let transaction = TransactionId(u32::from_be_bytes(*number));
    let _ = parse_connect(packet, transaction);
    for family in [Family::V4, Family::V6] {
        if let Answer::Ours(reply) = parse_announce(packet, transaction, family) {
            assert!(reply.peers.len() <= TRACKER_PEERS_MAX);
        }
    }
});
