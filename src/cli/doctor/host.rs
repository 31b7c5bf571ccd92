//! Kernel, io_uring, processors, memory and the limits of the process.

use rustix::process::{Resource, Rlimit, getrlimit};

use crate::base::human::format_size;

use super::{Check, kernel_numbers, kernel_text};

/// First kernel with every ring flag that the workers want (`DEFER_TASKRUN`).
const KERNEL_MIN: (u32, u32) = (6, 1);
/// Descriptors for the connections of one busy core, and some to spare.
const NOFILE_WANTED: u64 = 65_536;
/// One arena region: less locked memory than this and no buffer can be registered.
const MEMLOCK_WANTED: u64 = 64 << 20;
/// Memory below which the default cache would be small.
const MEMORY_WANTED: u64 = 1 << 30;

pub(super) fn checks() -> Vec<Check> {
    let rings = kernel_text("/proc/sys/kernel/io_uring_disabled");
    let root = rustix::process::geteuid().is_root();
    let mut checks = vec![
        kernel(&rustix::system::uname().release().to_string_lossy()),
        sysctl_io_uring(rings.as_deref(), root),
    ];
    checks.extend([
        processors(std::thread::available_parallelism().map_or(1, usize::from)),
        memlock(getrlimit(Resource::Memlock), root),
        nofile(getrlimit(Resource::Nofile)),
        huge_pages(kernel_text("/sys/kernel/mm/transparent_hugepage/enabled").as_deref()),
        memory(&kernel_text("/proc/meminfo").unwrap_or_default()),
    ]);
    if root {
        let remedy = "give it a user of its own: sudo useradd --system troc";
        checks.push(Check::warn("user", "root: a node needs no privileges", remedy));
    }
    checks
}

fn kernel(release: &str) -> Check {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|word| word.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= KERNEL_MIN {
        return Check::ok("kernel", release);
    }
    Check::bad(
        "kernel",
        release,
        "install Linux 6.1 or newer: older ones lack ring features the workers need",
    )
}

/// The `io_uring_disabled` sysctl: 0 for all, 1 for the privileged, 2 for nobody; older kernels lack it.
fn sysctl_io_uring(value: Option<&str>, root: bool) -> Check {
    const REMEDY: &str = "allow it: sudo sysctl -w kernel.io_uring_disabled=0";
    match value {
        None | Some("0") => Check::ok("io_uring sysctl", "allowed for everybody"),
        Some("1") if root => Check::ok("io_uring sysctl", "allowed for root"),
        Some("1") => Check::bad("io_uring sysctl", "allowed for privileged processes only", REMEDY),
        Some(_) => Check::bad("io_uring sysctl", "refused to everybody", REMEDY),
    }
}

fn processors(allowed: usize) -> Check {
    let online = kernel_text("/sys/devices/system/cpu/online").unwrap_or_else(|| "unknown".to_owned());
    Check::ok("processors", format!("{allowed} allowed (online: {online}), one worker each"))
}

fn memlock(limit: Rlimit, root: bool) -> Check {
    let found = limit.current.map_or_else(|| "unlimited".to_owned(), format_size);
    if root || limit.current.is_none_or(|bytes| bytes >= MEMLOCK_WANTED) {
        return Check::ok("locked memory", found);
    }
    let remedy = "buffers cannot be registered, which costs speed: ulimit -l unlimited, or \
                  LimitMEMLOCK=infinity in the service";
    Check::warn("locked memory", found, remedy)
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

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        for (release, level) in [
            ("6.1.0-13-amd64", Level::Ok),
            ("6.18.44-fc", Level::Ok),
            ("10.0", Level::Ok),
            ("6.0.19", Level::Bad),
            ("5.15.0-91-generic", Level::Bad),
            ("", Level::Bad),
            ("99999999999999", Level::Bad),
        ] {
            assert_eq!(kernel(release).level, level, "{release}");
        }
    }

    #[test]
    fn a_refused_ring_is_bad_and_says_which_command_mends_it() {
        assert_eq!(sysctl_io_uring(None, false).level, Level::Ok);
        assert_eq!(sysctl_io_uring(Some("1"), true).level, Level::Ok);
        for value in ["1", "2", "rubbish"] {
            let check = sysctl_io_uring(Some(value), false);
            assert_eq!(check.level, Level::Bad);
            assert!(check.remedy.unwrap().contains("sysctl -w kernel.io_uring_disabled=0"));
        }
    }

    #[test]
    fn limits_are_judged_at_their_boundary() {
        let limit = |current, maximum| Rlimit { current, maximum };
        for (bytes, level) in
            [(Some(MEMLOCK_WANTED - 1), Level::Warn), (Some(MEMLOCK_WANTED), Level::Ok), (None, Level::Ok)]
        {
            assert_eq!(memlock(limit(bytes, None), false).level, level);
        }
        assert_eq!(memlock(limit(Some(0), None), true).level, Level::Ok);
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
