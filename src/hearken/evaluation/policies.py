"""Which policy is better: head to head and on a leaderboard, by gold, a reward model, people, an AI or simulation."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from hearken.domains.base import find_domain
from hearken.domains.best_of import label_of
from hearken.errors import UserError
from hearken.evaluation.answers import GOLD, Conditions, assess, by_reward_model
from hearken.evaluation.capability import load_task, with_capability
from hearken.evaluation.groups import LabelerGroup, labeler_groups
from hearken.evaluation.results import EvaluationResult, GroupOfJudges, JudgedBy, PolicyResult, Spread, Standing
from hearken.feedback.examples import content_key
from hearken.feedback.pairs import UNNAMED, pairs_of, words
from hearken.feedback.records import QueueItem, Response, hash_id
from hearken.feedback.store import FeedbackStore
from hearken.labelers.kinds import KINDS, WORDS, Score, Who
from hearken.statistics.bradley_terry import leaderboard, length_lead
from hearken.statistics.intervals import Interval
from hearken.statistics.power import over_seeds
from hearken.statistics.winrate import outcomes, win_rate

Row = tuple[str, str, float, str, float]
"""One comparison: two policies, the first one's outcome, the prompt, how many words longer the first answer is."""
Weighted = tuple[Row, float]
"""A comparison and what it counts: see `_weigh`."""


@dataclass(frozen=True)
class Labelers:
    """People, an AI or simulated labelers, who are shown the answers of the policies.

    Attributes:
        kind: which of these.
        open: the feedback database.
        ask: has items of its queue judged, and comes back when enough of them are.
        slots: how many labelers judge the same answers.
        name: of an AI, its model.
        found: groups that were found among them, besides those that they declare.
    """

    kind: Who
    open: Callable[[], FeedbackStore]
    ask: Callable[[Sequence[QueueItem]], None]
    slots: int = 1
    name: str = ""
    found: Sequence[LabelerGroup] = ()


def compare(
    policies: Sequence[str], under: Conditions, judge: Score | Labelers = "auto",
    *, seeds: Sequence[str] = (), perplexity: Mapping[str, Sequence[str]] | None = None, tasks: Sequence[str] = (),
) -> EvaluationResult:  # fmt: skip
    """Compare policies on the same held-out prompts; the first is the baseline.

    Labelers are shown the answers of all policies to a prompt as one item, in random order and without names; equal
    answers are shown once and count as ties. Judgments given before on the same answers count. Every prompt counts
    once, however many judged it.

    Args:
        policies: paths or Hub names, or ``best-of-8@NAME``.
        under: prompts, sampling, and what scores the answers.
        judge: who decides; auto takes gold where it is known, else the reward model.
        seeds: those of the policies that come from the same training with different seeds: say how they spread.
        perplexity: texts on which each policy is measured, by name (`capability.texts_of`).
        tasks: task files on which each policy is tried.

    Returns:
        What `assess` does, with the leaderboard and the effect of length; win rates are the judge's.

    Raises:
        UserError: no such judge here; whatever ``Labelers.ask`` raises.
    """
    known = under.world is not None
    if judge == "gold" and not known:
        raise UserError("the gold reward is known in a built-in world only", "Choose --judge people, ai or reward")
    loaded = [load_task(path) for path in tasks]  # what is wrong with a file shows before an hour of sampling
    found = assess(policies, under)
    if judge == "auto":
        judge = "gold" if known else "reward"
    if judge == "reward" and found.reward is None:
        raise UserError("there is no reward model to judge by", "Run: hearken train reward, or choose another --judge")
    if judge == "gold":
        found = rank_by_score(found.but(judge=GOLD))
    elif judge == "reward":
        by_reward = by_reward_model(found.reward or "")
        found = rank_by_score(found.but(judge=by_reward.but(remark="a proxy") if known else by_reward))
    else:
        found = _by_labelers(found, judge, under.seed)
    if seeds:
        found = found.but(seeds=_seeds([found.policies[label_of(name)] for name in dict.fromkeys(seeds)]))
    return with_capability(found, policies, perplexity or {}, loaded)


def _by_labelers(found: EvaluationResult, labelers: Labelers, seed: int) -> EvaluationResult:
    """Ask labelers; with their win rates, overall and by group, and the leaderboard."""
    answers = _answers(found)
    keys = [content_key(p) for p in found.prompts]
    items, shown = _items(labelers, answers, found, seed)
    labelers.ask(items)
    with labelers.open() as store:
        told = list(_by_judgment(store, labelers.kind, shown))
        judged = {labeler for _, labeler in told}
        who = {labeler.id: labeler for labeler in store.labelers() if labeler.id in judged}
    alike = list(_alike(answers, keys))
    rows = _weigh([row for row, _ in told], alike, len(keys))
    judge = JudgedBy(kind=labelers.kind, words=WORDS[labelers.kind], name=labelers.name)
    return _rank(_regroup(found.but(judge=judge), told, alike, labeler_groups(who, labelers.found)), rows)


def _answers(found: EvaluationResult) -> dict[str, Sequence[str]]:
    return {name: policy.responses for name, policy in found.policies.items() if policy.responses}


def rank_by_score(found: EvaluationResult) -> EvaluationResult:
    """With win rates and the leaderboard of the policies that the gold reward or the reward model scored, as it judges.

    Args:
        found: by one of the two.
    """
    gold = found.judge is not None and found.judge.kind == "gold"
    scores = {name: policy.golds if gold else policy.scores for name, policy in found.policies.items()}
    answers = {name: said for name, said in _answers(found).items() if scores[name]}
    keys = [content_key(prompt) for prompt in found.prompts]
    return _rank(found, [(row, 1.0) for row in _by_score(answers, scores, keys)])


def _by_score(
    answers: Mapping[str, Sequence[str]], scores: Mapping[str, Sequence[float]], keys: Sequence[str]
) -> Iterator[Row]:
    """Every pair of policies on every prompt."""
    for a, b in combinations(answers, 2):
        won = outcomes(scores[a], scores[b]).tolist()
        for i, key in enumerate(keys):
            yield a, b, won[i], key, _longer(answers[a][i], answers[b][i])


def _longer(a: str, b: str) -> float:
    return float(words(a) - words(b))


def _items(
    labelers: Labelers, answers: Mapping[str, Sequence[str]], asked: EvaluationResult, seed: int
) -> tuple[list[QueueItem], dict[str, tuple[str, list[str], str]]]:
    """An item for each prompt with different answers; and of each response shown: prompt, whose it is, its content."""
    items: list[QueueItem] = []
    shown: dict[str, tuple[str, list[str], str]] = {}
    domain = find_domain(asked.domain)
    with labelers.open() as store:
        known = {content_key(p.content): p for p in store.prompts(domain=asked.domain)}
        for i, asked_for in enumerate(asked.prompts):
            key = content_key(asked_for)
            by_content: dict[str, list[str]] = {}
            for name in answers:
                by_content.setdefault(answers[name][i], []).append(name)
            if len(by_content) < 2:
                continue
            prompt = known[key]
            responses = [
                Response(
                    prompt_id=prompt.id, **domain.fields(content), policy=names[0], seed=seed,
                    metadata={"evaluation": True},
                )
                for content, names in by_content.items()
            ]  # fmt: skip
            store.add_responses(responses)
            for response in responses:
                shown[response.id] = (key, by_content[response.content], response.content)
            items.append(
                QueueItem(
                    prompt_id=prompt.id, response_ids=tuple(r.id for r in responses), selection="evaluation",
                    propensity=1.0, slots=labelers.slots, metadata={"evaluation": True},
                    id=hash_id("evaluation", labelers.kind, *(r.id for r in responses)),
                )
            )  # fmt: skip
    return items, shown


def _by_judgment(
    store: FeedbackStore, who: Who, shown: dict[str, tuple[str, list[str], str]]
) -> Iterator[tuple[Row, str]]:
    """Rows and their labelers, of every judgment in force that speaks about two of the answers."""
    for pair in pairs_of(store, KINDS[who]):
        if pair.a in shown and pair.b in shown:
            (key, ours, text), (_, theirs, other) = shown[pair.a], shown[pair.b]
            for a in ours:
                for b in theirs:
                    yield (a, b, pair.outcome, key, _longer(text, other)), pair.labeler or UNNAMED


def _alike(answers: Mapping[str, Sequence[str]], keys: Sequence[str]) -> Iterator[Row]:
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
    found: EvaluationResult, told: Sequence[tuple[Row, str]], alike: Sequence[Row], groups: Sequence[LabelerGroup]
) -> EvaluationResult:
    """With win rates within each group of the labelers who judged, equal answers included; and how large these are.

    Those by the attribute ``group`` stand apart: they are what a policy is known by (its model card, its warnings).
    """
    behind = {
        group.name: GroupOfJudges(
            by=group.by, key=group.key, labelers=len(group.members),
            comparisons=sum(who in group.members for _, who in told),
        )
        for group in groups
    }  # fmt: skip
    by_group = [
        (group, _weigh([row for row, labeler in told if labeler in group.members], alike, len(found.prompts)))
        for group in groups
    ]
    policies = {}
    for name, policy in found.policies.items():
        rates = [
            (group, _rate(mine))
            for group, rows in by_group
            if name != found.baseline and (mine := _against(rows, name, found.baseline))
        ]
        policies[name] = policy.but(
            win_rate=None,
            win_rate_by_group={group.name: rate for group, rate in rates if group.by == "group"},
            win_rate_by_other={group.name: rate for group, rate in rates if group.by != "group"},
        )
    return found.but(groups=behind, policies=policies)


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


def _rank(found: EvaluationResult, rows: Sequence[Weighted]) -> EvaluationResult:
    """With win rates against the baseline, and the leaderboard of all with and without control for length."""
    policies = dict(found.policies)
    for name, policy in policies.items():
        if mine := _against(rows, name, found.baseline):
            policies[name] = policy.but(win_rate=_rate(mine), comparisons=len({key for _, key, _ in mine}))
    found = found.but(policies=policies, leaderboard=())
    if len(policies) < 2 or not rows:
        return found
    first, second, outcomes, keys, longer = zip(*(row for row, _ in rows), strict=True)
    weights = [weight for _, weight in rows]
    lead = length_lead(longer, [0.0] * len(longer))
    plain = leaderboard(first, second, outcomes, prompts=keys, weights=weights)
    level = leaderboard(first, second, outcomes, prompts=keys, weights=weights, covariate=lead)
    at_length = {s.name: s.strength for s in level.standings}
    standings = [
        Standing(
            place=one.place, policy=one.name, strength=one.strength, strength_at_equal_length=at_length[one.name],
            beats_baseline=None if one.name == found.baseline else plain.chance(one.name, found.baseline),
            wins=one.wins, ties=one.ties, losses=one.losses, level_with=tuple(one.level_with),
        )
        for one in plain.standings
    ]  # fmt: skip
    return found.but(leaderboard=standings, length_effect=level.covariate)


def _seeds(policies: Sequence[PolicyResult]) -> list[Spread]:
    """The spread of each figure that all policies have."""
    figures: dict[str, list[Interval | None]] = {
        "win_rate": [p.win_rate for p in policies], "gold": [p.gold for p in policies],
        "proxy": [p.proxy for p in policies], "kl": [p.kl for p in policies], "length": [p.length for p in policies],
    }  # fmt: skip
    spread = []
    for name, some in figures.items():
        values = [figure.estimate for figure in some if figure is not None and math.isfinite(figure.estimate)]
        if len(values) == len(policies) and values:
            over = over_seeds(values)
            spread.append(
                Spread(
                    name=name, mean=over.mean, deviation=over.deviation, lowest=over.lowest,
                    highest=over.highest, seeds=over.seeds,
                )
            )  # fmt: skip
    return spread
