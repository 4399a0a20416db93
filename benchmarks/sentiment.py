"""PPO towards positive film reviews, judged by a classifier that training never sees.

A small stand-in for the IMDB task of Ziegler et al. (2019), RL4LMs, trlX and DPO, without a pretrained model: a
language model trained here on 1,600 film reviews continues the first words of other reviews. The proxy reward is a
reward model fitted to one half of the sentences of sentence_polarity; the gold judge, of another architecture, to the
other half.
"""

from __future__ import annotations

import argparse
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, run, scratch, shared, table, train

from hearken.domains.best_of import BestOf
from hearken.domains.text.measuring import TOKENS, Judge
from hearken.domains.text.sampling import best_of, open_frozen, sample
from hearken.errors import UserError
from hearken.feedback.examples import Document, PromptOnly, Thumb
from hearken.feedback.formats import read_examples, write_examples
from hearken.feedback.splits import split_by_prompt
from hearken.loop.tiny_model import TinyModelSize
from hearken.models.layout import Group
from hearken.models.masked import MaskedScorer
from hearken.models.scorers import TokenScorer
from hearken.rollout.sampler import SamplingParameters
from hearken.statistics.bestofn import best_of_n_kl
from hearken.statistics.diversity import distinct_n
from hearken.statistics.intervals import Interval, cluster_bootstrap, paired_difference
from hearken.training.forward import gather

PROMPT_WORDS = 8
NEW_TOKENS = 32
SIZE = TinyModelSize(vocabulary=2048, hidden=128, layers=4, heads=4, context=128)
COMMON = {"trackers": "none", "precision": "fp32", "warmup": 0.05}
PRETRAINING = COMMON | {"epochs": 1.0, "lr": 3e-3, "batch_size": 8, "weight_decay": 0.1, "beta2": 0.99}
PROXY = COMMON | {
    "epochs": 3.0, "lr": 5e-4, "batch_size": 16, "weight_decay": 0.1, "pooling": "mean", "long_prompts": "truncate",
}  # fmt: skip
PPO = COMMON | {
    "lr": 3e-4, "value_lr": 1e-3, "episodes": 10240, "batch_size": 256, "num_generations": 4, "epochs": 1,
    "minibatches": 2,
    "beta": 0.15, "max_new_tokens": NEW_TOKENS, "missing_eos": None, "save_rollouts": False,
}  # fmt: skip
# With a pretraining term on the reviews, and where hardly anything holds it back.
PTX: dict[str, Any] = {"beta": 0.1, "lr": 4e-4, "ptx_coef": 0.3, "ptx_batch": 16}
LOOSE: dict[str, Any] = {"beta": 0.02, "lr": 5e-4, "batch_size": 128, "schedule": "constant"}
COOLER = 0.7

Gold = Callable[[Sequence[str]], np.ndarray]


@dataclass(frozen=True)
class Sampled:
    """One response to each held-out prompt with its figures, (N,) each."""

    texts: list[str]
    gold: np.ndarray
    proxy: np.ndarray
    kl: np.ndarray
    surprise: np.ndarray
    """-log probability under the base model at temperature 1, summed over the response."""
    tokens: np.ndarray


@dataclass(frozen=True)
class Setting:
    """What policies of this task start from, learn on and are judged by.

    Attributes:
        prompts: first words of the held-out reviews.
        starts: those of the others, to sample from in training.
        base: the language model, policy and reference at the start.
        proxy, judge: the reward model and what it says.
        gold, gold_accuracy: the judge that training never sees, and how often it is right on the proxy's sentences.
        theirs: the gold judge's sentences.
    """

    prompts: list[str]
    starts: list[str]
    base: Path
    proxy: Path
    judge: Judge
    gold: Gold
    gold_accuracy: float
    theirs: list[Thumb]


def prepare(settings: argparse.Namespace) -> Setting:
    """Base model, proxy reward and gold judge."""
    settings.work.mkdir(parents=True, exist_ok=True)
    reviews = split_by_prompt(films(80 if settings.fast else 2000), validation=0.2, seed=settings.seed)
    seen, unseen = ([d.text for d in part if isinstance(d, Document)] for part in (reviews.train, reviews.validation))
    prompts = list(dict.fromkeys(map(first_words, unseen)))
    starts = [text for text in dict.fromkeys(map(first_words, seen)) if text not in prompts]
    ours, theirs = sentences(settings.seed, 200 if settings.fast else None)
    gold, accuracy = gold_judge(theirs, ours)
    base = pretrain(seen, settings)
    proxy = fit_proxy(base, ours, settings)
    return Setting(prompts, starts, base, proxy, Judge(str(proxy)), gold, accuracy, theirs)


def main(settings: argparse.Namespace) -> dict[str, Any]:
    work, given = settings.work, prepare(settings)
    prompts, base, judge = given.prompts, given.base, given.judge
    signs = np.array(thumbs(judge, given.theirs)) > 0
    accuracies = {"gold": given.gold_accuracy, "proxy": float(np.mean(signs == [row.label for row in given.theirs]))}

    starts = work / "prompts.jsonl"
    write_examples([PromptOnly(text) for text in given.starts], starts, overwrite=True)
    short = {"episodes": 256} if settings.fast else {}
    policies = {}
    for name, change in (("PPO-ptx", PTX), ("PPO", {}), ("PPO, hardly held", LOOSE)):
        out = work / name.lower().replace(", ", "-").replace(" ", "-")
        options = PPO | change | short | {"seed": settings.seed}
        text = {"ptx": work / "reviews.jsonl"} if change is PTX else {}
        policies[name] = train("ppo", out, options, model=base, data=starts, reward=given.proxy, **text).path

    runs = {"SFT": (base, 1.0), f"SFT at temperature {COOLER}": (base, COOLER)}
    runs |= {name: (path, 1.0) for name, path in policies.items()}
    found = {
        name: responses(path, base, prompts, temperature, given.gold, judge, settings.seed)
        for name, (path, temperature) in runs.items()
    }
    figures = {name: summary(s, found["SFT"], settings.seed) for name, s in found.items()}
    columns = {
        "gold": "gold", "gain": "gain over SFT", "proxy": "proxy", "kl": "KL, nats", "distinct_2": "distinct-2",
        "distinct_2_ratio": "of SFT's", "perplexity": "perplexity", "perplexity_ratio": "of SFT's", "length": "tokens",
    }  # fmt: skip
    table(
        f"Responses of {NEW_TOKENS} tokens to the first {PROMPT_WORDS} words of {len(prompts)} held-out reviews",
        ("policy", *columns.values()),
        [(name, *(row[c] for c in columns)) for name, row in figures.items()],
    )
    print("\nAccuracy on the other's half: " + ", ".join(f"{k} {100 * v:.1f} %" for k, v in accuracies.items()))
    reached = requirements(figures["PPO-ptx"])
    print("\n".join(f"{'reached    ' if ok else 'NOT REACHED'} {what}" for what, ok in reached.items()))
    shown = random.Random(settings.seed).sample(range(len(prompts)), min(20, len(prompts)))
    return {
        "prompts": len(prompts), "accuracy_on_the_other_half": accuracies, "policies": figures, "reached": reached,
        "samples": [{"prompt": prompts[i], **{name: s.texts[i] for name, s in found.items()}} for i in shown],
        "size": SIZE.model_dump(), "pretraining": PRETRAINING, "proxy": PROXY, "ppo": PPO, "ptx": PTX,
        "hardly_held": LOOSE,
    }  # fmt: skip


def films(count: int) -> list[Document]:
    """Reviews, each on one line, negative and positive in turn."""
    rows = [d for d in read_examples(shared("movie_reviews.zip")) if isinstance(d, Document)]
    mixed = [d for pair in zip(rows[: len(rows) // 2], rows[len(rows) // 2 :], strict=True) for d in pair]
    return [Document(" ".join(d.text.split())) for d in mixed[:count]]


def first_words(text: str) -> str:
    return " ".join(text.split()[:PROMPT_WORDS])


def sentences(seed: int, count: int | None) -> tuple[list[Thumb], list[Thumb]]:
    """Two halves of sentence_polarity, the proxy's and the gold judge's. A sentence's first words are its prompt."""
    rows: dict[str, Thumb] = {}
    for document in read_examples(shared("sentence_polarity.zip")):
        if isinstance(document, Document):
            for line in document.text.splitlines():
                words = line.split()
                if len(words) > 4:
                    good = document.metadata["file"].endswith(".pos")
                    rows[" ".join(words)] = Thumb(" ".join(words[:4]), " " + " ".join(words[4:]), good)
    mixed = list(rows.values())
    random.Random(seed).shuffle(mixed)
    half = len(mixed) // 2
    return mixed[:half][:count], mixed[half:][:count]


def gold_judge(rows: Sequence[Thumb], unseen: Sequence[Thumb]) -> tuple[Gold, float]:
    """Logistic regression on tf-idf of words and bigrams: the probability that a text is positive; and its accuracy."""
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
    except ImportError:
        raise UserError("the gold judge needs scikit-learn", 'pip install -e ".[test]"') from None
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=4))
    model.fit([r.prompt + r.response for r in rows], [r.label for r in rows])
    accuracy = model.score([r.prompt + r.response for r in unseen], [r.label for r in unseen])
    return lambda texts: model.predict_proba(texts)[:, 1], float(accuracy)


def pretrain(texts: Sequence[str], settings: argparse.Namespace) -> Path:
    """The base model, which is also the policy that PPO starts from (SFT) and its reference."""
    data = settings.work / "reviews.jsonl"
    write_examples([Document(text) for text in texts], data, overwrite=True)
    untrained = scratch(texts, settings.work, SIZE, settings.seed)
    return train("sft", settings.work / "base", PRETRAINING | {"seed": settings.seed}, model=untrained, data=data).path


def fit_proxy(base: Path, rows: Sequence[Thumb], settings: argparse.Namespace) -> Path:
    """The reward model that PPO is given."""
    data = settings.work / "sentences.jsonl"
    write_examples(rows, data, overwrite=True)
    options = PROXY | {"seed": settings.seed, "validation": 0.0}
    return train("reward", settings.work / "proxy", options, model=base, data=data).path


def thumbs(judge: Judge, rows: Sequence[Thumb]) -> list[float]:
    return [s for (s,) in judge([r.prompt for r in rows], [[r.response] for r in rows])]


def responses(
    path: Path, base: Path, prompts: Sequence[str], temperature: float, gold: Gold, judge: Judge, seed: int, *,
    nucleus: float = 1.0, best: tuple[int, Path] | None = None,
) -> Sampled:  # fmt: skip
    """Sample one response a prompt and score it. KL and perplexity are against the base model at temperature 1.

    Args:
        path: the policy.
        base: the reference.
        prompts: (N,).
        temperature: of the samples.
        gold: the judge.
        judge: the proxy.
        seed: of the samples.
        nucleus: the policy is what is left of it in this nucleus of its own, and its KL is that one's.
        best: (n, reward model): the best of n by that model, whose KL is taken to be log n - (n-1)/n.
    """
    how = SamplingParameters(max_new_tokens=NEW_TOKENS, temperature=temperature)
    policy, reference = (open_frozen(str(p), reserve=NEW_TOKENS) for p in (path, base))
    if nucleus < 1:
        policy = replace(policy, scorer=MaskedScorer(policy.scorer.model, nucleus, path=policy.scorer.path))
    n, by = best or (1, path)
    choice = BestOf(n, str(by))
    drawn = best_of(policy, prompts, 1, choice, how, seed) if best else sample(policy, prompts, 1, how, seed)
    sampled = [s for part in drawn for s in part]
    groups = [Group(policy.encoder.prompt(p) or [], [s.tokens]) for p, s in zip(prompts, sampled, strict=True)]

    def loglikelihood(scorer: TokenScorer, at: float) -> np.ndarray:
        found = gather(lambda layout: scorer(layout, temperature=at).logprobs, groups, TOKENS, scorer)
        return found.sum(1).double().cpu().numpy()

    surprise = -loglikelihood(reference.scorer, 1.0)
    texts = [s.text for s in sampled]
    ended = [[s.finish_reason == "stop"] for s in sampled]
    proxy = np.array([s for (s,) in judge(prompts, [[t] for t in texts], ended)])
    kl = loglikelihood(policy.scorer, temperature) + surprise + best_of_n_kl(n)
    return Sampled(texts, gold(texts), proxy, kl, surprise, np.array([float(len(s.tokens)) for s in sampled]))


def summary(mine: Sampled, sft: Sampled, seed: int) -> dict[str, Any]:
    """The figures of a policy. Each prompt has one response, so rows are what is resampled."""

    def mean(values: np.ndarray) -> Interval:
        return cluster_bootstrap(values, seed=seed)

    def perplexity(rows: np.ndarray) -> float:
        return float(np.exp(rows[:, 0].sum() / rows[:, 1].sum()))

    def ratio(rows: np.ndarray) -> float:
        return perplexity(rows[:, :2]) / perplexity(rows[:, 2:])

    counts = np.stack([mine.surprise, mine.tokens, sft.surprise, sft.tokens], 1)
    figures = {
        "gold": mean(mine.gold), "gain": paired_difference(mine.gold, sft.gold, seed=seed), "proxy": mean(mine.proxy),
        "kl": mean(mine.kl), "distinct_2_ratio": distinct_ratio(mine.texts, sft.texts),
        "perplexity": cluster_bootstrap(counts[:, :2], statistic=perplexity, seed=seed),
        "perplexity_ratio": cluster_bootstrap(counts, statistic=ratio, seed=seed), "length": mean(mine.tokens),
    }  # fmt: skip
    return figures | {"distinct_2": round(distinct_n(mine.texts, 2), 3)}


def distinct_ratio(mine: Sequence[str], theirs: Sequence[str], groups: int = 20) -> Interval:
    """Distinct-2 of mine over theirs. By jackknife over groups: a bootstrap's twins would count as repetition."""
    whole = distinct_n(mine, 2) / distinct_n(theirs, 2)
    kept = [[i for i in range(len(mine)) if i % groups != g] for g in range(groups)]
    parts = np.array([distinct_n([mine[i] for i in k], 2) / distinct_n([theirs[i] for i in k], 2) for k in kept])
    half = 1.96 * np.sqrt((groups - 1) / groups * ((parts - parts.mean()) ** 2).sum())
    return Interval(whole, whole - half, whole + half)


def requirements(ppo: dict[str, Any]) -> dict[str, bool]:
    """What this benchmark asks of PPO."""
    return {
        "gold judge's gain over SFT at the same temperature >= 0.15": ppo["gain"].estimate >= 0.15,
        "KL <= 5 nats a response": ppo["kl"].estimate <= 5,
        "distinct-2 >= 90 % of SFT's": ppo["distinct_2_ratio"].estimate >= 0.9,
        "perplexity under the base model within 15 % of SFT's": abs(ppo["perplexity_ratio"].estimate - 1) <= 0.15,
    }


if __name__ == "__main__":
    run(main, arguments(re.split(r"\n\n", __doc__ or "")[0]))
