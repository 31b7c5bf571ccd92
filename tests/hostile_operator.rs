//! What goes wrong on the operator's own machine: each case has its own line, its exit status, and a
//! state that can be resumed. Files that change between or under runs never put a wrong byte out.

mod support;

#[path = "hostile/relay.rs"]
mod relay;
#[path = "hostile/wire.rs"]
mod wire;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use relay::{PIECE, Scene, TOTAL, proc_value};
use support::node::{self, Node};
use support::skip;
use support::torrent::Torrent;
use wire::{BLOCK, Peer, assert_serves};

const TROC: &str = env!("CARGO_BIN_EXE_troc");
/// `nobody` on every Linux host.
const NOBODY: u32 = 65534;

/// Runs a command to its end with its state below `scratch`.
fn run(command: &mut Command, scratch: &Path) -> Output {
    command.env("TROC_STATE", scratch.join("state")).stdin(Stdio::null());
    command.output().expect("a command that can be started")
}

/// Requires one error line on standard error, and this exit status; returns the line.
fn one_line(output: &Output, status: i32) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{text}");
    let errors: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("troc: ")).collect();
    let errors: Vec<&str> = errors.into_iter().filter(|line| !line.starts_with("warning")).collect();
    assert!(errors.len() == 1 && !text.contains("panicked"), "wants one line: {text}");
    errors[0].to_owned()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// `troc get` of a scene from `peer` into its directory `dir`.
fn get(scene: &Scene, dir: &str, peer: &str) -> Command {
    let mut command = Command::new(TROC);
    command.arg("get").arg(&scene.file).arg("-o").arg(scene.path(dir));
    command.args(["--json", "--cache", "64MiB", "--listen", "127.0.0.1:0", "--peer", peer]);
    command
}

/// A port on which nobody listens, held so that nobody will.
fn dead_peer() -> (TcpListener, String) {
    let held = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("socket");
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().expect("an address");
    held.bind(&any.into()).expect("a port");
    let listener: TcpListener = held.into();
    let address = listener.local_addr().expect("an address").to_string();
    (listener, address)
}

#[test]
fn no_peers_is_said_after_a_while_with_status_1() {
    let scene = Scene::new();
    let (_held, nobody) = dead_peer();
    let mut command = get(&scene, "dir", &nobody);
    let line = one_line(&run(command.args(["--no-peers-timeout-ms", "1000"]), scene.temp.path()), 1);
    assert!(line.starts_with("no peers for 1 s, whole: check --peer"), "{line}");
}

#[test]
fn a_port_in_use_is_named_and_nothing_is_made() {
    let scene = Scene::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let mut command = Command::new(TROC);
    command.arg("relay").arg(&scene.file).arg("--dir").arg(&scene.torrent.source);
    let line = one_line(&run(command.args(["--listen", &address]), scene.temp.path()), 1);
    assert!(line.starts_with(&format!("{address} is in use already")), "{line}");
}

#[test]
fn a_missing_directory_is_named() {
    let scene = Scene::new();
    let mut command = Command::new(TROC);
    command.arg("relay").arg(&scene.file).arg("--dir").arg(scene.path("nowhere"));
    let line = one_line(&run(&mut command, scene.temp.path()), 1);
    assert!(line.starts_with("no such directory, ") && line.contains("nowhere"), "{line}");
}

#[test]
fn s17_a_second_node_in_the_same_place_ends_and_the_first_goes_on() {
    let scene = Scene::new();
    let first = scene.relay();
    let mut second = node::relay(&scene.file, &scene.torrent.source, scene.temp.path());
    let output = second.stdin(Stdio::null()).output().expect("a command that can be started");
    let line = one_line(&output, 1);
    let holder = format!("another troc (process {})", first.node.process.pid());
    assert!(line.starts_with(&holder), "{line}");
    assert_serves(first.addr, &scene.payload);
}

#[test]
fn s7_a_full_disk_is_said_before_anything_is_fetched_and_room_lets_it_go_on() {
    if !is_root() {
        return skip("full disk", "only root can mount");
    }
    let scene = Scene::sized(8 << 20, PIECE);
    let relay = scene.relay();
    fs::create_dir(scene.path("small")).expect("mount point");
    // The mount is gone with its namespace, whatever happens.
    let script = r#"mount -t tmpfs -o size=4m tmpfs "$1" || exit 90
        "$2" get "$3" -o "$1" --peer "$4" --listen 127.0.0.1:0 --cache 64MiB; echo "first $?"
        mount -o remount,size=32m "$1" || exit 91
        "$2" get "$3" -o "$1" --peer "$4" --listen 127.0.0.1:0 --cache 64MiB; echo "second $?"
        cmp "$1/whole" "$5" && echo same"#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]);
    command.arg(scene.path("small")).arg(TROC).arg(&scene.file).arg(relay.addr.to_string());
    let output = run(command.arg(scene.source_file()), scene.temp.path());
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if matches!(output.status.code(), Some(90) | Some(1)) && !out.contains("first") {
        return skip("full disk", "this host lets nobody mount");
    }
    assert!(out.contains("first 1\n") && out.contains("second 0\n") && out.contains("same"), "{out}{err}");
    let lines: Vec<&str> = err.lines().filter(|line| line.contains("free space")).collect();
    assert_eq!(lines.len(), 1, "{err}");
    assert!(lines[0].contains("needs 8388608 bytes, has 4194304 free"), "{err}");
}

/// A command whose files may not grow beyond `bytes`: to it the disk is full, as root and as anybody.
fn short_of_space(command: &Command, bytes: u64) -> Command {
    let mut limited = Command::new("sh");
    // The signal would end it; ignored, the write fails.
    limited.args(["-c", r#"trap "" XFSZ; exec prlimit --fsize="$0" "$@""#, &bytes.to_string()]);
    limited.arg(command.get_program()).args(command.get_args());
    limited
}

#[test]
fn s7_a_state_directory_without_space_is_said_and_space_lets_it_go_on() {
    let temp = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("temporary directory");
    // The journal names each file, and so becomes longer than any of them.
    let names: Vec<String> = (0..64).map(|number| format!("f{number}")).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), 1024)).collect();
    let torrent = Torrent::multi(&temp.path().join("source"), "set", &files, 16 << 10, 1);
    let file = torrent.write(&temp.path().join("a.torrent"), None);
    let mut relay = node::relay(&file, &torrent.source, temp.path());
    let mut relay = Node::spawn("relay", &mut relay, temp.path());
    let mut command = Command::new(TROC);
    command.arg("get").arg(&file).arg("-o").arg(temp.path().join("dir"));
    command.args(["--json", "--cache", "64MiB", "--listen", "127.0.0.1:0"]);
    command.args(["--peer", &relay.wait_seeding().to_string()]);

    let line = one_line(&run(&mut short_of_space(&command, 0), temp.path()), 1);
    assert!(line.contains("secret: ") && line.contains("--state or TROC_STATE"), "{line}");
    assert_eq!(fs::read_dir(temp.path().join("state")).expect("state").count(), 0, "no half of a file");

    let line = one_line(&run(&mut short_of_space(&command, 1024), temp.path()), 1);
    assert!(line.starts_with("set: the journal could not be written: "), "{line}");
    assert!(line.ends_with(": free space or check the disk"), "{line}");

    let output = run(&mut command, temp.path());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    torrent.assert_identical(&temp.path().join("dir"), "get");
}

#[test]
fn s7_a_ledger_without_space_is_a_warning_and_the_node_serves_on() {
    // One piece: of all files in the state directory the ledger alone outgrows the limit.
    let scene = Scene::sized(u64::from(2 * BLOCK), 2 * BLOCK);
    let mut command = node::relay(&scene.file, &scene.torrent.source, scene.temp.path());
    command.arg("--state").arg(scene.path("state")).args(["--ledger-interval-ms", "10"]);
    let mut node = Node::spawn("relay", &mut short_of_space(&command, 1024), scene.temp.path());
    let addr = node.wait_seeding();
    // On loopback each connection is a party.
    for _ in 0..20 {
        let mut party = Peer::served(addr, &scene.payload.info_hash);
        assert!(party.fetch(0, 0, BLOCK).is_some());
    }
    support::poll("a warning", || {
        node.process.errors().contains("the ledger could not be written: ").then_some(())
    });
    assert_serves(addr, &scene.payload);
    node.process.terminate();
    node.expect_done();
}

/// Runs a command as Docker's default profile has it: io_uring is refused.
fn run_without_io_uring(mut command: Command, scratch: &Path) -> Output {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
    let calls = [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];
    let rules = calls.into_iter().map(|call| (call, Vec::new())).collect();
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let arch = std::env::consts::ARCH.try_into().expect("an architecture that has seccomp");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).expect("a filter");
    let program: BpfProgram = filter.try_into().expect("a program");
    // A filter is for one thread, and for what it starts.
    std::thread::scope(|scope| {
        let runner = scope.spawn(|| {
            seccompiler::apply_filter(&program).expect("a filter that only refuses is for anybody");
            run(&mut command, scratch)
        });
        runner.join().expect("it does not panic")
    })
}

#[test]
fn u1_io_uring_refused_by_seccomp_is_said_and_nothing_is_written() {
    let scene = Scene::new();
    let mut relay = Command::new(TROC);
    relay.arg("relay").arg(&scene.file).arg("--dir").arg(&scene.torrent.source);
    relay.args(["--listen", "127.0.0.1:0", "--cache", "64MiB"]);
    for command in [relay, get(&scene, "dir", "127.0.0.1:1")] {
        let line = one_line(&run_without_io_uring(command, scene.temp.path()), 1);
        assert!(line.starts_with("io_uring is refused here (EPERM)"), "{line}");
        assert!(line.contains("seccomp=unconfined"), "{line}");
        assert!(!scene.path("state").exists() && !scene.path("dir").exists(), "something was written");
    }
    let mut doctor = Command::new(TROC);
    doctor.arg("doctor").arg("--dir").arg(scene.temp.path());
    let output = run_without_io_uring(doctor, scene.temp.path());
    let line = one_line(&output, 1);
    assert!(line.starts_with("this host does not allow it, ") && line.contains("io_uring"), "{line}");
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    let bad = report.lines().find(|line| line.starts_with("bad   io_uring")).expect(&report);
    assert!(bad.contains("refused here (EPERM)") && report.contains("-> "), "{report}");
    assert!(report.contains("seccomp=unconfined"), "{report}");
}

/// The binary where any user may run it, and a state directory of `user`.
fn for_user(scene: &Scene, user: u32) -> std::path::PathBuf {
    let binary = scene.path("troc");
    fs::copy(TROC, &binary).expect("a copy of the binary");
    for path in [scene.temp.path(), &binary, &scene.file] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("permissions");
    }
    fs::create_dir_all(scene.path("state")).expect("state directory");
    std::os::unix::fs::chown(scene.path("state"), Some(user), Some(user)).expect("another owner");
    binary
}

fn as_nobody(binary: &Path) -> Command {
    let mut command = Command::new("setpriv");
    let user = NOBODY.to_string();
    command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]).arg(binary);
    command
}

#[test]
fn a_directory_that_may_not_be_written_is_named_and_payload_that_may_only_be_read_is_served() {
    if !is_root() {
        return skip("permissions", "only root can become another user");
    }
    let scene = Scene::public();
    let binary = for_user(&scene, NOBODY);
    fs::create_dir(scene.path("closed")).expect("directory");
    fs::set_permissions(scene.path("closed"), fs::Permissions::from_mode(0o755)).expect("permissions");
    let mut command = as_nobody(&binary);
    command.arg("get").arg(&scene.file).arg("-o").arg(scene.path("closed"));
    command.args(["--peer", "127.0.0.1:1", "--listen", "127.0.0.1:0", "--cache", "64MiB"]);
    let line = one_line(&run(&mut command, scene.temp.path()), 1);
    assert!(line.contains("closed/whole: permission denied: give this user access"), "{line}");

    let mut command = as_nobody(&binary);
    command.arg("relay").arg(&scene.file).arg("--dir").arg(&scene.torrent.source);
    command.args(["--json", "--listen", "127.0.0.1:0", "--cache", "64MiB"]);
    command.env("TROC_STATE", scene.path("state"));
    let mut relay = Node::spawn("reader", &mut command, scene.temp.path());
    assert_serves(relay.wait_seeding(), &scene.payload);
}

#[test]
fn u1_without_locked_memory_the_remedy_is_named() {
    if !is_root() {
        return skip("memlock", "only root can become another user");
    }
    let scene = Scene::public();
    let binary = for_user(&scene, 61234);
    // A user of its own: what a user's other processes hold counts too.
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "61234", "--regid", "61234", "--clear-groups", "prlimit", "--memlock=0"]);
    command.arg(&binary).arg("relay").arg(&scene.file).arg("--dir").arg(&scene.torrent.source);
    let output = run(command.args(["--listen", "127.0.0.1:0", "--cache", "64MiB"]), scene.temp.path());
    let line = one_line(&output, 1);
    assert!(line.contains("ulimit -l"), "{line}");
}

/// A relay of the usual scene with one worker and so large a cache; `user` comes before its binary.
fn relay_with_cache(scene: &Scene, mut user: Command, binary: &Path, cache: &str) -> Node {
    user.arg(binary).arg("relay").arg(&scene.file).arg("--dir").arg(&scene.torrent.source);
    user.args(["--json", "--listen", "127.0.0.1:0", "--cores", "1", "--cache", cache]);
    user.env("TROC_STATE", scene.path("state"));
    Node::spawn("relay", &mut user, scene.temp.path())
}

#[test]
fn a_cache_larger_than_locked_memory_is_used_unregistered_with_a_warning() {
    if !is_root() {
        return skip("memlock", "only root can become another user");
    }
    let scene = Scene::public();
    let binary = for_user(&scene, 61235);
    let mut user = Command::new("prlimit");
    // Enough for the rings, and for no region. A user of its own: what its other processes hold counts too.
    user.args(["--memlock=8388608", "setpriv", "--reuid", "61235", "--regid", "61235", "--clear-groups"]);
    let mut relay = relay_with_cache(&scene, user, &binary, "1GiB");
    assert_serves(relay.wait_seeding(), &scene.payload);
    let pinned = proc_value(relay.process.pid(), "status", "VmPin") << 10;
    assert!(pinned < 8 << 20, "{pinned} bytes are pinned");
    let said = relay.process.errors();
    for part in
        ["cannot register cache memory", "locked-memory limit 8192 KiB", "`ulimit -l`", "LimitMEMLOCK"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    relay.process.terminate();
    relay.expect_done();
}

#[test]
fn a_cache_larger_than_memory_is_cut_with_a_warning_and_serves() {
    let scene = Scene::new();
    let user = Command::new("env");
    let mut relay = relay_with_cache(&scene, user, Path::new(TROC), "1024TiB");
    assert_serves(relay.wait_seeding(), &scene.payload);
    let said = relay.process.errors();
    assert!(said.contains("the cache has ") && said.contains(", not 1.00 PiB, "), "{said}");
    let (memory, cgroup) = ("see `free -h`", "--memory of the container");
    assert!(said.contains(memory) || said.contains(cgroup), "{said}");
    relay.process.terminate();
    relay.expect_done();
}

#[test]
fn t18_t19_a_link_a_fifo_or_a_directory_in_place_of_a_file_is_named_and_left_alone() {
    for kind in ["link", "dangling", "fifo", "directory"] {
        let scene = Scene::new();
        let canary = scene.path("canary");
        fs::write(&canary, vec![7; TOTAL as usize]).expect("canary");
        fs::create_dir(scene.path("dir")).expect("directory");
        let there = scene.path("dir").join("whole");
        match kind {
            "link" => std::os::unix::fs::symlink(&canary, &there).expect("link"),
            "dangling" => std::os::unix::fs::symlink(scene.path("absent"), &there).expect("link"),
            "fifo" => assert!(Command::new("mkfifo").arg(&there).status().expect("mkfifo").success()),
            _ => fs::create_dir(&there).expect("directory"),
        }
        let line = one_line(&run(&mut get(&scene, "dir", "127.0.0.1:1"), scene.temp.path()), 1);
        let expected =
            if kind == "link" || kind == "dangling" { "symbolic link" } else { "not a regular file" };
        assert!(line.contains("dir/whole: ") && line.contains(expected), "{kind}: {line}");
        assert!(fs::read(&canary).expect("canary").iter().all(|byte| *byte == 7), "{kind}");
        assert!(!scene.path("absent").exists());
    }
}

#[test]
fn t18_a_link_in_place_of_a_directory_of_the_torrent_is_not_followed() {
    let temp = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("temporary directory");
    let path = |name: &str| temp.path().join(name);
    let files = [("sub/a", 100_000), ("b", 10)];
    let torrent = Torrent::multi(&path("source"), "many", &files, PIECE.into(), 3);
    let file = torrent.write(&path("a.torrent"), None);
    fs::create_dir_all(path("dir/many")).expect("directory");
    fs::create_dir(path("outside")).expect("directory");
    std::os::unix::fs::symlink(path("outside"), path("dir/many/sub")).expect("link");
    let mut command = Command::new(TROC);
    command.arg("get").arg(&file).arg("-o").arg(path("dir"));
    command.args(["--peer", "127.0.0.1:1", "--listen", "127.0.0.1:0", "--cache", "64MiB"]);
    let line = one_line(&run(&mut command, temp.path()), 1);
    assert!(line.contains("many/sub/a: a symbolic link is in the way"), "{line}");
    assert_eq!(fs::read_dir(path("outside")).expect("directory").count(), 0);
}

#[test]
fn s5_s6_files_that_changed_while_the_node_was_away_are_checked_again() {
    let scene = Scene::new();
    let stop = |mut relay: relay::Relay| {
        relay.node.process.terminate();
        relay.node.expect_done();
    };
    stop(scene.relay());
    let whole = fs::read(scene.source_file()).expect("payload");
    let changed = {
        let mut bytes = whole.clone();
        bytes[PIECE as usize * 2 + 9] ^= 1;
        bytes
    };
    // Changed in one byte; and shorter: every piece but the damaged ones is served, those never.
    for (bytes, lost) in [(&changed[..], vec![2]), (&whole[..whole.len() - PIECE as usize], vec![15, 16])] {
        fs::write(scene.source_file(), bytes).expect("change");
        let mut command = node::relay(&scene.file, &scene.torrent.source, scene.temp.path());
        let mut relay = Node::spawn("relay", &mut command, scene.temp.path());
        let status = relay.wait("the end of its check", |status| status.state() == "fetching");
        let addr = status.listen().expect("it listens");
        let mut peer = Peer::served(addr, &scene.payload.info_hash);
        for piece in 0..17 {
            let found = peer.fetch(piece, 0, 1_000);
            let wanted = scene.payload.block(piece, 0, 1_000);
            let expected = (!lost.contains(&piece)).then_some(wanted);
            assert!(found.as_deref() == expected, "piece {piece}");
        }
        relay.process.terminate();
        relay.expect_done();
    }
    fs::write(scene.source_file(), &whole).expect("change");
    assert_serves(scene.relay().addr, &scene.payload);
}

#[test]
fn s6_a_file_cut_short_under_a_seed_is_refused_from_there_on() {
    let scene = Scene::new();
    let relay = scene.relay();
    let file = fs::OpenOptions::new().write(true).open(scene.source_file()).expect("payload");
    file.set_len(u64::from(PIECE) * 3 + 5).expect("cut");
    let mut peer = Peer::served(relay.addr, &scene.payload.info_hash);
    for piece in 0..17 {
        let found = peer.fetch(piece, 0, BLOCK.min(3_000));
        let wanted = scene.payload.block(piece, 0, 3_000);
        assert!(found.as_deref() == (piece < 3).then_some(wanted), "piece {piece}");
    }
}

#[test]
fn s20_ctrl_c_in_the_middle_keeps_all_that_was_verified() {
    const SIZE: u64 = 32 << 20;
    let scene = Scene::sized(SIZE, 256 << 10);
    let relay = scene.relay();
    let mut command = node::get(&scene.file, &scene.path("dir"), &scene.path("get"));
    command.args(["--peer", &relay.addr.to_string(), "--download-limit", "40MiB/s"]);
    let mut first = Node::spawn("first", &mut command, scene.temp.path());
    first.wait("a quarter", |status| status.bytes("verified_bytes") >= SIZE / 4);
    let pid = rustix::process::Pid::from_raw(first.process.pid() as i32).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("a child can be signalled");
    let mut verified = 0;
    while let Some(status) = first.next_status() {
        verified = status.bytes("verified_bytes");
    }
    assert_eq!(first.process.wait().code(), Some(1), "{}", first.process.errors());
    let said = first.process.errors();
    assert!(said.lines().filter(|line| line.contains("start again to go on")).count() == 1, "{said}");
    assert!((SIZE / 4..SIZE).contains(&verified), "{verified}");

    let mut second = Node::spawn("second", &mut command, scene.temp.path());
    let status = second.wait("the end of its check", |status| status.state() != "checking");
    assert!(status.bytes("durable_bytes") >= verified, "{verified} were verified");
    let mut last = status;
    while let Some(status) = second.next_status() {
        last = status;
    }
    second.expect_done();
    assert!(last.bytes("downloaded_bytes") <= SIZE - verified, "nothing is fetched twice");
    scene.torrent.assert_identical(&scene.path("dir"), "second");
}

#[test]
fn a_complete_torrent_starts_again_without_reading_its_payload() {
    const SIZE: u64 = 256 << 20;
    let scene = Scene::sized(SIZE, 1 << 20);
    let forget = || {
        let file = fs::File::open(scene.source_file()).expect("payload");
        file.sync_all().expect("sync");
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("advice");
    };
    let mut reads = Vec::new();
    for _ in 0..2 {
        forget();
        let mut relay = scene.relay();
        reads.push(proc_value(relay.node.process.pid(), "io", "read_bytes"));
        let mut peer = Peer::served(relay.addr, &scene.payload.info_hash);
        let wanted = scene.payload.block(100, 0, BLOCK);
        assert!(peer.fetch(100, 0, BLOCK).as_deref() == Some(wanted));
        relay.node.process.terminate();
        relay.node.expect_done();
    }
    if reads[0] < SIZE / 2 {
        return skip("restart", "this file system does not account what is read");
    }
    assert!(reads[1] < 8 << 20, "{reads:?} bytes were read");
}
