"""A small client of the HTTP API: for scripts, and for labelers that are not people."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

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
    new_id,
)
from hearken.labelers.ai import AILabeler, Nonsense, Opinion
from hearken.labelers.answering import Answers, cost_of, length, say
from hearken.labelers.protocol import Labeler as Judge
from hearken.labelers.protocol import Ranking
from hearken.progress import progress
from hearken.server.tasks import Task

PATIENCE = 120.0
"""Seconds in which a request is sent again while the server or its database is away or full. Answers carry ids, so
sending one again is harmless.
"""

SHORT_PATIENCE = 3.0
"""The same where the address may be wrong (nothing has answered yet), or the server itself (500)."""

PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Status of what may pass."""

AT_ONCE, AT_MOST = 8, 50
"""Tasks that a labeler which is not a person takes at a time, and how many it may."""


class Refused(UserError):
    """The server's answer was an error.

    Args:
        what: its own words.
        hint: likewise.
        status: of HTTP.
        final: the same request can never succeed.
    """

    def __init__(self, what: str, hint: str, status: int, final: bool = False) -> None:
        super().__init__(what, hint)
        self.status, self.final = status, final


class HearkenClient:
    """Speaks to a running ``hearken serve``.

    Args:
        url: where it runs, e.g. ``http://127.0.0.1:8765``.
        token: an API token; what it may do is up to its scopes.
        patience: seconds in which requests are sent again where something is away or full that comes back.
        transport: for tests: answers instead of a network.

    Raises:
        UserError: the server cannot be reached, or not for as long as ``patience``.
        Refused: it refuses (its own words).

    Example:
        >>> with HearkenClient("http://127.0.0.1:8765", token) as client:
        ...     for task in client.claim(8):
        ...         client.compare(task, ranks=[0, 1])
    """

    def __init__(
        self, url: str, token: str, *, patience: float = PATIENCE, transport: httpx.BaseTransport | None = None
    ) -> None:
        self.url, self._transport, self._patience, self._answered = url.rstrip("/"), transport, patience, False
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
        id: str | None = None, grounds: dict[str, Any] | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Answer a task, e.g. ``{"kind": "thumb", "label": True}``. Returns its id, number, whether it was extra.

        ``grounds`` are a model's: ``principle``, and ``log_odds`` and ``reasoning`` by the order of display.
        """
        said = {
            "id": id or new_id(), "item_id": task.item_id, "ticket": task.ticket, "answer": answer, "seconds": seconds,
            "tags": list(tags), "guideline": task.guideline, "grounds": grounds,
        }  # fmt: skip
        found: dict[str, Any] = self._send("POST", "/judgments", said)
        return found

    def compare(
        self, task: Task, ranks: Sequence[int | None], *, strength: float | None = None, share: float | None = None,
        **more: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """Answer a comparison: ``ranks[i]`` is that of ``task.responses[i]``, 0 for the best, None for not ranked.

        ``share`` is how likely the first of two responses is the better.
        """
        answer = {"kind": "comparison", "ranks": list(ranks), "strength": strength, "share": share}
        return self.submit(task, answer, **more)

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

    def items_left(self) -> int:
        """How many items want judgments still, of any kind."""
        return int(self._send("GET", "/own")["items_left"])

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

    def agreement(self, labeler_id: str) -> dict[str, Any]:
        """How far a labeler that is not a person agrees with people, as `labelers.answering.agreement` says it."""
        found: dict[str, Any] = self._send("GET", f"/labelers/{quote(labeler_id, safe='')}/agreement")
        if not found["overlap"]:
            return {"overlap": 0}
        return {name: math.nan if value is None else value for name, value in found.items()}

    def add_prompts(self, prompts: Iterable[Prompt]) -> int:
        """Add prompts; returns how many were new."""
        return int(self._send("POST", "/prompts", {"prompts": [_plain(one) for one in prompts]})["new"])

    def add_responses(self, responses: Iterable[Response]) -> int:
        """Add responses; returns how many were new."""
        return int(self._send("POST", "/responses", {"responses": [_plain(one) for one in responses]})["new"])

    def add_file(
        self, prompt_id: str, data: bytes, *, policy: str | None = None, round: int | None = None,
        seed: int | None = None, sample: int = 0,
    ) -> str:  # fmt: skip
        """Add a response that is a file, as ``Path("clip.webm").read_bytes()``. Returns the response's id."""
        known = {"policy": policy, "round": round, "seed": seed, "sample": sample}
        params = {name: value for name, value in known.items() if value is not None}
        return str(self._send("POST", f"/prompts/{quote(prompt_id, safe='')}/files", params=params, file=data)["id"])

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
            self.url, found["token"], patience=self._patience, transport=self._transport
        )

    def _send(
        self, method: str, path: str, body: Any = None, params: dict[str, Any] | None = None,
        file: bytes | None = None,
    ) -> Any:  # fmt: skip
        start, pause = time.monotonic(), 0.2
        while True:
            patience = SHORT_PATIENCE
            try:
                answer = self._http.request(method, path, json=body, params=params, content=file)
                if answer.status_code not in PASSING:
                    break
                problem, pause = _refused(answer), max(pause, _seconds(answer.headers.get("Retry-After", "")))
                patience = self._patience if answer.status_code != 500 else patience
            except httpx.TransportError as error:
                problem = UserError(f"cannot reach {self.url} ({error})", "Does 'hearken serve' run there?")
                patience = self._patience if self._answered else patience
            if time.monotonic() - start + pause > min(patience, self._patience):
                raise problem
            time.sleep(pause)
            pause = min(2 * pause, 10)
        self._answered = True
        _check(answer)
        return answer.json() if answer.content else None


def _seconds(text: str) -> float:
    return float(text) if text.isascii() and text.isdigit() else 0.0


def _plain(record: Prompt | Response | QueueItem) -> dict[str, Any]:
    return record.model_dump(mode="json", exclude_defaults=True)


def _check(answer: httpx.Response) -> None:
    if not answer.is_success:
        raise _refused(answer)


def _refused(answer: httpx.Response) -> UserError:
    final = False
    try:
        said = answer.json()
        what, hint, final = str(said["error"]), str(said["hint"]), said.get("final") is True
    except (ValueError, KeyError, TypeError):
        what, hint = f"the server at {answer.url.host} answered {answer.status_code}", "Is that 'hearken serve'?"
    return Refused(what, hint, answer.status_code, final)


def content_of(task: Task) -> Content:
    """A task's prompt as the rest of Hearken knows it: plain text, or a dialogue."""
    if len(task.prompt) == 1 and task.prompt[0].role == "prompt":
        return task.prompt[0].text
    return tuple(Message(turn.role, turn.text) for turn in task.prompt if turn.role != "prompt")


def label_over_http(
    client: HearkenClient,
    labelers: Iterable[Judge],
    seed: int,
    *,
    workers: int = 4,
    price_in: float = 0.0,
    price_out: float = 0.0,
    announce: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Let labelers that are not people answer a server's queue, as people would: blind, through the API.

    An item that a labeler cannot judge is skipped; another one gets it.

    Args:
        client: with a token of the scope "write": it adds the labelers. One that may read, too, learns how far models
            agree with people.
        labelers: e.g. those of a panel, or one `AILabeler`.
        seed: fixes their answers.
        workers: questions to a model at once.
        price_in: of a million tokens that a model reads.
        price_out: of a million tokens that it writes.
        announce: takes lines for the person at the terminal: what models will cost, and how far they agree with people.

    Returns:
        How many ``labelers`` there were, ``new`` judgments, and ``skipped`` items; of a model also what
        `answering.agreement` says, where the token may read.

    Raises:
        UserError: the server cannot be reached or refuses, or a model mostly answers nonsense.
    """
    counts = {"labelers": 0, "new": 0, "skipped": 0}
    desks: list[tuple[Judge, HearkenClient, Answers]] = []
    with ExitStack() as stack, ThreadPoolExecutor(workers) as pool:
        for one in labelers:
            attributes = {name: str(value) for name, value in one.attributes.items()}
            _, desk = client.add_labeler(one.name, one.kind, id=one.id, attributes=attributes)
            desks.append((one, stack.enter_context(desk), Answers()))
            if isinstance(one, AILabeler):
                _announce_cost(one, desk, price_in, price_out, announce)
        counts["labelers"] = len(desks)
        with progress("Labelers", None, "judgment") as bar:
            answered = -1
            while answered:
                answered = 0
                for labeler, desk, answers in desks:
                    tasks = desk.claim(min(max(AT_ONCE, 2 * workers), AT_MOST), kinds=["comparison"])
                    asked = ((labeler, task, seed) for task in tasks)
                    opinions = pool.map(_opinion, asked) if labeler.kind == "ai" else map(_opinion, asked)
                    for task, found in zip(tasks, opinions, strict=True):
                        _submit(desk, task, found)
                        counts["skipped" if isinstance(found, str) else "new"] += 1
                        answers.count(found)
                        answered += 1
                        bar.advance()
    agreed: dict[str, Any] = {}
    for labeler, _, answers in desks:
        if labeler.kind == "ai":
            agreed = answers.figures() | _agreement(client, labeler, announce)
    return counts | agreed


def _announce_cost(
    labeler: AILabeler, desk: HearkenClient, price_in: float, price_out: float, announce: Callable[[str], None]
) -> None:
    """Say what a model will cost at most, going by the first tasks: it has them already when it claims again."""
    if tasks := desk.claim(AT_ONCE, kinds=["comparison"]):
        asked = [(length(content_of(task)), [len(text) for text in texts_of(task)]) for task in tasks]
        items = max(desk.items_left(), len(tasks))
        cost = cost_of(asked, labeler.answer_tokens, price_in, price_out, items=items)
        announce(f"At most {cost.say()}, going by the first {len(tasks)}")


def _opinion(asked: tuple[Judge, Task, int]) -> Ranking | str:
    """A labeler's ranking of a task, or what it said instead."""
    labeler, task, seed = asked
    try:
        return labeler.judge(content_of(task), texts_of(task), seed)
    except Nonsense as said:
        return str(said)


def texts_of(task: Task) -> list[str]:
    """The responses of a task.

    Raises:
        UserError: they are files, which labelers of texts cannot read.
    """
    if any(response.media for response in task.responses):
        raise UserError(f"the responses of item {task.item_id} are files, and this labeler reads texts", "Ask people")
    return [response.text for response in task.responses]


def _submit(desk: HearkenClient, task: Task, found: Ranking | str) -> None:
    if isinstance(found, str):
        desk.submit(task, {"kind": "skip", "reason": f"neither A nor B: {found[:200]}"})
    elif isinstance(found, Opinion):
        desk.compare(task, found.ranks, share=found.share, grounds=found.metadata)
    else:
        desk.compare(task, found.ranks)


def _agreement(client: HearkenClient, labeler: Judge, announce: Callable[[str], None]) -> dict[str, Any]:
    """How far a model agrees with people, where the token may know it; else where the owner sees it."""
    try:
        found = client.agreement(labeler.id)
    except Refused as refused:
        if refused.status != 403:
            raise
        announce(f"How far {labeler.name} agrees with people stands in {client.url}/owner/agreement")
        return {}
    announce(say(found))
    return found
