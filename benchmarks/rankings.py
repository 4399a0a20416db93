"""A K-wise reward model on people's rankings of 2 to 9 replies (OpenAssistant trees), by Kendall's tau.

146 rankings are few: the figure says what can be learned from them, in cross-validation by conversation tree, beside
"the longer reply wins". The language model and the settings (but for smaller batches) are those of
human_preferences.py, also with ``--model DIR``; nothing was tuned here.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from typing import Any

import numpy as np
from common import RESULTS, arguments, run, table
from human_preferences import (
    FOLDS,
    Probed,
    comparisons,
    fit_reward,
    fitting_of,
    folds_by_prompt,
    model_option,
    pretrain,
    rankings,
)
from theory.rank_agreement import kendall_tau

from hearken.statistics.intervals import paired_difference

BATCH = 4  # 16 would leave 8 steps


def main(settings: argparse.Namespace) -> dict[str, Any]:
    rows = rankings()
    if settings.fast:
        rows = [row for row in rows if sum(map(len, row.responses)) < 1500][:24]
    language_model = settings.model or pretrain(comparisons()[0], settings)
    fitting = fitting_of(settings) | {"batch_size": BATCH}
    probed = Probed(language_model, rows, fitting) if fitting.get("head_only") else None
    trees = [str(row.metadata["message_tree_id"]) for row in rows]
    folds = folds_by_prompt(trees, 2 if settings.fast else FOLDS, settings.seed)
    scores: list[list[float]] = [[] for _ in rows]
    for fold in range(folds.max() + 1):
        training, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        if probed:
            found = probed.scores(training, test)
        else:
            out = settings.work / f"rankings-fold-{fold}"
            judge = fit_reward(language_model, [rows[i] for i in training], out, fitting | {"seed": settings.seed})
            found = judge([rows[i].prompt[-1:] for i in test], [rows[i].responses for i in test])
        for i, mine in zip(test, found, strict=True):
            scores[i] = mine

    ranks = [row.ranks for row in rows]
    ours = kendall_tau(scores, ranks, trees, seed=settings.seed)
    length = kendall_tau([[float(len(r)) for r in row.responses] for row in rows], ranks, trees, seed=settings.seed)
    ahead = paired_difference(ours.per_ranking, length.per_ranking, trees, seed=settings.seed)
    sizes = dict(sorted(Counter(len(row.responses) for row in rows).items()))
    table(
        f"OpenAssistant: {len(rows)} rankings of {min(sizes)} to {max(sizes)} replies in {len(set(trees))} trees, "
        f"{folds.max() + 1}-fold cross-validation by tree",
        ("model", "Kendall's tau", "reward model ahead by"),
        [("K-wise reward model", ours.mean, ""), ("longer wins", length.mean, ahead)],
    )
    told = ours.mean.low > 0 or ours.mean.high < 0
    verdict = "its interval leaves 0 out" if told else "it cannot be told from 0 with so few rankings"
    print(f"\nThe reward model's tau is {ours.mean.estimate:.3f}: {verdict}.")
    return {
        "rankings": len(rows), "trees": len(set(trees)), "sizes": sizes,
        "tau": {"reward model": ours.mean, "longer wins": length.mean}, "ahead_of_longer": ahead,
        "distinguishable_from_0": bool(told), "fitting": fitting,
    }  # fmt: skip


if __name__ == "__main__":
    parser = arguments(re.split(r"\n\n", __doc__ or "")[0])
    model_option(parser)
    parser.set_defaults(work=RESULTS / "human_preferences")
    run(main, parser)
