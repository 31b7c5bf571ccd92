#!/usr/bin/env python3
"""One libtorrent node, driven by lines and telling its events as JSON lines.

Standard input: `peer ADDR PORT` dials, `quit` (or the end of input) ends.
Standard output: {"event": "begun"} when Python has started, {"event": "started", ...},
{"event": "listening", "port": ...}, {"event": "connected"} for the first peer, {"event": "seeding"},
{"event": "fetched"} when every piece is right and {"event": "finished"} when all is flushed too,
{"event": "error", "what": ...}, and with --status a {"event": "status", ...} every --status-ms.
"""
import argparse
import json
import os
import select
import sys
import time

import libtorrent as lt


def say(event, **more):
    print(json.dumps({"event": event, **more}), flush=True)


def settings(args):
    chosen = {
        "listen_interfaces": args.listen,
        "outgoing_interfaces": args.listen.rsplit(":", 1)[0] if args.bind else "",
        "enable_dht": False,
        "enable_lsd": args.lsd,
        "enable_upnp": False,
        "enable_natpmp": False,
        "enable_outgoing_utp": False,
        "enable_incoming_utp": False,
        "allow_multiple_connections_per_ip": True,
        "min_reconnect_time": 1,
        "min_announce_interval": 1,
        "ssrf_mitigation": False,
        "announce_to_all_tiers": True,
        "rate_limit_ip_overhead": False,
        "alert_mask": lt.alert.category_t.error_notification
        | lt.alert.category_t.status_notification
        | lt.alert.category_t.storage_notification
        | lt.alert.category_t.connect_notification,
    }
    if args.download_limit:
        chosen["download_rate_limit"] = args.download_limit
    if args.tuned:
        # libtorrent's own preset for fast seeds, and no cap that a test could meet.
        tuned = lt.high_performance_seed()
        tuned.update(chosen)
        tuned.update(
            {
                "connections_limit": 20000,
                "unchoke_slots_limit": 20000,
                "listen_queue_size": 3000,
                "max_out_request_queue": 1500,
                "max_allowed_in_request_queue": 2000,
                "active_limit": 2000,
                "disk_io_write_mode": 0,
            }
        )
        return tuned
    if args.dht:
        # A network of one host: all nodes have its address.
        chosen.update(
            {
                "enable_dht": True,
                "dht_bootstrap_nodes": ",".join(args.dht_bootstrap),
                "dht_restrict_routing_ips": False,
                "dht_restrict_search_ips": False,
                "dht_ignore_dark_internet": False,
                "dht_announce_interval": 5,
            }
        )
        chosen["alert_mask"] |= lt.alert.category_t.dht_notification
    if args.encrypt:
        forced, rc4 = 0, 2
        chosen.update({"in_enc_policy": forced, "out_enc_policy": forced, "allowed_enc_level": rc4})
    if args.free_ride:
        # Nobody is unchoked, and nothing is allowed to who is choked.
        chosen.update({"unchoke_slots_limit": 0, "allowed_fast_set_size": 0})
    return chosen


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torrent", required=True, help="a file or a magnet link")
    parser.add_argument("--dir", required=True)
    parser.add_argument("--listen", default="127.0.0.1:0", help="address and port")
    parser.add_argument("--bind", action="store_true", help="dial from the listen address too")
    parser.add_argument("--seed", action="store_true", help="the payload is in --dir: do not check it")
    parser.add_argument("--tuned", action="store_true", help="settings for load tests")
    parser.add_argument("--exit", action="store_true", help="end when all is fetched and flushed")
    parser.add_argument("--encrypt", action="store_true", help="make and take encrypted connections alone")
    parser.add_argument("--free-ride", action="store_true", help="give nothing to anybody")
    parser.add_argument("--download-limit", type=int, default=0, metavar="B/S")
    parser.add_argument("--dht", action="store_true", help="run a node of the distributed hash table")
    parser.add_argument("--dht-bootstrap", action="append", default=[], metavar="ADDR:PORT")
    parser.add_argument("--lsd", action="store_true", help="look for peers on the local network")
    parser.add_argument("--no-pex", action="store_true", help="neither name peers nor be told of any")
    parser.add_argument("--status", action="store_true", help="a status line every --status-ms")
    parser.add_argument("--status-ms", type=int, default=1000, help="default: %(default)s")
    parser.add_argument("--peer", action="append", default=[], metavar="ADDR:PORT")
    return parser.parse_args()


class Node:
    def __init__(self, args):
        self.args = args
        self.done = False
        self.connected = False
        self.finished = False
        self.heard = b""
        self.session = lt.session(settings(args))
        if args.torrent.startswith("magnet:"):
            add = lt.parse_magnet_uri(args.torrent)
        else:
            add = lt.add_torrent_params()
            add.ti = lt.torrent_info(args.torrent)
        add.save_path = args.dir
        add.storage_mode = lt.storage_mode_t.storage_mode_sparse
        flags = add.flags & ~lt.torrent_flags.auto_managed & ~lt.torrent_flags.paused
        if args.seed and args.tuned:
            flags |= lt.torrent_flags.seed_mode
        if args.no_pex:
            flags |= lt.torrent_flags.disable_pex
        add.flags = flags
        self.handle = self.session.add_torrent(add)
        for peer in args.peer:
            address, port = peer.rsplit(":", 1)
            self.handle.connect_peer((address, int(port)))

    def handle_alert(self, alert):
        if isinstance(alert, lt.listen_succeeded_alert):
            say("listening", port=alert.port)
        elif isinstance(alert, lt.torrent_finished_alert):
            if self.fetched():
                say("fetched")
                self.handle.flush_cache()
            else:
                say("seeding")
        elif isinstance(alert, lt.cache_flushed_alert) and self.fetched() and not self.finished:
            self.finished = True
            say("finished")
            self.done = self.args.exit
        elif isinstance(alert, lt.peer_connect_alert) and not self.connected:
            self.connected = True
            say("connected")
        elif isinstance(alert, (lt.torrent_error_alert, lt.file_error_alert, lt.listen_failed_alert)):
            say("error", what=alert.message())

    def fetched(self):
        status = self.handle.status()
        return status.is_finished and status.total_payload_download > 0

    def handle_input(self):
        text = os.read(sys.stdin.fileno(), 4096)
        self.done |= not text
        *lines, self.heard = (self.heard + text).split(b"\n")
        for line in lines:
            self.handle_command(line.decode().split())

    def handle_command(self, words):
        if words[:1] == ["peer"] and len(words) == 3:
            self.handle.connect_peer((words[1], int(words[2])))
        elif words[:1] == ["quit"]:
            self.done = True

    def say_status(self):
        status = self.handle.status()
        say(
            "status",
            progress=status.progress,
            downloaded_bytes=status.total_payload_download,
            uploaded_bytes=status.total_payload_upload,
            wasted_bytes=status.total_redundant_bytes + status.total_failed_bytes,
            peers=status.num_peers,
        )


def main():
    args = arguments()
    say("begun")
    node = Node(args)
    # libtorrent writes to the pipe whenever its list of alerts stops being empty.
    reader, writer = os.pipe()
    node.session.set_alert_fd(writer)
    say("started", version=lt.version, cpu_seconds=time.process_time())
    watched = [reader, sys.stdin]
    interval_s = args.status_ms / 1000
    next_status = time.monotonic() + interval_s
    while not node.done:
        ready, _, _ = select.select(watched, [], [], max(0.0, next_status - time.monotonic()))
        if reader in ready:
            os.read(reader, 4096)
        if sys.stdin in ready:
            node.handle_input()
        for alert in node.session.pop_alerts():
            node.handle_alert(alert)
        if time.monotonic() >= next_status:
            next_status += interval_s
            if args.status:
                node.say_status()
    node.session.pause()


main()
