"""What `hearken evaluate` is asked for, and its answer where there is no project: bare models and files of prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from hearken.domains.base import Facts, domain_of
from hearken.domains.best_of import asked_of, best_of_name, check_choice, label_of
from hearken.errors import UserError
from hearken.evaluation.answers import Conditions
from hearken.evaluation.capability import load_task, texts_of, with_capability
from hearken.evaluation.policies import compare
from hearken.evaluation.results import EvaluationResult, PolicyResult
from hearken.feedback.examples import Content, Document, Metadata
from hearken.feedback.formats import read_as
from hearken.feedback.reading import ReadingOptions
from hearken.labelers.kinds import JudgeName
from hearken.rollout.sampler import SamplingParameters


class Named(NamedTuple):
    """Policies to be compared, by path or Hub name."""

    every: list[str]
    """The baseline first."""
    seeds: list[str]
    """Those that are one training with several seeds."""


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest:
    """Policies to be compared on held-out prompts.

    Attributes:
        policies: folders or Hub names, in a project artifacts too; there the newest policy by default.
        against: the baseline; in a project by default the first policy, else the first of ``policies``.
        prompts: only so many held-out prompts; by default as many as after a round of the loop, or all of ``data``.
        data: files of prompts instead of the database's held-out ones.
        reward: a reward model instead of the one in use.
        judge: who decides; auto takes gold where it is known, else the reward model.
        everything: all policies of the project.
        best_of: of how many of the baseline's responses the best by the reward model, as further baselines.
        pessimism: so many widths of the reward model's confidence are taken off each score before these are chosen.
        width: of linear theory, or of bootstrapped heads.
        perplexity: files of held-out text.
        tasks: task files.
        seeds: the policies are one training with several seeds: say how their figures spread.
        seed: of the samples; by default the project's plus one.
        pool: so many of the baseline's responses to each prompt show what the reward allows a policy that was trained
            on it; 0 leaves that out.
        reading: how the files of ``data`` are read; those of ``perplexity`` too, their layout told by their columns.
    """

    policies: Sequence[str] = ()
    against: str | None = None
    prompts: int | None = None
    data: Sequence[str] = ()
    reward: str | None = None
    judge: JudgeName = "auto"
    everything: bool = False
    best_of: Sequence[int] = ()
    pessimism: float = 0.0
    width: Literal["linear", "heads"] = "linear"
    perplexity: Sequence[str] = ()
    tasks: Sequence[str] = ()
    seeds: bool = False
    seed: int | None = None
    pool: int = 32
    reading: ReadingOptions = field(default_factory=ReadingOptions)

    def __post_init__(self) -> None:
        """Refuse pessimism where nothing is chosen by a reward."""
        check_choice(max(self.best_of, default=1), self.pessimism)

    def named(self, base: str, policies: Sequence[str]) -> Named:
        """The policies, with the best of n of the baseline.

        Raises:
            UserError: two of the same name, or a spread over fewer than two seeds.
        """
        extra = [f"{best_of_name(n, self.pessimism, self.width)}@{base}" for n in self.best_of]
        every = list(dict.fromkeys([base, *extra, *policies]))
        seeds = [name for name in dict.fromkeys(policies) if name != base] if self.seeds else []
        if self.seeds and len(seeds) < 2:
            raise UserError("a spread needs two seeds or more", "Name each: --policy r01-ppo --policy r01-ppo-seed-1")
        if len({label_of(name) for name in every}) < len(every):
            raise UserError("two policies have the same name", "Rename one of the folders: they are told apart by name")
        return Named(every, seeds)

    def texts(self) -> dict[str, list[str]]:
        """Held-out texts for perplexity, by name."""
        return texts_of(self.perplexity, self.reading)

    def rows(self) -> Facts:
        """The distinct prompts of ``data``, in order, each with what its first row says besides.

        Raises:
            UserError: there are none.
        """
        found: dict[Content, Metadata] = {}
        for file in self.data:
            for row in read_as(file, self.reading)[0]:
                if not isinstance(row, Document):
                    found.setdefault(row.prompt, row.metadata)
        if self.data and not found:
            raise UserError(f"{', '.join(self.data)}: no prompts", "Give rows with a prompt column")
        return found


def evaluate_models(request: EvaluationRequest, sampling: SamplingParameters, seed: int = 1) -> EvaluationResult:
    """Compare models on prompts from files; without any, only perplexities and tasks are measured.

    Args:
        request: what is asked for.
        sampling: how responses are drawn.
        seed: of the samples, where the request has none.

    Raises:
        UserError: what is asked for needs a project, or cannot be compared.
    """
    judge = request.judge
    if judge == "people" or judge == "ai" or judge == "simulated":
        raise UserError(
            "people and AI labelers judge in a project", "Make one with hearken init, or use --judge reward"
        )
    if request.everything:
        raise UserError("--all means the policies of a project", "Name them: --policy A --policy B")
    base, policies = request.against or request.policies[0], request.policies or [request.against or ""]
    if not request.data:
        if not (request.perplexity or request.tasks):
            raise UserError(
                "this is no project, and no prompts are given",
                "Give --data prompts.jsonl, or make a project: hearken init DIR --model M --prompts F",
            )
        named = [*([base] if request.against else []), *policies]
        return capability(named, request.texts(), request.tasks)
    every, seeds = request.named(base, policies)
    rows = request.rows()
    domain = domain_of(asked_of(base).source)
    how = domain.sampling.parse(sampling.model_dump(), where=f"sampling {base}")
    under = Conditions(
        prompts=list(rows)[: request.prompts], sampling=how, seed=seed if request.seed is None else request.seed,
        reward=request.reward, facts=rows, domain=domain, pool=request.pool,
    )  # fmt: skip
    return compare(every, under, judge, seeds=seeds, perplexity=request.texts(), tasks=request.tasks)


def capability(policies: Sequence[str], texts: Mapping[str, Sequence[str]], tasks: Sequence[str]) -> EvaluationResult:
    """Perplexities and task scores of models alone: no prompts are answered."""
    none = EvaluationResult(
        domain=domain_of(policies[0]).name, policies={label_of(name): PolicyResult() for name in policies}
    )
    return with_capability(none, policies, texts, [load_task(path) for path in tasks])
