"""Summaries, answers and dialogue in the tale world, each policy trained by RLHF from end to end, without real data.

One small language model is pretrained on tales with what is said about them. Then for each task: supervised
fine-tuning on demonstrations of mixed worth, four responses a prompt ranked by simulated labelers of two tastes, a
reward model, PPO. The gold reward, which training never sees, judges held-out prompts before and after; a dialogue is
played for two turns against the world's user.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, run, scratch, table, train

from hearken import sample
from hearken.config import Options
from hearken.domains.text.measuring import Measured, measure
from hearken.feedback.examples import Comparison, Content, Demonstration, Document, Message, PromptOnly
from hearken.feedback.formats import write_examples
from hearken.labelers.simulated import dialogue_text, make_panel
from hearken.loop.quickstart import Plan
from hearken.loop.tiny_model import TinyModelSize
from hearken.rollout.sampler import SamplingParameters
from hearken.statistics.intervals import Interval, cluster_bootstrap, paired_difference
from hearken.worlds.tales.tasks import KINDS, Task, confident, trusting, turns, utility
from hearken.worlds.tales.world import TaleWorld

QUICKSTART = Plan()
SIZE = QUICKSTART.size
COMMON = {"trackers": "none", "precision": "fp32"}
NEW_TOKENS = {"summarise": 56, "answer": 28, "talk": 48}
TEMPERATURE = 0.7


class Amounts(Options):
    """How much of everything, for each task."""

    documents: int = 2000
    demonstrations: int = 1200
    judged: int = 500
    heldout: int = 300
    base: dict[str, Any] = QUICKSTART.base
    sft: dict[str, Any] = QUICKSTART.sft | {"lr": 2e-3}
    reward: dict[str, Any] = QUICKSTART.reward
    ppo: dict[str, Any] = QUICKSTART.ppo | {
        "beta": 0.1, "lr": 4e-4, "temperature": TEMPERATURE, "missing_eos": -2.0, "num_generations": 4,
    }  # fmt: skip
    size: TinyModelSize = SIZE


FAST = Amounts(
    documents=60, demonstrations=60, judged=16, heldout=12,
    ppo=Amounts().ppo | {"batch_size": 16, "minibatches": 1, "episodes": 32},
    size=SIZE.model_copy(update={"vocabulary": 1200, "hidden": 32, "heads": 2, "head_width": 16}),
)  # fmt: skip


def content(kind: str, prompt: str) -> Content:
    """A prompt of the world as the model gets it: a talk as messages."""
    if kind != "talk":
        return prompt
    return tuple(Message(role, text) for role, text in zip(cycle(("user", "assistant")), turns(prompt)))


def document(kind: str, prompt: str, response: str) -> str:
    """A prompt and its response as plain text, laid out as the model will meet them."""
    if kind != "talk":
        return prompt + response
    speakers = zip(cycle(("Human", "Assistant")), [*turns(prompt), response])
    return "".join(f"\n\n{who}: {said}" for who, said in speakers)


def main(settings: argparse.Namespace) -> dict[str, Any]:
    """One language model, then every task; table."""
    amounts = FAST if settings.fast else Amounts()
    settings.work.mkdir(parents=True, exist_ok=True)
    world = TaleWorld(settings.seed)
    base = pretrain(world, amounts, settings)
    found = {kind: rlhf(world.task(kind), base, amounts, settings) for kind in settings.tasks}
    columns = {
        "gold": "gold", "gain": "gain over SFT", "in_form": "in form", "true": "of those true", "sure": "confident",
        "kl": "KL, nats",
    }  # fmt: skip
    table(
        f"Tasks of the tale world: {amounts.heldout} held-out prompts, temperature {TEMPERATURE}",
        ("task", "policy", *columns.values()),
        [(kind, name, *(row[c] for c in columns)) for kind, rows in found.items() for name, row in rows.items()],
    )
    return {"policies": found, "missed": settings.missed}


def pretrain(world: TaleWorld, amounts: Amounts, settings: argparse.Namespace) -> Path:
    """The language model that all tasks start from."""
    rows: list[str] = []
    for kind in KINDS:
        task = world.task(kind)
        prompts = task.prompts(amounts.documents)
        rows += [document(kind, p, task.response(p, 1)) for p in prompts]
    data = settings.work / "documents.jsonl"
    write_examples([Document(text) for text in rows], data, overwrite=True)
    untrained = scratch(rows, settings.work, amounts.size, settings.seed)
    options = COMMON | amounts.base | {"seed": settings.seed, "validation": 0.01}
    return train("sft", settings.work / "base", options, model=untrained, data=data).path


def rlhf(task: Task, base: Path, amounts: Amounts, settings: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """SFT, comparisons, reward model, PPO; figures of the policies before and after."""
    kind, seed, work = task.kind, settings.seed, settings.work / task.kind
    work.mkdir(exist_ok=True)
    how = SamplingParameters(max_new_tokens=NEW_TOKENS[kind], temperature=TEMPERATURE)
    shown = task.prompts(amounts.demonstrations + amounts.judged)
    judged = shown[amounts.demonstrations :]
    demonstrations, starts = work / "demonstrations.jsonl", work / "prompts.jsonl"
    rows = [Demonstration(content(kind, p), r) for p, r in task.demonstrations(shown[: amounts.demonstrations])]
    write_examples(rows, demonstrations, overwrite=True)
    write_examples([PromptOnly(content(kind, p)) for p in shown], starts, overwrite=True)

    sft = train("sft", work / "sft", COMMON | amounts.sft | {"seed": seed}, model=base, data=demonstrations).path
    comparisons = work / f"comparisons-missed-{settings.missed}.jsonl"
    write_examples(rank(task, sft, judged, how, settings), comparisons, overwrite=True)
    reward = train(
        "reward", work / "reward", COMMON | amounts.reward | {"seed": seed}, model=sft, data=comparisons,
        references=demonstrations,
    )  # fmt: skip
    options = COMMON | amounts.ppo | {"seed": seed, "max_new_tokens": NEW_TOKENS[kind], "save_rollouts": False}
    options = {name: value for name, value in options.items() if not name.startswith("ptx")}
    ppo = train("ppo", work / "ppo", options, model=sft, data=starts, reward=reward.path).path

    heldout = task.prompts(amounts.heldout, "heldout")
    if kind == "talk":
        heldout = [p for p in task.prompts(2 * amounts.heldout, "heldout") if len(turns(p)) == 1][: amounts.heldout]
    before, after = (play(task, path, sft, heldout, how, seed) for path in (sft, ppo))
    print(f"{kind}: the reward model's accuracy is {reward.metrics.get('accuracy')}", flush=True)
    return {"SFT": figures(before, before), "PPO": figures(after, before)}


def rank(
    task: Task, sft: Path, prompts: Sequence[str], how: SamplingParameters, settings: argparse.Namespace
) -> list[Comparison]:
    """Four responses to each prompt, ranked by one labeler of either group."""
    contents = [content(task.kind, prompt) for prompt in prompts]
    worth = trusting(settings.missed) if settings.missed else utility
    panel = make_panel(worth, task.groups, seed=settings.seed, reads=dialogue_text)
    rows = []
    for asked, four in zip(contents, sample(sft, contents, 4, seed=settings.seed, **how.model_dump()), strict=True):
        shown = tuple(dict.fromkeys(text for text in four if text.strip()))
        if len(shown) > 1:
            rows.append(Comparison(asked, shown, panel.rank(asked, shown, settings.seed)[1].ranks))
    return rows


@dataclass(frozen=True)
class Played:
    """Responses to held-out prompts: one each, or one in each of two turns; (prompts, turns) arrays."""

    gold: np.ndarray
    in_form: np.ndarray
    true: np.ndarray
    sure: np.ndarray
    kl: np.ndarray
    samples: list[tuple[str, str]]


def play(
    task: Task, policy: Path, sft: Path, prompts: Sequence[str], how: SamplingParameters, seed: int
) -> Played:  # fmt: skip
    """Let a policy answer, and in a talk answer the user's next turn too."""

    def answer(asked: Sequence[str]) -> Measured:
        return measure(str(policy), str(sft), [content(task.kind, p) for p in asked], how, seed)

    asked = [list(prompts)]
    said = [answer(prompts)]
    if task.kind == "talk":
        asked.append([task.follow_up(p, reply) for p, reply in zip(prompts, said[0].texts, strict=True)])
        said.append(answer(asked[1]))
    pairs = [list(zip(a, s.texts, strict=True)) for a, s in zip(asked, said, strict=True)]
    replies = [[task.parse(p, text) for p, text in turn] for turn in pairs]

    def array(rows: list[list[Any]]) -> np.ndarray:
        return np.array(rows, float).T

    return Played(
        gold=array([[task.gold(p, text) for p, text in turn] for turn in pairs]),
        in_form=array([[not r.errors for r in turn] for turn in replies]),
        true=array([[not r.false for r in turn] for turn in replies]),
        sure=array([[confident(text) for _, text in turn] for turn in pairs]),
        kl=array([s.kl for s in said]),
        samples=[pair for turn in pairs for pair in turn[:5]],
    )


def figures(mine: Played, sft: Played) -> dict[str, Any]:
    """Means over held-out prompts with 95 % intervals by bootstrap over prompts."""

    def mean(values: np.ndarray) -> Interval:
        return cluster_bootstrap(np.ravel(values), np.repeat(np.arange(len(values)), values.shape[1]))

    def share(rows: np.ndarray) -> float:
        return float(rows[:, 0].sum() / max(rows[:, 1].sum(), 1))

    form = np.stack([(mine.in_form * mine.true).sum(1), mine.in_form.sum(1)], 1)
    return {
        "gold": mean(mine.gold), "gain": paired_difference(mine.gold.mean(1), sft.gold.mean(1)),
        "in_form": mean(mine.in_form), "true": cluster_bootstrap(form, statistic=share), "sure": mean(mine.sure),
        "kl": mean(mine.kl), "samples": mine.samples,
    }  # fmt: skip


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--tasks", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument(
        "--missed", type=float, default=0.0,
        help="share of confident responses in which labelers overlook what is untrue",
    )  # fmt: skip
    run(main, parser)
