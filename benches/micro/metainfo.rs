//! Reading a large .torrent file.

use std::hint::black_box;

use troc::base::units::CHUNK_BYTES;
use troc::proto::metainfo::{FileEntry, Metainfo, MetainfoBuilder};

use super::case::{Case, work};

const FILES: u64 = 10_000;
/// Pieces that one file fills.
const PIECES_EACH: u64 = 2;

pub fn cases() -> Vec<Case> {
    vec![Case::steady("metainfo/parse", work(FILES, "files"), torrent, |bytes| {
        black_box(Metainfo::parse(black_box(bytes)).expect("it was just built"));
    })]
}

fn torrent() -> Vec<u8> {
    let file = |at: u64| FileEntry {
        path: vec!["data".to_owned(), format!("{:02}", at % 100), format!("{at:05}.bin")],
        length: PIECES_EACH * u64::from(CHUNK_BYTES),
        pad: false,
    };
    let builder = MetainfoBuilder {
        name: "data".to_owned(),
        files: (0..FILES).map(file).collect(),
        piece_bytes: CHUNK_BYTES,
        piece_hashes: vec![[7; 20]; (FILES * PIECES_EACH) as usize],
        trackers: vec![vec!["http://tracker.example/announce".to_owned()]],
        web_seeds: Vec::new(),
        private: false,
        comment: None,
        created_by: None,
        creation_date: None,
    };
    builder.build().expect("a good torrent").0
}
