"""`hearken quickstart`: the whole loop on the tale world, in a few minutes on two cores, judged by simulated labelers
or by the person at this machine (`human`).

Every step leaves something finished on disk and is skipped when it is there, so an interrupted quickstart goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

from hearken.algorithms.stage import Inputs
from hearken.evaluation.results import EvaluationResult, PolicyResult
from hearken.evaluation.summary import Finished, PPOFigures, ReferencedRewardFigures, TalesPerplexity, TalesSummary
from hearken.feedback.examples import Demonstration, Document, Example, PromptOnly
from hearken.feedback.formats import read_examples, write_examples
from hearken.feedback.records import Prompt
from hearken.loop import human, quickstart_tales
from hearken.loop.labelling_target import Goal
from hearken.loop.project import Project, ProjectConfig, SampleConfig
from hearken.loop.quickstart_plans import FAST, Plan, in_person
from hearken.loop.quickstart_steps import concluded, held_out_figures, judged, open_project, steps
from hearken.loop.tiny_model import make_tiny_model
from hearken.training.artifact import Artifact
from hearken.worlds.tales.world import TaleWorld


def quickstart(directory: Path | str, *, seed: int = 0, fast: bool = False, seat: human.Seat | None = None) -> Finished:
    """Run (or go on with) the whole loop in ``directory``.

    Args:
        directory: a new folder, or one that an interrupted quickstart left.
        seed: fixes every draw.
        fast: a smoke test.
        seat: opens the labelling page for the person at this machine (`server.seat`), who then judges; without it
            simulated labelers do.

    Raises:
        UserError: the folder holds something else.
    """
    plan = FAST if fast else Plan()
    plan = plan if seat is None else in_person(plan)
    project = _open(Path(directory), plan, seed)
    world = TaleWorld(seed)
    if seat is None or human.record(project) is not None:
        return _run(project, world, plan, fast, None)
    first = world.prompts(plan.judged + plan.warm_up)[plan.judged :]
    with human.seated(project, quickstart_tales.setting(world, first), plan.needed, seat) as goal:
        return _run(project, world, plan, fast, goal)


def _run(project: Project, world: TaleWorld, plan: Plan, fast: bool, goal: Goal | None) -> Finished:
    step = steps(project, goal, quickstart_tales.STEPS)
    with step("Tale world") if not _data_complete(project) else nullcontext():
        data = _write_data(project, world, plan)
    with step("Language model"):
        scratch = project.artifacts / "r00-scratch"
        if not (scratch / "tokenizer_config.json").exists():
            make_tiny_model(
                (row.text for row in read_examples(data["corpus"]) if isinstance(row, Document)),
                scratch,
                plan.size,
                project.config.seed,
            )
        base = project.train(
            "sft",
            "r00-base",
            Inputs(model=str(scratch), data=(data["corpus"],), validation=(data["heldout"],)),
            **plan.base,
        )
    with step("Supervised fine-tuning"):
        sft = project.train("sft", "r00-sft", Inputs(model=str(base.path), data=(data["demonstrations"],)), **plan.sft)
    judged(project, step, plan, "r00-sft", goal)
    with step("Reward model"):
        reward = project.train(
            "reward", "r01-reward",
            Inputs(
                model=str(sft.path), data=(project.snapshot("train"),), validation=(project.snapshot("validation"),),
                references=(data["references"],),
            ), **plan.reward,
        )  # fmt: skip
    start = Inputs(model=str(sft.path), data=(data["prompts"],), reward=str(reward.path), ref=str(sft.path))
    with step("PPO-ptx"):
        project.train("ppo", "r01-ppo", _with_ptx(start, data["corpus"]), **plan.ppo)
    if not fast:
        with step("PPO without ptx"):
            project.train("ppo", "r01-ppo-without-ptx", start, **plan.ppo)
    return concluded(
        project, step, reward, lambda: _compare(project, plan, data), lambda found: _summary(project, reward, found),
        quickstart_tales.view(world) if plan.needed else None,
    )  # fmt: skip


def _with_ptx(inputs: Inputs, corpus: str) -> Inputs:
    return Inputs(**{**inputs.__dict__, "ptx": (corpus,)})


def _open(path: Path, plan: Plan, seed: int) -> Project:
    """A new project, or the one that an interrupted quickstart with the same settings left."""
    config = ProjectConfig(
        model="artifacts/r00-sft", world="tales", seed=seed,
        sample=SampleConfig(
            k=plan.k, overlap=plan.overlap, max_new_tokens=plan.ppo["max_new_tokens"], temperature=plan.temperature
        ),
        stages={"sft": plan.sft, "reward": plan.reward, "ppo": plan.ppo},
    )  # fmt: skip
    return open_project(path, config)


def _data_complete(project: Project) -> bool:
    return (project.path / "data" / "complete").exists()


def _write_data(project: Project, world: TaleWorld, plan: Plan) -> dict[str, str]:
    """The world's files and prompts; written once."""
    folder = project.path / "data"
    files = {
        name: folder / f"{name}.jsonl" for name in ("corpus", "heldout", "demonstrations", "references", "prompts")
    }
    if not _data_complete(project):
        folder.mkdir(exist_ok=True)
        prompts = world.prompts(plan.prompts + plan.demonstrations)
        rows: dict[str, Iterator[Example]] = {
            "corpus": (Document(t) for t in world.corpus(plan.documents)),
            "heldout": (Document(t) for t in world.corpus(plan.heldout_documents, "heldout")),
            "demonstrations": (Demonstration(p, t) for p, t in world.demonstrations(prompts[plan.prompts :])),
            "references": (Demonstration(p, world.tale(p)) for p in prompts[-plan.references :]),
            "prompts": (PromptOnly(p) for p in prompts[: plan.prompts]),
        }
        for name, path in files.items():
            write_examples(list(rows[name]), path, overwrite=True)
        with project.store() as store:
            store.add_prompts(Prompt(content=p, split="train") for p in prompts[: plan.judged])
            heldout = world.prompts(plan.heldout, "heldout")
            store.add_prompts(Prompt(content=p, split="validation") for p in heldout)
        (folder / "complete").touch()
    return {name: str(path) for name, path in files.items()}


def _compare(project: Project, plan: Plan, data: dict[str, str]) -> EvaluationResult:
    """Figures by the gold reward."""
    from hearken.domains.text.measuring import text_perplexity
    from hearken.evaluation.answers import assess
    from hearken.loop.evaluating import conditions

    names = [n for n in ("r00-sft", "r01-ppo", "r01-ppo-without-ptx") if project.artifact(n)]
    under = conditions(project, project.held_out(plan.heldout), project.config.seed + 1, pool=plan.pool)
    found = assess([str(project.artifacts / n) for n in names], under)
    texts = [row.text for row in read_examples(data["heldout"]) if isinstance(row, Document)]
    policies = dict(found.policies)
    for name in ("r00-base", *names):
        perplexity = text_perplexity(str(project.artifacts / name), texts)
        policies[name] = policies.get(name, PolicyResult()).but(perplexity=perplexity)
    return found.but(policies=policies)


def _summary(project: Project, reward: Artifact, found: EvaluationResult) -> TalesSummary:
    before, ours = found.policies["r00-sft"], found.policies["r01-ppo"]
    assert before.gold and before.parse_rate and ours.win_rate and ours.kl and ours.parse_rate and ours.gold
    perplexity = {name: policy.perplexity for name, policy in found.policies.items() if policy.perplexity is not None}
    return TalesSummary(
        seed=project.config.seed,
        reward=ReferencedRewardFigures(
            **held_out_figures(reward), ceiling=found.ceiling, reference_mean=reward.metrics["reference_mean"]
        ),
        ppo=PPOFigures(
            win_rate=ours.win_rate.estimate, win_rate_low=ours.win_rate.low, win_rate_high=ours.win_rate.high,
            win_rate_by_group={group: rate.estimate for group, rate in ours.win_rate_by_group.items()},
            kl=ours.kl.estimate, parse_rate=ours.parse_rate.estimate, gold=ours.gold.estimate,
            allowed=ours.allowed, sft_gold=before.gold.estimate, sft_parse_rate=before.parse_rate.estimate,
        ),
        perplexity=TalesPerplexity(
            base=perplexity["r00-base"], sft=perplexity["r00-sft"], ppo=perplexity["r01-ppo"],
            ppo_without_ptx=perplexity.get("r01-ppo-without-ptx"),
        ),
    )  # fmt: skip


__all__ = ["FAST", "Plan", "in_person", "quickstart"]
