"""What `inspect` shows is what the stages read, whatever tokenizer, template and settings a model folder has."""

from __future__ import annotations

from pathlib import Path

import pytest
from domains.families import family
from tiny_models import write_base, write_rows
from transformers import AutoModelForCausalLM

from hearken.algorithms import dpo, reward, sft
from hearken.algorithms.stage import Inputs
from hearken.domains.text.data import Reader
from hearken.domains.text.inspect import View, inspect
from hearken.domains.text.measuring import Judge
from hearken.models.loading import save

TURNS = [
    {"role": "user", "content": "Name a bird, not </s>."},
    {"role": "assistant", "content": "A wren."},
    {"role": "user", "content": "Again?"},
]
GOOD, BAD = "<think>a bat is not</think>A wren </s> is.", " A bat."


@pytest.fixture(params=["sp normalizer, llama2", "byte-level, refusing", "sp first, opening", "byte-level, chatml"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A tiny model; its generation settings name another end than the tokenizer's."""
    name, _, template = request.param.rpartition(", ")
    tokenizer = family(name, "chatml, other eos" if template == "chatml" else template)
    folder = write_base(tmp_path / "m", tokenizer, context=400)
    if template == "refusing":
        network = AutoModelForCausalLM.from_pretrained(folder)
        ends = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<end_of_turn>")]
        network.generation_config.eos_token_id = ends
        network.generation_config.save_pretrained(folder)
    return folder


def shown(view: View) -> tuple[list[int], list[int]]:
    prompt = [p.id for p in view.pieces if p.part == "prompt"]
    return prompt, [p.id for p in view.pieces if p.part != "prompt"]


@pytest.mark.slow
def test_inspect_shows_what_is_trained(model: Path, tmp_path: Path) -> None:
    pairs = write_rows(tmp_path / "pairs.jsonl", [{"prompt": TURNS, "chosen": GOOD, "rejected": BAD}])
    answer = {"role": "assistant", "content": BAD}
    chats = write_rows(tmp_path / "chats.jsonl", [{"messages": [*TURNS, answer]}])
    views = [shown(view) for view in inspect(pairs, model).views]
    inputs = Inputs(model=str(model), data=(str(pairs),))
    with pytest.warns(UserWarning, match=r"texts spell special tokens, read as plain text: </s> \(2\)"):
        fed = dpo.load(inputs, dpo.DPOConfig(validation=0)).data[0].group
    assert views == [(list(fed.prompt), list(r)) for r in fed.responses]

    for train_on in ("last", "all"):
        (view,) = inspect(chats, model, train_on=train_on).views
        with pytest.warns(UserWarning, match="texts spell special tokens"):
            (group,) = sft.load(
                Inputs(model=str(model), data=(str(chats),)), sft.SFTConfig(validation=0, train_on=train_on)
            ).data
        assert shown(view) == (list(group.prompt), list(group.responses[0]))
        masks = group.masks or [[True] * len(group.responses[0])]
        assert [p.trained for p in view.pieces if p.part != "prompt"] == list(masks[0])
        ends = [i for i, p in enumerate(view.pieces) if p.part == "end"]
        assert len(ends) == (2 if train_on == "all" else 1) and all(view.pieces[i].trained for i in ends)

    references = Inputs(model=str(model), data=(str(pairs),), references=(str(chats),))
    with pytest.warns(UserWarning, match="texts spell special tokens"):
        ready = reward.load(references, reward.RewardConfig(validation=0))
    judged = ready.data[0].group
    assert (list(judged.prompt), [list(r) for r in judged.responses]) == (views[0][0], [r for _, r in views])
    save(ready.scorer.model, ready.tokenizer, tmp_path / "rm")
    prompt = Reader(dpo.DPOConfig()).read([str(pairs)])[0].prompt  # type: ignore[union-attr]
    (again,) = Judge(str(tmp_path / "rm")).groups([prompt], [[GOOD, BAD]])
    assert [list(r) for r in again.responses] == [r for _, r in views], "evaluation reads them alike"
