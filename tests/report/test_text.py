from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from reports import exactly, reevaluated, reported

from hearken.evaluation.results import PolicyResult
from hearken.report.contents import Report, RewardModel, Training
from hearken.report.text import divergence, fooled, headline, metric, subheadline, verdict, warnings
from hearken.statistics.intervals import Interval

Rows = Callable[..., list[dict[str, float]]]


def about(win_rate: Interval, prompts: int = 0) -> Report:
    policies = {"SFT": PolicyResult(), "PPO": PolicyResult(win_rate=win_rate)}
    return reported(policies, policy="PPO", baseline="SFT", prompts=prompts)


def test_headline_says_what_the_interval_allows() -> None:
    assert headline(about(Interval(0.83, 0.79, 0.87))) == (
        "PPO beats SFT on 83\u202f% of held-out prompts [79,\u00a087]."
    )
    assert "cannot be told apart" in headline(about(Interval(0.52, 0.45, 0.59)))
    assert "loses to SFT" in headline(about(Interval(0.2, 0.1, 0.3)))
    assert headline(Report(title="t")) == "" == subheadline(Report(title="t"))
    assert verdict(Interval(0.9, float("nan"), float("nan"))) == "cannot be told apart from"


def test_what_a_draw_would_take_is_said() -> None:
    even = about(Interval(0.52, 0.45, 0.59), 200)
    (said,) = warnings(even)
    assert said.startswith("200 held-out prompts find a win rate of 60\u202f% with a chance of 80\u202f%")
    assert warnings(about(Interval(0.62, 0.55, 0.69), 200)) == []


def test_a_good_run_has_no_warnings(report: Report) -> None:
    assert warnings(replace(report, warnings=[])) == []


def test_each_trouble_is_named(report: Report) -> None:
    def said(**changes: object) -> str:
        policies = report.evaluation.policies
        policies = {**policies, "PPO": policies["PPO"].but(**changes)}
        return " ".join(warnings(reevaluated(replace(report, warnings=[]), policies=policies)))

    assert "lost some general language" in said(perplexity=16.0)
    assert "more alike" in said(distinct_2=0.3)
    assert "much longer" in said(length=exactly(100.0))
    assert "do not parse" in said(parse_rate=exactly(0.7))
    assert "worse off" in said(win_rate_by_group={"hearth": Interval(0.3, 0.2, 0.4)})
    assert "no difference is shown" in said(win_rate_by_group={"hearth": Interval(0.55, 0.45, 0.65)})
    assert "Only 20" in " ".join(warnings(reevaluated(report, prompts=("p",) * 20)))


def test_a_weak_reward_model_is_named(report: Report) -> None:
    def said(**values: object) -> str:
        return " ".join(warnings(Report(title="t", reward_model=RewardModel(**values))))  # type: ignore[arg-type]

    assert "better than chance" in said(accuracy=Interval(0.52, 0.48, 0.56))
    for longer, rule in ((0.9, "longer"), (0.1, "shorter")):
        among_unequal = said(accuracy=Interval(0.6, 0.56, 0.64), longer_wins=longer, length_baseline=0.58)
        assert f"always preferring the {rule}" in among_unequal
    assert said(accuracy=Interval(0.6, 0.56, 0.64), longer_wins=0.9, length_baseline=0.55) == "", "few differ in length"
    assert "should lie there" in said(accuracy=0.8, reference_mean=Interval(1.0, 0.9, 1.1))
    assert said(accuracy=Interval(0.77, 0.74, 0.79), longer_wins=0.56, length_baseline=0.56, reference_mean=0.01) == ""


def test_fooled_only_where_proxy_rises_and_gold_falls(ppo_rows: Rows) -> None:
    assert fooled(Training(name="PPO", rows=ppo_rows())) == ""
    assert "being fooled in PPO: after step 5" in fooled(Training(name="PPO", rows=ppo_rows(peak=0.45)))
    assert divergence(Training(name="PPO", rows=[{"step": 1, "score": 1.0}])) is None


def test_gold_may_be_logged_now_and_then(ppo_rows: Rows) -> None:
    rows = [row if i % 4 == 0 else {k: v for k, v in row.items() if k != "gold"} for i, row in enumerate(ppo_rows())]
    found = divergence(Training(name="PPO", rows=rows))
    assert found is not None and len(found.steps) == 30 and found.steps[1] == 5


def test_metric_ignores_prefixes_and_what_is_no_number() -> None:
    assert metric({"train/score": 1}, ("score",)) == 1.0
    assert metric({"score": None}, ("score",)) is None
    assert metric({"score": float("nan"), "proxy": 2.0}, ("score", "proxy")) == 2.0
    assert metric({"score": True}, ("score",)) is None
