"""A local model as AI labeler (``hearken label --with ai``) on people's comparisons: agreement, and favour for a place.

HH-RLHF harmless: a fixed draw of rows, each pair asked about in both orders by the labeler's own code. Agreement is
that of the averaged log-odds with the person; beside it that of each order alone, the share of answers that name the
response shown first, and how often both orders name one response. Rows whose answer is nonsense are counted.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from common import arguments, percent, run, shared, table

from hearken.feedback.examples import Comparison
from hearken.feedback.formats import ReadReport, read_examples
from hearken.labelers.ai import AILabeler, Nonsense
from hearken.labelers.constitution import load_constitution
from hearken.labelers.judges import LocalJudge
from hearken.progress import progress
from hearken.statistics.intervals import cluster_bootstrap

ROWS = 400


def rows_of(count: int, seed: int) -> list[Comparison]:
    """A draw of comparisons with two different responses."""
    every = [
        row for row in read_examples(shared("hh-harmless.jsonl.gz"), on_bad="skip", report=ReadReport())
        if isinstance(row, Comparison) and len(set(row.responses)) == 2
    ]  # fmt: skip
    chosen = np.random.default_rng(seed).permutation(len(every))[:count]
    return [every[i] for i in chosen]


def main(settings: argparse.Namespace) -> dict[str, Any]:
    count = 8 if settings.fast else settings.rows
    labeler = AILabeler(LocalJudge(settings.model), load_constitution(settings.constitution))
    averaged, first_order, second_order, shown_first, steady, nonsense = [], [], [], [], [], 0
    rows = rows_of(count, settings.seed)
    places = np.random.default_rng([settings.seed, 1]).integers(2, size=len(rows))
    with progress("Judging", len(rows)) as bar:
        for number, row in enumerate(rows):
            chosen, other = (row.responses[i] for i in np.argsort(row.ranks))
            swapped = bool(places[number])
            pair = (other, chosen) if swapped else (chosen, other)
            try:
                odds = labeler.judge(row.prompt, pair, seed=number).odds
            except Nonsense:
                nonsense += 1
                continue
            finally:
                bar.advance()
            for_a, against_a = odds["0,1"], -odds["1,0"]  # log-odds that response 0 is the better, by order
            right = -1.0 if swapped else 1.0
            averaged.append(_agrees(right * (for_a + against_a)))
            first_order.append(_agrees(right * for_a))
            second_order.append(_agrees(right * against_a))
            shown_first.append(np.mean([odds["0,1"] > 0, odds["1,0"] > 0]))
            steady.append(float((for_a > 0) == (against_a > 0)))
    clusters = np.arange(len(averaged))
    figures = {
        "agreement with the person, both orders averaged": averaged,
        "one order alone": first_order,
        "the other order alone": second_order,
        "answers that name the response shown first": shown_first,
        "both orders name the same response": steady,
    }
    found = {name: cluster_bootstrap(np.array(values), clusters) for name, values in figures.items()}
    table(
        f"{labeler.name} on {len(averaged)} comparisons of people (HH-RLHF, harmless); answered nonsense: {nonsense}",
        ["", "%"], [[name, percent(interval)] for name, interval in found.items()],
    )  # fmt: skip
    return {"rows": len(averaged), "nonsense": nonsense} | {k: v.estimate for k, v in found.items()}


def _agrees(lead: float) -> float:
    return 0.5 if lead == 0 else float(lead > 0)


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--model", required=True, metavar="DIR", help="the judge, e.g. of hearken model smollm2 DIR")
    parser.add_argument("--rows", type=int, default=ROWS, help="comparisons that are judged")
    parser.add_argument("--constitution", default="general")
    run(main, parser)
