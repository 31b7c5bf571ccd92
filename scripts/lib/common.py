"""What the load scripts share: the machine, payloads, processes, and what they are allowed to load."""
import argparse
import contextlib
import copy
import hashlib
import ipaddress
import json
import os
import pathlib
import queue
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
VENV = pathlib.Path(os.environ.get("TROC_VENV", ROOT / ".venv"))
CPUS = sorted(os.sched_getaffinity(0))
# One core for what is measured, one for what measures; the same one where there is only one.
SEEDER_CPU, GENERATOR_CPU = CPUS[0], CPUS[min(1, len(CPUS) - 1)]
# How long a client may take to check its payload, or to fetch.
PATIENCE_S = 300
# Rounds of the whole payload before a seeder's memory must have stopped growing.
WARM_UP_ROUNDS_MAX = 8
SECONDS_MAX, PAIRS_MAX = 600, 100


def parser(doc, seconds=5, pairs=3, size_default=1 << 30):
    """The options that all have; `doc` is the script's own text. Without a default there is no --seconds."""
    made = argparse.ArgumentParser(description=described(doc), formatter_class=argparse.RawDescriptionHelpFormatter)
    default = written(size_default) if size_default else "the scenario's"
    made.add_argument("--size", type=size, default=size_default, help=f"payload, as in 512MiB (default: {default})")
    made.add_argument("--pairs", type=bounded(PAIRS_MAX), default=pairs, help="turns (default: %(default)s)")
    if seconds:
        made.add_argument(
            "--seconds", type=bounded(SECONDS_MAX), default=seconds, help="length of one run (default: %(default)s)"
        )
    made.add_argument("--troc", type=pathlib.Path, help="measure this program instead of building one")
    made.add_argument("--profile", default="bench", help="cargo profile of troc (default: bench)")
    made.add_argument("--no-build", action="store_true", help="take the build that is there")
    made.add_argument("--scratch", type=pathlib.Path, help="directory for payloads (default: in the target directory)")
    made.add_argument(
        "--results", type=pathlib.Path, default=ROOT / "perf/results", help="where to write (default: perf/results)"
    )
    made.add_argument("--stay-quiet", action="store_true", help="write no file")
    return made


def described(doc):
    """What --help says above the options: all but the line that leads to them."""
    return "\n".join(line for line in doc.splitlines() if "--help lists" not in line)


def bounded(most):
    def read(text):
        if not text.isdecimal() or not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text}: a whole number from 1 to {most}")
        return int(text)

    return read


SIZES = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("", 1))


def size(text):
    suffix, factor = next(pair for pair in SIZES if text.endswith(pair[0]))
    number = text.removesuffix(suffix)
    if not number.isdecimal() or int(number) == 0:
        raise argparse.ArgumentTypeError(f"{text}: write a whole number with KiB, MiB or GiB, such as 512MiB")
    return int(number) * factor


def written(count):
    """Bytes as `size` reads them."""
    suffix, factor = next(pair for pair in SIZES if count % pair[1] == 0)
    return f"{count // factor}{suffix}"


def say(text):
    print(text, file=sys.stderr, flush=True)


def seeder_arguments(made):
    """For scripts that can load a seeder that runs already."""
    made.add_argument("--seeder", metavar="ADDR:PORT", help="load this seeder instead of starting troc")
    made.add_argument("--torrent", type=pathlib.Path, help="the torrent that --seeder has")
    made.add_argument("--pid", type=int, help="the process of --seeder, to measure it")
    made.add_argument("--allow-remote", action="store_true", help="allow a seeder that is not on loopback: ask its owner")


def check_seeder(args):
    """Ends unless the address is loopback, or the user has said that it may be another."""
    if not args.seeder:
        return
    if not args.torrent:
        raise SystemExit("--seeder needs --torrent FILE")
    host = args.seeder.rpartition(":")[0].strip("[]")
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        raise SystemExit(f"{args.seeder}: write an IP address and a port, such as 127.0.0.1:6881") from None
    if not local and not args.allow_remote:
        raise SystemExit(f"{args.seeder} is not a loopback address: add --allow-remote for machines of your own")


def prepare(args):
    """Builds, raises the limit on descriptors, makes the scratch directory: the binary and the directory."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if not args.troc and not args.no_build:
        subprocess.run(["cargo", "build", "--locked", "--profile", args.profile], cwd=ROOT, check=True)
    # Cargo puts the profile `bench` beside `release`.
    built = TARGET / {"bench": "release", "dev": "debug"}.get(args.profile, args.profile) / "troc"
    troc = (args.troc or built).resolve()
    if not troc.is_file():
        raise SystemExit(f"no such program, {troc}: leave out --no-build, or give --troc another")
    home = args.scratch or TARGET / "load"
    home.mkdir(parents=True, exist_ok=True)
    return troc, home


@contextlib.contextmanager
def scratch_directory(home, prefix="run-"):
    path = pathlib.Path(tempfile.mkdtemp(dir=home, prefix=prefix))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


class Payload:
    """A torrent, and the directory that holds its payload."""

    def __init__(self, troc, home, name, files, piece="1MiB"):
        self.dir = home / name
        self.torrent = home / f"{name}.torrent"
        self.name = "payload"
        self.piece = piece
        self.files = files
        self.total_bytes = sum(length for _, length in files)
        if not self.torrent.exists():
            shutil.rmtree(self.dir, ignore_errors=True)
            for path, length in files:
                target = self.dir / self.name / path if path else self.dir / self.name
                target.parent.mkdir(parents=True, exist_ok=True)
                with open(target, "wb") as out:
                    subprocess.run(["head", "-c", str(length), "/dev/urandom"], stdout=out, check=True)
            self.create(troc)

    def create(self, troc, *words):
        """Makes the torrent."""
        command = [troc, "create", self.dir / self.name, "-o", self.torrent, "--piece-size", self.piece, *words]
        subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)

    def with_torrent(self, troc, torrent, *words):
        """The same files by another torrent, made anew."""
        other = copy.copy(self)
        other.torrent = torrent
        other.create(troc, *words)
        return other

    def of_version(self, troc, version):
        """The same files as `v2` or `hybrid`."""
        return self.with_torrent(troc, self.torrent.with_name(f"{self.dir.name}-{version}.torrent"), f"--{version}")

    def info_hash(self, troc):
        """By what it is known: 40 hexadecimal digits."""
        shown = subprocess.run([troc, "show", self.torrent, "--json"], check=True, stdout=subprocess.PIPE)
        return json.loads(shown.stdout)["info_hash"]

    def check(self, fetched):
        for path, _ in self.files:
            ours = self.dir / self.name / path if path else self.dir / self.name
            theirs = fetched / self.name / path if path else fetched / self.name
            if digest(ours) != digest(theirs):
                raise SystemExit(f"{theirs} differs from {ours}")


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def forget_pages(path):
    """Empties the page cache of what is on disk of a file."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class Process:
    """A child whose lines may be waited for, and whose CPU time is known at its end."""

    def __init__(self, command, log, cpu=None, env=None):
        if cpu is not None:
            command = ["taskset", "-c", str(cpu), *command]
        self.log = open(log, "wb")
        self.started = time.monotonic()
        self.child = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env={**os.environ, **(env or {})},
        )
        self.pid = self.child.pid
        self.queue = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        """Takes every line at once, so that the child never waits for us."""
        for line in self.child.stdout:
            self.queue.put(line.decode(errors="replace"))
        self.queue.put(None)

    def lines(self):
        end = time.monotonic() + PATIENCE_S
        with contextlib.suppress(queue.Empty):
            while line := self.queue.get(timeout=max(0, end - time.monotonic())):
                yield line
            raise SystemExit(f"{self.child.args} ended too early; see {self.log.name}")
        raise SystemExit(f"{self.child.args} said nothing for {PATIENCE_S} s; see {self.log.name}")

    def next_line(self):
        """The first line that comes after this call."""
        with contextlib.suppress(queue.Empty):
            while True:
                self.queue.get_nowait()
        return next(self.lines())

    def wait(self):
        """Wall and CPU seconds of its whole life; only for a child that ends by itself."""
        _, status, usage = os.wait4(self.pid, 0)
        wall = time.monotonic() - self.started
        self.child.returncode = os.waitstatus_to_exitcode(status)
        if self.child.returncode != 0:
            raise SystemExit(f"{self.child.args}: status {self.child.returncode}; see {self.log.name}")
        return wall, usage.ru_utime + usage.ru_stime

    def stop(self):
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(timeout=15)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()

    def cpu_seconds(self):
        """So far, with all its children: nginx serves by workers."""
        return sum(cpu_seconds(pid) for pid in [self.pid, *children(self.pid)])

    def resident_bytes(self):
        return resident_bytes(self.pid)

    def read_bytes(self):
        """From disks so far."""
        with open(f"/proc/{self.pid}/io") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("read_bytes"))


def children(pid):
    with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(word) for word in file.read().split()]
    return []


def resident_bytes(pid):
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def cpu_seconds(pid):
    """So far, to the nanosecond: `/proc/PID/stat` counts ticks of 10 ms, and a short run may have none."""
    # CPUCLOCK_SCHED of a whole process, as clock_getcpuclockid(3) makes it.
    return time.clock_gettime((~pid << 3) | 2)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_port(port):
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return
        time.sleep(0.1)
    raise SystemExit(f"nobody listens on port {port}")
