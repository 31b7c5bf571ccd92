//! What digests with SHA instructions have in common (`sha1/lanes.rs`, `sha256/lanes.rs`).
#![allow(unsafe_code)] // The processor's SHA instructions.

/// Whether this processor has them.
#[cfg(target_arch = "x86_64")]
pub fn available() -> bool {
    use std::arch::is_x86_feature_detected as has;
    has!("sha") && has!("ssse3") && has!("sse4.1")
}

/// Whether this processor has them.
#[cfg(not(target_arch = "x86_64"))]
pub const fn available() -> bool {
    false
}

#[cfg(target_arch = "x86_64")]
pub mod x86 {
    //! Registers of inputs side by side.

    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_setzero_si128, _mm_shuffle_epi8};

    /// A register of each lane.
    pub type Row<const N: usize> = [__m128i; N];

    /// The sixteen big-endian words of one block of each lane, four to a register, their bytes put in
    /// `order`.
    ///
    /// # Safety
    ///
    /// A whole block of 64 bytes can be read at each of `blocks`, and the processor has the instructions.
    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    pub unsafe fn load<const N: usize>(blocks: [*const u8; N], order: __m128i) -> [Row<N>; 4] {
        let mut words = [[_mm_setzero_si128(); N]; 4];
        for (index, row) in words.iter_mut().enumerate() {
            for (lane, word) in row.iter_mut().enumerate() {
                // SAFETY: 16 of the 64 bytes of the block; unaligned loads are allowed.
                let raw = unsafe { _mm_loadu_si128(blocks[lane].add(16 * index).cast()) };
                *word = _mm_shuffle_epi8(raw, order);
            }
        }
        words
    }
}
