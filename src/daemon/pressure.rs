//! When the cache gives memory back, and when it takes it again: quickly the one, slowly the other.
//!
//! Pure: facts come in with the time, a wish goes out. What is left is compared with two marks for the
//! machine and for each limit of a control group: below the low one regions leave, as many as bring it
//! above the high one (twice the low one); between the two nothing happens, unless tasks already wait for
//! memory; above the high one for a while, regions return one after the other, if the cache needs them.

use crate::base::human::format_size;
use crate::base::limits::{
    CACHE_GROWS_AFTER, CACHE_GROWS_EVERY, CACHE_GROWS_PART, MEMORY_LOW_BYTES_MAX, MEMORY_LOW_BYTES_MIN,
    MEMORY_LOW_PART, MEMORY_STALLED_PERMILLE,
};
use crate::base::time::Instant;
use crate::io::arena::REGION_BYTES;
use crate::shared::retirer::RegionCounts;

use super::cache_size::Host;

/// What the cache is like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheFacts {
    /// Its regions.
    pub regions: RegionCounts,
    /// How many it is to have already.
    pub target: u32,
    /// Whether chunks had to leave for others since the last look.
    pub is_full: bool,
}

/// What is to become of the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// As it is.
    Stay,
    /// Fewer regions; what is short, in words that follow "because".
    Shrink(u32, String),
    /// More regions.
    Grow(u32),
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Governor {
    /// Regions that always stay, so that fetches complete.
    least: u32,
    /// Regions of the full cache.
    most: u32,
    /// Since when memory is plentiful.
    calm_since: Option<Instant>,
    grown_at: Option<Instant>,
}

/// Memory that somebody bounds.
struct Gauge {
    left_bytes: u64,
    low_bytes: u64,
    why: String,
}

impl Gauge {
    fn new(left_bytes: u64, limit_bytes: u64, whose: &str) -> Self {
        let low_bytes = (limit_bytes / MEMORY_LOW_PART).clamp(MEMORY_LOW_BYTES_MIN, MEMORY_LOW_BYTES_MAX);
        let [left, limit] = [left_bytes, limit_bytes].map(format_size);
        Self { left_bytes, low_bytes, why: format!("{left} of {limit} are left in {whose}") }
    }

    const fn high_bytes(&self) -> u64 {
        2 * self.low_bytes
    }

    /// How much is missing to the high mark, if that is to be done something about.
    fn missing(&self, leaving_bytes: u64, is_stalled: bool) -> Option<u64> {
        let mark = if is_stalled { self.high_bytes() } else { self.low_bytes };
        let soon = self.left_bytes.saturating_add(leaving_bytes);
        (soon < mark).then(|| self.high_bytes() - soon)
    }

    /// How much is left above the high mark.
    const fn spare(&self) -> u64 {
        self.left_bytes.saturating_sub(self.high_bytes())
    }
}

fn gauges(host: &Host) -> Vec<Gauge> {
    let machine = host.memory_bytes.zip(host.memory_total_bytes);
    let machine = machine.map(|(left, total)| Gauge::new(left, total, "memory"));
    let group = host.cgroup.as_ref().map(|room| Gauge::new(room.bytes, room.limit_bytes, &room.file));
    machine.into_iter().chain(group).collect()
}

impl Governor {
    /// Of a cache with `most` regions, `least` of which always stay.
    pub const fn new(least: u32, most: u32) -> Self {
        Self { least, most, calm_since: None, grown_at: None }
    }

    /// So many regions stay from now on, if that is more.
    pub fn raise_least(&mut self, least: u32) {
        self.least = self.least.max(least);
    }

    /// Memory and cache as they are now.
    pub fn handle_look(&mut self, host: &Host, cache: CacheFacts, now: Instant) -> Wish {
        let gauges = gauges(host);
        let is_stalled = host.stalled_permille >= MEMORY_STALLED_PERMILLE;
        let spare = gauges.iter().map(Gauge::spare).min().unwrap_or(0);
        let is_calm = spare >= REGION_BYTES && !is_stalled;
        self.calm_since = if is_calm { self.calm_since.or(Some(now)) } else { None };
        let leaving = u64::from(cache.regions.leaving) * REGION_BYTES;
        let missing = gauges.iter().filter_map(|gauge| Some((gauge.missing(leaving, is_stalled)?, gauge)));
        match missing.max_by_key(|(bytes, _)| *bytes) {
            Some((bytes, gauge)) => self.shrink(bytes, &gauge.why, &cache),
            None => self.grow(spare, &cache, now),
        }
    }

    fn shrink(&self, bytes: u64, why: &str, cache: &CacheFacts) -> Wish {
        let regions = u32::try_from(bytes.div_ceil(REGION_BYTES)).unwrap_or(u32::MAX);
        // Those that hold no memory go as well: it would be taken in a time of need.
        let used = cache.target.min(cache.regions.used);
        let target = used.saturating_sub(regions).max(self.least);
        if target < cache.target { Wish::Shrink(target, why.to_owned()) } else { Wish::Stay }
    }

    fn grow(&mut self, spare: u64, cache: &CacheFacts, now: Instant) -> Wish {
        let is_settled = cache.regions.leaving == 0 && cache.regions.present == cache.target;
        let calm = self.calm_since.is_some_and(|since| now.since(since) >= CACHE_GROWS_AFTER);
        let rested = self.grown_at.is_none_or(|at| now.since(at) >= CACHE_GROWS_EVERY);
        if !(is_settled && calm && rested && cache.is_full) || cache.target >= self.most {
            return Wish::Stay;
        }
        self.grown_at = Some(now);
        let room = u32::try_from(spare / REGION_BYTES).unwrap_or(u32::MAX);
        let step = (self.most / CACHE_GROWS_PART).clamp(1, room.max(1));
        Wish::Grow(cache.target.saturating_add(step).min(self.most))
    }
}

#[cfg(test)]
mod tests;
