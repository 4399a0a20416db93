from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from hearken.algorithms.stage import stages
from hearken.cli.main import app
from hearken.training.options import TrainingOptions


def test_adapters_have_a_learning_rate_of_their_own() -> None:
    for stage in stages():
        if not issubclass(stage.options, TrainingOptions):
            continue
        usual = stage.options().lr
        own = stage.options.parse({"lora": 8})
        assert own.lr == pytest.approx(usual * (3 if stage.name == "ilql" else 10))
        assert stage.options.parse({"lora": 8, "lr": usual}).lr == usual, "what is given stands"
        assert stage.options.parse(own.model_dump()) == own, "and is kept where a run goes on"


def test_the_help_says_so() -> None:
    text = CliRunner().invoke(app, ["train", "dpo", "--help"]).output
    assert re.search(r"default 1e-06.*with --lora the default is 1e-05", " ".join(text.split()))
