"""The theory of learning from comparisons, in simulation: pessimism, rankings, optimism, memory, over-optimisation.

1. Offline: the maximum-likelihood choice stays bad while the pessimistic one becomes good (Zhu, Jordan, Jiao 2023).
2. Plackett-Luce on whole rankings against the same rankings split into pairs, and one pair a prompt.
3. Online: regret of optimistic duels against uniform ones.
4. Preferences over trajectories: a policy without memory against one with.
5. Best-of-n under heavy-tailed and Gaussian error of the proxy, with Gao's form fitted.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, run, table
from theory.duels import Arms, duel, growth, optimistic, recall_problem, uniform
from theory.overoptimisation import expected_best_of_n, fit_gao, gaussian, student_2
from theory.rankings import fit_rankings

from hearken.report.charts import CSS, Axis, Reference, Series, line_chart
from hearken.statistics.bestofn import best_of_n_kl
from hearken.statistics.linear_reward import LinearFit, fit_pairs

PHI = np.array([[1.0, 1, 0], [1, 0, 0], [0, 0, 0], [0, 1, 0]])
THETA = np.array([-1.0, 0.1, 0.9])
SUM_ZERO = np.linalg.svd(np.eye(3) - 1 / 3)[0][:, :2]
CAUTIONS = (0.0, 0.5, 1.0, 2.0, 4.0, 16.0)
SIZES, RANKED = (4, 9), (50, 200, 800)
"""Responses of a ranking, and rankings."""


def offline(settings: argparse.Namespace) -> dict[str, Any]:
    """Sub-optimality by n and c, and the error of θ in Σ's norm."""
    rng = np.random.default_rng(settings.seed)
    values = PHI @ THETA
    differences = np.stack([PHI[0] - PHI[1], PHI[1] - PHI[2]])
    chance = 1 / (1 + np.exp(-differences @ THETA))
    found: dict[int, dict[str, Any]] = {}
    for n in (20, 100, 500, 1000, 5000):
        lost, error = [], []
        for _ in range(20 if settings.fast else settings.repeats):
            counts = np.array([n - 1, 1])
            fit = fit_pairs(differences @ SUM_ZERO, rng.binomial(counts, chance) / counts, counts, norm=2.0)
            design = (differences * counts[:, None]).T @ differences / n
            whole = LinearFit(SUM_ZERO @ fit.theta, design, design, design, n, fit.ridge)
            lost.append([values.max() - values[np.argmax(whole.pessimistic(PHI, c, PHI[2]))] for c in CAUTIONS])
            away = whole.theta - THETA
            error.append(float(np.sqrt(away @ design @ away)))
        found[n] = {"lost": dict(zip(map(str, CAUTIONS), np.mean(lost, 0), strict=True)), "error": np.mean(error)}
    table(
        "Value lost by the choice θ̂·φ - c·width (c = 0: maximum likelihood), and ‖θ̂ - θ‖ in Σ's norm",
        ("n", *(f"c = {c:g}" for c in CAUTIONS), "error of θ"),
        [(n, *(f"{v:.3f}" for v in f["lost"].values()), f"{f['error']:.3f}") for n, f in found.items()],
    )
    return {str(n): f for n, f in found.items()}


def rankings(settings: argparse.Namespace) -> dict[str, Any]:
    """Root mean squared error of θ by likelihood and n."""
    rng = np.random.default_rng(settings.seed)
    found: dict[str, dict[str, float]] = {}
    for k in SIZES:
        for n in RANKED[:2] if settings.fast else RANKED:
            errors = []
            for _ in range(3 if settings.fast else max(settings.repeats // 4, 2)):
                theta = rng.normal(size=5)
                theta *= 2 / np.linalg.norm(theta)
                x = _ranked(rng, n, k, theta)
                pair = _ranked(rng, n, 2, theta)
                fits = (fit_rankings(x), fit_rankings(x, split=True), fit_pairs(pair[:, 0] - pair[:, 1], ridge=1e-6))
                errors.append([np.linalg.norm(f.theta - theta) for f in fits])
            whole, split, single = np.sqrt(np.mean(np.square(errors), axis=0))
            found[f"K={k} n={n}"] = {"plackett_luce": whole, "split": split, "one_pair": single}
    table(
        "Error of θ (root mean square): Plackett-Luce, the same rankings split into pairs, one pair a prompt",
        ("rankings", "Plackett-Luce", "split", "split / Plackett-Luce", "one pair"),
        [
            (name, *(f"{x:.3f}" for x in (f["plackett_luce"], f["split"], f["split"] / f["plackett_luce"])),
             f"{f['one_pair']:.3f}")
            for name, f in found.items()
        ],
    )  # fmt: skip
    found |= limits(settings, rng)
    return found


def limits(settings: argparse.Namespace, rng: np.random.Generator) -> dict[str, dict[str, float]]:
    """The same without repeating it: errors x √n as n grows, from the covariance of one large sample."""
    found: dict[str, dict[str, float]] = {}
    for k in SIZES:
        n = 300 if settings.fast else 4000
        x = _ranked(rng, n, k, np.array([2.0, 0, 0, 0, 0]))
        errors = [float(np.sqrt(np.trace(fit_rankings(x, split=halves).covariance) * n)) for halves in (False, True)]
        found[f"K={k}, as n grows"] = {"plackett_luce": errors[0], "split": errors[1]}
    table(
        "Error of θ (root mean square) times √n, as n grows",
        ("rankings", "Plackett-Luce", "split", "split / Plackett-Luce"),
        [
            (name, f"{f['plackett_luce']:.3f}", f"{f['split']:.3f}", f"{f['split'] / f['plackett_luce']:.3f}")
            for name, f in found.items()
        ],
    )
    return found


def _ranked(rng: np.random.Generator, n: int, k: int, theta: np.ndarray) -> np.ndarray:
    x = rng.normal(size=(n, k, len(theta)))
    order = np.argsort(-(x @ theta + rng.gumbel(size=(n, k))), axis=1)
    return np.take_along_axis(x, order[:, :, None], axis=1)


def online(settings: argparse.Namespace) -> dict[str, np.ndarray]:
    """Mean cumulated regret, optimistic and uniform, with and without memory."""
    rounds, repeats = (200, 1) if settings.fast else (settings.rounds, max(settings.repeats // 40, 2))
    bandit: dict[str, list[np.ndarray]] = {"optimistic": [], "uniform": []}
    recall: dict[str, list[np.ndarray]] = {"with memory": [], "without memory": []}
    for i in range(repeats):
        rng = np.random.default_rng([settings.seed, i])
        x = rng.normal(size=(10, 4))
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        theta = rng.normal(size=4)
        theta *= 2 / np.linalg.norm(theta)
        arms = Arms([row[None] for row in x])
        bandit["optimistic"].append(duel(arms, theta, rounds, optimistic(), seed=i))
        bandit["uniform"].append(duel(arms, theta, rounds, uniform, seed=i))
        for name, memory in (("with memory", True), ("without memory", False)):
            policies, truth, best = recall_problem(2, 2, memory=memory)
            recall[name].append(duel(policies, truth, rounds, optimistic(), best=best, seed=i))
    found = {name: np.mean(runs, axis=0) for name, runs in (bandit | recall).items()}
    table(
        f"Regret after {rounds} comparisons, mean of {repeats} problems (growth: 1 is linear)",
        ("problem", "compared", "at half time", "at the end", "growth"),
        [
            (
                problem,
                name,
                f"{found[name][rounds // 2 - 1]:.1f}",
                f"{found[name][-1]:.1f}",
                f"{growth(found[name]):.2f}",
            )
            for problem, names in (("10 arms, d = 4", bandit), ("recall a cue", recall))
            for name in names
        ],
    )
    return found


def fooled() -> dict[str, Any]:
    """Best-of-n by a noisy proxy, by integration."""
    sizes = [2**i for i in range(11)]
    d = [float(np.sqrt(best_of_n_kl(n))) for n in sizes]
    found: dict[str, Any] = {"n": sizes, "sqrt_kl": d}
    rows = []
    for name, noise in (("Student t(2)", student_2()), ("Gaussian", gaussian())):
        proxy, gold = zip(*(expected_best_of_n(noise, n) for n in sizes), strict=True)
        fit = fit_gao(d, gold, "best_of_n")
        found[name] = {"proxy": proxy, "gold": gold, "alpha": fit.alpha, "beta": fit.beta, "r2": fit.r2}
        best = int(np.argmax(gold))
        rows.append(
            (name, f"{gold[best]:.3f} at n = {sizes[best]}", f"{gold[-1]:.3f}", f"{proxy[-1]:.1f}",
             f"{fit.alpha:.2f}", f"{fit.beta:.2f}", f"{fit.r2:.3f}")
        )  # fmt: skip
    table(
        "Best of n by gold N(0, 1) + error, exact, and Gao's form d(α - βd) fitted to gold",
        ("error", "gold at its best", "gold at n = 1024", "proxy at n = 1024", "α", "β", "R²"),
        rows,
    )
    return found


def main(settings: argparse.Namespace) -> dict[str, Any]:
    """All five, and the page of plots."""
    lost, ranked, regret, best = offline(settings), rankings(settings), online(settings), fooled()
    ns = [int(n) for n in lost]
    steps = list(range(1, len(regret["uniform"]) + 1, max(len(regret["uniform"]) // 100, 1)))
    x_log = [float(np.log10(n)) for n in ns]

    def error(name: str, k: int, likelihood: str) -> Series:
        known = [n for n in RANKED if f"K={k} n={n}" in ranked]
        values = [ranked[f"K={k} n={n}"][likelihood] * float(np.sqrt(n)) for n in known]
        return Series(name, [float(np.log10(n)) for n in known], values)

    errors = [float(lost[str(n)]["error"]) for n in ns]
    level = float(np.mean([np.log10(e) + x / 2 for e, x in zip(errors, x_log, strict=True)]))

    def curve(name: str) -> Series:
        return Series(name, steps, [float(regret[name][t - 1]) for t in steps])

    plots = [
        ("Value lost offline, by caution c", line_chart(
            [Series(f"c = {c}", x_log, [lost[str(n)]["lost"][c] for n in ns]) for c in ("0.0", "1.0", "2.0", "16.0")],
            title="Value lost offline", x=Axis("log10 of comparisons"), y=Axis("value lost"))),
        ("Error of θ offline, in Σ's norm", line_chart(
            [Series("θ̂", x_log, [float(np.log10(e)) for e in errors]),
             Series("1/√n", x_log, [level - x / 2 for x in x_log])],
            title="Error of θ offline", x=Axis("log10 of comparisons"), y=Axis("log10 of ‖θ̂ - θ‖"))),
        ("Rankings of K against their pairs one by one", line_chart(
            [error(f"K = {k}{also}", k, likelihood) for k in SIZES
             for also, likelihood in (("", "plackett_luce"), (", pairs", "split"))],
            title="Rankings against their pairs", x=Axis("log10 of rankings"), y=Axis("error of θ times √n"))),
        ("Regret of duels", line_chart(
            [curve("optimistic"), curve("uniform")], title="Regret of duels", x=Axis("comparisons"), y=Axis("regret"))),
        ("Preferences over trajectories", line_chart(
            [curve("with memory"), curve("without memory")], title="Regret with and without memory",
            x=Axis("comparisons"), y=Axis("regret"))),
        ("Gold of the best of n, by error of the proxy", line_chart(
            [Series(name, best["sqrt_kl"], best[name]["gold"]) for name in ("Student t(2)", "Gaussian")],
            title="Gold of the best of n", x=Axis("√KL, √nats"), y=Axis("gold"),
            marks=[Reference(best["sqrt_kl"][4], "n = 16")])),
    ]  # fmt: skip
    page(settings.out.with_suffix(".html"), "Pessimism and optimism", plots)
    return {
        "offline": lost, "rankings": ranked, "best_of_n": best,
        "regret": {name: [float(r[t - 1]) for t in steps] for name, r in regret.items()},
    }  # fmt: skip


def page(path: Path, title: str, plots: list[tuple[str, str]]) -> None:
    """Plots as one HTML page that needs no network."""
    colours = "--ink:#1c1c1a;--muted:#5d5d58;--hairline:#d9d9d2;--paper:#fff;"
    colours += "--series-0:#0b6b62;--series-1:#b4511f;--series-2:#5560a8;--series-3:#8f6a0a;--series-4:#8a4470"
    body = "".join(f"<figure><figcaption>{caption}</figcaption>{svg}</figure>" for caption, svg in plots)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>:root{{{colours}}}'
        "body{font:15px sans-serif;max-width:60rem;margin:2rem auto;display:grid;gap:2rem;"
        f"grid-template-columns:1fr 1fr}}figure{{margin:0}}{CSS}</style>{body}</html>",
        "utf-8",
    )
    print(f"\nPlots: {path}")


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--repeats", type=int, default=200, help="of the offline problem; the others take fewer")
    parser.add_argument("--rounds", type=int, default=2000, help="comparisons of the online problems")
    run(main, parser)
