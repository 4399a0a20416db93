"""Names can be read as what they are, wherever they come in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hearken.errors import UserError
from hearken.feedback.access import Account
from hearken.feedback.names import check_name
from hearken.feedback.records import Labeler
from hearken.feedback.store import FeedbackStore
from hearken.feedback.transfer import import_file

GOOD = ["Ann", "Zoë Ĉapek-Łuk", "李小龍", "محمد", "می\u200cخواهم", "👩\u200d🔬", "a", "O'Neil, Jr. (2nd)", " Ann "]
BAD = {
    "": "is empty",
    " \u3000": "is empty",
    "\u200d": "is empty",
    "a\nb": r"U\+000A",
    "a\x00b": r"U\+0000",
    "\x1b[31mred": r"U\+001B",
    "a\x85b": r"U\+0085",
    "\u202egnp.exe": r"U\+202E",
    "a\u2066b\u2069": r"U\+2066",
    "a\u200eb": r"U\+200E",
    "a\u2028b": r"U\+2028",
    "a\ufeffb": r"U\+FEFF",
    "a\u200bb": r"U\+200B",
    "a\U000e0041b": r"U\+E0041",
    "x" * 201: "longer than 200",
}


@pytest.mark.parametrize("name", GOOD)
def test_names_of_all_languages_are_kept_as_they_are(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(("name", "why"), BAD.items(), ids=ascii)
def test_what_cannot_be_read_as_a_name_is_refused(name: str, why: str) -> None:
    with pytest.raises(UserError, match=why) as error:
        check_name(name, "it")
    assert str(error.value.what).isprintable()  # the message itself does no harm to a terminal


def test_every_way_in_is_checked(tmp_path: Path) -> None:
    bad = "Ann\u202e"
    with FeedbackStore(tmp_path / "feedback.db") as store:
        access = store.access
        account = access.add_account(Account(name="Ann"))
        ways: list[Callable[[], Any]] = [
            lambda: access.add_account(Account(name=bad)),
            lambda: access.add_account(Account(name="Ann", login=bad)),
            lambda: access.change_account(account.id, name=bad),
            lambda: access.change_account(account.id, login=bad),
            lambda: access.invite("labeler", note=bad),
            lambda: access.add_token(bad, ["read"]),
            lambda: access.add_machine(Labeler(name=bad, kind="ai"), "token:x"),
        ]
        for way in ways:
            with pytest.raises(UserError, match=r"U\+202E"):
                way()
        assert [one.name for one in store.labelers()] == ["Ann"] and access.tokens() == access.invites() == []


def test_an_import_in_such_a_name_is_refused_and_nothing_of_it_stored(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "p", "chosen": "a", "rejected": "b"}')
    with FeedbackStore(tmp_path / "feedback.db") as store:
        with pytest.raises(UserError, match=r"U\+202E"):
            import_file(store, tmp_path / "a.jsonl", labeler="bob\u202e")
        assert store.last_seq() == 0 and list(store.prompts()) == [] and store.labelers() == []
