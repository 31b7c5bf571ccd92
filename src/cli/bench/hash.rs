//! SHA-1 of chunks in memory on all allowed CPUs: what `create` and `verify` can reach at the most.

use std::thread;
use std::time::{Duration, Instant};

use super::BenchError;
use crate::base::human::format_rate;
use crate::base::units::CHUNK_BYTES;
use crate::hash::sha1::{LANES, Sha1, update_many};

/// What was measured.
pub struct Report {
    threads: usize,
    bytes: u64,
    seconds: f64,
}

/// Hashes for `window` on as many threads as there are allowed CPUs.
pub fn run(window: Duration) -> Result<Report, BenchError> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let begun = Instant::now();
    let bytes = thread::scope(|scope| {
        let spawn = || thread::Builder::new().spawn_scoped(scope, || hash_until(begun + window));
        let running: Vec<_> = (0..threads).map(|_| spawn()).collect::<Result<_, _>>()?;
        Ok(running.into_iter().map(|thread| thread.join().unwrap_or_default()).sum())
    });
    let bytes = bytes.map_err(|error: std::io::Error| BenchError::io("cannot start a thread", error))?;
    Ok(Report { threads, bytes, seconds: begun.elapsed().as_secs_f64() })
}

/// Bytes hashed, [`LANES`] chunks side by side.
fn hash_until(end: Instant) -> u64 {
    let chunks = [0xa5, 0x5a, 0xc3, 0x3c].map(|byte: u8| vec![byte; CHUNK_BYTES as usize]);
    let mut hashers = [const { Sha1::new() }; LANES];
    let mut bytes = 0;
    while Instant::now() < end {
        let mut chunks = chunks.iter();
        let mut jobs =
            hashers.each_mut().map(|hasher| (hasher, chunks.next().map_or(&[][..], Vec::as_slice)));
        update_many(&mut jobs);
        bytes += u64::from(CHUNK_BYTES) * LANES as u64;
    }
    std::hint::black_box(hashers);
    bytes
}

impl Report {
    fn bytes_per_s(&self) -> f64 {
        self.bytes as f64 / self.seconds
    }

    /// One object.
    pub fn json(&self) -> String {
        let gb_per_s = self.bytes_per_s() / 1e9;
        serde_json::json!({ "threads": self.threads, "bytes": self.bytes, "seconds": self.seconds,
            "gb_per_s": gb_per_s })
        .to_string()
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rate = format_rate(self.bytes_per_s() as u64);
        writeln!(f, "SHA-1 of chunks in memory, {LANES} side by side on {} CPUs: {rate}", self.threads)
    }
}
