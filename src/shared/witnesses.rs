//! Of each piece, who else is believed to hold it: two groups of addresses, no more are asked about.
//!
//! A seed that counted connections would believe whoever opens several of them: three that each lack another
//! piece make every piece look passed on. So copies are counted by group, and a group that announces a piece
//! counts only if this node gave it a block of that piece, or trusts it, since it is seen giving. Others may
//! come to be trusted later; until then they hold a place only while nobody better wants it.
//!
//! What is forgotten errs on one side: a piece looks rarer than it is. Of a group with several connections
//! that ends one of them, that is so until another one announces the piece.

use super::ledger::AccountId;
use super::sync::{AtomicU64, Ordering};
use crate::base::limits::{INJECTION_COPIES, LEDGER_ACCOUNTS};

/// Groups that are remembered of a piece.
const PLACES: usize = 2;

/// The group says that it has the piece.
const ANNOUNCED: u32 = 1 << 31;

/// This node gave it a block of the piece.
const GIVEN: u32 = 1 << 30;

/// It is seen giving.
const TRUSTED: u32 = 1 << 29;

const FLAGS: u32 = ANNOUNCED | GIVEN | TRUSTED;

const _: () = assert!(INJECTION_COPIES as usize <= PLACES);
const _: () = assert!(LEDGER_ACCOUNTS < !FLAGS as usize);

/// One group and what speaks for it; nobody: zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Witness(u32);

/// One torrent's. See the module.
#[derive(Debug)]
pub struct Witnesses {
    /// Of each piece a word with both of its witnesses.
    words: Box<[AtomicU64]>,
}

impl Witness {
    const fn new(group: AccountId, flags: u32) -> Self {
        Self((group.index() + 1) | flags)
    }

    const fn is(self, group: AccountId) -> bool {
        self.0 & !FLAGS == group.index() + 1
    }

    fn group(self) -> Option<AccountId> {
        (self.0 & !FLAGS).checked_sub(1).map(AccountId::from_index)
    }

    /// Whether it counts as one that holds the piece.
    const fn is_copy(self) -> bool {
        self.0 & ANNOUNCED != 0 && self.0 & (GIVEN | TRUSTED) != 0
    }

    /// What displaces whom: a copy anybody, who was given some of it whoever only says something.
    const fn rank(self) -> u32 {
        match self.0 {
            0 => 0,
            _ if self.is_copy() => 3,
            _ if self.0 & GIVEN != 0 => 2,
            _ => 1,
        }
    }
}

/// Both witnesses with what `flags` say of `group`; none if nothing changes.
fn noted([first, second]: [Witness; PLACES], group: AccountId, flags: u32) -> Option<[Witness; PLACES]> {
    for (known, other) in [(first, second), (second, first)] {
        if known.is(group) {
            let more = Witness(known.0 | flags);
            return (more != known).then_some([more, other]);
        }
    }
    let (least, other) = if second.rank() < first.rank() { (second, first) } else { (first, second) };
    let new = Witness::new(group, flags);
    // Of equals that were given some the one goes that had the longer time to announce it.
    let displaces = new.rank() > least.rank() || new.rank() == 2 && least.rank() == 2;
    displaces.then_some([other, new])
}

const fn unpack(word: u64) -> [Witness; PLACES] {
    [Witness(word as u32), Witness((word >> 32) as u32)]
}

fn pack([first, second]: [Witness; PLACES]) -> u64 {
    u64::from(first.0) | u64::from(second.0) << 32
}

impl Witnesses {
    /// Nobody has any of `pieces` pieces.
    pub fn new(pieces: u32) -> Self {
        Self { words: (0..pieces).map(|_| AtomicU64::new(0)).collect() }
    }

    /// This node gives a whole block of a piece to `group`.
    pub fn note_given(&self, piece: u32, group: AccountId) {
        self.change(piece, |witnesses| noted(witnesses, group, GIVEN));
    }

    /// A connection of `group` announces a piece.
    pub fn note_announced(&self, piece: u32, group: AccountId, is_trusted: bool) {
        let flags = ANNOUNCED | if is_trusted { TRUSTED } else { 0 };
        self.change(piece, |witnesses| noted(witnesses, group, flags));
    }

    /// A connection of `group` that had announced a piece is gone.
    pub fn forget(&self, piece: u32, group: AccountId) {
        self.change(piece, |witnesses| {
            let left = witnesses.map(|witness| match witness {
                witness if !witness.is(group) => witness,
                Witness(word) if word & GIVEN != 0 => Witness(word & !(ANNOUNCED | TRUSTED)),
                _ => Witness::default(),
            });
            (left != witnesses).then_some(left)
        });
    }

    /// How many others hold a piece, as far as is asked; `trusts` is asked of those that only say so, and a
    /// copy of a group that `keeps` it is of use to nobody.
    pub fn copies(
        &self,
        piece: u32,
        trusts: impl Fn(AccountId) -> bool,
        keeps: impl Fn(AccountId) -> bool,
    ) -> u32 {
        let witnesses = unpack(self.words[piece as usize].load(Ordering::Relaxed));
        let mut copies = 0;
        for witness in witnesses {
            let claims = witness.0 & ANNOUNCED != 0 && !witness.is_copy();
            if let Some(group) = witness.group().filter(|&group| claims && trusts(group)) {
                // It may have left meanwhile: then there is nothing to be trusted.
                let is_there = |witness: &Witness| witness.is(group) && witness.0 & ANNOUNCED != 0;
                self.change(piece, |now| {
                    now.iter().any(is_there).then(|| noted(now, group, TRUSTED)).flatten()
                });
                copies += 1;
            }
            copies += u32::from(witness.is_copy() && !witness.group().is_some_and(&keeps));
        }
        copies
    }

    fn change(&self, piece: u32, to: impl Fn([Witness; PLACES]) -> Option<[Witness; PLACES]>) {
        let word = &self.words[piece as usize];
        let mut now = word.load(Ordering::Relaxed);
        while let Some(new) = to(unpack(now)) {
            match word.compare_exchange_weak(now, pack(new), Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(seen) => now = seen,
            }
        }
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    fn group(number: u32) -> AccountId {
        AccountId::from_index(number)
    }

    fn copies(witnesses: &Witnesses) -> u32 {
        witnesses.copies(0, |_| false, |_| false)
    }

    #[test]
    fn a_group_counts_once_and_only_for_what_it_was_given_or_if_it_is_trusted() {
        let witnesses = Witnesses::new(1);
        (0..3).for_each(|_| witnesses.note_announced(0, group(0), false));
        assert_eq!(copies(&witnesses), 0, "it says so, nothing else");
        witnesses.note_given(0, group(0));
        assert_eq!(copies(&witnesses), 1);
        witnesses.note_given(0, group(1));
        assert_eq!(copies(&witnesses), 1, "it has not said so");
        witnesses.note_announced(0, group(1), false);
        assert_eq!(copies(&witnesses), 2);
        witnesses.note_announced(0, group(2), true);
        assert_eq!(copies(&witnesses), 2, "no more are asked about");
    }

    #[test]
    fn who_comes_to_be_trusted_counts_from_then_on() {
        let witnesses = Witnesses::new(1);
        witnesses.note_announced(0, group(4), false);
        assert_eq!(witnesses.copies(0, |other| other == group(5), |_| false), 0);
        assert_eq!(witnesses.copies(0, |other| other == group(4), |_| false), 1);
        assert_eq!(witnesses.copies(0, |_| true, |other| other == group(4)), 0, "it keeps it");
        assert_eq!(copies(&witnesses), 1, "it is remembered");
    }

    #[test]
    fn who_only_talks_keeps_no_place_from_others() {
        let witnesses = Witnesses::new(1);
        [8, 9].into_iter().for_each(|number| witnesses.note_announced(0, group(number), false));
        for number in [1, 2] {
            witnesses.note_given(0, group(number));
            witnesses.note_announced(0, group(number), false);
        }
        assert_eq!(copies(&witnesses), 2);
        [8, 9].into_iter().for_each(|number| witnesses.note_given(0, group(number)));
        assert_eq!(copies(&witnesses), 2, "nor does who is given it later");
    }

    #[test]
    fn takers_that_never_announce_make_room_for_whom_it_is_given_next() {
        let witnesses = Witnesses::new(1);
        (0..9).for_each(|number| witnesses.note_given(0, group(number)));
        witnesses.note_announced(0, group(8), false);
        witnesses.note_announced(0, group(1), false);
        assert_eq!(copies(&witnesses), 1, "of the others nobody is remembered");
    }

    #[test]
    fn who_leaves_takes_its_copy_along_and_brings_it_back() {
        let witnesses = Witnesses::new(1);
        witnesses.note_given(0, group(3));
        witnesses.note_announced(0, group(3), true);
        witnesses.note_announced(0, group(4), true);
        [3, 4, 5].into_iter().for_each(|number| witnesses.forget(0, group(number)));
        assert_eq!(copies(&witnesses), 0);
        [3, 4].into_iter().for_each(|number| witnesses.note_announced(0, group(number), false));
        assert_eq!(copies(&witnesses), 1, "what it was given it still has");
    }

    #[test]
    fn the_last_account_and_the_first_are_told_apart_from_nobody() {
        let witnesses = Witnesses::new(1);
        let last = group(LEDGER_ACCOUNTS as u32);
        [group(0), last].into_iter().for_each(|group| witnesses.note_announced(0, group, true));
        assert_eq!(copies(&witnesses), 2);
        witnesses.forget(0, last);
        assert_eq!(copies(&witnesses), 1);
    }
}
