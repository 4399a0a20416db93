"""Making a reward-model card: from a reward model's folder and held-out comparisons, or from a project."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hearken.algorithms.stage import Inputs, find_stage, run_stage
from hearken.errors import UserError
from hearken.evaluation.card import Card, Learnt, Shift, correctness, make_card, measure_shift, would_help
from hearken.feedback.examples import Comparison, Content, content_key
from hearken.feedback.formats import read_examples, write_examples
from hearken.feedback.splits import check_leakage
from hearken.statistics.intervals import clustered_wilson
from hearken.training.artifact import MANIFEST, Artifact

if TYPE_CHECKING:
    from hearken.feedback.store import FeedbackStore
    from hearken.loop.project import Project

SHARES = (0.125, 0.25, 0.5)
"""Of the training prompts, for the learning curve; the model itself is its last point."""
CUT = 400
"""Responses of each side that a shift is measured on."""


def evaluate_reward(
    reward: str | Path,
    data: Sequence[str | Path] | Sequence[Comparison] = (),
    *,
    others: Sequence[str | Path] = (),
    now: Sequence[tuple[Content, str]] = (),
    learning_curve: bool = False,
    larger: str = "",
) -> Card:
    """Measure a reward model on held-out comparisons and write ``card.json`` into its folder.

    Args:
        reward: its folder.
        data: files of comparisons, or comparisons; none takes those that its training held out.
        others: further reward models trained on the same data, for disagreement.
        now: (prompt, response) that it is to score now, for the shift.
        learning_curve: train it again on an eighth, a quarter and a half of its data, which takes most of the time
            that training it took.
        larger: a language model to train as a reward model on all of its data, for the learning curve.

    Raises:
        UserError: nothing is held out, or a prompt stands in the training data too.
    """
    from hearken.evaluation.measure import Judge

    reward = Path(reward)
    rows = _held_out(reward, data)
    judge = Judge(str(reward))
    shift = _shift(reward, judge, now) if now else None
    learning, says = _learning(reward, rows, judge, larger) if learning_curve or larger else ([], "")
    card = make_card(
        reward.name, rows, judge, others=[Judge(str(o)) for o in others], shift=shift, learning=learning,
        learning_says=says,
    )  # fmt: skip
    card.save(reward)
    return card


def _held_out(reward: Path, data: Sequence[Any]) -> list[Comparison]:
    from hearken.domains.text.rewarding import held_out_from, trained_on

    made = (reward / MANIFEST).is_file()
    if not data:
        if not made:
            raise UserError(f"{reward} does not say what it was trained on", "Give held-out comparisons: --data FILE")
        rows = held_out_from(str(reward))
    else:
        rows = [r for d in data for r in ([d] if isinstance(d, Comparison) else read_examples(d))]
        if made:
            try:
                training = trained_on(str(reward))
            except UserError:
                training = []  # elsewhere by now: what it was trained on cannot be looked at
            check_leakage(training, rows, strict=True)
    found = [r for r in rows if isinstance(r, Comparison)]
    if not found:
        raise UserError(
            f"no held-out comparison for {reward}", "Give some: --data FILE, or hold some out when training"
        )
    return found


def _shift(reward: Path, judge: Any, now: Sequence[tuple[Content, str]]) -> Shift | None:
    """How far what it scores now is from what it was trained on; None where that cannot be looked at any more."""
    from hearken.domains.text.rewarding import confidence_of, trained_on
    from hearken.evaluation.measure import TOKENS
    from hearken.models.layout import Group
    from hearken.rewards.confidence import last_layer
    from hearken.rewards.learned import LearnedReward

    if not (reward / MANIFEST).is_file():
        return None
    learned = LearnedReward(judge.scorer, TOKENS)
    try:
        confidence = confidence_of(str(reward), learned)
        training = [(r.prompt, t) for r in trained_on(str(reward)) if isinstance(r, Comparison) for t in r.responses]
    except UserError:
        return None
    rng = np.random.default_rng(0)
    sides = [[side[i] for i in rng.permutation(len(side))[:CUT]] for side in (training, list(now))]
    features, widths, words, scores = [], [], [], []
    for side in sides:
        groups = [g for prompt, text in side if (g := judge.encoder.group(prompt, [text])) is not None]
        found = last_layer(learned, [Group(g.prompt, g.responses) for g in groups])
        features.append(found.double().cpu().numpy())
        widths.append(confidence.linear(found).cpu().numpy())
        words.append(float(np.mean([len(text.split()) for _, text in side])))
        scores.append(float(np.mean(learned(groups).cpu().numpy())))
    return measure_shift(*features, *widths, length=(words[0], words[1]), score=(scores[0], scores[1]))


def _learning(reward: Path, rows: Sequence[Comparison], judge: Any, larger: str) -> tuple[list[Learnt], str]:
    """Fits on growing shares of the labels, and one with more weights, all measured on the same held-out pairs."""
    from hearken.domains.text.rewarding import trained_on
    from hearken.evaluation.measure import Judge

    manifest = Artifact.load(reward).manifest
    training = trained_on(str(reward))
    keys = {content_key(r.prompt): None for r in training if not hasattr(r, "text")}
    order = [list(keys)[i] for i in np.random.default_rng(0).permutation(len(keys))]
    folder = reward / "learning"
    stage = find_stage("reward")
    # The data are cut here: what training would hold out was held out already.
    options = stage.options.parse({**manifest["options"], "validation": 0.0, "trackers": "none"}, where=str(reward))

    def fit(name: str, model: str, share: float) -> tuple[int, Any, int]:
        kept = set(order[: max(round(share * len(order)), 1)])
        some = [r for r in training if content_key(r.prompt) in kept]  # type: ignore[union-attr]
        data = folder / f"{name}.parquet"
        if not data.exists():
            folder.mkdir(exist_ok=True)
            write_examples(some, data, "snapshot")
        out = folder / name
        if not (out / MANIFEST).is_file():
            inputs = Inputs(
                model=model, data=(str(data),), references=tuple(manifest["inputs"].get("references") or ())
            )
            run_stage(stage, inputs, options, out)
        fitted = Judge(str(out))
        return len(some), fitted, _parameters(fitted)

    points = [fit(f"share-{share:g}", manifest["inputs"]["model"], share) for share in SHARES]
    points.append((len(training), judge, _parameters(judge)))
    if larger:
        points.append(fit("larger", larger, 1.0))
    right = [(labels, *correctness(rows, fitted)) for labels, fitted, _ in points]
    learnt = [
        Learnt(labels, clustered_wilson(hits, of), parameters)
        for (labels, hits, of), (_, _, parameters) in zip(right, points, strict=True)
    ]
    bigger = right.pop()[1] if larger else None
    return learnt, would_help([(labels, hits) for labels, hits, _ in right], bigger, right[-1][2])


def _parameters(judge: Any) -> int:
    return sum(p.numel() for p in judge.scorer.parameters())


# --- in a project ----------------------------------------------------------------------------------------------------


def project_card(
    project: Project, reward: str | None = None, *, learning_curve: bool = False, larger: str = ""
) -> Card | None:
    """The card of a project's reward model, by default the newest; None where it has none, or nothing was held out.

    Further reward models of the project trained on the same data are its ensemble; the responses of the last
    evaluation are what it scores now.
    """
    made = {a.path.name: a for a in project.finished().values() if a.kind == "reward"}
    if not made:
        return None
    name = reward or list(made)[-1]
    if name not in made:
        raise UserError(f"{project.path} has no reward model '{name}'", f"Known: {', '.join(made)}")
    with project.store() as store:
        rows = judged_rows(store, "validation")
    if not any(len({r for r in row.ranks if r is not None}) > 1 for row in rows):
        return None
    data = made[name].manifest["data"]["hash"]
    others = [a.path for other, a in made.items() if other != name and a.manifest["data"]["hash"] == data]
    return evaluate_reward(
        made[name].path, rows, others=others, now=_scored_now(project), learning_curve=learning_curve, larger=larger
    )


def judged_rows(store: FeedbackStore, split: str | None) -> list[Comparison]:
    """The comparisons of a split with everything that a card divides them by in their metadata."""
    from hearken.feedback.snapshot import inline_examples

    items = {item.id: item for item in store.items()}
    prompts = {prompt.content: prompt.metadata for prompt in store.prompts(split=split)}
    judgments = {j.id: j for j in store.judgments(kinds=("comparison",), split=split)}
    found = []
    for row in inline_examples(store, ("comparison",), split, attributes=True):
        if not isinstance(row, Comparison):
            continue
        judgment, item = judgments.get(row.metadata.get("judgment", "")), items.get(row.metadata.get("item") or "")
        facts = {**row.metadata, "tags": prompts.get(row.prompt, {}).get("tags")}
        if judgment is not None:
            facts |= {"round": judgment.round, "order": list(judgment.order or ())}
        if item is not None:
            facts["selection"] = item.selection
        found.append(
            Comparison(row.prompt, row.responses, row.ranks, row.strength, row.share, row.weight, metadata=facts)
        )
    return found


def _scored_now(project: Project) -> list[tuple[Content, str]]:
    """Prompts and responses of the policies of the last evaluation, but for the baseline."""
    import json

    from hearken.feedback.examples import Message

    file = project.path / "evaluation.json"
    if not file.exists():
        return []
    found = json.loads(file.read_text("utf-8"))
    contents = [p if isinstance(p, str) else tuple(Message(**turn) for turn in p) for p in found["prompts"]]
    return [
        (prompt, text)
        for name, figures in found["policies"].items()
        if name != found["baseline"] and figures.get("responses")
        for prompt, text in zip(contents, figures["responses"], strict=True)
    ]


def summary(card: Card | None) -> dict[str, Any]:
    """The head of a card, for the command line."""
    if card is None:
        return {}
    return {
        "passes": card.passes, "accuracy": card.accuracy, "pairs": card.pairs, "length_baseline": card.length_baseline,
        "agreement": card.agreement, "ceiling": card.ceiling, "calibration_error": card.calibration.error,
        "uniform_slice": card.uniform, "says": " ".join([*card.reasons, card.learning_says]).strip(),
    }  # fmt: skip
