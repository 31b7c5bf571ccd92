//! Models: every interleaving and every weak memory outcome of a few threads, by loom.
//!
//! Where a protocol hangs on one fence or one look, a copy of it without that must fail: a model
//! that passes whatever it is given proves nothing.

#![allow(clippy::arc_with_non_send_sync, reason = "loom's cells check what Sync would promise")]

mod ledger;
mod retire;
mod wake_up;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use loom::cell::UnsafeCell;
use loom::sync::Notify;
use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering, fence};
use loom::thread::{self, JoinHandle};

use super::budget::{Budget, Claimant};
use super::cache::{Cache, Growth};
use super::chunks::{ChunkState, ChunkTable};
use super::lane::Parking;
use super::torrent::{SharedTorrent, TorrentMeta};
use crate::base::bitfield::Bitfield;
use crate::base::ids::{CoreId, InfoHash, SlotId, TorrentId};
use crate::base::time::{Instant, Span};

const TORRENT: TorrentId = TorrentId(0);

/// Explores with at most `preemptions` switches away from a thread that could have gone on.
fn model(preemptions: usize, body: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(body);
}

fn spawn<T: 'static>(state: &Arc<T>, body: impl FnOnce(&T) + 'static) -> JoinHandle<()> {
    let state = Arc::clone(state);
    thread::spawn(move || body(&state))
}

fn join(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

// ---- The chunk table ----

/// One chunk, and slots whose bytes loom watches: a read that races with a write fails the model.
struct Chunk {
    table: ChunkTable,
    slots: [UnsafeCell<u32>; 2],
    done: AtomicU32,
}

impl Chunk {
    fn new() -> Arc<Self> {
        let slots = [UnsafeCell::new(0), UnsafeCell::new(0)];
        Arc::new(Self { table: ChunkTable::new(1), slots, done: AtomicU32::new(0) })
    }

    #[allow(unsafe_code)]
    fn write(&self, slot: SlotId, value: u32) {
        // SAFETY: loom checks at this very place that no other thread reads or writes the cell.
        self.slots[slot.0 as usize].with_mut(|bytes| unsafe { *bytes = value });
    }

    #[allow(unsafe_code)]
    fn read(&self, slot: SlotId) -> u32 {
        // SAFETY: loom checks at this very place that no other thread writes the cell.
        self.slots[slot.0 as usize].with(|bytes| unsafe { *bytes })
    }
}

#[test]
fn loom_one_core_wins_an_empty_chunk_and_its_bytes_are_seen_by_whoever_pins() {
    model(3, || {
        let chunk = Chunk::new();
        let filler = spawn(&chunk, |chunk| {
            if chunk.table.claim_empty(0, SlotId(0)) {
                chunk.write(SlotId(0), 7);
                chunk.table.fill(0);
                chunk.table.publish(0, 0);
                chunk.done.fetch_add(1, Relaxed);
            }
        });
        let loader = spawn(&chunk, |chunk| {
            if chunk.table.begin_load(0, SlotId(1)) {
                chunk.write(SlotId(1), 7);
                chunk.table.finish_load(0, 0);
                chunk.done.fetch_add(1, Relaxed);
            }
        });
        if let Some(slot) = chunk.table.pin(0, true) {
            assert_eq!(chunk.read(slot), 7);
            chunk.table.unpin(0);
        }
        join([filler, loader]);
        assert_eq!(chunk.done.load(Relaxed), 1, "exactly one won");
        assert_eq!(chunk.table.view(0).pins, 0);
    });
}

#[test]
fn loom_a_pinned_chunk_is_never_evicted_and_an_evicted_slot_has_no_readers() {
    model(3, || {
        let chunk = Chunk::new();
        assert!(chunk.table.begin_load(0, SlotId(0)));
        chunk.write(SlotId(0), 7);
        chunk.table.finish_load(0, 0);
        let reader = |chunk: &Chunk| {
            if let Some(slot) = chunk.table.pin(0, true) {
                assert_eq!(chunk.read(slot), 7);
                chunk.table.unpin(0);
            }
        };
        let readers = [spawn(&chunk, reader), spawn(&chunk, reader)];
        // Twice: the first may only take the second chance away.
        for _ in 0..2 {
            if let Some(slot) = chunk.table.evict(0, 0) {
                chunk.write(slot, 9);
            }
        }
        join(readers);
    });
}

#[test]
fn loom_two_hands_evict_a_chunk_once() {
    model(3, || {
        let chunk = Chunk::new();
        assert!(chunk.table.begin_load(0, SlotId(0)));
        chunk.table.finish_load(0, 0);
        let hand = |chunk: &Chunk| {
            if let Some(slot) = chunk.table.evict(0, 1) {
                chunk.write(slot, 9);
                chunk.done.fetch_add(1, Relaxed);
            }
        };
        join([spawn(&chunk, hand), spawn(&chunk, hand)]);
        assert_eq!(chunk.done.load(Relaxed), 1);
    });
}

#[test]
fn loom_an_offered_chunk_goes_to_one_core_with_its_bytes() {
    model(3, || {
        let chunk = Chunk::new();
        assert!(chunk.table.claim_empty(0, SlotId(0)));
        let taker = |chunk: &Chunk| {
            if let Some(slot) = chunk.table.claim_partial(0) {
                let half = chunk.read(slot);
                assert_eq!(half, 3);
                chunk.write(slot, half + 4);
                chunk.table.fill(0);
                chunk.done.fetch_add(1, Relaxed);
            }
        };
        let takers = [spawn(&chunk, taker), spawn(&chunk, taker)];
        chunk.write(SlotId(0), 3);
        chunk.table.offer(0);
        join(takers);
        let view = chunk.table.view(0);
        match chunk.done.load(Relaxed) {
            0 => assert_eq!(view.state, ChunkState::Partial),
            1 => assert_eq!((view.state, chunk.read(view.slot)), (ChunkState::Filled, 7)),
            more => panic!("{more} cores filled it"),
        }
    });
}

#[test]
fn loom_a_reset_chunk_may_be_claimed_anew_and_nobody_reads_what_it_was() {
    model(3, || {
        let chunk = Chunk::new();
        assert!(chunk.table.claim_empty(0, SlotId(0)));
        let claimer = spawn(&chunk, |chunk| {
            if chunk.table.claim_empty(0, SlotId(1)) {
                chunk.write(SlotId(1), 7);
                chunk.table.fill(0);
                chunk.table.publish(0, 1);
                chunk.table.unpin(0);
            }
        });
        let reader = spawn(&chunk, |chunk| {
            if let Some(slot) = chunk.table.pin(0, true) {
                assert_eq!((slot, chunk.read(slot)), (SlotId(1), 7));
                chunk.table.unpin(0);
            }
        });
        chunk.write(SlotId(0), 1);
        chunk.table.fill(0);
        let slot = chunk.table.reset(0);
        chunk.write(slot, 2);
        join([claimer, reader]);
    });
}

// ---- The cache ----

struct Stack {
    cache: Arc<Cache>,
    /// Who holds each slot: a slot given twice is a race that loom sees.
    held: [UnsafeCell<u32>; 3],
}

impl Stack {
    fn new(slots: u32) -> Arc<Self> {
        Arc::new(Self::of(Arc::new(Cache::new(slots))))
    }

    fn of(cache: Arc<Cache>) -> Self {
        Self { cache, held: std::array::from_fn(|_| UnsafeCell::new(0)) }
    }

    fn take(&self) -> Option<SlotId> {
        let slot = self.cache.allocate((TORRENT, 0), Growth::Late, |_| None)?;
        self.hold(slot);
        Some(slot)
    }

    #[allow(unsafe_code)]
    fn hold(&self, slot: SlotId) {
        // SAFETY: loom checks at this very place that no other thread holds the slot.
        self.held[slot.0 as usize].with_mut(|times| unsafe { *times += 1 });
    }

    fn give(&self, slot: SlotId) {
        self.hold(slot);
        self.cache.release(slot);
    }
}

#[test]
fn loom_the_free_stack_never_gives_a_slot_twice() {
    model(2, || {
        let stack = Stack::new(3);
        let all: Vec<_> = (0..3).map(|_| stack.take().unwrap()).collect();
        all.into_iter().for_each(|slot| stack.give(slot));
        // One sits between its load and its exchange while the other takes two and gives the first back.
        let slow = spawn(&stack, |stack| {
            let slot = stack.take().unwrap();
            stack.give(slot);
        });
        let first = stack.take().unwrap();
        let second = stack.take().unwrap();
        stack.give(first);
        let again = stack.take().unwrap();
        assert_ne!(again, second);
        join([slow]);
        stack.take().unwrap();
        assert_eq!(stack.take(), None, "three slots: second, again and the last");
    });
}

#[test]
fn loom_three_cores_share_the_free_stack() {
    model(2, || {
        let stack = Stack::new(2);
        let both = [stack.take().unwrap(), stack.take().unwrap()];
        both.into_iter().for_each(|slot| stack.give(slot));
        let core = |stack: &Stack| {
            if let Some(slot) = stack.take() {
                stack.give(slot);
            }
        };
        let cores = [spawn(&stack, core), spawn(&stack, core)];
        core(&stack);
        join(cores);
        assert!(stack.take().is_some() && stack.take().is_some() && stack.take().is_none());
    });
}

#[test]
fn loom_cores_that_race_for_untouched_memory_get_a_slot_each_or_none() {
    model(2, || {
        let stack = Stack::new(2);
        let core = |stack: &Stack| {
            stack.take();
        };
        let cores = [spawn(&stack, core), spawn(&stack, core)];
        core(&stack);
        join(cores);
        assert_eq!(stack.cache.touched_count(), 2);
        assert_eq!(stack.take(), None);
    });
}

/// A core that waits for a load that another core ends. It sleeps only if it will be told.
struct Load {
    cache: Cache,
    table: ChunkTable,
    told: Notify,
}

impl Load {
    /// Two chunks, `slots` slots, chunk 0 being loaded.
    fn new(slots: u32) -> Arc<Self> {
        let load = Self { cache: Cache::new(slots), table: ChunkTable::new(2), told: Notify::new() };
        assert!(load.begin(0));
        Arc::new(load)
    }

    fn begin(&self, chunk: u32) -> bool {
        let Some(slot) = self.cache.allocate((TORRENT, chunk), Growth::Late, |_| Some(&self.table)) else {
            return false;
        };
        let won = self.table.begin_load(chunk, slot);
        if !won {
            self.cache.release(slot);
        }
        won
    }

    fn tell(&self, waiters: u64) {
        assert_eq!(waiters & !0b10, 0, "only core 1 waits");
        if waiters != 0 {
            self.told.notify();
        }
    }
}

#[test]
fn loom_the_end_of_a_load_is_told_to_whoever_waits() {
    for ok in [true, false] {
        model(3, move || {
            let load = Load::new(1);
            let loader = spawn(&load, move |load| {
                let (cache, table) = (&load.cache, &load.table);
                load.tell(if ok { cache.finish_load(table, 0) } else { cache.fail_load(table, 0) });
            });
            while load.cache.wait_for_load(&load.table, 0, CoreId(1)) {
                load.told.wait();
            }
            assert_ne!(load.table.view(0).state, ChunkState::Loading);
            join([loader]);
        });
    }
}

#[test]
fn loom_a_slot_that_changes_hands_keeps_its_waiters_apart() {
    model(2, || {
        let load = Load::new(1);
        // One core ends the first load; another takes the slot as soon as it may, for a second one.
        let first = spawn(&load, |load| load.tell(load.cache.finish_load(&load.table, 0)));
        let second = spawn(&load, |load| {
            if load.begin(1) {
                load.tell(load.cache.finish_load(&load.table, 1));
            }
        });
        for chunk in [1, 0] {
            while load.cache.wait_for_load(&load.table, chunk, CoreId(1)) {
                load.told.wait();
            }
        }
        join([first, second]);
    });
}

#[test]
fn loom_a_chunk_that_is_loaded_again_wakes_who_waited_for_the_first_load() {
    model(2, || {
        let load = Load::new(2);
        let loader = spawn(&load, |load| {
            for _ in 0..2 {
                load.tell(load.cache.finish_load(&load.table, 0));
                let Some(slot) = load.table.evict(0, 1) else { return };
                load.cache.release(slot);
                if !load.begin(0) {
                    return;
                }
            }
            load.tell(load.cache.finish_load(&load.table, 0));
        });
        while load.cache.wait_for_load(&load.table, 0, CoreId(1)) {
            load.told.wait();
        }
        join([loader]);
    });
}

#[test]
fn loom_the_hand_takes_a_slot_once() {
    model(2, || {
        let stack = Arc::new((Stack::new(1), ChunkTable::new(3)));
        let take = |(stack, table): &(Arc<Stack>, ChunkTable), chunk: u32| {
            let Some(slot) = stack.cache.allocate((TORRENT, chunk), Growth::Late, |_| Some(table)) else {
                return;
            };
            stack.hold(slot);
            assert!(table.begin_load(chunk, slot));
            stack.cache.finish_load(table, chunk);
        };
        take(&stack, 0);
        let cores = [spawn(&stack, move |state| take(state, 1)), spawn(&stack, move |state| take(state, 2))];
        join(cores);
        let ready = (0..3).filter(|&chunk| stack.1.view(chunk).state == ChunkState::Ready).count();
        assert_eq!(ready, 1);
    });
}

// ---- Torrent and budget ----

fn torrent() -> Arc<SharedTorrent> {
    let meta = TorrentMeta::plain(InfoHash([0; 20]), 100, 16 << 10);
    SharedTorrent::new(meta, &Bitfield::new(1), 1)
}

type Ownership = (Arc<SharedTorrent>, AtomicU32, AtomicU32);

#[test]
fn loom_a_piece_has_one_owner_and_counts_once() {
    model(3, || {
        let state = Arc::new((torrent(), AtomicU32::new(0), AtomicU32::new(0)));
        let core = |core: u8| {
            move |(torrent, owners, counted): &Ownership| {
                if torrent.own_piece(0, CoreId(core)) == CoreId(core) {
                    owners.fetch_add(1, Relaxed);
                }
                if torrent.set_have(0) {
                    counted.fetch_add(1, Relaxed);
                }
            }
        };
        let cores = [spawn(&state, core(1)), spawn(&state, core(2))];
        core(0)(&state);
        join(cores);
        assert_eq!((state.1.load(Relaxed), state.2.load(Relaxed), state.0.have_count()), (1, 1, 1));
    });
}

#[test]
fn loom_a_piece_lost_and_found_at_once_is_counted_as_it_ends() {
    model(3, || {
        let torrent = Arc::new(torrent());
        torrent.set_have(0);
        let loser = spawn(&torrent, |torrent| {
            torrent.clear_have(0);
        });
        torrent.set_have(0);
        join([loser]);
        assert_eq!(torrent.have_count(), u32::from(torrent.has(0)));
    });
}

#[test]
fn loom_claims_exceed_what_is_there_by_less_than_one_grant() {
    const GRANT: u32 = 1000;
    model(3, || {
        // Two grants less one byte have come: the second goes into debt by it, no third is given.
        let late = Instant(0) + Span::from_ms(1_999);
        let state = Arc::new((Budget::new(1000, Instant(0)), AtomicU32::new(0)));
        let core = move |(budget, granted): &(Budget, AtomicU32)| {
            granted.fetch_add(budget.claim(GRANT, GRANT, Claimant::Waiting, late), Relaxed);
        };
        let cores = [spawn(&state, core), spawn(&state, core)];
        core(&state);
        join(cores);
        assert_eq!(state.1.load(Relaxed), 2 * GRANT);
    });
}

#[test]
fn loom_what_cores_claim_and_refund_is_what_they_used() {
    model(3, || {
        let late = Instant(0) + Span::from_secs(3);
        let state = Arc::new((Budget::new(1000, Instant(0)), AtomicU32::new(0)));
        // Each takes a slice and uses a part of it, whatever the others do meanwhile.
        let core = |part: u32| {
            move |(budget, used): &(Budget, AtomicU32)| {
                let slice = budget.claim(part, 1000, Claimant::Waiting, late);
                budget.refund(slice - slice.min(part));
                used.fetch_add(slice.min(part), Relaxed);
            }
        };
        let cores = [spawn(&state, core(10)), spawn(&state, core(200))];
        core(300)(&state);
        join(cores);
        let (budget, used) = &*state;
        let used = used.load(Relaxed);
        assert_eq!(used, 510, "there was enough for all");
        assert_eq!(budget.claim(1, u32::MAX, Claimant::Waiting, late), 3000 - used, "nothing is lost");
    });
}
