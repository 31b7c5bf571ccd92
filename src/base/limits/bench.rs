//! Bounds of load tests (`troc bench`).

use crate::base::time::Span;

/// Connections of one load generator or source.
pub const BENCH_CONNECTIONS_MAX: u32 = 16_384;
/// Requests outstanding on one connection of a load generator; what a source queues.
pub const BENCH_DEPTH_MAX: u32 = 2_048;
/// Longest measurement, in seconds.
pub const BENCH_SECONDS_MAX: u32 = 3_600;
/// Connections of a load generator that check hashes; pieces that a source checks.
pub const BENCH_SAMPLES_MAX: u32 = 64;
/// A connection that checks hashes skips so many pieces, less one, between two that it checks.
pub const BENCH_SAMPLE_INTERVAL: u32 = 64;
/// Memory for pieces that wait to be checked, in bytes, unless one piece needs more.
pub const BENCH_SAMPLE_BYTES_MAX: u64 = 64 << 20;
/// Largest payload that a source holds in memory.
pub const BENCH_PAYLOAD_BYTES_MAX: u64 = 64 << 30;
/// Addresses on which one source listens.
pub const BENCH_LISTENERS_MAX: usize = 256;
/// Requests that a source takes in one read of a connection, in bytes: 481 of 17 bytes each.
pub const BARE_INBOX_BYTES: usize = 8 << 10;
/// Time for all connections to be made, and for all to have a block.
pub const BENCH_START_TIMEOUT: Span = Span::from_secs(30);
