"""A policy whose tokens are limited to the nucleus of an earlier copy of itself: NLPO's action mask."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hearken.models.head import FORBIDDEN, forbid
from hearken.models.layout import Layout
from hearken.models.precision import lower
from hearken.models.scorers import Path, TokenScorer, TokenScores, _select


class MaskedScorer(TokenScorer):
    """A `TokenScorer` over the tokens in the top-p nucleus (and among the top k) of a frozen copy, its mask policy.

    Both networks read the same tokens in one pass; the copy's attention layers are numbered after the policy's, so that
    one `KVCache` holds the keys and values of both.

    Args:
        model: the policy.
        top_p: probability that the nucleus holds.
        top_k: at most so many tokens; 0 for no limit.
        path, adapter: see `Scorer`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        top_p: float,
        top_k: int = 0,
        path: Path = "packed",
        adapter: str | None = "policy",
    ) -> None:
        super().__init__(model, path, adapter)
        self.top_p, self.top_k = top_p, top_k
        self.mask_model = copy.deepcopy(model).requires_grad_(False).eval()
        layers = [m for m in self.mask_model.modules() if isinstance(getattr(m, "layer_idx", None), int)]
        shift = 1 + max((m.layer_idx for m in layers), default=0)  # type: ignore[operator,type-var]
        for module in layers:
            module.layer_idx = module.layer_idx + shift  # type: ignore[operator,assignment]
        self.use(path)

    def compute_in(self, chosen: str) -> None:
        """Both."""
        super().compute_in(chosen)
        if chosen == "bf16":
            lower(self.mask_model)

    def use(self, path: Path) -> None:
        """Switch the way of computing, of both."""
        super().use(path)
        if hasattr(self, "mask_model"):
            self.mask_model.set_attn_implementation(self.model.config._attn_implementation)

    @property
    def plain_head(self) -> bool:
        """Never: the mask lies on the logits."""
        return False

    @property
    def backbone(self) -> Any:
        """Both networks without their heads; their hidden states side by side."""
        policy = super().backbone
        mask: nn.Module = getattr(self.mask_model, self.mask_model.base_model_prefix)

        def both(**inputs: Any) -> SimpleNamespace:
            with torch.no_grad():
                late = mask(**inputs).last_hidden_state
            return SimpleNamespace(last_hidden_state=torch.cat([policy(**inputs).last_hidden_state, late], -1))

        return both

    def logits(self, hidden: Tensor, keep: Tensor | None = None) -> Tensor:
        """(n, 2d) hidden states to logits (n, V); ``keep`` (n,) are tokens that stay whatever the mask says."""
        own, late = hidden.chunk(2, -1)
        with torch.no_grad():
            theirs = forbid(self.mask_model.get_output_embeddings()(late).float(), self.forbidden)
            chances = torch.softmax(theirs, -1)
            ranked, index = chances.sort(-1, descending=True)
            inside = ranked.cumsum(-1) - ranked < self.top_p  # the token that crosses top_p stays
            if self.top_k:
                inside[:, self.top_k :] = False
            allowed = torch.zeros_like(inside).scatter(-1, index, inside)
            if keep is not None:
                allowed = allowed.scatter(-1, keep[:, None], True)
        return super().logits(own).float().masked_fill(~allowed, FORBIDDEN)

    def compute(self, layout: Layout, *, temperature: float = 1.0, entropy: bool = False) -> TokenScores:
        """Log-probabilities of the response tokens among the allowed ones; a response token itself always is one.

        (Sampler and training path round differently, so a token on the nucleus' edge might be outside here.)
        """
        layout = self.apart(layout)
        targets, state = layout.targets[layout.mask], layout.state[layout.mask]
        with self.autocast():
            logits = self.logits(self.hidden(layout)[state], targets)
        logprobs, spread = _select(logits, targets, temperature, entropy)
        return TokenScores(layout.grid(logprobs), layout.grid(spread) if entropy else None)

    def refresh(self) -> None:
        """The mask policy becomes a copy of the policy as it is now."""
        self.mask_model.load_state_dict(self.model.state_dict())
