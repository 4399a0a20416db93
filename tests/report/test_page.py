from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from reports import exactly, reported

from hearken.evaluation.results import PolicyResult
from hearken.report.contents import Answer, Made, Pair, Recipe, Report, Step, Training
from hearken.report.page import render
from hearken.report.sections.changes import difference
from hearken.report.sections.training import CURVES
from hearken.statistics.intervals import Interval

SECTIONS = [
    "done", "changed", "better", "fooled", "reward-model", "taste", "drift", "cost", "training", "judged", "reproduce",
    "lineage",
]  # fmt: skip
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """Collects what a browser would build, and checks that tags nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def sections(self) -> list[str | None]:
        return [attributes.get("id") for tag, attributes in self.tags if tag == "section"]


@pytest.fixture(scope="module")
def page(report: Report) -> Page:
    return Page(render(report))


def test_every_section_is_there_and_absent_data_leaves_them_out(page: Page) -> None:
    assert page.sections == SECTIONS
    empty = Page(render(Report(title="nothing yet")))
    assert empty.sections == []
    assert "nothing yet" in empty.text and "None" not in empty.text


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("done", {"steps": [Step(name="s", done="d")]}),
        ("changed", {"pairs": [Pair(prompt="p", before=Answer(text="a"), after=Answer(text="b"))]}),
        ("better", {"policies": {"PPO": PolicyResult(win_rate=exactly(0.6))}}),
        ("drift", {"policies": {"base": PolicyResult(perplexity=3.0)}}),
        ("training", {"training": [Training(name="sft", rows=[{"loss": 2.0}, {"loss": 1.0}])]}),
        ("reproduce", {"recipe": Recipe(seed=0)}),
        ("lineage", {"lineage": [Made(name="a", kind="sft")]}),
    ],
)
def test_a_section_stands_alone(section: str, values: dict[str, object]) -> None:
    found = Page(render(reported(**values)))  # type: ignore[arg-type]
    assert found.sections == [section]
    assert not re.search(r"\bnan\b|\bNone\b", found.text)


def test_the_figures_are_on_the_page(page: Page) -> None:
    for expected in (
        "PPO beats SFT on 83\u202f%",
        "[78,\u00a087]",
        "3.3 points below the 80\u202f%",
        "24,000",
        "seed 1",
        "9f2c4ab1",
    ):
        assert expected in page.text, expected
    for curve in (
        "Proxy reward",
        "KL",
        "Entropy",
        "Clip fraction",
        "Value loss",
        "Explained variance",
        "Ended by itself",
    ):
        assert curve in page.text, curve


def test_nothing_is_loaded_and_nothing_runs(report: Report, hostile: Report) -> None:
    for html in (render(report), render(hostile)):
        found = Page(html)
        assert not {"script", "link", "img", "iframe", "object", "base", "form"} & {tag for tag, _ in found.tags}
        for tag, attributes in found.tags:
            assert not {"src", "style"} & attributes.keys()
            assert "href" not in attributes or (tag == "a" and str(attributes["href"]).startswith("#"))
            assert not any(name.startswith("on") for name in attributes)
        assert set(re.findall(r"https?://[^\s\"'<]+", html)) == {"http://www.w3.org/2000/svg"}
        assert "url(" not in html and "@import" not in html


def test_hostile_text_is_shown_as_text(hostile: Report) -> None:
    html = render(hostile)
    html.encode("utf-8")  # lone surrogates would fail here
    found = Page(html)
    assert "<script>alert('x')</script>" in found.text
    assert "{{ 7 * 7 }}" in found.text and "49" not in re.findall(r"quotes.{40}", found.text)[0]
    assert sum(tag == "style" for tag, _ in found.tags) == 1
    assert "\x00" not in html
    responses = [attributes for tag, attributes in found.tags if "response" in (attributes.get("class") or "")]
    assert responses and all(attributes["dir"] == "auto" for attributes in responses)


def test_names_in_the_headline_do_not_break() -> None:
    policies = {"<b>": PolicyResult(win_rate=Interval(0.8, 0.7, 0.9)), "span": PolicyResult()}
    html = render(reported(policies, policy="<b>", baseline="span"))
    assert '<span class="name">&lt;b&gt;</span> beats <span class="name">span</span> on 80' in html


def test_the_policy_of_the_page_allows_its_own_stylesheet_only(report: Report) -> None:
    import base64
    import hashlib

    html = render(report)
    css = html.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in html
    assert "default-src 'none'" in html


def test_ids_are_unique(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_json_round_trip(report: Report) -> None:
    text = report.to_json()
    assert Report.from_json(text) == report
    plain = json.loads(text)
    assert plain["evaluation"]["policies"]["PPO"]["win_rate"] == {"estimate": 0.832, "low": 0.785, "high": 0.874}
    assert plain["pairs"][2]["prompt"][0]["role"] == "system"


FIELDS = {
    "done": ["steps"], "changed": ["pairs", "losses"], "better": ["evaluation", "rounds"],
    "fooled": ["evaluation", "training", "audit", "alarms"], "reward-model": ["reward_model"],
    "taste": ["tastes", "evaluation"], "drift": ["evaluation"], "cost": ["costs", "steps"], "training": ["training"],
    "judged": ["judges"], "reproduce": ["recipe"], "lineage": ["lineage"],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("section", SECTIONS)
def test_what_a_section_shows_is_in_the_json(section: str, report: Report) -> None:
    data = json.loads(report.to_json())
    held = [name for name in FIELDS[section] if data[name]]
    assert held
    empty = json.loads(Report(title="").to_json())
    without = data | {name: empty[name] for name in FIELDS[section]}
    assert section not in Page(render(Report.from_json(json.dumps(without)))).sections, "it has no other source"
    alone = empty | {name: data[name] for name in (*held, "policy")}
    assert section in Page(render(Report.from_json(json.dumps(alone)))).sections


def test_json_is_standard_where_numbers_are_not_finite() -> None:
    report = reported({"a": PolicyResult(win_rate=exactly(0.5), scores=(math.nan,))})
    text = report.to_json()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    back = Report.from_json(text).evaluation.policies["a"]
    assert back.win_rate is not None and back.win_rate.estimate == 0.5 and math.isnan(back.win_rate.low)


def test_rendering_is_deterministic(report: Report) -> None:
    assert render(report) == render(Report.from_json(report.to_json()))


def test_difference_marks_words_and_loses_none() -> None:
    before, after = "The fox ran home at night.", "The fox ran all the way home at night."
    left, right = difference(before, after)
    assert "".join(text for text, _ in left) == before and "".join(text for text, _ in right) == after
    assert [text for text, changed in right if changed] == ["all the way"]
    assert not any(changed for _, changed in left)
    assert difference("one two three", "four five six") == ([("one two three", False)], [("four five six", False)])
    assert difference("", "") == ([], []) or difference("", "")[0] in ([], [("", False)])


def test_the_example_of_the_documentation_runs() -> None:
    text = (Path(__file__).parents[2] / "docs" / "report.md").read_text("utf-8")
    names: dict[str, object] = {}
    exec(text.partition("```python\n")[2].partition("```")[0], names)
    assert names["longer"].wins == 2  # type: ignore[attr-defined]


def test_every_documented_column_is_drawn() -> None:
    text = (Path(__file__).parents[2] / "docs" / "report.md").read_text("utf-8")
    listed = text.partition("## Columns")[2].partition("A prefix")[0]
    columns = set(re.findall(r"`([a-z_0-9]+)`", listed)) - {"step"}
    assert columns == {curve.keys[0] for curve in CURVES}
