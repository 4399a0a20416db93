"""Exceptions that are messages: to a person, or from a piece of work that has to wait."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can mend: shown as one line without a traceback, exit code 2.

    Args:
        what: what is wrong, and where (file, line, row, key).
        hint: what to do about it.
    """

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(f"{what}. {hint}" if hint else what)
        self.what = what
        self.hint = hint


class Unavailable(UserError):
    """A fault that passes: the database is away, busy or full. The same request works later; nothing was changed.

    Args:
        what: what is wrong, and where: for whoever runs Hearken.
        hint: what to do about it.
        plain: what is wrong in a few words without addresses, paths or SQL: for whoever merely uses a server.
    """

    def __init__(self, what: str, hint: str = "", *, plain: str = "the database does not answer") -> None:
        super().__init__(what, hint)
        self.plain = plain


class Pause(Exception):
    """Work cannot go on before something comes from elsewhere, such as people's judgments. What was done is kept."""
