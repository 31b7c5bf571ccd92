//! Bytes to values and back: pure and total, never panics on input.

pub mod bencode;
pub mod krpc;
pub mod lsd;
pub mod file_ranges;
pub mod magnet;
pub mod metainfo;
pub mod selection;
pub mod mse;
pub mod text;
pub mod tracker;
pub mod urls;
pub mod web_url;
pub mod wire;
