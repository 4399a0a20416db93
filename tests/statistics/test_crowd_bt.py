from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from crowdkit.aggregation import NoisyBradleyTerry
from scipy.stats import spearmanr

from hearken.statistics.bradley_terry import fit_davidson
from hearken.statistics.crowd_bt import crowd_bt

RELIABILITY = np.array([1.0, 0.95, 0.8, 0.55, 0.1])


def crowd(seed: int, n: int, responses: int = 15) -> tuple[np.ndarray, ...]:
    """Comparisons drawn from the model; the last labeler mostly says the opposite."""
    random = np.random.default_rng(seed)
    true = 1.5 * random.normal(size=responses)
    i = random.integers(0, responses, size=n)
    j = (i + random.integers(1, responses, size=n)) % responses
    who = random.integers(0, 5, size=n)
    first = random.random(n) < 1 / (1 + np.exp(true[j] - true[i]))
    said = np.where(random.random(n) < RELIABILITY[who], first, ~first)
    return i, j, who, said.astype(float), true


def test_it_recovers_strengths_and_labelers() -> None:
    i, j, who, y, true = crowd(0, 6000)
    found = crowd_bt(i, j, who, y)
    assert found.reliability == pytest.approx(RELIABILITY, abs=0.06)
    assert spearmanr(found.strength, true).statistic > 0.97
    plain = fit_davidson(np.eye(15)[i] - np.eye(15)[j], y)[0][:15]
    assert np.corrcoef(found.strength, true)[0, 1] > np.corrcoef(plain, true)[0, 1]


@pytest.mark.slow
def test_it_ranks_as_crowd_kit_does() -> None:
    """Crowd-kit's noisy Bradley-Terry has a side bias besides, which there is none of here."""
    i, j, who, y, _ = crowd(1, 3000)
    table = pd.DataFrame({"worker": who, "left": i, "right": j, "label": np.where(y == 1, i, j)})
    theirs = NoisyBradleyTerry(n_iter=50).fit(table)
    ours = crowd_bt(i, j, who, y)
    assert spearmanr(ours.strength, theirs.scores_.sort_index()).statistic > 0.9


def test_at_full_reliability_it_is_bradley_terry() -> None:
    i, j, who, y, _ = crowd(2, 400)
    found = crowd_bt(i, j, who, y, ridge=0.1, right=1e6, wrong=1.0)
    assert found.strength == pytest.approx(fit_davidson(np.eye(15)[i] - np.eye(15)[j], y, ridge=0.1)[0][:15], abs=0.01)


def test_a_tie_is_half_of_each_and_few_judgments_keep_the_prior() -> None:
    tied = crowd_bt([0, 0], [1, 1], [0, 0], [0.5, 0.5])
    assert tied.strength == pytest.approx([0, 0], abs=1e-4)
    assert crowd_bt([0], [1], [0], [1.0]).reliability[0] > 0.9
    with pytest.raises(ValueError, match="from 0 to 1"):
        crowd_bt([], [], [], [])
