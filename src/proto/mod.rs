//! Bytes to values and back: pure and total, never panics on input.

pub mod bencode;
pub mod magnet;
pub mod metainfo;
pub mod mse;
pub mod text;
pub mod tracker;
pub mod urls;
pub mod wire;
