"""A reward model of pictures from comparisons and rankings (Bradley and Terry, as Xu et al. 2023, ImageReward).

    loss = -E μ log σ(r(x_a, c) - r(x_b, c)) + (1 - μ) log σ(r(x_b, c) - r(x_a, c))       μ: 1, 0, ½ for a tie

Of a ranking of K pictures all its pairs count. The network is a pipeline's own (see `domains.image.rewarding`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hearken.algorithms.image_training import Figures, descend, encoded
from hearken.domains.base import find_domain
from hearken.domains.image.codec import Picture
from hearken.domains.image.domain import caption
from hearken.domains.image.rewarding import PictureReward
from hearken.domains.image.tensors import to_tensor
from hearken.errors import UserError
from hearken.feedback.examples import Comparison
from hearken.feedback.formats import read_examples
from hearken.feedback.media import MediaFolder
from hearken.feedback.pairs import Pair, example_pairs, hits, latest
from hearken.training.artifact import finish, hash_files

if TYPE_CHECKING:
    from hearken.algorithms.image_reward_options import PictureRewardConfig
    from hearken.algorithms.stage import Inputs
    from hearken.training.artifact import Artifact


class Compared(NamedTuple):
    """P pairs of pictures of one caption."""

    pairs: list[Pair]
    captions: list[str]
    pictures: dict[str, Picture]
    """By content."""


def run(inputs: Inputs, options: PictureRewardConfig, out: Path) -> Artifact:
    """Fit a reward model to ``inputs.data``, and write it to ``out``."""
    began, rng = time.monotonic(), torch.Generator().manual_seed(options.seed)
    train, held = read(inputs.data), read(inputs.validation)
    if not any(pair.verdict for pair in train.pairs):
        what = "no comparison prefers one of its pictures" if train.pairs else "there are no comparisons of pictures"
        raise UserError(f"{', '.join(inputs.data)}: {what}", "Have more compared: a reward is learnt from choices")
    torch.manual_seed(options.seed)
    model = PictureReward.of(inputs.model, options.hidden)
    model.train().requires_grad_(True)

    places = {content: number for number, content in enumerate(train.pictures)}
    pictures = to_tensor(list(train.pictures.values()), model.size)
    captions = list(dict.fromkeys(train.captions))
    conditions = encoded(model.denoiser, captions)
    words = torch.tensor([captions.index(one) for one in train.captions])
    sides = torch.tensor([[places[pair.a], places[pair.b]] for pair in train.pairs])
    outcomes = torch.tensor([pair.outcome for pair in train.pairs])

    def loss(step: int) -> tuple[Tensor, Figures]:
        some = torch.randint(len(sides), (options.batch_size,), generator=rng)
        scores = model(pictures[sides[some].T.flatten()], conditions.rows(words[some].repeat(2)))
        margins = scores[: len(some)] - scores[len(some) :]
        value = functional.binary_cross_entropy_with_logits(margins, outcomes[some].float())
        return value, {}

    figures = descend([model.net, model.head], options, out, "Reward model", loss)
    model.eval().save(out)
    figures |= accuracy(model, train, "train_accuracy") | accuracy(model, held, "accuracy")
    data = {"hash": hash_files(inputs.data), "judgments": len({pair.judgment for pair in train.pairs})}
    seconds = time.monotonic() - began
    return finish(out, options.stage, inputs=inputs, options=options, data=data, metrics=figures, seconds=seconds)


def read(paths: Sequence[str]) -> Compared:
    """The comparisons of some files, with the pictures that they are of.

    Raises:
        UserError: a picture is missing or damaged.
    """
    domain, found = find_domain("image"), Compared([], [], {})
    for path in paths:
        files = MediaFolder.beside(path)
        rows = [row for row in read_examples(path) if isinstance(row, Comparison)]
        for pair in latest(example_pairs(rows)):
            found.pairs.append(pair)
            found.captions.append(caption(rows[pair.judgment].prompt))
            for content in (pair.a, pair.b):
                if content not in found.pictures:
                    found.pictures[content] = domain.read(content, files)
    return found


def accuracy(model: PictureReward, data: Compared, name: str) -> Figures:
    """Share of the decided pairs that the scores order as they were judged; nothing where there are none."""
    decided = [(pair, words) for pair, words in zip(data.pairs, data.captions, strict=True) if pair.verdict]
    if not decided:
        return {}
    words = [one for _, one in decided]
    a, b = (model.score(words, [data.pictures[getattr(pair, side)] for pair, _ in decided]) for side in ("a", "b"))
    return {name: float(hits([pair for pair, _ in decided], np.array(a) - np.array(b)).mean())}
