"""What stands at the door stays light: no torch for a help text, and nothing but what a help text is made of."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"torch", "transformers", "sqlalchemy", "numpy", "scipy", "datasets"}
# typer, rich and pydantic, with what they import: a help text is made of these.
LIGHT = {
    *("annotated_doc", "annotated_types", "attr", "attrs", "click", "colorama", "markdown_it", "mdurl", "pydantic"),
    *("pydantic_core", "pygments", "rich", "shellingham", "typer", "typing_extensions", "typing_inspection", "yaml"),
}


def loaded_by(code: str) -> tuple[set[str], set[str]]:
    """Third-party packages and modules of ours that ``code`` loads in a fresh interpreter."""
    ending = (
        "import sys\n"
        "installed = {name.partition('.')[0] for name, module in list(sys.modules.items())"
        " if 'site-packages' in (getattr(module, '__file__', None) or '')}\n"
        "print('LOADED', *sorted(installed))\n"
        "print('OURS', *sorted(name for name in sys.modules if name.startswith('hearken')))\n"
    )
    script = f"import atexit, sys; atexit.register(lambda: exec({ending!r}))\n{code}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr, done.stderr
    lines = {line.split()[0]: set(line.split()[1:]) for line in done.stdout.splitlines() if line.strip()}
    return lines["LOADED"] - {"hearken"}, lines["OURS"]


def test_import_hearken() -> None:
    installed, _ = loaded_by("import hearken; assert 'train' in dir(hearken)")
    assert not installed & HEAVY


@pytest.mark.parametrize(
    "words",
    [[], ["train"], ["train", "sft"], ["train", "ppo"], ["quickstart"], ["model"], ["inspect"], ["sample"], ["import"]],
    ids=" ".join,
)
def test_help(words: list[str]) -> None:
    code = f"sys.argv = ['hearken', *{words!r}, '--help']; from hearken.cli.main import main; main()"
    installed, ours = loaded_by(code)
    # A module of its own is loaded by an editable install; it is nobody's dependency.
    assert not {name for name in installed if not name.startswith(("__editable__", "_"))} - LIGHT
    # Commands, and the options of the stages: no algorithm, no store, no server.
    methods = {name for name in ours if name.startswith("hearken.algorithms.") and not name.endswith("_options")}
    assert methods <= {"hearken.algorithms.stage"}
    assert not {name for name in ours if name.startswith(("hearken.server", "hearken.loop", "hearken.models"))}
