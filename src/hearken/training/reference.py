"""Log-probabilities of a reference policy over fixed data: computed when asked for, or once and kept on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hearken.config import cache_folder
from hearken.models.layout import Group
from hearken.models.scorers import TokenScorer
from hearken.objectives.direct import sequence_logprobs
from hearken.training.forward import gather, rows_of


def fingerprint(scorer: TokenScorer) -> str:
    """SHA-256 over the weights that ``scorer`` computes with: an adapter that is off does not count."""
    digest = hashlib.sha256()
    for name, weight in sorted(scorer.model.state_dict().items()):
        adapter = next((part for part in name.split(".") if part.startswith("lora_")), "")
        if adapter and (scorer.adapter is None or f".{scorer.adapter}." not in name):
            continue
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    if scorer.forbidden is not None:
        digest.update(repr(scorer.forbidden.tolist()).encode())
    return digest.hexdigest()


def logprob_sums(scorer: TokenScorer, groups: Sequence[Group], tokens: int, label: str = "") -> Tensor:
    """Log π(y|x) in nats of every response of every group, in order and without gradient: (R,)."""
    return gather(lambda layout: sequence_logprobs(scorer(layout).logprobs, layout.mask), groups, tokens, scorer, label)


def reference_sums(scorer: TokenScorer, groups: Sequence[Group], tokens: int) -> Tensor:
    """Log π_ref(y|x) in nats of every response of every group, in order: (R,), from the cache where it is known.

    Args:
        scorer: the reference policy as it is now.
        groups: prompts with their responses.
        tokens: real tokens of a microbatch.
    """
    # The precision is a part of the key: both sides of a log-ratio must be computed alike.
    key = hashlib.sha256(f"{fingerprint(scorer)} {scorer.precision}".encode())
    for g in groups:
        key.update(repr((list(g.prompt), [list(r) for r in g.responses])).encode())
    path = cache_folder("reference") / f"{key.hexdigest()}.safetensors"
    if path.is_file():
        return load_file(path)["sums"].to(scorer.device)
    sums = logprob_sums(scorer, groups, tokens, "Reference policy")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        save_file({"sums": sums.cpu()}, partial)
        os.replace(partial, path)
    except OSError:  # a cache that cannot be written only costs time
        pass
    return sums


class Reference:
    """Log π_ref(y|x) of the responses of some groups: known beforehand, computed when asked for, or not needed.

    Args:
        scorer: the reference policy; None where a method has none.
        groups: prompts with their responses.
        options: ``cache_reference``, whether to compute all beforehand, and ``tokens`` of a microbatch.
    """

    def __init__(self, scorer: TokenScorer | None, groups: Sequence[Group], options: Any) -> None:
        self.scorer, self.groups, self.tokens = scorer, groups, options.tokens
        self.sums: Tensor | None = None
        if scorer is not None and options.cache_reference and groups:
            self.sums = reference_sums(scorer, groups, options.tokens)

    def of(self, chosen: Sequence[int]) -> Tensor | None:
        """(r,) of the responses of the groups ``chosen``, or None."""
        if self.scorer is None:
            return None
        if self.sums is None:
            return logprob_sums(self.scorer, [self.groups[i] for i in chosen], self.tokens)
        return self.sums[torch.tensor(rows_of(self.groups, chosen), device=self.sums.device)]
