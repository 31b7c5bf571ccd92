//! Datagrams of the hash table and of local discovery, and who announces to our tracker.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use libfuzzer_sys::fuzz_target;
use troc::base::ids::InfoHash;
use troc::proto::tracker::compact::Family;
use troc::proto::tracker::scrape::parse_scrape;
use troc::proto::tracker::serve::{parse_datagram, parse_query};
use troc::proto::{krpc, lsd};

fuzz_target!(|bytes: &[u8]| {
    for family in [Family::V4, Family::V6] {
        let _ = krpc::parse(bytes, family);
        let _ = krpc::parse_nodes(bytes, family);
    }
    let _ = lsd::parse(bytes);
    let from = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let _ = parse_datagram(bytes, from);
    let _ = parse_scrape(bytes, InfoHash([7; 20]));
    if let Ok(text) = std::str::from_utf8(bytes) {
        let (path, query) = text.split_once('?').unwrap_or(("/announce", text));
        let _ = parse_query(path, query, from);
    }
});
