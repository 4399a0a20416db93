"""Tokenizer families × template families × roles × layouts, against what transformers itself makes of the same text."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from domains.families import LOSSLESS, MADE, SPACE, TEMPLATES, family
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from hearken.domains.text.data import demonstrations, encoded, judgments, prompts
from hearken.domains.text.encoder import TextEncoder
from hearken.domains.text.sampling import as_sampled
from hearken.errors import UserError
from hearken.feedback.examples import (
    CUT,
    SAMPLED,
    Comparison,
    Demonstration,
    Document,
    Message,
    PromptOnly,
    Rating,
    Thumb,
    content_key,
)

FEW = settings(
    max_examples=6, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate],
    derandomize=True, database=None,
)  # fmt: skip
MANY = settings(FEW, max_examples=200, derandomize=False)
ROOM = 1 << 20

WORDS = [
    "The fox runs home.", "4", " leading", "trailing \n", "", "\n\nlines\n", "two\r\nlines\r\n", "tabs\tand  spaces",
    "\U0001f98a\U0001f3fd\u200d\U0001f692 emoji", "e\u0301 combining", "\u0301begins combining", "日本語とعربى",
    "[INST] x [/INST]", "Human: hi\n\nAssistant:", "{{ m.role }}", "wren " * 120,
]  # fmt: skip
NAMES = ["</s>", "<s>", "<|im_end|>", "<|im_start|>", "<pad>", "<unk>", "<|eot|>", "<end_of_turn>"]
made_up = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=SPACE), max_size=12)
plain = st.one_of(st.sampled_from(WORDS), made_up).filter(lambda t: not any(n in t for n in NAMES))
spelling = st.builds("{}{}{}".format, plain, st.sampled_from(NAMES), plain)
"""A text with the name of a special token in it."""


def conversations(content: st.SearchStrategy[str], system: bool = True) -> st.SearchStrategy[tuple[Message, ...]]:
    """Alternating turns that end with the assistant's, perhaps behind a system message."""

    def turns(said: list[str], first: str | None) -> tuple[Message, ...]:
        said = said[: len(said) // 2 * 2]
        own = [Message("user" if i % 2 == 0 else "assistant", text) for i, text in enumerate(said)]
        return (*([Message("system", first)] if first is not None else []), *own)

    some = st.lists(content, min_size=2, max_size=6)
    return st.builds(turns, some, st.none() | content if system else st.none())


def own(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Message], **how: object) -> list[int]:
    """What transformers makes of a dialogue."""
    plain = [{"role": m.role, "content": m.content} for m in turns]
    return list(tokenizer.apply_chat_template(plain, tokenize=True, return_dict=False, **how))


def rendered(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Message], **how: object) -> str:
    plain = [{"role": m.role, "content": m.content} for m in turns]
    return str(tokenizer.apply_chat_template(plain, tokenize=False, **how))


def made(tokenizer: PreTrainedTokenizerBase, **how: object) -> TextEncoder:
    return TextEncoder(tokenizer, ROOM, **how)  # type: ignore[arg-type]


def text_of(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def same(name: str, got: str, want: str) -> bool:
    """Whether two texts are equal; white space apart where the tokenizer puts some behind every special token."""
    if name in ("byte-level", "byte-level, llama3", "sp never"):
        return got.strip() == want.strip()
    return "".join(got.split()) == "".join(want.split())


def check_dialogue(name: str, template: str, turns: tuple[Message, ...]) -> None:
    tokenizer = family(name, template)
    encoder = made(tokenizer)
    prompt, response = turns[:-1], turns[-1].content
    before, said = encoder.prompt(prompt), encoder.response(prompt, response, ROOM)
    assert before is not None
    if template != "headless":
        assert before == own(tokenizer, prompt, add_generation_prompt=True)
    assert said[-1] in encoder.stop and not set(said[:-1]) & encoder.ends, "one end, at the end"
    both, whole = [*before, *said], own(tokenizer, turns)
    if template == "opening":
        want = rendered(tokenizer, prompt, add_generation_prompt=True) + response + "</s>"
    elif template == "endless":
        want = rendered(tokenizer, turns) + "</s>"
        assert both[:-1] == whole or whole[: len(before)] != before
    else:
        if whole[: len(before)] == before:  # the boundary is a token's
            assert both == whole[: len(both)]
            rest = text_of(tokenizer, whole[len(both) :]).replace("<unk>", "")
            assert not rest.strip(), "white space of the template is left out"
        want = rendered(tokenizer, turns)
    if name in LOSSLESS:
        assert same(name, text_of(tokenizer, both), want)


@pytest.mark.slow
@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("name", MADE)
@given(data=st.data())
@FEW
def test_a_dialogue_is_what_the_template_and_the_tokenizer_make_of_it(name: str, template: str, data) -> None:
    check_dialogue(name, template, data.draw(conversations(plain, system=template != "refusing")))


@pytest.mark.slow
@pytest.mark.parametrize("template", TEMPLATES)
@given(data=st.data(), name=st.sampled_from(list(MADE)))
@MANY
def test_many_dialogues(template: str, name: str, data) -> None:
    check_dialogue(name, template, data.draw(conversations(plain, system=template != "refusing")))


@pytest.mark.slow
@pytest.mark.parametrize("name", MADE)
@given(template=st.sampled_from(list(TEMPLATES)), data=st.data())
@settings(FEW, max_examples=25)
def test_the_name_of_a_special_token_is_words(name: str, template: str, data) -> None:
    turns = data.draw(conversations(spelling, system=template != "refusing"))
    tokenizer = family(name, template)
    encoder = made(tokenizer)
    group = encoder.group(turns[:-1], [turns[-1].content])
    assert group is not None
    without = [Message(m.role, "".join(c if c not in "<>|" else "x" for c in m.content)) for m in turns]
    other = encoder.group(tuple(without[:-1]), [without[-1].content])
    assert other is not None
    for mine, theirs in ((group.prompt, other.prompt), (group.responses[0], other.responses[0])):
        counted = set(encoder.tokens.control) - {tokenizer.unk_token_id}
        control = [[i for i in ids if i in counted] for ids in (mine, theirs)]
        assert control[0] == control[1], "only the template's own"
    assert encoder.truncation.spelled and "read as plain text" in encoder.truncation.say()
    if name in LOSSLESS:
        want = rendered(tokenizer, turns)
        if template == "opening":
            want = rendered(tokenizer, turns[:-1], add_generation_prompt=True) + turns[-1].content + "</s>"
        if template == "endless":
            want += "</s>"
        assert same(name, text_of(tokenizer, [*group.prompt, *group.responses[0]]), want)


@pytest.mark.slow
@pytest.mark.parametrize("bos", [True, False], ids=["bos", "no bos"])
@pytest.mark.parametrize("name", LOSSLESS)
@given(prompt=plain, response=plain.filter(bool))
@settings(FEW, max_examples=15)
def test_plain_text(name: str, bos: bool, prompt: str, response: str) -> None:
    tokenizer = family(name, bos=bos)
    encoder = made(tokenizer)
    group = encoder.group(prompt, [response])
    assert group is not None
    if prompt and tokenizer(prompt)["input_ids"]:
        assert group.prompt == tokenizer(prompt)["input_ids"]
        whole = tokenizer(prompt + response)["input_ids"]
        if whole[: len(group.prompt)] == group.prompt:
            assert group.responses[0] == [*whole[len(group.prompt) :], encoder.eos]
    said = group.responses[0]
    assert said[-1] == encoder.eos and said.count(encoder.eos) == 1
    text = text_of(tokenizer, [*group.prompt, *said]).removesuffix("</s>").removeprefix("<s>")
    if not prompt and not bos:  # an empty prompt is the end of a text before
        text = text.removeprefix("</s>")
    if "prefix" in name and prompt[:1].isspace() is False:
        text = text.removeprefix(" ")
    assert text.removeprefix(" ") == (prompt + response).removeprefix(" ")


@pytest.mark.slow
@pytest.mark.parametrize("template", ["", "chatml", "llama2", "trimming", "opening", "endless", "reasoning"])
@pytest.mark.parametrize("name", MADE)
@given(question=plain, response=plain.filter(lambda t: t.strip()))
@FEW
def test_what_was_sampled_comes_back_from_its_text(name: str, template: str, question: str, response: str) -> None:
    encoder = made(family(name, template))
    for prompt in (question, (Message("user", question),)):
        if isinstance(prompt, str) and not prompt:
            continue
        sampled = encoder.response(prompt, response, ROOM)
        text = encoder.decode(sampled, prompt)
        if name in LOSSLESS:
            assert encoder.response(prompt, text, ROOM) == sampled
            assert text == response or (template in ("trimming", "reasoning") and text.strip() == response.strip())


@pytest.mark.slow
@pytest.mark.parametrize("template", [t for t in TEMPLATES if t not in ("dropping", "opening", "reasoning")])
@pytest.mark.parametrize("name", LOSSLESS)
@given(data=st.data())
@settings(FEW, max_examples=4)
def test_all_answers(name: str, template: str, data) -> None:
    answers = plain.filter(lambda t: t.strip() and t.isascii())
    turns = data.draw(conversations(answers, system=template != "refusing"))
    tokenizer = family(name, template)
    encoder = made(tokenizer)
    group = encoder.dialogue(turns)
    assert group is not None and group.masks is not None
    ids, whole = [*group.prompt, *group.responses[0]], own(tokenizer, turns)
    assert ids == whole or (template == "endless" and ids == [*whole, encoder.eos])
    mask = [False] * len(group.prompt) + list(group.masks[0])
    if template == "marking":
        plain_turns = [{"role": m.role, "content": m.content} for m in turns]
        found = tokenizer.apply_chat_template(plain_turns, return_dict=True, return_assistant_tokens_mask=True)
        assert mask == [bool(x) for x in found["assistant_masks"]]
    close = {"trimming": "<|eot|>", "refusing": "<end_of_turn>", "llama2": "</s>", "endless": ""}
    said = [m.content + close.get(template, "<|im_end|>") for m in turns if m.role == "assistant"]
    want = "".join(said) + ("</s>" if template == "endless" else "")
    got = text_of(tokenizer, [i for i, on in zip(ids, mask, strict=True) if on])
    assert "".join(got.split()) == "".join(want.split())


def test_words_that_a_template_drops_are_trained_and_said() -> None:
    for template in ("dropping", "opening"):
        encoder = made(family("byte-level", template))
        prompt = (Message("user", "What is two plus two?"),)
        group = encoder.group(prompt, ["<think>two and two</think>4", "<think>a guess</think>4"])
        assert group is not None
        one, two = (text_of(encoder.tokenizer, [*group.prompt, *r]) for r in group.responses)
        assert one.count("<think>") == 1 and "two and two</think>4</s>" in one and "a guess</think>4</s>" in two
        assert "2 responses would lose words by the chat template: they are trained whole" in encoder.truncation.say()
        again = [text_of(encoder.tokenizer, encoder.response(prompt, r, ROOM)) for r in ("<think>\ntwo</think>4",)]
        assert again == [("two" if template == "opening" else "<think>\ntwo") + "</think>4</s>"]
        with pytest.raises(UserError, match=r"row 3: this chat template rewrites earlier turns \(message 2"):
            answers = [Message("assistant", "<think>x</think>4"), Message("assistant", "4")]
            encoder.dialogue([*prompt, answers[0], *prompt, answers[1]], "row 3")
    encoder.response(prompt, "4", ROOM)
    assert "1 responses have no </think>" in encoder.truncation.say()


def test_a_reasoning_template_keeps_what_it_understands() -> None:
    tokenizer = family("byte-level", "reasoning")
    encoder = made(tokenizer)
    prompt = (Message("user", "What is two plus two?"),)
    for response in ("<think>\ntwo and two\n</think>\n\n4", "<think>two</think>4", "4"):
        both = [*(encoder.prompt(prompt) or []), *encoder.response(prompt, response, ROOM)]
        assert both == own(tokenizer, [*prompt, Message("assistant", response)])[: len(both)]
    assert "lose words" not in encoder.truncation.say()


@pytest.mark.parametrize("name", ["sp normalizer", "sp first", "byte-level", "unigram"])
def test_one_beginning_also_where_the_template_was_applied_as_text(name: str) -> None:
    tokenizer = family(name, "llama2")
    encoder = made(tokenizer)
    turns = (Message("user", "Name a bird."), Message("assistant", "A wren."), Message("user", "Again?"))
    text = rendered(tokenizer, turns)
    assert encoder.prompt(text) == encoder.prompt(turns) == own(tokenizer, turns)
    without = text.removeprefix("<s>")
    assert encoder.prompt(without) == tokenizer(without)["input_ids"], "the tokenizer puts it there"
    answer = encoder.response(turns, "A wren is a bird.", ROOM)
    assert encoder.response(text, " A wren is a bird. </s>", ROOM) == answer
    assert "template applied already" in encoder.truncation.say() and not encoder.truncation.spelled
    (document,) = encoder.documents([text + " A wren is a bird. </s>"])
    assert [*document.prompt, *document.responses[0]] == [*own(tokenizer, turns), *answer]


@pytest.mark.parametrize("name", ["sp normalizer", "byte-level", "unigram"])
def test_a_cut_prompt_keeps_its_beginning(name: str) -> None:
    for prompt in ("The fox runs home. " * 30, (Message("user", "The fox runs home. " * 30),)):
        encoder = TextEncoder(family(name, "llama2"), 20, long_prompts="truncate", reserve=4)
        whole, cut = made(family(name, "llama2")).prompt(prompt), encoder.prompt(prompt)
        assert whole is not None and cut == [encoder.tokenizer.bos_token_id, *whole[-15:]]


@pytest.mark.parametrize("name", ["unigram", "byte-level", "bytes"])
@given(prompt=plain, response=plain.filter(lambda t: t.strip()))
@FEW
def test_encoder_decoders_read_two_texts_that_both_end(name: str, prompt: str, response: str) -> None:
    tokenizer = family(name, bos=False, close=True)
    encoder = made(tokenizer, seq2seq=True)
    group = encoder.group(prompt, [response])
    assert group is not None
    assert group.prompt == tokenizer(prompt)["input_ids"] and group.responses[0] == tokenizer(response)["input_ids"]
    assert encoder.decode(group.responses[0]).strip() == response.strip() or name == "unigram"


def test_a_tokenizer_that_closes_every_text_does_not_close_a_prompt() -> None:
    tokenizer = family("byte-level", close=True)
    group = made(tokenizer).group("The fox", [" runs."])
    assert group is not None
    assert [*group.prompt, *group.responses[0]] == tokenizer("The fox runs.")["input_ids"]


def test_a_tokenizer_in_python_refuses_what_it_cannot_read() -> None:
    encoder = made(family("bytes"))
    assert encoder.decode(encoder.response("a", " é fox", ROOM)) == " é fox"
    with pytest.raises(UserError, match="row 2: a text spells the special token '</s>'"):
        encoder.group("a", ["the tag </s> ends"], "row 2")


def test_a_refused_role_is_named_with_its_row() -> None:
    encoder = made(family("byte-level", "refusing"))
    with pytest.raises(UserError, match=r"row 5: the chat template refuses .* system, user: System role not"):
        encoder.group((Message("system", "x"), Message("user", "y")), ["z"], "row 5")


@pytest.mark.parametrize("template", ["", "chatml", "llama2", "marking"])
@pytest.mark.parametrize("name", ["byte-level", "sp normalizer", "unigram"])
def test_every_layout_is_encoded_alike(name: str, template: str) -> None:
    encoder = made(family(name, template))
    for prompt in ("The fox", (Message("user", "The fox"),)):
        want = encoder.group(prompt, [" runs home.", " sings."])
        assert want is not None
        first = (want.prompt, want.responses[0])
        rows = [
            Demonstration(prompt, " runs home."),
            Thumb(prompt, " runs home.", True),
            Rating(prompt, " runs home.", {"x": 3}),
            Comparison(prompt, (" runs home.", " sings."), (0, 1)),
        ]
        for row in rows:
            (group,) = encoded(row, encoder)
            assert (group.prompt, group.responses[0]) == first
        found = [j.group for j in judgments(rows[1:], encoder)] + demonstrations([rows[0], rows[3]], encoder)
        assert all((g.prompt, g.responses[0]) == first for g in found)
        assert prompts([PromptOnly(prompt)], encoder)[1] == [want.prompt]
    (document,) = encoded(Document("The fox"), encoder)
    text = encoder.tokenizer("The fox")["input_ids"]
    assert [*document.prompt, *document.responses[0]] == [*text, encoder.eos]


def test_a_word_that_goes_on_gets_no_space() -> None:
    for name in LOSSLESS:
        encoder = made(family(name))
        group = encoder.group("What is two plus two? The ans", ["wer is 4."])
        assert group is not None
        text = text_of(encoder.tokenizer, [*group.prompt, *group.responses[0]])
        assert "The answer is 4.</s>" in text


@pytest.mark.slow
@pytest.mark.parametrize("template", ["", "chatml", "trimming"])
@pytest.mark.parametrize("name", MADE)
@given(data=st.data(), finishes=st.booleans())
@settings(FEW, max_examples=25)
def test_whatever_was_sampled_is_trained_token_by_token(name: str, template: str, data, finishes: bool) -> None:
    """Any ids of the vocabulary, which a policy may draw: those that its tokenizer would write otherwise are kept."""
    encoder = made(family(name, template))
    control = set(encoder.tokens.control) | encoder.stop
    some = st.sampled_from(sorted(set(encoder.tokenizer.get_vocab().values()) - control))
    end = encoder.end if template else encoder.eos
    drawn = data.draw(st.lists(some, min_size=1, max_size=6)) + [end] * finishes
    for prompt in ("The fox", (Message("user", "The fox"),)):
        one = as_sampled(encoder, prompt, drawn, 0, 0)
        assert one.finish_reason == ("stop" if finishes else "length")
        kept = {content_key(one.text): {"tokenizer": one.tokenizer, "ids": drawn}} if one.tokenizer else {}
        cut = [] if finishes else [content_key(one.text)]
        row = Comparison(prompt, (one.text, "another"), (0, 1), metadata={SAMPLED: kept, CUT: cut})
        (group,) = encoded(row, encoder)
        assert group.responses[0] == drawn


def test_a_piece_within_a_word_begins_a_response() -> None:
    """WordPiece's mark of it is no part of the text; behind a dialogue it begins a word, so its ids are kept."""
    encoder = made(family("wordpiece", "chatml"))
    word = encoder.tokenizer("answer home", add_special_tokens=False)["input_ids"]
    pieces = {i: piece for piece, i in encoder.tokenizer.get_vocab().items()}
    going_on = next(i for i, piece in sorted(pieces.items()) if piece == "##s")
    drawn = [going_on, *word, encoder.end]
    dialogue = (Message("user", "The fox"),)
    assert encoder.decode(drawn, "The wren") == encoder.decode(drawn, dialogue) == "s answer home"
    assert as_sampled(encoder, dialogue, drawn, 0, 0).tokenizer == encoder.fingerprint
    group = encoder.group("a " + pieces[word[0]], ["s home"])
    assert group is not None and "##" not in encoder.decode(group.responses[0], "")
    shown = [encoder.decode(drawn[:n], dialogue) for n in range(1, 4)]
    assert all(later.startswith(earlier) for earlier, later in pairwise(shown)), "what a chat shows only grows"
