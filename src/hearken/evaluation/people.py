"""Does a reward model know people, or these people? Labelers it never saw, and groups that nobody declared."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hearken.evaluation.numbers import JsonInterval, percent, with_interval
from hearken.statistics.intervals import cluster_bootstrap, clustered_wilson, paired_difference
from hearken.statistics.linear_reward import fit_pairs
from hearken.statistics.taste import Tastes, discover_groups

DIRECTIONS = 8
"""Principal directions of the last layer's feature differences in which tastes may differ."""
ENOUGH = 10
"""Comparisons that a labeler needs to be put into a group."""


@dataclass(frozen=True, slots=True)
class Strangers:
    """Accuracy on held-out prompts of a model that was fitted without some of the labelers."""

    labelers: tuple[str, ...]
    """Who was held out."""
    theirs: JsonInterval
    """Of that model, on their pairs."""
    others: JsonInterval
    """Of that model, on pairs of the labelers it was fitted to."""
    gap: JsonInterval
    """Others minus theirs; it holds how noisy either are."""
    known: JsonInterval
    """Of the model that was fitted to all labelers, on theirs."""
    cost: JsonInterval
    """Known minus theirs, on the same pairs: what not knowing them (and having fewer labels) costs."""
    pairs: tuple[int, int]
    """Theirs, and the others'."""

    @property
    def says(self) -> str:
        """What it means, in a sentence."""
        count = len(self.labelers)
        found = (
            f"Fitted without {count} labeler{'s' if count > 1 else ''}, it orders {with_interval(self.theirs, True)} "
            f"of their pairs as they did, and {with_interval(self.others, True)} of the others'; fitted with them "
            f"{with_interval(self.known, True)} of theirs."
        )
        if self.cost.low > 0:
            return f"{found} It knows these labelers better than people: ask more of them."
        return f"{found} That it knows its own labelers better than strangers cannot be told."


def strangers(
    labelers: Sequence[str | None], without: ArrayLike, whole: ArrayLike, prompts: Sequence[Hashable], out: set[str]
) -> Strangers | None:
    """Compare the pairs of held-out labelers with those of the others.

    Args:
        labelers: (P,) of the held-out pairs.
        without: (P,) right (1), wrong (0) or level (0.5) of the model fitted without ``out``.
        whole: (P,) of the model fitted to all.
        prompts: (P,) what the intervals resample.
        out: who was held out.

    Returns:
        None where they, or the others, judged no held-out pair.
    """
    mine, ours = np.asarray(without, dtype=float), np.asarray(whole, dtype=float)
    theirs = np.array([who in out for who in labelers])
    known = np.array([who is not None for who in labelers]) & ~theirs
    if not theirs.any() or not known.any():
        return None
    keys = np.array([str(p) for p in prompts])
    both = theirs | known
    rows = np.stack([mine[both], theirs[both].astype(float)], 1)

    def gap(some: NDArray[np.float64]) -> float:
        inside = some[:, 1] > 0.5
        if inside.all() or not inside.any():
            return 0.0
        return float(some[~inside, 0].mean() - some[inside, 0].mean())

    return Strangers(
        tuple(sorted(out)), clustered_wilson(mine[theirs], keys[theirs]), clustered_wilson(mine[known], keys[known]),
        cluster_bootstrap(rows, keys[both], gap, n=500), clustered_wilson(ours[theirs], keys[theirs]),
        paired_difference(ours[theirs], mine[theirs], keys[theirs]), (int(theirs.sum()), int(known.sum())),
    )  # fmt: skip


def found_name(number: int) -> str:
    """What a discovered group is called, the larger being 0."""
    return f"group {'AB'[number]}, found"


@dataclass(frozen=True, slots=True)
class Discovered:
    """Two groups of labelers who seem to want different things, and whether that is more than chance."""

    groups: tuple[tuple[str, ...], ...]
    """The labelers of each, the larger first; the smaller may be empty."""
    one: JsonInterval
    """Accuracy of one taste for all, on comparisons of the other half of the prompts."""
    two: JsonInterval
    """Of each labeler's group's taste, found on the one half of the prompts, on the other half."""
    gain: JsonInterval
    """Two minus one, on the same comparisons; above 0 the groups are more than chance."""

    @property
    def real(self) -> bool:
        """Whether the split foretells comparisons that it was not made from."""
        return self.gain.low > 0 and all(self.groups)

    @property
    def says(self) -> str:
        """What it means, in a sentence."""
        sizes = " and ".join(str(len(group)) for group in self.groups)
        found = (
            f"Taking the labelers for two groups ({sizes} labelers) foretells {with_interval(self.two, True)} of "
            f"comparisons that the groups were not made from, one taste for all {with_interval(self.one, True)}"
        )
        if not self.real:
            return f"{found}: no groups can be told from chance."
        smaller = ", ".join(self.groups[1][:6])
        return f"{found}: they want different things. The smaller group ({percent(self.share)}): {smaller}."

    @property
    def share(self) -> float:
        """Of the labelers, those in the smaller group."""
        return len(self.groups[1]) / sum(map(len, self.groups))


def discover(
    differences: ArrayLike, labelers: Sequence[str], prompts: Sequence[Hashable], seed: int = 0
) -> Discovered | None:
    """Look for two groups among labelers, from the features of what each preferred, and test them on other prompts.

    The groups are a mixture of Bradley-Terry models in the `DIRECTIONS` in which comparisons differ most
    (`statistics.taste.discover_groups`). They are found on each half of the prompts and tried on the other: where
    labelers differ only by chance, two tastes foretell no better than one, and mostly worse.

    Args:
        differences: (N, d) last-layer features of the preferred minus those of the other response.
        labelers: (N,) who judged.
        prompts: (N,) halves and intervals go by them.
        seed: of the halves and of the mixture's beginnings.

    Returns:
        None where fewer than four labelers gave `ENOUGH` comparisons, or all are of one prompt.
    """
    count = Counter(labelers)
    kept = np.array([count[who] >= ENOUGH for who in labelers])
    if len({who for who in count if count[who] >= ENOUGH}) < 4:
        return None
    x = _directions(np.asarray(differences, dtype=np.float64)[kept])
    who = [one for one, yes in zip(labelers, kept, strict=True) if yes]
    keys = [str(p) for p, yes in zip(prompts, kept, strict=True) if yes]
    half = np.array([hashlib.sha256(f"{seed}:{key}".encode()).digest()[0] % 2 for key in keys])
    if half.all() or not half.any():
        return None
    one, two = np.zeros(len(x)), np.zeros(len(x))
    for part in (0, 1):
        fit, test = np.flatnonzero(half == part), np.flatnonzero(half != part)
        if len({who[i] for i in fit}) < 2:
            return None
        groups = discover_groups(x[fit], [who[i] for i in fit], 2, seed=seed, starts=2, steps=20)
        average = fit_pairs(x[fit], ridge=1.0).theta
        one[test] = _right(x[test] @ average)
        two[test] = _right(np.einsum("nd,nd->n", x[test], _tastes(groups, [who[i] for i in test], average)))
    whole = discover_groups(x, who, 2, seed=seed, starts=2, steps=20)
    sides = tuple(tuple(sorted(str(n) for n in whole.labelers if whole.group(n) == g)) for g in (0, 1))
    return Discovered(
        tuple(sorted(sides, key=len, reverse=True)), clustered_wilson(one, keys), clustered_wilson(two, keys),
        paired_difference(two, one, keys),
    )  # fmt: skip


def _directions(differences: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, k) the differences in their principal directions, scaled so that the first has standard deviation 1."""
    _, size, directions = np.linalg.svd(differences, full_matrices=False)
    found = differences @ directions[:DIRECTIONS].T
    return np.asarray(found / max(float(size[0]) / np.sqrt(len(differences)), 1e-12))


def _right(margin: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(0.5 + 0.5 * np.sign(margin))


def _tastes(groups: Tastes, who: Sequence[str], average: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, k) the taste of each labeler's group; of a labeler who was in no group, the average."""
    known = {str(name): groups.theta[groups.group(name)] for name in groups.labelers}
    return np.stack([known.get(name, average) for name in who])
