//! Magnet links.
#![no_main]

use libfuzzer_sys::fuzz_target;
use troc::base::limits::{MAGNET_PEERS_MAX, TRACKERS_MAX, WEB_SEEDS_MAX};
use troc::proto::magnet::Magnet;

fuzz_target!(|link: &str| {
    let Ok(magnet) = Magnet::parse(link) else { return };
    assert!(magnet.info_hash.is_some() || magnet.v2_hash.is_some());
    assert!(magnet.trackers.len() <= TRACKERS_MAX && magnet.web_seeds.len() <= WEB_SEEDS_MAX);
    assert!(magnet.peers.len() <= MAGNET_PEERS_MAX && magnet.peers.iter().all(|peer| peer.port != 0));
});
