"""What a reward model of text tells of itself beside its scores, for its card: features, heads, groups."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hearken.domains.base import Details, Looked, Told
from hearken.domains.text.measuring import TOKENS, Judge, in_rows
from hearken.domains.text.rewarding import compared, confidence_of
from hearken.errors import UserError
from hearken.feedback.examples import Comparison, Content, answers, content_key
from hearken.feedback.pairs import words
from hearken.feedback.splits import labeler_value
from hearken.models.layout import Group
from hearken.rewards.confidence import last_layer, scored
from hearken.rewards.learned import LearnedReward
from hearken.training.artifact import MANIFEST


class TextDetails(Details):
    """Of a reward model's folder, opened."""

    def __init__(self, reward: str, judge: Judge) -> None:
        self.reward, self.judge = Path(reward), judge
        self.learned = LearnedReward(judge.scorer, TOKENS, "Reward model")

    @property
    def parameters(self) -> int:
        """Its weights."""
        return sum(p.numel() for p in self.judge.scorer.parameters())

    def heads(self, rows: Sequence[Comparison]) -> list[list[list[float]]]:
        """See `Details.heads`; none for encoder-decoder models, whose head is no single layer."""
        judge = self.judge
        if not (self.reward / MANIFEST).is_file() or judge.scorer.head is not judge.scorer.output:
            return []
        try:
            confidence = confidence_of(str(self.reward), self.learned)
        except UserError:
            return []
        once = {pair: at for at, pair in enumerate(dict.fromkeys((row.prompt, row.responses) for row in rows))}
        prompts, responses = zip(*once, strict=True)
        features = last_layer(self.learned, judge.groups(prompts, responses))
        scores = scored(judge.scorer, features)[:, None] + confidence.offsets(features)
        tables = [in_rows(head.tolist(), responses) for head in scores.T]
        return [[table[once[row.prompt, row.responses]] for row in rows] for table in tables]

    def own(self, rows: Sequence[Comparison]) -> list[list[float]] | None:
        """Scores by the head of each row's labeler's group, or by all heads where it has none."""
        judge, scorer = self.judge, self.judge.scorer
        if not scorer.by:
            return None
        found = judge([r.prompt for r in rows], [answers(r) for r in rows])
        for name in scorer.attributes:
            mine = [i for i, row in enumerate(rows) if labeler_value(row, scorer.by) == name]
            if mine:
                scorer.weigh({name: 1.0})
                again = judge([rows[i].prompt for i in mine], [answers(rows[i]) for i in mine])
                for i, scores in zip(mine, again, strict=True):
                    found[i] = scores
        scorer.weigh(scorer.model.config.hearken_attribute_weights)
        return found

    def look(self, some: Sequence[tuple[Content, str]]) -> Looked:
        """Features of the last layer."""
        confidence = confidence_of(str(self.reward), self.learned)
        groups = [g for prompt, text in some if (g := self.judge.encoder.group(prompt, [text])) is not None]
        found = last_layer(self.learned, [Group(g.prompt, g.responses) for g in groups])
        return Looked(
            found.double().cpu().numpy(), confidence.linear(found).cpu().numpy(),
            float(np.mean([words(text) for _, text in some])), float(np.mean(self.learned(groups).cpu().numpy())),
        )  # fmt: skip

    def told(self, rows: Sequence[Comparison]) -> Told | None:
        """Differences of these features."""
        groups: list[Any] = []
        pairs, labelers, prompts, at = [], [], [], 0
        for row in rows:
            one, found, _ = compared([row], self.judge.encoder)
            groups += one
            pairs += [(at + better, at + worse) for better, worse, _ in found]
            labelers += [labeler_value(row, "labeler") or ""] * len(found)
            prompts += [content_key(row.prompt)] * len(found)
            at += sum(len(g.responses) for g in one)
        if not pairs:
            return None
        features = last_layer(self.learned, groups).double().cpu().numpy()
        better, worse = (np.array(side) for side in zip(*pairs, strict=True))
        return Told(features[better] - features[worse], labelers, prompts)
