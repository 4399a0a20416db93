"""Every stage has its page, and every link between pages leads somewhere."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

from hearken.algorithms.stage import builtin
from hearken.rewards import metrics, rules

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(DOCS.rglob("*.md"))


@pytest.mark.parametrize("stage", [s.name for s in builtin()])
def test_every_stage_has_a_page(stage: str) -> None:
    text = (DOCS / "methods" / f"{stage}.md").read_text("utf-8")
    for part in ("**Optimises.**", "**From.**", "**Defaults.**", "**Watch.**", "**How it fails.**"):
        assert part in text
    assert f"hearken train {stage}`" in text and f"methods/{stage}.md" in (DOCS / "choosing.md").read_text("utf-8")


@pytest.mark.parametrize(("prefix", "module"), [("rule", rules), ("metric", metrics)])
def test_every_reward_of_the_package_is_on_its_page(prefix: str, module: ModuleType) -> None:
    text = (DOCS / "methods" / "rewards.md").read_text("utf-8")
    own = [
        name for name, found in inspect.getmembers(module, inspect.isfunction) if found.__module__ == module.__name__
    ]
    named = {name for name in own if not name.startswith("_")}
    assert named == set(re.findall(rf"^\| `{prefix}:([a-z0-9_]+)`", text, re.MULTILINE)), "a row of the table for each"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(DOCS)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"
