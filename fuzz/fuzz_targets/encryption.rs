//! Encrypted handshakes: the first byte says which side we are, the rest comes in two parts.
#![no_main]

use libfuzzer_sys::fuzz_target;
use troc::base::ids::InfoHash;
use troc::proto::mse::{Entropy, Handshaker, Methods, torrent_tag};

const HASH: InfoHash = InfoHash([7; 20]);

fuzz_target!(|bytes: &[u8]| {
    let Some((&side, rest)) = bytes.split_first() else { return };
    let entropy = Entropy { private: [5; 20], pad: Vec::new() };
    let mut handshaker = match side & 1 {
        0 => Handshaker::begin(HASH, Methods::Both, Vec::new(), entropy),
        _ => Handshaker::accept(Methods::Both, entropy),
    };
    let (first, second) = rest.split_at(rest.len().min(usize::from(side)));
    let find = |tag: &[u8; 20]| (*tag == torrent_tag(&HASH)).then_some(HASH);
    if handshaker.handle_bytes(first, find).is_ok() {
        let _ = handshaker.handle_bytes(second, find);
    }
});
