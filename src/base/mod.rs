//! Values: units, identifiers, limits, time, randomness, slots, bit fields. No I/O, no policy.

pub mod address;
pub mod bitfield;
#[cfg(test)]
pub mod damage;
pub mod geometry;
pub mod human;
pub mod ids;
pub mod limits;
pub mod network;
pub mod piece_hashes;
pub mod priority;
pub mod rng;
pub mod segment;
pub mod slots;
pub mod time;
pub mod units;
