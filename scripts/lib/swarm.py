"""One run of a swarm: hosts, nodes, events on the way, figures at the end."""
import contextlib
import dataclasses
import os
import random
import statistics
import time

from lib import netlab
from lib.common import Payload, say, scratch_directory
from lib.nodes import Seat

NODES_MAX = 32
LOOK_S = 0.02
# Between two points of a curve.
CURVE_S = 0.25
# The seed's first payload: more than all its handshakes and bit fields.
FIRST_BYTES = 64 << 10
# A machine that has something else to do for so much of its CPUs is not idle.
IDLE_BUSY_MAX = 0.15
# How long nodes may take to listen and to find one another, before the seed comes.
START_S, MEETING_S = 60, 10
# Headers of TCP/IP and Ethernet on full segments; what a client's payload is on the wire.
WIRE_OVERHEAD = 1.05
CPU_BUSY_WARN = 0.85


@dataclasses.dataclass(frozen=True)
class Kind:
    """What sits on a host: `role` is `seed`, `fetch`, `rider` or `leech`; rates are bits a second."""

    client: str
    up: int
    down: int
    role: str = "fetch"
    connections: int = 1


@dataclasses.dataclass(frozen=True)
class Swarm:
    """One seed, fetchers, and what happens to them."""

    label: str
    seed: Kind
    fetchers: tuple
    size: int
    piece: int = 256 << 10
    finishers: str = "stay"
    churn_s: float = 0
    kill_seed_after: float = 0
    kill_nodes: int = 0
    seconds_max: int = 120
    queue_ms: int = 50
    congestion: str = None
    network: str = "public"
    # What fetchers have, and how they find one another (`lib/joining.py`).
    join: str = "torrent"
    by: str = "peers"

    def is_told(self):
        """Whether each is told of all others, by its command."""
        return (self.join, self.by) == ("torrent", "peers")

    def bound_s(self):
        """When all can have it at the earliest (Kumar and Ross): free riders take and give nothing."""
        return bound_s(self.size, self.seed, self.fetchers)

    def own_bound_s(self):
        """The same for the contributors, had the others not been there."""
        return bound_s(self.size, self.seed, [one for one in self.fetchers if one.role == "fetch"])


def bound_s(size, seed, fetchers):
    bits = 8 * size
    give = seed.up + sum(one.up for one in fetchers if one.role == "fetch")
    slowest = min(one.down for one in fetchers)
    return max(bits / seed.up, bits / slowest, len(fetchers) * bits / give)


def machine_ticks():
    """Busy and all ticks of all CPUs so far."""
    with open("/proc/stat") as file:
        fields = [int(word) for word in file.readline().split()[1:9]]
    return sum(fields) - fields[3] - fields[4], sum(fields)


def wait_idle(seconds):
    """Until others let the CPUs alone for a second, at most `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        before = machine_ticks()
        time.sleep(1)
        busy, ticks = (now - then for now, then in zip(machine_ticks(), before))
        if busy <= IDLE_BUSY_MAX * ticks:
            return
    if seconds:
        say(f"the machine was not idle within {seconds} s: its others are in the figures")


def jain(values):
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 0.0


class Run:
    """A swarm that runs; `row` and `nodes` say what became of it."""

    def __init__(self, swarm, troc, home):
        self.swarm, self.troc, self.home = swarm, troc, home
        self.curves, self.next_curve = {}, 0
        self.rng = random.Random(1)

    def run(self):
        swarm = self.swarm
        name = f"swarm-{swarm.size}-{swarm.piece}"
        self.payload = Payload(self.troc, self.home, name, [("", swarm.size)], str(swarm.piece))
        with contextlib.ExitStack() as stack:
            self.scratch = scratch = stack.enter_context(scratch_directory(self.home, f"{netlab.own_prefix()}-"))
            self.lab = lab = stack.enter_context(netlab.Lab(swarm.network, swarm.queue_ms, swarm.congestion))
            self.switch = netlab.Switch(lab, scratch)
            stack.callback(self.switch.stop)
            self.seats = []
            stack.callback(self.end_all)
            for at, kind in enumerate([*swarm.fetchers, swarm.seed], 1):
                self.seats.append(Seat(at, kind, lab, scratch, swarm, self.troc, self.switch, self.payload))
            *self.fetchers, self.seed = self.seats
            self.meet()
            self.watch()
            self.finish()
        return self

    def end_all(self):
        for seat in self.seats:
            seat.ask_to_end()
        for seat in self.seats:
            if seat.node:
                seat.node.stop()

    def wait(self, what, seconds, holds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for seat in self.seats:
                if seat.node:
                    seat.node.look()
            if holds():
                return True
            time.sleep(LOOK_S)
        say(f"{self.swarm.label}: {what}: not within {seconds} s")
        return False

    def meet(self):
        """Fetchers first, each dialling those before it; the seed dials all, and with its payload time begins."""
        for at, seat in enumerate(self.fetchers):
            seat.start([other.addr for other in self.fetchers[:at]])
            if not self.wait(f"{seat.name} listens", START_S, lambda: seat.node.listening):
                raise SystemExit(f"{seat.name} does not listen; see {seat.node.log.name}")
        others = len(self.fetchers) - 1
        telling = [seat.node for seat in self.fetchers if seat.kind.client != "aria2"]
        self.wait("all have met", MEETING_S, lambda: all(node.peers >= others for node in telling))
        self.seed.start([other.addr for other in self.fetchers])
        before = self.switch.bytes(self.seed.host)[0]
        if not self.wait("the seed gives", START_S, lambda: self.seed_sent() - before > FIRST_BYTES):
            raise SystemExit(f"the seed gives nothing; see {self.seed.node.log.name}")
        self.begin()
        for seat in self.seats:
            seat.before = self.switch.bytes(seat.host)
        self.seed.before = (before, self.seed.before[1])

    def seed_sent(self):
        return self.switch.bytes(self.seed.host)[0]

    def begin(self):
        self.begun, self.ticks, self.spent_before = time.monotonic(), machine_ticks(), self.spent()

    def end(self):
        self.ended, self.ticks_end, self.spent_after = time.monotonic(), machine_ticks(), self.spent()

    def spent(self):
        """Seconds of all nodes on a CPU and waiting for one, so far."""
        return tuple(map(sum, zip(*(seat.spent() for seat in self.seats))))

    def waiting(self):
        """Those that are to complete and have not."""
        return [seat for seat in self.fetchers if not seat.killed_at and seat.node.complete_at is None]

    def watch(self):
        end, next_churn = self.begun + self.swarm.seconds_max, self.begun + self.swarm.churn_s
        while (left := self.waiting()) and (now := time.monotonic()) < end:
            for seat in self.fetchers:
                seat.node.look()
                self.check_alive(seat)
            self.kill_when_due(left)
            if self.swarm.churn_s and now >= next_churn:
                next_churn += self.swarm.churn_s
                self.restart_one([seat for seat in left if seat.lives == 1])
            if now >= self.next_curve:
                self.next_curve = now + CURVE_S
                self.draw(now)
            time.sleep(LOOK_S)
        self.end()
        # The last status of those that tell one.
        time.sleep(0.3)
        self.draw(self.ended)

    def check_alive(self, seat):
        if seat.node.complete_at is None and not seat.killed_at and seat.node.child.poll() is not None:
            log = open(seat.node.log.name, errors="replace").read().strip()
            raise SystemExit(f"{seat.name} ended with status {seat.node.child.returncode} and not all: {log}")

    def kill_when_due(self, left):
        copies = self.swarm.kill_seed_after
        sent = self.seed_sent() - self.seed.before[0]
        if not copies or self.seed.killed_at or sent < copies * self.swarm.size * WIRE_OVERHEAD:
            return
        for seat in [self.seed, *left[-self.swarm.kill_nodes :][: self.swarm.kill_nodes]]:
            say(f"{self.swarm.label}: {seat.name} is killed after {time.monotonic() - self.begun:.1f} s")
            seat.kill()

    def restart_one(self, candidates):
        """Killed, and started anew where it stopped; each once, or the last would never end."""
        if not candidates:
            return
        seat = self.rng.choice(candidates)
        seat.end_life()
        alive = [other.addr for other in self.seats if other is not seat and not other.killed_at]
        seat.start(alive)

    def draw(self, now):
        # What a node has spent is gone with it: looked at while it lives.
        self.spent()
        for seat in self.fetchers:
            have = seat.node.verified_bytes
            if have is None:
                have = (self.switch.bytes(seat.host)[1] - seat.before[1]) / WIRE_OVERHEAD
            part = 1.0 if seat.node.complete_at else min(1.0, have / self.swarm.size)
            self.curves.setdefault(seat.name, []).append((round(now - self.begun, 2), round(part, 4)))

    def finish(self):
        for seat in self.fetchers:
            if seat.node.complete_at is not None:
                seat.check()
        self.nodes = [self.node_row(seat) for seat in self.seats]
        self.row = self.figures()

    def node_row(self, seat):
        up, down = (now - then for now, then in zip(self.switch.bytes(seat.host), seat.before))
        node = seat.node
        complete = None if seat.is_seed or node.complete_at is None else node.complete_at - self.begun
        mib = lambda value: None if value is None else round(value / 2**20, 1)
        return {
            "node": seat.name,
            "client": seat.kind.client,
            "role": "killed" if seat.killed_at else seat.kind.role,
            "up_mbit": seat.kind.up / 1e6,
            "down_mbit": seat.kind.down / 1e6,
            "complete_s": complete,
            "wire_up_mib": mib(up),
            "wire_down_mib": mib(down),
            "sent_mib": mib(node.sent_bytes),
            "received_mib": mib(node.received_bytes),
            "wasted_mib": mib(node.wasted_bytes),
            "lives": seat.lives,
        }

    def times(self, role=None, client=None):
        """Of those that lived; who was not done counts as done when the run ended."""
        rows = [row for row in self.nodes if row["role"] in ("fetch", "rider") and role in (None, row["role"])]
        rows = [row for row in rows if client in (None, row["client"])]
        took = self.ended - self.begun
        return [took if row["complete_s"] is None else row["complete_s"] for row in rows]

    def figures(self):
        times, swarm = self.times(), self.swarm
        seed = self.nodes[-1]
        row = {
            "bound_s": swarm.bound_s(),
            "makespan_s": max(times),
            "of_bound": max(times) / swarm.bound_s(),
            "mean_s": statistics.mean(times),
        }
        if riders := self.times("rider"):
            row |= {"own_bound_s": swarm.own_bound_s(), "contributors_mean_s": statistics.mean(self.times("fetch"))}
            row["riders_mean_s"] = statistics.mean(riders)
        clients = sorted({kind.client for kind in swarm.fetchers if kind.role == "fetch"})
        if len(clients) > 1:
            row |= {f"mean_s {client}": statistics.mean(self.times("fetch", client)) for client in clients}
        wasted = [node["wasted_mib"] for node in self.nodes if node["wasted_mib"] is not None]
        row |= {
            "jain": jain([1 / one for one in times]),
            "delivered_mbit_per_s": sum(8 * swarm.size / 1e6 for node in self.nodes if node["complete_s"]) / max(times),
            "seed_copies": seed["wire_up_mib"] * 2**20 / WIRE_OVERHEAD / swarm.size,
            "wasted_mib": round(sum(wasted), 1),
            "unfinished": len(self.waiting()),
            **({"killed": sum(node["role"] == "killed" for node in self.nodes)} if swarm.kill_seed_after else {}),
        }
        return row | self.cpu_figures()

    def cpu_figures(self):
        """What the CPUs did meanwhile, and how long a node waited for one, of the time."""
        busy, ticks = (now - then for now, then in zip(self.ticks_end, self.ticks))
        ran, waited = (now - then for now, then in zip(self.spent_after, self.spent_before))
        took = self.ended - self.begun
        row = {"cpu_busy": busy / max(1, ticks), "cpu_nodes": ran / took / os.cpu_count()}
        row["cpu_wait"] = waited / took / len(self.seats)
        if row["cpu_busy"] > CPU_BUSY_WARN:
            say(
                f"{self.swarm.label}: CPUs {row['cpu_busy']:.0%} busy, {row['cpu_nodes']:.0%} with the nodes, "
                f"which waited {row['cpu_wait']:.0%} of the time: the machine may be the limit, not the links"
            )
        return row
