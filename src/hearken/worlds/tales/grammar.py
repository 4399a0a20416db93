"""The grammar of tales: writing one, and parsing the whole of one."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache

from hearken.worlds.tales.facts import CURES, DOMAINS, HELPER_LOOKS, HELPERS, KIN, PLOTS, PRONOUNS, THINGS, Facts
from hearken.worlds.templates import Template, read_sections

MIN_SENTENCES, MAX_SENTENCES = 4, 7
FEATURES = ("kindness", "speech", "danger", "discovery", "vivid", "dull")
"""What sentences between the trouble and the ending can have; dull ones have nothing else."""
ENDINGS = ("plain", "warm", "surprise")

# How often demonstrations use what: mostly plain, so that every taste leaves room above them.
_BODY_LENGTHS = {1: 25, 2: 40, 3: 35}
_BODY_WEIGHTS = {"": 30, "kindness": 13, "speech": 13, "danger": 12, "discovery": 12, "vivid": 12}
_ENDING_WEIGHTS = {"plain": 50, "warm": 25, "surprise": 25}


@dataclass(frozen=True, eq=False)
class Rule:
    """A template and its place in a tale."""

    role: str
    """opening, trouble, start, body or ending"""
    plot: str
    """The plot a trouble or an ending belongs to; else empty."""
    features: tuple[str, ...]
    """Of a body sentence: one of `FEATURES`, or nothing; of an ending: warm or surprise, or nothing."""
    template: Template

    @property
    def pattern(self) -> re.Pattern[str]:
        """What recognises its sentences."""
        return _pattern(self)


@cache
def _pattern(rule: Rule) -> re.Pattern[str]:
    return rule.template.pattern(DOMAINS)


@cache
def rules() -> tuple[Rule, ...]:
    """All rules of the grammar."""
    made = []
    for (role, *words), template in read_sections(__package__, "grammar.txt"):
        plot = words.pop(0) if role in ("trouble", "ending") else ""
        made.append(Rule(role, plot, tuple(words), template))
    return tuple(made)


@cache
def _rules_of(role: str, plot: str = "") -> tuple[Rule, ...]:
    return tuple(rule for rule in rules() if (rule.role, rule.plot) == (role, plot))


def write_tale(facts: Facts, rng: random.Random) -> str:
    """A tale that fits the facts: grammatical, whole, of mixed worth."""
    plot = facts.plot or rng.choice(PLOTS)
    values = facts.slots() | {
        "thing": facts.thing or rng.choice(THINGS), "cure": rng.choice(CURES), "kin": rng.choice(KIN),
    }  # fmt: skip
    helper = rng.choice(HELPERS)
    values |= {"friend": helper, "new": f"{rng.choice(HELPER_LOOKS)} {helper}"}
    used = [rng.choice(_rules_of("opening")), rng.choice(_rules_of("trouble", plot))]
    length = _draw(_BODY_LENGTHS, rng)
    if plot != "way" and rng.random() < 0.35:
        used.append(rng.choice(_rules_of("start")))
        length -= 1
    for _ in range(length):
        used.append(_draw({rule: _weight(rule) for rule in _rules_of("body") if _fits(rule, used)}, rng))
    closings = {}
    for rule in _rules_of("ending", plot):
        if _fits(rule, used):
            # A friend who came into the tale usually comes into its ending.
            closings[rule] = _ENDING_WEIGHTS[ending_of(rule)] * (4 if "friend" in rule.template.slots else 1)
    used.append(_draw(closings, rng))
    return " ".join(rule.template.fill(values, rng) for rule in used)


def ending_of(rule: Rule) -> str:
    """Which of `ENDINGS` an ending is."""
    return rule.features[0] if rule.features else "plain"


def _draw(weights: dict, rng: random.Random):  # type: ignore[type-arg, no-untyped-def]
    return rng.choices(list(weights), list(weights.values()))[0]


@cache
def _weight(rule: Rule) -> float:
    same = sum(other.features == rule.features for other in _rules_of("body"))
    return _BODY_WEIGHTS[rule.features[0] if rule.features else ""] / same


def _fits(rule: Rule, before: list[Rule]) -> bool:
    """Whether a rule may follow: a sentence comes once, and a friend is met once, before being spoken of."""
    met = any("new" in other.template.slots for other in before)
    if "new" in rule.template.slots:
        return not met and rule not in before
    return (met or "friend" not in rule.template.slots) and rule not in before


# -- parsing -----------------------------------------------------------------------------------------------------

_BOUNDARY = re.compile(r"""(?:(?<=[.!?])|(?<=[.!?]"))\s+(?=[A-Z"])""")


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence of a response, with the rule that makes it (None: the grammar cannot make it) and its slots."""

    text: str
    rule: Rule | None
    slots: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Parse:
    """What the gold parser makes of a response."""

    sentences: tuple[Sentence, ...]
    errors: tuple[str, ...]
    """Everything wrong with it, in words; empty for a whole tale that answers the prompt."""
    features: Counter[str]
    """How often each of `FEATURES` is found, in sentences that are right and in their place."""
    ending: str | None
    """One of `ENDINGS`; None where there is no right ending."""
    share: float
    """The share of sentences that are right and in their place, 0..1; a tale of fewer than four counts as four."""

    @property
    def parses(self) -> bool:
        """Whether the whole of it is a tale, grammatical and true to its prompt."""
        return not self.errors


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, as they stand."""
    return [part for part in _BOUNDARY.split(text.strip()) if part]


@lru_cache(maxsize=1 << 14)
def read_sentence(text: str) -> Sentence:
    """Find the rule that makes this sentence."""
    for rule in rules():
        if match := rule.pattern.fullmatch(text):
            found = ((group.split("__")[0], value) for group, value in match.groupdict().items() if value)
            return Sentence(text, rule, tuple(found))
    return Sentence(text, None)


def parse_tale(text: str, facts: Facts) -> Parse:
    """Parse the whole of a response as a tale about ``facts``.

    It must be one opening, one trouble, perhaps one start, body sentences and one ending that belongs to the trouble:
    four to seven sentences, each made by the grammar, none word for word twice (another wording of an earlier sentence
    is merely dull), with one character, place, object and friend
    throughout, the right pronouns, and nothing after the ending.
    """
    sentences = tuple(map(read_sentence, split_sentences(text)))
    reader = _Reader(facts)
    for sentence in sentences:
        reader.read(sentence)
    reader.close()
    share = reader.right / max(MIN_SENTENCES, len(sentences))
    return Parse(sentences, tuple(reader.errors), reader.features, reader.ending, share)


class _Reader:
    """Reads sentence by sentence, keeping what the tale has said so far."""

    def __init__(self, facts: Facts) -> None:
        self.errors: list[str] = []
        self.features: Counter[str] = Counter()
        self.ending: str | None = None
        self.right = 0
        self.rules: list[Rule] = []
        self.texts: set[str] = set()
        self.place = 0
        self.before: str | None = ""
        """Role of the sentence before: empty at the start, None where the grammar could not make it."""
        sub, obj, pos = PRONOUNS[facts.gender]
        self.known = {
            "name": facts.name, "kind": facts.kind, "trait": facts.trait, "place": facts.place,
            "sub": sub, "obj": obj, "pos": pos,
        }  # fmt: skip
        self.known |= {slot: value for slot, value in (("thing", facts.thing), ("plot", facts.plot)) if value}

    def read(self, sentence: Sentence) -> None:
        self.place += 1
        faults = self._faults(sentence)
        rule = sentence.rule
        again = rule in self.rules
        self.texts.add(sentence.text)
        if rule:
            self._remember(sentence)
            self.rules.append(rule)
        if self.before != "ending":
            self.before = rule.role if rule else None
        self.errors += [f"sentence {self.place}: {fault}" for fault in faults]
        if rule and not faults:
            self.right += 1
            if rule.role in ("start", "body"):
                self.features.update(("dull",) if again else rule.features or ("dull",))
            elif rule.role == "ending":
                self.ending = ending_of(rule)

    def close(self) -> None:
        roles = [rule.role for rule in self.rules]
        missing = [f"there is no {role}" for role in ("opening", "trouble", "ending") if role not in roles]
        if not any(role in ("start", "body") for role in roles):
            missing.append("nothing happens between the trouble and the ending")
        # A sentence that the grammar cannot make may have been meant as one of these: one slip is one error.
        self.errors += missing[self.place - len(self.rules) :]

    def _faults(self, sentence: Sentence) -> list[str]:
        rule = sentence.rule
        if rule is None:
            return ["the grammar cannot make it"]
        if sentence.text in self.texts:
            return ["it repeats an earlier one"]
        faults = []
        before = self.before
        allowed = {
            "opening": ("",), "trouble": ("opening",), "start": ("trouble",), "body": ("trouble", "start", "body"),
            "ending": ("start", "body"),
        }  # fmt: skip
        if before is not None and before not in allowed[rule.role]:
            faults.append(f"{rule.role} out of place")
        elif self.place > MAX_SENTENCES - (rule.role != "ending"):
            faults.append("the tale is too long")
        if rule.role == "start" and self.known.get("plot") == "way":
            faults.append("one who is lost cannot set out")
        if rule.plot and self.known.get("plot", rule.plot) != rule.plot:
            faults.append(f"the {rule.role} does not belong to the tale's trouble or wish")
        met = any("new" in other.template.slots for other in self.rules)
        if "new" in rule.template.slots and met:
            faults.append("the friend is met twice")
        if rule.role == "body" and "friend" in rule.template.slots and not met:
            faults.append("the friend was never met")
        for slot, value in named_slots(sentence.slots):
            if self.known.get(slot, value) != value:
                faults.append(f"{slot} should be '{self.known[slot]}', not '{value}'")
        if rule.role == "ending" and "friend" in rule.template.slots and "friend" not in self.known:
            faults.append("the friend was never met")
        return faults

    def _remember(self, sentence: Sentence) -> None:
        if sentence.rule and sentence.rule.plot:
            self.known.setdefault("plot", sentence.rule.plot)
        for slot, value in named_slots(sentence.slots):
            self.known.setdefault(slot, value)


def named_slots(slots: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Slots and values as the facts have them: "Place" is a place, a new friend is a friend."""
    names = {"Place": "place", "Sub": "sub", "new": "friend"}
    return [
        (names.get(slot, slot), value.split()[-1] if slot == "new" else value.lower() if slot in names else value)
        for slot, value in slots
    ]
