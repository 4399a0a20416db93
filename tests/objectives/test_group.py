from __future__ import annotations

import numpy as np
import pytest
import torch

from hearken.objectives.group import aggregate, dr_grpo, grpo, informative, reward_to_go, rloo

SCORES = torch.tensor([[1.0, 2.0, 6.0], [3.0, 3.0, 3.0], [0.0, 1.0, 0.0]], dtype=torch.float64)


def test_estimators_against_plain_numpy() -> None:
    for row, scores in enumerate(SCORES.numpy()):
        for i, score in enumerate(scores):
            others = np.delete(scores, i)
            assert rloo(SCORES)[row, i].item() == pytest.approx(score - others.mean(), abs=1e-12)
            assert dr_grpo(SCORES)[row, i].item() == pytest.approx(score - scores.mean(), abs=1e-12)
            want = (score - scores.mean()) / (scores.std(ddof=1) + 1e-4)
            assert grpo(SCORES)[row, i].item() == pytest.approx(want, abs=1e-12)
    assert (grpo(SCORES)[1] == 0).all()
    assert informative(SCORES).tolist() == [True, False, True]


def test_one_response_is_refused() -> None:
    for estimator in (rloo, grpo, dr_grpo):
        with pytest.raises(ValueError, match="two or more"):
            estimator(SCORES[:, :1])


def test_rloo_estimates_the_gradient_without_bias() -> None:
    """On a softmax bandit: the mean over every pair of draws, by their probabilities, is the true gradient."""
    logits = torch.tensor([0.2, -0.5, 1.0], dtype=torch.float64, requires_grad=True)
    reward = torch.tensor([1.0, 3.0, -2.0], dtype=torch.float64)
    logprobs = torch.log_softmax(logits, -1)
    (truth,) = torch.autograd.grad((logprobs.exp() * reward).sum(), logits, retain_graph=True)
    estimate = torch.zeros(3, dtype=torch.float64)
    for i in range(3):
        for j in range(3):
            chance = (logprobs[i] + logprobs[j]).exp().item()
            drawn = torch.tensor([i, j])
            advantages = rloo(reward[drawn][None])[0]
            (gradient,) = torch.autograd.grad((advantages * logprobs[drawn]).mean(), logits, retain_graph=True)
            estimate += chance * gradient
    torch.testing.assert_close(estimate, truth)


def test_reward_to_go_steps_over_holes() -> None:
    rewards = torch.tensor([[1.0, 9.0, 2.0, 4.0]])
    mask = torch.tensor([[1, 0, 1, 1]])
    assert reward_to_go(rewards, mask, 0.5).tolist() == [[1 + 0.5 * 4.0, 0.0, 2 + 0.5 * 4, 4.0]]


@pytest.mark.parametrize("scale", ["token", "sequence", "response", "constant"])
def test_microbatches_add_up(scale: str) -> None:
    torch.manual_seed(0)
    loss = torch.randn(4, 5)
    lengths = torch.tensor([5, 1, 3, 2])
    mask = torch.arange(5) < lengths[:, None]
    count = {"responses": 4, "tokens": 11, "longest": 8}
    whole = aggregate(loss, mask, scale, **count)
    parts = sum(aggregate(loss[part], mask[part], scale, **count) for part in (slice(0, 1), slice(1, 4)))
    torch.testing.assert_close(whole, parts)
    sums = np.array([loss[i, :n].sum().item() for i, n in enumerate(lengths)])
    want = {
        "token": sums.sum() / 11, "sequence": (sums / lengths.numpy()).mean(), "response": sums.mean(),
        "constant": sums.mean() / 8,
    }[scale]  # fmt: skip
    assert whole.item() == pytest.approx(want, abs=1e-6)
