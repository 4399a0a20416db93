"""A project's last evaluation beside its earlier ones: what still holds, and what may stand together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hearken.evaluation.results import FILE, EvaluationResult, read_evaluation
from hearken.training.artifact import round_in

if TYPE_CHECKING:
    from hearken.loop.project import Project


def last_evaluation(project: Project) -> EvaluationResult:
    """The last evaluation, with the policies that rounds measured before on the same prompts; else one without any.

    Raises:
        UserError: the file was damaged.
    """
    found = kept(project.path)
    for file in sorted(project.artifacts.glob(f"*/{FILE}"), reverse=True):
        found = joined(found, read_evaluation(file)) or found
    return found


def kept(folder: Path) -> EvaluationResult:
    """The evaluation in a folder; one without policies where there is none.

    Raises:
        UserError: the file was damaged.
    """
    return read_evaluation(folder) if (folder / FILE).exists() else EvaluationResult()


def known_before(project: Project) -> EvaluationResult:
    """The project's evaluation without the policies that were made anew since.

    Raises:
        UserError: the file was damaged.
    """
    before = kept(project.path)
    made = {name: artifact.created for name, artifact in project.finished().items()}
    anew = {name for name, created in made.items() if before.created and created > before.created}
    return before.but(policies={n: p for n, p in before.policies.items() if n.rpartition("@")[2] not in anew})


def keep_apart(found: EvaluationResult, before: EvaluationResult) -> EvaluationResult:
    """With perplexities and task scores of before, which hang neither on the prompts nor on the judge.

    What was measured again is kept as it is now.
    """
    policies = dict(found.policies)
    for name, policy in policies.items():
        if (known := before.policies.get(name)) is not None:
            policies[name] = policy.but(
                perplexity=known.perplexity if policy.perplexity is None else policy.perplexity,
                perplexities=policy.perplexities or known.perplexities,
                tasks=policy.tasks or known.tasks,
            )
    return found.but(policies=policies)


def joined(found: EvaluationResult, before: EvaluationResult) -> EvaluationResult | None:
    """With the policies of an earlier evaluation; None unless prompts, baseline and judge are the same.

    A score by another reward model is no figure beside the newer one's: it is left out, and where that model was the
    judge, so is everything.
    """
    alike = (before.prompts, before.baseline) == (found.prompts, found.baseline)
    if not before.prompts or not alike or before.judge is None or not before.judge.same(found.judge):
        return None
    earlier = dict(before.policies)
    if before.reward != found.reward:
        earlier = {name: policy.but(proxy=None, scores=()) for name, policy in earlier.items()}
    return found.but(policies=earlier | dict(found.policies))


def newest(found: EvaluationResult) -> str:
    """The policy that the report is about: of the newest round, the first that was compared with the baseline."""
    others = {name: policy for name, policy in found.policies.items() if name != found.baseline}
    names = [name for name, policy in others.items() if policy.win_rate is not None]
    names = names or [name for name, policy in others.items() if policy.responses]
    return max(names, key=lambda n: (round_in(n) or 0, -names.index(n)), default=found.baseline)
