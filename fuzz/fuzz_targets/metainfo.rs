//! A .torrent file: sizes that add up and paths that stay below the download directory.
#![no_main]

use libfuzzer_sys::fuzz_target;
use troc::base::limits::{FILES_MAX, METAINFO_BYTES_MAX};
use troc::proto::metainfo::Metainfo;

fuzz_target!(|bytes: &[u8]| {
    assert!(bytes.len() <= METAINFO_BYTES_MAX);
    let Ok(metainfo) = Metainfo::parse(bytes) else { return };
    assert!(metainfo.files.len() <= FILES_MAX);
    let total: u64 = metainfo.files.iter().map(|file| file.length).sum();
    assert_eq!(total, metainfo.geometry.total_bytes);
    assert!(!metainfo.info.is_empty() && metainfo.info.len() <= bytes.len());
    for element in metainfo.files.iter().flat_map(|file| &file.path) {
        assert!(!element.is_empty() && !element.contains(['/', '\0']));
        assert!(element != "." && element != "..");
    }
});
