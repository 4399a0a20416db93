"""What every stage that learns from recorded responses does alike: read its data, open the policy and its reference."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from hearken.algorithms.doubts import of_recorded, say
from hearken.algorithms.stage import Inputs
from hearken.domains.text.data import Judged, Reader, nothing_fits
from hearken.domains.text.encoder import TextEncoder
from hearken.domains.text.loading import TextPolicy, open_policy, open_reference
from hearken.errors import UserError
from hearken.feedback.examples import Example
from hearken.models.layout import Group
from hearken.models.scorers import TokenScorer
from hearken.training import distributed
from hearken.training.batching import Order

Row = TypeVar("Row")


@dataclass(frozen=True)
class Encoded(Generic[Row]):
    """What a method makes of its data."""

    rows: list[Row]
    groups: list[Group]
    """What is learnt from, one for each row."""
    left_out: dict[str, int] = field(default_factory=dict)
    """How much says nothing to this method, by what it is."""
    remark: str = ""
    """What else must be known of the data."""
    strengths: bool = False
    """Whether any judgment says how much better a response is."""

    @property
    def reasons(self) -> str:
        """What was left out, in words; empty where nothing was."""
        return "; ".join(f"{what}: {count}" for what, count in self.left_out.items() if count)


def every(groups: list[Group]) -> Encoded[Group]:
    """Groups that are themselves what is learnt from."""
    return Encoded(groups, groups)


@dataclass
class Setup(Generic[Row]):
    """Everything that is read and checked before the first step."""

    policy: TextPolicy
    reference: TokenScorer | None
    """The policy itself where it is not another model and not an adapter: its weights before the first step. None where
    the method has no reference."""
    train: Encoded[Row]
    validation: Encoded[Row]
    facts: dict[str, Any]

    @property
    def scorer(self) -> TokenScorer:
        """The policy's network."""
        return self.policy.scorer

    @property
    def data(self) -> list[Row]:
        """To train on."""
        return self.train.rows

    @property
    def held_out(self) -> list[Row]:
        """To evaluate on."""
        return self.validation.rows

    def order(self, options: Any) -> Order:
        """Which rows make up the batch of each step."""
        return Order(len(self.data), min(options.batch_size, len(self.data)), options.seed)


def set_up(
    inputs: Inputs, options: Any, encode: Callable[[Sequence[Example], TextEncoder], Encoded[Row]], *,
    counted: str = "", nothing: str = "", with_reference: bool = False,
) -> Setup[Row]:  # fmt: skip
    """Read the data, open the policy, and encode the one for the other.

    Args:
        inputs: of the stage.
        options: of the stage; one without ``validation`` holds nothing out.
        encode: what the method makes of rows.
        counted: the rows' name in the manifest, where it says how many there are.
        nothing: what is missing where all was left out, e.g. "nothing to compare".
        with_reference: the method compares the policy with one.

    Raises:
        UserError: no row is left to learn from.
    """
    reader = Reader(options)  # what is wrong with a file shows before a model is loaded
    rows = reader.rows(inputs.data, inputs.validation, getattr(options, "validation", 0.0), options.seed)
    policy = open_policy(inputs.model, options, options)
    data, held_out = (encode(some, policy.encoder) for some in (rows.train, rows.validation))
    if not data.rows:
        if data.reasons:
            raise UserError(f"{', '.join(inputs.data)} holds {nothing}", data.reasons)
        raise nothing_fits(inputs.data)
    for text in (data.remark, data.reasons and f"left out: {data.reasons}"):
        if text:
            warnings.warn(text, stacklevel=3)
    facts = rows.facts | {"skipped": reader.skipped, "truncation": policy.encoder.tell()}
    facts |= {counted: len(data.rows)} if counted else {}
    facts |= {"left_out": data.left_out} if data.left_out else {}
    facts |= say(of_recorded(options, data.groups, data.strengths))
    reference = fixed_reference(inputs, policy, in_step=not options.cache_reference) if with_reference else None
    return Setup(policy, reference, data, held_out, facts)


def fixed_reference(inputs: Inputs, policy: TextPolicy, *, in_step: bool) -> TokenScorer:
    """The model named, the policy without its adapter, or the policy as it stands before its first step.

    Only a reference that is asked during training (``in_step``) needs weights of its own beside a full policy.
    """
    if not in_step and inputs.ref in (None, inputs.model) and policy.reference() is None:
        return policy.scorer
    return open_reference(inputs.model, inputs.ref, policy)


def unfit(number: int, judged: Judged, wanted: str, hint: str) -> UserError:
    """What to say of a judgment that a method cannot learn from."""
    return UserError(f"judgment {number} is a {judged.kind}, not a {wanted}", hint)


def weighted_tokens(groups: Sequence[Group]) -> float:
    """Tokens that are trained on, by their groups' weights, over all processes: what a batch's loss is divided by."""
    return distributed.total(sum(group.weight * group.trained_tokens for group in groups))
