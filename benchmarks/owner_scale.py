"""How long the owner's pages take, and how much memory, on a feedback database of `big_store.py`.

The server runs in a process of its own; its pages are asked for over HTTP as a browser does: at once after the start,
again, and after one more judgment. A page that is computed for the first time says so, and one whose newest state is
still being computed is shown as of an older judgment; both are said in the table ("again" is the best of five visits,
"processor" the server's own time for one of them). Memory is what the server's resident memory has grown by since it
answered its first request, at its peak.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from big_store import fill
from common import arguments, run, table
from serve_load import SERVER, processor_seconds

from hearken.errors import UserError
from hearken.feedback.access import Account
from hearken.feedback.records import Judgment, ThumbPayload
from hearken.feedback.store import FeedbackStore
from hearken.server.security import Door

PAGES = {
    "progress": "/owner",
    "agreement": "/owner/agreement",
    "labelers": "/owner/labelers",
    "coverage": "/owner/coverage",
    "leaderboard": "/owner/leaderboard",
    "leaderboard, weighted by reliability": "/owner/leaderboard?weighting=reliability",
    "responses": "/owner/responses",
    "responses of one policy, the 1,000th": "/owner/responses?policy=ppo&order=worst&start=1000",
    "export": "/owner/export",
    "people": "/owner/people",
    "guidelines": "/owner/guidelines",
    "settings": "/owner/settings",
    "audit": "/owner/audit",
}
FILES = {
    "export of pairs, JSONL": "/owner/export/file?layout=pairs&suffix=jsonl",
    "export of everything (raw), JSONL": "/owner/export/file?layout=raw&suffix=jsonl",
}


class Server:
    """`hearken serve` on a database, and an owner who is logged in.

    Args:
        location: of the database.
    """

    def __init__(self, location: str) -> None:
        command = [sys.executable, "-c", SERVER, "serve", "--database", location, "--port", "0", "--no-open", "--json"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        if not said:
            raise UserError("the server did not start", "Its own words stand above")
        self.address = json.loads(said)["address"]
        with FeedbackStore(location) as store:
            account = store.access.add_account(Account(name="Owner", role="owner"))
            door = Door(port=int(self.address.rsplit(":", 1)[1]))
            self._cookie = f"{door.cookie}={store.access.open_session(account.id)[0]}"
        self.get("/owner/settings")
        self._before = self.memory("VmRSS")

    def get(self, path: str) -> tuple[str, float]:
        """A page's text, and the seconds it took."""
        request = urllib.request.Request(self.address + path, headers={"Cookie": self._cookie})
        began = time.perf_counter()
        with urllib.request.urlopen(request, timeout=600) as answer:
            text = answer.read().decode()
        if not answer.url.endswith(path):
            raise UserError(f"{path} led to {answer.url}", "This is a bug")
        return text, time.perf_counter() - began

    def size(self, path: str) -> tuple[int, float]:
        """A file's bytes, and the seconds it took."""
        request = urllib.request.Request(self.address + path, headers={"Cookie": self._cookie})
        began, size = time.perf_counter(), 0
        with urllib.request.urlopen(request, timeout=600) as answer:
            while piece := answer.read(1 << 20):
                size += len(piece)
        return size, time.perf_counter() - began

    def processor(self) -> float:
        """Seconds of processor time that it has used."""
        return processor_seconds(self._process.pid)

    def memory(self, which: str = "VmHWM") -> float:
        """MB of resident memory: now (VmRSS) or at its peak (VmHWM)."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        found = re.search(rf"{which}:\s+(\d+) kB", status)
        return int(found[1]) / 1024 if found else float("nan")

    def grown(self) -> float:
        """MB that the peak lies above what was there at the start."""
        return self.memory() - self._before

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(30)


@contextmanager
def serving(location: str) -> Iterator[Server]:
    """A server that is ended in any case."""
    server = Server(location)
    try:
        yield server
    finally:
        server.close()


def _is_counting(text: str) -> bool:
    return 'http-equiv="refresh"' in text


def _ready(server: Server, path: str) -> float:
    """Seconds until the page is there."""
    began = time.perf_counter()
    while _is_counting(server.get(path)[0]):
        time.sleep(0.2)
    return time.perf_counter() - began


def measure(location: str) -> tuple[list[list[Any]], dict[str, Any]]:
    """Rows of the table, and what stands below it."""
    rows, figures = [], {}
    with FeedbackStore(location) as store, serving(location) as server:
        first = {name: server.get(path) for name, path in PAGES.items()}
        ready = {name: _ready(server, path) for name, path in PAGES.items()}
        again, busy = {}, {}
        for name, path in PAGES.items():
            before = server.processor()
            again[name] = min(server.get(path)[1] for _ in range(5))
            busy[name] = (server.processor() - before) / 5
        response = next(store.responses())
        labeler = store.labelers()[0].id
        store.submit(
            Judgment(
                prompt_id=response.prompt_id,
                labeler_id=labeler,
                payload=ThumbPayload(response_id=response.id, label=True),
            )
        )
        after = {name: server.get(path) for name, path in PAGES.items()}
        pages = server.grown()
        for name in PAGES:
            old = re.search(r'id="as-of">(.*?)</p>', after[name][0])
            rows.append(
                [
                    name, f"{first[name][1]:.2f}", f"{ready[name]:.1f}" if _is_counting(first[name][0]) else "",
                    f"{again[name]:.2f}", f"{busy[name]:.2f}", f"{after[name][1]:.2f}",
                    "as of the one before" if old else "",
                ]
            )  # fmt: skip
            figures[name] = {
                "first": first[name][1],
                "again": again[name],
                "processor": busy[name],
                "after": after[name][1],
            }
        for name, path in FILES.items():
            before = server.processor()
            size, seconds = server.size(path)
            spent = server.processor() - before
            figures[name] = {"seconds": seconds, "processor": spent, "megabytes": size / 1e6, "grown": server.grown()}
    slowest = max(max(each.values()) for name, each in figures.items() if name in PAGES)
    return rows, figures | {"slowest": slowest, "grown": pages}


def main(settings: argparse.Namespace) -> dict[str, Any]:
    """Measure and print."""
    location = settings.database
    if not location:
        responses, judgments = (2_000, 3_000) if settings.fast else (settings.responses, settings.judgments)
        settings.work.mkdir(parents=True, exist_ok=True)
        location = str(settings.work / f"{responses}-{judgments}.db")
        if not Path(location).exists():
            fill(location, responses, judgments, settings.seed)
    rows, figures = measure(location)
    columns = ["page", "first, s", "whole after, s", "again, s", "processor, s", "after a judgment, s", "is then shown"]
    table("The owner's pages", columns, rows)
    print(f"\nslowest answer {figures['slowest']:.2f} s; the server's memory grew by {figures['grown']:.0f} MB at most")
    for name in FILES:
        found = figures[name]
        print(
            f"{name}: {found['seconds']:.1f} s, {found['megabytes']:.0f} MB; memory then {found['grown']:.0f} MB above"
        )
    return {"database": "PostgreSQL" if "://" in location else "SQLite", "pages": figures}


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--database", default="", help="a database of big_store.py; by default one is made")
    parser.add_argument("--responses", type=int, default=200_000)
    parser.add_argument("--judgments", type=int, default=300_000)
    run(main, parser)
