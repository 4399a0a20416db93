"""In and out of the feedback database: files of judgments, and the raw dump that holds everything with its ids."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, Unpack

from pydantic import ValidationError
from sqlalchemy import select

from hearken.errors import UserError
from hearken.feedback.examples import (
    MEDIA,
    Answered,
    Comparison,
    Demonstration,
    Document,
    Example,
    PromptOnly,
    Rating,
    Thumb,
    spoken,
)
from hearken.feedback.formats import ReadReport, canonical, iter_examples, write_examples
from hearken.feedback.formats.files import is_hub_name, read_rows, sources, write_rows
from hearken.feedback.formats.layouts import LAYOUTS, find_layout
from hearken.feedback.formats.values import Row
from hearken.feedback.media import Media, MediaFolder
from hearken.feedback.names import check_name
from hearken.feedback.pairs import UNNAMED, best_and_worst, ranked_pairs
from hearken.feedback.queue import among
from hearken.feedback.reading import ReadingKeywords
from hearken.feedback.records import (
    ComparisonPayload,
    DemonstrationPayload,
    Guideline,
    Judgment,
    Labeler,
    Payload,
    Prompt,
    QueueItem,
    RatingPayload,
    Record,
    Response,
    ThumbPayload,
    Tombstone,
    hash_id,
)
from hearken.feedback.schema import Judgments, Labelers
from hearken.feedback.snapshot import inline_examples
from hearken.feedback.splits import identity, labeler_of, side
from hearken.feedback.store import FeedbackStore
from hearken.progress import progress

RAW_VERSION = 1
_BATCH = 2_000
_TRIAL = 100
"""Rows by which it is found out whether an older version imported a file under some labeler."""

R = TypeVar("R", bound=Record)
T = TypeVar("T")


@dataclass(frozen=True)
class ImportReport:
    """What an import added; importing the same file again adds nothing."""

    read: ReadReport
    prompts: int = 0
    responses: int = 0
    judgments: int = 0
    known: int = 0
    """Judgments that were in the database already: the file, or one with the same rows, was imported before."""
    twice: int = 0
    """Rows left out because they are the same judgment (its id, or its labeler and every column) as one before them."""
    labelers: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Of judgments read, by the column that names their labeler ("" where none does): how many each labeler gave."""

    def __str__(self) -> str:
        """One line for people."""
        line = f"{self.read}; new: {self.prompts} prompts, {self.responses} responses, {self.judgments} judgments"
        line += f"; {self.known} judgments were there already" if self.known else ""
        return line + (f"; {self.twice} rows left out: the same judgment twice" if self.twice else "")


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote."""

    path: Path
    layout: str
    rows: int
    left_out: Counter[str] = field(default_factory=Counter)
    """Judgments that the layout cannot hold, by reason."""

    def __str__(self) -> str:
        """One line for people."""
        reasons = "".join(f"; left out: {count} ({reason})" for reason, count in self.left_out.items())
        return f"{self.rows} rows in {self.path}{reasons}"


# --- in --------------------------------------------------------------------------------------------------------------


def import_file(
    store: FeedbackStore,
    path: str | os.PathLike[str],
    *,
    labeler: str = "import",
    validation: float = 0.0,
    seed: int = 0,
    domain: str = "text",
    files: MediaFolder | None = None,
    admit: Callable[[bytes], str] = lambda data: "",
    **reading: Unpack[ReadingKeywords],
) -> ImportReport:
    """Read a file, folder or Hub data set (see `formats.read_examples`), or a raw dump, into the feedback database.

    The whole file is read and checked before anything is stored. Ids are made from the contents, so that importing a
    file twice adds nothing, and an import that was interrupted is finished by doing it again. Equal rows of one file
    are as many votes, unless they are the same judgment (`splits.identity`). Another file that has a row which is there
    already adds no vote either, since nothing tells it from the same file with more rows: give another ``labeler``.

    Args:
        store: the feedback database.
        path: what to import.
        labeler: name of the labeler (of kind "import") to whom judgments are ascribed whose rows name none
            (`splits.labeler_of`); those of a name are one labeler, in whichever file it stands.
        validation: the share of new prompts that go to the split "validation" (`splits.side`); a raw dump brings its
            own splits.
        seed: of that split.
        domain: of its prompts; a raw dump brings its own.
        files: where the files of its responses go, which the rows name as seen from it (in an export: ``media/…``).
        admit: refuses what is no response of the domain; see `domains.base.Domain.admit`.
        reading: see `ReadingOptions`; ``format`` may be "raw", too.

    Raises:
        UserError: the file is wrong (where and why), or holds plain documents, which nobody judges.
    """
    format, max_unpacked = reading.get("format", "auto"), reading.get("max_unpacked", 0.0)
    if format == "raw" or (format == "auto" and _is_raw(path, max_unpacked)):
        return _import_raw(store, path, max_unpacked, _Brought(path, files, admit))
    report = ReadReport()
    prompts: dict[str, Prompt] = {}
    responses: dict[str, Response] = {}
    judgments: list[Judgment] = []
    renamed: dict[str, tuple[str, str]] = {}
    judges: dict[str, Labeler] = {}
    by_column: dict[str, Counter[str]] = {}
    times: Counter[str] = Counter()
    disputed: Counter[str] = Counter()
    seen: set[str] = set()
    twice, brought = 0, _Brought(path, files, admit)
    for number, example in enumerate(iter_examples(path, report=report, **reading), 1):
        if isinstance(example, Document):
            raise UserError(
                f"{os.fspath(path)}: plain text is not feedback", "Give it to training as a file: hearken train --data"
            )
        metadata = example.metadata if isinstance(example, PromptOnly) else {}
        split = side(example.prompt, validation, seed)
        prompt = Prompt(content=example.prompt, domain=domain, split=split, metadata=metadata)
        keep_prompt(prompts, prompt, disputed)
        if isinstance(example, PromptOnly):
            continue
        if (same := identity(example)) is not None:
            twice += same in seen
            if same in seen:
                continue
            seen.add(same)
        shown = _responses(example, prompt.id, partial(brought.media, where=f"example {number}"))
        responses |= {response.id: response for response in shown}
        column, name = labeler_of(example.metadata) or ("", labeler)
        judge = judges.setdefault(name, _imported(name))
        by_column.setdefault(column, Counter())[name] += 1
        # Equal rows of one file are several judgments; the same row in a file imported again is the same judgment.
        said = canonical.dump(example)
        digest = _judgment_id(judge.id, said)
        times[digest] += 1
        id = digest if times[digest] == 1 else f"{digest}-{times[digest]}"
        if column or judge.id != f"import-{name}":
            renamed[id] = said, "" if column else f"import-{name}"
        judgments.append(
            Judgment(
                id=id,
                prompt_id=prompt.id,
                labeler_id=judge.id,
                payload=_payload(example, [response.id for response in shown]),
                weight=example.weight,
                metadata=example.metadata,
            )
        )
    say_disputed(os.fspath(path), disputed)
    brought.keep()
    former = _under_former_labelers(store, renamed)
    for name, count in Counter(former.values()).items():
        warnings.warn(
            f"{os.fspath(path)}: an older version imported {count} of its judgments, all under the labeler '{name}'; "
            "they stay so, and are not added again (a new project has them under the names in the file)",
            stacklevel=2,
        )
    judgments = [judgment for judgment in judgments if judgment.id not in former]
    those = {judgment.labeler_id for judgment in judgments}
    named = [judge for judge in judges.values() if judge.id in those]
    done = _store(store, report, named, prompts.values(), responses.values(), [], judgments)
    return replace(done, known=done.known + len(former), twice=twice, labelers=by_column)


def _judgment_id(labeler: str, said: str) -> str:
    """The id of an imported judgment: of a labeler's id and an example as `canonical.dump` writes it."""
    return hashlib.sha256(f"{labeler} {said}".encode()).hexdigest()[:32]


def _under_former_labelers(store: FeedbackStore, rows: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """Judgments that are stored under another imported labeler than they would be now.

    Older versions read no labeler from the rows, and made labelers' ids of names as they stood.

    Args:
        store: the feedback database.
        rows: by the id that a judgment has now what it says (`canonical.dump`), and the id of the labeler under whom it
            may be stored ("" for any).

    Returns:
        By that id the name of the labeler under whom it is stored.
    """
    stored, found = select(Judgments.c.id).where(among(Judgments.c.id)), dict[str, str]()
    imported = select(Labelers.c.id, Labelers.c.name).where(Labelers.c.kind == "import")
    for labeler, name in store.select(imported) if rows else ():
        theirs = [(id, text) for id, (text, only) in rows.items() if only in ("", labeler)]
        for some in (theirs[:: max(len(theirs) // _TRIAL, 1)], theirs):
            ids = {_judgment_id(labeler, text) + id[32:]: id for id, text in some}
            there = {ids[former] for (former,) in store.select(stored, ids) if former != ids[former]}
            if not there:
                break
        found |= dict.fromkeys(there, name)
    return found


class _Brought:
    """The files that the responses of a data file are. All are looked at before any is kept."""

    def __init__(
        self, path: str | os.PathLike[str], files: MediaFolder | None, admit: Callable[[bytes], str]
    ) -> None:  # fmt: skip
        self._path, self._files, self._admit = os.fspath(path), files, admit
        self._beside = MediaFolder.beside(path)
        self._kept: dict[str, tuple[Media, str]] = {}

    def media(self, name: str, where: str) -> Media:
        """A file that a row names, as the project will have it.

        Raises:
            UserError: it is neither beside the data file nor in the project, is not what its name says, or no response.
        """
        if name not in self._kept:
            if self._files is None:
                raise UserError(f"{self._path}: its responses are files", "Import it into a project")
            if self._beside.find(Media(name)) is None:
                if self._files.find(Media(name)) is None:
                    what = f"{self._path}: {where}: {name} is not beside it"
                    raise UserError(what, "Copy the folder media with the file")
                return Media(name)
            try:
                data = self._beside.read(Media(name))
                suffix = self._admit(data)
            except UserError as error:
                raise UserError(f"{self._path}: {where}: {name}: {error.what}", error.hint) from None
            self._kept[name] = self._files.name(data, suffix), suffix
        return self._kept[name][0]

    def keep(self) -> None:
        """Copy them into the project."""
        for name, (_, suffix) in self._kept.items():
            assert self._files is not None
            self._files.keep(self._beside.read(Media(name)), suffix)


def _imported(name: str) -> Labeler:
    """The labeler of this name; ids stand in addresses, so a name of other characters gives a digest."""
    plain = name if re.fullmatch(r"[\w.@ -]{1,100}", name) else hash_id(name)
    return Labeler(id=f"import-{plain}", name=name, kind="import")


def keep_prompt(prompts: dict[str, Prompt], prompt: Prompt, disputed: Counter[str]) -> None:
    """Add a prompt to those by id; one with metadata takes the place of the same without, else the first stays.

    Args:
        prompts: by id.
        prompt: to add.
        disputed: counts prompts that were there with other metadata, by what differs.
    """
    known = prompts.get(prompt.id)
    if known is None or not known.metadata:
        prompts[prompt.id] = prompt
    elif prompt.metadata and prompt.metadata != known.metadata:
        keys = sorted({*known.metadata, *prompt.metadata})
        disputed[next(key for key in keys if known.metadata.get(key) != prompt.metadata.get(key))] += 1


def say_disputed(where: str, disputed: Counter[str]) -> None:
    """Warn of rows whose metadata were not kept: a reward function would be told those of another row."""
    for key, count in disputed.items():
        warnings.warn(f"{where}: {count} rows repeat a prompt with another '{key}'; the first is kept", stacklevel=3)


def _responses(example: Answered, prompt: str, bring: Callable[[str], Media]) -> list[Response]:
    if isinstance(example, Demonstration):
        return []
    texts = example.responses if isinstance(example, Comparison) else (example.response,)
    # Equal texts in one comparison are told apart by their sample number.
    numbers = [texts[:place].count(text) for place, text in enumerate(texts)]
    said = [spoken(example, text) for text in texts]
    calls = [(message,) if message.more else None for message in said]
    if MEDIA in example.metadata:
        return [
            Response(prompt_id=prompt, payload=bring(path), sample=n) for path, n in zip(texts, numbers, strict=True)
        ]
    return [
        Response(prompt_id=prompt, text=text, messages=turns, sample=n)
        for text, turns, n in zip(texts, calls, numbers, strict=True)
    ]


def _payload(example: Example, ids: Sequence[str]) -> Payload:
    match example:
        case Comparison(ranks=ranks, strength=strength, share=share):
            return ComparisonPayload(response_ids=tuple(ids), ranks=ranks, strength=strength, share=share)
        case Rating(ratings=ratings, low=low, high=high):
            return RatingPayload(response_id=ids[0], ratings=ratings, low=low, high=high)
        case Thumb(label=label):
            return ThumbPayload(response_id=ids[0], label=label)
        case Demonstration(response=text):
            return DemonstrationPayload(text=text)
    raise AssertionError(type(example))


def _store(
    store: FeedbackStore,
    report: ReadReport,
    labelers: Iterable[Labeler],
    prompts: Iterable[Prompt],
    responses: Iterable[Response],
    items: Iterable[QueueItem],
    judgments: Sequence[Judgment],
) -> ImportReport:
    before, labelers = store.last_seq(), list(labelers)
    for labeler in labelers:
        check_name(labeler.name, f"the name of labeler {labeler.id!a}", 1_000)
    for labeler in labelers:
        store.add_labeler(labeler)
    new_prompts = sum(store.add_prompts(batch) for batch in _batches(prompts))
    new_responses = sum(store.add_responses(batch) for batch in _batches(responses))
    items = list(items)
    store.enqueue(items)
    new = 0
    with progress("import", len(judgments), "judgment") as bar:
        for batch in _batches(judgments):
            new += sum((stored.seq or 0) > before for stored in store.submit_all(batch))
            bar.advance(len(batch))
    store.close_items([item.id for item in items if item.done])
    return ImportReport(report, new_prompts, new_responses, new, len(judgments) - new)


def _batches(values: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(values)
    while batch := list(itertools.islice(iterator, _BATCH)):
        yield batch


# --- out -------------------------------------------------------------------------------------------------------------


def export(
    store: FeedbackStore,
    out: str | os.PathLike[str],
    layout: str = "pairs",
    split: str | None = None,
    as_of: int | None = None,
    *,
    overwrite: bool = False,
    weights: Mapping[str, float] | None = None,
    labelers: bool = False,
    files: MediaFolder | None = None,
) -> ExportReport:
    """Write the judgments in force to a file.

    * pairs (also implicit, hh): comparisons; one of K responses gives each of its pairs in which one is better.
    * binary: thumbs; where there are none, the best and the worst response of each comparison.
    * rankings: comparisons as they are.
    * sft (also messages): demonstrations and edits.
    * ratings (also score, rating), prompts, snapshot.
    * raw: everything with its ids, superseded judgments too, as JSONL; `import_file` restores it.

    Args:
        store: the feedback database.
        out: the file; its suffix says which kind (.jsonl, .json, .csv, .parquet; .gz).
        layout: see above.
        split: only prompts of this split.
        as_of: only judgments that were in force when this one was the newest.
        overwrite: replace a file that exists.
        weights: by labeler, multiplied onto the judgments' own; a raw dump has none.
        labelers: with a column ``labeler``, the name of who judged, where no column of an imported row names them.
        files: the project's; those that responses are go to ``media/`` beside the file.

    Raises:
        UserError: nothing to export, an unknown layout, or a file that exists or cannot be written.
    """
    if files is not None:
        files.copy_to(MediaFolder(Path(out).absolute().parent), store.media())
    if layout == "raw":
        if not Path(out).name.endswith((".jsonl", ".jsonl.gz")):
            raise UserError(f"{out}: a raw dump is JSONL", "Give a name that ends in .jsonl or .jsonl.gz")
        rows = _Counted(_raw_rows(store, split, as_of))
        write_rows(rows, out, overwrite)
        return ExportReport(Path(out), layout, rows.count)
    held = find_layout(layout).kind
    kinds = [name for name, kind in canonical.KINDS.items() if issubclass(kind, held) and name != "document"]
    if not kinds:
        raise UserError(f"the feedback database holds no '{layout}'", "Known: pairs, binary, rankings, sft, raw, ...")
    left_out: Counter[str] = Counter()
    names = {one.id: one.name for one in store.labelers() if one.id != UNNAMED} if labelers else {}

    def found(kinds: Sequence[str]) -> Iterator[Example]:
        by_labeler = weights or {}
        return inline_examples(
            store, kinds, split, as_of, provenance=layout == "snapshot" or names,
            weigh=lambda judgment: by_labeler.get(judgment.labeler_id, 1.0),
        )  # fmt: skip

    examples = found(kinds)
    if layout in ("pairs", "implicit", "hh"):
        examples = (pair for example in examples for pair in _pairs(example, left_out))
    first = next(examples, None)
    if first is None and layout == "binary":
        examples = (thumb for example in found(["comparison"]) for thumb in _unpaired(example, left_out))
        first = next(examples, None)
    if first is None:
        raise UserError(f"{store.name} holds nothing to export as '{layout}'", "Label or import some, or change --as")
    counted = _Counted(itertools.chain([first], examples))
    write_examples(counted, out, layout, overwrite=overwrite)
    return ExportReport(Path(out), layout, counted.count, left_out)


class _Counted(Iterator[T]):
    """Passes values on, and counts them."""

    def __init__(self, values: Iterator[T]) -> None:
        self._values, self.count = values, 0

    def __next__(self) -> T:
        value = next(self._values)
        self.count += 1
        return value


def _pairs(example: Example, left_out: Counter[str]) -> Iterator[Comparison]:
    """Every pair of a comparison's responses of which one is better."""
    assert isinstance(example, Comparison)
    if example.ranks in ((0, 1), (1, 0)):
        yield example
        return
    for i, j, outcome, verdict, _ in ranked_pairs(example.ranks, example.share):
        better, worse = (example.responses[at] for at in ((i, j) if verdict > 0 else (j, i)))
        if not verdict or better == worse:
            left_out["tied pairs"] += 1
        else:
            share = None if example.share is None else max(outcome, 1 - outcome)
            yield replace(example, responses=(better, worse), ranks=(0, 1), share=share)


def _unpaired(example: Example, left_out: Counter[str]) -> Iterator[Thumb]:
    """The best and the worst response of a comparison as a thumb up and a thumb down."""
    assert isinstance(example, Comparison)
    if (ends := best_and_worst(example.ranks, example.share)) is None:
        left_out["ties"] += 1
        return
    for at, label in zip(ends, (True, False), strict=True):
        yield Thumb(example.prompt, example.responses[at], label, example.weight, example.metadata)


# --- raw -------------------------------------------------------------------------------------------------------------

_RECORDS: dict[str, type[Record]] = {
    "guideline": Guideline,
    "labeler": Labeler,
    "prompt": Prompt,
    "response": Response,
    "item": QueueItem,
    "judgment": Judgment,
    "tombstone": Tombstone,
}


def _raw_rows(store: FeedbackStore, split: str | None, as_of: int | None) -> Iterator[Row]:
    yield {"type": "hearken", "version": RAW_VERSION}
    yield from (_raw("guideline", guideline) for guideline in store.guidelines())
    yield from (_raw("labeler", labeler) for labeler in store.labelers())
    prompts = set()
    for prompt in store.prompts(split=split):
        prompts.add(prompt.id)
        yield _raw("prompt", prompt)
    responses = set()
    for response in store.responses(split=split):
        responses.add(response.id)
        yield _raw("response", response)
    for item in store.items():
        if item.prompt_id in prompts and responses.issuperset(item.response_ids):
            yield _raw("item", item)
    for judgment in store.judgments(as_of=as_of, split=split, checks=None, history=True):
        yield _raw("judgment", judgment)
    yield from (_raw("tombstone", tombstone) for tombstone in store.tombstones())


def _raw(kind: str, record: Record) -> Row:
    return {"type": kind, **record.model_dump(mode="json")}


def _is_raw(path: str | os.PathLike[str], max_unpacked: float) -> bool:
    if is_hub_name(os.fspath(path)):
        return False
    first = sources(path, max_unpacked)[0]
    return first.type == "jsonl" and next((_is_header(row) for _, row in read_rows(first)), False)


def _is_header(row: Row | UserError) -> bool:
    return isinstance(row, dict) and row.get("type") == "hearken" and "version" in row


def _import_raw(
    store: FeedbackStore, path: str | os.PathLike[str], max_unpacked: float, brought: _Brought
) -> ImportReport:
    """Restore a raw dump. Tombstones are not restored: what they stand for is not in the dump."""
    report = ReadReport(files=1, layouts={"raw"})
    found: dict[type[Record], list[Any]] = {kind: [] for kind in _RECORDS.values()}
    for where, row in read_rows(sources(path, max_unpacked)[0]):
        report.rows += 1
        if isinstance(row, UserError):
            raise UserError(f"{where}: {row.what}", row.hint)
        if report.rows == 1:
            if not _is_header(row):
                raise UserError(f"{where}: not a raw dump", "Leave the format to 'auto', or name the layout")
            if row["version"] != RAW_VERSION:
                raise UserError(f"{where}: a dump of version {row['version']}", f"This Hearken reads {RAW_VERSION}")
            continue
        try:
            record = _RECORDS[row.pop("type")].model_validate(row)
        except KeyError:
            raise UserError(f"{where}: no known type of record", f"Known: {', '.join(_RECORDS)}") from None
        except ValidationError as error:
            first = error.errors()[0]
            field_name = ".".join(map(str, first["loc"])) or "record"
            raise UserError(f"{where}: {field_name}: {first['msg']}", "Mend the line") from None
        found[type(record)].append(record)
    for number, response in enumerate(found[Response], 1):
        if (payload := response.payload) is not None and brought.media(payload.path, f"response {number}") != payload:
            raise UserError(f"{os.fspath(path)}: {payload.path} is not named by what it holds", "Export it again")
    brought.keep()
    report.examples = len(found[Judgment])
    versions = {guideline.version: store.add_guideline(guideline.text).version for guideline in found[Guideline]}
    judgments: list[Judgment] = sorted(found[Judgment], key=lambda judgment: judgment.seq or 0)
    known_labelers = {labeler.id for labeler in found[Labeler]} | {labeler.id for labeler in store.labelers()}
    known_items = {item.id for item in found[QueueItem]}
    known: set[str] = set()
    kept = []
    for judgment in judgments:
        # What it answered or superseded may have been erased, and so be missing from the dump.
        changes = {
            "guideline": None if judgment.guideline is None else versions.get(judgment.guideline),
            "item_id": judgment.item_id if judgment.item_id in known_items else None,
            "supersedes": judgment.supersedes if judgment.supersedes in known else None,
        }
        if judgment.labeler_id not in known_labelers or (judgment.kind == "withdrawal" and not changes["supersedes"]):
            continue
        known.add(judgment.id)
        kept.append(judgment.model_copy(update=changes))
    return _store(store, report, found[Labeler], found[Prompt], found[Response], found[QueueItem], kept)


EXPORT_LAYOUTS = ("raw", *(name for name, layout in LAYOUTS.items() if layout.write is not None and name != "text"))
"""The layouts that `export` writes."""
