"""What changed: the same prompt answered before and after, differences marked."""

from __future__ import annotations

import difflib
import re

from hearken.report.contents import Pair
from hearken.report.sections.bars import View

SIMILAR = 0.45
"""Two responses at least this alike have their differences marked; marking everything would mark nothing."""


def difference(before: str, after: str) -> tuple[list[tuple[str, bool]], list[tuple[str, bool]]]:
    """Both texts as runs of (text, changed), word by word; nothing is marked where they have little in common."""
    old, new = (re.findall(r"\s*(?:\w+|[^\w\s]|$)", text) for text in (before, after))
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    if len(old) * len(new) > 4_000_000 or matcher.ratio() < SIMILAR:
        return [(before, False)], [(after, False)]
    left: list[tuple[str, bool]] = []
    right: list[tuple[str, bool]] = []
    for tag, a, b, c, d in matcher.get_opcodes():
        # A word or two in common between two changes is chance; marking around it would only make the text restless.
        inner = a > 0 and b < len(old) and c > 0 and d < len(new)
        changed = tag != "equal" or (inner and b - a < 3)
        _extend(left, "".join(old[a:b]), changed)
        _extend(right, "".join(new[c:d]), changed)
    return _trim(left), _trim(right)


def _trim(runs: list[tuple[str, bool]]) -> list[tuple[str, bool]]:
    """Leave the space before a changed run unmarked."""
    out: list[tuple[str, bool]] = []
    for text, changed in runs:
        word = text.lstrip() if changed else text
        out += [(text[: len(text) - len(word)], False), (word, changed)]
    return [run for run in out if run[0]]


def _extend(runs: list[tuple[str, bool]], text: str, changed: bool) -> None:
    """Append ``text``, joined to the last run where that is of the same sort."""
    if runs and runs[-1][1] == changed:
        text = runs.pop()[0] + text
    if text:
        runs.append((text, changed))


def compared(pair: Pair) -> View:
    """What the template shows of a pair."""
    before, after = difference(pair.before.text, pair.after.text)
    return {"prompt": pair.prompt, "sides": [(pair.before, before), (pair.after, after)]}
