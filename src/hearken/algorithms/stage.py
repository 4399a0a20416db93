"""Stages: what `hearken train` can run, found by name without importing torch.

A stage is two modules: ``NAME_options.py`` (a pydantic model, light) and ``NAME.py`` with
``run(inputs, options, out) -> Artifact`` (the algorithm). A package outside adds its own through the entry-point
group ``hearken.stages``, whose value names a `Stage`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hearken.config import Options, located
from hearken.errors import UserError

if TYPE_CHECKING:
    from hearken.training.artifact import Artifact


@dataclass(frozen=True)
class Inputs:
    """What a stage reads: folders, files or Hub names. Which of them a stage needs is in `Stage.needs`."""

    model: str = ""
    data: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    reward: str | None = None
    ref: str | None = None
    ptx: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    parents: dict[str, str] = field(default_factory=dict)

    def settled(self) -> Inputs:
        """The same with local paths in full, so that they hold in every working directory."""

        def many(paths: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(map(located, paths))

        parts = [] if self.reward is None else re.split(r"([,*#])", self.reward)  # see `rewards.terms.parse_terms`
        whole = self.reward and located(self.reward)
        return replace(
            self, model=located(self.model), data=many(self.data), validation=many(self.validation),
            reward=whole if whole != self.reward else self.reward and "".join(located(part.strip()) for part in parts),
            ref=self.ref and located(self.ref), ptx=many(self.ptx), references=many(self.references),
            parents={k: located(v) if isinstance(v, str) else v for k, v in self.parents.items()},
        )  # fmt: skip

    def files(self) -> list[str]:
        """Local files and folders that are read, in full."""
        own = self.settled()
        named = [own.model, *own.data, *own.validation, own.ref or "", *own.ptx, *own.references]
        named += re.split(r"[,*#]", own.reward or "")
        return list(dict.fromkeys(path for path in named if os.path.isabs(path) and os.path.exists(path)))


@dataclass(frozen=True)
class Stage:
    """A named way of training.

    Args:
        name: as in ``hearken train NAME``.
        summary: one line for ``hearken train --help``.
        options_path: ``module:Class`` of the options; loading it must not import torch.
        run_path: ``module:function`` with signature ``(inputs, options, out) -> Artifact``.
        needs: the fields of `Inputs` that must be given.
        takes: the fields of `Inputs` that may be given besides.
        reads: the kinds of example that a project's database gives it as data, the first that it holds.
    """

    name: str
    summary: str
    options_path: str
    run_path: str
    needs: tuple[str, ...] = ("model", "data")
    takes: tuple[str, ...] = ("validation",)
    reads: tuple[str, ...] = ("prompt",)

    @property
    def own(self) -> bool:
        """Whether it is this package's: what a model's name is to a stage from outside, that stage knows."""
        return self.run_path.startswith("hearken.")

    @property
    def options(self) -> type[Options]:
        """The options class (torch-free)."""
        return _load(self.options_path)

    @property
    def run(self) -> Callable[[Inputs, Any, Path], Artifact]:
        """The algorithm; loading it imports torch."""
        return _load(self.run_path)


def _load(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def _builtin(name: str, summary: str, options: str, module: str = "", **more: Any) -> Stage:
    here = f"hearken.algorithms.{module or name}"
    return Stage(name, summary, f"{here}_options:{options}", f"{here}:run", **more)


def _direct(name: str, summary: str, options: str, *more: str) -> Stage:
    return _builtin(name, summary, options, "dpo", takes=("validation", *more), reads=("comparison",))


def _online(name: str, summary: str, options: str, module: str, *more: str) -> Stage:
    return _builtin(name, summary, options, module, needs=("model", "data", "reward"), takes=("ref", *more))


BUILTIN = (
    _builtin("sft", "Supervised fine-tuning on demonstrations; on plain text: pretraining", "SFTOptions",
             reads=("demonstration",)),
    _builtin("reward", "Reward model from comparisons, rankings, ratings or thumbs", "RewardOptions",
             takes=("validation", "references"), reads=("comparison", "rating", "thumb")),
    _builtin("ppo", "PPO with a KL penalty against a reference policy, optionally with a pretraining term (PPO-ptx)",
             "PPOOptions", needs=("model", "data", "reward"), takes=("validation", "ref", "ptx")),
    _direct("dpo", "DPO: a policy from comparisons and rankings, without a reward model", "DPOOptions", "ref"),
    _direct("ipo", "IPO: as DPO, for preferences that are nearly certain", "IPOOptions", "ref"),
    _direct("simpo", "SimPO: as DPO, without a reference policy", "SimPOOptions"),
    _direct("orpo", "ORPO: fine-tuning and preference in one step, without a reference policy", "ORPOOptions"),
    _builtin("kto", "KTO: a policy from thumbs, good or bad", "KTOOptions", takes=("validation", "ref"),
             reads=("thumb", "comparison")),
    _online("rloo", "RLOO: critic-free, a response against the others of its prompt", "RLOOOptions", "policy_gradient"),
    _online("grpo", "GRPO and Dr. GRPO: critic-free, normalised within each prompt", "GRPOOptions", "policy_gradient"),
    _online("reinforce", "REINFORCE++: critic-free, normalised over the batch", "ReinforceOptions", "policy_gradient"),
    _online("online_dpo", "Online DPO: the policy's own responses, ranked by the reward", "OnlineDPOOptions",
            "online_dpo"),
    _builtin("rft", "Rejection sampling: fine-tuning on the best of the policy's own responses; expert iteration",
             "RFTOptions", needs=("model", "data", "reward"), takes=()),
    _builtin("ilql", "ILQL: offline, values for every token from recorded responses with scores", "ILQLOptions",
             takes=(), reads=("rating", "thumb", "comparison")),
    _online("nlpo", "NLPO: PPO among the tokens that a lagging copy of the policy finds likely", "NLPOOptions", "nlpo",
            "validation", "ptx"),
    _online("trpo", "TRPO: natural-gradient steps within a trust region", "TRPOOptions", "trpo"),
    Stage("a2c", "A2C: as PPO, one unclipped step on each batch", "hearken.algorithms.a2c_options:A2COptions",
          "hearken.algorithms.ppo:run", ("model", "data", "reward"), ("validation", "ref", "ptx")),
)  # fmt: skip


@cache
def outside() -> tuple[Stage, ...]:
    """Stages of other packages. Looking through all that is installed takes longer than the rest of ``--help``."""
    return tuple(point.load() for point in entry_points(group="hearken.stages"))


def stages() -> list[Stage]:
    """All stages: the built-in ones, then those that other packages add."""
    return [*BUILTIN, *outside()]


def find_stage(name: str) -> Stage:
    """The stage called ``name``.

    Raises:
        UserError: there is none; the known ones are named.
    """
    known = {stage.name: stage for stage in stages()}
    if name not in known:
        raise UserError(f"there is no stage '{name}'", f"Known stages: {', '.join(known)}")
    return known[name]


def check_inputs(stage: Stage, inputs: Inputs) -> None:
    """Refuse missing inputs, and inputs that the stage does not read, before anything is loaded."""
    for name in ("model", "data", "validation", "reward", "ref", "ptx", "references"):
        given = bool(getattr(inputs, name))
        if name in stage.needs and not given:
            raise UserError(f"train {stage.name} needs --{name}", f"See: hearken train {stage.name} --help")
        if given and name not in stage.needs + stage.takes:
            raise UserError(f"train {stage.name} does not read --{name}", "Leave it out")


def check_places(inputs: Inputs) -> None:
    """Everything that is named is there, before anything slow begins.

    Raises:
        UserError: a model, reward function or file is not.
    """
    from hearken.feedback.formats.files import check_there, is_hub_name
    from hearken.models.names import check_data, check_model, check_reward
    from hearken.rewards.terms import load_function, parse_terms

    if inputs.model:
        check_model(inputs.model)
    if inputs.ref and inputs.ref != inputs.model:
        check_model(inputs.ref, "--ref")
    for path in (*inputs.data, *inputs.validation, *inputs.ptx, *inputs.references):
        check_there(path)
        if is_hub_name(path):
            check_data(path)
    for term in parse_terms(inputs.reward) if inputs.reward else ():
        if term.kind == "model":
            check_reward(term.name)
        else:
            load_function(term.name)


def train(
    stage: str,
    *,
    model: str | Path,
    data: str | Path | list[str | Path],
    out: str | Path,
    validation: str | Path | list[str | Path] | float | None = None,
    reward: str | Path | None = None,
    ref: str | Path | None = None,
    ptx: str | Path | list[str | Path] | None = None,
    references: str | Path | list[str | Path] | None = None,
    overwrite: bool = False,
    **options: Any,
) -> Artifact:
    """Run a stage on bare files: ``train("reward", model="sft", data="pairs.jsonl", out="rm", lr=1e-5)``.

    An unfinished run in ``out`` with the same inputs and options is resumed; a finished one is refused, unless
    ``overwrite``. ``validation`` is held-out data, or the share of the prompts of ``data`` to hold out.
    """
    found = find_stage(stage)
    if isinstance(validation, int | float):
        options, validation = options | {"validation": validation}, None

    def many(value: str | Path | list[str | Path] | None) -> tuple[str, ...]:
        return tuple(str(v) for v in (value if isinstance(value, list) else [value] if value else []))

    inputs = Inputs(
        model=str(model), data=many(data), validation=many(validation), reward=str(reward) if reward else None,
        ref=str(ref) if ref else None, ptx=many(ptx), references=many(references),
    )  # fmt: skip
    return run_stage(
        found, inputs, found.options.parse(options, where=f"train {stage}"), Path(out), overwrite=overwrite
    )


def run_stage(stage: Stage, inputs: Inputs, options: Options, out: Path, *, overwrite: bool = False) -> Artifact:
    """Check everything that can be checked first, then run ``stage`` into ``out``."""
    check_inputs(stage, inputs)
    from hearken.training.artifact import claim_folder, release_folder

    if stage.own:
        check_places(inputs)
    claim_folder(out, stage.name, inputs, options, overwrite=overwrite)
    try:
        return stage.run(inputs, options, out)
    except UserError:
        release_folder(out)
        raise


def estimate(stage: Stage, inputs: Inputs, options: Options) -> dict[str, Any]:
    """For ``--dry-run``: rows, tokens, steps, memory in bytes and seconds; every input is checked as in a real run."""
    import time

    began = time.perf_counter()  # before torch and transformers are imported: that is a part of it
    check_inputs(stage, inputs)
    if stage.own:
        check_places(inputs)
    from hearken.algorithms.estimate import estimate as measure

    return measure(stage.name, inputs, options, began)
