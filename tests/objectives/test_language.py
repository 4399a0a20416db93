from __future__ import annotations

import math

import pytest
import torch

from hearken.objectives.language import nll, perplexity
from hearken.objectives.reduce import masked_mean


def test_nll_sums_over_the_mask() -> None:
    logprobs = torch.tensor([[-1.0, -2.0, float("nan")], [-0.5, -0.25, -0.125]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    assert nll(logprobs, mask).tolist() == [3.0, 0.875]
    assert masked_mean(-logprobs, mask).item() == pytest.approx(nll(logprobs, mask).sum().item() / 5)


def test_perplexity_of_a_uniform_model_is_its_vocabulary() -> None:
    assert perplexity(12 * math.log(50), 12) == pytest.approx(50)
    assert perplexity(1e9, 1) == math.inf
    assert math.isnan(perplexity(0.0, 0))
