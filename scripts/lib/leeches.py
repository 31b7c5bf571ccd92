"""A seed under connections of two hosts: who gets how much. One run, like `swarm.Run`."""
import time

from lib.swarm import FIRST_BYTES, START_S, Run


class Leeches(Run):
    """The first host's connections beside the second's, measured on their links."""

    def meet(self):
        self.seed.start([])
        seed = self.seed.node
        self.wait("the seed listens and has all", START_S, lambda: seed.complete_at and seed.listening)
        for seat in self.fetchers:
            seat.start([self.seed.addr])
        down = lambda seat: self.switch.bytes(seat.host)[1]
        # Who is refused gets nothing ever: then the other alone is waited for, and the figure says it.
        given = lambda: all(down(seat) > FIRST_BYTES for seat in self.fetchers)
        self.wait("each is given something", START_S, given)
        self.begin()
        for seat in self.seats:
            seat.before = self.switch.bytes(seat.host)

    def watch(self):
        time.sleep(self.swarm.seconds_max)
        self.end()

    def finish(self):
        self.nodes = [self.node_row(seat) for seat in self.seats]
        many, one = (node["wire_down_mib"] for node in self.nodes[:2])
        given = self.nodes[-1]["wire_up_mib"]
        self.row = {
            "seconds": self.ended - self.begun,
            "many_mib": many,
            "one_mib": one,
            "of_one": many / max(one, 0.1),
            "of_link": given * 2**20 * 8 / (self.ended - self.begun) / self.swarm.seed.up,
        } | self.cpu_figures()
