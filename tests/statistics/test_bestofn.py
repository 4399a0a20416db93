from __future__ import annotations

import math

import numpy as np
import pytest

from hearken.statistics.bestofn import best_of_n_kl


@pytest.mark.parametrize("n", [1, 2, 4, 16])
def test_kl_by_integration(n: int) -> None:
    """The quantile of the best of n has density n·u^(n-1), that of the policy 1."""
    u = (np.arange(200_000) + 0.5) / 200_000
    density = n * u ** (n - 1)
    assert best_of_n_kl(n) == pytest.approx(float(np.mean(density * np.log(density))), abs=1e-4)


def test_wrong_n_is_refused() -> None:
    with pytest.raises(ValueError, match="none"):
        best_of_n_kl(0)
    assert best_of_n_kl(1) == 0 and math.isclose(best_of_n_kl(4), math.log(4) - 0.75)
