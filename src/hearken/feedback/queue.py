"""The queue: which item a labeler is given next, and what happens when a judgment arrives.

Functions on a connection inside a write transaction of `database.Database.write`; `store.FeedbackStore` is the door.

An item has ``slots`` (how many labelers shall judge it). A claim lends it for a while (a lease); a judgment fills a
slot. A lease only keeps others from doing the same work: a judgment that comes after its lease has expired, or without
one, is kept all the same, and is marked ``extra`` where the slots were already filled.

PostgreSQL: whatever writes judgments takes the numbering lock first, then items, leases each in the order of their ids;
a claim takes its labelers in that order, too, and then only items that nobody has locked. So nothing waits in a circle.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, TypeVar

from sqlalchemy import (
    ColumnElement,
    Insert,
    Integer,
    Select,
    Table,
    bindparam,
    delete,
    exists,
    func,
    literal_column,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, RowMapping

from hearken.errors import UserError
from hearken.feedback.database import Database
from hearken.feedback.records import ASKED, Judgment, QueueItem
from hearken.feedback.schema import Items, Judgments, Labelers, Leases, Prompts, Responses, from_row, to_row

FILLS_NO_SLOT = frozenset({"skip", "flag", "withdrawal", "erased"})
"""Kinds of judgment after which another labeler is asked."""

CLOSED = 2
"""Value of ``queue_items.done`` for an item that is never to be asked again."""

_CHUNK = 5_000

T = TypeVar("T", str, int)

_Lent = Leases.alias("lent")
_First = Judgments.alias("first")
_Repeats = Items.alias("repeats")


def chunks(values: Iterable[T]) -> Iterator[list[T]]:
    """Distinct values in sorted lists that fit into one statement."""
    ordered = sorted(set(values))
    for start in range(0, len(ordered), _CHUNK):
        yield ordered[start : start + _CHUNK]


# Statements are built once, here and below, with the values left open: to build one takes longer than to run it.


def among(column: ColumnElement[Any]) -> ColumnElement[bool]:
    """The condition that a column holds one of the values of the parameter ``among``."""
    return column.in_(bindparam("among", expanding=True))


def rows_among(connection: Connection, query: Select[Any], values: Iterable[T]) -> Iterator[RowMapping]:
    """The rows of a query with the condition `among`, whatever the number of values."""
    for part in chunks(values):
        yield from connection.execute(query, {"among": part}).mappings()


@lru_cache
def _ids(table: Table) -> Select[Any]:
    return select(table.c.id).where(among(table.c.id))


def known(connection: Connection, table: Table, ids: Iterable[str]) -> set[str]:
    """Those of ``ids`` that ``table`` has."""
    return {row["id"] for row in rows_among(connection, _ids(table), ids)}


def require(connection: Connection, table: Table, ids: Iterable[str], whose: str) -> None:
    """Check that ``table`` has all ``ids``.

    Raises:
        UserError: naming the first one that is missing.
    """
    wanted = set(ids)
    missing = wanted - known(connection, table, wanted)
    if missing:
        kind = table.name.replace("queue_", "")[:-1]
        raise UserError(f"{whose} names {kind} '{min(missing)}', which is not in the database", f"Add the {kind} first")


def add(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> int:
    """Insert the rows whose id is new; returns how many were."""
    old = known(connection, table, (row["id"] for row in rows))
    new = list({row["id"]: row for row in reversed(rows) if row["id"] not in old}.values())[::-1]
    if new:
        dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
        # Another process may add the same row between the look and the insert.
        connection.execute(dialect.insert(table).on_conflict_do_nothing(index_elements=["id"]), new)
    return len(new)


def enqueue(connection: Connection, items: Sequence[QueueItem], closed: bool = False) -> int:
    """Add queue items; those whose id is known already are left as they are. Returns how many are new.

    Args:
        connection: in a write transaction.
        items: the items.
        closed: the queue serves them to nobody.

    Raises:
        UserError: an item names a prompt, response or earlier item that does not exist.
    """
    rows = [to_row(item) | {"filled": 0, "done": CLOSED * closed, "is_gold": int(item.is_gold)} for item in items]
    require(connection, Prompts, (item.prompt_id for item in items), "a queue item")
    owner = _owners(connection, (response for item in items for response in item.response_ids))
    for item in items:
        for response in item.response_ids:
            _check_response(response, item.prompt_id, owner, "a queue item")
    repeats = {item.repeat_of for item in items if item.repeat_of}
    require(connection, Items, repeats - {item.id for item in items}, "a repeated queue item")
    return add(connection, Items, rows)


def _owners(connection: Connection, responses: Iterable[str]) -> dict[str, str]:
    """The prompt of each of the responses that exist and were not erased."""
    return {row["id"]: row["prompt_id"] for row in rows_among(connection, _OWNERS, responses)}


_OWNERS = select(Responses.c.id, Responses.c.prompt_id).where(among(Responses.c.id), Responses.c.erased == 0)


def _check_response(response: str, prompt: str, owner: dict[str, str], whose: str) -> None:
    if response not in owner:
        raise UserError(f"{whose} names response '{response}', which is not in the database", "Add the response first")
    if owner[response] != prompt:
        raise UserError(f"{whose} on prompt '{prompt}' names response '{response}', which answers another prompt")


# -- claims ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wish:
    """What a labeler asks for; see `FeedbackStore.claim`."""

    labeler_id: str
    seconds: float
    n: int
    kinds: tuple[str, ...] = ()
    checks: bool | None = None


@dataclass(frozen=True)
class Lent:
    """What they were given, and until when."""

    labeler_id: str
    items: list[QueueItem]
    expires: datetime


def claim_all(connection: Connection, database: Database, wishes: Collection[Wish], now: datetime) -> list[Lent]:
    """Lend items to several labelers, in the order of the wishes.

    Raises:
        UserError: no such labeler, or one who is paused.
    """
    _lock_labelers(connection, {wish.labeler_id for wish in wishes})
    lent = []
    for wish in wishes:
        items = _claim(connection, database, wish, now)
        expires = now + timedelta(seconds=wish.seconds)
        _lend(connection, [item["id"] for item in items], wish.labeler_id, expires, now)
        lent.append(Lent(wish.labeler_id, [item_record(item) for item in items], expires))
    return lent


def _lock_labelers(connection: Connection, labelers: set[str]) -> None:
    # Two tabs of one labeler take turns; judgments of the same labeler (a weaker lock) do not wait.
    status = {row["id"]: row["status"] for row in rows_among(connection, _PEOPLE, labelers)}
    for labeler in sorted(labelers):
        if labeler not in status:
            raise UserError(f"no labeler '{labeler}' in the database", "Add the labeler first")
        if status[labeler] != "active":
            raise UserError(f"labeler '{labeler}' is {status[labeler]}", "Set the labeler active again")


def _claim(connection: Connection, database: Database, wish: Wish, now: datetime) -> list[RowMapping]:
    """Items lent to the labeler already first, then by priority; never one judged before."""
    lent, free = _wanted(tuple(sorted(set(wish.kinds))), wish.checks)
    values: dict[str, Any] = {"labeler": wish.labeler_id, "now": now}
    items = _lock_first(connection, database, lent, values | {"n": wish.n})
    with _sorted_by_index(connection, database):
        while len(items) < wish.n:
            left = values | {"n": wish.n - len(items), "had": [item["id"] for item in items]}
            found = _lock_first(connection, database, free, left)
            if not found:
                break
            items += found
    return items


@contextmanager
def _sorted_by_index(connection: Connection, database: Database) -> Iterator[None]:
    # PostgreSQL's guess at how many items are free is low: it would look at all of them, to sort them. Their index is
    # sorted already.
    if database.path is None:
        connection.exec_driver_sql("SET LOCAL enable_sort = off")
    yield
    if database.path is None:
        connection.exec_driver_sql("SET LOCAL enable_sort = on")


@lru_cache(maxsize=256)
def _wanted(kinds: tuple[str, ...], checks: bool | None) -> tuple[_Query, _Query]:
    """What a claim looks for, built once: items lent to the labeler already, and free ones."""
    asked: list[ColumnElement[bool]] = [Items.c.kind.in_(kinds)] if kinds else []
    asked += [] if checks is None else [is_check() if checks else ~is_check()]
    mine = (Leases.c.labeler_id == bindparam("labeler"), Leases.c.expires > bindparam("now"), is_open())
    lent = select(Items).join(Leases, Leases.c.item_id == Items.c.id).where(*mine, *asked)
    return _Query(lent), _Query(_FREE.where(*asked, Items.c.id.not_in(bindparam("had", expanding=True))))


class _Query:
    """A query for items: the first ``n`` of it, locked, by priority; and those of it that are among ``found``."""

    def __init__(self, query: Select[Any]) -> None:
        first = query.order_by(Items.c.priority.desc(), Items.c.id).limit(bindparam("n", type_=Integer()))
        self.first = first.with_for_update(of=Items, skip_locked=True)
        self.again = query.where(Items.c.id.in_(bindparam("found", expanding=True)))


def _lock_first(connection: Connection, database: Database, query: _Query, values: dict[str, Any]) -> list[RowMapping]:
    """The first items of a query, locked. Empty only where there are none but locked ones."""
    while found := list(connection.execute(query.first, values).mappings()):
        if database.path is not None:
            return found
        # What was committed while that statement ran it did not see; now that the rows are locked, look again.
        ids = [item["id"] for item in found]
        found = list(connection.execute(query.again, values | {"found": ids}).mappings())
        if found:
            return found
    return []


LIVE: ColumnElement[int] = literal_column("1")
"""Value of ``judgments.live`` for one in force. No parameter: partial indexes are chosen by this text."""


def is_open() -> ColumnElement[bool]:
    """The condition that an item has open slots."""
    return Items.c.done == literal_column("0")  # not a parameter: the partial index is chosen by this text


def is_check() -> ColumnElement[bool]:
    """The condition that an item measures the labeler: its answer is known, or it is asked a second time."""
    return (Items.c.is_gold == literal_column("1")) | Items.c.repeat_of.is_not(None)  # as in the partial index


def _free() -> Select[Any]:
    """Open items with a slot neither filled nor lent (``now``), which this ``labeler`` may judge."""
    labeler: ColumnElement[int] = bindparam("labeler")
    judged = exists().where(
        Judgments.c.item_id == Items.c.id, Judgments.c.labeler_id == labeler, Judgments.c.live == LIVE
    )
    judged_first = exists().where(
        _First.c.item_id == Items.c.repeat_of, _First.c.labeler_id == labeler, _First.c.live == LIVE
    )
    lent = select(func.count()).where(_Lent.c.item_id == Items.c.id, _Lent.c.expires > bindparam("now"))
    return select(Items).where(
        is_open(),
        ~judged,
        Items.c.repeat_of.is_(None) | judged_first,
        Items.c.filled + lent.correlate(Items).scalar_subquery() < Items.c.slots,
    )


_PEOPLE = (
    select(Labelers.c.id, Labelers.c.status)
    .where(among(Labelers.c.id))
    .order_by(Labelers.c.id)
    .with_for_update(key_share=True)
)
_FREE = _free()
_FREE_ONE = _FREE.where(Items.c.id == bindparam("item"))


def _is_free(connection: Connection, item: str, labeler: str, now: datetime) -> bool:
    return connection.execute(_FREE_ONE, {"item": item, "labeler": labeler, "now": now}).first() is not None


def _lend(connection: Connection, items: Sequence[str], labeler: str, expires: datetime, now: datetime) -> None:
    if not items:
        return
    connection.execute(
        _lending(connection.dialect.name),
        [{"item_id": item, "labeler_id": labeler, "expires": expires, "heartbeat": now} for item in sorted(items)],
    )


@lru_cache
def _lending(dialect: str) -> Insert:
    """Inserts leases, or renews those that are there."""
    statement: Any = (sqlite if dialect == "sqlite" else postgresql).insert(Leases)
    times = {"expires": statement.excluded.expires, "heartbeat": statement.excluded.heartbeat}
    lending: Insert = statement.on_conflict_do_update(index_elements=["item_id", "labeler_id"], set_=times)
    return lending


def repeatable(
    connection: Connection, labeler: str, kinds: Collection[str], since: int, until: int
) -> QueueItem | None:
    """The first item that a labeler judged after number ``since`` and up to ``until``, and that is not repeated yet.

    Args:
        connection: in a transaction.
        labeler: whose judgments.
        kinds: kinds of item; empty means all.
        since: number of a judgment.
        until: number of a later one.
    """
    comparable = [kind for kind, payload in ASKED.items() if payload.repeatable]
    found = select(Items).join(Judgments, Judgments.c.item_id == Items.c.id).where(
        Judgments.c.labeler_id == labeler, Judgments.c.live == LIVE, Judgments.c.kind.in_(comparable),
        Judgments.c.seq > since, Judgments.c.seq <= until, ~is_check(),
        ~exists().where(_Repeats.c.repeat_of == Items.c.id),
    )  # fmt: skip
    found = found.where(Items.c.kind.in_(kinds)) if kinds else found
    row = connection.execute(found.order_by(Judgments.c.seq).limit(1)).mappings().first()
    return None if row is None else item_record(row)


def heartbeat(connection: Connection, item: str, labeler: str, seconds: float, now: datetime) -> datetime | None:
    """Prolong a lease; one that has expired comes to life again where its slot is still free.

    Returns:
        When it ends now, or None where the item is lost to others.
    """
    mine = (Leases.c.item_id == item) & (Leases.c.labeler_id == labeler)
    ends = connection.scalar(select(Leases.c.expires).where(mine))
    if ends is None:
        return None
    row = connection.execute(select(Items.c.id).where(Items.c.id == item, is_open()).with_for_update()).first()
    if row is None:
        return None
    if ends <= now and not _is_free(connection, item, labeler, now):
        return None
    expires = now + timedelta(seconds=seconds)
    _lend(connection, [item], labeler, expires, now)
    return expires


def release(connection: Connection, item: str, labeler: str) -> None:
    """Give a lent item back."""
    connection.execute(delete(Leases).where(Leases.c.item_id == item, Leases.c.labeler_id == labeler))


def lend(connection: Connection, item: str, labeler: str, seconds: float, now: datetime) -> datetime | None:
    """Lend one particular item where it has a free slot; returns when the lease ends, or None."""
    connection.execute(select(Items.c.id).where(Items.c.id == item).with_for_update())
    if not _is_free(connection, item, labeler, now):
        return None
    expires = now + timedelta(seconds=seconds)
    _lend(connection, [item], labeler, expires, now)
    return expires


def close(connection: Connection, items: Iterable[str]) -> None:
    """Ask these items no more; judgments that still come are kept as extra."""
    for part in chunks(items):
        connection.execute(select(Items.c.id).where(Items.c.id.in_(part)).order_by(Items.c.id).with_for_update())
        connection.execute(update(Items).where(Items.c.id.in_(part)).values(done=CLOSED))
        connection.execute(delete(Leases).where(Leases.c.item_id.in_(part)))


# -- judgments ---------------------------------------------------------------------------------------------------


@dataclass
class _Slots:
    """An item's slots while a batch of judgments goes through."""

    row: RowMapping
    filled: int
    done: int

    def take(self) -> bool:
        """Fill a slot, if one is open."""
        if self.done == CLOSED or self.filled >= self.row["slots"]:
            return False
        self.filled += 1
        return True

    def values(self) -> dict[str, Any]:
        done = CLOSED if self.done == CLOSED else int(self.filled >= self.row["slots"])
        return {"key": self.row["id"], "filled": self.filled, "done": done}


@dataclass
class _Batch:
    """What is known about the judgments that a batch touches: stored ones and new ones alike."""

    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By judgment id."""
    live: dict[tuple[str, str], str] = field(default_factory=dict)
    """(item, labeler) -> id of the judgment in force."""
    new: list[str] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    """Stored judgments that are superseded by new ones."""

    def add(self, row: dict[str, Any]) -> None:
        self.rows[row["id"]] = row
        if row["live"] and row["item_id"]:
            self.live[row["item_id"], row["labeler_id"]] = row["id"]


def submit(connection: Connection, database: Database, judgments: Sequence[Judgment]) -> list[Judgment]:
    """Store judgments, in order; see `FeedbackStore.submit`."""
    database.lock(connection)  # from here to the commit one at a time, so that numbers follow the order of commits
    items = _lock_items(connection, (judgment.item_id for judgment in judgments if judgment.item_id))
    batch = _load(connection, judgments, items)
    fresh = [judgment for judgment in judgments if judgment.id not in batch.rows]
    _check(connection, fresh, items)
    seq = connection.scalar(_NEWEST) or 0
    for judgment in judgments:
        stored = batch.rows.get(judgment.id)
        if stored is not None:
            _check_same(judgment, stored)
            continue
        seq += 1
        _settle(judgment, seq, batch, items.get(judgment.item_id or ""))
    if batch.new:
        _write(connection, batch, items)
    return [from_row(Judgment, batch.rows[judgment.id]) for judgment in judgments]


def _lock_items(connection: Connection, ids: Iterable[str]) -> dict[str, _Slots]:
    return {row["id"]: _Slots(row, row["filled"], row["done"]) for row in rows_among(connection, _LOCKED, ids)}


_NEWEST = select(func.coalesce(func.max(Judgments.c.seq), 0))
_LOCKED = select(Items).where(among(Items.c.id)).order_by(Items.c.id).with_for_update()
_NAMED = select(Judgments).where(among(Judgments.c.id))
_LIVE = select(Judgments).where(among(Judgments.c.item_id), Judgments.c.live == LIVE)
_STATES = select(Prompts.c.id, Prompts.c.erased).where(among(Prompts.c.id))


def _load(connection: Connection, judgments: Sequence[Judgment], items: dict[str, _Slots]) -> _Batch:
    batch = _Batch()
    named = {judgment.id for judgment in judgments} | {judgment.supersedes or judgment.id for judgment in judgments}
    for query, keys in ((_NAMED, named), (_LIVE, items.keys())):
        for row in rows_among(connection, query, keys):
            batch.add(dict(row))
    return batch


def _check(connection: Connection, judgments: Sequence[Judgment], items: dict[str, _Slots]) -> None:
    require(connection, Labelers, (judgment.labeler_id for judgment in judgments), "a judgment")
    wanted = {judgment.prompt_id for judgment in judgments}
    found = list(rows_among(connection, _STATES, wanted))
    if len(found) < len(wanted):
        require(connection, Prompts, wanted, "a judgment")
    for row in found:
        if row["erased"]:
            raise UserError(f"prompt '{row['id']}' was erased", "Its judgments cannot be taken any more")
    owner = _owners(connection, (response for judgment in judgments for response in judgment.response_ids))
    for judgment in judgments:
        whose = f"judgment '{judgment.id}'"
        if judgment.kind == "erased":
            raise UserError(f"{whose} has no payload", "Send what the labeler said")
        for response in judgment.response_ids:
            _check_response(response, judgment.prompt_id, owner, whose)
        if judgment.item_id is None:
            continue
        if judgment.item_id not in items:
            raise UserError(
                f"{whose} names item '{judgment.item_id}', which is not in the database", "Enqueue it first"
            )
        item = items[judgment.item_id].row
        if item["prompt_id"] != judgment.prompt_id:
            raise UserError(f"{whose} names another prompt than its item '{judgment.item_id}'")
        if judgment.kind not in FILLS_NO_SLOT and judgment.kind != item["kind"]:
            raise UserError(
                f"{whose} is a {judgment.kind}, but its item asks for a {item['kind']}",
                "Send what is said in passing without item_id",
            )
        if not set(judgment.response_ids) <= set(item["response_ids"]):
            raise UserError(f"{whose} names responses that its item '{judgment.item_id}' does not show")


def _check_same(judgment: Judgment, stored: dict[str, Any]) -> None:
    """A judgment sent again must be the one that is stored (or was, before it was erased)."""
    same = all(getattr(judgment, name) == stored[name] for name in ("labeler_id", "prompt_id", "item_id"))
    if not same or not (stored["erased"] or from_row(Judgment, stored).payload == judgment.payload):
        raise UserError(
            f"judgment '{judgment.id}' is stored already and says something else",
            "Give a revision its own id and name this one in 'supersedes'",
        )


def _settle(judgment: Judgment, seq: int, batch: _Batch, item: _Slots | None) -> None:
    """Decide what a new judgment replaces and whether it fills a slot, and note it in the batch."""
    in_force = batch.live.get((judgment.item_id or "", judgment.labeler_id))
    replaced = _replaced(judgment, judgment.supersedes or in_force, batch)
    if replaced is not None and in_force not in (None, replaced["id"]):
        raise UserError(f"judgment '{judgment.id}' supersedes '{replaced['id']}', but '{in_force}' is in force")
    row = to_row(judgment) | {"seq": seq, "kind": judgment.kind, "extra": 0, "erased": 0}
    row["live"] = int(judgment.kind != "withdrawal")
    if replaced is not None:
        row["supersedes"] = replaced["id"]
        replaced["live"] = 0
        if replaced["id"] not in batch.new:
            batch.dead.append(replaced["id"])
        if judgment.kind == "withdrawal":
            batch.live.pop((judgment.item_id or "", judgment.labeler_id), None)
    if item is not None:
        row["round"] = item.row["round"]
        if replaced is not None and replaced["kind"] not in FILLS_NO_SLOT and not replaced["extra"]:
            item.filled -= 1
        if judgment.kind not in FILLS_NO_SLOT:
            row["extra"] = int(not item.take())
    batch.add(row)
    batch.new.append(judgment.id)


def _replaced(judgment: Judgment, old: str | None, batch: _Batch) -> dict[str, Any] | None:
    whose = f"judgment '{judgment.id}'"
    if old is None:
        if judgment.kind == "withdrawal":
            raise UserError(f"{whose} is a withdrawal but names nothing to withdraw", "Name it in 'supersedes'")
        return None
    row = batch.rows.get(old)
    if row is None:
        raise UserError(f"{whose} supersedes '{old}', which is not in the database")
    if (row["labeler_id"], row["item_id"]) != (judgment.labeler_id, judgment.item_id):
        raise UserError(f"{whose} supersedes '{old}', which is another labeler's or another item's")
    if not row["live"]:
        raise UserError(f"{whose} supersedes '{old}', which is no longer in force", "Supersede its latest revision")
    return row


def _write(connection: Connection, batch: _Batch, items: dict[str, _Slots]) -> None:
    if batch.dead:  # before the insert: two live judgments of one labeler on one item are impossible
        connection.execute(_DEAD, [{"key": old} for old in batch.dead])
    rows = [batch.rows[new] for new in batch.new]
    connection.execute(_INSERT, rows)
    write_slots(connection, items.values())
    pairs = sorted((row["item_id"], row["labeler_id"]) for row in rows if row["item_id"])
    answered = [{"item": item, "labeler": labeler} for item, labeler in pairs]
    if answered:
        connection.execute(_ANSWERED, answered)


def write_slots(connection: Connection, items: Iterable[_Slots]) -> None:
    """Store the slots that changed."""
    values = [slots.values() for slots in items]
    if values:
        connection.execute(_FILLED, values)


_DEAD = update(Judgments).where(Judgments.c.id == bindparam("key")).values(live=0)
_INSERT = Judgments.insert()
_ANSWERED = delete(Leases).where(Leases.c.item_id == bindparam("item"), Leases.c.labeler_id == bindparam("labeler"))
_FILLED = update(Items).where(Items.c.id == bindparam("key")).values(filled=bindparam("filled"), done=bindparam("done"))


def reopen(connection: Connection, rows: Sequence[RowMapping]) -> None:
    """Open the slots again that these judgments (about to be erased) filled."""
    counted = [row for row in rows if row["item_id"] and row["live"] and not row["extra"]]
    counted = [row for row in counted if row["kind"] not in FILLS_NO_SLOT]
    items = _lock_items(connection, (row["item_id"] for row in counted))
    for row in counted:
        items[row["item_id"]].filled -= 1
    write_slots(connection, items.values())


def item_record(row: RowMapping) -> QueueItem:
    """A queue item from its row."""
    return from_row(QueueItem, dict(row) | {"done": row["done"] != 0})
