//! How large the cache is, which limit of the host decided that, and how the operator lifts it.
//!
//! Locked memory decides nothing here: what cannot be registered with the rings is used all the same
//! (`io/uring/regions.rs`, which says so).
//!
//! Pure but for [`Host::look`]. Memory is taken as chunks come, so a cache that is too large fails late
//! and for everybody on the machine: it is cut at the start, with a warning, rather than believed.

mod host;

pub use host::{CgroupRoom, Host};

use crate::base::human::format_size;
use crate::base::limits::{
    CACHE_BYTES_MIN, CACHE_DEFAULT_PART, CACHE_SPARED_PART, CACHED_PIECES_MIN, MEMORY_BYTES_ASSUMED,
};
use crate::io::arena::{REGION_BYTES, REGIONS_MAX, SLOTS_PER_REGION};

/// What decided the size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `--cache`.
    Asked,
    /// Memory that the machine has available.
    Memory,
    /// A limit of the control group.
    Cgroup,
    /// As many buffers as a ring can register.
    Buffers,
}

impl Limit {
    const fn name(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Memory => "memory",
            Self::Cgroup => "cgroup",
            Self::Buffers => "buffers",
        }
    }
}

/// A size, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheSize {
    /// Whole regions.
    pub bytes: u64,
    /// What it would be but for limits.
    wanted_bytes: u64,
    /// The tightest.
    pub limit: Limit,
    /// Whether `limit` left less than the least, and it has the least all the same.
    is_raised: bool,
}

/// The least that works when the longest pieces have `chunks` chunks each.
pub fn least_bytes(chunks: u32) -> u64 {
    let regions = (CACHED_PIECES_MIN * u64::from(chunks)).div_ceil(u64::from(SLOTS_PER_REGION));
    CACHE_BYTES_MIN.next_multiple_of(REGION_BYTES).max(regions * REGION_BYTES)
}

impl CacheSize {
    /// The size for what was `asked`, or the default one; never below `least`, which is whole regions.
    pub fn choose(asked: Option<u64>, least: u64, host: &Host) -> Self {
        let (room, owner) = room(host);
        let buffers = u64::from(REGIONS_MAX) * REGION_BYTES;
        let part = (buffers.min(room.unwrap_or(MEMORY_BYTES_ASSUMED) / CACHE_DEFAULT_PART), owner);
        let (wanted_bytes, by) = asked.map_or(part, |bytes| (bytes, Limit::Asked));
        let most = room.map_or(u64::MAX, |room| room - room / CACHE_SPARED_PART);
        let bounds = [(wanted_bytes, by), (most, owner), (buffers, Limit::Buffers)];
        let regions = |bytes: u64| bytes / REGION_BYTES;
        // Of equals the first: a limit that takes no region away decides nothing.
        let tightest = bounds.into_iter().min_by_key(|(bytes, _)| regions(*bytes));
        let (bytes, limit) = tightest.unwrap_or((wanted_bytes, by));
        let bytes = regions(bytes) * REGION_BYTES;
        Self { bytes: bytes.max(least), wanted_bytes, limit, is_raised: bytes < least }
    }

    /// One word for what decided, as in the metrics.
    pub const fn decided_by(&self) -> &'static str {
        if self.is_raised { "minimum" } else { self.limit.name() }
    }

    /// What decided, in words: follows "the cache has so much, ".
    pub fn why(&self, host: &Host) -> String {
        let show = |bytes: Option<u64>| bytes.map_or_else(|| "unknown".to_owned(), format_size);
        let reason = match (self.limit, &host.cgroup) {
            (Limit::Asked, _) => format!("asked for {}", format_size(self.wanted_bytes)),
            (Limit::Cgroup, Some(room)) => {
                let (limit, file) = (format_size(room.limit_bytes), &room.file);
                format!("{} left of {limit} in {file}", format_size(room.bytes))
            }
            (Limit::Memory | Limit::Cgroup, _) => format!("{} of memory available", show(host.memory_bytes)),
            (Limit::Buffers, _) => format!("io_uring registers {REGIONS_MAX} buffers"),
        };
        if self.is_raised { format!("the least that works ({reason})") } else { reason }
    }

    /// How to get a cache as large as wanted; `None` if it is.
    pub fn remedy(&self, host: &Host) -> Option<String> {
        let is_cut = self.wanted_bytes / REGION_BYTES * REGION_BYTES > self.bytes;
        if !is_cut && !self.is_raised {
            return None;
        }
        Some(match (self.limit, &host.cgroup) {
            (Limit::Asked, _) => "less cannot hold the pieces that are begun".to_owned(),
            (Limit::Cgroup, Some(room)) => room.remedy(),
            (Limit::Memory | Limit::Cgroup, _) => {
                "see `free -h`; end what uses it, add memory, or give a smaller --cache".to_owned()
            }
            (Limit::Buffers, _) => "give a smaller --cache".to_owned(),
        })
    }

    /// One line for the log if it is not as wanted.
    pub fn warning(&self, host: &Host) -> Option<String> {
        let remedy = self.remedy(host)?;
        let [has, wanted] = [self.bytes, self.wanted_bytes].map(format_size);
        let instead = if self.is_raised { String::new() } else { format!(", not {wanted}") };
        Some(format!("the cache has {has}{instead}, {}: {remedy}", self.why(host)))
    }
}

/// The memory that there is for us, and who says so.
fn room(host: &Host) -> (Option<u64>, Limit) {
    let cgroup = host.cgroup.as_ref().map(|room| (Some(room.bytes), Limit::Cgroup));
    match (host.memory_bytes, cgroup) {
        (Some(memory), Some(cgroup)) if cgroup.0 < Some(memory) => cgroup,
        (None, Some(cgroup)) => cgroup,
        (memory, _) => (memory, Limit::Memory),
    }
}

#[cfg(test)]
mod tests;
