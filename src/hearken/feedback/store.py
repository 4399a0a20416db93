"""The feedback store: the one door to the feedback database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self, TypedDict, TypeVar, Unpack

from pydantic import ValidationError
from sqlalchemy import (
    ColumnElement,
    Select,
    Table,
    and_,
    case,
    delete,
    exists,
    func,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.engine import Connection, RowMapping

from hearken.errors import UserError
from hearken.feedback import access, queue
from hearken.feedback.database import Database
from hearken.feedback.media import Media
from hearken.feedback.queue import CLOSED, FILLS_NO_SLOT, chunks
from hearken.feedback.records import (
    Claim,
    Guideline,
    Judgment,
    Labeler,
    LabelerStatus,
    Progress,
    Prompt,
    QueueItem,
    Record,
    Response,
    Tombstone,
    WithdrawalPayload,
    hash_id,
    utc_now,
)
from hearken.feedback.schema import (
    Guidelines,
    Items,
    Judgments,
    Labelers,
    Leases,
    Prompts,
    Responses,
    Tombstones,
    from_row,
    to_row,
)
from hearken.feedback.together import Together

LEASE_SECONDS = 900.0
"""How long an item is lent unless said otherwise."""

_FIRST_PAGE, _PAGE = 50, 2_000

_Later = Judgments.alias("later")
_RESPONSES = select(Responses).where(queue.among(Responses.c.id))
_ITEMS = select(Items).where(queue.among(Items.c.id))
_PROMPTS = select(Prompts).where(queue.among(Prompts.c.id))

_REDACTED: dict[str, dict[str, Any]] = {
    "prompt": {"content": "", "metadata": {}, "erased": 1},
    "response": {"text": "", "messages": None, "token_ids": None, "payload": None, "metadata": {}, "erased": 1},
    "judgment": {
        "payload": {"kind": "erased"},
        "tags": [],
        "metadata": {},
        "order": None,
        "seconds": None,
        "live": 0,
        "erased": 1,
    },
    "labeler": {"name": "erased", "attributes": {}, "status": "paused", "erased": 1},
    "item": {"expected": None, "metadata": {}},
}
"""What stands in a row after erasure, by target."""

R = TypeVar("R", bound=Record)


class QueueState(NamedTuple):
    """What `FeedbackStore.queue_state` counts."""

    items: int
    items_done: int
    slots: int
    slots_filled: int
    leased: int
    """Leases in force now."""
    open_slots: int
    """Of items that are not done."""


class JudgmentFilter(TypedDict, total=False):
    """Which judgments `FeedbackStore.judgments` gives."""

    as_of: int | None
    """Those that were in force when judgment number ``as_of`` was the newest; later ones change nothing, only erasure
    does. None means now."""
    since: int
    """Only numbers above this one."""
    kinds: Collection[str]
    """Only these kinds; empty means all (skips and flags too)."""
    split: str | None
    """Only judgments on prompts of this split."""
    round: int | None
    """Only of this round."""
    labeler_id: str | None
    """Only this labeler's."""
    prompt_id: str | None
    """Only on this prompt."""
    item_id: str | None
    """Only on this queue item."""
    checks: bool | None
    """Answers to gold and repeated items, which measure the labeler: False leaves them out (the default), True gives
    only them, None all."""
    history: bool
    """Give superseded judgments and withdrawals too."""


class FeedbackStore:
    """Every prompt, response and judgment of a project, in SQLite or PostgreSQL.

    Safe to share between threads, and to open from many processes at once. Each method is one short transaction: when
    it returns, what it stored is on disk. Iterators read in pages and hold no transaction open between them.

    Args:
        location: a path (SQLite), or a ``sqlite://`` or ``postgresql://`` URL.
        create: make a SQLite file that does not exist yet. Tables are made, or brought to the newest version, anyway.
        clock: tells the time (for leases); aware, UTC.

    Raises:
        UserError: the database cannot be opened, is not a feedback database, or is newer than this code. Any method
            raises it when the disk is full, the database stays locked, or ids do not exist.

    Example:
        >>> with FeedbackStore("feedback.db") as store:
        ...     store.add_prompts([Prompt(content="Once upon a time")])
        1
    """

    def __init__(self, location: str | Path, *, create: bool = True, clock: Callable[[], datetime] = utc_now) -> None:
        self._database = Database(location, create=create)
        self._clock = clock
        self._submit = Together(self.submit_all)
        self._claim = Together(self._claim_all)

    @property
    def name(self) -> str:
        """The path, or the URL without its password."""
        return self._database.name

    @cached_property
    def access(self) -> access.Access:
        """Who may come in: accounts, sessions, invites, tokens; settings and the audit trail."""
        return access.Access(self._database, self._clock)

    def close(self) -> None:
        """Close all connections."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # -- adding --------------------------------------------------------------------------------------------------

    def add_prompts(self, prompts: Iterable[Prompt]) -> int:
        """Add prompts; those whose id is known are left as they are. Returns how many are new."""
        return self._add(Prompts, prompts)

    def add_responses(self, responses: Iterable[Response]) -> int:
        """Add responses to stored prompts; those whose id is known are left as they are. Returns how many are new."""
        responses = list(responses)
        with self._database.write() as connection:
            queue.require(connection, Prompts, (response.prompt_id for response in responses), "a response")
            return queue.add(connection, Responses, [to_row(response) for response in responses])

    def add_labeler(self, labeler: Labeler) -> Labeler:
        """Add a labeler, and return them as stored: unchanged where the id was known."""
        self._add(Labelers, [labeler])
        return self.labeler(labeler.id)

    def set_labeler_status(self, labeler_id: str, status: LabelerStatus) -> None:
        """Pause a labeler (nothing is served to them any more) or make them active again."""
        with self._database.write() as connection:
            statement = update(Labelers).where(Labelers.c.id == labeler_id, Labelers.c.erased == 0)
            if connection.execute(statement.values(status=status)).rowcount == 0:
                raise UserError(f"no labeler '{labeler_id}' in {self.name}")

    def add_guideline(self, text: str) -> Guideline:
        """Put a new version of the guideline in force, unless ``text`` is the one in force."""
        with self._database.write() as connection:
            self._database.lock(connection)
            last = self._last_guideline(connection)
            if last is not None and last.text == text:
                return last
            new = Guideline(version=1 if last is None else last.version + 1, text=text)
            connection.execute(Guidelines.insert(), to_row(new))
            return new

    def set_splits(self, splits: dict[str, str]) -> None:
        """Move prompts (by id) into splits, e.g. ``{"text-4f...": "validation"}``."""
        with self._database.write() as connection:
            queue.require(connection, Prompts, splits, "the split")
            for split in sorted(set(splits.values())):
                for part in chunks(prompt for prompt, wanted in splits.items() if wanted == split):
                    connection.execute(update(Prompts).where(Prompts.c.id.in_(part)).values(split=split))

    def _add(self, table: Table, records: Iterable[Record]) -> int:
        rows = [to_row(record) for record in records]
        with self._database.write() as connection:
            return queue.add(connection, table, rows)

    # -- the queue -----------------------------------------------------------------------------------------------

    def enqueue(self, items: Iterable[QueueItem], *, closed: bool = False) -> int:
        """Ask for judgments; items whose id is known are left as they are. Returns how many are new.

        With ``closed`` the queue serves them to nobody: they are there for answers that come another way (practice,
        a conversation), which are kept as extra.
        """
        items = list(items)
        with self._database.write() as connection:
            return queue.enqueue(connection, items, closed)

    def claim(
        self,
        labeler_id: str,
        lease_seconds: float = LEASE_SECONDS,
        n: int = 1,
        kinds: Collection[str] = (),
        checks: bool | None = None,
    ) -> list[Claim]:
        """Lend up to ``n`` items to a labeler, for ``lease_seconds``.

        Items lent to them already come first (their leases are renewed), then those of highest priority that have a
        slot neither filled nor lent. An item that the labeler has judged, or skipped, is never served to them again.

        Args:
            labeler_id: who asks; must be active.
            lease_seconds: how long nobody else is given the slot.
            n: how many items at most.
            kinds: only items of these kinds; empty means all.
            checks: only gold and repeated items (True), none of them (False), or any (None).

        Returns:
            The claims; empty when there is nothing to judge (now).
        """
        return self._claim(queue.Wish(labeler_id, lease_seconds, n, tuple(kinds), checks))

    def _claim_all(self, wishes: Collection[queue.Wish]) -> list[list[Claim]]:
        """The claims of several labelers in one transaction."""
        with self._database.write(durable=False) as connection:
            return self._claims(connection, queue.claim_all(connection, self._database, wishes, self._clock()))

    def heartbeat(self, item_id: str, labeler_id: str, lease_seconds: float = LEASE_SECONDS) -> datetime | None:
        """Prolong a lease (an expired one too, while its slot is free). Returns its new end; None where it is lost."""
        with self._database.write(durable=False) as connection:
            return queue.heartbeat(connection, item_id, labeler_id, lease_seconds, self._clock())

    def release(self, item_id: str, labeler_id: str) -> None:
        """Give a lent item back unanswered."""
        with self._database.write(durable=False) as connection:
            queue.release(connection, item_id, labeler_id)

    def close_items(self, item_ids: Iterable[str]) -> None:
        """Ask these items no more, e.g. at the end of a round; judgments that still come are kept as extra."""
        with self._database.write() as connection:
            queue.close(connection, item_ids)

    def submit(self, judgment: Judgment) -> Judgment:
        """Store one judgment; see `submit_all`. Those that several threads bring at once share a transaction."""
        return self._submit(judgment)

    def submit_all(self, judgments: Iterable[Judgment]) -> list[Judgment]:
        """Store judgments in one transaction, all or none; when it returns they are on disk.

        Sending a judgment again (same id) changes nothing. A labeler's second judgment on the same item, with a new id,
        is a revision: it supersedes the first whether it says so or not. A judgment whose lease has expired is kept: it
        fills its slot where that is open, and is marked ``extra`` where it is not. A skip or a flag fills no slot.

        Returns:
            The judgments as stored: with ``seq``, ``extra``, ``supersedes`` and the item's ``round``.

        Raises:
            UserError: an unknown labeler, item, prompt or response; a payload that does not fit the item; an id that is
                stored already and says something else; a superseded judgment that is not the one in force.
        """
        judgments = list(judgments)
        with self._database.write() as connection:
            return queue.submit(connection, self._database, judgments)

    def withdraw(self, judgment_id: str, lease_seconds: float = LEASE_SECONDS) -> Claim | None:
        """Undo: take a judgment back. It stays on record, superseded by a withdrawal; doing it twice changes nothing.

        Returns:
            The item, lent again to the same labeler; None where the judgment had none or its slot is taken.
        """
        with self._database.write() as connection:
            old = self._judgment(connection, judgment_id)
            withdrawal = Judgment(
                id=hash_id("withdrawal", judgment_id),
                prompt_id=old.prompt_id,
                labeler_id=old.labeler_id,
                item_id=old.item_id,
                payload=WithdrawalPayload(),
                supersedes=judgment_id,
                created=self._clock(),
            )
            queue.submit(connection, self._database, [withdrawal])
            if old.item_id is None:
                return None
            expires = queue.lend(connection, old.item_id, old.labeler_id, lease_seconds, self._clock())
            if expires is None:
                return None
            row = connection.execute(select(Items).where(Items.c.id == old.item_id)).mappings().one()
            lent = queue.Lent(old.labeler_id, [queue.item_record(row)], expires)
            return self._claims(connection, [lent])[0][0]

    def progress(self, round: int | None = None) -> Progress:
        """How far the queue has come, of one round or of all; gold and repeated items are left out."""
        state = self.queue_state(round)
        here = [Judgments.c.live == queue.LIVE, *([] if round is None else [Judgments.c.round == round])]
        kinds = select(Judgments.c.kind, func.count()).where(*here).group_by(Judgments.c.kind)
        # Checks are few among many items: to count their answers and take them off is quicker than to look up the item
        # of each judgment.
        of_checks = kinds.join(Items, Items.c.id == Judgments.c.item_id).where(queue.is_check())
        with self._database.read() as connection:
            counts = Counter({kind: count for kind, count in connection.execute(kinds)})
            counts.subtract({kind: count for kind, count in connection.execute(of_checks)})
        fields = state._asdict()
        del fields["open_slots"]
        return Progress(**fields, judgments={kind: count for kind, count in counts.items() if count})

    def queue_state(self, round: int | None = None) -> QueueState:
        """How far the queue has come, without a look at the judgments; gold and repeated items are left out."""
        here = [~queue.is_check(), *([] if round is None else [Items.c.round == round])]
        left = func.coalesce(func.sum(Items.c.slots - Items.c.filled).filter(queue.is_open()), 0)
        slots = (func.coalesce(func.sum(column), 0) for column in (Items.c.slots, Items.c.filled))
        counts = select(func.count(), func.count().filter(Items.c.done > 0), *slots, left).where(*here)
        in_force = Leases.join(Items, Items.c.id == Leases.c.item_id)
        leased = select(func.count()).select_from(in_force)
        leased = leased.where(Leases.c.expires > self._clock(), queue.is_open(), *here)
        with self._database.read() as connection:
            items, done, slots_, filled, open_slots = connection.execute(counts).one()
            return QueueState(items, done, slots_, filled, connection.scalar(leased) or 0, open_slots)

    def items_left(self) -> int:
        """How many items have open slots; gold and repeated items are left out."""
        count = select(func.count()).select_from(Items)
        with self._database.read() as connection:  # two counts on two indexes, however many items there are
            left = connection.scalar(count.where(queue.is_open())) or 0
            return left - (connection.scalar(count.where(queue.is_open(), queue.is_check())) or 0)

    def judged(self, labeler_id: str, item_ids: Iterable[str]) -> set[str]:
        """Those of ``item_ids`` on which a judgment of this labeler is in force."""
        mine = select(Judgments.c.item_id.label("id")).where(
            queue.among(Judgments.c.item_id), Judgments.c.labeler_id == labeler_id, Judgments.c.live == queue.LIVE
        )
        with self._database.read() as connection:
            return {row["id"] for row in queue.rows_among(connection, mine, item_ids)}

    def repeatable(
        self, labeler_id: str, *, kinds: Collection[str] = (), since: int = 0, until: int
    ) -> QueueItem | None:
        """The first item a labeler judged after judgment ``since``, up to number ``until``, that is not repeated yet.

        Args:
            labeler_id: who shall be asked a second time.
            kinds: only items of these kinds; empty means all.
            since: number of a judgment.
            until: number of a later one.
        """
        with self._database.read() as connection:
            return queue.repeatable(connection, labeler_id, kinds, since, until)

    def gold_answers(self, labeler_id: str, last: int) -> list[tuple[Judgment, QueueItem]]:
        """A labeler's last answers to gold items whose answer is known, oldest first; practice, skips and flags not."""
        is_gold = and_(Items.c.is_gold == 1, Items.c.expected.is_not(None), Items.c.selection != "practice")
        answers = select(Judgments).join(Items, Items.c.id == Judgments.c.item_id).where(
            Judgments.c.labeler_id == labeler_id, Judgments.c.live == queue.LIVE, is_gold,
            Judgments.c.kind.not_in(("skip", "flag")),
        )  # fmt: skip
        with self._database.read() as connection:
            rows = connection.execute(answers.order_by(Judgments.c.seq.desc()).limit(last)).mappings().all()[::-1]
            items = {row["id"]: row for row in queue.rows_among(connection, _ITEMS, (row["item_id"] for row in rows))}
        return [(from_row(Judgment, row), queue.item_record(items[row["item_id"]])) for row in rows]

    def count_judgments(self, labeler_id: str) -> int:
        """How many judgments of a labeler are in force; answers to gold and repeated items count."""
        mine = select(func.count()).where(Judgments.c.labeler_id == labeler_id, Judgments.c.live == 1)
        with self._database.read() as connection:
            return connection.scalar(mine) or 0

    def _claims(self, connection: Connection, lent: Collection[queue.Lent]) -> list[list[Claim]]:
        items = [item for one in lent for item in one.items]
        rows = queue.rows_among(connection, _RESPONSES, (response for item in items for response in item.response_ids))
        responses = {row["id"]: from_row(Response, row) for row in rows}
        rows = queue.rows_among(connection, _PROMPTS, (item.prompt_id for item in items))
        prompts = {row["id"]: from_row(Prompt, row) for row in rows}
        return [
            [
                Claim(
                    item=item,
                    prompt=prompts[item.prompt_id],
                    responses=tuple(responses[response] for response in item.response_ids),
                    labeler_id=one.labeler_id,
                    expires=one.expires,
                )
                for item in one.items
            ]
            for one in lent
        ]

    # -- reading -------------------------------------------------------------------------------------------------

    def prompt(self, prompt_id: str) -> Prompt:
        """One prompt; UserError where it is unknown or erased."""
        return self._one(Prompt, Prompts, prompt_id)

    def response(self, response_id: str) -> Response:
        """One response; UserError where it is unknown or erased."""
        return self._one(Response, Responses, response_id)

    def labeler(self, labeler_id: str) -> Labeler:
        """One labeler; UserError where they are unknown."""
        return self._one(Labeler, Labelers, labeler_id)

    def item(self, item_id: str) -> QueueItem:
        """One queue item; UserError where it is unknown."""
        with self._database.read() as connection:
            row = connection.execute(select(Items).where(Items.c.id == item_id)).mappings().first()
        if row is None:
            raise UserError(f"no item '{item_id}' in {self.name}")
        return queue.item_record(row)

    def judgment(self, judgment_id: str) -> Judgment:
        """One judgment, in force or not; erased ones have an `ErasedPayload`. UserError where it is unknown."""
        with self._database.read() as connection:
            return self._judgment(connection, judgment_id)

    def prompts(self, *, split: str | None = None, domain: str | None = None) -> Iterator[Prompt]:
        """Prompts in the order they were added."""
        where = [Prompts.c.erased == 0]
        where += [Prompts.c.split == split] if split is not None else []
        where += [Prompts.c.domain == domain] if domain is not None else []
        return (from_row(Prompt, row) for row in self._pages(select(Prompts).where(*where), Prompts.c.seq))

    def responses(
        self,
        *,
        prompt_id: str | None = None,
        policy: str | None = None,
        round: int | None = None,
        split: str | None = None,
    ) -> Iterator[Response]:
        """Responses in the order they were added, of one prompt, policy (artifact name), round or split."""
        where = [Responses.c.erased == 0]
        where += [Responses.c.prompt_id == prompt_id] if prompt_id is not None else []
        where += [Responses.c.policy == policy] if policy is not None else []
        where += [Responses.c.round == round] if round is not None else []
        where += [Prompts.c.split == split] if split is not None else []
        query = select(Responses).join(Prompts, Prompts.c.id == Responses.c.prompt_id).where(*where)
        return (from_row(Response, row) for row in self._pages(query, Responses.c.seq))

    def labelers(self, *, kind: str | None = None) -> list[Labeler]:
        """All labelers, or those of one kind, except erased ones."""
        where = [Labelers.c.erased == 0] + ([Labelers.c.kind == kind] if kind is not None else [])
        with self._database.read() as connection:
            rows = connection.execute(select(Labelers).where(*where).order_by(Labelers.c.created, Labelers.c.id))
            return [from_row(Labeler, row) for row in rows.mappings()]

    def items(
        self, *, round: int | None = None, done: bool | None = None, selection: str | None = None
    ) -> Iterator[QueueItem]:
        """Queue items in the order they were added."""
        where = [] if round is None else [Items.c.round == round]
        where += [] if selection is None else [Items.c.selection == selection]
        where += [] if done is None else [Items.c.done > 0 if done else queue.is_open()]
        return (queue.item_record(row) for row in self._pages(select(Items).where(*where), Items.c.seq))

    def items_by_number(self, numbers: Iterable[int]) -> dict[int, QueueItem]:
        """Queue items by their number (``seq``)."""
        query = select(Items).where(queue.among(Items.c.seq))
        with self._database.read() as connection:
            return {row["seq"]: queue.item_record(row) for row in queue.rows_among(connection, query, numbers)}

    def responses_by_number(self, numbers: Iterable[int]) -> dict[int, Response]:
        """Responses by their number (``seq``), without those that were erased."""
        query = select(Responses).where(queue.among(Responses.c.seq), Responses.c.erased == 0)
        with self._database.read() as connection:
            return {row["seq"]: from_row(Response, row) for row in queue.rows_among(connection, query, numbers)}

    def responses_by_id(self, ids: Iterable[str]) -> dict[str, Response]:
        """Responses by id, without those that were erased."""
        query = _RESPONSES.where(Responses.c.erased == 0)
        with self._database.read() as connection:
            return {row["id"]: from_row(Response, row) for row in queue.rows_among(connection, query, ids)}

    def media(self, paths: Iterable[str] | None = None) -> set[Media]:
        """The files that responses are; of some paths those that a response still names."""
        query = select(Responses.c.payload).where(Responses.c.payload.is_not(None), Responses.c.erased == 0).distinct()
        with self._database.read() as connection:
            if paths is None:
                return {Media(path) for path in connection.execute(query).scalars()}
            some = query.where(queue.among(Responses.c.payload))
            return {Media(row["payload"]) for row in queue.rows_among(connection, some, paths)}

    def prompts_by_id(self, ids: Iterable[str]) -> dict[str, Prompt]:
        """Prompts by id, without those that were erased."""
        query = _PROMPTS.where(Prompts.c.erased == 0)
        with self._database.read() as connection:
            return {row["id"]: from_row(Prompt, row) for row in queue.rows_among(connection, query, ids)}

    def judgments_of_items(self, item_ids: Iterable[str]) -> dict[str, list[Judgment]]:
        """Judgments in force by item, in the order they were stored."""
        query = select(Judgments).where(queue.among(Judgments.c.item_id), Judgments.c.live == queue.LIVE)
        found: dict[str, list[Judgment]] = {}
        with self._database.read() as connection:
            rows = sorted(queue.rows_among(connection, query, item_ids), key=lambda row: row["seq"])
        for row in rows:
            found.setdefault(row["item_id"], []).append(from_row(Judgment, row))
        return found

    def guidelines(self) -> list[Guideline]:
        """All versions of the guideline, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(select(Guidelines).order_by(Guidelines.c.version)).mappings()
            return [from_row(Guideline, row) for row in rows]

    def tombstones(self) -> list[Tombstone]:
        """What was erased, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(select(Tombstones).order_by(Tombstones.c.seq)).mappings()
            return [from_row(Tombstone, row) for row in rows]

    def last_seq(self) -> int:
        """The number of the newest judgment, 0 where there is none: what `judgments` takes as ``as_of``."""
        with self._database.read() as connection:
            return connection.scalar(select(func.coalesce(func.max(Judgments.c.seq), 0))) or 0

    def judgments(self, **which: Unpack[JudgmentFilter]) -> Iterator[Judgment]:
        """Judgments in force, in the order they were stored: those of a `JudgmentFilter`."""
        equal = ("round", "labeler_id", "prompt_id", "item_id")
        where = [Judgments.c.erased == 0, Judgments.c.seq > which.get("since", 0)]
        where += self._in_force(which.get("as_of"), which.get("history", False))
        where += [Judgments.c.kind.in_(kinds)] if (kinds := which.get("kinds")) else []
        where += [Judgments.c[name] == value for name in equal if (value := which.get(name)) is not None]
        query = select(Judgments)
        if (split := which.get("split")) is not None:
            query = query.join(Prompts, Prompts.c.id == Judgments.c.prompt_id).where(Prompts.c.split == split)
        if (checks := which.get("checks", False)) is not None:
            is_check = and_(Items.c.id == Judgments.c.item_id, queue.is_check())
            where.append(exists().where(is_check) if checks else ~exists().where(is_check))
        for row in self._pages(query.where(*where), Judgments.c.seq):
            yield from_row(Judgment, row)

    @staticmethod
    def _in_force(as_of: int | None, history: bool) -> list[Any]:
        until = [] if as_of is None else [Judgments.c.seq <= as_of]
        if history:
            return until
        if as_of is None:
            return [Judgments.c.live == 1]
        superseded = exists().where(_Later.c.supersedes == Judgments.c.id, _Later.c.seq <= as_of)
        return [*until, Judgments.c.kind != "withdrawal", ~superseded]

    def _pages(self, query: Select[Any], seq: Any) -> Iterator[RowMapping]:
        """Rows in order of ``seq``, read in pages, each in a transaction of its own.

        The first pages are small: whoever looks for one row seldom reads far.
        """
        last, size = 0, _FIRST_PAGE
        while True:
            with self._database.read() as connection:
                rows = connection.execute(query.where(seq > last).order_by(seq).limit(size)).mappings().all()
            yield from rows
            if len(rows) < size:
                return
            last, size = rows[-1]["seq"], min(4 * size, _PAGE)

    def batches(
        self, query: Select[*tuple[Any, ...]], seq: ColumnElement[int], after: int, until: int
    ) -> Iterator[Sequence[Any]]:
        """Rows of a query of one's own in order of ``seq``, which is its first column, many at a time, none empty.

        Each batch is a transaction of its own. For what is computed from very many rows; see `analysis.book`.

        Args:
            query: what to read.
            seq: the number by which to go.
            after: only higher numbers than this one.
            until: up to this number.
        """
        query = query.order_by(seq).limit(_PAGE)
        while after < until:
            with self._database.read() as connection:
                rows = connection.execute(query.where(seq > after, seq <= until)).all()
            if not rows:
                return
            yield rows
            after = rows[-1][0]

    def select(self, query: Select[*tuple[Any, ...]], among: Iterable[Any] | None = None) -> Sequence[Any]:
        """All rows of a query of one's own.

        Args:
            query: what to read.
            among: values of its condition `queue.among`, where it has one.
        """
        with self._database.read() as connection:
            if among is None:
                return connection.execute(query).all()
            return [row for part in chunks(among) for row in connection.execute(query, {"among": part})]

    def _one(self, record: type[R], table: Any, id: str) -> R:
        with self._database.read() as connection:
            row = connection.execute(select(table).where(table.c.id == id)).mappings().first()
        if row is None or (row["erased"] and record is not Labeler):
            state = "no" if row is None else "erased"
            raise UserError(f"{state} {record.__name__.lower()} '{id}' in {self.name}")
        return from_row(record, row)

    def _judgment(self, connection: Connection, id: str) -> Judgment:
        row = connection.execute(select(Judgments).where(Judgments.c.id == id)).mappings().first()
        if row is None:
            raise UserError(f"no judgment '{id}' in {self.name}")
        return from_row(Judgment, row)

    @staticmethod
    def _last_guideline(connection: Connection) -> Guideline | None:
        newest = select(Guidelines).order_by(Guidelines.c.version.desc()).limit(1)
        row = connection.execute(newest).mappings().first()
        return None if row is None else from_row(Guideline, row)

    # -- erasure -------------------------------------------------------------------------------------------------

    def erase(self, target: Literal["prompt", "response", "judgment", "labeler"], target_id: str, reason: str) -> int:
        """Erase contents, and keep that there were some: ids and places stay, and a tombstone says why.

        * a judgment: its payload, tags, metadata and timing; the slot it filled is open again.
        * a labeler: their name and attributes, and all their judgments; they are paused, their account is closed.
        * a response: its contents and the judgments that speak about it; items that show it are closed.
        * a prompt: its contents, its responses, its judgments and its items.

        In SQLite the bytes are overwritten in the file. Backups and exported files are not touched. Erasing twice
        changes nothing.

        Returns:
            How many rows were redacted.
        """
        table = {"prompt": Prompts, "response": Responses, "judgment": Judgments, "labeler": Labelers}[target]
        with self._database.write() as connection:
            self._database.lock(connection)
            row = connection.execute(select(table).where(table.c.id == target_id)).mappings().first()
            if row is None:
                raise UserError(f"no {target} '{target_id}' in {self.name}")
            if row["erased"]:
                return 0
            count = 1
            if target == "judgment":
                self._erase_judgments(connection, [row])
            elif target == "labeler":
                connection.execute(update(Labelers).where(Labelers.c.id == target_id).values(_REDACTED["labeler"]))
                connection.execute(delete(Leases).where(Leases.c.labeler_id == target_id))
                access.redact(connection, target_id)
                count += self._erase_judgments_where(connection, Judgments.c.labeler_id == target_id)
            else:
                prompt = target_id if target == "prompt" else row["prompt_id"]
                items = connection.execute(select(Items).where(Items.c.prompt_id == prompt)).mappings().all()
                shown = [item["id"] for item in items if target == "prompt" or target_id in item["response_ids"]]
                queue.close(connection, shown)
                about = None if target == "prompt" else target_id
                count += self._erase_judgments_where(connection, Judgments.c.prompt_id == prompt, about)
                responses = Responses.c.prompt_id == prompt if target == "prompt" else Responses.c.id == target_id
                count += self._erase_responses(connection, responses) - (target == "response")
                if target == "prompt":
                    connection.execute(update(Prompts).where(Prompts.c.id == prompt).values(_REDACTED["prompt"]))
                    connection.execute(update(Items).where(Items.c.prompt_id == prompt).values(_REDACTED["item"]))
            stone = Tombstone(target=target, target_id=target_id, reason=reason, created=self._clock())
            connection.execute(Tombstones.insert(), to_row(stone))
        self._database.forget()
        return count

    def _erase_judgments_where(self, connection: Connection, where: Any, about: str | None = None) -> int:
        rows = connection.execute(select(Judgments).where(where, Judgments.c.erased == 0)).mappings().all()
        if about is not None:
            rows = [row for row in rows if about in from_row(Judgment, row).response_ids]
        self._erase_judgments(connection, rows)
        return len(rows)

    @staticmethod
    def _erase_judgments(connection: Connection, rows: Collection[RowMapping]) -> None:
        queue.reopen(connection, list(rows))
        for part in chunks(row["id"] for row in rows):
            connection.execute(update(Judgments).where(Judgments.c.id.in_(part)).values(_REDACTED["judgment"]))

    @staticmethod
    def _erase_responses(connection: Connection, where: Any) -> int:
        redaction = update(Responses).where(where, Responses.c.erased == 0).values(_REDACTED["response"])
        return connection.execute(redaction).rowcount

    # -- care ----------------------------------------------------------------------------------------------------

    def backup(self, target: str | Path) -> Path:
        """Copy a SQLite database to a new file while others work with it.

        Raises:
            UserError: the file exists, cannot be written, or the database is PostgreSQL (use ``pg_dump``).
        """
        target = Path(target)
        if self._database.path is None:
            raise UserError(f"{self.name} is PostgreSQL", "Back it up with pg_dump --format=custom")
        if target.exists():
            raise UserError(f"{target} exists", "Give the path of a new file")
        self._database.copy_to(target)
        return target

    def verify(self) -> list[str]:
        """Look for damage: one line per problem found, none where all is well."""
        with self._database.read() as connection:
            problems = self._damaged_pages(connection)
            newest, count = connection.execute(select(func.coalesce(func.max(Judgments.c.seq), 0), func.count())).one()
            if newest != count:
                problems.append(f"judgments are missing: the newest is number {newest}, but there are {count}")
            counts = and_(Judgments.c.live == 1, Judgments.c.extra == 0, Judgments.c.kind.not_in(FILLS_NO_SLOT))
            count_filled = select(func.count()).where(Judgments.c.item_id == Items.c.id, counts)
            filled = count_filled.correlate(Items).scalar_subquery()
            done = case((Items.c.filled >= Items.c.slots, 1), else_=0)
            wrong = or_(Items.c.filled != filled, and_(Items.c.done != CLOSED, Items.c.done != done))
            rows = connection.execute(select(Items.c.id, Items.c.filled, filled).where(wrong))
            problems += [f"item {id} counts {said} filled slots, but has {found} judgments" for id, said, found in rows]
        problems += self._unreadable()
        return problems

    def _damaged_pages(self, connection: Connection) -> list[str]:
        if self._database.path is None:
            return []
        pages = [row[0] for row in connection.execute(text("PRAGMA integrity_check")) if row[0] != "ok"]
        keys = connection.execute(text("PRAGMA foreign_key_check")).all()
        return pages + [f"row {row[1]} of {row[0]} names a missing row of {row[2]}" for row in keys]

    def _unreadable(self) -> list[str]:
        """Rows that cannot be read back as records."""
        problems = []
        tables: list[tuple[type[Record], Any]] = [(Prompt, Prompts), (Response, Responses), (Judgment, Judgments)]
        for record, table in tables:
            for row in self._pages(select(table), table.c.seq):
                try:
                    from_row(record, row)
                except ValidationError as error:
                    problems.append(f"{record.__name__.lower()} {row['id']}: {error.errors()[0]['msg']}")
        return problems
