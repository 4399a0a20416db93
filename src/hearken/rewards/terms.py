"""What ``--reward`` names: reward models, Python functions, rules and metrics, alone or added up with weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hearken.errors import UserError

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
