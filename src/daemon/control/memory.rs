//! The cache's memory: fetched ahead of use, given back when the host runs short, and fetched again.

use super::*;
use crate::base::human::format_size;
use crate::base::limits::{CACHE_LEAVING_INTERVAL, MEMORY_LOOK_INTERVAL};
use crate::daemon::cache_size::Host;
use crate::daemon::pressure::{CacheFacts, Governor, Wish};
use crate::daemon::status::CacheStatus;
use crate::io::arena::{Arena, REGION_BYTES};
use crate::io::uring::SharedRegions;
use crate::shared::cache::Cache;
use crate::shared::retirer::{RegionCounts, Retirer, Step};

/// What the blocking pool has done for a region of the cache.
#[derive(Clone, Copy, Debug)]
pub(super) enum RegionDone {
    Dropped(u32),
    Filled(u32),
}

/// The arena and what becomes of its regions.
pub struct CacheMemory {
    arena: Arc<Arena>,
    /// Registrations that the cores share.
    shared: Option<Arc<SharedRegions>>,
    retirer: Retirer,
    governor: Governor,
    look_at: Instant,
    advance_at: Instant,
    /// Evictions and refusals of the cache at the last look.
    seen: (u64, u32),
    shrinks: u64,
}

impl CacheMemory {
    /// A torrent that was not known before needs a cache of so many bytes: it does not shrink below that.
    pub(super) fn keep_room_for(&mut self, least_bytes: u64) {
        let least = u32::try_from(least_bytes.div_ceil(REGION_BYTES)).unwrap_or(u32::MAX);
        self.governor.raise_least(least.min(self.arena.region_count()));
    }

    /// Of a cache in `arena` that keeps `least_bytes` in any case and is used by `cores` cores.
    pub fn new(
        (arena, cache): (Arc<Arena>, Arc<Cache>),
        shared: Option<Arc<SharedRegions>>,
        least_bytes: u64,
        cores: usize,
    ) -> Self {
        let least = u32::try_from(least_bytes.div_ceil(REGION_BYTES)).unwrap_or(u32::MAX);
        let governor = Governor::new(least.min(arena.region_count()), arena.region_count());
        let retirer = Retirer::new(cache, cores);
        let at = clock::now();
        let (look_at, advance_at) = (at, at);
        Self { arena, shared, retirer, governor, look_at, advance_at, seen: (0, 0), shrinks: 0 }
    }

    /// When it is to be looked after.
    pub(super) fn wake_at(&self) -> Instant {
        if self.retirer.is_busy() { self.look_at.min(self.advance_at) } else { self.look_at }
    }

    /// For the status.
    pub(super) fn status(&self) -> CacheStatus {
        let cache = self.retirer.cache();
        let regions = |slots: u32| u64::from(slots.div_ceil(self.arena.slots_per_region()));
        CacheStatus {
            bytes: regions(cache.present_count()) * REGION_BYTES,
            full_bytes: u64::from(self.arena.region_count()) * REGION_BYTES,
        }
    }

    /// For the metrics: regions, slots that are out of use, and how often the cache has shrunk.
    pub(super) fn figures(&self) -> (RegionCounts, u32, u64) {
        (self.retirer.counts(), self.retirer.slot_count(), self.shrinks)
    }

    /// Looks at the host, and sets how many regions there are to be.
    fn look(&mut self, now: Instant) {
        self.look_at = now + MEMORY_LOOK_INTERVAL;
        let cache = self.retirer.cache();
        let seen = (cache.evictions(), cache.refusals());
        let is_full = seen != std::mem::replace(&mut self.seen, seen);
        let facts = CacheFacts { regions: self.retirer.counts(), target: self.retirer.target(), is_full };
        let size = |regions: u32| format_size(u64::from(regions) * REGION_BYTES);
        match self.governor.handle_look(&Host::look(), facts, now) {
            Wish::Stay => {}
            Wish::Shrink(regions, why) => {
                let (less, full) = (size(regions), size(self.arena.region_count()));
                tracing::warn!(
                    "the cache shrinks to {less} of {full} because {why}: end what uses memory or raise the \
                     limit, or give a smaller --cache; it grows again when there is room"
                );
                self.shrinks += 1;
                self.retirer.set_target(regions);
            }
            Wish::Grow(regions) => {
                tracing::info!("the cache grows to {} again", size(regions));
                self.retirer.set_target(regions);
            }
        }
    }
}

impl Control<'_> {
    /// Looks after the cache's memory, if it is time.
    pub(super) fn look_after_memory(&mut self, now: Instant) {
        if self.phase != Phase::Running {
            return;
        }
        if now >= self.memory.look_at {
            self.memory.look(now);
        } else if now < self.memory.wake_at() {
            return;
        }
        self.memory.advance_at = now + CACHE_LEAVING_INTERVAL;
        let swarms = &self.swarms;
        let table_of = |id: TorrentId| Some(&swarms.get(id.0 as usize)?.live.as_ref()?.shared.chunks);
        for step in self.memory.retirer.advance(table_of) {
            self.take_step(step);
        }
    }

    /// A region of the arena will soon be used.
    pub(super) fn region_touched(&mut self, region: u32) {
        if let Some(step) = self.memory.retirer.handle_touched(region) {
            self.take_step(step);
        }
    }

    /// A worker has unregistered a region, or could not.
    pub(super) fn region_forgotten(&mut self, region: u32, could: bool) {
        if let Some(step) = self.memory.retirer.handle_forgotten(region, could) {
            self.take_step(step);
        }
    }

    pub(super) fn region_done(&mut self, done: RegionDone) {
        match done {
            RegionDone::Dropped(region) => self.memory.retirer.handle_dropped(region),
            RegionDone::Filled(region) => self.memory.retirer.handle_filled(region),
        }
    }

    /// What takes milliseconds is done on the blocking pool.
    fn take_step(&mut self, step: Step) {
        let (arena, shared) = (Arc::clone(&self.memory.arena), self.memory.shared.clone());
        let tell = self.tell.clone();
        let done = move |done| drop(tell.send(Event::Region(done)));
        match step {
            Step::Forget(region) => {
                for worker in &mut self.workers {
                    worker.send(ToWorker::Forget { region });
                }
            }
            Step::Drop(region) => drop(tokio::task::spawn_blocking(move || {
                if shared.is_none_or(|shared| shared.forget(region)) {
                    arena.discard(region);
                }
                done(RegionDone::Dropped(region));
            })),
            Step::Fill(region) => drop(tokio::task::spawn_blocking(move || {
                arena.prefault(region);
                done(RegionDone::Filled(region));
            })),
        }
    }
}
