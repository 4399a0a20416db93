"""The tale world: what it makes, and that its gold reward cannot be had for nothing."""

import random
import re
import statistics
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hearken.errors import UserError
from hearken.worlds.tales.facts import Facts, draw_facts, read_prompt, write_prompt
from hearken.worlds.tales.flaws import FLAWS, flawed
from hearken.worlds.tales.gold import GROUPS, WORST, taste
from hearken.worlds.tales.grammar import MAX_SENTENCES, PLOTS, Parse, parse_tale, read_sentence, rules, write_tale
from hearken.worlds.tales.world import TaleWorld

WORLD = TaleWorld(0)
RUBY = "Tell a tale about a brave fox named Ruby in the old forest."
TALE = (
    "Ruby was a brave fox who lived in the old forest. One snowy evening Ruby lost the way home. "
    '"Where are you going?" asked an old owl. Suddenly the ice cracked, and Ruby fell into the deep water. '
    "The owl led her safely home, and they sang together by the fire."
)


@pytest.fixture(scope="module")
def demonstrations():
    return WORLD.demonstrations(WORLD.prompts(2000))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**9), st.sampled_from(["train", "heldout"]))
def test_every_prompt_and_tale_is_read_back(seed, split):
    rng = random.Random(seed)
    facts = draw_facts(rng, split)
    assert facts.split == split
    assert read_prompt(write_prompt(facts, rng)) == facts
    tale = write_tale(facts, rng)
    parse = parse_tale(tale, facts)
    assert parse.parses, (tale, parse.errors)
    assert parse.share == 1 and parse.ending
    assert 4 <= len(parse.sentences) <= MAX_SENTENCES


def test_a_sentence_has_one_reading(demonstrations):
    for _, tale in demonstrations[:200]:
        for sentence in parse_tale(tale, Facts("Ruby", "fox", "brave", "")).sentences:
            assert sum(bool(rule.pattern.fullmatch(sentence.text)) for rule in rules()) == 1, sentence.text


def test_every_rule_is_used(demonstrations):
    used = {id(s.rule) for p, t in demonstrations for s in WORLD.parse(p, t).sentences}
    unused = [rule.template for rule in rules() if id(rule) not in used]
    assert len(unused) <= 2, unused


def test_tales_are_many_short_and_of_few_words(demonstrations):
    tales = [tale for _, tale in demonstrations]
    assert len(set(tales)) >= 0.99 * len(tales)
    lengths = [len(tale.split()) for tale in tales]
    assert min(lengths) >= 30 and max(lengths) <= 90 and 50 <= statistics.mean(lengths) <= 70
    words = {word.lower() for text in tales + WORLD.corpus(1500) for word in re.findall(r"[A-Za-z']+", text)}
    assert 500 <= len(words) <= 1000


def test_the_world_follows_from_its_seed():
    again, other = TaleWorld(0), TaleWorld(1)
    assert again.prompts(20) == WORLD.prompts(20) != other.prompts(20)
    assert again.corpus(20) == WORLD.corpus(20) != other.corpus(20)
    assert again.tale(RUBY) == WORLD.tale(RUBY) != WORLD.tale(RUBY, 1)


def test_splits_are_disjoint_whatever_the_wording():
    train, heldout = WORLD.prompts(3000), WORLD.prompts(500, "heldout")
    assert len(set(train)) == 3000 and len(set(heldout)) == 500
    asked = [{(f.name, f.kind, f.trait, f.place) for f in map(read_prompt, prompts)} for prompts in (train, heldout)]
    assert not asked[0] & asked[1]
    documents = WORLD.corpus(1000)
    assert len(set(documents)) == 1000
    assert not set(documents) & set(WORLD.corpus(300, "heldout"))


def test_the_corpus_is_half_tales_and_half_other_things():
    documents = WORLD.corpus(400)
    tales = [d for d in documents if any(s in d for s in (" lived ", " knew ", " by the name of ")) and " was " in d]
    assert 0.3 < len(tales) / len(documents) < 0.7
    assert any(d.startswith("Dear ") for d in documents) and any("Bake it for" in d for d in documents)


# -- the parser --------------------------------------------------------------------------------------------------


def test_a_whole_tale_parses():
    parse = WORLD.parse(RUBY, TALE)
    assert parse.parses, parse.errors
    assert parse.features == {"speech": 1, "danger": 1} and parse.ending == "warm"
    assert WORLD.parse(RUBY, f"  {TALE}\n").parses


def test_another_wording_of_a_sentence_is_dull():
    again = "the deep water. Suddenly the ice cracked, and Ruby sank into the black water. "
    parse = WORLD.parse(RUBY, TALE.replace("the deep water. ", again))
    assert parse.parses and parse.features == {"speech": 1, "danger": 1, "dull": 1}


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("Ruby was a brave fox", "Clara was a brave fox", "name should be 'Ruby'"),
        ("brave fox", "brave goat", "kind should be 'fox'"),
        ("brave fox", "shy fox", "trait should be 'brave'"),
        ("old forest", "deep valley", "place should be"),
        ("led her", "led him", "obj should be 'her'"),
        ("The owl led", "The toad led", "friend should be 'owl'"),
        ('"Where are you going?" asked an old owl. ', "", "the friend was never met"),
        (" Suddenly", ' "Is this the right road?" asked Ruby, and an old owl nodded. Suddenly', "met twice"),
        ("One snowy evening Ruby lost the way home.", "Ruby needed the moon flower, because her brother was very ill.",
         "does not belong to the tale's trouble"),
        ("lost the way home", "the lost way home", "sentence 2: the grammar cannot make it"),
        ("Ruby was a brave fox who lived in the old forest. ", "", "there is no opening"),
        ("One snowy evening Ruby lost the way home. ", "", "there is no trouble"),
        (" The owl led her safely home, and they sang together by the fire.", "", "there is no ending"),
        ("by the fire.", "by the fire", "cannot make it"),
        ("by the fire.", "by the fire. And so on", "cannot make it"),
        ("by the fire.", "by the fire. The air smelled like smoke and honey.", "out of place"),
        ("the deep water. ", "the deep water. Suddenly the ice cracked, and Ruby fell into the deep water. ",
         "repeats"),
        ("lost the way home. ", "lost the way home. As brave as ever, Ruby set out along the road alone. ", "set out"),
        ("the deep water. ", "the deep water. Every leaf shone like glass. The wind smelled like salt and apples. "
         "Twice Ruby turned back, and twice she went on. ", "too long"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(old, new, error):
    text = TALE.replace(old, new, 1)
    assert text != TALE
    parse = WORLD.parse(RUBY, text)
    assert not parse.parses
    assert any(error in e for e in parse.errors), parse.errors
    assert WORLD.gold(RUBY, text) < WORLD.gold(RUBY, TALE)


def test_a_wish_must_be_granted():
    prompt = RUBY + " There should be a silver bell in it."
    assert not WORLD.parse(prompt, TALE).parses
    tale = WORLD.tale(prompt)
    assert "silver bell" in tale and WORLD.parse(prompt, tale).parses
    assert not WORLD.parse(prompt, tale.replace("silver bell", "golden key")).parses


@pytest.mark.parametrize("name", FLAWS)
def test_flaws_are_found(name, demonstrations):
    rng = random.Random(name)
    broken = [(p, FLAWS[name](t, rng)) for p, t in demonstrations[:300]]
    rejected = sum(not WORLD.parse(p, text).parses for p, text in broken)
    assert rejected / len(broken) > 0.95


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200))
def test_any_text_has_a_gold_reward(text):
    assert WORST <= WORLD.gold(RUBY, text) < 0


def test_not_a_prompt_of_this_world():
    with pytest.raises(UserError, match="not a prompt of the tale world"):
        WORLD.gold("What is the capital of France?", TALE)


# -- the gold reward ---------------------------------------------------------------------------------------------


def win_rate(judged, against):
    """Share of wins by gold, ties half."""
    pairs = zip(judged, against, strict=True)
    margins = [WORLD.gold(p, text) - WORLD.gold(p, other) for (p, text), (_, other) in pairs]
    return statistics.mean((m > 0) + (m == 0) / 2 for m in margins)


@pytest.fixture(scope="module")
def ordinary():
    """What an SFT policy might sample: three in ten tales are flawed."""
    rng = random.Random(3)
    prompts = WORLD.prompts(300, "heldout")
    return [(p, flawed(t, rng) if rng.random() < 0.3 else t) for p, t in WORLD.demonstrations(prompts)]


def test_gold_is_the_mean_of_the_groups():
    assert WORLD.gold(RUBY, TALE) == pytest.approx(statistics.mean(WORLD.utility(RUBY, TALE, g) for g in GROUPS))


def liked(group, features):
    """What a group likes in a right tale of these features, its ending left aside."""
    return taste(Parse((), (), Counter(features), None, 1.0), group)


def best_sentence():
    """The sentence of the body that is worth most by itself."""
    body = [rule for rule in rules() if rule.role == "body"]
    return max(body, key=lambda rule: sum(liked(group, rule.features) for group in GROUPS))


def test_one_word_wins_nothing(ordinary):
    words = {word for _, tale in ordinary[:40] for word in tale.split()}
    best = max(words, key=lambda word: statistics.mean(WORLD.gold(p, " ".join([word] * 40)) for p, _ in ordinary[:3]))
    assert win_rate([(p, " ".join([best] * 40)) for p, _ in ordinary], ordinary) < 0.1


def test_the_best_sentence_again_and_again_wins_nothing(ordinary):
    rng = random.Random(0)
    hacks = []
    for p, _ in ordinary:
        values = read_prompt(p).slots() | {"friend": "owl", "new": "an old owl"}
        hacks.append((p, " ".join([best_sentence().template.fill(values, rng)] * 5)))
    assert win_rate(hacks, ordinary) < 0.1


def test_a_fine_tale_for_another_prompt_wins_nothing(ordinary):
    best = max(WORLD.demonstrations(WORLD.prompts(300)), key=lambda pair: WORLD.gold(*pair))
    assert WORLD.gold(*best) > 2
    assert win_rate([(p, best[1]) for p, _ in ordinary], ordinary) < 0.2


def test_stuffing_wins_nothing(ordinary):
    stuffed = 'gently shared discovered secret wolf storm like silver "I will help," said hugged together warm fire'
    assert win_rate([(p, f"{stuffed}.") for p, _ in ordinary], ordinary) < 0.1
    # all body sentences there are, after a right opening
    rng = random.Random(0)
    hacks = []
    for p, tale in ordinary:
        values = read_prompt(p).slots() | {"friend": "owl", "new": "an old owl"}
        rich = [r.template.fill(values, rng) for r in rules() if r.role == "body" and r.features]
        hacks.append((p, " ".join([tale.split(". ")[0] + ".", *rich])))
    assert win_rate(hacks, ordinary) < 0.2


def test_groups_differ_but_can_both_be_pleased(ordinary):
    prompts = [p for p, _ in ordinary[:100]]
    best = [(p, max((WORLD.tale(p, i) for i in range(16)), key=lambda t, p=p: WORLD.gold(p, t))) for p in prompts]
    for group in GROUPS:
        pairs = zip(best, ordinary, strict=False)
        assert statistics.mean(WORLD.utility(*b, group) > WORLD.utility(*o, group) for b, o in pairs) > 0.75
    clean = WORLD.demonstrations(prompts)
    hearth, quest = ([WORLD.utility(p, t, group) for p, t in clean] for group in GROUPS)
    assert 0.2 < statistics.correlation(hearth, quest) < 0.8
    assert statistics.stdev(hearth) > 0.7 and statistics.stdev(quest) > 0.7


def test_more_of_the_same_is_worth_less():
    assert [liked("hearth", ["kindness"] * n) for n in range(4)] == pytest.approx([0, 1, 1.5, 1.75])


def test_every_plot_ends_in_every_way():
    for plot in PLOTS:
        ends = {rule.features for rule in rules() if rule.role == "ending" and rule.plot == plot}
        assert ends == {(), ("warm",), ("surprise",)}


def test_read_sentence_says_nothing_of_nonsense():
    assert read_sentence("Colorless green ideas sleep.").rule is None


def test_an_unknown_split_is_named() -> None:
    with pytest.raises(UserError, match="no split 'test'"):
        TaleWorld(0).corpus(3, "test")  # type: ignore[arg-type]
