"""The quickstart's tale world: what the person is asked, reads meanwhile, and what can be told apart in tales."""

from __future__ import annotations

import random
from collections.abc import Sequence

from hearken.feedback.pairs import words
from hearken.feedback.records import Prompt
from hearken.loop import human, taste
from hearken.worlds.tales import gold
from hearken.worlds.tales.flaws import change_name, repeat_sentence, shuffle_words
from hearken.worlds.tales.grammar import ENDINGS, FEATURES
from hearken.worlds.tales.world import TaleWorld

GUIDELINE = """Choose the tale that **you** would rather read. There is no right answer: your taste is to be learned.

Some tales will be broken: words that make no sense, a name that changes, a story that goes nowhere. You decide how much
that matters."""

STEPS = {
    "Tale world": "Tales are being written for the model to learn from.",
    "Language model": "A small language model is learning to read.",
    "Supervised fine-tuning": "The model is learning to tell tales.",
    "Sampling": "The model is telling its first tales.",
    "Your judgments": "",
    "Judgments": "Simulated labelers judge what you left.",
    "Reward model": "A reward model is learning your taste.",
    "PPO-ptx": "The model is learning to tell tales that you like.",
    "PPO without ptx": "It learns a second time, without its old texts, for comparison.",
    "Evaluation": "Old and new tales are compared.",
    "Card of the reward model": "What was learnt of your taste is looked at closely.",
}
"""What the person reads while a step runs."""

NAMES = {
    "whole": "makes sense", "kindness": "kindness", "speech": "talking", "danger": "danger", "discovery": "discovery",
    "vivid": "vivid pictures", "dull": "nothing happens", "plain": "plain ending", "warm": "warm ending",
    "surprise": "surprising ending", "longer": "length",
}  # fmt: skip
"""The traits of a tale, in words."""


def setting(world: TaleWorld, prompts: Sequence[str]) -> human.Setting:
    """The tale world: pairs of its own tales for ``prompts`` can be judged at once."""
    return human.Setting(
        "Which tale do you like best?", GUIDELINE, practice(world), STEPS,
        [(Prompt(content=p, domain="tales"), (world.tale(p, 1), world.tale(p, 2))) for p in prompts],
    )  # fmt: skip


def practice(world: TaleWorld) -> list[human.Practice]:
    """Three items that show a newcomer how judging works: a whole tale and one with a flaw that nobody misses."""
    rng = random.Random(f"practice:{world.seed}")
    items: list[human.Practice] = []
    for flaw, best, why in (
        (shuffle_words, 0, "The second one is a heap of words. A tale should make sense."),
        (
            change_name,
            1,
            "In the first one a name changes halfway. Small slips count where you notice them.",
        ),
        (repeat_sentence, 0, "The second one says the same sentence twice. From now on only your own taste counts."),
    ):
        prompt = world.prompts(len(items) + 1, "heldout")[-1]
        whole = world.tale(prompt, 100)
        broken = flaw(whole, rng)
        responses = [whole, broken] if best == 0 else [broken, whole]
        items.append({"prompt": prompt, "responses": responses, "best": best, "explanation": why})
    return items


def view(world: TaleWorld) -> taste.View:
    """What can be told apart in tales."""
    return taste.View(NAMES, traits, world.gold, ("r00-sft", "r01-ppo"))


def traits(prompt: str, text: str) -> dict[str, float]:
    """How much a tale has of each of `NAMES`."""
    parse = gold.parse(prompt, text)
    found = {"whole": parse.share, "longer": float(words(text))}
    found |= {feature: float(parse.features[feature]) for feature in FEATURES}
    return found | {ending: float(parse.ending == ending) for ending in ENDINGS}
