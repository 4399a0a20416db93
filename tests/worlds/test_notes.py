"""The world of short messages: its requests, and that its utility is not won by tricks."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hearken.errors import UserError
from hearken.worlds.notes.world import GROUPS, NoteWorld, good_message, read_request, stem, traits
from hearken.worlds.world import open_world

WORLD = NoteWorld(3)
HELD_OUT = WORLD.prompts(65, "heldout")


def test_prompts_are_distinct_and_the_splits_share_no_matter() -> None:
    train = WORLD.prompts(400)
    assert len(set(train)) == 400 and WORLD.prompts(400) == train and NoteWorld(4).prompts(400) != train
    matters = [{read_request(p).matter for p in some} for some in (train, HELD_OUT)]
    assert not matters[0] & matters[1] and len(matters[1]) == 65  # every matter once before any twice
    with pytest.raises(UserError, match="no 9999 requests"):
        WORLD.prompts(9999)
    with pytest.raises(UserError, match="no split 'test'"):
        WORLD.prompts(1, "test")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="not a request"):
        read_request("Tell me a story.")


@pytest.mark.parametrize("group", GROUPS)
def test_no_trick_beats_a_message_that_says_it(group: str) -> None:
    for at, request in enumerate(HELD_OUT):
        good, elsewhere = good_message(request, at), HELD_OUT[(at + 11) % 65]
        other = good_message(elsewhere, at)
        tricks = {
            "says nothing": "No.", "empty": "", "the request": request, "its second half": request.split(". ", 1)[1],
            "another message": other, "kind words alone": "Thank you! Please take care. Love, hugs! I am sorry?",
            "cut": good + " I hope that you and all the others are well and that we",
            "gaps": f"Dear [Name], {good} Love, [Your name]",
            "a letter": f"I hope this finds you well. {good} Kind regards",
            "beside it": f"Here is a message for you: {good}",
            "a ramble": good + " It was a long day and I had much to do, and then I met a friend." * 3,
        }  # fmt: skip
        for name, text in tricks.items():
            shared = set(read_request(request).matter.split()) & set(
                read_request(HELD_OUT[(at + 11) % 65]).matter.split()
            )
            if name == "another message" and shared:
                continue
            assert WORLD.utility(request, good, group) > WORLD.utility(request, text, group), (name, request)


def test_the_groups_differ_in_taste() -> None:
    request = "Write a note to my aunt. Tell her that the party starts at six."
    short, kind = (
        "The party starts at six.",
        "Hello! I am so glad to tell you that the party starts at six. See you soon!",
    )
    assert WORLD.utility(request, short, "brisk") > WORLD.utility(request, kind, "brisk")
    assert WORLD.utility(request, kind, "warm") > WORLD.utility(request, short, "warm")
    assert WORLD.gold(request, kind) == pytest.approx(sum(WORLD.utility(request, kind, g) for g in GROUPS) / 2)
    with pytest.raises(UserError, match="no group 'cold'"):
        WORLD.utility(request, kind, "cold")


@pytest.mark.parametrize(
    ("text", "trait", "value"),
    [
        ("Thank you for watering the plants!\n\nLove,\nEmily", "whole", True),
        ("I am not sure how", "whole", False),
        ("Dear Mum,\n\nI hope you", "whole", False),
        ("See you xx", "whole", True),
        ("Hi [Sister's Name], thanks!", "gaps", True),
        ("Thanks for the roses you watered.", "said", 0.5),
        ("I'd appreciate it.", "does", True),
    ],
)
def test_traits(text: str, trait: str, value: float) -> None:
    seen = traits("Write a note to my aunt. Thank her for watering the plants.", text)
    assert getattr(seen, trait) == value


def test_stems() -> None:
    assert stem("watering") == stem("watered") == stem("waters") == "water"
    assert stem("running") == stem("run") and stem("closed") == stem("close") and stem("bus") == "bus"


def test_worlds_are_found_by_name_and_without_torch() -> None:
    assert open_world("notes", 1).groups == GROUPS and open_world("tales", 1).groups == ("hearth", "quest")
    with pytest.raises(UserError, match="no world 'seas'"):
        open_world("seas", 0)
    code = (
        "import sys; from hearken.worlds.world import open_world as o; o('notes', 0); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
