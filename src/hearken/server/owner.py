"""The owner's pages: how far, how good, by whom, for whom, and which policy is ahead. Viewers may look, owners change.

Figures are those of `feedback.analysis`; what changes something goes through the HTTP API, or the few routes below.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import FileResponse
from pydantic import Field
from starlette.background import BackgroundTask
from starlette.responses import HTMLResponse
from starlette.responses import Response as HTTPResponse

from hearken.evaluation.numbers import MISSING, duration, fixed, number, percent, with_interval
from hearken.feedback import analysis as data
from hearken.feedback.analysis import ADJUDICATION, Agreement, Book, PolicyComparison
from hearken.feedback.examples import Content
from hearken.feedback.formats.files import write_rows
from hearken.feedback.media import MediaFolder, Viewer
from hearken.feedback.records import ComparisonPayload, Judgment, Prompt, utc_now
from hearken.feedback.records import Response as Stored
from hearken.feedback.transfer import EXPORT_LAYOUTS, export
from hearken.loop import maintenance
from hearken.loop.project import CONFIG, Project
from hearken.report import charts
from hearken.report.charts import Bar, Reference, Series
from hearken.server.api import desk_of
from hearken.server.labeler import shown_file
from hearken.server.owner_cache import Made, pages_of
from hearken.server.pages import page, person
from hearken.server.render import to_html
from hearken.server.security import ApiError, Manager, Who, store_of
from hearken.server.settings import load
from hearken.server.tasks import Model, viewer_of
from hearken.statistics.intervals import Interval
from hearken.training.artifact import MANIFEST

router = APIRouter(include_in_schema=False)

LATELY = 600.0
"""Seconds after which a training run that wrote nothing is taken for interrupted."""

Weighting = Literal["none", "reliability", "population"]
Suffix = Literal["jsonl", "json", "csv", "parquet"]

SECTIONS = (
    ("/owner", "Progress"),
    ("/owner/agreement", "Agreement"),
    ("/owner/labelers", "Labelers"),
    ("/owner/coverage", "Coverage"),
    ("/owner/leaderboard", "Leaderboard"),
    ("/owner/responses", "Responses"),
    ("/owner/export", "Export"),
)
MANAGING = (
    ("/owner/people", "People"),
    ("/owner/guidelines", "Guidelines"),
    ("/owner/settings", "Settings"),
    ("/owner/audit", "Audit trail"),
)
LAYOUTS = {
    "pairs": "prompt, chosen, rejected: for reward models, DPO, IPO",
    "implicit": "chosen and rejected, the prompt inside both",
    "hh": "dialogues as in HH-RLHF",
    "rankings": "all K responses with their ranks, ties and all",
    "binary": "prompt, completion, label: for KTO",
    "sft": "demonstrations and edits, for fine-tuning",
    "messages": "the same as lists of messages",
    "ratings": "ratings by attribute",
    "prompts": "the prompts alone",
    "raw": "everything with its ids, to import again",
}


def looking(request: Request) -> Who:
    """Owners and viewers."""
    return person(request, "owner", "viewer")


def managing(request: Request) -> Who:
    """Owners."""
    return person(request, "owner")


Looker = Annotated[Who, Depends(looking)]
Owner = Annotated[Who, Depends(managing)]


def _show(
    request: Request, who: Who, template: str, title: str, made: Made[Any] | None = None, **context: Any
) -> HTMLResponse:
    is_owner = who.account is not None and who.account.role == "owner"
    menu = [SECTIONS, *([MANAGING] if is_owner else [])]
    return page(
        request, f"owner/{template}.html", who, title=title, menu=menu, is_owner=is_owner, f=_FORMAT, charts=charts,
        made=made, now=utc_now(), **context,
    )  # fmt: skip


def _counting(request: Request, who: Who, title: str) -> HTMLResponse:
    """In place of a page that is computed for the first time: what is known without, and the page itself soon."""
    store = store_of(request)
    return _show(
        request, who, "counting", title, state=store.queue_state(), read=pages_of(request).read, newest=store.last_seq()
    )  # fmt: skip


class _Format:
    """How numbers and texts are written on the pages."""

    number = staticmethod(number)
    percent = staticmethod(percent)
    fixed = staticmethod(fixed)
    duration = staticmethod(duration)
    letters = staticmethod(data.letters)
    html = staticmethod(to_html)
    missing = MISSING

    @staticmethod
    def interval(value: Interval | None, as_percent: bool = False) -> str:
        """An estimate with its interval in brackets."""
        return with_interval(value, as_percent)

    @staticmethod
    def prompt(content: Content) -> str:
        """A prompt as plain text: what was said last, where it is a dialogue."""
        return content if isinstance(content, str) else content[-1].content

    @staticmethod
    def viewer(prompt: Prompt, response: Stored) -> Viewer:
        """What shows a response."""
        return viewer_of(prompt, response)

    @staticmethod
    def hours(value: float | None) -> str:
        """A time given in hours, in whole minutes where it is long enough."""
        seconds = None if value is None else 3600 * value
        return duration(seconds if seconds is None or seconds < 600 else 60 * round(seconds / 60)).removesuffix(
            " 0\u202fs"
        )


_FORMAT = _Format()


# -- looking ---------------------------------------------------------------------------------------------------------


@router.get("/owner/charts.css")
def chart_style() -> HTTPResponse:
    """The style of the charts, which live in Python."""
    return HTTPResponse(charts.CSS, media_type="text/css")


@router.get("/owner")
def progress(request: Request, who: Looker) -> HTMLResponse:
    """How far the labelling is, who does it, when it ends."""
    store = store_of(request)
    _, settings = load(store)
    made = pages_of(request).book()
    if made is None:
        return _counting(request, who, "Progress")
    found = data.progress_page(store, made.value, settings.hourly_cost)
    hourly = charts.line_chart(
        [Series("judgments", range(1 - len(found.hourly), 1), [count for _, count in found.hourly])],
        title="Judgments an hour",
        description=f"{found.today} judgments in the last 24 hours",
        x=charts.Axis("hours ago"),
        y=charts.Axis("judgments an hour"),
        height=220,
        width=560,
    )  # fmt: skip
    load_chart = charts.bars(
        [Bar(one.name, one.judgments, style=0 if one.status == "active" else None) for one in found.load[:12]],
        title="Judgments by labeler",
        description="How many judgments each labeler has given",
    )
    return _show(
        request, who, "progress", "Progress", made, found=found, hourly=hourly, load_chart=load_chart,
        settings=settings, training=at_work(request.app.state.media),
    )  # fmt: skip


@dataclass(frozen=True)
class Training:
    """A training run that is at work."""

    name: str
    step: int
    labels: int | None
    """That had arrived, where labels arrive meanwhile."""
    reward: float | None
    """What the reward model says of what the policy does."""


def at_work(files: MediaFolder | None) -> Training | None:
    """The training run of a project that wrote figures in the last minutes and has not finished."""
    if files is None:
        return None
    runs = []
    for log in (files.root / "artifacts").glob("*/run/metrics.jsonl"):
        with suppress(OSError):  # it may be set aside meanwhile
            if not (log.parents[1] / MANIFEST).exists():
                runs.append((log.stat().st_mtime, log))
    since, log = max(runs, default=(0.0, files.root))
    try:
        whole, _, _ = log.read_text("utf-8").rpartition("\n") if time.time() - since < LATELY else ("", "", "")
        row = json.loads(whole.splitlines()[-1])
    except (OSError, ValueError, IndexError):  # nothing there yet, or a row that is being written
        return None
    reward = next((row[key] for key in ("predicted", "score") if key in row), None)
    return Training(log.parents[1].name, int(row.get("step", 0)), row.get("labels"), reward)


@router.get("/owner/agreement")
def agreement(request: Request, who: Looker) -> HTMLResponse:
    """How far labelers agree, and on what they do not."""
    store = store_of(request)
    made = pages_of(request).get("agreement", lambda book: data.agreement_page(book, store))
    if made is None:
        return _counting(request, who, "Agreement")
    found = data.with_decisions(made.value, store) if made.behind else made.value
    return _show(
        request, who, "agreement", "Agreement", made, found=found, by_tag=_alphas(found.by_tag, "Agreement by tag"),
        by_gap=_alphas(found.by_length_gap, "Agreement by length gap"), kinds=_alphas(found.kinds, "Agreement by kind"),
    )  # fmt: skip


def _alphas(rows: Sequence[Agreement], title: str) -> str:
    shown = [row for row in rows if row.alpha.estimate == row.alpha.estimate]
    if not shown:
        return ""
    return charts.bars(
        [_bar(f"{row.name} ({row.units:,})", row.alpha) for row in shown],
        title=title,
        description="Krippendorff's alpha with its 95 % interval: " + "; ".join(f"{r.name} {r.alpha}" for r in shown),
        references=[Reference(0, "chance"), Reference(0.667, "tentative"), Reference(1, "perfect")],
        x_range=(min(-0.1, *(_low(row.alpha) for row in shown)), 1.0),
        dots=True,
    )


def _low(value: Interval) -> float:
    return value.low if value.low == value.low else value.estimate


def _bar(label: str, value: Interval, as_percent: bool = False, style: int = 0) -> Bar:
    known = value.low == value.low
    return Bar(
        label, value.estimate, value.low if known else None, value.high if known else None,
        text=percent(value.estimate) if as_percent else fixed(value.estimate, 2), style=style,
    )  # fmt: skip


class Decision(Model):
    """The owner's word on a disputed item."""

    id: str = Field(min_length=8, max_length=64)
    item_id: str = Field(max_length=200)
    ranks: list[Annotated[int, Field(ge=0, lt=100)]] = Field(min_length=2, max_length=26)


@router.post("/owner/adjudicate")
def adjudicate(request: Request, who: Manager, said: Decision) -> dict[str, bool]:
    """Decide a disputed item; the decision is a judgment of the owner's own."""
    store = store_of(request)
    item = store.item(said.item_id)
    if len(said.ranks) != len(item.response_ids):
        raise ApiError(422, f"{len(said.ranks)} ranks for {len(item.response_ids)} responses")
    payload = ComparisonPayload(response_ids=item.response_ids, ranks=tuple(said.ranks))
    store.submit(
        Judgment(
            id=said.id, prompt_id=item.prompt_id, labeler_id=who.labeler, item_id=item.id, payload=payload,
            tags=(ADJUDICATION,),
        )
    )  # fmt: skip
    store.access.note(who.actor, "adjudicated", item.id)
    return {"stored": True}


class Erasure(Model):
    """What is to be erased, and why."""

    target: Literal["prompt", "response", "judgment", "labeler"]
    target_id: str = Field(min_length=1, max_length=200)
    reason: str = Field(min_length=1, max_length=500)


@router.post("/owner/erase")
def erase(request: Request, who: Manager, said: Erasure) -> dict[str, Any]:
    """Erase contents; a tombstone stays. Names the models that learned from them, where the project is known."""
    store, folder = store_of(request), request.app.state.media
    if folder is not None and (folder.root / CONFIG).is_file():
        done = maintenance.erase(
            Project(folder.root), said.target, said.target_id, said.reason, store=store, actor=who.actor
        )
        return asdict(done)
    judgments = maintenance.judgments_of(store, said.target, said.target_id)[0]
    files = maintenance.files_of(store, said.target, said.target_id)
    rows = store.erase(said.target, said.target_id, said.reason)
    if folder is not None:
        maintenance.forget(store, folder, files)
    store.access.note(who.actor, "erased", said.target_id, what=said.target, reason=said.reason)
    return asdict(maintenance.Erased(rows, len(judgments), [], []))


@router.get("/owner/media/{response_id}")
def media(request: Request, who: Looker, response_id: str) -> FileResponse:
    """A response that is a file."""
    return shown_file(request, store_of(request).response(response_id))


@router.get("/owner/labelers")
def labelers(request: Request, who: Looker) -> HTMLResponse:
    """How each labeler judges."""
    made = pages_of(request).get("labelers", data.labelers_page)
    if made is None:
        return _counting(request, who, "Labelers")
    found = made.value
    shown = [row for row in found.rows if row.diagnostics.pairs][:12]

    def chart(title: str, of: Callable[[Any], Interval], everyone: Interval | None, label: str) -> str:
        rows = [(row.name, of(row)) for row in shown if of(row).estimate == of(row).estimate]
        if not rows:
            return ""
        known = [Reference(everyone.estimate, label)] if everyone and everyone.estimate == everyone.estimate else []
        return charts.bars(
            [_bar(name, value, True) for name, value in rows], title=title, references=known, x_range=(0, 1),
            as_percent=True, dots=True, description="; ".join(f"{name} {value}" for name, value in rows),
        )  # fmt: skip

    none = Interval(0.5, 0.5, 0.5)
    pictures = [
        ("Reliability", "Share of verdicts that are right, by Dawid and Skene's model.",
         chart("Reliability", lambda r: r.reliability, None, "")),
        ("Side", "Share of decided pairs won by the response shown first. Sides are random: half is fair.",
         chart("Side", lambda r: r.diagnostics.first_side, none, "fair")),
        ("Length", "Share of decided pairs won by the longer response, beside everyone's.",
         chart("Length", lambda r: r.diagnostics.longer, found.everyone.longer, "everyone")),
        ("Ties", "Share of pairs called equal, beside everyone's.",
         chart("Ties", lambda r: r.diagnostics.tie, found.everyone.tie, "everyone")),
    ]  # fmt: skip
    pictures = [one for one in pictures if one[2]]
    return _show(request, who, "labelers", "Labelers", made, found=found, pictures=pictures)


@router.get("/owner/labelers/weights.{suffix}")
def labeler_weights(request: Request, who: Looker, suffix: Literal["csv", "json", "jsonl"]) -> FileResponse:
    """What a training run may weight each labeler's judgments with."""
    found = pages_of(request).wait("labelers", data.labelers_page)
    population = _weights(request, "population") or {}
    rows = [
        {
            "labeler": row.labeler_id, "name": row.name, "judgments": row.judgments,
            "reliability": _finite(row.reliability.estimate), "weight": row.weight,
            "population_weight": population.get(row.labeler_id),
        }
        for row in found.rows
    ]  # fmt: skip
    return _download(f"labeler-weights.{suffix}", lambda path: write_rows(rows, path, False))


def _finite(value: float) -> float | None:
    return value if value == value else None


@router.get("/owner/coverage")
def coverage(request: Request, who: Looker) -> HTMLResponse:
    """Who judged, beside whom they should stand for."""
    _, settings = load(store_of(request))
    made = pages_of(request).book()
    if made is None:
        return _counting(request, who, "Coverage")
    found = data.coverage_page(made.value, settings.population)
    pictures = {
        name: charts.bars(
            [
                bar
                for cell in cells
                for bar in (
                    Bar(cell.value, cell.share, text=f"{percent(cell.share)} by {cell.labelers}"),
                    *([Bar("target", cell.target, style=None)] if cell.target is not None else []),
                )
            ],
            title=f"Judgments by {name}",
            description="; ".join(f"{cell.value} {percent(cell.share)}" for cell in cells),
            x_range=(0, 1),
            as_percent=True,
        )
        for name, cells in found.attributes.items()
    }
    names = {labeler: made.value.labeler_name(labeler) for labeler in found.weights}
    return _show(
        request, who, "coverage", "Coverage", made, found=found, pictures=pictures, names=names,
        target=settings.population,
    )  # fmt: skip


def _weights(request: Request, weighting: Weighting) -> Mapping[str, float] | None:
    """Weights by labeler for what is taken home, however long they take."""
    pages = pages_of(request)
    if weighting == "reliability":
        return pages.wait("labelers", data.labelers_page).weights
    if weighting == "population":
        _, settings = load(store_of(request))
        return data.coverage_page(pages.wait("book", lambda book: book), settings.population).weights
    return None


@router.get("/owner/leaderboard")
def leaderboard(
    request: Request, who: Looker, baseline: Annotated[str, Query(max_length=200)] = "", weighting: Weighting = "none"
) -> HTMLResponse:
    """Which policy is ahead, and what cannot be told yet."""
    _, settings = load(store_of(request))

    def make(book: Book) -> PolicyComparison | None:
        if weighting == "reliability":
            return data.compare_policies(book, data.labelers_page(book).weights)
        weights = data.coverage_page(book, settings.population).weights if weighting == "population" else None
        return data.compare_policies(book, weights)

    target = repr(settings.population) if weighting == "population" else ""
    made = pages_of(request).get(("leaderboard", weighting, target), make)
    if made is None:
        return _counting(request, who, "Leaderboard")
    found = made.value.page(baseline or None) if made.value is not None else None
    strengths = ticker = ""
    if found is not None:
        strengths = charts.bars(
            [_bar(row.name, row.strength, style=0) for row in found.rows], title="Strength", dots=True,
            description="Strength in log-odds with its 95 % interval: "
            + "; ".join(f"{row.name} {row.strength}" for row in found.rows),
            references=[Reference(0, "mean of all")],
        )  # fmt: skip
        longest = max(len(row.elo_history) for row in found.rows)
        ticker = charts.line_chart(
            [
                Series(
                    row.name, [i - longest + 1 for i in range(longest - len(row.elo_history), longest)], row.elo_history
                )
                for row in found.rows
            ],
            title="Elo, live", description="Elo ratings after each part of the judgments, newest at the right",
            x=charts.Axis("parts of the judgments, the newest at 0"), y=charts.Axis("Elo"), height=220,
        )  # fmt: skip
    return _show(
        request, who, "leaderboard", "Leaderboard", made, found=found, strengths=strengths, ticker=ticker,
        weighting=weighting, has_population=bool(settings.population),
    )  # fmt: skip


@router.get("/owner/responses")
def responses(
    request: Request, who: Looker, policy: Annotated[str, Query(max_length=200)] = "",
    order: Literal["best", "worst", "newest"] = "best", start: Annotated[int, Query(ge=0, lt=2**31)] = 0,
) -> HTMLResponse:  # fmt: skip
    """Scores of single responses."""
    made = pages_of(request).get("responses", data.response_scores)
    if made is None:
        return _counting(request, who, "Responses")
    places = made.value.chosen(policy or None)
    step = 25
    shown = {"best": places, "worst": places[::-1], "newest": places[np.argsort(-made.value.seq[places])]}[order]
    rows = made.value.rows(store_of(request), shown[start : start + step].tolist())
    return _show(
        request, who, "responses", "Responses", made, rows=rows,
        total=len(places), start=start, step=step, policy=policy, policies=sorted(made.value.policies), order=order,
    )  # fmt: skip


# -- taking home -----------------------------------------------------------------------------------------------------


@router.get("/owner/export")
def export_page(request: Request, who: Looker) -> HTMLResponse:
    """What can be taken home, in which layouts."""
    layouts = {name: about for name, about in LAYOUTS.items() if name in EXPORT_LAYOUTS}
    return _show(
        request, who, "export", "Export", layouts=layouts, newest=store_of(request).last_seq(),
        has_population=bool(load(store_of(request))[1].population),
    )  # fmt: skip


@router.get("/owner/export/file")
def export_file(
    request: Request, who: Looker, layout: Annotated[str, Query(max_length=40)] = "pairs", suffix: Suffix = "jsonl",
    weighting: Weighting = "none", split: Annotated[str, Query(max_length=80)] = "",
) -> FileResponse:  # fmt: skip
    """Judgments in a layout that trainers read."""
    store = store_of(request)
    weights = _weights(request, weighting)
    made = _download(
        f"{layout}{f'-{split}' if split.isalnum() else ''}.{suffix}",
        lambda path: export(store, path, layout, split or None, weights=weights),
    )
    store.access.note(who.actor, "exported", layout, suffix=suffix, weighting=weighting, as_of=store.last_seq())
    return made


def _download(name: str, write: Callable[[Path], Any]) -> FileResponse:
    """A file written for one answer and removed after it."""
    folder = tempfile.TemporaryDirectory(prefix="hearken-")
    path = Path(folder.name) / Path(name).name
    try:
        write(path)
    except BaseException:
        folder.cleanup()
        raise
    return FileResponse(path, filename=path.name, background=BackgroundTask(folder.cleanup))


# -- managing --------------------------------------------------------------------------------------------------------


@router.get("/owner/people")
def people(request: Request, who: Owner) -> HTMLResponse:
    """Accounts and their roles, invitations, tokens, webhooks."""
    store = store_of(request)
    labeling = {labeler.id: labeler.status for labeler in store.labelers()}
    return _show(
        request, who, "people", "People", accounts=store.access.accounts(), labeling=labeling,
        invites=store.access.invites()[:50], tokens=store.access.tokens(), webhooks=store.access.webhooks(),
        labelers=store.labelers(),
    )  # fmt: skip


@router.get("/owner/guidelines")
def guidelines(request: Request, who: Owner) -> HTMLResponse:
    """The labelers' instructions, version by version, and how many judgments were made under each."""
    store = store_of(request)
    made = pages_of(request).book()
    if made is None:
        return _counting(request, who, "Guidelines")
    under = made.value.judgments["guideline"][made.value.work]
    counts = dict(zip(*(found.tolist() for found in np.unique(under, return_counts=True)), strict=True))
    return _show(
        request, who, "guidelines", "Guidelines", made, versions=store.guidelines()[::-1], counts=counts
    )  # fmt: skip


@router.get("/owner/settings")
def settings_page(request: Request, who: Owner) -> HTMLResponse:
    """How people are asked."""
    version, settings = load(store_of(request))
    shares: dict[str, dict[str, float | None]] = {
        question.name: dict.fromkeys(question.options) for question in settings.about_you if question.options
    }
    for name, target in settings.population.items():
        shares.setdefault(name, {}).update(target)
    return _show(
        request,
        who,
        "settings",
        "Settings",
        version=version,
        settings=settings,
        shares=shares,
        kinds=desk_of(request).domain.kinds,
    )


@router.get("/owner/audit")
def audit(request: Request, who: Owner) -> HTMLResponse:
    """Who did what, and what was erased."""
    store = store_of(request)
    names = {f"account:{account.id}": account.name for account in store.access.accounts()}
    names |= {f"token:{token.id}": f"token {token.name}" for token in store.access.tokens()}
    return _show(
        request, who, "audit", "Audit trail", entries=store.access.audit(500), names=names,
        tombstones=store.tombstones()[::-1],
    )  # fmt: skip
