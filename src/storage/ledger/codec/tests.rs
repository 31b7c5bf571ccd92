use proptest::prelude::*;

use super::*;
use crate::base::damage::damaged;
use crate::base::limits::{BALANCE_ADDRESS_BYTES_MAX, LEDGER_BYTES_MAX, LEDGER_SLACK_BYTES};

const SUBJECT: Subject = Subject { secret_id: 99, seed: 7 };
const MIB: u64 = 1 << 20;

fn balance(key: u64, received_bytes: u64, sent_bytes: u64) -> Balance {
    Balance { key, received_bytes, sent_bytes, ..Balance::default() }
}

fn stamp(wall_s: u64) -> Stamp {
    Stamp { wall_s, address_s: 1, key_s: 2, grant_s: 3 }
}

/// A log, and what it says up to each length at which a record ends.
fn story() -> (Vec<u8>, Vec<(usize, Replay)>) {
    let mut out = Vec::new();
    let mut writer = Writer::begin(SUBJECT, &mut out);
    let mut ends = vec![out.len()];
    let mut end = |out: &Vec<u8>| ends.push(out.len());
    writer.pass(Passed::default(), stamp(100), &mut out);
    end(&out);
    let keyed = Balance { kind: PartyKind::Key, granted_bytes: 5, spread_bytes: 6, ..balance(2, 0, 8 * MIB) };
    for one in [balance(1, 3 * MIB, MIB), keyed, balance(1, 5 * MIB, MIB)] {
        writer.set(&one, &mut out);
        end(&out);
    }
    let passed = Passed { address_halvings: 1, key_halvings: 2, refill_bytes: 4 };
    writer.pass(passed, stamp(200), &mut out);
    end(&out);
    writer.set(&balance(3, MIB, 0), &mut out);
    end(&out);
    assert_eq!(writer.bytes(), out.len() as u64);
    let said = ends.into_iter().map(|end| (end, replay(&out[..end], SUBJECT).unwrap())).collect();
    (out, said)
}

#[test]
fn what_was_written_is_replayed() {
    let (bytes, said) = story();
    let last = replay(&bytes, SUBJECT).unwrap();
    let keyed = Balance { kind: PartyKind::Key, granted_bytes: 1, spread_bytes: 1, ..balance(2, 0, 2 * MIB) };
    assert_eq!(last.balances, [balance(1, 5 * MIB / 2, MIB / 2), keyed, balance(3, MIB, 0)]);
    assert_eq!((last.stamp, last.bytes, last.whole), (stamp(200), bytes.len() as u64, true));
    assert!(said.iter().all(|(end, replay)| replay.whole && replay.bytes == *end as u64));
    assert_eq!(said[0].1.balances, []);
    assert_eq!(said[2].1.balances, [balance(1, 3 * MIB, MIB)]);
    assert_eq!(bytes.len() as u64, HEAD_BYTES + 2 * PASSED_BYTES + 4 * BALANCE_BYTES);
}

#[test]
fn a_log_cut_off_anywhere_says_what_its_whole_records_say() {
    let (bytes, said) = story();
    for len in 0..bytes.len() {
        let Some((end, before)) = said.iter().rev().find(|(end, _)| *end <= len) else {
            assert_eq!(replay(&bytes[..len], SUBJECT), Err(Flaw::Damaged), "{len}");
            continue;
        };
        let found = replay(&bytes[..len], SUBJECT).unwrap();
        assert_eq!(found, Replay { whole: *end == len, ..before.clone() }, "{len}");
    }
}

#[test]
fn any_flipped_bit_ends_the_log_there() {
    let (whole, said) = story();
    for bit in 0..8 * whole.len() {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let Some((end, before)) = said.iter().rev().find(|(end, _)| *end <= bit / 8) else {
            assert_eq!(replay(&bytes, SUBJECT), Err(Flaw::Damaged), "bit {bit}");
            continue;
        };
        let found = replay(&bytes, SUBJECT).unwrap();
        assert_eq!((found.bytes, found.whole), (*end as u64, false), "bit {bit}");
        assert_eq!(found.balances, before.balances, "bit {bit}");
    }
}

#[test]
fn other_versions_and_secrets_are_named() {
    let (bytes, _) = story();
    for found in [0, VERSION + 1, u32::MAX] {
        let mut other = bytes.clone();
        other[..PREAMBLE_BYTES].copy_from_slice(&frame::preamble(MAGIC, found));
        let flaw = replay(&other, SUBJECT).unwrap_err();
        assert_eq!(flaw, Flaw::Version { found });
        assert!(flaw.to_string().contains(&found.to_string()));
    }
    assert_eq!(replay(&bytes, Subject { secret_id: 98, ..SUBJECT }), Err(Flaw::OtherSecret));
    let forged = replay(&bytes, Subject { seed: 8, ..SUBJECT }).unwrap();
    assert!(forged.balances.is_empty() && !forged.whole, "checksums need the secret");
    assert_eq!(replay(b"", SUBJECT), Err(Flaw::Damaged));
}

#[test]
fn records_do_not_change_places() {
    let mut out = Vec::new();
    let mut writer = Writer::begin(SUBJECT, &mut out);
    let head = out.len();
    writer.set(&balance(1, MIB, 0), &mut out);
    writer.set(&balance(2, MIB, 0), &mut out);
    let one = BALANCE_BYTES as usize;
    let swapped = [&out[..head], &out[head + one..], &out[head..head + one]].concat();
    assert_eq!(replay(&swapped, SUBJECT).unwrap().bytes, HEAD_BYTES);
    let again = [&out[..], &out[head..]].concat();
    assert_eq!(replay(&again, SUBJECT).unwrap().bytes, out.len() as u64, "nor come twice");
}

#[test]
fn a_record_that_makes_no_sense_ends_the_log() {
    for (kind, body) in [
        (KIND_BALANCE, vec![0; BALANCE_BODY_BYTES]),
        (KIND_BALANCE, [&[2][..], &[1; 40]].concat()),
        (KIND_BALANCE, [&[1][..], &[1; 39]].concat()),
        (KIND_BALANCE, [&[1][..], &[1; 41]].concat()),
        (KIND_PASSED, vec![0; PASSED_BODY_BYTES - 1]),
        (KIND_PASSED, vec![0; PASSED_BODY_BYTES + 1]),
        (KIND_SUBJECT, vec![0; 8]),
        (9, vec![]),
        (KIND_BALANCE, vec![1; BODY_BYTES_MAX + 1]),
    ] {
        let mut out = Vec::new();
        Writer::begin(SUBJECT, &mut out);
        frame::put(&mut out, kind, SUBJECT.seed + 1, &body);
        let found = replay(&out, SUBJECT).unwrap();
        assert_eq!((found.bytes, found.whole), (HEAD_BYTES, false), "{kind} {}", body.len());
    }
}

#[test]
fn so_many_accounts_are_kept_and_small_balances_go_first() {
    const MAX: u64 = 8;
    for accounts in [MAX - 1, MAX, MAX + 1, 2 * MAX + 1, 5 * MAX] {
        let mut out = Vec::new();
        let mut writer = Writer::begin(SUBJECT, &mut out);
        // Debts and contributions in turn, neither ascending nor descending.
        for n in (0..accounts).map(|n| 1 + n * 11 % accounts) {
            let owed = MIB + n;
            let (received, sent) = if n % 2 == 0 { (owed, 0) } else { (0, owed) };
            writer.set(&balance(n, received, sent), &mut out);
        }
        let found = replay_within(&out, SUBJECT, MAX as usize).unwrap();
        let kept: Vec<u64> = found.balances.iter().map(Balance::owed_bytes).collect();
        let want: Vec<u64> = (1..=accounts).rev().take(MAX as usize).map(|n| MIB + n).collect();
        assert_eq!(kept, want, "{accounts}");
    }
}

#[test]
fn the_longest_log_that_a_node_writes_can_be_read() {
    let said = HEAD_BYTES + PASSED_BYTES + LEDGER_STORED_MAX as u64 * BALANCE_BYTES;
    assert!(2 * said + LEDGER_SLACK_BYTES <= LEDGER_BYTES_MAX);
}

#[test]
fn figures_beyond_reason_are_bounded_once_time_passes() {
    let mut out = Vec::new();
    let mut writer = Writer::begin(SUBJECT, &mut out);
    writer.set(&balance(1, u64::MAX, 0), &mut out);
    writer.pass(Passed { address_halvings: 0, ..Passed::default() }, stamp(1), &mut out);
    assert_eq!(replay(&out, SUBJECT).unwrap().balances, [balance(1, BALANCE_ADDRESS_BYTES_MAX, 0)]);
}

proptest! {
    /// Whatever happens to a log, it says what some of its records said, in order.
    #[test]
    fn a_damaged_log_says_nothing_that_was_not_written(bytes in damaged(story().0)) {
        let (whole, said) = story();
        match replay(&bytes, SUBJECT) {
            Ok(found) => {
                let valid = found.bytes as usize;
                prop_assert!(bytes[..valid] == whole[..valid]);
                let (_, before) = said.iter().find(|(end, _)| *end == valid).expect("ends with a record");
                prop_assert_eq!((&found.balances, found.stamp), (&before.balances, before.stamp));
            }
            Err(flaw) => prop_assert_eq!(flaw, Flaw::Damaged),
        }
    }
}
