"""The report of projects that have little, and of one that has what the loop and the card leave."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from hearken.errors import UserError
from hearken.evaluation.capability import load_task, run_tasks
from hearken.evaluation.compare import calibration
from hearken.evaluation.results import EvaluationResult, JudgedBy, PolicyResult, TaskScores
from hearken.evaluation.reward_card import Learnt, Probe, RewardCard, Slice
from hearken.feedback.records import (
    ComparisonPayload,
    Judgment,
    Labeler,
    Prompt,
    RatingPayload,
    Response,
    SkipPayload,
)
from hearken.loop.collecting import heard
from hearken.loop.measured import joined, keep_apart
from hearken.loop.project import Project, ProjectConfig
from hearken.loop.publishing import model_card
from hearken.loop.reporting import compose, write_report
from hearken.report.page import render
from hearken.statistics.intervals import Interval
from hearken.training.artifact import Artifact, round_in, write_json

PROMPTS = [f"Tell tale {i}." for i in range(12)]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.create(tmp_path / "p", ProjectConfig(model="some/model", prompts="prompts.jsonl", seed=4))


def artifact(project: Project, name: str, kind: str, second: int, **more: Any) -> Path:
    folder = project.artifacts / name
    (folder / "run").mkdir(parents=True)
    manifest = {
        "kind": kind, "inputs": {"model": "some/model", "data": [], "validation": []},
        "options": {"lr": 1e-4, "epochs": 1},
        "parents": {}, "data": {"sequences": 10, "hash": "ab" * 32}, "seed": 4, "versions": {"hearken": "0"},
        "metrics": {}, "seconds": 2.0, "created": f"2026-01-01T00:00:{second:02d}+00:00",
    } | more  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def card(folder: Path, **more: Any) -> None:
    """A reward model's card, measured on hardly anything."""
    known: dict[str, Any] = {
        "reward": folder.name, "pairs": 40, "prompts": 20, "accuracy": Interval(0.51, 0.4, 0.6),
        "longer_wins": Interval(0.5, 0.4, 0.6), "length_baseline": 0.5, "remarks": (), "agreement": None,
        "ceiling": None, "calibration": calibration([0.5], [1.0]), "slices": (), "probes": (), "uniform": None,
        "selected": None, "lengths": (), "scores": (),
    }  # fmt: skip
    RewardCard(**(known | more)).save(folder)


def judged(project: Project, kind: str = "person") -> None:
    """Two labelers with declared attributes rank two responses to every prompt; one prefers what is shown first."""
    with project.store() as store:
        store.add_prompts(Prompt(content=p) for p in PROMPTS)
        for who, reads in (("ana", "daily"), ("bo", "seldom")):
            store.add_labeler(Labeler(name=who, id=who, kind=kind, attributes={"reads": reads}))
        for prompt in store.prompts():
            pair = [
                Response(prompt_id=prompt.id, text=text, policy="r00-sft", round=1) for text in ("short", "longer one")
            ]
            store.add_responses(pair)
            ids = tuple(r.id for r in pair)
            for who, ranks in (("ana", (0, 1)), ("bo", (1, 0))):
                payload = ComparisonPayload(response_ids=ids, ranks=ranks)
                store.submit(
                    Judgment(prompt_id=prompt.id, labeler_id=who, payload=payload, order=(0, 1), seconds=5.0, round=1)
                )
        store.submit(Judgment(prompt_id=prompt.id, labeler_id="bo", payload=SkipPayload(reason="hm"), seconds=9.0))
        store.submit(
            Judgment(prompt_id=prompt.id, labeler_id="bo", payload=RatingPayload(response_id=ids[0], ratings={"x": 1}))
        )


def evaluated(project: Project, **more: Any) -> None:
    def policy(shift: float, **figures: Any) -> dict[str, Any]:
        return {
            "responses": [f"<b>{i}</b> answer {shift}" for i in range(12)],
            "scores": [shift + i / 10 for i in range(12)],
            "kl": [2 * shift, shift, 3 * shift], "proxy": [shift, shift - 0.1, shift + 0.1], "length": [9, None, None],
            "eos_share": [1.0, 1.0, 1.0],
        } | figures  # fmt: skip

    worse = policy(1.0, win_rate=[0.6, 0.52, 0.68], tasks={"sums": {"acc": [0.5, 0.4, 0.6], "rows": 80}})
    worse["scores"][10] = -9.0
    found = {
        "baseline": "r00-sft", "judge": "the reward model", "prompts": PROMPTS,
        "policies": {"r00-sft": policy(0.0), "r01-dpo": worse, "r02-dpo": policy(0.5, win_rate=[0.7, 0.6, 0.8])},
    }  # fmt: skip
    (project.path / "evaluation.json").write_text(json.dumps(found | more))


def test_how_far_a_model_agrees_with_people_is_kept_and_shown(project: Project) -> None:
    """A model says what one of two people says, who contradict each other: no better than chance."""
    judged(project)
    assert "κ with people" not in render(compose(project))
    with project.store() as store:
        store.add_labeler(Labeler(name="tiny/general", id="ai-1", kind="ai"))
        store.add_labeler(Labeler(name="tiny/stories", id="ai-2", kind="ai"))
        for said in list(store.judgments(labeler_id="ana", kinds=("comparison",))):
            again = Judgment(prompt_id=said.prompt_id, labeler_id="ai-1", payload=said.payload, round=1)
            store.submit(again)
        alone = Response(prompt_id=said.prompt_id, text="another", policy="r00-sft", round=1)
        store.add_responses([alone])
        payload = ComparisonPayload(response_ids=(alone.id, said.payload.response_ids[0]), ranks=(0, 1))  # type: ignore[union-attr]
        store.submit(Judgment(prompt_id=said.prompt_id, labeler_id="ai-2", payload=payload, round=1))
        _, metrics = heard(store, 1)
    assert metrics["ai"]["ai-1"]["overlap"] == 24 and metrics["ai"]["ai-1"]["kappa"] == pytest.approx(0, abs=1e-9)
    assert metrics["ai"]["ai-2"] == {"overlap": 0}
    found = compose(project)
    judges = {j.name: j for j in found.judges}
    assert judges["tiny/general"].overlap == 24 and judges["tiny/general"].kappa.estimate == pytest.approx(0, abs=1e-9)  # type: ignore[union-attr]
    assert (judges["tiny/stories"].overlap, judges["tiny/stories"].kappa) == (0, None)
    assert (judges["ana"].overlap, judges["ana"].kappa) == (None, None)
    assert "κ with people" in render(found)


def test_an_empty_project_says_so(project: Project) -> None:
    found = compose(project)
    assert "No artifact yet" in found.subtitle and not found.steps and not found.evaluation.policies
    assert found.recipe is not None and found.recipe.commands[0].startswith("hearken init p --model")
    assert "What was done so far" in render(found)


def test_only_sft(project: Project) -> None:
    artifact(project, "r00-sft", "sft", 1)
    found = compose(project)
    assert [(s.name, s.count, s.unit) for s in found.steps] == [("r00-sft", 10, "sequences")]
    assert "whether it is better nobody has asked yet" in found.subtitle
    assert found.recipe is not None and found.recipe.by_step[0].startswith("hearken train sft --model some/model")
    html = render(found)
    assert 'id="better"' not in html and 'id="done"' in html


def test_judgments_alone(project: Project) -> None:
    judged(project)
    found = compose(project)
    assert [s.name for s in found.steps] == ["Sampling", "Judgments, round 1", "Judgments, round 0"] or {
        s.name.partition(",")[0] for s in found.steps
    } == {"Sampling", "Judgments"}
    judges = {j.name: j for j in found.judges}
    assert judges["ana"].first_shown.estimate == 1 and judges["bo"].longer.estimate == 1
    assert judges["bo"].judgments == 13, "a skip is no judgment"
    assert found.costs is not None and found.costs.judgments == {"person": 25}
    assert found.costs.labeling_seconds == 120
    assert found.tastes == [], "what one labeler alone says of themselves is no group"


def test_an_evaluation_without_gold_or_reward_model(project: Project) -> None:
    for second, (name, kind) in enumerate((("r00-sft", "sft"), ("r01-dpo", "dpo"), ("r02-dpo", "dpo"))):
        artifact(project, name, kind, second)
    evaluated(project)
    path, found = write_report(project)
    assert found.policy == "r02-dpo", "of the newest round"
    assert [r.number for r in found.rounds] == [1, 2] and found.rounds[1].policy == "r02-dpo"
    assert list(found.evaluation.policies) == ["r00-sft", "r01-dpo", "r02-dpo"]
    assert found.evaluation.policies["r01-dpo"].tasks["sums"].rate.estimate == 0.5  # type: ignore[union-attr]
    assert len(found.pairs) == 8 and found.losses == [], "it lost nowhere among the rest"
    html = path.read_text("utf-8")
    assert "&lt;b&gt;0&lt;/b&gt; answer" in html and "<b>0</b>" not in html
    assert "Only the proxy is known" not in html and "wins against r00-sft" in html
    assert "DPO: a policy from comparisons" in html


def test_the_recipe_of_a_project_without_rounds_parses(project: Project) -> None:
    import typer

    from hearken.cli.main import app

    for second, (name, kind) in enumerate((("r00-scratch", "scratch"), ("r00-sft", "sft"), ("r01-dpo", "dpo"))):
        artifact(project, name, kind, second)
    judged(project, "simulated")
    recipe = compose(project).recipe
    assert recipe is not None
    first, change, *steps = recipe.commands
    assert first.startswith("hearken init p") and change == "cd p"
    assert [s.removeprefix("hearken ") for s in steps] == [
        "train sft", "sample", "label --with simulated", "train dpo", "evaluate", "report"
    ]  # fmt: skip
    group = typer.main.get_command(app)
    for line in steps:
        command: Any = group
        words = line.split()[1:]
        while hasattr(command, "get_command") and words:
            context = command.make_context(line, words[:1], resilient_parsing=True)
            command = command.get_command(context, words.pop(0))
            assert command is not None, line
        if "train" not in line:  # which takes its inputs from the project it stands in
            command.make_context(line, words)


def test_a_project_of_dpo_alone_speaks_of_no_other_method(project: Project) -> None:
    for second, (name, kind) in enumerate((("r00-sft", "sft"), ("r01-dpo", "dpo"))):
        folder = artifact(project, name, kind, second)
        rows = [{"step": i, "loss": 0.7 - i / 50, "accuracy": 0.5 + i / 50, "lead": i / 10} for i in range(8)]
        (folder / "run" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluated(project)
    saved = project.path / "evaluation.json"
    content = json.loads(saved.read_text())
    for figures in content["policies"].values():
        figures["scores"] = None
        del figures["proxy"]
    saved.write_text(json.dumps(content))
    html = render(compose(project))
    assert "Lead" in html and 'id="drift"' in html and 'id="reward-model"' not in html
    for word in ("PPO", "ppo", "clip", "Proxy", "proxy", "no data", "episodes"):
        assert word not in html.partition("</style>")[2].partition('id="reproduce"')[0], word


def test_policies_of_earlier_rounds_stay_on_the_page(project: Project) -> None:
    for second, name in enumerate(("r00-sft", "r01-evaluation", "r02-dpo")):
        artifact(project, name, name.partition("-")[2], second)
    evaluated(project)
    saved = project.path / "evaluation.json"
    before = saved.read_text()
    (project.artifacts / "r01-evaluation" / "evaluation.json").write_text(before)
    content = json.loads(before)
    del content["policies"]["r01-dpo"]
    saved.write_text(json.dumps(content))
    assert compose(project).evaluation.policies.keys() == {"r00-sft", "r02-dpo", "r01-dpo"}
    saved.write_text(json.dumps(content | {"prompts": [*PROMPTS[:-1], "Another."]}))
    assert "r01-dpo" not in compose(project).evaluation.policies, "it answered other prompts"


def test_what_an_evaluation_measures_is_on_the_page(project: Project) -> None:
    for second, name in enumerate(("r00-sft", "r01-dpo", "r02-dpo")):
        artifact(project, name, name.partition("-")[2], second)
    spread = {"mean": [0.65, 0.5, 0.8], "deviation": float("nan"), "lowest": 0.6, "highest": 0.7, "seeds": 2}
    evaluated(project, seeds={"win_rate": spread})
    saved = project.path / "evaluation.json"
    content = json.loads(saved.read_text())
    content["policies"]["r02-dpo"] |= {
        "entropy": [0.4, 0.3, 0.5], "self_bleu": 0.5, "repetition": 0.1, "length_drift": [3.0, 2.0, 4.0],
        "phrases": [{"text": "oh , what a day", "share": 0.5, "before": 0.1}],
        "likelihood": {"preferred": [-2.0, -3.0, -1.0], "other": [-5.0, -6.0, -4.0]},
    }  # fmt: skip
    saved.write_text(json.dumps(content))
    found = compose(project)
    policy = found.evaluation.policies["r02-dpo"]
    assert policy.likelihood and policy.likelihood.preferred == (-2, -3, -1) and policy.length_drift == (3, 2, 4)
    assert found.evaluation.seeds[0].deviation is None and found.evaluation.seeds[0].seeds == 2
    older = found.evaluation.policies["r01-dpo"]
    assert older.length_drift == (0, 0, 0), "of texts alone, where an evaluation did not say"
    html = render(found)
    for said in ("oh, what a day", "Self-BLEU", "Entropy", "r02-dpo made even the preferred", "2 seeds of the same"):
        assert said in html, said


def test_losses_are_the_worst_beyond_those_shown(project: Project) -> None:
    artifact(project, "r00-sft", "sft", 1)
    evaluated(project)
    saved = project.path / "evaluation.json"
    content = json.loads(saved.read_text())
    del content["policies"]["r02-dpo"]
    saved.write_text(json.dumps(content))
    found = compose(project)
    assert found.policy == "r01-dpo"
    assert [pair.prompt for pair in found.losses] == [PROMPTS[10]]


def test_what_the_loop_and_the_card_leave_is_read(project: Project) -> None:
    artifact(project, "r00-sft", "sft", 1)
    artifact(project, "r01-samples", "samples", 2)
    artifact(project, "r01-judgments", "judgments", 3, parents={"samples": "artifacts/r01-samples"})
    reward = artifact(project, "r01-reward", "reward", 4, metrics={"accuracy": 0.7}, data={"judgments": 24})
    artifact(project, "r01-ppo", "ppo", 5)
    artifact(project, "r01-evaluation", "evaluation", 6, metrics={"win_rate": [0.6, 0.5, 0.7], "kl": [3.0, 2.0, 4.0]})
    artifact(project, "r02-evaluation", "evaluation", 7, metrics={"win_rate": [0.65, 0.55, 0.75]})
    half = Interval(0.5, 0.4, 0.6)
    card(
        reward, passes=False, failures=["It cannot be told from a coin."], remarks=["Two groups were found."],
        slices=[Slice(by="strength", name="clear", accuracy=Interval(0.5, math.nan, math.nan), count=30)],
        probes=[Probe(name="equal length", value=half, says="what is left")],
        learning=[Learnt(labels=10, accuracy=half)], ceiling=(0.6, 0.72),
    )  # fmt: skip
    judged(project, "simulated")
    evaluated(
        project, leaderboard=[{"policy": "r01-ppo", "strength": [0.5, 0.4, 0.6], "wins": 3, "ties": 1, "losses": 2}]
    )
    found = compose(project)
    names = [s.name for s in found.steps]
    assert names.index("r01-samples") < names.index("r01-judgments") < names.index("r01-reward")
    assert "Sampling" not in names, "the loop's own record stands for it"
    assert [(r.number, r.win_rate.estimate) for r in found.rounds] == [(1, 0.6), (2, 0.65)]  # type: ignore[union-attr]
    assert found.evaluation.leaderboard[0].comparisons == 6
    assert found.recipe is not None and "hearken loop --rounds 1 -C p" in found.recipe.commands
    model = found.reward_model
    assert model is not None and model.passes is False and model.accuracy.estimate == 0.51  # type: ignore[union-attr]
    assert (model.failures, model.remarks) == (["It cannot be told from a coin."], ["Two groups were found."])
    assert model.slices[0].count == 30 and model.probes[0].name == "equal length"
    assert model.agreement_ceiling == (0.6, 0.72)
    html = render(found)
    assert "the best that anyone could reach lies between 60\u202f% and 72\u202f%" in html
    assert "Its card fails" in html and "what is left" in html and "nan" not in html.lower().replace("finance", "")


def test_task_figures_reach_the_report_and_the_model_card(project: Project, tiny_model: Path, tmp_path: Path) -> None:
    """Under the names that they are measured by."""
    rows = [{"q": f"tale {i}", "choices": ["fox", "owl"], "answer": i % 2, "word": "fox"} for i in range(4)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = {"dataset_path": "rows.jsonl", "doc_to_text": "{{q}}"}
    choose = {"task": "choose", "doc_to_choice": "{{choices}}", "doc_to_target": "{{answer}}"}
    normed = choose | {"task": "normed", "metric_list": [{"metric": "acc_norm"}]}
    say = {"output_type": "generate_until", "doc_to_target": "word", "generation_kwargs": {"max_gen_toks": 2}}
    for name, task in (("choose", choose), ("normed", normed), ("say", say)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(common | task))
    measured = run_tasks(str(tiny_model), [load_task(tmp_path / f"{n}.yaml") for n in ("choose", "normed", "say")])
    folder = artifact(project, "r02-dpo", "dpo", 1)
    evaluated(project)
    saved = project.path / "evaluation.json"
    content = json.loads(saved.read_text())
    content["policies"]["r02-dpo"]["tasks"] = {task: scores.model_dump() for task, scores in measured.items()}
    write_json(saved, content)
    policy = compose(project).evaluation.policies["r02-dpo"]
    wanted = {"choose": measured["choose"].acc, "normed": measured["normed"].acc_norm,
              "say": measured["say"].exact_match}  # fmt: skip
    assert {task: scores.rate for task, scores in policy.tasks.items()} == wanted
    assert None not in wanted.values() and measured["normed"].acc is None
    card = model_card(Artifact.load(folder))
    assert all(f"accuracy on {task}" in card for task in wanted)
    assert TaskScores(perplexity=3.0, rows=4).rate is None


def test_the_reward_model_of_a_report_is_the_one_that_was_optimised(project: Project) -> None:
    def reward(name: str, second: int, data: str, accuracy: float) -> Path:
        inputs = {"model": "some/model", "data": [data], "validation": []}
        return artifact(project, name, "reward", second, inputs=inputs, metrics={"accuracy": accuracy})

    first = reward("r01-reward", 1, "one.parquet", 0.7)
    card(first, passes=False, failures=["A coin."], accuracy=Interval(0.7, 0.4, 0.9))
    reward("r01-reward-2", 2, "one.parquet", 0.6)
    found = compose(project)
    assert project.reward() == str(first), "the other one of the ensemble is optimised by nobody"
    assert found.reward_model is not None and found.reward_model.passes is False
    assert found.rounds[0].accuracy.estimate == 0.7  # type: ignore[union-attr]
    refit = reward("r01-refit-1", 3, "two.parquet", 0.8)
    found = compose(project)
    assert project.reward() == str(refit) and found.reward_model is not None
    assert found.reward_model.passes is None and found.rounds[0].accuracy.estimate == 0.8  # type: ignore[union-attr]


def test_what_init_does_not_know_is_copied(tmp_path: Path) -> None:
    config = ProjectConfig.parse({"model": "some/model", "world": "tales", "loop": {"labelers": "simulated"}})
    project = Project.create(tmp_path / "p", config)
    artifact(project, "r01-samples", "samples", 1)
    recipe = compose(project).recipe
    assert recipe is not None
    first, block, loop, report = recipe.commands
    assert first.startswith("hearken init p ") and loop.startswith("hearken loop ") and report == "hearken report -C p"
    assert block.startswith("cat > p/hearken.yaml <<'END'\n") and block.endswith("\nEND")
    assert ProjectConfig.parse(yaml.safe_load(block.partition("\n")[2].removesuffix("END"))) == config


def test_scores_of_another_reward_model_are_not_mixed() -> None:
    people = JudgedBy(kind="people", words="people")
    policy = PolicyResult(
        win_rate=Interval(0.6, 0.5, 0.7), proxy=Interval(1.0, 0.9, 1.1), scores=(1.0,), responses=("a",)
    )

    def result(name: str, reward: str, judge: JudgedBy) -> EvaluationResult:
        return EvaluationResult(prompts=("p",), baseline="sft", judge=judge, reward=reward, policies={name: policy})

    now, before = result("ipo", "r02-reward", people), result("dpo", "r01-reward", people)
    both = joined(now, before)
    assert both is not None and list(both.policies) == ["dpo", "ipo"] and both.policies["ipo"] == policy
    assert both.policies["dpo"] == PolicyResult(win_rate=Interval(0.6, 0.5, 0.7), responses=("a",))
    assert joined(now, before.but(prompts=("q",))) is None and joined(now, before.but(baseline="base")) is None
    assert joined(now, before.but(judge=None)) is None
    proxies = [result("dpo", name, JudgedBy(kind="reward", words="the proxy", name=name)) for name in ("r01", "r02")]
    assert joined(proxies[0], proxies[1]) is None, "another reward model is another judge"
    words = proxies[0].but(judge=JudgedBy(kind="reward", words="the reward model", name="r01", remark="a proxy"))
    assert joined(proxies[0], words) is not None, "whatever it is called"
    told = before.but(policies={"dpo": policy.but(perplexity=3.0, tasks={"sums": TaskScores(rows=1)})})
    again = keep_apart(before.but(policies={"dpo": policy.but(perplexity=2.0)}), told)
    assert again.policies["dpo"] == policy.but(perplexity=2.0, tasks={"sums": TaskScores(rows=1)})


def test_a_broken_evaluation_is_named(project: Project) -> None:
    (project.path / "evaluation.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        compose(project)


def test_rounds_are_read_from_names() -> None:
    assert (round_in("r01-ppo"), round_in("r12-x"), round_in("best-of-8@r01-ppo"), round_in("mine")) == (
        1,
        12,
        None,
        None,
    )
