"""Every way to a policy on one frontier: what the gold judge finds gained, against the KL that it cost.

The task, models and judge are those of sentiment.py. Each method runs several times with its own way to hold back: the
KL coefficient, for RFT the number of episodes, for ILQL the weight of its values in decoding. DPO and ILQL learn from
responses of the base model that the proxy scores; the others sample their own.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import HERE, arguments, run, table, train
from sentiment import (
    COMMON,
    NEW_TOKENS,
    PROMPT_WORDS,
    films,
    first_words,
    fit_proxy,
    gold_judge,
    pretrain,
    responses,
    sentences,
)

from hearken.domains.text.respond import respond
from hearken.evaluation.charts import CSS, Series, line_chart
from hearken.evaluation.measure import Judge
from hearken.feedback.examples import Comparison, Document, PromptOnly, Rating
from hearken.feedback.formats import write_examples
from hearken.feedback.splits import split_by_prompt
from hearken.statistics.intervals import cluster_bootstrap, paired_difference

ONLINE = COMMON | {
    "episodes": 2560, "batch": 256, "samples": 4, "max_new_tokens": NEW_TOKENS, "missing_eos": None,
    "save_rollouts": False, "lr": 5e-4,
}  # fmt: skip
CRITIC = ONLINE | {"value_lr": 1e-3}
BETAS = (0.2, 0.05, 0.0125)
METHODS: dict[str, tuple[dict[str, Any], str, Sequence[float]]] = {
    "ppo": (CRITIC | {"epochs": 1, "minibatches": 2}, "beta", BETAS),
    "a2c": (CRITIC, "beta", BETAS),
    "trpo": (ONLINE | {"lr": 1e-3, "max_kl": 0.005}, "beta", BETAS),
    "nlpo": (CRITIC | {"epochs": 1, "minibatches": 2}, "beta", BETAS),
    "rloo": (ONLINE, "beta", BETAS),
    "grpo": (ONLINE, "beta", BETAS),
    "reinforce": (ONLINE, "beta", BETAS),
    "online_dpo": (ONLINE | {"samples": 2}, "beta", (0.5, 0.2, 0.05)),
    "rft": (ONLINE | {"lr": 1e-3}, "episodes", (640, 1280, 2560)),
    "dpo": (COMMON | {"lr": 2e-4, "batch": 32, "epochs": 1.0, "validation": 0.0}, "beta", (0.5, 0.2, 0.05)),
    "ilql": (COMMON | {"lr": 5e-4, "batch": 64, "epochs": 2.0}, "beta", (0.5, 1.0, 2.0)),
}
"""Of each method: options, what holds it back, and the values of that."""
OFFLINE = {"dpo": "rankings", "ilql": "ratings"}
SCORED = 4
"""Responses of the base model to each prompt that the proxy scores."""
STYLE = (
    """svg { --ink: #1b1f24; --muted: #5c6670; --hairline: #d8dde2; --paper: #fff; --series-0: #0b62a4;
--series-1: #b3460b; --series-2: #2a7a3b; --series-3: #7a3b9a; --series-4: #8a6d00; background: #fff; }
"""
    + CSS
)


def main(settings: argparse.Namespace) -> dict[str, Any]:
    """Base, proxy and judge as in sentiment.py; every method; plot."""
    work: Path = settings.work
    work.mkdir(parents=True, exist_ok=True)
    reviews = split_by_prompt(films(80 if settings.fast else 2000), validation=0.2, seed=settings.seed)
    prompts = list(dict.fromkeys(first_words(d.text) for d in reviews.validation if isinstance(d, Document)))
    ours, theirs = sentences(settings.seed, 200 if settings.fast else None)
    gold, _ = gold_judge(theirs, ours)
    base = pretrain([d.text for d in reviews.train if isinstance(d, Document)], settings)
    proxy = fit_proxy(base, ours, settings)
    judge = Judge(str(proxy))

    asked = dict.fromkeys(first_words(d.text) for d in reviews.train if isinstance(d, Document))
    data = write_data([text for text in asked if text not in prompts], base, judge, work, settings.seed)
    start = responses(base, base, prompts, 1.0, gold, judge, settings.seed)
    found: dict[str, list[dict[str, Any]]] = {}
    for method in settings.methods:
        given, knob, values = METHODS[method]
        found[method] = []
        for value in values[:1] if settings.fast else values:
            options = given | {knob: value, "seed": settings.seed}
            if settings.fast and "episodes" in options:
                options |= {"episodes": 64, "batch": 32}
            more = {} if method in OFFLINE else {"reward": proxy}
            rows = data[OFFLINE.get(method, "prompts")]
            policy = train(method, work / f"{method}-{knob}-{value}", options, model=base, data=rows, **more).path
            got = responses(policy, base, prompts, 1.0, gold, judge, settings.seed)
            gain = paired_difference(got.gold, start.gold, seed=settings.seed)
            found[method].append({knob: value, "gain": gain, "kl": cluster_bootstrap(got.kl, seed=settings.seed)})
            print(f"{method} {knob} {value}: gain {gain}, KL {found[method][-1]['kl']}", flush=True)
    rows_ = [
        (method, f"{knob} {point[knob]:g}", point["gain"], point["kl"])
        for method, points in found.items()
        for knob in [METHODS[method][1]]
        for point in points
    ]
    table(
        f"Gold judge's gain over SFT and KL of {NEW_TOKENS} tokens after {PROMPT_WORDS} words, {len(prompts)} prompts",
        ("method", "held by", "gain", "KL, nats"), rows_,
    )  # fmt: skip
    settings.plot.write_text(plot(found), "utf-8")
    return {"frontier": found, "plot": settings.plot.name}


def write_data(prompts: Sequence[str], base: Path, judge: Judge, work: Path, seed: int) -> dict[str, Path]:
    """Prompts for whoever samples; for the others, the base model's responses with the proxy's scores."""
    files = {name: work / f"{name}.jsonl" for name in ("prompts", "rankings", "ratings")}
    answers = respond(base, prompts, SCORED, seed=seed, max_new_tokens=NEW_TOKENS)
    kept = [(p, list(dict.fromkeys(t for t in texts if t.strip()))) for p, texts in zip(prompts, answers, strict=True)]
    kept = [(p, texts) for p, texts in kept if len(texts) > 1]
    scores = judge([p for p, _ in kept], [texts for _, texts in kept])
    low, high = min(map(min, scores)), max(map(max, scores))
    rankings, ratings = [], []
    for (prompt, texts), values in zip(kept, scores, strict=True):
        order = sorted(set(values), reverse=True)
        if len(order) > 1:
            rankings.append(Comparison(prompt, tuple(texts), tuple(order.index(v) for v in values)))
        ratings += [Rating(prompt, t, {"proxy": v}, low, high) for t, v in zip(texts, values, strict=True)]
    write_examples([PromptOnly(p) for p in prompts], files["prompts"], overwrite=True)
    write_examples(rankings, files["rankings"], overwrite=True)
    write_examples(ratings, files["ratings"], overwrite=True)
    return files


def plot(found: dict[str, list[dict[str, Any]]]) -> str:
    """One line a method from the start (no gain, no KL) through its points, as a picture of its own."""
    lines = []
    for method, points in found.items():
        at = sorted((point["kl"].estimate, point["gain"].estimate) for point in points)
        lines.append(Series(method, [0.0, *(kl for kl, _ in at)], [0.0, *(gain for _, gain in at)]))
    chart = line_chart(
        lines, title="Reward and KL of every method", x_label="KL, nats a response", y_label="gold gain over SFT",
        description="The gold judge's gain over the SFT policy against the KL divergence from it, for each method.",
        width=720, height=420,
    )  # fmt: skip
    head, _, rest = chart.partition(">")
    return f"{head}><style>{STYLE}</style>{rest}\n"


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--plot", type=Path, default=HERE / "results" / "sentiment_frontier.svg", help="the picture")
    run(main, parser)
