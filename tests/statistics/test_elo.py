from __future__ import annotations

import evalica
import numpy as np
import pytest

from hearken.statistics.elo import elo, elo_update


def test_it_is_evalica() -> None:
    random = np.random.default_rng(0)
    a = random.integers(0, 5, size=200)
    b = (a + random.integers(1, 5, size=200)) % 5
    y = random.choice([0.0, 0.5, 1.0], size=200)
    winners = [{1.0: evalica.Winner.X, 0.5: evalica.Winner.Draw, 0.0: evalica.Winner.Y}[v] for v in y.tolist()]
    theirs = evalica.elo(a.tolist(), b.tolist(), winners, initial=1000.0, k=16.0).scores
    ours = elo(zip(map(str, a), map(str, b), y.tolist(), strict=True))
    assert ours == pytest.approx({str(name): score for name, score in theirs.items()})


def test_one_game_by_hand() -> None:
    assert elo_update(1000, 1000, 1) == (1008, 992)
    assert elo_update(1400, 1000, 1)[0] == pytest.approx(1400 + 16 / 11)
    assert sum(elo_update(1234, 987, 0.5)) == pytest.approx(1234 + 987)
    assert elo([]) == {}
