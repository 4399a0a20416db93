import random
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hearken.errors import UserError
from hearken.feedback.examples import Message
from hearken.labelers.protocol import Labeler, ranks_with_ties
from hearken.labelers.simulated import Panel, SimulatedLabeler, make_panel
from hearken.worlds.tales.flaws import flawed
from hearken.worlds.tales.world import TaleWorld


def plain(prompt, response, group):
    """A world where a response is the number it is worth, the other way round for group "b"."""
    return float(response.split()[0]) * (-1 if group == "b" else 1)


def labeler(**changes):
    plainest = {"name": "a-1", "group": "a", "utility": plain, "side": 0.0, "length": 0.0, "quirk": 0.0}
    return SimulatedLabeler(**plainest | changes)


def test_is_a_labeler():
    one = labeler()
    assert isinstance(one, Labeler)
    assert one.kind == "simulated" and one.attributes == {"group": "a"}


def test_bradley_terry_where_there_is_no_tie_nor_bias():
    one = labeler(sharpness=1.0, tie=0.0)
    vote = one.pair_vote("p", "1.5", "0.5")
    assert vote.win == pytest.approx(1 / (1 + 2.718281828459045**-1.0))
    assert vote.tie == pytest.approx(0) and vote.share == pytest.approx(vote.win)


@pytest.mark.parametrize("changes", [{}, {"side": 1.0}, {"length": 0.3, "tie": 1.0}, {"quirk": 1.0}])
def test_judgments_come_as_often_as_the_vote_says(changes):
    one = labeler(**({"sharpness": 1.0} | changes))
    a, b = "0.4 long long long", "0.0 short"
    vote = one.pair_vote("p", a, b)
    ranks = [one.judge("p", [a, b], seed).ranks for seed in range(4000)]
    for share, expected in [
        (statistics.mean(r[0] < r[1] for r in ranks), vote.win),
        (statistics.mean(r[0] == r[1] for r in ranks), vote.tie),
        (statistics.mean(r[0] > r[1] for r in ranks), vote.loss),
    ]:
        assert share == pytest.approx(expected, abs=4 * (0.25 / 4000) ** 0.5)
    assert vote.win + vote.tie + vote.loss == pytest.approx(1)


def test_the_first_place_of_k_comes_first_as_often_as_plackett_luce_says():
    one = labeler(sharpness=1.0, tie=0.0)
    responses = ["0", "1", "2"]
    tops = [one.judge("p", responses, seed).ranks.index(0) for seed in range(4000)]
    weights = [2.718281828459045**u for u in (0, 1, 2)]
    for i in range(3):
        assert tops.count(i) / 4000 == pytest.approx(weights[i] / sum(weights), abs=0.03)


def test_side_and_length_bias_show():
    one = labeler(sharpness=1.0, tie=0.0, side=1.0)
    first = [(r := one.judge("p", ["0", "0.0"], seed)).ranks[r.order[0]] == 0 for seed in range(2000)]
    assert statistics.mean(first) == pytest.approx(1 / (1 + 2.718281828459045**-1.0), abs=0.04)
    assert labeler(length=0.1).pair_vote("p", "0 a b c d e", "0").share > 0.5


@settings(max_examples=50)
@given(st.lists(st.floats(-3, 3).map(str), min_size=2, max_size=9), st.integers(0, 1000))
def test_rankings_are_whole_and_reproducible(responses, seed):
    one = labeler(tie=0.5, side=0.5)
    ranking = one.judge("p", responses, seed)
    assert ranking == one.judge("p", responses, seed)
    assert sorted(ranking.order) == list(range(len(responses)))
    assert set(ranking.ranks) == set(range(max(ranking.ranks) + 1))
    ids = [str(i) for i in range(len(responses))]
    assert ranking.payload(ids).ranks == ranking.ranks


def test_ties_do_not_chain():
    assert ranks_with_ties([1.0, 0.7, 0.4], tie=0.5) == (0, 0, 1)
    assert ranks_with_ties([0.4, 1.0, 0.7], tie=0.0) == (2, 0, 1)


def test_one_response_is_no_comparison():
    with pytest.raises(UserError, match="two responses or more"):
        labeler().judge("p", ["1"], 0)
    with pytest.raises(UserError, match="without labelers"):
        Panel(())


def test_a_dialogue_is_read_by_what_the_user_said_last():
    seen = []
    one = labeler(utility=lambda prompt, *_: seen.append(prompt) or 0.0)
    one.score((Message("user", "x"), Message("assistant", "y"), Message("user", "z"), Message("assistant", "w")), "1")
    assert seen == ["z"]


def test_a_panel_is_the_mean_of_its_labelers_and_asks_them_all():
    panel = make_panel(plain, ("a", "b"), per_group=3)
    assert len({one.name for one in panel.labelers}) == 6
    shares = [one.pair_vote("p", "1", "0").share for one in panel.labelers]
    assert panel.vote_probability("p", "1", "0") == pytest.approx(statistics.mean(shares))
    assert panel.vote_probability("p", "1", "0") + panel.vote_probability("p", "0", "1") == pytest.approx(1)
    asked = {panel.rank(f"p{i}", ["1", "0"], 0)[0].name for i in range(100)}
    assert len(asked) == 6
    assert panel.rank("p", ["1", "0"], 7) == panel.rank("p", ["1", "0"], 7)
    assert make_panel(plain, ("a", "b")) == make_panel(plain, ("a", "b")) != make_panel(plain, ("a", "b"), seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("broken", [0.05, 0.3])
def test_the_ceiling_on_tales(broken):
    """A reward model can be right on three of four pairs or more, whether few or many tales are flawed."""
    world, rng = TaleWorld(0), random.Random(1)
    panel = make_panel(world.utility, world.groups)
    right, tied, first, pairs = [], 0, [], 0
    for prompt in world.prompts(250, "heldout"):
        tales = [world.tale(prompt, i) for i in range(4)]
        tales = [flawed(tale, rng) if rng.random() < broken else tale for tale in tales]
        _, ranking = panel.rank(prompt, tales, 0)
        for a in range(4):
            for b in range(a):
                pairs += 1
                if ranking.ranks[a] == ranking.ranks[b]:
                    tied += 1
                    continue
                won = ranking.ranks[a] < ranking.ranks[b]
                right.append((panel.vote_probability(prompt, tales[a], tales[b]) > 0.5) == won)
                first.append((ranking.order.index(a) < ranking.order.index(b)) == won)
    assert 0.77 < statistics.mean(right) < 0.9
    assert 0.04 < tied / pairs < 0.12
    assert statistics.mean(first) > 0.51
