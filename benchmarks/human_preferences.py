"""A reward model on 1,796 human comparisons (HH-RLHF, harmless), beside a bag-of-bigrams Bradley–Terry model.

A small language model is pretrained on the dialogues as unlabelled text (both responses of every row, those of the test
rows too, without a word on which was preferred), then fitted to the comparisons. 200 rows are set aside and every
setting below was chosen on them (``--choose`` prints the table); the rest is cross-validated once, in folds by prompt.
With ``--model DIR`` the reward model stands on a pretrained model instead (``hearken model smollm2 DIR`` makes one):
its head alone is fitted (``hearken train reward --head_only``), the ridge chosen inside each fold's training rows;
with ``--lora`` low-rank adapters are trained as well (hours on two cores).
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, percent, run, scratch, shared, table, train

from hearken.algorithms.head_only import Probe
from hearken.algorithms.reward_options import RewardConfig
from hearken.domains.text.data import judgments
from hearken.domains.text.loading import text_encoder
from hearken.domains.text.measuring import Judge
from hearken.errors import UserError
from hearken.feedback.examples import Comparison, Document, content_key
from hearken.feedback.formats import ReadReport, read_examples, write_examples
from hearken.loop.tiny_model import TinyModelSize
from hearken.models.loading import new_reward
from hearken.models.precision import to_read
from hearken.models.scorers import RewardScorer, probe
from hearken.statistics.intervals import cluster_bootstrap, paired_difference

FOLDS = 5
SET_ASIDE = 200
SIZE = TinyModelSize(vocabulary=2048, hidden=128, layers=4, heads=4, context=1024)
PRETRAINING = {
    "epochs": 3.0, "lr": 3e-3, "batch_size": 8, "max_length": 256, "warmup": 0.05, "weight_decay": 0.1, "beta2": 0.99,
    "trackers": "none", "precision": "fp32",
}  # fmt: skip
FITTING: dict[str, Any] = {
    "epochs": 1.0, "lr": 1e-3, "batch_size": 16, "pooling": "mean", "warmup": 0.1, "weight_decay": 0.1,
    "max_length": 384,
    "tokens": 1024,
    "long_prompts": "truncate", "trackers": "none", "precision": "fp32",
}  # fmt: skip
CHOICES: list[dict[str, Any]] = [{"lr": 1e-4}, {"lr": 3e-4}, {"lr": 1e-3}, {"lr": 3e-4, "epochs": 2.0}]
PROBING: dict[str, Any] = {
    "head_only": True, "pooling": "mean", "max_length": 384, "long_prompts": "truncate", "trackers": "none",
}  # fmt: skip
"""Of a pretrained model (``--model``)."""
PROBING_CHOICES: list[dict[str, Any]] = [{}, {"pooling": "last"}]
ADAPTING = FITTING | {"lora": 16, "lr": 1e-3, "epochs": 2.0, "precision": "auto"}
"""Of a pretrained model's adapters (``--model --lora``)."""
ADAPTING_CHOICES: list[dict[str, Any]] = [
    {"lr": 3e-4}, {"lr": 1e-3}, {"lr": 3e-4, "epochs": 3.0}, {"pooling": "last"},
]  # fmt: skip
RIDGE = 0.01  # scikit-learn's C of the bigrams, chosen on the same 200 rows among .003, .01, .03, .1, .3


def main(settings: argparse.Namespace) -> dict[str, Any]:
    rows, skipped = comparisons()
    if settings.fast:
        rows = rows[:160]
    aside = 20 if settings.fast else SET_ASIDE
    order = np.random.default_rng(settings.seed).permutation(len(rows))
    chosen, rest = [rows[i] for i in order[:aside]], [rows[i] for i in order[aside:]]
    language_model = settings.model or pretrain(rows, settings)
    fitting = fitting_of(settings)
    if settings.choose:
        return {"chosen_on": aside, "settings": choose(language_model, chosen, rest, settings)}

    prompts = [content_key(row.prompt) for row in rest]
    folds = folds_by_prompt(prompts, 2 if settings.fast else FOLDS, settings.seed)
    models = {
        "reward model": np.zeros(len(rest)), "bigrams, Bradley–Terry": np.zeros(len(rest)),
        "shorter wins": np.array([len(r.responses[1]) - len(r.responses[0]) for r in rest], float),
    }  # fmt: skip
    probed = Probed(language_model, rest, fitting) if fitting.get("head_only") else None
    seeds = 1 if probed else settings.seeds  # nothing is drawn in a convex fit
    for fold in range(folds.max() + 1):
        test = np.flatnonzero(folds == fold)
        training, held_out = [rest[i] for i in np.flatnonzero(folds != fold)], [rest[i] for i in test]
        for s in range(seeds):
            out = settings.work / f"fold-{fold}-seed-{s}"
            leads = (
                probed.leads(np.flatnonzero(folds != fold), test) if probed
                else fit(language_model, training, held_out, out, settings.seed + s, fitting)
            )  # fmt: skip
            models["reward model"][test] += leads / seeds
        models["bigrams, Bradley–Terry"][test] = bigrams(training, held_out)

    right = {name: 0.5 + 0.5 * np.sign(leads) for name, leads in models.items()}
    accuracy = {name: cluster_bootstrap(r, prompts, seed=settings.seed) for name, r in right.items()}
    ours = right["reward model"]
    ahead = {
        name: paired_difference(ours, r, prompts, seed=settings.seed) for name, r in right.items() if r is not ours
    }
    by_fold = [float(ours[folds == f].mean()) for f in range(folds.max() + 1)]
    table(
        f"HH-harmless: {len(rest)} human comparisons in {folds.max() + 1}-fold cross-validation by prompt "
        f"({skipped} rows with an empty response left out, {aside} set aside)",
        ("model", "accuracy, %", "reward model ahead by, points"),
        [(name, percent(found), percent(ahead[name]) if name in ahead else "") for name, found in accuracy.items()],
    )
    print(f"\nReward model by fold: {', '.join(f'{100 * x:.1f}' for x in by_fold)} %")
    return {
        "rows": len(rest), "set_aside": aside, "skipped": skipped, "accuracy": accuracy, "ahead_of": ahead,
        "by_fold": by_fold, "seeds_averaged": seeds, "fitting": fitting,
    } | (
        {} if settings.model else {"size": SIZE.model_dump(), "pretraining": PRETRAINING}
    ) | ({"ridges": probed.ridges} if probed else {})  # fmt: skip


def fitting_of(settings: argparse.Namespace) -> dict[str, Any]:
    """The settings of the reward model's fit: of the small model made here, or of a pretrained one."""
    fitting = (ADAPTING if settings.lora else PROBING) if settings.model else FITTING
    return fitting | ({"pooling": settings.pooling} if settings.pooling else {})


class Probed:
    """Heads on one model's features of all rows: they are the same in every fold, so they are computed once.

    What ``hearken train reward --head_only`` fits to some of the rows, this fits to them.
    """

    def __init__(self, model: Path, rows: Sequence[Comparison], fitting: dict[str, Any]) -> None:
        options = RewardConfig(**fitting)
        network, tokenizer = new_reward(str(model), options.seed)
        network.config.hearken_pooling = options.pooling
        network.requires_grad_(False)
        scorer = RewardScorer(network)
        probe(scorer, options.max_length)
        scorer.compute_in(to_read(network, None))
        judged = [judgments([last_turn(row)], text_encoder(tokenizer, network, options)) for row in rows]
        self.probe = Probe(scorer, [one for some in judged for one in some], options)
        assert len(self.probe.elements) == len(rows)
        self.ridges: list[float] = []

    def scores(self, training: Sequence[int], test: Sequence[int]) -> list[list[float]]:
        """The scores of the responses of some rows, by a head fitted to others."""
        ridge, _ = self.probe.choose(training)
        self.ridges.append(ridge)
        return self.probe.scores(self.probe.fit(training, ridge), test)

    def leads(self, training: Sequence[int], test: Sequence[int]) -> np.ndarray:
        """(N,) the lead of the preferred response in some rows, by a head fitted to others."""
        return np.array([better - worse for better, worse in self.scores(training, test)])


def last_turn(row: Comparison) -> Comparison:
    """What a reward model is shown: the last human turn and the responses."""
    return Comparison(row.prompt[-1:], row.responses, row.ranks)


def model_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--model``, ``--lora`` and ``--pooling``."""
    parser.add_argument("--model", type=Path, help="a pretrained chat model to start from, instead of one made here")
    parser.add_argument("--lora", action="store_true", help="with --model: train adapters, not the head alone")
    parser.add_argument("--pooling", choices=("mean", "last"), help="read the score there, instead of the mean")


def comparisons() -> tuple[list[Comparison], int]:
    """The usable rows, each with the preferred response first, and how many were left out."""
    report = ReadReport()
    rows = read_examples(shared("hh-harmless.jsonl.gz"), on_bad="skip", report=report)
    return [row for row in rows if isinstance(row, Comparison)], report.skipped.total()


def rankings() -> list[Comparison]:
    """People's rankings of OpenAssistant's replies."""
    return [row for row in read_examples(shared("oasst-trees.jsonl.gz")) if isinstance(row, Comparison)]


def pretrain(rows: Sequence[Comparison], settings: argparse.Namespace) -> Path:
    """A language model of the dialogues and of OpenAssistant's; responses come in an order that no label sets."""
    texts: dict[str, None] = {}
    seen = set()
    for row in [*rows, *rankings()]:
        for response in sorted(row.responses):
            # The whole dialogue once; the other responses after the last turn only.
            prompt = row.prompt[-1:] if row.prompt in seen else row.prompt
            seen.add(row.prompt)
            turns = "".join(
                f"\n\nHuman: {m.content}" if m.role == "user" else f"\n\nAssistant: {m.content}<eos>" for m in prompt
            )
            texts[f"{turns}\n\nAssistant: {response}"] = None
    settings.work.mkdir(parents=True, exist_ok=True)
    data = settings.work / "dialogues.jsonl"
    write_examples([Document(text) for text in texts], data, overwrite=True)
    untrained = scratch(list(texts), settings.work, SIZE, settings.seed)
    options = PRETRAINING | {"seed": settings.seed} | ({"epochs": 0.2} if settings.fast else {})
    return train("sft", settings.work / "lm", options, model=untrained, data=data).path


def folds_by_prompt(prompts: Sequence[str], count: int, seed: int) -> np.ndarray:
    """(N,) the fold of each row; rows with one prompt share it."""
    unique, index = np.unique(prompts, return_inverse=True)
    return (np.random.default_rng(seed).permutation(len(unique)) % count)[index]


def fit(
    model: Path, training: Sequence[Comparison], held_out: Sequence[Comparison], out: Path, seed: int,
    options: dict[str, Any],
) -> np.ndarray:  # fmt: skip
    """Fit a reward model and return its lead of the preferred response on held-out rows, (N,)."""
    judge = fit_reward(model, training, out, options | {"seed": seed})
    scores = judge([r.prompt[-1:] for r in held_out], [r.responses for r in held_out])
    return np.array([better - worse for better, worse in scores])


def fit_reward(model: Path, training: Sequence[Comparison], out: Path, options: dict[str, Any]) -> Judge:
    """Fit a reward model to all of ``training``; it reads the last human turn and the response."""
    data, references = out.with_name(f"{out.name}.jsonl"), out.with_name(f"{out.name}-references.jsonl")
    short = [last_turn(row) for row in training]
    write_examples(short, data, overwrite=True)
    write_examples(short[:64], references, overwrite=True)  # they fix where 0 is, which no comparison sees
    options = options | {"validation": 0.0}
    return Judge(str(train("reward", out, options, model=model, data=data, references=references).path))


def choose(
    model: Path, chosen: Sequence[Comparison], rest: Sequence[Comparison], settings: argparse.Namespace
) -> list[dict[str, Any]]:
    """Every setting, fitted on the rest and judged on the rows set aside (means over the seeds)."""
    found = []
    fitting = fitting_of(settings)
    for number, change in enumerate(
        (ADAPTING_CHOICES if settings.lora else PROBING_CHOICES) if settings.model else CHOICES
    ):
        if fitting.get("head_only"):
            probed = Probed(model, [*rest, *chosen], fitting | change)
            leads = [probed.leads(range(len(rest)), range(len(rest), len(rest) + len(chosen)))]
        else:
            leads = [
                fit(model, rest, chosen, settings.work / f"choice-{number}-{s}", settings.seed + s, fitting | change)
                for s in range(settings.seeds)
            ]
        every = np.stack(leads)
        loss = float(np.logaddexp(0, -every).mean())
        found.append({"change": change, "accuracy": float((every > 0).mean()), "loss": loss})
    table(
        f"Settings on the {len(chosen)} rows set aside",
        ("change", "accuracy, %", "loss, nats"),
        [(row["change"], f"{100 * row['accuracy']:.1f}", f"{row['loss']:.4f}") for row in found],
    )
    return found


def bigrams(training: Sequence[Comparison], held_out: Sequence[Comparison]) -> np.ndarray:
    """The baseline: Bradley–Terry on which words and bigrams a response has (logistic regression on differences)."""
    try:
        from scipy.sparse import vstack
        from sklearn.feature_extraction.text import CountVectorizer
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        raise UserError("the baseline needs scikit-learn", 'pip install -e ".[test]"') from None
    words = CountVectorizer(ngram_range=(1, 2), binary=True, token_pattern=r"\w+|[^\w\s]")
    words.fit([text for row in training for text in row.responses])

    def difference(rows: Sequence[Comparison]) -> Any:
        return (words.transform([r.responses[0] for r in rows]) - words.transform([r.responses[1] for r in rows])) * 1.0

    features = difference(training)
    model = LogisticRegression(C=RIDGE, fit_intercept=False, solver="liblinear")
    model.fit(vstack([features, -features]), np.repeat([1, 0], len(training)))
    return model.decision_function(difference(held_out))


if __name__ == "__main__":
    parser = arguments(re.split(r"\n\n", __doc__ or "")[0])
    parser.add_argument("--choose", action="store_true", help="compare settings on the 200 rows set aside, and stop")
    parser.add_argument("--seeds", type=int, default=2, help="reward models averaged per fold")
    model_option(parser)
    run(main, parser)
