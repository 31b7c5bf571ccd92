//! What the kernel says of memory: the machine's and the control group's.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// Version 1 of control groups writes "no limit" as the largest number of whole pages.
const UNLIMITED_FROM: u64 = 1 << 60;

/// What bounds a cache on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// `MemAvailable`; `None` where it cannot be read.
    pub memory_bytes: Option<u64>,
    /// `MemTotal`.
    pub memory_total_bytes: Option<u64>,
    /// Part of the last ten seconds in which some task waited for memory, in thousandths: of the machine or
    /// of our own control group (`avg10` of "some" in the kernel's pressure files), whichever is more.
    pub stalled_permille: u32,
    /// The tightest limit of the control groups that we are in.
    pub cgroup: Option<CgroupRoom>,
}

/// Memory that a control group still has for us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupRoom {
    /// Below the limit, page cache that can be dropped included.
    pub bytes: u64,
    /// The limit.
    pub limit_bytes: u64,
    /// The file that holds it.
    pub file: String,
}

impl CgroupRoom {
    /// How to raise the limit.
    pub fn remedy(&self) -> String {
        let name = if self.file.ends_with("memory.high") { "MemoryHigh" } else { "MemoryMax" };
        format!("raise {name}= in the systemd unit or --memory of the container, or give a smaller --cache")
    }
}

impl Host {
    /// The host as it is now.
    pub fn look() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (memory, groups) = (text("/proc/meminfo"), text("/proc/self/cgroup"));
        let mount = Path::new("/sys/fs/cgroup");
        let own = own_group(&groups, mount).map(|group| group.join("memory.pressure"));
        let own = own.and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
        Self {
            memory_bytes: kilobytes(&memory, "MemAvailable:"),
            memory_total_bytes: kilobytes(&memory, "MemTotal:"),
            stalled_permille: stalled(&text("/proc/pressure/memory")).max(stalled(&own)),
            cgroup: cgroup_room(&groups, mount),
        }
    }
}

/// A line of /proc/meminfo, in bytes.
fn kilobytes(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// `some avg10=12.34 ...` as 123; 0 where the kernel does not say.
fn stalled(pressure: &str) -> u32 {
    let some = pressure.lines().find_map(|line| line.strip_prefix("some avg10="));
    let percent = some.and_then(|rest| rest.split(' ').next()?.parse::<f32>().ok());
    // Out of range saturates.
    percent.map_or(0, |percent| (percent * 10.0) as u32)
}

/// Our own group, in version 2.
fn own_group(groups: &str, mount: &Path) -> Option<PathBuf> {
    groups.lines().find_map(|line| line.strip_prefix("0::")).map(|path| mount.join(inside(path)))
}

/// A path that leaves the namespace leads to nothing that is mounted here.
fn inside(path: &str) -> PathBuf {
    Path::new(path).components().filter(|part| matches!(part, Component::Normal(_))).collect()
}

/// The names of one version of control groups.
struct Files {
    limits: &'static [&'static str],
    usage: &'static str,
    /// In `memory.stat`: page cache that nobody has used lately.
    droppable: &'static str,
}

const V1: Files = Files {
    limits: &["memory.limit_in_bytes"],
    usage: "memory.usage_in_bytes",
    droppable: "total_inactive_file",
};

const V2: Files =
    Files { limits: &["memory.max", "memory.high"], usage: "memory.current", droppable: "inactive_file" };

/// The tightest room of our group and all above it. `groups` is /proc/self/cgroup, `mount` where the
/// hierarchies are mounted.
fn cgroup_room(groups: &str, mount: &Path) -> Option<CgroupRoom> {
    let rooms = groups.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let (root, files) = match controllers {
            "" => (mount.to_owned(), &V2),
            controllers if controllers.split(',').any(|name| name == "memory") => (mount.join("memory"), &V1),
            _ => return None,
        };
        tightest(&root, path, files)
    });
    rooms.min_by_key(|room| room.bytes)
}

fn tightest(root: &Path, path: &str, files: &Files) -> Option<CgroupRoom> {
    let group = root.join(inside(path));
    let groups = group.ancestors().take_while(|group| group.starts_with(root));
    groups.filter_map(|group| room_of(group, files)).min_by_key(|room| room.bytes)
}

fn room_of(group: &Path, files: &Files) -> Option<CgroupRoom> {
    let read = |name: &str| fs::read_to_string(group.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    let limits = files.limits.iter().filter_map(|name| Some((number(name)?, *name)));
    let (limit_bytes, name) = limits.filter(|(limit, _)| *limit < UNLIMITED_FROM).min()?;
    let stat = read("memory.stat").unwrap_or_default();
    let droppable = stat.lines().find_map(|line| line.strip_prefix(files.droppable)?.trim().parse().ok());
    let used = number(files.usage).unwrap_or(0).saturating_sub(droppable.unwrap_or(0));
    let file = group.join(name).display().to_string();
    Some(CgroupRoom { bytes: limit_bytes.saturating_sub(used), limit_bytes, file })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read_and_nonsense_is_not() {
        let available = |text| kilobytes(text, "MemAvailable:");
        assert_eq!(available("MemTotal: 9 kB\nMemAvailable:   1000 kB\n"), Some(1_024_000));
        for text in ["", "MemAvailable: x kB", "MemAvailable: 1", "MemAvailable: 18446744073709551615 kB"] {
            assert_eq!(available(text), None, "{text}");
        }
    }

    #[test]
    fn stalls_are_read_in_thousandths_and_nonsense_is_none() {
        let text = "some avg10=12.34 avg60=1.00 avg300=0.00 total=5\nfull avg10=99.00 avg60=0.00\n";
        assert_eq!(stalled(text), 123);
        for (text, want) in [("", 0), ("some avg10=x", 0), ("full avg10=5.00", 0), ("some avg10=-1", 0)] {
            assert_eq!(stalled(text), want, "{text}");
        }
        let mount = Path::new("/m");
        assert_eq!(own_group("4:memory:/x\n0::/../a/b\n", mount), Some("/m/a/b".into()));
        assert_eq!(own_group("4:memory:/x\n", mount), None);
    }

    /// A tree of control groups: files below it with their text.
    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn the_tightest_group_counts_with_what_it_can_drop() {
        let dir = tree(&[
            ("a/memory.max", "1000\n"),
            ("a/memory.current", "900\n"),
            ("a/memory.stat", "anon 5\ninactive_file 300\n"),
            ("a/b/memory.max", "max\n"),
            ("a/b/memory.high", "800\n"),
            ("a/b/memory.current", "100\n"),
        ]);
        let room = cgroup_room("1:cpu:/x\n0::/a/b\n", dir.path()).unwrap();
        assert_eq!((room.bytes, room.limit_bytes), (400, 1000), "the parent has less left");
        assert!(room.file.ends_with("/a/memory.max") && room.remedy().contains("MemoryMax="));
        fs::write(dir.path().join("a/memory.current"), "300").unwrap();
        let room = cgroup_room("0::/a/b\n", dir.path()).unwrap();
        assert_eq!((room.bytes, room.limit_bytes), (700, 800));
        assert!(room.remedy().contains("MemoryHigh="));
    }

    #[test]
    fn a_container_sees_its_own_group_at_the_root_whatever_its_path() {
        let dir = tree(&[("memory.max", "500"), ("memory.current", "600")]);
        for path in ["/", "/../..", "/not/here"] {
            let room = cgroup_room(&format!("0::{path}\n"), dir.path()).unwrap();
            assert_eq!((room.bytes, room.limit_bytes), (0, 500), "{path}");
        }
    }

    #[test]
    fn version_1_has_other_names_and_writes_no_limit_as_a_number() {
        let none = ("memory/memory.limit_in_bytes", "9223372036854771712\n");
        let usage = ("memory/x/memory.usage_in_bytes", "10\n");
        let dir = tree(&[none, usage, ("memory/x/memory.limit_in_bytes", "100\n")]);
        let room = cgroup_room("4:memory:/x\n0::/\n", dir.path()).unwrap();
        assert_eq!((room.bytes, room.limit_bytes), (90, 100));
        assert_eq!(cgroup_room("4:memory:/\n", dir.path()), None);
        assert_eq!(cgroup_room("nonsense\n0::", dir.path()), None);
    }

    #[test]
    fn this_host_says_how_much_memory_it_has() {
        let host = Host::look();
        assert!(host.memory_bytes.is_some() && host.memory_bytes <= host.memory_total_bytes);
    }
}
