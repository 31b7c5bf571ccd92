//! How many connected peers give each piece, on all cores. A peer gives what it announced once it has let us
//! ask for something (unchoked us).
//!
//! Pieces are picked by these counts, rarest first. What somebody announces who never lets us ask is of no
//! use to us: if it counted, a seed's client would leave for last just what only free riders have from it.
//! To unchoke somebody once costs little: this is a guard against who does nothing, not against who lies.

use super::sync::{AtomicU32, Ordering};
use crate::base::bitfield::Bitfield;

/// One torrent's. See the module. Counts are changed by the core of the peer; what two looks at them find may
/// be of different moments.
#[derive(Debug)]
pub struct Givers {
    /// Of each piece, seeds among them.
    pieces: Box<[AtomicU32]>,
    seeds: AtomicU32,
}

impl Givers {
    /// Nobody, of so many pieces.
    pub fn new(pieces: u32) -> Self {
        Self { pieces: (0..pieces).map(|_| AtomicU32::new(0)).collect(), seeds: AtomicU32::new(0) }
    }

    /// How many give piece `piece`.
    pub fn of(&self, piece: u32) -> u32 {
        self.pieces[piece as usize].load(Ordering::Relaxed)
    }

    /// How many give all.
    pub fn seeds(&self) -> u32 {
        self.seeds.load(Ordering::Relaxed)
    }

    /// Whether somebody gives piece `piece` that lacks others.
    pub fn is_with_leeches(&self, piece: u32) -> bool {
        self.of(piece) > self.seeds()
    }

    /// A peer that has `bits` lets us ask for the first time.
    pub fn join(&self, bits: &Bitfield) {
        bits.ones().for_each(|piece| self.add(piece));
        self.seeds.fetch_add(u32::from(bits.is_whole()), Ordering::Relaxed);
    }

    /// Such a peer has one more, and `bits` now.
    pub fn gain(&self, piece: u32, bits: &Bitfield) {
        self.add(piece);
        self.seeds.fetch_add(u32::from(bits.is_whole()), Ordering::Relaxed);
    }

    /// Such a peer left, and what it had.
    pub fn leave(&self, bits: &Bitfield) {
        self.seeds.fetch_sub(u32::from(bits.is_whole()), Ordering::Relaxed);
        for piece in bits.ones() {
            self.pieces[piece as usize].fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn add(&self, piece: u32) {
        self.pieces[piece as usize].fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    #[test]
    fn who_gets_its_last_piece_is_a_seed_and_takes_all_away_with_it() {
        let givers = Givers::new(2);
        let mut bits = Bitfield::new(2);
        bits.set(0);
        givers.join(&bits);
        assert_eq!((givers.of(0), givers.of(1)), (1, 0));
        assert!(givers.is_with_leeches(0) && !givers.is_with_leeches(1));
        bits.set(1);
        givers.gain(1, &bits);
        givers.join(&Bitfield::full(2));
        assert_eq!((givers.of(0), givers.of(1)), (2, 2));
        assert!(!givers.is_with_leeches(0), "only seeds have it");
        givers.leave(&bits);
        assert_eq!((givers.of(0), givers.of(1)), (1, 1));
        assert!(!givers.is_with_leeches(0));
    }
}
