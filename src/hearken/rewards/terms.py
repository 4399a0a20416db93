"""What ``--reward`` names: reward models, Python functions, rules and metrics, alone or added up with weights."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from hearken.errors import UserError

Prompt = str | list[dict[str, str]]
RewardFunction = Callable[[list[Prompt], list[str], list[dict[str, Any]]], Sequence[float]]
"""(prompts, responses, metadata of the prompts), one entry a response each, to one number a response."""

Kind = Literal["model", "function"]
_SHORT = {"rule": "hearken.rewards.rules", "metric": "hearken.rewards.metrics", "labeler": "hearken.labelers.rewards"}


@dataclass(frozen=True)
class Term:
    """One part of a reward: a model's folder or Hub name, or ``module:function``.

    ``attributes`` are the heads of the model that count, with their weights; where empty, it is the model's own score.
    """

    name: str
    kind: Kind
    weight: float = 1.0
    attributes: tuple[tuple[str, float], ...] = ()


def parse_terms(text: str) -> list[Term]:
    """The terms of ``my-reward``, ``my_module:score`` or ``my-reward,rule:length*0.5``.

    ``rule:NAME``, ``metric:NAME`` and ``labeler:ai`` are functions of this package.
    ``my-reward#helpful,my-reward#honest*0.5`` weighs anew the heads of a model that scores several attributes, as one
    term. A path that exists is one term whatever it holds.

    Raises:
        UserError: a term is empty, or its weight is not a number.
    """
    if text and Path(text).exists():
        return [Term(text, "model")]
    found: list[Term] = []
    heads: dict[str, tuple[tuple[str, float], ...]] = {}
    for part in text.split(","):
        name, star, factor = part.strip().partition("*")
        try:
            weight = float(factor) if star else 1.0
        except ValueError:
            raise UserError(f"--reward {text}: '{factor}' is not a number", "For example: rule:answer*0.5") from None
        if not name:
            raise UserError(f"--reward {text}: a term is empty", "For example: my-reward,rule:answer*0.5")
        module, colon, function = name.partition(":")
        is_function = bool(colon) and "/" not in module and not Path(name).exists()
        if is_function:
            name = f"{_SHORT.get(module, module)}:{function}"
        model, mark, attribute = name.partition("#")
        if not mark:
            found.append(Term(name, "function" if is_function else "model", weight))
        elif not model or not attribute:
            raise UserError(f"--reward {text}: '{name}' is not model#attribute", "For example: my-reward#helpful*0.5")
        else:
            heads[model] = (*heads.get(model, ()), (attribute, weight))
    return found + [Term(model, "model", attributes=wanted) for model, wanted in heads.items()]


def load_function(name: str) -> RewardFunction:
    """The function ``module:function``; modules in the working directory are found too.

    Raises:
        UserError: no such module or function, or the module cannot be imported.
    """
    module, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(import_module(module), attribute, None)
    except Exception as error:
        raise UserError(f"--reward {name}: {type(error).__name__}: {error}", "Mend the module, or its name") from error
    if not callable(found):
        named = {n: x for n, x in vars(sys.modules[module]).items() if callable(x) and not n.startswith("_")}
        own = [n for n, x in named.items() if getattr(x, "__module__", "") == module]
        near = difflib.get_close_matches(attribute, own, n=1)
        raise UserError(
            f"--reward {name}: {module} has no function '{attribute}'",
            f"Did you mean '{near[0]}'?" if near else "Write module:function",
        )
    return found
