"""Best-of-n sampling: what it costs in KL, and what it gains."""

from __future__ import annotations

import math


def best_of_n_kl(n: int) -> float:
    """KL(best-of-n ‖ policy) = log n - (n-1)/n, in nats (Stiennon et al. 2020).

    Exact where neither scores nor responses repeat; otherwise an upper bound (Beirami et al. 2024).

    Raises:
        ValueError: n below 1.
    """
    if n < 1:
        raise ValueError(f"best of {n} responses is none")
    return math.log(n) - (n - 1) / n
