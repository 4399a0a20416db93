"""A server over a small project (`people_world`): in this process, or on a port with a browser before it."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from people_world import Running, Site, fill

from hearken.feedback.store import FeedbackStore
from hearken.server.app import create_app
from hearken.server.run import Address, serve


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FeedbackStore]:
    """An open store without gold checks by chance."""
    with FeedbackStore(tmp_path / "feedback.db") as opened:
        opened.access.set_settings({"check_share": 0.0})
        yield opened


@pytest.fixture
def site(store: FeedbackStore, tmp_path: Path) -> Site:
    """A server over three pairs."""
    fill(store)
    return Site(store, create_app(store, media=tmp_path))


# -- a real browser on a real server -----------------------------------------------------------------------------


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """Debian's Chromium, or the one that HEARKEN_CHROMIUM names."""
    sync_api = pytest.importorskip("playwright.sync_api")
    path = os.environ.get("HEARKEN_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no Chromium found; install it or set HEARKEN_CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


@pytest.fixture
def run_server(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start a server in a thread, over a database that ``prepare`` fills; stopped at the end."""
    stop, threads, stores = threading.Event(), [], []

    def start(prepare: Callable[[FeedbackStore], Any], **more: Any) -> Running:
        path = tmp_path / "feedback.db"
        store = FeedbackStore(path)
        stores.append(store)
        prepare(store)
        ready, found = threading.Event(), []

        def on_ready(address: Address) -> None:
            found.append(address)
            ready.set()

        settings = {"database": path, "port": 0, "role": "labeler", "until": stop.is_set, "on_ready": on_ready} | more
        thread = threading.Thread(target=lambda: serve(**settings), daemon=True)
        thread.start()
        threads.append(thread)
        assert ready.wait(180)
        return Running(path, found[0].url, found[0].link, store)

    yield start
    stop.set()
    for thread in threads:
        thread.join(20)
    for store in stores:
        store.close()
