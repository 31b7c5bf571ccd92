"""Nodes of the distributed hash table on this host: some of troc, one process each, and some of libtorrent, all in
one.

Each node has an address of its own: of many at one address nodes believe less. Started as a program it is the
libtorrent half: `table.py BOOTSTRAP ADDR:PORT...` runs a node at each place until its input ends.
"""
import contextlib
import json
import socket
import sys
import time

# Others, and their places in the table, are asked so often whether they have heard of a torrent: they answer five
# questions a second.
ASK_S = 0.5
# An announce goes to the eight nodes that are closest: it is there once so many have it.
HEARD_BY = 4
# A node that knows so many finds everybody.
NODES_KNOWN = 8
HOST = "127.0.0.1"


def address(at):
    """Of the node with this number."""
    return f"127.0.{1 + at // 250}.{1 + at % 250}"


def libtorrent_nodes(bootstrap, places):
    import libtorrent as lt

    settings = {"enable_dht": True, "dht_bootstrap_nodes": bootstrap, "alert_mask": 0}
    settings |= {"enable_lsd": False, "enable_upnp": False, "enable_natpmp": False}
    # All in one network.
    settings |= {"dht_restrict_routing_ips": False, "dht_restrict_search_ips": False, "dht_ignore_dark_internet": False}
    sessions = [lt.session(settings | {"listen_interfaces": place}) for place in places]
    print(json.dumps(len(sessions)), flush=True)
    sys.stdin.read()


class Table:
    """`count` nodes from entering to leaving; `bootstrap` is the first one."""

    def __init__(self, troc, scratch, count, with_libtorrent):
        self.troc, self.scratch = troc, scratch
        self.libtorrent_count = count // 2 if with_libtorrent else 0
        self.troc_count = count - self.libtorrent_count
        self.addrs, self.nodes = [], []
        self.stack = contextlib.ExitStack()

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self.start(stack)
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *_):
        self.stack.close()

    def start(self, stack):
        from lib.common import VENV, Payload, Process, free_port

        def process(name, command, env=None):
            # It ends with us, however we end.
            one = Process(["setpriv", "--pdeathsig", "KILL", *command], self.scratch / f"{name}.log", None, env)
            stack.callback(one.stop)
            return one

        # A private torrent is not announced: the table is empty when the first look-up comes.
        other = Payload(self.troc, self.scratch, "other", [("", 16 << 10)], "16KiB")
        other.create(self.troc, "--private", "--tracker", f"http://{HOST}:9/announce")
        self.bootstrap = f"{address(0)}:{free_port()}"
        for at in range(self.troc_count):
            listen = f"{address(at)}:0" if at else self.bootstrap
            command = [self.troc, "relay", other.torrent, "--dir", other.dir, "--listen", listen, "--json", "--no-pex"]
            command += ["--dht-bootstrap", self.bootstrap, "--cores", 1, "--cache", "64MiB", "--status-interval-ms", 500]
            self.nodes.append(process(f"node-{at}", command, {"TROC_STATE": str(self.scratch / f"node-{at}")}))
        others = [f"{address(self.troc_count + at)}:{free_port()}" for at in range(self.libtorrent_count)]
        if others:
            table = process("libtorrent", [VENV / "bin/python", __file__, self.bootstrap, *others])
            next(table.lines())
        self.addrs = [self.known(node, min(NODES_KNOWN, len(self.nodes) - 1)) for node in self.nodes] + others

    @staticmethod
    def known(node, count):
        """Waits until a node of troc knows so many others; its address."""
        for line in node.lines():
            dht = json.loads(line).get("dht") or [{}]
            if dht[0].get("nodes", 0) >= count and dht[0].get("listen"):
                return dht[0]["listen"]

    def wait_announced(self, info_hash, patience_s):
        """Until enough nodes name somebody for a torrent (BEP 5 `get_peers`)."""
        ask = b"d1:ad2:id20:%b9:info_hash20:%be1:q9:get_peers2:roi1e1:t2:aa1:y1:qe"
        ask = ask % (b"a node that only asks"[:20], bytes.fromhex(info_hash))
        end = time.monotonic() + patience_s
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as us:
            us.bind((HOST, 0))
            while time.monotonic() < end:
                for addr in self.addrs:
                    host, port = addr.rsplit(":", 1)
                    us.sendto(ask, (host, int(port)))
                heard, until = set(), time.monotonic() + ASK_S
                while (left := until - time.monotonic()) > 0:
                    us.settimeout(left)
                    with contextlib.suppress(OSError):
                        answer, node = us.recvfrom(2048)
                        if b"6:valuesl" in answer:
                            heard.add(node)
                if len(heard) >= min(HEARD_BY, (len(self.addrs) + 1) // 2):
                    return
        raise SystemExit(f"{info_hash} was not announced within {patience_s} s")


if __name__ == "__main__":
    libtorrent_nodes(sys.argv[1], sys.argv[2:])
