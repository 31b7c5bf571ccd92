"""Folds the stacks of `perf script` and draws them: one line per stack, a table of the functions in
which the time is spent, and a flame graph as SVG.

Width is time, the lowest row is the thread, each row above is called by the one below. Hover to read a
whole name. Colours: kernel blue, troc orange, libraries grey.
"""

import argparse
import re
import sys
from collections import Counter
from xml.sax.saxutils import escape

FRAME = re.compile(r"^\s+[0-9a-f]+\s+(.*?)(?:\+0x[0-9a-f]+)?\s+\(([^()]*(?:\([^)]*\))?[^()]*)\)$")
EVENT = re.compile(r"^\s*(.*?)\s+(\d+)\s+([\d.]+):\s+(\S+?):\s*(.*)$")
SWITCH = re.compile(r"prev_pid=(\d+).*next_pid=(\d+)|:(\d+) \[.*==> .*:(\d+) \[")
# What stands in angle brackets after a name or a path: no need to see it.
GENERICS = re.compile(r"(?<=\w)<[^<>]*>|::<[^<>]*>")
WIDTH, ROW, CHARACTER = 1200, 17, 6.6
# Narrower boxes are left out: they show nothing and make the file long.
WIDTH_MIN = 0.6


def name(symbol, dso):
    """A function as a person reads it, with a mark of where it lives."""
    symbol = re.sub(r"::h[0-9a-f]{16}$", "", symbol.strip())
    while (shorter := GENERICS.sub("", symbol)) != symbol:
        symbol = shorter
    symbol = re.sub(r"^<(\S+)[^>]*>", r"\1", symbol)
    symbol = symbol.replace(";", ":").replace(" ", "_")
    if "kernel" in dso or dso.startswith("[") or dso.endswith(".ko"):
        return f"{symbol}_[k]"
    return symbol if re.search(r"/troc[^/]*$", dso) else f"{symbol}_[l]"


def events(lines):
    """Each event: command, thread, time, the rest of its line, and its stack from the outside in."""
    head, frames = None, []
    for line in lines:
        frame = FRAME.match(line)
        if frame and head:
            frames.append(name(frame[1], frame[2]))
            continue
        found = EVENT.match(line)
        if found:
            if head:
                yield *head, frames[::-1]
            head, frames = (found[1], int(found[2]), float(found[3]), found[5]), []
    if head:
        yield *head, frames[::-1]


def samples(lines):
    """Samples per stack."""
    folded = Counter()
    for command, _, _, _, frames in events(lines):
        folded[";".join([command.replace(" ", "_"), *(frames or ["unknown"])])] += 1
    return folded


def waits(lines, threads):
    """Microseconds off the processor per stack, of some threads."""
    folded, gone = Counter(), {}
    for command, _, at, rest, frames in events(lines):
        found = SWITCH.search(rest)
        if not found:
            continue
        old, new = (int(number) for number in found.groups() if number)
        if old in threads:
            # The scheduler's own frames are on top of every stack.
            while frames and "schedule" in frames[-1]:
                frames.pop()
            gone[old] = (at, ";".join([command.replace(" ", "_"), *frames]))
        if new in gone:
            since, stack = gone.pop(new)
            folded[stack] += round((at - since) * 1e6)
    return folded


def table(folded, count, unit):
    """The functions on top of the stacks, and the share of all that each is anywhere in a stack."""
    own, whole, total = Counter(), Counter(), sum(folded.values())
    for stack, weight in folded.items():
        frames = stack.split(";")
        own[frames[-1]] += weight
        for frame in set(frames):
            whole[frame] += weight
    yield f"{total} {unit} in all; [k] kernel, [l] library"
    yield f"{'itself':>7} {'with calls':>11}  function"
    for frame, weight in own.most_common(count):
        yield f"{weight / total:7.1%} {whole[frame] / total:11.1%}  {frame}"


def tree(folded):
    root = {}
    for stack, weight in folded.items():
        level = root
        for frame in stack.split(";"):
            node = level.setdefault(frame, [0, {}])
            node[0] += weight
            level = node[1]
    return root


def depth(level):
    return 1 + max((depth(children) for _, children in level.values()), default=0)


def colour(frame):
    if frame.endswith("_[k]"):
        return "#9db8d9"
    return "#c8c8c8" if frame.endswith("_[l]") else "#f0a860"


def draw(folded, title):
    root, total = tree(folded), sum(folded.values())
    height = (depth(root) + 2) * ROW
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'font-family="monospace" font-size="11">'
    )
    yield f'<rect width="100%" height="100%" fill="#fff"/><text x="6" y="13">{escape(title)}</text>'

    def level(nodes, left, row):
        for frame, (weight, children) in sorted(nodes.items()):
            width = WIDTH * weight / total
            if width >= WIDTH_MIN:
                bottom = height - (row + 1) * ROW
                yield (
                    f'<g><title>{escape(frame)} {weight / total:.1%}</title><rect x="{left:.1f}" y="{bottom}" '
                    f'width="{max(width - 0.3, 0.3):.1f}" height="{ROW - 1}" fill="{colour(frame)}"/>'
                )
                letters = int((width - 4) / CHARACTER)
                if letters > 2:
                    yield f'<text x="{left + 2:.1f}" y="{bottom + 12}">{escape(frame[:letters])}</text>'
                yield "</g>"
                yield from level(children, left, row + 1)
            left += width

    yield from level(root, 0.0, 0)
    yield "</svg>"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folded", required=True, help="file for the folded stacks")
    parser.add_argument("--svg", required=True, help="file for the flame graph")
    parser.add_argument("--title", default="troc")
    parser.add_argument("--top", type=int, default=24, help="functions in the table")
    parser.add_argument("--off-cpu", help="thread ids: the events are sched_switch, the weight is time away")
    args = parser.parse_args()
    if args.off_cpu:
        folded = waits(sys.stdin, {int(thread) for thread in args.off_cpu.split(",")})
    else:
        folded = samples(sys.stdin)
    if not folded:
        sys.exit("no samples: is the node loaded, and may perf see it?")
    with open(args.folded, "w", encoding="utf-8") as file:
        file.writelines(f"{stack} {weight}\n" for stack, weight in sorted(folded.items()))
    with open(args.svg, "w", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in draw(folded, args.title))
    print("\n".join(table(folded, args.top, "microseconds" if args.off_cpu else "samples")))


main()
