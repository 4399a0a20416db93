"""Seconds from the call of a stage to the end of its first step, torch and transformers being imported already.

python startup.py MODEL DATA OUT
"""

from __future__ import annotations

import os
import sys
import time

os.environ.setdefault("HEARKEN_QUIET", "1")

import torch  # noqa: F401
import transformers.modeling_utils  # noqa: F401
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer  # noqa: F401

start = time.perf_counter()

from hearken.algorithms.stage import train  # noqa: E402
from hearken.training.run import Run  # noqa: E402


def stop(self: Run, **_: float) -> None:
    print(time.perf_counter() - start, flush=True)
    sys.exit(0)


Run.log = stop  # type: ignore[method-assign]
model, data, out = sys.argv[1:]
train("sft", model=model, data=data, out=out)
