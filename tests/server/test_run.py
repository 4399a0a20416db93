"""The running server: who may start it where, what survives its end, and what many clients at once do to it."""

from __future__ import annotations

import http.client
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from people_world import Running, fill

from hearken.errors import UserError
from hearken.feedback.access import Account
from hearken.feedback.records import ComparisonPayload, Judgment, Labeler, Prompt, QueueItem, Response, hash_id, new_id
from hearken.feedback.store import FeedbackStore
from hearken.labelers.ai import AILabeler, Nonsense
from hearken.labelers.constitution import load_constitution
from hearken.labelers.judges import Reply
from hearken.labelers.protocol import Ranking
from hearken.server.client import HearkenClient, label_over_http
from hearken.server.run import Network, serve

COMMAND = [
    sys.executable,
    "-c",
    "from hearken.cli.main import main; main()",
    "serve",
    "--no-open",
    "--json",
    "--port",
    "0",
]


def start(location: str) -> tuple[subprocess.Popen[str], dict[str, str]]:
    """``hearken serve`` in a process of its own, and what it says."""
    server = subprocess.Popen(
        [*COMMAND, "--database", location], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert server.stdout is not None and server.stderr is not None
    line = server.stdout.readline()
    assert line, server.stderr.read()
    return server, json.loads(line)


@pytest.fixture
def started() -> Iterator[Callable[[str], tuple[subprocess.Popen[str], dict[str, str]]]]:
    """Starts servers, and ends them with the test."""
    servers = []

    def _start(location: str) -> tuple[subprocess.Popen[str], dict[str, str]]:
        servers.append(start(location))
        return servers[-1]

    yield _start
    for server, _ in servers:
        server.kill()
        server.wait()


def no_checks(store: FeedbackStore) -> None:
    store.access.set_settings({"check_share": 0.0})


def token_of(store: FeedbackStore, name: str) -> str:
    labeler = store.add_labeler(Labeler(id=name, name=name, kind="simulated"))
    return store.access.add_token(name, ["label"], labeler_id=labeler.id)[0]


# -- starting ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_link_lets_the_owner_in_once(tmp_path: Path, started: Any) -> None:
    location = str(tmp_path / "feedback.db")
    FeedbackStore(location).close()
    _, said = started(location)
    url, secret = said["link"].split("/enter#")
    assert url == said["address"] and len(secret) >= 32
    with httpx.Client(base_url=url, headers={"Origin": url}) as browser:
        assert browser.post("/enter", json={"secret": secret}).json() == {"next": "/owner"}
        assert browser.post("/enter", json={"secret": secret}).status_code == 403
        assert browser.get("/owner", follow_redirects=True).status_code == 200


def test_an_owner_who_starts_again_finds_their_own_account(run_server: Callable[..., Running]) -> None:
    def prepare(store: FeedbackStore) -> None:
        store.access.add_account(Account(name="Olga", role="owner"))

    running = run_server(prepare, role="owner", landing="/label")
    assert "/enter?to=label#" in running.link
    account = running.store.access.redeem(running.link.split("#")[1])
    assert account is not None and account.name == "Olga" and len(running.store.access.accounts()) == 1


@pytest.mark.slow
def test_a_second_server_on_a_sqlite_file_is_refused(tmp_path: Path, started: Any) -> None:
    location = str(tmp_path / "feedback.db")
    FeedbackStore(location).close()
    server, _ = started(location)
    second = subprocess.run([*COMMAND, "--database", location], capture_output=True, text=True, timeout=120)
    assert second.returncode == 2 and "Traceback" not in second.stderr
    assert f"another server (process {server.pid}) works on" in second.stderr and "PostgreSQL" in second.stderr
    server.kill()  # however it ends, the lock ends with it
    server.wait()
    started(location)


@pytest.mark.slow
def test_two_servers_on_one_postgresql_work_together(postgres_location: str, started: Any) -> None:
    with FeedbackStore(postgres_location) as store:
        fill(store)
        clients = [
            HearkenClient(started(postgres_location)[1]["address"], token_of(store, name)) for name in ("ann", "bob")
        ]
        done = []
        while tasks := [(client, task) for client in clients for task in client.claim()]:
            done += [client.compare(task, [0, 1])["number"] for client, task in tasks]
        assert sorted(done) == [1, 2, 3]
        for client in clients:
            client.close()


def test_other_interfaces_need_accounts_and_a_secure_way(tmp_path: Path) -> None:
    location = tmp_path / "feedback.db"
    with FeedbackStore(location) as store:
        with pytest.raises(UserError, match="no owner with a password") as error:
            serve(database=location, network=Network("0.0.0.0", 0), until=lambda: True)
        assert "choose a password" in error.value.hint
        store.access.add_account(Account(name="Olga", role="owner", login="olga", password="hash"))
    with pytest.raises(UserError, match="in the clear"):
        serve(database=location, network=Network("0.0.0.0", 0), until=lambda: True)
    heard: list[Any] = []
    with ThreadPoolExecutor(1) as pool:  # not in this thread: another test's browser may have an event loop there
        network = Network("0.0.0.0", 0, "https://label.example.org/")
        until = partial(bool, heard)
        pool.submit(serve, database=location, network=network, on_ready=heard.append, until=until).result()
    assert heard[0].url == "https://label.example.org" and heard[0].link == ""


def test_a_taken_port_and_a_missing_database_are_said_in_one_line(run_server: Any, tmp_path: Path) -> None:
    running = run_server(lambda store: None)
    other = tmp_path / "other.db"
    with pytest.raises(UserError, match=r"cannot listen on 127\.0\.0\.1, port") as error:
        serve(database=other, network=Network(port=int(running.url.rsplit(":", 1)[1])))
    assert "--port" in error.value.hint
    with pytest.raises(UserError, match="nothing to serve"):
        serve()
    with pytest.raises(UserError, match="is not a project"):
        serve(tmp_path)


def test_it_stops_when_it_is_told(tmp_path: Path) -> None:
    stop, ready = threading.Event(), threading.Event()
    options: dict[str, Any] = {"until": stop.is_set, "on_ready": lambda _: ready.set()}
    thread = threading.Thread(
        target=lambda: serve(database=tmp_path / "feedback.db", network=Network(port=0), **options)
    )
    thread.start()
    assert ready.wait(120)
    stop.set()
    thread.join(60)
    assert not thread.is_alive()


# -- the client --------------------------------------------------------------------------------------------------


def test_the_client_does_all_that_a_labeler_does(run_server: Callable[..., Running]) -> None:
    running = run_server(lambda store: (fill(store), store.access.set_settings({"check_share": 0.0})))
    token = token_of(running.store, "robot")
    with HearkenClient(running.url, token) as client:
        task = client.claim(kinds=["comparison"])[0]
        assert client.heartbeat(task)
        client.release(task)
        task = client.claim()[0]
        done = client.compare(task, [0, 1], seconds=2.0)
        again = client.withdraw(done["id"])
        assert again is not None and again.item_id == task.item_id
        client.submit(again, {"kind": "skip"})
        with pytest.raises(UserError, match="right to read"):
            client.progress()
        with pytest.raises(UserError, match="right to read"):
            list(client.export("judgments"))
    secret, _ = running.store.access.add_token("all", ["read", "write"])
    with HearkenClient(running.url, secret) as client:
        assert client.add_prompts([Prompt(content="New.")]) == 1
        prompt = next(one for one in running.store.prompts() if one.content == "New.")
        pair = [Response(prompt_id=prompt.id, text=text) for text in "ab"]
        assert client.add_responses(pair) == 2
        assert client.enqueue([QueueItem(prompt_id=prompt.id, response_ids=(pair[0].id, pair[1].id))]) == 1
        assert client.progress().items == 4
        assert [row["payload"]["kind"] for row in client.export("judgments")] == ["comparison", "withdrawal", "skip"]
        labeler, other = client.add_labeler("sim", id="sim", attributes={"group": "hearth"})
        assert labeler.attributes == {"group": "hearth"} and len(other.claim(9)) == 4
        other.close()
    with HearkenClient(running.url, "wrong") as client, pytest.raises(UserError, match="token is not valid"):
        client.claim()


class Picky:
    """An AI labeler that takes the first response, and cannot judge greetings."""

    name, id, kind, attributes = "judge/general", "ai-picky", "ai", {"judge": "judge"}

    def judge(self, prompt: Any, responses: Any, seed: int) -> Ranking:
        if "hello" in prompt:
            raise Nonsense("As a language model ...")
        return Ranking((0, 1), (0, 1))


def test_an_ai_labeler_answers_through_the_api(run_server: Callable[..., Running]) -> None:
    running = run_server(lambda store: (fill(store), store.access.set_settings({"check_share": 0.0})))
    secret, _ = running.store.access.add_token("all", ["write"])
    with HearkenClient(running.url, secret) as client:
        assert label_over_http(client, [Picky()], 0) == {"labelers": 1, "new": 2, "skipped": 1}
        assert label_over_http(client, [Picky()], 0)["new"] == 0  # the same labeler: nothing twice
    [labeler] = running.store.labelers(kind="ai")
    assert labeler.name == Picky.name and sorted(j.kind for j in running.store.judgments()) == [
        "comparison", "comparison", "skip",
    ]  # fmt: skip


class Longer:
    """A judge that prefers the longer response; ``together`` questions are asked at once, or never answered."""

    name = identity = "longer"

    def __init__(self, together: int = 1) -> None:
        self.barrier = threading.Barrier(together)

    def ask(self, dialogue: Any, max_tokens: int) -> Reply:
        a, b = SHOWN.search(dialogue[-1].content).groups()  # type: ignore[union-attr]
        return Reply(f"One has {len(a)} characters, one {len(b)}.\nAnswer: {'A' if len(a) > len(b) else 'B'}")

    def choose(self, dialogue: Any, options: Any) -> Reply:
        self.barrier.wait(30)
        a, b = SHOWN.search(dialogue[-1].content).groups()  # type: ignore[union-attr]
        return Reply("A", {"A": math.copysign(2.0, len(a) - len(b)), "B": 0.0})


SHOWN = re.compile(r"Response A:\n(.*?)\n\nResponse B:\n(.*?)\n\nPrinciple", re.DOTALL)


def test_what_a_model_says_comes_whole_through_the_api(run_server: Callable[..., Running]) -> None:
    """Its probability, its principle, its reasoning; the cost is said first, the agreement with people last."""
    running = run_server(lambda store: (fill(store, slots=3, k=3), fill(store, slots=3), no_checks(store)))
    store = running.store
    store.add_labeler(Labeler(id="ann", name="Ann"))
    for item in store.items():
        lengths = [len(store.response(one).text) for one in item.response_ids]
        ranks = tuple(sorted(lengths, reverse=True).index(one) for one in lengths)
        payload = ComparisonPayload(response_ids=item.response_ids, ranks=ranks)
        store.submit(Judgment(prompt_id=item.prompt_id, labeler_id="ann", item_id=item.id, payload=payload))
    said: list[str] = []
    with HearkenClient(running.url, store.access.add_token("all", ["read", "write"])[0]) as client:
        thoughtful = AILabeler(Longer(), load_constitution("general"), reasoning=True)
        done = label_over_http(client, [thoughtful], 0, price_in=1.0, announce=said.append)
    assert said[0].startswith("At most 6 comparisons, 24 requests: about ") and "out, about 0.00" in said[0]
    assert (done["new"], done["skipped"]) == (6, 0) and done["kappa"] == done["agreement"] == 1
    assert done["overlap"] == 9, "three pairs stand in two items each, and count once"
    assert said[1:] == ["Agreement with people on 9 pairs: kappa 1.00 [1.00, 1.00]"]
    judgments = list(store.judgments(labeler_id=thoughtful.id))
    assert {len(j.metadata["log_odds"]) for j in judgments} == {2, 6}
    for judgment in judgments:
        assert isinstance(judgment.payload, ComparisonPayload) and judgment.metadata["principle"]
        lengths = [len(store.response(one).text) for one in judgment.payload.response_ids]
        for order, odds in judgment.metadata["log_odds"].items():
            first, second = (lengths[int(i)] for i in order.split(","))
            assert (odds > 0) == (first > second)
            assert judgment.metadata["reasoning"][order].startswith(f"One has {first} characters, one {second}.")
        if len(lengths) == 2:
            lead = lengths[0] - lengths[1]
            assert judgment.payload.share == pytest.approx(0.5 if lead == 0 else 0.95 if lead > 0 else 0.05)
        else:
            assert judgment.payload.share is None

    said.clear()
    with HearkenClient(running.url, store.access.add_token("some", ["write"])[0]) as client:
        done = label_over_http(client, [AILabeler(Longer(), load_constitution("stories"))], 0, announce=said.append)
    assert 0 <= done.pop("shown_first") <= 1 and done == {"labelers": 1, "new": 6, "skipped": 0}
    assert said[1:] == [f"How far longer/stories agrees with people stands in {running.url}/owner/agreement"]


@pytest.mark.slow
def test_several_questions_are_asked_at_once(run_server: Callable[..., Running]) -> None:
    running = run_server(lambda store: (fill(store, prompts=2), no_checks(store)))
    with HearkenClient(running.url, running.store.access.add_token("some", ["write"])[0]) as client:
        labeler = AILabeler(Longer(together=2), load_constitution("general"))
        assert label_over_http(client, [labeler], 0, workers=2)["new"] == 2


def test_a_model_that_makes_no_sense_is_refused_through_the_api(run_server: Callable[..., Running]) -> None:
    class Turtles(Longer):
        def choose(self, dialogue: Any, options: Any) -> Reply:
            return Reply("turtles")

    running = run_server(lambda store: ([fill(store, round=n) for n in range(5)], no_checks(store)))
    refused = pytest.raises(UserError, match="8 of 8 questions with neither A nor B, for example 'turtles'")
    with HearkenClient(running.url, running.store.access.add_token("some", ["write"])[0]) as client, refused:
        label_over_http(client, [AILabeler(Turtles(), load_constitution("general"))], 0)
    assert [j.kind for j in running.store.judgments()] == ["skip"] * 8


def test_a_server_that_is_not_there_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with HearkenClient("http://127.0.0.1:9", "x") as client, pytest.raises(UserError, match="cannot reach") as error:
        client.claim()
    assert "hearken serve" in error.value.hint


# -- the end of the world ----------------------------------------------------------------------------------------


def work(url: str, token: str, acknowledged: list[str], problems: list[str], batch: int = 1) -> None:
    """A client at work until nothing is left or the server is gone; what was acknowledged is noted."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=120)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def post(path: str, body: dict[str, Any]) -> Any:
        connection.request("POST", f"/api/v1{path}", json.dumps(body), headers)
        answer = connection.getresponse()
        said = answer.read().decode()
        if answer.status != 200:
            raise ValueError(said)
        return json.loads(said)

    try:
        while tasks := post("/claims", {"n": batch})["tasks"]:
            for task in tasks:
                id = new_id()
                said = {"id": id, "item_id": task["item_id"], "ticket": task["ticket"]}
                post("/judgments", said | {"answer": {"kind": "comparison", "ranks": [0, 1]}})
                acknowledged.append(id)
    except ValueError as error:
        problems.append(str(error))
    except (OSError, http.client.HTTPException) as error:
        problems.append(f"gone: {error}")
    finally:
        connection.close()


def many(store: FeedbackStore, items: int, slots: Sequence[int], name: str = "item") -> None:
    """A long queue; its items have the numbers of slots in turn."""
    prompts = [Prompt(content=f"{name} {n}") for n in range(items)]
    pairs = [[Response(prompt_id=prompt.id, text=f"{k}") for k in range(2)] for prompt in prompts]
    store.add_prompts(prompts)
    store.add_responses([response for pair in pairs for response in pair])
    store.enqueue(
        QueueItem(prompt_id=a.prompt_id, response_ids=(a.id, b.id), slots=slots[n % len(slots)])
        for n, (a, b) in enumerate(pairs)
    )


@pytest.mark.slow
def test_killing_the_server_loses_no_acknowledged_judgment(location: str, started: Any) -> None:
    with FeedbackStore(location) as store:
        many(store, 400, [3])
        server, said = started(location)
        acknowledged: list[str] = []
        problems: list[str] = []
        tokens = [token_of(store, f"labeler-{n}") for n in range(8)]
        threads = [
            threading.Thread(target=work, args=(said["address"], token, acknowledged, problems)) for token in tokens
        ]
        for thread in threads:
            thread.start()
        while len(acknowledged) < 60:
            time.sleep(0.01)
        os.kill(server.pid, signal.SIGKILL)
        for thread in threads:
            thread.join(120)
        assert all(problem.startswith("gone") for problem in problems) and len(problems) == 8
    with FeedbackStore(location) as store:
        stored = {judgment.id for judgment in store.judgments(checks=None)}
        assert len(acknowledged) >= 60 and set(acknowledged) <= stored
        assert store.verify() == []
    started(location)


@pytest.mark.slow
def test_fifty_clients_while_others_write(location: str, started: Any) -> None:
    """2,000 items, half of them judged once and half of them three times by 50 clients, while responses are sampled in
    and others label directly.
    """
    with FeedbackStore(location) as store:
        many(store, 2_000, [1, 3])
        store.access.set_settings({"check_share": 0.0})
        _, said = started(location)
        acknowledged: list[str] = []
        problems: list[str] = []
        tokens = [token_of(store, f"labeler-{n}") for n in range(50)]
        threads = [
            threading.Thread(target=work, args=(said["address"], token, acknowledged, problems, 4)) for token in tokens
        ]
        direct: list[str] = []
        threads += [
            threading.Thread(target=sample_in, args=(location,)),
            threading.Thread(target=label, args=(location, direct)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert problems == []
        found = list(store.judgments())
        assert len(found) == len({judgment.id for judgment in found}) == len(acknowledged) + len(direct)
        assert {judgment.id for judgment in found} == {*acknowledged, *direct}  # none lost, none twice
        assert not [judgment for judgment in found if judgment.extra]
        by_item = Counter(judgment.item_id for judgment in found)
        assert len({(judgment.item_id, judgment.labeler_id) for judgment in found}) == len(found)
        first = [item for item in store.items() if store.prompt(item.prompt_id).content.startswith("item ")]  # type: ignore[union-attr]
        assert len(first) == 2_000 and all(by_item[item.id] == item.slots for item in first)
        assert store.verify() == []


def sample_in(location: str) -> None:
    """What ``hearken sample`` does: prompts, responses and items, batch after batch."""
    with FeedbackStore(location) as store:
        for n in range(10):
            many(store, 10, [1], name=f"sampled {n}:")


def label(location: str, done: list[str]) -> None:
    """What ``hearken label`` does: claims and answers in the database, beside the server."""
    with FeedbackStore(location) as store:
        store.add_labeler(Labeler(id="direct", name="Direct", kind="simulated"))
        for _ in range(25):
            claims = store.claim("direct", n=8)
            answers = [
                Judgment(
                    id=hash_id("direct", c.item.id), prompt_id=c.prompt.id, item_id=c.item.id, labeler_id="direct",
                    payload=ComparisonPayload(response_ids=c.item.response_ids, ranks=(0, 1)),
                )
                for c in claims
            ]  # fmt: skip
            store.submit_all(answers)
            done += [answer.id for answer in answers]
