"""What stands at the door stays light: no torch for a help text, no help text slower than half a second."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "sqlalchemy", "numpy", "scipy", "datasets")


def loaded_by(code: str) -> tuple[set[str], float]:
    """Heavy modules that ``code`` loads in a fresh interpreter, and the seconds of CPU it takes."""
    ending = f"print('LOADED', *(m for m in {HEAVY} if m in sys.modules))"
    script = f"import atexit, sys; atexit.register(lambda: {ending})\n{code}"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert "Traceback" not in done.stderr, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("LOADED"))
    return set(line.split()[1:]), seconds


def test_import_hearken() -> None:
    heavy, _ = loaded_by("import hearken; assert 'train' in dir(hearken)")
    assert not heavy


@pytest.mark.parametrize(
    "words",
    [[], ["train"], ["train", "sft"], ["train", "ppo"], ["quickstart"], ["model"], ["inspect"], ["sample"], ["import"]],
    ids=" ".join,
)
def test_help(words: list[str]) -> None:
    code = f"sys.argv = ['hearken', *{words!r}, '--help']; from hearken.cli.main import main; main()"
    heavy, seconds = loaded_by(code)
    assert not heavy
    if seconds > 0.5:  # the machine may be slow or busy just now: what do the libraries alone take?
        _, bare = loaded_by("import pydantic.fields, typer.rich_utils")
        assert min(seconds, loaded_by(code)[1]) < 2.5 * bare
