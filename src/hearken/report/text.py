"""What the figures of a report say, in plain words: the headline and the warnings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from hearken.evaluation.compare import Divergence, find_divergence, smooth
from hearken.evaluation.numbers import estimate, number, percent, with_interval
from hearken.evaluation.results import PolicyResult
from hearken.report.contents import Figure, Report, Training
from hearken.statistics.diversity import written
from hearken.statistics.intervals import Interval
from hearken.statistics.power import detectable

PROXY_KEYS = ("score", "proxy", "proxy_reward")
GOLD_KEYS = ("gold", "gold_reward")
JUDGE_KEYS = ("judge",)
JUDGED_PROXY_KEYS = ("judge_proxy",)
KL_KEYS = ("kl", "sequence_kl")
STEP_KEYS = ("step", "iteration", "update")

FEW_PROMPTS = 50
"""Below this many held-out prompts, even an interval is a rough guide."""


def metric(row: Mapping[str, object], keys: tuple[str, ...]) -> float | None:
    """The first of ``keys`` that ``row`` has as a finite number; a prefix such as ``train/`` is ignored."""
    plain = {str(name).rpartition("/")[2]: value for name, value in row.items()}
    for key in keys:
        value = plain.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    return None


class Truth(NamedTuple):
    """What a run's proxy is held against."""

    keys: tuple[str, ...]
    """Its columns."""
    words: str
    proxy: tuple[str, ...] = PROXY_KEYS
    """Columns of the proxy of the same responses."""


GOLD = Truth(GOLD_KEYS, "gold reward")
WATCH = Truth(JUDGE_KEYS, "judge's win rate", JUDGED_PROXY_KEYS)
"""A judge that is not optimised compares each checkpoint's answers to held-out prompts with the reference's."""
JUDGE = Truth(JUDGE_KEYS, "held-out judge's score")


def knows(run: Training, against: Truth) -> bool:
    """Whether some row of a run has both."""
    return any(metric(r, against.keys) is not None and metric(r, against.proxy) is not None for r in run.rows)


def truth(run: Training) -> Truth:
    """What a run's proxy is held against: the gold reward, else a judge that only watched."""
    return next((one for one in (GOLD, WATCH) if knows(run, one)), JUDGE)


def divergence(run: Training, against: Truth | None = None) -> Divergence | None:
    """Proxy against `truth` over the rows of a run that know both; None where too few do."""
    keys, _, proxies = against or truth(run)
    found = [
        (step if (step := metric(row, STEP_KEYS)) is not None else float(index), proxy, gold)
        for index, row in enumerate(run.rows)
        if (proxy := metric(row, proxies)) is not None and (gold := metric(row, keys)) is not None
    ]
    return find_divergence(*zip(*found, strict=True)) if found else None


def path(run: Training, keys: tuple[str, ...], against: Truth | None = None) -> list[float]:
    """A column of a run, over the rows that know both the proxy and what it is held against."""
    known = against or truth(run)
    rows = [r for r in run.rows if metric(r, known.proxy) is not None and metric(r, known.keys) is not None]
    return [value for row in rows if (value := metric(row, keys)) is not None]


def kl_path(run: Training, length: int | None = None) -> list[float]:
    """KL at each point of a run's `divergence`, smoothed alike; empty where a row lacks it."""
    found = path(run, KL_KEYS)
    if not found or len(found) != (len(path(run, PROXY_KEYS)) if length is None else length):
        return []
    return smooth(found, max(3, len(found) // 10) | 1)


def _bounds(figure: Figure) -> tuple[float, float] | None:
    if figure is None:
        return None
    return (figure.low, figure.high) if isinstance(figure, Interval) else (figure, figure)


def verdict(win_rate: Figure) -> str:
    """``beats``, ``loses to`` or ``cannot be told apart from``, by where the interval lies."""
    bounds = _bounds(win_rate)
    if bounds and bounds[0] > 0.5:
        return "beats"
    if bounds and bounds[1] < 0.5:
        return "loses to"
    return "cannot be told apart from"


def headline(report: Report) -> str:
    """The result in one sentence; empty where no win rate is known."""
    policy, name = report.ours, report.policy
    if policy is None or policy.win_rate is None or not report.baseline:
        return ""
    rate, _, bracket = with_interval(policy.win_rate, as_percent=True).partition(" ")
    where = f"{rate} of held-out prompts{f' {bracket}' if bracket else ''}".replace(", ", f",{chr(0xA0)}")
    said = verdict(policy.win_rate)
    if said == "cannot be told apart from":
        return f"{name} cannot be told apart from {report.baseline}: it wins on {where}."
    if said == "loses to":
        return f"{name} loses to {report.baseline}: it wins on only {where}."
    return f"{name} beats {report.baseline} on {where}."


def subheadline(report: Report) -> str:
    """What stands behind the headline: who judged, each group's view, how far the policy went."""
    policy, evaluation = report.ours, report.evaluation
    if policy is None or policy.win_rate is None:
        return ""
    parts = []
    judged = f"Judged by {evaluation.judge}" if evaluation.judge else "Judged"
    if evaluation.prompts:
        judged += f" on {len(evaluation.prompts):,} prompts neither policy was trained on"
    parts.append(f"{judged}; ties count half, and the brackets hold the 95{chr(0x202F)}% interval over prompts.")
    if policy.win_rate_by_group:
        said = [f"{name} {percent(rate.estimate)}" for name, rate in policy.win_rate_by_group.items()]
        parts.append(f"Each group for itself: {', '.join(said)}.")
    if policy.kl is not None:
        parts.append(f"It moved {with_interval(policy.kl)} nats a response away from where it started.")
    return " ".join(parts)


def warnings(report: Report) -> list[str]:
    """What a careful colleague would point out; the report's own warnings first."""
    found = list(report.warnings)
    if report.ours is not None:
        found += _about_winning(report, report.ours)
        if report.before is not None:
            found += _about_language(report, report.ours, report.before)
    if report.audit is not None and report.audit.alarm:
        found.append(report.audit.says)
    found += report.alarms
    for run in report.training:
        known = [one for one in (GOLD, WATCH) if knows(run, one)] or [JUDGE]
        found += [said for one in known if (said := fooled(run, one))]
    found += _about_the_reward_model(report)
    return found


def _about_winning(report: Report, policy: PolicyResult) -> list[str]:
    found = []
    prompts = len(report.evaluation.prompts)
    if 0 < prompts < FEW_PROMPTS:
        found.append(f"Only {prompts} held-out prompts: read the win rate as a rough guide.")
    elif prompts and policy.win_rate is not None and verdict(policy.win_rate) == "cannot be told apart from":
        found.append(
            f"{prompts:,} held-out prompts find a win rate of {percent(detectable(prompts))} with a "
            f"chance of 80{chr(0x202F)}%; a smaller difference takes more (hearken power says how many)."
        )
    for name, rate in policy.win_rate_by_group.items():
        text = with_interval(rate, as_percent=True)
        if rate.high < 0.5:
            found.append(f"Group {name} is worse off: {report.policy} wins only {text} by its taste.")
        elif rate.low <= 0.5:
            found.append(f"For group {name} no difference is shown: {report.policy} wins {text} by its taste.")
    return found


def _about_language(report: Report, policy: PolicyResult, baseline: PolicyResult) -> list[str]:
    found = []
    now, before = estimate(policy.perplexity), estimate(baseline.perplexity)
    if now and before and now > 1.15 * before:
        found.append(
            f"{report.policy} lost some general language: perplexity on held-out text is {number(now)}, "
            f"{percent(now / before - 1)} above {report.baseline}'s. A larger ptx coefficient holds it."
        )
    now, before = estimate(policy.distinct_2), estimate(baseline.distinct_2)
    if now is not None and before and now < 0.9 * before:
        found.append(
            f"Responses have become more alike: distinct word pairs fell from {percent(before)} to {percent(now)}. "
            "Read some of them; a higher KL coefficient keeps variety."
        )
    now, before = estimate(policy.length), estimate(baseline.length)
    if now and before and not 2 / 3 <= now / before <= 1.5:
        change = "longer" if now > before else "shorter"
        found.append(
            f"Responses are much {change} ({number(before)} → {number(now)} tokens): "
            "length may explain part of the result."
        )
    now, before = estimate(policy.repetition), estimate(baseline.repetition)
    if now is not None and before is not None and now > before + 0.05:
        found.append(f"Responses repeat themselves: {percent(now)} of their phrases, before {percent(before)}.")
    if policy.phrases and (most := policy.phrases[0]).share >= 0.25:
        found.append(
            f"{report.policy} has taken to a phrase: “{written(most.text)}” stands in {percent(most.share)} of its "
            f"responses, in {percent(most.before)} of {report.baseline}'s."
        )
    rate = estimate(policy.parse_rate)
    if rate is not None and rate < 0.9:
        found.append(f"{percent(1 - rate)} of the responses of {report.policy} do not parse.")
    return found


def about_taste(report: Report) -> str:
    """Who gained most and least, and whose taste the reward model knows less; empty with fewer than two groups."""
    policy = report.ours
    wins: dict[str, dict[str, Figure]] = {}  # by what divides the labelers: only groups of one kind are compared
    learnt: dict[str, dict[str, Figure]] = {}
    for taste in report.tastes:
        if taste.win_rate is not None:
            wins.setdefault(taste.by, {})[taste.name] = taste.win_rate
        if taste.accuracy is not None:
            learnt.setdefault(taste.by, {})[taste.name] = taste.accuracy
    named = {name for by in wins.values() for name in by}
    for name, rate in (policy.win_rate_by_group if policy else {}).items():
        if name not in named:
            wins.setdefault("group", {})[name] = rate
    parts = []
    for rates in wins.values():
        if apart := _apart(rates):
            least, most = apart
            parts.append(
                f"{_begun(_as_group(most))} gained more than {_as_group(least)}: {report.policy} wins "
                f"{with_interval(rates[most], True)} by its taste, {with_interval(rates[least], True)} by the other's."
            )
    if not parts and any(len(rates) > 1 for rates in wins.values()):
        parts.append("No group is shown to have gained more than another.")
    for known in learnt.values():
        if apart := _apart(known):
            worst, best = apart
            parts.append(
                f"The reward model knows the taste of {worst} less well ({with_interval(known[worst], True)} "
                f"against {with_interval(known[best], True)} for {best})."
            )
    return " ".join(parts)


def _as_group(name: str) -> str:
    """A group's name in a sentence; that of an attribute's value says itself what it is."""
    return name if ":" in name or name.startswith("group ") else f"group {name}"


def _begun(text: str) -> str:
    return text[:1].upper() + text[1:]


def _apart(figures: dict[str, Figure]) -> tuple[str, str] | None:
    """The least and the greatest, where their intervals do not meet."""
    order = sorted(figures, key=lambda name: estimate(figures[name]) or 0.0)
    low, high = _bounds(figures[order[0]]), _bounds(figures[order[-1]])
    return (order[0], order[-1]) if low and high and low[1] < high[0] else None


def about_likelihood(report: Report) -> str:
    """Whether policies made even the preferred responses less likely; empty where nobody looked."""
    changes = {name: p.likelihood for name, p in report.evaluation.policies.items()}
    known = [(name, bounds) for name, of in changes.items() if of and (bounds := _bounds(of.preferred))]
    fell = [name for name, (_, high) in known if high < 0]
    if not known:
        return ""
    if not fell:
        return "Preferred responses did not become less likely."
    return (
        f"{' and '.join(fell)} made even the preferred responses less likely than the reference has them: what their "
        "likelihood lost went to responses that nobody compared."
    )


def about_seeds(report: Report) -> str:
    """How far seeds lie apart, in a sentence; empty where one was tried."""
    found = next((s for s in report.evaluation.seeds if s.name == "win_rate"), None)
    if found is None or found.seeds < 2:
        return ""
    apart = f", give or take {number(100 * found.deviation, 2)} points between seeds" if found.deviation else ""
    return (
        f"{found.seeds} seeds of the same training win {with_interval(found.mean, True)} on average{apart} "
        f"({percent(found.lowest)} to {percent(found.highest)})."
    )


def fooled(run: Training, against: Truth | None = None) -> str:
    """The warning where a run's proxy rises while gold (or a judge's verdict) falls; empty where it does not."""
    against = against or truth(run)
    parting = divergence(run, against)
    if parting is None or not parting.fooled:
        return ""
    if against == WATCH and run.says:
        return run.says
    return (
        f"The reward model is being fooled in {run.name}: after step {parting.peak:,.0f} its score rises by "
        f"{number(parting.proxy_rise, 2)} while the {against.words} falls by {number(parting.gold_fall, 2)}. "
        "Stop there, raise the KL coefficient, or collect comparisons of the new responses."
    )


def _about_the_reward_model(report: Report) -> list[str]:
    model = report.reward_model
    if model is None:
        return []
    found = []
    accuracy, longer, baseline = _bounds(model.accuracy), estimate(model.longer_wins), estimate(model.length_baseline)
    if model.passes is False:
        found.append("The reward model's card fails: " + " ".join(model.failures))
    elif accuracy and accuracy[0] <= 0.5:
        found.append("The reward model is not shown to be better than chance on held-out comparisons.")
    elif accuracy and longer is not None and baseline is not None and accuracy[0] <= baseline:
        rule = "longer" if longer >= 0.5 else "shorter"
        found.append(f"The reward model is not shown to be better than always preferring the {rule} response.")
    mean = _bounds(model.reference_mean)
    if mean and not mean[0] - 0.1 <= 0 <= mean[1] + 0.1:
        found.append(
            f"Reference responses score {with_interval(model.reference_mean)} on average; "
            "the reward's zero should lie there."
        )
    if model.calibration is not None and model.calibration.error > 0.1:
        found.append(
            f"The reward model's probabilities are off by {percent(model.calibration.error)} on average: "
            "trust the order of its scores more than their distances."
        )
    return found
