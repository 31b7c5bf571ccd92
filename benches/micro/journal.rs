//! Journal records to bytes and back.

use std::hint::black_box;

use troc::base::geometry::Geometry;
use troc::storage::journal::{Record, Subject, Writer, replay};

use super::case::{Case, Work, work};
use super::fixture::INFO_HASH;

/// Pieces of 1 MiB that are durable: four fingerprints a record.
const PIECES: u32 = 1000;
const RECORDS: Work = work(PIECES as u64, "records");

pub fn cases() -> Vec<Case> {
    vec![
        Case::steady("journal/encode", RECORDS, records, |(records, out)| encode(records, out)),
        Case::steady("journal/replay", RECORDS, journal, |bytes| {
            let replayed = replay(black_box(bytes), &subject()).expect("it was just written");
            assert!(replayed.whole);
        }),
    ]
}

fn subject() -> Subject {
    let geometry = Geometry::new(u64::from(PIECES) << 20, 1 << 20);
    Subject { info_hash: INFO_HASH, geometry, file_count: 1, secret_id: 1 }
}

fn records() -> (Vec<Record>, Vec<u8>) {
    let durable = |piece| Record::Durable { piece, fingerprints: [u64::from(piece); 4].into() };
    ((0..PIECES).map(durable).collect(), Vec::new())
}

fn encode(records: &[Record], out: &mut Vec<u8>) {
    out.clear();
    let mut writer = Writer::begin(&subject(), out);
    records.iter().for_each(|record| writer.push(black_box(record), out));
}

fn journal() -> Vec<u8> {
    let (records, mut out) = records();
    encode(&records, &mut out);
    out
}
