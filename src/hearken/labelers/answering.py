"""An AI labeler at work on the feedback database: what it costs, its answers and revisions, whom it agrees with."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from hearken.errors import UserError
from hearken.feedback.analysis import Book, agreement_with_people
from hearken.feedback.examples import Content
from hearken.feedback.records import (
    Claim,
    CritiquePayload,
    EditPayload,
    Judgment,
    Response,
    SkipPayload,
    hash_id,
)
from hearken.feedback.records import Labeler as LabelerRecord
from hearken.feedback.store import FeedbackStore
from hearken.labelers.ai import AILabeler, Nonsense, Opinion
from hearken.labelers.protocol import Ranking
from hearken.progress import progress

CHARACTERS_PER_TOKEN = 4.0
OVERHEAD_TOKENS = 80
"""Of the question around prompt, responses and principle."""
PATIENCE = 8
"""Answers to wait for before a judge that mostly answers nonsense is refused."""
BY_PLACE = 0.9
"""Share of choices for one place from which a judge is said to go by it."""


@dataclass(frozen=True)
class Cost:
    """What answering the queue will take, estimated."""

    items: int
    requests: int
    prompt_tokens: int
    completion_tokens: int
    price: float
    """In the currency of the prices given; 0 where none are."""
    what: str = "comparisons"

    def say(self) -> str:
        """In one line."""
        tokens = f"about {self.prompt_tokens:,} tokens in, at most {self.completion_tokens:,} out"
        price = f", about {self.price:.2f}" if self.price else ""
        return f"{self.items:,} {self.what}, {self.requests:,} requests: {tokens}{price}"


def estimate(
    store: FeedbackStore,
    *,
    tokens_out: int = 4,
    round: int | None = None,
    price_in: float = 0.0,
    price_out: float = 0.0,
    only: Collection[str] | None = None,
) -> Cost:
    """What the open comparisons will take, before anything is asked.

    Args:
        store: the feedback database.
        tokens_out: most tokens of an answer.
        round: only of this round.
        price_in: of a million tokens read.
        price_out: of a million tokens written.
        only: the items that are asked; None means all that are open.
    """
    asked: list[tuple[int, list[int]]] = []
    texts: dict[str, Response] = {}
    for item in store.items(round=round, done=False):
        if item.kind != "comparison" or (only is not None and item.id not in only):
            continue
        texts = texts or {r.id: r for r in store.responses(round=round)}
        lengths = [len(texts[i].text) if i in texts else 400 for i in item.response_ids]
        asked.append((length(store.prompt(item.prompt_id).content), lengths))
    return cost_of(asked, tokens_out, price_in, price_out)


def cost_of(
    asked: Sequence[tuple[int, Sequence[int]]],
    tokens_out: int,
    price_in: float = 0.0,
    price_out: float = 0.0,
    *,
    items: int | None = None,
) -> Cost:
    """What comparisons will take.

    Args:
        asked: of each, the characters of its prompt and of its responses.
        tokens_out: see `estimate`, as are the prices.
        price_in: likewise.
        price_out: likewise.
        items: how many there are in all, where ``asked`` is a sample of them.
    """
    requests = inside = 0
    for prompt, lengths in asked:
        pairs = len(lengths) * (len(lengths) - 1)  # in both orders
        characters = (len(lengths) - 1) * 2 * sum(lengths) + pairs * prompt
        requests += pairs
        inside += math.ceil(characters / CHARACTERS_PER_TOKEN) + pairs * OVERHEAD_TOKENS
    if items is not None:
        requests, inside = (round(n * items / len(asked)) for n in (requests, inside))
    outside = requests * tokens_out
    price = (inside * price_in + outside * price_out) / 1e6
    return Cost(len(asked) if items is None else items, requests, inside, outside, price)


def length(content: Content) -> int:
    """Characters of a prompt."""
    return len(content) if isinstance(content, str) else sum(len(m.content) for m in content)


def _people(store: FeedbackStore) -> set[str]:
    """Ids of labelers that are people, here or where judgments were imported from."""
    return {r.id for kind in ("person", "import") for r in store.labelers(kind=kind)}


def register(store: FeedbackStore, labeler: AILabeler) -> str:
    """The labeler's id in the database, where it is entered once."""
    record = LabelerRecord(name=labeler.name, kind="ai", id=labeler.id, attributes=dict(labeler.attributes))
    return store.add_labeler(record).id


@dataclass
class Answers:
    """Counts what a judge answers: nonsense, and how often it names the response that is shown first."""

    asked: int = 0
    nonsense: int = 0
    example: str = ""
    choices: int = 0
    first: int = 0

    def count(self, answer: Ranking | Sequence[float] | str | None) -> None:
        """One more answer; a text is the nonsense that was said.

        Raises:
            UserError: most answers so far were nonsense.
        """
        self.asked += 1
        if isinstance(answer, str):
            self.nonsense += 1
            self.example = answer
        if isinstance(answer, Opinion):
            self.choices += len(answer.odds)
            self.first += sum(odds > 0 for odds in answer.odds.values())
        if self.asked >= PATIENCE and self.nonsense > self.asked / 2:
            raise UserError(
                f"the judge answered {self.nonsense} of {self.asked} questions with neither A nor B, "
                f"for example {self.example.strip()[:80]!r}",
                "Use a larger or instruction-tuned judge; what it did judge is kept",
            )

    def figures(self) -> dict[str, float]:
        """``shown_first``: the share of its choices, each pair in both orders, that name the response shown first.

        Without a favour for a place it is one half. Where place decides nearly everything, that is warned of: both
        orders are averaged, so that only *how much* more likely it found a letter is left to tell the responses apart.
        """
        if not self.choices:
            return {}
        share = self.first / self.choices
        if self.choices >= 2 * PATIENCE and max(share, 1 - share) >= BY_PLACE:
            warnings.warn(
                f"the judge names the response shown {'first' if share > 0.5 else 'second'} in "
                f"{max(share, 1 - share):.0%} of its {self.choices} answers, whatever they say: trust its judgments "
                "only as far as people agree with them, or use a larger judge",
                stacklevel=2,
            )
        return {"shown_first": share}


def claim_some(store: FeedbackStore, labeler_id: str, n: int, only: Collection[str] | None) -> list[Claim]:
    """Up to ``n`` comparisons for a machine; where ``only`` some are meant, these must have the highest priority."""
    claims = store.claim(labeler_id, n=n, kinds=("comparison",))
    if only is None:
        return claims
    for claim in claims:
        if claim.item.id not in only:
            store.release(claim.item.id, labeler_id)
    return [claim for claim in claims if claim.item.id in only]


def answer_queue(
    store: FeedbackStore, labeler: AILabeler, *, seed: int = 0, workers: int = 4, round: int | None = None,
    only: Collection[str] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Let the labeler judge all open comparisons (or ``only`` some); interrupted work goes on where it was.

    An item it cannot judge is skipped (another labeler gets it) and counted.

    Returns:
        Figures: judgments made, items skipped, how often the response shown first was named, and the agreement with
        people on what both judged.

    Raises:
        UserError: the judge cannot be reached, or mostly answers nonsense.
    """
    labeler_id = register(store, labeler)
    done = 0
    answers = Answers()
    open_items = [i for i in store.items(round=round, done=False) if only is None or i.id in only]
    waiting = sum(i.slots - i.filled for i in open_items)
    with ThreadPoolExecutor(workers) as pool, progress("AI labeler", waiting, "judgment") as bar:
        while claims := claim_some(store, labeler_id, 2 * workers, only):

            def one(claim: Claim) -> Opinion | str:
                try:
                    return labeler.judge(claim.prompt.content, [r.text for r in claim.responses], seed)
                except Nonsense as nonsense:
                    return str(nonsense)

            for claim, found in zip(claims, pool.map(one, claims), strict=True):
                store.submit(_answer(claim, found, labeler_id, seed))
                done += isinstance(found, Opinion)
                bar.advance(1)
                answers.count(found)
    figures = {"labeler": labeler.name, "judgments": done, "skipped": answers.nonsense} | answers.figures()
    return figures | agreement(store, labeler_id)


def _answer(claim: Claim, found: Opinion | str, labeler_id: str, seed: int) -> Judgment:
    """The judgment that the database keeps."""
    common: dict[str, Any] = {
        "id": hash_id("ai", claim.item.id, labeler_id), "prompt_id": claim.prompt.id, "labeler_id": labeler_id,
        "item_id": claim.item.id, "order_seed": seed,
    }  # fmt: skip
    if isinstance(found, str):
        return Judgment(payload=SkipPayload(reason=f"neither A nor B: {found[:200]}"), **common)
    return Judgment(
        payload=found.payload([r.id for r in claim.responses]), order=found.order, metadata=found.metadata, **common
    )


@dataclass(frozen=True)
class Draft:
    """A response to be rewritten, and what people said of it."""

    response: Response
    prompt: Content
    critiques: tuple[str, ...]


def drafts(
    store: FeedbackStore, labeler_id: str | None = None, round: int | None = None, domain: str | None = None
) -> list[Draft]:
    """What is to be revised in the training prompts: every response that people criticised, else each prompt's first.

    Args:
        store: the feedback database.
        labeler_id: what this labeler has revised is left out; None: what any AI labeler has.
        round: only responses of this round.
        domain: only of this one.
    """
    authors = {labeler_id} if labeler_id else {r.id for r in store.labelers(kind="ai")}
    people = _people(store)
    done: set[str] = set()
    said: dict[str, list[str]] = {}
    for judgment in store.judgments(kinds=("critique", "edit", "skip"), split="train"):
        if judgment.labeler_id in authors:
            done.add(judgment.id)
        elif judgment.labeler_id in people and isinstance(judgment.payload, CritiquePayload):
            said.setdefault(judgment.payload.response_id, []).append(judgment.payload.text)
    prompts = {p.id: p.content for p in store.prompts(split="train", domain=domain)}
    every = [r for r in store.responses(split="train", round=round) if r.prompt_id in prompts]
    blamed = {r.prompt_id for r in every if r.id in said}
    chosen: dict[str, Draft] = {}
    for response in every:
        critiques = tuple(said.get(response.id, ()))
        if critiques or response.prompt_id not in blamed:
            key = response.id if critiques else response.prompt_id
            chosen.setdefault(key, Draft(response, prompts[response.prompt_id], critiques))
    names = [(kind, author) for kind in ("edit", "skip") for author in authors]
    return [
        draft
        for draft in chosen.values()
        if not any(_revision_id(kind, draft.response, author) in done for kind, author in names)
    ]


def estimate_revisions(
    store: FeedbackStore,
    *,
    tokens_out: int,
    round: int | None = None,
    price_in: float = 0.0,
    price_out: float = 0.0,
    domain: str | None = None,
) -> Cost:
    """What `revise` will take, before anything is asked; see `estimate`."""
    todo = drafts(store, round=round, domain=domain)
    requests = inside = 0
    for draft in todo:
        size = math.ceil((length(draft.prompt) + len(draft.response.text)) / CHARACTERS_PER_TOKEN) + OVERHEAD_TOKENS
        if draft.critiques:
            requests, inside = requests + 1, inside + size + math.ceil(sum(map(len, draft.critiques)) / 4)
        else:  # asked for a critique first, which is then read again
            requests, inside = requests + 2, inside + 2 * size + tokens_out
    outside = requests * tokens_out
    price = (inside * price_in + outside * price_out) / 1e6
    return Cost(len(todo), requests, inside, outside, price, what="responses to revise")


def revise(
    store: FeedbackStore, labeler: AILabeler, *, seed: int = 0, workers: int = 4, round: int | None = None,
    domain: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Rewrite responses of the training prompts: as people's critiques ask where there are any (Scheurer et al. 2023).

    Else one response of each prompt is criticised by a principle first (Constitutional AI's first stage). Critique and
    edit are judgments: the edited text is a demonstration, and better than the original.

    Returns:
        Figures: revisions made, how many of them heed people's critiques, responses for which the judge gave none, and
        revisions that changed nothing; and the labeler's agreement with people on pairs, where it has judged any.
    """
    labeler_id = register(store, labeler)
    counts = {"revisions": 0, "heeded": 0, "no_answer": 0, "unchanged": 0}
    answers = Answers()

    def one(draft: Draft) -> tuple[str, str, str] | None:
        try:
            if draft.critiques:
                return "", labeler.heed(draft.prompt, draft.response.text, draft.critiques), ""
            critique, revision, principle = labeler.critique(draft.prompt, draft.response.text, seed)
            return critique or "-", revision, principle.id
        except Nonsense:
            return None

    todo = drafts(store, labeler_id, round, domain)
    with ThreadPoolExecutor(workers) as pool, progress("AI revisions", len(todo), "response") as bar:
        for start in range(0, len(todo), 4 * workers):
            part = todo[start : start + 4 * workers]
            for draft, found in zip(part, pool.map(one, part), strict=True):
                store.submit_all(_revision(draft.response, found, labeler_id))
                unchanged = found is not None and found[1] == draft.response.text
                counts["no_answer" if found is None else "unchanged" if unchanged else "revisions"] += 1
                counts["heeded"] += bool(draft.critiques) and found is not None and not unchanged
                bar.advance(1)
                answers.count("" if found is None else None)
    return {"labeler": labeler.name} | counts | agreement(store, labeler_id)


def _revision_id(kind: str, response: Response, labeler_id: str) -> str:
    return hash_id("ai", kind, response.id, labeler_id)


def _revision(response: Response, found: tuple[str, str, str] | None, labeler_id: str) -> list[Judgment]:
    """The judgments of a revision: its own critique, where it made one, and the edit."""

    def made(kind: str, payload: Any, **more: Any) -> Judgment:
        return Judgment(
            id=_revision_id(kind, response, labeler_id), prompt_id=response.prompt_id, labeler_id=labeler_id,
            payload=payload, **more,
        )  # fmt: skip

    if found is None:
        return [made("skip", SkipPayload(reason="no revision"))]
    critique, revision, principle = found
    edit = EditPayload(response_id=response.id, text=revision)
    if not principle:
        return [made("edit", edit, metadata={"heeds": "people"})]
    metadata = {"principle": principle}
    return [
        made("critique", CritiquePayload(response_id=response.id, text=critique), metadata=metadata),
        made("edit", edit, metadata=metadata),
    ]


# -- agreement ------------------------------------------------------------------------------------------------------


def agreement(store: FeedbackStore, labeler_id: str) -> dict[str, Any]:
    """How far an AI labeler agrees with people, as `analysis.PeopleAgreement.figures` says it."""
    return agreement_with_people(Book.load(store), labeler_id).figures()


def say(found: dict[str, Any]) -> str:
    """A sentence about an AI labeler's agreement with people."""
    if not found.get("overlap"):
        return "No pair was judged by people too: how far this labeler agrees with them is unknown"
    kappa, low, high = (found.get(name, math.nan) for name in ("kappa", "kappa_low", "kappa_high"))
    return f"Agreement with people on {found['overlap']} pairs: kappa {kappa:.2f} [{low:.2f}, {high:.2f}]"
