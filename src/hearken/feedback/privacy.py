"""Files that only their owner may read: people's words, hashes of passwords, exports of them."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

FOLDER = 0o700
"""Mode of the folders that are made for such files."""


def private(path: Path) -> Path:
    """Make a file that only its owner may read, or make one that is there already so; gives the path back.

    What cannot be changed (somebody else's file) stays as it is; what cannot be made, whoever writes it next will say.
    A file that exists is not opened here: closing it again would end the locks that SQLite holds on it.
    """
    with suppress(OSError):
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & 0o077 and os.name == "posix":
                path.chmod(mode & 0o700)
    return path
