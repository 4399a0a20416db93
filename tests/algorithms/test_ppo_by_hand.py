"""One whole PPO iteration against a plain padded implementation that shares no code with the package."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_ppo import improve, metrics, spy
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

BETA, GAMMA, LAM, CLIP, VCLIP, VF, LR, VLR, T, PTX = 0.1, 0.97, 0.9, 0.15, 0.1, 0.3, 2e-3, 5e-3, 0.8, 0.3
WARM = 2


def test_one_iteration_by_hand(world, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = spy(monkeypatch)
    tok = AutoTokenizer.from_pretrained(world.sft)
    stream = [tok.bos_token_id, *tok(world.text.read_text())["input_ids"], tok.eos_token_id]
    pieces = [torch.tensor([stream[i : i + 96]]) for i in range(0, len(stream), 96)]
    out = improve(
        world, tmp_path / "out", batch_size=16, episodes=16, num_generations=2, max_new_tokens=4, minibatches=1,
        epochs=3, lr=LR, value_lr=VLR, value_warmup=WARM, beta=BETA, gamma=GAMMA, lam=LAM, clip=CLIP,
        value_clip=VCLIP, vf_coef=VF, temperature=T, missing_eos=-0.5, schedule="linear",
        weight_decay=0.01, max_grad_norm=0.5, tokens=128, ptx=(str(world.text),), ptx_coef=PTX, ptx_batch=len(pieces),
    ).path  # fmt: skip

    # From the package: only what was sampled.
    (rollout,) = seen
    rows = [(list(g.prompt), list(r)) for g in rollout.groups for r in g.responses]
    ended = torch.tensor([s.finish_reason == "stop" for s in rollout.samples])
    assert 0 < ended.sum() < len(rows)
    width = max(len(p) + len(r) for p, r in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    attention, mask = torch.zeros_like(ids), torch.zeros(len(rows), width, dtype=torch.bool)
    for i, (p, r) in enumerate(rows):
        ids[i, : len(p) + len(r)] = torch.tensor(p + r)
        attention[i, : len(p) + len(r)] = 1
        mask[i, len(p) : len(p) + len(r)] = True
    mask = mask[:, 1:]  # column t speaks of token t + 1

    policy = AutoModelForCausalLM.from_pretrained(world.sft)
    reference = AutoModelForCausalLM.from_pretrained(world.sft)
    reward = AutoModelForSequenceClassification.from_pretrained(world.reward)
    critic = AutoModelForSequenceClassification.from_pretrained(world.reward)
    gain, bias = reward.config.hearken_reward_gain, reward.config.hearken_reward_bias

    def logprobs(model: torch.nn.Module) -> torch.Tensor:
        logits = model(input_ids=ids, attention_mask=attention).logits[:, :-1] / T
        return torch.log_softmax(logits, -1).gather(2, ids[:, 1:, None])[..., 0]

    def value(model: torch.nn.Module) -> torch.Tensor:
        hidden = model.model(input_ids=ids, attention_mask=attention).last_hidden_state
        return model.score(hidden)[..., 0] * gain + bias

    with torch.no_grad():
        old, ref = logprobs(policy), logprobs(reference)
        last = attention.sum(1) - 1
        score = value(reward)[torch.arange(len(rows)), last]
        score = torch.where(ended, score, torch.tensor(-0.5))

    def adamw(model: torch.nn.Module, rate: float) -> torch.optim.AdamW:
        two, one = ([p for p in model.parameters() if (p.ndim > 1) == matrix] for matrix in (True, False))
        return torch.optim.AdamW(
            [{"params": two, "weight_decay": 0.01}, {"params": one, "weight_decay": 0.0}],
            lr=rate,
            eps=1e-5,
            fused=False,
        )

    def backwards(values: torch.Tensor, lam: float) -> tuple[torch.Tensor, torch.Tensor]:
        advantages, returns = torch.zeros_like(old), torch.zeros_like(old)
        for i, (p, r) in enumerate(rows):
            ahead = 0.0
            for t in range(len(p) + len(r) - 2, len(p) - 2, -1):
                end = t == len(p) + len(r) - 2
                reward_t = -BETA * (old[i, t] - ref[i, t]) + (score[i] if end else 0.0)
                after = 0.0 if end else values[i, t + 1]
                ahead = reward_t + GAMMA * after - values[i, t] + GAMMA * lam * ahead
                advantages[i, t] = ahead
                returns[i, t] = ahead + values[i, t]
        return advantages, returns

    _, goal = backwards(torch.zeros_like(old), 1.0)
    first = adamw(critic, VLR)
    for update in range(WARM):
        (0.5 * (value(critic)[:, :-1] - goal)[mask] ** 2).mean().backward()
        torch.nn.utils.clip_grad_norm_(critic.parameters(), 0.5)
        for group in first.param_groups:
            group["lr"] = VLR * (1 - update / WARM)
        first.step()
        first.zero_grad()

    with torch.no_grad():
        values = value(critic)[:, :-1]
        advantages, returns = backwards(values, LAM)
        real = advantages[mask]
        advantages = (advantages - real.mean()) / (real.var(unbiased=False) + 1e-8).sqrt()

    optimisers = (adamw(policy, LR), adamw(critic, VLR))
    for update in range(3):
        ratio = torch.exp(logprobs(policy) - old)
        gain_free, gain_cut = ratio * advantages, ratio.clamp(1 - CLIP, 1 + CLIP) * advantages
        v = value(critic)[:, :-1]
        cut = values + (v - values).clamp(-VCLIP, VCLIP)
        loss = -torch.minimum(gain_free, gain_cut)[mask].mean()
        loss = loss + VF * 0.5 * torch.maximum((v - returns) ** 2, (cut - returns) ** 2)[mask].mean()
        for piece in pieces:
            picked = torch.log_softmax(policy(piece).logits[:, :-1], -1).gather(2, piece[:, 1:, None])
            loss = loss - PTX * picked.sum() / sum(x.shape[1] - 1 for x in pieces)
        loss.backward()
        for model, optimiser, rate in zip((policy, critic), optimisers, (LR, VLR), strict=True):
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            for group in optimiser.param_groups:
                group["lr"] = rate * (1 - update / 3)
            optimiser.step()
            optimiser.zero_grad()

    found, start = AutoModelForCausalLM.from_pretrained(out).state_dict(), reference.state_dict()
    moved = max((found[n] - start[n]).abs().max().item() for n in found)
    assert moved > 1e-3
    for name, weight in policy.state_dict().items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=1e-5, msg=name)
    row = metrics(out)[0]
    assert row["score"] == pytest.approx(score.mean().item(), abs=1e-5)
    assert row["clip_fraction"] > 0 and row["value_clip_fraction"] > 0, "both clips were at work"
