//! What is read back from the state directory: a journal and a ledger whose ends are anything.
#![no_main]

use libfuzzer_sys::fuzz_target;
use troc::base::geometry::Geometry;
use troc::base::ids::InfoHash;
use troc::base::limits::LEDGER_STORED_MAX;
use troc::storage::journal::{self, Record, Subject as JournalSubject};
use troc::storage::ledger::{self, Subject as LedgerSubject};

const PIECES: u32 = 40;

fn journal_subject() -> JournalSubject {
    let geometry = Geometry::new(u64::from(PIECES) << 15, 32 << 10);
    JournalSubject { info_hash: InfoHash([7; 20]), geometry, file_count: 3, secret_id: 9 }
}

fuzz_target!(|bytes: &[u8]| {
    let subject = journal_subject();
    let _ = journal::replay(bytes, &subject);
    // A good beginning, whose checksums fit, and then the input as a record's fields and as what follows.
    let mut file = Vec::new();
    let mut writer = journal::Writer::begin(&subject, &mut file);
    let (fields, tail) = bytes.split_at(bytes.len().min(12));
    let prints = fields.iter().skip(1).map(|&byte| byte.into()).collect();
    let piece = fields.first().map_or(0, |&byte| byte.into());
    writer.push(&Record::Durable { piece, fingerprints: prints }, &mut file);
    file.extend_from_slice(tail);
    if let Ok(replay) = journal::replay(&file, &subject) {
        assert!(replay.state.durable().count() <= PIECES);
        assert!(replay.writer.bytes() <= file.len() as u64);
    }

    let subject = LedgerSubject { secret_id: 9, seed: 4 };
    let _ = ledger::replay(bytes, subject);
    let mut file = Vec::new();
    let _ = ledger::codec::Writer::begin(subject, &mut file);
    file.extend_from_slice(bytes);
    if let Ok(replay) = ledger::replay(&file, subject) {
        assert!(replay.balances.len() <= LEDGER_STORED_MAX && replay.bytes <= file.len() as u64);
    }
});
