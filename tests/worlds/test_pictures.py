"""The picture world: its captions, what it draws, and that its judge reads any picture rightly."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest

from hearken.errors import UserError
from hearken.worlds.pictures.judge import judge
from hearken.worlds.pictures.scene import Scene, draw, read_caption, scenes, shrink
from hearken.worlds.pictures.world import TASTES, PictureWorld, prompts
from hearken.worlds.world import World, open_world


def drawn(n: int, clutter: float = 0.0) -> list[tuple[Scene, np.ndarray]]:
    rng = random.Random(0)
    return [(scene, draw(scene, rng, clutter)) for scene in rng.sample(scenes(), n)]


def test_captions() -> None:
    every = scenes()
    assert len({scene.caption for scene in every}) == 432
    assert all(read_caption(scene.caption) == scene for scene in every)
    assert read_caption(" A red circle left of a Blue square.") == read_caption("a red circle left of a blue square")
    for wrong in (
        "a red circle",
        "a red circle above a pink square",
        "a red circle above a blue square on a dark ground",
    ):
        with pytest.raises(UserError, match="cannot read the prompt"):
            read_caption(wrong)


def test_a_pair_of_things_is_held_out_whole() -> None:
    held, train = prompts(held_out=True), prompts(held_out=False)
    assert 40 < len(held) < 110 and len(held) + len(train) == 432
    pairs = [{frozenset(read_caption(one)[:2]) for one in some} for some in (held, train)]
    assert not pairs[0] & pairs[1]


def test_the_judge_knows_what_was_drawn() -> None:
    some = drawn(150)
    assert np.mean([judge(picture, scene).match for scene, picture in some]) > 0.96
    others = [judge(picture, other).match for (_, picture), (other, _) in pairwise(some)]
    assert np.mean(others) < 0.04
    noise = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)
    seen = [judge(picture, some[0][0]) for picture in noise]
    assert not any(one.match for one in seen) and np.mean([one.dirt for one in seen]) > 0.9


def test_gold_orders_clean_cluttered_wrong_and_noise() -> None:
    world: World = open_world("pictures", 0)
    clean, cluttered = drawn(60), drawn(60, clutter=1.0)
    means = [
        np.mean([world.gold(scene.caption, picture) for scene, picture in clean]),
        np.mean([world.gold(scene.caption, picture) for scene, picture in cluttered]),
        np.mean([world.gold(other.caption, pic) for (_, pic), (other, _) in pairwise(clean)]),
        world.gold(clean[0][0].caption, np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)),
    ]
    assert means == sorted(means, reverse=True) and means[0] > 2.1 and means[-1] < -0.7


def test_tastes_differ_only_where_the_scene_is_right() -> None:
    world = PictureWorld(0)
    (scene, picture), (other, _) = drawn(2)
    assert set(world.groups) == set(TASTES)
    right = [world.utility(scene.caption, picture, group) for group in world.groups]
    assert right[0] != right[1] and world.gold(scene.caption, picture) == pytest.approx(np.mean(right))
    black = np.zeros((16, 16, 3), np.uint8)
    assert len({world.utility(scene.caption, black, group) for group in world.groups}) == 1
    assert world.accepts(scene.caption, picture) and not world.accepts(other.caption, black)


@pytest.mark.parametrize("size", [(64, 64), (37, 50), (16, 16)])
def test_pictures_of_any_size_are_read(size: tuple[int, int]) -> None:
    """Enlarged pictures are judged about as they were."""
    some = drawn(30)
    rows, columns = (np.arange(n) * 16 // n for n in size)
    enlarged = [(scene, picture[rows][:, columns]) for scene, picture in some]
    assert np.mean([judge(picture, scene).match for scene, picture in enlarged]) > 0.9
    np.testing.assert_allclose(shrink(enlarged[0][1]).mean(0), shrink(some[0][1]).mean(0), atol=0.03)
    assert shrink(np.zeros((3, 5, 3), np.uint8)).shape == (256, 3)
