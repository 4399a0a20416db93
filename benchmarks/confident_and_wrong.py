"""Confident and wrong: labelers who overlook errors in confident answers, and the audited slice that tells.

Questions about short tales whose truth can be read off. A linear reward on words is fitted to comparisons by labelers
of whom a share of confident untruths passes; policies are the pool of sampled answers reweighted by e^{score/β}, which
is what KL-regularised training reaches. No language model is needed, so the whole sweep takes a minute.
"""

from __future__ import annotations

import argparse
import re
from typing import Any

import numpy as np
from common import arguments, run, table
from pessimism import page

from hearken.labelers.simulated import make_panel
from hearken.report.charts import Axis, Series, line_chart
from hearken.statistics.audit import audit, audits_needed
from hearken.statistics.linear_reward import fit_pairs
from hearken.worlds.tales.tasks import Task, confident, parse, trusting

TEMPERATURES = (np.inf, 2.0, 1.0, 0.5, 0.25, 0.1, 0.05)
SLICE = 300
"""Answers of each policy whose truth is looked up."""
_WORD = re.compile(r"[a-z']+")


def main(settings: argparse.Namespace) -> dict[str, Any]:
    prompts, pool = (60, 6) if settings.fast else (600, 24)
    task = Task("answer", settings.seed)
    asked = task.prompts(prompts)
    answers = [[task.response(p, n) for n in range(pool)] for p in asked]
    right = np.array([[float(true(p, a)) for a in some] for p, some in zip(asked, answers, strict=True)])
    sure = np.array([[float(confident(a)) for a in some] for some in answers])
    words = sorted({w for some in answers for a in some for w in _WORD.findall(a.lower())})
    known = {w: i for i, w in enumerate(words)}
    features = np.zeros((prompts, pool, len(words) + 1))
    for i, some in enumerate(answers):
        for j, answer in enumerate(some):
            features[i, j, -1] = sure[i, j]
            for word in set(_WORD.findall(answer.lower())):
                features[i, j, known[word]] = 1
    found: dict[str, Any] = {}
    rows = []
    for missed in (0.0, 0.5, 1.0):
        panel = make_panel(trusting(missed), task.groups, seed=settings.seed)
        rng = np.random.default_rng(settings.seed)
        differences = []
        for i, prompt in enumerate(asked):
            a, b = rng.choice(pool, 2, replace=False)
            ranking = panel.rank(prompt, [answers[i][a], answers[i][b]], settings.seed)[1]
            if ranking.ranks[0] != ranking.ranks[1]:
                won = 1 if ranking.ranks[0] < ranking.ranks[1] else -1
                differences.append(won * (features[i, a] - features[i, b]))
        score = features @ fit_pairs(np.stack(differences), ridge=1.0).theta
        seen = np.array([[np.mean([one.utility(p, a, one.group) for one in panel.labelers]) for a in some]
                         for p, some in zip(asked, answers, strict=True)])  # fmt: skip
        path = []
        for temperature in TEMPERATURES:
            weight = np.exp((score - score.max(1, keepdims=True)) / temperature)
            weight /= weight.sum(1, keepdims=True)
            kl = float((weight * np.log(np.maximum(weight * pool, 1e-300))).sum(1).mean())
            prefers = [
                (w[:, None] / pool * (0.5 + 0.5 * np.sign(s[:, None] - s[None]))).sum()
                for w, s in zip(weight, seen, strict=True)
            ]
            drawn = [int(rng.choice(pool, p=w)) for w in weight]
            slice_ = rng.choice(prompts, min(SLICE, prompts), replace=False)
            start = [right[i, rng.integers(pool)] for i in rng.choice(prompts, min(SLICE, prompts), replace=False)]
            liked = [float(seen[i, drawn[i]] > seen[i].mean()) for i in range(prompts)]
            told = audit(start, [right[i, drawn[i]] for i in slice_], liked, name=f"β = {temperature:g}")
            path.append({
                "kl": kl, "preferred": float(np.mean(prefers)), "right": float((weight * right).sum(1).mean()),
                "confident": float((weight * sure).sum(1).mean()), "alarm": told.alarm, "says": told.says,
            })  # fmt: skip
            rows.append((f"{missed:g}", f"{temperature:g}", f"{kl:.2f}", *(f"{100 * path[-1][k]:.0f}" for k in
                         ("preferred", "right", "confident")), "ALARM" if told.alarm else ""))  # fmt: skip
        found[f"{missed:g}"] = path
    table(
        f"Answers by a reward fitted to labelers who miss a share of confident untruths; {SLICE} audited "
        f"on each side (a fall from 66 % by 10 points takes {audits_needed(0.66, 0.1)} to be found with chance .8, "
        f"by 25 {audits_needed(0.66, 0.25)})",
        ("missed", "β", "KL", "preferred, %", "true, %", "confident, %", "audit"),
        rows,
    )
    plots = [
        (f"Preferred and true, {name} of confident untruths missed", line_chart(
            [Series(k, [p["kl"] for p in path], [p[k] for p in path]) for k in ("preferred", "right")],
            title=f"Preferred and true, missed {name}", x=Axis("KL, nats"), y=Axis(percent=True)))
        for name, path in found.items()
    ]  # fmt: skip
    page(settings.out.with_suffix(".html"), "Confident and wrong", plots)
    return {"paths": found}


def true(prompt: str, answer: str) -> bool:
    """Whether an answer is in form and claims nothing untrue."""
    return parse(prompt, answer).parses


if __name__ == "__main__":
    run(main, arguments(__doc__ or ""))
