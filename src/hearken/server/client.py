"""A small client of the HTTP API: for scripts, and for labelers that are not people."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import httpx2 as httpx

from hearken.errors import UserError
from hearken.feedback.examples import Content, Message
from hearken.feedback.records import (
    ItemKind,
    Labeler,
    LabelerKind,
    Progress,
    Prompt,
    QueueItem,
    Response,
    hash_id,
    new_id,
)
from hearken.labelers.ai import Nonsense
from hearken.labelers.protocol import Labeler as Judge
from hearken.progress import progress
from hearken.server.tasks import Task

TRIES = 5
"""Attempts where the connection fails; answers carry ids, so sending one again is harmless."""


class HearkenClient:
    """Speaks to a running ``hearken serve``.

    Args:
        url: where it runs, e.g. ``http://127.0.0.1:8765``.
        token: an API token; what it may do is up to its scopes.
        transport: for tests: answers instead of a network.

    Raises:
        UserError: the server cannot be reached, or refuses (its own words).

    Example:
        >>> with HearkenClient("http://127.0.0.1:8765", token) as client:
        ...     for task in client.claim(8):
        ...         client.compare(task, ranks=[0, 1])
    """

    def __init__(self, url: str, token: str, *, transport: httpx.BaseTransport | None = None) -> None:
        self.url, self._transport = url.rstrip("/"), transport
        headers = {"Authorization": f"Bearer {token}"}
        self._http = httpx.Client(base_url=f"{self.url}/api/v1", headers=headers, timeout=60, transport=transport)

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # -- judging -------------------------------------------------------------------------------------------------

    def claim(self, n: int = 1, kinds: Collection[ItemKind] = (), lease_seconds: int | None = None) -> list[Task]:
        """Up to ``n`` tasks; empty where there is nothing to judge now."""
        asked = {"n": n, "kinds": list(kinds), "lease_seconds": lease_seconds}
        return [Task.model_validate(one) for one in self._send("POST", "/claims", asked)["tasks"]]

    def submit(
        self, task: Task, answer: dict[str, Any], *, seconds: float | None = None, tags: Sequence[str] = (),
        id: str | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Answer a task, e.g. ``{"kind": "thumb", "label": True}``. Returns its id, number, whether it was extra."""
        said = {
            "id": id or new_id(), "item_id": task.item_id, "ticket": task.ticket, "answer": answer, "seconds": seconds,
            "tags": list(tags), "guideline": task.guideline,
        }  # fmt: skip
        found: dict[str, Any] = self._send("POST", "/judgments", said)
        return found

    def compare(
        self, task: Task, ranks: Sequence[int | None], *, strength: float | None = None, **more: Any
    ) -> dict[str, Any]:
        """Answer a comparison: ``ranks[i]`` is that of ``task.responses[i]``, 0 for the best, None for not ranked."""
        return self.submit(task, {"kind": "comparison", "ranks": list(ranks), "strength": strength}, **more)

    def heartbeat(self, task: Task) -> bool:
        """Keep a task a while longer; False where somebody else has it now."""
        found = self._send("POST", f"/items/{task.item_id}/heartbeat", params={"ticket": task.ticket})
        return found["expires"] is not None

    def release(self, task: Task) -> None:
        """Give a task back unanswered."""
        self._send("DELETE", f"/items/{task.item_id}/lease", params={"ticket": task.ticket})

    def withdraw(self, judgment_id: str) -> Task | None:
        """Undo an answer. Returns its task, if it can be answered again."""
        found = self._send("POST", f"/judgments/{judgment_id}/withdraw")["task"]
        return None if found is None else Task.model_validate(found)

    # -- the project ---------------------------------------------------------------------------------------------

    def progress(self, round: int | None = None) -> Progress:
        """How far the queue has come."""
        params = {} if round is None else {"round": round}
        return Progress.model_validate(self._send("GET", "/progress", params=params))

    def export(self, what: str, since: int = 0) -> Iterator[dict[str, Any]]:
        """Prompts, responses, judgments, items or labelers, as they are stored."""
        with self._http.stream("GET", f"/export/{what}", params={"since": since}) as answer:
            if answer.is_error:
                answer.read()
            _check(answer)
            for line in answer.iter_lines():
                yield json.loads(line)

    def add_prompts(self, prompts: Iterable[Prompt]) -> int:
        """Add prompts; returns how many were new."""
        return int(self._send("POST", "/prompts", {"prompts": [_plain(one) for one in prompts]})["new"])

    def add_responses(self, responses: Iterable[Response]) -> int:
        """Add responses; returns how many were new."""
        return int(self._send("POST", "/responses", {"responses": [_plain(one) for one in responses]})["new"])

    def enqueue(self, items: Iterable[QueueItem]) -> int:
        """Ask for judgments; returns how many items were new."""
        return int(self._send("POST", "/items", {"items": [_plain(one) for one in items]})["new"])

    def add_labeler(
        self, name: str, kind: LabelerKind = "simulated", *, id: str | None = None,
        attributes: dict[str, str] | None = None,
    ) -> tuple[Labeler, HearkenClient]:  # fmt: skip
        """Add a labeler that is not a person (or find it by its id), and a client that judges in its name."""
        new = {"name": name, "kind": kind, "id": id, "attributes": attributes or {}}
        found = self._send("POST", "/labelers", new)
        return Labeler.model_validate(found["labeler"]), HearkenClient(
            self.url, found["token"], transport=self._transport
        )

    def _send(self, method: str, path: str, body: Any = None, params: dict[str, Any] | None = None) -> Any:
        for attempt in range(TRIES):
            try:
                answer = self._http.request(method, path, json=body, params=params)
                break
            except httpx.TransportError as error:
                if attempt + 1 == TRIES:
                    raise UserError(f"cannot reach {self.url} ({error})", "Does 'hearken serve' run there?") from None
                time.sleep(0.2 * 2**attempt)
        _check(answer)
        return answer.json() if answer.content else None


def _plain(record: Prompt | Response | QueueItem) -> dict[str, Any]:
    return record.model_dump(mode="json", exclude_defaults=True)


def _check(answer: httpx.Response) -> None:
    if answer.is_success:
        return
    try:
        said = answer.json()
        what, hint = str(said["error"]), str(said["hint"])
    except (ValueError, KeyError, TypeError):
        what, hint = f"the server at {answer.url.host} answered {answer.status_code}", "Is that 'hearken serve'?"
    raise UserError(what, hint)


def content_of(task: Task) -> Content:
    """A task's prompt as the rest of Hearken knows it: plain text, or a dialogue."""
    if len(task.prompt) == 1 and task.prompt[0].role == "prompt":
        return task.prompt[0].text
    return tuple(Message(turn.role, turn.text) for turn in task.prompt if turn.role != "prompt")


def label_over_http(client: HearkenClient, labelers: Iterable[Judge], seed: int) -> dict[str, Any]:
    """Let labelers that are not people answer a server's queue, as people would: blind, through the API.

    An item that a labeler cannot judge is skipped; another one gets it.

    Args:
        client: with a token of the scope "write": it adds the labelers.
        labelers: e.g. those of a panel, or one `AILabeler`.
        seed: fixes their answers.
    """
    done, skipped, desks = 0, 0, []
    for one in labelers:
        attributes = {name: str(value) for name, value in one.attributes.items()}
        named = one.name if one.kind == "simulated" else hash_id(one.name)[:12]  # judges have addresses in their names
        added = client.add_labeler(one.name, one.kind, id=f"{one.kind}-{named}", attributes=attributes)
        desks.append((one, added[1]))
    with progress("Labelers", None, "judgment") as bar, ExitStack() as stack:
        for _, desk in desks:
            stack.enter_context(desk)
        answered = -1
        while answered:
            answered = 0
            for labeler, desk in desks:
                for task in desk.claim(8, kinds=["comparison"]):
                    texts = [response.text for response in task.responses]
                    try:
                        desk.compare(task, labeler.judge(content_of(task), texts, seed).ranks)
                    except Nonsense as said:
                        desk.submit(task, {"kind": "skip", "reason": str(said)[:200]})
                        skipped += 1
                    answered += 1
                    bar.advance()
            done += answered
    return {"labelers": len(desks), "new": done - skipped, "skipped": skipped}
