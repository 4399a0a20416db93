"""No folder's files import each other in a circle, also not within functions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import hearken

ROOT = Path(hearken.__file__).parent
FOLDERS = sorted(path.name for path in ROOT.iterdir() if path.is_dir() and (path / "__init__.py").exists())


def imported(node: ast.AST) -> Iterator[str]:
    """Dotted names that a file imports, but for those that types alone need."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.ImportFrom) and child.module:
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
            yield child.module
        elif isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        yield from imported(child)


def within(folder: str) -> dict[str, set[str]]:
    """The files of a folder (those of a folder in it as one), and which of the others each imports."""
    parts = {path.relative_to(ROOT / folder).parts[0].removesuffix(".py") for path in (ROOT / folder).rglob("*.py")}
    edges: dict[str, set[str]] = {part: set() for part in parts - {"__init__"}}
    for path in (ROOT / folder).rglob("*.py"):
        part, before = path.relative_to(ROOT / folder).parts[0].removesuffix(".py"), f"hearken.{folder}."
        for name in imported(ast.parse(path.read_text("utf-8"))):
            target = name.removeprefix(before).split(".")[0]
            if name.startswith(before) and target in edges and target != part and part in edges:
                edges[part].add(target)
    return edges


def circle(edges: dict[str, set[str]]) -> list[str]:
    """The files of a circle, each importing the next; empty where there is none."""
    done: set[str] = set()

    def follow(path: list[str]) -> list[str]:
        for target in sorted(edges[path[-1]] - done):
            if target in path:
                return path[path.index(target) :]
            if found := follow([*path, target]):
                return found
        done.add(path[-1])
        return []

    return next((found for part in sorted(edges) if part not in done and (found := follow([part]))), [])


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_circle_of_files(folder: str) -> None:
    found = circle(within(folder))
    assert not found, f"{folder}: {' imports '.join([*found, found[0]])}"


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["b", "c"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
