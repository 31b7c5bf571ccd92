//! Pieces that exist only here, and what became of those that were given away.
//!
//! A seed gets nothing back from those it serves; it can see who passes on. A piece that nobody had and
//! that it gave to one group alone, and that another group announces later, is taken to have come from the
//! first. (BEP 16 tests for the same by hiding pieces; here nothing is hidden.) An announcement proves
//! nothing: two groups that announce for one another get more of a seed while it injects, and nothing else.

use super::ledger::AccountId;
use super::sync::{AtomicU32, AtomicU64, Ordering};
use crate::base::limits::INJECTION_COPIES;
use crate::base::time::{Instant, Span};

/// Given to nobody.
const NOBODY: u64 = 0;

/// Given to several, or seen elsewhere since: it proves nothing.
const SETTLED: u64 = u64::MAX;

/// Pieces looked at for one that is rare, in one call.
const LOOKS_MAX: u32 = 64;

/// One torrent's. See the module.
#[derive(Debug)]
pub struct Injection {
    /// Of each piece: `NOBODY`, `SETTLED`, or the group, plus one, above it how many blocks, above that
    /// when the last.
    given: Box<[AtomicU64]>,
    /// For each number of copies that makes a piece rare: one that was rare when somebody last looked.
    rare: [AtomicU32; INJECTION_COPIES as usize],
}

/// To whom a piece was given first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Given {
    /// The group.
    pub group: AccountId,
    /// How many blocks; no more are counted than fit.
    pub blocks: u16,
    /// When the last of them, in ticks of [`at_ticks`].
    pub at_ticks: u16,
}

/// What a block that was given changes in what is awaited of whom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Whether others are to get it from there.
    pub awaited: bool,
    /// What others are to get from there no longer.
    pub no_longer: Option<Given>,
}

impl Given {
    fn unpack(word: u64) -> Option<Self> {
        let group = (word & u64::from(u32::MAX)) as u32;
        let known = word != NOBODY && word != SETTLED;
        let (blocks, at_ticks) = ((word >> 32) as u16, (word >> 48) as u16);
        known.then(|| Self { group: AccountId::from_index(group - 1), blocks, at_ticks })
    }

    fn pack(self) -> u64 {
        u64::from(self.at_ticks) << 48 | u64::from(self.blocks) << 32 | u64::from(self.group.index() + 1)
    }
}

/// One tick: the words that are packed have room for no finer clock.
pub const TICK: Span = Span::from_ms(64);

/// The clock of [`Given::at_ticks`]. It goes round in an hour.
pub const fn at_ticks(now: Instant) -> u16 {
    (now.0 / TICK.0) as u16
}

impl Injection {
    /// Nothing of `pieces` pieces was given away.
    pub fn new(pieces: u32) -> Self {
        Self {
            given: (0..pieces).map(|_| AtomicU64::new(NOBODY)).collect(),
            rare: [(); INJECTION_COPIES as usize].map(|()| AtomicU32::new(0)),
        }
    }

    /// A block of a piece that nobody else has goes to `group`. What somebody got before and `kept` is
    /// forgotten here, and goes on being awaited from there.
    pub fn note_given(
        &self,
        piece: u32,
        group: AccountId,
        now: Instant,
        kept: impl Fn(Given) -> bool,
    ) -> Change {
        let place = &self.given[piece as usize];
        let word = place.load(Ordering::Relaxed);
        let first = Given { group, blocks: 1, at_ticks: at_ticks(now) };
        let (new, no_longer) = match Given::unpack(word) {
            _ if word == SETTLED => return Change::default(),
            Some(given) if given.group == group => {
                (Some(Given { blocks: given.blocks.saturating_add(1), ..first }), None)
            }
            Some(given) if kept(given) => (Some(first), None),
            Some(given) => (None, Some(given)),
            None => (Some(first), None),
        };
        let packed = new.map_or(SETTLED, Given::pack);
        if place.compare_exchange(word, packed, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            return Change { awaited: new.is_some(), no_longer };
        }
        // Another core gives it to somebody just now: then it proves nothing.
        let no_longer = Given::unpack(place.swap(SETTLED, Ordering::Relaxed));
        Change { awaited: false, no_longer }
    }

    /// To whom alone a piece was given that is not seen elsewhere yet.
    pub fn given(&self, piece: u32) -> Option<Given> {
        Given::unpack(self.given[piece as usize].load(Ordering::Relaxed))
    }

    /// Somebody of `group` announced a piece: who is taken to have passed it on.
    pub fn note_announced(&self, piece: u32, group: AccountId) -> Option<Given> {
        let place = &self.given[piece as usize];
        let word = place.load(Ordering::Relaxed);
        let given = Given::unpack(word).filter(|given| given.group != group)?;
        let won = place.compare_exchange(word, SETTLED, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        won.then_some(given)
    }

    /// How many copies a piece has that is one too many: others have it, and some piece is held by fewer. One
    /// while pieces exist only here, then more, and `None` once all are held by `INJECTION_COPIES` others.
    pub fn enough(&self, availability: impl Fn(u32) -> u32) -> Option<u32> {
        // Mostly nothing is rare, and one look tells.
        if !self.has_rare(INJECTION_COPIES, &availability) {
            return None;
        }
        (1..INJECTION_COPIES).find(|&enough| self.has_rare(enough, &availability)).or(Some(INJECTION_COPIES))
    }

    /// Whether some piece is held by fewer than `enough` others. Looks at a bounded number of pieces, from
    /// the last rare one on: says no for up to pieces / 64 calls although one is left.
    fn has_rare(&self, enough: u32, availability: impl Fn(u32) -> u32) -> bool {
        let pieces = self.given.len() as u32;
        let rare = &self.rare[enough as usize - 1];
        let first = rare.load(Ordering::Relaxed);
        for look in 0..LOOKS_MAX.min(pieces) {
            let piece = (first + look) % pieces;
            if availability(piece) < enough {
                // All cores read the word for every turn: it is written when it changes.
                if look > 0 {
                    rare.store(piece, Ordering::Relaxed);
                }
                return true;
            }
        }
        rare.store((first + LOOKS_MAX) % pieces, Ordering::Relaxed);
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
        injection.note_given(1, group(0), NOW, |_| false);
        injection.note_given(1, group(0), NOW, |_| false);
        let given = Given { group: group(0), blocks: 2, at_ticks: 78 };
        assert_eq!(injection.given(1), Some(given));
        assert_eq!(injection.note_announced(1, group(0)), None, "its own announcement proves nothing");
        assert_eq!(injection.note_announced(1, group(7)), Some(given));
        assert_eq!(injection.note_announced(1, group(8)), None, "once");
        assert_eq!(injection.note_announced(2, group(8)), None, "it was given to nobody");
    }

    #[test]
    fn a_piece_that_was_given_to_two_speaks_for_nobody() {
        let injection = Injection::new(4);
        injection.note_given(1, group(3), NOW, |_| false);
        injection.note_given(1, group(4), NOW, |_| false);
        injection.note_given(1, group(3), NOW, |_| false);
        assert_eq!((injection.given(1), injection.note_announced(1, group(9))), (None, None));
    }

    #[test]
    fn who_keeps_what_it_got_is_forgotten_for_who_gets_it_next() {
        let injection = Injection::new(4);
        injection.note_given(1, group(3), NOW, |_| false);
        injection.note_given(1, group(4), NOW, |before| before.group == group(3));
        let given = Given { group: group(4), blocks: 1, at_ticks: 78 };
        assert_eq!(injection.note_announced(1, group(9)), Some(given));
    }

    #[test]
    fn a_block_is_awaited_from_whom_alone_it_was_given_to() {
        let injection = Injection::new(4);
        let given = |number, blocks| Some(Given { group: group(number), blocks, at_ticks: 78 });
        let note = |number, kept| {
            let change = injection.note_given(1, group(number), NOW, |_| kept);
            (change.awaited, change.no_longer)
        };
        assert_eq!(note(3, false), (true, None), "nobody had it");
        assert_eq!(note(3, false), (true, None), "once more");
        assert_eq!(note(4, true), (true, None), "the first one kept it, which counts against it");
        assert_eq!(note(5, false), (false, given(4, 1)), "two may pass it on");
        assert_eq!(note(6, false), (false, None), "settled");
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

    #[test]
    fn what_is_enough_grows_with_the_rarest_piece() {
        let injection = Injection::new(10);
        for (rarest, enough) in
            [(0, Some(1)), (INJECTION_COPIES - 1, Some(INJECTION_COPIES)), (INJECTION_COPIES, None)]
        {
            let of = |piece| if piece == 4 { rarest } else { 7 };
            assert_eq!(injection.enough(of), enough, "{rarest}");
        }
        assert_eq!(injection.enough(|_| INJECTION_COPIES + 1), None);
    }
}
