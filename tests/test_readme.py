"""The commands of the documentation exist, and their options parse; CI runs what the README says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from hearken.cli.main import app

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").glob("*.md"))]


def blocks(page: str) -> list[list[str]]:
    """The lines of each indented or fenced block of commands."""
    text = (ROOT / page).read_text("utf-8")
    fenced = re.findall(r"^```(?:bash)?\n(.*?)^```", text, re.M | re.S)
    indented = re.findall(r"(?:^ {4}\S.*\n)+", text, re.M)
    return [[line.strip() for line in block.splitlines()] for block in [*fenced, *indented]]


OUTSIDE = "hearken train exposure "
"""Of a stage that docs/own-stage.md adds: `tests/algorithms/test_outside_stage.py` installs it and trains by it."""


def commands() -> list[tuple[str, str]]:
    lines = [(page, line) for page in PAGES for block in blocks(page) for line in block]
    ours = [(page, line) for page, line in lines if line.startswith("hearken ") and not line.startswith(OUTSIDE)]
    return [(page, line.partition(" #")[0]) for page, line in ours]


def mentions() -> list[tuple[str, str]]:
    return [(page, c) for page in PAGES for c in re.findall(r"`hearken ([^`]+)`", (ROOT / page).read_text("utf-8"))]


ROOT_COMMAND: Any = typer.main.get_command(app)


def find(words: list[str]) -> tuple[Any, str, list[str]]:
    """The command, its full name, and the words after it."""
    command = ROOT_COMMAND
    path = []
    while hasattr(command, "list_commands"):
        name, *words = words
        path.append(name)
        context = command.make_context(" ".join(path), [name], resilient_parsing=True)
        command = command.get_command(context, name)
        if command is None:
            raise LookupError(f"no such command: {name}")
        if not words:
            break
    return command, " ".join(path), words


def parse(words: list[str]) -> None:
    """Parse a command line without running it; unknown commands, options and missing arguments raise."""
    command, name, rest = find(words)
    command.make_context(name, rest)


@pytest.mark.parametrize(("page", "line"), commands())
def test_commands_of_the_documentation_parse(page: str, line: str) -> None:
    parse(shlex.split(line)[1:])


@pytest.mark.parametrize(("page", "line"), mentions())
def test_commands_that_are_mentioned_exist(page: str, line: str) -> None:
    find([word for word in line.split() if word.islower() and word[0].isalpha()])


def test_wrong_commands_do_not_parse() -> None:
    for line in ("qickstart", "sample --kk 3", "train ppo --betaa 1", "inspect"):
        with pytest.raises(Exception, match=r"(?i)no such|missing"):
            parse(shlex.split(line))


def test_commands_are_found() -> None:
    assert {line.split()[1] for page, line in commands() if page == "README.md"} >= {
        "quickstart", "train", "inspect", "init", "import", "export", "sample", "label", "evaluate", "report",
    }  # fmt: skip


def test_readme_has_its_two_blocks_first() -> None:
    setup, test = blocks("README.md")[:2]
    assert setup[-1] == "hearken quickstart my-tales" and "pip install -c constraints.txt ." in setup
    assert test[-1].startswith("python -m pytest")
    ci = (ROOT / ".ci/run").read_text("utf-8").splitlines()
    assert test[-1] in ci, "CI runs the README's test command"
    install = next(line for line in test if line.startswith("pip install"))
    assert install.replace("install", "install -q") in ci, "CI installs as the README says"


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        text = (ROOT / page).read_text("utf-8")
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
            assert ((ROOT / page).parent / target).exists(), f"{page}: {target}"
