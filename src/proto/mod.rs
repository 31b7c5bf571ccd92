//! Bytes to values and back: pure and total, never panics on input.

pub mod metainfo;
pub mod tracker;
