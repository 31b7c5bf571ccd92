"""The named scenarios: which swarms run, and the bars that their medians are held against."""
import dataclasses

from lib.swarm import Kind, Swarm

MBIT, MIB = 10**6, 1 << 20


@dataclasses.dataclass(frozen=True)
class Bar:
    """One figure beside what it is to be."""

    what: str
    value: float
    most: float = None
    least: float = None

    def met(self):
        return (self.most is None or self.value <= self.most) and (self.least is None or self.value >= self.least)

    def text(self):
        limit = f"at most {self.most:g}" if self.most is not None else f"at least {self.least:g}"
        return f"{self.what}: {self.value:.2f}, {limit}: {'met' if self.met() else 'MISSED'}"


class Scenario:
    """A client's swarms by `swarms`, judged by `bars` from the medians of their labels."""

    rate, size, nodes = 100 * MBIT, 128 * MIB, 8

    def __init__(self, args):
        self.args = args
        self.rate, self.size = args.rate or self.rate, args.size or self.size
        self.nodes = args.nodes or self.nodes

    def swarm(self, label, client, fetchers, **more):
        args = self.args
        more = {"finishers": args.finishers, "piece": args.piece_size, "size": self.size, **more}
        more |= {"seconds_max": args.timeout, "queue_ms": args.queue_ms, "congestion": args.congestion}
        more |= {"network": args.network}
        more.setdefault("seed", Kind(args.seed_client or client, self.rate, self.rate, "seed"))
        return Swarm(label=label, fetchers=tuple(fetchers), **more)

    def fetchers(self, client, count, role="fetch", up=None, down=None):
        return [Kind(client, up or self.rate, down or self.rate, role)] * count

    def all_swarms(self):
        return [swarm for client in self.args.clients for swarm in self.swarms(client)]

    def all_bars(self, rows):
        return [bar for client in self.args.clients for bar in self.bars(client, rows)]


class Eight(Scenario):
    """Eight hosts and a seed."""

    rate, size = 200 * MBIT, 256 * MIB

    def swarms(self, client):
        return [self.swarm(f"eight, {client}", client, self.fetchers(client, self.nodes))]

    def bars(self, client, rows):
        return [Bar(f"{client}: makespan over the bound", rows[f"eight, {client}"]["of_bound"], 1.15)]


class FreeRiders(Scenario):
    """Ten hosts, four of which give nothing; and the same without the four."""

    nodes = 6

    def swarms(self, client):
        args = self.args
        honest = self.fetchers(client, self.nodes)
        riders = self.fetchers(args.rider_client, 4 if args.free_riders is None else args.free_riders, "rider")
        absent = self.swarm(f"riders absent, {client}", client, honest)
        return [self.swarm(f"free-riders, {client}", client, honest + riders), absent]

    def bars(self, client, rows):
        beside, absent = rows[f"free-riders, {client}"], rows[f"riders absent, {client}"]
        mean = beside["contributors_mean_s"]
        return [
            Bar(f"{client}: contributors' mean over their own bound", mean / beside["own_bound_s"], 1.25),
            Bar(f"{client}: contributors' mean over that without the free riders", mean / absent["mean_s"], 1.15),
            Bar(f"{client}: free riders' mean over the contributors'", beside["riders_mean_s"] / mean, None, 1.3),
        ]


SCENARIOS = {"eight": Eight, "free-riders": FreeRiders}
