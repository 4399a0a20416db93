"""How much of everything a quickstart does: the plans of its two worlds, each with a smoke test of it. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hearken.algorithms.stage import find_stage
from hearken.config import Options
from hearken.loop.tiny_model import TinyModelSize

# What suits a model of half a million weights that learns from nothing: epsilon below its gradients, a short memory.
_SMALL = {"warmup": 0.03, "beta2": 0.98, "eps": 1e-8, "tokens": 8192}


def settled(stage: str, options: Mapping[str, object], domain: str = "text") -> Options:
    """A stage's options by their names of today, whatever they were called when the project was made."""
    return find_stage(stage, domain).options.parse(options, where=f"hearken.yaml: stages.{stage}")


class Plan(Options):
    """How much of everything."""

    documents: int = 2500
    heldout_documents: int = 200
    demonstrations: int = 16_000
    prompts: int = 3000
    """Training prompts; the first `judged` of them are answered and judged, PPO draws from all."""
    judged: int = 900
    heldout_judged: int = 200
    k: int = 4
    """Responses that are ranked together."""
    overlap: int = 5
    """Labelers who rank the same responses."""
    needed: int = 0
    """Judgments that the person at this machine is asked for; 0 where nobody is."""
    warm_up: int = 0
    """Pairs of the world's own tales among them, for the time before the model is trained."""
    references: int = 500
    """Demonstrations whose mean score is 0."""
    heldout: int = 200
    """Held-out prompts on which policies are compared."""
    pool: int = 64
    """Responses of SFT to each of them, which show what the reward allows."""
    temperature: float = 0.6
    """Of all sampling: a model this small errs often at 1."""
    size: TinyModelSize = TinyModelSize(
        vocabulary=2048, hidden=128, layers=2, heads=4, head_width=64, shared=2, context=192
    )
    base: dict[str, Any] = {**_SMALL, "lr": 4e-3, "batch_size": 8, "weight_decay": 0.05}
    sft: dict[str, Any] = {
        **_SMALL,
        "lr": 6e-3,
        "batch_size": 8,
        "weight_decay": 0.05,
        "schedule": "linear",
        "validation": 0.02,
    }
    reward: dict[str, Any] = {**_SMALL, "lr": 2e-3, "batch_size": 16, "epochs": 2, "warmup": 0.1}
    ppo: dict[str, Any] = {
        "lr": 4e-4, "value_lr": 1e-3, "batch_size": 96, "minibatches": 4, "epochs": 2, "episodes": 1920, "beta": 0.15,
        "max_new_tokens": 128, "temperature": 0.6, "warmup": 0.1, "value_clip": 0.0, "vf_coef": 1.0, "ptx_batch": 8,
        "ptx_coef": 0.1, "missing_eos": -4.0, "schedule": "linear", "eps": 1e-8, "beta2": 0.98, "tokens": 8192,
    }  # fmt: skip

    def stands_in(self, stages: Mapping[str, Mapping[str, object]]) -> bool:
        """Whether a project's stages train the policy by this plan."""
        return "ppo" in stages and settled("ppo", stages["ppo"]) == settled("ppo", self.ppo)


FAST = Plan(
    documents=800, heldout_documents=40, demonstrations=1200, prompts=120, judged=60, heldout_judged=24, heldout=24,
    pool=8, size=TinyModelSize(vocabulary=1600, hidden=64, layers=2, heads=1, context=192),
    ppo={**Plan().ppo, "batch_size": 24, "minibatches": 2, "episodes": 72},
)  # fmt: skip


def in_person(plan: Plan) -> Plan:
    """The plan with one person instead of a panel: as many rankings as somebody has the patience for, each once."""
    few = plan.judged < Plan().judged
    needed, warm_up = (12, 4) if few else (60, 10)
    return plan.model_copy(
        update={
            "needed": needed, "warm_up": warm_up, "judged": needed, "heldout_judged": needed // 5, "overlap": 1,
            "reward": {**plan.reward, "batch_size": 8, "epochs": 3},
        }
    )  # fmt: skip


class NotesPlan(Options):
    """How much of everything."""

    judged: int = 128
    """Training requests whose answers are judged; RLOO draws from these and as many others."""
    heldout_judged: int = 32
    prompts: int = 256
    """Training requests."""
    k: int = 4
    """Answers that are ranked together."""
    overlap: int = 1
    """Labelers who rank the same answers."""
    heldout: int = 72
    """Requests about other topics, on which policies are compared."""
    needed: int = 0
    """Judgments that the person at this machine is asked for; 0 where nobody is."""
    documents: int = 40
    """Plain texts about something else, on which perplexity is measured."""
    max_new_tokens: int = 48
    temperature: float = 0.7
    """Of all sampling."""
    sft: dict[str, Any] = {
        "lora": 16, "lr": 5e-4, "epochs": 2, "batch_size": 16, "warmup": 0.1, "validation": 0.0,
    }  # fmt: skip
    reward: dict[str, Any] = {
        "lora": 16, "lr": 1e-3, "epochs": 2, "batch_size": 8, "pooling": "mean", "warmup": 0.1, "eps": 1e-8,
    }  # fmt: skip
    rloo: dict[str, Any] = {
        "lora": 16, "lr": 3e-4, "num_generations": 4, "batch_size": 64, "minibatches": 4, "episodes": 384, "beta": 0.1,
        "max_new_tokens": 48, "temperature": 0.7, "missing_eos": -3.0, "schedule": "linear", "warmup": 0.1,
        "eps": 1e-8,
    }  # fmt: skip

    def stands_in(self, stages: Mapping[str, Mapping[str, object]]) -> bool:
        """Whether a project's stages train the policy by this plan."""
        return "rloo" in stages and settled("rloo", stages["rloo"]) == settled("rloo", self.rloo)


NOTES_FAST = NotesPlan(
    judged=8, heldout_judged=4, prompts=12, heldout=8, documents=2, max_new_tokens=8,
    sft={**NotesPlan().sft, "lora": 2, "epochs": 1}, reward={**NotesPlan().reward, "lora": 2, "epochs": 1},
    rloo={**NotesPlan().rloo, "lora": 2, "batch_size": 8, "minibatches": 2, "episodes": 16, "max_new_tokens": 8},
)  # fmt: skip


def notes_in_person(plan: NotesPlan) -> NotesPlan:
    """The plan with one person instead of a panel: as many rankings as somebody has the patience for."""
    needed = 12 if plan.judged < NotesPlan().judged else 48
    return plan.model_copy(
        update={
            "needed": needed, "judged": needed, "heldout_judged": needed // 4,
            "reward": {**plan.reward, "epochs": 2 * plan.reward["epochs"]},
        }
    )  # fmt: skip
