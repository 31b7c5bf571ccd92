use std::collections::BTreeMap;
use std::fs;

use super::*;
use crate::base::rng::Rng;
use crate::base::units::CHUNK_BYTES;
use crate::hash::fingerprint::Fingerprint;
use crate::hash::sha1;

/// Files of `lengths` with bytes from a seed below a fresh directory, and their bytes end to end.
pub(super) fn tree(lengths: &[u64]) -> (tempfile::TempDir, Vec<SourceFile>, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let mut rng = Rng::new(7);
    let (mut files, mut payload) = (Vec::new(), Vec::new());
    for (index, &length) in lengths.iter().enumerate() {
        let path = PathBuf::from(format!("d{}/f{index}", index % 2));
        let bytes: Vec<u8> = (0..length).map(|_| rng.next_u64() as u8).collect();
        fs::create_dir_all(dir.path().join(path.parent().unwrap())).unwrap();
        fs::write(dir.path().join(&path), &bytes).unwrap();
        payload.extend(bytes);
        files.push(SourceFile { path, length, pad: false });
    }
    (dir, files, payload)
}

fn digest_all(source: &HashSource, threads: usize) -> BTreeMap<u32, PieceOutcome> {
    let method = Method { digests: Digests::Sha1, fingerprint: Some(Fingerprint::new(3)) };
    digest_by(source, threads, method)
}

fn digest_by(source: &HashSource, threads: usize, method: Method) -> BTreeMap<u32, PieceOutcome> {
    let options = HashOptions { threads: Some(threads), method };
    let mut outcomes = BTreeMap::new();
    let done = hash_pieces(source, 0..u32::MAX >> 8, &options, &mut |piece, outcome| {
        assert!(outcomes.insert(piece, outcome).is_none(), "piece {piece} twice");
        ControlFlow::Continue(())
    });
    assert!(done.unwrap());
    outcomes
}

pub(super) fn assert_hashed(outcome: &PieceOutcome, bytes: &[u8]) {
    let PieceOutcome::Hashed { digest, fingerprints } = outcome else { panic!("{outcome:?}") };
    let want: Vec<u64> =
        bytes.chunks(CHUNK_BYTES as usize).map(|chunk| Fingerprint::new(3).of(chunk)).collect();
    let digest_wanted = PieceDigest { sha1: Some(sha1::digest(bytes)), leaves: Vec::new() };
    assert_eq!((digest, fingerprints), (&digest_wanted, &want));
}

#[test]
fn digests_equal_those_of_the_whole_payload_in_any_shape() {
    for (lengths, piece_bytes) in [
        (&[5_000_000u64][..], 16 << 10),
        (&[5_000_000], 1 << 20),
        (&[9_999_999], 4 << 20),
        (&[0, 1, 0, 4096, 4095, 300_001, 0, 2_500_000, 17, 0], 32 << 10),
        (&[1_048_577, 1_048_575, 3_000_003], 2 << 20),
        (&[1], 64 << 10),
        (&[0], 64 << 10),
    ] {
        let (dir, files, payload) = tree(lengths);
        let geometry = Geometry::new(payload.len() as u64, piece_bytes);
        let source = HashSource::new(dir.path(), geometry, files);
        for threads in [1, 3] {
            let outcomes = digest_all(&source, threads);
            assert_eq!(outcomes.len(), geometry.piece_count() as usize);
            for (outcome, bytes) in outcomes.values().zip(payload.chunks(piece_bytes as usize)) {
                assert_hashed(outcome, bytes);
            }
        }
    }
}

/// Whether the page cache has the first byte of a file; `None` where the file system does not tell. To
/// be asked once: the question has the kernel read ahead.
fn is_cached(path: &Path) -> Option<bool> {
    let file = fs::File::open(path).unwrap();
    let mut byte = [0];
    let mut into = [io::IoSliceMut::new(&mut byte)];
    match rustix::io::preadv2(&file, &mut into, 0, rustix::io::ReadWriteFlags::NOWAIT) {
        Ok(_) => Some(true),
        Err(rustix::io::Errno::AGAIN) => Some(false),
        Err(_) => None,
    }
}

/// Writes a file to the disk and has the page cache forget it.
fn forget(path: &Path) {
    let file = fs::File::open(path).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
}

/// Threat S11: a failed sync leaves in the page cache what the disk never got.
#[test]
fn s11_units_of_several_files_are_read_from_the_disk_too() {
    let (dir, files, payload) = tree(&[300_001, 5, 70_000, 4096, 200_000]);
    let (other_dir, other_files, _) = tree(&[300_000, 300_000]);
    let probe = other_dir.path().join(&other_files[1].path);
    forget(&probe);
    if is_cached(&probe) != Some(false) {
        return; // A file system in memory, which loses nothing by a sync.
    }
    let paths: Vec<PathBuf> = files.iter().map(|file| dir.path().join(&file.path)).collect();
    paths.iter().for_each(|path| forget(path));
    let source = HashSource::new(dir.path(), Geometry::new(payload.len() as u64, 1 << 20), files);
    assert_hashed(&digest_all(&source, 1)[&0], &payload);
    for path in &paths {
        assert_eq!(is_cached(path), Some(false), "{} was read through the page cache", path.display());
    }

    // Where direct reads are refused, what was read before is not believed either.
    let cached = other_dir.path().join(&other_files[0].path);
    forget(&cached);
    fs::read(&cached).unwrap();
    let job = Arc::new(Job::new(Geometry::new(600_000, 1 << 20), other_files));
    let anchor = source::open_dir(other_dir.path()).unwrap();
    let opened = source::Files::new(anchor, job, source::Backend::Plain);
    opened.get(0).unwrap().forget_cached(100, 300_000 - 100);
    assert_eq!(is_cached(&cached), Some(false));
}

#[test]
fn padding_is_zero_bytes_that_nobody_stored() {
    let (dir, mut files, mut payload) = tree(&[100_000, 31_072, 50_000]);
    fs::remove_file(dir.path().join(&files[1].path)).unwrap();
    files[1].pad = true;
    payload[100_000..131_072].fill(0);
    let source = HashSource::new(dir.path(), Geometry::new(181_072, 64 << 10), files);
    for (outcome, bytes) in digest_all(&source, 2).values().zip(payload.chunks(64 << 10)) {
        assert_hashed(outcome, bytes);
    }
    assert_eq!(source.files_of_piece(1), [0]);
    assert_eq!(source.files_of_piece(2), [2]);
}

#[test]
fn missing_and_short_files_lose_their_own_pieces_only() {
    for piece_bytes in [16 << 10, 1 << 20, 2 << 20] {
        let (dir, files, payload) = tree(&[3_000_000, 200_000, 3_000_000, 3_000_000]);
        fs::remove_file(dir.path().join(&files[1].path)).unwrap();
        let short = fs::OpenOptions::new().write(true).open(dir.path().join(&files[3].path)).unwrap();
        short.set_len(2_999_999).unwrap();
        let geometry = Geometry::new(payload.len() as u64, piece_bytes);
        let source = HashSource::new(dir.path(), geometry, files);
        let last = geometry.piece_count() - 1;
        for (piece, outcome) in digest_all(&source, 2) {
            let touched = source.files_of_piece(piece);
            match outcome {
                PieceOutcome::Absent { file: 1 } => assert!(touched.contains(&1), "{piece}"),
                PieceOutcome::Absent { file: 3 } => assert_eq!(piece, last),
                outcome => {
                    assert!(!touched.contains(&1) && piece != last, "{piece}");
                    let start = geometry.piece_start(piece) as usize;
                    assert_hashed(&outcome, &payload[start..start + geometry.piece_len(piece) as usize]);
                }
            }
        }
    }
}

#[test]
fn t18_t19_links_and_special_files_are_refused_not_followed() {
    let (dir, files, payload) = tree(&[40_000, 40_000, 40_000, 40_000]);
    let path = |index: usize| dir.path().join(&files[index].path);
    let outside = tempfile::NamedTempFile::new().unwrap();
    fs::write(outside.path(), &payload[..40_000]).unwrap();
    fs::remove_file(path(0)).unwrap();
    std::os::unix::fs::symlink(outside.path(), path(0)).unwrap();
    fs::remove_file(path(1)).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        path(1),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    fs::remove_file(path(2)).unwrap();
    fs::create_dir(path(2)).unwrap();
    let source = HashSource::new(dir.path(), Geometry::new(160_000, 16 << 10), files.clone());
    let outcomes = digest_all(&source, 2);
    for (piece, why) in [(0, "symbolic link"), (3, "not a regular file"), (6, "not a regular file")] {
        let PieceOutcome::Failed(error) = &outcomes[&piece] else { panic!("{:?}", outcomes[&piece]) };
        assert!(error.to_string().contains(why), "{error}");
    }
    assert_hashed(&outcomes[&9], &payload[9 << 14..]);
}

#[test]
fn breaking_off_ends_early_and_says_so() {
    let (dir, files, payload) = tree(&[4_000_000]);
    let source = HashSource::new(dir.path(), Geometry::new(payload.len() as u64, 16 << 10), files);
    let mut calls = 0;
    let done = hash_pieces(&source, 0..1000, &HashOptions::default(), &mut |_, _| {
        calls += 1;
        ControlFlow::Break(())
    });
    assert!(!done.unwrap());
    assert_eq!(calls, 1);
}

#[test]
fn as_many_threads_as_pieces_and_the_limit_allow() {
    assert_eq!(threads_for(5, 0), 1);
    assert_eq!(threads_for(5, 3), 3);
    for (wanted, threads) in [
        (HASH_THREADS_MAX - 1, HASH_THREADS_MAX - 1),
        (HASH_THREADS_MAX, HASH_THREADS_MAX),
        (HASH_THREADS_MAX + 1, HASH_THREADS_MAX),
    ] {
        assert_eq!(threads_for(wanted, 1000), threads);
        assert!(buffers_for(threads) * read::BUFFER_BYTES <= HASH_BUFFERS_BYTES_MAX);
    }
}

/// Around what is read, what is hashed side by side, and what a fingerprint covers at once.
#[test]
fn pieces_of_all_lengths_end_right_in_every_lane() {
    for piece_bytes in [16 << 10, 48 << 10, 240 << 10, 256 << 10, 272 << 10, 1 << 20, (1 << 20) + (16 << 10)]
    {
        for pieces in [1, 3, 4, 5, 8, 9] {
            for more in [-1, 0, 1] {
                let (dir, files, payload) = tree(&[(pieces * i64::from(piece_bytes) + more) as u64]);
                let geometry = Geometry::new(payload.len() as u64, piece_bytes as u32);
                let source = HashSource::new(dir.path(), geometry, files);
                let outcomes = digest_all(&source, 2);
                assert_eq!(outcomes.len(), geometry.piece_count() as usize);
                for (outcome, bytes) in outcomes.values().zip(payload.chunks(piece_bytes as usize)) {
                    assert_hashed(outcome, bytes);
                }
            }
        }
    }
}

/// Also in the second read of a piece, whose lane then goes on with the next piece.
#[test]
fn what_one_lane_loses_no_other_lane_notices() {
    const PIECE_BYTES: u64 = 2 << 20;
    for hurt in 0..LANES as u64 {
        for end in [0, 5, (1 << 20) + 5] {
            let (dir, files, payload) = tree(&[PIECE_BYTES; 6]);
            let path = dir.path().join(&files[hurt as usize].path);
            match end {
                0 => fs::remove_file(path).unwrap(),
                _ => fs::OpenOptions::new().write(true).open(path).unwrap().set_len(end).unwrap(),
            }
            let source =
                HashSource::new(dir.path(), Geometry::new(6 * PIECE_BYTES, PIECE_BYTES as u32), files);
            let outcomes = digest_all(&source, 1);
            assert_eq!(outcomes.len(), 6);
            for ((piece, outcome), bytes) in outcomes.iter().zip(payload.chunks(PIECE_BYTES as usize)) {
                match outcome {
                    PieceOutcome::Absent { file } => {
                        assert_eq!((u64::from(*piece), *file as u64), (hurt, hurt))
                    }
                    outcome => assert_hashed(outcome, bytes),
                }
            }
        }
    }
}

#[test]
fn a_missing_directory_is_an_error_with_its_name() {
    let source = HashSource::new(Path::new("/nonexistent/payload"), Geometry::new(1, 16 << 10), Vec::new());
    let error = hash_pieces(&source, 0..1, &HashOptions::default(), &mut |_, _| ControlFlow::Continue(()));
    assert!(error.unwrap_err().to_string().contains("/nonexistent/payload"));
}

/// As in torrents of version 2: each file begins at a piece, with padding before it.
fn aligned(lengths: &[u64], piece_bytes: u32) -> (tempfile::TempDir, Vec<SourceFile>, Vec<Vec<u8>>) {
    let (dir, files, payload) = tree(lengths);
    let (mut sources, mut pieces) = (Vec::new(), Vec::new());
    let mut rest = &payload[..];
    for file in files {
        let (bytes, after) = rest.split_at(file.length as usize);
        rest = after;
        pieces.extend(bytes.chunks(piece_bytes as usize).map(<[u8]>::to_vec));
        let over = file.length.next_multiple_of(piece_bytes.into()) - file.length;
        sources.push(file);
        if over > 0 {
            sources.push(SourceFile { path: PathBuf::new(), length: over, pad: true });
        }
    }
    (dir, sources, pieces)
}

#[test]
fn leaves_are_of_real_bytes_and_sha1_of_the_padding_too() {
    for piece_bytes in [16 << 10, 256 << 10, 2 << 20] {
        let lengths = [1, 0, 16_384, 16_385, 300_001, 2_097_153, 0, 7];
        let (dir, sources, pieces) = aligned(&lengths, piece_bytes);
        let total = sources.iter().map(|source| source.length).sum();
        let source = HashSource::new(dir.path(), Geometry::new(total, piece_bytes), sources);
        for (digests, has_sha1, has_leaves) in
            [(Digests::Leaves, false, true), (Digests::Both, true, true), (Digests::Sha1, true, false)]
        {
            let outcomes = digest_by(&source, 2, Method { digests, fingerprint: None });
            assert_eq!(outcomes.len(), pieces.len());
            for (outcome, bytes) in outcomes.into_values().zip(&pieces) {
                let PieceOutcome::Hashed { digest, fingerprints } = outcome else { panic!("{outcome:?}") };
                let leaves = bytes.chunks(16 << 10).map(crate::hash::merkle::leaf);
                assert_eq!(digest.leaves, if has_leaves { leaves.collect() } else { Vec::new() });
                let mut padded = bytes.clone();
                padded.resize(piece_bytes as usize, 0);
                assert_eq!(digest.sha1, has_sha1.then(|| sha1::digest(&padded)));
                assert!(fingerprints.is_empty());
            }
        }
    }
}
