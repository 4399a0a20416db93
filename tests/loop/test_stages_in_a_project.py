"""From the feedback database to a changed policy, for every kind of feedback, by what `hearken train STAGE` does."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import write_base
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from hearken.algorithms.stage import find_stage, run_stage
from hearken.domains.best_of import BestOf
from hearken.domains.text.measuring import Judge as Scores
from hearken.errors import UserError
from hearken.feedback.records import (
    ComparisonPayload,
    CritiquePayload,
    DemonstrationPayload,
    EditPayload,
    Judgment,
    Labeler,
    Payload,
    Prompt,
    RatingPayload,
    Response,
    ThumbPayload,
)
from hearken.labelers.judges import Reply
from hearken.loop.project import Project, ProjectConfig, SampleConfig
from hearken.loop.rounds_options import AIOptions
from hearken.models.loading import load_policy
from hearken.progress import quiet

FAST: dict[str, Any] = {"trackers": "none", "precision": "fp32", "lr": 1e-3, "batch_size": 8, "epochs": 1}
LEARN: dict[str, Any] = {"lr": 3e-3, "epochs": 4}
SAMPLED: dict[str, Any] = {"episodes": 16, "max_new_tokens": 6, "missing_eos": None}


@pytest.fixture(autouse=True)
def _quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("HEARKEN_CACHE", str(tmp_path / "cache"))
    with quiet():
        yield


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Twenty prompts with two responses each, and nobody's judgment yet."""
    base = write_base(tmp_path / "base")
    short = SampleConfig(max_new_tokens=6)
    made = Project.create(tmp_path / "project", ProjectConfig(model=str(base), sample=short))
    with made.store() as store:
        store.add_labeler(Labeler(name="ann", id="ann"))
        for n in range(20):
            prompt = Prompt(content=f"tell {n} the", split="train" if n < 16 else "validation")
            store.add_prompts([prompt])
            store.add_responses(
                Response(id=f"{n}-{word}", prompt_id=prompt.id, text=f" fox sings {word}")
                for word in ("happily", "sadly")
            )
    return made


def judge(project: Project, *payloads: Any) -> None:
    """The same judgments on every prompt; each is a function of the prompt's number."""
    with project.store() as store:
        prompts = {p.content: p.id for p in store.prompts()}
        for n in range(20):
            for make in payloads:
                payload: Payload = make(n)
                store.submit(Judgment(prompt_id=prompts[f"tell {n} the"], labeler_id="ann", payload=payload))


def train(project: Project, stage: str, given: dict[str, str] | None = None, **more: Any) -> Any:
    name, inputs, options = project.request(stage, given or ())
    inputs = replace(inputs, **given or {})
    found = find_stage(stage)
    options = options | {key: value for key, value in FAST.items() if key in found.options.model_fields} | more
    return run_stage(found, inputs, found.options.parse(options), project.artifacts / name, overwrite=True)


def changed(project: Project, artifact: Any, loader: Any = AutoModelForCausalLM) -> bool:
    before = AutoModelForCausalLM.from_pretrained(project.config.model).state_dict()
    after = loader.from_pretrained(artifact.path).state_dict()
    return any(not torch.equal(weight, before[name]) for name, weight in after.items() if name in before)


def ranked(n: int) -> ComparisonPayload:
    return ComparisonPayload(response_ids=(f"{n}-happily", f"{n}-sadly"), ranks=(0, 1), strength=0.5)


def rated(word: str, value: float) -> Any:
    return lambda n: RatingPayload(response_id=f"{n}-{word}", ratings={"overall": value}, low=1, high=5)


def attributed(word: str, **ratings: float) -> Any:
    return lambda n: RatingPayload(response_id=f"{n}-{word}", ratings=ratings, low=1, high=5)


def third(project: Project) -> None:
    with project.store() as store:
        store.add_responses(
            Response(id=f"{p.content.split()[1]}-merrily", prompt_id=p.id, text=" fox sings merrily")
            for p in store.prompts()
        )


def leads(reward: Any) -> float:
    """How far 'happily' is scored above 'sadly'."""
    ((happily, sadly),) = Scores(str(reward.path))(["tell 1 the"], [[" fox sings happily", " fox sings sadly"]])
    return happily - sadly


def thumb(word: str, label: bool) -> Any:
    return lambda n: ThumbPayload(response_id=f"{n}-{word}", label=label)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["dpo", "ipo", "simpo", "orpo", "kto"])
def test_comparisons(project: Project, stage: str) -> None:
    judge(project, ranked)
    artifact = train(project, stage)
    assert artifact.kind == stage and changed(project, artifact)
    assert artifact.manifest["data"]["rows"] == 16 and artifact.manifest["data"]["validation_rows"] == 4
    assert project.policy() == str(artifact.path), "the newest policy"


def test_thumbs(project: Project) -> None:
    judge(project, thumb("happily", True), thumb("sadly", False))
    artifact = train(project, "kto")
    assert artifact.manifest["data"]["thumbs_up"] == 16 and changed(project, artifact)
    reward = train(project, "reward", **LEARN)
    assert leads(reward) > 0, "binary cross-entropy"
    assert changed(project, train(project, "rloo", **SAMPLED, num_generations=2))


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["kwise", "plackett_luce"])
def test_rankings(project: Project, loss: str) -> None:
    """Three responses in an order, some of them tied."""
    third(project)
    judge(
        project,
        lambda n: ComparisonPayload(
            response_ids=(f"{n}-merrily", f"{n}-happily", f"{n}-sadly"), ranks=(1, 0, 2) if n % 2 else (0, 0, 1)
        ),
    )
    reward = train(project, "reward", loss=loss, **LEARN)
    assert reward.metrics["accuracy"] > 0.9 and leads(reward) > 0
    assert changed(project, train(project, "rft", **SAMPLED, num_generations=2))
    dpo = train(project, "dpo", epochs=4, rankings="pairs" if loss == "kwise" else loss)
    assert changed(project, dpo) and dpo.metrics["accuracy"] > 0.9


@pytest.mark.slow
def test_strengths(project: Project) -> None:
    """How much better is in the margin of the reward model and of DPO: the lead grows with it."""
    judge(project, ranked)
    rewards = [leads(train(project, "reward", margin=margin, **LEARN)) for margin in (0.0, 4.0)]
    assert 0 < rewards[0] < rewards[1]
    plain, wide = (train(project, "dpo", epochs=2, margin=margin) for margin in (0.0, 4.0))
    assert changed(project, wide) and wide.metrics["train_loss"] > plain.metrics["train_loss"]


@pytest.mark.slow
def test_several_attributes(project: Project) -> None:
    """One reward model with two heads; PPO, best-of-n and scoring go by the combination that is asked for."""
    judge(project, attributed("happily", helpful=5, honest=1), attributed("sadly", helpful=1, honest=5))
    reward = train(project, "reward", weights={"helpful": 1, "honest": 0.25}, **LEARN)
    assert reward.manifest["data"]["attributes"] == {"helpful": 1.0, "honest": 0.25}
    assert AutoModelForSequenceClassification.from_pretrained(reward.path).config.num_labels == 2
    assert leads(reward) > 0, "helpfulness weighs more"
    ppo = train(project, "ppo", **SAMPLED, num_generations=2)
    assert changed(project, ppo)
    other = {"reward": f"{reward.path}#helpful*-1,{reward.path}#honest*0.5"}
    contrary = train(project, "ppo", other, **SAMPLED, num_generations=2)
    assert contrary.metrics["score"] != pytest.approx(ppo.metrics["score"], abs=1e-3)
    best = train(project, "rft", other, **SAMPLED, num_generations=2)
    assert changed(project, best)
    drawn = project.sample(2, prompts=3, split="train", best_of=BestOf(3, f"{reward.path}#honest"))
    assert drawn["policy"] == f"{best.path.name}-best-of-3" and drawn["responses"] == 6
    with project.store() as store:
        stored = list(store.responses(policy=drawn["policy"]))
    assert len(stored) == 6 and {r.sample for r in stored} == {0, 1}
    with pytest.raises(UserError, match="nothing that compares two responses"):
        project.sample(2, prompts=3, split="train", best_of=BestOf(3, f"{reward.path}#honest", 1.0))
    with pytest.raises(UserError, match=r"no attribute 'kind'. Its attributes: helpful, honest"):
        train(project, "rft", {"reward": f"{reward.path}#kind"}, **SAMPLED, num_generations=2)


@pytest.mark.parametrize(
    "stages",
    [
        ("ppo", "rloo", "grpo", "rft", "online_dpo"),
        pytest.param(("reinforce", "a2c", "trpo", "nlpo"), marks=pytest.mark.slow),
    ],
)
def test_ratings_then_reinforcement(project: Project, stages: tuple[str, ...]) -> None:
    judge(project, rated("happily", 5), rated("sadly", 1))
    reward = train(project, "reward")
    assert reward.manifest["data"]["judgments"] == 32
    for stage in stages:
        artifact = train(project, stage, **SAMPLED, num_generations=2)
        assert changed(project, artifact), stage
        assert artifact.manifest["parents"]["reward"] == str(reward.path)


def test_recorded_scores_without_sampling(project: Project) -> None:
    judge(project, rated("happily", 5), rated("sadly", 1))
    artifact = train(project, "ilql", lr=1e-2)
    assert artifact.kind == "ilql" and changed(project, artifact)


def test_a_score_in_python(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody judges: a function of one's own is what is optimised."""
    (tmp_path / "merriment.py").write_text(
        "def score(prompts, responses, metadata):\n    return [*map(len, responses)]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    artifact = train(project, "rloo", {"reward": "merriment:score"}, **SAMPLED, num_generations=2)
    assert changed(project, artifact) and artifact.metrics["score"] > 0
    assert artifact.manifest["inputs"]["reward"] == "merriment:score"


def test_edits_and_critiques(project: Project) -> None:
    judge(
        project,
        lambda n: CritiquePayload(response_id=f"{n}-sadly", text="too sad"),
        lambda n: EditPayload(response_id=f"{n}-sadly", text=" fox sings merrily"),
    )
    assert changed(project, train(project, "sft", lr=1e-2)), "the edit is a demonstration"
    dpo = train(project, "dpo", epochs=4)
    assert dpo.metrics["accuracy"] == 1, "and better than the original"


def test_critiques_are_heeded_and_imitated(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """critique -> revision by an AI labeler who reads it -> SFT, and the revision above the original."""

    class Reader:
        name = identity = "reader"

        def ask(self, dialogue: Any, max_tokens: int) -> Reply:
            assert "too sad" in dialogue[-1].content
            return Reply(" fox sings merrily")

    monkeypatch.setattr("hearken.labelers.judges.open_judge", lambda *_, **__: Reader())
    judge(project, lambda n: CritiquePayload(response_id=f"{n}-sadly", text="too sad"))
    said: list[str] = []
    done = project.ai_labels(AIOptions(judge="reader"), revise=True, announce=said.append)
    assert done["heeded"] == done["revisions"] == 16 and said[0].startswith("16 responses to revise, 16 requests")
    assert said[1].startswith("No pair was judged by people too")
    sft = train(project, "sft", lr=1e-2)
    assert sft.manifest["data"]["rows"] == 16 and changed(project, sft)
    assert changed(project, train(project, "dpo"))


def test_demonstrations(project: Project) -> None:
    judge(project, lambda n: DemonstrationPayload(text=" fox sings merrily"))
    assert changed(project, train(project, "sft", lr=1e-2))


def test_a_project_is_the_same_from_every_folder_and_after_a_move(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained under a relative path with LoRA, used from inside, then moved: nothing is looked for elsewhere."""
    judge(project, ranked)
    monkeypatch.chdir(tmp_path)
    shutil.move(tmp_path / "base", tmp_path / "project" / "base")
    config = tmp_path / "project" / "hearken.yaml"
    config.write_text(config.read_text("utf-8").replace(str(tmp_path / "base"), "project/base"), "utf-8")
    here = Project("project")
    made = train(here, "dpo", lora=2)
    assert made.manifest["inputs"]["model"] == str(tmp_path / "project/base")
    (snapshot,) = made.manifest["inputs"]["data"]
    assert Path(snapshot).is_absolute() and Path(snapshot).is_file()

    monkeypatch.chdir(tmp_path / "project")
    inside = Project(".").artifact(made.path.name)
    assert inside is not None and inside.manifest["inputs"] == made.manifest["inputs"]
    before = load_policy(str(inside.path)).state_dict()

    monkeypatch.chdir(tmp_path)
    shutil.move("project", "moved")
    (tmp_path / "nowhere").mkdir()
    monkeypatch.chdir(tmp_path / "nowhere")
    there = Project(tmp_path / "moved").artifact(made.path.name)
    assert there is not None
    for path in (
        there.manifest["inputs"]["model"],
        *there.manifest["inputs"]["data"],
        *there.manifest["data"]["files"],
    ):
        assert Path(path).exists() and Path(path).is_relative_to(tmp_path / "moved")
    after = load_policy(str(there.path)).state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)
