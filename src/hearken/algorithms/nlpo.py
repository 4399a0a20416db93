"""NLPO: natural language policy optimisation (Ramamurthy et al. 2022, RL4LMs).

As PPO, but every distribution is limited to the top-p (or top-k) tokens of a mask policy: a copy of the policy that is
refreshed every few iterations. Policy, old policy and sampler are masked alike, so ratios are those of what was really
sampled from; the reference is not, so the KL is that of the sampled policy from the whole reference.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from hearken.algorithms import ppo
from hearken.algorithms.nlpo_options import NLPOOptions
from hearken.algorithms.stage import Inputs
from hearken.errors import UserError
from hearken.models.masked import MaskedScorer
from hearken.models.seq2seq import is_seq2seq
from hearken.training.artifact import Artifact
from hearken.training.estimate import Dry


def load(inputs: Inputs, options: NLPOOptions) -> ppo.Ready:
    """PPO's networks, with the mask on the policy.

    Raises:
        UserError: an architecture whose logits come from its own forward pass alone.
    """
    ready = ppo.load(inputs, options)
    plain = ready.models.policy
    if plain.whole or is_seq2seq(plain.model):
        raise UserError(f"NLPO cannot mask a {type(plain.model).__name__}", "Use ppo")
    masked = MaskedScorer(plain.model, options.mask_top_p, options.mask_top_k, plain.path, plain.adapter)
    ready.models.policy = masked
    plain.compute_like(masked)
    return replace(ready, policy=replace(ready.policy, scorer=masked))


def run(inputs: Inputs, options: NLPOOptions, out: Path) -> Artifact:
    """Improve ``inputs.model`` on the prompts of ``inputs.data`` by ``inputs.reward``; write the policy to ``out``."""
    ready = load(inputs, options)
    scorer = ready.models.policy
    assert isinstance(scorer, MaskedScorer)

    def after(step: int) -> None:
        if (step + 1) % options.refresh == 0:
            scorer.refresh()

    return ppo.improve(ready, inputs, options, out, more={"mask": Mask(scorer)}, after=after)


class Mask:
    """The mask policy in the checkpoint."""

    def __init__(self, scorer: MaskedScorer) -> None:
        self.scorer = scorer

    def state_dict(self) -> dict[str, Any]:
        """Its weights."""
        return dict(self.scorer.mask_model.state_dict())

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Back to saved ones."""
        self.scorer.mask_model.load_state_dict(state)


def estimate(dry: Dry, inputs: Inputs, options: NLPOOptions) -> dict[str, Any]:
    """For a dry run."""
    return ppo.estimate_with_critic(dry, load(inputs, options), options)
