//! Files that are chosen, and addresses of web seeds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use troc::proto::file_ranges::FileRanges;
use troc::proto::selection::Pattern;
use troc::proto::web_url::WebUrl;

fuzz_target!(|text: &str| {
    if let Some(ranges) = FileRanges::parse(text) {
        assert_eq!(FileRanges::parse(&ranges.to_string()).as_ref(), Some(&ranges));
    }
    let _ = Pattern::parse(text);
    let _ = WebUrl::parse(text);
});
