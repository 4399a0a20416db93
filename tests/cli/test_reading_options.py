"""Every command that reads example files reads them by the same options."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast
from typer.testing import Result

from hearken.algorithms.ppo_options import PPOConfig
from hearken.algorithms.reward_options import RewardConfig
from hearken.cli.main import app
from hearken.domains.text.data import Reader
from hearken.errors import UserError
from hearken.feedback.reading import ReadingOptions
from hearken.loop.project import Project
from hearken.training.options import TextOptions

Run = Callable[..., Result]
PAIR = {"prompt": "Où est le café ?", "chosen": "Là.", "rejected": "Hé !"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A configuration and a tokenizer of single bytes."""
    vocabulary = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", pad_token="<pad>").save_pretrained(tmp_path / "m")
    LlamaConfig(max_position_embeddings=64).save_pretrained(tmp_path / "m")
    return tmp_path / "m"


@pytest.fixture
def latin(tmp_path: Path) -> Path:
    """A pair in cp1252, and a row that is none."""
    rows = [json.dumps(row, ensure_ascii=False) + "\n" for row in (PAIR, PAIR | {"chosen": ""})]
    (tmp_path / "latin.jsonl").write_bytes("".join(rows).encode("cp1252"))
    return tmp_path / "latin.jsonl"


def reading_options(*names: str) -> dict[str, str]:
    """Flag and help of each reading option that a command has."""
    command = typer.main.get_command(app)
    context = typer.Context(command)
    for name in names:
        command = command.get_command(context, name)  # type: ignore[attr-defined]
        context = typer.Context(command, parent=context)
    wanted = {"--" + name.replace("_", "-") for name in ReadingOptions.model_fields}
    found = [p.get_help_record(context) for p in command.get_params(context) if wanted & set(p.opts)]
    return {flag: text for flag, text in filter(None, found)}


@pytest.mark.parametrize("words", ["import", "init", "evaluate", "train sft", "train ppo"])
def test_all_commands_have_the_same(words: str) -> None:
    assert len(reading_options("inspect")) == len(ReadingOptions.model_fields) == 4
    assert reading_options(*words.split()) == reading_options("inspect")


def test_inspect(hearken: Run, model: Path, latin: Path) -> None:
    how = ("--model", model, "--encoding", "cp1252")
    wrong = hearken("inspect", latin, "--model", model)
    assert wrong.exit_code == 2 and "not UTF-8" in wrong.stderr
    stopped = hearken("inspect", latin, *how)
    assert stopped.exit_code == 2 and "line 2" in stopped.stderr and "--on-bad skip" in stopped.stderr
    done = hearken("inspect", latin, *how, "--on-bad", "skip", "--json")
    told = json.loads(done.stdout)
    assert told["summary"]["examples"] == 1 and "1 skipped" in told["warnings"][0] and "line 2" in told["warnings"][0]
    prompt = [piece for piece in told["views"][0]["pieces"] if piece["part"] == "prompt"]
    assert len(prompt) == len(PAIR["prompt"].encode()), "a token a byte"


@pytest.mark.slow
def test_a_bomb_is_refused_and_may_be_meant(hearken: Run, model: Path, tmp_path: Path) -> None:
    with gzip.open(tmp_path / "bomb.jsonl.gz", "wt") as file:
        file.write((json.dumps({"prompt": "x" * 2**20}) + "\n") * 65)
    words = ("--model", model, "--prompts", tmp_path / "bomb.jsonl.gz")
    refused = hearken("init", "p", *words)
    assert refused.exit_code == 2 and "--max-unpacked" in refused.stderr
    assert hearken("init", "p", *words, "--max-unpacked", "1").exit_code == 0


def test_init(hearken: Run, model: Path, latin: Path) -> None:
    words = ("init", "project", "--model", model, "--prompts", latin)
    assert "not UTF-8" in hearken(*words).stderr
    done = hearken(*words, "--encoding", "cp1252", "--on-bad", "skip")
    assert done.exit_code == 0 and "1 skipped" in done.stderr
    with Project("project").store() as store:
        assert [prompt.content for prompt in store.prompts()] == [PAIR["prompt"]]


def test_evaluate(hearken: Run, tmp_path: Path) -> None:
    """What is wrong with a file is said before a model is loaded."""
    (tmp_path / "text.txt").write_bytes("déjà vu".encode("cp1252"))
    (tmp_path / "prompts.csv").write_text("prompt\nHello\n")
    text, data = ("--policy", "nowhere/at-all", "--perplexity", "text.txt"), ("--data", "prompts.csv")
    assert "not UTF-8" in hearken("evaluate", *text).stderr
    assert "not UTF-8" not in hearken("evaluate", *text, "--encoding", "cp1252").stderr
    wrong = hearken("evaluate", "--policy", "nowhere/at-all", *data, "--format", "pairs")
    assert wrong.exit_code == 2 and "prompts.csv, line 2" in wrong.stderr and "'chosen'" in wrong.stderr


def test_train_reads_data_in_its_layout_and_what_stands_beside_in_another(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("One.\nTwo.\n")
    reader, files = Reader(TextOptions(format="lines")), [str(tmp_path / "lines.txt")]
    assert [row.text for row in reader.rows(files, [], 0.0, 0).train] == ["One.", "Two."]  # type: ignore[union-attr]
    assert [row.text for row in reader.read(files, "ptx_format")] == ["One.\nTwo.\n"]  # type: ignore[union-attr]
    assert len(Reader(PPOConfig(ptx_format="lines")).read(files, "ptx_format")) == 2
    safer = {"prompt": "P", "response_0": "a", "response_1": "b", "better_response_id": 0, "safer_response_id": 1}
    (tmp_path / "safe.jsonl").write_text(json.dumps(safer) + "\n")
    for layout, ranks in (("auto", (0, 1)), ("saferlhf-safer", (1, 0))):
        (row,) = Reader(TextOptions(format=layout)).rows([str(tmp_path / "safe.jsonl")], [], 0.0, 0).train
        assert row.ranks == ranks  # type: ignore[union-attr]
        options = RewardConfig(format="pairs", references_format=layout)
        (row,) = Reader(options).read([str(tmp_path / "safe.jsonl")], "references_format")
        assert row.ranks == ranks  # type: ignore[union-attr]


def test_a_value_that_is_none_is_refused(hearken: Run, model: Path, latin: Path) -> None:
    wrong = hearken("inspect", latin, "--model", model, "--on-bad", "ignore")
    assert wrong.exit_code == 2 and "on_bad" in wrong.stderr
    wrong = hearken("inspect", latin, "--model", model, "--format", "parirs")
    assert wrong.exit_code == 2 and "pairs" in wrong.stderr
    with pytest.raises(UserError, match="max_unpacked"):
        ReadingOptions.parse({"max_unpacked": -1})
