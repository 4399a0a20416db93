"""How sure a reward model is of a score, from its last layer and the comparisons that it was trained on.

Last-layer features φ make the score linear, θ·φ, so the theory of linear rewards applies (`statistics.linear_reward`):
the width ‖φ - centre‖ in the norm of (Σ + λI)⁻¹ over √n, Σ being the covariance of the training comparisons' feature
differences. Beside it stand heads fitted to bootstrap samples of the same comparisons, whose spread is another width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import methodcaller
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor

from hearken.feedback.records import hash_id
from hearken.models.layout import Group, lay_out
from hearken.models.scorers import RewardScorer
from hearken.progress import progress, quiet
from hearken.rewards.learned import LearnedReward, Reward
from hearken.statistics.intervals import resampled_counts
from hearken.statistics.linear_reward import fit_pairs
from hearken.training.batching import microbatches
from hearken.training.forward import rows_of

FILE = "confidence{}.safetensors"
HEADS = 5
RIDGE = 0.01
"""λ, as a share of Σ's mean eigenvalue: an unseen direction is ten times as wide as the mean one."""
Heads = tuple[tuple[str, float], ...]
"""Heads of a reward model that count, with their weights."""


@dataclass(frozen=True)
class Confidence:
    """What is kept beside a reward model, of its score or of some of its heads.

    Attributes:
        centre: (d,) mean features of the training responses: what values are compared with.
        root: (d, d) R with RᵀR = (Σ + λI)⁻¹ / n.
        heads: (H, d) minus their mean.
        gain: of the model's score.
    """

    centre: Tensor
    root: Tensor
    heads: Tensor
    gain: float

    def linear(self, features: Tensor) -> Tensor:
        """(R,) widths of the linear theory, in units of the score."""
        return ((features - self.centre) @ self.root.T).norm(dim=-1) * self.gain

    def spread(self, features: Tensor) -> Tensor:
        """(R,) standard deviations of the bootstrapped heads, in units of the score."""
        return self.offsets(features).std(-1)

    def offsets(self, features: Tensor) -> Tensor:
        """(R, H) what each bootstrapped head adds to the mean of them, in units of the score."""
        return (features - self.centre) @ self.heads.T * self.gain

    def save(self, folder: Path, heads: Heads = ()) -> None:
        """Write it beside the model's weights, as that of ``heads`` (of the model's own score where empty)."""
        named = {"centre": self.centre, "root": self.root, "heads": self.heads, "gain": torch.tensor([self.gain])}
        save_file({name: np.ascontiguousarray(t.cpu().numpy()) for name, t in named.items()}, _file(folder, heads))

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu", heads: Heads = ()) -> Confidence | None:
        """What `save` wrote of the same heads, or None."""
        file = _file(folder, heads)
        if not file.is_file():
            return None
        found = {name: torch.from_numpy(array).to(device) for name, array in load_file(file).items()}
        return cls(found["centre"], found["root"], found["heads"], float(found["gain"]))


def _file(folder: Path, heads: Heads) -> Path:
    """Named by a digest where there are heads: their names are what labelers say, and may hold anything."""
    return folder / FILE.format(f"-{hash_id(heads)[:12]}" if heads else "")


@torch.no_grad()
def last_layer(reward: LearnedReward, groups: Sequence[Group]) -> Tensor:
    """(R, d) features of all responses, of which the score is a linear function."""
    scorer = reward.scorer
    whole: Tensor | None = None
    with quiet(not reward.label), progress(reward.label, len(groups), "prompt", patient=True) as bar:
        for part in microbatches(groups, reward.tokens, scorer):
            layout = lay_out([groups[i] for i in part], scorer.device)
            found: Tensor = scorer(methodcaller("features", layout))
            if whole is None:
                whole = found.new_zeros(sum(len(g.responses) for g in groups), found.shape[1])
            whole[torch.tensor(rows_of(groups, part), device=found.device)] = found
            bar.advance(len(part))
    assert whole is not None
    return whole


@torch.no_grad()
def scored(scorer: RewardScorer, features: Tensor) -> Tensor:
    """(R,) scores of responses with these features (R, d)."""
    found: Tensor = scorer(lambda net: net.of_features(features))
    return found


def fit_confidence(
    reward: LearnedReward, groups: Sequence[Group], pairs: Sequence[tuple[int, int, int]], *,
    weights: Sequence[float] | None = None, heads: int = HEADS, seed: int = 0,
) -> Confidence:  # fmt: skip
    """The confidence that comparisons give a trained model's head.

    Heads are refitted to bootstrap samples of the prompts' comparisons, with the trained head as their prior's mean.

    Args:
        reward: the trained model.
        groups: prompts with the responses that were compared.
        pairs: (better response, worse response, prompt), numbers of responses over all groups and of prompts.
        weights: of the pairs.
        heads: how many.
        seed: of the bootstrap.

    Raises:
        ValueError: no pair.
    """
    if not pairs:
        raise ValueError("a confidence needs comparisons")
    features = last_layer(reward, groups).double().cpu().numpy()
    better, worse, owner = (np.array(column) for column in zip(*pairs, strict=True))
    differences = features[better] - features[worse]
    w = np.ones(len(pairs)) if weights is None else np.asarray(weights, dtype=np.float64)
    design = (differences * w[:, None]).T @ differences / w.sum()
    scale = max(float(np.trace(design)) / len(design), 1e-12)
    values, vectors = np.linalg.eigh(design + RIDGE * scale * np.eye(len(design)))
    root = (vectors / np.sqrt(values)).T / np.sqrt(w.sum())
    scorer = reward.scorer
    trained = scorer.combine(scorer.output.weight.detach().T).double().cpu().numpy()
    prompts, of = np.unique(owner, return_inverse=True)
    drawn = resampled_counts(len(prompts), heads, seed)[:, of] * w
    refitted = [
        fit_pairs(differences[some > 0], None, some[some > 0], ridge=RIDGE * scale * w.sum() / 10, centre=trained).theta
        for some in drawn
    ]
    spread = np.stack(refitted) - np.mean(refitted, axis=0)

    def tensor(array: object) -> Tensor:
        return torch.tensor(np.asarray(array), dtype=torch.float32, device=reward.scorer.device)

    return Confidence(tensor(features.mean(0)), tensor(root), tensor(spread), abs(reward.scorer.gain))


class PessimisticReward:
    """Score minus c times the width of its confidence: the lower-confidence value of an offline policy."""

    def __init__(self, reward: LearnedReward, confidence: Confidence, c: float, width: str = "linear") -> None:
        self.reward, self.confidence, self.c, self.kind = reward, confidence, c, width
        self.scorer = reward.scorer

    @torch.no_grad()
    def __call__(self, groups: Sequence[Group]) -> Tensor:
        """(R,) pessimistic scores."""
        features = last_layer(self.reward, groups)
        return scored(self.scorer, features) - self.c * self.width(features)

    def width(self, features: Tensor) -> Tensor:
        """(R,) widths of either kind."""
        return self.confidence.linear(features) if self.kind == "linear" else self.confidence.spread(features)


class EnsembleReward:
    """Mean score of several reward models minus c times its standard deviation over them."""

    def __init__(self, members: Sequence[Reward], c: float) -> None:
        self.members, self.c = members, c

    def __call__(self, groups: Sequence[Group]) -> Tensor:
        """(R,) pessimistic scores."""
        scores = [member(groups) for member in self.members]
        table = torch.stack([s.to(scores[0].device) for s in scores])
        return table.mean(0) - self.c * table.std(0)
