"""Text to token ids and back, so that each is the other's.

Three things that tokenizers do stand between a text and its ids. Some put a space before every text they are given
(Llama-2, Mistral, Phi-3, T5), so a response tokenised on its own is not the one that follows its prompt. All read the
name of a special token as that token, wherever it stands: the HTML tag ``</s>`` in somebody's answer ends it. Most put
a beginning before a text, and some an end behind it.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from hearken.errors import UserError

_MARK = secrets.token_hex(8)  # nobody can have written it into the data
_GOES_ON = ("\N{LOWER ONE EIGHTH BLOCK}", "##")
"""Decoders drop the space of a first piece, and write the mark of WordPiece's pieces within a word there."""
_ESCAPED = re.compile(f"{_MARK}e([0-9]+)z")


class Tokens:
    """A tokenizer that never takes text for a control token.

    Args:
        tokenizer: a transformers tokenizer.
        control: ids of the tokens that text cannot spell. Those that are no added tokens are left out: they are text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, control: Iterable[int]) -> None:
        self.tokenizer = tokenizer
        self._added = {i: str(t) for i, t in tokenizer.added_tokens_decoder.items() if str(t).strip()}
        self.control = {i: self._added[i] for i in sorted(set(control) & set(self._added))}
        longest = sorted(self.control.items(), key=lambda one: -len(one[1]))
        self._names = {name: i for i, name in longest}
        self._spelled = re.compile("|".join(re.escape(name) for _, name in longest) or "(?!)")
        names = sorted(self._added.values(), key=lambda name: -len(name))
        self._any = re.compile("|".join(map(re.escape, names)) or "(?!)")
        self._derived: dict[bool, Tokenizer] = {}
        self.lead, self.close = self._edges()

    def _edges(self) -> tuple[list[int], list[int]]:
        """What the tokenizer puts before and behind every text."""
        bare, whole = (
            list(self.tokenizer("a", add_special_tokens=special, verbose=False)["input_ids"])
            for special in (False, True)
        )
        for i in range(len(whole) - len(bare) + 1):
            if whole[i : i + len(bare)] == bare:
                return whole[:i], whole[i + len(bare) :]
        return [], []

    # Escaping

    def spelled(self, text: str) -> list[str]:
        """The control tokens that a text spells."""
        return self._spelled.findall(text)

    def words(self, text: str) -> str:
        """A text up to the first control token that it spells."""
        return self._spelled.split(text, 1)[0]

    def first_control(self, text: str, start: int, which: Collection[int]) -> int | None:
        """Where in a text, perhaps escaped, the first of some control tokens ends that begins behind ``start``."""
        for found in self._spelled.finditer(text, start):
            if self._names[found[0]] in which:
                return found.end()
        return None

    def begins_with_control(self, text: str) -> bool:
        """Whether a text begins with the name of a control token."""
        return self._spelled.match(text.lstrip()) is not None

    def escape(self, text: str) -> str:
        """The text, with the control tokens that it spells marked as words; `ids` reads them so."""
        return self._spelled.sub(lambda found: f"{_MARK}e{self._names[found[0]]}z", text)

    def unescape(self, text: str) -> str:
        """What `escape` was given."""
        return _ESCAPED.sub(lambda found: self.control[int(found[1])], text)

    # To ids

    def ids(self, text: str, *, continues: bool = False) -> list[int]:
        """Token ids of a text, without `lead` and `close`; what `escape` marked is text, other names are tokens.

        Args:
            text: perhaps escaped.
            continues: the text goes on from another, so no space is put before it.

        Raises:
            UserError: a control token is spelled, and this tokenizer cannot read it as text.
        """
        if continues and (found := self._any.search(text)):  # what follows a token is as in any text
            return self.ids(text[: found.start()], continues=True) + self.ids(text[found.start() :])
        escaped = _ESCAPED.search(text) is not None
        if not escaped and not continues:
            return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
        if not hasattr(self.tokenizer, "backend_tokenizer"):
            if not escaped:
                return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
            name = self.control[int(_ESCAPED.search(text)[1])]  # type: ignore[index]
            raise UserError(
                f"a text spells the special token '{name}', and this tokenizer cannot read it as plain text",
                "Write it otherwise, or leave the row out",
            )
        if continues not in self._derived:
            made = json.loads(self.tokenizer.backend_tokenizer.to_str())
            self._derived[continues] = Tokenizer.from_str(json.dumps(_renamed(made, self.control, continues)))
        named = self._spelled.sub(lambda found: _alias(self._names[found[0]]), text)
        return list(self._derived[continues].encode(self.unescape(named), add_special_tokens=False).ids)

    # To text

    def text(self, ids: Sequence[int], drop: Collection[int] = ()) -> str:
        """The text of token ids that go on from other ones: a space at their beginning, or none, is kept.

        Args:
            ids: token ids.
            drop: which of them to leave out.
        """
        kept = [i for i in ids if i not in drop]
        if not kept:
            return ""
        before: list[int] = []
        first = self.tokenizer.convert_ids_to_tokens(kept[0])
        if isinstance(first, str) and first.startswith(_GOES_ON):
            before = self.ids("a")
        whole, start = (
            str(self.tokenizer.decode(some, skip_special_tokens=False, clean_up_tokenization_spaces=False))
            for some in (before + kept, before)
        )
        text = whole[len(start) :] if before else whole
        inside = [re.escape(self._added[i]) for i in set(kept) & set(self._added)]
        if inside:  # some tokenizers put a space behind every added token, which their decoders leave there
            closer = re.sub(f"({'|'.join(inside)}) ", r"\1", text)
            if self.ids(closer, continues=True) == kept:
                return closer
        return text


def _alias(token: int) -> str:
    return f"{_MARK}t{token}z"


def _renamed(made: dict[str, Any], control: dict[int, str], continues: bool) -> dict[str, Any]:
    """A tokenizer.json in which the control tokens have names that no text has, with the same ids.

    With ``continues``, nothing is put before a text.
    """
    alias = {name: _alias(i) for i, name in control.items()}
    made["truncation"] = made["padding"] = None
    for token in made["added_tokens"]:
        if token["content"] in alias:
            token["content"], token["normalized"] = alias[token["content"]], False
    model = made["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {alias.get(piece, piece): i for piece, i in model["vocab"].items()}
    else:  # Unigram's pieces with their scores
        model["vocab"] = [[alias.get(piece, piece), score] for piece, score in model["vocab"]]
    if model.get("unk_token") in alias:
        model["unk_token"] = alias[model["unk_token"]]
    if continues:
        made["normalizer"] = _without_prefix(made["normalizer"])
        made["pre_tokenizer"] = _without_prefix(made["pre_tokenizer"])
    return made


def _without_prefix(part: dict[str, Any] | None) -> dict[str, Any] | None:
    """A normalizer or pre-tokenizer that puts nothing before a text."""
    if part is None or part["type"] == "Prepend":
        return None
    for key in ("normalizers", "pretokenizers"):
        if key in part:
            part[key] = [kept for one in part[key] if (kept := _without_prefix(one)) is not None]
    if part["type"] == "Metaspace":
        part["prepend_scheme"], part["split"] = "never", part.get("split", True)
    if "add_prefix_space" in part:
        part["add_prefix_space"] = False
    return part
