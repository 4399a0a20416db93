"""What a reward model of clips tells of itself beside its scores, for its card: members, features, probes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from hearken.domains.base import Along, Details, Domain, Looked, Probed, Told
from hearken.domains.control import drawing
from hearken.domains.control.clips import Clip
from hearken.domains.control.environment import Environment, features
from hearken.domains.control.rewarding import Ensemble, features_of
from hearken.domains.control.video import film_strip, jpeg, pictures_of
from hearken.feedback.examples import Comparison, Content, content_key
from hearken.feedback.media import MediaFolder
from hearken.feedback.pairs import decided, hits, margins_of
from hearken.feedback.splits import labeler_value
from hearken.statistics.intervals import Interval, cluster_bootstrap, clustered_wilson

MOMENTS = 8
"""Of a film strip."""
LEAST = 20
"""Clips or pairs below which a probe is left out: its interval would say nothing."""


class ClipDetails(Details):
    """Of a reward model's folder."""

    def __init__(self, domain: Domain, reward: str, files: MediaFolder) -> None:
        self.domain, self.files = domain, files
        self.ensemble, self.environment = Ensemble.load(reward), Environment.named(reward)
        with closing(self.environment.open()) as opened:
            self.space = opened.action_space

    def _clips(self, contents: Sequence[str]) -> list[Clip]:
        return [self.domain.read(content, self.files) for content in contents]

    def _steps(self, clips: Sequence[Clip]) -> list[NDArray[np.float32]]:
        with closing(self.environment.open()) as opened:
            return features_of(clips, self.environment, opened, self.ensemble.size)

    @property
    def parameters(self) -> int:
        """Weights of all members."""
        return sum(p.numel() for p in self.ensemble.parameters())

    def heads(self, rows: Sequence[Comparison]) -> list[list[list[float]]]:
        """Scores by each member, which saw its own bootstrap sample; none of a single one."""
        if self.ensemble.members < 2:
            return []
        contents = [content for row in rows for content in row.responses]
        found = []
        for sums in self.ensemble.sums(self._steps(self._clips(contents))).tolist():
            scores = iter(sums)
            found.append([[next(scores) for _ in row.responses] for row in rows])
        return found

    def look(self, some: Sequence[tuple[Content, str]]) -> Looked:
        """Means over the steps of what the members see; as confidence the members' standard deviation."""
        steps = self._steps(self._clips([content for _, content in some]))
        sums = self.ensemble.sums(steps)
        length = float(np.mean([len(one) for one in steps]))
        return Looked(self._means(steps), sums.std(0), length, float(sums.mean()))

    def _means(self, steps: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
        """(N, F) of N clips, on the scale that the members see."""
        mean, deviation = (one.numpy() for one in (self.ensemble.mean, self.ensemble.deviation))
        return np.array([((clip - mean) / deviation).clip(-10, 10).mean(0) for clip in steps], float)

    def told(self, rows: Sequence[Comparison]) -> Told | None:
        """Differences of these means."""
        pairs = decided(rows)
        if not pairs:
            return None
        better = [pair.a if pair.verdict > 0 else pair.b for pair in pairs]
        worse = [pair.b if pair.verdict > 0 else pair.a for pair in pairs]
        seen = [self._means(self._steps(self._clips(side))) for side in (better, worse)]
        labelers = [labeler_value(rows[pair.judgment], "labeler") or "" for pair in pairs]
        return Told(seen[0] - seen[1], labelers, [pair.prompt for pair in pairs])

    def along(self, contents: Sequence[str]) -> list[Along]:
        """Film strips of clips, and the members' mean reward of each step."""
        clips = self._clips(contents)
        strips = [jpeg(film_strip(drawing.drawn(partial(pictures_of, clip))[0], (1, MOMENTS))) for clip in clips]
        paid = [self.ensemble.pay(steps).tolist() for steps in self._steps(clips)]
        return [Along(strip, rewards) for strip, rewards in zip(strips, paid, strict=True)]

    def probes(self, rows: Sequence[Comparison], scored: Sequence[Sequence[float]]) -> list[Probed]:
        """Is it the return, the end of the episode, movement, or something that nobody sees?"""
        contents = [content for row in rows for content in row.responses]
        owner = [content_key(row.prompt) for row in rows for _ in row.responses]
        if len(contents) < LEAST:
            return []
        clips = self._clips(contents)
        score = np.array([value for values in scored for value in values])
        found = [
            *self._returns(clips, score, owner),
            *self._ends(rows, scored, dict(zip(contents, clips, strict=True))),
        ]
        still = self.ensemble.score([self._still(clip) for clip in clips])
        found.append(
            Probed(
                "standing still", _share((still > score).astype(float), owner),
                "Share of clips that score lower than as many steps of standing as at their beginning and doing "
                "nothing: low where movement is wanted.",
            )
        )  # fmt: skip
        pairs = decided(rows)
        blind = self.ensemble.score([self._unseen(clip) for clip in clips])
        values = iter(blind.tolist())
        table = [[next(values) for _ in row.responses] for row in rows]
        right = hits(pairs, margins_of(pairs, table))
        found.append(
            Probed(
                "the picture left out", _share(right, [pair.prompt for pair in pairs]),
                "Accuracy where every observation is the mean one and only the actions are told apart: near the "
                "accuracy itself, it goes by what nobody sees.",
            )
        )  # fmt: skip
        return found

    @staticmethod
    def _returns(clips: Sequence[Clip], score: NDArray[np.float64], owner: Sequence[str]) -> list[Probed]:
        """Only where the environment pays something."""
        total = np.array([clip.total for clip in clips])
        if len(set(owner)) < 2 or not total.std() or not score.std():
            return []

        def correlation(rows: NDArray[np.float64]) -> float:
            return float(spearmanr(rows[:, 0], rows[:, 1]).statistic) if rows.std(0).all() else math.nan

        value = cluster_bootstrap(np.stack([score, total], 1), owner, correlation, n=300)
        says = "Rank correlation with what the environment itself pays for the clip, which need not be what is wanted."
        return [Probed("score against true return", value, says)]

    @staticmethod
    def _ends(
        rows: Sequence[Comparison], scored: Sequence[Sequence[float]], clips: dict[str, Clip]
    ) -> list[Probed]:  # fmt: skip
        """Of pairs of which one clip ends its episode."""
        pairs = decided(rows)
        ended = np.array([float(clips[pair.a].terminated) - float(clips[pair.b].terminated) for pair in pairs])
        if (ended != 0).sum() < LEAST:
            return []
        margins, some = margins_of(pairs, scored), ended != 0
        prompts = [pair.prompt for pair, yes in zip(pairs, some, strict=True) if yes]
        higher, preferred = (margins[some] * ended[some] > 0), hits(pairs, ended)[some]
        return [
            Probed(
                "ended clip scores higher", _share(higher.astype(float), prompts),
                "Of pairs in one of which the episode ends by itself. When it ends tells what is wanted, whatever "
                "people say.",
            ),
            Probed("ended clip was preferred", _share(preferred, prompts), "The same pairs, by their labels."),
        ]  # fmt: skip

    def _still(self, clip: Clip) -> NDArray[np.float32]:
        """(T, F) as many steps of its first observation, with the action that does nothing."""
        first = np.repeat(clip.observations[:1], len(clip), 0)
        nothing = np.repeat(clip.actions[:1], len(clip), 0)
        if not hasattr(self.space, "n"):
            nothing = np.zeros_like(nothing).clip(self.space.low, self.space.high)
        return features(self.space, first, nothing)

    def _unseen(self, clip: Clip) -> NDArray[np.float32]:
        """(T, F) with the mean in place of every observation."""
        steps = clip.seen(self.space)
        size = int(np.prod(clip.observations.shape[1:]))
        steps[:, :size] = self.ensemble.mean.numpy()[:size]
        return steps


def _share(values: NDArray[np.float64], owner: Sequence[str]) -> Interval:
    """A share with its interval over prompts."""
    if len(set(owner)) < 2:
        return Interval(float(np.mean(values)) if len(values) else math.nan, math.nan, math.nan)
    return clustered_wilson(values, owner)
