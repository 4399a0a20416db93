"""A small project to be judged, and ways into its server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fastapi.testclient import TestClient

from hearken.feedback.access import Account
from hearken.feedback.records import Labeler, Prompt, QueueItem, Response
from hearken.feedback.store import FeedbackStore
from hearken.server.run import Address, Invitation, Network, serve
from hearken.server.security import Door

HERE = "http://127.0.0.1:8765"


def apart(work: Callable[[], Any]) -> Any:
    """``work`` in a thread of its own: this one may have the event loop of a browser that other tests drive."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


TEXTS = {
    "Name a colour.": ["Blue, like the **sea**.", "A colour is a thing that one sees, and there are many of them."],
    "What is two and two?": ["It is four.", "It is five."],
    "Say hello to a friend.": ["Hello, my dear friend!", "Hello, my good friend!"],
}
SECRET_POLICY = "r07-very-secret-policy"


def fill(
    store: FeedbackStore, kinds: tuple[str, ...] = ("comparison",), *, k: int = 2, slots: int = 1,
    prompts: int = len(TEXTS), round: int | None = None,
) -> list[QueueItem]:  # fmt: skip
    """Prompts with ``k`` responses each, queued as ``kinds``."""
    items = []
    for content, texts in islice(TEXTS.items(), prompts):
        prompt = Prompt(content=content)
        responses = [
            Response(prompt_id=prompt.id, text=texts[i % 2] + " Indeed." * (i // 2), policy=SECRET_POLICY, sample=i)
            for i in range(k)
        ]
        store.add_prompts([prompt])
        store.add_responses(responses)
        ids = tuple(response.id for response in responses)
        for kind in kinds:
            shown = ids if kind == "comparison" else () if kind == "demonstration" else ids[:1]
            items.append(
                QueueItem(prompt_id=prompt.id, response_ids=shown, kind=kind, slots=slots, round=round)  # type: ignore[arg-type]
            )
    store.enqueue(items)
    return items


@dataclass
class Site:
    """A server in this process."""

    store: FeedbackStore
    app: Any
    door: Door = field(default_factory=Door)

    def browser(self, client: tuple[str, int] = ("127.0.0.1", 50_000)) -> TestClient:
        """A browser that nobody is logged in on; it says where it comes from, as browsers do."""
        base = f"https://{next(iter(self.door.hosts))}" if self.door.secure else HERE
        return TestClient(self.app, base_url=base, headers={"Origin": base}, follow_redirects=False, client=client)

    def enter(self, role: str = "labeler", name: str = "Ann") -> Visitor:
        """Somebody who came by an invite link and agreed to the notice."""
        secret, _ = self.store.access.invite(role, note=name)  # type: ignore[arg-type]
        client = self.browser()
        assert client.post("/enter", json={"secret": secret}).status_code == 200
        page = client.get("/account").text
        csrf = page.split('name="csrf" content="')[1].split('"')[0]
        client.headers["X-CSRF-Token"] = csrf
        if role != "viewer":
            assert client.post("/welcome", json={"name": name, "consent": True}).status_code == 200
        session = self.store.access.session(client.cookies[self.door.cookie])
        assert session is not None
        return Visitor(client, session[1].id, session[1].labeler_id or "")

    def machine(self, name: str = "robot", scopes: tuple[str, ...] = ("label",)) -> TestClient:
        """A client with a token."""
        labeler = self.store.add_labeler(Labeler(id=name, name=name, kind="simulated"))
        secret, _ = self.store.access.add_token(name, scopes, labeler_id=labeler.id)  # type: ignore[arg-type]
        return TestClient(self.app, base_url=HERE, headers={"Authorization": f"Bearer {secret}"})


@dataclass
class Visitor:
    """A person's browser."""

    http: TestClient
    account_id: str
    labeler_id: str

    def claim(self, n: int = 1, **more: Any) -> list[dict[str, Any]]:
        """Tasks."""
        answer = self.http.post("/api/v1/claims", json={"n": n, **more})
        assert answer.status_code == 200, answer.text
        tasks: list[dict[str, Any]] = answer.json()["tasks"]
        return tasks

    def submit(self, task: dict[str, Any], answer: dict[str, Any], id: str = "a" * 32, **more: Any) -> Any:
        """Send an answer."""
        said = {"id": id, "item_id": task["item_id"], "ticket": task["ticket"], "answer": answer, **more}
        return self.http.post("/api/v1/judgments", json=said)


@dataclass
class Running:
    """A server on a port."""

    path: Path
    url: str
    link: str
    store: FeedbackStore

    def cookie(self, account: Account) -> dict[str, str]:
        """What a browser keeps on which this person, who has an account here, is logged in."""
        secret, _ = self.store.access.open_session(account.id)
        return {"name": Door(port=urlsplit(self.url).port or 0).cookie, "value": secret, "url": self.url}


@contextmanager
def running(
    path: Path, prepare: Callable[[FeedbackStore], Any], *, landing: str = "", role: Any = "labeler",
    policy: Any = None, **network: Any,
) -> Iterator[Running]:  # fmt: skip
    """A server in a thread, over a database that ``prepare`` fills; ``network`` as of `run.Network`, on a free port."""
    stop, ready, found = threading.Event(), threading.Event(), []

    def on_ready(address: Address) -> None:
        found.append(address)
        ready.set()

    with FeedbackStore(path) as store:
        prepare(store)
        where = Network(**({"port": 0} | network))
        settings: dict[str, Any] = {"invitation": Invitation(role, landing), "policy": policy, "until": stop.is_set}
        work = partial(serve, database=path, network=where, on_ready=on_ready, **settings)
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        assert ready.wait(180)
        yield Running(path, found[0].url, found[0].link, store)
        stop.set()
        thread.join(20)
