//! A set of piece indices in the wire's bit order: the high bit of byte 0 is piece 0 (BEP 3).

/// A fixed number of bits, all zero at first.
///
/// Invariant: `count` is the number of set bits, and the spare bits of the last byte are zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitfield {
    bytes: Box<[u8]>,
    len: u32,
    count: u32,
}

impl Bitfield {
    /// `len` zero bits.
    pub fn new(len: u32) -> Self {
        Self { bytes: vec![0; len.div_ceil(8) as usize].into(), len, count: 0 }
    }

    /// `len` set bits.
    pub fn full(len: u32) -> Self {
        let mut field = Self { bytes: vec![0xff; len.div_ceil(8) as usize].into(), len, count: len };
        if let (Some(last), spare @ 1..) = (field.bytes.last_mut(), len.wrapping_neg() % 8) {
            *last = 0xff << spare;
        }
        field
    }

    /// The bits as the wire carries them; `None` if the size is wrong or a spare bit is set.
    pub fn from_wire(bytes: &[u8], len: u32) -> Option<Self> {
        if bytes.len() != len.div_ceil(8) as usize {
            return None;
        }
        let spare = len.wrapping_neg() % 8;
        if bytes.last().is_some_and(|last| last & ((1u16 << spare) - 1) as u8 != 0) {
            return None;
        }
        let count = bytes.iter().map(|byte| byte.count_ones()).sum();
        Some(Self { bytes: bytes.into(), len, count })
    }

    /// The bits as the wire carries them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many bits there are, set or not.
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Whether there are no bits at all.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many bits are set.
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Whether there are bits and every one is set: what a seed has.
    pub const fn is_whole(&self) -> bool {
        !self.is_empty() && self.is_full()
    }

    /// Whether every bit is set.
    pub const fn is_full(&self) -> bool {
        self.count == self.len
    }

    /// Whether bit `index` is set; false beyond the end.
    pub fn get(&self, index: u32) -> bool {
        index < self.len && self.bytes[index as usize / 8] & (0x80 >> (index % 8)) != 0
    }

    /// Sets bit `index`; true if it was not set before. Panics beyond the end.
    pub fn set(&mut self, index: u32) -> bool {
        assert!(index < self.len, "bit {index} of {}", self.len);
        let was = self.get(index);
        self.bytes[index as usize / 8] |= 0x80 >> (index % 8);
        self.count += u32::from(!was);
        !was
    }

    /// Clears bit `index`; true if it was set before. Panics beyond the end.
    pub fn clear(&mut self, index: u32) -> bool {
        assert!(index < self.len, "bit {index} of {}", self.len);
        let was = self.get(index);
        self.bytes[index as usize / 8] &= !(0x80 >> (index % 8));
        self.count -= u32::from(was);
        was
    }

    /// The bits 64 at a time: bit `i` of word `w` is bit `64 * w + i` of the field.
    pub fn words(&self) -> impl Iterator<Item = u64> {
        self.bytes.chunks(8).map(|bytes| {
            // All but the last are whole: no call to copy eight bytes.
            let word = bytes.try_into().unwrap_or_else(|_| {
                let mut word = [0; 8];
                word[..bytes.len()].copy_from_slice(bytes);
                word
            });
            u64::from_be_bytes(word).reverse_bits()
        })
    }

    /// The indices of the set bits, ascending.
    pub fn ones(&self) -> impl Iterator<Item = u32> {
        (0..).step_by(64).zip(self.words()).flat_map(|(first, mut word)| {
            std::iter::from_fn(move || {
                let bit = word.trailing_zeros();
                // Clears the lowest bit; nothing is left of nothing.
                word &= word.wrapping_sub(1);
                (bit < u64::BITS).then_some(first + bit)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_equals_every_bit_set_one_by_one() {
        for len in 0..=33 {
            let mut field = Bitfield::new(len);
            for index in 0..len {
                assert!(field.set(index) && !field.set(index));
            }
            assert_eq!(field, Bitfield::full(len));
            assert_eq!(Bitfield::from_wire(field.as_bytes(), len), Some(field));
        }
    }

    #[test]
    fn ones_are_the_bits_that_were_set_and_words_hold_them() {
        for len in [1, 8, 63, 64, 65, 130] {
            for step in 1..=len {
                let mut field = Bitfield::new(len);
                let want: Vec<u32> = (0..len).step_by(step as usize).collect();
                want.iter().for_each(|&index| assert!(field.set(index)));
                assert_eq!(field.ones().collect::<Vec<_>>(), want);
                let words: Vec<u64> = field.words().collect();
                assert_eq!(words.len(), len.div_ceil(64) as usize);
                let bit = |index: &u32| words[*index as usize / 64] >> (index % 64) & 1 == 1;
                assert_eq!((0..len).filter(bit).collect::<Vec<_>>(), want);
            }
        }
    }

    #[test]
    fn wire_bits_with_a_wrong_size_or_a_spare_bit_are_refused() {
        for len in 1..=33u32 {
            let good = Bitfield::full(len);
            assert_eq!(Bitfield::from_wire(&good.as_bytes()[1..], len), None);
            assert_eq!(Bitfield::from_wire(&[good.as_bytes(), &[0]].concat(), len), None);
            if len % 8 != 0 {
                let mut bytes = good.as_bytes().to_vec();
                *bytes.last_mut().unwrap() |= 1;
                assert_eq!(Bitfield::from_wire(&bytes, len), None);
            }
        }
    }
}
