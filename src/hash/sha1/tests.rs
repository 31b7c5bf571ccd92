//! Against the `sha1` crate, which reads the same standard.

use super::*;
use crate::base::ids::InfoHash;
use crate::base::rng::Rng;

fn theirs(bytes: &[u8]) -> [u8; 20] {
    use sha1::Digest;
    sha1::Sha1::digest(bytes).into()
}

/// Bytes without a pattern.
fn bytes(len: usize) -> Vec<u8> {
    let mut rng = Rng::new(len as u64);
    (0..len).map(|_| rng.next_u64() as u8).collect()
}

/// The examples of FIPS 180-2, appendix A.
#[test]
fn the_standard_examples_hold() {
    for (text, want) in [
        ("abc".to_owned(), "a9993e364706816aba3e25717850c26c9cd0d89d"),
        (
            "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq".to_owned(),
            "84983e441c3bd26ebaae4aa1f95129e5e54670f1",
        ),
        ("a".repeat(1_000_000), "34aa973cd4c4daa4f61eeb2bdbad27316534016f"),
    ] {
        assert_eq!(InfoHash(digest(text.as_bytes())).to_hex(), want);
    }
}

#[test]
fn every_short_length_ends_right() {
    for len in 0..=4 * BLOCK_BYTES + 1 {
        let bytes = bytes(len);
        assert_eq!(digest(&bytes), theirs(&bytes), "{len} bytes");
    }
}

#[test]
fn parts_digest_like_the_whole() {
    let bytes = bytes(200);
    for split in 0..=bytes.len() {
        let mut hasher = Sha1::new();
        hasher.update(&bytes[..split]);
        hasher.update(&bytes[split..]);
        assert_eq!(hasher.finish(), theirs(&bytes), "split at {split}");
    }
}

#[test]
fn any_number_of_inputs_of_any_lengths_digest_as_if_alone() {
    let mut rng = Rng::new(7);
    for round in 0..200 {
        let count = (rng.next_u64() % 9) as usize;
        let inputs: Vec<Vec<u8>> = (0..count).map(|_| bytes((rng.next_u64() % 3_000) as usize)).collect();
        let mut hashers = vec![Sha1::new(); count];
        // Two parts each, cut anywhere, so that blocks are begun when the second comes.
        let cuts: Vec<usize> =
            inputs.iter().map(|input| rng.next_u64() as usize % (input.len() + 1)).collect();
        let parts = |second: bool| {
            inputs
                .iter()
                .zip(&cuts)
                .map(move |(input, &cut)| if second { &input[cut..] } else { &input[..cut] })
        };
        for second in [false, true] {
            let mut jobs: Vec<(&mut Sha1, &[u8])> = hashers.iter_mut().zip(parts(second)).collect();
            update_many(&mut jobs);
        }
        for (hasher, input) in hashers.into_iter().zip(&inputs) {
            assert_eq!(hasher.finish(), theirs(input), "round {round}, {} bytes", input.len());
        }
    }
}

#[test]
fn the_way_without_the_instructions_says_the_same() {
    let bytes = bytes(1_000 * BLOCK_BYTES);
    let mut state = INITIAL;
    compress_one(&mut state, &bytes);
    let mut hasher = Sha1::new();
    hasher.update(&bytes);
    assert_eq!(hasher.state, state);
}
