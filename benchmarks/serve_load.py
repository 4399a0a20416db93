"""How many judgments a second the server takes, from clients that claim an item and answer it over HTTP.

One judgment is a claim and an answer, each with the labeler's token; the answer is on disk when the server says so. The
server runs in a process of its own, the clients in this one; on two cores they share the machine. SQLite always;
PostgreSQL where ``--postgres`` names an empty database.
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
    """

    def __init__(self, port: int, token: str, stop: threading.Event) -> None:
        super().__init__()
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._head = (
            f"HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        )
        self._stop_set = stop
        self.latencies: list[float] = []
        self.problem = ""

    def run(self) -> None:
        """Work."""
        try:
            while not self._stop_set.is_set() and self._one():
                pass
        except Exception as error:
            self.problem = repr(error)
        finally:
            self._socket.close()

    def _one(self) -> bool:
        began = time.perf_counter()
        tasks = self._post("/api/v1/claims", {"n": 1})["tasks"]
        if not tasks:
            return False
        ids = {"id": new_id(), "item_id": tasks[0]["item_id"], "ticket": tasks[0]["ticket"]}
        self._post("/api/v1/judgments", ids | {"answer": {"kind": "comparison", "ranks": [0, 1]}, "seconds": 1.0})
        self.latencies.append(time.perf_counter() - began)
        return True

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
            raise RuntimeError("the server closed the connection")
        return piece


def processor_seconds(pid: int) -> float:
    """Processor time that a process has used so far; NaN where the system does not tell (it is read from /proc)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("nan")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def prepare(store: FeedbackStore, items: int, clients: int) -> list[str]:
    """Fill the queue; returns a token for each client."""
    prompts = [Prompt(content=f"Tell a short tale about the number {n}.") for n in range(items)]
    pairs = [
        [Response(prompt_id=p.id, text=f"Once, {k}, there was a number. " * 12) for k in range(2)] for p in prompts
    ]
    store.add_prompts(prompts)
    store.add_responses([response for pair in pairs for response in pair])
    store.enqueue([QueueItem(prompt_id=a.prompt_id, response_ids=(a.id, b.id)) for a, b in pairs])
    tokens = []
    for n in range(clients):
        labeler = store.add_labeler(Labeler(id=f"load-{n}", name=f"Load {n}", kind="simulated"))
        tokens.append(store.access.add_token(labeler.name, ["label"], labeler_id=labeler.id)[0])
    return tokens


def measure(location: str, items: int, clients: int, seconds: float) -> dict[str, float]:
    """Throughput and latency of one server on one database."""
    with FeedbackStore(location) as store:
        tokens = prepare(store, items, clients)
        command = [sys.executable, "-c", SERVER, "serve", "--database", location, "--port", "0", "--no-open", "--json"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            said = server.stdout.readline()
            if not said:
                raise UserError("the server did not start", "Its own words stand above")
            port = int(json.loads(said)["address"].rsplit(":", 1)[1])
            stop = threading.Event()
            workers = [Client(port, token, stop) for token in tokens]
            before, busy, began = store.last_seq(), processor_seconds(server.pid), time.perf_counter()
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join(max(0.0, began + seconds - time.perf_counter()))
            stop.set()
            for worker in workers:
                worker.join()
            took, busy = time.perf_counter() - began, processor_seconds(server.pid) - busy
        finally:
            server.terminate()
            server.wait(30)
        if problems := [worker.problem for worker in workers if worker.problem]:
            raise UserError(f"{len(problems)} clients failed: {problems[0]}", "The server's words stand above")
        latencies = sorted(latency for worker in workers for latency in worker.latencies)
        if store.last_seq() - before != len(latencies):
            raise UserError(f"{len(latencies)} answers were taken, {store.last_seq() - before} stored", "This is a bug")
    count = len(latencies)
    return {
        "judgments": count,
        "per_second": count / took,
        "server_ms": 1e3 * busy / count,
        "median_ms": 1e3 * latencies[count // 2],
        "p95_ms": 1e3 * latencies[int(0.95 * (count - 1))],
        "most_ms": 1e3 * latencies[-1],
    }


def main(settings: argparse.Namespace) -> dict[str, Any]:
    """Measure and print."""
    items, seconds = (200, 5.0) if settings.fast else (settings.items, settings.seconds)
    shutil.rmtree(settings.work, ignore_errors=True)
    Path(settings.work).mkdir(parents=True)
    found = {"SQLite": measure(str(settings.work / "feedback.db"), items, settings.clients, seconds)}
    if settings.postgres:
        found["PostgreSQL"] = measure(settings.postgres, items, settings.clients, seconds)
    rows = [
        [
            name,
            f"{f['judgments']:,.0f}",
            f"{f['per_second']:.0f}",
            f"{f['server_ms']:.1f}",
            *(f"{f[key]:.0f}" for key in ("median_ms", "p95_ms")),
        ]
        for name, f in found.items()
    ]
    table(
        f"Judgments over HTTP, {settings.clients} clients",
        ["database", "judgments", "a second", "server's ms of processor", "median ms", "p95 ms"],
        rows,
    )
    return {"clients": settings.clients, "databases": found}


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--clients", type=int, default=20, help="labelers at once")
    parser.add_argument("--items", type=int, default=20_000, help="queue items at the start")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long at most")
    parser.add_argument("--postgres", default="", help="URL of an empty PostgreSQL database")
    run(main, parser)
