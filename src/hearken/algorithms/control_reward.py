"""A reward of single steps from comparisons of clips (Christiano et al. 2017, sections 2.2.3 and 2.2.4).

    P(a better than b) = (1 - e) σ(Σ r(a) - Σ r(b)) + e/2        e: share of answers given at random
    loss = -Σ μ log P(a better) + (1 - μ) log P(b better)        μ: 1, 0, ½ for a tie, or the share of votes

Each of M networks has a bootstrap sample of the comparisons: each counts as often as a Poisson(1) number says, which is
drawn once for a comparison, so that the third that a network does not see stays unseen when it is fitted anew. Weight
decay keeps the loss on these between 1.1 and 1.5 times that on the others.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hearken.algorithms.control_reward_options import ClipRewardConfig
from hearken.domains.base import find_domain
from hearken.domains.control.environment import Environment
from hearken.domains.control.rewarding import FILE, Ensemble, features_of
from hearken.errors import UserError
from hearken.feedback.examples import Comparison
from hearken.feedback.formats import read_examples
from hearken.feedback.media import MediaFolder
from hearken.feedback.pairs import Pair, example_pairs, hits, latest
from hearken.progress import progress
from hearken.training.artifact import NOTICES, finish, hash_files, write_json

if TYPE_CHECKING:
    from hearken.algorithms.stage import Inputs
    from hearken.training.artifact import Artifact

EVERY = 10
"""Steps after which the weight decay is looked at."""
LOW, HIGH = 1.1, 1.5
"""Wanted ratio of the losses."""
DECAYS = (1e-4, 10.0)
"""Bounds of the weight decay."""


class Compared(NamedTuple):
    """P comparisons of two clips."""

    pairs: list[Pair]
    clips: dict[str, int]
    """Place of each clip in ``steps``, by its content."""
    steps: list[NDArray[np.float32]]
    """(T, F) of each clip."""

    def ends(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(P,) places of the first and second clip of each pair."""
        first, second = ([self.clips[getattr(pair, side)] for pair in self.pairs] for side in ("a", "b"))
        return np.array(first, int), np.array(second, int)


def run(inputs: Inputs, options: ClipRewardConfig, out: Path) -> Artifact:
    """Fit a reward model to ``inputs.data`` and write it to ``out``."""
    began = time.monotonic()
    environment = Environment.named(inputs.model)
    with closing(environment.open()) as opened:
        train = read(inputs.data, environment, opened)
        held = read(inputs.validation, environment, opened)
    if not any(pair.verdict for pair in train.pairs):
        what = "no comparison prefers one of its clips" if train.pairs else "there are no comparisons of clips"
        raise UserError(
            f"{', '.join(inputs.data)}: {what}", "Have more clips compared: a reward is learnt from choices"
        )
    torch.manual_seed(options.seed)
    size = train.steps[0].shape[1]
    ensemble = Ensemble(size, options.ensemble, options.hidden)
    if (Path(inputs.model) / FILE).is_file():
        ensemble = Ensemble.load(inputs.model).train()
    figures = fit(ensemble, train, options, out)
    ensemble.save(out, environment)
    figures |= accuracy(ensemble, train, "train_accuracy") | accuracy(ensemble, held, "accuracy")
    if figures["ratio"] > HIGH:
        write_json(
            out / "run" / NOTICES,
            [f"over-fitted: the loss on comparisons that a network did not see is {figures['ratio']:.1f} times that on "
             "the others; more comparisons help, or fewer steps"],
        )  # fmt: skip
    data = {"hash": hash_files(inputs.data), "judgments": len(train.pairs), "clips": len(train.steps)}
    seconds = time.monotonic() - began
    return finish(out, options.stage, inputs=inputs, options=options, data=data, metrics=figures, seconds=seconds)


def read(paths: Sequence[str], environment: Environment, opened: Any) -> Compared:
    """The comparisons of some files, with the clips that they are of.

    Raises:
        UserError: a clip is missing, damaged or of another environment.
    """
    domain = find_domain("control")
    pairs: list[Pair] = []
    clips: dict[str, Any] = {}
    for path in paths:
        files = MediaFolder.beside(path)
        some = latest(example_pairs(row for row in read_examples(path) if isinstance(row, Comparison)))
        pairs += some
        for content in (end for pair in some for end in (pair.a, pair.b)):
            if content not in clips:
                clips[content] = domain.read(content, files)
    places = {content: number for number, content in enumerate(clips)}
    return Compared(pairs, places, features_of(list(clips.values()), environment, opened))


def counts_of(pairs: Sequence[Pair], members: int, seed: int) -> NDArray[np.int64]:
    """(M, P) how often each network sees each comparison: the same number whenever it is asked for."""

    def drawn(pair: Pair) -> NDArray[np.int64]:
        key = sha256(f"{seed}\0{pair.labeler}\0{pair.prompt}\0{pair.a}\0{pair.b}".encode()).digest()
        return np.random.default_rng(int.from_bytes(key[:8], "big")).poisson(1.0, members)

    return np.stack([drawn(pair) for pair in pairs], 1)


def fit(ensemble: Ensemble, data: Compared, options: ClipRewardConfig, out: Path) -> dict[str, float]:
    """The loop; figures of the end."""
    first, second = data.ends()
    share = torch.tensor([pair.outcome for pair in data.pairs])
    counts = counts_of(data.pairs, ensemble.members, options.seed)
    seen = [np.repeat(np.arange(len(row)), row) for row in counts]
    seen = [rows if len(rows) else np.arange(counts.shape[1]) for rows in seen]  # of very few comparisons: all
    unseen = [np.flatnonzero(row == 0) for row in counts]
    steps = torch.from_numpy(np.concatenate(data.steps))
    length = max(map(len, data.steps))
    clips, inside = torch.zeros(len(data.steps), length, steps.shape[1]), torch.zeros(len(data.steps), length)
    for number, clip in enumerate(data.steps):
        clips[number, : len(clip)], inside[number, : len(clip)] = torch.from_numpy(clip), 1.0
    ensemble.see(steps)
    rng = np.random.default_rng(options.seed)
    adam = torch.optim.AdamW(ensemble.parameters(), lr=options.lr, weight_decay=options.weight_decay)

    def loss(member: Sequence[NDArray[np.int64]]) -> Tensor:
        """(M, B) comparisons of each member -> (M, B) their losses."""
        rows = np.stack(list(member))
        used, at = np.unique(np.stack([first[rows], second[rows]]), return_inverse=True)
        n = len(used)
        rewards = ensemble(clips[used].reshape(n * length, -1)).reshape(-1, n, length)
        sums = (rewards * inside[used]).sum(-1)  # (M, n)
        a, b = (sums.gather(1, torch.from_numpy(side)) for side in at.reshape(2, *rows.shape))
        p = (1 - options.error_rate) * (a - b).sigmoid() + options.error_rate / 2
        mu = share[rows].float()
        return -(mu * p.clamp_min(1e-7).log() + (1 - mu) * (1 - p).clamp_min(1e-7).log())

    def losses() -> tuple[float, float]:
        """Mean loss on what the networks see, and on what they do not; the same where they see all."""
        with torch.no_grad():
            mine = float(loss([rng.choice(rows, 512) for rows in seen]).mean())
            if not all(map(len, unseen)):
                return mine, mine
            return mine, float(loss([rng.choice(rows, 512) for rows in unseen]).mean())

    with progress("Reward model", options.steps) as bar, (out / "run" / "metrics.jsonl").open("w") as log:
        for step in range(options.steps):
            value = loss([rng.choice(rows, options.batch_size) for rows in seen]).mean(1).sum()
            adam.zero_grad()
            value.backward()
            adam.step()
            bar.advance(1)
            if (step + 1) % EVERY == 0 or step + 1 == options.steps:
                mine, others = losses()
                ratio = others / max(mine, 1e-9)
                decay = adam.param_groups[0]["weight_decay"]
                row = {"step": step + 1, "loss": mine, "validation_loss": others, "ratio": ratio, "weight_decay": decay}
                log.write(json.dumps(row) + "\n")
                factor = 2.0 if ratio > HIGH else 0.5 if ratio < LOW else 1.0
                adam.param_groups[0]["weight_decay"] = float(np.clip(decay * factor, *DECAYS)) if decay else 0.0
    ensemble.eval()
    ensemble.normalise(steps)
    return {"train_loss": mine, "validation_loss": others, "ratio": ratio, "weight_decay": decay}


def accuracy(ensemble: Ensemble, data: Compared, name: str) -> dict[str, float]:
    """Share of the decided comparisons that the sums order as they were judged; nothing where there are none."""
    decided = [pair for pair in data.pairs if pair.verdict]
    if not decided:
        return {}
    scores = ensemble.score(data.steps)
    margins = [scores[data.clips[pair.a]] - scores[data.clips[pair.b]] for pair in decided]
    return {name: float(hits(decided, margins).mean())}
