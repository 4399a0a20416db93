from __future__ import annotations

import math
import re
from dataclasses import replace

from reports import exactly, reevaluated, reported

from hearken.evaluation.results import Likelihood, Phrase, PolicyResult, Spread, Standing
from hearken.evaluation.reward_card import Learnt, Slice
from hearken.evaluation.round_record import RoundRecord
from hearken.report import charts
from hearken.report.contents import Audited, Report, Taste, Training
from hearken.report.page import render
from hearken.report.sections import costs, labelers, reward_model
from hearken.report.sections.overoptimisation import fooling
from hearken.report.sections.policies import better, drift
from hearken.report.text import about_taste, warnings
from hearken.statistics.intervals import Interval


def texts(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_a_leaderboard_is_ordered_and_a_single_policy_has_none(report: Report) -> None:
    ranked = reevaluated(
        report,
        leaderboard=[
            Standing(policy="SFT", strength=Interval(-0.9, -1.1, -0.7)),
            Standing(policy="PPO", strength=Interval(0.9, 0.7, 1.1)),
        ],
    )
    found = better(ranked)
    assert found is not None
    board = next(svg for title, _, svg in found["charts"] if title == "Leaderboard")
    assert [t for t in texts(board) if t in ("SFT", "PPO")] == ["PPO", "SFT"]
    alone = better(reevaluated(ranked, leaderboard=ranked.evaluation.leaderboard[:1]))
    assert alone is not None and "Leaderboard" not in [title for title, *_ in alone["charts"]]


def test_rounds_are_a_table_with_what_is_known() -> None:
    rounds = [
        RoundRecord(number=1, policy="r01-ppo", judgments=900, win_rate=Interval(0.6, 0.55, 0.65)),
        RoundRecord(number=2, policy="r02-ppo", judgments=300, win_rate=Interval(0.7, 0.65, 0.75)),
    ]
    found = better(reported(baseline="r00-sft", rounds=rounds))
    assert found is not None
    assert found["rounds"]["columns"] == ["Wins"] and found["rounds"]["judgments"]
    html = render(reported(baseline="r00-sft", rounds=rounds))
    assert "r02-ppo" in html and "70\u202f% [65, 75]" in html and "Wins against r00-sft" in html
    assert {"1", "2"} <= set(texts(found["rounds"]["chart"])) and "1.5" not in texts(found["rounds"]["chart"])
    assert better(Report(title="t", rounds=rounds[:1])) is None, "one round is no comparison of rounds"


def test_the_frontier_takes_the_best_judge_it_has() -> None:
    policies = {
        "sft": PolicyResult(kl=exactly(0.0), proxy=exactly(0.0)),
        "ppo": PolicyResult(kl=Interval(4, 3, 5), proxy=exactly(1.0), win_rate=Interval(0.7, 0.6, 0.8)),
        "dpo": PolicyResult(kl=exactly(2.0), proxy=exactly(0.6), win_rate=exactly(0.6)),
        "unmeasured": PolicyResult(),
    }
    found = fooling(reported(policies, baseline="sft", policy="ppo"))
    assert found is not None
    chart = found["frontier"]["chart"]
    assert "wins against sft" in found["frontier"]["note"]
    assert {"sft", "ppo", "dpo"} <= set(texts(chart)) and "unmeasured" not in texts(chart)
    only_proxy = {name: p.but(win_rate=None) for name, p in policies.items()}
    found = fooling(reported(only_proxy, baseline="sft", policy="ppo"))
    assert found is not None and "Only the proxy is known" in found["frontier"]["said"]


def test_the_envelope_passes_over_what_is_dominated() -> None:
    points = [charts.Point("a", 0, 0), charts.Point("bad", 2, -1), charts.Point("b", 3, 2)]
    svg = charts.frontier(points, title="t")
    (path,) = re.findall(r'<path d="([^"]*)" class="envelope"', svg)
    ends = [tuple(map(float, p.split())) for p in path[1:].split("L")]
    heights = [y for _, y in ends]
    assert len(ends) == 4 and heights == sorted(heights, reverse=True), "steps up only, and on to the edge"


def test_labels_of_close_points_do_not_overlap() -> None:
    svg = charts.frontier([charts.Point(f"policy-{i}", 1 + i / 100, 1.0) for i in range(6)], title="t")
    places = [(float(x), float(y)) for x, y in re.findall(r'<text x="([\d.]+)" y="([\d.]+)" class="label halo', svg)]
    width = charts.text_width("policy-0")
    for i, (x, y) in enumerate(places):
        assert all(abs(y - b) >= 10 or abs(x - a) >= width for a, b in places[:i])


def test_a_run_that_is_fooled_is_named_and_one_that_is_not_is_let_off(ppo_rows) -> None:
    runs = [Training(name="honest", rows=ppo_rows()), Training(name="fooled", rows=ppo_rows(peak=0.5))]
    found = fooling(Report(title="t", training=runs, alarms=["The audited slice fell."]))
    assert found is not None
    assert found["alarms"][0] == "The audited slice fell."
    assert len(found["alarms"]) == 2 and "being fooled in fooled" in found["alarms"][1]
    assert "honest" in found["fine"] and "fooled" not in found["fine"]
    assert "gold at its best" in texts(found["charts"][1][2])
    assert "√KL reached, √nats" in texts(found["charts"][0][2])
    assert "The audited slice fell." in warnings(Report(title="t", alarms=["The audited slice fell."]))


def test_a_judge_that_only_watches_stands_in_for_gold(ppo_rows) -> None:
    rows = [{**row, "judge": row["gold"], "gold": None} for row in ppo_rows(peak=0.5)]
    found = fooling(Report(title="t", training=[Training(name="watched", rows=rows)]))
    assert found is not None
    assert "held-out judge's score falls" in found["alarms"][0]
    assert "judge at its best" in texts(found["charts"][0][2])


def test_a_card_that_fails_is_said_first(report: Report) -> None:
    assert report.reward_model is not None
    model = replace(
        report.reward_model,
        passes=False,
        accuracy=Interval(0.51, 0.49, 0.53),
        failures=["lower bound 49 % does not exceed chance"],
        remarks=["two groups were found"],
        slices=[
            Slice(by="strength", name=n, accuracy=Interval(a, math.nan, math.nan), count=c)
            for n, a, c in (("slight", 0.6, 90), ("clear", 0.9, 60))
        ],
        learning=[Learnt(labels=n, accuracy=Interval(a, a - 0.02, a + 0.02)) for n, a in ((100, 0.6), (400, 0.7))],
    )
    found = reward_model.reward_model(model)
    assert found is not None
    titles = [title for title, *_ in found["charts"]]
    assert titles == ["Accuracy", "By strength"]
    assert [title for title, *_ in found["deeper"]] == ["Calibration", "Score against length", "Learning curve"]
    html = render(replace(report, reward_model=model))
    assert "Its card fails" in html and "lower bound 49" in html
    about = [w for w in warnings(replace(report, reward_model=model)) if "card fails" in w or "not shown" in w]
    assert about == ["The reward model's card fails: lower bound 49 % does not exceed chance"], "once, and only that"
    assert "two groups were found" in html
    passing = replace(report, reward_model=replace(model, passes=True, accuracy=0.8, failures=[]))
    assert "Its card passes" in render(passing)


def test_tastes_say_who_gained_only_beyond_noise() -> None:
    def told(low: Interval, high: Interval) -> str:
        policy = PolicyResult(win_rate=exactly(0.6), win_rate_by_group={"a": low, "b": high})
        return about_taste(reported({"p": policy}, policy="p"))

    assert told(Interval(0.4, 0.3, 0.5), Interval(0.8, 0.7, 0.9)).startswith("Group b gained more than group a")
    assert told(Interval(0.6, 0.5, 0.7), Interval(0.65, 0.55, 0.75)).startswith("No group is shown")
    tastes = [
        Taste(name="a", accuracy=Interval(0.6, 0.55, 0.65)),
        Taste(name="b", accuracy=Interval(0.8, 0.75, 0.85)),
    ]
    assert "knows the taste of a less well" in about_taste(Report(title="t", tastes=tastes))
    found = labelers.taste(Report(title="t", tastes=tastes))
    assert found is not None and [title for title, *_ in found["charts"]] == ["Whose taste was learnt"]


def test_costs_count_people(report: Report) -> None:
    assert report.costs is not None
    spent = replace(report.costs, judgments={"person": 10, "ai": 5}, labeling_seconds=120.0, price=1.5)
    spent = replace(spent, ai_requests=24, ai_tokens=(1200, 24))
    found = costs.costs(replace(report, costs=spent))
    assert found is not None
    figures = {label: (value, note) for label, value, note in found["figures"]}
    assert figures["Judgments"] == ("15", "10 person, 5 ai")
    assert figures["People's time"] == ("2\u202fmin 0\u202fs", "12\u202fs a judgment")
    assert figures["Requests to AI labelers"] == ("24", "1,200 tokens read, 24 written")
    assert figures["Policy"][0] == "1.25 M" and figures["Paid for AI labels"][0] == "1.50"
    assert costs.costs(Report(title="t")) is None


def test_a_watched_run_shows_each_checkpoint_and_where_it_was_fooled(watched: Training) -> None:
    found = fooling(Report(title="t", training=[watched]))
    assert found is not None and found["fine"] == ""
    assert any("being fooled in r01-ppo" in said and "judge's win rate" in said for said in found["alarms"])
    (_, _, chart), *rest = found["charts"]
    assert not rest and "kept: step 15" in texts(chart) and "no difference" in texts(chart)
    assert chart.count("<circle") == 8 and chart.count('class="whisker soft"') == 8
    fine = replace(
        watched, rows=[row | {"judge": 0.5 + row["step"] / 100} for row in watched.rows], says="All is well."
    )
    found = fooling(Report(title="t", training=[fine]))
    assert found is not None and found["said"] == ["All is well."] and not found["alarms"]


def test_a_judge_is_heard_beside_gold(watched: Training) -> None:
    rows = [row | {"gold": row["score"]} for row in watched.rows]
    both = Report(title="t", training=[replace(watched, rows=rows, says="The judge saw it fooled.")])
    assert warnings(both) == ["The judge saw it fooled."], "gold rises with the proxy"
    found = fooling(both)
    assert found is not None and found["alarms"] == ["The judge saw it fooled."] and "the gold reward" in found["fine"]
    assert len(found["charts"]) == 2


def test_an_audit_that_finds_less_truth_is_the_first_alarm() -> None:
    audit = Audited(
        policy="ppo", baseline="sft", before=Interval(0.7, 0.6, 0.8), after=Interval(0.4, 0.3, 0.5),
        preference=Interval(0.8, 0.7, 0.9), alarm=True, says="ppo is wrong more often.", checked=120,
    )  # fmt: skip
    report = Report(title="t", audit=audit, alarms=["another"])
    found = fooling(report)
    assert found is not None and found["alarms"] == ["ppo is wrong more often.", "another"]
    assert {"sft is right", "ppo is right", "ppo is preferred"} <= set(texts(found["charts"][0][2]))
    assert "ppo is wrong more often." in warnings(report)
    quiet = fooling(replace(report, audit=replace(audit, alarm=False), alarms=[]))
    assert quiet is not None and not quiet["alarms"] and "wrong more often" in quiet["charts"][0][1]


def test_a_fallen_likelihood_of_preferred_responses_is_said() -> None:
    fallen = Likelihood(preferred=Interval(-2.0, -3.0, -1.0), other=Interval(-9.0, -10.0, -8.0))
    found = fooling(reported({"dpo": PolicyResult(likelihood=fallen)}))
    assert found is not None and "dpo made even the preferred responses less likely" in found["likelihood"]["said"]
    risen = fallen.but(preferred=Interval(0.2, -0.1, 0.5))
    found = fooling(reported({"dpo": PolicyResult(likelihood=risen)}))
    assert found is not None and found["likelihood"]["said"] == "Preferred responses did not become less likely."


def test_seeds_are_compared_with_their_spread() -> None:
    seeds = [
        Spread(name="win_rate", mean=Interval(0.7, 0.6, 0.8), deviation=0.03, lowest=0.66, highest=0.73, seeds=3),
        Spread(name="kl", mean=Interval(4.0, math.nan, math.nan), deviation=0.5, lowest=3.4, highest=4.4, seeds=3),
    ]
    found = better(reported(seeds=seeds))
    assert found is not None and found["said"].startswith("3 seeds of the same training win 70\u202f% [60, 80]")
    assert found["seeds"][0][1][1] == "± 3.0 points" and found["seeds"][1] == ("KL", ["4.00", "± 0.50", "3.40", "4.40"])


def test_a_leaderboard_says_who_cannot_be_told_apart() -> None:
    rows = [
        Standing(
            policy="a", strength=Interval(0.5, 0.3, 0.7), beats_baseline=Interval(0.7, 0.6, 0.8), level_with=("b",)
        ),
        Standing(
            policy="b", strength=Interval(0.4, 0.2, 0.6), strength_at_equal_length=Interval(0.1, 0.0, 0.2), wins=80
        ),
    ]
    html = render(reported(baseline="sft", leaderboard=rows))
    assert "Beats sft" in html and "At equal length" in html and "Level with" in html


def test_drift_names_new_phrases_and_the_change_of_length() -> None:
    before = PolicyResult(repetition=0.01)
    after = PolicyResult(
        repetition=0.2, length_drift=Interval(8, 6, 10), phrases=(Phrase(text="oh what a day", share=0.6, before=0.02),)
    )
    report = reported({"sft": before, "ppo": after}, policy="ppo", baseline="sft")
    found = drift(report)
    assert found is not None and found["phrases"] == [("oh what a day", "60\u202f%", "2\u202f%")]
    assert found["said"].startswith("To the same prompt, ppo answers longer than sft")
    said = " ".join(warnings(report))
    assert "“oh what a day” stands in 60" in said and "repeat themselves" in said
    found = drift(reevaluated(report, policies={"sft": before, "ppo": after.but(length_drift=Interval(-1, -3, 1))}))
    assert found is not None and "not shown to be longer or shorter" in found["said"]


def test_policies_are_compared_by_who_is_worst_off() -> None:
    rates = {
        "average": {"hearth": Interval(0.8, 0.7, 0.9), "quest": Interval(0.4, 0.3, 0.5)},
        "max-min": {"hearth": Interval(0.65, 0.6, 0.7), "quest": Interval(0.6, 0.5, 0.7)},
    }
    policies = {name: PolicyResult(win_rate_by_group=by_group) for name, by_group in rates.items()}
    found = labelers.taste(reported(policies, policy="average", baseline="sft"))
    assert found is not None
    assert [(name, worst) for name, _, worst in found["policies"]] == [
        ("average", "quest 40\u202f%"), ("max-min", "quest 60\u202f%")
    ]  # fmt: skip
    alone = labelers.taste(reported({"average": policies["average"]}, policy="average", baseline="sft"))
    assert alone is not None and not alone["policies"], "one policy has its chart"
