//! The generator against the source, over loopback, in one process.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::*;
use crate::base::rng::Rng;
use crate::base::time::Span;
use crate::hash::merkle;
use crate::hash::sha1::digest;
use crate::proto::metainfo::{FileEntry, FileHashes, MetainfoBuilder, V2Builder, aligned};

/// A torrent of two files with a payload that its hashes fit, and a short last piece.
fn torrent(dir: &Path) -> Metainfo {
    let mut rng = Rng::new(3);
    let bytes: Vec<u8> = (0..1_000_003).map(|_| rng.next_u64() as u8).collect();
    let (first, second) = bytes.split_at(70_001);
    std::fs::create_dir(dir.join("two")).expect("directory");
    std::fs::write(dir.join("two/a"), first).expect("payload");
    std::fs::write(dir.join("two/b"), second).expect("payload");
    let hashes: Vec<u8> = bytes.chunks(32 << 10).flat_map(digest).collect();
    let mut text = format!(
        "d4:infod5:filesld6:lengthi{}e4:pathl1:aeed6:lengthi{}e4:pathl1:beee4:name3:two\
         12:piece lengthi32768e6:pieces{}:",
        first.len(),
        second.len(),
        hashes.len()
    )
    .into_bytes();
    text.extend(hashes);
    text.extend(b"ee");
    Metainfo::parse(&text).expect("a good torrent")
}

/// The same files as v2 knows them, or, with `v1`, as both do (BEP 52).
fn of_two_versions(dir: &Path, v1: bool) -> Metainfo {
    const PIECE_BYTES: u32 = 32 << 10;
    let names = ["a", "b"];
    let bytes = names.map(|name| std::fs::read(dir.join("two").join(name)).expect("payload"));
    let entry = |(name, bytes): (&str, &Vec<u8>)| FileEntry {
        path: vec!["two".to_owned(), name.to_owned()],
        length: bytes.len() as u64,
        pad: false,
    };
    let files: Vec<FileEntry> = names.into_iter().zip(&bytes).map(entry).collect();
    let root = |length: usize, piece: &[u8]| {
        let mut leaves = Vec::new();
        merkle::push_leaves(piece, &mut leaves);
        FileHashes::piece_root(length as u64, PIECE_BYTES, &mut leaves).expect("a piece")
    };
    let hashes = bytes.iter().map(|bytes| {
        let roots = bytes.chunks(PIECE_BYTES as usize).map(|piece| root(bytes.len(), piece)).collect();
        FileHashes::new(bytes.len() as u64, PIECE_BYTES, roots)
    });
    let (mut payload, mut contents) = (Vec::new(), bytes.iter());
    for file in aligned("two", &files, PIECE_BYTES) {
        let content = (!file.pad).then(|| contents.next().expect("a file").clone());
        payload.extend(content.unwrap_or_else(|| vec![0; file.length as usize]));
    }
    let pieces = payload.chunks(PIECE_BYTES as usize).map(digest);
    let common = MetainfoBuilder {
        name: "two".to_owned(),
        files: files.clone(),
        piece_bytes: PIECE_BYTES,
        piece_hashes: if v1 { pieces.collect() } else { Vec::new() },
        trackers: Vec::new(),
        web_seeds: Vec::new(),
        private: false,
        comment: None,
        created_by: None,
        creation_date: None,
    };
    V2Builder { common, hashes: hashes.collect() }.build().expect("a good torrent").1
}

fn plan(seeder: SocketAddr) -> leech::Plan {
    leech::Plan {
        seeder,
        connections: 5,
        depth: 7,
        window: Duration::from_secs(60),
        bytes_max: 20_000_000,
        pid: Some(std::process::id()),
        spread: true,
        seed: 11,
    }
}

/// Serves `payload` while `work` runs.
fn with_source<T: Send>(
    metainfo: &Metainfo,
    payload: payload::Payload,
    work: impl FnOnce(SocketAddr) -> T + Send,
) -> T {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let manner = seed::Manner::default();
    let mut source = seed::Source::bind(&[listen], metainfo, payload, manner).expect("a free port");
    let addr = source.local_addrs()[0];
    std::thread::scope(|scope| {
        let working = scope.spawn(move || work(addr));
        while !working.is_finished() {
            source.turn(Some(Span::from_ms(10)));
        }
        working.join().expect("the work did not panic")
    })
}

#[test]
fn a_generator_fetches_right_bytes_from_a_source() {
    let temp = tempfile::tempdir().expect("temporary directory");
    let metainfo = torrent(temp.path());
    let payload = payload::Payload::read(&metainfo, temp.path()).expect("the payload fits");
    let report =
        with_source(&metainfo, payload, |addr| leech::run(&plan(addr), &metainfo)).expect("a report");
    let json = report.json();
    assert!(report.verdict().is_ok(), "{json}");
    assert_eq!((json["connections_served"].as_u64(), json["connections_ended"].as_u64()), (Some(5), Some(0)));
    // Each connection checks its first piece, and later ones: 20 MB are several rounds of 31 pieces.
    assert!(json["pieces_checked"].as_u64() > Some(5), "{json}");
    assert_eq!(json["pieces_bad"].as_u64(), Some(0), "{json}");
    assert_eq!(json["blocks_unasked"].as_u64(), Some(0), "{json}");
    assert!(json["bytes"].as_u64() >= Some(20_000_000), "{json}");
    assert!(report.to_string().contains("Jain index"), "{report}");
}

#[test]
fn a_seeder_of_wrong_bytes_is_found_out() {
    let temp = tempfile::tempdir().expect("temporary directory");
    let metainfo = torrent(temp.path());
    let payload = payload::Payload::read(&metainfo, temp.path()).expect("the payload fits");
    let mut lied_to = metainfo.clone();
    let mut wrong = lied_to.piece_hashes.to_vec();
    wrong.iter_mut().for_each(|hash| hash[0] ^= 1);
    lied_to.piece_hashes = wrong.into();
    let report = with_source(&metainfo, payload, |addr| leech::run(&plan(addr), &lied_to)).expect("a report");
    let error = report.verdict().expect_err("every checked piece is bad").to_string();
    assert!(error.contains("checked pieces differ"), "{error}");
    assert_eq!(report.json()["pieces_bad"], report.json()["pieces_checked"]);
}

#[test]
fn torrents_of_v2_and_of_both_versions_are_served_fetched_and_checked() {
    let temp = tempfile::tempdir().expect("temporary directory");
    torrent(temp.path());
    for v1 in [false, true] {
        let metainfo = of_two_versions(temp.path(), v1);
        // The same pieces by name, and others by the hashes of v2.
        let mut lied_to = metainfo.clone();
        let v2 = lied_to.v2.as_mut().expect("a v2 part");
        v2.files.iter_mut().flat_map(|file| &mut file.layer).for_each(|root| root[0] ^= 1);
        for (believed, right) in [(&metainfo, true), (&lied_to, false)] {
            let payload = payload::Payload::read(&metainfo, temp.path()).expect("the payload fits");
            let report = with_source(&metainfo, payload, |addr| leech::run(&plan(addr), believed));
            let report = report.expect("a report");
            let json = report.json();
            assert!(json["pieces_checked"].as_u64() > Some(5), "{json}");
            assert_eq!(report.verdict().is_ok(), right, "{json}");
        }
        assert!(payload::Payload::read(&lied_to, temp.path()).is_err());
    }
}

fn storm_plan(seeder: SocketAddr, hold: bool) -> storm::Plan {
    let window = if hold { Duration::from_millis(1) } else { Duration::from_secs(60) };
    let (count_max, pid) = (500, Some(std::process::id()));
    storm::Plan { seeder, connections: 40, rate: None, window, count_max, hold, pid }
}

#[test]
fn a_storm_counts_answered_handshakes_and_holds_what_it_is_told_to() {
    let temp = tempfile::tempdir().expect("temporary directory");
    let metainfo = torrent(temp.path());
    for hold in [true, false] {
        let payload = payload::Payload::read(&metainfo, temp.path()).expect("the payload fits");
        let report =
            with_source(&metainfo, payload, |addr| storm::run(&storm_plan(addr, hold), metainfo.info_hash));
        let report = report.expect("a report");
        let json = report.json();
        assert!(report.verdict().is_ok(), "{json}");
        assert_eq!(json["failures"], 0, "{json}");
        if hold {
            assert_eq!((&json["opened"], &json["held"]), (&40.into(), &40.into()), "{json}");
            assert!(json["resident_bytes_per_held"].is_i64(), "{json}");
        } else {
            assert_eq!(json["held"], 0, "{json}");
            assert!(json["handshakes"].as_u64() >= Some(500), "{json}");
        }
        assert_eq!(report.to_string().contains("kernel slab"), hold, "{report}");
    }
}

#[test]
fn a_storm_on_a_seeder_that_refuses_says_why() {
    let temp = tempfile::tempdir().expect("temporary directory");
    let metainfo = torrent(temp.path());
    let payload = payload::Payload::read(&metainfo, temp.path()).expect("the payload fits");
    let mut other = metainfo.info_hash;
    other.0[0] ^= 1;
    let report = with_source(&metainfo, payload, |addr| storm::run(&storm_plan(addr, true), other));
    let report = report.expect("a report");
    let error = report.verdict().expect_err("nobody answers").to_string();
    assert!(error.starts_with("no handshake was answered: "), "{error}");
    assert_eq!(report.json()["failures"], 40);
}

#[test]
fn another_torrent_is_refused_by_the_source() {
    let temp = tempfile::tempdir().expect("temporary directory");
    let metainfo = torrent(temp.path());
    let payload = payload::Payload::read(&metainfo, temp.path()).expect("the payload fits");
    let mut other = metainfo.clone();
    other.info_hash.0[0] ^= 1;
    let report = with_source(&metainfo, payload, |addr| leech::run(&plan(addr), &other)).expect("a report");
    let error = report.verdict().expect_err("nothing can be served").to_string();
    assert!(error.contains("served nothing: the seeder closed"), "{error}");
}

#[test]
fn a_payload_that_does_not_fit_is_refused_with_its_place() {
    let temp = tempfile::tempdir().expect("temporary directory");
    let metainfo = torrent(temp.path());
    let file = temp.path().join("two/b");
    let refusal = |bytes: Vec<u8>| {
        std::fs::write(&file, bytes).expect("payload");
        payload::Payload::read(&metainfo, temp.path()).expect_err("not the payload").to_string()
    };
    let right = std::fs::read(&file).expect("payload");
    assert!(refusal(right[1..].to_vec()).contains("two/b: not 930002 bytes long"));
    assert!(refusal([&right[..], b"x"].concat()).contains("two/b: not 930002 bytes long"));
    let mut wrong = right;
    wrong[930_001] ^= 1;
    assert!(refusal(wrong).contains("piece 30 differs from its hash"));
}

#[test]
fn only_loopback_is_loaded_unless_told_twice() {
    for (addr, local) in [
        ("127.0.0.1:1", true),
        ("127.9.9.9:1", true),
        ("[::1]:1", true),
        ("[::ffff:127.0.0.1]:1", true),
        ("10.0.0.1:1", false),
        ("0.0.0.0:1", false),
        ("[::]:1", false),
        ("[2001:db8::1]:1", false),
    ] {
        let addr: SocketAddr = addr.parse().expect("an address");
        assert_eq!(check_local(addr, false).is_ok(), local, "{addr}");
        assert!(check_local(addr, true).is_ok());
    }
}
