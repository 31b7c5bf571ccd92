//! Kernel, processors, memory and the limits of the process. What the rings need, `io` tries itself.

use rustix::process::{Resource, Rlimit, getrlimit};

use crate::base::human::format_size;

use super::{Check, kernel_numbers, kernel_text};

/// Descriptors for the connections of one busy core, and some to spare.
const NOFILE_WANTED: u64 = 65_536;
/// Memory below which the default cache would be small.
const MEMORY_WANTED: u64 = 1 << 30;

pub(super) fn checks() -> Vec<Check> {
    let mut checks = vec![
        Check::ok("kernel", rustix::system::uname().release().to_string_lossy()),
        processors(std::thread::available_parallelism().map_or(1, usize::from)),
        nofile(getrlimit(Resource::Nofile)),
        huge_pages(kernel_text("/sys/kernel/mm/transparent_hugepage/enabled").as_deref()),
        memory(&kernel_text("/proc/meminfo").unwrap_or_default()),
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

fn memory(meminfo: &str) -> Check {
    let kib = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib: Option<u64> = kib.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse().ok());
    let Some(available) = kib.map(|kib| kib.saturating_mul(1024)) else {
        return Check::warn("memory", "unknown", "mount /proc, or give --cache SIZE");
    };
    let found = format!("{} available, default cache {}", format_size(available), format_size(available / 4));
    if available >= MEMORY_WANTED {
        return Check::ok("memory", found);
    }
    Check::warn("memory", found, "free some, or give --cache SIZE to set the cache yourself")
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
        let (little, much) = ("MemAvailable:  1000 kB", "MemTotal: 1 kB\nMemAvailable: 9999999 kB\n");
        assert_eq!((memory(little).level, memory(much).level), (Level::Warn, Level::Ok));
        assert_eq!(memory("").level, Level::Warn);
    }
}
