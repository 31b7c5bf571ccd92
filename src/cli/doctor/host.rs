//! Kernel, processors, memory and the limits of the process. What the rings need, `io` tries itself.

use rustix::process::{Resource, Rlimit, getrlimit};

use crate::base::human::format_size;
use crate::daemon::cache_size::{CacheSize, Host, least_bytes};

use super::{Check, kernel_numbers, kernel_text};

/// Descriptors for the connections of one busy core, and some to spare.
const NOFILE_WANTED: u64 = 65_536;
/// Memory below which the default cache would be small.
const MEMORY_WANTED: u64 = 1 << 30;

pub(super) fn checks() -> Vec<Check> {
    let host = Host::look();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut checks = vec![
        Check::ok("kernel", rustix::system::uname().release().to_string_lossy()),
        processors(cores),
        nofile(getrlimit(Resource::Nofile)),
        huge_pages(kernel_text("/sys/kernel/mm/transparent_hugepage/enabled").as_deref()),
        memory(&host),
        cache(&host),
        counters(&event_sources()),
    ];
    if rustix::process::geteuid().is_root() {
        let remedy = "give it a user of its own: sudo useradd --system troc";
        checks.push(Check::warn("user", "root: a node needs no privileges", remedy));
    }
    checks
}

fn processors(allowed: usize) -> Check {
    let online = kernel_text("/sys/devices/system/cpu/online").unwrap_or_else(|| "unknown".to_owned());
    Check::ok("processors", format!("{allowed} allowed (online: {online}), one worker each"))
}

fn nofile(limit: Rlimit) -> Check {
    let current = limit.current.unwrap_or(u64::MAX);
    let maximum = limit.maximum.unwrap_or(u64::MAX);
    let show = |count: u64| if count == u64::MAX { "unlimited".to_owned() } else { count.to_string() };
    let found = format!("{} (can be raised to {})", show(current), show(maximum));
    if current >= NOFILE_WANTED {
        return Check::ok("open files", found);
    }
    let remedy = if maximum >= NOFILE_WANTED {
        format!("enough for {current} connections and files: ulimit -n {NOFILE_WANTED}")
    } else {
        format!("set LimitNOFILE={NOFILE_WANTED} in the service, or nofile in /etc/security/limits.conf")
    };
    Check::warn("open files", found, remedy)
}

fn huge_pages(enabled: Option<&str>) -> Check {
    let reserved = kernel_numbers("/proc/sys/vm/nr_hugepages").first().copied().unwrap_or(0);
    let mode = enabled.and_then(|text| text.split_once('[')?.1.split_once(']')).map(|(mode, _)| mode);
    let found = format!("transparent: {}, reserved: {reserved}", mode.unwrap_or("not in this kernel"));
    if reserved > 0 || mode.is_some_and(|mode| mode != "never") {
        return Check::ok("huge pages", found);
    }
    let remedy = "the cache uses small pages: echo madvise | sudo tee \
                  /sys/kernel/mm/transparent_hugepage/enabled";
    Check::warn("huge pages", found, remedy)
}

fn memory(host: &Host) -> Check {
    let Some(available) = host.memory_bytes else {
        return Check::warn("memory", "unknown", "mount /proc, or give --cache SIZE");
    };
    let mut found = format!("{} available", format_size(available));
    if let Some(room) = &host.cgroup {
        found.push_str(&format!(", {} below {}", format_size(room.bytes), room.file));
    }
    if available >= MEMORY_WANTED {
        return Check::ok("memory", found);
    }
    Check::warn("memory", found, "free some, or give --cache SIZE to set the cache yourself")
}

/// The cache that a node would take without `--cache`.
fn cache(host: &Host) -> Check {
    let size = CacheSize::choose(None, least_bytes(1), host);
    let found = format!("{} by default, decided by: {}", format_size(size.bytes), size.why(host));
    match size.remedy(host) {
        Some(remedy) => Check::warn("cache", found, remedy),
        None => Check::ok("cache", found),
    }
}

/// Names of the units that count events, as perf knows them.
fn event_sources() -> Vec<String> {
    let entries = std::fs::read_dir("/sys/bus/event_source/devices").into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// The processor's own counters are `cpu`, on hybrid ones `cpu_core` and `cpu_atom`, on ARM `armv8_...`.
/// A node does not need them, whoever profiles it would like to.
fn counters(sources: &[String]) -> Check {
    let is_cpu = |name: &&String| *name == "cpu" || name.starts_with("cpu_") || name.starts_with("arm");
    match sources.iter().find(is_cpu) {
        Some(name) => Check::ok("counters", format!("hardware counters for perf: {name}")),
        None => Check::ok("counters", "no hardware counters (a virtual machine?): perf samples by the clock"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn counters_of_the_processor_are_told_from_those_of_the_kernel() {
        for (sources, there) in [
            (&["software", "msr", "uprobe", "power"][..], false),
            (&["software", "cpu"], true),
            (&["cpu_core", "cpu_atom"], true),
            (&["armv8_pmuv3_0"], true),
            (&[], false),
        ] {
            let sources: Vec<String> = sources.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(!counters(&sources).found.starts_with("no "), there, "{sources:?}");
        }
    }

    #[test]
    fn limits_are_judged_at_their_boundary() {
        let limit = |current, maximum| Rlimit { current, maximum };
        let low = nofile(limit(Some(NOFILE_WANTED - 1), Some(NOFILE_WANTED)));
        assert!(low.level == Level::Warn && low.remedy.unwrap().contains("ulimit -n"));
        let capped = nofile(limit(Some(1024), Some(1024)));
        assert!(capped.remedy.unwrap().contains("LimitNOFILE"));
        assert_eq!(nofile(limit(None, None)).level, Level::Ok);
        let memory_of = |memory_bytes| memory(&Host { memory_bytes, ..Host::default() }).level;
        for (bytes, level) in [(MEMORY_WANTED - 1, Level::Warn), (MEMORY_WANTED, Level::Ok)] {
            assert_eq!(memory_of(Some(bytes)), level);
        }
        assert_eq!(memory_of(None), Level::Warn);
    }

    #[test]
    fn the_cache_is_said_with_what_decided_it_and_how_to_lift_that() {
        let ample = Host { memory_bytes: Some(8 << 30), ..Host::default() };
        let check = cache(&ample);
        assert_eq!((check.level, check.remedy), (Level::Ok, None));
        assert_eq!(check.found, "2.00 GiB by default, decided by: 8.00 GiB of memory available");
        let check = cache(&Host { memory_bytes: Some(8 << 20), ..ample });
        assert!(check.found.contains("8.00 MiB of memory available"), "{}", check.found);
        assert!(check.level == Level::Warn && check.remedy.unwrap().contains("free -h"));
    }
}
