"""Histograms of turns from the tracepoints of io_uring_enter, as `perf script -F tid,time,event` prints them."""

import re
import sys
from collections import defaultdict

LINE = re.compile(r"^\s*(\d+)\s+([\d.]+):\s+syscalls:sys_(enter|exit)_io_uring_enter")


def read(lines):
    """Microseconds between the calls and within them."""
    spans = {"work between calls": [], "within calls, waits included": []}
    last = {}
    for line in lines:
        found = LINE.match(line)
        if not found:
            continue
        thread, at, what = found[1], float(found[2]) * 1e6, found[3]
        kind, before = last.get(thread, (None, 0))
        if kind and kind != what:
            name = "work between calls" if what == "enter" else "within calls, waits included"
            spans[name].append(at - before)
        last[thread] = (what, at)
    return spans


def show(name, spans):
    spans.sort()
    print(f"{name}: {len(spans)} spans, mean {sum(spans) / len(spans):.1f} us")
    quantiles = [(50, "p50"), (90, "p90"), (99, "p99"), (99.9, "p999"), (100, "max")]
    ranks = [(label, spans[min(len(spans) - 1, int(len(spans) * share / 100))]) for share, label in quantiles]
    print("  " + "  ".join(f"{label} {value:.0f} us" for label, value in ranks))
    counts = defaultdict(int)
    for span in spans:
        counts[max(0, int(span)).bit_length()] += 1
    most = max(counts.values())
    for power in range(min(counts), max(counts) + 1):
        count = counts[power]
        print(f"  below {1 << power:>9} us {count:>9} {'#' * round(50 * count / most)}")


def main():
    spans = read(sys.stdin)
    if not all(spans.values()):
        sys.exit("no turns were seen: is the node loaded?")
    for name, values in spans.items():
        show(name, values)


main()
