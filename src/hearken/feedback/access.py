"""Who may come in, and what they did there: accounts, sessions, invites, API tokens, webhooks, the audit trail.

Secrets (of a cookie, an invite link, a token) are made here and given out once; the database keeps their SHA-256.
They are random, 256 bits, so no slow hash is needed; passwords, which people choose, come here hashed already.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal, TypeVar

from pydantic import AwareDatetime, Field
from sqlalchemy import Table, and_, bindparam, case, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from hearken.errors import UserError
from hearken.feedback.database import Database
from hearken.feedback.names import check_name
from hearken.feedback.records import Labeler, Record, new_id, utc_now
from hearken.feedback.schema import (
    Accounts,
    Attempts,
    Audit,
    Invites,
    Labelers,
    Sessions,
    Settings,
    Tokens,
    Webhooks,
    from_row,
    to_row,
)

Role = Literal["owner", "labeler", "viewer"]
Scope = Literal["label", "read", "write", "manage"]
"""What a token may do: judge, read and export, add prompts, responses, items and labelers, manage people."""

SESSION_DAYS = 30
INVITE_DAYS = 7.0

R = TypeVar("R", bound=Record)


class Account(Record):
    """A person who may come in. Whoever judges has a labeler, too."""

    name: str
    role: Role = "labeler"
    login: str | None = None
    """What they log in with; None for those who came by a link and chose no password."""
    password: str | None = Field(default=None, repr=False)
    """Argon2 hash."""
    labeler_id: str | None = None
    status: Literal["active", "closed"] = "active"
    consented: AwareDatetime | None = None
    """When they agreed to the notice and began; None before."""
    id: str = Field(default_factory=new_id)
    created: AwareDatetime = Field(default_factory=utc_now)


class Session(Record):
    """A browser that is logged in."""

    account_id: str
    csrf: str = Field(default_factory=secrets.token_urlsafe, repr=False)
    id: str
    created: AwareDatetime
    expires: AwareDatetime


class Token(Record):
    """A token of the HTTP API; the secret itself is known to its holder only."""

    name: str
    scopes: tuple[Scope, ...]
    labeler_id: str | None = None
    """Whose judgments it gives; needed for the scope "label"."""
    made_by: str | None = None
    """Who made it, as the audit trail names them; None for the command line and for tokens of before."""
    id: str = Field(default_factory=new_id)
    created: AwareDatetime = Field(default_factory=utc_now)
    expires: AwareDatetime | None = None
    revoked: AwareDatetime | None = None


class Invite(Record):
    """A link by which one person may come in, once."""

    role: Role
    account_id: str | None = None
    """The account it opens again, e.g. on another device; None makes a new one."""
    note: str = ""
    """For whom; the name that is proposed to them."""
    id: str = Field(default_factory=new_id)
    created: AwareDatetime = Field(default_factory=utc_now)
    expires: AwareDatetime
    used: AwareDatetime | None = None
    revoked: AwareDatetime | None = None


class Webhook(Record):
    """An address that is called each time ``every`` more judgments are stored."""

    url: str
    every: int = Field(ge=1, lt=2**31)
    secret: str = Field(default_factory=secrets.token_urlsafe, repr=False)
    """Key of the signature that each call carries."""
    reached: int = 0
    id: str = Field(default_factory=new_id)
    created: AwareDatetime = Field(default_factory=utc_now)


class AuditEntry(Record):
    """Something that somebody did, besides judging."""

    actor: str
    action: str
    target: str = ""
    detail: dict[str, Any] = {}
    created: AwareDatetime = Field(default_factory=utc_now)
    seq: int | None = None


_TOKEN = select(Tokens).where(Tokens.c.hash == bindparam("hash"))


def _check_names(name: str | None, login: str | None) -> None:
    if name is not None:
        check_name(name)
    if login is not None:
        check_name(login, "the name to log in with")


class _UsedUp(Exception):
    """Nothing shall be counted: one of the keys is used up for so many seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


def digest(secret: str) -> str:
    """What the database keeps of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


class Access:
    """The door to all this; made by `FeedbackStore.access`.

    Args:
        database: the open feedback database.
        clock: tells the time; aware, UTC.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._clock = clock

    # -- accounts ------------------------------------------------------------------------------------------------

    def add_account(self, account: Account) -> Account:
        """Add an account, and the labeler behind it where it judges.

        Raises:
            UserError: the login is taken, or it or the name cannot be used.
        """
        with self._database.write() as connection:
            return self._add_account(connection, account)

    def _add_account(self, connection: Connection, account: Account) -> Account:
        _check_names(account.name, account.login)
        if account.labeler_id is None and account.role != "viewer":
            labeler = Labeler(name=account.name, created=self._clock())
            connection.execute(Labelers.insert(), to_row(labeler))
            account = account.model_copy(update={"labeler_id": labeler.id})
        self._refuse_taken(connection, account.login, account.id)
        connection.execute(Accounts.insert(), to_row(account))
        return account

    def _refuse_taken(self, connection: Connection, login: str | None, account_id: str) -> None:
        taken = select(Accounts.c.id).where(Accounts.c.login == login, Accounts.c.id != account_id)
        if login is not None and connection.scalar(taken) is not None:
            raise UserError(f"the name '{login}' is taken", "Choose another one to log in with")

    def accounts(self) -> list[Account]:
        """All accounts, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(select(Accounts).order_by(Accounts.c.created, Accounts.c.id)).mappings()
            return [from_row(Account, row) for row in rows]

    def account(self, account_id: str) -> Account:
        """One account; UserError where there is none."""
        with self._database.read() as connection:
            return self._account(connection, account_id)

    def account_by_login(self, login: str) -> Account | None:
        """The account that logs in by this name."""
        with self._database.read() as connection:
            row = connection.execute(select(Accounts).where(Accounts.c.login == login)).mappings().first()
        return None if row is None else from_row(Account, row)

    def _account(self, connection: Connection, account_id: str) -> Account:
        row = connection.execute(select(Accounts).where(Accounts.c.id == account_id)).mappings().first()
        if row is None:
            raise UserError(f"no account '{account_id}' in {self._database.name}")
        return from_row(Account, row)

    def change_account(self, account_id: str, **values: Any) -> Account:
        """Change an account's name, login, password, role, status or consent; a name is the labeler's, too.

        A new password, role or status ends all sessions of the account.

        Raises:
            UserError: no such account; the login is taken, or it or the name cannot be used; nobody would be left who
                may manage.
        """
        _check_names(values.get("name"), values.get("login"))
        with self._database.write() as connection:
            self._database.lock(connection)
            new = Account.model_validate(self._account(connection, account_id).model_dump() | values)
            self._refuse_taken(connection, new.login, account_id)
            if new.labeler_id is None and new.role != "viewer":
                labeler = Labeler(name=new.name, created=self._clock())
                connection.execute(Labelers.insert(), to_row(labeler))
                new = new.model_copy(update={"labeler_id": labeler.id})
            connection.execute(update(Accounts).where(Accounts.c.id == account_id).values(to_row(new)))
            owners = select(func.count()).where(Accounts.c.role == "owner", Accounts.c.status == "active")
            if {"role", "status"} & set(values) and not connection.scalar(owners):
                raise UserError("nobody would be left who may manage this project", "Make somebody else owner first")
            if "name" in values and new.labeler_id is not None:
                named = update(Labelers).where(Labelers.c.id == new.labeler_id, Labelers.c.erased == 0)
                connection.execute(named.values(name=new.name))
            if {"password", "role", "status"} & set(values):
                connection.execute(delete(Sessions).where(Sessions.c.account_id == account_id))
            return new

    def declare(self, labeler_id: str, attributes: dict[str, Any]) -> None:
        """Keep what a labeler chose to say about themselves."""
        with self._database.write() as connection:
            said = update(Labelers).where(Labelers.c.id == labeler_id, Labelers.c.erased == 0)
            connection.execute(said.values(attributes=attributes))

    # -- sessions ------------------------------------------------------------------------------------------------

    def open_session(self, account_id: str, days: float = SESSION_DAYS) -> tuple[str, Session]:
        """Log somebody in. Returns the cookie's secret and the session; what is over is cleared away."""
        secret, now = secrets.token_urlsafe(32), self._clock()
        session = Session(account_id=account_id, id=digest(secret), created=now, expires=now + timedelta(days=days))
        with self._database.write() as connection:
            connection.execute(delete(Sessions).where(Sessions.c.expires <= now))
            connection.execute(delete(Attempts).where(Attempts.c.until <= now))
            connection.execute(Sessions.insert(), to_row(session))
        return secret, session

    def session(self, secret: str) -> tuple[Session, Account] | None:
        """The session of a cookie and whose it is; None where it is unknown, over, or its account closed."""
        found = select(Sessions).where(Sessions.c.id == digest(secret), Sessions.c.expires > self._clock())
        with self._database.read() as connection:
            row = connection.execute(found).mappings().first()
            if row is None:
                return None
            account = self._account(connection, row["account_id"])
        return (from_row(Session, row), account) if account.status == "active" else None

    def close_session(self, session_id: str) -> None:
        """Log out."""
        with self._database.write() as connection:
            connection.execute(delete(Sessions).where(Sessions.c.id == session_id))

    # -- attempts to come in -------------------------------------------------------------------------------------

    def attempt(self, most: Mapping[str, int], seconds: float) -> float:
        """Count an attempt, before it is made, under each of the keys, unless one of them is used up.

        The count is one for all servers on this database, so that attempts at the same moment do not slip past it.

        Args:
            most: attempts allowed by key.
            seconds: for how long they count, from the first one on.

        Returns:
            0 where it may be made, otherwise after how many seconds.
        """
        now = self._clock()
        keys = {digest(key): allowed for key, allowed in sorted(most.items())}
        with self._database.read() as connection:  # a flood of attempts too many writes nothing
            known = select(Attempts).where(Attempts.c.key.in_(keys), Attempts.c.until > now)
            for row in connection.execute(known).mappings():
                if row["count"] >= keys[row["key"]]:
                    return float((row["until"] - now).total_seconds())
        insert = sqlite.insert if self._database.path else postgresql.insert
        over, until = Attempts.c.until <= now, now + timedelta(seconds=seconds)
        try:
            with self._database.write(durable=False) as connection:
                for key, allowed in sorted(keys.items()):  # always in this order: nobody waits for each other
                    first = insert(Attempts).values(key=key, count=1, until=until)
                    again = {
                        "count": case((over, 1), else_=Attempts.c.count + 1),
                        "until": case((over, until), else_=Attempts.c.until),
                    }
                    counted = first.on_conflict_do_update(index_elements=["key"], set_=again)
                    count, end = connection.execute(counted.returning(Attempts.c.count, Attempts.c.until)).one()
                    if count > allowed:
                        raise _UsedUp(float((end - now).total_seconds()))
        except _UsedUp as used_up:
            return used_up.seconds
        return 0.0

    def forgive(self, *, one: Collection[str] = (), all: Collection[str] = ()) -> None:
        """Take an attempt back under the keys ``one``, and every attempt under the keys ``all``."""
        with self._database.write(durable=False) as connection:
            some = and_(Attempts.c.key.in_(map(digest, one)), Attempts.c.count > 0)
            connection.execute(update(Attempts).where(some).values(count=Attempts.c.count - 1))
            connection.execute(delete(Attempts).where(Attempts.c.key.in_(map(digest, all))))

    # -- invites -------------------------------------------------------------------------------------------------

    def invite(
        self, role: Role, *, account_id: str | None = None, note: str = "", days: float = INVITE_DAYS
    ) -> tuple[str, Invite]:
        """Make an invitation. Returns its secret, which is nowhere kept, and the record."""
        if note:
            check_name(note, "the name on the invitation")
        secret, now = secrets.token_urlsafe(24), self._clock()
        invite = Invite(role=role, account_id=account_id, note=note, created=now, expires=now + timedelta(days=days))
        with self._database.write() as connection:
            if account_id is not None:
                self._account(connection, account_id)
            connection.execute(Invites.insert(), to_row(invite) | {"hash": digest(secret)})
        return secret, invite

    def redeem(self, secret: str) -> Account | None:
        """Use an invitation up: the account it opens, made now unless it names one. None where it is not (or no more)
        valid. Of two who try at once, one comes in.
        """
        now, is_it = self._clock(), Invites.c.hash == digest(secret)
        valid = (is_it, Invites.c.used.is_(None), Invites.c.revoked.is_(None), Invites.c.expires > now)
        with self._database.read() as connection:  # guesses make nobody wait who writes
            if connection.scalar(select(Invites.c.id).where(*valid)) is None:
                return None
        with self._database.write() as connection:
            taken = update(Invites).where(*valid).values(used=now)
            if connection.execute(taken).rowcount == 0:
                return None
            row = connection.execute(select(Invites).where(is_it)).mappings().one()
            if row["account_id"] is not None:
                account = self._account(connection, row["account_id"])
                return account if account.status == "active" else None
            account = Account(name=row["note"] or row["role"].title(), role=row["role"], created=now)
            account = self._add_account(connection, account)
            connection.execute(update(Invites).where(Invites.c.id == row["id"]).values(account_id=account.id))
            return account

    def invites(self) -> list[Invite]:
        """All invitations, newest first."""
        return self._all(Invite, Invites)

    def revoke_invite(self, invite_id: str) -> None:
        """Make an invitation worthless; UserError where there is none."""
        self._revoke(Invites, invite_id, "invite")

    # -- API tokens ----------------------------------------------------------------------------------------------

    def add_token(
        self, name: str, scopes: Collection[Scope], *, labeler_id: str | None = None, days: float | None = None,
        made_by: str | None = None,
    ) -> tuple[str, Token]:  # fmt: skip
        """Make a token. Returns its secret, which is nowhere kept, and the record.

        Raises:
            UserError: the scope "label" without a labeler, or an unknown one; a name that cannot be used.
        """
        check_name(name, "the token's name")
        secret, now = f"hearken_{secrets.token_urlsafe(32)}", self._clock()
        expires = None if days is None else now + timedelta(days=days)
        token = Token(
            name=name, scopes=tuple(sorted(set(scopes))), labeler_id=labeler_id, made_by=made_by, created=now,
            expires=expires,
        )  # fmt: skip
        if "label" in scopes and labeler_id is None:
            raise UserError("a token that judges needs a labeler", "Name one as labeler_id")
        with self._database.write() as connection:
            known = select(Labelers.c.id).where(Labelers.c.id == labeler_id, Labelers.c.erased == 0)
            if labeler_id is not None and connection.scalar(known) is None:
                raise UserError(f"no labeler '{labeler_id}' in {self._database.name}")
            connection.execute(Tokens.insert(), to_row(token) | {"hash": digest(secret)})
        return secret, token

    def add_machine(self, labeler: Labeler, actor: str, *, manages: bool = False) -> tuple[str, Token, Labeler] | None:
        """Add a labeler that is no person, or find one that ``actor`` has added before, and make a token for it.

        Args:
            labeler: simulated or AI.
            actor: who adds it; the token says so, and ends when that token ends.
            manages: whether they may make tokens for anybody's labelers.

        Returns:
            The token's secret, the token and the labeler as stored; None where the labeler's id is somebody else's.
        """
        check_name(labeler.name, "the labeler's name")
        secret, now = f"hearken_{secrets.token_urlsafe(32)}", self._clock()
        with self._database.write() as connection:
            self._database.lock(connection)
            row = connection.execute(select(Labelers).where(Labelers.c.id == labeler.id)).mappings().first()
            if row is None:
                connection.execute(Labelers.insert(), to_row(labeler))
            else:
                added = select(Tokens.c.id).where(Tokens.c.labeler_id == labeler.id, Tokens.c.made_by == actor)
                if row["erased"] or row["kind"] not in ("simulated", "ai"):
                    return None
                if not manages and connection.scalar(added.limit(1)) is None:
                    return None
                labeler = from_row(Labeler, row)
            maker = select(Tokens.c.expires).where(Tokens.c.id == actor.removeprefix("token:"))
            token = Token(
                name=labeler.name, scopes=("label",), labeler_id=labeler.id, made_by=actor, created=now,
                expires=connection.scalar(maker),
            )  # fmt: skip
            connection.execute(Tokens.insert(), to_row(token) | {"hash": digest(secret)})
        return secret, token, labeler

    def token(self, secret: str) -> Token | None:
        """The token of a secret; None where it is unknown, over or revoked."""
        with self._database.read() as connection:
            row = connection.execute(_TOKEN, {"hash": digest(secret)}).mappings().first()
        if row is None or row["revoked"] is not None:
            return None
        token = from_row(Token, row)
        return token if token.expires is None or token.expires > self._clock() else None

    def tokens(self) -> list[Token]:
        """All tokens, newest first."""
        return self._all(Token, Tokens)

    def revoke_token(self, token_id: str) -> None:
        """Make a token worthless at once, and those that it has made; UserError where there is none."""
        self._revoke(Tokens, token_id, "token")
        ended = [token_id]
        with self._database.write() as connection:
            while ended:
                theirs = Tokens.c.made_by.in_([f"token:{one}" for one in ended]) & Tokens.c.revoked.is_(None)
                ended = list(connection.scalars(select(Tokens.c.id).where(theirs)))
                connection.execute(update(Tokens).where(theirs).values(revoked=self._clock()))

    # -- webhooks ------------------------------------------------------------------------------------------------

    def add_webhook(self, webhook: Webhook) -> Webhook:
        """Call an address from now on."""
        with self._database.write() as connection:
            connection.execute(Webhooks.insert(), to_row(webhook))
        return webhook

    def webhooks(self) -> list[Webhook]:
        """All of them, newest first."""
        return self._all(Webhook, Webhooks)

    def remove_webhook(self, webhook_id: str) -> None:
        """Call it no more; UserError where there is none."""
        with self._database.write() as connection:
            if connection.execute(delete(Webhooks).where(Webhooks.c.id == webhook_id)).rowcount == 0:
                raise UserError(f"no webhook '{webhook_id}' in {self._database.name}")

    def reach(self, webhook: Webhook, count: int) -> bool:
        """Note that ``count`` judgments are reached; False where another server was faster."""
        with self._database.write() as connection:
            mine = update(Webhooks).where(Webhooks.c.id == webhook.id, Webhooks.c.reached == webhook.reached)
            return connection.execute(mine.values(reached=count)).rowcount == 1

    # -- settings ------------------------------------------------------------------------------------------------

    def settings(self) -> tuple[int, dict[str, Any]]:
        """The settings in force and their version; ``(0, {})`` where nobody made any."""
        newest = select(Settings).where(Settings.c.version > 0).order_by(Settings.c.version.desc()).limit(1)
        with self._database.read() as connection:
            row = connection.execute(newest).mappings().first()
        return (0, {}) if row is None else (row["version"], dict(row["value"]))

    def earlier_settings(self) -> list[dict[str, Any]]:
        """All versions of the settings, oldest first."""
        stored = select(Settings.c.value).where(Settings.c.version > 0).order_by(Settings.c.version)
        with self._database.read() as connection:
            return [dict(value) for value in connection.scalars(stored)]

    def set_settings(self, value: dict[str, Any]) -> int:
        """Put new settings in force, unless they are; returns their version."""
        with self._database.write() as connection:
            self._database.lock(connection)
            newest = select(Settings).where(Settings.c.version > 0).order_by(Settings.c.version.desc()).limit(1)
            row = connection.execute(newest).mappings().first()
            if row is not None and row["value"] == value:
                return int(row["version"])
            version = 1 if row is None else row["version"] + 1
            connection.execute(Settings.insert(), {"version": version, "value": value, "created": self._clock()})
            return int(version)

    def salt(self) -> str:
        """The database's own secret, from which display orders and tickets are drawn; made when first asked for."""
        stored = select(Settings.c.value).where(Settings.c.version == 0)
        with self._database.read() as connection:
            found = connection.scalar(stored)
        if found is None:
            with self._database.write() as connection:
                self._database.lock(connection)
                found = connection.scalar(stored)
                if found is None:
                    found = {"salt": secrets.token_hex(32)}
                    connection.execute(Settings.insert(), {"version": 0, "value": found, "created": self._clock()})
        return str(found["salt"])

    # -- audit ---------------------------------------------------------------------------------------------------

    def note(self, actor: str, action: str, target: str = "", **detail: Any) -> None:
        """Write a line of the audit trail."""
        entry = AuditEntry(actor=actor, action=action, target=target, detail=detail, created=self._clock())
        with self._database.write() as connection:
            connection.execute(Audit.insert(), entry.model_dump(exclude={"seq"}))

    def audit(self, last: int = 1_000) -> list[AuditEntry]:
        """The newest lines of the audit trail, newest first."""
        with self._database.read() as connection:
            rows = connection.execute(select(Audit).order_by(Audit.c.seq.desc()).limit(last)).mappings()
            return [from_row(AuditEntry, row) for row in rows]

    # -- shared --------------------------------------------------------------------------------------------------

    def _all(self, record: type[R], table: Table) -> list[R]:
        with self._database.read() as connection:
            rows = connection.execute(select(table).order_by(table.c.created.desc(), table.c.id)).mappings()
            return [from_row(record, row) for row in rows]

    def _revoke(self, table: Table, id: str, kind: str) -> None:
        with self._database.write() as connection:
            values = {"revoked": func.coalesce(table.c.revoked, self._clock())}
            if connection.execute(update(table).where(table.c.id == id).values(values)).rowcount == 0:
                raise UserError(f"no {kind} '{id}' in {self._database.name}")


def redact(connection: Connection, labeler_id: str) -> None:
    """Erase the account behind a labeler: nobody can come in by it any more, and it names nobody."""
    found = select(Accounts.c.id).where(Accounts.c.labeler_id == labeler_id)
    for account in connection.scalars(found).all():
        connection.execute(delete(Sessions).where(Sessions.c.account_id == account))
        connection.execute(update(Invites).where(Invites.c.account_id == account).values(note=""))
        values = {"name": "erased", "login": None, "password": None, "status": "closed"}
        connection.execute(update(Accounts).where(Accounts.c.id == account).values(values))
    now = utc_now()
    connection.execute(update(Tokens).where(Tokens.c.labeler_id == labeler_id).values(name="erased", revoked=now))
