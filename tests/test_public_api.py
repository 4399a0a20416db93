"""The Python API: every name is there, explained and the same for an editor; the documentation needs nothing deeper."""

from __future__ import annotations

import ast
import inspect
import re
import warnings
from pathlib import Path

import pytest

import hearken
from hearken.algorithms.stage import builtin
from hearken.errors import UserError

ROOT = Path(__file__).parents[1]
NAMES = [name for name in hearken.__all__ if name != "__version__"]
DEEPER = {"docs/own-domain.md", "docs/own-stage.md"}
"""What is of one's own is written with what the package's own are written with."""


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_there_and_says_what_it_is(name: str) -> None:
    found = getattr(hearken, name)
    assert found.__name__ == name and found.__module__ == hearken._WHERE[name]
    assert inspect.getdoc(found) and found.__doc__ != "Usage docs"
    parameters = inspect.signature(found).parameters.values() if inspect.isfunction(found) else ()
    assert all(p.annotation is not inspect.Parameter.empty for p in parameters)


def test_editors_and_python_know_the_same_names() -> None:
    tree = ast.parse(Path(hearken.__file__).with_suffix(".pyi").read_text("utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert {alias.asname: node.module for node in imports for alias in node.names} == hearken._WHERE
    assert all(alias.name == alias.asname for node in imports for alias in node.names), "exported, not merely imported"
    assert (Path(hearken.__file__).parent / "py.typed").exists()


def test_every_stage_has_its_config_there() -> None:
    for stage in builtin():
        name = stage.options.__name__
        assert getattr(hearken, name) is stage.options and name.endswith("Config")


def test_the_page_lists_every_name() -> None:
    text = (ROOT / "docs" / "api.md").read_text("utf-8").partition("## Inside")[0]
    rows = "".join(line.split("|")[1] for line in text.splitlines() if line.startswith("| `"))
    assert sorted(re.findall(r"`(\w+)`", rows)) == sorted(NAMES)


def python_examples() -> list[tuple[str, str]]:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    blocks = [(page, b) for page in pages for b in re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.S)]
    shown = [(str(page.relative_to(ROOT)), block) for page, block in blocks]
    return [one for one in shown if one[0] not in DEEPER] + [
        (str(path.relative_to(ROOT)), path.read_text("utf-8")) for path in sorted((ROOT / "examples").glob("*.py"))
    ]


@pytest.mark.parametrize(("page", "code"), python_examples())
def test_examples_need_nothing_deeper(page: str, code: str) -> None:
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom | ast.Import):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            assert not any(module.startswith("hearken.") for module in modules), page
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "hearken":
            assert node.attr in hearken.__all__, page


def test_a_former_name_works_and_says_so() -> None:
    with pytest.warns(DeprecationWarning, match=r"hearken\.respond is now hearken\.sample"):
        assert hearken.respond is hearken.sample  # type: ignore[attr-defined]
    with warnings.catch_warnings(), pytest.raises(AttributeError, match="no attribute 'trian'"):
        hearken.trian  # type: ignore[attr-defined]  # noqa: B018


def test_a_config_refuses_what_it_does_not_know() -> None:
    with pytest.raises(UserError, match=r"PPOConfig: unknown key 'betta'\. Did you mean 'beta'"):
        hearken.PPOConfig(betta=0.1)  # type: ignore[call-arg]
    with pytest.raises(UserError, match=r"PPOConfig: lr: .* \(got 'fast'\)"):
        hearken.PPOConfig(lr="fast")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"PPOConfig: unknown key 'betta'\. Did you mean 'beta'"):
        hearken.PPOConfig().betta = 0.1  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"options: unknown key 'betta'. Did you mean 'beta'"):
        hearken.PPOConfig.parse({"betta": 0.1})


def test_what_is_no_config_of_a_stage_is_refused(tmp_path: Path) -> None:
    from hearken.training.options import TrainingOptions

    out = tmp_path / "out"
    with pytest.raises(UserError, match="TrainingOptions is the config of no stage"):
        hearken.train(TrainingOptions(), model="m", data="d", out=out)
    with pytest.raises(UserError, match=r"train sft has no input 'lr'. Give options to the config: SFTConfig"):
        hearken.train(hearken.SFTConfig(), model="m", data="d", out=out, lr="1")
    with pytest.raises(UserError, match=r"train sft has no input 'validatoin'. Did you mean 'validation'"):
        hearken.train(hearken.SFTConfig(), model="m", data="d", out=out, validatoin="1")
    with pytest.raises(UserError, match=r"train ppo has no input or option 'rewards'. Did you mean 'reward'"):
        hearken.train("ppo", model="m", data="d", out=out, rewards="r")
    with pytest.raises(UserError, match=r"train ppo has no input or option 'episods'. Did you mean 'episodes'"):
        hearken.train("ppo", model="m", data="d", out=out, reward="r", episods=1)
    with pytest.raises(UserError, match="has no input 'validation'"):
        hearken.train(hearken.SFTConfig(), model="m", data="d", out=out, validation=0.1)  # type: ignore[call-overload]
    assert not out.exists()
