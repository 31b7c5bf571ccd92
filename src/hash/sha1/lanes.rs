//! SHA-1's compression of several inputs at once, on processors with SHA instructions.
//!
//! One input cannot keep the processor busy: each of the twenty groups of rounds waits for the one
//! before, four cycles each. Inputs that have nothing to do with one another fill these gaps. On an
//! AMD EPYC one input runs at 1.9 GB/s, two at 3.4, four at 5.1 (`benches/micro`, hash).
//!
//! Instructions: Intel SDM volume 2, `SHA1RNDS4`, `SHA1NEXTE`, `SHA1MSG1`, `SHA1MSG2`.
#![allow(unsafe_code)] // The processor's SHA instructions.

use super::{BLOCK_BYTES, State};
pub use crate::hash::lanes::available;

/// Inputs that are digested side by side at most.
pub const LANES: usize = 4;

/// Appends the whole blocks `data[i]`, as many in each, to what `states[i]` has digested.
pub fn compress<const N: usize>(states: &mut [State; N], data: [&[u8]; N]) {
    let len = data[0].len();
    assert!(available() && len.is_multiple_of(BLOCK_BYTES) && data.iter().all(|bytes| bytes.len() == len));
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the processor has the instructions, and each input is `len` bytes long.
    unsafe {
        x86::compress(states, data.map(<[u8]>::as_ptr), len / BLOCK_BYTES);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = states;
}

#[cfg(target_arch = "x86_64")]
#[allow(clippy::needless_range_loop, reason = "a lane names the same place in several rows")]
mod x86 {
    use std::arch::x86_64::{
        _mm_add_epi32, _mm_extract_epi32, _mm_set_epi32, _mm_set_epi64x, _mm_setzero_si128,
        _mm_sha1msg1_epu32, _mm_sha1msg2_epu32, _mm_sha1nexte_epu32, _mm_sha1rnds4_epu32, _mm_xor_si128,
    };

    use super::{BLOCK_BYTES, State};
    use crate::hash::lanes::x86::{Row, load};

    /// The working variables: `abcd` as the instructions want them, and what becomes `e`.
    struct Working<const N: usize> {
        abcd: Row<N>,
        e: Row<N>,
    }

    /// Appends `blocks` blocks of each of `data` to what its state has digested.
    ///
    /// # Safety
    ///
    /// The processor has SHA, SSSE3 and SSE4.1, and `blocks` blocks can be read at each of `data`.
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    pub(super) unsafe fn compress<const N: usize>(
        states: &mut [State; N],
        data: [*const u8; N],
        blocks: usize,
    ) {
        let mut now = Working { abcd: [_mm_setzero_si128(); N], e: [_mm_setzero_si128(); N] };
        for (lane, state) in states.iter().enumerate() {
            let [a, b, c, d, e] = state.map(u32::cast_signed);
            now.abcd[lane] = _mm_set_epi32(a, b, c, d);
            now.e[lane] = _mm_set_epi32(e, 0, 0, 0);
        }
        let order = _mm_set_epi64x(0x0001_0203_0405_0607, 0x0809_0a0b_0c0d_0e0f);
        for block in 0..blocks {
            // SAFETY: the block lies within the bytes that the caller vouches for.
            let words = unsafe { load(data.map(|start| start.add(block * BLOCK_BYTES)), order) };
            one_block(&mut now, words);
        }
        for (lane, state) in states.iter_mut().enumerate() {
            let abcd = now.abcd[lane];
            *state = [
                _mm_extract_epi32::<3>(abcd),
                _mm_extract_epi32::<2>(abcd),
                _mm_extract_epi32::<1>(abcd),
                _mm_extract_epi32::<0>(abcd),
                _mm_extract_epi32::<3>(now.e[lane]),
            ]
            .map(i32::cast_unsigned);
        }
    }

    /// Eighty rounds, four at a time; `F` is the function and constant of rounds 0, 20, 40 and 60 on.
    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn one_block<const N: usize>(now: &mut Working<N>, mut words: [Row<N>; 4]) {
        let before = Working { abcd: now.abcd, e: now.e };
        for lane in 0..N {
            let sum = _mm_add_epi32(now.e[lane], words[0][lane]);
            now.e[lane] = now.abcd[lane];
            now.abcd[lane] = _mm_sha1rnds4_epu32::<0>(now.abcd[lane], sum);
        }
        for group in 1..5 {
            rounds::<N, 0>(now, &mut words, group);
        }
        for group in 5..10 {
            rounds::<N, 1>(now, &mut words, group);
        }
        for group in 10..15 {
            rounds::<N, 2>(now, &mut words, group);
        }
        for group in 15..20 {
            rounds::<N, 3>(now, &mut words, group);
        }
        for lane in 0..N {
            now.e[lane] = _mm_sha1nexte_epu32(now.e[lane], before.e[lane]);
            now.abcd[lane] = _mm_add_epi32(now.abcd[lane], before.abcd[lane]);
        }
    }

    /// Rounds `4 * group` to `4 * group + 3`; from the fourth group on their words are made first.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "`group` must be a constant, or the words leave the registers")]
    fn rounds<const N: usize, const F: i32>(now: &mut Working<N>, words: &mut [Row<N>; 4], group: usize) {
        // SAFETY: only `one_block` calls this, which needs the same instructions.
        unsafe {
            let at = group % 4;
            for lane in 0..N {
                if group >= 4 {
                    let mixed = _mm_sha1msg1_epu32(words[at][lane], words[(at + 1) % 4][lane]);
                    let mixed = _mm_xor_si128(mixed, words[(at + 2) % 4][lane]);
                    words[at][lane] = _mm_sha1msg2_epu32(mixed, words[(at + 3) % 4][lane]);
                }
            }
            for lane in 0..N {
                let sum = _mm_sha1nexte_epu32(now.e[lane], words[at][lane]);
                now.e[lane] = now.abcd[lane];
                now.abcd[lane] = _mm_sha1rnds4_epu32::<F>(now.abcd[lane], sum);
            }
        }
    }
}
