//! XXH3 of long inputs with AVX2, which the `xxhash-rust` crate uses only where the whole program is built
//! for it: twice as fast, and a check by fingerprints is little else.
//!
//! After the reference's `doc/xxhash_spec.md`, "XXH3 Algorithm for long inputs".
#![allow(unsafe_code)] // The processor's wide registers.

use xxhash_rust::const_xxh3::const_custom_default_secret;

/// Longer ones only: below, XXH3 is another function.
pub const BYTES_MIN: usize = 1024;

const SECRET_BYTES: usize = 192;
/// What one step accumulates.
const STRIPE_BYTES: usize = 64;
/// Each stripe of a block begins so far behind in the secret.
const SECRET_STEP: usize = 8;
const BLOCK_BYTES: usize = (SECRET_BYTES - STRIPE_BYTES) / SECRET_STEP * STRIPE_BYTES;
/// Where the secret of a scramble begins, of the last stripe, and of the merge.
const SCRAMBLE_AT: usize = SECRET_BYTES - STRIPE_BYTES;
const LAST_AT: usize = SCRAMBLE_AT - 7;
const MERGE_AT: usize = 11;

const PRIME32_1: u64 = 0x9e37_79b1;
const PRIME64_1: u64 = 0x9e37_79b1_85eb_ca87;
const INITIAL: Words = [
    0xc2b2_ae3d,
    PRIME64_1,
    0xc2b2_ae3d_27d4_eb4f,
    0x1656_67b1_9e37_79f9,
    0x85eb_ca77_c2b2_ae63,
    0x85eb_ca77,
    0x27d4_eb2f_1656_67c5,
    PRIME32_1,
];

/// The accumulators, or a stripe.
type Words = [u64; STRIPE_BYTES / 8];

/// Whether this processor has the instructions.
#[cfg(target_arch = "x86_64")]
pub fn available() -> bool {
    std::arch::is_x86_feature_detected!("avx2")
}

/// Whether this processor has the instructions.
#[cfg(not(target_arch = "x86_64"))]
pub const fn available() -> bool {
    false
}

/// The XXH3 of `bytes`, at least [`BYTES_MIN`] of them, under `seed`. Only where it is [`available`].
pub fn xxh3(bytes: &[u8], seed: u64) -> u64 {
    assert!(available() && bytes.len() >= BYTES_MIN);
    let secret = secret(seed);
    let mut words = INITIAL;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the processor has the instructions.
    unsafe {
        x86::accumulate(&mut words, bytes, &secret);
    }
    let mut hash = (bytes.len() as u64).wrapping_mul(PRIME64_1);
    for (pair, key) in words.chunks_exact(2).zip(secret[MERGE_AT..].chunks_exact(16)) {
        let product = u128::from(pair[0] ^ word(key)) * u128::from(pair[1] ^ word(&key[8..]));
        hash = hash.wrapping_add(product as u64 ^ (product >> 64) as u64);
    }
    hash = (hash ^ (hash >> 37)).wrapping_mul(0x1656_6791_9e37_79f9);
    hash ^ (hash >> 32)
}

/// The default secret, moved by the seed.
fn secret(seed: u64) -> [u8; SECRET_BYTES] {
    const DEFAULT: [u8; SECRET_BYTES] = const_custom_default_secret(0);
    let mut secret = DEFAULT;
    for pair in secret.chunks_exact_mut(16) {
        let (low, high) = (word(pair).wrapping_add(seed), word(&pair[8..]).wrapping_sub(seed));
        pair[..8].copy_from_slice(&low.to_le_bytes());
        pair[8..].copy_from_slice(&high.to_le_bytes());
    }
    secret
}

fn word(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |word| u64::from_le_bytes(*word))
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256i, _mm256_add_epi64, _mm256_loadu_si256, _mm256_mul_epu32, _mm256_set1_epi64x,
        _mm256_shuffle_epi32, _mm256_slli_epi64, _mm256_srli_epi64, _mm256_storeu_si256, _mm256_xor_si256,
    };

    use super::{
        BLOCK_BYTES, LAST_AT, PRIME32_1, SCRAMBLE_AT, SECRET_BYTES, SECRET_STEP, STRIPE_BYTES, Words,
    };

    /// A stripe's worth of words.
    type Wide = [__m256i; 2];

    /// Takes all of `bytes` into `words`.
    #[target_feature(enable = "avx2")]
    pub(super) fn accumulate(words: &mut Words, bytes: &[u8], secret: &[u8; SECRET_BYTES]) {
        let [low, high] = words.as_chunks_mut::<4>().0 else { return };
        // SAFETY: each half is 32 bytes long; unaligned loads are allowed.
        let mut now = unsafe { [low.as_ptr(), high.as_ptr()].map(|half| _mm256_loadu_si256(half.cast())) };
        let (last, end) = (&bytes[bytes.len() - STRIPE_BYTES..], bytes.len() - 1);
        for block in bytes[..end].chunks(BLOCK_BYTES) {
            let stripes = block.chunks_exact(STRIPE_BYTES);
            for (stripe, key) in stripes.zip(secret.windows(STRIPE_BYTES).step_by(SECRET_STEP)) {
                now = add(now, load(stripe), load(key));
            }
            if block.len() == BLOCK_BYTES {
                now = scramble(now, load(&secret[SCRAMBLE_AT..]));
            }
        }
        now = add(now, load(last), load(&secret[LAST_AT..]));
        // SAFETY: as above, for stores.
        unsafe {
            _mm256_storeu_si256(low.as_mut_ptr().cast(), now[0]);
            _mm256_storeu_si256(high.as_mut_ptr().cast(), now[1]);
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn load(bytes: &[u8]) -> Wide {
        let bytes = &bytes[..STRIPE_BYTES];
        // SAFETY: both halves of a stripe lie in the slice; unaligned loads are allowed.
        unsafe { [0, 32].map(|at| _mm256_loadu_si256(bytes.as_ptr().add(at).cast())) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn add(now: Wide, stripe: Wide, key: Wide) -> Wide {
        let mut sum = now;
        for half in 0..2 {
            let keyed = _mm256_xor_si256(stripe[half], key[half]);
            let product = _mm256_mul_epu32(keyed, _mm256_srli_epi64::<32>(keyed));
            // Each word goes to its neighbour.
            let swapped = _mm256_shuffle_epi32::<0x4e>(stripe[half]);
            sum[half] = _mm256_add_epi64(now[half], _mm256_add_epi64(product, swapped));
        }
        sum
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn scramble(now: Wide, key: Wide) -> Wide {
        let prime = _mm256_set1_epi64x(PRIME32_1 as i64);
        let mut mixed = now;
        for half in 0..2 {
            let word = _mm256_xor_si256(now[half], _mm256_srli_epi64::<47>(now[half]));
            let word = _mm256_xor_si256(word, key[half]);
            let low = _mm256_mul_epu32(word, prime);
            let high = _mm256_mul_epu32(_mm256_srli_epi64::<32>(word), prime);
            mixed[half] = _mm256_add_epi64(low, _mm256_slli_epi64::<32>(high));
        }
        mixed
    }
}
