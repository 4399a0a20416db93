from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import CHATML, tokenizer, write_base, write_rows
from transformers import AutoModelForCausalLM, AutoTokenizer

from hearken.algorithms.sft import evaluate, load, summed_nll
from hearken.algorithms.sft_options import SFTConfig
from hearken.algorithms.stage import Inputs, train
from hearken.domains.text.data import demonstrations
from hearken.domains.text.loading import open_policy
from hearken.errors import UserError
from hearken.feedback.examples import Comparison, Demonstration
from hearken.models.layout import Group

OFF: dict[str, Any] = {"trackers": "none", "precision": "fp32"}


def metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "run/metrics.jsonl").read_text().splitlines()]


def groups_of(model: Path, data: Path, **more: Any) -> list[Group]:
    return load(Inputs(model=str(model), data=(str(data),)), SFTConfig(validation=0, **more)).data


def shown(tok: Any, group: Group) -> tuple[str, str]:
    """The whole text, and the text with "·" in place of every token that is not trained."""
    (response,) = group.responses
    mask = group.masks[0] if group.masks else [True] * len(response)
    text = "".join(tok.decode([t]) if on else "·" for t, on in zip(response, mask, strict=True))
    return tok.decode(list(group.prompt)) + tok.decode(list(response)), text


def test_plain_text_is_trained_after_the_prompt(world) -> None:
    tok = AutoTokenizer.from_pretrained(world.base)
    row = json.loads(world.demonstrations.read_text().splitlines()[0])
    group = groups_of(world.base, world.demonstrations)[0]
    assert shown(tok, group) == (row["prompt"] + row["completion"] + "<eos>", row["completion"] + "<eos>")


DIALOGUE = [
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": "the fox"},
    {"role": "assistant", "content": "sleeps"},
    {"role": "user", "content": "and the owl"},
    {"role": "assistant", "content": "sings"},
]


@pytest.fixture
def chat(tmp_path: Path) -> Path:
    tok = tokenizer(pad_token="<pad>", eos_token="<|im_end|>", bos_token="<bos>")
    tok.chat_template = CHATML
    return write_base(tmp_path / "chat", tok)


def test_a_chat_template_last_turn(chat: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "d.jsonl", [{"messages": DIALOGUE}])
    tok = AutoTokenizer.from_pretrained(chat)
    (group,) = groups_of(chat, data)
    whole, trained = shown(tok, group)
    rendered = tok.apply_chat_template(DIALOGUE, tokenize=False)
    assert whole == rendered.removesuffix("\n") and trained == "sings<|im_end|>"
    ids = tok.apply_chat_template(DIALOGUE, tokenize=True, return_dict=False)
    assert [*group.prompt, *group.responses[0]] == ids[: len(group.prompt) + len(group.responses[0])]


def test_a_chat_template_all_turns(chat: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "d.jsonl", [{"messages": DIALOGUE}])
    tok = AutoTokenizer.from_pretrained(chat)
    (group,) = groups_of(chat, data, train_on="all")
    whole, trained = shown(tok, group)
    assert whole == tok.apply_chat_template(DIALOGUE, tokenize=False), "token for token what the model will be shown"
    assert trained.replace("·", "") == "sleeps<|im_end|>sings<|im_end|>"
    assert trained.startswith("sleeps<|im_end|>·") and trained.endswith("·sings<|im_end|>·")
    assert group.masks is not None and len(group.masks[0]) == len(group.responses[0])


def test_a_dialogue_without_a_template(world, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "d.jsonl", [{"messages": DIALOGUE}])
    tok = AutoTokenizer.from_pretrained(world.base)
    (last,) = groups_of(world.base, data)
    (both,) = groups_of(world.base, data, train_on="all")
    whole = (
        "\n\nSystem: be kind\n\nHuman: the fox\n\nAssistant: sleeps<eos>\n\nHuman: and the owl\n\nAssistant: sings<eos>"
    )
    assert shown(tok, last) == (whole, " sings<eos>")
    assert shown(tok, both)[0] == whole
    assert shown(tok, both)[1].replace("·", "") == " sleeps<eos> sings<eos>"


def test_a_template_that_refuses_is_one_line(tmp_path: Path) -> None:
    tok = tokenizer(pad_token="<pad>", eos_token="<|im_end|>", bos_token="<bos>")
    tok.chat_template = "{{ raise_exception('roles must alternate') }}"
    base = write_base(tmp_path / "base", tok)
    with pytest.raises(UserError, match=r"refuses a dialogue of system, user.*roles must alternate"):
        groups_of(base, write_rows(tmp_path / "d.jsonl", [{"messages": DIALOGUE}]))


def test_truncation_removes_the_end_and_is_said(world, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "d.jsonl", [{"prompt": "the fox", "completion": " sleeps" * 40}])
    ready = load(Inputs(model=str(world.base), data=(str(data),)), SFTConfig(validation=0, max_length=20))
    (group,) = ready.data
    assert group.tokens == 20 and group.responses[0][-1] != ready.policy.encoder.eos
    assert "1 responses were cut" in ready.facts["truncation"]


@pytest.mark.parametrize("all_turns", [False, True])
def test_the_loss_is_that_of_transformers(chat: Path, tmp_path: Path, all_turns: bool) -> None:
    """Over one batch: -100 on what is not trained, padded, mean over trained tokens."""
    rows = [{"messages": DIALOGUE}, {"messages": DIALOGUE[1:3]}, {"messages": DIALOGUE[:3]}]
    data = write_rows(tmp_path / "d.jsonl", rows)
    train_on = "all" if all_turns else "last"
    out = train(
        "sft", model=chat, data=data, out=tmp_path / "out", batch_size=3, validation=0, train_on=train_on, **OFF
    ).path
    groups = groups_of(chat, data, train_on=train_on)
    width = max(g.tokens for g in groups)
    ids, labels = torch.zeros(3, width, dtype=torch.long), torch.full((3, width), -100)
    attention = torch.zeros_like(ids)
    for i, g in enumerate(groups):
        (response,) = g.responses
        mask = g.masks[0] if g.masks else [True] * len(response)
        sequence = torch.tensor([*g.prompt, *response])
        ids[i, : len(sequence)], attention[i, : len(sequence)] = sequence, 1
        kept = torch.tensor([False] * len(g.prompt) + list(mask))
        labels[i, : len(sequence)][kept] = sequence[kept]
    model = AutoModelForCausalLM.from_pretrained(chat)
    want = model(input_ids=ids, attention_mask=attention, labels=labels).loss
    row = metrics(out)[0]
    assert row["loss"] == pytest.approx(want.item(), abs=1e-5)
    want.backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])
    assert row["grad_norm"] == pytest.approx(norm.item(), rel=1e-4)
    assert row["tokens"] == (labels != -100).sum()


def test_plain_documents(world, tmp_path: Path) -> None:
    tok = AutoTokenizer.from_pretrained(world.base)
    ready = load(Inputs(model=str(world.base), data=(str(world.text),)), SFTConfig(validation=0, max_length=24))
    stream = [t for g in ready.data for t in (*g.prompt, *g.responses[0])]
    text = world.text.read_text()
    assert tok.decode(stream) == f"<bos>{text}<eos>"
    assert all(g.tokens == 24 and g.masks is None for g in ready.data[:-1])
    model = AutoModelForCausalLM.from_pretrained(world.base)
    g = ready.data[0]
    ids = torch.tensor([[*g.prompt, *g.responses[0]]])
    found = evaluate(ready.policy.scorer, [g], 8192)["validation_loss"]
    assert found == pytest.approx(model(input_ids=ids, labels=ids).loss.item(), abs=1e-5)


def test_it_learns_and_the_split_changes_nothing(world, tmp_path: Path) -> None:
    options = OFF | {"lr": 1e-2, "epochs": 3, "batch_size": 12, "validation": 0.2}
    one = train("sft", model=world.base, data=world.demonstrations, out=tmp_path / "one", **options)
    many = train("sft", model=world.base, data=world.demonstrations, out=tmp_path / "many", tokens=64, **options)
    rows = metrics(one.path)
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    a, b = (AutoModelForCausalLM.from_pretrained(x.path).state_dict() for x in (one, many))
    for name, weight in a.items():
        torch.testing.assert_close(b[name], weight, rtol=0, atol=1e-5, msg=name)
    assert one.metrics["validation_loss"] > 0 and one.manifest["data"]["validation_rows"] > 0


def test_bf16_works(world, tmp_path: Path) -> None:
    options = {"lr": 1e-2, "epochs": 3, "batch_size": 12, "trackers": "none", "precision": "bf16"}
    out = train("sft", model=world.base, data=world.demonstrations, out=tmp_path / "out", **options).path
    rows = metrics(out)
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.dtype == torch.float32, "the weights stay fp32"


@pytest.mark.parametrize("lora", [0, 4])
def test_gradient_checkpointing_changes_nothing(world, lora: int) -> None:
    found = []
    for on in (False, True):
        inputs = Inputs(model=str(world.base), data=(str(world.demonstrations),))
        ready = load(inputs, SFTConfig(validation=0, gradient_checkpointing=on, lora=lora))
        scorer = ready.policy.scorer
        if lora:
            for name, p in scorer.named_parameters():
                if "lora_B" in name:
                    torch.nn.init.normal_(p, std=0.1, generator=torch.Generator().manual_seed(1))
        calls: list[int] = []
        scorer.backbone.layers[0].mlp.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        loss = summed_nll(scorer, ready.data[:5])
        loss.backward()
        assert len(calls) == (2 if on else 1), "the layer is computed again in the backward pass"
        found.append((loss.item(), {n: p.grad for n, p in scorer.named_parameters() if p.grad is not None}))
    (loss, grads), (again, others) = found
    assert loss == pytest.approx(again, rel=1e-6) and grads.keys() == others.keys()
    for name, gradient in grads.items():
        torch.testing.assert_close(others[name], gradient, rtol=1e-5, atol=1e-5, msg=name)


def test_adapters_are_drawn_by_the_seed(world, tmp_path: Path) -> None:
    folders = [
        train("sft", model=world.base, data=world.demonstrations, out=tmp_path / str(i), lora=4, seed=s, **OFF).path
        for i, s in enumerate((0, 0, 1))
    ]
    a, b, c = ((f / "adapter_model.safetensors").read_bytes() for f in folders)
    assert a == b != c


def test_a_demonstration_counts_by_its_weight(world) -> None:
    """Weight 2 is what the row twice would be; weight 0 is no row; a comparison's best response has its weight."""
    policy = open_policy(str(world.base), SFTConfig(), SFTConfig())

    def groups(*rows: Any) -> list[Group]:
        return demonstrations(rows, policy.encoder)

    one, other = Demonstration("tell 1 the", " fox"), Demonstration("tell 2 the", " owl sings")
    heavy = groups(replace(one, weight=2.0), other, replace(other, response=" bear", weight=0.0))
    pair = groups(Comparison("tell 1 the", (" fox", " owl"), (0, 1), weight=2.0))
    with torch.no_grad():
        repeated = groups(one, one, other)
        twice = summed_nll(policy.scorer, repeated).item()
        assert summed_nll(policy.scorer, heavy).item() == pytest.approx(twice, rel=1e-5)
        tokens = sum(len(g.responses[0]) for g in repeated)
        assert evaluate(policy.scorer, heavy, 512)["validation_loss"] == pytest.approx(twice / tokens, rel=1e-5)
    assert [g.weight for g in heavy] == [2.0, 1.0] and pair[0].weight == 2.0
