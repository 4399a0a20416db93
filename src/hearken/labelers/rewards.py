"""A labeler as a reward: ``--reward labeler:ai`` (RLAIF without a reward model; Lee et al. 2023; Guo et al. 2024).

A response's score is its mean probability of winning against the others to its prompt, each pair asked in both orders:
what online DPO, RLOO, GRPO and rft need, which compare the responses to one prompt. Settings come from the environment:
``HEARKEN_JUDGE`` (the model; its server as in `judges.open_judge`) and ``HEARKEN_CONSTITUTION``.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import groupby
from typing import Any

from hearken.errors import UserError
from hearken.feedback.examples import Content, Message
from hearken.labelers.ai import AILabeler, Nonsense
from hearken.labelers.answering import Patience
from hearken.labelers.constitution import load_constitution
from hearken.labelers.judges import open_judge

WORKERS = 4


def ai(prompts: list[str | list[dict[str, Any]]], responses: list[str], metadata: list[dict[str, Any]]) -> list[float]:
    """Mean probabilities of winning, 0..1; 0.5 for all responses to a prompt of which the judge says neither A nor B.

    Raises:
        UserError: no judge is named, it cannot be reached, it mostly answers nonsense, or a prompt has one response.
    """
    labeler = _labeler(os.environ.get("HEARKEN_JUDGE", ""), os.environ.get("HEARKEN_CONSTITUTION", "general"))
    numbers = [list(same) for _, same in groupby(range(len(prompts)), key=lambda i: repr(prompts[i]))]
    if min(map(len, numbers)) < 2:
        raise UserError("labeler:ai compares the responses to one prompt", "Set samples to 2 or more")

    def one(rows: list[int]) -> tuple[float, ...] | str:
        said = prompts[rows[0]]
        content: Content = said if isinstance(said, str) else tuple(Message(**turn) for turn in said)
        try:
            return labeler.judge(content, [responses[i] for i in rows], 0).wins
        except Nonsense as nonsense:
            return str(nonsense)

    scores = [0.5] * len(responses)
    patience = Patience()
    with ThreadPoolExecutor(WORKERS) as pool:
        for rows, wins in zip(numbers, pool.map(one, numbers), strict=True):
            patience.count(wins if isinstance(wins, str) else None)
            if not isinstance(wins, str):
                for i, chance in zip(rows, wins, strict=True):
                    scores[i] = chance
    return scores


@lru_cache(maxsize=1)
def _labeler(judge: str, constitution: str) -> AILabeler:
    if not judge:
        raise UserError(
            "labeler:ai: no judge is named", "Set HEARKEN_JUDGE to a model, and OPENAI_BASE_URL to its server"
        )
    return AILabeler(open_judge(judge), load_constitution(constitution))
