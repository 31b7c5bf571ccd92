use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::super::tests::{assert_hashed, tree};
use super::*;
use crate::base::geometry::Geometry;
use crate::base::units::CHUNK_BYTES;

const PIECE_BYTES: usize = 512 << 10;
const SECRET: Fingerprint = Fingerprint::new(3);

/// What `check_pieces` says of a file of 4 pieces and a half, below `dir`, of which `known` is known.
fn check(dir: &Path, length: usize, known: &[Vec<u64>]) -> BTreeMap<u32, PieceOutcome> {
    let file = super::super::SourceFile { path: "d0/f0".into(), length: length as u64, pad: false };
    let source = HashSource::new(dir, Geometry::new(length as u64, PIECE_BYTES as u32), vec![file]);
    let of_piece = |piece: u32| known.get(piece as usize).map_or(&[] as &[u64], Vec::as_slice);
    let known = Known { fingerprint: SECRET, of_piece: &of_piece };
    let method = Method { digests: Digests::Sha1, fingerprint: Some(SECRET) };
    let rest = HashOptions { threads: Some(2), method };
    let mut outcomes = BTreeMap::new();
    let done =
        check_pieces(&source, 0..source.job.geometry.piece_count(), &known, &rest, &mut |piece, outcome| {
            assert!(outcomes.insert(piece, outcome).is_none(), "piece {piece} twice");
            ControlFlow::Continue(())
        });
    assert!(done.unwrap());
    outcomes
}

fn prints(payload: &[u8], secret: Fingerprint) -> Vec<Vec<u64>> {
    let of_piece = |piece: &[u8]| piece.chunks(CHUNK_BYTES as usize).map(|chunk| secret.of(chunk)).collect();
    payload.chunks(PIECE_BYTES).map(of_piece).collect()
}

const LENGTH: usize = 4 * PIECE_BYTES + PIECE_BYTES / 2 + 7;

#[test]
fn pieces_with_the_known_fingerprints_are_not_hashed() {
    let (dir, _, payload) = tree(&[LENGTH as u64]);
    let known = prints(&payload, SECRET);
    let outcomes = check(dir.path(), LENGTH, &known);
    assert_eq!(outcomes.len(), 5);
    for (outcome, known) in outcomes.values().zip(&known) {
        let PieceOutcome::Fingerprinted { fingerprints } = outcome else { panic!("{outcome:?}") };
        assert_eq!(fingerprints, known);
    }
}

#[test]
fn what_is_not_known_or_does_not_fit_is_hashed() {
    let (dir, _, mut payload) = tree(&[LENGTH as u64]);
    let mut known = prints(&payload, SECRET);
    // Nothing known, a chunk not known, one chunk too few, and damage in the second chunk of the last piece.
    known[0].clear();
    known[1][1] = 0;
    known[2].pop();
    let damaged = 4 * PIECE_BYTES + CHUNK_BYTES as usize;
    payload[damaged] ^= 1;
    fs::write(dir.path().join("d0/f0"), &payload).unwrap();
    let outcomes = check(dir.path(), LENGTH, &known);
    for (piece, bytes) in payload.chunks(PIECE_BYTES).enumerate() {
        match &outcomes[&(piece as u32)] {
            PieceOutcome::Fingerprinted { .. } => assert_eq!(piece, 3),
            outcome => assert_hashed(outcome, bytes),
        }
    }
    assert!(matches!(outcomes[&3], PieceOutcome::Fingerprinted { .. }));
}

#[test]
fn fingerprints_under_another_secret_settle_nothing() {
    let (dir, _, payload) = tree(&[LENGTH as u64]);
    let outcomes = check(dir.path(), LENGTH, &prints(&payload, Fingerprint::new(4)));
    for (outcome, bytes) in outcomes.values().zip(payload.chunks(PIECE_BYTES)) {
        assert_hashed(outcome, bytes);
    }
}

#[test]
fn a_truncated_file_has_lost_its_last_piece_whatever_is_known() {
    let (dir, _, payload) = tree(&[LENGTH as u64]);
    let known = prints(&payload, SECRET);
    let file = fs::OpenOptions::new().write(true).open(dir.path().join("d0/f0")).unwrap();
    file.set_len(LENGTH as u64 - 1).unwrap();
    let outcomes = check(dir.path(), LENGTH, &known);
    assert!(matches!(outcomes[&4], PieceOutcome::Absent { file: 0 }), "{:?}", outcomes[&4]);
    assert!((0..4).all(|piece| matches!(outcomes[&piece], PieceOutcome::Fingerprinted { .. })));
}

#[test]
fn breaking_off_among_the_known_ends_before_the_rest() {
    let (dir, files, payload) = tree(&[LENGTH as u64]);
    let source = HashSource::new(dir.path(), Geometry::new(LENGTH as u64, PIECE_BYTES as u32), files);
    let mut known = prints(&payload, SECRET);
    known[0].clear();
    let of_piece = |piece: u32| known[piece as usize].as_slice();
    let known = Known { fingerprint: SECRET, of_piece: &of_piece };
    let mut calls = 0;
    let done = check_pieces(&source, 0..5, &known, &HashOptions::default(), &mut |piece, _| {
        calls += 1;
        assert_ne!(piece, 0);
        ControlFlow::Break(())
    });
    assert!(!done.unwrap());
    assert_eq!(calls, 1);
}
