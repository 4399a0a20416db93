"""What all tests share."""

from __future__ import annotations

import os

# One thread per test process: sums in a fixed order, no fight for cores under pytest-xdist. Before torch loads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# A test that would reach for the network fails at once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
