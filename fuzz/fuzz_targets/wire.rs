//! The peer wire after the handshake: every frame takes something, and messages survive a round trip.
#![no_main]

use libfuzzer_sys::fuzz_target;
use troc::proto::wire::handshake::Handshake;
use troc::proto::wire::message::{Frame, Message, next_frame};

/// Bytes of the bit field of a torrent of 100 pieces.
const BITFIELD_BYTES: u32 = 13;

fuzz_target!(|bytes: &[u8]| {
    let _ = Handshake::parse(bytes);
    let mut rest = bytes;
    while let Ok(Some((frame, taken))) = next_frame(rest, BITFIELD_BYTES) {
        assert!(taken > 0 && taken <= rest.len());
        if let Frame::Message(message) = frame
            && !matches!(message, Message::Unknown { .. })
        {
            let mut out = Vec::new();
            message.encode(&mut out);
            assert_eq!(out, &rest[..taken]);
        }
        rest = &rest[taken..];
    }
});
