//! The small steps that every block pays for, one benchmark each: `cargo bench --bench micro`.
//!
//! Absolute times on a shared machine say little; compare two runs side by side.

#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

use troc::base::bitfield::Bitfield;
use troc::base::geometry::{BlockRef, Geometry};
use troc::base::ids::{ConnId, CoreId, InfoHash, PeerId, SlotId, TorrentId};
use troc::base::slots::Slots;
use troc::base::time::Instant;
use troc::base::units::{BLOCK_BYTES, CHUNK_BYTES};
use troc::engine::action::Action;
use troc::engine::{Engine, EngineConfig};
use troc::hash::fingerprint::Fingerprint;
use troc::hash::sha1;
use troc::proto::wire::handshake::Handshake;
use troc::proto::wire::message::{Message, next_frame};
use troc::shared::cache::Cache;
use troc::shared::chunks::ChunkTable;
use troc::shared::torrent::{SharedTorrent, TorrentMeta};

use troc::storage::journal::{Record, Subject, Writer};
use troc::storage::layout::{FileSpan, Layout};

const TORRENT: TorrentId = TorrentId(0);
const CONN: ConnId = ConnId { index: 0, generation: 0 };
const NOW: Instant = Instant(1_000_000_000);
const PIECES: u32 = 1024;

fn codec(criterion: &mut Criterion) {
    let mut wire = Vec::new();
    for index in 0..240 {
        let begin = index % 64 * BLOCK_BYTES;
        Message::Request(BlockRef { piece: index / 64, begin, length: BLOCK_BYTES }).encode(&mut wire);
    }
    let mut group = criterion.benchmark_group("codec");
    group.throughput(Throughput::Elements(240));
    group.bench_function("next_frame/240 requests", |bencher| {
        bencher.iter(|| {
            let mut left = black_box(wire.as_slice());
            while let Some((frame, used)) = next_frame(left, 128).expect("well formed") {
                black_box(frame);
                left = &left[used..];
            }
        });
    });
    group.finish();
}

/// An engine with one peer that has everything and unchokes us; all pieces verified if `seeding`.
fn engine(seeding: bool) -> (Engine, Arc<SharedTorrent>) {
    let geometry = Geometry::new(u64::from(PIECES) * u64::from(CHUNK_BYTES), CHUNK_BYTES);
    let meta = TorrentMeta {
        id: TORRENT,
        info_hash: InfoHash([7; 20]),
        geometry,
        piece_hashes: vec![[0; 20]; PIECES as usize],
        layout: Layout::new([FileSpan { length: geometry.total_bytes, pad: false }].into_iter()),
        private: false,
    };
    let have = if seeding { Bitfield::full(PIECES) } else { Bitfield::new(PIECES) };
    let shared = SharedTorrent::new(meta, &have, 1);
    let config = EngineConfig {
        core: CoreId(0),
        cores: 1,
        peer_id: PeerId([1; 20]),
        listen_port: None,
        sequential: false,
        seed: 1,
        secret: 1,
        upload: None,
        download: None,
    };
    let mut engine = Engine::new(config, Arc::new(Cache::new(2 * PIECES)), NOW);
    engine.handle_torrent(Arc::clone(&shared));
    engine.handle_accepted(CONN, ([127, 0, 0, 1], 1).into(), NOW);
    engine.handle_handshake(CONN, &Handshake::new(InfoHash([7; 20]), PeerId([2; 20])), NOW);
    (engine, shared)
}

fn picker(criterion: &mut Criterion) {
    let bits = Bitfield::full(PIECES);
    criterion.bench_function("picker/claim and ask 16 blocks of 1024 pieces", |bencher| {
        bencher.iter_batched_ref(
            || {
                let (mut engine, _) = engine(false);
                engine.handle_message(CONN, Message::Bitfield(bits.as_bytes()), NOW).expect("fits");
                engine
            },
            |engine| engine.handle_message(CONN, Message::Unchoke, NOW).expect("fits"),
            BatchSize::SmallInput,
        );
    });
}

/// A block from request to sent: queue, pin, compose, account, unpin.
fn scheduler(criterion: &mut Criterion) {
    const BLOCKS: u32 = 64;
    let (mut engine, shared) = engine(true);
    for chunk in 0..PIECES {
        assert!(shared.chunks.begin_load(chunk, SlotId(chunk)));
        shared.chunks.finish_load(chunk, 0);
    }
    engine.handle_message(CONN, Message::Interested, NOW).expect("fits");
    let (mut outbox, mut segments) = (Vec::new(), Vec::new());
    let mut group = criterion.benchmark_group("scheduler");
    group.throughput(Throughput::Elements(BLOCKS.into()));
    group.bench_function("take_send/64 blocks", |bencher| {
        bencher.iter(|| {
            for block in 0..BLOCKS {
                let block = BlockRef { piece: block, begin: 0, length: BLOCK_BYTES };
                engine.handle_message(CONN, Message::Request(block), NOW).expect("fits");
            }
            while let Some(action) = engine.poll_action(NOW) {
                segments.clear();
                if action == Action::Send(CONN) && engine.take_send(CONN, &mut outbox, &mut segments, NOW) {
                    let bytes = segments.iter().map(|segment| segment.len()).sum();
                    engine.handle_sent(CONN, Ok(bytes), NOW);
                }
            }
        });
    });
    group.finish();
}

fn hash(criterion: &mut Criterion) {
    let chunk = vec![0xa5; CHUNK_BYTES as usize];
    let print = Fingerprint::new(1);
    let mut group = criterion.benchmark_group("hash");
    group.throughput(Throughput::Bytes(CHUNK_BYTES.into()));
    group.bench_function("sha1/256 KiB", |bencher| bencher.iter(|| sha1::digest(black_box(&chunk))));
    group.bench_function("xxh3/256 KiB", |bencher| bencher.iter(|| print.of(black_box(&chunk))));
    group.finish();
}

fn cache(criterion: &mut Criterion) {
    let table = ChunkTable::new(1);
    assert!(table.begin_load(0, SlotId(0)));
    table.finish_load(0, 0);
    criterion.bench_function("cache/pin and unpin", |bencher| {
        bencher.iter(|| {
            black_box(table.pin(black_box(0)));
            table.unpin(0);
        });
    });
    let cache = Cache::new(64);
    criterion.bench_function("cache/allocate and release", |bencher| {
        bencher.iter(|| {
            let slot = cache.allocate(TORRENT, 0, |_| None).expect("one is free");
            cache.release(black_box(slot));
        });
    });
}

fn slots(criterion: &mut Criterion) {
    let mut slots = Slots::new(1024);
    let ids: Vec<ConnId> = (0..1000).map(|value| slots.insert(value).expect("room")).collect();
    criterion.bench_function("slots/1000 look-ups", |bencher| {
        bencher.iter(|| ids.iter().filter_map(|&id| slots.get(black_box(id))).sum::<u32>());
    });
    criterion.bench_function("slots/remove and insert", |bencher| {
        bencher.iter(|| {
            let id = slots.insert(black_box(7)).expect("room");
            slots.remove(id)
        });
    });
}

fn journal(criterion: &mut Criterion) {
    let geometry = Geometry::new(u64::from(PIECES) << 20, 1 << 20);
    let subject = Subject { info_hash: InfoHash([7; 20]), geometry, file_count: 1, secret_id: 1 };
    let record = Record::Durable { piece: 3, fingerprints: vec![5; 4].into() };
    let mut out = Vec::new();
    let mut writer = Writer::begin(&subject, &mut out);
    criterion.bench_function("journal/append a piece", |bencher| {
        bencher.iter(|| {
            out.clear();
            writer.push(black_box(&record), &mut out);
        });
    });
}

criterion_group!(micro, codec, picker, scheduler, hash, cache, slots, journal);
criterion_main!(micro);
