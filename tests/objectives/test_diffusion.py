from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence

from hearken.objectives import diffusion as d
from hearken.objectives.direct import dpo, kto, kto_reference_point

ALPHAS = torch.linspace(0.9999, 0.99, 1000, dtype=torch.float64).cumprod(0)
SHAPE = (5, 3, 4, 4)


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape or SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def scalar(x: float) -> Tensor:
    return torch.tensor(x, dtype=torch.float64)


# -- steps ---------------------------------------------------------------------------------------------------------


def test_ancestral_step_is_the_ddpm_posterior() -> None:
    x, eps, a, b = noise(0), noise(1), ALPHAS[600], ALPHAS[500]
    clean, _ = d.clean_and_noise(x, eps, a, "epsilon")
    alpha = a / b
    mean = (b.sqrt() * (1 - alpha) * clean + alpha.sqrt() * (1 - b) * x) / (1 - a)
    step = d.ddim_step(x, eps, a, b, eta=1.0)
    torch.testing.assert_close(step.mean, mean)
    torch.testing.assert_close(step.std**2, (1 - b) / (1 - a) * (1 - alpha))


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_ddim_step_against_diffusers(prediction: d.Prediction, eta: float) -> None:
    diffusers = pytest.importorskip("diffusers", reason="needs the extra image: pip install 'hearken[image]'")
    scheduler = diffusers.DDIMScheduler(prediction_type=prediction, clip_sample=False, set_alpha_to_one=False)
    scheduler.set_timesteps(10)
    x, predicted, z = (noise(n).float() for n in range(3))
    for i, t in enumerate(scheduler.timesteps.tolist()):
        follows = scheduler.alphas_cumprod[t - 100] if i < 9 else scheduler.final_alpha_cumprod
        step = d.ddim_step(x, predicted, scheduler.alphas_cumprod[t], follows, eta, prediction)
        theirs = scheduler.step(predicted, t, x, eta=eta, variance_noise=z).prev_sample
        torch.testing.assert_close(step.mean + step.std * z, theirs, atol=2e-6, rtol=2e-6)


def test_the_last_step_to_a_clean_picture_has_no_noise() -> None:
    step = d.ddim_step(noise(0), noise(1), ALPHAS[5], scalar(1.0))
    assert step.std == 0
    torch.testing.assert_close(step.mean, d.clean_and_noise(noise(0), noise(1), ALPHAS[5], "epsilon")[0])


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_a_perfect_prediction_gives_back_picture_and_noise(prediction: d.Prediction) -> None:
    clean, eps, alpha = noise(0), noise(1), ALPHAS[[3, 100, 500, 800, 999]].view(-1, 1, 1, 1)
    x = d.ddpm_noised(clean, eps, alpha)
    seen = d.clean_and_noise(x, d.ddpm_target(clean, eps, alpha, prediction), alpha, prediction)
    torch.testing.assert_close(seen, (clean, eps))


def test_flow_step_without_noise_is_eulers() -> None:
    x, v, s, s2 = noise(0), noise(1), scalar(0.6), scalar(0.5)
    for step in (d.flow_step(x, v, s, s2, 0.0, second=scalar(0.9)), d.flow_cps_step(x, v, s, s2, 0.0)):
        assert step.std == 0
        torch.testing.assert_close(step.mean, x + v * (s2 - s))


def test_flow_step_at_the_first_time_takes_the_second() -> None:
    one, second = scalar(1.0), scalar(0.9)
    step = d.flow_step(noise(0), noise(1), one, second, 0.7, second=second)
    assert step.std.item() == pytest.approx(math.sqrt(0.49 * 1 / 0.1 * 0.1))
    assert torch.isfinite(step.mean).all()


@pytest.mark.parametrize("a", [0.0, 0.7, 1.0])
def test_flow_steps_keep_a_gaussians_variance(a: float) -> None:
    """Of data N(0, ¼) the velocity is known, E[ε - x_0 | x_s] = x·(s - (1-s)/4)/(s² + (1-s)²/4)."""
    grid = torch.linspace(1, 0, 201, dtype=torch.float64)
    x = noise(1, 50_000)
    for i in range(200):
        s, s2 = grid[i], grid[i + 1]
        v = x * (s - (1 - s) / 4) / (s**2 + (1 - s) ** 2 / 4)
        step = d.flow_step(x, v, s, s2, a if i < 199 else 0.0, second=grid[1])
        x = step.mean + step.std * noise(2 + i, 50_000)
    assert x.var().item() == pytest.approx(0.25, abs=0.007)


def test_cps_keeps_the_noise_level_in_one_step() -> None:
    clean, s, s2 = noise(0, 1, 200_000), scalar(0.8), scalar(0.3)
    eps = noise(1, 1, 200_000)
    step = d.flow_cps_step(d.flow_noised(clean, eps, s), eps - clean, s, s2, 0.6)
    x = step.mean + step.std * noise(2, 1, 200_000)
    assert (x - (1 - s2) * clean).std().item() == pytest.approx(0.3, rel=0.01)


# -- densities -----------------------------------------------------------------------------------------------------


def test_log_prob_and_kl_against_torch_distributions() -> None:
    step = d.ddim_step(noise(0), noise(1), ALPHAS[600], ALPHAS[500])
    other = step.mean + 0.1 * noise(2)
    law, ref = (Independent(Normal(mean, step.std.expand_as(mean)), 3) for mean in (step.mean, other))
    drawn = law.sample()
    torch.testing.assert_close(d.log_prob(step, drawn), law.log_prob(drawn))
    torch.testing.assert_close(d.step_kl(step.mean, other, step.std), kl_divergence(law, ref))


def test_kl_against_monte_carlo() -> None:
    step = d.Gaussian(0.1 * noise(0, 1, 6), scalar(0.5))
    ref = d.Gaussian(0.1 * noise(1, 1, 6), scalar(0.5))
    drawn = step.mean + step.std * noise(2, 200_000, 6)
    difference = d.log_prob(step, drawn) - d.log_prob(ref, drawn)
    error = difference.std() / math.sqrt(len(drawn))
    assert abs(difference.mean() - d.step_kl(step.mean, ref.mean, step.std)).item() < 4 * error


def test_kl_of_a_step_from_what_the_networks_predict() -> None:
    """DDIM: κ(ε_θ - ε_ref), κ = √(1-ᾱ_p-σ²) - √(ᾱ_p(1-ᾱ_t)/ᾱ_t); flow: Δ(1 + a²(1-s)/2s)(v_θ - v_ref)."""
    x, one, two, a, b = noise(0), noise(1), noise(2), ALPHAS[600], ALPHAS[500]
    first, second = d.ddim_step(x, one, a, b, 0.8), d.ddim_step(x, two, a, b, 0.8)
    kappa = (1 - b - first.std**2).sqrt() - (b * (1 - a) / a).sqrt()
    torch.testing.assert_close(first.mean - second.mean, kappa * (one - two))
    s, s2 = scalar(0.7), scalar(0.6)
    first, second = (d.flow_step(x, v, s, s2, 0.7, second=scalar(0.9)) for v in (one, two))
    a2 = 0.49 * 0.7 / 0.3
    torch.testing.assert_close(first.mean - second.mean, -0.1 * (1 + a2 * 0.3 / 1.4) * (one - two))


# -- policy gradient -----------------------------------------------------------------------------------------------


def test_ddpo_begins_as_reinforce() -> None:
    mean = (0.1 * noise(0)).requires_grad_()
    step, advantages = d.Gaussian(mean, scalar(0.3)), d.batch_advantages(noise(3, 1, 5)).flatten()
    drawn = (mean + 0.3 * noise(1)).detach()
    logprobs = d.log_prob(step, drawn)
    result = d.ddpo_clip(logprobs, logprobs.detach(), advantages, 1e-4, 48)
    assert (result.ratio == 1).all() and not result.clipped.any() and (result.approx_kl == 0).all()
    assert result.loss.mean().item() == pytest.approx(0, abs=1e-12)
    (ours,) = torch.autograd.grad(result.loss.mean(), mean, retain_graph=True)
    (reinforce,) = torch.autograd.grad((-advantages * logprobs).mean(), mean)
    torch.testing.assert_close(ours, reinforce)


def test_ddpo_bounds_the_log_ratio_per_number() -> None:
    band = 1e-4 * 768
    old = torch.zeros(4, dtype=torch.float64)
    new = torch.tensor([0.5, 1.5, -1.5, 1.5], dtype=torch.float64).mul(band).requires_grad_()
    result = d.ddpo_clip(new, old, torch.tensor([1.0, 1.0, -1.0, -1.0]), 1e-4, 768)
    assert result.clipped.tolist() == [False, True, True, False]
    result.loss.sum().backward()
    assert (new.grad != 0).tolist() == [True, False, False, True]


def test_ddpo_of_a_far_policy_is_finite() -> None:
    new = torch.tensor([900.0, -900.0], requires_grad=True)
    result = d.ddpo_clip(new, torch.zeros(2), torch.tensor([-1.0, -1.0]), 1e-4, 262_144)
    result.loss.sum().backward()
    assert all(torch.isfinite(x).all() for x in (result.loss, result.ratio, result.approx_kl, new.grad))


def test_advantages() -> None:
    scores = torch.tensor([[1.0, 3.0, 2.0], [5.0, 5.0, 5.0]])
    std = scores.std().item() + 1e-4
    torch.testing.assert_close(d.batch_advantages(scores), torch.tensor([[-1.0, 1.0, 0.0], [0, 0, 0]]) / std)
    assert (d.batch_advantages(torch.ones(2, 3)) == 0).all()
    assert d.batch_advantages(torch.tensor([[0.0, 1e6]]), limit=0.5).tolist() == [[-0.5, 0.5]]
    with pytest.raises(ValueError, match="two or more"):
        d.batch_advantages(torch.ones(3, 1))


def test_dpok_of_one_step_and_a_linear_reward_has_its_closed_form() -> None:
    """Max E[w·x] - β·KL(N(μ, σ²) ‖ N(μ_ref, σ²)) is at μ_ref + w·σ²/β."""
    ref, std, w, beta = scalar(0.4).view(1, 1), scalar(0.5), 2.0, 4.0
    mean = ref.clone().requires_grad_()
    adam = torch.optim.SGD([mean], 0.05)
    for number in range(200):
        drawn = (mean + std * noise(number, 4000, 1)).detach()
        step = d.Gaussian(mean.expand(4000, 1), std)
        logprobs = d.log_prob(step, drawn)
        value = w * mean.detach()  # a perfect critic
        loss = d.ddpo_clip(logprobs, logprobs.detach(), w * drawn.flatten() - value.flatten(), 1.0, 1).loss
        adam.zero_grad()
        (loss + beta * d.step_kl(step.mean, ref, std)).mean().backward()
        adam.step()
    assert mean.item() == pytest.approx(0.4 + w * 0.25 / beta, abs=0.02)


def test_a_strong_kl_holds_the_policy() -> None:
    mean, ref, std = noise(0, 3, 2).requires_grad_(), noise(0, 3, 2), scalar(0.5)
    drawn = (mean + std * noise(1, 3, 2)).detach()
    loss = -d.log_prob(d.Gaussian(mean, std), drawn) + 1e9 * d.step_kl(mean, ref, std)
    loss.sum().backward()
    step = torch.linalg.solve(1e9 / 0.25 * torch.eye(6, dtype=torch.float64), mean.grad.flatten())
    assert step.abs().max() < 1e-8  # Newton's step from the reference


# -- rewards -------------------------------------------------------------------------------------------------------


def test_reward_weights_between_pretraining_and_best_of_n() -> None:
    scores, errors = noise(0, 4, 3), noise(1, 4, 3) ** 2
    torch.testing.assert_close((d.reward_weights(scores, 1e9) * errors).mean(), errors.mean())
    best = errors.gather(1, scores.argmax(1, keepdim=True))
    torch.testing.assert_close((d.reward_weights(scores, 1e-6) * errors).mean(), best.mean())
    torch.testing.assert_close(d.reward_weights(scores, 0.3).mean(1), torch.ones(4, dtype=torch.float64))


def test_refl_gradient_of_a_linear_reward() -> None:
    picture, w = noise(0, 5, 4).requires_grad_(), noise(1, 4)
    d.refl(picture @ w).mean().backward()
    torch.testing.assert_close(picture.grad, -w.expand(5, 4) / 5)


def test_refl_stops_at_its_cap() -> None:
    scores = torch.tensor([1.0, 2.5], requires_grad=True)
    loss = d.refl(scores, cap=2.0)
    loss.sum().backward()
    assert loss.tolist() == [1.0, 0.0] and scores.grad is not None and scores.grad.tolist() == [-1.0, 0.0]


@pytest.mark.parametrize("last", [1, 2, 4])
def test_gradient_through_the_last_steps_against_finite_differences(last: int) -> None:
    """DRaFT-K on a network of four pixels: what comes before the last K steps is a constant."""
    grid = torch.linspace(1, 0, 5, dtype=torch.float64)
    theta, start, w = 0.3 * noise(0, 4, 4), noise(1, 2, 4), noise(2, 4)

    def loss(theta: Tensor, frozen: Tensor) -> Tensor:
        x = start
        for i in range(4):
            weights = frozen if i < 4 - last else theta
            x = d.flow_step(x, torch.tanh(x @ weights), grid[i], grid[i + 1], 0.0, second=grid[1]).mean
        return d.refl(x @ w).mean()

    mine = theta.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(mine, theta), mine)
    numeric = torch.zeros_like(theta)
    for i in range(16):
        bump = torch.zeros(16, dtype=torch.float64)
        bump[i] = 1e-6
        up, down = (loss(theta + sign * bump.view(4, 4), theta) for sign in (1, -1))
        numeric.view(-1)[i] = (up - down) / 2e-6
    torch.testing.assert_close(gradient, numeric, atol=1e-8, rtol=1e-6)


# -- from judgments ------------------------------------------------------------------------------------------------


def published_diffusion_dpo(ew: Tensor, el: Tensor, rw: Tensor, rl: Tensor, beta: float) -> Tensor:
    return -torch.nn.functional.logsigmoid(-0.5 * beta * ((ew - el) - (rw - rl)))


def test_diffusion_dpo() -> None:
    ew, el, rw, rl = (noise(n, 6) ** 2 for n in range(4))
    ours = dpo(d.implicit_reward(ew, rw) - d.implicit_reward(el, rl), 50.0)
    torch.testing.assert_close(ours, published_diffusion_dpo(ew, el, rw, rl, 50.0))


def test_diffusion_dpo_at_the_reference() -> None:
    ew, el = (noise(n, 6).pow(2).requires_grad_() for n in range(2))
    loss = dpo(d.implicit_reward(ew, ew.detach()) - d.implicit_reward(el, el.detach()), 2000.0)
    torch.testing.assert_close(loss, torch.full_like(loss, math.log(2)), atol=1e-9, rtol=0)
    loss.sum().backward()
    assert ew.grad is not None and el.grad is not None
    torch.testing.assert_close(ew.grad, torch.full_like(ew, 500.0))
    torch.testing.assert_close(el.grad, torch.full_like(el, -500.0))


def test_diffusion_kto() -> None:
    error, ref, good = noise(0, 6) ** 2, noise(1, 6) ** 2, torch.tensor([1, 0, 1, 1, 0, 0]).bool()
    rewards = d.implicit_reward(error, ref)
    q = max(0.0, (0.5 * (ref - error)).mean().item())
    point = kto_reference_point(rewards)
    assert point.item() == pytest.approx(q)
    gain = 3.0 * (0.5 * (ref - error) - q)
    utility = torch.sigmoid(torch.where(good, gain, -gain))
    torch.testing.assert_close(kto(rewards, good, point, 3.0), 1 - utility)


def test_denoising_error_is_of_each_picture() -> None:
    a, b = noise(0), noise(1)
    torch.testing.assert_close(
        d.denoising_error(a, b), torch.stack([((x - y) ** 2).mean() for x, y in zip(a, b, strict=True)])
    )
