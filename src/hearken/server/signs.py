"""Characters that nobody sees, made visible: a sign or a code point for each, so that no two texts look the same.

A space is itself where it stands alone between words; at the end of a line, or beside another, it is ``␣``. What is
neither seen nor a space (zero-width, control, direction, unassigned and half characters) is shown by its number. A text
that contains such a sign itself has the sign's number shown instead.
"""

from __future__ import annotations

import re
import unicodedata

SIGNS = {
    " ": "␣",
    "\t": "⇥",
    "\n": "↵",
    "\r": "␍",
    "\N{NO-BREAK SPACE}": "⍽",
    "\N{NARROW NO-BREAK SPACE}": "⎵",
    "\N{IDEOGRAPHIC SPACE}": "⬚",
}
_BLANK = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0"
    + "".join(map(chr, [*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)]))
)
"""Nothing to see, though Unicode counts them among letters, marks and symbols."""

_LATIN_LOOKS = frozenset(
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u04bb\u0501\u051b\u051d"  # Cyrillic, small
    "\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0425\u0406\u0408\u0405"  # Cyrillic, capital
    "\u03bf\u03bd\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7"  # Greek
)
"""Letters that look like Latin ones."""

_OURS = frozenset(SIGNS.values()) | {"⟨"}
_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}
_ORDINARY = re.compile(r"[A-Za-z0-9 .,;:!?'()/=+*_#\[\]{}|\\`~^$%@-]*")
_SPACES = re.compile(r"[ \t]+$|(?<=[^\n \t])[ \t]{2,}|\t+", re.MULTILINE)


def escape(text: str) -> str:
    """Text as HTML."""
    return "".join(_ESCAPES.get(char, char) for char in text)


def sign(shown: str, name: str = "") -> str:
    """HTML of a sign; read aloud only where it has a name."""
    about = f' title="{name}"' if name else ' aria-hidden="true"'
    return f'<span class="sign"{about}>{shown}</span>'


def spaces(text: str) -> str:
    """HTML of spaces and tabs that would not be seen."""
    return sign("".join(SIGNS[char] for char in text)) if text else ""


def show(text: str) -> str:
    """HTML of a text without line breaks in which every character is seen; spaces are left as they are."""
    if _ORDINARY.fullmatch(text):
        return text
    out = []
    for index, char in enumerate(text):
        if char == " ":
            out.append(char)
        elif char in _ESCAPES:
            out.append(_ESCAPES[char])
        elif _is_seen(text, index):
            out.append(char)
        elif char in SIGNS:
            out.append(sign(SIGNS[char]))
        else:
            out.append(sign(f"⟨U+{ord(char):04X}⟩", unicodedata.name(char, "a character that is not seen").lower()))
    return "".join(out)


def written(text: str) -> str:
    """HTML of a whole text just as it is written, for a place that keeps line breaks and spaces."""
    parts, at = [], 0
    for found in _SPACES.finditer(text):
        parts += [_lines(text[at : found.start()]), spaces(found[0])]
        at = found.end()
    return "".join([*parts, _lines(text[at:])])


def is_plain(text: str) -> bool:
    """Whether every character of a text is seen, line breaks and single spaces aside."""
    return all(char in " \n" or _is_seen(text, index) for index, char in enumerate(text))


def _lines(text: str) -> str:
    return f"{sign(SIGNS[chr(10)])}\n".join(map(show, text.split("\n")))


def _is_seen(text: str, index: int) -> bool:
    char = text[index]
    if char in _OURS:
        return char == "⟨" and not text.startswith("U+", index + 1)
    if char.isprintable() and char not in _BLANK:
        return char.isascii() or not _is_disguised(text, index)
    if char in "\u200c\u200d\ufe0e\ufe0f":
        return _joins(text, index)
    return 0x1F000 <= ord(char) <= 0x1FAFF  # emoji that are newer than Python's tables


def _is_disguised(text: str, index: int) -> bool:
    """Whether it looks like something else.

    An accent that makes one character with its letter, a letter of another script within a Latin word, a symbol that is
    another name for a letter (the sign of the Kelvin).
    """
    char, before, after = text[index], text[index - 1 : index], text[index + 1 : index + 2]
    if char in _LATIN_LOOKS:
        return any(one.isascii() and one.isalpha() for one in (before, after))
    if unicodedata.combining(char):
        return bool(before) and len(unicodedata.normalize("NFC", before + char)) == 1
    other = unicodedata.normalize("NFC", char)
    return other != char and len(other) == 1


def _joins(text: str, index: int) -> bool:
    """Whether a joiner or a variation selector does work that one sees: in an emoji, or between letters that join."""
    before, after = text[index - 1 : index], text[index + 1 : index + 2]
    if text[index] in "\ufe0e\ufe0f":
        return _is_emoji(before) or (before in tuple("0123456789#*") and after == "\u20e3")
    if text[index] == "\u200d" and _is_emoji(after) and (_is_emoji(before) or before == "\ufe0f"):
        return True
    return _is_joined(before) and _is_joined(after)


def _is_emoji(char: str) -> bool:
    return bool(char) and (unicodedata.category(char) == "So" or 0x1F3FB <= ord(char) <= 0x1F3FF) and char != "\u2800"


def _is_joined(char: str) -> bool:
    """A letter of a script whose letters change shape beside each other (Arabic to Malayalam, Myanmar, Khmer)."""
    return re.fullmatch("[\u0620-\u07ff\u0840-\u086f\u08a0-\u0dff\u1000-\u109f\u1780-\u17d3]", char) is not None
