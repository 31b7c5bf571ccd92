"""The named scenarios: which swarms run, and the bars that their medians are held against."""
from lib.joining import Joining
from lib.leeches import Leeches
from lib.report import Bar
from lib.swarm import Kind, Run, Swarm

MBIT, MIB = 10**6, 1 << 20


class Scenario:
    """A client's swarms by `swarms`, judged by `bars` from the medians of their labels."""

    rate, size, nodes = 100 * MBIT, 128 * MIB, 8
    # What a run of it is.
    run = Run

    def __init__(self, args):
        self.args = args
        self.rate, self.size = args.rate or self.rate, args.size or self.size
        self.nodes = args.nodes or self.nodes

    def swarm(self, label, client, fetchers, **more):
        args = self.args
        settings = {"finishers": args.finishers, "piece": args.piece_size, "size": self.size, "network": args.network}
        settings |= {"seconds_max": args.timeout, "queue_ms": args.queue_ms, "congestion": args.congestion}
        settings |= {"join": args.join, "by": args.by}
        settings["seed"] = Kind(args.seed_client or client, self.rate, self.rate, "seed")
        settings |= more
        if settings["by"] == "lsd":
            # Only neighbours are heard, and those have private addresses.
            settings["network"] = "private"
        return Swarm(label=label, fetchers=tuple(fetchers), **settings)

    def runner(self, swarm):
        return self.run if swarm.is_told() else Joining

    def fetchers(self, client, count, role="fetch", up=None):
        return [Kind(client, up or self.rate, self.rate, role)] * count

    def all_swarms(self):
        return [swarm for client in self.args.clients for swarm in self.swarms(client)]

    def all_bars(self, rows):
        return [bar for client in self.args.clients for bar in self.bars(client, rows)]


class Eight(Scenario):
    """8 hosts and a seed, 200 Mbit/s each way, 256 MiB"""

    rate, size = 200 * MBIT, 256 * MIB

    def swarms(self, client):
        return [self.swarm(f"eight, {client}", client, self.fetchers(client, self.nodes))]

    def bars(self, client, rows):
        return [Bar(f"{client}: makespan over the bound", rows[f"eight, {client}"]["of_bound"], 1.15)]


class Magnet(Eight):
    """the same, by a magnet link and the hash table alone (or what --by says), from the last first payload"""

    def more(self):
        return {"join": "magnet", "by": "dht" if self.args.by == "peers" else self.args.by}

    def swarms(self, client):
        fetchers = self.fetchers(client, self.nodes)
        return [self.swarm(f"magnet by {self.more()['by']}, {client}", client, fetchers, **self.more())]

    def bars(self, client, rows):
        row = rows[f"magnet by {self.more()['by']}, {client}"]
        return [Bar(f"{client}: makespan over the bound", row["of_bound"], 1.20)]


class FreeRiders(Scenario):
    """10 hosts of 100 Mbit/s, 128 MiB, 4 of which give nothing; and the same without the 4"""

    nodes = 6

    def swarms(self, client):
        args = self.args
        honest = self.fetchers(client, self.nodes)
        riders = self.fetchers(args.rider_client, args.free_riders or 4, "rider")
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


class Mixed(Scenario):
    """4 troc and 4 libtorrent, beside 8 libtorrent; the seed of both is libtorrent; 100 Mbit/s"""

    def all_swarms(self):
        seed = {"seed": Kind(self.args.seed_client or "libtorrent", self.rate, self.rate, "seed")}
        half = self.nodes // 2
        # In turns, so that none of the two is always dialled by the other.
        both = [*self.fetchers("troc", 1), *self.fetchers("libtorrent", 1)] * half
        alone = self.fetchers("libtorrent", 2 * half)
        return [
            self.swarm("mixed", "libtorrent", both, **seed),
            self.swarm("all libtorrent", "libtorrent", alone, **seed),
        ]

    def all_bars(self, rows):
        mixed, alone = rows["mixed"], rows["all libtorrent"]
        return [
            Bar("mean of troc's nodes over libtorrent's", mixed["mean_s troc"] / mixed["mean_s libtorrent"], 1.0),
            Bar("makespan over that of libtorrent alone", mixed["makespan_s"] / alone["makespan_s"], 1.0),
        ]


class Heterogeneous(Scenario):
    """half of 8 hosts give 10 Mbit/s, half 100, all take 100; 64 MiB; finishers stay"""

    size = 64 * MIB

    def swarms(self, client):
        slow = self.fetchers(client, self.nodes // 2, up=self.rate // 10)
        fast = self.fetchers(client, self.nodes - self.nodes // 2)
        return [self.swarm(f"heterogeneous, {client}", client, slow + fast)]

    def bars(self, client, rows):
        return [Bar(f"{client}: makespan over the bound", rows[f"heterogeneous, {client}"]["of_bound"], 1.15)]


class Growth(Scenario):
    """4, 8 and 16 hosts of 50 Mbit/s, 64 MiB"""

    # More at 16 hosts is more than two CPUs carry.
    rate, size = 50 * MBIT, 64 * MIB
    COUNTS = (4, 8, 16)

    def swarms(self, client):
        fetchers = self.fetchers(client, 1)
        return [self.swarm(f"growth {count}, {client}", client, fetchers * count) for count in self.COUNTS]

    def bars(self, client, rows):
        few, many = (rows[f"growth {count}, {client}"] for count in (self.COUNTS[0], self.COUNTS[-1]))
        hosts = self.COUNTS[-1] / self.COUNTS[0]
        given = many["delivered_mbit_per_s"] / few["delivered_mbit_per_s"]
        return [
            Bar(f"{client}: makespan of 16 over that of 4", many["makespan_s"] / few["makespan_s"], 1.1),
            Bar(f"{client}: growth of what is delivered a second, over that of the hosts", given / hosts, None, 0.9),
        ]


class Departure(Scenario):
    """the seed and 2 of 8 hosts (25 Mbit/s up, 100 down) are killed when it has given 1.5 copies"""

    size = 64 * MIB

    def swarms(self, client):
        # Slower up than down: else all are complete before the seed has given so much.
        fetchers = self.fetchers(client, self.nodes, up=self.rate // 4)
        more = {"kill_seed_after": self.args.kill_seed_after or 1.5, "kill_nodes": self.args.kill_nodes or 2}
        return [self.swarm(f"departure, {client}", client, fetchers, **more)]

    def bars(self, client, rows):
        row = rows[f"departure, {client}"]
        return [
            Bar(f"{client}: hosts that lived and did not finish", row["unfinished"], 0),
            Bar(f"{client}: killed", row["killed"], None, 1 + (self.args.kill_nodes or 2)),
        ]


class Sybil(Scenario):
    """500 connections of one host beside one connection of another, at one seed"""

    run = Leeches
    CONNECTIONS = 500

    def swarms(self, client):
        leeches = [Kind("leech", self.rate, self.rate, "leech", count) for count in (self.CONNECTIONS, 1)]
        return [self.swarm(f"sybil, {client}", client, leeches, seconds_max=self.args.seconds)]

    def bars(self, client, rows):
        row = rows[f"sybil, {client}"]
        # A twentieth is chance: both are bytes on links that TCP shares.
        return [
            Bar(f"{client}: 500 connections over one", row["of_one"], 1.05),
            Bar(f"{client}: what both get, of the seed's link", row["of_link"], None, 0.8),
        ]


class Own(Scenario):
    """what --mix, --rates, --free-riders, --churn, --kill-seed-after and --kill-nodes say; no bars"""

    def all_swarms(self):
        args = self.args
        mixes = [args.mix] if args.mix else [[(client, self.nodes)] for client in args.clients]
        return [swarm for mix in mixes for swarm in self.of_mix(mix)]

    def of_mix(self, mix):
        args, (first, _) = self.args, mix[0]
        clients = [client for client, count in mix for _ in range(count)]
        links = [link for link, count in args.rates or [] for _ in range(count)] or [(self.rate, self.rate)]
        honest = [Kind(client, *links[at % len(links)]) for at, client in enumerate(clients)]
        riders = self.fetchers(args.rider_client, args.free_riders or 0, "rider")
        label = " ".join(f"{client}:{count}" for client, count in mix)
        more = {"churn_s": args.churn, "kill_seed_after": args.kill_seed_after, "kill_nodes": args.kill_nodes}
        swarms = [self.swarm(f"own, {label}", first, honest + riders, **more)]
        if riders and args.absent_free_riders:
            swarms.append(self.swarm(f"own, {label}, riders absent", first, honest, **more))
        return swarms

    def all_bars(self, rows):
        return []


SCENARIOS = {
    "eight": Eight,
    "magnet": Magnet,
    "free-riders": FreeRiders,
    "mixed": Mixed,
    "heterogeneous": Heterogeneous,
    "growth": Growth,
    "departure": Departure,
    "sybil": Sybil,
    "own": Own,
}
