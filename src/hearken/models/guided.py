"""A policy with Q and V heads that guide its decoding: what ILQL trains (Snell et al. 2022)."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from hearken.errors import UserError
from hearken.models.layout import Layout
from hearken.models.scorers import TokenScorer
from hearken.objectives.offline import Estimates, guided_logits, polyak

HEADS = "ilql_heads.safetensors"
SETTINGS = "ilql_heads.json"


def _head(size: int, out: int) -> nn.Sequential:
    """Two layers; the last starts at zero, so that at first nothing is guided."""
    made = nn.Sequential(nn.Linear(size, 2 * size), nn.ReLU(), nn.Linear(2 * size, out))
    nn.init.zeros_(made[-1].weight)  # type: ignore[arg-type]
    nn.init.zeros_(made[-1].bias)  # type: ignore[arg-type]
    return made


class GuidedScorer(TokenScorer):
    """A `TokenScorer` whose next token is drawn from softmax(log π + β(min Q - V)).

    Args:
        model: a causal language model.
        beta: weight of the guidance; 0 is the policy alone.
        path, adapter: see `Scorer`.
    """

    def __init__(self, model: PreTrainedModel, beta: float, adapter: str | None = "policy") -> None:
        super().__init__(model, adapter=adapter)
        config = model.config.get_text_config()
        self.beta = beta
        self.q = nn.ModuleList([_head(config.hidden_size, config.vocab_size) for _ in range(2)])
        self.v = _head(config.hidden_size, 1)
        self.target = copy.deepcopy(self.q).requires_grad_(False)
        self.to(next(model.parameters()).device)

    @property
    def plain_head(self) -> bool:
        """Never: the guidance comes on top."""
        return not self.beta and super().plain_head

    def estimates(self, layout: Layout) -> Estimates:
        """At the response tokens of a layout."""
        states = self.hidden(layout)[layout.state[layout.mask]]
        with self.autocast():
            first, second = (head(states).float() for head in self.q)
            with torch.no_grad():
                late = tuple(head(states).float() for head in self.target)
            values = self.v(states)[:, 0].float()
        return Estimates((first, second), (late[0], late[1]), values, super().logits(states).float())

    def logits(self, hidden: Tensor) -> Tensor:
        """(n, d) hidden states to guided logits (n, V)."""
        plain = super().logits(hidden)
        if not self.beta:
            return plain
        first, second = (head(hidden).float() for head in self.target)
        return guided_logits(plain.float(), torch.minimum(first, second), self.v(hidden)[:, 0].float(), self.beta)

    def follow(self, rate: float) -> None:
        """Let the target heads come nearer to the trained ones by ``rate``."""
        for late, head in zip(self.target.parameters(), self.q.parameters(), strict=True):
            polyak(late, head.detach(), rate)

    def save_heads(self, out: Path) -> None:
        """Write the heads beside the model."""
        heads = {n: p.detach().cpu().contiguous() for n, p in self.state_dict().items() if not n.startswith("model.")}
        save_file(heads, out / HEADS)
        (out / SETTINGS).write_text(json.dumps({"beta": self.beta}), "utf-8")


def with_guidance(scorer: TokenScorer, name: str) -> TokenScorer:
    """A frozen policy's scorer, guided where its folder ``name`` holds the heads; `probe` it before.

    Raises:
        UserError: the architecture's logits come from its own forward pass alone.
    """
    if not (Path(name) / HEADS).is_file():
        return scorer
    if scorer.whole:
        raise UserError(f"a {type(scorer.model).__name__} cannot be guided", f"Delete {HEADS} to use the policy alone")
    beta = json.loads((Path(name) / SETTINGS).read_text("utf-8"))["beta"]
    guided = GuidedScorer(scorer.model, beta, adapter=scorer.adapter)
    guided.use(scorer.path)
    guided.load_state_dict(load_file(Path(name) / HEADS), strict=False)
    return guided.requires_grad_(False)
