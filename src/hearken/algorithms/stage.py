"""Stages: what `hearken train` can run. Each says of itself all that others need to know, without importing torch.

A stage is two modules: ``NAME_options.py`` holds its options (a pydantic model) and the `Stage` that declares it, as
``STAGE``, or several as ``STAGES``; ``NAME.py`` holds the algorithm, ``run(inputs, options, out) -> Artifact``, and
``estimate(dry, inputs, options)`` for dry runs. A package outside names its `Stage` under the entry-point group
``hearken.stages``, a program gives it to `register`.
"""

from __future__ import annotations

import difflib
import os
import pkgutil
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from hearken.config import Options, located
from hearken.errors import UserError

if TYPE_CHECKING:
    from hearken.training.artifact import Artifact


@dataclass(frozen=True)
class Input:
    """Something that a stage reads from outside.

    Args:
        name: its flag, and its key in the manifest.
        help: what it is.
        kind: ``model``, a folder or Hub name of a language model; ``reward``, what `rewards.terms.parse_terms` reads;
            ``files`` of data; ``name`` and ``names``, of something that only this stage knows.
        required: the stage does not run without it.
    """

    name: str
    help: str
    kind: Literal["model", "reward", "files", "name", "names"] = "files"
    required: bool = True

    @property
    def many(self) -> bool:
        """Whether it may be given several times."""
        return self.kind in ("files", "names")

    @property
    def optional(self) -> Input:
        """The same, where a stage runs without it, too."""
        return replace(self, required=False)

    def taken(self, value: Any) -> Any:
        """A value as `Inputs` holds it: a text, of files a tuple."""
        if not self.many:
            return str(value) if value else ""
        return tuple(map(str, value if isinstance(value, list | tuple) else [value] if value else ()))


MODEL = Input("model", "The model to start from: a folder or a Hub name.", "model")
DATA = Input("data", "What to train on: a file, a folder or a Hub name; may be repeated.")
REWARD = Input(
    "reward",
    "What is optimised: a reward model (a folder or a Hub name), rule:NAME, metric:NAME, labeler:ai, your "
    "module:function, or several with weights, such as my-reward,rule:length*0.5.",
    "reward",
)
REF = Input(
    "ref", "The reference policy of the KL penalty; without it, --model as it was at the start.", "model"
).optional
PTX = Input("ptx", "Text for the pretraining term (PPO-ptx); may be repeated.").optional
REFERENCES = Input("references", "Responses whose mean score is set to zero; may be repeated.").optional


def held_out(options: type[Options]) -> Input:
    """``--validation`` of a stage that, without it, holds a share of its data out: its option ``validation``."""
    share = options.model_fields["validation"].default
    text = f"Held-out data; without it, a share of --data's prompts is held out (-o validation={share:g})."
    return Input("validation", text, required=False)


_COMMON = (MODEL, DATA, Input("validation", "Held-out data."), REWARD, REF, PTX, REFERENCES)


@dataclass(frozen=True)
class Inputs:
    """What a stage reads: files are tuples; what was trained or is to be (models, rewards) is a name or a folder.

    ``own`` are a stage's inputs beside those that most share, by name; ``parents`` what the files were made of.
    ``round`` and ``role`` say what the artifact will be in a project; the stage does not read them.
    """

    model: str = ""
    data: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    reward: str | None = None
    ref: str | None = None
    ptx: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    own: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    parents: dict[str, str] = field(default_factory=dict)
    round: int | None = None
    role: str = ""

    def __getitem__(self, name: str) -> Any:
        """An input by its name; empty where it is not given."""
        return self.own[name] if name in self.own else getattr(self, name, None)

    def given(self) -> dict[str, Any]:
        """All that is not empty, by name, without the parents."""
        return {name: value for name, value in self.to_json().items() if value and name != "parents"}

    def to_json(self) -> dict[str, Any]:
        """As ``request.json`` and the manifest hold them."""
        every = asdict(self)
        own, parents, _, _ = (every.pop(name) for name in ("own", "parents", "round", "role"))
        return every | own | {"parents": parents}

    def joined(self, **more: Any) -> Inputs:
        """With others in addition, or in place of these."""
        known = {name: value for name, value in more.items() if name in _SHARED}
        own = {name: value for name, value in more.items() if name not in _SHARED}
        return replace(self, **known, own={**self.own, **own})

    def settled(self) -> Inputs:
        """The same with local paths in full, so that they hold in every working directory."""

        def whole(value: Any) -> Any:
            if isinstance(value, tuple | list):
                return tuple(located(path) for path in value)
            return located(value) if isinstance(value, str) else value

        parts = [] if self.reward is None else re.split(r"([,*#])", self.reward)  # see `rewards.terms.parse_terms`
        every = {name: whole(getattr(self, name)) for name in _SHARED - {"reward", "parents"}}
        reward = self.reward and located(self.reward)
        return Inputs(
            **every,
            reward=reward if reward != self.reward else self.reward and "".join(located(p.strip()) for p in parts),
            own={name: whole(value) for name, value in self.own.items()},
            parents={name: whole(value) for name, value in self.parents.items()},
            round=self.round,
            role=self.role,
        )

    def files(self) -> list[str]:
        """Local files and folders that are read, in full."""
        every = self.settled().given()
        named = [path for value in every.values() for path in ([value] if isinstance(value, str) else value)]
        named += re.split(r"[,*#]", self.settled().reward or "")
        return list(dict.fromkeys(path for path in named if os.path.isabs(path) and os.path.exists(path)))


_SHARED = set(Inputs.__dataclass_fields__) - {"own", "round", "role"}


@dataclass(frozen=True)
class Stage:
    """A named way of training.

    Args:
        summary: one line for ``hearken train --help``.
        options: a torch-free pydantic model; its ``stage`` is the name, as in ``hearken train NAME``.
        module: holds ``run(inputs, options, out) -> Artifact`` and, if a dry run is to say more than whether the inputs
            are there, ``estimate(dry, inputs, options)`` (see `estimate.Dry`).
        inputs: what it reads.
        reads: the kinds of example that a project's database gives it as data, the first that it holds.
        domain: of the responses that it trains on (`domains.base`). A stage of one domain may have the name of
            another's.
        makes: a policy, or a reward model.
        first: it starts from the model that a project begins with, and makes what the others start from.
        likelihood: it raises the likelihood of preferred responses themselves; how that of held-out ones changed is
            then a figure of its policy.
        watched: somebody may compare its policy with the reference while it trains (see `watch`).
        refitted: its reward may be fitted anew while it trains (see `loop.online`).
        done: what it did, for a report: a sentence, or a function of its options and of the manifest's data.
    """

    summary: str
    options: type[Options]
    module: str
    inputs: tuple[Input, ...] = (MODEL, DATA)
    reads: tuple[str, ...] = ("prompt",)
    domain: str = "text"
    makes: Literal["policy", "reward"] = "policy"
    first: bool = False
    likelihood: bool = False
    watched: bool = False
    refitted: bool = False
    done: str | Callable[[Mapping[str, Any], Mapping[str, Any]], str] = ""

    @property
    def name(self) -> str:
        """As in ``hearken train NAME``."""
        return str(self.options.stage)  # type: ignore[attr-defined]

    @property
    def run(self) -> Callable[[Inputs, Any, Path], Artifact]:
        """The algorithm; loading it imports torch."""
        return import_module(self.module).run  # type: ignore[no-any-return]

    def needs(self, name: str) -> bool:
        """Whether it does not run without an input."""
        return any(one.name == name and one.required for one in self.inputs)

    def takes(self, name: str) -> bool:
        """Whether it reads an input, if only where it is given."""
        return any(one.name == name for one in self.inputs)

    def split(self, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Inputs and options that stand in one mapping; an option of an input's name (``validation``) is a number."""
        own = self.options.model_fields
        named = {one.name: one for one in _COMMON if one.name not in own} | {one.name: one for one in self.inputs}
        paths = {k: v for k, v in values.items() if k in named and isinstance(v, str | Path | list | tuple)}
        options = {k: v for k, v in values.items() if k not in paths and (v is not None or k not in named)}
        return {k: named[k].taken(v) for k, v in paths.items() if v}, options

    def made_with(self, artifact: Artifact) -> dict[str, Any]:
        """The options that an artifact was made with, under the names that they have now."""
        return self.options.current(artifact.options)

    def says(self, options: Mapping[str, Any], data: Mapping[str, Any]) -> str:
        """What it did, for a report."""
        return (self.done(options, data) if callable(self.done) else self.done) or self.summary


# -- finding them ------------------------------------------------------------------------------------------------


@cache
def builtin() -> tuple[Stage, ...]:
    """This package's own: those that make what others start from, that learn from judgments, that optimise a reward."""
    import hearken.algorithms as folder

    modules = [name for _, name, _ in pkgutil.iter_modules(folder.__path__) if name.endswith("_options")]
    declared = [vars(import_module(f"{folder.__name__}.{name}")) for name in modules]
    found = [stage for names in declared for stage in (*names.get("STAGES", ()), names.get("STAGE")) if stage]
    return tuple(sorted(found, key=_place))


def _place(stage: Stage) -> tuple[Any, ...]:
    """Text first: of a name that several domains have, it is meant where none is named."""
    return stage.domain != "text", not stage.first, stage.makes == "policy", stage.needs("reward"), stage.name


@cache
def outside() -> tuple[Stage, ...]:
    """Stages of other packages. Looking through all that is installed takes longer than the rest of ``--help``."""
    return tuple(point.load() for point in entry_points(group="hearken.stages"))


_registered: dict[tuple[str, str], Stage] = {}


def register(stage: Stage) -> None:
    """Make a stage known in this process; one of the same domain and name is replaced."""
    _registered[stage.domain, stage.name] = stage


def stages() -> list[Stage]:
    """All stages: the built-in ones, then those that other packages and this program add."""
    return [*builtin(), *outside(), *_registered.values()]


def find_stage(name: str, domain: str = "") -> Stage:
    """The stage called ``name``, of a domain where one is named, else of the first that has it.

    Raises:
        UserError: there is none; the known ones are named.
    """
    known: dict[str, Stage] = {}
    for one in {(stage.domain, stage.name): stage for stage in stages()}.values():
        if not domain or one.domain == domain:
            known.setdefault(one.name, one)
    if name not in known:
        of = f" of the domain {domain}" if domain else ""
        raise UserError(f"there is no stage '{name}'{of}", f"Known stages: {', '.join(known) or 'none'}")
    return known[name]


def stage_of(kind: str, domain: str = "") -> Stage | None:
    """The stage that makes artifacts of a kind; None where none is known that does.

    Args:
        kind: of the artifact.
        domain: whose stage is meant, where several have one of that name.
    """
    for some in (builtin, stages):  # to look through all that is installed takes long
        named = [stage for stage in some() if stage.name == kind]
        if named:
            return next((stage for stage in named if stage.domain == domain), named[0])
    return None


def makes_reward(kind: str) -> bool:
    """Whether artifacts of a kind are reward models."""
    found = stage_of(kind)
    return found is not None and found.makes == "reward"


def raises_likelihood(kind: str) -> bool:
    """Whether artifacts of a kind are policies fitted to preferred responses themselves."""
    found = stage_of(kind)
    return found is not None and found.likelihood


def reward_stage(domain: str = "text") -> Stage:
    """The stage that fits reward models of a domain.

    Raises:
        UserError: there is none.
    """
    for some in (builtin, stages):  # to look through all that is installed takes long
        for stage in some():
            if stage.makes == "reward" and stage.domain == domain:
                return stage
    raise UserError(f"no stage fits reward models of the domain {domain}", "Register one: docs/own-stage.md")


# -- running them ------------------------------------------------------------------------------------------------


def check_inputs(stage: Stage, inputs: Inputs) -> None:
    """Refuse missing inputs, and inputs that the stage does not read, before anything is loaded."""
    for one in stage.inputs:
        if one.required and not inputs[one.name]:
            raise UserError(f"train {stage.name} needs --{one.name}", f"See: hearken train {stage.name} --help")
    for name in inputs.given():
        if not stage.takes(name):
            raise UserError(f"train {stage.name} does not read --{name}", "Leave it out")


def check_places(stage: Stage, inputs: Inputs) -> None:
    """Everything that is named is there, before anything slow begins.

    Raises:
        UserError: a model, reward function or file is not.
    """
    from hearken.domains.base import find_domain
    from hearken.feedback.formats.files import check_there, is_hub_name
    from hearken.models.names import check_data
    from hearken.rewards.terms import load_function, parse_terms

    domain = find_domain(stage.domain)
    models = dict.fromkeys(inputs[one.name] for one in stage.inputs if one.kind == "model" and inputs[one.name])
    for name in models:
        domain.check_model(name, next(f"--{one.name}" for one in stage.inputs if inputs[one.name] == name))
    for path in (path for one in stage.inputs if one.kind == "files" for path in inputs[one.name] or ()):
        check_there(path)
        if is_hub_name(path):
            check_data(path)
    terms = [term for one in stage.inputs if one.kind == "reward" for term in parse_terms(inputs[one.name] or "")]
    for term in terms:
        if term.kind == "model":
            domain.check_reward(term.name)
        else:
            load_function(term.name)


Files = str | Path | Sequence[str | Path]
"""Files, folders or Hub names."""


@overload
def train(
    config: Options, *, model: str | Path, data: Files, out: str | Path, validation: Files | None = None,
    reward: str | Path | None = None, ref: str | Path | None = None, overwrite: bool = False, **inputs: Files | None,
) -> Artifact: ...  # fmt: skip
@overload
def train(
    config: str, *, model: str | Path, data: Files, out: str | Path, validation: Files | float | None = None,
    reward: str | Path | None = None, ref: str | Path | None = None, overwrite: bool = False, **more: Any,
) -> Artifact: ...  # fmt: skip
def train(
    config: Options | str, *, model: str | Path, data: Files, out: str | Path, overwrite: bool = False,
    **more: Any,
) -> Artifact:  # fmt: skip
    """Run a stage on bare files: ``train(PPOConfig(episodes=20_000), model="sft", reward="rm", data=..., out="ppo")``.

    An unfinished run in ``out`` with the same inputs and options is resumed; a finished one is refused, unless
    ``overwrite``.

    Args:
        config: of the stage, or its name: its options then stand in ``more``, ``train("ppo", episodes=20_000, ...)``.
        model: the model to start from: a folder or a Hub name.
        data: what to train on.
        out: the folder that the result goes to.
        overwrite: delete what an earlier run left there.
        more: the stage's other inputs: ``validation``, held-out data (with a stage's name also the share of the prompts
            to hold out); ``reward``, ``ref``, ``ptx``, ``references``, and those of its own.

    Raises:
        UserError: there is no such stage, input, option or file, or ``out`` holds something else.
    """
    stage = find_stage(config) if isinstance(config, str) else _stage_of_config(config)
    inputs, options = stage.split({"model": model, "data": data, **more})
    by_name = isinstance(config, str)
    fields, known = stage.options.model_fields, [one.name for one in stage.inputs]
    for name in stage.options.current(options):
        if not by_name and name in fields:
            hint = f"Give options to the config: {type(config).__name__}({name}=...)"
            raise UserError(f"train {stage.name} has no input '{name}'", hint)
        if name not in fields:
            near = difflib.get_close_matches(name, [*known, *fields] if by_name else known, n=1)
            hint = f"Did you mean '{near[0]}'?" if near else f"See: hearken train {stage.name} --help"
            raise UserError(f"train {stage.name} has no input{' or option' * by_name} '{name}'", hint)
    parsed = stage.options.parse(options, where=f"train {config}") if isinstance(config, str) else config
    return run_stage(stage, Inputs().joined(**inputs), parsed, Path(out), overwrite=overwrite)


def _stage_of_config(config: Options) -> Stage:
    name = type(config).__name__
    kind = getattr(config, "stage", None)
    stage = next((one for one in reversed(stages()) if one.name == kind and isinstance(config, one.options)), None)
    if stage is None:
        raise UserError(f"{name} is the config of no stage", "For example: PPOConfig(...)")
    return stage


def run_stage(stage: Stage, inputs: Inputs, options: Options, out: Path, *, overwrite: bool = False) -> Artifact:
    """Check everything that can be checked first, then run ``stage`` into ``out``."""
    check_inputs(stage, inputs)
    from hearken.training.artifact import claim_folder, release_folder

    check_places(stage, inputs)
    claim_folder(out, stage.name, inputs, options, overwrite=overwrite)
    try:
        return stage.run(inputs, options, out)
    except UserError:
        release_folder(out)
        raise


def estimate(stage: Stage, inputs: Inputs, options: Any) -> dict[str, Any]:
    """For ``--dry-run``: rows, tokens, steps, memory in bytes and seconds; every input is checked as in a real run."""
    import time

    began = time.perf_counter()  # before torch and transformers are imported: that is a part of it
    check_inputs(stage, inputs)
    check_places(stage, inputs)
    measure = getattr(import_module(stage.module), "estimate", None)
    if measure is None:
        return {"note": f"{stage.name} has no estimate"}
    from hearken.training.estimate import Dry

    return measure(Dry(began, options.device), inputs, options)  # type: ignore[no-any-return]
