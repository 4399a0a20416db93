"""Counts, means and what hangs on them are those of all processes; one process is the whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from hearken.algorithms.critic import KLControl
from hearken.algorithms.ppo_options import PPOConfig
from hearken.algorithms.rollouts import TokenRollout
from hearken.objectives.direct import kto_reference_point
from hearken.objectives.reduce import masked_mean, whiten
from hearken.training import distributed

X = torch.tensor([[0.5, -1.0, 2.0], [1.5, 0.25, 0.0], [-2.0, 0.0, 0.0], [0.75, 3.0, -1.0], [0.1, 0.2, 0.0]])
MASK = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 1], [1, 1, 0]]).bool()
PARTS = [range(0, 2), range(2, 5)]
"""Rows of each of two processes: not equally many."""


def told(x: Tensor, mask: Tensor) -> dict[str, Any]:
    """What one process finds, from its own part."""
    rows = {"samples": [None] * len(x), "kl": lambda: TokenRollout.kl(batch), "kls": lambda: x.sum(-1)}
    batch: Any = SimpleNamespace(**rows)
    control = KLControl(0.1)
    control.adapt(batch, PPOConfig(kl_target=0.5, kl_horizon=20))
    return {
        "count": distributed.total(len(x)),
        "weight": distributed.total(float(x[:, 0].sum())),
        "totals": distributed.totals({"loss": float(x.sum()), "right": float(len(x))}),
        "mean": distributed.mean(x[:, 0].requires_grad_()).item(),
        "masked": distributed.mean(x, mask).item(),
        "z0": kto_reference_point(x[:, 0], distributed.mean).item(),
        "beta": control.beta,
        "white": whiten(x, mask, total=distributed.total).tolist(),
    }


SCRIPT = """
import json, sys, torch
sys.path.insert(0, sys.argv[1])
import test_distributed as t
rank, rows = int(sys.argv[3]), list(t.PARTS[int(sys.argv[3])])
torch.distributed.init_process_group("gloo", init_method=sys.argv[2], rank=rank, world_size=2)
print(json.dumps(t.told(t.X[rows].clone(), t.MASK[rows])))
torch.distributed.destroy_process_group()
"""


def test_one_process_is_the_whole() -> None:
    assert distributed.total(7) == 7 and distributed.total(0.5) == 0.5 and distributed.totals({"a": 1.0}) == {"a": 1.0}
    share = torch.tensor(3.0)
    assert distributed.total(share) is share
    assert distributed.mean(X).item() == X.mean().item()
    assert distributed.mean(X, MASK).item() == masked_mean(X, MASK).item()


@pytest.mark.slow
def test_two_processes_find_what_one_does(tmp_path: Path) -> None:
    store = (tmp_path / "store").as_uri()
    words = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), store]
    ranks = [subprocess.Popen([*words, str(i)], stdout=subprocess.PIPE, text=True) for i in range(2)]
    found = [json.loads(rank.communicate(timeout=180)[0].splitlines()[-1]) for rank in ranks]
    whole = told(X.clone(), MASK)
    white = [row for part in found for row in part.pop("white")]
    torch.testing.assert_close(torch.tensor(white), torch.tensor(whole.pop("white")))
    for part in found:
        for name, value in whole.items():
            assert part[name] == pytest.approx(value, rel=1e-6), name
    assert whole["z0"] == pytest.approx(0.17) and whole["beta"] > 0.1
