"""How much of what its reward allows a policy reached."""

from __future__ import annotations

from hearken.evaluation.numbers import JsonInterval
from hearken.evaluation.record import Record


class Allowed(Record):
    """How much of what its reward allows a policy reached: see `statistics.allowance`.

    J is the mean score minus β times the KL to the baseline, by the reward that the policy was trained on.
    """

    beta: float
    """The KL coefficient of its training."""
    share: JsonInterval
    """0 is the baseline, 1 the best policy that the pool of the baseline's responses shows."""
    objective: JsonInterval
    """J of the policy."""
    start: float
    """J of the baseline: its mean score."""
    best: float
    """J of the pool tilted by exp(r/β); more responses a prompt can only raise it."""
    best_kl: float
    """KL of the tilted pool to the baseline, nats a response."""
    pool: int
    """Responses of the baseline to each prompt."""
