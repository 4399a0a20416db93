"""Summaries, answers and talks about tales: prompts hold their truth, and worth cannot be had for nothing."""

from __future__ import annotations

import random
import statistics

import pytest

from hearken.errors import UserError
from hearken.feedback.examples import Message
from hearken.labelers.simulated import dialogue_text, make_panel
from hearken.worlds.tales.tasks import (
    ASKS,
    GROUPS,
    KINDS,
    SLOT,
    confident,
    gold,
    parse,
    read_request,
    trusting,
    turns,
    utility,
)
from hearken.worlds.tales.truth import lines, read_truth
from hearken.worlds.tales.world import TaleWorld

WORLD = TaleWorld(0)
TALE = (
    "Ruby was a brave fox who lived in the old forest. One snowy evening Ruby lost the way home. "
    '"Where are you going?" asked an old owl. Suddenly the ice cracked, and Ruby fell into the deep water. '
    "The owl led her safely home, and they sang together by the fire."
)
SUM = f"{TALE}\nSum up this tale."
WHERE = f"{TALE}\nWhere did Ruby live?"
TREASURE = f"{TALE}\nWhich treasure is in the tale?"
TALK = f"{TALE}\nWhat do you think of Ruby?"


@pytest.fixture(scope="module")
def made() -> dict[str, list[tuple[str, str]]]:
    return {kind: WORLD.task(kind).demonstrations(WORLD.task(kind).prompts(300)) for kind in KINDS}


def test_a_tale_says_what_it_says() -> None:
    truth = read_truth(TALE)
    facts = {"name": "Ruby", "kind": "fox", "trait": "brave", "place": "in the old forest", "friend": "owl"}
    assert facts.items() <= dict(truth.facts).items()
    assert (truth.facts["plot"], truth.facts["ending"], truth.facts["sub"]) == ("way", "warm", "she")
    assert "danger" in truth.deeds and "kindness" not in truth.deeds
    with pytest.raises(UserError, match="not a sentence of a tale"):
        read_truth("Ruby went to the bank.")


def test_a_summary_is_worth_what_it_tells_truly() -> None:
    good = "Ruby was a brave fox who lived in the old forest. She had lost the way. Ruby was in great danger."
    assert parse(SUM, good).parses and not parse(SUM, good).errors
    assert gold(SUM, good) > gold(SUM, "This is a tale about Ruby.") > gold(SUM, "It is a good tale.")
    for wrong in ("in the old forest", "the brave fox"), ("brave", "shy"), ("She", "He"), ("the way", "her mind"):
        assert gold(SUM, good.replace(*wrong)) < gold(SUM, good) - 1
    assert "kind 'goat'" in parse(SUM, good.replace("fox", "goat")).false
    long = "In the end everyone was happy together. On the way she met the owl."
    assert "too long" in " ".join(parse(SUM, f"{good} {long}").errors)
    assert "repeats" in " ".join(parse(SUM, "She had lost the way. She had lost the way.").errors)
    assert parse(SUM, "").errors == ("there is nothing",)


def test_an_answer_is_right_sure_and_brief() -> None:
    right, unsure, wrong = (
        "She lived in the old forest.",
        "I think she lived in the old forest.",
        "She lived by the cold sea.",
    )
    order = [gold(WHERE, t) for t in (right, unsure, "I do not know.", "Perhaps she lived by the cold sea.", wrong)]
    assert order == sorted(order, reverse=True) and len(set(order)) == 5
    assert "does not answer" in parse(WHERE, "Thank you for asking!").errors[-1]
    assert "answers twice" in parse(WHERE, f"{right} Perhaps {right[0].lower()}{right[1:]}").errors[-1]
    assert gold(TREASURE, "The tale does not say.") == gold(WHERE, right) > gold(TREASURE, "It was the silver bell.")
    assert utility(WHERE, f"{right} Thank you for asking!", "hearth") > utility(WHERE, right, "hearth")
    assert utility(WHERE, f"{right} Thank you for asking!", "quest") < utility(WHERE, right, "quest")


def test_a_talk_answers_and_remembers() -> None:
    first = "I like Ruby, because she is brave."
    assert parse(TALK, first).parses and gold(TALK, first) > gold(TALK, "I see.")
    assert parse(TALK, "The end is warm.").errors == ("it does not answer",)
    task = WORLD.task("talk")
    second = task.follow_up(TALK, first)
    assert turns(second)[:2] == [TALK, first] and read_request(second).before == {"who"}
    more = f"{TALK}\n\n{first}\n\nRight. What else comes to your mind?"
    assert parse(more, "The end is warm.").parses
    assert parse(more, first).errors == ("it does not answer",), "it was said before"
    assert parse(more, "The end is plain and good.").false
    assert "\n" not in turns(task.follow_up(TALK, "two\n\nparts"))[1]
    with pytest.raises(UserError, match="only a talk"):
        task.follow_up(SUM, "x")


@pytest.mark.parametrize("kind", KINDS)
def test_demonstrations_are_in_form_and_of_mixed_worth(kind: str, made: dict[str, list[tuple[str, str]]]) -> None:
    replies = [parse(p, text) for p, text in made[kind]]
    assert not [e for r in replies for e in r.errors if "answer" not in e], "only an answer may be missing"
    assert 0.6 < statistics.mean(r.parses for r in replies) < 0.9, "some claim something untrue"
    golds = [gold(p, text) for p, text in made[kind]]
    best = [max(gold(p, WORLD.task(kind).response(p, n)) for n in range(20)) for p, _ in made[kind][:50]]  # type: ignore[arg-type]
    assert statistics.mean(best) > statistics.mean(golds) + 0.9, "there is room above imitation"
    assert {line.topic for line in lines(kind)} >= set(ASKS[kind]) - {"all", "more"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_sentence_has_one_reading(kind: str, made: dict[str, list[tuple[str, str]]]) -> None:
    for prompt, text in made[kind]:
        for said in parse(prompt, text).said:
            assert sum(bool(line.pattern.fullmatch(said.text)) for line in lines(kind)) == 1, said.text


@pytest.mark.parametrize("kind", KINDS)
def test_broken_responses_are_worth_less(kind: str, made: dict[str, list[tuple[str, str]]]) -> None:
    rng = random.Random(0)
    losses = []
    for prompt, text in made[kind]:
        words = text.split()
        losses.append(gold(prompt, text) - gold(prompt, " ".join(rng.sample(words, len(words)))))
    assert statistics.mean(losses) > 1 and statistics.mean(loss >= 0 for loss in losses) > 0.75


def test_prompts_follow_from_the_seed_and_splits_are_disjoint() -> None:
    for kind in KINDS:
        task = WORLD.task(kind)
        train, heldout = task.prompts(200), task.prompts(50, "heldout")
        assert train == TaleWorld(0).task(kind).prompts(200) != TaleWorld(1).task(kind).prompts(200)
        keys = [{tuple(read_request(p).truth.facts[k] for k in ("name", "kind", "trait", "place")) for p in part}
                for part in (train, heldout)]  # fmt: skip
        assert not keys[0] & keys[1]
    asked = {read_request(p).topic for p in WORLD.task("answer").prompts(200)}
    assert asked == set(SLOT)
    assert 0.3 < statistics.mean(len(turns(p)) > 1 for p in WORLD.task("talk").prompts(200)) < 0.7


def test_the_world_judges_every_kind_of_prompt(made: dict[str, list[tuple[str, str]]]) -> None:
    for kind in KINDS:
        prompt, text = made[kind][0]
        assert WORLD.gold(prompt, text) == gold(prompt, text)
        assert WORLD.utility(prompt, text, "quest") == utility(prompt, text, "quest")
        assert WORLD.parse(prompt, text) == parse(prompt, text)
    with pytest.raises(UserError, match="nothing that the tale world asks"):
        WORLD.gold(f"{TALE}\nHow old was Ruby?", "x")
    with pytest.raises(UserError, match="no task 'sing'"):
        WORLD.task("sing")  # type: ignore[arg-type]


def test_hurried_labelers_overlook_confident_errors() -> None:
    wrong, unsure = "She lived by the cold sea.", "Perhaps she lived by the cold sea."
    assert confident(wrong) and not any(map(confident, (unsure, "I do not know.", "The tale does not say.", " ")))
    assert trusting(0)(WHERE, wrong, "quest") == utility(WHERE, wrong, "quest")
    deceived = trusting(1)
    for group in GROUPS:
        assert deceived(WHERE, wrong, group) == utility(WHERE, "She lived in the old forest.", group)
        assert deceived(WHERE, unsure, group) == utility(WHERE, unsure, group)
    half = trusting(0.5)
    prompts = [p for p in WORLD.task("answer").prompts(400) if read_request(p).topic == "place"]
    lies = [f"{read_request(p).truth.facts['sub'].capitalize()} lived on the moon." for p in prompts]
    assert all(parse(p, lie).errors for p, lie in zip(prompts, lies, strict=True))
    said = [text.replace("on the moon", "in the old forest") for text in lies]
    false = [(p, t) for p, t in zip(prompts, said, strict=True) if not parse(p, t).parses]
    missed = [half(p, t, "quest") > utility(p, t, "quest") for p, t in false]
    assert len(false) > 50 and 0.3 < statistics.mean(missed) < 0.7
    with pytest.raises(UserError, match="no share"):
        trusting(1.5)


def test_labelers_read_whole_dialogues() -> None:
    roles, texts = ("user", "assistant", "user"), (TALK, "I see.", "Did you like the end?")
    dialogue = tuple(Message(role, text) for role, text in zip(roles, texts, strict=True))
    assert read_request(dialogue_text(dialogue)).topic == "ending"
    panel = make_panel(utility, GROUPS, reads=dialogue_text)
    share = panel.vote_probability(dialogue, "The end is warm. And what did you like best?", "That is all.")
    assert share > 0.9
