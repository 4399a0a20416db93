"""What `hearken evaluate` does in a project: whose policies, prompts and labelers are taken, and what is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hearken.algorithms.stage import raises_likelihood
from hearken.domains.base import Facts
from hearken.errors import UserError
from hearken.evaluation.answers import Conditions
from hearken.evaluation.groups import found_groups
from hearken.evaluation.policies import Labelers, compare, rank_by_score
from hearken.evaluation.request import EvaluationRequest
from hearken.evaluation.results import FILE, EvaluationResult, Likelihood, write_evaluation
from hearken.evaluation.reward_card import RewardCard
from hearken.feedback.examples import Content
from hearken.feedback.pairs import best_and_worst
from hearken.feedback.records import Prompt, QueueItem
from hearken.labelers.kinds import JudgeName, Score, Who
from hearken.loop.asking import ask
from hearken.loop.measured import joined, keep_apart, known_before
from hearken.loop.project import Project

PAIRS = 200
"""Held-out comparisons on which the change of likelihood is measured."""


def evaluate(
    project: Project, request: EvaluationRequest, *, wait: bool = True, announce: Callable[[str], None] = lambda _: None
) -> EvaluationResult:
    """Compare policies on held-out prompts; the result is kept in ``evaluation.json`` for the report.

    Args:
        project: whose policies, held-out prompts, labelers and world are meant.
        request: what is asked for.
        wait: for people; else raise `asking.Waiting`.
        announce: takes lines for the person at the terminal.

    Returns:
        See `compare`, with the policies that were compared before on the same prompts, with the same baseline and
        judge.

    Raises:
        UserError: what is asked for cannot be compared here.
    """
    config, texts = project.config, request.texts()
    base = project.policy(request.against) if request.against else project.first_policy()
    named = [_named(project, name) for name in request.policies]
    if request.everything:
        named += [str(a.path) for a in project.policies()]
    every, seeds = request.named(base, named or [project.policy()])
    rows = request.rows()
    prompts = list(rows)[: request.prompts] if rows else project.held_out(request.prompts or config.loop.evaluate)
    if rows and request.judge in ("people", "ai", "simulated"):
        _bring_in(project, prompts)
    under = conditions(
        project, prompts, config.seed + 1 if request.seed is None else request.seed,
        reward=project.policy(request.reward) if request.reward else None,
        facts=(rows or _facts(project)) if request.reward else {}, pool=request.pool,
    )  # fmt: skip
    found = compare(
        every, under, judge(project, request.judge, under.seed, wait=wait, announce=announce),
        seeds=seeds, perplexity=texts, tasks=request.tasks,
    )  # fmt: skip
    found = _likelihoods(project, found)
    if (project.path / FILE).exists():
        found = _with_earlier(project, found)
    write_evaluation(project.path / FILE, found)
    return found


def conditions(
    project: Project, prompts: Sequence[Content], seed: int, *, reward: str | None = None,
    facts: Facts | None = None, pool: int = 0,
) -> Conditions:  # fmt: skip
    """The project's world, its way of sampling, and ``reward`` or its reward model in use."""
    return Conditions(
        prompts=prompts, sampling=project.how, seed=seed,
        reward=reward or (project.reward() if project.rewards() else None), world=project.world(), facts=facts or {},
        domain=project.domain, media=project.media, pool=pool,
    )  # fmt: skip


def judge(
    project: Project, name: JudgeName, seed: int, *, wait: bool = True,
    announce: Callable[[str], None] = lambda _: None,
) -> Score | Labelers:  # fmt: skip
    """Who decides which policy is better: a score by its name, or the project's labelers."""
    if name == "auto" or name == "gold" or name == "reward":
        return name
    who: Who = name
    loop = project.config.loop

    def asked(items: Sequence[QueueItem]) -> None:
        ask(
            project, items, who, label="Waiting for judgments of the policies", wait=wait, seed=seed,
            announce=announce,
        )  # fmt: skip

    card = RewardCard.load(project.reward()) if project.rewards() else None
    return Labelers(
        who, project.store, asked, project.config.sample.overlap, loop.ai.judge if who == "ai" else "",
        found_groups(card),
    )  # fmt: skip


def _likelihoods(project: Project, found: EvaluationResult) -> EvaluationResult:
    """With how the likelihood of held-out responses changed, of policies that direct methods made."""
    from hearken.loop.cards import judged_rows

    direct = {name: a for name, a in project.finished().items() if raises_likelihood(a.kind)}
    made = {name: a for name, a in direct.items() if name in found.policies}
    if not made:
        return found
    with project.store() as store:
        rows = [r for r in judged_rows(store, "validation") if best_and_worst(r.ranks, r.share)]
    policies = dict(found.policies)
    for name, artifact in made.items():
        if rows:
            better, worse = project.domain.likelihood_change(str(artifact.path), artifact.reference, rows[:PAIRS])
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


def _facts(project: Project) -> Facts:
    """What is known of the project's prompts besides, for rules and functions."""
    with project.store() as store:
        return {p.content: p.metadata for p in store.prompts(split="validation", domain=project.domain.name)}


def _named(project: Project, name: str) -> str:
    head, at, tail = name.partition("@")
    return f"{head}@{project.policy(tail)}" if at and head.startswith("best-of-") else project.policy(name)


def _bring_in(project: Project, prompts: Sequence[Content]) -> None:
    """People judge what is in the database."""
    with project.store() as store:
        store.add_prompts(
            Prompt(content=content, domain=project.domain.name, split="validation") for content in prompts
        )
