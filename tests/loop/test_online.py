"""Labels that arrive while the policy trains: what is asked about is what was sampled."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from domains.families import family

from hearken.algorithms.ppo_options import PPOConfig
from hearken.algorithms.refitted import RefittedReward
from hearken.domains.base import find_domain
from hearken.domains.text.data import encoded
from hearken.domains.text.encoder import TextEncoder
from hearken.feedback.examples import Comparison
from hearken.feedback.records import ComparisonPayload, Judgment, Labeler
from hearken.feedback.snapshot import load_snapshot, snapshot
from hearken.feedback.store import FeedbackStore
from hearken.loop.online import Refits
from hearken.models.layout import Group
from hearken.rollout.sampler import SamplingParameters


def test_what_was_sampled_reaches_the_refit_token_by_token(tmp_path: Path) -> None:
    """WordPiece gives back neither capitals nor spaces, and a piece that goes on begins the second response."""
    encoder = TextEncoder(family("wordpiece", "chatml"), 64)
    tokenizer, end = encoder.tokenizer, encoder.eos
    prompt = "The fox"
    ids = encoder.prompt(prompt)
    pieces = [i for piece, i in sorted(tokenizer.get_vocab().items()) if piece.startswith("##")]
    sampled = [
        [*tokenizer("sings at night", add_special_tokens=False)["input_ids"], end],
        [pieces[3], pieces[5], *tokenizer("home", add_special_tokens=False)["input_ids"], end],
        [*tokenizer("sings at night", add_special_tokens=False)["input_ids"], end],
        [*tokenizer("an owl", add_special_tokens=False)["input_ids"], pieces[1]],
    ]
    setup: Any = SimpleNamespace(
        policy=SimpleNamespace(encoder=encoder), prompts=SimpleNamespace(ids=[ids], contents=[prompt]),
        reward=lambda groups: torch.zeros(4),
    )  # fmt: skip
    current = RefittedReward(setup, PPOConfig())
    setup.reward([Group(ids, sampled)])
    config = SimpleNamespace(sample=SimpleNamespace(overlap=1), seed=0)
    store = FeedbackStore(tmp_path / "f.db")
    loop: Any = SimpleNamespace(
        project=SimpleNamespace(
            config=config, domain=find_domain("text"), store=lambda: FeedbackStore(tmp_path / "f.db")
        ),
        config=SimpleNamespace(labelers={"people": 1.0}, ai=None),
        relieved=lambda: False,
    )
    how = SamplingParameters(temperature=0.9)
    refits = Refits(loop, 1, current, PPOConfig(), {}, "r01-ppo", how)
    refits.ask(2, 1)

    (item,) = store.items(round=1)
    shown = store.responses_by_id(item.response_ids)
    assert len(item.response_ids) == 3, "the same text twice is one response"
    assert [list(shown[id].token_ids) for id in item.response_ids] == [sampled[0], sampled[1], sampled[3]]
    assert [shown[id].finish_reason for id in item.response_ids] == ["stop", "stop", "length"]
    assert all(one.metadata["step"] == 2 and one.sampling["temperature"] == 0.9 for one in shown.values())
    ann = store.add_labeler(Labeler(name="Ann"))
    payload = ComparisonPayload(response_ids=item.response_ids, ranks=(0, 1, 2))
    store.submit(Judgment(prompt_id=item.prompt_id, labeler_id=ann.id, item_id=item.id, payload=payload))
    (row,) = load_snapshot(snapshot(store, ["comparison"], None, None, tmp_path / "s.parquet").path)[1]
    assert isinstance(row, Comparison)
    (group,) = encoded(row, encoder)
    assert group.responses == [sampled[0], sampled[1], sampled[3]], "the last was cut, and has no end"
    refits.ask(2, 1)
    assert len(list(store.items(round=1))) == 1, "asked again after a kill, it is the same question"
    store.close()
