"""Names that people and programs choose, and that others read: of people, labelers, tokens, tags, settings."""

from __future__ import annotations

import unicodedata

from hearken.errors import UserError

LONGEST = 200
"""Characters."""
_JOINERS = "\u200c\u200d"
"""Format characters that words and emoji need: zero width (non-)joiners."""


def check_name(name: str, what: str = "the name", longest: int = LONGEST) -> str:
    """``name`` as it was given, if it can be read as what it is: one line, not too long, with something to see.

    Control characters, line and paragraph separators and the characters that turn the direction of text or cannot be
    seen make two names look alike, or one like something else.

    Args:
        name: what was chosen.
        what: what it names, for the message.
        longest: characters it may have.

    Raises:
        UserError: it cannot be used.
    """
    if len(name) > longest:
        raise UserError(f"{what} is longer than {longest} characters", "Choose a shorter one")
    for character in name:
        if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in _JOINERS:
            raise UserError(f"{what} holds a character that cannot be seen (U+{ord(character):04X})", "Leave it out")
    if not name.strip().strip(_JOINERS):
        raise UserError(f"{what} is empty", "Write something")
    return name
