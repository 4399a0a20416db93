"""Calls the addresses that want to know when so many more judgments are stored."""

from __future__ import annotations

import hmac
import json
import logging
import threading
from types import TracebackType
from typing import Self

from hearken.feedback.access import Webhook
from hearken.feedback.store import FeedbackStore

log = logging.getLogger(__name__)

EVERY = 2.0
"""Seconds between two looks at the number of judgments."""
TRIES = 3


def signature(secret: str, body: bytes) -> str:
    """What the header ``X-Hearken-Signature`` carries: ``sha256=`` and the HMAC of the body."""
    return "sha256=" + hmac.new(secret.encode(), body, "sha256").hexdigest()


class Caller:
    """A thread beside the server. Whoever notes the new count first makes the call, so two servers call once.

    Args:
        store: the feedback database.
    """

    def __init__(self, store: FeedbackStore) -> None:
        self._store = store
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="webhooks", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(EVERY):
            try:
                self.look()
            except Exception:  # a database that is away for a moment must not end the watch
                log.warning("webhooks: cannot look at the database", exc_info=True)

    def look(self) -> int:
        """Call whoever is due. Returns how many were."""
        due = 0
        webhooks = self._store.access.webhooks()
        count = self._store.last_seq() if webhooks else 0
        for webhook in webhooks:
            steps = (count - webhook.reached) // webhook.every
            if steps > 0:
                reached = webhook.reached + steps * webhook.every
                if self._store.access.reach(webhook, reached):
                    self._call(webhook, reached)
                    due += 1
        return due

    def _call(self, webhook: Webhook, reached: int) -> None:
        import httpx2 as httpx

        body = json.dumps({"event": "judgments", "reached": reached, "every": webhook.every}).encode()
        headers = {"Content-Type": "application/json", "X-Hearken-Signature": signature(webhook.secret, body)}
        for attempt in range(TRIES):
            try:
                answer = httpx.post(webhook.url, content=body, headers=headers, timeout=10, follow_redirects=False)
                if answer.status_code < 500:
                    self._store.access.note("webhooks", "called", webhook.id, status=answer.status_code, count=reached)
                    return
            except httpx.HTTPError:
                pass
            if self._stop.wait(2.0**attempt):
                break
        self._store.access.note("webhooks", "could not call", webhook.id, count=reached)
