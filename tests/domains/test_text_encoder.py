from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import CHATML, sentence, tokenizer
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from hearken.domains.text.encoder import TextEncoder
from hearken.errors import UserError
from hearken.feedback.examples import Message

PLAIN = tokenizer()
CHAT = tokenizer(pad_token="<pad>", eos_token="<|im_end|>", bos_token="<bos>")
CHAT.chat_template = CHATML
TURNS = (Message("user", "the fox"), Message("assistant", "sleeps"), Message("user", "and the owl"))


def encoder(tok=PLAIN, length: int = 64, **more) -> TextEncoder:
    return TextEncoder(tok, length, **more)


# Any text but one that spells a special token, which the tokenizer reads as that token.
WORDS = st.text(max_size=30).filter(lambda text: not any(t in text for t in ("<eos>", "<bos>", "<pad>")))


@settings(max_examples=40, deadline=None)
@given(WORDS, WORDS.filter(bool))
def test_text_comes_back(prompt: str, response: str) -> None:
    made = encoder(length=1000)
    group = made.group(prompt, [response])
    assert group is not None
    (tokens,) = group.responses
    assert tokens[-1] == made.eos and made.decode(tokens) == response
    assert made.decode(group.prompt) == prompt
    assert made.decode([*group.prompt, *tokens]) == prompt + response


def test_an_empty_prompt_is_the_bos_token() -> None:
    assert encoder().prompt("") == [PLAIN.bos_token_id]
    bare = tokenizer(eos_token="<eos>")
    assert encoder(bare).prompt("") == [bare.eos_token_id]


def test_an_unfinished_response_has_no_end_and_a_written_end_is_not_doubled() -> None:
    made = encoder()
    assert made.eos not in made.response("a", "the fox", 20, finished=False)
    assert made.response("a", "the fox runs<eos>", 40) == made.response("a", "the fox runs", 40)
    assert made.truncation.say() == "1 responses end with the name of the end token, which is read as the end"


def test_a_chat_prompt_is_the_template_and_the_response_ends_by_it() -> None:
    made = encoder(CHAT)
    want = CHAT.apply_chat_template(
        [{"role": m.role, "content": m.content} for m in TURNS], add_generation_prompt=True, return_dict=False
    )
    assert made.prompt(TURNS) == want
    assert CHAT.decode(made.response(TURNS, "sings", 20)) == "sings<|im_end|>"


def test_other_stop_tokens_of_the_model_end_a_response() -> None:
    end = PLAIN.convert_tokens_to_ids("<|im_end|>")
    made = encoder(stop=[end, PLAIN.eos_token_id])
    assert made.response("a", "the fox<|im_end|>", 20)[-1] == end


def test_long_prompts() -> None:
    text = sentence(random.Random(0), 30, 30)
    whole = PLAIN(text)["input_ids"]
    with pytest.raises(UserError, match=rf"row 7 has {len(whole)} tokens; with 4 for the response .* fit in 20"):
        encoder(length=20, reserve=4).prompt(text, "row 7")
    cut = encoder(length=20, reserve=4, long_prompts="truncate")
    assert cut.prompt(text) == whole[-16:] and cut.truncation.prompts == 1
    dropped = encoder(length=20, long_prompts="drop")
    assert dropped.group(text, ["a"]) is None and dropped.truncation.dropped == 1
    assert encoder().truncation.say() == ""


@settings(max_examples=30, deadline=None)
@given(st.integers(3, 40), st.integers(1, 12), st.integers(1, 12))
def test_nothing_is_longer_than_it_may_be(length: int, words: int, more: int) -> None:
    r = random.Random(words)
    made = encoder(length=length, long_prompts="truncate")
    group = made.group(sentence(r, words, words), [sentence(r, more, more), "a"])
    assert group is not None
    assert all(0 < len(x) <= length - len(group.prompt) for x in group.responses) and len(group.prompt) < length


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=15), min_size=1, max_size=5), st.integers(4, 30))
def test_documents_lose_no_token_and_do_not_mix(texts: list[str], length: int) -> None:
    made = encoder(length=length)
    pieces = [[*g.prompt, *g.responses[0]] for g in made.documents(texts)]
    want = []
    for text in texts:
        ids = [PLAIN.bos_token_id, *PLAIN(text)["input_ids"], PLAIN.eos_token_id]
        want += [ids[i : i + length] for i in range(0, len(ids), length)]
    assert pieces == [piece for piece in want if len(piece) > 1], "a last piece of one token trains nothing"


@pytest.mark.parametrize("tok", [PLAIN, CHAT], ids=["no template", "chat"])
def test_a_dialogue_is_the_same_text_as_its_last_turn(tok) -> None:
    made = encoder(tok, 200)
    turns = [*TURNS, Message("assistant", "sings")]
    whole, last = made.dialogue(turns), made.group(TURNS, ["sings"])
    assert whole is not None and last is not None and whole.masks is not None
    text = tok.decode([*whole.prompt, *whole.responses[0]]).strip()
    assert text == tok.decode([*last.prompt, *last.responses[0]]).strip()
    assert sum(whole.masks[0]) > len(last.responses[0])
    with pytest.raises(UserError, match="no assistant turn"):
        made.dialogue([TURNS[0]])


def test_a_template_that_rewrites_history_is_refused_for_all_turns() -> None:
    tok = tokenizer(pad_token="<pad>", eos_token="<|im_end|>", bos_token="<bos>")
    tok.chat_template = "{{ messages | length }} turns: {{ messages[-1].content }}<|im_end|>"
    with pytest.raises(UserError, match=r"rewrites earlier turns.*train_on=last"):
        encoder(tok).dialogue([*TURNS, Message("assistant", "sings")])


TURN = "{{ '<|im_start|>' + m.role + '\n' + %s + '<|im_end|>\n' }}"
ASK = "{%% for m in messages %%}%s{%% endfor %%}{%% if add_generation_prompt %%}<|im_start|>assistant\n{%% endif %%}"
SAID = (Message("system", "the fox"), Message("user", "the owl"))


def by_template(turn: str) -> TextEncoder:
    made = tokenizer(pad_token="<pad>", eos_token="<|im_end|>", bos_token="<bos>")
    made.chat_template = ASK % turn
    return encoder(made)


@pytest.mark.parametrize("fails", [False, True], ids=["shows nothing of a text", "fails with a text"])
def test_a_template_that_reads_parts_gets_parts(fails: bool) -> None:
    """As multimodal models' templates do; oracle: what the template makes of parts."""
    each = "{% for p in m.content %}{{ p['text'] }}{% endfor %}"
    kind = "{{ m.content[0].type + ' ' }}" if fails else ""
    made = by_template("<|im_start|>{{ m.role }}\n" + kind + each + "<|im_end|>\n")
    group = made.group(SAID, ["a lazy dog"])
    assert group is not None
    parts = [{"role": m.role, "content": [{"type": "text", "text": m.content}]} for m in SAID]
    parts.append({"role": "assistant", "content": [{"type": "text", "text": "a lazy dog"}]})
    whole = made.tokenizer.apply_chat_template(parts, tokenize=False).rstrip("\n")
    assert made.tokenizer.decode([*group.prompt, *group.responses[0]]) == whole
    assert not made.truncation.say()


def test_words_of_a_prompt_that_a_template_leaves_out_are_said() -> None:
    made = by_template("{% if m.role != 'system' %}" + TURN % "m.content" + "{% endif %}")
    assert made.group(SAID[1:], ["a"]) and not made.truncation.hidden
    assert made.group(SAID, ["a"])
    assert made.truncation.say() == "1 prompts have words that the chat template does not show"
    assert made.dialogue((*SAID, Message("assistant", "a"))) and made.truncation.hidden == 2


@pytest.mark.parametrize("change", ["m.content | upper", "m.content[:7]"])
def test_a_template_that_changes_letters_of_answers_is_refused(change: str) -> None:
    """Where the answer stands was asked by an answer of our own, which would be trained."""
    with pytest.raises(UserError, match="row 3: the chat template changes the letters of what the assistant says"):
        by_template(TURN % change).group(SAID[1:], ["a lazy dog and the owl"], "row 3")


def test_what_a_tokenizer_has_no_token_for_is_said() -> None:
    """Words of T5's or BERT's kind may be unknown: trained are then other texts than were written."""
    words = Tokenizer(WordLevel({"<unk>": 0, "</s>": 1, "the": 2, "fox": 3}, unk_token="<unk>"))
    words.pre_tokenizer = WhitespaceSplit()
    made = encoder(PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="</s>"))
    assert made.group("the fox", ["the", "fox"]) and made.documents(["the"]) and not made.truncation.say()
    assert made.group("the bear", ["the fox", "an owl"]) and made.documents(["an owl", "the fox"])
    assert made.truncation.say() == (
        "3 texts hold what the tokenizer has no token for, read as its token of the unknown"
    )
    end = tokenizer(pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", unk_token="<eos>")  # as GPT-2's
    made = encoder(end)
    assert made.group("the bear", ["an owl"]) and not made.truncation.say()


def test_a_response_of_white_space_is_what_a_trimming_template_makes_of_it() -> None:
    made = by_template(TURN % "(m.content | trim)")
    group = made.group(SAID[1:], [" \x1f"])
    assert group is not None and group.responses == [[made.end]] and made.truncation.trimmed == 1
