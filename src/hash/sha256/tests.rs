//! Against the `sha2` crate, which reads the same standard.

use super::*;
use crate::base::rng::Rng;

fn theirs(bytes: &[u8]) -> Hash {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).into()
}

/// Bytes without a pattern.
fn bytes(len: usize) -> Vec<u8> {
    let mut rng = Rng::new(len as u64);
    (0..len).map(|_| rng.next_u64() as u8).collect()
}

fn hex(digest: Hash) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The examples of FIPS 180-2, appendix B.
#[test]
fn the_standard_examples_hold() {
    for (text, want) in [
        ("abc".to_owned(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq".to_owned(),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
        ),
        ("a".repeat(1_000_000), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
    ] {
        assert_eq!(hex(digest(text.as_bytes())), want);
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
fn any_number_of_inputs_of_any_lengths_digest_as_if_alone() {
    let mut rng = Rng::new(7);
    for round in 0..300 {
        let count = (rng.next_u64() % 9) as usize;
        let inputs: Vec<Vec<u8>> = (0..count).map(|_| bytes((rng.next_u64() % 1_000) as usize)).collect();
        let inputs: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
        let mut out = vec![[0; 32]; count];
        digest_many(&inputs, &mut out);
        let want: Vec<Hash> = inputs.iter().map(|input| theirs(input)).collect();
        assert_eq!(out, want, "round {round}");
    }
}

#[test]
fn what_has_no_room_is_left_out() {
    let inputs: [&[u8]; 5] = [b"a", b"b", b"c", b"d", b"e"];
    for room in 0..=inputs.len() + 1 {
        let mut out = vec![[0; 32]; room];
        digest_many(&inputs, &mut out);
        for (place, digest) in out.iter().enumerate() {
            assert_eq!(
                *digest,
                inputs.get(place).map_or([0; 32], |input| theirs(input)),
                "{place} of {room}"
            );
        }
    }
}

#[test]
fn the_way_without_the_instructions_says_the_same() {
    let bytes = bytes(1_000 * BLOCK_BYTES);
    let (mut state, mut other) = (INITIAL, INITIAL);
    compress_one(&mut state, &bytes);
    compress_alone(&mut other, &bytes);
    assert_eq!(other, state);
}
