"""The labeler's desk: hands out tasks, takes answers, watches the checks. Knows no HTTP."""

from __future__ import annotations

import random
import time
from collections import OrderedDict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, get_args

from hearken.domains.base import Domain, find_domain
from hearken.errors import Unavailable, UserError
from hearken.feedback.checks import agrees, gold_record, repeat
from hearken.feedback.records import Claim, ItemKind, Judgment, Prompt, QueueItem, Response, utc_now
from hearken.feedback.store import FeedbackStore
from hearken.server import settings as settings_of
from hearken.server.security import ApiError, Who
from hearken.server.settings import LabelSettings, Practice
from hearken.server.tasks import Submission, Task, check_ticket, judgment, task

REPEAT_AFTER = 20
"""So many judgments lie between an item and its repeat."""

REMEMBERED = 10_000
"""Items that were handed out and are kept in memory."""

FRESH = 1.0
"""Seconds after which settings that another process may have changed are read again."""


@dataclass(frozen=True)
class _Rules:
    version: int
    settings: LabelSettings
    answerable: LabelSettings
    """The same, with the words of all versions: who has a page open may answer in those that stand there."""
    guideline: int | None
    read: float


@dataclass(frozen=True)
class Taken:
    """What became of an answer."""

    judgment: Judgment
    agreed: bool | None = None
    """Practice only: whether it is the expected answer."""
    explanation: str = ""
    """Practice only: why."""
    paused: bool = False
    """The labeler was paused: too many gold items went wrong."""


class Desk:
    """Where labelers come for work.

    Args:
        store: the feedback database.
        domain: what responses are; text unless said otherwise.
    """

    def __init__(self, store: FeedbackStore, domain: Domain | None = None) -> None:
        self.store, self.domain = store, domain or find_domain("text")
        self.salt = store.access.salt()
        self._draws = random.SystemRandom()
        self._rules: _Rules | None = None
        self._last: _Rules | None = None
        self._practice: dict[int, list[str]] = {}
        self._items: OrderedDict[str, QueueItem] = OrderedDict()

    @property
    def rules(self) -> _Rules:
        """The settings and the guideline in force, at most a second ago."""
        now = time.monotonic()
        if self._rules is None or now - self._rules.read > FRESH:
            version, values = self.store.access.settings()
            known = self.store.guidelines()
            settings = LabelSettings.parse(values, where="settings")
            same = self._last is not None and self._last.version == version
            answerable = self._last.answerable if self._last and same else self._with_earlier_words(settings)
            newest = known[-1].version if known else None
            self._rules = self._last = _Rules(version, settings, answerable, newest, now)
        return self._rules

    def _with_earlier_words(self, settings: LabelSettings) -> LabelSettings:
        versions = [*self.store.access.earlier_settings(), settings.model_dump()]
        words = {
            name: [*dict.fromkeys(word for one in versions for word in one.get(name, getattr(LabelSettings(), name)))]
            for name in ("flags", "tags", "span_labels")
        }
        return settings.model_copy(update=words)

    @property
    def settings(self) -> LabelSettings:
        """How people are asked."""
        return self.rules.settings

    @property
    def project(self) -> str:
        """The project's name as it was read last; asks no database."""
        return self._rules.settings.project if self._rules else LabelSettings().project

    def changed(self) -> None:
        """Settings or guideline are new: read them again."""
        self._rules = None

    def change_settings(self, values: dict[str, Any]) -> tuple[int, LabelSettings]:
        """Put new settings in force; see `settings.save`.

        Raises:
            UserError: they are wrong, or ask for a kind of judgment that nobody can give on such responses.
        """
        kinds = values.get("kinds")
        for kind in kinds if isinstance(kinds, list) else ():
            if kind in get_args(ItemKind) and kind not in self.domain.kinds:
                what = f"settings: kinds: nobody can give '{kind}' on what the domain {self.domain.name} makes"
                raise UserError(what, f"It has: {', '.join(self.domain.kinds)}")
        found = settings_of.save(self.store, values)
        self.changed()
        return found

    # -- handing out ---------------------------------------------------------------------------------------------

    def claim(
        self, who: Who, n: int, *, kinds: Collection[str] = (), lease_seconds: float | None = None, html: bool = False,
        practice: bool = False,
    ) -> list[Task]:  # fmt: skip
        """Up to ``n`` tasks: practice first where it is wanted, then the queue's, some of them checks.

        Raises:
            ApiError: 403 where the labeler is paused, 422 for a lease that is longer than the owner grants.
        """
        labeler, settings = who.labeler, self.settings
        if lease_seconds is not None and lease_seconds > settings.lease_seconds:
            raise ApiError(422, f"an item is kept for {settings.lease_seconds} seconds at most", "Ask for less")
        guideline = self.rules.guideline
        tasks = self._practice_left(labeler, settings, guideline, html)[:n] if practice else []
        wanted = kinds or (settings.kinds if who.kind == "page" else ())
        lease = lease_seconds or settings.lease_seconds
        claims: list[Claim] = []
        try:
            if n > len(tasks) and self._draws.random() < settings.check_share:
                claims += self._check(labeler, lease, wanted)
            if n > len(tasks) + len(claims):
                claims += self.store.claim(labeler, lease, n - len(tasks) - len(claims), wanted, checks=False)
        except UserError as error:
            if "paused" in error.what and not isinstance(error, Unavailable):
                raise ApiError(403, "you are paused", "The owner of this project will talk to you") from None
            raise
        for one in claims:
            self._remember(one.item)
        return tasks + [
            task(
                c.item, c.prompt, c.responses, labeler, self.salt, expires=c.expires, guideline=guideline, html=html
            )
            for c in claims
        ]  # fmt: skip

    def _remember(self, item: QueueItem) -> QueueItem:
        """Keep an item that was handed out: its answer comes soon, and what that needs of it never changes."""
        self._items[item.id] = item
        while len(self._items) > REMEMBERED:
            self._items.popitem(last=False)
        return item

    def _check(self, labeler: str, lease: float, kinds: Collection[str]) -> list[Claim]:
        """A gold item, or one that the labeler judged a while ago."""
        if found := self.store.claim(labeler, lease, 1, kinds, checks=True):
            return found
        newest = self.store.last_seq()
        since = self._draws.randrange(max(newest - REPEAT_AFTER, 1))
        item = self.store.repeatable(labeler, kinds=kinds, since=since, until=newest - REPEAT_AFTER)
        if item is not None and self.store.enqueue([repeat(item)]):
            return self.store.claim(labeler, lease, 1, kinds, checks=True)
        return []

    def reopen(self, item_id: str, labeler: str, expires: datetime | None, html: bool) -> Task:
        """A task whose answer was taken back."""
        item = self.store.item(item_id)
        responses = [self.store.response(one) for one in item.response_ids]
        return task(
            item, self.store.prompt(item.prompt_id), responses, labeler, self.salt, expires=expires,
            guideline=self.rules.guideline, html=html,
        )  # fmt: skip

    # -- practice ------------------------------------------------------------------------------------------------

    def practice_in(self, settings: LabelSettings) -> list[Practice]:
        """What newcomers practise on: the built-in items only where responses are texts, as they are."""
        suits = "practice" in settings.model_fields_set or self.domain.viewer == "text"
        return settings.practice if suits and "comparison" in settings.kinds else []

    def practice_items(self, settings: LabelSettings) -> list[str]:
        """Ids of the practice items, which are stored when they are first needed."""
        version = self.rules.version
        if version not in self._practice:
            some = self.practice_in(settings)
            self._practice = {version: [self._store_practice(one, settings) for one in some]}
        return self._practice[version]

    def _store_practice(self, practice: Practice, settings: LabelSettings) -> str:
        prompt = Prompt(content=practice.prompt, domain="practice", split="practice")
        responses = [Response(prompt_id=prompt.id, text=text) for text in practice.responses]
        ids = tuple(response.id for response in responses)
        right = {"kind": "comparison", "response_ids": ids, "ranks": [int(i != practice.best) for i in range(len(ids))]}
        item = QueueItem(
            prompt_id=prompt.id, response_ids=ids, selection="practice", is_gold=True, expected=right,
            metadata={"practice": practice.explanation},
        )  # fmt: skip
        self.store.add_prompts([prompt])
        self.store.add_responses(responses)
        self.store.enqueue([item], closed=True)
        return item.id

    def _practice_left(self, labeler: str, settings: LabelSettings, guideline: int | None, html: bool) -> list[Task]:
        if "comparison" not in settings.kinds:
            return []
        items = self.practice_items(settings)
        done = self.store.judged(labeler, items)
        return [self.reopen(item, labeler, None, html) for item in items if item not in done]

    # -- taking --------------------------------------------------------------------------------------------------

    def submit(self, who: Who, said: Submission) -> Taken:
        """Store an answer; when it returns, the answer is on disk.

        Raises:
            ApiError: 403 for an item that was not given to this labeler; final ones are 422 for an answer that is
                empty or does not fit, 409 where the id is stored and says something else, 400 for what the database
                cannot take, such as an answer to what was erased.
            Unavailable: the database is away, busy or full.
        """
        labeler = who.labeler
        check_ticket(self.salt, labeler, said.item_id, said.ticket)
        if said.guideline is not None and said.guideline > (self.rules.guideline or 0):
            self.changed()  # another server may have a newer one
        rules = self.rules
        with _for_good():
            if said.guideline is not None and said.guideline > (rules.guideline or 0):
                raise ApiError(422, f"there is no guideline {said.guideline}", "Send the number that came with it")
            item = self._items.get(said.item_id) or self._remember(self.store.item(said.item_id))
            original = ""
            if item.kind in ("edit", "span_flag") and said.answer.kind == item.kind:
                original = self.store.response(item.response_ids[0]).text
            made = judgment(said, item, original, labeler, self.salt, rules.answerable, who.kind)
            stored = self.store.submit(made)
        practice = item.metadata.get("practice")
        if practice is not None:
            return Taken(stored, _right(stored, item), practice)
        return Taken(stored, paused=item.is_gold and self._pause(labeler))

    def _pause(self, labeler: str) -> bool:
        """Pause the labeler where too many of their last gold items went wrong."""
        settings = self.settings
        record = gold_record(self.store, labeler, settings.check_window)
        if len(record) < settings.check_window or sum(record) >= settings.check_least * len(record):
            return False
        self.store.set_labeler_status(labeler, "paused")
        self.store.access.note("checks", "paused labeler", labeler, right=sum(record), of=len(record))
        return True

    def withdraw(self, who: Who, judgment_id: str, html: bool) -> Task | None:
        """Undo an answer. Returns its task, lent again; None where there is nothing to answer any more.

        Raises:
            ApiError: 404 where it is not this labeler's, 409 where it is too late.
        """
        labeler, settings = who.labeler, self.settings
        try:
            old = self.store.judgment(judgment_id)
        except Unavailable:
            raise
        except UserError:
            old = None
        if old is None or old.labeler_id != labeler or old.kind in ("withdrawal", "erased"):
            raise ApiError(404, "there is no such answer of yours")
        if (utc_now() - old.created).total_seconds() > settings.undo_seconds:
            raise ApiError(409, "it is too late to take this answer back", "Flag the item to say what is wrong")
        try:
            claim = self.store.withdraw(judgment_id, settings.lease_seconds)
        except Unavailable:
            raise
        except UserError as error:
            raise ApiError(409, error.what, error.hint) from None
        if claim is not None:
            return self.reopen(claim.item.id, labeler, claim.expires, html)
        return self.reopen(old.item_id, labeler, None, html) if old.item_id else None


@contextmanager
def _for_good() -> Iterator[None]:
    """What is wrong with an answer itself stays wrong, however often it is sent: such errors are final."""
    try:
        yield
    except Unavailable:
        raise
    except ApiError as error:
        raise ApiError(error.status, error.what, error.hint, error.headers, final=True) from None
    except UserError as error:
        again = "stored already" in error.what
        hint = "Give a new answer a new id" if again else error.hint
        raise ApiError(409 if again else 400, error.what, hint, final=True) from None


def _right(stored: Judgment, item: QueueItem) -> bool | None:
    if item.expected is None or stored.kind != item.kind:
        return None
    return agrees(stored.payload, item.expected, exact=item.metadata.get("gold") == "exact")
