"""One database, and one answer to each question wherever it is asked: in the report, on the owner's pages, on the
reward model's card, by `hearken evaluate`, in weighted exports, by the API. What is right is counted here, from rows.

The rows hold what figures used to disagree about: unknown order of display, ties, shares of votes (also beside a tie),
a labeler who always takes what is shown first, partial rankings of four, several judgments of one labeler on the same
responses, rows of files that name nobody, and comparisons of policies.
"""

from __future__ import annotations

import itertools
import json
import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from fastapi.testclient import TestClient
from tiny_models import sentence, write_base, write_rows
from typer.testing import CliRunner

from hearken.algorithms.stage import train
from hearken.cli.main import app
from hearken.domains.text.measuring import Judge
from hearken.evaluation import policies as comparing
from hearken.evaluation.numbers import fixed, percent
from hearken.evaluation.results import EvaluationResult, PolicyResult
from hearken.feedback.access import Account
from hearken.feedback.formats import read_examples
from hearken.feedback.records import ComparisonPayload, Judgment, Labeler, Prompt, Response
from hearken.feedback.weighting import reliability
from hearken.loop.asking import Waiting
from hearken.loop.cards import project_card
from hearken.loop.collecting import heard
from hearken.loop.evaluating import conditions, judge
from hearken.loop.project import Project, ProjectConfig
from hearken.loop.reporting import compose
from hearken.progress import quiet
from hearken.server.app import create_app
from hearken.server.owner_cache import Pages
from hearken.server.security import Door
from hearken.statistics.dawid_skene import dawid_skene

POLICIES = ("sft", "ppo", "dpo", None)
KINDS = {"ana": "person", "bo": "person", "left": "person", "file": "import", "import-import": "import", "judge": "ai"}
NOBODY = "import-import"


@dataclass(frozen=True)
class Row:
    """One judgment."""

    prompt: str
    who: str
    ids: tuple[str, ...]
    ranks: tuple[int | None, ...]
    share: float | None = None
    order: tuple[int, ...] | None = None
    item: str | None = None
    evaluation: bool = False


class Vote(NamedTuple):
    """What a row says of two responses, a < b."""

    prompt: str
    a: str
    b: str
    who: str
    outcome: float
    tied: bool
    first: str | None
    """The one shown first, where that is known."""
    evaluation: bool

    @property
    def verdict(self) -> int:
        return 0 if self.tied else 1 if self.outcome > 0.5 else -1


def votes(rows: Iterable[Row]) -> list[Vote]:
    """By hand: each labeler's last word on each two responses, every row of nobody's."""
    last: dict[Any, Vote] = {}
    for number, row in enumerate(rows):
        for i, j in itertools.combinations(range(len(row.ids)), 2):
            x, y = row.ranks[i], row.ranks[j]
            if x is None or y is None:
                continue
            outcome = row.share if row.share is not None else 1.0 if x < y else 0.0 if x > y else 0.5
            first = None
            if row.order is not None:
                first = row.ids[i] if row.order.index(i) < row.order.index(j) else row.ids[j]
            a, b = sorted((row.ids[i], row.ids[j]))
            outcome = outcome if a == row.ids[i] else 1 - outcome
            key = (row.who, a, b) if row.who != NOBODY else (number, a, b)
            last.pop(key, None)
            last[key] = Vote(row.prompt, a, b, row.who, outcome, x == y or outcome == 0.5, first, row.evaluation)
    return list(last.values())


@dataclass
class World:
    """The project, its rows, and what is known of its responses."""

    project: Project
    rows: list[Row] = field(default_factory=list)
    text: dict[str, str] = field(default_factory=dict)
    policy: dict[str, str | None] = field(default_factory=dict)

    def length(self, response: str) -> int:
        return len(self.text[response].split())

    def longer(self, some: Iterable[Vote]) -> float:
        """Mean share for the longer one, of decided pairs of unequal length."""
        found = [
            v.outcome if self.length(v.a) > self.length(v.b) else 1 - v.outcome
            for v in some
            if not v.tied and self.length(v.a) != self.length(v.b)
        ]
        return math.fsum(found) / len(found)


def first_side(some: Iterable[Vote]) -> float | None:
    found = [v.outcome if v.first == v.a else 1 - v.outcome for v in some if not v.tied and v.first is not None]
    return math.fsum(found) / len(found) if found else None


def kappa(both: list[tuple[int, int]]) -> float:
    """Cohen's κ of pairs of verdicts, each pair of responses both ways round."""
    turned = both + [(-x, -y) for x, y in both]
    n = len(turned)
    observed = sum(x == y for x, y in turned) / n
    one, other = (Counter(side) for side in zip(*turned, strict=True))
    expected = sum(one[v] * other[v] for v in (-1, 0, 1)) / n**2
    return (observed - expected) / (1 - expected)


def ordinal_alpha(units: list[list[int]]) -> float:
    """Krippendorff's α over verdicts -1, 0, 1, each unit both ways round, from its definition."""
    coincidence: dict[tuple[int, int], float] = defaultdict(float)
    for said in [*units, *([-v for v in unit] for unit in units)]:
        for i, j in itertools.permutations(range(len(said)), 2):
            coincidence[said[i], said[j]] += 1 / (len(said) - 1)
    values = (-1, 0, 1)
    margin = {v: sum(coincidence[v, w] for w in values) for v in values}
    total = sum(margin.values())

    def distance(v: int, w: int) -> float:
        low, high = sorted((v, w))
        return (sum(margin[g] for g in range(low, high + 1)) - (margin[v] + margin[w]) / 2) ** 2

    observed = sum(coincidence[v, w] * distance(v, w) for v in values for w in values) / total
    expected = sum(margin[v] * margin[w] * distance(v, w) for v in values for w in values) / (total * (total - 1))
    return 1 - observed / expected


def by_unit(some: Iterable[Vote]) -> dict[tuple[str, str], list[Vote]]:
    found: dict[tuple[str, str], list[Vote]] = defaultdict(list)
    for vote in some:
        found[vote.a, vote.b].append(vote)
    return found


def same_verdicts(some: Iterable[Vote]) -> float:
    """Share of all two judgments of one pair that say the same."""
    said = by_unit(some).values()
    alike = [v.verdict == w.verdict for unit in said for v, w in itertools.combinations(unit, 2)]
    return sum(alike) / len(alike)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    draw, folder = random.Random(3), tmp_path_factory.mktemp("one")
    config = {"model": "some/model", "prompts": "prompts.jsonl", "sample": {"overlap": 2}, "loop": {"enough": 1.0}}
    world = World(Project.create(folder / "p", ProjectConfig.parse(config)))
    prompts = [Prompt(content=f"tell {n} the fox", split="validation") for n in range(24)]
    with world.project.store() as store:
        store.add_prompts(prompts)
        for who, kind in KINDS.items():
            store.add_labeler(Labeler(id=who, name=who.title(), kind=kind))  # type: ignore[arg-type]
        for n, prompt in enumerate(prompts):
            lengths = (3, 5, 5, 9)
            shown = [
                Response(
                    id=f"{n:02d}{'badc'[k]}", prompt_id=prompt.id, policy=POLICIES[k], round=1,
                    text=f"{sentence(draw, lengths[k] - 1, lengths[k] - 1)} {'abcd'[k]}{n}",
                )
                for k in range(4)
            ]  # fmt: skip
            store.add_responses(shown)
            world.text |= {one.id: one.text for one in shown}
            world.policy |= {one.id: one.policy for one in shown}
            world.rows += _said(draw, prompt.id, tuple(one.id for one in shown))
        for number, row in enumerate(world.rows):
            _submit(store, row, number)
    rewards = [
        {"prompt": f"tell {i} the bear", "chosen": f"{sentence(draw)} happily", "rejected": f"{sentence(draw)} sadly"}
        for i in range(24)
    ]
    with quiet():
        train(
            "reward", model=write_base(folder / "base"), data=write_rows(folder / "pairs.jsonl", rewards),
            out=world.project.artifacts / "r01-reward", lr=3e-3, epochs=2, batch_size=8, validation=0.25,
            trackers="none",
            precision="fp32",
        )  # fmt: skip
    manifest = world.project.artifacts / "r01-reward" / "manifest.json"
    made = json.loads(manifest.read_text("utf-8"))
    made["inputs"]["validation"] = [world.project.snapshot("validation")]
    manifest.write_text(json.dumps(made), "utf-8")
    yield world


def _said(draw: random.Random, prompt: str, ids: tuple[str, ...]) -> list[Row]:
    """What is said of the four responses to one prompt."""

    def ranking(width: int, none: float = 0.2) -> tuple[int | None, ...]:
        return tuple(None if draw.random() < none else draw.randint(0, 2) for _ in range(width))

    four, two = tuple(draw.sample(range(4), 4)), tuple(draw.sample(range(2), 2))
    pair = tuple(draw.sample(ids, 2))
    rows = [
        Row(prompt, "ana", ids, ranking(4), order=four),
        Row(prompt, "bo", ids, ranking(4), order=four[::-1] if draw.random() < 0.5 else None),
        Row(prompt, "left", pair, (0, 1) if two[0] == 0 else (1, 0), order=two),
        Row(prompt, "file", pair, (0, 1), share=draw.choice([0.55, 0.3, 0.5, 1.0])),
        Row(prompt, NOBODY, pair, ranking(2, 0.0)),
        Row(prompt, NOBODY, pair, ranking(2, 0.0)),
        Row(prompt, "judge", pair, (0, 1), share=0.7),
        Row(prompt, "judge", (ids[0], ids[3]), (0, 0), share=0.52),
    ]
    if draw.random() < 0.4:  # somebody says something else of the same responses later
        who = draw.choice(["ana", "file", "judge"])
        rows.append(Row(prompt, who, pair, (1, 0), order=two if who == "ana" else None))
    return rows


def _submit(store: Any, row: Row, number: int) -> None:
    payload = ComparisonPayload(response_ids=row.ids, ranks=row.ranks, share=row.share)
    store.submit(
        Judgment(
            id=f"j{number}", prompt_id=row.prompt, labeler_id=row.who, payload=payload, order=row.order, round=1,
            item_id=row.item,
        )
    )  # fmt: skip


def visitor(world: World, store: Any) -> TestClient:
    application = create_app(store, media=world.project.path)
    application.state.owner_pages = Pages(store, patience=60)
    client = TestClient(application, base_url="http://127.0.0.1:8765")
    account = next((a for a in store.access.accounts()), None) or store.access.add_account(
        Account(name="Owner", role="owner")
    )
    client.cookies.set(Door().cookie, store.access.open_session(account.id)[0])
    return client


def cells(html: str) -> dict[str, list[str]]:
    """Figures of the table rows of a page, by the names in their heads."""
    found = {}
    for row in re.findall(r"<tr>(?:<td class=\"n\">\d+)?<th scope=\"row\">(.*?)</tr>", html, re.S):
        heads = [re.sub(r"<.*|\s+", " ", head).strip() for head in row.split("<td")[0].split('<th scope="row">')]
        found[" ".join(heads)] = [c.strip() for c in re.findall(r"<td class=\"n\">\s*([^<\n]*)", row)]
    return found


def check(world: World, client: TestClient) -> None:
    """The report, the owner's pages and the API say of labelers what is counted by hand."""
    every = votes(world.rows)
    report = {judge.name.lower(): judge for judge in compose(world.project).judges}
    table = cells(client.get("/owner/labelers").text)
    for who in KINDS:
        mine = [vote for vote in every if vote.who == who]
        side, longer, ties = first_side(mine), world.longer(mine), sum(v.tied for v in mine) / len(mine)
        judge = report[who]
        assert judge.ties == pytest.approx(ties), who
        assert judge.longer.estimate == pytest.approx(longer), who  # type: ignore[union-attr]
        assert (judge.first_shown is None) == (side is None), who
        assert side is None or judge.first_shown.estimate == pytest.approx(side), who  # type: ignore[union-attr]
        row = next(figures for name, figures in table.items() if name.startswith(who.title()))
        assert row[3:6] == [percent(side), percent(longer), percent(ties)], who
    assert first_side(vote for vote in every if vote.who == "left") == 1.0
    assert {who for who, judge in report.items() if judge.first_shown is None} >= {"file", NOBODY}
    # κ of two labelers, on the owner's page; of the model with all people, in the report, the API and the round.
    said = cells(client.get("/owner/agreement").text)
    last = {(vote.who, vote.a, vote.b): vote.verdict for vote in every if vote.who != NOBODY}
    for one, other in itertools.combinations(sorted(set(KINDS) - {NOBODY}), 2):
        both = [(v, last[other, *unit]) for (who, *unit), v in last.items() if who == one and (other, *unit) in last]
        alike = sum(x == y for x, y in both) / len(both)
        assert said[f"{one.title()} {other.title()}"] == [fixed(kappa(both), 2), percent(alike), str(len(both))]
    people = [(last["judge", v.a, v.b], v.verdict) for v in every if v.who != "judge" and ("judge", v.a, v.b) in last]
    answer = client.get("/api/v1/labelers/judge/agreement").json()
    assert answer["overlap"] == report["judge"].overlap == len(people)
    assert answer["kappa"] == pytest.approx(kappa(people)) and answer["kappa_low"] < answer["kappa"]
    assert report["judge"].kappa == pytest.approx([answer[k] for k in ("kappa", "kappa_low", "kappa_high")])
    assert answer["agreement"] == pytest.approx(sum(x == y for x, y in people) / len(people))
    with world.project.store() as store:
        metrics = heard(store, 1)[1]
    assert metrics["ai"]["judge"] == pytest.approx(answer)
    of_round = votes(row for row in world.rows if row.item is None)  # items of an evaluation belong to no round
    assert metrics["agreement"] == pytest.approx(same_verdicts(of_round))
    assert metrics["ties"] == pytest.approx(sum(vote.tied for vote in of_round) / len(of_round))
    figures = client.get("/owner/agreement").text
    units = [[vote.verdict for vote in unit] for unit in by_unit(every).values() if len(unit) > 1]
    assert f"<dd>{fixed(ordinal_alpha(units), 2)}" in figures and f"<dd>{percent(same_verdicts(every))}" in figures
    # Wins, ties and losses of policies: comparisons that `evaluate` asked for are not among them.
    standings = cells(client.get("/owner/leaderboard").text)
    for policy in POLICIES[:3]:
        tally = [0.0, 0.0, 0.0]
        for vote in every:
            ours, theirs = world.policy[vote.a], world.policy[vote.b]
            if vote.evaluation or None in (ours, theirs) or ours == theirs or policy not in (ours, theirs):
                continue
            won = vote.outcome if ours == policy else 1 - vote.outcome
            for place, share in enumerate((0, 1, 0) if vote.outcome == 0.5 else (won, 0, 1 - won)):
                tally[place] += share
        row = next(figures for name, figures in standings.items() if name.startswith(str(policy)))
        assert any("{:g} · {:g} · {:g}".format(*tally) == cell for cell in row), (policy, tally, row)


def test_labelers_and_policies(world: World) -> None:
    with world.project.store() as store, visitor(world, store) as client:
        check(world, client)


def test_the_reward_model(world: World, tmp_path: Path) -> None:
    reward = world.project.artifacts / "r01-reward"
    decided = [vote for vote in votes(row for row in world.rows if not row.evaluation) if not vote.tied]
    with quiet():
        plain = compose(world.project).reward_model  # it has no card yet
        prompts = [f"tell {int(response[:2])} the fox" for response in world.text]
        scores = Judge(str(reward))(prompts, [[text] for text in world.text.values()])
        score = {response: row[0] for response, row in zip(world.text, scores, strict=True)}
        card = project_card(world.project)
    assert plain is not None and card is not None and plain.passes is None
    right = [v.outcome if score[v.a] > score[v.b] else 1 - v.outcome for v in decided]
    accuracy, longer = math.fsum(right) / len(right), world.longer(decided)
    for found in (plain, compose(world.project).reward_model, card):
        assert found is not None
        assert found.accuracy.estimate == pytest.approx(accuracy, abs=1e-6)  # type: ignore[union-attr]
        assert found.longer_wins.estimate == pytest.approx(longer)  # type: ignore[union-attr]
        assert tuple(found.accuracy) == pytest.approx(tuple(card.accuracy))  # type: ignore[arg-type]
    assert plain.held_out == card.pairs == len(decided)
    assert plain.calibration is not None and plain.calibration.brier == pytest.approx(card.calibration.brier)
    assert [b.count for b in plain.calibration.bins] == [b.count for b in card.calibration.bins]
    by_length = [0.5 if world.length(v.a) == world.length(v.b) else
                 v.outcome if world.length(v.a) > world.length(v.b) else 1 - v.outcome for v in decided]  # fmt: skip
    rule = math.fsum(by_length) / len(by_length)
    assert plain.length_baseline == card.length_baseline == pytest.approx(max(rule, 1 - rule))
    assert card.agreement is not None and card.agreement.estimate == pytest.approx(same_verdicts(decided))
    lean = next(probe.value for probe in card.probes if probe.name == "shown first wins")
    assert lean.estimate == pytest.approx(first_side(decided))
    for part in card.slices:
        if part.by == "labeler":
            mine = [share for v, share in zip(decided, right, strict=True) if v.who == part.name]
            assert (part.count, part.accuracy.estimate) == (len(mine), pytest.approx(math.fsum(mine) / len(mine)))
    # The same from an exported file, by the command line; a file does not hold in what order responses were shown.
    out = tmp_path / "rankings.jsonl"
    run(["export", str(out), "--as", "rankings", "--labelers", "-C", str(world.project.path)])
    said = json.loads(run(["card", str(reward), "--data", str(out), "--json"]))
    assert said["pairs"] == card.pairs and said["accuracy"] == pytest.approx(list(card.accuracy))
    assert said["agreement"] == pytest.approx(list(card.agreement)) and said["ceiling"] == pytest.approx(card.ceiling)
    assert said["length_baseline"] == card.length_baseline


def test_weights_by_reliability(world: World, tmp_path: Path) -> None:
    named = [vote for vote in votes(world.rows) if vote.who != NOBODY]
    shared = [vote for unit in by_unit(named).values() if len(unit) > 1 for vote in unit]
    units, people = list(by_unit(shared)), sorted({vote.who for vote in shared})
    rows = [  # which of the two is named first must mean nothing: every pair both ways round
        (2 * units.index((v.a, v.b)) + way, people.index(v.who), 1 + turn * v.verdict)
        for way, turn in ((0, 1), (1, -1))
        for v in shared
    ]
    unit, who, value = np.array(rows).T
    fitted = dawid_skene(unit, who, value, 3, smoothing=2.0)
    right = fitted.truth[unit, value]
    share = {name: float(right[who == at].mean()) for at, name in enumerate(people)}
    chance, counts = float(fitted.prior @ fitted.prior), Counter(vote.who for vote in named)
    plain = {name: max((share[name] - chance) / (1 - chance), 0.0) for name in people}
    mean = sum(plain[name] * counts[name] for name in people) / sum(counts[name] for name in people)
    wanted = {name: weight / mean for name, weight in plain.items()}
    with world.project.store() as store, visitor(world, store) as client:
        listed = {row["labeler"]: row for row in client.get("/owner/labelers/weights.json").json()}
        exported = client.get("/owner/export/file?layout=rankings&weighting=reliability").text.splitlines()
    assert {name: listed[name]["reliability"] for name in people} == pytest.approx(share)
    assert {name: listed[name]["weight"] for name in people} == pytest.approx(wanted)
    assert (listed[NOBODY]["reliability"], listed[NOBODY]["weight"]) == (None, 1.0)
    out, rankings = tmp_path / "weighted.jsonl", tmp_path / "plain.jsonl"
    command = ["export", str(out), "--as", "rankings", "--labelers", "-C", str(world.project.path)]
    run([*command, "--weights", "reliability"])
    weighted = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    given = {row["labeler"].lower(): row["weight"] for row in weighted if "weight" in row and "labeler" in row}
    assert given == pytest.approx({name: weight for name, weight in wanted.items() if weight != 1})
    assert [json.loads(line).get("weight") for line in exported] == [row.get("weight") for row in weighted]
    run(["export", str(rankings), *command[2:]])
    trained = {name.lower(): value for name, value in reliability(read_examples(rankings)).items()}
    assert trained == pytest.approx(share)


def run(arguments: list[str]) -> str:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_win_rates_of_an_evaluation(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """People compare three policies on six prompts; then everything above still holds."""
    with world.project.store() as store:
        prompts = [prompt for prompt in store.prompts()][:6]
    said = {name: [f"{name} {'river ' * (n % 3)}{n}" for n in range(6)] for name in ("old", "new", "third")}

    def assess(policies: Any, under: Any) -> EvaluationResult:
        figures = {name: PolicyResult(responses=tuple(said[name])) for name in policies}
        return EvaluationResult(baseline=policies[0], prompts=tuple(under.prompts), policies=figures)

    monkeypatch.setattr(comparing, "assess", assess)
    contents = [prompt.content for prompt in prompts]
    again: Callable[[], Any] = lambda: comparing.compare(  # noqa: E731
        list(said), conditions(world.project, contents, 0), judge(world.project, "people", 0, wait=False)
    )
    with pytest.raises(Waiting):
        again()
    draw = random.Random(5)
    with world.project.store() as store:
        items = list(store.items(selection="evaluation"))
        for item in items:
            for response in store.responses_by_id(item.response_ids).values():
                world.text[response.id], world.policy[response.id] = response.text, response.policy
            for who in ("ana", "left"):
                ranks = tuple(None if draw.random() < 0.15 else draw.randint(0, 1) for _ in item.response_ids)
                order = tuple(draw.sample(range(3), 3)) if draw.random() < 0.7 and who == "ana" else None
                world.rows.append(Row(item.prompt_id, who, item.response_ids, ranks, None, order, item.id, True))
                _submit(store, world.rows[-1], len(world.rows))
        for item, share in zip(items, (0.55, 0.45, 0.5), strict=False):  # two answers alone, and once more
            for who in ("file", "ana"):
                row = Row(item.prompt_id, who, item.response_ids[:2], (0, 1), share if who == "file" else None)
                world.rows.append(Row(**(vars(row) | {"evaluation": False})))
                _submit(store, row, len(world.rows))
    found = again()
    people = [vote for vote in votes(world.rows) if KINDS[vote.who] in ("person", "import")]
    for name in ("new", "third"):
        by_prompt: dict[str, list[float]] = defaultdict(list)
        for vote in people:
            sides = world.policy[vote.a], world.policy[vote.b]
            if set(sides) == {name, "old"}:
                by_prompt[vote.prompt].append(vote.outcome if sides[0] == name else 1 - vote.outcome)
        wins = [math.fsum(outcomes) / len(outcomes) for outcomes in by_prompt.values()]
        figures = found.policies[name]
        assert figures.comparisons == len(wins)
        assert figures.win_rate.estimate == pytest.approx(math.fsum(wins) / len(wins))
    with world.project.store() as store, visitor(world, store) as client:
        check(world, client)
