//! Bounds of what peers are answered beside payload: pieces of the metadata (BEP 9) and hashes (BEP 52). What
//! one connection may have of the metadata is `METADATA_COPIES_MAX`.

use super::METADATA_COPIES_SPAN;
use crate::base::time::Span;

/// Of each upload limit one part in so many may be answers: they leave however long payload waits for the
/// limit, and payload still has most of it.
pub const ANSWERS_PART: u64 = 4;
/// Copies of the metadata of one torrent that a group of strangers' addresses is sent by one core in
/// [`ANSWERS_SPAN`], whatever connections it brings: then its requests are rejected.
pub const METADATA_COPIES_OF_GROUP_MAX: u64 = 32;
/// Bytes of hashes that such a group is sent by one core in [`ANSWERS_SPAN`], and those that payload earned:
/// the leaves of 60 GiB.
pub const HASHES_OF_GROUP_BYTES_MAX: u64 = 128 << 20;
/// Bytes of payload that earn a group one byte of hashes: all leaves of what it fetches, eight times.
pub const PAYLOAD_PER_HASH_BYTE: u64 = 64;
/// In so long a group may have all of that again, part by part.
pub const ANSWERS_SPAN: Span = METADATA_COPIES_SPAN;
/// What groups had is counted in so many places of each core. Groups that share one share what they may have;
/// which ones do, nobody out there knows.
pub const ANSWERS_PLACES: usize = 4096;
/// Hash requests of one peer that wait for a limit; more are rejected.
pub const HASH_ASKS_WAITING_MAX: usize = 64;
