"""What becomes of the runs: medians, ratios, tables, plots, and files in perf/results."""
import contextlib
import csv
import dataclasses
import datetime
import html
import io
import os
import pathlib
import platform
import statistics
import subprocess
import sys

from lib.common import ROOT, say

# What is plotted: the column, and what it is.
PLOTS = (
    ("gb_per_cpu_s", "GB per CPU-second (more is better)"),
    ("wall_s", "wall seconds of a fetch (less is better)"),
    ("handshakes_per_s", "handshakes per second (more is better)"),
    ("first_payload_s", "seconds to the first payload (less is better)"),
)


@dataclasses.dataclass(frozen=True)
class Bar:
    """One figure beside what it is to be."""

    what: str
    value: float
    most: float = None
    least: float = None

    def met(self):
        return (self.most is None or self.value <= self.most) and (self.least is None or self.value >= self.least)

    def text(self):
        limit = f"at most {self.most:g}" if self.most is not None else f"at least {self.least:g}"
        return f"{self.what}: {self.value:.3f}, {limit}: {'met' if self.met() else 'MISSED'}"


class Log:
    """Every run, said at once and kept."""

    def __init__(self):
        self.rows = []

    def note(self, what, client, **figures):
        self.rows.append({"what": what, "client": client, **figures})
        shown = ", ".join(f"{key} {shape(value)}" for key, value in figures.items())
        say(f"{what}: {client}: {shown}")

    def finish(self, args, facts, name, bars=None):
        """Prints the medians and, unless told not to, writes DATE-NAME.md and its plots. `bars` makes bars of
        the log; one whose rows are not there is left out."""
        medians = list(with_ratios(self.rows, median_rows(self.rows)))
        text = tables(medians) + bar_lines(bars(self) if bars else [])
        print(text)
        if self.rows and not args.stay_quiet:
            write_result(args.results, facts, self.rows, medians, name, text)

    def ratio(self, key, what, ours, theirs):
        """A figure of one client over another's, turn by turn: the median, or None."""
        turns = [
            [row[key] for row in self.rows if matches(row, {"what": what, "client": client}) and row.get(key)]
            for client in (ours, theirs)
        ]
        ratios = [our / their for our, their in zip(*turns)]
        return statistics.median(ratios) if ratios else None


def shape(value):
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def bar_lines(bars):
    return "".join(["\n", *(f"- {bar.text()}\n" for bar in bars)]) if bars else ""


def median_rows(rows):
    """One row per measurement and client: medians of numbers, the last of what is text."""
    groups = {}
    for row in rows:
        groups.setdefault((row["what"], row["client"]), []).append(row)
    for (what, client), group in groups.items():
        merged = {"what": what, "client": client, "runs": len(group)}
        for key in group[0]:
            values = [row[key] for row in group if row.get(key) is not None]
            if key not in merged and values:
                numbers = all(isinstance(value, (int, float)) for value in values)
                merged[key] = statistics.median(values) if numbers else values[-1]
        yield merged


def with_ratios(runs, rows):
    """Each measurement's first client, which is troc, is the one that others are compared with: turn by turn,
    because what else the machine does changes less within a turn than between turns."""
    first = {}
    for row in rows:
        base = first.setdefault(row["what"], row)
        # Rates by the clock only where there is none by the CPU.
        rate = "gb_per_cpu_s" if row.get("gb_per_cpu_s") else "gb_per_s"
        for key in (rate, "wall_s", "cpu_s", "first_payload_s"):
            ours, theirs = ([run.get(key) for run in runs if matches(run, one)] for one in (base, row))
            turns = [our / their for our, their in zip(ours, theirs) if our and their]
            if row is not base and turns:
                row[f"first/this {key}"] = round(statistics.median(turns), 2)
        yield row


def matches(run, row):
    return (run["what"], run["client"]) == (row["what"], row["client"])


def table(rows):
    if not rows:
        return ""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[shape(row.get(key, "")) for key in keys] for row in rows]
    widths = [max(len(key), *(len(row[at]) for row in cells)) for at, key in enumerate(keys)]
    lines = [keys, ["-" * width for width in widths], *cells]
    return "".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |\n" for line in lines
    )


def tables(rows):
    """A table per kind of measurement: they have different columns."""
    kinds = {}
    for row in rows:
        kinds.setdefault((row["what"].split()[0], "wall_s" in row), []).append(row)
    return "\n".join(table(group) for group in kinds.values())


def plot(rows, key, unit):
    """Horizontal bars, one per measurement and client, as SVG; empty if no row has `key`."""
    shown = [row for row in rows if isinstance(row.get(key), (int, float))]
    if not shown:
        return ""
    most = max(row[key] for row in shown) or 1
    left, width, bar, right = 270, 420, 18, 90
    height = (bar + 6) * len(shown) + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + right}" height="{height}"'
        ' font-family="sans-serif" font-size="12">\n',
        '<rect width="100%" height="100%" fill="white"/>\n',
        f'<text x="10" y="18" font-weight="bold">{html.escape(unit)}</text>\n',
    ]
    for at, row in enumerate(shown):
        top = 30 + at * (bar + 6)
        long = max(1, round(width * row[key] / most))
        colour = "#2b6cb0" if row["client"].startswith("troc") else "#a0aec0"
        label = html.escape(f"{row['what']}: {row['client']}")
        parts.append(f'<text x="{left - 8}" y="{top + 13}" text-anchor="end">{label}</text>\n')
        parts.append(f'<rect x="{left}" y="{top}" width="{long}" height="{bar}" fill="{colour}"/>\n')
        parts.append(f'<text x="{left + long + 6}" y="{top + 13}">{row[key]:.2f}</text>\n')
    return "".join([*parts, "</svg>\n"])


def machine():
    def first(path, key):
        with contextlib.suppress(OSError), open(path) as file:
            for line in file:
                if line.startswith(key):
                    return line.split(":", 1)[1].strip()
        return "?"

    run = lambda *words: subprocess.run(words, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    dirty = " with local changes" if run("git", "status", "--porcelain", "--untracked-files=no") else ""
    control = pathlib.Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    model, memory = first("/proc/cpuinfo", "model name"), first("/proc/meminfo", "MemTotal")
    return {
        "machine": f"{model}, {os.cpu_count()} CPUs, {memory}",
        "kernel": f"{platform.release()}, TCP congestion control {control}",
        "commit": run("git", "rev-parse", "--short=12", "HEAD") + dirty,
        "command": " ".join([f"scripts/{pathlib.Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "load": f"{os.getloadavg()[0]:.2f} over the last minute before the run",
    }


def stem(directory, name):
    """Where a result goes, without its ending."""
    directory.mkdir(parents=True, exist_ok=True)
    return directory / f"{datetime.date.today()}-{name}"


def heading(facts):
    command = facts["command"].split()[0]
    title = f"# {command}, {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC\n\n"
    return title + "".join(f"- {key}: {value}\n" for key, value in facts.items())


def write_result(directory, facts, rows, medians, name, shown):
    path = stem(directory, name).with_suffix(".md")
    raw = io.StringIO()
    writer = csv.DictWriter(raw, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    text = [heading(facts)]
    text += ["\nMedians; whoever is compared took turns. Loopback. `first/this`: the first row's figure over this one's, the median of all turns.\n\n", shown]
    for key, unit in PLOTS:
        if svg := plot(medians, key, unit):
            (directory / f"{path.stem}-{key}.svg").write_text(svg)
            text += [f"\n![{unit}]({path.stem}-{key}.svg)\n"]
    text += ["\nEvery run:\n\n```csv\n", raw.getvalue(), "```\n"]
    path.write_text("".join(text))
    say(f"written: {path}")
