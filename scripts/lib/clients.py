"""What can be measured: troc, the bare loop, and other programs, behind the same few methods.

`seeding(payload, scratch, cpu)` starts a seeder and gives its process and address; `fetch(payload, scratch,
out, sources)` fetches once and gives wall and CPU seconds, for those that can.
"""
import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request

from lib.common import (
    GENERATOR_CPU, PATIENCE_S, ROOT, VENV, Process, children, free_port, resident_bytes, say, wait_for_port,
)  # fmt: skip

# Debian's nginx is not on a user's path.
PATH = os.environ.get("PATH", "") + ":/usr/sbin"


class Bare:
    """`troc bench seed`: one raw ring without an engine, the ceiling that a node is compared with."""

    name = "bare loop"

    def __init__(self, binary):
        self.binary = binary

    def available(self):
        return True

    def start(self, payload, scratch, cpu=None, listeners=1, words=()):
        """The source, and where it listens."""
        command = [self.binary, "bench", "seed", "--torrent", payload.torrent, "--data", payload.dir, "--json"]
        command += ["--listen", "127.0.0.1:0"] * listeners
        process = Process([*command, *words], scratch / f"source-{free_port()}.log", cpu)
        return process, json.loads(next(process.lines()))["listen"]

    @contextlib.contextmanager
    def seeding(self, payload, scratch, cpu):
        process, [addr] = self.start(payload, scratch, cpu)
        try:
            yield process, addr
        finally:
            process.stop()


class Nginx:
    """Serves the payload as a file by sendfile: no BitTorrent, so `wrk` asks it for ranges."""

    name = "nginx sendfile"
    RANGE_BYTES = 512 << 10

    def available(self):
        return shutil.which("nginx", path=PATH) is not None and shutil.which("wrk") is not None

    @contextlib.contextmanager
    def seeding(self, payload, scratch, cpu):
        port = free_port()
        config = scratch / "nginx.conf"
        places = "".join(
            f"{name}_temp_path {scratch / name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        user = "user root;" if os.geteuid() == 0 else ""
        config.write_text(
            f"daemon off; worker_processes 1; pid {scratch / 'pid'}; error_log stderr crit; {user}"
            "events { worker_connections 16384; }"
            f"http {{ access_log off; sendfile on; sendfile_max_chunk 512k; keepalive_requests 1000000000; {places}"
            f"server {{ listen 127.0.0.1:{port} backlog=4096; root {payload.dir}; }} }}"
        )
        command = [shutil.which("nginx", path=PATH), "-p", scratch, "-c", config, "-e", "stderr"]
        process = Process(command, scratch / "log", cpu)
        try:
            wait_for_port(port)
            yield process, f"127.0.0.1:{port}"
        finally:
            process.stop()

    def load(self, payload, process, addr, connections, seconds):
        """One run of `wrk`, in the form of `troc bench leech --json`."""
        script = pathlib.Path(__file__).parent / "ranges.lua"
        ranges = max(1, payload.total_bytes // self.RANGE_BYTES)
        command = ["taskset", "-c", GENERATOR_CPU, "wrk", "--threads", 1, "--connections", connections]
        command += ["--duration", f"{seconds}s", "--script", script, f"http://{addr}/{payload.name}"]
        env = {**os.environ, "RANGE_BYTES": str(self.RANGE_BYTES), "RANGES": str(ranges)}
        before, begun = process.cpu_seconds(), time.monotonic()
        done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True, env=env)
        cpu, wall = process.cpu_seconds() - before, time.monotonic() - begun
        found = re.search(r"^answers (\d+) errors (\d+)$", done.stdout, re.MULTILINE)
        if not found or int(found[2]) > 0:
            raise SystemExit(f"wrk: {done.stdout}")
        gigabytes = int(found[1]) * min(self.RANGE_BYTES, payload.total_bytes) / 1e9
        return {"gb_per_cpu_s": gigabytes / max(cpu, 0.01), "gb_per_s": gigabytes / wall,
                "seeder_resident_bytes": sum(resident_bytes(pid) for pid in [process.pid, *children(process.pid)])}  # fmt: skip


class Troc:
    name = "troc"

    def __init__(self, binary, cores=None, words=(), fetch_cpu=None):
        self.binary = binary
        self.cores = cores
        self.words = words
        self.fetch_cpu = fetch_cpu
        if cores:
            self.name = f"troc --cores {cores}"

    def available(self):
        return True

    def node(self, verb, scratch, words, cpu):
        command = [self.binary, verb, *words, *self.words, "--json", "--listen", "127.0.0.1:0"]
        if self.cores:
            command += ["--cores", str(self.cores)]
        return Process(command, scratch / "log", cpu, {"TROC_STATE": str(scratch / "state")})

    @contextlib.contextmanager
    def seeding(self, payload, scratch, cpu):
        process = self.node("relay", scratch, [payload.torrent, "--dir", payload.dir], cpu)
        try:
            for line in process.lines():
                status = json.loads(line)
                if status.get("listen") and status["torrents"][0]["state"] == "seeding":
                    break
            yield process, status["listen"]
        finally:
            process.stop()

    def fetch(self, payload, scratch, out, sources):
        peers = [word for source in sources for word in ("--peer", source)]
        process = self.node("get", scratch, [payload.torrent, "-o", out, *peers], self.fetch_cpu)
        return process.wait()


class Libtorrent:
    name = "libtorrent"
    script = ROOT / "tests/support/libtorrent_peer.py"

    def available(self):
        return (VENV / "bin/python").exists()

    def node(self, payload, directory, scratch, words, cpu):
        command = [VENV / "bin/python", self.script, "--torrent", payload.torrent, "--dir", directory]
        return Process([*command, "--tuned", *words], scratch / "log", cpu)

    @contextlib.contextmanager
    def seeding(self, payload, scratch, cpu):
        process = self.node(payload, payload.dir, scratch, ["--seed"], cpu)
        port, seeds = None, False
        try:
            for line in process.lines():
                event = json.loads(line)
                port = event.get("port", port)
                seeds |= event["event"] == "seeding"
                if port and seeds:
                    break
            yield process, f"127.0.0.1:{port}"
        finally:
            process.stop()

    def fetch(self, payload, scratch, out, sources):
        peers = [word for source in sources for word in ("--peer", source)]
        process = self.node(payload, out, scratch, ["--exit", *peers], None)
        # In its favour: neither Python's start nor the second until it dials are counted.
        begun, python_cpu = process.started, 0
        for line in process.lines():
            event = json.loads(line)
            if event["event"] == "started":
                python_cpu = event["cpu_seconds"]
            elif event["event"] == "connected":
                begun = time.monotonic()
            elif event["event"] == "finished":
                break
        wall = time.monotonic() - begun
        return wall, process.wait()[1] - python_cpu


class Transmission:
    """Serves only: it dials no loopback address. Its own limit on a connection shows."""

    name = "Transmission"
    connections_max = 200

    def available(self):
        return shutil.which("transmission-daemon") is not None

    @contextlib.contextmanager
    def seeding(self, payload, scratch, cpu):
        port, rpc_port = free_port(), free_port()
        settings = {
            "bind-address-ipv4": "127.0.0.1",
            "dht-enabled": False,
            "download-dir": str(payload.dir),
            "encryption": 0,
            "lpd-enabled": False,
            "peer-limit-global": 1000,
            "peer-limit-per-torrent": 1000,
            "peer-port": port,
            "pex-enabled": False,
            "port-forwarding-enabled": False,
            "rpc-bind-address": "127.0.0.1",
            "rpc-port": rpc_port,
            "rpc-whitelist-enabled": False,
            "upload-slots-per-torrent": 1000,
            "utp-enabled": False,
        }
        (scratch / "settings.json").write_text(json.dumps(settings))
        command = ["transmission-daemon", "--foreground", "--config-dir", scratch]
        process = Process(command, scratch / "log", cpu)
        try:
            self.add(rpc_port, payload)
            yield process, f"127.0.0.1:{port}"
        finally:
            process.stop()

    def add(self, rpc_port, payload):
        end = time.monotonic() + PATIENCE_S
        session = ""

        def call(method, **arguments):
            nonlocal session
            while time.monotonic() < end:
                request = urllib.request.Request(
                    f"http://127.0.0.1:{rpc_port}/transmission/rpc",
                    json.dumps({"method": method, "arguments": arguments}).encode(),
                    {"X-Transmission-Session-Id": session},
                )
                try:
                    with urllib.request.urlopen(request, timeout=30) as answer:
                        return json.load(answer)["arguments"]
                except urllib.error.HTTPError as error:
                    session = error.headers.get("X-Transmission-Session-Id", "")
                except OSError:
                    time.sleep(0.1)
            raise SystemExit("transmission-daemon does not answer")

        call("torrent-add", filename=str(payload.torrent), paused=True)
        call("torrent-verify")
        call("torrent-start")
        while time.monotonic() < end:
            [torrent] = call("torrent-get", fields=["status", "percentDone"])["torrents"]
            if torrent["percentDone"] == 1 and torrent["status"] == 6:
                return
            time.sleep(0.2)
        raise SystemExit("transmission-daemon does not seed")


class Aria2:
    """Serves only: it cannot be told of a peer without a tracker."""

    name = "aria2"
    connections_max = 200

    def available(self):
        return shutil.which("aria2c") is not None

    @contextlib.contextmanager
    def seeding(self, payload, scratch, cpu):
        port = free_port()
        process = Process(
            [
                "aria2c", "--no-conf=true", "--enable-dht=false", "--enable-dht6=false",
                "--bt-enable-lpd=false", "--disable-ipv6=true", "--interface=127.0.0.1",
                "--check-integrity=true", "--seed-ratio=0.0", "--bt-max-peers=0", "--file-allocation=none",
                "--summary-interval=0", f"--listen-port={port}", f"--dir={payload.dir}", payload.torrent,
            ],
            scratch / "log",
            cpu,
        )  # fmt: skip
        try:
            wait_for_port(port)
            yield process, f"127.0.0.1:{port}"
        finally:
            process.stop()


class Rqbit:
    name = "rqbit"
    connections_max = 128

    def available(self):
        return shutil.which("rqbit") is not None

    def node(self, payload, directory, scratch, api_port, words, cpu):
        # A torrent of several files goes into the directory itself.
        output = directory / payload.name if payload.files[0][0] else directory
        command = ["rqbit", "--disable-dht", "--disable-dht-persistence", "--disable-lsd", "--disable-trackers"]
        command += ["--disable-upnp-port-forward", "--listen-ip", "127.0.0.1", "--listen-port", free_port()]
        command += ["--http-api-listen-addr", f"127.0.0.1:{api_port}", "--peer-limit", 2000]
        command += ["download", "--overwrite", "-o", output, *words, payload.torrent]
        return Process(command, scratch / "log", cpu, {"HOME": str(scratch)}), command

    @contextlib.contextmanager
    def seeding(self, payload, scratch, cpu):
        api_port = free_port()
        process, command = self.node(payload, payload.dir, scratch, api_port, [], cpu)
        try:
            self.wait_seeding(api_port)
            yield process, f"127.0.0.1:{command[command.index('--listen-port') + 1]}"
        finally:
            process.stop()

    def wait_seeding(self, api_port):
        end = time.monotonic() + PATIENCE_S
        url = f"http://127.0.0.1:{api_port}/torrents/0/stats/v1"
        while time.monotonic() < end:
            with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
                stats = json.load(answer)
                if stats["finished"] and stats["state"] == "live":
                    return
            time.sleep(0.1)
        raise SystemExit("rqbit does not seed")

    def fetch(self, payload, scratch, out, sources):
        words = ["--exit-on-finish", "--initial-peers", ",".join(sources)]
        process, _ = self.node(payload, out, scratch, free_port(), words, None)
        return process.wait()


# Whom troc is measured beside.
RIVALS = (Libtorrent, Rqbit, Transmission, Aria2, Nginx)


def rivals(only):
    """Those that are installed, and wanted by name if any are named."""
    wanted = [client for client in (kind() for kind in RIVALS) if not only or client.name in only]
    for client in wanted:
        if not client.available():
            say(f"not installed, left out: {client.name} (scripts/setup --rivals)")
    return [client for client in wanted if client.available()]


def versions(clients):
    """What the others are, in one line."""
    found = {"libtorrent": [VENV / "bin/python", "-c", "import libtorrent; print(libtorrent.version)"]}
    found |= {"Transmission": ["transmission-daemon", "--version"], "aria2": ["aria2c", "--version"]}
    found |= {"rqbit": ["rqbit", "--version"], "nginx sendfile": [shutil.which("nginx", path=PATH), "-v"]}
    said = []
    for client in clients:
        if client.name in found:
            done = subprocess.run(found[client.name], capture_output=True, text=True)
            said.append(f"{client.name}: {(done.stdout or done.stderr).splitlines()[0]}")
    return "; ".join(said)
