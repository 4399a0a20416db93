"""Responses of a text policy to prompts: from content to text in one call."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hearken.domains.text.loading import open_policy
from hearken.feedback.examples import Content, content_key
from hearken.progress import progress
from hearken.rollout.native import NativeSampler
from hearken.rollout.sampler import SamplingParameters
from hearken.training.options import TextOptions, TrainingOptions


def prompt_seed(prompt: Content, seed: int) -> int:
    """The seed of a prompt's draws: the same whatever other prompts are sampled with it."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{content_key(prompt)}".encode()).digest()[:8], "big")


def sample(
    model: str | Path,
    prompts: Sequence[Content],
    n: int = 1,
    *,
    seed: int = 0,
    device: str = "auto",
    **parameters: Any,
) -> list[list[str]]:
    """``n`` responses of a policy to each prompt.

    Args:
        model: a folder (an adapter's too) or Hub name.
        prompts: texts or dialogues; equal prompts get equal responses.
        n: responses per prompt.
        seed: the same seed gives the same responses on the same machine.
        device: as in training.
        parameters: of `SamplingParameters`: max_new_tokens, temperature, top_p, top_k.

    Raises:
        UserError: the model cannot be loaded, or a prompt leaves no room for a response.
    """
    how = SamplingParameters.parse(parameters, where="sample")
    policy = open_policy(str(model), TrainingOptions(device=device), TextOptions(), reserve=how.max_new_tokens)
    ids = [policy.encoder.prompt(prompt, f"prompt {i}") or [] for i, prompt in enumerate(prompts, 1)]
    with progress("sample", len(prompts) * n, "response") as bar:
        seeds = [prompt_seed(prompt, seed) for prompt in prompts]
        found = NativeSampler(policy.scorer, policy.stop).sample(ids, n, how, seeds, bar.advance)
    texts = [policy.encoder.decode(one.tokens) for one in found]
    return [texts[i * n : (i + 1) * n] for i in range(len(prompts))]
