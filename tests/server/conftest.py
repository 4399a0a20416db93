"""A server over a small project (`people_world`): in this process, or on a port with a browser before it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from people_world import Running, Site, fill, running

from hearken.feedback.store import FeedbackStore
from hearken.server.app import create_app


@pytest.fixture(autouse=True)
def _cheap_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every server hashes a password when it starts: here in less than a millisecond."""
    cheap = partial(PasswordHasher, time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr("hearken.server.security.PasswordHasher", cheap)


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database without gold checks by chance, to be copied: to make the tables takes longer than most tests."""
    path = tmp_path_factory.mktemp("empty") / "feedback.db"
    with FeedbackStore(path) as made:
        made.access.set_settings({"check_share": 0.0})
    return path


@pytest.fixture
def store(tmp_path: Path, empty: Path) -> Iterator[FeedbackStore]:
    """An open store without gold checks by chance."""
    with FeedbackStore(shutil.copy(empty, tmp_path / "feedback.db")) as opened:
        yield opened


@pytest.fixture
def site(store: FeedbackStore, tmp_path: Path) -> Site:
    """A server over three pairs."""
    fill(store)
    return Site(store, create_app(store, media=tmp_path))


# -- a real browser on a real server -----------------------------------------------------------------------------


@pytest.fixture
def run_server(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start a server in a thread, over a database that ``prepare`` fills; stopped at the end."""
    with ExitStack() as stack:
        yield lambda prepare, **more: stack.enter_context(running(tmp_path / "feedback.db", prepare, **more))
