//! What cores share, by one of them or by several at once; and the table of connections.

use std::hint::black_box;
use std::sync::Arc;

use troc::base::ids::{ConnId, SlotId};
use troc::base::slots::Slots;
use troc::base::time::{Instant, Span};
use troc::base::units::BLOCK_BYTES;
use troc::shared::budget::{Budget, Claimant};
use troc::shared::cache::{Cache, Growth};
use troc::shared::chunks::ChunkTable;
use troc::shared::ledger::Ledger;

use super::case::{Case, work};
use super::fixture::{NOW, TORRENT};

/// Chunks, slots or connections of one case.
const MANY: u32 = 1024;
/// Claims of one thread.
const CLAIMS: u64 = 1000;
/// Rounds of claims that each core pays for.
const PAYMENTS: u64 = 100;
/// Threads of the contended case.
const THREADS: u64 = 4;
/// 10 GB/s: the budget is asked, and never says no.
const RATE: u64 = 10_000_000_000;

pub fn cases() -> Vec<Case> {
    let many = u64::from(MANY);
    vec![
        Case::steady("cache/pin-unpin", work(many, "chunks"), loaded_table, pin_all),
        Case::steady(
            "cache/allocate-release",
            work(many, "slots"),
            || Cache::new(MANY),
            allocate_and_release,
        ),
        Case::steady("cache/allocate-evict", work(many, "slots"), FullCache::new, FullCache::replace_all),
        Case::steady("slots/look-up", work(many, "connections"), full_slots, look_up),
        Case::steady("slots/remove-insert", work(many, "connections"), full_slots, remove_and_insert),
        Case::steady("budget/claim", work(CLAIMS, "claims"), budget, |state| claim(&state.0, &mut state.1)),
        Case::steady("budget/claim-4-threads", work(THREADS * CLAIMS, "claims"), budget, claim_by_threads)
            .uncounted("callgrind runs one thread at a time: nothing contends"),
        Case::steady("ledger/open-close", work(many, "parties"), ledger, open_and_close),
        Case::steady("ledger/credit-debit", work(CLAIMS, "blocks"), ledger, |ledger| pay(ledger)),
        Case::steady(
            "ledger/credit-debit-all-cores",
            work(PAYMENTS * CLAIMS, "blocks of each core"),
            ledger,
            pay_by_all_cores,
        )
        .uncounted("callgrind runs one thread at a time: nothing contends"),
    ]
}

fn ledger() -> Ledger {
    let ledger = Ledger::new(4 * MANY as usize);
    for party in 1..=MANY.into() {
        black_box(ledger.open(scatter(party)));
    }
    ledger
}

/// Keys are hashes.
const fn scatter(party: u64) -> u64 {
    party.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20 | 1 << 60
}

fn open_and_close(ledger: &mut Ledger) {
    for party in 1..=MANY.into() {
        let id = ledger.open(black_box(scatter(party)));
        ledger.close(id);
    }
}

/// What each block costs at most: one credit and one debit of one party.
fn pay(ledger: &Ledger) {
    let id = ledger.open(scatter(1));
    for _ in 0..CLAIMS {
        ledger.credit(black_box(scatter(1)), BLOCK_BYTES.into());
        ledger.debit(black_box(id), BLOCK_BYTES.into());
    }
    ledger.close(id);
}

/// Every core pays the same party, and for so long that the start of threads counts for nothing.
fn pay_by_all_cores(ledger: &mut Ledger) {
    let (ledger, cores) = (&*ledger, std::thread::available_parallelism().map_or(1, usize::from));
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| (0..PAYMENTS).for_each(|_| pay(ledger)));
        }
    });
}

fn loaded_table() -> ChunkTable {
    let table = ChunkTable::new(MANY);
    for chunk in 0..MANY {
        assert!(table.begin_load(chunk, SlotId(chunk)));
        table.finish_load(chunk, 0);
    }
    table
}

fn pin_all(table: &mut ChunkTable) {
    for chunk in 0..MANY {
        black_box(table.pin(black_box(chunk), true));
        table.unpin(chunk);
    }
}

fn allocate_and_release(cache: &mut Cache) {
    for chunk in 0..MANY {
        let slot = cache.allocate((TORRENT, chunk), Growth::Early, |_| None).expect("one is free");
        cache.release(black_box(slot));
    }
}

/// Every slot holds a chunk that nobody uses; twice as many chunks as slots.
struct FullCache {
    cache: Cache,
    table: ChunkTable,
    next: u32,
}

impl FullCache {
    fn new() -> Self {
        let mut full = Self { cache: Cache::new(MANY), table: ChunkTable::new(2 * MANY), next: 0 };
        full.replace_all();
        full
    }

    fn replace_all(&mut self) {
        for _ in 0..MANY {
            let chunk = self.next;
            self.next = (chunk + 1) % (2 * MANY);
            let slot = self.cache.allocate((TORRENT, chunk), Growth::Early, |_| Some(&self.table));
            let slot = slot.expect("all are unpinned");
            assert!(self.table.begin_load(chunk, slot));
            self.table.finish_load(chunk, 0);
        }
    }
}

fn full_slots() -> (Slots<u32>, Vec<ConnId>) {
    let mut slots = Slots::new(MANY);
    let ids = (0..MANY).map(|value| slots.insert(value).expect("room")).collect();
    (slots, ids)
}

fn look_up((slots, ids): &mut (Slots<u32>, Vec<ConnId>)) {
    black_box(ids.iter().filter_map(|&id| slots.get(black_box(id))).sum::<u32>());
}

fn remove_and_insert((slots, ids): &mut (Slots<u32>, Vec<ConnId>)) {
    for id in ids {
        let value = slots.remove(black_box(*id)).expect("it is there");
        *id = slots.insert(value).expect("room");
    }
}

fn budget() -> (Arc<Budget>, Instant) {
    (Arc::new(Budget::new(RATE, NOW)), NOW)
}

/// Blocks, one by one, at the pace that the budget allows.
fn claim(budget: &Budget, now: &mut Instant) {
    for _ in 0..CLAIMS {
        *now = *now + Span(u64::from(BLOCK_BYTES) * 1_000_000_000 / RATE + 1);
        black_box(budget.claim(black_box(BLOCK_BYTES), BLOCK_BYTES, Claimant::Fresh, *now));
    }
}

/// The threads' start is part of it: compare with one thread of as many claims, not with zero.
fn claim_by_threads((budget, now): &mut (Arc<Budget>, Instant)) {
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            let (budget, mut now) = (&**budget, *now);
            scope.spawn(move || claim(budget, &mut now));
        }
    });
    *now = *now + Span(CLAIMS * u64::from(BLOCK_BYTES) * 1_000_000_000 / RATE);
}
