//! What a model node has and collects: rarest first, begun pieces first, an endgame at the end.

use std::sync::Arc;

use super::content::Content;
use crate::base::bitfield::Bitfield;
use crate::base::geometry::BlockRef;
use crate::base::rng::Rng;
use crate::base::units::BLOCK_BYTES;

/// How many may be asked for one block in the endgame.
const COPIES: u8 = 2;

/// A block that is there.
const GOT: u8 = u8::MAX;

/// See the module.
#[derive(Debug)]
pub struct Store {
    content: Arc<Content>,
    have: Bitfield,
    have_count: u32,
    availability: Vec<u32>,
    /// Of each block: by how many it is asked for, or `GOT`.
    blocks: Vec<u8>,
    /// Of each piece: whether wrong bytes are in it.
    spoilt: Vec<bool>,
    begun: Vec<u32>,
    /// Pieces of which some block is asked for by nobody. Most questions for a block end here.
    unasked: Bitfield,
}

/// What became of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// It was there already.
    Duplicate,
    /// It is one more of its piece.
    Part,
    /// Its piece is whole, and right.
    Piece,
    /// Its piece is whole, and wrong: it begins anew.
    Spoilt,
}

impl Store {
    /// All or nothing of `content`.
    pub fn new(content: &Arc<Content>, complete: bool) -> Self {
        let pieces = content.geometry.piece_count();
        let blocks = (pieces * content.geometry.piece_bytes / BLOCK_BYTES) as usize;
        Self {
            content: Arc::clone(content),
            have: if complete { Bitfield::full(pieces) } else { Bitfield::new(pieces) },
            have_count: if complete { pieces } else { 0 },
            availability: vec![0; pieces as usize],
            blocks: vec![if complete { GOT } else { 0 }; blocks],
            spoilt: vec![false; pieces as usize],
            begun: Vec::new(),
            unasked: if complete { Bitfield::new(pieces) } else { Bitfield::full(pieces) },
        }
    }

    /// What it has.
    pub const fn have(&self) -> &Bitfield {
        &self.have
    }

    /// How many pieces it has.
    pub const fn have_count(&self) -> u32 {
        self.have_count
    }

    /// Whether it has everything.
    pub fn is_complete(&self) -> bool {
        self.have_count == self.have.len()
    }

    /// A peer has a piece.
    pub fn add_availability(&mut self, piece: u32) {
        self.availability[piece as usize] += 1;
    }

    /// A peer that had `bits` has left.
    pub fn sub_availability(&mut self, bits: &Bitfield) {
        bits.ones().for_each(|piece| self.availability[piece as usize] -= 1);
    }

    /// Whether a peer has what is missing here.
    pub fn wants(&self, bits: &Bitfield) -> bool {
        bits.words().zip(self.have.words()).any(|(theirs, ours)| theirs & !ours != 0)
    }

    /// Whether a peer has something that nobody is asked for.
    fn offers(&self, bits: &Bitfield) -> bool {
        bits.words().zip(self.unasked.words()).any(|(theirs, unasked)| theirs & unasked != 0)
    }

    /// Looks anew whether all of a piece is asked for.
    fn note_asked(&mut self, piece: u32) {
        if self.find(piece, |state| state == 0).is_some() {
            self.unasked.set(piece);
        } else {
            self.unasked.clear(piece);
        }
    }

    /// Payload of a piece.
    pub fn piece_bytes(&self) -> u64 {
        self.content.geometry.piece_bytes.into()
    }

    fn blocks_per_piece(&self) -> u32 {
        self.content.geometry.piece_bytes / BLOCK_BYTES
    }

    fn index(&self, block: BlockRef) -> usize {
        (block.piece * self.blocks_per_piece() + block.begin / BLOCK_BYTES) as usize
    }

    fn block(piece: u32, block: u32) -> BlockRef {
        BlockRef { piece, begin: block * BLOCK_BYTES, length: BLOCK_BYTES }
    }

    fn find(&self, piece: u32, fits: impl Fn(u8) -> bool) -> Option<BlockRef> {
        let first = piece * self.blocks_per_piece();
        let found = (0..self.blocks_per_piece()).find(|at| fits(self.blocks[(first + at) as usize]));
        found.map(|at| Self::block(piece, at))
    }

    /// The next block to ask a peer for, which is not asked for it yet; it counts as asked.
    pub fn pick(&mut self, bits: &Bitfield, asked: &[BlockRef], rng: &mut Rng) -> Option<BlockRef> {
        let offered = self.offers(bits);
        let block = offered.then(|| self.pick_begun(bits).or_else(|| self.pick_rarest(bits, rng))).flatten();
        let block = block.or_else(|| self.pick_late(bits, asked))?;
        let at = self.index(block);
        self.blocks[at] += 1;
        self.note_asked(block.piece);
        Some(block)
    }

    fn pick_begun(&self, bits: &Bitfield) -> Option<BlockRef> {
        let given = self.begun.iter().filter(|&&piece| bits.get(piece));
        given.filter_map(|&piece| self.find(piece, |state| state == 0)).next()
    }

    fn pick_rarest(&mut self, bits: &Bitfield, rng: &mut Rng) -> Option<BlockRef> {
        let (mut best, mut rarest, mut ties) = (None, u32::MAX, 0);
        for piece in bits.ones().filter(|&piece| !self.have.get(piece)) {
            let rarity = self.availability[piece as usize];
            if rarity > rarest || self.begun.contains(&piece) {
                continue;
            }
            ties = if rarity < rarest { 1 } else { ties + 1 };
            rarest = rarity;
            if rng.below(ties) == 0 {
                best = Some(piece);
            }
        }
        let piece = best?;
        self.begun.push(piece);
        Some(Self::block(piece, 0))
    }

    fn pick_late(&self, bits: &Bitfield, asked: &[BlockRef]) -> Option<BlockRef> {
        let all_begun = self.begun.len() as u32 + self.have_count == self.have.len();
        if !asked.is_empty() || !all_begun {
            return None;
        }
        let given = self.begun.iter().filter(|&&piece| bits.get(piece));
        given.filter_map(|&piece| self.find(piece, |state| state > 0 && state < COPIES)).next()
    }

    /// A block that was asked for will not come.
    pub fn unask(&mut self, block: BlockRef) {
        let at = self.index(block);
        let state = &mut self.blocks[at];
        *state -= u8::from(*state > 0 && *state != GOT);
        self.note_asked(block.piece);
    }

    /// A block came.
    pub fn put(&mut self, block: BlockRef, good: bool) -> Stored {
        let (piece, at) = (block.piece, self.index(block));
        if self.blocks[at] == GOT {
            return Stored::Duplicate;
        }
        if !self.begun.contains(&piece) {
            self.begun.push(piece);
        }
        self.blocks[at] = GOT;
        self.note_asked(piece);
        self.spoilt[piece as usize] |= !good;
        if self.find(piece, |state| state != GOT).is_some() {
            return Stored::Part;
        }
        self.begun.retain(|&other| other != piece);
        if std::mem::take(&mut self.spoilt[piece as usize]) {
            let count = self.blocks_per_piece() as usize;
            let first = piece as usize * count;
            self.blocks[first..first + count].fill(0);
            self.note_asked(piece);
            return Stored::Spoilt;
        }
        self.have.set(piece);
        self.have_count += 1;
        Stored::Piece
    }
}
