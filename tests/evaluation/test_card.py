"""The reward-model card, on judges whose worth is known."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hearken.errors import UserError
from hearken.evaluation.card import Evidence, agreement_ceiling, area_under_curve, make_card, measure_shift, would_help
from hearken.evaluation.reward_card import RewardCard
from hearken.feedback.examples import Comparison
from hearken.rewards.trust import check_card


def rows(prompts: int = 120, seed: int = 0, labelers: int = 1) -> list[Comparison]:
    """Pairs of one to nine words; the one with more "good" wins with BT noise of slope 1."""
    r = random.Random(seed)
    found = []
    for i in range(prompts):
        texts = tuple(" ".join(r.choices(["good", "bad", "tale"], k=r.randint(1, 9))) for _ in range(2))
        for labeler in range(labelers):
            lead = worth(texts[0]) - worth(texts[1])
            first = r.random() < 1 / (1 + np.exp(-lead))
            facts = {
                "labeler": f"l{labeler}", "attributes": {"group": "ab"[labeler % 2]}, "round": i % 2,
                "selection": "uniform" if i % 3 == 0 else "disagreement", "order": [1, 0] if i % 2 else [0, 1],
            }  # fmt: skip
            ranks = (0, 1) if first else (1, 0)
            found.append(Comparison(f"prompt {i}", texts, ranks, strength=(i % 3) / 3, metadata=facts))
    return found


def worth(text: str) -> float:
    return 2.0 * text.count("good") - text.count("bad")


def true(prompts, responses):
    return [[worth(t) for t in texts] for texts in responses]


def length(prompts, responses):
    return [[0.1 * len(t.split()) for t in texts] for texts in responses]


def coin(prompts, responses):
    r = random.Random(1)
    return [[r.random() for _ in texts] for texts in responses]


def test_a_good_model_passes_and_a_coin_and_a_ruler_do_not(tmp_path) -> None:
    judged = rows()
    good, ruler, tossed = (make_card("rm", judged, score) for score in (true, length, coin))
    assert good.passes and not good.failures
    assert not ruler.passes and "longer response" in " ".join(ruler.failures)
    assert ruler.accuracy.estimate == pytest.approx(ruler.length_baseline) and ruler.longer_wins.estimate > 0.5
    assert not tossed.passes and "coin" in tossed.failures[0]
    assert good.accuracy.low > good.length_baseline >= 0.5

    ruler.save(tmp_path)
    with pytest.raises(UserError, match="not good enough") as caught:
        check_card(str(tmp_path))
    assert "--trust-reward" in caught.value.hint
    check_card(str(tmp_path), trust=True)
    good.save(tmp_path)
    check_card(str(tmp_path))
    check_card("somewhere/else")
    assert RewardCard.load(tmp_path) == good
    content = json.loads((tmp_path / "card.json").read_text("utf-8"))
    (tmp_path / "card.json").write_text(json.dumps({key: part for key, part in content.items() if key != "version"}))
    assert RewardCard.load(tmp_path) == good, "as it was written before it had a version"


def test_a_card_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert RewardCard.load(tmp_path) is None
    for content, what in (("{", "the whole"), ('{"passes": true, "version": 2}', "version")):
        (tmp_path / "card.json").write_text(content)
        with pytest.raises(UserError, match=what) as refused:
            RewardCard.load(tmp_path)
        assert str(tmp_path / "card.json") in refused.value.what and "hearken card" in refused.value.hint
    (tmp_path / "card.json").write_text('{"passes": "perhaps"}')
    with pytest.raises(UserError, match="no card of a reward model"):
        check_card(str(tmp_path))


def test_parts_of_the_card() -> None:
    card = make_card("rm", rows(200, labelers=2), true, Evidence(others=[coin]))
    by = {(s.by, s.name): s for s in card.slices}
    assert {("strength", "slight"), ("labeler group", "a"), ("labeler", "l1"), ("round", "1")} <= by.keys()
    assert by["labeler group", "a"].count + by["labeler group", "b"].count == card.pairs
    assert sum(s.count for s in card.slices if s.by == "length gap") == card.pairs
    assert card.uniform is not None and card.selected is not None
    assert card.calibration.error < 0.1  # the judge's margin is the labelers' own log-odds
    probes = {p.name: p for p in card.probes}
    assert 0.3 < probes["shown first wins"].value.estimate < 0.7
    assert probes["equal length"].value.low > 0.5
    assert probes["said twice"].value.estimate > 0.3  # this judge does count, and the probe finds it out
    assert card.ensemble is not None and card.ensemble.models == 2 and len(card.ensemble.by_third) == 3
    ruler = {p.name: p.value for p in make_card("rm", rows(200), length).probes}
    assert ruler["score against length"].estimate == pytest.approx(1.0)


def test_judgments_count_by_their_weight() -> None:
    """Of two labelers who always disagree, the one that the model follows stands for three quarters of the people."""
    judged = [
        Comparison(f"prompt {i}", ("good", "bad bad"), ranks, weight=weight, metadata={"labeler": who})
        for i in range(40)
        for who, ranks, weight in (("l0", (0, 1), 3.0), ("l1", (1, 0), 1.0))
    ]
    card = make_card("rm", judged, true)
    assert card.accuracy.estimate == pytest.approx(0.75) and card.longer_wins.estimate == pytest.approx(0.25)
    assert card.accuracy.low < 0.75 < card.accuracy.high
    plain = make_card("rm", [replace(row, weight=2.0) for row in judged], true)
    assert plain.accuracy == make_card("rm", [replace(row, weight=1.0) for row in judged], true).accuracy
    assert plain.accuracy.estimate == 0.5
    assert {s.name: s.accuracy.estimate for s in card.slices if s.by == "labeler"} == {"l0": 1.0, "l1": 0.0}


def test_disagreement_tells_errors_where_models_err_on_their_own() -> None:
    rng = np.random.default_rng(0)

    def noisy(prompts, responses):
        return [[worth(t) + rng.normal(0, 2) for t in texts] for texts in responses]

    found = make_card("rm", rows(400), noisy, Evidence(others=[noisy, noisy, noisy])).ensemble
    assert found is not None and found.by_third[0].estimate >= found.by_third[2].estimate - 0.1


def test_heads_stand_in_for_further_models() -> None:
    rng = np.random.default_rng(0)
    judged = rows(400)
    heads = [[[worth(t) + rng.normal(0, 2) for t in row.responses] for row in judged] for _ in range(5)]
    found = make_card("rm", judged, true, Evidence(heads=heads)).ensemble
    assert found is not None and (found.models, found.of) == (5, "heads")
    assert found.by_third[0].estimate > found.by_third[2].estimate - 0.1
    both = make_card("rm", judged, true, Evidence(others=[length], heads=heads)).ensemble
    assert both is not None and (both.models, both.of) == (2, "reward models")


def test_another_look_at_the_shift_takes_the_place_of_the_last() -> None:
    rng = np.random.default_rng(0)
    old, near, far = (rng.normal(at, 1, (80, 3)) for at in (0, 0, 3))
    looks = [measure_shift(old, new, np.ones(80), np.ones(80), length=(9, 9), score=(0, 0)) for new in (far, near)]
    card = make_card("rm", rows(200), true, Evidence(shift=looks[0]))
    assert any("not those it was trained on" in said for said in card.remarks)
    again = card.with_shift(looks[1])
    assert again.shift == looks[1] and not any("not those it was trained on" in said for said in again.remarks)
    assert again.with_shift(looks[0]).remarks == card.remarks


def test_the_ceiling_holds_the_best_accuracy_between_its_bounds() -> None:
    judged = rows(400, labelers=4)
    agreement, ceiling = agreement_ceiling(judged)
    assert agreement is not None and ceiling is not None
    best = make_card("rm", judged, true).accuracy.estimate  # the true log-odds are the best predictor
    assert ceiling[0] - 0.03 < best < ceiling[1] + 0.03
    assert agreement_ceiling(rows(30)) == (None, None)


def test_a_shift_is_seen_and_its_absence_too() -> None:
    rng = np.random.default_rng(0)
    then, same, moved = rng.normal(size=(300, 6)), rng.normal(size=(300, 6)), rng.normal(1.0, 1, size=(300, 6))

    def widths(x):
        return np.linalg.norm(x, axis=1)

    still = measure_shift(then, same, widths(then), widths(same), length=(5, 5), score=(0, 0))
    gone = measure_shift(then, moved, widths(then), widths(moved), length=(5, 9), score=(0, 1))
    assert still.told_apart == pytest.approx(0.5, abs=0.08) and still.wider_than_training == pytest.approx(
        0.05, abs=0.04
    )
    assert gone.told_apart > 0.9 and gone.wider_than_training > 0.2


def test_would_more_labels_or_a_larger_model_help() -> None:
    rng = np.random.default_rng(0)
    keys = [str(i) for i in range(600)]
    weak, strong, stronger = ((rng.random(600) < p).astype(float) for p in (0.55, 0.75, 0.95))
    assert "More labels still help" in would_help([(100, weak), (200, strong)], None, keys)
    assert "larger reward model helps more" in would_help([(100, weak), (200, weak)], stronger, keys)
    assert "More labels help more" in would_help([(100, weak), (200, stronger)], stronger, keys)
    assert "cannot be told from no gain" in would_help([(100, weak), (200, weak)], None, keys)


def test_area_under_curve_and_empty_cards() -> None:
    assert area_under_curve([1, 2, 3, 4], [False, False, True, True]) == 1.0
    assert area_under_curve([1, 1], [False, True]) == 0.5
    assert np.isnan(area_under_curve([1, 2], [True, True]))
    with pytest.raises(UserError, match="orders two responses"):
        make_card("rm", [Comparison("p", ("a", "b"), (0, 0))], true)
