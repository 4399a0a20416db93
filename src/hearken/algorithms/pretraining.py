"""The pretraining term of PPO-ptx (Ouyang et al. 2022): likelihood of ordinary text beside the reward."""

from __future__ import annotations

from collections.abc import Sequence

from hearken.algorithms.ppo_options import PPOConfig
from hearken.models.layout import Group, lay_out
from hearken.models.scorers import TokenScorer
from hearken.objectives.language import nll
from hearken.training import distributed
from hearken.training.batching import Order
from hearken.training.run import Run


class Pretraining:
    """Some pieces of a text for every update; nothing where there is no text."""

    def __init__(self, text: Sequence[Group], options: PPOConfig) -> None:
        self.text, self.coefficient = text, options.ptx_coef
        pieces = options.ptx_batch or options.batch_size // options.minibatches
        self.order = Order(len(text), pieces, options.seed + 1) if text else None

    def learn(self, scorer: TokenScorer, update: int, run: Run) -> dict[str, float]:
        """Add the gradient of coefficient x mean negative log-likelihood per token; its figure."""
        if self.order is None:
            return {}
        text = [self.text[i] for i in self.order.endless(update)]
        count = distributed.total(sum(len(r) for g in text for r in g.responses))
        loss = 0.0
        for chosen in run.microbatches(text, scorer):
            layout = lay_out([text[i] for i in chosen], scorer.device)
            share = nll(scorer(layout).logprobs, layout.trained).sum() / count
            run.backward(self.coefficient * share)
            loss += share.item()
        return {"ptx_loss": loss}
