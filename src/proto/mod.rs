//! Bytes to values and back: pure and total, never panics on input.

pub mod bencode;
pub mod file_ranges;
pub mod krpc;
pub mod lsd;
pub mod magnet;
pub mod metainfo;
pub mod mse;
pub mod selection;
pub mod text;
pub mod tracker;
pub mod urls;
pub mod web_url;
pub mod wire;
