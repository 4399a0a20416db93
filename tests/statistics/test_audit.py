"""The alarm of a small audited slice."""

from __future__ import annotations

import numpy as np
import pytest

from hearken.statistics.audit import audit, audits_needed


def test_preferred_and_wrong() -> None:
    found = audit([1] * 30 + [0] * 10, [1] * 14 + [0] * 26, [1] * 80 + [0] * 20, name="r02-ppo")
    assert found.alarm and found.change.high < 0 and found.change.estimate == pytest.approx(-0.4)
    assert found.says.startswith("r02-ppo is wrong more often (75 % before, 35 % now") and "80 %" in found.says
    assert "judged by labelers" in found.says
    gold = audit([1] * 30 + [0] * 10, [1] * 14 + [0] * 26, [1] * 80 + [0] * 20, judge="the gold reward")
    assert "wins 80 % of comparisons judged by the gold reward" in gold.says
    better = audit([1] * 14 + [0] * 26, [1] * 30 + [0] * 10, [1, 0])
    assert not better.alarm and "right more often" in better.says
    same = audit([1, 0] * 6, [1, 0] * 6, [1, 0])
    assert not same.alarm and "12 audited answers" in same.says


def test_false_alarms_are_rare_and_the_promised_power_is_kept() -> None:
    rng = np.random.default_rng(0)
    n = audits_needed(0.7, 0.25)

    def alarms(after: float) -> float:
        return float(np.mean([audit(rng.random(n) < 0.7, rng.random(n) < after, [1]).alarm for _ in range(400)]))

    assert alarms(0.7) < 0.05
    assert 0.7 < alarms(0.45) < 0.92
    with pytest.raises(ValueError):
        audits_needed(0.5, 0.0)
