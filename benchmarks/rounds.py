"""Three rounds against one with the same number of labels, on the tale world; the gold reward decides.

A language model is trained and fine-tuned once. Then, for each seed: one round with all the labels, three rounds with a
third of them each (the policy goes on, with a third of the PPO episodes a round); with ``--anew`` also three rounds
that start their policy anew each time (three times the episodes). Each arm is `hearken loop` in a project of its own.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from common import arguments, run, table

from hearken.algorithms.stage import Inputs
from hearken.evaluation.compare import head_to_head
from hearken.evaluation.results import read_evaluation
from hearken.feedback.examples import Demonstration, Document, PromptOnly
from hearken.feedback.formats import write_examples
from hearken.feedback.records import Prompt
from hearken.loop.project import Project, ProjectConfig, SampleConfig
from hearken.loop.quickstart import FAST, Plan
from hearken.loop.rounds import Loop
from hearken.loop.tiny_model import make_tiny_model
from hearken.statistics.intervals import Interval
from hearken.statistics.power import over_seeds
from hearken.worlds.tales.world import TaleWorld

ANEW = "three rounds, anew"
ARMS: dict[str, dict[str, Any]] = {
    "one round": {"rounds": 1},
    "three rounds, going on": {"rounds": 3, "policy_start": "last"},
    ANEW: {"rounds": 3, "policy_start": "sft"},
}


def main(settings: argparse.Namespace) -> dict[str, Any]:
    """The model, the arms of every seed, the table, and a sentence."""
    plan = FAST if settings.fast else Plan()
    labels = 12 if settings.fast else settings.prompts
    base = first_policy(settings.work, plan, settings.seed)
    seeds = list(range(settings.seed, settings.seed + (1 if settings.fast else settings.seeds)))
    names = [name for name in ARMS if settings.anew or name != ANEW]
    arms = {}
    for seed in seeds:
        for name in names:
            arms[name, seed] = arm(settings.work, plan, base, name, ARMS[name], labels, seed)
    rows, gains = [], {}
    for name in names:
        golds = [arms[name, seed]["gold"][0] for seed in seeds]
        kls = [arms[name, seed]["kl"][0] for seed in seeds]
        right = [arms[name, seed]["accuracy"] for seed in seeds]
        won = [versus(arms["one round", seed], arms[name, seed]) for seed in seeds]
        gains[name] = over_seeds([w.estimate for w in won])
        judgments = {arms[name, seed]["judgments"] for seed in seeds}
        rows.append(
            (
                name, "/".join(map(str, sorted(judgments))), f"{mean(golds):.3f}", f"{mean(kls):.1f}",
                f"{100 * mean(right):.1f}", "–" if name == "one round" else said(gains[name].mean, won),
            )
        )  # fmt: skip
    table(
        f"Mean over {len(seeds)} seeds; win rate against one round by the gold reward",
        ("arm", "rankings", "gold", "KL", "reward accuracy, %", "wins against one round, %"), rows,
    )  # fmt: skip
    verdict = conclude({name: gain.mean for name, gain in gains.items() if name != "one round"}, len(seeds))
    print(f"\n{verdict}")
    kept = {f"{name}, seed {seed}": {k: v for k, v in arms[name, seed].items() if k not in ("responses", "golds")}
            for name, seed in arms}  # fmt: skip
    return {"arms": kept, "verdict": verdict, "prompts_judged": labels}


def first_policy(work: Path, plan: Plan, seed: int) -> Path:
    """The fine-tuned model that every arm starts from, made as `hearken quickstart` does."""
    home = work / "base"
    if not (home / "hearken.yaml").exists():
        Project.create(home, ProjectConfig(model="scratch", seed=seed))
    project, world, data = Project(home), TaleWorld(seed), home / "data"
    prompts = world.prompts(plan.prompts + plan.demonstrations)
    if not (data / "complete").exists():
        data.mkdir(exist_ok=True)
        write_examples([Document(t) for t in world.corpus(plan.documents)], data / "corpus.jsonl", overwrite=True)
        shown = [Demonstration(p, t) for p, t in world.demonstrations(prompts[plan.prompts :])]
        write_examples(shown, data / "demonstrations.jsonl", overwrite=True)
        references = [Demonstration(p, world.tale(p)) for p in prompts[-plan.references :]]
        write_examples(references, data / "references.jsonl", overwrite=True)
        write_examples([PromptOnly(p) for p in prompts[: plan.prompts]], data / "prompts.jsonl", overwrite=True)
        (data / "complete").touch()
    scratch = project.artifacts / "r00-scratch"
    if not (scratch / "tokenizer_config.json").exists():
        make_tiny_model(world.corpus(plan.documents), scratch, plan.size, seed)
    base = project.train("sft", "r00-base", Inputs(model=str(scratch), data=(str(data / "corpus.jsonl"),)), **plan.base)
    inputs = Inputs(model=str(base.path), data=(str(data / "demonstrations.jsonl"),))
    return project.train("sft", "r00-sft", inputs, **plan.sft).path


def arm(
    work: Path, plan: Plan, base: Path, name: str, options: dict[str, Any], labels: int, seed: int
) -> dict[str, Any]:
    """One arm: `hearken loop` with these options; figures of its last policy by the gold reward."""
    rounds, data = options["rounds"], base.parents[1] / "data"
    home = work / f"seed-{seed}-{name.replace(', ', '-').replace(' ', '-')}"
    share = rounds if options.get("policy_start") == "last" else 1
    ppo = dict(plan.ppo)
    ppo["episodes"] = max(ppo["episodes"] // share // ppo["batch_size"], 1) * ppo["batch_size"]
    config = ProjectConfig.parse({
        "model": str(base), "world": "tales", "seed": seed,
        "sample": SampleConfig(
            k=4, overlap=plan.overlap, max_new_tokens=ppo["max_new_tokens"], temperature=plan.temperature
        ).model_dump(),
        "stages": {"reward": plan.reward, "ppo": ppo},
        "loop": options | {
            "prompts": labels // rounds, "held_out": plan.heldout_judged, "labelers": "simulated",
            "evaluate": plan.heldout, "data": [str(data / "prompts.jsonl")], "ptx": [str(data / "corpus.jsonl")],
            "references": [str(data / "references.jsonl")],
            "trust_reward": True,  # an arm that stopped at a reward model's card could not be compared
        },
    })  # fmt: skip
    if home.exists() and not (home / "prompts").exists():
        shutil.rmtree(home)
    if not home.exists():
        project = Project.create(home, config)
        world = TaleWorld(seed)
        with project.store() as store:
            store.add_prompts(Prompt(content=p, split="train") for p in world.prompts(plan.judged))
            store.add_prompts(Prompt(content=p, split="validation") for p in world.prompts(plan.heldout, "heldout"))
        (home / "prompts").touch()
    project = Project(home)
    done = Loop(project).run()
    found = read_evaluation(home / "artifacts" / f"r{rounds:02d}-evaluation")
    policy = found.policies[done["policy"]]
    reward = project.artifact(f"r{rounds:02d}-reward")
    assert reward is not None
    return {
        "gold": policy.gold, "kl": policy.kl, "proxy": policy.proxy, "parse_rate": policy.parse_rate,
        "length": policy.length, "golds": policy.golds, "responses": policy.responses, "prompts": found.prompts,
        "accuracy": reward.metrics["accuracy"], "judgments": reward.manifest["data"]["judgments"],
        "gold_by_round": [row["gold"][0] for row in done["figures"]],
    }  # fmt: skip


def versus(one: dict[str, Any], other: dict[str, Any]) -> Interval:
    """How often ``other``'s answer is worth more than ``one``'s to the same prompt."""
    golds = dict(zip(zip(one["prompts"], one["responses"], strict=True), one["golds"], strict=True))
    golds |= dict(zip(zip(other["prompts"], other["responses"], strict=True), other["golds"], strict=True))
    found = head_to_head(one["prompts"], other["responses"], one["responses"], lambda p, t: golds[str(p), t])
    return found.win_rate


def mean(values: list[float]) -> float:
    """Of the seeds."""
    return sum(values) / len(values)


def said(over: Interval, won: list[Interval]) -> str:
    """Mean over seeds; the interval is over seeds, or over prompts where there is one seed."""
    found = over if len(won) > 1 else won[0]
    low, high = max(found.low, 0.0), min(found.high, 1.0)  # of few seeds it is wider than there is room
    return f"{100 * found.estimate:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def conclude(gains: dict[str, Interval], seeds: int) -> str:
    """In words, what the intervals allow."""
    if seeds < 2:
        return "One seed: nothing can be said about training again. Use --seeds 3 or more."
    lines = []
    for name, gain in gains.items():
        if gain.low > 0.5:
            lines.append(f"{name.capitalize()} beat one round with the same labels.")
        elif gain.high < 0.5:
            lines.append(f"{name.capitalize()} lost to one round with the same labels.")
        else:
            lines.append(f"{name.capitalize()} cannot be told apart from one round with the same labels.")
    return " ".join(lines)


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--prompts", type=int, default=300, help="training prompts judged in each arm, five times")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of every arm; the first policy is the same")
    parser.add_argument("--anew", action="store_true", help="a third arm, whose policies start anew in every round")
    run(main, parser)
