"""What a person's judgments say about their taste, and whether reward model and policy have learned it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hearken.domains.base import Scorer
from hearken.evaluation.results import read_evaluation
from hearken.evaluation.summary import HumanFigures
from hearken.feedback.examples import Content, content_key
from hearken.feedback.pairs import opinions
from hearken.labelers.simulated import dialogue_text
from hearken.loop import human
from hearken.loop.project import Project
from hearken.report.contents import Liking, OwnTaste
from hearken.statistics.intervals import Interval, clustered_wilson
from hearken.training.artifact import write_json

FILE = "taste.json"
"""In ``runs/``."""

FEW = 5
"""A trait on which fewer of the person's pairs differ is left out."""

Pair = tuple[Content, str, str]
"""Prompt, the response that was preferred, the other one."""


@dataclass(frozen=True)
class View:
    """What can be told apart in the answers of one world."""

    names: Mapping[str, str]
    """The traits of an answer, in words."""
    traits: Callable[[str, str], dict[str, float]]
    """(prompt, answer) -> how much it has of each."""
    gold: Callable[[str, str], float]
    """What the simulated labelers find an answer worth."""
    policies: tuple[str, str]
    """Before and after."""


def preferred(project: Project) -> tuple[list[Pair], list[Pair]]:
    """The pairs that people ordered, without ties: on training prompts, and on held-out ones."""
    with project.store() as store:
        prompts = {prompt.id: prompt for prompt in store.prompts()}
        texts = {response.id: response.content for response in store.responses()}
        found: tuple[list[Pair], list[Pair]] = ([], [])
        for pair in opinions(human.given(store)):
            if pair.verdict:
                prompt = prompts[pair.prompt]
                better, worse = (pair.a, pair.b) if pair.verdict > 0 else (pair.b, pair.a)
                found[prompt.split == "validation"].append((prompt.content, texts[better], texts[worse]))
    return found


def share(pairs: Sequence[Pair], of: Callable[[Pair], float]) -> tuple[Interval | None, int]:
    """How often the preferred one has more of something (``of`` is above 0), with its interval over prompts.

    Returns:
        The share, None where no pair differs; and how many pairs differ.
    """
    differing = [(content_key(pair[0]), value) for pair in pairs if (value := of(pair)) != 0]
    if not differing:
        return None, 0
    return clustered_wilson([float(v > 0) for _, v in differing], [p for p, _ in differing]), len(differing)


def measure(project: Project, view: View) -> OwnTaste:
    """The person's taste, what the reward model makes of it, and what became of the answers."""
    reward = project.artifact("r01-reward")
    given = human.record(project)
    assert reward is not None and given is not None
    judge = project.domain.scorer(str(reward.path), project.media)
    training, held_out = preferred(project)
    scored = _Scored(judge, [*training, *held_out])
    agreement, count = share(held_out, scored.lead)
    others, _ = share(held_out, lambda pair: _lead(view.gold, pair))
    evaluation = read_evaluation(project.path)
    answers = [evaluation.answers(name) for name in view.policies]
    prompts = evaluation.prompts
    before, after = (_means(view, prompts, texts) for texts in answers)
    # What the reward model likes is read off tales that nobody judged.
    fresh = [(p, a, b) for p, a, b in zip(prompts, *answers, strict=True) if a != b]
    judged = _Scored(judge, fresh)
    likes = [pair if judged.lead(pair) >= 0 else (pair[0], pair[2], pair[1]) for pair in fresh]

    likings = []
    for trait, name in view.names.items():

        def more(pair: Pair, trait: str = trait) -> float:
            return _lead(lambda prompt, text: view.traits(prompt, text)[trait], pair)

        person, pairs = share([*training, *held_out], more)
        if person is None or pairs < FEW:
            continue
        learned, _ = share(likes, more)
        likings.append(
            Liking(
                name=name, person=person, pairs=pairs, learned=learned, before=before[trait], after=after[trait],
            )
        )  # fmt: skip
    likings.sort(key=lambda liking: -abs(liking.person.estimate - 0.5))
    return OwnTaste(
        judgments=given["judgments"], needed=given["needed"], agreement=agreement, held_out=count, others=others,
        likings=likings,
    )  # fmt: skip


class _Scored:
    """The reward model's scores of the responses of some pairs."""

    def __init__(self, judge: Scorer, pairs: Sequence[Pair]) -> None:
        texts: dict[Content, dict[str, None]] = {}
        for prompt, a, b in pairs:
            texts.setdefault(prompt, {}).update({a: None, b: None})
        scores = judge(list(texts), [list(some) for some in texts.values()]) if texts else []
        self._of = {
            (prompt, text): score
            for (prompt, some), row in zip(texts.items(), scores, strict=True)
            for text, score in zip(some, row, strict=True)
        }

    def lead(self, pair: Pair) -> float:
        """By how much the first response scores above the second."""
        return self._of[pair[0], pair[1]] - self._of[pair[0], pair[2]]


def _lead(of: Callable[[str, str], float], pair: Pair) -> float:
    """By how much the first response of a pair has more of something."""
    prompt = dialogue_text(pair[0])
    return of(prompt, pair[1]) - of(prompt, pair[2])


def _means(view: View, prompts: Sequence[Content], texts: Sequence[str]) -> dict[str, float]:
    rows = [view.traits(dialogue_text(prompt), text) for prompt, text in zip(prompts, texts, strict=True)]
    return {name: math.fsum(row[name] for row in rows) / len(rows) for name in view.names}


def load(path: Path) -> OwnTaste | None:
    """What `summary` kept in a project folder; None where no person judged."""
    file = path / "runs" / FILE
    return OwnTaste.from_json(file.read_text("utf-8")) if file.exists() else None


def summary(project: Project, view: View) -> HumanFigures:
    """The person's taste in a few figures; measured once, and kept for the report."""
    found = load(project.path)
    if found is None:
        found = measure(project, view)
        write_json(project.path / "runs" / FILE, json.loads(found.to_json()))
    agreement, low, high = found.agreement or (None, None, None)
    return HumanFigures(
        judgments=found.judgments, needed=found.needed, held_out_pairs=found.held_out,
        agreement=agreement, agreement_low=low, agreement_high=high,
        likes={liking.name: liking.person.estimate for liking in found.likings},
    )  # fmt: skip
