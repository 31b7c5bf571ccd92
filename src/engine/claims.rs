//! A claim: one core's right to collect the missing blocks of one chunk.
//!
//! Two different things are tracked per block: who was *asked* for it (several in the endgame), and
//! where it is *landing*: the one connection whose receive may write the block's place in the slot.
//! Invariant: while `landing` is set no other connection writes there, and a block counts as got
//! only when it landed whole; so bytes that are got never change again.

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
    /// It is to be offered to others as soon as nothing lands in it any more.
    pub releasing: bool,
}

impl Claim {
    /// A claim on a chunk of `blocks` blocks, of which `got` are there.
    pub fn new(slot: SlotId, residue: u32, blocks: u32, got: BlockMask, now: Instant) -> Self {
        assert!((1..=BLOCKS_PER_CHUNK).contains(&blocks));
        let asked = [0; BLOCKS];
        Self { slot, residue, blocks, got, asked, landing: [None; BLOCKS], since: now, releasing: false }
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

    /// Blocks that were asked for and are not there, for the endgame.
    pub fn outstanding(&self) -> impl Iterator<Item = u32> {
        (0..self.blocks).filter(|&block| !self.has(block) && self.asked[block as usize] > 0)
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
