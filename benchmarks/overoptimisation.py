"""Over-optimisation in the tale world: proxy and gold reward against √KL, with Gao's two forms fitted.

The language model, the labels and the labelers are those of `hearken quickstart`, which is run first where --work has
none yet. Best-of-n is by the unbiased estimator for rewards of several label counts and sizes; PPO is held so loosely
that it can be fooled, by the fewest and the most labels, and doubting the fewest; DPO, IPO and KTO are measured on both
after several numbers of epochs.
"""

from __future__ import annotations

import argparse
import json
import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, run, scratch, table, train
from pessimism import page
from theory.overoptimisation import GaoFit, best_of_n, fit_gao

from hearken import sample
from hearken.domains.text.drift import drift, likelihood_change
from hearken.domains.text.measuring import Judge, measure
from hearken.feedback.examples import Comparison, content_key
from hearken.feedback.formats import read_examples, write_examples
from hearken.loop.project import Project
from hearken.loop.quickstart import FAST, Plan, quickstart
from hearken.loop.tiny_model import TinyModelSize
from hearken.report.charts import Axis, Point, Series, frontier, line_chart
from hearken.statistics.bestofn import best_of_n_kl
from hearken.statistics.divergence import find_divergence
from hearken.statistics.intervals import cluster_bootstrap
from hearken.worlds.tales.world import TaleWorld

LABELED, FEW = (60, 200, 900), (20, 60)
"""Prompts whose judgments a reward model sees, in full and --fast."""
SMALLER = TinyModelSize(vocabulary=2048, hidden=64, layers=1, heads=2, head_width=32, context=192)
EPOCHS = (1.0, 3.0, 9.0), (1.0, 3.0)
"""Of the direct methods, on the fewest and on the most labels."""
DIRECT: dict[str, dict[str, Any]] = {"dpo": {"lr": 3e-4}, "ipo": {"lr": 3e-4}, "kto": {"lr": 3e-4}}
LOOSE = {"beta": 0.01, "ptx_coef": 0.0, "episodes": 5760}
QUIET = {"trackers": "none"}


def main(settings: argparse.Namespace) -> dict[str, Any]:
    plan = FAST if settings.fast else Plan()
    folder = settings.work / "project"
    if not (folder / "evaluation.json").exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        quickstart(folder, seed=settings.seed, fast=settings.fast)
    project, world = Project(folder), TaleWorld(settings.seed)
    rewards = fit_rewards(settings, plan, project)
    curves = best_of_curves(settings, plan, project, world, rewards)
    ppo = ppo_curves(settings, plan, project, world, rewards)
    direct = direct_points(settings, plan, project, world, rewards)
    figures(settings, curves, ppo, direct)
    return {
        "rewards": {n: r["accuracy"] for n, r in rewards.items()},
        "best_of_n": curves,
        "ppo": ppo,
        "direct": direct,
    }


def fit_rewards(settings: argparse.Namespace, plan: Plan, project: Project) -> dict[str, dict[str, Any]]:
    """Reward models by label count, and the smaller one on all labels."""
    snapshot = Path(project.snapshot("train"))
    rows = [r for r in read_examples(snapshot) if isinstance(r, Comparison)]
    prompts = list(dict.fromkeys(content_key(r.prompt) for r in rows))
    held_out, references = Path(project.snapshot("validation")), project.path / "data" / "references.jsonl"
    base, corpus = project.artifacts / "r00-sft", project.path / "data"
    texts = [getattr(r, "text", "") for r in read_examples(corpus / "corpus.jsonl")]
    small = scratch(texts, settings.work, SMALLER, settings.seed)
    small = train(
        "sft", settings.work / "small-sft", plan.sft | QUIET, model=small, data=corpus / "demonstrations.jsonl"
    ).path
    found: dict[str, dict[str, Any]] = {}
    counts = sorted({min(n, len(prompts)) for n in (FEW if settings.fast else LABELED)})
    for name, model, count in [*((f"{n} prompts", base, n) for n in counts), ("all, smaller", small, len(prompts))]:
        kept = set(prompts[:count])
        data = settings.work / f"labels-{count}.parquet"
        if not data.exists():
            write_examples([r for r in rows if content_key(r.prompt) in kept], data, "snapshot")
        out = settings.work / f"reward-{slug(name)}"
        made = train("reward", out, plan.reward | QUIET, model=model, data=data, references=references,
                     validation=held_out)  # fmt: skip
        found[name] = {"path": made.path, "accuracy": made.metrics.get("accuracy", math.nan), "data": data}
    return found


def slug(name: str) -> str:
    """A name as that of a folder."""
    return name.replace(" = ", "-").replace(", ", "-").replace(" ", "-")


def fewest_and_most(rewards: dict[str, Any]) -> list[str]:
    """The reward models of fewest and of most labels, of those of the same size."""
    names = [name for name in rewards if name.endswith("prompts")]
    return [names[0], names[-1]]


def best_of_curves(
    settings: argparse.Namespace, plan: Plan, project: Project, world: TaleWorld, rewards: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Proxy and gold of the best of n, from one pool of responses of SFT."""
    count, size = (6, 16) if settings.fast else (60, 256)
    prompts = [str(p) for p in project.held_out(count)]
    how = project.config.sample.parameters.model_dump()
    pool = sample(project.artifacts / "r00-sft", prompts, size, seed=settings.seed, **how)
    gold = [[world.gold(p, t) for t in texts] for p, texts in zip(prompts, pool, strict=True)]
    sizes = [n for n in (1, 2, 4, 8, 16, 32, 64, 128, 256) if n <= size]
    d = [math.sqrt(best_of_n_kl(n)) for n in sizes]
    found: dict[str, Any] = {"n": sizes, "sqrt_kl": d}
    rows = []
    for name, reward in rewards.items():
        proxy = Judge(str(reward["path"]))(prompts, pool)
        golds, proxies = (
            [float(np.mean([best_of_n(p, side, n) for p, side in zip(proxy, what, strict=True)])) for n in sizes]
            for what in (gold, proxy)
        )
        fit = fit_gao(d, np.array(golds) - golds[0], "best_of_n")
        found[name] = {"gold": golds, "proxy": proxies, **said(fit)}
        rows.append((name, f"{100 * reward['accuracy']:.1f}", *(f"{g:.2f}" for g in (golds[0], max(golds), golds[-1])),
                     sizes[int(np.argmax(golds))], f"{proxies[-1] - proxies[0]:.2f}", *shown(fit)))  # fmt: skip
    table(
        f"Best of n by reward models, {len(prompts)} held-out prompts, pool of {size}; fit d(α - βd)",
        ("reward model", "accuracy, %", "gold at n = 1", "highest", f"at n = {sizes[-1]}", "highest at n",
         "rise of the proxy", "α", "β", "R²"),
        rows,
    )  # fmt: skip
    return found


def ppo_curves(
    settings: argparse.Namespace, plan: Plan, project: Project, world: TaleWorld, rewards: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """PPO's way by the rewards of fewest and of most labels, and doubting that of fewest."""
    options = plan.ppo | LOOSE | QUIET | ({"episodes": 72} if settings.fast else {}) | {"seed": settings.seed}
    found: dict[str, Any] = {}
    rows = []
    few, most = fewest_and_most(rewards)
    arms: list[tuple[str, str, dict[str, Any]]] = [
        (few, "believed", {}), (most, "believed", {}), (few, "linear c = 2", {"pessimism": 2.0}),
        (few, "linear c = 8", {"pessimism": 8.0}), (few, "heads c = 2", {"pessimism": 2.0, "width": "heads"}),
    ]  # fmt: skip
    for labels, doubt, more in arms[:3] if settings.fast else arms:
        name, reward = f"{labels}, {doubt}", rewards[labels]["path"]
        out = settings.work / f"ppo-{slug(name)}"
        sft = project.artifacts / "r00-sft"
        train(
            "ppo", out, options | more, model=sft, data=project.path / "data" / "prompts.jsonl", reward=reward, ref=sft
        )
        steps: dict[int, list[tuple[float, float, float]]] = {}
        judge = Judge(str(reward))
        logged = [json.loads(line) for line in (out / "run" / "rollouts.jsonl").open(encoding="utf-8")]
        plain = judge([r["prompt"] for r in logged], [[r["completion"]] for r in logged])
        for row, scores in zip(logged, plain, strict=True):
            gold = world.gold(row["prompt"], row["completion"])
            steps.setdefault(row["step"], []).append((row["kl"], scores[0], gold))
        means = [np.mean(steps[s], axis=0) for s in sorted(steps)]
        kl, proxy, gold = (np.array([m[i] for m in means]) for i in range(3))
        d = np.sqrt(np.maximum(np.maximum.accumulate(kl), 0))
        parted = find_divergence(sorted(steps), proxy.tolist(), gold.tolist())
        fit = fit_gao(d, gold - gold[0], "rl") if len(np.unique(d[d > 0])) > 1 else None
        found[name] = {"sqrt_kl": d.tolist(), "proxy": proxy.tolist(), "gold": gold.tolist(),
                       "fooled": bool(parted and parted.fooled), "fit": said(fit) if fit else None}  # fmt: skip
        rows.append((name, f"{kl[-1]:.1f}", f"{proxy[0]:.2f} → {proxy[-1]:.2f}", f"{gold[0]:.2f} → {gold[-1]:.2f}",
                     f"{gold.max():.2f}", "yes" if found[name]["fooled"] else "no",
                     *(shown(fit) if fit else ("", "", ""))))  # fmt: skip
    table(
        "PPO, loosely held, by rewards of few and of many labels, believed and doubted; fit d(α - β log d)",
        ("reward", "KL at the end", "proxy", "gold", "gold at its best", "fooled", "α", "β", "R²"),
        rows,
    )
    return found


def direct_points(
    settings: argparse.Namespace, plan: Plan, project: Project, world: TaleWorld, rewards: dict[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """DPO, IPO and KTO after several numbers of epochs on few and on many labels, with the likelihood of responses."""
    sft = project.artifacts / "r00-sft"
    prompts = project.held_out(12 if settings.fast else 200)
    held_out = [r for r in read_examples(project.snapshot("validation")) if isinstance(r, Comparison)]
    how = project.config.sample.parameters
    before = measure(str(sft), None, prompts, how, settings.seed + 1).texts
    found, rows = [], []
    passes = dict(zip(fewest_and_most(rewards), ((1.0,), ()) if settings.fast else EPOCHS, strict=True))
    for labels, stage, epochs in [(n, s, e) for n, some in passes.items() for s, e in product(DIRECT, some)]:
        out = settings.work / f"{stage}-{slug(labels)}-{epochs:g}"
        options = DIRECT[stage] | QUIET | {"epochs": epochs, "batch_size": 16, "seed": settings.seed, "validation": 0.0}
        train(stage, out, options, model=sft, data=rewards[labels]["data"])
        seen = measure(str(out), str(sft), prompts, how, settings.seed + 1)
        gold = cluster_bootstrap([world.gold(str(p), t) for p, t in zip(prompts, seen.texts, strict=True)])
        judge = Judge(str(rewards[labels]["path"]))
        proxy = np.mean([s[0] for s in judge(prompts, [[t] for t in seen.texts])])
        better, worse = likelihood_change(str(out), str(sft), held_out)
        texts = drift(prompts, seen.texts, before)
        found.append({"labels": labels, "stage": stage, "epochs": epochs, "kl": float(np.mean(seen.kl)), "gold": gold,
                      "proxy": float(proxy), "preferred": better, "other": worse,
                      "distinct_2": texts.distinct_2, "self_bleu": texts.self_bleu})  # fmt: skip
        rows.append((labels, stage.upper(), f"{epochs:g}", f"{np.mean(seen.kl):.1f}", str(gold), f"{proxy:.2f}",
                     f"{better.estimate:+.1f}", f"{worse.estimate:+.1f}",
                     f"{texts.distinct_2[0]:.2f} → {texts.distinct_2[1]:.2f}"))  # fmt: skip
    table(
        "Direct methods: log π/π_ref of held-out preferred and other responses, in nats; proxy: the reward model "
        "of the same labels",
        ("labels", "method", "epochs", "KL", "gold", "proxy", "preferred", "other", "distinct-2"),
        rows,
    )
    return found


def said(fit: GaoFit) -> dict[str, float]:
    return {"alpha": fit.alpha, "beta": fit.beta, "peak": fit.peak, "r2": fit.r2}


def shown(fit: GaoFit) -> tuple[str, str, str]:
    return f"{fit.alpha:.2f}", f"{fit.beta:.2f}", f"{fit.r2:.2f}"


def figures(
    settings: argparse.Namespace, curves: dict[str, Any], ppo: dict[str, Any], direct: list[dict[str, Any]]
) -> None:
    """Gold over √KL: best-of-n by reward model, PPO by labels and doubt, direct methods beside PPO on their labels."""
    names = [n for n in curves if n not in ("n", "sqrt_kl")]
    plots = [
        (f"Best of n: {what}", line_chart([Series(n, curves["sqrt_kl"], curves[n][what]) for n in names],
                                          title=f"Best of n, {what}", x=Axis("√KL, √nats"), y=Axis(what)))
        for what in ("gold", "proxy")
    ]  # fmt: skip
    plots += [
        (f"PPO: {what}", line_chart([Series(n, found["sqrt_kl"], found[what]) for n, found in ppo.items()],
                                    title=f"PPO, {what}", x=Axis("√KL reached, √nats"), y=Axis(what)))
        for what in ("gold", "proxy")
    ]  # fmt: skip
    for labels in dict.fromkeys(found["labels"] for found in direct):
        way = ppo[f"{labels}, believed"]
        points = [Point("PPO", way["sqrt_kl"][-1], way["gold"][-1])] + [
            Point(f"{d['stage'].upper()} {d['epochs']:g}", math.sqrt(max(d["kl"], 0.0)), *d["gold"],
                  style=1 + list(DIRECT).index(d["stage"]))
            for d in direct if d["labels"] == labels
        ]  # fmt: skip
        plots.append((
            f"Direct methods by epochs on held-out prompts, and PPO on its own: {labels}",
            frontier(points, [Series("PPO", way["sqrt_kl"], way["gold"])], title=f"Direct methods and PPO, {labels}",
                     x_label="√KL, √nats", y_label="gold"),
        ))  # fmt: skip
    page(settings.out.with_suffix(".html"), "Over-optimisation in the tale world", plots)


if __name__ == "__main__":
    run(main, arguments(__doc__ or ""))
