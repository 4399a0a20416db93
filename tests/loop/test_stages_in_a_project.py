"""From the feedback database to a changed policy, for every kind of feedback, by what `hearken train STAGE` does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import write_base
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from hearken.algorithms.stage import find_stage, run_stage
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
from hearken.loop.project import Project, ProjectConfig
from hearken.progress import quiet

FAST: dict[str, Any] = {"trackers": "none", "precision": "fp32", "lr": 1e-3, "batch": 8, "epochs": 1}
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
    made = Project.create(tmp_path / "project", ProjectConfig(model=str(base)))
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


def train(project: Project, stage: str, **more: Any) -> Any:
    name, inputs, options = project.request(stage)
    found = find_stage(stage)
    options = options | FAST | more
    return run_stage(found, inputs, found.options.parse(options), project.artifacts / name)


def changed(project: Project, artifact: Any, loader: Any = AutoModelForCausalLM) -> bool:
    before = AutoModelForCausalLM.from_pretrained(project.config.model).state_dict()
    after = loader.from_pretrained(artifact.path).state_dict()
    return any(not torch.equal(weight, before[name]) for name, weight in after.items() if name in before)


def ranked(n: int) -> ComparisonPayload:
    return ComparisonPayload(response_ids=(f"{n}-happily", f"{n}-sadly"), ranks=(0, 1), strength=0.5)


def rated(word: str, value: float) -> Any:
    return lambda n: RatingPayload(response_id=f"{n}-{word}", ratings={"overall": value}, low=1, high=5)


def thumb(word: str, label: bool) -> Any:
    return lambda n: ThumbPayload(response_id=f"{n}-{word}", label=label)


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
    reward = train(project, "reward")
    assert changed(project, reward, AutoModelForSequenceClassification)


def test_ratings_then_reinforcement(project: Project) -> None:
    judge(project, rated("happily", 5), rated("sadly", 1))
    reward = train(project, "reward")
    assert reward.manifest["data"]["judgments"] == 32
    for stage in ("ppo", "rloo", "grpo", "rft", "online_dpo"):
        artifact = train(project, stage, **SAMPLED, samples=2)
        assert changed(project, artifact), stage
        assert artifact.manifest["parents"]["reward"] == str(reward.path)


def test_edits_and_critiques(project: Project) -> None:
    judge(
        project,
        lambda n: CritiquePayload(response_id=f"{n}-sadly", text="too sad"),
        lambda n: EditPayload(response_id=f"{n}-sadly", text=" fox sings merrily"),
    )
    assert changed(project, train(project, "sft", lr=1e-2)), "the edit is a demonstration"
    dpo = train(project, "dpo", epochs=4)
    assert dpo.metrics["accuracy"] == 1, "and better than the original"


def test_demonstrations(project: Project) -> None:
    judge(project, lambda n: DemonstrationPayload(text=" fox sings merrily"))
    assert changed(project, train(project, "sft", lr=1e-2))
