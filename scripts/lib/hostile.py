"""Hostile connections to one node on loopback, bounded in number, rate and time; run by scripts/load-hostile.

Prints `ready` once all connections are unchoked, then acts until its time is over or SIGTERM. Everything that
it sends is made once, and every connection acts a few times a second, so that it takes little of its CPU.
"""
import argparse
import ipaddress
import json
import random
import signal
import socket
import struct
import time

KINDS = {
    "slow-reader": "requests as much as may wait and reads 128 bytes a second",
    "never-reader": "requests as much as may wait and never reads an answer",
    "one-byte": "requests blocks of one byte, as many as may wait, and reads them",
    "over-reqq": "requests more than may wait, again and again",
    "cancel-storm": "requests as much as may wait, cancels it all, and so on",
    "interest-flapper": "is interested and is not, just below what is allowed",
    "request-and-leave": "connects, requests as much as may wait, and leaves",
}
CONNECTIONS_MAX, SECONDS_MAX, RATE_MAX = 1024, 600, 100
# What troc lets wait, and says so: reqq of BEP 10.
QUEUED_MAX = 512
BLOCK_BYTES = 16 << 10
# One read of those that take whole blocks, so that they take next to nothing of the bandwidth.
BITE_BYTES = 8 << 10
SLOW_BYTES = 128
REQUEST_BYTES, TINY_ANSWER_BYTES = 17, 14
INTERESTED, NOT_INTERESTED, UNCHOKE = (struct.pack(">IB", 1, number) for number in (2, 3, 1))
KEEP_ALIVE = bytes(4)
FLAPS = 8


class Torrent:
    """What is asked for: made once for all connections."""

    def __init__(self, info_hash, piece_bytes, total_bytes):
        protocol = b"\x13BitTorrent protocol"
        self.greeting = protocol + bytes(8) + info_hash + b"-HO0000-" + random.randbytes(12) + INTERESTED
        self.whole, self.tiny = self.ask(piece_bytes, total_bytes, BLOCK_BYTES), self.ask(piece_bytes, total_bytes, 1)
        cancels = [b"\x00\x00\x00\x0d\x08" + block for block in reversed(self.blocks(self.whole))]
        self.storm = self.whole + b"".join(cancels)

    def ask(self, piece_bytes, total_bytes, length):
        """Requests for random blocks, each in a chunk of its own as far as that goes."""
        requests = []
        for _ in range(QUEUED_MAX):
            at = random.randrange(max(1, total_bytes // BLOCK_BYTES)) * BLOCK_BYTES
            place = struct.pack(">III", at // piece_bytes, at % piece_bytes, min(length, total_bytes - at))
            requests.append(b"\x00\x00\x00\x0d\x06" + place)
        return b"".join(requests)

    def blocks(self, requests):
        return [requests[at + 5 : at + REQUEST_BYTES] for at in range(0, len(requests), REQUEST_BYTES)]


class Connection:
    def __init__(self, kind, torrent, addr):
        self.kind, self.torrent, self.addr = kind, torrent, addr
        self.made, self.received, self.sent = 0, 0, 0
        self.open(time.monotonic())

    def open(self, now):
        self.made += 1
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096 if "reader" in self.kind else 65536)
        self.socket.settimeout(5)
        self.socket.connect(self.addr)
        self.socket.sendall(self.torrent.greeting)
        self.socket.setblocking(False)
        self.unchoked, self.asked, self.heard = False, False, b""
        self.pending, self.next_at = b"", now
        self.tiny_waiting, self.tiny_bytes = 0, 0

    def act(self, now):
        """Reads, says what is due and was not said yet, and comes back after an end."""
        try:
            if self.socket is None:
                if now >= self.next_at:
                    self.open(now)
                return
            self.read(now)
            if self.unchoked and not self.pending:
                self.pending = self.due(now)
            if self.pending:
                count = self.socket.send(self.pending)
                self.sent += count
                self.pending = self.pending[count:]
        except BlockingIOError:
            pass
        except OSError:
            self.end(now)

    def end(self, now):
        self.socket.close()
        self.socket, self.next_at = None, now + 1

    def read(self, now):
        bite = BITE_BYTES
        if self.unchoked and self.kind == "never-reader":
            return
        if self.unchoked and self.kind == "slow-reader":
            if now < self.next_at:
                return
            bite, self.next_at = SLOW_BYTES, now + 1
        try:
            data = self.socket.recv(bite)
        except BlockingIOError:
            return
        if not data:
            raise OSError("closed")
        self.received += len(data)
        if not self.unchoked:
            self.heard += data
            # The answer to our interest is the last thing of its greeting.
            self.unchoked = self.heard.endswith(UNCHOKE)
        elif self.kind == "one-byte":
            self.tiny_bytes += len(data)
            answers, self.tiny_bytes = divmod(self.tiny_bytes, TINY_ANSWER_BYTES)
            self.tiny_waiting -= answers

    def due(self, now):
        """What is to be said now."""
        first, self.asked = not self.asked, True
        torrent = self.torrent
        if self.kind == "one-byte":
            count, self.tiny_waiting = QUEUED_MAX - self.tiny_waiting, QUEUED_MAX
            return torrent.tiny[: count * REQUEST_BYTES]
        if self.kind == "cancel-storm":
            return torrent.storm
        if self.kind == "interest-flapper":
            return (NOT_INTERESTED + INTERESTED) * FLAPS
        if self.kind == "request-and-leave" and not first:
            raise OSError("enough")
        if self.kind == "over-reqq" and now >= self.next_at:
            self.next_at = now + 1
            return torrent.whole + torrent.whole[: 80 * REQUEST_BYTES]
        if first:
            self.alive_at = now + 30
            return torrent.whole
        if self.kind.endswith("reader") and now >= self.alive_at:
            self.alive_at = now + 30
            return KEEP_ALIVE
        return b""


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("addr", help="ADDR:PORT of a node, on loopback")
    parser.add_argument("--kind", choices=KINDS, required=True)
    parser.add_argument("--info-hash", type=bytes.fromhex, required=True)
    parser.add_argument("--piece-bytes", type=int, required=True)
    parser.add_argument("--total-bytes", type=int, required=True)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--rate", type=int, default=20, help="how often a second each connection acts")
    parser.add_argument("--seconds", type=int, default=60)
    args = parser.parse_args()
    for name, most in (("connections", CONNECTIONS_MAX), ("seconds", SECONDS_MAX), ("rate", RATE_MAX)):
        if not 1 <= getattr(args, name) <= most:
            parser.error(f"--{name}: from 1 to {most}")
    host, _, port = args.addr.rpartition(":")
    if not ipaddress.ip_address(host.strip("[]")).is_loopback:
        parser.error(f"{args.addr} is not a loopback address")
    args.addr = (host.strip("[]"), int(port))
    return args


def main():
    args = arguments()
    torrent = Torrent(args.info_hash, args.piece_bytes, args.total_bytes)
    ended = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
    connections = [Connection(args.kind, torrent, args.addr) for _ in range(args.connections)]
    ready, end = False, time.monotonic() + args.seconds
    while not ended and (now := time.monotonic()) < end:
        for connection in connections:
            connection.act(now)
        if not ready and all(connection.asked or connection.made > 1 for connection in connections):
            ready = True
            print("ready", flush=True)
        time.sleep(max(0, now + 1 / args.rate - time.monotonic()))
    sums = {name: sum(getattr(connection, name) for connection in connections) for name in ("made", "sent", "received")}
    print(json.dumps(sums), flush=True)


if __name__ == "__main__":
    main()
