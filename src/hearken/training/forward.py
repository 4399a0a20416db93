"""Scores of many groups without gradient, in microbatches, as padded tensors in the order of the responses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from hearken.models.layout import Group, Layout, lay_out
from hearken.models.scorers import Scorer
from hearken.progress import progress, quiet
from hearken.training.batching import microbatches


def rows_of(groups: Sequence[Group], chosen: Sequence[int]) -> list[int]:
    """Row numbers, over all responses of ``groups``, of those of the chosen groups."""
    starts = [0]
    for g in groups:
        starts.append(starts[-1] + len(g.responses))
    return [r for i in chosen for r in range(starts[i], starts[i + 1])]


def batches_with_progress(groups: Sequence[Group], tokens: int, scorer: Scorer, label: str = "") -> Iterator[list[int]]:
    """`batching.microbatches`; with a ``label`` a bar says how far it is."""
    with quiet(not label), progress(label, len(groups), "prompt", patient=True) as bar:
        for part in microbatches(groups, tokens, scorer):
            yield part
            bar.advance(len(part))


@torch.no_grad()
def gather(
    function: Callable[[Layout], Tensor], groups: Sequence[Group], tokens: int, scorer: Scorer, label: str = ""
) -> Tensor:
    """``function``'s answers for microbatches, (r,), (r, t) or (r, t, c), put together as (R,), (R, T) or (R, T, c).

    ``scorer`` says how large a microbatch may be, where ``tokens`` is 0, and on which device it lies; ``label`` as in
    `batches_with_progress`.
    """
    lengths = [len(r) for g in groups for r in g.responses]
    whole: Tensor | None = None
    for part in batches_with_progress(groups, tokens, scorer, label):
        piece = function(lay_out([groups[i] for i in part], scorer.device)).float()
        if whole is None:
            tokens_wide = (max(lengths), *piece.shape[2:]) if piece.ndim > 1 else ()
            whole = piece.new_zeros(len(lengths), *tokens_wide)
        rows = torch.tensor(rows_of(groups, part), device=scorer.device)
        if piece.ndim > 1:
            whole[rows, : piece.shape[1]] = piece
        else:
            whole[rows] = piece
    assert whole is not None
    return whole
