//! Digests of one chunk, and of four side by side.

use std::hint::black_box;

use troc::base::units::CHUNK_BYTES;
use troc::hash::fingerprint::Fingerprint;
use troc::hash::sha1::{self, LANES, Sha1, update_many};

use super::case::{Case, Work, work};

const CHUNK: Work = work(CHUNK_BYTES as u64, "bytes");

pub fn cases() -> Vec<Case> {
    vec![
        Case::steady("hash/sha1-chunk", CHUNK, chunk, |chunk| {
            black_box(sha1::digest(black_box(chunk)));
        })
        .uncounted("valgrind has no SHA instructions: it would count the software path"),
        Case::steady("hash/sha1-four-chunks", work(4 * CHUNK_BYTES as u64, "bytes"), chunk, |chunk| {
            let mut hashers = [const { Sha1::new() }; LANES];
            let mut jobs = hashers.each_mut().map(|hasher| (hasher, black_box(chunk.as_slice())));
            update_many(&mut jobs);
            black_box(hashers);
        })
        .uncounted("as above"),
        Case::steady("hash/xxh3-chunk", CHUNK, chunk, |chunk| {
            black_box(Fingerprint::new(black_box(1)).of(black_box(chunk)));
        }),
    ]
}

fn chunk() -> Vec<u8> {
    vec![0xa5; CHUNK_BYTES as usize]
}
