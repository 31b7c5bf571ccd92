//! A relay in a control group of its own gives the cache's memory back when its neighbour takes what is
//! left, and goes on serving. Where no group can be made the test says so and ends.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::node::{Node, get, troc};
use support::poll;
use support::torrent::Torrent;

const MIB: u64 = 1 << 20;
/// Of the group: the low mark is then 32 MiB.
const LIMIT: u64 = 256 * MIB;
/// Two regions, one of which always stays.
const CACHE: u64 = 128 * MIB;
/// More than the cache holds.
const PAYLOAD: u64 = 160 * MIB;

/// A control group below ours.
struct Group {
    dir: PathBuf,
    usage: &'static str,
}

impl Group {
    /// By version 1 or 2, whichever has the memory controller here.
    fn new() -> Result<Self, String> {
        let groups = fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
        let one = |line: &str| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            controllers.split(',').any(|name| name == "memory").then(|| path.to_owned())
        };
        let two = groups.lines().find_map(|line| line.strip_prefix("0::"));
        let (root, path, limit, usage) = match (groups.lines().find_map(one), two) {
            (Some(path), _) => {
                ("/sys/fs/cgroup/memory", path, "memory.limit_in_bytes", "memory.usage_in_bytes")
            }
            (None, Some(path)) => ("/sys/fs/cgroup", path.to_owned(), "memory.max", "memory.current"),
            (None, None) => return Err("no memory controller".to_owned()),
        };
        let name = format!("troc-test-{}", std::process::id());
        let dir = Path::new(root).join(path.trim_start_matches('/')).join(name);
        fs::create_dir(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let group = Self { dir, usage };
        fs::write(group.dir.join(limit), LIMIT.to_string()).map_err(|error| format!("{limit}: {error}"))?;
        Ok(group)
    }

    /// The command, in the group.
    fn inside(&self, command: &Command) -> Command {
        let mut wrapped = Command::new("sh");
        wrapped.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(self.dir.join("cgroup.procs"));
        wrapped.arg(command.get_program()).args(command.get_args());
        let envs = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
        wrapped.envs(envs);
        wrapped
    }

    /// Without page cache that the kernel drops when the group needs room.
    fn used_bytes(&self) -> u64 {
        let read = |name: &str| fs::read_to_string(self.dir.join(name)).expect("the group's usage");
        let number = |text: &str| text.trim().parse::<u64>().expect("a number");
        let (stat, name) =
            (read("memory.stat"), if self.is_v1() { "total_inactive_file " } else { "inactive_file " });
        let droppable = stat.lines().find_map(|line| line.strip_prefix(name)).map_or(0, number);
        number(&read(self.usage)).saturating_sub(droppable)
    }

    fn is_v1(&self) -> bool {
        self.usage == "memory.usage_in_bytes"
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The last process of it has just ended; the kernel takes a moment to see that.
        let gone = || fs::remove_dir(&self.dir).is_ok().then_some(());
        if gone().is_none() && !std::thread::panicking() {
            poll("the control group to be empty", gone);
        }
    }
}

/// Memory of a file system in RAM, charged to the group whose process writes it, until it is removed.
struct Hog(PathBuf);

impl Hog {
    fn new(group: &Group, bytes: u64) -> Self {
        let path = PathBuf::from(format!("/dev/shm/troc-test-{}", std::process::id()));
        let hog = Self(path);
        let mut command = Command::new("sh");
        command.args(["-c", "head -c \"$1\" /dev/zero > \"$0\""]).arg(&hog.0).arg(bytes.to_string());
        assert!(group.inside(&command).status().expect("sh runs").success());
        hog
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().strip_suffix(" kB").expect("kB").parse::<u64>().expect("a number") << 10
}

#[test]
fn a_relay_gives_memory_back_when_its_control_group_runs_short_and_serves_on() {
    let group = match Group::new() {
        Ok(group) => group,
        Err(why) => return eprintln!("SKIPPED a relay in a control group: cannot make one, {why}"),
    };
    let temp = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("temporary directory");
    let scratch = temp.path();
    let torrent = Torrent::single(&scratch.join("source"), "file.bin", PAYLOAD, 1 << 20, 11);
    let file = torrent.write(&scratch.join("file.torrent"), None);
    let mut command = troc("relay", scratch);
    command.arg(&file).arg("--dir").arg(&torrent.source).args(["--listen", "127.0.0.1:0", "--cores", "2"]);
    command.args(["--cache", "128MiB", "--json", "--status-interval-ms", "50"]);
    let mut node = Node::spawn("relay", &mut group.inside(&command), scratch);
    let address = node.wait_seeding().to_string();
    let fetch = |name: &str| {
        let dir = scratch.join(name);
        let mut command = get(&file, &dir, scratch);
        command.args(["--peer", &address]).env("TROC_STATE", scratch.join(format!("{name}-state")));
        Node::spawn(name, &mut command, scratch).expect_done();
        torrent.assert_identical(&dir, name);
    };
    fetch("before");
    let pid = node.process.pid();
    let full = resident_bytes(pid);
    assert!(full >= CACHE, "the cache is full: {full} bytes");
    let left = LIMIT.saturating_sub(group.used_bytes());
    let hog = Hog::new(&group, left.saturating_sub(20 * MIB));
    node.wait("a smaller cache", |status| status.0["cache_bytes"] == CACHE / 2);
    poll("its memory to be given back", || (resident_bytes(pid) + CACHE / 2 <= full + 4 * MIB).then_some(()));
    fetch("after");
    assert!(resident_bytes(pid) < full - CACHE / 4, "it stays small");
    drop(hog);
    node.process.terminate();
    node.expect_done();
    let errors = node.process.errors();
    assert!(errors.contains("the cache shrinks to 64.0 MiB of 128 MiB because"), "{errors}");
}
