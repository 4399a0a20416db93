"""The tables of the feedback database. Column names are the fields of `records`.

A change here needs a new migration in ``migrations/versions`` (a test compares the two). Every text a model or a
person wrote is a JSON column: JSON escapes what PostgreSQL's text type cannot hold (NUL, lone surrogates), so both
databases give back exactly what was put in.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from hearken.feedback.records import Record


class UTCDateTime(TypeDecorator[datetime]):
    """An aware datetime in UTC; SQLite, which has no time zones, stores it naive."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To the database."""
        if value is None:
            return None
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """From the database."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


Sequence = BigInteger().with_variant(Integer, "sqlite")
"""SQLite numbers rows by itself only where the column is an INTEGER."""

Json = JSON(none_as_null=True)


class Base(DeclarativeBase):
    """Base of the tables; constraint names are fixed so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: UTCDateTime}


class PromptRow(Base):
    """Prompts."""

    __tablename__ = "prompts"
    seq: Mapped[int] = mapped_column(Sequence, primary_key=True)
    id: Mapped[str] = mapped_column(String, unique=True)
    domain: Mapped[str] = mapped_column(String)
    content: Mapped[Any] = mapped_column(Json)
    split: Mapped[str] = mapped_column(String, index=True)
    metadata_: Mapped[Any] = mapped_column("metadata", Json)
    created: Mapped[datetime]
    erased: Mapped[int] = mapped_column(SmallInteger, server_default="0")


class ResponseRow(Base):
    """Responses."""

    __tablename__ = "responses"
    seq: Mapped[int] = mapped_column(Sequence, primary_key=True)
    id: Mapped[str] = mapped_column(String, unique=True)
    prompt_id: Mapped[str] = mapped_column(ForeignKey("prompts.id"), index=True)
    text: Mapped[Any] = mapped_column(Json)
    payload: Mapped[str | None] = mapped_column(String)
    messages: Mapped[Any | None] = mapped_column(Json)
    token_ids: Mapped[Any | None] = mapped_column(Json)
    finish_reason: Mapped[str | None] = mapped_column(String)
    policy: Mapped[str | None] = mapped_column(String, index=True)
    round: Mapped[int | None] = mapped_column(Integer)
    sampling: Mapped[Any] = mapped_column(Json)
    seed: Mapped[int | None] = mapped_column(BigInteger)
    sample: Mapped[int] = mapped_column(Integer)
    metadata_: Mapped[Any] = mapped_column("metadata", Json)
    created: Mapped[datetime]
    erased: Mapped[int] = mapped_column(SmallInteger, server_default="0")


class LabelerRow(Base):
    """Labelers."""

    __tablename__ = "labelers"
    id: Mapped[str] = mapped_column(String, primary_key=True)
    name: Mapped[Any] = mapped_column(Json)
    kind: Mapped[str] = mapped_column(String)
    attributes: Mapped[Any] = mapped_column(Json)
    status: Mapped[str] = mapped_column(String)
    created: Mapped[datetime]
    erased: Mapped[int] = mapped_column(SmallInteger, server_default="0")


class GuidelineRow(Base):
    """Versions of the instructions for labelers."""

    __tablename__ = "guidelines"
    version: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    text: Mapped[Any] = mapped_column(Json)
    created: Mapped[datetime]


class ItemRow(Base):
    """Queue items. ``done`` is 0 while slots are open, 1 when all are filled, 2 when the item was closed for good."""

    __tablename__ = "queue_items"
    seq: Mapped[int] = mapped_column(Sequence, primary_key=True)
    id: Mapped[str] = mapped_column(String, unique=True)
    prompt_id: Mapped[str] = mapped_column(ForeignKey("prompts.id"), index=True)
    response_ids: Mapped[Any] = mapped_column(Json)
    kind: Mapped[str] = mapped_column(String)
    slots: Mapped[int] = mapped_column(Integer)
    filled: Mapped[int] = mapped_column(Integer)
    done: Mapped[int] = mapped_column(SmallInteger)
    priority: Mapped[float]
    round: Mapped[int | None] = mapped_column(Integer)
    selection: Mapped[str] = mapped_column(String)
    propensity: Mapped[float | None]
    is_gold: Mapped[int] = mapped_column(SmallInteger)
    expected: Mapped[Any | None] = mapped_column(Json)
    repeat_of: Mapped[str | None] = mapped_column(ForeignKey("queue_items.id"))
    metadata_: Mapped[Any] = mapped_column("metadata", Json)
    created: Mapped[datetime]


# The queue's head is found by this index alone, however many finished items lie behind it.
Index(
    "ix_queue_items_open",
    ItemRow.priority.desc(),
    ItemRow.id,
    sqlite_where=text("done = 0"),
    postgresql_where=text("done = 0"),
)


# The same for gold and repeated items, which are few among many; and whether an item is repeated already.
_CHECK = text("done = 0 AND (is_gold = 1 OR repeat_of IS NOT NULL)")
Index("ix_queue_items_checks", ItemRow.priority.desc(), ItemRow.id, sqlite_where=_CHECK, postgresql_where=_CHECK)
_REPEAT = text("repeat_of IS NOT NULL")
Index("ix_queue_items_repeat_of", ItemRow.repeat_of, sqlite_where=_REPEAT, postgresql_where=_REPEAT)


class LeaseRow(Base):
    """Items lent to labelers."""

    __tablename__ = "leases"
    item_id: Mapped[str] = mapped_column(ForeignKey("queue_items.id"), primary_key=True)
    labeler_id: Mapped[str] = mapped_column(ForeignKey("labelers.id"), primary_key=True, index=True)
    expires: Mapped[datetime]
    heartbeat: Mapped[datetime]


class JudgmentRow(Base):
    """Judgments. Rows are only added; ``live`` falls to 0 when a later one supersedes or erasure redacts it."""

    __tablename__ = "judgments"
    seq: Mapped[int] = mapped_column(Sequence, primary_key=True, autoincrement=False)
    id: Mapped[str] = mapped_column(String, unique=True)
    kind: Mapped[str] = mapped_column(String)
    prompt_id: Mapped[str] = mapped_column(ForeignKey("prompts.id"), index=True)
    item_id: Mapped[str | None] = mapped_column(ForeignKey("queue_items.id"))
    labeler_id: Mapped[str] = mapped_column(ForeignKey("labelers.id"), index=True)
    payload: Mapped[Any] = mapped_column(Json)
    seconds: Mapped[float | None]
    order: Mapped[Any | None] = mapped_column(Json)
    order_seed: Mapped[int | None] = mapped_column(BigInteger)
    guideline: Mapped[int | None] = mapped_column(Integer)
    round: Mapped[int | None] = mapped_column(Integer)
    weight: Mapped[float]
    tags: Mapped[Any] = mapped_column(Json)
    metadata_: Mapped[Any] = mapped_column("metadata", Json)
    supersedes: Mapped[str | None] = mapped_column(ForeignKey("judgments.id"), unique=True)
    extra: Mapped[int] = mapped_column(SmallInteger)
    live: Mapped[int] = mapped_column(SmallInteger)
    created: Mapped[datetime]
    erased: Mapped[int] = mapped_column(SmallInteger, server_default="0")


# One labeler has one opinion in force on one item; also how a claim finds what the labeler has already judged.
Index(
    "ix_judgments_live",
    JudgmentRow.item_id,
    JudgmentRow.labeler_id,
    unique=True,
    sqlite_where=text("live = 1"),
    postgresql_where=text("live = 1"),
)


class TombstoneRow(Base):
    """What was erased, when and why."""

    __tablename__ = "tombstones"
    seq: Mapped[int] = mapped_column(Sequence, primary_key=True)
    target: Mapped[str] = mapped_column(String)
    target_id: Mapped[str] = mapped_column(String, index=True)
    reason: Mapped[Any] = mapped_column(Json)
    created: Mapped[datetime]


class SettingsRow(Base):
    """Versions of how people are asked. Number 0 holds the secret from which display orders are drawn."""

    __tablename__ = "settings"
    version: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    value: Mapped[Any] = mapped_column(Json)
    created: Mapped[datetime]


class AccountRow(Base):
    """People who may come in."""

    __tablename__ = "accounts"
    id: Mapped[str] = mapped_column(String, primary_key=True)
    name: Mapped[Any] = mapped_column(Json)
    login: Mapped[str | None] = mapped_column(String, unique=True)
    password: Mapped[str | None] = mapped_column(String)
    role: Mapped[str] = mapped_column(String)
    labeler_id: Mapped[str | None] = mapped_column(ForeignKey("labelers.id"), unique=True)
    status: Mapped[str] = mapped_column(String)
    consented: Mapped[datetime | None]
    created: Mapped[datetime]


class SessionRow(Base):
    """Browsers that are logged in; the id is a hash of the cookie's secret."""

    __tablename__ = "sessions"
    id: Mapped[str] = mapped_column(String, primary_key=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"), index=True)
    csrf: Mapped[str] = mapped_column(String)
    created: Mapped[datetime]
    expires: Mapped[datetime]


class AttemptRow(Base):
    """Attempts to come in, by a hash of who tries what, until they no longer count."""

    __tablename__ = "attempts"
    key: Mapped[str] = mapped_column(String, primary_key=True)
    count: Mapped[int] = mapped_column(Integer)
    until: Mapped[datetime]


class TokenRow(Base):
    """Tokens of the HTTP API, hashed."""

    __tablename__ = "tokens"
    id: Mapped[str] = mapped_column(String, primary_key=True)
    hash: Mapped[str] = mapped_column(String, unique=True)
    name: Mapped[Any] = mapped_column(Json)
    scopes: Mapped[Any] = mapped_column(Json)
    labeler_id: Mapped[str | None] = mapped_column(ForeignKey("labelers.id"), index=True)
    made_by: Mapped[str | None] = mapped_column(String)
    created: Mapped[datetime]
    expires: Mapped[datetime | None]
    revoked: Mapped[datetime | None]


class InviteRow(Base):
    """Links by which somebody may come in once, hashed."""

    __tablename__ = "invites"
    id: Mapped[str] = mapped_column(String, primary_key=True)
    hash: Mapped[str] = mapped_column(String, unique=True)
    role: Mapped[str] = mapped_column(String)
    account_id: Mapped[str | None] = mapped_column(ForeignKey("accounts.id"))
    note: Mapped[Any] = mapped_column(Json)
    created: Mapped[datetime]
    expires: Mapped[datetime]
    used: Mapped[datetime | None]
    revoked: Mapped[datetime | None]


class WebhookRow(Base):
    """Addresses that are called each time so many more judgments are stored."""

    __tablename__ = "webhooks"
    id: Mapped[str] = mapped_column(String, primary_key=True)
    url: Mapped[Any] = mapped_column(Json)
    every: Mapped[int] = mapped_column(Integer)
    secret: Mapped[str] = mapped_column(String)
    reached: Mapped[int] = mapped_column(Integer)
    created: Mapped[datetime]


class AuditRow(Base):
    """Who did what, besides judging."""

    __tablename__ = "audit"
    seq: Mapped[int] = mapped_column(Sequence, primary_key=True)
    actor: Mapped[str] = mapped_column(String)
    action: Mapped[str] = mapped_column(String)
    target: Mapped[str] = mapped_column(String)
    detail: Mapped[Any] = mapped_column(Json)
    created: Mapped[datetime]


Prompts = cast(Table, PromptRow.__table__)
Responses = cast(Table, ResponseRow.__table__)
Labelers = cast(Table, LabelerRow.__table__)
Guidelines = cast(Table, GuidelineRow.__table__)
Items = cast(Table, ItemRow.__table__)
Leases = cast(Table, LeaseRow.__table__)
Judgments = cast(Table, JudgmentRow.__table__)
Tombstones = cast(Table, TombstoneRow.__table__)
Settings = cast(Table, SettingsRow.__table__)
Accounts = cast(Table, AccountRow.__table__)
Sessions = cast(Table, SessionRow.__table__)
Attempts = cast(Table, AttemptRow.__table__)
Tokens = cast(Table, TokenRow.__table__)
Invites = cast(Table, InviteRow.__table__)
Webhooks = cast(Table, WebhookRow.__table__)
Audit = cast(Table, AuditRow.__table__)

R = TypeVar("R", bound=Record)


def to_row(record: Record) -> dict[str, Any]:
    """A record as a row: its fields by column name."""
    return record.model_dump()


def from_row(record: type[R], row: Mapping[Any, Any]) -> R:
    """The record that a row holds; columns that are no fields of it (``seq``, ``live``, ...) are left out."""
    return record.model_validate({name: row[name] for name in record.model_fields if name in row})
