"""Best-of-n sampling: what it costs in KL, and what it gains."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike


def best_of_n_kl(n: int) -> float:
    """KL(best-of-n ‖ policy) = log n - (n-1)/n, in nats (Stiennon et al. 2020).

    Exact where neither scores nor responses repeat; otherwise an upper bound (Beirami et al. 2024).

    Raises:
        ValueError: n below 1.
    """
    if n < 1:
        raise ValueError(f"best of {n} responses is none")
    return math.log(n) - (n - 1) / n


def best_of_n(proxy: ArrayLike, gold: ArrayLike, n: int) -> float:
    """Unbiased estimate of the gold reward of the best of n responses by the proxy, from N ≥ n responses to one prompt.

    Σ_i C(i-1, n-1)/C(N, n) · gold_(i), the responses sorted by proxy, ascending: the mean over all subsets of n (Nakano
    et al. 2021). Where proxies are equal, one is picked at random.

    Args:
        proxy: (N,) scores that choose.
        gold: (N,) scores that are reported; the proxy again for its own expected maximum.
        n: how many responses are chosen from.

    Raises:
        ValueError: n outside 1..N, or lengths that differ.
    """
    chooser, reported = np.asarray(proxy, dtype=np.float64), np.asarray(gold, dtype=np.float64)
    size = len(chooser)
    if chooser.shape != reported.shape or not 1 <= n <= size:
        raise ValueError(f"best of {n} from {size} proxy and {len(reported)} gold scores cannot be estimated")
    # C(i-1, n-1)/C(N, n) downward from its value n/N at i = N; the factorials would overflow. It reaches 0 below i = n.
    position = np.arange(size, 1, -1)
    falling = np.cumprod(np.concatenate([[n / size], np.maximum(position - n, 0) / (position - 1)]))
    weight = falling[::-1]
    order = np.argsort(chooser, kind="stable")
    _, level = np.unique(chooser[order], return_inverse=True)
    shared = (np.bincount(level, weights=weight) / np.bincount(level))[level]  # equal proxies share their weight
    return float(shared @ reported[order])
