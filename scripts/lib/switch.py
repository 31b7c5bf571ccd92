#!/usr/bin/env python3
"""Runs inside the switch's namespace: tells what each link carried, and answers announces.

Standard input: a line ADDR:PORT for each peer that the tracker is to name.
Standard output, JSON lines: {"ports": {"p1": [up, down], ...}} every 25 ms, in bytes since the link was made,
and {"announced": ADDR} when a peer announces. Ends with its input.
"""
import http.server
import json
import socket
import sys
import threading
import time
import urllib.parse

TRACKER_PORT = 6969
INTERVAL_S = 0.025
# Of what strangers send: nobody is a stranger here, but a request is small.
REQUEST_BYTES_MAX = 4096

peers, speaking = [], threading.Lock()


def say(event):
    with speaking:
        print(json.dumps(event), flush=True)


def counters():
    """What the ports of the switch received and sent: a host's up and down."""
    found = {}
    with open("/proc/self/net/dev") as file:
        for line in file:
            name, colon, rest = line.partition(":")
            if colon and name.strip().startswith("p"):
                fields = rest.split()
                found[name.strip()] = (int(fields[0]), int(fields[8]))
    return found


def compact(address):
    host, port = address.rsplit(":", 1)
    return socket.inet_aton(host) + int(port).to_bytes(2, "big")


class Announce(http.server.BaseHTTPRequestHandler):
    """BEP 3 and BEP 23: names everyone but who asks."""

    def do_GET(self):
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path[:REQUEST_BYTES_MAX]).query, errors="replace")
        own = f"{self.client_address[0]}:{query.get('port', ['0'])[0]}"
        say({"announced": own})
        named = b"".join(compact(peer) for peer in list(peers) if peer != own)
        body = b"d8:intervali1e12:min intervali1e5:peers%d:%se" % (len(named), named)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def sample():
    while True:
        say({"ports": counters()})
        time.sleep(INTERVAL_S)


def main():
    server = http.server.ThreadingHTTPServer((sys.argv[1], TRACKER_PORT), Announce)
    for work in (server.serve_forever, sample):
        threading.Thread(target=work, daemon=True).start()
    for line in sys.stdin:
        peers.append(line.strip())


main()
