import random

from hypothesis import given, settings
from hypothesis import strategies as st

from hearken.worlds.templates import Template, read_sections

DOMAINS = {"who": "Ann|Bob", "what": "apple|pear"}


@settings(max_examples=50)
@given(st.integers(0, 10**6))
def test_what_a_template_makes_it_recognises(seed):
    rng = random.Random(seed)
    template = Template("{who} (ate|saw {what} and kept) (|only )one (big {what}|pea).")
    values = {"who": rng.choice(["Ann", "Bob"]), "what": rng.choice(["apple", "pear"])}
    text = template.fill(values, rng)
    match = template.pattern(DOMAINS).fullmatch(text)
    assert match
    assert match["who__0"] == values["who"]
    assert {v for k, v in match.groupdict().items() if k.startswith("what") and v} <= {values["what"]}


def test_a_template_recognises_nothing_else():
    pattern = Template("{who} ate (a|the) {what}.").pattern(DOMAINS)
    assert pattern.fullmatch("Ann ate the pear.")
    for other in ("Ann ate pear.", "Ann ate a pearx", "Eve ate a pear.", "Ann ate a pear!", "Ann ate a|the pear."):
        assert not pattern.fullmatch(other)


def test_slots():
    assert Template("{who} (a|{what}) {who}").slots == {"who", "what"}


def test_sections_are_read_in_order():
    rows = read_sections("hearken.worlds.tales", "grammar.txt")
    assert rows[0][0] == ("opening",)
    assert {words[0] for words, _ in rows} == {"opening", "trouble", "start", "body", "ending"}
    assert all(template.source.rstrip('"')[-1] in ".!?" for _, template in rows)
