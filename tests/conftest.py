"""What all tests share."""

from __future__ import annotations

import os

import pytest
from browser import chromium  # noqa: F401  # fixture
from postgres import location, postgres_location, postgres_server, stoppable_postgres  # noqa: F401  # fixtures

# One thread per test process: sums in a fixed order, no fight for cores under pytest-xdist. Before torch loads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# A test that would reach for the network fails at once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the tests of the nightly run out, unless ``-m`` names it."""
    if "nightly" in config.option.markexpr:
        return
    left_out = [item for item in items if item.get_closest_marker("nightly")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
