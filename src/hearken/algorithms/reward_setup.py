"""Open what reward modelling needs: a fresh head on a language model, and the judgments encoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hearken.algorithms import reward_rows
from hearken.algorithms.doubts import of_recorded, say
from hearken.algorithms.reward_options import RewardConfig
from hearken.algorithms.stage import Inputs
from hearken.domains.text.data import Judged, by_responses, demonstrations, judgments, nothing_fits
from hearken.domains.text.loading import adapt, prepare, text_encoder
from hearken.errors import UserError
from hearken.models.layout import Group
from hearken.models.loading import last_linear, merge_adapter, new_reward, save, score_head
from hearken.models.precision import restore
from hearken.models.scorers import RewardScorer, probe
from hearken.training.precision import device_of


@dataclass(frozen=True)
class RewardSetup:
    """Everything that is read and checked before the first step."""

    scorer: RewardScorer
    tokenizer: PreTrainedTokenizerBase
    data: list[Judged]
    held_out: list[Judged]
    references: list[Group]
    """Responses whose mean score is set to zero: the judged ones where no others are given."""
    facts: dict[str, Any]
    original: Callable[[], PreTrainedModel]
    """Loads the network once more as it was before training."""

    @cached_property
    def elements(self) -> list[list[Judged]]:
        """Judgments on the same responses together."""
        return by_responses(self.data)

    @property
    def held_out_groups(self) -> list[Group]:
        """The held-out responses, each once."""
        return [same[0].group for same in by_responses(self.held_out)]

    def save(self, folder: Path, options: RewardConfig) -> None:
        """Write the reward model as a folder that transformers loads."""
        model = self.scorer.model
        if (options.lora or options.head_only) and self.scorer.precision == "bf16":  # what is frozen stays as it was
            restore(model, self.original())
        save(merge_adapter(model), self.tokenizer, folder)


def load(inputs: Inputs, options: RewardConfig) -> RewardSetup:
    """A fresh head on the language model ``inputs.model``, and the judgments encoded."""
    rows = reward_rows.read(inputs, options)

    def network() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        device = device_of(options.device)
        return new_reward(
            inputs.model, options.seed, eos=options.eos, device=device, attributes=rows.heads, by=options.by
        )

    model, tokenizer = network()
    model.config.hearken_pooling = options.pooling
    encoder = text_encoder(tokenizer, model, options)
    data, held_out = (judgments(some, encoder, options.by) for some in (rows.train, rows.held_out))
    if not data:
        raise nothing_fits(inputs.data)
    references = demonstrations(rows.references, encoder, file="--references")
    prepare(model, options)
    if options.lora:
        adapt(model, "reward", options)
    if options.head_only:
        if score_head(model) is not last_linear(score_head(model)):
            raise UserError(f"head_only: the head of {inputs.model} has several layers", "Use lora, or all weights")
        model.requires_grad_(False)
    score_head(model).requires_grad_(True)
    scorer = RewardScorer(model, adapter="reward")
    probe(scorer, encoder.max_length)
    facts = rows.facts | {"judgments": len(data), "references": len(references), "truncation": encoder.tell()}
    if scorer.attributes:
        facts["attributes"] = model.config.hearken_attribute_weights
    facts |= say(of_recorded(options, [same[0].group for same in by_responses(data)]))
    references = references or [judged.group for judged in data]
    return RewardSetup(scorer, tokenizer, data, held_out, references, facts, lambda: network()[0])
