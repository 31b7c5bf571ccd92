use proptest::prelude::*;

use super::*;
use crate::base::damage::damaged;
use crate::base::geometry::Geometry;
use crate::base::ids::InfoHash;

fn subject() -> Subject {
    // Three pieces of two chunks and one of a single chunk.
    let geometry = Geometry::new(3 * (512 << 10) + 1000, 512 << 10);
    Subject { info_hash: InfoHash([7; 20]), geometry, file_count: 3, secret_id: 99 }
}

fn identity(n: u64) -> FileIdentity {
    FileIdentity { len: n, mtime_ns: -(n as i64), ctime_ns: 3, inode: n << 40, dev: u64::MAX }
}

fn durable(piece: u32) -> Record {
    let fingerprints = (0..subject().chunks_of(piece) as u64).map(|at| at + u64::from(piece) * 10).collect();
    Record::Durable { piece, fingerprints }
}

fn story() -> Vec<Record> {
    vec![
        Record::Opened,
        Record::File { file: 0, identity: identity(5) },
        durable(1),
        durable(3),
        Record::Lost { piece: 1 },
        Record::File { file: 2, identity: identity(6) },
        durable(0),
        durable(1),
        Record::Clean,
    ]
}

/// The bytes of a journal and the state after each record, by length.
fn journal(records: &[Record]) -> (Vec<u8>, Vec<(usize, JournalState)>) {
    let mut bytes = Vec::new();
    let mut writer = Writer::begin(&subject(), &mut bytes);
    let mut state = JournalState::new(subject());
    let mut states = vec![(bytes.len(), state.clone())];
    for record in records {
        writer.push(record, &mut bytes);
        assert!(state.apply(record));
        states.push((bytes.len(), state.clone()));
    }
    (bytes, states)
}

#[test]
fn what_was_written_is_replayed_and_goes_on() {
    let (mut bytes, states) = journal(&story());
    let mut replayed = replay(&bytes, &subject()).unwrap();
    assert_eq!((replayed.writer.bytes(), replayed.whole), (bytes.len() as u64, true));
    assert_eq!(replayed.state, states.last().unwrap().1);
    assert!(replayed.state.is_clean());
    assert_eq!(replayed.state.durable().ones().collect::<Vec<_>>(), [0, 1, 3]);
    assert_eq!((replayed.state.fingerprints(1), replayed.state.fingerprints(2)), (&[10, 11][..], &[][..]));

    replayed.writer.push(&Record::Opened, &mut bytes);
    assert!(!replay(&bytes, &subject()).unwrap().state.is_clean());
    replayed.writer.push(&durable(2), &mut bytes);
    assert!(replay(&bytes, &subject()).unwrap().state.durable().is_full());
}

#[test]
fn any_record_after_the_clean_mark_ends_the_clean_state() {
    for record in story().iter().filter(|record| **record != Record::Clean) {
        let mut state = journal(&story()).1.pop().unwrap().1;
        assert!(state.is_clean() && state.apply(record) && !state.is_clean());
    }
}

#[test]
fn a_snapshot_says_the_same_but_for_the_clean_mark() {
    let (bytes, mut states) = journal(&story());
    let state = states.pop().unwrap().1;
    let (short, mut writer) = snapshot(&state);
    assert!(short.len() < bytes.len());
    let replayed = replay(&short, &subject()).unwrap();
    assert!(!replayed.state.is_clean() && replayed.whole);
    let mut more = short;
    writer.push(&Record::Clean, &mut more);
    assert_eq!(replay(&more, &subject()).unwrap().state, state);
}

/// Threat S4: cut at every byte.
#[test]
fn a_truncated_journal_says_what_its_whole_records_say() {
    let (bytes, states) = journal(&story());
    for len in 0..=bytes.len() {
        let whole = states.iter().rev().find(|(end, _)| *end <= len);
        match (replay(&bytes[..len], &subject()), whole) {
            (Ok(replayed), Some((end, state))) => {
                assert_eq!((replayed.writer.bytes(), replayed.whole), (*end as u64, *end == len));
                assert_eq!(replayed.state.durable(), state.durable());
                assert!(!replayed.state.is_clean() || len == bytes.len());
            }
            (Err(error), None) => assert_eq!(error, Corrupt::Damaged),
            (other, _) => panic!("{len}: {other:?}"),
        }
    }
}

/// Threat S4: each bit flipped.
#[test]
fn a_flipped_bit_ends_the_replay_before_its_record() {
    let (bytes, states) = journal(&story());
    for bit in 0..bytes.len() * 8 {
        let mut spoilt = bytes.clone();
        spoilt[bit / 8] ^= 1 << (bit % 8);
        match replay(&spoilt, &subject()) {
            Ok(replayed) => {
                let (end, state) = states.iter().rev().find(|(end, _)| *end <= bit / 8).unwrap();
                assert_eq!((replayed.writer.bytes(), replayed.whole), (*end as u64, false), "bit {bit}");
                assert!(replayed.state.durable() == state.durable() && !replayed.state.is_clean());
            }
            Err(error) => assert!(error == Corrupt::Damaged && bit / 8 < states[0].0, "bit {bit}"),
        }
    }
}

/// Threat S4: zero-filled tail, duplicated and swapped records, a record of another torrent.
#[test]
fn records_count_only_in_their_own_place() {
    let (bytes, states) = journal(&story());
    let end = states[0].0;
    let zeros = [&bytes[..], &[0; 4096]].concat();
    let zeros = replay(&zeros, &subject()).unwrap();
    assert_eq!((zeros.writer.bytes(), zeros.state.is_clean()), (bytes.len() as u64, false));

    let opened = &bytes[end..states[1].0];
    let twice = [&bytes[..states[1].0], opened].concat();
    assert_eq!(replay(&twice, &subject()).unwrap().writer.bytes(), states[1].0 as u64);
    let swapped = [&bytes[..end], &bytes[states[1].0..states[2].0], opened].concat();
    assert_eq!(replay(&swapped, &subject()).unwrap().writer.bytes(), end as u64);

    let other = Subject { info_hash: InfoHash([8; 20]), ..subject() };
    let mut foreign = Vec::new();
    Writer::begin(&other, &mut foreign).push(&Record::Opened, &mut foreign);
    assert_eq!(replay(&foreign, &subject()).unwrap_err(), Corrupt::OtherTorrent);
    let grafted = [&bytes[..end], &foreign[end..]].concat();
    assert_eq!(replay(&grafted, &subject()).unwrap().writer.bytes(), end as u64);
}

#[test]
fn other_versions_sizes_and_secrets_are_named() {
    let (bytes, _) = journal(&story());
    for found in [0, VERSION + 1, u32::MAX] {
        let mut other = bytes.clone();
        other[..PREAMBLE_BYTES].copy_from_slice(&frame::preamble(MAGIC, found));
        let error = replay(&other, &subject()).unwrap_err();
        assert_eq!(error, Corrupt::Version { found });
        assert!(error.to_string().contains(&found.to_string()));
    }
    let sizes = Subject { geometry: Geometry::new(1000, 16 << 10), ..subject() };
    assert_eq!(replay(&bytes, &sizes).unwrap_err(), Corrupt::OtherTorrent);
    let secret = Subject { secret_id: 1, ..subject() };
    assert_eq!(replay(&bytes, &secret).unwrap_err(), Corrupt::OtherSecret);
}

#[test]
fn a_record_that_does_not_fit_the_torrent_is_refused() {
    let fingerprints = |n| vec![0; n].into_boxed_slice();
    for bad in [
        Record::File { file: 4, identity: identity(1) },
        Record::Lost { piece: 4 },
        Record::Durable { piece: 4, fingerprints: fingerprints(1) },
        Record::Durable { piece: 4, fingerprints: fingerprints(0) },
        Record::Durable { piece: 0, fingerprints: fingerprints(1) },
        Record::Durable { piece: 0, fingerprints: fingerprints(3) },
        Record::Durable { piece: 3, fingerprints: fingerprints(2) },
    ] {
        let mut bytes = Vec::new();
        let mut writer = Writer::begin(&subject(), &mut bytes);
        let valid = bytes.len() as u64;
        writer.push(&bad, &mut bytes);
        assert_eq!(replay(&bytes, &subject()).unwrap().writer.bytes(), valid, "{bad:?}");
    }
}

#[test]
fn a_record_may_be_as_long_as_the_longest_piece_needs_and_no_longer() {
    use crate::base::limits::PIECE_BYTES_MAX;
    let subject = Subject { geometry: Geometry::new(PIECE_BYTES_MAX.into(), PIECE_BYTES_MAX), ..subject() };
    let longest = vec![1; subject.chunks_of(0)].into_boxed_slice();
    let mut bytes = Vec::new();
    Writer::begin(&subject, &mut bytes)
        .push(&Record::Durable { piece: 0, fingerprints: longest }, &mut bytes);
    assert!(replay(&bytes, &subject).unwrap().state.is_durable(0));

    for extra in [-1isize, 0, 1] {
        let body = vec![0; JOURNAL_RECORD_BYTES_MAX.checked_add_signed(extra).unwrap()];
        let mut record = Vec::new();
        frame::put(&mut record, 9, 5, &body);
        assert_eq!(frame::take(&record, 5, JOURNAL_RECORD_BYTES_MAX).is_some(), extra <= 0);
    }
}

/// A record under a checksum that is right for its place.
fn sealed(kind: u32, sequence: u64, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::put(&mut out, kind, seed_of(&subject()).wrapping_add(sequence), body);
    out
}

proptest! {
    /// Threat S4: whatever happens to a journal, it says what some of its records said, in order.
    #[test]
    fn a_damaged_journal_says_nothing_that_was_not_written(bytes in damaged(journal(&story()).0)) {
        let (whole, states) = journal(&story());
        match replay(&bytes, &subject()) {
            Ok(replayed) => {
                let valid = replayed.writer.bytes() as usize;
                prop_assert!(bytes[..valid] == whole[..valid]);
                let (_, state) = states.iter().find(|(end, _)| *end == valid).expect("ends with a record");
                prop_assert_eq!(replayed.state.durable(), state.durable());
                prop_assert!(!replayed.state.is_clean() || bytes == whole);
            }
            Err(Corrupt::Version { found }) => prop_assert!(found != VERSION),
            Err(error) => prop_assert_eq!(error, Corrupt::Damaged),
        }
    }

    /// Beyond what a disk does: records of any content whose checksum is right.
    #[test]
    fn any_sealed_record_is_applied_or_ends_the_replay(
        kind in 0..9u32,
        body in prop::collection::vec(prop_oneof![3 => 0..4u8, 1 => any::<u8>()], 0..64),
    ) {
        let (mut bytes, _) = journal(&[]);
        let before = bytes.len() as u64;
        bytes.extend(sealed(kind, 1, &body));
        let replayed = replay(&bytes, &subject()).unwrap();
        prop_assert!(replayed.writer.bytes() == before || replayed.whole);
        let pieces = subject().geometry.piece_count();
        for piece in 0..pieces {
            let known = replayed.state.fingerprints(piece).len();
            prop_assert!(known == 0 || known == subject().chunks_of(piece), "{} of {}", known, piece);
        }
    }
}
