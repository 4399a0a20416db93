"""A realistic run, made up: what the quickstart would report, for the tests and for looking at the page."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from reports import exactly

from hearken.evaluation.compare import calibration
from hearken.evaluation.results import EvaluationResult, JudgedBy, Likelihood, Phrase, PolicyResult, Spread, Standing
from hearken.evaluation.reward_card import Slice
from hearken.feedback.examples import Message
from hearken.report.contents import (
    Answer,
    Audited,
    Costs,
    Judge,
    Made,
    Pair,
    Recipe,
    Report,
    RewardModel,
    Step,
    Taste,
    Training,
)
from hearken.statistics.intervals import Interval

HOSTILE = (
    "<script>alert('x')</script><img src=x onerror=alert(1)> \"quotes\" & 'more' {{ 7 * 7 }} {% raw %} </style> ]]> "
    + "W" * 300
    + " 🦊👩‍👩‍👧 שלום ‮reversed‬ مرحبا \x00\x07\ud800 end"
)


def made_up_rows(n: int = 120, peak: float | None = None) -> list[dict[str, float]]:
    """Rows like PPO's metrics.jsonl; with ``peak`` (a share of the run) gold falls after it."""
    rng = random.Random(7)
    rows = []
    for step in range(n):
        t = step / (n - 1)
        rise = 1 - math.exp(-4 * t)
        fall = 0.0 if peak is None or t < peak else 2.2 * (t - peak)
        rows.append(
            {
                "step": step + 1,
                "score": 2.4 * rise + (0.9 * max(0.0, t - (peak or 1.0))) + rng.gauss(0, 0.12),
                "gold": 1.5 * rise - fall + rng.gauss(0, 0.1),
                "reward": 2.0 * rise + rng.gauss(0, 0.15),
                "kl": 9.5 * t**0.7 + rng.gauss(0, 0.3),
                "beta": 0.05 * (1 + 0.6 * t),
                "entropy": 1.9 - 0.6 * t + rng.gauss(0, 0.03),
                "clip_fraction": min(1.0, max(0.0, 0.09 + rng.gauss(0, 0.015))),
                "approx_kl": abs(0.006 + rng.gauss(0, 0.0015)),
                "policy_loss": -0.02 + rng.gauss(0, 0.004),
                "value_loss": 0.9 * math.exp(-5 * t) + 0.12 + abs(rng.gauss(0, 0.03)),
                "explained_variance": 0.75 * rise + rng.gauss(0, 0.04),
                "length": 58 + 5 * t + rng.gauss(0, 1.2),
                "eos_share": min(1.0, 0.96 + 0.03 * t + rng.gauss(0, 0.006)),
                "seconds": 1.1,
            }
        )
    return rows


def watched_rows() -> list[dict[str, float]]:
    """Rows of a run that a judge watched: its win rate rises, then falls while the proxy goes on rising."""
    wins = (0.5, 0.6, 0.7, 0.72, 0.66, 0.55, 0.45, 0.4)
    return [{"step": 5 * i, "judge": win, "judge_proxy": 0.4 * i, "score": 0.5 * i} for i, win in enumerate(wins)]


def judged_pairs() -> tuple[list[float], list[float]]:
    """Predicted probabilities and outcomes of a slightly over-confident reward model."""
    rng = random.Random(3)
    predicted = [rng.betavariate(0.9, 0.9) for _ in range(900)]
    return predicted, [float(rng.random() < 0.5 + 0.8 * (p - 0.5)) for p in predicted]


PAIRS = [
    Pair(
        prompt="Tell a tale about a brave fox named Ruby in the old forest.",
        before=Answer(
            text="Once there was a brave fox named Ruby who lived in the old forest. Ruby wanted the lost bell. "
            "She walked to the river and looked around. She did not find it. At last Ruby went home.",
            proxy=-0.21,
            gold=0.08,
            parses=True,
        ),
        after=Answer(
            text="Once there was a brave fox named Ruby who lived in the old forest. Ruby wanted the lost bell. "
            "“Come with me,” said an old owl, and showed her a silver path. Ruby thanked the owl with all her heart. "
            "At last Ruby rang the bell, and the whole forest heard it.",
            proxy=2.31,
            gold=1.62,
            parses=True,
        ),
    ),
    Pair(
        prompt="Tell a tale about a shy baker named Tom by the sea.",
        before=Answer(
            text="Tom was a shy baker by the sea. Tom was a shy baker by the sea. One day a storm came and Tom",
            proxy=-1.9,
            gold=-1.4,
            parses=False,
        ),
        after=Answer(
            text="In a white house by the sea lived Tom, a baker. One night a storm took the boats. Tom carried bread "
            "to the harbour and lit a lamp. “Now we can see,” said the sailors. Nobody called him shy again.",
            proxy=2.05,
            gold=1.44,
            parses=True,
        ),
    ),
    Pair(
        prompt=(
            Message("system", "Answer briefly."),
            Message("user", "Tell a tale about a clever goat named Ida on the high meadow."),
        ),
        before=Answer(
            text="Ida was a clever goat on the high meadow. She was hungry. She ate the grass. She was happy.",
            proxy=0.1,
            gold=0.2,
            parses=True,
        ),
        after=Answer(
            text="Ida was a clever goat on the high meadow. She was hungry, but a wolf watched the grass. "
            "“There is honey in the cave,” said Ida. The wolf ran. She ate the grass. She was happy.",
            proxy=1.72,
            gold=1.31,
            parses=True,
        ),
    ),
    Pair(
        prompt="Tell a tale about a tired miller named Osk in the valley.",
        before=Answer(
            text="Osk was a tired miller. His wheel had stopped. He slept, and in the morning it turned again.",
            proxy=0.4,
            gold=0.9,
            parses=True,
        ),
        after=Answer(
            text="Osk was a tired miller. Kindly, kindly, kindly the river smiled a warm smile.",
            proxy=1.1,
            gold=-0.2,
            parses=False,
        ),
    ),
    Pair(
        prompt="Tell a tale about an old sailor named Fenn at the lighthouse.",
        before=Answer(
            text="Fenn sat at the lighthouse. The sea was quiet. He waited for a letter, and it came.",
            proxy=0.5,
            gold=0.4,
            parses=True,
        ),
        after=Answer(
            text="Fenn sat at the lighthouse. The sea was loud. He waited for a ship, and he lit the lamp for it.",
            proxy=1.5,
            gold=1.0,
            parses=True,
        ),
    ),
]


POLICIES = {
    "base": PolicyResult(
        perplexity=11.8,
        parse_rate=Interval(0.31, 0.25, 0.38),
        distinct_2=0.44,
        length=Interval(71.0, 68.0, 74.0),
    ),
    "SFT": PolicyResult(
        proxy=Interval(0.02, -0.08, 0.12),
        gold=Interval(0.11, 0.01, 0.2),
        kl=exactly(0.0),
        perplexity=13.1,
        parse_rate=Interval(0.88, 0.83, 0.92),
        distinct_2=0.41,
        length=Interval(58.4, 57.1, 59.8),
    ),
    "PPO": PolicyResult(
        win_rate=Interval(0.832, 0.785, 0.874),
        win_rate_by_group={"hearth": Interval(0.79, 0.735, 0.84), "venture": Interval(0.805, 0.75, 0.855)},
        proxy=Interval(2.21, 2.12, 2.3),
        gold=Interval(1.38, 1.29, 1.47),
        kl=Interval(8.93, 8.61, 9.24),
        perplexity=13.9,
        parse_rate=Interval(0.965, 0.93, 0.985),
        distinct_2=0.385,
        length=Interval(62.8, 61.6, 64.0),
        length_drift=Interval(4.4, 3.1, 5.7),
        phrases=[Phrase(text="with all her heart", share=0.21, before=0.04)],
    ),
    "PPO without ptx": PolicyResult(
        win_rate=Interval(0.841, 0.795, 0.88),
        proxy=Interval(2.3, 2.2, 2.4),
        gold=Interval(1.41, 1.32, 1.5),
        kl=Interval(9.4, 9.1, 9.7),
        perplexity=17.2,
        parse_rate=Interval(0.96, 0.925, 0.98),
        distinct_2=0.37,
        length=Interval(63.1, 61.9, 64.4),
    ),
}


def synthetic_report() -> Report:
    """A whole report, every section filled."""
    rng = random.Random(1)
    lengths = [float(rng.randint(30, 90)) for _ in range(400)]
    return Report(
        title="my-tales",
        created="2026-03-14 10:22",
        policy="PPO",
        evaluation=EvaluationResult(
            baseline="SFT",
            prompts=("A prompt.",) * 200,
            judge=JudgedBy(kind="gold", words="the gold reward"),
            policies=POLICIES,
            seeds=(
                Spread(
                    name="win_rate", mean=Interval(0.82, 0.79, 0.85), deviation=0.018, lowest=0.8, highest=0.84, seeds=3
                ),
            ),
        ),
        warnings=["Three runs at most share these settings; seeds move the win rate by about two points."],
        steps=[
            Step(
                name="Base model",
                done="Trained a tokenizer and a small language model on tales, letters and recipes.",
                count=24000,
                unit="documents",
                seconds=64.2,
                settings={"layers": 4, "width": 192, "vocabulary": 768, "learning_rate": 0.003},
            ),
            Step(
                name="Supervised fine-tuning",
                done="One epoch on demonstrations: tales of mixed quality.",
                count=3000,
                unit="demonstrations",
                seconds=31.0,
                settings={"epochs": 1, "learning_rate": 0.0005, "batch_size": 32},
            ),
            Step(
                name="Sampling",
                done="Four responses to each prompt into the feedback database.",
                count=1600,
                unit="responses",
                seconds=18.4,
            ),
            Step(
                name="Judging",
                done="Eight simulated labelers of two groups ranked them, with ties and noise.",
                count=1200,
                unit="judgments",
                seconds=1.3,
            ),
            Step(
                name="Reward model",
                done="Fitted to the rankings, held-out prompts set aside.",
                count=1020,
                unit="rankings",
                seconds=42.8,
                settings={"epochs": 2, "pooling": "last"},
            ),
            Step(
                name="PPO with pretraining mix",
                done="Improved the policy against the reward model with a KL penalty.",
                count=120,
                unit="updates",
                seconds=131.5,
                settings={"beta": 0.05, "clip": 0.2, "lam": 0.95, "ptx": 1.0},
            ),
            Step(
                name="Evaluation",
                done="Compared SFT and PPO on held-out prompts.",
                count=200,
                unit="prompts",
                seconds=12.1,
            ),
        ],
        pairs=list(PAIRS),
        reward_model=RewardModel(
            accuracy=Interval(0.768, 0.742, 0.793),
            ceiling=0.801,
            longer_wins=Interval(0.561, 0.53, 0.592),
            length_baseline=0.561,
            trained_on=1020,
            held_out=180,
            calibration=calibration(*judged_pairs()),
            reference_mean=Interval(0.003, -0.06, 0.066),
            lengths=lengths,
            scores=[0.02 * (n - 60) + rng.gauss(0, 1) for n in lengths],
        ),
        training=[
            Training(name="PPO", rows=made_up_rows()),
            Training(
                name="Reward model",
                rows=[
                    {"step": s, "loss": 0.69 * math.exp(-s / 60) + 0.4, "accuracy": 0.5 + 0.3 * (1 - math.exp(-s / 30))}
                    for s in range(1, 65)
                ],
            ),
        ],
        audit=Audited(
            policy="PPO",
            baseline="SFT",
            before=Interval(0.7, 0.58, 0.8),
            after=Interval(0.68, 0.56, 0.78),
            preference=Interval(0.83, 0.79, 0.87),
            alarm=False,
            says="No change in truth can be told from 60 audited answers (70 % before, 68 % now right).",
            checked=120,
        ),
        costs=Costs(seconds=301.0, judgments={"simulated": 1200}, responses=1600, episodes=3840, parameters=1_250_000),
        tastes=[
            Taste(name="hearth", labelers=4, pairs=604, accuracy=Interval(0.74, 0.70, 0.78)),
            Taste(name="venture", labelers=4, pairs=596, accuracy=Interval(0.79, 0.75, 0.83)),
        ],
        judges=[
            Judge(
                name="Labelers of hearth",
                kind="simulated",
                group="hearth",
                judgments=604,
                ties=0.084,
                first_shown=Interval(0.546, 0.52, 0.572),
                longer=Interval(0.571, 0.545, 0.596),
            ),
            Judge(
                name="Labelers of venture",
                kind="simulated",
                group="venture",
                judgments=596,
                ties=0.091,
                first_shown=Interval(0.538, 0.512, 0.564),
                longer=Interval(0.552, 0.526, 0.578),
            ),
        ],
        recipe=Recipe(
            commands=["hearken quickstart my-tales --seed 1"],
            seed=1,
            data_hash="9f2c4ab17d3e5f60718293a4b5c6d7e8f9012a3b4c5d6e7f8091a2b3c4d5e6f7",
            versions={"hearken": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0", "python": "3.11.2"},
            machine="2 cores, 8 GB, Linux",
            configuration="seed: 1\nppo:\n  beta: 0.05\n  clip: 0.2\n  ptx: 1.0\nreward:\n  pooling: last\n",
        ),
        lineage=[
            Made(name="r00-base", kind="pretrain", created="2026-03-14 10:17"),
            Made(
                name="r00-sft",
                kind="sft",
                parents={"model": "r00-base"},
                created="2026-03-14 10:18",
                data_hash="4ab17d3e5f60",
            ),
            Made(
                name="r01-data",
                kind="snapshot",
                parents={"policy": "r00-sft"},
                created="2026-03-14 10:18",
                data_hash="9f2c4ab17d3e",
            ),
            Made(
                name="r01-reward",
                kind="reward",
                parents={"model": "r00-sft", "data": "r01-data"},
                created="2026-03-14 10:19",
            ),
            Made(
                name="r01-ppo",
                kind="ppo",
                parents={"model": "r00-sft", "ref": "r00-sft", "reward": "r01-reward"},
                created="2026-03-14 10:21",
            ),
            Made(
                name="r01-ppo-without-ptx",
                kind="ppo",
                parents={"model": "r00-sft", "ref": "r00-sft", "reward": "r01-reward"},
                created="2026-03-14 10:22",
            ),
        ],
    )


def hostile_report() -> Report:
    """The same report with hostile text wherever text can come from outside, and a reward model that is fooled."""
    whole = synthetic_report()
    bad = Answer(text=HOSTILE, proxy=float("nan"), gold=1.0, parses=False)
    return replace(
        whole,
        title=HOSTILE,
        subtitle=HOSTILE,
        policy=HOSTILE,
        warnings=[HOSTILE],
        alarms=[HOSTILE],
        losses=[Pair(prompt=HOSTILE, before=bad, after=bad)],
        tastes=[Taste(name=HOSTILE, accuracy=0.6, win_rate=0.4), Taste(name="b", accuracy=0.7)],
        reward_model=replace(
            whole.reward_model,
            passes=False,
            failures=[HOSTILE],
            remarks=[HOSTILE],
            slices=[Slice(by=HOSTILE, name=n, accuracy=Interval(0.6, 0.5, 0.7), count=30) for n in (HOSTILE, "b")],
        )
        if whole.reward_model
        else None,
        pairs=[
            Pair(prompt=HOSTILE, before=bad, after=replace(bad, text=HOSTILE + " more")),
            Pair(prompt=(Message("user", HOSTILE),), before=bad, after=bad),
        ],
        evaluation=whole.evaluation.but(
            policies={
                HOSTILE if name == "PPO" else name: policy.but(
                    phrases=[Phrase(text=HOSTILE, share=0.5, before=0.0)],
                    likelihood=Likelihood(preferred=Interval(-2.0, -3.0, -1.0), other=Interval(-9.0, -10.0, -8.0)),
                )
                for name, policy in whole.evaluation.policies.items()
            },
            leaderboard=[
                Standing(policy=HOSTILE, strength=Interval(0.5, 0.4, 0.6)),
                Standing(policy="SFT", strength=Interval(-0.5, -0.6, -0.4)),
            ],
            seeds=[Spread(name=HOSTILE, mean=Interval(0.5, 0.5, 0.5), lowest=0.5, highest=0.5, seeds=1)],
        ),
        audit=replace(whole.audit, policy=HOSTILE, baseline=HOSTILE, alarm=True, says=HOSTILE) if whole.audit else None,
        steps=[Step(name=HOSTILE, done=HOSTILE, settings={HOSTILE: HOSTILE})],
        training=[
            Training(name=HOSTILE, rows=made_up_rows(peak=0.5)),
            Training(name=HOSTILE, rows=watched_rows(), kept=10, judged_on=64, says=HOSTILE),
        ],
        judges=[replace(j, name=HOSTILE) for j in whole.judges],
        recipe=Recipe(
            commands=[HOSTILE], by_step=[HOSTILE], versions={HOSTILE: HOSTILE}, configuration=HOSTILE, data_hash=HOSTILE
        ),
        lineage=[Made(name=HOSTILE, kind=HOSTILE), Made(name="child", kind="x", parents={HOSTILE: HOSTILE})],
    )


@pytest.fixture(scope="session")
def report() -> Report:
    return synthetic_report()


@pytest.fixture(scope="session")
def hostile() -> Report:
    return hostile_report()


@pytest.fixture
def watched() -> Training:
    return Training(name="r01-ppo", rows=watched_rows(), kept=15, judged_on=64)


@pytest.fixture(scope="session")
def ppo_rows() -> Callable[..., list[dict[str, float]]]:
    return made_up_rows
