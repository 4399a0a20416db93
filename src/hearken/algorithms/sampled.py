"""What every stage that samples from its own policy opens and checks: policy, reference, reward and prompts."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedModel

from hearken.algorithms.doubts import of_sampled, say
from hearken.algorithms.rollout_options import RolloutOptions
from hearken.algorithms.stage import Inputs
from hearken.domains.text.data import Reader, demonstrations, nothing_fits, prompts
from hearken.domains.text.loading import TextPolicy, open_policy, open_reference
from hearken.domains.text.rewarding import Known, open_reward, prompt_facts
from hearken.errors import UserError
from hearken.feedback.examples import Content
from hearken.models.layout import Group
from hearken.models.scorers import TokenScorer
from hearken.rewards.learned import Reward
from hearken.rollout.sampler import Sampler


@dataclass
class Prompts:
    """The same prompts twice."""

    contents: list[Content] = field(default_factory=list)
    ids: list[list[int]] = field(default_factory=list)
    """Their tokens."""

    def take(self, chosen: Sequence[int]) -> Prompts:
        """Some of them."""
        return Prompts([self.contents[i] for i in chosen], [self.ids[i] for i in chosen])


@dataclass
class Setup:
    """Everything that is read and checked before the first step."""

    policy: TextPolicy
    reference: TokenScorer
    """The policy itself where a method has none."""
    reward: Reward
    sampler: Sampler
    prompts: Prompts
    held_out: Prompts
    """Those of ``--validation``."""
    ptx: list[Group]
    """Text for the pretraining term."""
    known: Known
    """What rewards are told of the prompts."""
    facts: dict[str, Any]

    @property
    def scorer(self) -> TokenScorer:
        """The policy's network."""
        return self.policy.scorer


def set_up(
    inputs: Inputs, options: RolloutOptions, *, with_reference: bool = True,
    models: Callable[[TextPolicy, str], PreTrainedModel] | None = None,
) -> Setup:  # fmt: skip
    """Open policy, reference and reward, and encode the prompts, with room for the responses.

    Args:
        inputs: of the stage.
        options: of the stage.
        with_reference: the method has one.
        models: loads a reward model by name; see `open_reward`.

    Raises:
        UserError: a minibatch would cut a prompt's responses apart; no prompt fits.
    """
    check_batches(options)
    reader = Reader(options)  # what is wrong with a file shows before a model is loaded
    rows, text = reader.rows(inputs.data, inputs.validation, 0.0, options.seed), reader.read(inputs.ptx, "ptx_format")
    policy = open_policy(inputs.model, options, options, reserve=options.max_new_tokens)
    asked, held_out = (Prompts(*prompts(some, policy.encoder)) for some in (rows.train, rows.validation))
    if not asked.ids:
        raise nothing_fits(inputs.data)
    facts = rows.facts | say(of_sampled(options, asked.ids, ptx=bool(inputs.ptx)))
    ptx = demonstrations(text, policy.encoder, file="--ptx")
    known: Known = {
        **prompt_facts(rows.train, asked.contents, asked.ids),
        **prompt_facts(rows.validation, held_out.contents, held_out.ids),
    }
    reference = open_reference(inputs.model, inputs.ref, policy) if with_reference else policy.scorer
    assert inputs.reward is not None  # `check_inputs`
    load = None if models is None else (lambda name: models(policy, name))
    reward = open_reward(inputs.reward, policy, known, options, load)
    facts |= {"prompts": len(asked.ids), "skipped": reader.skipped, "truncation": policy.encoder.tell()}
    return Setup(policy, reference, reward, policy.sampler(), asked, held_out, ptx, known, facts)


def check_batches(options: RolloutOptions) -> None:
    """Refuse batches that cannot be cut evenly, and warn where the measured KL will be wrong.

    Raises:
        UserError: a minibatch would cut a prompt's responses apart.
    """
    if options.top_p < 1 or options.top_k:
        warnings.warn("top_p and top_k make the measured KL wrong: it is not that of the sampled policy", stacklevel=3)
    whole = options.num_generations * options.minibatches
    if options.batch_size % whole:
        raise UserError(
            f"batch_size {options.batch_size} is not a multiple of num_generations x minibatches ({whole})",
            "Choose batch_size so that every minibatch holds whole prompts",
        )
