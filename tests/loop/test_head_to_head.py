"""`hearken evaluate`: comparisons of policies, by whoever judges."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tiny_models import write_rows

from hearken.domains.best_of import asked_of, best_of_name, label_of
from hearken.errors import UserError
from hearken.evaluation import policies as comparing
from hearken.evaluation.answers import Conditions
from hearken.evaluation.groups import LabelerGroup, labeler_groups
from hearken.evaluation.policies import compare
from hearken.evaluation.request import EvaluationRequest, JudgeName, evaluate_models
from hearken.evaluation.results import (
    EvaluationResult,
    GroupOfJudges,
    PolicyResult,
    read_evaluation,
    write_evaluation,
)
from hearken.evaluation.summary import TalesSummary
from hearken.feedback.examples import Comparison, PromptOnly
from hearken.feedback.formats import write_examples
from hearken.feedback.records import ComparisonPayload, Judgment, Labeler
from hearken.loop import evaluating
from hearken.loop.asking import Waiting
from hearken.loop.cards import judged_rows
from hearken.loop.evaluating import conditions, evaluate, judge
from hearken.loop.project import Project
from hearken.rewards import rules
from hearken.rollout.sampler import SamplingParameters
from hearken.statistics.intervals import Interval
from hearken.training.artifact import Artifact
from hearken.worlds.tales.world import TaleWorld

Tales = Callable[..., Project]
GOOD, BAD = "the good answer", "a bad one"


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What the policies "sft", "ours" and "same" answer to six prompts; nothing is sampled."""
    said = {"sft": [BAD] * 6, "ours": [GOOD] * 5 + [BAD], "same": [BAD] * 6}

    def assess(policies: Sequence[str], under: Conditions) -> EvaluationResult:
        golds = {GOOD: 1.0, BAD: 0.0}
        figures = {
            name: PolicyResult(responses=tuple(said[name]), golds=tuple(golds[t] for t in said[name]))
            for name in policies
        }
        return EvaluationResult(
            baseline=policies[0], prompts=tuple(under.prompts), policies=figures, created="2026-01-01T00:00:00+00:00"
        )

    monkeypatch.setattr(comparing, "assess", assess)
    return said


def contest(
    project: Project, policies: Sequence[str], who: JudgeName = "auto", *, wait: bool = False
) -> EvaluationResult:
    """The policies on all held-out prompts."""
    return compare(policies, conditions(project, project.held_out(), 0), judge(project, who, 0, wait=False))


def say(project: Project, name: str, prefers: str, attributes: dict[str, Any], count: int) -> None:
    """A new labeler judges up to so many items, always for the same answer."""
    with project.store() as store:
        store.add_labeler(Labeler(id=name, name=name, attributes=attributes))
        for claim in store.claim(name, n=count):
            assert len(claim.responses) == 2, "equal answers are shown once"
            ranks = tuple(int(r.text != prefers) for r in claim.responses)
            payload = ComparisonPayload(response_ids=claim.item.response_ids, ranks=ranks)
            store.submit(Judgment(prompt_id=claim.prompt.id, labeler_id=name, item_id=claim.item.id, payload=payload))


def test_gold_decides(tales: Tales, answers: dict[str, list[str]]) -> None:
    project = tales()
    found = contest(project, ["sft", "ours", "same"])
    assert str(found.judge) == "the gold reward" and found.judge.kind == "gold"
    assert found.policies["ours"].win_rate.estimate == pytest.approx(5.5 / 6)
    assert found.policies["same"].win_rate.estimate == 0.5
    first, *others = found.leaderboard
    assert first.policy == "ours" and (first.place, first.wins, first.ties) == (1, 10, 2)
    assert others[0].level_with == (others[1].policy,)
    assert first.beats_baseline is not None and first.beats_baseline.low > 0.5


def test_people_are_shown_both_without_names(tales: Tales, answers: dict[str, list[str]]) -> None:
    project = tales()
    with pytest.raises(Waiting) as waiting:
        contest(project, ["sft", "ours", "same"], "people")
    assert waiting.value.missing == 10, "five prompts with different answers, two labelers each"
    for name, prefers in (("ana", GOOD), ("bo", BAD)):
        say(project, name, prefers, {"group": name}, 9)
    found = contest(project, ["sft", "ours", "same"], "people")
    ours = found.policies["ours"]
    assert found.judge.kind == "people" and ours.comparisons == 6, "each prompt once, however many judged it"
    assert ours.win_rate.estimate == 0.5
    groups = {group: rate.estimate for group, rate in ours.win_rate_by_group.items()}
    assert groups == pytest.approx({"ana": 5.5 / 6, "bo": 0.5 / 6}), "the equal answers are a tie to everyone"
    again = contest(project, ["sft", "ours"], "people")
    assert again.policies["ours"].comparisons == 6, "what was said before counts again"
    with project.store() as store:
        assert judged_rows(store, "validation") == [], "no card rests on answers that were optimised"
    assert project._optional("validation", "comparison") == (), "nor a data set"


def test_groups_that_were_found_stand_apart(
    tales: Tales, answers: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    found_before = [LabelerGroup("group A, found", "found", frozenset({"ana", "cy"}), "a"),
                    LabelerGroup("group B, found", "found", frozenset({"bo", "somebody else"}), "b")]  # fmt: skip
    monkeypatch.setattr(evaluating, "found_groups", lambda card: found_before)
    project = tales()
    with pytest.raises(Waiting):
        contest(project, ["sft", "ours"], "people")
    for name, prefers in (("ana", GOOD), ("bo", BAD)):
        say(project, name, prefers, {"mail": f"{name}@example.org"}, 9)
    found = contest(project, ["sft", "ours"], "people")
    ours = found.policies["ours"]
    groups = {name: rate.estimate for name, rate in ours.win_rate_by_other.items()}
    assert groups == pytest.approx({"group A, found": 5.5 / 6, "group B, found": 0.5 / 6}) and "@" not in str(groups)
    assert not ours.win_rate_by_group
    assert found.groups["group B, found"] == GroupOfJudges(by="found", key="b", labelers=1, comparisons=5)


def test_attributes_divide_labelers_where_several_share_a_value() -> None:
    def labelers(**of: Any) -> dict[str, Labeler]:
        return {f"l{i}": Labeler(id=f"l{i}", name=f"l{i}", attributes={k: v[i] for k, v in of.items()})
                for i in range(len(next(iter(of.values()))))}  # fmt: skip

    some = labelers(region=["north", "north", "south", "south", "west"], language=["en"] * 5, age=[20, 31, 44, 58, 67],
                    group=["a", "b", "a", "a", "a"])  # fmt: skip
    found = {g.name: sorted(g.members) for g in labeler_groups(some)}
    assert found == {"region: north": ["l0", "l1"], "region: south": ["l2", "l3"], "a": ["l0", "l2", "l3", "l4"],
                     "b": ["l1"]}  # fmt: skip


def test_a_prompt_counts_once_and_equal_answers_as_their_share(tales: Tales, answers: dict[str, list[str]]) -> None:
    """Ana judges all five different answers, bo one of them the other way."""
    project = tales(enough=0.6)
    with pytest.raises(Waiting):
        contest(project, ["sft", "ours"], "people")
    for name, prefers, count in (("ana", GOOD, 5), ("bo", BAD, 1)):
        say(project, name, prefers, {"group": name}, count)
    found = contest(project, ["sft", "ours"], "people")
    ours = found.policies["ours"]
    assert ours.win_rate.estimate == pytest.approx((4 + 0.5 + 0.5) / 6)
    groups = {group: rate.estimate for group, rate in ours.win_rate_by_group.items()}
    assert groups == pytest.approx({"ana": 5.5 / 6, "bo": 0.1 / 1.2}), "bo judged a fifth of what is not equal"
    first = found.leaderboard[0]
    assert first.policy == "ours" and (first.wins, first.ties, first.losses) == pytest.approx((4.5, 1, 0.5))


def test_simulated_labelers_judge(tales: Tales, answers: dict[str, list[str]]) -> None:
    project = tales()
    found = contest(project, ["sft", "ours"], "simulated")
    assert found.policies["ours"].comparisons == 6
    groups = found.policies["ours"].win_rate_by_group  # none where all who judged are of one group
    assert set(groups) == set(found.groups) and set(groups) in (set(), set(TaleWorld.groups))


def test_seeds_are_told_with_their_spread(tales: Tales, answers: dict[str, list[str]]) -> None:
    project = tales(evaluate=6)
    answers["best-of-4@sft"] = [GOOD] * 6
    found = evaluate(project, EvaluationRequest(policies=["ours", "same"], against="sft", best_of=[4], seeds=True))
    spread = next(one for one in found.seeds if one.name == "win_rate")
    assert spread.seeds == 2 and spread.mean.estimate == pytest.approx((5.5 / 6 + 0.5) / 2)
    assert spread.lowest == 0.5 < spread.highest and spread.deviation == pytest.approx(2.5 / 6 / math.sqrt(2))
    with pytest.raises(UserError, match="two seeds or more"):
        evaluate(project, EvaluationRequest(policies=["ours"], against="sft", best_of=[4], seeds=True))


def test_what_was_compared_before_stays(
    tales: Tales, answers: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tales()
    saved = project.path / "evaluation.json"
    summary = read_evaluation(Path(__file__).parent / "project_of_november").summary
    assert isinstance(summary, TalesSummary) and summary.ppo.win_rate == 0.4375
    write_evaluation(saved, EvaluationResult(ceiling=0.8, summary=summary))

    def known(*policies: str, **more: Any) -> EvaluationResult:
        found = evaluate(project, EvaluationRequest(policies=policies, against="sft", judge="gold", **more))
        assert read_evaluation(saved) == found
        return found

    first = known("ours")
    assert len(first.prompts) == project.config.loop.evaluate == 4, "as many as after a round"
    assert (first.ceiling, first.summary) == (0.8, summary)
    second = known("same")
    assert set(second.policies) == {"sft", "ours", "same"}
    assert second.policies["ours"].win_rate == first.policies["ours"].win_rate
    assert second.leaderboard[0].policy == "ours" and len(second.leaderboard) == 3
    anew = Artifact(Path("ours"), "ppo", {"created": "2026-02-01T00:00:00+00:00"})
    with monkeypatch.context() as patched:
        patched.setattr(Project, "finished", lambda self, **_: {"ours": anew})
        assert set(known("same").policies) == {"sft", "same"}, "ours was trained again since"
    assert set(known("ours", prompts=3).policies) == {"sft", "ours"}, "on other prompts"


def test_direct_methods_say_how_likely_became_what_was_preferred(
    tales: Tales, answers: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from hearken.domains.text import drift
    from hearken.loop import cards

    project, asked = tales(), []
    made = {
        name: Artifact(Path(name), kind, {"inputs": {"model": "sft", "ref": None}, "metrics": {}})
        for name, kind in (("ours", "dpo"), ("same", "ppo"), ("elsewhere", "kto"))
    }
    rows = [Comparison("p", (GOOD, BAD), ranks) for ranks in ((0, 1), (0, 0), (None, 0))]

    def likelihood_change(policy: str, reference: str, rows: Any) -> tuple[Interval, Interval]:
        asked.append((policy, reference, len(rows)))
        return Interval(-1.0, -2.0, -0.5), Interval(-3.0, -4.0, -2.0)

    monkeypatch.setattr(Project, "finished", lambda self, **_: made)
    monkeypatch.setattr(cards, "judged_rows", lambda store, split: rows)
    monkeypatch.setattr(drift, "likelihood_change", likelihood_change)
    found = evaluate(project, EvaluationRequest(policies=["ours", "same"], against="sft", judge="gold"))
    assert asked == [("ours", "sft", 1)]
    told = found.policies["ours"].likelihood
    assert told is not None and (told.preferred, told.other) == ((-1, -2, -0.5), (-3, -4, -2))
    assert found.policies["same"].likelihood is None


def test_who_cannot_judge_is_said(tales: Tales, answers: dict[str, list[str]]) -> None:
    project = tales(world="", labelers="people")
    for who, what in (("gold", "built-in world"), ("auto", "no reward model"), ("simulated", "world")):
        with pytest.raises(UserError, match=what):
            contest(project, ["sft", "ours"], who)  # type: ignore[arg-type]


def test_a_name_says_how_the_best_is_chosen() -> None:
    assert asked_of("a/b") == ("a/b", 1, 0.0, "linear") and asked_of("best-of-8@a/b") == ("a/b", 8, 0.0, "linear")
    for pessimism, width in ((2.0, "linear"), (0.5, "heads"), (1e-5, "linear"), (1e7, "heads")):
        name = f"{best_of_name(8, pessimism, width)}@a/b"  # type: ignore[arg-type]
        assert asked_of(name) == ("a/b", 8, pessimism, width)
        assert label_of(name) == name.replace("a/b", "b")
    with pytest.raises(UserError, match="best of none"):
        asked_of("best-of-0@a")


def test_bare_models_and_best_of_n(tmp_path: Path, tiny_model: Path) -> None:
    """Without a project: two models, prompts from a file, a reward model."""
    from hearken.models.loading import new_reward, save

    prompts = TaleWorld().prompts(4)
    write_examples([PromptOnly(p) for p in prompts], tmp_path / "prompts.jsonl")
    save(*new_reward(str(tiny_model), 3), tmp_path / "rm")
    model, data = str(tiny_model), [str(tmp_path / "prompts.jsonl")]
    asked: dict[str, Any] = {"data": data, "reward": str(tmp_path / "rm"), "best_of": [4], "against": model}

    def bare(**request: Any) -> EvaluationResult:
        return evaluate_models(EvaluationRequest(**request), SamplingParameters(max_new_tokens=6))

    found = bare(**asked)
    best = found.policies["best-of-4@model"]
    assert best.win_rate.estimate > 0.5 and best.proxy.estimate > found.policies["model"].proxy.estimate
    assert best.kl.estimate == pytest.approx(0.6363, abs=1e-3), "log 4 - 3/4"
    assert {row.policy for row in found.leaderboard} == {"model", "best-of-4@model"}
    model = found.policies["model"]
    assert 0 < model.entropy.estimate < math.log(300) and best.entropy is None, "the best of n draws no tokens"
    assert 0 < model.self_bleu <= 1 and model.length_drift == (0.0, 0.0, 0.0) and model.phrases == ()
    with pytest.raises(UserError, match="no prompts are given"):
        bare(policies=[str(tiny_model)])
    with pytest.raises(UserError, match="comparisons it was trained on"):
        bare(**asked, pessimism=2.0)
    with pytest.raises(UserError, match="pessimism 2: no reward chooses"):
        bare(policies=[str(tiny_model)], pessimism=2.0)
    with pytest.raises(UserError, match="same name"):
        bare(policies=[str(tmp_path / "rm"), str(tmp_path / "x/rm")], data=data)
    with pytest.raises(UserError, match="judge in a project"):
        bare(policies=[str(tiny_model)], data=data, judge="people")


def test_a_rule_or_a_sum_judges_as_a_reward_model_does(tiny_model: Path, tmp_path: Path) -> None:
    """Oracle: the rules themselves, on the texts that are kept."""
    rows = [{"prompt": f"the {w}", "answer": w, "words": 3, "least": 2} for w in ("fox", "owl", "bear")]
    data = write_rows(tmp_path / "prompts.jsonl", rows)
    asked: dict[str, Any] = {"policies": [str(tiny_model)], "data": [str(data)]}
    how = SamplingParameters(max_new_tokens=6)
    found = evaluate_models(EvaluationRequest(**asked, reward="rule:length,rule:answer*2", best_of=[2]), how)
    assert set(found.policies) == {"model", "best-of-2@model"}
    for figures in found.policies.values():
        texts = figures.responses
        want = [
            a + 2 * b for a, b in zip(rules.length(rows, texts, rows), rules.answer(rows, texts, rows), strict=True)
        ]
        assert figures.scores == pytest.approx(want)
    with pytest.raises(UserError, match="has no function 'lenght'"):
        evaluate_models(EvaluationRequest(**asked, reward="rule:lenght"), how)
