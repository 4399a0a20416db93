"""A labeler as a reward: ``--reward labeler:ai`` (RLAIF without a reward model; Lee et al. 2023; Guo et al. 2024).

A response's score is its mean probability of winning against the others to its prompt, each pair asked in both orders:
what online DPO, RLOO, GRPO and rft need, which compare the responses to one prompt. Settings come from the environment:
``HEARKEN_JUDGE`` (the model; its server as in `judges.open_judge`), ``HEARKEN_CONSTITUTION`` and
``HEARKEN_JUDGE_PER_MINUTE`` (most requests a minute). Replies are kept as those of `hearken label --with ai` are, so
that a resumed run asks nothing twice: in the project's ``runs/judge``, outside a project in ``HEARKEN_CACHE``.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

from hearken.config import cache_folder
from hearken.errors import UserError
from hearken.feedback.examples import Content, Message
from hearken.labelers.ai import AILabeler, Nonsense
from hearken.labelers.answering import Answers
from hearken.labelers.constitution import load_constitution
from hearken.labelers.judges import CachedJudge, open_judge
from hearken.rewards.terms import parse_terms

WORKERS = 4


def ai(prompts: list[str | list[dict[str, Any]]], responses: list[str], metadata: list[dict[str, Any]]) -> list[float]:
    """Mean probabilities of winning, 0..1; 0.5 for all responses to a prompt of which the judge says neither A nor B.

    Raises:
        UserError: no judge is named, it cannot be reached, it mostly answers nonsense, or a prompt has one response.
    """
    labeler = _labeler(
        os.environ.get("HEARKEN_JUDGE", ""), os.environ.get("HEARKEN_CONSTITUTION", "general"), _per_minute(), _folder()
    )
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
    answers = Answers()
    with ThreadPoolExecutor(WORKERS) as pool:
        for rows, wins in zip(numbers, pool.map(one, numbers), strict=True):
            answers.count(wins)
            if not isinstance(wins, str):
                for i, chance in zip(rows, wins, strict=True):
                    scores[i] = chance
    return scores


@lru_cache(maxsize=1)
def _labeler(judge: str, constitution: str, per_minute: float, folder: Path) -> AILabeler:
    if not judge:
        raise UserError(
            "labeler:ai: no judge is named", "Set HEARKEN_JUDGE to a model, and OPENAI_BASE_URL to its server"
        )
    opened = CachedJudge(open_judge(judge, per_minute=per_minute), folder)
    return AILabeler(opened, load_constitution(constitution))


def _per_minute() -> float:
    given = os.environ.get("HEARKEN_JUDGE_PER_MINUTE", "0")
    try:
        return float(given)
    except ValueError:
        raise UserError(f"HEARKEN_JUDGE_PER_MINUTE={given} is not a number", "0 is no limit") from None


def _folder() -> Path:
    """Where replies are kept."""
    inside = Path("hearken.yaml").is_file()
    return Path("runs").resolve() / "judge" if inside else cache_folder("judge")


def requests(reward: str, options: Any) -> int:
    """How often a stage that samples will ask the judge at most: every pair of responses to a prompt, in both orders.

    Args:
        reward: as given to ``--reward``.
        options: of the stage: ``episodes``, ``batch`` and ``samples``.
    """
    asked = sum(term.name == f"{__name__}:ai" for term in parse_terms(reward))
    episodes = max(options.episodes // options.batch_size, 1) * options.batch_size
    return asked * episodes * (options.num_generations - 1)
