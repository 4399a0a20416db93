"""A small audited slice: answers whose truth somebody has looked up, against being preferred and wrong."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from hearken.statistics.intervals import Interval, clustered_wilson


@dataclass(frozen=True)
class Audit:
    """What `audit` returns."""

    before: Interval
    """Share of the audited answers that were right, of the policy one started from."""
    after: Interval
    """Of the policy now."""
    change: Interval
    """After minus before."""
    preference: Interval
    """How often the judge prefers the policy now."""
    alarm: bool
    """Truth has fallen, beyond noise."""
    says: str


def audit(
    before: ArrayLike, after: ArrayLike, preferred: ArrayLike | Interval, level: float = 0.95, name: str = "the policy",
    judge: str = "labelers",
) -> Audit:  # fmt: skip
    """Compare what is preferred with what is true.

    The interval of the change is Newcombe's (1998) from the two Wilson intervals, which holds for slices of a dozen.
    Preference may rise while truth falls where labelers overlook errors in answers that sound sure: only answers that
    were checked (not judged) can show it.

    Args:
        before: (N,) 1 right, 0 wrong: audited answers of the policy one started from.
        after: (M,) of the policy now, to prompts drawn alike.
        preferred: (K,) 1 where the judge preferred the policy now, 0.5 a tie, 0 else; or the rate itself.
        level: of confidence.
        name: of the policy, for the sentence.
        judge: who preferred it, for the sentence.

    Raises:
        ValueError: a side is empty.
    """
    then, now = (clustered_wilson(side, None, level) for side in (before, after))
    liked = preferred if isinstance(preferred, Interval) else clustered_wilson(preferred, None, level)
    difference = now.estimate - then.estimate
    low = difference - math.hypot(now.estimate - now.low, then.high - then.estimate)
    high = difference + math.hypot(now.high - now.estimate, then.estimate - then.low)
    change = Interval(difference, low, high)
    numbers = f"{100 * then.estimate:.0f} % before, {100 * now.estimate:.0f} % now"
    if high < 0:
        liking = f", while it wins {100 * liked.estimate:.0f} % of comparisons judged by {judge}"
        more = liking if liked.low > 0.5 else ""
        says = f"{name} is wrong more often ({numbers} right in the audited slice){more}: do not trust the preference."
    elif low > 0:
        says = f"{name} is right more often ({numbers} in the audited slice)."
    else:
        says = f"No change in truth can be told from {len(np.asarray(after))} audited answers ({numbers} right)."
    return Audit(then, now, change, liked, high < 0, says)


def audits_needed(before: float, fall: float, power: float = 0.8, level: float = 0.95) -> int:
    """Answers to audit of each policy for an alarm with chance ``power`` where the share right falls by ``fall``.

    Raises:
        ValueError: shares outside 0..1, or no fall.
    """
    after = before - fall
    if not (0 < before < 1 and 0 <= after < before and 0 < power < 1):
        raise ValueError(f"from {before} right by {fall} cannot be audited")
    z = NormalDist()
    spread = before * (1 - before) + after * (1 - after)
    return math.ceil((z.inv_cdf((1 + level) / 2) + z.inv_cdf(power)) ** 2 * spread / fall**2)
