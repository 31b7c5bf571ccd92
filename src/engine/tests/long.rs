//! Pieces of several chunks: of whom the rest of one is asked that was begun.

use super::*;
use crate::base::priority::Priority::{self, High, Low, Normal};
use crate::base::units::{BLOCKS_PER_CHUNK, CHUNK_BYTES};
use crate::storage::wanted::Wanted;

/// Chunks of a piece.
const CHUNKS: u32 = 2;

/// A torrent of such pieces, one file each. One peer has the first piece, and was asked for its first chunk.
struct Begun {
    rig: Rig,
    other: ConnId,
}

impl Begun {
    fn new(wanted: &[Priority], sequential: bool) -> Self {
        let (pieces, piece_bytes) = (wanted.len() as u32, CHUNKS * CHUNK_BYTES);
        let geometry = Geometry::new(u64::from(pieces) * u64::from(piece_bytes), piece_bytes);
        let layout = Layout::new(wanted.iter().map(|_| FileSpan { length: piece_bytes.into(), pad: false }));
        let wanted = Some(Arc::new(Wanted::new(&layout, geometry, wanted)));
        let meta = TorrentMeta {
            info: Default::default(),
            trees: None,
            v2_hash: None,
            id: TorrentId(0),
            info_hash: HASH,
            geometry,
            piece_hashes: vec![[0; 20]; pieces as usize].into(),
            layout,
            private: false,
        };
        let (have, limits) = (Bitfield::new(pieces), TorrentLimits::default());
        let shared = SharedTorrent::with_wanted(meta, &have, 1, limits, wanted);
        let mut rig = Rig::of(shared, sequential, Default::default());
        let other = rig.peer(true);
        rig.say(other, Message::Have(0)).unwrap();
        rig.say(other, Message::Unchoke).unwrap();
        let asked = rig.asked(other);
        assert_eq!(asked.len() as u32, BLOCKS_PER_CHUNK, "{asked:?}");
        assert!(asked.iter().all(|block| block.piece == 0 && block.begin < CHUNK_BYTES), "{asked:?}");
        Self { rig, other }
    }

    /// A seed comes, and gives all that it is asked for: the pieces in the order in which it is asked.
    fn fetch_from_seed(&mut self) -> Vec<u32> {
        let rig = &mut self.rig;
        let seed = rig.seed();
        let (mut order, mut asked) = (Vec::new(), VecDeque::from(rig.asked(seed)));
        while let Some(block) = asked.pop_front() {
            order.push(block.piece);
            if let Ok(Landing::Into(place)) = rig.engine.handle_piece_header(seed, block) {
                rig.engine.handle_block(seed, place.chunk, place.index, rig.now);
            }
            asked.extend(rig.asked(seed));
        }
        order.dedup();
        order
    }
}

#[test]
fn a_seed_is_asked_last_for_the_rest_of_a_piece_that_others_have() {
    let order = Begun::new(&[Normal; 4], false).fetch_from_seed();
    assert_eq!(order.len(), 4, "one piece after the other: {order:?}");
    assert_eq!(order[3], 0, "{order:?}");
}

#[test]
fn a_seed_is_asked_first_for_the_rest_of_a_piece_that_nobody_else_has() {
    let mut begun = Begun::new(&[Normal; 4], false);
    begun.rig.engine.handle_gone(begun.other);
    assert_eq!(begun.rig.shared.givers.of(0), 0);
    assert_eq!(begun.fetch_from_seed()[0], 0);
}

#[test]
fn order_and_priority_go_before_what_only_seeds_have() {
    let first_two = |wanted: &[Priority], sequential| {
        let order = Begun::new(wanted, sequential).fetch_from_seed();
        [order[0], order[1]]
    };
    assert_eq!(first_two(&[Normal; 4], true), [0, 1]);
    assert_eq!(first_two(&[Normal, Low], false), [0, 1]);
    assert_eq!(first_two(&[Low, Normal], false), [1, 0]);
    assert_eq!(first_two(&[Normal, High], false), [1, 0]);
}

#[test]
fn a_seed_is_asked_for_the_rest_while_no_piece_can_be_begun() {
    let mut begun = Begun::new(&[Normal; 4], false);
    let cache = &begun.rig.engine.cache;
    while cache.reserve(1) {}
    assert_eq!(begun.fetch_from_seed()[0], 0);
}
