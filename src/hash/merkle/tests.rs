//! Against a tree built in full, every node of it, by the words of BEP 52.

use proptest::prelude::*;

use super::*;
use crate::base::limits::HASHES_PER_REQUEST_MAX;

/// All layers of the tree over `leaves`, padding included.
fn oracle(leaves: &[Hash]) -> Vec<Vec<Hash>> {
    let mut layers = vec![leaves.to_vec()];
    layers[0].resize(leaves.len().next_power_of_two(), [0; 32]);
    while layers.last().unwrap().len() > 1 {
        let above = layers.last().unwrap().chunks(2).map(|pair| {
            use sha2::Digest;
            sha2::Sha256::digest(pair.as_flattened()).into()
        });
        layers.push(above.collect());
    }
    layers
}

fn some_leaves(count: usize) -> Vec<Hash> {
    (0..count).map(|index| leaf(&index.to_le_bytes())).collect()
}

fn shape(leaves: usize) -> Shape {
    Shape::of_file(leaves as u64 * u64::from(BLOCK_BYTES)).unwrap()
}

/// Trees whose every node is looked at.
const SMALL: std::ops::RangeInclusive<usize> = 1..=33;

#[test]
fn roots_and_all_nodes_of_small_trees_are_right() {
    for count in SMALL {
        let (leaves, layers) = (some_leaves(count), oracle(&some_leaves(count)));
        let shape = shape(count);
        assert_eq!((shape.leaves, shape.height as usize), (count as u64, layers.len() - 1));
        assert_eq!(root(&mut leaves.clone(), 0, shape.height), Some(layers[layers.len() - 1][0]));
        for base in 0..=shape.height {
            let real = shape.nodes(base) as usize;
            let tree = Tree::new(shape, base, layers[base as usize][..real].to_vec()).unwrap();
            assert_eq!(tree.root(), layers[layers.len() - 1][0]);
            for (layer, nodes) in (0..).zip(&layers) {
                for (index, node) in (0..).zip(nodes) {
                    assert_eq!(
                        tree.node(layer, index),
                        (layer >= base).then_some(*node),
                        "{count} {layer} {index}"
                    );
                    assert!(index < shape.nodes(layer) || *node == pad(layer));
                }
                assert_eq!(tree.node(layer, nodes.len() as u64), None);
            }
            assert_eq!(tree.node(shape.height + 1, 0), None);
        }
    }
}

#[test]
fn roots_of_subtrees_are_nodes() {
    for count in SMALL {
        let (leaves, layers) = (some_leaves(count), oracle(&some_leaves(count)));
        for (height, nodes) in (0..).zip(&layers) {
            let subtrees = leaves.chunks(1 << height);
            for (index, subtree) in subtrees.enumerate() {
                assert_eq!(root(&mut subtree.to_vec(), 0, height), Some(nodes[index]));
            }
        }
    }
}

#[test]
fn a_root_is_refused_over_too_many_nodes_and_too_many_layers() {
    for (nodes, layer, height, good) in [
        (0, 0, 0, true),
        (1, 0, 0, true),
        (2, 0, 0, false),
        (3, 0, 2, true),
        (4, 0, 2, true),
        (5, 0, 2, false),
        (1, 0, HEIGHT_MAX - 1, true),
        (1, 0, HEIGHT_MAX, true),
        (1, 0, HEIGHT_MAX + 1, false),
        (0, HEIGHT_MAX, 0, true),
        (0, HEIGHT_MAX, 1, false),
        (1, u32::MAX, u32::MAX, false),
        (1, 1, u32::MAX, false),
    ] {
        assert_eq!(root(&mut some_leaves(nodes), layer, height).is_some(), good, "{nodes} {layer} {height}");
    }
    assert_eq!(root(&mut [], 3, 2), Some(pad(5)));
    assert_eq!(pad(u32::MAX), pad(HEIGHT_MAX));
}

#[test]
fn the_leaf_of_a_short_block_is_of_its_real_bytes() {
    let block = BLOCK_BYTES as usize;
    let bytes: Vec<u8> = (0..5 * block).map(|at| (at / 7) as u8).collect();
    for length in [0, 1, block - 1, block, block + 1, 2 * block, 2 * block + 1, 5 * block - 1, 5 * block] {
        let mut got = Vec::new();
        push_leaves(&bytes[..length], &mut got);
        let want: Vec<Hash> = bytes[..length].chunks(block).map(leaf).collect();
        assert_eq!(got, want, "{length}");
        let blocks: Vec<&[u8]> = bytes[..length].chunks(block).collect();
        let mut out = vec![[0; 32]; blocks.len()];
        leaves(&blocks, &mut out);
        assert_eq!(out, want, "{length}");
    }
}

#[test]
fn shapes_at_the_limits() {
    let block = u64::from(BLOCK_BYTES);
    for (length, want) in [
        (0, None),
        (1, Some((1, 0))),
        (block, Some((1, 0))),
        (block + 1, Some((2, 1))),
        (2 * block + 1, Some((3, 2))),
        (TOTAL_BYTES_MAX - 1, Some((1 << HEIGHT_MAX, HEIGHT_MAX))),
        (TOTAL_BYTES_MAX, Some((1 << HEIGHT_MAX, HEIGHT_MAX))),
        (TOTAL_BYTES_MAX + 1, None),
        (u64::MAX, None),
    ] {
        assert_eq!(Shape::of_file(length).map(|shape| (shape.leaves, shape.height)), want, "{length}");
    }
    for (piece, layer) in [(0, 0), (1, 0), (16 << 10, 0), (32 << 10, 1), (1 << 20, 6), (64 << 20, 12)] {
        assert_eq!(piece_layer(piece), layer);
    }
    let shape = shape(5);
    assert_eq!((0..6).map(|layer| shape.nodes(layer)).collect::<Vec<_>>(), [5, 3, 2, 1, 0, 0]);
    assert_eq!(shape.nodes(u32::MAX), 0);
    assert_eq!(Tree::new(shape, 0, some_leaves(4)), None);
    assert_eq!(Tree::new(shape, 4, some_leaves(1)), None);
}

/// Every range that could be asked of a tree of `shape`, and some beyond it.
fn ranges(shape: Shape) -> impl Iterator<Item = HashRange> {
    let width = 1u32 << shape.height;
    let of = move |base, index, length, proof_layers| HashRange { base, index, length, proof_layers };
    (0..=shape.height + 1).flat_map(move |base| {
        (0..=width + 1).flat_map(move |index| {
            (0..=width + 1).flat_map(move |length| {
                (0..=shape.height + 1).map(move |proof| of(base, index, length, proof))
            })
        })
    })
}

#[test]
fn every_range_of_small_trees_is_answered_and_proved_or_refused() {
    for count in [1, 2, 3, 4, 5, 7, 8, 9, 11, 16] {
        let layers = oracle(&some_leaves(count));
        let shape = shape(count);
        let mut answered = 0;
        for range in ranges(shape) {
            let node = |layer: u32, index: u64| layers.get(layer as usize)?.get(index as usize).copied();
            let Some(hashes) = range.answer(shape, node) else {
                assert!(!range.fits(shape));
                assert_eq!(range.climb(shape, &vec![[0; 32]; range.length as usize]), None);
                continue;
            };
            answered += 1;
            let first = range.index as usize;
            let base = &layers[range.base as usize];
            assert_eq!(hashes[..range.length as usize], base[first..first + range.length as usize]);
            let reached = range.climb(shape, &hashes).unwrap();
            assert_eq!(Some(reached.hash), node(reached.layer, reached.index), "{count} {range:?}");
            // BEP 52: proof layers that follow from the hashes count, too; the root is none.
            let height = range.length.next_power_of_two().ilog2();
            assert_eq!(reached.layer, range.base + height.max(range.proof_layers + 1));
            if range.proof_layers + 1 == shape.height - range.base {
                assert_eq!((reached.layer, reached.index), (shape.height, 0));
            }
        }
        assert_eq!(answered > 0, count > 1);
    }
}

#[test]
fn every_wrong_hash_wrong_number_and_wrong_place_leads_elsewhere() {
    let count = 11;
    let layers = oracle(&some_leaves(count));
    let shape = shape(count);
    let node = |layer: u32, index: u64| layers.get(layer as usize)?.get(index as usize).copied();
    for range in ranges(shape) {
        let Some(hashes) = range.answer(shape, node) else { continue };
        let reached = range.climb(shape, &hashes).unwrap();
        for at in 0..hashes.len() {
            let mut wrong = hashes.clone();
            wrong[at][7] ^= 1;
            assert_ne!(range.climb(shape, &wrong).unwrap().hash, reached.hash, "{range:?} {at}");
        }
        assert_eq!(range.climb(shape, &hashes[1..]), None);
        assert_eq!(range.climb(shape, &[&hashes[..], &[[0; 32]]].concat()), None);
        let elsewhere = HashRange { index: range.index ^ range.length.next_power_of_two(), ..range };
        // Padding is the same everywhere.
        let real = u64::from(range.index.min(elsewhere.index)) < shape.nodes(range.base);
        if real && elsewhere.fits(shape) && range.hashes() > range.length as usize {
            assert_ne!(elsewhere.climb(shape, &hashes).unwrap().hash, reached.hash, "{range:?}");
        }
    }
}

#[test]
fn the_limit_on_hashes_of_a_request_is_exact() {
    let shape = Shape::of_file(1 << 40).unwrap();
    let range = |length| HashRange { base: 0, index: 0, length, proof_layers: 0 };
    for length in [HASHES_PER_REQUEST_MAX / 2, HASHES_PER_REQUEST_MAX, 2 * HASHES_PER_REQUEST_MAX] {
        assert_eq!(range(length).fits(shape), length <= HASHES_PER_REQUEST_MAX);
    }
    let all = |length: u32| Shape::of_file(u64::from(length) * u64::from(BLOCK_BYTES)).unwrap();
    for length in [HASHES_PER_REQUEST_MAX - 1, HASHES_PER_REQUEST_MAX, HASHES_PER_REQUEST_MAX + 1] {
        assert_eq!(range(length).fits(all(length)), length <= HASHES_PER_REQUEST_MAX, "{length}");
    }
}

proptest! {
    #[test]
    fn no_request_of_a_peer_panics(
        length in any::<u64>(), base in any::<u32>(), index in any::<u32>(), count in any::<u32>(),
        proof_layers in any::<u32>(), small in any::<bool>(), hashes in 0usize..5,
    ) {
        let narrow = |value: u32, to: u32| if small { value % to } else { value };
        let range = HashRange {
            base: narrow(base, 40), index: narrow(index, 64), length: narrow(count, 40),
            proof_layers: narrow(proof_layers, 40),
        };
        if let Some(shape) = Shape::of_file(length >> (length % 64)) {
            let answer = range.answer(shape, |_, _| Some([1; 32]));
            prop_assert_eq!(answer.is_some(), range.fits(shape));
            let _ = range.climb(shape, &vec![[0; 32]; hashes]);
            if let Some(hashes) = answer {
                prop_assert!(range.climb(shape, &hashes).is_some());
            }
        }
    }
}
