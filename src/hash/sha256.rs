//! SHA-256, by which BEP 52 names blocks, files and torrents.
//!
//! What is digested is short, a block of 16 KiB or two digests, and there are many of it: [`digest_many`]
//! takes them side by side where the processor has SHA instructions. Elsewhere the `sha2` crate's
//! compression takes one input at a time.

mod lanes;

use sha2::digest::generic_array::GenericArray;

pub use lanes::LANES;

/// A digest.
pub type Hash = [u8; 32];

/// What one step of the compression takes.
const BLOCK_BYTES: usize = 64;

/// Where the length stands in the last block.
const LENGTH_AT: usize = BLOCK_BYTES - 8;

/// The eight words of a digest in progress.
type State = [u32; 8];

/// FIPS 180-4, section 5.3.3.
const INITIAL: State =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// The digest of `bytes`.
pub fn digest(bytes: &[u8]) -> Hash {
    let [digest] = side_by_side([bytes]);
    digest
}

/// The digest of each of `inputs`, in order, as far as `out` has room; [`LANES`] are side by side, best
/// when they are of one length.
pub fn digest_many(inputs: &[&[u8]], out: &mut [Hash]) {
    for (inputs, out) in inputs.chunks(LANES).zip(out.chunks_mut(LANES)) {
        match (inputs, out) {
            (&[a, b], [x, y]) => [*x, *y] = side_by_side([a, b]),
            (&[a, ..], [x, ..]) => *x = digest(a),
            _ => {}
        }
    }
}

fn side_by_side<const N: usize>(inputs: [&[u8]; N]) -> [Hash; N] {
    let mut states = [INITIAL; N];
    let whole = inputs.map(|input| input.len() - input.len() % BLOCK_BYTES);
    let common = whole.iter().copied().min().unwrap_or(0);
    compress(&mut states, inputs.map(|input| &input[..common]));
    let ends = inputs.map(End::new);
    for lane in 0..N {
        let rest = &inputs[lane][common..whole[lane]];
        compress_alone(&mut states[lane], rest);
    }
    if ends.iter().all(|end| end.len == ends[0].len) {
        compress(&mut states, ends.each_ref().map(End::bytes));
    } else {
        ends.iter().zip(&mut states).for_each(|(end, state)| compress_alone(state, end.bytes()));
    }
    states.map(|state| {
        let mut digest = [0; 32];
        for (bytes, word) in digest.chunks_exact_mut(4).zip(state) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        digest
    })
}

/// What does not fill a block, and the padding behind it.
struct End {
    bytes: [u8; 2 * BLOCK_BYTES],
    len: usize,
}

impl End {
    fn new(input: &[u8]) -> Self {
        let rest = &input[input.len() - input.len() % BLOCK_BYTES..];
        let mut bytes = [0; 2 * BLOCK_BYTES];
        bytes[..rest.len()].copy_from_slice(rest);
        bytes[rest.len()] = 0x80;
        let len = if rest.len() < LENGTH_AT { BLOCK_BYTES } else { 2 * BLOCK_BYTES };
        let bits = (input.len() as u64).wrapping_mul(8);
        bytes[len - 8..len].copy_from_slice(&bits.to_be_bytes());
        Self { bytes, len }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

fn compress_alone(state: &mut State, part: &[u8]) {
    let mut states = [*state];
    compress(&mut states, [part]);
    [*state] = states;
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
        sha2::compress256(state, std::slice::from_ref(GenericArray::from_slice(block)));
    }
}

#[cfg(test)]
mod tests;
