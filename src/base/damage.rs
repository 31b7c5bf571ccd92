//! Damage to valid input, for property tests of everything that reads what strangers wrote: noise alone
//! rarely gets past the first check, valid bytes with a few changes get deep.

use proptest::prelude::*;
use proptest::sample::Index;

/// Changes of one input at most.
const CHANGES_MAX: usize = 6;
/// Bytes that one change removes or repeats at most.
const RUN_MAX: usize = 16;

/// One change.
#[derive(Clone, Debug)]
enum Change {
    /// Another byte in its place: any, or one that is a number's edge or a format's sign.
    Overwrite(Index, u8),
    /// One bit.
    Flip(Index, u8),
    /// A byte more.
    Insert(Index, u8),
    /// A run less.
    Remove(Index, usize),
    /// A run from elsewhere, inserted: lengths and keys in the wrong places.
    Repeat(Index, Index, usize),
    /// The end cut off.
    Truncate(Index),
}

/// `valid` with a few changes; often no longer valid, sometimes still, now and then only in part.
pub fn damaged(valid: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(change(), 1..=CHANGES_MAX).prop_map(move |changes| {
        let mut bytes = valid.clone();
        changes.iter().for_each(|change| change.apply(&mut bytes));
        bytes
    })
}

fn change() -> impl Strategy<Value = Change> {
    let byte = prop_oneof![any::<u8>(), prop::sample::select(&b"\0\x01\x7f\x80\xffdeil0123456789:-"[..])];
    prop_oneof![
        4 => (any::<Index>(), byte.clone()).prop_map(|(at, byte)| Change::Overwrite(at, byte)),
        2 => (any::<Index>(), 0..8u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        2 => (any::<Index>(), byte).prop_map(|(at, byte)| Change::Insert(at, byte)),
        1 => (any::<Index>(), 1..=RUN_MAX).prop_map(|(at, len)| Change::Remove(at, len)),
        1 => (any::<Index>(), any::<Index>(), 1..=RUN_MAX)
            .prop_map(|(at, from, len)| Change::Repeat(at, from, len)),
        1 => any::<Index>().prop_map(Change::Truncate),
    ]
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let len = bytes.len();
        let run = |from: usize, want: usize| from..(from + want).min(len);
        match self {
            Self::Overwrite(at, byte) => bytes[at.index(len)] = *byte,
            Self::Flip(at, bit) => bytes[at.index(len)] ^= 1 << bit,
            Self::Insert(at, byte) => bytes.insert(at.index(len + 1), *byte),
            Self::Remove(at, want) => drop(bytes.drain(run(at.index(len), *want))),
            Self::Repeat(at, from, want) => {
                let copy = bytes[run(from.index(len), *want)].to_vec();
                let at = at.index(len + 1);
                bytes.splice(at..at, copy);
            }
            Self::Truncate(at) => bytes.truncate(at.index(len)),
        }
    }
}
