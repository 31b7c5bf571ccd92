"""Nodes that nobody tells of one another: they have a magnet link or the torrent, and one means of discovery.

What a means needs (a node of the hash table, a tracker, a peer that names others) is a `troc` in the switch's
namespace, whose link is not shaped. The seed is there first; then all fetchers start at once.
"""
import json
import statistics
import urllib.parse

from lib.common import Payload, Process
from lib.swarm import LOOK_S, Run

JOIN = ("torrent", "magnet")
CLIENTS = ("troc", "libtorrent")
# How long the last one may take to its first payload.
JOIN_S = 120
HELPER_PORT, TRACKER_PORT = 6881, 6970
STATUS_MS = 50
# Nobody gets a piece from a peer that is to name others only.
NAMING_RATE = "1KiB/s"


class Helper(Process):
    """A `troc` beside the swarm; `last` is what it said last."""

    def __init__(self, run, words):
        self.last = None
        env = {"TROC_STATE": str(run.scratch / "helper-state")}
        command = [str(word) for word in (run.troc, *words, "--json")]
        super().__init__(run.lab.switch_host.command(command), run.scratch / "helper.log", None, env)

    def read(self):
        for line in self.child.stdout:
            self.last = json.loads(line)
        self.queue.put(None)

    def torrent(self):
        return self.last["torrents"][0] if self.last and self.last.get("torrents") else {}


class Means:
    """The nodes before it, and the seed (`--peer`, `x.pe`)."""

    name = "peers"

    def __init__(self, run):
        self.run, self.helper = run, None

    def start(self):
        """Before the seed."""

    def introduce(self):
        """Once the seed listens."""

    def knows_seed(self):
        return True

    def torrent(self):
        """What the seed has, and fetchers that need no link."""
        return self.run.payload.torrent

    def link(self):
        """The magnet link without its hash."""
        return f"&x.pe={self.run.seed.addr}"

    def told(self, at):
        """Whom the fetcher at this place is told of by its command."""
        return [seat.addr for seat in [self.run.seed, *self.run.fetchers[:at]]]

    def own_words(self, client):
        """What switches it on."""
        return []

    def words(self, client):
        """The same, and what switches all others off."""
        off = ("dht", "lsd", "pex") if client == "troc" else ("pex",)
        return [*self.own_words(client), *(f"--no-{other}" for other in off if other != self.name)]

    def relay(self, torrent, directory, *words):
        listen = f"{self.run.lab.switch_host.address}:{HELPER_PORT}"
        common = ["--listen", listen, "--cores", 1, "--cache", "64MiB", "--status-interval-ms", STATUS_MS]
        self.helper = Helper(self.run, ["relay", torrent, "--dir", directory, *common, *words])
        return listen

    def check_alive(self):
        if self.helper and self.helper.child.poll() is not None:
            log = open(self.helper.log.name, errors="replace").read().strip()
            raise SystemExit(f"what nodes are to find one another by ended: {log}")

    def stop(self):
        if self.helper:
            self.helper.stop()


class Silent(Means):
    """Nobody is named by any command."""

    def link(self):
        return ""

    def told(self, at):
        return []


class Dht(Silent):
    """A table of the seed and a node by which all enter."""

    name = "dht"

    def start(self):
        # A private one is not announced: all that the node keeps is of the swarm.
        other = Payload(self.run.troc, self.run.scratch, "other", [("", 16 << 10)], "16KiB")
        other.create(self.run.troc, "--private", "--tracker", "http://127.0.0.1:9/announce")
        own = f"{self.run.lab.switch_host.address}:{HELPER_PORT}"
        self.node = self.relay(other.torrent, other.dir, "--dht-bootstrap", own, "--no-lsd", "--no-pex")
        self.run.require("a node of the table", lambda: self.dht().get("listen"))

    def dht(self):
        return self.helper.last["dht"][0] if self.helper.last and self.helper.last.get("dht") else {}

    def knows_seed(self):
        return self.dht().get("stored_peers", 0) > 0

    def own_words(self, client):
        return [*(["--dht"] if client == "libtorrent" else []), "--dht-bootstrap", self.node]


class Tracker(Silent):
    """`troc tracker`."""

    name = "tracker"

    def start(self):
        listen = f"{self.run.lab.switch_host.address}:{TRACKER_PORT}"
        self.url = f"http://{listen}/announce"
        self.helper = Helper(self.run, ["tracker", "--listen", listen, "--interval", "5s"])
        tracked = self.run.scratch / "tracked.torrent"
        self.tracked = self.run.payload.with_torrent(self.run.troc, tracked, "--tracker", self.url)
        self.run.require("the tracker", lambda: self.helper.last)

    def knows_seed(self):
        return self.helper.last.get("peers", 0) > 0

    def torrent(self):
        return self.tracked.torrent

    def link(self):
        return f"&tr={urllib.parse.quote(self.url, safe='')}"


class Pex(Silent):
    """One peer for all, which has next to nothing and names others (BEP 11)."""

    name = "pex"

    def introduce(self):
        nothing = self.run.scratch / "nothing"
        nothing.mkdir()
        words = ["--peer", self.run.seed.addr, "--download-limit", NAMING_RATE, "--no-dht", "--no-lsd"]
        self.peer = self.relay(self.run.payload.torrent, nothing, *words)

    def knows_seed(self):
        return self.helper.torrent().get("peers", 0) > 0

    def link(self):
        return f"&x.pe={self.peer}"

    def told(self, at):
        return [] if self.run.swarm.join == "magnet" else [self.peer]


class Lsd(Silent):
    """Multicast on the one network of all (BEP 14)."""

    name = "lsd"

    def own_words(self, client):
        return ["--lsd"]


MEANS = {means.name: means for means in (Means, Dht, Tracker, Pex, Lsd)}


class Joining(Run):
    """The clock starts with the last fetcher's first payload; `peers_then` are those that a node has by then."""

    def __init__(self, swarm, troc, home):
        super().__init__(swarm, troc, home)
        self.means = MEANS[swarm.by](self)

    def end_all(self):
        super().end_all()
        self.means.stop()

    def require(self, what, holds):
        """Waits, and ends the run if a fetcher ends or it takes too long."""

        def look():
            for seat in (seat for seat in self.fetchers if seat.node):
                self.check_alive(seat)
            self.means.check_alive()
            return holds()

        if not self.wait(what, JOIN_S, look):
            absent = [seat.name for seat in self.fetchers if seat.node and not seat.node.first_payload_at]
            raise SystemExit(f"{what}: no; without payload: {', '.join(absent) or 'nobody was started'}")

    def meet(self):
        means, seed = self.means, self.seed
        means.start()
        seed.source, seed.words = means.torrent(), means.words(seed.kind.client)
        seed.start([])
        self.require("the seed listens and has all", lambda: seed.node.listening and seed.node.complete_at)
        means.introduce()
        self.require("the seed can be found", means.knows_seed)
        link = f"magnet:?xt=urn:btih:{self.payload.info_hash(self.troc)}{means.link()}"
        for at, seat in enumerate(self.fetchers):
            seat.source = link if self.swarm.join == "magnet" else means.torrent()
            seat.words = means.words(seat.kind.client)
            seat.start(means.told(at))
        self.require("each has payload", lambda: all(seat.node.first_payload_at for seat in self.fetchers))
        self.begin()
        self.begun = max(seat.node.first_payload_at for seat in self.fetchers)
        self.known = {seat.name: seat.node.peers for seat in self.fetchers}

    def node_row(self, seat):
        row = super().node_row(seat)
        # Who was done before the last one had anything took no time at all.
        row["complete_s"] = None if row["complete_s"] is None else max(LOOK_S, row["complete_s"])
        first = None if seat.is_seed else seat.node.first_payload_at - seat.node.started
        return row | {"first_payload_s": first, "peers_then": self.known.get(seat.name)}

    def figures(self):
        firsts = [row["first_payload_s"] for row in self.nodes if row["first_payload_s"] is not None]
        started = min(seat.node.started for seat in self.fetchers)
        ends = [seat.node.complete_at or self.ended for seat in self.fetchers]
        waits = {"first_payload_s": statistics.median(firsts), "last_first_payload_s": max(firsts)}
        return super().figures() | waits | {"start_to_end_s": max(ends) - started}
