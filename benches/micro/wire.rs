//! Messages to bytes and back.

use std::hint::black_box;

use troc::base::geometry::BlockRef;
use troc::base::units::BLOCK_BYTES;
use troc::proto::wire::message::{Message, next_frame, piece_header};

use super::case::{Case, Work, work};

const MESSAGES: Work = work(256, "messages");
/// Size of the bit field of the torrent that the messages are about.
const BITFIELD_BYTES: u32 = 128;

pub fn cases() -> Vec<Case> {
    vec![
        Case::steady("wire/parse-requests", MESSAGES, || encoded(request), |wire| parse(wire)),
        Case::steady("wire/parse-haves", MESSAGES, || encoded(Message::Have), |wire| parse(wire)),
        Case::steady("wire/encode-requests", MESSAGES, Vec::new, |out| encode(request, out)),
        Case::steady("wire/encode-haves", MESSAGES, Vec::new, |out| encode(Message::Have, out)),
        Case::steady("wire/encode-piece-headers", MESSAGES, || (), |()| piece_headers()),
    ]
}

fn block(index: u32) -> BlockRef {
    BlockRef { piece: index / 64, begin: index % 64 * BLOCK_BYTES, length: BLOCK_BYTES }
}

fn request(index: u32) -> Message<'static> {
    Message::Request(block(index))
}

fn encoded(message: fn(u32) -> Message<'static>) -> Vec<u8> {
    let mut out = Vec::new();
    encode(message, &mut out);
    out
}

fn encode(message: fn(u32) -> Message<'static>, out: &mut Vec<u8>) {
    out.clear();
    for index in 0..MESSAGES.units as u32 {
        message(black_box(index)).encode(out);
    }
}

fn parse(wire: &[u8]) {
    let mut left = black_box(wire);
    while let Some((frame, used)) = next_frame(left, BITFIELD_BYTES).expect("well formed") {
        black_box(frame);
        left = &left[used..];
    }
}

fn piece_headers() {
    for index in 0..MESSAGES.units as u32 {
        black_box(piece_header(black_box(block(index))));
    }
}
