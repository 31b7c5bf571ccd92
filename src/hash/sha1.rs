//! SHA-1, by which BEP 3 names pieces and torrents.
//!
//! Where the processor has SHA instructions several inputs go side by side ([`update_many`]), which is
//! two and a half times as fast as one after the other: SHA-1 was two fifths of the CPU time of a fetch
//! before that. Elsewhere the `sha1` crate's compression takes one input at a time.

mod lanes;

use sha1::digest::generic_array::GenericArray;

pub use lanes::LANES;

/// What one step of the compression takes.
const BLOCK_BYTES: usize = 64;

/// Where the length stands in the last block.
const LENGTH_AT: usize = BLOCK_BYTES - 8;

/// The five words of a digest in progress.
type State = [u32; 5];

/// FIPS 180-4, section 5.3.1.
const INITIAL: State = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];

/// A digest of bytes that arrive in parts.
#[derive(Clone, Debug)]
pub struct Sha1 {
    state: State,
    /// Bytes so far.
    len: u64,
    /// The last `len % 64` of them.
    rest: [u8; BLOCK_BYTES],
}

impl Default for Sha1 {
    fn default() -> Self {
        Self::new()
    }
}

impl Sha1 {
    /// A digest of nothing yet.
    pub const fn new() -> Self {
        Self { state: INITIAL, len: 0, rest: [0; BLOCK_BYTES] }
    }

    /// Appends `bytes` to what is digested.
    pub fn update(&mut self, bytes: &[u8]) {
        update_many(&mut [(self, bytes)]);
    }

    /// The digest of all parts in order.
    pub fn finish(mut self) -> [u8; 20] {
        let bits = self.len.wrapping_mul(8);
        let rest = self.rest_len();
        let mut end = [0; 2 * BLOCK_BYTES];
        end[0] = 0x80;
        let room = if rest < LENGTH_AT { LENGTH_AT } else { LENGTH_AT + BLOCK_BYTES };
        end[room - rest..][..8].copy_from_slice(&bits.to_be_bytes());
        self.update(&end[..room + 8 - rest]);
        let mut digest = [0; 20];
        for (bytes, word) in digest.chunks_exact_mut(4).zip(self.state) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        digest
    }

    const fn rest_len(&self) -> usize {
        (self.len % BLOCK_BYTES as u64) as usize
    }

    /// Takes what completes a block that was begun; returns what is left of `bytes`.
    fn complete_block<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let have = self.rest_len();
        if have == 0 {
            return bytes;
        }
        let (head, left) = bytes.split_at(bytes.len().min(BLOCK_BYTES - have));
        self.rest[have..have + head.len()].copy_from_slice(head);
        self.len += head.len() as u64;
        if self.rest_len() == 0 {
            let block = self.rest;
            let mut state = [self.state];
            compress(&mut state, [&block]);
            [self.state] = state;
        }
        left
    }

    /// Keeps less than a block for later.
    fn keep(&mut self, bytes: &[u8]) {
        debug_assert!(bytes.len() < BLOCK_BYTES && (bytes.is_empty() || self.rest_len() == 0));
        self.rest[..bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len() as u64;
    }
}

/// Appends to several digests at once, [`LANES`] side by side; best when the parts are of one length.
pub fn update_many(jobs: &mut [(&mut Sha1, &[u8])]) {
    for (hasher, bytes) in jobs.iter_mut() {
        *bytes = hasher.complete_block(bytes);
    }
    loop {
        let mut lanes = jobs.iter_mut().filter(|(_, bytes)| bytes.len() >= BLOCK_BYTES);
        let lanes = [lanes.next(), lanes.next(), lanes.next(), lanes.next()];
        match lanes {
            [Some(a), Some(b), Some(c), Some(d)] => advance([a, b, c, d]),
            [Some(a), Some(b), Some(c), None] => advance([a, b, c]),
            [Some(a), Some(b), None, _] => advance([a, b]),
            [Some(a), None, ..] => advance([a]),
            [None, ..] => break,
        }
    }
    for (hasher, bytes) in jobs {
        hasher.keep(bytes);
    }
}

/// Takes as many whole blocks as each lane has.
fn advance<const N: usize>(mut lanes: [&mut (&mut Sha1, &[u8]); N]) {
    let least = lanes.iter().map(|(_, bytes)| bytes.len()).min().unwrap_or(0);
    let whole = least - least % BLOCK_BYTES;
    let mut states = [INITIAL; N];
    let mut parts: [&[u8]; N] = [&[]; N];
    for (lane, (hasher, bytes)) in lanes.iter_mut().enumerate() {
        states[lane] = hasher.state;
        (parts[lane], *bytes) = bytes.split_at(whole);
    }
    compress(&mut states, parts);
    for ((hasher, _), state) in lanes.into_iter().zip(states) {
        hasher.state = state;
        hasher.len += whole as u64;
    }
}

/// Whole blocks, as many for each state.
fn compress<const N: usize>(states: &mut [State; N], parts: [&[u8]; N]) {
    if lanes::available() {
        return lanes::compress(states, parts);
    }
    for (state, part) in states.iter_mut().zip(parts) {
        compress_one(state, part);
    }
}

/// Without SHA instructions there is nothing to fill gaps with.
fn compress_one(state: &mut State, part: &[u8]) {
    for block in part.chunks_exact(BLOCK_BYTES) {
        sha1::compress(state, std::slice::from_ref(GenericArray::from_slice(block)));
    }
}

/// The digest of `bytes`.
pub fn digest(bytes: &[u8]) -> [u8; 20] {
    let mut hasher = Sha1::new();
    hasher.update(bytes);
    hasher.finish()
}

#[cfg(test)]
mod tests;
