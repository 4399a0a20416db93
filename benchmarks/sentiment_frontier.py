"""Every way to a policy on one frontier: what the gold judge finds gained, against the KL that it cost.

The task, models and judge are those of sentiment.py. Each method runs several times with its own way to hold back: the
KL coefficient, for RFT the number of episodes, for ILQL the weight of its values in decoding, for the best of n that
number. DPO and ILQL learn from responses of the base model that the proxy scores; the others sample their own. NLPO's
policy is sampled as it was trained: within its nucleus.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import HERE, arguments, run, table, train
from sentiment import COMMON, NEW_TOKENS, PROMPT_WORDS, prepare, requirements, responses, summary

from hearken import sample
from hearken.algorithms.stage import find_stage
from hearken.domains.text.measuring import Judge
from hearken.feedback.examples import Comparison, PromptOnly, Rating
from hearken.feedback.formats import write_examples
from hearken.report.charts import CSS, Axis, Series, line_chart
from hearken.statistics.intervals import Interval

ONLINE = COMMON | {
    "episodes": 2560, "batch_size": 256, "num_generations": 4, "max_new_tokens": NEW_TOKENS, "missing_eos": None,
    "save_rollouts": False, "lr": 5e-4,
}  # fmt: skip
CRITIC = ONLINE | {"value_lr": 1e-3}
BETAS = (0.2, 0.05, 0.0125)
BEST_OF = "best of n"
METHODS: dict[str, tuple[dict[str, Any], str, Sequence[float]]] = {
    "ppo": (CRITIC | {"epochs": 1, "minibatches": 2}, "beta", BETAS),
    "a2c": (CRITIC, "beta", BETAS),
    "trpo": (ONLINE | {"lr": 1e-3, "max_kl": 0.005}, "beta", BETAS),
    "nlpo": (CRITIC | {"epochs": 1, "minibatches": 2}, "beta", BETAS),
    "rloo": (ONLINE, "beta", BETAS),
    "grpo": (ONLINE, "beta", BETAS),
    "dr_grpo": (ONLINE | {"estimator": "dr_grpo"}, "beta", BETAS),
    "reinforce": (ONLINE, "beta", BETAS),
    "online_dpo": (ONLINE | {"num_generations": 2}, "beta", (0.5, 0.2, 0.05)),
    "rft": (ONLINE | {"lr": 1e-3}, "episodes", (640, 1280, 2560)),
    "dpo": (COMMON | {"lr": 2e-4, "batch_size": 32, "epochs": 1.0, "validation": 0.0}, "beta", (0.5, 0.2, 0.05)),
    "ilql": (COMMON | {"lr": 5e-4, "batch_size": 64, "epochs": 2.0, "polyak": 0.005}, "beta", (0.5, 1.0, 2.0)),
    BEST_OF: ({}, "n", (4, 16, 64)),
}
"""Of each method: options, what holds it back, and the values of that."""
STAGES = {"dr_grpo": "grpo"}
"""Stages that are not called as the method is."""
OFFLINE = {"dpo": "rankings", "ilql": "ratings"}
SCORED = 4
"""Responses of the base model to each prompt that the proxy scores."""
COLUMNS = {
    "gain": "gain over SFT", "kl": "KL, nats", "distinct_2_ratio": "distinct-2, of SFT's",
    "perplexity_ratio": "perplexity, of SFT's",
}  # fmt: skip
FAMILIES = {
    **dict.fromkeys(("ppo", "a2c", "trpo", "nlpo"), 0), **dict.fromkeys(("rloo", "grpo", "dr_grpo", "reinforce"), 1),
    **dict.fromkeys(("dpo", "online_dpo"), 2), "rft": 3, BEST_OF: 3, "ilql": 4,
}  # fmt: skip
"""Colour and dash of a method: with a critic, without, from pairs, by choosing the best, offline with values."""
STYLE = (
    """svg { --ink: #1b1f24; --muted: #5c6670; --hairline: #d8dde2; --paper: #fff; --series-0: #0b62a4;
--series-1: #b3460b; --series-2: #2a7a3b; --series-3: #7a3b9a; --series-4: #8a6d00; background: var(--paper); }
@media (prefers-color-scheme: dark) {
svg { --ink: #e8edf2; --muted: #a3adb8; --hairline: #3a434d; --paper: #14181d; --series-0: #6db3f2;
--series-1: #f2a36d; --series-2: #7fd08f; --series-3: #cf9df0; --series-4: #dcc25a; }
}
"""
    + CSS
)


def main(settings: argparse.Namespace) -> dict[str, Any]:
    """Base, proxy and judge as in sentiment.py; every method; plot."""
    task = prepare(settings)
    work, prompts, base, judge = settings.work, task.prompts, task.base, task.judge
    data = write_data(task.starts, base, judge, work, settings.seed)
    start = responses(base, base, prompts, 1.0, task.gold, judge, settings.seed)
    found: dict[str, list[dict[str, Any]]] = {}
    for method in settings.methods:
        given, knob, values = METHODS[method]
        found[method] = []
        for value in values[:1] if settings.fast else values:
            how: dict[str, Any] = {}
            if method == BEST_OF:
                policy, how["best"] = base, (value, task.proxy)
            else:
                options = given | {knob: value, "seed": settings.seed}
                if settings.fast and "episodes" in options:
                    options |= {"episodes": 64, "batch_size": 32}
                more = {} if method in OFFLINE else {"reward": task.proxy}
                rows, out = data[OFFLINE.get(method, "prompts")], work / f"{method}-{knob}-{value}"
                made = train(STAGES.get(method, method), out, options, model=base, data=rows, **more)
                policy = made.path
                if method == "nlpo":
                    how["nucleus"] = how_nlpo(settings.seed)
            got = responses(policy, base, prompts, 1.0, task.gold, judge, settings.seed, **how)
            figures = summary(got, start, settings.seed)
            found[method].append({knob: value} | {name: figures[name] for name in COLUMNS})
            print(f"{method} {knob} {value}: gain {figures['gain']}, KL {figures['kl']}", flush=True)
    lines = [
        (method, f"{knob} {point[knob]:g}", *(point[name] for name in COLUMNS), "yes" if reaches(point) else "")
        for method, points in found.items()
        for knob in [METHODS[method][1]]
        for point in points
    ]
    title = f"Responses of {NEW_TOKENS} tokens to the first {PROMPT_WORDS} words of {len(prompts)} reviews"
    table(title, ("method", "held by", *COLUMNS.values(), "reaches"), lines)
    settings.plot.write_text(plot(found), "utf-8")
    more: dict[str, Any] = {}
    if "nlpo" in found:  # what the nucleus alone costs and brings
        got = responses(base, base, prompts, 1.0, task.gold, judge, settings.seed, nucleus=how_nlpo(settings.seed))
        figures = summary(got, start, settings.seed)
        more["sft in the nucleus"] = {name: figures[name] for name in COLUMNS}
        print(f"\nSFT in NLPO's nucleus: {', '.join(f'{said} {figures[name]}' for name, said in COLUMNS.items())}")
    return {"frontier": found, "plot": settings.plot.name} | more


def how_nlpo(seed: int) -> float:
    """The nucleus that NLPO's mask leaves."""
    options = find_stage("nlpo").options.parse(METHODS["nlpo"][0] | {"seed": seed}, where="nlpo")
    return float(options.model_dump()["mask_top_p"])


def reaches(figures: dict[str, Interval]) -> bool:
    """Whether a policy has all that sentiment.py asks for."""
    return all(requirements(figures).values())


def redraw(file: Path, picture: Path) -> None:
    """The plot of figures that were written before."""
    frontier = json.loads(file.read_text("utf-8"))["frontier"]
    points = {
        method: [{name: Interval(*point[name]) for name in ("gain", "kl")} for point in found]
        for method, found in frontier.items()
    }
    picture.write_text(plot(points), "utf-8")


def write_data(prompts: Sequence[str], base: Path, judge: Judge, work: Path, seed: int) -> dict[str, Path]:
    """Prompts for whoever samples; for the others, the base model's responses with the proxy's scores."""
    files = {name: work / f"{name}.jsonl" for name in ("prompts", "rankings", "ratings")}
    answers = sample(base, prompts, SCORED, seed=seed, max_new_tokens=NEW_TOKENS)
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
        xs, ys = [0.0, *(kl for kl, _ in at)], [0.0, *(gain for _, gain in at)]
        lines.append(Series(method, xs, ys, style=FAMILIES[method]))
    chart = line_chart(
        lines, title="Reward and KL of every method", x=Axis("KL, nats a response"), y=Axis("gold gain over SFT"),
        description="The gold judge's gain over the SFT policy against the KL divergence from it, for each method.",
        width=720, height=420,
    )  # fmt: skip
    head, _, rest = chart.partition(">")
    return f"{head}><style>{STYLE}</style>{rest}\n"


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--plot", type=Path, default=HERE / "results" / "sentiment_frontier.svg", help="the picture")
    parser.add_argument("--redraw", action="store_true", help="train nothing: draw the figures in --out once more")
    given = parser.parse_args()
    if given.redraw:
        redraw(given.out, given.plot)
    else:
        run(main, parser)
