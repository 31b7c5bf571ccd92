//! Pieces that exist only here, and what became of those that were given away.
//!
//! A seed gets nothing back from those it serves; it can see who passes on. A piece that nobody had and
//! that it gave to one group alone, and that another group announces later, must have come from the first.
//! (BEP 16 tests for the same by hiding pieces; here nothing is hidden.)

use super::ledger::AccountId;
use super::sync::{AtomicU32, AtomicU64, Ordering};
use crate::base::time::Instant;

/// Given to nobody.
const NOBODY: u64 = 0;

/// Given to several, or seen elsewhere since: it proves nothing.
const SETTLED: u64 = u64::MAX;

/// Pieces looked at for one that is rare, in one call.
const LOOKS_MAX: u32 = 64;

/// One torrent's. See the module.
#[derive(Debug)]
pub struct Injection {
    /// Of each piece: `NOBODY`, `SETTLED`, or the group, plus one, and in the high half when, in ms.
    given: Box<[AtomicU64]>,
    /// A piece that was rare when somebody last looked.
    rare: AtomicU32,
}

/// To whom a piece was given first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Given {
    /// The group.
    pub group: AccountId,
    /// When, in ms, modulo 2^32.
    pub at_ms: u32,
}

impl Given {
    fn unpack(word: u64) -> Option<Self> {
        let group = (word & u64::from(u32::MAX)) as u32;
        let known = word != NOBODY && word != SETTLED;
        known.then(|| Self { group: AccountId::from_index(group - 1), at_ms: (word >> 32) as u32 })
    }
}

/// The clock of [`Given::at_ms`].
pub const fn at_ms(now: Instant) -> u32 {
    (now.0 / 1_000_000) as u32
}

impl Injection {
    /// Nothing of `pieces` pieces was given away.
    pub fn new(pieces: u32) -> Self {
        Self { given: (0..pieces).map(|_| AtomicU64::new(NOBODY)).collect(), rare: AtomicU32::new(0) }
    }

    /// Blocks of a piece that nobody else has go to `group`.
    pub fn note_given(&self, piece: u32, group: AccountId, now: Instant) {
        let place = &self.given[piece as usize];
        let word = place.load(Ordering::Relaxed);
        match Given::unpack(word) {
            Some(given) if given.group != group => place.store(SETTLED, Ordering::Relaxed),
            None if word == NOBODY => {
                let given = u64::from(at_ms(now)) << 32 | u64::from(group.index() + 1);
                // Another core may have given it to somebody else just now.
                if place.compare_exchange(NOBODY, given, Ordering::Relaxed, Ordering::Relaxed).is_err() {
                    place.store(SETTLED, Ordering::Relaxed);
                }
            }
            _ => {}
        }
    }

    /// To whom alone a piece was given that is not seen elsewhere yet.
    pub fn given(&self, piece: u32) -> Option<Given> {
        Given::unpack(self.given[piece as usize].load(Ordering::Relaxed))
    }

    /// Somebody of `group` announced a piece: who must have passed it on.
    pub fn note_announced(&self, piece: u32, group: AccountId) -> Option<AccountId> {
        let place = &self.given[piece as usize];
        let word = place.load(Ordering::Relaxed);
        let given = Given::unpack(word).filter(|given| given.group != group)?;
        let won = place.compare_exchange(word, SETTLED, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        won.then_some(given.group)
    }

    /// Whether some piece is held by fewer than `enough` others. Looks at a bounded number of pieces, from
    /// the last rare one on, so that several calls may be needed to see the last one spread.
    pub fn has_rare(&self, enough: u32, availability: impl Fn(u32) -> u32) -> bool {
        let pieces = self.given.len() as u32;
        let first = self.rare.load(Ordering::Relaxed);
        for look in 0..LOOKS_MAX.min(pieces) {
            let piece = (first + look) % pieces;
            if availability(piece) < enough {
                self.rare.store(piece, Ordering::Relaxed);
                return true;
            }
        }
        self.rare.store((first + LOOKS_MAX) % pieces, Ordering::Relaxed);
        false
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    const NOW: Instant = Instant(5_000_000_000);

    fn group(number: u32) -> AccountId {
        AccountId::from_index(number)
    }

    #[test]
    fn a_piece_that_comes_back_from_others_speaks_for_whom_it_was_given_to() {
        let injection = Injection::new(4);
        injection.note_given(1, group(0), NOW);
        injection.note_given(1, group(0), NOW);
        assert_eq!(injection.given(1), Some(Given { group: group(0), at_ms: 5_000 }));
        assert_eq!(injection.note_announced(1, group(0)), None, "its own announcement proves nothing");
        assert_eq!(injection.note_announced(1, group(7)), Some(group(0)));
        assert_eq!(injection.note_announced(1, group(8)), None, "once");
        assert_eq!(injection.note_announced(2, group(8)), None, "it was given to nobody");
    }

    #[test]
    fn a_piece_that_was_given_to_two_speaks_for_nobody() {
        let injection = Injection::new(4);
        injection.note_given(1, group(3), NOW);
        injection.note_given(1, group(4), NOW);
        injection.note_given(1, group(3), NOW);
        assert_eq!((injection.given(1), injection.note_announced(1, group(9))), (None, None));
    }

    #[test]
    fn rare_pieces_are_found_wherever_they_are() {
        let injection = Injection::new(1_000);
        let mut availability = vec![2; 1_000];
        availability[999] = 1;
        let found =
            (0..1_000 / LOOKS_MAX + 1).any(|_| injection.has_rare(2, |piece| availability[piece as usize]));
        assert!(found);
        assert!(injection.has_rare(2, |piece| availability[piece as usize]), "it is remembered");
        assert!((0..100).all(|_| !injection.has_rare(1, |piece| availability[piece as usize])));
    }
}
