from __future__ import annotations

import itertools
import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hearken.report import charts
from hearken.report.charts import Bar, Node, Reference, Reliability, Series

SVG = "{http://www.w3.org/2000/svg}"
number = st.floats(-1e9, 1e9, allow_nan=False)


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def numbers(svg: str) -> list[float]:
    found = []
    for element in ElementTree.fromstring(svg).iter():
        for name in ("x", "y", "x1", "y1", "x2", "y2", "cx", "cy", "r", "width", "height", "d", "points", "viewBox"):
            found += [float(v) for v in re.findall(r"-?[\d.]+", element.get(name, ""))]
            assert not re.search(r"nan|inf", element.get(name, ""))
    return found


def every_chart(text: str) -> list[str]:
    return [
        charts.line_chart([Series(text, [1, 2], [1, 2]), Series(f"b{text}", [1, 2], [2, 1])], title=text),
        charts.scatter([1, 2, 3], [1, 3, 2], title=text, x_label=text, y_label=text),
        charts.bars([Bar(text, 0.5, 0.4, 0.6)], title=text, references=[Reference(0.5, text)]),
        charts.histogram({text: [1, 2, 3], f"b{text}": [2, 3]}, title=text, x_label=text),
        charts.calibration_plot([Reliability(0.5, 0.5, 0.4, 0.6, 10)], title=text, x_label=text, y_label=text),
        charts.sparkline([1, 2, 3], title=text),
        charts.graph([Node(text, text), Node("b", parents=(text,))], title=text, description=text),
    ]


@settings(max_examples=25, deadline=None)
@given(st.text(max_size=40))
def test_charts_are_well_formed_whatever_the_text(text: str) -> None:
    for svg in every_chart(text):
        root = ElementTree.fromstring(svg)
        assert root.get("role") == "img"
        ids = {element.get("id") for element in root.iter() if element.get("id")}
        assert set(root.get("aria-labelledby", "").split()) == ids
        assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
            "svg", "title", "desc", "text", "line", "path", "rect", "circle", "polygon"
        }  # fmt: skip


def test_no_inline_style_that_a_strict_policy_would_block() -> None:
    for svg in every_chart("plain"):
        assert "style=" not in svg
        assert not re.search(r"\bon\w+=", svg)


@pytest.mark.parametrize("svg", every_chart("name"))
def test_colours_come_from_classes_the_stylesheet_knows(svg: str) -> None:
    known = set(re.findall(r"\.([a-z][a-z0-9]*)", charts.CSS))
    used = {name for element in ElementTree.fromstring(svg).iter() for name in element.get("class", "").split()}
    assert used <= known


def test_every_series_is_drawn_and_labelled_once() -> None:
    names = ["alpha", "beta", "gamma", "delta", "epsilon"]
    svg = charts.line_chart([Series(n, [0, 1, 2], [i, i, i + 0.01]) for i, n in enumerate(names)], title="t")
    assert [t for t in texts(svg) if t in names] == names
    lines = [e for e in ElementTree.fromstring(svg).iter(f"{SVG}path") if "line" in e.get("class", "")]
    assert len({e.get("class") for e in lines}) == len(names)  # each its own colour and dash


def test_labels_of_lines_that_end_together_do_not_overlap() -> None:
    svg = charts.line_chart([Series(f"s{i}", [0, 1], [0, 1 + i / 1e6]) for i in range(4)], title="t")
    rows = sorted(
        float(e.get("y", "")) for e in ElementTree.fromstring(svg).iter(f"{SVG}text") if (e.text or "").startswith("s")
    )
    assert len(rows) == 4
    assert min(b - a for a, b in itertools.pairwise(rows)) >= 13


def test_gaps_in_the_data_are_gaps_in_the_line() -> None:
    svg = charts.line_chart([Series("a", [0, 1, 2, 3, 4], [1, 2, None, math.nan, 3])], title="t")
    lines = [e for e in ElementTree.fromstring(svg).iter(f"{SVG}path") if "line" in e.get("class", "")]
    assert len(lines) == 1 and lines[0].get("d", "").count("L") == 1


def test_a_band_is_drawn_behind_its_line() -> None:
    svg = charts.line_chart([Series("a", [0, 1], [1, 2], low=[0, 1], high=[2, 3])], title="t")
    classes = [e.get("class", "") for e in ElementTree.fromstring(svg).iter(f"{SVG}path")]
    assert classes.index("band paint s0") < classes.index("line stroke s0")


@pytest.mark.parametrize(
    "svg",
    [
        charts.line_chart([], title="t"),
        charts.line_chart([Series("a", [], [])], title="t"),
        charts.scatter([], [], title="t"),
        charts.bars([], title="t"),
        charts.histogram({"a": [math.nan]}, title="t"),
        charts.calibration_plot([], title="t"),
        charts.sparkline([], title="t"),
        charts.graph([], title="t"),
    ],
)
def test_no_data_says_so(svg: str) -> None:
    assert texts(svg) == ["no data"]


@settings(max_examples=40, deadline=None)
@example([(0.0, 5.1e-124), (6.4e-49, 0.0)])
@example([(0.0, 0.0), (1.0, 5e-324)])
@given(st.lists(st.tuples(number, number), min_size=1, max_size=20))
def test_coordinates_are_finite_and_lines_stay_inside(points: list[tuple[float, float]]) -> None:
    xs, ys = sorted(x for x, _ in points), [y for _, y in points]
    for svg in (
        charts.line_chart([Series("a", xs, ys)], title="t"),
        charts.scatter(xs, ys, title="t"),
        charts.bars([Bar(str(i), y) for i, y in enumerate(ys)], title="t"),
        charts.histogram({"a": ys}, title="t"),
        charts.sparkline(ys, title="t"),
    ):
        assert numbers(svg)
    line = charts.line_chart([Series("a", xs, ys)], title="t", width=400, height=200)
    for path in ElementTree.fromstring(line).iter(f"{SVG}path"):
        inside = [float(v) for v in re.findall(r"-?[\d.]+", path.get("d", ""))]
        assert all(-0.1 <= x <= 400.1 for x in inside[::2]) and all(-0.1 <= y <= 200.1 for y in inside[1::2])


@settings(max_examples=60, deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(2, 8))
def test_ticks_are_inside_round_and_few(low: float, span: float, wanted: int) -> None:
    found = charts.ticks(low, low + span, wanted)
    assert all(low - span * 1e-6 <= t <= low + span * (1 + 1e-6) for t in found)
    assert 1 <= len(found) <= wanted + 2
    steps = [b - a for a, b in itertools.pairwise(found)]
    if steps:
        mantissa = float(f"{steps[0]:.6e}".split("e")[0])
        assert min(abs(mantissa - m) for m in (1, 2, 2.5, 5, 10)) < 1e-3


def test_tick_labels_tell_neighbours_apart() -> None:
    assert charts.tick_labels([0, 5000, 10000]) == ["0", "5,000", "10,000"]
    assert charts.tick_labels([0, 0.25, 0.5]) == ["0.00", "0.25", "0.50"]
    assert charts.tick_labels([-1, 0, 1]) == ["−1", "0", "1"]
    assert charts.tick_labels([0, 0.5, 1], as_percent=True) == ["0\u202f%", "50\u202f%", "100\u202f%"]
    assert charts.tick_labels([0, 2e6, 4e6]) == ["0M", "2M", "4M"]


def test_bars_print_value_whisker_and_reference() -> None:
    svg = charts.bars(
        [Bar("PPO", 0.83, 0.79, 0.87, "83 % [79, 87]"), Bar("SFT", 0.5)],
        title="wins",
        references=[Reference(0.5, "no difference"), Reference(0.51, "chance")],
        x_range=(0, 1),
    )
    assert {"PPO", "83 % [79, 87]", "no difference", "chance"} <= set(texts(svg))
    root = ElementTree.fromstring(svg)
    assert sum(e.get("class") == "whisker" for e in root.iter(f"{SVG}line")) == 3
    captions = {e.text: e.get("y") for e in root.iter(f"{SVG}text")}
    assert captions["no difference"] != captions["chance"]  # too near to stand on one line
    wide = {float(e.get("width", "0")) for e in root.iter(f"{SVG}rect")}
    assert max(wide) / min(wide) == pytest.approx(0.83 / 0.5, rel=0.01)


def test_calibration_points_lie_where_the_data_say() -> None:
    bins = [Reliability(0.25, 0.25, 0.2, 0.3, 5), Reliability(0.75, 0.75, 0.7, 0.8, 50)]
    root = ElementTree.fromstring(charts.calibration_plot(bins, title="t"))
    diagonal = next(e for e in root.iter(f"{SVG}line") if e.get("class") == "mark")
    x1, y1, x2, y2 = (float(diagonal.get(k, "")) for k in ("x1", "y1", "x2", "y2"))
    dots = list(root.iter(f"{SVG}circle"))
    for dot, share in zip(dots, (0.25, 0.75), strict=True):
        assert float(dot.get("cx", "")) == pytest.approx(x1 + share * (x2 - x1), abs=0.2)
        assert float(dot.get("cy", "")) == pytest.approx(y1 + share * (y2 - y1), abs=0.2)
    assert float(dots[1].get("r", "")) > float(dots[0].get("r", ""))


def test_graph_puts_children_right_of_their_parents_and_survives_a_cycle() -> None:
    nodes = [Node("d", parents=("b", "c")), Node("b", parents=("a",)), Node("c", parents=("a", "elsewhere")), Node("a")]
    root = ElementTree.fromstring(charts.graph(nodes, title="t"))
    place = {e[0].text: float(e.get("x", "")) for e in root.iter(f"{SVG}rect")}
    assert place["a"] < place["b"] == place["c"] < place["d"]
    assert sum(e.get("class") == "edge" for e in root.iter(f"{SVG}path")) == 4
    assert "x" in texts(charts.graph([Node("x", parents=("y",)), Node("y", parents=("x",))], title="t"))


def test_clean_keeps_what_can_be_written() -> None:
    assert charts.clean("a\x00b\ud800c\n🦊") == "a�b�c\n🦊"


def test_a_trend_stays_inside_the_frame() -> None:
    x, y = [0.0, 0.1, 0.2, 0.3, 9.0], [0.0, 1.0, 2.0, 3.0, 3.0]
    svg = charts.scatter(x, y, title="t")
    (path,) = re.findall(r'<path d="M([^"]*)" class="line stroke s1"', svg)
    heights = [float(point.split()[1]) for point in path.split("L")]
    assert all(0 <= h <= 240 for h in heights)
    charts.scatter([0, 1, 2, 3], [0, 1, 1, 0], title="no slope at all")
