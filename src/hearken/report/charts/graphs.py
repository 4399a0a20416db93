"""What came from what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hearken.report.charts.drawing import escaped, no_data, shortened, svg, tenth, text_width, write


@dataclass(frozen=True, slots=True)
class Node:
    """One box of a graph, with the names of the boxes it comes from."""

    name: str
    caption: str = ""
    parents: Sequence[str] = ()


def graph(nodes: Sequence[Node], *, title: str, description: str = "") -> str:
    """What came from what, left to right: a box a node, one column right of the furthest of its parents.

    Parents that are not among the nodes are left out; a cycle is cut where it closes.
    """
    by_name = {node.name: node for node in nodes}
    depth: dict[str, int] = {}

    def column(name: str, above: tuple[str, ...] = ()) -> int:
        if name not in depth:
            parents = [p for p in by_name[name].parents if p in by_name and p not in (*above, name)]
            depth[name] = 1 + max((column(p, (*above, name)) for p in parents), default=-1)
        return depth[name]

    columns: dict[int, list[Node]] = {}
    for node in by_name.values():
        columns.setdefault(column(node.name), []).append(node)
    if not columns:
        return no_data(title, description, 200, 60)
    place: dict[str, tuple[float, float, float]] = {}
    tallest = max(len(c) for c in columns.values())
    step, tall, gap = 62.0, 42.0, 44.0
    x = 1.0
    for index in sorted(columns):
        wide = max(min(max(text_width(n.name) * 1.08, text_width(n.caption)), 190) + 22 for n in columns[index])
        start = (tallest - len(columns[index])) / 2

        def height_of(node: Node) -> float:
            known = [place[p][1] for p in node.parents if p in place]
            return sum(known) / len(known) if known else 0.0

        for row, node in enumerate(sorted(columns[index], key=height_of)):
            place[node.name] = (x, (start + row) * step + 1, wide)
        x += wide + gap
    body: list[str] = []
    lanes: dict[str, float] = {}
    for node in by_name.values():
        nx, ny, _ = place[node.name]
        for parent in node.parents:
            if parent not in place or place[parent][0] >= nx:
                continue
            ax, ay, wide = place[parent]
            source, target = (ax + wide, ay + tall / 2), (nx, ny + tall / 2)
            if depth[node.name] - depth[parent] == 1:
                body.append(f'<path d="M{tenth(source[0])} {tenth(source[1])}{_bend(source, target)}" class="edge"/>')
            else:
                # It would cross the boxes between: it runs below them, in a lane that a parent's children share.
                lane = lanes.setdefault(parent, tallest * step - (step - tall) + 14 + 10 * len(lanes))
                down, up = (source[0] + gap, lane), (target[0] - gap, lane)
                run = f"{_bend(source, down)}L{tenth(up[0])} {tenth(lane)}{_bend(up, target)}"
                body.append(f'<path d="M{tenth(source[0])} {tenth(source[1])}{run}" class="edge"/>')
    for node in by_name.values():
        nx, ny, wide = place[node.name]
        body.append(
            f'<rect x="{tenth(nx)}" y="{tenth(ny)}" width="{tenth(wide)}" height="{tenth(tall)}" rx="6" class="node">'
            f"<title>{escaped(node.name)}</title></rect>"
        )
        body.append(write(nx + 11, ny + (18 if node.caption else 26), shortened(node.name, wide - 18), "strong label"))
        if node.caption:
            body.append(write(nx + 11, ny + 33, shortened(node.caption, wide - 16)))
    bottom = max(lanes.values(), default=tallest * step - (step - tall))
    return svg(x - gap + 1, bottom + 2, title, description, body, natural=True)


def _bend(start: tuple[float, float], end: tuple[float, float]) -> str:
    """A curve between two points that leaves and arrives level."""
    middle = (start[0] + end[0]) / 2
    return f"C{tenth(middle)} {tenth(start[1])} {tenth(middle)} {tenth(end[1])} {tenth(end[0])} {tenth(end[1])}"
