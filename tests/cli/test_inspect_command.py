from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast
from typer.testing import Result

Run = Callable[..., Result]
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}<eos>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
DIALOGUE = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Ho"},
    {"role": "user", "content": "Go"},
]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with a configuration and a tokenizer of single bytes: a token is a character."""
    vocabulary = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", pad_token="<eos>").save_pretrained(tmp_path / "m")
    LlamaConfig(max_position_embeddings=64).save_pretrained(tmp_path / "m")
    return tmp_path / "m"


def write(path: Path, *rows: dict) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def joined(view: dict, part: str) -> str:
    return "".join(piece["text"] for piece in view["pieces"] if piece["part"] == part)


def test_comparisons(hearken: Run, model: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "pairs.jsonl", {"prompt": "One", "chosen": " yes", "rejected": " [no]"})
    told = json.loads(hearken("inspect", data, "--model", model, "--json").stdout)
    good, bad = told["views"]
    assert [joined(good, p) for p in ("prompt", "response", "end")] == ["One", " yes", "<eos>"]
    assert (good["note"], bad["note"]) == ("rank 0", "rank 1")
    assert (bad["response_lost"], bad["prompt_lost"]) == (0, 0)
    assert told["summary"]["response_tokens"] == {"median": 5.5, "longest": 6}
    assert told["max_length"] == 64, "the model's context"
    assert "pad == EOS" in told["warnings"][0]
    shown = hearken("inspect", data, "--model", model).stdout
    assert "One yes<eos>" in shown and "One [no]<eos>" in shown and "reads its score at the last" in shown


def test_what_does_not_fit(hearken: Run, model: Path, tmp_path: Path) -> None:
    data = write(
        tmp_path / "sft.jsonl", {"prompt": "abc", "completion": "0123456789"}, {"prompt": "x" * 12, "completion": "y"}
    )
    told = json.loads(hearken("inspect", data, "--model", model, "--max-length", 8, "--json").stdout)
    one, two = told["views"]
    assert (joined(one, "response"), joined(one, "end"), one["response_lost"]) == ("01234", "", 6)
    assert (joined(two, "prompt"), two["prompt_lost"]) == ("x" * 7, 5)
    assert told["summary"]["prompts_too_long"] == 1 and told["summary"]["responses_cut"] == 2
    shown = hearken("inspect", data, "--model", model, "--max-length", 8).stdout
    assert "⟨6 tokens of the response lost" in shown and "⟨5 tokens of the prompt lost⟩" in shown
    assert "has no end token" in shown


def test_loss_mask_of_a_dialogue(hearken: Run, model: Path, tmp_path: Path) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(model)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(model)
    data = write(tmp_path / "chat.jsonl", {"messages": [*DIALOGUE, {"role": "assistant", "content": "Now"}]})
    (last,) = json.loads(hearken("inspect", data, "--model", model, "--json").stdout)["views"]
    assert joined(last, "prompt") == "<user>Hi<assistant>Ho<user>Go<assistant>".replace(
        "<user>Go", "<eos><user>Go"
    ).replace("Hi<", "Hi<eos><").replace("Go<", "Go<eos><")
    assert joined(last, "response") + joined(last, "end") == "Now<eos>"
    assert all(piece["trained"] == (piece["part"] != "prompt") for piece in last["pieces"])

    (every,) = json.loads(hearken("inspect", data, "--model", model, "--train-on", "all", "--json").stdout)["views"]
    trained = "".join(piece["text"] for piece in every["pieces"] if piece["trained"])
    assert trained == "Ho<eos>Now<eos>"
    assert "".join(piece["text"] for piece in every["pieces"]) == joined(last, "prompt") + "Now<eos>"


def test_other_kinds(hearken: Run, model: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "thumbs.jsonl", {"prompt": "a", "completion": "b", "label": False})
    assert "thumb down" in hearken("inspect", data, "--model", model).stdout
    data = write(tmp_path / "prompts.jsonl", {"prompt": "only this"})
    shown = hearken("inspect", data, "--model", model).stdout
    assert "9 prompt tokens" in shown and "response tokens:" in shown
    (tmp_path / "text.txt").write_text("abcdefgh")
    told = json.loads(hearken("inspect", tmp_path / "text.txt", "--model", model, "--max-length", 5, "--json").stdout)
    assert [view["note"] for view in told["views"]] == ["piece 1 of 2", "piece 2 of 2"]
    assert "".join(p["text"] for view in told["views"] for p in view["pieces"]) == "<eos>abcdefgh<eos>"


def test_ids_html_and_choice_of_rows(hearken: Run, model: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "sft.jsonl", *({"prompt": "p", "completion": f"<{i}>"} for i in range(5)))
    done = hearken("inspect", data, "--model", model, "-n", 1, "--start", 3, "--ids", "--html", "look.html")
    assert done.exit_code == 0 and "2·17" in done.stdout.replace(" ", "") and "example 3" in done.stdout
    assert "example 2" not in done.stdout and "example 4" not in done.stdout
    page = (tmp_path / "look.html").read_text()
    assert "example 3" in page and "&lt;" in page


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("missing.jsonl", "--model", "m"), "missing.jsonl"),
        (("bad.jsonl", "--model", "m"), "line 2"),
        (("good.jsonl", "--model", "./nowhere"), "does not exist"),
        (("good.jsonl", "--model", "m", "--start", "9"), "no example 9"),
        (("good.jsonl", "--model", "m", "--eos", "</s>"), "no token '</s>'"),
    ],
)
def test_mistakes(hearken: Run, model: Path, tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    write(tmp_path / "good.jsonl", {"prompt": "a", "completion": "b"})
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a", "completion": "b"}\n{"prompt": \n')
    done = hearken("inspect", *words)
    assert done.exit_code == 2 and message in done.stderr and "Traceback" not in done.stderr


# --- rollouts --------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "p" / "artifacts" / "r01-ppo"
    (folder / "run").mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    rows = [
        {"step": i, "prompt": "Say [it].", "completion": f"answer {i} \x1b[31m[red]", "score": float(i), "kl": 0.5,
         "tokens": 3 + i, "finish_reason": "stop"}
        for i in range(6)
    ]  # fmt: skip
    write(folder / "run" / "rollouts.jsonl", *rows)
    return folder


def test_rollouts_by_reward(hearken: Run, run: Path, tmp_path: Path) -> None:
    told = json.loads(hearken("inspect", "r01-ppo", "--rollouts", "--bottom", 2, "-C", "p", "--json").stdout)
    assert [r["reward"] for r in told["bottom"]] == [0, 1] and told["top"] == [] and told["total"] == 6
    shown = hearken("inspect", run, "--sort", "length", "--steps", "2-", "--top", 1, "--html", "look.html").stdout
    assert "answer 5" in shown and "answer 4" not in shown and "4 of 6 responses" in shown
    assert "\x1b" not in shown and "[red]" in shown and "Say [it]." in shown
    assert "answer 5" in (tmp_path / "look.html").read_text()


def test_rollouts_that_are_not_there(hearken: Run, model: Path, tmp_path: Path) -> None:
    done = hearken("inspect", model, "--rollouts")
    assert done.exit_code == 2 and "has no rollouts" in done.stderr
    done = hearken("inspect", "pairs.jsonl")
    assert done.exit_code == 2 and "--model is missing" in done.stderr
