"""The reward-model card: whether a reward model is good enough to train a policy on, from held-out comparisons.

A card fails where the lower 95 % bound of the accuracy does not exceed both a coin's 50 % and what length alone gives;
stages that optimise a reward refuse to start on it. Everything is by prompt: intervals resample prompts, not pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata, spearmanr

from hearken.domains.base import Probed
from hearken.errors import UserError
from hearken.evaluation.compare import Calibration, calibration
from hearken.evaluation.numbers import percent, with_interval
from hearken.evaluation.people import Discovered, Strangers, found_name
from hearken.evaluation.reward_card import Ensemble, Probe, RewardCard, Shift, Slice
from hearken.feedback.examples import MEDIA, Comparison, Content, Said, answers, content_key
from hearken.feedback.pairs import Pair, decided, hits, margins_of, words
from hearken.feedback.splits import labeler_value
from hearken.statistics.agreement import raw_agreement, value_counts
from hearken.statistics.intervals import Interval, cluster_bootstrap, cluster_index, clustered_wilson, paired_difference

LEAST = 20
"""Pairs below which a slice is not shown: its interval would say nothing."""
MATCHED = 0.1
"""Responses whose lengths differ by at most this share of the longer one count as equally long."""
Scores = Callable[[Sequence[Content], Sequence[Sequence[Said]]], list[list[float]]]
"""(prompts, responses to each) to scores of each, e.g. a `domains.base.Scorer`."""
Table = Sequence[Sequence[float]]
"""Scores of the responses of each row."""


@dataclass(frozen=True)
class Evidence:
    """What a card may say besides, where it was measured."""

    others: Sequence[Scores] = ()
    """Further models of the same data, e.g. of other seeds."""
    heads: Sequence[Table] = ()
    """Where there are none, scores by the model's own heads, each fitted to a bootstrap sample of its comparisons."""
    own: Table | None = None
    """Scores by the heads of their labelers' groups, where the model has such."""
    shift: Shift | None = None
    """See `measure_shift`."""
    strangers: Strangers | None = None
    """See `people.strangers`."""
    discovered: Discovered | None = None
    """See `people.discover`."""


def make_card(
    reward: str,
    rows: Sequence[Comparison],
    score: Scores,
    evidence: Evidence = Evidence(),
    probes: Callable[[Sequence[Comparison], Table], Sequence[Probed]] = lambda rows, scored: (),
) -> RewardCard:
    """Measure a reward model on held-out comparisons.

    Of the rows' metadata it reads, where they are there: ``labeler``, ``attributes`` (``group`` in them), ``round``,
    ``selection`` ("uniform" is the untouched slice), ``tags``, ``order`` (in which the responses were shown).
    Where the rows' weights differ, they count in the accuracy and in what length alone gives; a slice is as it is.

    Args:
        reward: its name.
        rows: comparisons on prompts that it was not trained on.
        score: the model.
        evidence: what else is known of it; scores there are of the rows' responses, too.
        probes: what the domain asks the model where responses are no texts; see `domains.base.Details.probes`.

    Raises:
        UserError: no row orders two responses.
    """
    shift, strangers, discovered = evidence.shift, evidence.strangers, evidence.discovered
    scored = score([r.prompt for r in rows], [answers(r) for r in rows])
    pairs = decided(rows)
    if not pairs:
        raise UserError("no held-out comparison orders two responses", "Give --data with judgments that prefer one")
    keys = [p.prompt for p in pairs]
    margins, weights = margins_of(pairs, scored), np.array([rows[p.judgment].weight for p in pairs])
    right = hits(pairs, margins)
    baseline, longer = length_baseline(pairs, weights), longer_wins(pairs, weights)
    agreement, ceiling = agreement_ceiling(rows)
    uniform, selected = _by_selection(rows, pairs, right)
    found = accuracy(pairs, margins, weights)
    written = not any(MEDIA in row.metadata for row in rows)  # a file has no words
    failures = _verdict(found, baseline if written else 0.0, longer.estimate >= 0.5, len(set(keys)))
    remarks = []
    if written:
        probed = _probes(rows, scored, pairs, right, score)
    else:
        probed = [Probe(name=name, value=value, says=says) for name, value, says in probes(rows, scored)]
        probed += _sides(pairs, right)
    if ceiling is not None and found.low > ceiling[1]:
        remarks.append(
            f"The accuracy is above what labelers' agreement allows ({percent(ceiling[1])}): look for prompts that "
            "stand in the training data too."
        )
    if uniform is not None and selected is not None and uniform.high < selected.low:
        remarks.append("It is worse on uniformly drawn comparisons than on selected ones: quote the uniform figure.")
    remarks += shift.says if shift is not None else []
    slices = _slices(rows, pairs, right)
    if evidence.own is not None:
        theirs = _slices(rows, pairs, hits(pairs, margins_of(pairs, evidence.own)), ("labeler group", "labeler"))
        slices += [part.but(by=f"{part.by}, own head") for part in theirs]
    if strangers is not None:
        apart, known = strangers.pairs
        by = "labelers, fitted without some"
        slices.append(Slice(by=by, name="of those left out", accuracy=strangers.theirs, count=apart))
        slices.append(Slice(by=by, name="of the others", accuracy=strangers.others, count=known))
        remarks.append(strangers.says)
    if discovered is not None and discovered.real:
        of = {who: found_name(g) for g, group in enumerate(discovered.groups) for who in group}
        slices += _divided(pairs, right, "labeler group", [(of[p.labeler],) if p.labeler in of else () for p in pairs])
        remarks.append(discovered.says)
    sample = np.random.default_rng(0).permutation(sum(len(r.responses) for r in rows) if written else 0)[:2000]
    flat = [(words(t), s) for r, ss in zip(rows, scored, strict=True) for t, s in zip(r.responses, ss, strict=True)]
    return RewardCard(
        reward=reward, pairs=len(pairs), prompts=len(set(keys)), accuracy=found,
        longer_wins=longer, length_baseline=baseline, passes=not failures, failures=failures,
        remarks=remarks, agreement=agreement,
        ceiling=ceiling, calibration=calibrated(pairs, margins), slices=slices, probes=probed, uniform=uniform,
        selected=selected, lengths=[flat[i][0] for i in sample], scores=[round(flat[i][1], 4) for i in sample],
        ensemble=_ensemble(rows, pairs, scored, evidence.others, evidence.heads), shift=shift, learning=[],
        strangers=strangers, discovered=discovered,
    )  # fmt: skip


# --- verdict ---------------------------------------------------------------------------------------------------------


def _verdict(accuracy: Interval, baseline: float, longer: bool, prompts: int) -> list[str]:
    if not math.isfinite(accuracy.low):
        return [f"All pairs are of {prompts} prompt: no interval can be given. Hold out more prompts."]
    found = []
    if accuracy.low <= 0.5:
        found.append(f"It cannot be told from a coin: accuracy {with_interval(accuracy, True)}.")
    if accuracy.low <= baseline:
        rule = "the longer response" if longer else "the shorter response"
        found.append(
            f"It cannot be told from a rule that prefers {rule} ({percent(baseline)}): "
            f"accuracy {with_interval(accuracy, True)}."
        )
    return found


def agreement_ceiling(rows: Sequence[Comparison]) -> tuple[Interval | None, tuple[float, float] | None]:
    """How often two labelers order the same pair alike, and what accuracy that leaves for anyone.

    Where a share p of labelers would prefer the first response, two agree with chance p² + (1 - p)² and the best
    predictor is right with chance max(p, 1 - p). The first is never more than the second; and as the second is a
    concave function of the first, (1 + √(2a - 1))/2 at the mean agreement a is never less than it.

    Returns:
        The agreement with its interval over prompts, and the two bounds; None where nobody judged a pair twice.
    """
    pairs = decided(rows)
    unit = cluster_index([(p.prompt, p.a, p.b) for p in pairs], len(pairs))
    counts = value_counts(unit, [p.verdict > 0 for p in pairs], 2)
    found = raw_agreement(counts, list(dict(zip(unit.tolist(), (p.prompt for p in pairs), strict=True)).values()))
    if not math.isfinite(found.estimate):
        return None, None
    return found, (found.estimate, (1 + math.sqrt(max(2 * found.estimate - 1, 0.0))) / 2)


# --- parts of the card -----------------------------------------------------------------------------------------------


def accuracy(pairs: Sequence[Pair], margins: ArrayLike, weights: NDArray[np.float64] | None = None) -> Interval:
    """How often scores order decided pairs as they were judged, with its interval over prompts; see `pairs.hits`."""
    return _rate(hits(pairs, margins), [pair.prompt for pair in pairs], weights)


def longer_wins(pairs: Sequence[Pair], weights: NDArray[np.float64]) -> Interval:
    """Share of the votes on pairs of unequal length that went to the longer response."""
    lengths = _length_margins(pairs)
    return _part(hits(pairs, lengths), pairs, lengths != 0, weights)


def length_baseline(pairs: Sequence[Pair], weights: NDArray[np.float64]) -> float:
    """Accuracy of the better of two rules: the longer response is better, or the shorter; at equal length by lot."""
    rule = float(np.average(hits(pairs, _length_margins(pairs)), weights=weights))
    return max(rule, 1 - rule)


def _length_margins(pairs: Sequence[Pair]) -> NDArray[np.float64]:
    return np.array([words(pair.a) - words(pair.b) for pair in pairs], dtype=np.float64)


def _rate(right: NDArray[np.float64], keys: Sequence[str], weights: NDArray[np.float64] | None = None) -> Interval:
    """An accuracy with its interval over prompts (``keys``); NaN where there is nothing to measure it on."""
    counted = weights if weights is not None and len(np.unique(weights)) > 1 else None
    if len(set(keys)) > 1:
        return clustered_wilson(right, keys, weights=counted)
    return Interval(float(np.average(right, weights=counted)) if len(right) else math.nan, math.nan, math.nan)


def _part(
    right: NDArray[np.float64], pairs: Sequence[Pair], inside: NDArray[np.bool_],
    weights: NDArray[np.float64] | None = None,
) -> Interval:  # fmt: skip
    """The accuracy on some of the pairs."""
    keys = [pair.prompt for pair, yes in zip(pairs, inside, strict=True) if yes]
    return _rate(right[inside], keys, None if weights is None else weights[inside])


def calibrated(pairs: Sequence[Pair], margins: NDArray[np.float64]) -> Calibration:
    """Predicted against observed. Every pair in a random orientation: names or lengths may know which one is better."""
    turn = np.where(np.random.default_rng(0).random(len(pairs)) < 0.5, -1, 1)
    happened = 0.5 + turn * (np.array([p.outcome for p in pairs]) - 0.5)
    return calibration((0.5 * (1 + np.tanh(turn * margins / 2))).tolist(), happened.tolist())


def _divided(
    pairs: Sequence[Pair], right: NDArray[np.float64], by: str, labels: Sequence[tuple[str, ...]]
) -> list[Slice]:
    """A slice of each part that is large enough; a pair belongs to all that its labels name."""
    found = []
    for name in sorted({name for names in labels for name in names}):
        inside = np.array([name in names for names in labels])
        if inside.sum() >= LEAST:
            found.append(Slice(by=by, name=name, accuracy=_part(right, pairs, inside), count=int(inside.sum())))
    return found


def _slices(
    rows: Sequence[Comparison], pairs: Sequence[Pair], right: NDArray[np.float64], only: Sequence[str] = ()
) -> list[Slice]:
    gaps = np.abs(_length_margins(pairs))
    edges = np.unique(np.quantile(gaps, [1 / 3, 2 / 3]))
    attributes = {name for row in rows for name in row.metadata.get("attributes") or {} if name != "group"}
    written = not any(MEDIA in row.metadata for row in rows)
    divisions = ["strength", *(["length gap"] if written else []), "tag", "labeler group", "labeler", "round"]
    divisions += [f"labelers' {name}" for name in sorted(attributes)]
    divisions = [by for by in divisions if not only or by in only]
    of = [(rows[p.judgment], gap) for p, gap in zip(pairs, gaps, strict=True)]
    labels = {by: [_values(by, row, gap, edges) for row, gap in of] for by in divisions}
    return [part for by, names in labels.items() for part in _divided(pairs, right, by, names)]


def _values(by: str, row: Comparison, gap: int, edges: NDArray[np.float64]) -> tuple[str, ...]:
    """The parts of the division ``by`` that a pair of a row belongs to."""
    facts = row.metadata
    match by:
        case "strength":
            strength = row.strength
            return () if strength is None else (("slight", "clear", "strong")[min(int(strength * 3), 2)],)
        case "length gap":
            level = int(np.searchsorted(edges, gap, side="left"))
            low = 0 if level == 0 else math.floor(edges[level - 1]) + 1
            return (f"{low} words or more" if level == len(edges) else f"{low} to {math.floor(edges[level])} words",)
        case "tag":
            tags = facts.get("tags") or ()
            return (tags,) if isinstance(tags, str) else tuple(map(str, tags))
        case "labeler" | "round":
            value = labeler_value(row, by)
        case "labeler group":
            value = facts.get("group", (facts.get("attributes") or {}).get("group"))
        case _:
            value = (facts.get("attributes") or {}).get(by.removeprefix("labelers' "))
    return () if value is None else (str(value),)


def _by_selection(
    rows: Sequence[Comparison], pairs: Sequence[Pair], right: NDArray[np.float64]
) -> tuple[Interval | None, Interval | None]:
    how = [rows[p.judgment].metadata.get("selection") for p in pairs]
    parts: list[Interval | None] = []
    for wanted in (True, False):
        inside = np.array([h is not None and (h == "uniform") == wanted for h in how])
        parts.append(_part(right, pairs, inside) if inside.any() else None)
    return parts[0], parts[1]


def _probes(
    rows: Sequence[Comparison], scored: Sequence[Sequence[float]], pairs: Sequence[Pair],
    right: NDArray[np.float64], score: Scores,
) -> list[Probe]:  # fmt: skip
    """Does it read length, place or form instead of worth?"""
    found = []
    lengths = np.array([(words(p.a), words(p.b)) for p in pairs], dtype=float)
    matched = np.abs(lengths[:, 0] - lengths[:, 1]) <= MATCHED * lengths.max(1)
    if matched.sum() >= LEAST:
        says = "Accuracy on pairs of equal length (within a tenth): what is left when length cannot help."
        found.append(Probe(name="equal length", value=_part(right, pairs, matched), says=says))
    for name, measure, says in (
        ("score against length", lambda t: float(words(t)), "Rank correlation with words within a prompt."),
        ("score against lines", lambda t: float(t.count("\n")), "Rank correlation with line breaks within a prompt."),
        ("score against lists and marks", lambda t: float(sum(t.count(m) for m in "*#|`")),
         "Rank correlation with Markdown marks within a prompt."),
    ):  # fmt: skip
        value = _within(rows, scored, measure)
        if value is not None:
            found.append(Probe(name=name, value=value, says=says))
    found += _sides(pairs, right)
    some = [i for i in np.random.default_rng(0).permutation(len(rows))[:200]]
    plain = [rows[i].responses[0] for i in some if rows[i].responses[0].strip()]
    prompts = [rows[i].prompt for i in some if rows[i].responses[0].strip()]
    if len(plain) >= LEAST:
        changed = [[t, f"{t} {t.strip()}", _half(t)] for t in plain]
        table = np.array(score(prompts, changed))
        owner = [content_key(p) for p in prompts]
        for name, column, says in (
            (
                "said twice",
                1,
                "Share of responses that score higher when their whole text is said twice: should be near 0.",
            ),
            (
                "cut in half",
                2,
                "Share of responses that score higher when their second half is cut off: should be low.",
            ),
        ):
            higher = (table[:, column] > table[:, 0]).astype(float)
            found.append(Probe(name=name, value=_rate(higher, owner), says=says))
    return found


def _half(text: str) -> str:
    words = text.split(" ")
    return " ".join(words[: max(len(words) // 2, 1)])


def _within(
    rows: Sequence[Comparison], scored: Sequence[Sequence[float]], measure: Callable[[str], float]
) -> Interval | None:
    """Mean rank correlation of score and measure over the prompts' responses; None where the measure hardly varies."""
    values, keys = [], []
    for row, scores in zip(rows, scored, strict=True):
        x = [measure(t) for t in row.responses]
        if len(set(x)) > 1 and len(set(scores)) > 1:
            values.append(
                float(spearmanr(x, scores).statistic)
                if len(x) > 2
                else float(np.sign((x[0] - x[1]) * (scores[0] - scores[1])))
            )
            keys.append(content_key(row.prompt))
    if len(set(keys)) < LEAST:
        return None
    return cluster_bootstrap(values, keys)


def _sides(pairs: Sequence[Pair], right: NDArray[np.float64]) -> list[Probe]:
    """Where the order of display is known: a lean of the labels, and what the model makes of it."""
    known = np.array([p.shown_first is not None for p in pairs])
    if known.sum() < LEAST:
        return []
    first = hits(pairs, [1 if p.shown_first else -1 for p in pairs])
    lean = _part(first, pairs, known)
    says = "Share of labels for the response shown first; 0.5 is no lean."
    found = [Probe(name="shown first wins", value=lean, says=says)]
    sides = right[known & (first > 0.5)], right[known & (first < 0.5)]
    if min(map(len, sides)) >= LEAST:
        gap = float(sides[0].mean() - sides[1].mean())
        half = 1.96 * math.sqrt(sum(side.var() / len(side) for side in sides))
        says = "Accuracy where the label went to the first side, minus where it went to the other: labels' side bias."
        found.append(Probe(name="side gap", value=Interval(gap, gap - half, gap + half), says=says))
    return found


def _ensemble(
    rows: Sequence[Comparison], pairs: Sequence[Pair], scored: Table, others: Sequence[Scores], heads: Sequence[Table]
) -> Ensemble | None:  # fmt: skip
    """Of the model with the others, or of its heads alone where there are no others."""
    prompts, responses = [r.prompt for r in rows], [answers(r) for r in rows]
    every = [scored, *(score(prompts, responses) for score in others)] if others else heads
    if not every:
        return None
    margins = np.array([margins_of(pairs, table) for table in every])
    spread, mean = margins.std(0, ddof=1), margins.mean(0)
    right = hits(pairs, mean)
    keys = [p.prompt for p in pairs]
    order = np.argsort(spread, kind="stable")
    thirds = tuple(_rate(right[part], [keys[i] for i in part]) for part in np.array_split(order, 3) if len(part))
    return Ensemble(
        models=len(every), disagreement=float(spread.mean()), predicts_errors=_area(spread, right < 0.5, keys),
        by_third=thirds, of="reward models" if others else "heads",
    )  # fmt: skip


def _area(value: NDArray[np.float64], wrong: NDArray[np.bool_], keys: Sequence[str]) -> Interval:
    """Area under the curve of ``value`` as a sign of ``wrong``, with its interval over prompts."""

    def area(rows: NDArray[np.float64]) -> float:
        return area_under_curve(rows[:, 0], rows[:, 1] > 0.5)

    if not 0 < wrong.sum() < len(wrong):
        return Interval(math.nan, math.nan, math.nan)
    return cluster_bootstrap(np.stack([value, wrong.astype(float)], 1), keys, area, n=300)


def area_under_curve(value: ArrayLike, positive: ArrayLike) -> float:
    """Chance that a positive row's value exceeds a negative one's, ties half; NaN where one side is empty."""
    x, y = np.asarray(value, dtype=float), np.asarray(positive, dtype=bool)
    p, n = int(y.sum()), int((~y).sum())
    return math.nan if not p or not n else float((rankdata(x)[y].sum() - p * (p + 1) / 2) / (p * n))


# --- shift and learning curve ----------------------------------------------------------------------------------------


def measure_shift(
    then: ArrayLike, now: ArrayLike, widths_then: ArrayLike, widths_now: ArrayLike, *,
    length: tuple[float, float], score: tuple[float, float], folds: int = 4, seed: int = 0,
) -> Shift:  # fmt: skip
    """Compare two sets of responses by their last-layer features.

    Args:
        then: (N, d) features of responses it was trained on.
        now: (M, d) of those it scores now.
        widths_then: (N,) confidence widths (`rewards.confidence`).
        widths_now: (M,).
        length: mean words of each.
        score: mean score of each.
        folds: of the cross-validation.
        seed: of the folds.
    """
    x = np.concatenate([np.asarray(then, dtype=float), np.asarray(now, dtype=float)])
    y = np.concatenate([np.zeros(len(np.asarray(then))), np.ones(len(np.asarray(now)))]).astype(bool)
    part = np.random.default_rng(seed).permutation(len(x)) % folds
    said = np.zeros(len(x))
    for fold in range(folds):
        fit, test = part != fold, part == fold
        a, b = x[fit & ~y], x[fit & y]
        if len(a) < 2 or len(b) < 2:
            continue
        pooled = (np.cov(a.T) * (len(a) - 1) + np.cov(b.T) * (len(b) - 1)) / (len(a) + len(b) - 2)
        pooled = np.atleast_2d(pooled)
        shrunk = pooled + 0.1 * np.trace(pooled) / len(pooled) * np.eye(len(pooled))
        said[test] = x[test] @ np.linalg.solve(shrunk, b.mean(0) - a.mean(0))
        said[test] -= (a.mean(0) + b.mean(0)) @ np.linalg.solve(shrunk, b.mean(0) - a.mean(0)) / 2
    limit = float(np.quantile(np.asarray(widths_then, dtype=float), 0.95))
    beyond = float(np.mean(np.asarray(widths_now, dtype=float) > limit))
    return Shift(
        trained_on=int((~y).sum()), scored_now=int(y.sum()), told_apart=area_under_curve(said, y),
        wider_than_training=beyond, length=length, score=score,
    )  # fmt: skip


def would_help(
    curve: Sequence[tuple[int, NDArray[np.float64]]], larger: NDArray[np.float64] | None, keys: Sequence[str]
) -> str:
    """Would more labels or a larger reward model help more? In words, from correctness on the same held-out pairs.

    Args:
        curve: (labels, (P,) right or not) of fits on growing shares of the labels, the last on all.
        larger: (P,) of a larger model on all labels; None where there is none.
        keys: (P,) prompts.
    """
    (some, before), (every, after) = curve[-2:]
    doubled = paired_difference(after, before, keys)
    times = every / some
    parts = [f"{times:.2g} times the labels brought {_points(doubled)}"]
    better = None
    if larger is not None:
        size = paired_difference(larger, after, keys)
        parts.append(f"a larger model on the same labels {_points(size)}")
        better = paired_difference(larger - after, after - before, keys)
    told = [d for d in (doubled, None if larger is None else size) if d is not None and d.low > 0]
    if not told:
        end = "Neither can be told from no gain on these held-out pairs." if larger is not None else (
            "That cannot be told from no gain here: hold out more pairs, or try another model, first."
        )  # fmt: skip
    elif better is None:
        end = "More labels still help."
    elif better.low > 0:
        end = "A larger reward model helps more."
    elif better.high < 0:
        end = "More labels help more."
    else:
        end = "Which of the two helps more cannot be told on these held-out pairs."
    return f"{'; '.join(parts)}. {end}"


def _points(difference: Interval) -> str:
    return f"{100 * difference.estimate:+.1f} points [{100 * difference.low:.1f}, {100 * difference.high:.1f}]"


def correctness(rows: Sequence[Comparison], score: Scores) -> tuple[NDArray[np.float64], list[str]]:
    """(P,) `hits` of the decided pairs of the rows, in their order, and the prompt of each."""
    pairs = decided(rows)
    scored = score([r.prompt for r in rows], [answers(r) for r in rows])
    return hits(pairs, margins_of(pairs, scored)), [p.prompt for p in pairs]


def pair_labelers(rows: Sequence[Comparison]) -> list[str | None]:
    """(P,) who judged each pair, in the order of `correctness`."""
    return [p.labeler for p in decided(rows)]
