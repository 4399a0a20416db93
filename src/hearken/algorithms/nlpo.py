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
from hearken.algorithms.estimate import sampling
from hearken.algorithms.nlpo_options import NLPOConfig
from hearken.algorithms.stage import Inputs
from hearken.algorithms.value_model import CriticSetup
from hearken.algorithms.watch import watched
from hearken.errors import UserError
from hearken.models.masked import MaskedScorer
from hearken.models.seq2seq import is_seq2seq
from hearken.training.artifact import Artifact
from hearken.training.run import Callback


def load(inputs: Inputs, options: NLPOConfig) -> CriticSetup:
    """PPO's networks, with the mask on the policy.

    Raises:
        UserError: an architecture whose logits come from its own forward pass alone.
    """
    setup = ppo.load(inputs, options)
    plain = setup.scorer
    if plain.whole or is_seq2seq(plain.model):
        raise UserError(f"NLPO cannot mask a {type(plain.model).__name__}", "Use ppo")
    masked = MaskedScorer(plain.model, options.mask_top_p, options.mask_top_k, plain.path, plain.adapter)
    plain.compute_like(masked)
    setup.policy = replace(setup.policy, scorer=masked)
    setup.sampler = setup.policy.sampler()
    return setup


def run(inputs: Inputs, options: NLPOConfig, out: Path) -> Artifact:
    """Improve ``inputs.model`` on the prompts of ``inputs.data`` by ``inputs.reward``; write the policy to ``out``."""
    setup, callbacks = watched(load, inputs, options)
    assert isinstance(setup.scorer, MaskedScorer)
    return ppo.improve(setup, inputs, options, out, [*callbacks, Mask(setup.scorer, options.refresh)])


class Mask(Callback):
    """The mask policy: a copy of the policy now and then, and a part of the checkpoint."""

    name = "mask"

    def __init__(self, scorer: MaskedScorer, refresh: int) -> None:
        self.scorer, self.refresh = scorer, refresh

    def after(self, step: int) -> None:
        """Every few steps the mask policy becomes the policy as it is then."""
        if (step + 1) % self.refresh == 0:
            self.scorer.refresh()

    def state_dict(self) -> dict[str, Any]:
        """Its weights."""
        return dict(self.scorer.mask_model.state_dict())

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Back to saved ones."""
        self.scorer.mask_model.load_state_dict(state)


estimate = sampling(load)
