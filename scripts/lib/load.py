"""The measurements themselves: one run each, by `troc bench`."""
import contextlib
import json
import subprocess
import time

from lib.clients import Bare
from lib.common import GENERATOR_CPU, PATIENCE_S, SEEDER_CPU, WARM_UP_ROUNDS_MAX, scratch_directory

KEPT = ("gb_per_cpu_s", "gb_per_s", "jain", "worst_of_mean", "connections_served", "latency_p99_us")
# A seeder whose memory grew less in a round of its whole payload is warm.
WARM_GROWTH_BYTES = 4 << 20


def bench(troc, verb, addr, torrent, *words):
    """A generator on its own CPU; ends the script if it had no result."""
    command = [troc, "bench", verb, addr, "--torrent", torrent, "--json", "--cpu", GENERATOR_CPU, *words]
    command = [str(word) for word in command]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if not done.stdout:
        raise SystemExit(f"failed: {' '.join(command)}")
    return json.loads(done.stdout)


def leech(troc, payload, addr, connections, seconds, depth=64, pid=None, total=None, words=()):
    words = ["--spread", "--connections", connections, "--depth", depth, "--seconds", seconds, *words]
    words += ["--pid", pid] if pid else []
    words += ["--bytes", total] if total else []
    return bench(troc, "leech", addr, payload.torrent, *words)


def warm_up(troc, payload, process, addr):
    """All content, until the seeder's memory has stopped growing. One connection asks for every block in
    turn; several, each from a place of its own, leave gaps, and reading those is then measured as serving."""
    for _ in range(WARM_UP_ROUNDS_MAX):
        before = process.resident_bytes()
        leech(troc, payload, addr, 1, PATIENCE_S, total=int(1.1 * payload.total_bytes))
        if process.resident_bytes() - before < WARM_GROWTH_BYTES:
            return


def serve(troc, home, client, payload, connections, seconds, cpu, depth=64, around=None):
    """One seeder, started, warmed up, loaded and measured, and ended: its row."""
    with scratch_directory(home) as scratch, client.seeding(payload, scratch, cpu) as (process, addr):
        if hasattr(client, "load"):
            client.load(payload, process, addr, 16, 1)
            figures = client.load(payload, process, addr, connections, seconds)
            extra = {}
        else:
            warm_up(troc, payload, process, addr)
            before = around(process) if around else None
            figures = leech(troc, payload, addr, connections, seconds, depth, process.pid)
            extra = {"worker_shares": shares(before, around(process))} if around else {}
    row = {key: figures[key] for key in KEPT if key in figures} | extra
    for name in ("seeder_cpu_seconds", "own_cpu_seconds"):
        row |= {name: figures[name]} if name in figures else {}
    return row | {"rss_mib": round((figures["seeder_resident_bytes"] or 0) / 2**20, 1)}


def fio(*words):
    """One job of fio: what it read, in bytes a second."""
    done = subprocess.run(["fio", *words, "--output-format=json"], stdout=subprocess.PIPE, text=True, check=True)
    # Notes may stand before the object.
    [job] = json.loads(done.stdout[done.stdout.index("{") :])["jobs"]
    return job["read"]["bw_bytes"]


def shares(before, after):
    """Of what was sent in between, by each worker."""
    sent = [new - old for old, new in zip(before, after)]
    return "/".join(f"{100 * share / max(sum(sent), 1):.0f}%" for share in sent)


def worker_bytes(process):
    """What each worker has sent, by the next status line of a relay."""
    return [core["sent_bytes"] for core in json.loads(process.next_line())["per_core"]]


def fetch(home, client, payload, sources):
    """One fetch to disk, checked byte by byte: its row."""
    with scratch_directory(home) as scratch:
        out = scratch / "out"
        out.mkdir()
        wall, cpu = client.fetch(payload, scratch, out, sources)
        begun = time.monotonic()
        subprocess.run(["sync", "-f", out], check=True)
        synced = wall + time.monotonic() - begun
        payload.check(out)
    return {"wall_s": wall, "wall_with_sync_s": synced, "cpu_s": cpu}


def pass_on(home, seeder, fetcher, payload):
    """One fetch from a node, after another that made it read all: CPU time of both."""
    with scratch_directory(home) as scratch, seeder.seeding(payload, scratch, SEEDER_CPU) as (process, addr):
        fetch(home, fetcher, payload, [addr])
        before = process.cpu_seconds()
        row = fetch(home, fetcher, payload, [addr])
        cpu = process.cpu_seconds() - before
    return {"gb_per_cpu_s": payload.total_bytes / 1e9 / max(cpu, 0.01), "seeder_cpu_s": cpu} | row


@contextlib.contextmanager
def sources(troc, home, payload, *groups):
    """Sources in memory: the processes, and all addresses. A group is a number of sources with words of
    their own; each group is one process, so that many sources need the payload's memory once."""
    processes, addrs = [], []
    try:
        for count, *words in groups:
            process, listens = Bare(troc).start(payload, home, None, count, words)
            processes.append(process)
            addrs += listens
        yield processes, addrs
    finally:
        for process in processes:
            process.stop()
