"""Which policy is better: head to head and on a leaderboard, by gold, a reward model, people, an AI or simulation."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

from hearken.errors import UserError
from hearken.evaluation.capability import load_task, perplexities, run_tasks
from hearken.evaluation.measure import asked_of, label_of
from hearken.feedback.examples import Content, content_key
from hearken.feedback.pairs import UNNAMED, words
from hearken.feedback.records import QueueItem, Response, hash_id
from hearken.feedback.store import FeedbackStore
from hearken.loop.asking import ask, pairs_of
from hearken.loop.assessment import assess
from hearken.loop.groups import LabelerGroup, found_groups, labeler_groups
from hearken.loop.rounds_options import Judge, LoopOptions, Who
from hearken.statistics.bradley_terry import leaderboard, length_lead
from hearken.statistics.intervals import Interval
from hearken.statistics.power import over_seeds
from hearken.statistics.winrate import outcomes, win_rate

if TYPE_CHECKING:
    from hearken.loop.project import Project

Row = tuple[str, str, float, str, float]
"""One comparison: two policies, the first one's outcome, the prompt, how many words longer the first answer is."""
Weighted = tuple[Row, float]
"""A comparison and what it counts: see `_weigh`."""

GOLD = "the gold reward"
NAMES: dict[Who, str] = {"people": "people", "ai": "an AI labeler", "simulated": "simulated labelers"}


def compare_policies(
    project: Project,
    policies: Sequence[str],
    prompts: Sequence[Content],
    seed: int,
    *,
    judge: Judge = "auto",
    loop: LoopOptions,
    reward: str | None = None,
    wait: bool = True,
    announce: Callable[[str], None] = lambda _: None,
    perplexity: Mapping[str, Sequence[str]] | None = None,
    tasks: Sequence[str] = (),
    seeds: Sequence[str] = (),
    metadata: Mapping[Content, dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Compare policies on the same held-out prompts; the first is the baseline.

    People, AI and simulated labelers are shown the answers of all policies to a prompt as one item, in random order and
    without names; equal answers are shown once and count as ties. Judgments given before on the same answers count.
    Every prompt counts once, however many judged it.

    Args:
        project: whose store is asked and whose world knows the gold reward.
        policies: paths or Hub names, or ``best-of-8@NAME``.
        prompts: held-out ones.
        seed: of the samples.
        judge: who decides; auto takes gold where it is known, else the reward model.
        loop: how long to wait for people, and the AI labeler.
        reward: the proxy; by default the one in use.
        wait: for people; else raise `asking.Waiting`.
        announce: takes lines for the person at the terminal.
        perplexity: texts on which each policy is measured, by name (`capability.texts_of`).
        tasks: task files on which each policy is tried.
        metadata: of prompts, for rewards that are rules or functions.
        seeds: those of the policies that come from the same training with different seeds: say how they spread.

    Returns:
        What `assess` does, with ``leaderboard`` (best first) and ``length_effect``; win rates are the judge's.

    Raises:
        UserError: no such judge here.
    """
    world = bool(project.config.world)
    if judge == "gold" and not world:
        raise UserError("the gold reward is known in a built-in world only", "Choose --judge people, ai or reward")
    asked = [load_task(path) for path in tasks]  # what is wrong with a file shows before an hour of sampling
    found = assess(project, policies, prompts, seed, reward, metadata)
    decides = ("gold" if world else "reward") if judge == "auto" else judge
    if decides == "reward" and found["reward"] is None:
        raise UserError("there is no reward model to judge by", "Run: hearken train reward, or choose another --judge")
    answers = {name: found["policies"][name]["responses"] for name in found["policies"]}
    keys = [content_key(p) for p in prompts]
    if decides in ("gold", "reward"):
        found["judge"] = GOLD if decides == "gold" else found["judge"]
        if decides == "reward" and world:
            found["judge"] = "the reward model (a proxy)"
        rank_by_score(found, keys)
    else:
        who: Who = decides  # type: ignore[assignment]
        items, shown = _items(project, answers, prompts, seed, who)
        ask(
            project, items, who, loop, ai=loop.ai, label="Waiting for judgments of the policies", wait=wait, seed=seed,
            announce=announce,
        )  # fmt: skip
        with project.store() as store:
            told = list(_by_judgment(store, who, shown))
            judged = {labeler for _, labeler in told}
            labelers = {labeler.id: labeler for labeler in store.labelers() if labeler.id in judged}
        alike = list(_alike(answers, keys))
        rows = _weigh([row for row, _ in told], alike, len(keys))
        found["judge"] = NAMES[who]
        _regroup(found, told, alike, labeler_groups(labelers, found_groups(project)))
        _rank(found, rows)
    if seeds:
        found["seeds"] = _seeds([found["policies"][label_of(name)] for name in dict.fromkeys(seeds)])
    return _capability(found, policies, perplexity or {}, asked)


def rank_by_score(found: dict[str, Any], keys: Sequence[str]) -> None:
    """Win rates and the leaderboard of the policies that the gold reward or the reward model scored, as it judges.

    Args:
        found: what `compare_policies` returns; its judge must be one of the two.
        keys: the prompts', in the order of the answers.
    """
    column = "golds" if found["judge"] == GOLD else "scores"
    scored = {name: f for name, f in found["policies"].items() if f.get("responses") and f.get(column)}
    answers, scores = ({name: f[part] for name, f in scored.items()} for part in ("responses", column))
    _rank(found, [(row, 1.0) for row in _by_score(answers, scores, keys)])


def _by_score(answers: dict[str, list[str]], scores: dict[str, list[float]], keys: Sequence[str]) -> Iterator[Row]:
    """Every pair of policies on every prompt."""
    for a, b in combinations(answers, 2):
        won = outcomes(scores[a], scores[b]).tolist()
        for i, key in enumerate(keys):
            yield a, b, won[i], key, _longer(answers[a][i], answers[b][i])


def _longer(a: str, b: str) -> float:
    return float(words(a) - words(b))


def _items(
    project: Project, answers: dict[str, list[str]], prompts: Sequence[Content], seed: int, who: Who
) -> tuple[list[QueueItem], dict[str, tuple[str, list[str], str]]]:
    """An item for each prompt with different answers; and of each response shown: prompt, whose it is, its text."""
    items: list[QueueItem] = []
    shown: dict[str, tuple[str, list[str], str]] = {}
    with project.store() as store:
        known = {content_key(p.content): p for p in store.prompts(domain="text")}
        for i, content in enumerate(prompts):
            key = content_key(content)
            by_text: dict[str, list[str]] = {}
            for name in answers:
                by_text.setdefault(answers[name][i], []).append(name)
            if len(by_text) < 2:
                continue
            prompt = known[key]
            responses = [
                Response(prompt_id=prompt.id, text=text, policy=names[0], seed=seed, metadata={"evaluation": True})
                for text, names in by_text.items()
            ]
            store.add_responses(responses)
            for response in responses:
                shown[response.id] = (key, by_text[response.text], response.text)
            items.append(
                QueueItem(
                    prompt_id=prompt.id, response_ids=tuple(r.id for r in responses), selection="evaluation",
                    propensity=1.0, slots=project.config.sample.overlap, metadata={"evaluation": True},
                    id=hash_id("evaluation", who, *(r.id for r in responses)),
                )
            )  # fmt: skip
    return items, shown


def _by_judgment(
    store: FeedbackStore, who: Who, shown: dict[str, tuple[str, list[str], str]]
) -> Iterator[tuple[Row, str]]:
    """Rows and their labelers, of every judgment in force that speaks about two of the answers."""
    for pair in pairs_of(store, who):
        if pair.a in shown and pair.b in shown:
            (key, ours, text), (_, theirs, other) = shown[pair.a], shown[pair.b]
            for a in ours:
                for b in theirs:
                    yield (a, b, pair.outcome, key, _longer(text, other)), pair.labeler or UNNAMED


def _alike(answers: dict[str, list[str]], keys: Sequence[str]) -> Iterator[Row]:
    """Equal answers are ties that nobody needs to be asked about."""
    for a, b in combinations(answers, 2):
        for i, key in enumerate(keys):
            if answers[a][i] == answers[b][i]:
                yield a, b, 0.5, key, 0.0


def _weigh(told: Sequence[Row], alike: Sequence[Row], prompts: int) -> list[Weighted]:
    """Rows with their weights: a prompt counts once in each pair of policies, the mean over its judgments.

    Equal answers count as much beside what was judged as they would if all ``prompts`` had been.
    """

    def pair(row: Row) -> tuple[str, ...]:
        return tuple(sorted(row[:2]))

    times = Counter((pair(row), row[3]) for row in told)
    judged = Counter(both for both, _ in times)
    equal = Counter(pair(row) for row in alike)
    found = [(row, 1 / times[pair(row), row[3]]) for row in told]
    for row in alike:
        others = prompts - equal[pair(row)]
        if share := judged[pair(row)] / others if others else 1.0:
            found.append((row, share))
    return found


def _regroup(
    found: dict[str, Any], told: Sequence[tuple[Row, str]], alike: Sequence[Row], groups: Sequence[LabelerGroup]
) -> None:
    """Win rates within each group of the labelers who judged, equal answers included; and how large the groups are.

    Those by the attribute ``group`` stand apart: they are what a policy is known by (its model card, its warnings).
    """
    prompts = len(found["prompts"])
    found["groups"] = {
        group.name: {
            "by": group.by, "key": group.key, "labelers": len(group.members),
            "comparisons": sum(who in group.members for _, who in told),
        }
        for group in groups
    }  # fmt: skip
    for name, figures in found["policies"].items():
        for key in ("win_rate", "win_rate_by_group", "win_rate_by_other"):
            figures.pop(key, None)
        if name == found["baseline"]:
            continue
        for group in groups:
            rows = _weigh([row for row, labeler in told if labeler in group.members], alike, prompts)
            if mine := _against(rows, name, found["baseline"]):
                key = "win_rate_by_group" if group.by == "group" else "win_rate_by_other"
                figures.setdefault(key, {})[group.name] = _rate(mine)


def _against(rows: Sequence[Weighted], name: str, base: str) -> list[tuple[float, str, float]]:
    """Outcomes of ``name`` against ``base``, with their prompts and weights."""
    found = []
    for (a, b, outcome, key, _), weight in rows:
        if (a, b) == (name, base):
            found.append((outcome, key, weight))
        elif (b, a) == (name, base):
            found.append((1 - outcome, key, weight))
    return found


def _rate(against: Sequence[tuple[float, str, float]]) -> Interval:
    outcomes, keys, weights = zip(*against, strict=True)
    return win_rate(outcomes, keys, weights=weights)


def _rank(found: dict[str, Any], rows: Sequence[Weighted]) -> None:
    """Win rates against the baseline, and the leaderboard of all with and without control for length."""
    for name, figures in found["policies"].items():
        if mine := _against(rows, name, found["baseline"]):
            figures["win_rate"] = _rate(mine)
            figures["comparisons"] = len({key for _, key, _ in mine})
    found["leaderboard"] = []
    if len(found["policies"]) < 2 or not rows:
        return
    first, second, outcomes, keys, longer = zip(*(row for row, _ in rows), strict=True)
    each: dict[str, Any] = {"prompts": list(keys), "weights": [weight for _, weight in rows]}
    plain = leaderboard(first, second, outcomes, **each)
    level = leaderboard(first, second, outcomes, **each, covariate=length_lead(longer, [0.0] * len(longer)))
    at_length = {s.name: s.strength for s in level.standings}
    found["length_effect"] = level.covariate
    for standing in plain.standings:
        beats = None if standing.name == found["baseline"] else plain.chance(standing.name, found["baseline"])
        found["leaderboard"].append(
            {
                "place": standing.place, "policy": standing.name, "strength": standing.strength,
                "strength_at_equal_length": at_length[standing.name], "beats_baseline": beats,
                "wins": standing.wins, "ties": standing.ties, "losses": standing.losses,
                "level_with": list(standing.level_with),
            }
        )  # fmt: skip


def _seeds(policies: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The spread of each figure over policies."""
    spread: dict[str, Any] = {}
    for key in ("win_rate", "gold", "proxy", "kl", "length"):
        values = [f[key][0] for f in policies if f.get(key) is not None and math.isfinite(f[key][0])]
        if len(values) == len(policies) and values:
            over = over_seeds(values)
            spread[key] = {
                "mean": over.mean, "deviation": over.deviation, "lowest": over.lowest, "highest": over.highest,
                "seeds": over.seeds,
            }  # fmt: skip
    return spread


def _capability(
    found: dict[str, Any], policies: Sequence[str], perplexity: Mapping[str, Sequence[str]], tasks: Sequence[Any]
) -> dict[str, Any]:
    """Perplexity and task scores of each policy; the best of n has none of its own."""
    for name in dict.fromkeys(policies):
        if asked_of(name).many == 1:
            figures = found["policies"][label_of(name)]
            if perplexity:
                figures["perplexities"] = perplexities(name, perplexity)
                figures["perplexity"] = next(iter(figures["perplexities"].values()))["token"]
            if tasks:
                figures["tasks"] = run_tasks(name, tasks)
    return found
