"""A laboratory of hosts on one switch: a network namespace for each, links shaped in both directions.

Everything lies in namespaces whose names carry this process's id and start: nothing is made in the
machine's own network, and to remove the namespaces is to remove all. Shaping is by token bucket (tbf), each
direction where it leaves a queue: up at the host, down at the switch.
"""
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

from lib.common import Process, say

PREFIX = "troc-swarm"
# A host's end of its link, and the address of the switch in each network.
LINK, SWITCH_HOST = "eth0", "254.254"
# Clients treat private addresses as friends: libtorrent unchokes them all, whatever its slots, and troc counts
# no connections. So hosts have addresses as on the Internet unless asked otherwise, each in a /24 of its own, as
# strangers have. No packet leaves the switch.
NETWORKS = {"private": "10.83", "public": "44.83"}
# As /proc/net/tcp has it.
TCP_LISTEN = "0A"
NEEDED = ("ip", "tc", "setpriv", "taskset")
# TCP hands over so much at once: two milliseconds of the link. The bucket holds that whole with all its
# headers: what is larger tbf cuts into packets, each of which then costs as much as the whole, and the CPUs are
# the limit.
SEND_S, SEND_BYTES_MIN, SEND_BYTES_MAX = 0.002, 3000, 60_000
BURST_OF_SEND, BURST_BYTES = 1.05, 4096


def check_machine():
    """Ends with what to do unless namespaces can be made."""
    absent = [name for name in NEEDED if not shutil.which(name)]
    if absent:
        names = ", ".join(absent)
        raise SystemExit(f"{names} not found: scripts/setup installs iproute2, the others are util-linux")
    if os.geteuid() != 0:
        raise SystemExit("network namespaces need root: sudo scripts/swarm --troc PATH ...")


def started_ticks(pid):
    """When a process started, or None: with the id it names a process for good."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(") ")[2].split()[19])
    return None


def own_prefix():
    return f"{PREFIX}-{os.getpid()}-{started_ticks(os.getpid())}"


def is_left_over(name):
    found = re.match(rf"{PREFIX}-(\d+)-(\d+)(-|$)", name)
    return found is not None and started_ticks(int(found[1])) != int(found[2])


def namespaces():
    with contextlib.suppress(OSError):
        return sorted(path.name for path in pathlib.Path("/run/netns").iterdir())
    return []


def left_overs(home):
    """What killed runs left: namespaces and scratch directories."""
    places = home.glob(f"{PREFIX}-*") if home.exists() else []
    return [name for name in namespaces() if is_left_over(name)], [path for path in places if is_left_over(path.name)]


def clean(home):
    """Removes what killed runs left, and ends by its id what still runs in those namespaces."""
    names, places = left_overs(home)
    for name in names:
        for pid in ip("netns", "pids", name).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        ip("netns", "del", name)
    for path in places:
        shutil.rmtree(path, ignore_errors=True)
    say("removed: " + (", ".join([*names, *map(str, places)]) or "nothing was left over"))


def run(*words, lines=None):
    command = [str(word) for word in words]
    done = subprocess.run(command, input=lines, capture_output=True, text=True)
    if done.returncode != 0:
        why = (done.stderr or done.stdout).strip()
        raise SystemExit(
            f"cannot make network namespaces here: {' '.join(command)}: {why} "
            "(needs CAP_NET_ADMIN, and a kernel with veth, bridge and sch_tbf)"
        )
    return done.stdout


def ip(*words, lines=None):
    return run("ip", *words, lines=lines)


def send_bytes(rate):
    return max(SEND_BYTES_MIN, min(SEND_BYTES_MAX, int(rate / 8 * SEND_S)))


def shape(namespace, device, rate, queue_ms):
    burst = int(send_bytes(rate) * BURST_OF_SEND) + BURST_BYTES
    words = ["dev", device, "root", "tbf", "rate", f"{rate}bit", "burst", burst, "latency", f"{queue_ms}ms"]
    run("tc", "-n", namespace, "qdisc", "add", *words)


class Host:
    """One namespace with one link."""

    def __init__(self, namespace, port, address, up, down):
        self.namespace, self.port, self.address = namespace, port, address
        self.up, self.down = up, down

    def command(self, words):
        """`words`, to be run there; the process ends with us, however we end."""
        return ["setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", self.namespace, *words]

    def listens(self, port):
        """Whether anybody does there, a process that is being torn down included."""
        rows = [line.split() for line in ip("netns", "exec", self.namespace, "cat", "/proc/net/tcp").splitlines()]
        return any(row[1].endswith(f":{port:04X}") and row[3] == TCP_LISTEN for row in rows[1:])


class Lab:
    """The switch and its hosts, from entering to leaving."""

    def __init__(self, network="public", queue_ms=50, congestion=None):
        self.prefix, self.hosts, self.made = own_prefix(), [], []
        self.network, self.queue_ms, self.congestion = NETWORKS[network], queue_ms, congestion

    def __enter__(self):
        try:
            self.switch = self.namespace("switch")
            address = f"{self.network}.{SWITCH_HOST}"
            self.switch_host = Host(self.switch, None, address, None, None)
            lines = ["link add name switch type bridge stp_state 0", f"addr add {address}/16 dev switch"]
            ip("-n", self.switch, "-batch", "-", lines="\n".join([*lines, "link set switch up\n"]))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        present = namespaces()
        for name in [name for name in reversed(self.made) if name in present]:
            # Each for itself: what cannot be removed must not keep the others.
            try:
                ip("netns", "del", name)
            except SystemExit as error:
                say(f"{name} stays: {error}")
        self.made = []

    def namespace(self, what):
        name = f"{self.prefix}-{what}"
        # Before it is there: one too many to remove is no harm.
        self.made.append(name)
        ip("netns", "add", name)
        self.set(name, "ipv6/conf/all/disable_ipv6", 1)
        # What the switch forwards is no firewall's business, and each look costs.
        self.set(name, "bridge/bridge-nf-call-iptables", 0)
        if self.congestion:
            self.set(name, "ipv4/tcp_congestion_control", self.congestion)
        ip("-n", name, "link", "set", "lo", "up")
        return name

    def set(self, name, setting, value):
        """A setting of one namespace, if the kernel has it."""
        file = f"/proc/sys/net/{setting}"
        run("ip", "netns", "exec", name, "sh", "-c", f"[ ! -e {file} ] || echo {value} > {file}")

    def add(self, up, down):
        """A host whose link carries so many bits a second to the switch and from it."""
        at = len(self.hosts) + 1
        name, port, address = self.namespace(f"h{at}"), f"p{at}", f"{self.network}.{at}.1"
        link = f"link add name {port} type veth peer name {LINK} netns {name}"
        ip("-n", self.switch, "-batch", "-", lines=f"{link}\nlink set {port} master switch up\n")
        link = f"link set {LINK} gso_max_size {send_bytes(up)} up"
        ip("-n", name, "-batch", "-", lines=f"addr add {address}/16 dev {LINK}\n{link}\n")
        shape(name, LINK, up, self.queue_ms)
        shape(self.switch, port, down, self.queue_ms)
        self.hosts.append(Host(name, port, address, up, down))
        return self.hosts[-1]


def congestion_control():
    """Cubic, which most hosts on the Internet use, where a namespace may; else what the kernel gives it."""
    settings = pathlib.Path("/proc/sys/net/ipv4")
    allowed = (settings / "tcp_allowed_congestion_control").read_text().split()
    return "cubic" if "cubic" in allowed else (settings / "tcp_congestion_control").read_text().strip()


def try_out():
    """Makes a host and removes it: what is not allowed, or not in the kernel, ends this."""
    with Lab() as lab:
        lab.add(10**8, 10**8)


class Switch(Process):
    """The helper in the switch's namespace: counters of all links, and a tracker (`lib/switch.py`)."""

    def __init__(self, lab, scratch):
        self.counters, self.announced = {}, set()
        self.tracker = f"http://{lab.switch_host.address}:6969/announce"
        script = pathlib.Path(__file__).parent / "switch.py"
        command = lab.switch_host.command([sys.executable, script, lab.switch_host.address])
        super().__init__(command, scratch / "switch.log")

    def read(self):
        for line in self.child.stdout:
            event = json.loads(line)
            self.counters = event.get("ports", self.counters)
            if "announced" in event:
                self.announced.add(event["announced"])
        self.queue.put(None)

    def tell(self, address):
        """The tracker names this peer from now on."""
        self.child.stdin.write(f"{address}\n".encode())
        self.child.stdin.flush()

    def bytes(self, host):
        """So far over a host's link: up and down, headers included."""
        return self.counters.get(host.port, (0, 0))
