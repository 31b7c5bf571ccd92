//! A claim: one core's right to collect the missing blocks of one chunk.
//!
//! Two different things are tracked per block: who was *asked* for it (several in the endgame), and
//! where it is *landing*: the one connection whose receive may write the block's place in the slot.
//! Invariant: while `landing` is set no other connection writes there, and a block counts as got
//! only when it landed whole; so bytes that are got never change again, until hashes prove a block wrong
//! (`inquest.rs`) and it is got no longer.

use crate::base::ids::{ConnId, SlotId};
use crate::base::time::Instant;
use crate::base::units::BLOCKS_PER_CHUNK;

/// Blocks of a chunk, one bit each.
pub type BlockMask = u16;

const BLOCKS: usize = BLOCKS_PER_CHUNK as usize;

/// See the module.
#[derive(Debug)]
pub struct Claim {
    /// Where the blocks go.
    pub slot: SlotId,
    /// Where the chunk starts in its slot's payload area.
    pub residue: u32,
    /// Blocks that the chunk has.
    pub blocks: u32,
    /// Blocks that are there.
    pub got: BlockMask,
    /// How many connections were asked for each block.
    pub asked: [u8; BLOCKS],
    landing: [Option<ConnId>; BLOCKS],
    /// When it was claimed.
    pub since: Instant,
    /// The one connection that may be asked for its blocks, if its piece is on parole.
    pub giver: Option<ConnId>,
    /// Blocks of which a copy was thrown away because another was landing: no further copy can win
    /// until that landing has ended.
    beaten: BlockMask,
    /// It is to be offered to others as soon as nothing lands in it any more.
    pub releasing: bool,
}

impl Claim {
    /// A claim on a chunk of `blocks` blocks, of which `got` are there.
    pub fn new(slot: SlotId, residue: u32, blocks: u32, got: BlockMask, now: Instant) -> Self {
        assert!((1..=BLOCKS_PER_CHUNK).contains(&blocks));
        let asked = [0; BLOCKS];
        let (landing, giver, beaten, releasing) = ([None; BLOCKS], None, 0, false);
        Self { slot, residue, blocks, got, asked, landing, since: now, giver, beaten, releasing }
    }

    /// Whether all blocks are there.
    pub fn is_full(&self) -> bool {
        self.got.count_ones() == self.blocks
    }

    /// Whether block `block` is there.
    pub const fn has(&self, block: u32) -> bool {
        self.got & (1 << block) != 0
    }

    /// The first block that is neither there, nor asked for, nor landing.
    pub fn next_unasked(&self) -> Option<u32> {
        let free = |&block: &u32| {
            let at = block as usize;
            !self.has(block) && self.asked[at] == 0 && self.landing[at].is_none()
        };
        if self.releasing { None } else { (0..self.blocks).find(free) }
    }

    /// Blocks that were asked for, are not there and can still be had first by somebody else, for the
    /// endgame.
    pub fn outstanding(&self) -> impl Iterator<Item = u32> {
        let open = |block: u32| !self.has(block) && self.beaten & (1 << block) == 0;
        (0..self.blocks).filter(move |&block| open(block) && self.asked[block as usize] > 0)
    }

    /// Whether `conn` may be asked for blocks.
    pub fn is_open_to(&self, conn: ConnId) -> bool {
        !self.releasing && self.giver.is_none_or(|giver| giver == conn)
    }

    /// A copy of block `block` was thrown away because another connection's is landing.
    pub const fn note_beaten(&mut self, block: u32) {
        self.beaten |= 1 << block;
    }

    /// Who may write block `block`.
    pub const fn landing(&self, block: u32) -> Option<ConnId> {
        self.landing[block as usize]
    }

    /// Lets `conn`, and nobody else, write block `block`; false if another does already.
    pub fn land(&mut self, block: u32, conn: ConnId) -> bool {
        let place = &mut self.landing[block as usize];
        if place.is_some_and(|other| other != conn) {
            return false;
        }
        *place = Some(conn);
        true
    }

    /// `conn` does not write block `block` any more.
    pub fn unland(&mut self, block: u32, conn: ConnId) {
        let place = &mut self.landing[block as usize];
        if *place == Some(conn) {
            *place = None;
            self.beaten &= !(1 << block);
        }
    }

    /// Whether anything is landing.
    pub fn is_landing(&self) -> bool {
        self.landing.iter().any(Option::is_some)
    }

    /// Connections that are landing a block that they are no longer asked for.
    pub fn landers(&self) -> impl Iterator<Item = ConnId> {
        self.landing.iter().flatten().copied()
    }

    /// One connection fewer is asked for block `block`.
    pub fn unask(&mut self, block: u32) {
        let count = &mut self.asked[block as usize];
        *count = count.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ConnId = ConnId { index: 1, generation: 0 };
    const B: ConnId = ConnId { index: 2, generation: 0 };

    #[test]
    fn a_copy_that_was_beaten_is_not_asked_for_again_while_the_other_lands() {
        let mut claim = Claim::new(SlotId(0), 0, 2, 0, Instant(0));
        claim.asked = [1; BLOCKS];
        assert!(claim.land(0, A));
        assert_eq!(claim.outstanding().collect::<Vec<_>>(), [0, 1]);
        claim.note_beaten(0);
        assert_eq!(claim.outstanding().collect::<Vec<_>>(), [1]);
        claim.unland(0, A);
        assert_eq!(claim.outstanding().collect::<Vec<_>>(), [0, 1], "it did not come whole");
    }

    #[test]
    fn a_block_lands_from_one_connection_at_a_time() {
        let mut claim = Claim::new(SlotId(0), 0, 3, 0, Instant(0));
        assert!(claim.land(1, A) && claim.land(1, A) && !claim.land(1, B));
        assert_eq!(claim.next_unasked(), Some(0));
        claim.asked[0] = 1;
        assert_eq!(claim.next_unasked(), Some(2), "block 1 is landing");
        claim.unland(1, B);
        assert!(claim.is_landing(), "only its own connection ends it");
        claim.unland(1, A);
        assert_eq!((claim.next_unasked(), claim.is_landing()), (Some(1), false));
        claim.got = 0b111;
        assert!(claim.is_full() && claim.next_unasked().is_none());
    }
}
