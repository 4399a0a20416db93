"""What a round asks and what it is told: responses of its policies, those to be judged, and the judgments."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hearken.algorithms.stage import Inputs
from hearken.config import Options
from hearken.errors import UserError
from hearken.feedback.analysis import Book, agreement_with_people
from hearken.feedback.pairs import opinions
from hearken.feedback.records import Prompt, QueueItem, Response, hash_id
from hearken.feedback.selection import SelectionPolicy, by_weight
from hearken.feedback.store import FeedbackStore
from hearken.labelers.kinds import KINDS, Who
from hearken.loop.acquisition import disputed, low_score, pair_disagreement, score_all
from hearken.loop.asking import ask
from hearken.loop.project import Project, SampleConfig, as_items, as_responses
from hearken.loop.rounds_options import Selection, Source
from hearken.loop.step_cache import DataAndMetrics, write_lines
from hearken.progress import progress
from hearken.rewards.trust import failing
from hearken.statistics.agreement import raw_agreement, value_counts
from hearken.statistics.intervals import cluster_index
from hearken.training.artifact import Artifact, hash_files

if TYPE_CHECKING:
    from hearken.loop.rounds import Loop

ITEMS = "items.jsonl"


class SamplesOptions(SampleConfig):
    """What a round asks."""

    seed: int
    prompts: int
    held_out: int
    labelers: dict[Who, float]
    select: Selection
    uniform: float
    candidates: float
    mix: dict[Source, float] = {"newest": 1.0}


class JudgmentsOptions(Options):
    """Whom it asks."""

    seed: int
    labelers: dict[Who, float]
    enough: float


def samples(loop: Loop, number: int) -> Artifact:
    """Responses of the newest policy or a mix, and which of them shall be judged: ``items.jsonl`` of the artifact."""
    config, sampling = loop.config, loop.project.config.sample
    options = SamplesOptions(
        **sampling.model_dump(), seed=loop.project.config.seed + number, prompts=config.prompts,
        held_out=config.held_out, labelers=config.labelers, select=config.select if number > 1 else "uniform",
        uniform=config.uniform, candidates=config.candidates, mix=config.mix,
    )  # fmt: skip
    policy, name = loop.policy(number - 1), f"r{number:02d}-samples"
    others = {"earlier": loop.policy(max(number - 2, 0)), "reference": loop.policy(0)}
    shares: dict[str, float] = {}
    for source, share in config.mix.items():
        shares[others.get(source, policy)] = shares.get(others.get(source, policy), 0.0) + share
    read: dict[str, str] = {}
    if options.select in ("disagreement", "low-score"):
        members = range(config.ensemble if options.select == "disagreement" else 1)
        read = {f"reward {m + 1}": loop.reward_path(number - 1, m) for m in members}
    rewards = list(read.values())
    read |= {f"policy {n + 1}": path for n, path in enumerate(shares) if path != policy}

    def make(out: Path) -> DataAndMetrics:
        with loop.project.store() as store:
            chosen = _train_items(loop.project, store, number, shares, options, rewards)
            held = _held_out_items(loop.project, store, number, {policy: 1.0}, options)
        items = _share_out(loop, [*chosen, *held], number)
        write_lines(out / ITEMS, [item.model_dump(mode="json") for item in items])
        data = {"hash": hash_files((str(out / ITEMS),)), "items": len(items), "held_out": len(held)}
        rules = {item.selection for item in chosen}
        return data, {"asked": sum(i.slots for i in items)} | {
            f"chosen_{rule}": sum(i.selection == rule for i in chosen) for rule in sorted(rules)
        }

    return loop.once.record(name, "samples", Inputs(model=policy, parents=read), options, make, number)


def _answers(
    project: Project, store: FeedbackStore, prompts: Sequence[Prompt], number: int, shares: Mapping[str, float],
    options: SamplesOptions,
) -> dict[str, list[Response]]:  # fmt: skip
    """``k`` responses to each prompt, by prompt id; of which policy each is, is drawn by the shares."""
    policies, total = list(shares), sum(shares.values())
    drawn: dict[tuple[int, int], list[Prompt]] = {}
    for prompt in prompts:
        rng = np.random.default_rng([options.seed, 3, zlib.crc32(prompt.id.encode())])
        counts = rng.multinomial(options.k, [share / total for share in shares.values()])
        for place, count in enumerate(counts.tolist()):
            if count:
                drawn.setdefault((place, count), []).append(prompt)
    found: dict[str, list[Response]] = {prompt.id: [] for prompt in prompts}
    for (place, count), some in sorted(drawn.items(), key=lambda one: one[0]):
        sampled = _sampled(project, store, some, number, policies[place], count, options)
        for prompt_id, responses in sampled.items():
            found[prompt_id] += responses
    return found


def _sampled(
    project: Project, store: FeedbackStore, prompts: Sequence[Prompt], number: int, policy: str, k: int,
    options: SamplesOptions,
) -> dict[str, list[Response]]:  # fmt: skip
    """``k`` responses of the policy to each prompt, in order, by prompt id; those that are stored stay."""
    domain, how, label = project.domain, project.how, Path(policy).name
    found: dict[str, list[Response]] = {}
    for response in store.responses(policy=label, round=number):
        if not response.metadata:  # those of an online policy's own training say at which step
            found.setdefault(response.prompt_id, []).append(response)
    todo = {p.content: p for p in prompts if len(found.get(p.id, ())) < k}
    if todo:
        facts = {content: prompt.metadata for content, prompt in todo.items()}
        with progress("Sampling responses", len(todo), "prompt") as bar:
            for part in domain.sample(policy, list(todo), k, how, options.seed, project.media, facts=facts):
                responses = as_responses(domain, part, todo, label, how, number)
                store.add_responses(responses)
                for i in range(0, len(responses), k):
                    found[responses[i].prompt_id] = responses[i : i + k]
                bar.advance(len(part) // k)
    return {p.id: sorted(found[p.id], key=lambda r: r.sample)[:k] for p in prompts}


def _train_items(
    project: Project,
    store: FeedbackStore,
    number: int,
    shares: Mapping[str, float],
    options: SamplesOptions,
    rewards: Sequence[str],
) -> list[QueueItem]:
    """Items on training prompts, those first that were never asked about; a rule leaves a part to chance.

    That part is drawn before the rule's, and from all training prompts: figures from it are then of all of them.
    """
    prompts = {p.id: p for p in store.prompts(split="train", domain=project.domain.name)}
    if not prompts:
        raise UserError("no training prompts in the database", "Bring some in: hearken import prompts.jsonl")
    every, by_rule = sorted(prompts), options.select != "uniform"
    wanted = min(options.prompts or len(every), len(every))
    asked = {item.prompt_id for item in store.items() if (item.round or 0) < number}
    rng = np.random.default_rng([options.seed, 1])

    def unasked(some: list[str], enough: int) -> list[str]:
        new = [p for p in some if p not in asked]
        return new if len(new) >= enough else some

    first = math.ceil(options.uniform * wanted) if by_rule else wanted
    source = every if by_rule else unasked(every, wanted)
    chosen: dict[str, tuple[SelectionPolicy, float]] = {
        source[i]: ("uniform", first / len(source)) for i in rng.permutation(len(source))[:first]
    }
    if by_rule and first < wanted:
        rest = [p for p in every if p not in chosen]
        if options.select == "disputed":
            weights = disputed(store, number)
            pool = [p for p in rest if p in weights]
            chance, worth = 1.0, np.array([weights[p] for p in pool])
        else:
            eligible = unasked(rest, wanted - first)
            size = math.ceil((wanted - first) * options.candidates)
            pool = [eligible[i] for i in rng.permutation(len(eligible))[:size]]
            chance = len(pool) / len(eligible)
            answers = _answers(project, store, [prompts[p] for p in pool], number, shares, options)
            pool = [p for p in pool if len({r.content for r in answers[p]}) > 1]
            scored = [prompts[p] for p in pool], [answers[p] for p in pool]
            worth = _weights(project, options.select, rewards, *scored) if pool else np.array([])
        for choice in by_weight(worth, wanted - first, rng, options.select):
            chosen[pool[choice.index]] = (choice.selection, choice.propensity * chance)
    answers = _answers(project, store, [prompts[p] for p in chosen], number, shares, options)
    items = []
    for prompt, (selection, propensity) in chosen.items():
        items += as_items(
            answers[prompt], options.k, number, options.overlap, selection=selection, propensity=propensity
        )
    return items


def _weights(
    project: Project,
    rule: SelectionPolicy,
    rewards: Sequence[str],
    prompts: Sequence[Prompt],
    answers: Sequence[Sequence[Response]],
) -> NDArray[np.float64]:
    scorers = (project.domain.scorer(reward, project.media) for reward in rewards)
    scores = score_all(scorers, [p.content for p in prompts], answers)
    if rule == "disagreement":
        return pair_disagreement(scores)
    return low_score(np.array([float(s[0].mean()) for s in scores]))


def _held_out_items(
    project: Project, store: FeedbackStore, number: int, shares: Mapping[str, float], options: SamplesOptions
) -> list[QueueItem]:
    """Items on the same uniformly drawn held-out prompts in every round."""
    prompts = sorted(store.prompts(split="validation", domain=project.domain.name), key=lambda p: p.id)
    if not prompts:
        raise UserError("no held-out prompts in the database", "Import prompts with a validation split")
    project_seed = options.seed - number  # the same prompts in every round
    order = np.random.default_rng(project_seed).permutation(len(prompts))[: options.held_out]
    chosen = [prompts[i] for i in order]
    answers = _answers(project, store, chosen, number, shares, options)
    share = len(chosen) / len(prompts)
    return [i for p in chosen for i in as_items(answers[p.id], options.k, number, options.overlap, propensity=share)]


def _share_out(loop: Loop, items: Sequence[QueueItem], number: int) -> list[QueueItem]:
    """Say of each item who is asked: each sort of labelers gets its share, at random."""
    shares = loop.config.labelers
    who = list(shares)
    total = sum(shares.values())
    rng = np.random.default_rng([loop.project.config.seed + number, 2])
    drawn = rng.choice(len(who), size=len(items), p=[shares[w] / total for w in who])
    return [
        item.model_copy(update={"metadata": item.metadata | {"asked": who[i]}})
        for item, i in zip(items, drawn.tolist(), strict=True)
    ]


def judgments(loop: Loop, number: int) -> Artifact:
    """Ask, wait until enough is answered, and pin what was said: ``as_of`` of the artifact's data."""
    config = loop.config
    options = JudgmentsOptions(seed=loop.project.config.seed + number, labelers=config.labelers, enough=config.enough)
    source, out = str(loop.project.artifacts / f"r{number:02d}-samples"), f"r{number:02d}-judgments"
    if loop.redo and _more_was_said(loop, number, loop.project.artifact(out)):
        loop.once.set_aside(number, loop.project.artifacts / out)

    def make(_: Path) -> DataAndMetrics:
        items = [QueueItem(**json.loads(row)) for row in (Path(source) / ITEMS).read_text("utf-8").splitlines()]
        for who in ("simulated", "ai", "people"):  # machines first: people may take their time
            mine = [item for item in items if item.metadata["asked"] == who]
            ask(
                loop.project, mine, who, label=f"Round {number}: waiting for judgments",
                wait=loop.wait, seed=options.seed, announce=loop.announce, relieved=loop.relieved,
            )  # fmt: skip
        with loop.project.store() as store:
            return heard(store, number)

    return loop.once.record(out, "judgments", Inputs(parents={"samples": source}), options, make, number)


def _more_was_said(loop: Loop, number: int, judgments: Artifact | None) -> bool:
    """Whether the round's reward model fails its card, and there are judgments that it has not seen."""
    if judgments is None or (loop.project.artifacts / f"r{number + 1:02d}-samples").exists():
        return False
    with loop.project.store() as store:
        more = store.last_seq() > judgments.as_of
    return more and bool(failing(Path(loop.reward_path(number))))


def heard(store: FeedbackStore, number: int) -> DataAndMetrics:
    """What a round was told: the pin of its data, and figures.

    Returns:
        ``as_of``, ``hash`` over the ids of the judgments, ``labelers``, ``guidelines``; and counts, ties, the
        labelers' agreement on pairs that several judged (None where there are none), seconds a judgment, and how far
        each model among the labelers agrees with people on all that both have judged so far.
    """
    as_of = store.last_seq()
    kinds = {labeler.id: labeler.kind for labeler in store.labelers()}
    found = list(store.judgments(kinds=("comparison",), round=number, as_of=as_of))
    pairs = opinions(found)
    verdicts = [pair.verdict + 1 for pair in pairs]
    agreed = raw_agreement(value_counts(cluster_index([(p.a, p.b) for p in pairs], len(pairs)), verdicts, 3), n=1)
    ais = sorted({j.labeler_id for j in found if kinds.get(j.labeler_id) == "ai"})
    book = Book.load(store) if ais else None
    seconds = sorted(j.seconds for j in found if j.seconds is not None)
    who = [next((w for w, some in KINDS.items() if kinds.get(j.labeler_id) in some), "people") for j in found]
    data = {
        "round": number, "as_of": as_of, "hash": hash_id(sorted(j.id for j in found)), "judgments": len(found),
        "labelers": sorted({j.labeler_id for j in found}),
        "guidelines": sorted({j.guideline for j in found if j.guideline is not None}),
    }  # fmt: skip
    return data, {
        "judgments": len(found),
        "by": {w: who.count(w) for w in sorted(set(who))},
        "ties": verdicts.count(1) / len(verdicts) if verdicts else None,
        "agreement": agreed.estimate if math.isfinite(agreed.estimate) else None,
        "seconds_median": seconds[len(seconds) // 2] if seconds else None,
        "ai": {name: agreement_with_people(book, name).figures() for name in ais if book},
    }
