from __future__ import annotations

import pytest

from hearken.errors import UserError
from hearken.rewards import metrics

ALL = ["rouge1", "rouge2", "rouge_l", "bleu", "chrf", "meteor"]
REFERENCE = "the fox runs home over the hill"


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_equal_is_best_and_unlike_is_worst(name: str) -> None:
    pytest.importorskip("rouge_score")
    pytest.importorskip("sacrebleu")
    pytest.importorskip("nltk")
    said = [REFERENCE, "the fox runs to the river", "quite unlike: big dogs bark"]
    facts = [{"reference": REFERENCE}, {"references": ["something else", REFERENCE]}, {"reference": REFERENCE}]
    same, near, far = getattr(metrics, name)([""] * 3, said, facts)
    assert same == pytest.approx(1, abs=0.02) and 1 > near > far >= 0 and far < 0.15


def test_rouge_by_hand() -> None:
    pytest.importorskip("rouge_score")
    (found,) = metrics.rouge1([""], ["the fox sleeps"], [{"reference": "the fox runs home"}])
    assert found == pytest.approx(2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4))


def test_without_reference_or_library(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="have no 'reference'"):
        metrics.meteor([""], ["a"], [{}])
    monkeypatch.setitem(__import__("sys").modules, "sacrebleu", None)
    with pytest.raises(UserError, match=r"needs sacrebleu.*hearken\[metrics\]"):
        metrics.bleu([""], ["a"], [{"reference": "b"}])
