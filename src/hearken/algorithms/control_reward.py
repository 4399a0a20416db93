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
from collections.abc import Callable, Sequence
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

    def choices(self, members: int, seed: int) -> Choices:
        """What is fitted to them, by ``members`` networks."""
        first, second = ([self.clips[getattr(pair, side)] for pair in self.pairs] for side in ("a", "b"))
        share = np.array([pair.outcome for pair in self.pairs], float)
        counts = counts_of(self.pairs, members, seed)
        return Choices(self.steps, np.array(first, int), np.array(second, int), share, counts)


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
    with progress("Reward model", options.steps) as bar, (out / "run" / "metrics.jsonl").open("w") as file:

        def log(row: dict[str, float]) -> None:
            file.write(json.dumps(row) + "\n")
            bar.advance(min(EVERY, options.steps))

        figures = Fitting(ensemble, options).fit(train.choices(ensemble.members, options.seed), options.steps, log)
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


class Choices(NamedTuple):
    """P choices between two of C clips."""

    steps: Sequence[NDArray[np.float32]]
    """(T, F) of each clip."""
    first: NDArray[np.int64]
    """(P,) places of the clips that were compared."""
    second: NDArray[np.int64]
    """The same of the others."""
    share: NDArray[np.float64]
    """(P,) 1: the first was preferred, 0: the second, 1/2: neither."""
    counts: NDArray[np.int64]
    """(M, P) how often each network sees each of them."""


class Fitting:
    """Fits an ensemble to choices, and anew to more of them; weight decay goes on from where it was.

    Args:
        ensemble: what is fitted.
        options: how.
    """

    def __init__(self, ensemble: Ensemble, options: ClipRewardConfig) -> None:
        self.ensemble, self.options = ensemble, options
        self.rng = np.random.default_rng(options.seed)
        self.decay = options.weight_decay
        self.steps = 0

    def fit(
        self, data: Choices, steps: int, log: Callable[[dict[str, float]], None] = lambda row: None,
        recent: NDArray[np.float32] | None = None,
    ) -> dict[str, float]:  # fmt: skip
        """Go on for some steps of Adam.

        Args:
            data: all choices.
            steps: of Adam.
            log: is given a row of figures now and then.
            recent: (N, F) steps on which the members shall have mean 0 and deviation 1; None: those of the clips.

        Returns:
            figures of the end.
        """
        ensemble, options, rng = self.ensemble.train(), self.options, self.rng
        first, second, share = data.first, data.second, torch.from_numpy(data.share).float()
        everything = np.arange(len(share))
        seen = [np.repeat(everything, row) for row in data.counts]
        seen = [rows if len(rows) else everything for rows in seen]  # of very few comparisons: all
        unseen = [np.flatnonzero(row == 0) for row in data.counts]
        every = torch.from_numpy(np.concatenate(data.steps))
        length = max(map(len, data.steps))
        clips, inside = torch.zeros(len(data.steps), length, every.shape[1]), torch.zeros(len(data.steps), length)
        for number, clip in enumerate(data.steps):
            clips[number, : len(clip)], inside[number, : len(clip)] = torch.from_numpy(clip), 1.0
        ensemble.see(every)
        adam = torch.optim.AdamW(ensemble.parameters(), lr=options.lr, weight_decay=self.decay)

        def loss(member: Sequence[NDArray[np.int64]]) -> Tensor:
            """(M, B) comparisons of each member -> (M, B) their losses."""
            rows = np.stack(list(member))

            def sums(ends: NDArray[np.int64]) -> Tensor:
                at = ends[rows]
                rewards = ensemble(clips[at].flatten(1, 2)).unflatten(1, (-1, length))
                return (rewards * inside[at]).sum(-1)

            p = (1 - options.error_rate) * (sums(first) - sums(second)).sigmoid() + options.error_rate / 2
            mu = share[rows]
            return -(mu * p.clamp_min(1e-7).log() + (1 - mu) * (1 - p).clamp_min(1e-7).log())

        def losses() -> tuple[float, float]:
            """Mean loss on what the networks see, and on what they do not; the same where they see all."""
            with torch.no_grad():
                mine = float(loss([rng.choice(rows, 512) for rows in seen]).mean())
                if not all(map(len, unseen)):
                    return mine, mine
                return mine, float(loss([rng.choice(rows, 512) for rows in unseen]).mean())

        for step in range(1, steps + 1):
            value = loss([rng.choice(rows, options.batch_size) for rows in seen]).mean(1).sum()
            adam.zero_grad()
            value.backward()
            adam.step()
            if step % EVERY == 0 or step == steps:
                mine, others = losses()
                ratio = others / max(mine, 1e-9)
                figures = {
                    "train_loss": mine, "validation_loss": others, "ratio": ratio, "weight_decay": self.decay,
                }  # fmt: skip
                log({"step": self.steps + step, "loss": mine} | figures)
                factor = 2.0 if ratio > HIGH else 0.5 if ratio < LOW else 1.0
                self.decay = float(np.clip(self.decay * factor, *DECAYS)) if self.decay else 0.0
                adam.param_groups[0]["weight_decay"] = self.decay
        self.steps += steps
        ensemble.eval().normalise(every if recent is None else torch.from_numpy(recent))
        return figures


def accuracy(ensemble: Ensemble, data: Compared, name: str) -> dict[str, float]:
    """Share of the decided comparisons that the sums order as they were judged; nothing where there are none."""
    decided = [pair for pair in data.pairs if pair.verdict]
    if not decided:
        return {}
    scores = ensemble.score(data.steps)
    margins = [scores[data.clips[pair.a]] - scores[data.clips[pair.b]] for pair in decided]
    return {name: float(hits(decided, margins).mean())}
