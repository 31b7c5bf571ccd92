"""How complete each node of a swarm is over time, drawn as SVG: a panel for each swarm."""
import html

LEFT, WIDTH, HEIGHT, TOP, BELOW = 60, 640, 150, 34, 40
COLOURS = {"troc": "#2b6cb0", "libtorrent": "#c05621", "aria2": "#2f855a", "rider": "#a0aec0", "killed": "#e53e3e"}


def panel(run, top, seconds):
    """One swarm; `seconds` is the width of all panels, so that they can be compared."""
    place = lambda at, part: f"{LEFT + WIDTH * min(at, seconds) / seconds:.1f},{top + HEIGHT * (1 - part):.1f}"
    across = lambda at: LEFT + WIDTH * at / seconds
    swarm = run.swarm
    parts = [
        f'<text x="{LEFT}" y="{top - 8}" font-weight="bold">{html.escape(swarm.label)}</text>\n',
        f'<rect x="{LEFT}" y="{top}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#cbd5e0"/>\n',
        f'<text x="{LEFT - 8}" y="{top + 10}" text-anchor="end">1</text>\n',
        f'<text x="{LEFT - 8}" y="{top + HEIGHT}" text-anchor="end">0</text>\n',
    ]
    bound = across(swarm.bound_s())
    parts.append(f'<line x1="{bound:.1f}" x2="{bound:.1f}" y1="{top}" y2="{top + HEIGHT}"'
                 ' stroke="black" stroke-dasharray="4 3"/>\n')  # fmt: skip
    parts.append(f'<text x="{bound + 4:.1f}" y="{top + HEIGHT - 6}">bound {swarm.bound_s():.1f} s</text>\n')
    for row, kind in zip(run.nodes, swarm.fetchers):
        points = run.curves[row["node"]]
        colour = COLOURS[row["role"] if row["role"] in COLOURS else kind.client]
        line = " ".join(place(at, part) for at, part in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>\n')
    for tick in range(0, int(seconds) + 1, step(seconds)):
        parts.append(f'<text x="{across(tick):.1f}" y="{top + HEIGHT + 14}" text-anchor="middle">{tick} s</text>\n')
    return "".join(parts)


def step(seconds):
    return next(size for size in (1, 2, 5, 10, 20, 50, 100, 200, 500) if seconds / size <= 10)


def plot(runs):
    seconds = max(max(at for points in run.curves.values() for at, _ in points) for run in runs) or 1
    seconds = max(seconds, *(run.swarm.bound_s() for run in runs)) * 1.03
    high = TOP + HEIGHT + BELOW
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 30}" height="{high * len(runs) + 30}"'
        ' font-family="sans-serif" font-size="12">\n',
        '<rect width="100%" height="100%" fill="white"/>\n',
        f'<text x="{LEFT}" y="16">Part of the payload that each node has, over time: ',
        *(f'<tspan fill="{colour}">{name} </tspan>' for name, colour in COLOURS.items()),
        "</text>\n",
    ]
    parts += [panel(run, 20 + TOP + at * high, seconds) for at, run in enumerate(runs)]
    return "".join([*parts, "</svg>\n"])
