"""What all tests share."""

from __future__ import annotations

import os

from postgres import location, postgres_location, postgres_server, stoppable_postgres  # noqa: F401  # fixtures

# One thread per test process: sums in a fixed order, no fight for cores under pytest-xdist. Before torch loads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# A test that would reach for the network fails at once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
