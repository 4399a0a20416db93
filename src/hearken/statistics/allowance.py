"""What a reward allows under a KL penalty, and the share of it that a policy reached.

The best value of J(π) = E[r] - β·KL(π ‖ π_ref) over all policies is β·log E_ref[exp(r/β)], reached by π_ref tilted by
exp(r/β) (Ziegler et al. 2019; Rafailov et al. 2023, eq. 4). A pool of the reference's own responses estimates it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hearken.statistics.intervals import Interval, cluster_bootstrap


class Allowance(NamedTuple):
    """What `allowance` returns, of each prompt: (P,) float64."""

    start: NDArray[np.float64]
    """J of the reference: its mean reward."""
    best: NDArray[np.float64]
    """J of the pool tilted by exp(r/β)."""
    reward: NDArray[np.float64]
    """Mean reward of the tilted pool."""
    kl: NDArray[np.float64]
    """KL(tilted ‖ pool), nats; log N at most."""


def allowance(rewards: ArrayLike, beta: float) -> Allowance:
    """What the best policy near a reference could earn, from N of the reference's responses to each prompt.

    A pool holds no response better than its best, so ``best`` is too low on average, the more the smaller β and N are;
    ``kl`` near log N says that it is.

    Args:
        rewards: (P, N) of N independent responses of the reference to each of P prompts.
        beta: KL coefficient; at 0 the pool is tilted to its best responses.

    Raises:
        ValueError: no responses, β below 0, or a reward that is not finite.
    """
    pool = np.asarray(rewards, dtype=np.float64)
    if pool.ndim != 2 or pool.size == 0 or not np.isfinite(pool).all() or beta < 0:
        raise ValueError(
            f"no allowance of rewards of shape {pool.shape} at beta {beta}: finite (P, N) rewards, beta >= 0"
        )
    top = pool.max(1, keepdims=True)
    weight = np.exp((pool - top) / beta) if beta > 0 else (pool == top).astype(np.float64)
    weight /= weight.sum(1, keepdims=True)
    reward = (weight * pool).sum(1)
    kl = (weight * np.log(np.where(weight > 0, weight * pool.shape[1], 1.0))).sum(1)
    return Allowance(pool.mean(1), reward - beta * kl, reward, kl)


def share_reached(
    objective: ArrayLike, allowed: Allowance, clusters: Sequence[Hashable] | None = None, seed: int = 0
) -> Interval:
    """(J - J_ref) / (J_best - J_ref) of means over prompts: 0 is the reference, 1 all that the reward allows.

    Above 1 the policy found what the pool does not hold.

    Args:
        objective: (P,) reward minus β·log(π/π_ref) of the policy's responses to the same prompts.
        allowed: what the reward allows.
        clusters: P labels of prompts that belong together.
        seed: of the resampling.

    Returns:
        With an interval over prompts; NaN where the reward prefers nothing.
    """
    rows = np.stack([np.asarray(objective, dtype=np.float64), allowed.start, allowed.best], 1)

    def share(values: NDArray[np.float64]) -> float:
        mine, start, best = values.mean(0)
        return float((mine - start) / (best - start)) if best > start else float("nan")

    return cluster_bootstrap(rows, clusters, share, seed=seed)
