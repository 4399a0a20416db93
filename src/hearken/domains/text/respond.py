"""Responses of a text policy to prompts, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from hearken.domains.best_of import BestOf, Width, check_choice
from hearken.domains.text.sampling import best_of as best_of_n
from hearken.domains.text.sampling import open_frozen
from hearken.domains.text.sampling import sample as draw
from hearken.errors import UserError
from hearken.feedback.examples import Content
from hearken.progress import progress
from hearken.rollout.sampler import SamplingKeywords, SamplingParameters
from hearken.training.options import TextOptions


class SampleKeywords(SamplingKeywords, total=False):
    """Those of `SamplingParameters`, and how the best response is chosen."""

    pessimism: float
    width: Width


def sample(
    model: str | Path,
    prompts: Sequence[Content],
    n: int = 1,
    *,
    seed: int = 0,
    device: str = "auto",
    best_of: int = 1,
    reward: str | Path = "",
    **parameters: Unpack[SampleKeywords],
) -> list[list[str]]:
    """``n`` responses of a policy to each prompt.

    Args:
        model: a folder (an adapter's too) or Hub name.
        prompts: texts or dialogues; equal prompts get equal responses.
        n: responses per prompt.
        seed: the same seed gives the same responses on the same machine, whatever the other prompts.
        device: as in training.
        best_of: each response is the best by ``reward`` of so many.
        reward: what `--reward` takes.
        parameters: of `SamplingParameters`: max_new_tokens, temperature, top_p, top_k. Of the choice: ``pessimism``, so
            many widths of the reward model's confidence that are taken off each score; ``width``: ``linear`` (the
            default), ``heads`` or, of several reward models, ``models``.

    Raises:
        UserError: the model cannot be loaded, a prompt leaves no room for a response, ``best_of`` has no reward, or
            there is pessimism and nothing to choose.
    """
    pessimism, width = parameters.pop("pessimism", 0.0), parameters.pop("width", "linear")
    check_choice(best_of, pessimism)
    if best_of > 1 and not reward:
        raise UserError(
            f"the best of {best_of} needs a reward", "Name a reward model, or a function as module:function"
        )
    how = SamplingParameters.parse(dict(parameters), where="sample")
    policy = open_frozen(str(model), TextOptions(), device=device, reserve=how.max_new_tokens)
    texts: list[str] = []
    with progress("Sampling responses", len(prompts) * n, "response") as bar:
        parts = (
            best_of_n(policy, prompts, n, BestOf(best_of, str(reward), pessimism, width), how, seed)
            if best_of > 1
            else draw(policy, prompts, n, how, seed)
        )
        for part in parts:
            texts += [one.text for one in part]
            bar.advance(len(part))
    return [texts[i * n : (i + 1) * n] for i in range(len(prompts))]
