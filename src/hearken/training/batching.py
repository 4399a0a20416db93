"""From data to batches: an order that is a pure function of the seed, and microbatches of real tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from hearken.models.layout import Group
from hearken.models.scorers import Scorer

WIDTH_TIMES_TOKENS, LEAST = 1 << 18, 1024
"""Of a CPU's microbatch: what its caches hold, and what a call of an operation is worth (docs/performance.md)."""
GPU = 16384


class Order:
    """A fresh shuffle of ``size`` rows each epoch. Nothing to save: step ``i``'s rows follow from the seed alone."""

    def __init__(self, size: int, batch: int, seed: int) -> None:
        self.size, self.batch, self.seed = size, batch, seed

    @property
    def steps_per_epoch(self) -> int:
        """Steps that see every row once (the last may be short)."""
        return -(-self.size // self.batch)

    def steps(self, epochs: float) -> int:
        """Steps of so many epochs, at least one."""
        return max(round(epochs * self.steps_per_epoch), 1)

    def rows(self, step: int) -> list[int]:
        """Row indices of a step's batch."""
        epoch, at = divmod(step, self.steps_per_epoch)
        return _permutation(self.size, self.seed, epoch)[at * self.batch : (at + 1) * self.batch]

    def endless(self, step: int) -> list[int]:
        """Row indices of a step's batch where batches run across epochs, so that all have the same size."""
        first = step * self.batch
        return [
            _permutation(self.size, self.seed, i // self.size)[i % self.size] for i in range(first, first + self.batch)
        ]


@lru_cache(maxsize=64)
def _permutation(size: int, seed: int, epoch: int) -> list[int]:
    return np.random.default_rng([seed, epoch]).permutation(size).tolist()


def budget(tokens: int, scorer: Scorer) -> int:
    """Most real tokens of a microbatch, where 0 means what suits the device and the width of the model."""
    if tokens:
        return tokens
    return max(WIDTH_TIMES_TOKENS // scorer.width, LEAST) if scorer.device.type == "cpu" else GPU


def microbatches(groups: Sequence[Group], tokens: int, scorer: Scorer) -> Iterator[list[int]]:
    """Indices of groups in microbatches of at most ``budget(tokens, scorer)`` real tokens, alike lengths together.

    A group that is longer stands alone.
    """
    most = budget(tokens, scorer)
    order = sorted(range(len(groups)), key=lambda i: groups[i].tokens, reverse=True)
    batch: list[int] = []
    used = 0
    for i in order:
        size = groups[i].tokens
        if batch and used + size > most:
            yield batch
            batch, used = [], 0
        batch.append(i)
        used += size
    if batch:
        yield batch
