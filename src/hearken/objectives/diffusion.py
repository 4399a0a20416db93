"""Diffusion models as policies: a denoising step is an action, drawn from a Gaussian whose mean the network gives.

Shapes: R pictures; a latent is (R, ...), d numbers each. What a schedule gives (ᾱ, s) is a scalar or broadcasts to the
latents, as (R, 1, 1, 1). Two families:

    DDPM, DDIM      x_t = √ᾱ_t·x_0 + √(1-ᾱ_t)·ε       ᾱ from about 0 (noise) to 1
    flow matching   x_s = (1-s)·x_0 + s·ε              s from 1 (noise) to 0, velocity v = ε - x_0

Log-probabilities and KL are sums over the d numbers, in nats: one unit for both. DPOK (Fan et al. 2023) is `ddpo_clip`
with A = r - V(x_t, c, t), plus β·`step_kl`. Diffusion-DPO (Wallace et al. 2024) and Diffusion-KTO (Li et al. 2024) are
`direct.dpo` and `direct.kto` of `implicit_reward`; the latter's reference point is that of the batch itself.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from hearken.objectives.policy import PolicyLoss

Prediction = Literal["epsilon", "sample", "v_prediction"]
"""What a DDPM network predicts: ε, x_0, or v = √ᾱ·ε - √(1-ᾱ)·x_0 (Salimans and Ho 2022)."""

LARGEST = 20.0
"""Log-ratio beyond which a ratio grows no more, and has no gradient: e^20 would already drown the batch."""


class Gaussian(NamedTuple):
    """N(mean, std²·I) of the next latent."""

    mean: Tensor
    """(R, ...)"""
    std: Tensor
    """Broadcasts to the mean. Where it is 0 the step has no density: it can be taken, not learned from."""


# -- steps ---------------------------------------------------------------------------------------------------------


def clean_and_noise(latent: Tensor, predicted: Tensor, alpha: Tensor, prediction: Prediction) -> tuple[Tensor, Tensor]:
    """What a network's prediction says about x_0 and ε, both (R, ...); ``alpha`` is ᾱ_t."""
    a, b = alpha.sqrt(), (1 - alpha).sqrt()
    if prediction == "epsilon":
        return (latent - b * predicted) / a, predicted
    if prediction == "sample":
        return predicted, (latent - a * predicted) / b
    return a * latent - b * predicted, a * predicted + b * latent


def ddim_step(
    latent: Tensor, predicted: Tensor, alpha: Tensor, alpha_next: Tensor, eta: float = 1.0,
    prediction: Prediction = "epsilon",
) -> Gaussian:  # fmt: skip
    """√ᾱ_p·x̂_0 + √(1-ᾱ_p-σ²)·ε̂, σ = η·√((1-ᾱ_p)/(1-ᾱ_t)·(1-ᾱ_t/ᾱ_p)) (Song et al. 2021, eq. 12 and 16).

    η = 0 is deterministic, η = 1 is DDPM's ancestral step: the posterior of x_p given x_t and x̂_0.

    Args:
        latent: (R, ...) x_t.
        predicted: (R, ...) by the network.
        alpha: ᾱ_t.
        alpha_next: ᾱ_p of the step that follows, nearer to 1.
        eta: η.
        prediction: what the network predicts.
    """
    clean, noise = clean_and_noise(latent, predicted, alpha, prediction)
    variance = eta**2 * (1 - alpha_next) / (1 - alpha) * (1 - alpha / alpha_next)
    mean = alpha_next.sqrt() * clean + (1 - alpha_next - variance).clamp(min=0).sqrt() * noise
    return Gaussian(mean, variance.sqrt())


def flow_step(
    latent: Tensor, velocity: Tensor, sigma: Tensor, sigma_next: Tensor, noise: float = 0.7, *, second: Tensor
) -> Gaussian:
    """Euler-Maruyama of the SDE with flow matching's marginals (Liu et al. 2025, Flow-GRPO).

    With Δ = s_next - s < 0 and a_s = a·√(s/(1-s)), the mean is x + [v + a_s²/2s·(x + (1-s)·v)]·Δ and the deviation
    a_s·√-Δ. a = 0 is Euler's ODE.

    Args:
        latent: (R, ...) x_s.
        velocity: (R, ...) v̂.
        sigma: s.
        sigma_next: of the step that follows, nearer to 0. A last step, to 0, should be taken with ``noise`` 0.
        noise: a.
        second: the schedule's second s, which stands for s in 1 - s at the first step, where that would be 0.
    """
    delta = sigma_next - sigma
    a2 = noise**2 * sigma / (1 - torch.where(sigma < 1, sigma, second))
    pull = a2 / (2 * sigma)
    mean = latent * (1 + pull * delta) + velocity * (1 + pull * (1 - sigma)) * delta
    return Gaussian(mean, (a2 * -delta).sqrt())


def flow_cps_step(latent: Tensor, velocity: Tensor, sigma: Tensor, sigma_next: Tensor, noise: float = 0.7) -> Gaussian:
    """(1-s')·x̂_0 + s'·cos(aπ/2)·ε̂ with deviation s'·sin(aπ/2): as much noise in x as the schedule says, at any number
    of steps (Wang and Yu 2025, coefficients-preserving sampling). s' is ``sigma_next``; a in [0, 1]; shapes as above.
    """
    clean, eps = latent - sigma * velocity, latent + (1 - sigma) * velocity
    angle = noise * math.pi / 2
    return Gaussian((1 - sigma_next) * clean + sigma_next * math.cos(angle) * eps, sigma_next * math.sin(angle))


def log_prob(step: Gaussian, chosen: Tensor) -> Tensor:
    """Log density of the (R, ...) latents that were drawn, (R,) in nats, summed over their d numbers.

    The published code of DDPO and Flow-GRPO takes the mean over d.
    """
    z = (chosen - step.mean) / step.std
    return (-0.5 * z**2 - step.std.log() - 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)


def step_kl(mean: Tensor, ref_mean: Tensor, std: Tensor) -> Tensor:
    """KL(N(mean, std²) ‖ N(ref_mean, std²)) = ‖mean - ref_mean‖²/2std², (R,) in nats, exact.

    Summed over the steps of paths drawn from the policy it is the KL of the paths, which bounds that of the pictures.
    DPOK's published code penalises ‖ε_θ - ε_ref‖² instead, Flow-GRPO's leaves out -Δ in std² and takes the mean over d.
    """
    return ((mean - ref_mean) / std).pow(2).flatten(1).sum(1) / 2


# -- denoising -----------------------------------------------------------------------------------------------------


def ddpm_noised(clean: Tensor, noise: Tensor, alpha: Tensor) -> Tensor:
    """x_t of x_0 and ε, all (R, ...)."""
    return alpha.sqrt() * clean + (1 - alpha).sqrt() * noise


def ddpm_target(clean: Tensor, noise: Tensor, alpha: Tensor, prediction: Prediction) -> Tensor:
    """What a DDPM network ought to predict, (R, ...)."""
    if prediction == "epsilon":
        return noise
    return clean if prediction == "sample" else alpha.sqrt() * noise - (1 - alpha).sqrt() * clean


def flow_noised(clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """x_s of x_0 and ε, all (R, ...); the velocity there is ε - x_0."""
    return (1 - sigma) * clean + sigma * noise


def denoising_error(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each picture, (R, ...) to (R,): the loss of pretraining (Ho et al. 2020, eq. 14)."""
    return (predicted - target).pow(2).flatten(1).mean(1)


def implicit_reward(error: Tensor, ref_error: Tensor) -> Tensor:
    """½(e_ref - e_θ) of `denoising_error` at one t and ε: in place of the log-ratio that diffusion does not give.

    A bound on log π - log π_ref is T·ω(λ_t)·d times this (Wallace et al. 2024); those factors are in β. So
    ``direct.dpo(implicit_reward(e_w, e_w_ref) - implicit_reward(e_l, e_l_ref), beta)`` has the β of the published code
    (5000 for Stable Diffusion). The same t and ε are for the pair and for both models.

    Args:
        error: (R,) of the policy.
        ref_error: (R,) of the reference.
    """
    return 0.5 * (ref_error - error)


# -- rewards -------------------------------------------------------------------------------------------------------


def batch_advantages(scores: Tensor, limit: float = 5.0) -> Tensor:
    """(r - mean of the prompt) / (std of the batch + 1e-4), cut at ±limit (Black et al. 2024, as Flow-GRPO has it).

    Args:
        scores: (B, n), n pictures of each of B prompts.
        limit: largest advantage.

    Returns:
        (B, n); 0 throughout where a prompt's scores are equal.

    Raises:
        ValueError: one picture a prompt, which has nothing to be compared with.
    """
    if scores.shape[-1] < 2:
        raise ValueError("advantages within a prompt need two or more pictures of it")
    centred = scores - scores.mean(-1, keepdim=True)
    return (centred / (scores.std() + 1e-4)).clamp(-limit, limit)


def ddpo_clip(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, clip: float, dimensions: int) -> PolicyLoss:
    """max(-A·ρ, -A·clip(ρ, e^±εd)), ρ = π/π_old of a step: DDPO with importance sampling (Black et al. 2024).

    The published code (DDPO, TRL, Flow-GRPO) has ρ^(1/d), the mean of log-densities, in place of ρ. The bound ε
    here is theirs, per number; at π = π_old the gradient is d times theirs, which is the paper's.

    Args:
        logprobs: (R,) or (R, S) of the steps under the policy being trained, from `log_prob`.
        old_logprobs: same shape, under the policy that sampled.
        advantages: broadcasts to it.
        clip: ε, bound of the log-ratio per number of the latent.
        dimensions: d.

    Returns:
        As `policy.ppo_clip`.
    """
    log_ratio = logprobs - old_logprobs
    ratio = log_ratio.clamp(max=LARGEST).exp()
    band = clip * dimensions
    free, bounded = -advantages * ratio, -advantages * log_ratio.clamp(-band, min(band, LARGEST)).exp()
    kl = torch.expm1(log_ratio.clamp(max=LARGEST)) - log_ratio
    return PolicyLoss(torch.maximum(free, bounded), ratio.detach(), bounded > free, kl.detach())


def reward_weights(scores: Tensor, tau: float) -> Tensor:
    """n·softmax(r/τ) within a prompt: weights of the pretraining loss (Lee et al. 2023; Peters and Schaal 2007).

    τ → ∞ weighs all pictures alike, τ → 0 keeps the best of each prompt.

    Args:
        scores: (B, n).
        tau: τ, in units of the reward.

    Returns:
        (B, n), mean 1 in each row.
    """
    return torch.softmax(scores / tau, -1) * scores.shape[-1]


def refl(scores: Tensor, cap: float | None = None) -> Tensor:
    """-r, or max(0, cap - r): ascent of a differentiable reward, which stops pulling at ``cap`` (Xu et al. 2023).

    ReFL scores x̂_0 at a late step, DRaFT-K (Clark et al. 2024) the picture, with the gradient of the last K steps. The
    published ReFL code has cap 2, and leaves out the pretraining loss that the paper adds (algorithm 1).

    Args:
        scores: (R,) with the gradient to the pictures.
        cap: reward that is enough; none by default.
    """
    return -scores if cap is None else torch.relu(cap - scores)
