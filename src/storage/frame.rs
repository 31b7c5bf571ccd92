//! How records lie in a file, all numbers little-endian. What stands in them is for others to say.
//!
//! ```text
//! file     = preamble record*
//! preamble = magic[8] version:u32 low 32 bits of XXH3 of the 12 bytes before
//! record   = length:u32 kind:u32 checksum:u64 body[length]
//! ```
//!
//! A checksum is the XXH3 of length, kind and body under a seed that tells the record's file and place.

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Bytes of a file before its first record.
pub const PREAMBLE_BYTES: usize = 16;
/// Bytes of a record besides its body.
pub const FRAME_BYTES: usize = 16;

/// The beginning of a file.
pub fn preamble(magic: &[u8; 8], version: u32) -> [u8; PREAMBLE_BYTES] {
    let mut bytes = [0; PREAMBLE_BYTES];
    bytes[..8].copy_from_slice(magic);
    bytes[8..12].copy_from_slice(&version.to_le_bytes());
    let check = xxh3_64(&bytes[..12]) as u32;
    bytes[12..].copy_from_slice(&check.to_le_bytes());
    bytes
}

/// The version that a file's beginning names; `None` if it is damaged or was never such a file's.
pub fn version(bytes: &[u8], magic: &[u8; 8]) -> Option<u32> {
    let found = u32::from_le_bytes(bytes.get(8..12)?.try_into().ok()?);
    (bytes.get(..PREAMBLE_BYTES) == Some(&preamble(magic, found))).then_some(found)
}

/// Puts a record behind what is in `out`.
pub fn put(out: &mut Vec<u8>, kind: u32, seed: u64, body: &[u8]) {
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&checksum(kind, seed, body).to_le_bytes());
    out.extend_from_slice(body);
}

/// The kind and body of the record at the start of `bytes`; `None` if it is bad, incomplete or longer than
/// `body_bytes_max`.
pub fn take(bytes: &[u8], seed: u64, body_bytes_max: usize) -> Option<(u32, &[u8])> {
    let mut cursor = Cursor(bytes);
    let (len, kind, sum) = (cursor.u32()? as usize, cursor.u32()?, cursor.u64()?);
    if len > body_bytes_max {
        return None;
    }
    let body = cursor.0.get(..len)?;
    (checksum(kind, seed, body) == sum).then_some((kind, body))
}

fn checksum(kind: u32, seed: u64, body: &[u8]) -> u64 {
    let mut hasher = Xxh3::with_seed(seed);
    hasher.update(&(body.len() as u32).to_le_bytes());
    hasher.update(&kind.to_le_bytes());
    hasher.update(body);
    hasher.digest()
}

/// Gives records their place in a file, on the way out and on the way in. Each is checked under the next
/// seed.
#[derive(Clone, Debug)]
pub struct Place {
    seed: u64,
    bytes: u64,
}

impl Place {
    /// Of the first record behind the head, which is `bytes` long; its seed follows that of the file.
    pub const fn first(seed: u64, bytes: u64) -> Self {
        Self { seed: seed.wrapping_add(1), bytes }
    }

    /// Where it begins: the length of the file so far.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Puts a record there, and goes on behind it.
    pub fn put(&mut self, kind: u32, body: &[u8], out: &mut Vec<u8>) {
        put(out, kind, self.seed, body);
        self.pass(body);
    }

    /// The record that should be there, of the whole `file`.
    pub fn take<'a>(&self, file: &'a [u8], body_bytes_max: usize) -> Option<(u32, &'a [u8])> {
        take(file.get(self.bytes as usize..)?, self.seed, body_bytes_max)
    }

    /// Goes on behind a record with that body.
    pub const fn pass(&mut self, body: &[u8]) {
        self.seed = self.seed.wrapping_add(1);
        self.bytes += (FRAME_BYTES + body.len()) as u64;
    }
}

/// Reads numbers off the front of bytes; `None` where there are not enough.
pub struct Cursor<'a>(pub &'a [u8]);

impl Cursor<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    /// One byte.
    pub fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// Eight bytes with a sign.
    pub fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }
}
