"""How many judgments a second the server takes, from clients that claim an item and answer it over HTTP.

One judgment is a claim and an answer, each with the labeler's token; the answer is on disk when the server says so. The
server runs in a process of its own, the clients in this one; on two cores they share the machine. SQLite always;
PostgreSQL where ``--postgres`` names an empty database.

With ``--kills`` the server is killed (SIGKILL) so many times while the whole queue is judged, ``--overlap`` labelers an
item, and started again at once. A client whose connection breaks sends the same judgment, with its id, until it is
acknowledged. In the end each acknowledged judgment must be in the database once, each item must have its judgments, and
`FeedbackStore.verify` must find nothing. Latencies are of judgments that no kill interrupted. Judgments are a few more
than items times labelers, as some items are asked a second time, to measure the labeler.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from common import arguments, run, table

from hearken.errors import UserError
from hearken.feedback.records import Labeler, Prompt, QueueItem, Response, new_id
from hearken.feedback.store import FeedbackStore

SERVER = "from hearken.cli.main import main; main()"


class Client(threading.Thread):
    """A labeler at work: claims and answers until ``stop`` is set or nothing is left. Latencies in seconds.

    Speaks HTTP by hand over one connection, as the clients share the cores with the server: a library's own time for
    twenty of them would be measured along.

    Args:
        port: of the server on this machine.
        token: the labeler's.
        stop: set to end.
        lasting: try again, for five minutes, where the connection breaks; and wait where nothing is left now.
    """

    def __init__(self, port: int, token: str, stop: threading.Event, lasting: bool = False) -> None:
        super().__init__()
        self._address = ("127.0.0.1", port)
        self._head = (
            f"HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        )
        self._stop_set, self._lasting = stop, lasting
        self._socket = self._connect()
        self.latencies: list[float] = []
        self.acknowledged: dict[str, str] = {}
        """Item by the id of its judgment."""
        self.interrupted = 0
        self.problem = ""

    def run(self) -> None:
        """Work."""
        try:
            while not self._stop_set.is_set() and (self._one() or self._lasting):
                pass
        except Exception as error:
            self.problem = repr(error)
        finally:
            self._socket.close()

    def _connect(self) -> socket.socket:
        made = socket.create_connection(self._address, timeout=60)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def _one(self) -> bool:
        began, interrupted = time.perf_counter(), self.interrupted
        tasks = self._send("/api/v1/claims", {"n": 1})["tasks"]
        if not tasks:
            self._stop_set.wait(0.1)
            return False
        ids = {"id": new_id(), "item_id": tasks[0]["item_id"], "ticket": tasks[0]["ticket"]}
        self._send("/api/v1/judgments", ids | {"answer": {"kind": "comparison", "ranks": [0, 1]}, "seconds": 1.0})
        self.acknowledged[ids["id"]] = ids["item_id"]
        if self.interrupted == interrupted:
            self.latencies.append(time.perf_counter() - began)
        return True

    def _send(self, path: str, body: dict[str, Any]) -> Any:
        """`_post`, sent again as it is where the connection breaks."""
        until = time.monotonic() + 300
        while True:
            try:
                return self._post(path, body)
            except OSError:
                if not self._lasting or time.monotonic() > until:
                    raise
            self.interrupted += 1
            self._socket.close()
            while time.monotonic() < until:
                try:
                    self._socket = self._connect()
                    break
                except OSError:
                    time.sleep(0.05)

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        raw = json.dumps(body)
        self._socket.sendall(f"POST {path} {self._head}{len(raw)}\r\n\r\n{raw}".encode())
        said = b""
        while b"\r\n\r\n" not in said:
            said += self._receive()
        head, _, said = said.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        while len(said) < length:
            said += self._receive()
        if head.split()[1] != b"200":
            raise RuntimeError(f"{path}: {head.splitlines()[0]!r} {said[:200]!r}")
        return json.loads(said)

    def _receive(self) -> bytes:
        piece = self._socket.recv(65_536)
        if not piece:
            raise ConnectionError("the server closed the connection")
        return piece


class Serving:
    """`hearken serve` in a process of its own.

    Args:
        location: of the database.
        port: where it listens; 0 lets the system choose.
    """

    def __init__(self, location: str, port: int = 0) -> None:
        self._location = location
        self.port = port
        self.spent = 0.0
        """Seconds of processor time of processes that were killed."""
        self._start()

    def _start(self) -> None:
        command = [sys.executable, "-c", SERVER, "serve", "--database", self._location, "--no-open", "--json"]
        self._process = subprocess.Popen([*command, "--port", str(self.port)], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        if not said:
            raise UserError("the server did not start", "Its own words stand above")
        self.port = int(json.loads(said)["address"].rsplit(":", 1)[1])

    def kill(self) -> None:
        """Kill it as a power cut would, and start it again at the same port."""
        self.spent = self.processor()
        self._process.kill()
        self._process.wait()
        self._start()

    def processor(self) -> float:
        """Seconds of processor time, of all its processes."""
        return self.spent + processor_seconds(self._process.pid)

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(30)


def processor_seconds(pid: int) -> float:
    """Processor time that a process has used so far; NaN where the system does not tell (it is read from /proc)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("nan")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def prepare(store: FeedbackStore, items: int, clients: int, overlap: int = 1) -> list[str]:
    """Fill the queue; returns a token for each client."""
    prompts = [Prompt(content=f"Tell a short tale about the number {n}.") for n in range(items)]
    pairs = [
        [Response(prompt_id=p.id, text=f"Once, {k}, there was a number. " * 12) for k in range(2)] for p in prompts
    ]
    store.add_prompts(prompts)
    store.add_responses([response for pair in pairs for response in pair])
    store.enqueue([QueueItem(prompt_id=a.prompt_id, response_ids=(a.id, b.id), slots=overlap) for a, b in pairs])
    tokens = []
    for n in range(clients):
        labeler = store.add_labeler(Labeler(id=f"load-{n}", name=f"Load {n}", kind="simulated"))
        tokens.append(store.access.add_token(labeler.name, ["label"], labeler_id=labeler.id)[0])
    return tokens


def measure(
    location: str, items: int, clients: int, seconds: float, overlap: int = 1, kills: int = 0
) -> dict[str, float]:
    """Throughput and latency of one server on one database, and what was lost where it is killed."""
    with FeedbackStore(location) as store:
        tokens = prepare(store, items, clients, overlap)
        server = Serving(location)
        try:
            stop = threading.Event()
            workers = [Client(server.port, token, stop, kills > 0) for token in tokens]
            before, busy, began = store.last_seq(), server.processor(), time.perf_counter()
            for worker in workers:
                worker.start()
            wanted, killed = items * overlap, 0
            while time.perf_counter() - began < seconds and any(worker.is_alive() for worker in workers):
                time.sleep(0.05)
                done = sum(len(worker.acknowledged) for worker in workers)
                if done >= wanted and not store.items_left():
                    break
                if killed < kills and done > wanted * (killed + 1) / (kills + 1):
                    killed += 1
                    server.kill()
            stop.set()
            for worker in workers:
                worker.join()
            took, busy = time.perf_counter() - began, server.processor() - busy
        finally:
            server.close()
        if problems := [worker.problem for worker in workers if worker.problem]:
            raise UserError(f"{len(problems)} clients failed: {problems[0]}", "The server's words stand above")
        latencies = sorted(latency for worker in workers for latency in worker.latencies)
        given = {id: item for worker in workers for id, item in worker.acknowledged.items()}
        count = len(given)
        found = {"lost": 0, "doubled": 0, "interrupted": sum(worker.interrupted for worker in workers)}
        if kills:
            found |= audit(store, given, killed, wanted)
        elif store.last_seq() - before != count:
            raise UserError(f"{count} answers were taken, {store.last_seq() - before} stored", "This is a bug")
    return found | {
        "judgments": count,
        "kills": killed,
        "per_second": count / took,
        "server_ms": 1e3 * busy / count,
        "median_ms": 1e3 * latencies[len(latencies) // 2],
        "p95_ms": 1e3 * latencies[int(0.95 * (len(latencies) - 1))],
        "most_ms": 1e3 * latencies[-1],
    }


def audit(store: FeedbackStore, given: dict[str, str], killed: int, wanted: int) -> dict[str, float]:
    """What became of the acknowledged judgments.

    Raises:
        UserError: the queue was not judged to its end, the database is damaged, or it holds what nobody was told of.
    """
    stored = {one.id: (one.item_id, one.labeler_id) for one in store.judgments(history=True, checks=None)}
    lost = sum(id not in stored or stored[id][0] != item for id, item in given.items())
    doubled = len(stored) - len(set(stored.values()))  # two judgments of one labeler on one item
    filled = store.queue_state().slots_filled
    if len(given) < wanted:
        raise UserError(f"{len(given):,} of {wanted:,} judgments in the given time", "Give it more --seconds")
    if problems := store.verify():
        raise UserError(f"the database is damaged: {problems[0]}", "This is a bug")
    if filled != wanted or stored.keys() - given.keys():
        what = (
            f"{filled:,} of {wanted:,} slots filled, {len(stored.keys() - given.keys()):,} judgments that nobody gave"
        )
        raise UserError(f"{what} after {killed} kills", "This is a bug")
    return {"lost": lost, "doubled": doubled}


def main(settings: argparse.Namespace) -> dict[str, Any]:
    """Measure and print."""
    items, seconds = (200, 5.0) if settings.fast else (settings.items, settings.seconds)
    shutil.rmtree(settings.work, ignore_errors=True)
    Path(settings.work).mkdir(parents=True)
    found = {}
    for overlap in settings.overlap:
        places = {"SQLite": str(settings.work / f"feedback-{overlap}.db")}
        if settings.postgres:
            places["PostgreSQL"] = settings.postgres.format(overlap=overlap)
        for name, place in places.items():
            figures = measure(place, items, settings.clients, seconds, overlap, settings.kills)
            print(f"{name}, overlap {overlap}: {figures}", flush=True)
            found[f"{name}, overlap {overlap}" if len(settings.overlap) > 1 else name] = figures
    rows = [
        [
            name,
            f"{f['judgments']:,.0f}",
            f"{f['per_second']:.0f}",
            f"{f['server_ms']:.1f}",
            *(f"{f[key]:.0f}" for key in ("median_ms", "p95_ms")),
            *([f"{f[key]:.0f}" for key in ("kills", "interrupted", "lost", "doubled")] if settings.kills else []),
        ]
        for name, f in found.items()
    ]
    columns = ["database", "judgments", "a second", "server's ms of processor", "median ms", "p95 ms"]
    columns += ["kills", "requests interrupted", "lost", "doubled"] if settings.kills else []
    table(f"Judgments over HTTP, {settings.clients} clients", columns, rows)
    return {"clients": settings.clients, "databases": found}


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--clients", type=int, default=20, help="labelers at once")
    parser.add_argument("--items", type=int, default=20_000, help="queue items at the start")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long at most")
    parser.add_argument("--overlap", type=int, nargs="+", default=[1], help="labelers an item")
    parser.add_argument("--kills", type=int, default=0, help="how often the server is killed while all is judged")
    parser.add_argument("--postgres", default="", help="URL of an empty PostgreSQL database; {overlap} stands for it")
    run(main, parser)
