"""Online comparisons with regret measured: dueling linear bandits, and preferences over trajectories."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray
from theory.rankings import optimistic_pair

from hearken.statistics.linear_reward import LinearFit, fit_pairs

Array = NDArray[np.float64]
Choose = Callable[[LinearFit | None, Array, int, np.random.Generator], tuple[int, int]]
"""(fit so far, (A, d) features of the arms, round from 0, generator) to the two arms to compare."""


def optimistic(c: float = 1.0) -> Choose:
    """Compare the least known pair of arms that may still be best; see `optimistic_pair`.

    Its confidence is c·√log(t + 2) standard errors, so that no arm is given up for ever by bad luck.
    """

    def choose(fit: LinearFit | None, features: Array, t: int, rng: np.random.Generator) -> tuple[int, int]:
        if fit is None:
            return uniform(fit, features, t, rng)
        return optimistic_pair(fit, features, c * math.sqrt(math.log(t + 2)))

    return choose


def uniform(fit: LinearFit | None, features: Array, t: int, rng: np.random.Generator) -> tuple[int, int]:
    """Two different arms, every pair as likely: what collecting at random does."""
    a, b = rng.choice(len(features), 2, replace=False)
    return int(a), int(b)


@dataclass(frozen=True)
class Arms:
    """Things to choose between, and what a comparison of two of them shows.

    ``samples[a]`` are the equally likely outcomes of arm a, (S, d): a comparison is of one outcome each. An arm with
    one outcome is a response; one with several a policy, whose outcomes are trajectories.
    """

    samples: Sequence[Array]

    @property
    def features(self) -> Array:
        """(A, d) expected features."""
        return np.stack([outcomes.mean(0) for outcomes in self.samples])


def duel(
    arms: Arms, theta: ArrayLike, rounds: int, choose: Choose, *, best: float | None = None, seed: int = 0
) -> Array:  # fmt: skip
    """(rounds,) cumulated regret of comparing by ``choose``: Σ_t value of the best - mean value of the two compared.

    After each comparison (a Bradley-Terry draw on the two outcomes' values) θ is fitted anew; to keep that cheap equal
    differences are counted together, and once many comparisons are in it is refitted every one per cent more.

    Args:
        arms: what to choose between.
        theta: (d,) the truth.
        rounds: comparisons.
        choose: `optimistic` or `uniform`.
        best: value that regret is measured against; that of the best arm where None. A larger one is that of a better
            arm outside the choice.
        seed: of all draws.
    """
    truth, features = np.asarray(theta, dtype=np.float64), arms.features
    values = features @ truth
    top = float(values.max()) if best is None else best
    rng = np.random.default_rng(seed)
    rows: dict[bytes, int] = {}
    seen: list[Array] = []
    counts: list[float] = []
    wins: list[float] = []
    regret = np.empty(rounds)
    fit: LinearFit | None = None
    refit = 0.0
    total = 0.0
    for t in range(rounds):
        a, b = choose(fit, features, t, rng)
        one, other = (arms.samples[i][rng.integers(len(arms.samples[i]))] for i in (a, b))
        won = rng.random() < 1 / (1 + np.exp(-(one - other) @ truth))
        if (difference := one - other).any():
            row = rows.setdefault(difference.tobytes(), len(rows))
            if row == len(seen):
                seen.append(difference)
                counts.append(0.0)
                wins.append(0.0)
            counts[row] += 1
            wins[row] += won
            if t + 1 >= refit:
                n = np.array(counts)
                fit = fit_pairs(np.stack(seen), np.array(wins) / n, n, ridge=0.1)
                refit = (t + 1) * 1.01
        total += top - float(values[a] + values[b]) / 2
        regret[t] = total
    return regret


def recall_problem(cues: int, actions: int, *, memory: bool) -> tuple[Arms, Array, float]:
    """Preferences over trajectories that depend on what was seen first, when it can no longer be seen.

    A cue is shown, then forgotten (every later observation is the same), then an action is taken; a trajectory is
    worth 1 where the action is that of its cue. Its features are one indicator for each cue and action: linear in the
    whole trajectory, but no sum of rewards of single steps (Pacchiano et al. 2023; Chatterji et al. 2021). A policy
    without memory takes the same action after every cue, and is worth 1/cues at best.

    Args:
        cues: how many, all as likely.
        actions: how many, at least as many as cues.
        memory: whether policies may depend on the cue. All deterministic policies are arms.

    Returns:
        The arms, θ, and the value of the best policy with memory.

    Raises:
        ValueError: fewer actions than cues.
    """
    if not 1 <= cues <= actions:
        raise ValueError(f"{cues} cues and {actions} actions: each cue needs an action of its own")
    policies = product(range(actions), repeat=cues) if memory else ((a,) * cues for a in range(actions))
    indicator = np.eye(cues * actions)
    arms = Arms([indicator[[cue * actions + a for cue, a in enumerate(policy)]] for policy in policies])
    theta = np.zeros(cues * actions)
    theta[[cue * actions + cue for cue in range(cues)]] = 1.0
    return arms, theta, 1.0


def growth(regret: ArrayLike) -> float:
    """Exponent of regret's growth over the second half: log2 of (regret at T over regret at T/2); 1 is linear.

    0 where nothing more is regretted. With an intercept a linear regret's exponent comes out a little below 1.

    Raises:
        ValueError: fewer than two rounds, or no regret at half time.
    """
    r = np.asarray(regret, dtype=np.float64)
    if len(r) < 2 or r[len(r) // 2 - 1] <= 0:
        raise ValueError("growth needs regret at half time")
    return float(np.log2(r[-1] / r[len(r) // 2 - 1]))
