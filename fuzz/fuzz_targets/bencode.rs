//! Bencode: whatever is accepted is walked whole, and a prefix is what the whole parser takes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use troc::base::limits::{METAINFO_DEPTH_MAX, METAINFO_TOKENS_MAX};
use troc::proto::bencode::{Value, parse, parse_prefix};

fn walk(value: Value<'_>) -> usize {
    let list = value.as_list().into_iter().flatten().map(walk).sum::<usize>();
    let dict = value.as_dict().into_iter().flatten().map(|(_, value)| walk(value)).sum::<usize>();
    1 + list + dict + usize::from(value.as_int().is_some()) + usize::from(value.as_bytes().is_some())
}

fuzz_target!(|bytes: &[u8]| {
    let Ok((value, rest)) = parse_prefix(bytes, METAINFO_DEPTH_MAX, METAINFO_TOKENS_MAX) else { return };
    assert!(walk(value) >= 1);
    assert_eq!(value.raw().len() + rest.len(), bytes.len());
    assert!(parse(value.raw(), METAINFO_DEPTH_MAX, METAINFO_TOKENS_MAX).is_ok());
});
