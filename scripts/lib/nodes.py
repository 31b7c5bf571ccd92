"""The nodes of a swarm: troc, libtorrent and aria2 behind the same few fields, each on a host of its own."""
import contextlib
import json
import os
import shutil
import signal
import subprocess
import time

from lib.clients import Libtorrent
from lib.common import CPUS, VENV, Process, digest

PORT = 6881
STATUS_MS = 50
PORT_FREE_S = 10
# What a free rider by troc or aria2 sends at most, in bytes a second: neither can be told to send nothing.
RIDER_RATE = 1024


class Node(Process):
    """One client. `read` runs on a thread of its own and only sets fields; the run looks at them."""

    def __init__(self, seat, command):
        self.seat = seat
        self.listening = False
        self.peers, self.cpu_s = 0, (0.0, 0.0)
        self.verified_bytes = self.sent_bytes = self.received_bytes = self.wasted_bytes = None
        self.complete_at = self.ended_at = self.first_payload_at = None
        words = [str(word) for word in command]
        env = {"TROC_STATE": str(seat.scratch / "state"), "HOME": str(seat.scratch)}
        super().__init__(seat.host.command(words), seat.scratch / "log", seat.cpu, env)

    def read(self):
        for line in self.child.stdout:
            self.hear(line)
        self.ended_at = time.monotonic()
        self.queue.put(None)

    def hear(self, line):
        pass

    def look(self):
        """What a client does not tell by itself; called again and again."""

    def has_received(self, received_bytes):
        self.received_bytes = received_bytes
        if received_bytes and self.first_payload_at is None:
            self.first_payload_at = time.monotonic()

    def has_all(self):
        if self.complete_at is None:
            self.complete_at = time.monotonic()

    def kill(self):
        """At once, as a machine fails."""
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait()

    def spent(self):
        """Seconds on a CPU, and waiting for one, so far; of one that ended, when it was looked at last."""
        run_ns = wait_ns = 0
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{self.pid}/task"):
                with open(f"/proc/{self.pid}/task/{task}/schedstat") as file:
                    run, wait, _ = file.read().split()
                run_ns, wait_ns = run_ns + int(run), wait_ns + int(wait)
            self.cpu_s = max(self.cpu_s, (run_ns / 1e9, wait_ns / 1e9))
        return self.cpu_s


class TrocNode(Node):
    def __init__(self, seat, peers):
        binary, payload = seat.binary, seat.payload
        command = [binary, "relay", seat.source, "--dir", payload.dir] if seat.is_seed else [
            binary, "get", seat.source, "-o", seat.out, *(["--seed"] if seat.stays else []),
        ]  # fmt: skip
        command += ["--json", "--status-interval-ms", STATUS_MS, "--cores", 1, "--cache", "512MiB"]
        command += ["--listen", f"{seat.host.address}:{PORT}"]
        command += ["--upload-limit", f"{RIDER_RATE}B/s"] if seat.rides else []
        super().__init__(seat, [*command, *seat.words, *[word for peer in peers for word in ("--peer", peer)]])

    def hear(self, line):
        status = json.loads(line)
        torrent = status["torrents"][0] if status.get("torrents") else {}
        self.listening = status.get("listen") is not None
        self.peers = torrent.get("peers", 0)
        self.verified_bytes = torrent.get("verified_bytes", 0)
        self.sent_bytes = torrent.get("uploaded_bytes")
        self.has_received(torrent.get("downloaded_bytes"))
        self.wasted_bytes = torrent.get("wasted_bytes")
        if self.verified_bytes == self.seat.payload.total_bytes:
            self.has_all()


class LibtorrentNode(Node):
    def __init__(self, seat, peers):
        command = [VENV / "bin/python", Libtorrent.script, "--torrent", seat.source]
        command += ["--dir", seat.payload.dir if seat.is_seed else seat.out, "--bind"]
        command += ["--listen", f"{seat.host.address}:{PORT}", "--status", "--status-ms", 4 * STATUS_MS]
        command += [] if seat.stays or seat.is_seed else ["--exit"]
        command += ["--free-ride"] if seat.rides else []
        super().__init__(seat, [*command, *seat.words, *[word for peer in peers for word in ("--peer", peer)]])

    def hear(self, line):
        event = json.loads(line)
        if event["event"] == "listening":
            self.listening = True
        elif event["event"] in ("seeding", "fetched"):
            self.has_all()
        elif event["event"] == "status":
            self.peers = event["peers"]
            self.verified_bytes = round(event["progress"] * self.seat.payload.total_bytes)
            self.sent_bytes = event["uploaded_bytes"]
            self.has_received(event["downloaded_bytes"])
            self.wasted_bytes = event["wasted_bytes"]


class Aria2Node(Node):
    """Hears of others by the tracker only; says nothing of what it sent."""

    def __init__(self, seat, peers):
        self.mark = seat.scratch / "complete"
        hook = seat.scratch / "hook"
        hook.write_text(f"#!/bin/sh\n: > '{self.mark}'\n")
        hook.chmod(0o755)
        self.tracker = seat.switch
        command = [
            "aria2c", "--no-conf=true", "--enable-dht=false", "--enable-dht6=false", "--bt-enable-lpd=false",
            "--disable-ipv6=true", "--enable-peer-exchange=false", "--check-integrity=true", "--file-allocation=none",
            "--summary-interval=0", "--console-log-level=warn", "--bt-tracker-interval=1", "--quiet=true",
            "--seed-ratio=0.0" if seat.stays or seat.is_seed else "--seed-time=0",
            f"--on-bt-download-complete={hook}", f"--listen-port={PORT}",
            f"--dir={seat.payload.dir if seat.is_seed else seat.out}",
            *([f"--max-upload-limit={RIDER_RATE}"] if seat.rides else []), seat.announcing_torrent(),
        ]  # fmt: skip
        super().__init__(seat, command)

    def look(self):
        self.listening = self.seat.addr in self.tracker.announced
        if self.mark.exists():
            self.has_all()


class LeechNode(Node):
    """`troc bench leech`: connections that take and throw away, for as long as they are let."""

    DEPTH = 16
    SECONDS = 600

    def __init__(self, seat, peers):
        command = [seat.binary, "bench", "leech", *peers, "--torrent", seat.payload.torrent, "--allow-remote", "--json"]
        command += ["--connections", seat.kind.connections, "--depth", self.DEPTH, "--seconds", self.SECONDS]
        super().__init__(seat, command)


CLIENTS = {"troc": TrocNode, "libtorrent": LibtorrentNode, "aria2": Aria2Node}
SEATED = CLIENTS | {"leech": LeechNode}


def available(name):
    if name == "libtorrent":
        return (VENV / "bin/python").exists()
    return name in ("troc", "leech") or shutil.which("aria2c") is not None


class Seat:
    """One node's place in the swarm: its host, its directory, its task, and whoever sits there."""

    def __init__(self, at, kind, lab, scratch, swarm, troc, switch, payload):
        self.kind, self.name = kind, "seed" if kind.role == "seed" else f"{kind.client}-{at}"
        self.is_seed, self.rides = kind.role == "seed", kind.role == "rider"
        self.stays = swarm.finishers == "stay"
        self.host = lab.add(kind.up, kind.down)
        self.addr = f"{self.host.address}:{PORT}"
        self.scratch = scratch / self.name
        self.out = self.scratch / "out"
        self.out.mkdir(parents=True)
        self.binary, self.switch, self.payload = troc, switch, payload
        # What it fetches or serves by, and what it is told besides.
        self.source, self.words = payload.torrent, []
        # One worker each, on the CPUs in turn; others place their threads themselves.
        self.cpu = CPUS[at % len(CPUS)] if kind.client == "troc" else None
        self.node, self.lives, self.killed_at, self.before = None, 0, None, (0, 0)
        self.past_spent = (0.0, 0.0)

    def announcing_torrent(self):
        """The same torrent with the lab's tracker in it."""
        file = self.scratch / "announcing.torrent"
        command = [self.binary, "create", self.payload.dir / self.payload.name, "-o", file]
        command += ["--piece-size", self.payload.piece, "--tracker", self.switch.tracker]
        subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
        return file

    def start(self, peers):
        self.lives += 1
        self.node = SEATED[self.kind.client](self, peers)
        self.switch.tell(self.addr)

    def kill(self):
        self.node.kill()
        self.killed_at = time.monotonic()

    def end_life(self):
        """Killed, to come back; the kernel frees the port of a ring some time after its process."""
        self.past_spent = self.spent()
        self.node.kill()
        end = time.monotonic() + PORT_FREE_S
        while self.host.listens(PORT) and time.monotonic() < end:
            time.sleep(0.05)

    def spent(self):
        now = self.node.spent() if self.node else (0.0, 0.0)
        return tuple(map(sum, zip(self.past_spent, now)))

    def ask_to_end(self):
        if self.node and self.node.child.poll() is None:
            os.kill(self.node.pid, signal.SIGTERM)

    def check(self):
        """Whether all bytes of what was fetched are right."""
        ours = self.payload.dir / self.payload.name
        if digest(self.out / self.payload.name) != digest(ours):
            raise SystemExit(f"{self.out / self.payload.name} differs from {ours}")
