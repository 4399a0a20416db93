"""What `hearken evaluate` does, in a project or on bare models and files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hearken.algorithms.stage import raises_likelihood
from hearken.domains.text.sampling import best_of_name, check_choice
from hearken.errors import UserError
from hearken.evaluation.capability import load_task, texts_of
from hearken.evaluation.measure import label_of
from hearken.evaluation.results import FILE, EvaluationResult, Likelihood, PolicyResult, write_evaluation
from hearken.feedback.examples import Content, Document
from hearken.feedback.formats import read_as
from hearken.feedback.pairs import best_and_worst
from hearken.feedback.reading import ReadingOptions
from hearken.feedback.store import FeedbackStore
from hearken.loop.compare_policies import compare_policies, rank_by_score, tried
from hearken.loop.measured import joined, keep_apart, known_before
from hearken.loop.project import Project, ProjectConfig
from hearken.loop.rounds_options import Judge
from hearken.training.artifact import Artifact

if TYPE_CHECKING:
    from hearken.feedback.records import Prompt


PAIRS = 200
"""Held-out comparisons on which the change of likelihood is measured."""


class Bare(Project):
    """Stands in for a project where there is none: models and files, and no database to ask people with."""

    def __init__(self, config: ProjectConfig) -> None:
        self.path, self.config = Path(), config

    def store(self) -> FeedbackStore:
        """There is none.

        Raises:
            UserError: always.
        """
        raise UserError(
            "people and AI labelers judge in a project", "Make one with hearken init, or use --judge reward"
        )

    def finished(self, *, records: bool = False) -> dict[str, Artifact]:
        """No artifacts."""
        return {}

    def policy(self, name: str | None = None) -> str:
        """The name itself."""
        return name or self.config.model


def evaluate(
    project: Project,
    policies: Sequence[str] = (),
    *,
    against: str | None = None,
    prompts: int | None = None,
    data: Sequence[str] = (),
    reward: str | None = None,
    judge: Judge = "auto",
    everything: bool = False,
    best_of: Sequence[int] = (),
    pessimism: float = 0.0,
    width: Literal["linear", "heads"] = "linear",
    perplexity: Sequence[str] = (),
    tasks: Sequence[str] = (),
    seeds: bool = False,
    seed: int | None = None,
    wait: bool = True,
    reading: ReadingOptions | None = None,
    announce: Callable[[str], None] = lambda _: None,
) -> EvaluationResult:
    """Compare policies on held-out prompts; in a project the result is kept in ``evaluation.json`` for the report.

    Args:
        project: or a `Bare` stand-in.
        policies: artifacts, folders or Hub names; by default the newest policy.
        against: the baseline; by default the first policy.
        prompts: only so many held-out prompts; by default as many as after a round of the loop, or all of ``data``.
        data: files of prompts instead of the database's held-out ones.
        reward: a reward model instead of the one in use.
        judge: who decides.
        everything: all policies of the project.
        best_of: of how many of the baseline's responses the best by the reward model, as further baselines.
        pessimism: so many widths of the reward model's confidence are taken off each score before these are chosen.
        width: of linear theory, or of bootstrapped heads.
        perplexity: files of held-out text.
        tasks: task files.
        seeds: the policies are one training with several seeds: say how their figures spread.
        seed: of the samples.
        wait: for people.
        reading: how the files of ``data`` are read; those of ``perplexity`` too, their layout told by their columns.
        announce: takes lines for the person at the terminal.

    Returns:
        See `compare_policies`, in a project with the policies that were compared before on the same prompts, with the
        same baseline and judge; where there are no prompts to answer, only perplexities and tasks by policy.

    Raises:
        UserError: what is asked for cannot be compared here; pessimism, and nothing is chosen by a reward.
    """
    check_choice(max(best_of, default=1), pessimism)
    reading = reading or ReadingOptions()
    texts = texts_of(perplexity, reading)
    base = project.policy(against) if against else project.first_policy()
    named = [_named(project, name) for name in policies]
    if everything:
        named += [str(a.path) for a in project.policies()]
    if not named:
        named = [project.policy()]
    config = project.config
    if isinstance(project, Bare) and not data:
        if not (perplexity or tasks):
            raise UserError(
                f"{project.path} is not a project, and no prompts are given",
                "Give --data prompts.jsonl, or make a project: hearken init DIR --model M --prompts F",
            )
        return capability([*([base] if against else []), *named], texts, tasks)
    extra = [f"{best_of_name(n, pessimism, width)}@{base}" for n in best_of]
    every = list(dict.fromkeys([base, *extra, *named]))
    alike = [name for name in dict.fromkeys(named) if name != base] if seeds else []
    if seeds and len(alike) < 2:
        raise UserError("a spread needs two seeds or more", "Name each: --policy r01-ppo --policy r01-ppo-seed-1")
    if len({label_of(name) for name in every}) < len(every):
        raise UserError("two policies have the same name", "Rename one of the folders: they are told apart by name")
    rows = _prompt_rows(data, reading)
    held_out = list(rows)[:prompts] if data else project.held_out(prompts or config.loop.evaluate)
    if data and judge in ("people", "ai", "simulated"):
        _bring_in(project, held_out)
    found = compare_policies(
        project, every, held_out, config.seed + 1 if seed is None else seed, judge=judge, loop=config.loop,
        reward=project.policy(reward) if reward else None, wait=wait, announce=announce, perplexity=texts,
        tasks=tasks, seeds=alike, metadata=(rows or _facts(project)) if reward else None,
    )  # fmt: skip
    if not isinstance(project, Bare):
        found = _likelihoods(project, found)
        saved = project.path / FILE
        if saved.exists():
            found = _with_earlier(project, found)
        write_evaluation(saved, found)
    return found


def _likelihoods(project: Project, found: EvaluationResult) -> EvaluationResult:
    """With how the likelihood of held-out responses changed, of policies that direct methods made."""
    from hearken.evaluation.drift import likelihood_change
    from hearken.loop.cards import judged_rows

    direct = {name: a for name, a in project.finished().items() if raises_likelihood(a.kind)}
    made = {name: a for name, a in direct.items() if name in found.policies}
    if not made:
        return found
    with project.store() as store:
        rows = [r for r in judged_rows(store, "validation") if best_and_worst(r.ranks, r.share)]
    policies = dict(found.policies)
    for name, artifact in made.items():
        inputs = artifact.manifest["inputs"]
        if rows:
            better, worse = likelihood_change(str(artifact.path), inputs.get("ref") or inputs["model"], rows[:PAIRS])
            policies[name] = policies[name].but(likelihood=Likelihood(preferred=better, other=worse))
    return found.but(policies=policies)


def _with_earlier(project: Project, found: EvaluationResult) -> EvaluationResult:
    """With what quickstart knew besides, and with earlier policies that were compared in the same way.

    A leaderboard by scores is made anew with all of them; one by labelers holds those who were asked about together.
    """
    try:
        before = known_before(project)
    except UserError:
        return found
    found = keep_apart(found, before).but(ceiling=before.ceiling, summary=before.summary)
    both = joined(found, before) if found.baseline in before.policies else None
    if both is None:
        return found
    return rank_by_score(both) if both.judge is not None and both.judge.kind in ("gold", "reward") else both


def _facts(project: Project | Bare) -> dict[Content, dict[str, Any]]:
    """What is known of the project's prompts besides, for rules and functions."""
    with project.store() as store:
        return {p.content: p.metadata for p in store.prompts(split="validation", domain="text")}


def _named(project: Project, name: str) -> str:
    head, at, tail = name.partition("@")
    return f"{head}@{project.policy(tail)}" if at and head.startswith("best-of-") else project.policy(name)


def _prompt_rows(files: Sequence[str], reading: ReadingOptions) -> dict[Content, dict[str, Any]]:
    """The distinct prompts of files, in order, each with what its first row says besides.

    Raises:
        UserError: there are none.
    """
    found: dict[Content, dict[str, Any]] = {}
    for file in files:
        for row in read_as(file, reading)[0]:
            if not isinstance(row, Document):
                found.setdefault(row.prompt, row.metadata)
    if files and not found:
        raise UserError(f"{', '.join(files)}: no prompts", "Give rows with a prompt column")
    return found


def _bring_in(project: Project, prompts: Sequence[Content]) -> None:
    """People judge what is in the database."""
    from hearken.feedback.records import Prompt

    new: list[Prompt] = [Prompt(content=content, split="validation") for content in prompts]
    with project.store() as store:
        store.add_prompts(new)


def capability(policies: Sequence[str], texts: Mapping[str, Sequence[str]], tasks: Sequence[str]) -> EvaluationResult:
    """Perplexities and task scores of models alone: no prompts are answered."""
    loaded = [load_task(path) for path in tasks]
    return EvaluationResult(
        policies={label_of(name): tried(PolicyResult(), name, texts, loaded) for name in dict.fromkeys(policies)}
    )
