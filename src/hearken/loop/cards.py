"""Making a reward-model card: from a reward model's folder and held-out comparisons, or from a project."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hearken.algorithms.stage import Inputs, find_stage, makes_reward, run_stage
from hearken.domains.base import Details, Domain, Scorer
from hearken.errors import UserError
from hearken.evaluation.card import Evidence, correctness, make_card, measure_shift, pair_labelers, would_help
from hearken.evaluation.numbers import duration
from hearken.evaluation.people import Discovered, Strangers, discover, strangers
from hearken.evaluation.reward_card import Learnt, RewardCard, Shift
from hearken.feedback.examples import Comparison, Content, Document, Example, content_key
from hearken.feedback.formats import read_as, write_examples
from hearken.feedback.media import MediaFolder
from hearken.feedback.pairs import decided
from hearken.feedback.reading import ReadingOptions
from hearken.feedback.records import hash_id
from hearken.feedback.splits import check_leakage, labeler_value, split_by_labeler
from hearken.feedback.weighting import multiply, reweight
from hearken.loop.artifacts import domain_of_artifact
from hearken.loop.measured import kept
from hearken.statistics.intervals import clustered_wilson
from hearken.training.artifact import MANIFEST, Artifact

if TYPE_CHECKING:
    from hearken.feedback.store import FeedbackStore
    from hearken.loop.project import Project

Answers = list[tuple[Content, str]]
"""Prompts and one response to each."""
SHARES = (0.125, 0.25, 0.5)
"""Of the training prompts, for the learning curve; the model itself is its last point."""
LEFT_OUT = 0.25
"""Of the labelers, for whether strangers are harder."""
MOST = 2000
"""Comparisons in which groups of labelers are looked for."""
CUT = 400
"""Responses of each side that a shift is measured on."""


def evaluate_reward(
    reward: str | Path,
    data: Sequence[str | Path] | Sequence[Comparison] = (),
    *,
    others: Sequence[str | Path] = (),
    now: Mapping[str, Answers] | None = None,
    learning_curve: bool = False,
    larger: str = "",
    held_out_labelers: bool = False,
    reading: ReadingOptions | None = None,
    announce: Callable[[str], None] = lambda _: None,
) -> RewardCard:
    """Measure a reward model on held-out comparisons and write ``card.json`` into its folder.

    Args:
        reward: its folder.
        data: files of comparisons, or comparisons; none takes those that its training held out.
        others: further reward models trained on the same data, for disagreement.
        now: (prompt, response) that it is to score now, by policy, for the shift.
        learning_curve: train it again on an eighth, a quarter and a half of its data, which takes most of the time
            that training it took.
        larger: a language model to train as a reward model on all of its data, for the learning curve.
        held_out_labelers: train it again without a quarter of the labelers, and try it on theirs.
        reading: how the files of ``data`` are read.
        announce: takes a line that says what all this training will cost, before it begins.

    Raises:
        UserError: nothing is held out, or a prompt stands in the training data too.
    """
    reward = Path(reward)
    domain, files = domain_of_artifact(reward), MediaFolder.beside(reward)
    rows = [row for row in _among(reward, _held_out(reward, data, reading or ReadingOptions())) if row.weight > 0]
    judge = domain.scorer(str(reward), files)
    details = domain.details(str(reward), judge, files)
    shift = _shift(reward, details, now) if now else None
    again = _Again(reward, domain) if learning_curve or larger or held_out_labelers else None
    if again is not None:
        announce(again.cost(learning_curve or bool(larger), larger, held_out_labelers))
    learning, says = again.learning(rows, judge, larger) if again and (learning_curve or larger) else ([], "")
    evidence = Evidence(
        others=[domain.scorer(str(o), files) for o in others], heads=[] if others else details.heads(rows),
        own=details.own(rows), shift=shift,
        strangers=again.strangers(rows, judge) if again and held_out_labelers else None,
        discovered=_discovered(reward, rows, details),
    )  # fmt: skip
    card = make_card(reward.name, rows, judge, evidence, details.probes)
    card = card.but(learning=learning, learning_says=says)
    card.save(reward)
    return card


def _held_out(reward: Path, data: Sequence[str | Path | Comparison], reading: ReadingOptions) -> list[Comparison]:
    domain, made = domain_of_artifact(reward), (reward / MANIFEST).is_file()
    if not data:
        if not made:
            raise UserError(f"{reward} does not say what it was trained on", "Give held-out comparisons: --data FILE")
        rows = domain.held_out_from(str(reward))
    else:
        rows = [r for d in data for r in ([d] if isinstance(d, Comparison) else read_as(str(d), reading)[0])]
        if made:
            try:
                training = domain.trained_on(str(reward))
            except UserError:
                training = []  # elsewhere by now: what it was trained on cannot be looked at
            check_leakage(training, rows, strict=True)
    found = [r for r in rows if isinstance(r, Comparison)]
    if not found:
        raise UserError(
            f"no held-out comparison for {reward}", "Give some: --data FILE, or hold some out when training"
        )
    return found


def _among(reward: Path, rows: list[Comparison]) -> list[Comparison]:
    """Held-out rows weighted to the population that the reward model was fitted to, if one was named."""
    made = Artifact.load(reward) if (reward / MANIFEST).is_file() else None
    if made is None or not (population := made.options.get("population")):
        return rows
    by_labeler = made.data["labeler_weights"]
    if made.options.get("labeler_weights"):  # those hold the labelers' reliability as well
        by_labeler = reweight(domain_of_artifact(reward).trained_on(str(reward)), population=population).by_labeler
    return [row for row in multiply(rows, by_labeler) if isinstance(row, Comparison)]


def renew_shift(project: Project, reward: Path, policy: str) -> None:
    """Look on the card of a reward model, if it has one, at what the newest policy makes it score; once a policy."""
    card, now = RewardCard.load(reward), {n: answers for n, answers in _scored_now(project).items() if n == policy}
    if card is None or not now or (card.shift is not None and card.shift.answers == _digest(now)):
        return
    domain = domain_of_artifact(reward)
    scorer = domain.scorer(str(reward), project.media)
    shift = _shift(reward, domain.details(str(reward), scorer, project.media), now)
    if shift is not None:  # else what it was trained on is not here any more
        card.with_shift(shift).save(reward)


def _digest(now: Mapping[str, Answers]) -> str:
    return hash_id(*(text for answers in now.values() for _, text in answers))


def _shift(reward: Path, details: Details, now: Mapping[str, Answers]) -> Shift | None:
    """How far what it scores now is from what it was trained on; None where that cannot be looked at (any more)."""
    if not (reward / MANIFEST).is_file():
        return None
    rng = np.random.default_rng(0)
    try:
        rows = domain_of_artifact(reward).trained_on(str(reward))
        training = [(r.prompt, t) for r in rows if isinstance(r, Comparison) for t in r.responses]
        new = [answer for said in now.values() for answer in said]
        before, after = (details.look([side[i] for i in rng.permutation(len(side))[:CUT]]) for side in (training, new))
    except UserError:
        return None
    if before is None or after is None:
        return None
    shift = measure_shift(
        before.features, after.features, before.widths, after.widths, length=(before.length, after.length),
        score=(before.score, after.score),
    )  # fmt: skip
    return shift.but(of=list(now), answers=_digest(now))


def _discovered(reward: Path, rows: Sequence[Comparison], details: Details) -> Discovered | None:
    """Groups among labelers, from all that they compared; None where they declared groups themselves."""
    training: list[Example] = []
    if (reward / MANIFEST).is_file():
        with suppress(UserError):  # its data are gone: the held-out ones remain
            training = domain_of_artifact(reward).trained_on(str(reward))
    known = [r for r in [*rows, *training] if isinstance(r, Comparison) and labeler_value(r, "labeler") is not None]
    if not known or any(labeler_value(r, "group") is not None for r in known):
        return None
    chosen = [known[i] for i in sorted(np.random.default_rng(0).permutation(len(known))[:MOST])]
    told = details.told(chosen)
    return discover(*told) if told is not None else None


class _Again:
    """A reward model's training, once more on parts of its data."""

    def __init__(self, reward: Path, domain: Domain) -> None:
        self.made, self.domain, self.files = Artifact.load(reward), domain, MediaFolder.beside(reward)
        self.rows = [row for row in domain.trained_on(str(reward)) if not isinstance(row, Document)]
        self.folder = reward / "learning"
        self.stage = find_stage(self.made.kind, domain.name)
        # The data are cut here: what training would hold out was held out already.
        known = self.stage.options.model_fields
        changed = {k: v for k, v in {"validation": 0.0, "trackers": "none", "only": ""}.items() if k in known}
        self.options = self.stage.options.parse({**self.made.options, **changed}, where=str(reward))

    def cost(self, curve: bool, larger: str, labelers: bool) -> str:
        """A sentence: how many trainings, and about how long they take, from what the model itself took."""
        shares = (sum(SHARES) if curve else 0.0) + 0.75 * labelers
        count = len(SHARES) * curve + labelers + bool(larger)
        seconds = (self.made.seconds or 0.0) * shares
        more = " and the time of the larger model" if larger else ""
        trainings = f"{count} more training{'s' if count > 1 else ''}"
        return f"The card takes {trainings}: about {duration(seconds)} here{more} (less where they were done before)."

    def fit(self, name: str, model: str, some: Sequence[Example]) -> tuple[Scorer, str]:
        """The judge fitted to some of the rows, or what an earlier call left; and its folder."""
        data, out = self.folder / f"{name}.parquet", self.folder / name
        if not data.exists():
            self.folder.mkdir(exist_ok=True)
            write_examples(list(some), data, "snapshot")
        if not (out / MANIFEST).is_file():
            references = tuple(self.made.inputs.get("references") or ())
            run_stage(self.stage, Inputs(model=model, data=(str(data),), references=references), self.options, out)
        return self.domain.scorer(str(out), self.files), str(out)

    def learning(self, rows: Sequence[Comparison], judge: Scorer, larger: str) -> tuple[list[Learnt], str]:
        """Fits on growing shares of the labels, and one with more weights, all measured on the same held-out pairs."""
        keys = list({content_key(r.prompt): None for r in self.rows})
        order = [keys[i] for i in np.random.default_rng(0).permutation(len(keys))]
        points: list[tuple[int, Scorer, str]] = []
        for share in SHARES:
            kept = set(order[: max(round(share * len(order)), 1)])
            some = [r for r in self.rows if content_key(r.prompt) in kept]
            points.append((len(some), *self.fit(f"share-{share:g}", self.made.model, some)))
        points.append((len(self.rows), judge, str(self.made.path)))
        if larger:
            points.append((len(self.rows), *self.fit("larger", larger, self.rows)))
        right = [(labels, *correctness(rows, scorer)) for labels, scorer, _ in points]
        learnt = [
            Learnt(
                labels=labels,
                accuracy=clustered_wilson(hits, of),
                parameters=self.domain.details(folder, scorer, self.files).parameters,
            )
            for (labels, hits, of), (_, scorer, folder) in zip(right, points, strict=True)
        ]
        bigger = right.pop()[1] if larger else None
        return learnt, would_help([(labels, hits) for labels, hits, _ in right], bigger, right[-1][2])

    def strangers(self, rows: Sequence[Comparison], judge: Scorer) -> Strangers | None:
        """A fit without a quarter of the labelers, on the held-out prompts.

        Raises:
            UserError: the judgments name fewer than two labelers.
        """
        split = split_by_labeler(self.rows, LEFT_OUT)
        fitted, _ = self.fit("without-labelers", self.made.model, split.train)
        out = {str(labeler_value(row, "labeler")) for row in split.validation}
        (without, prompts), (whole, _) = correctness(rows, fitted), correctness(rows, judge)
        return strangers(pair_labelers(rows), without, whole, prompts, out)


# --- in a project ----------------------------------------------------------------------------------------------------


def project_card(
    project: Project, reward: str | None = None, *, learning_curve: bool = False, larger: str = "",
    held_out_labelers: bool = False, announce: Callable[[str], None] = lambda _: None,
) -> RewardCard | None:  # fmt: skip
    """The card of a project's reward model, by default the one in use; None without one, or where nothing is held out.

    Further reward models of the project trained on the same data are its ensemble; the responses of the last
    evaluation are what it scores now.
    """
    made = {a.path.name: a for a in project.finished().values() if makes_reward(a.kind)}
    if not made:
        return None
    name = reward or Path(project.reward()).name
    if name not in made:
        raise UserError(f"{project.path} has no reward model '{name}'", f"Known: {', '.join(made)}")
    with project.store() as store:
        rows = judged_rows(store, "validation")
    if not decided(rows):
        return None
    data = made[name].data_hash
    others = [a.path for other, a in made.items() if other != name and a.data_hash == data]
    return evaluate_reward(
        made[name].path, rows, others=others, now=_scored_now(project), learning_curve=learning_curve, larger=larger,
        held_out_labelers=held_out_labelers, announce=announce,
    )  # fmt: skip


def judged_rows(store: FeedbackStore, split: str | None) -> list[Comparison]:
    """The comparisons of a split with everything that a card divides them by in their metadata.

    Without those of policies: their answers were optimised against the reward model that is to be judged.
    """
    from hearken.feedback.snapshot import inline_examples

    items = {item.id: item for item in store.items()}
    prompts = {prompt.content: prompt.metadata for prompt in store.prompts(split=split)}
    judgments = {j.id: j for j in store.judgments(kinds=("comparison",), split=split)}
    found = []
    for row in inline_examples(store, ("comparison",), split, attributes=True, evaluations=False):
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


def _scored_now(project: Project) -> dict[str, Answers]:
    """Prompts and responses of the policies of the last evaluation, but for the baseline."""
    found = kept(project.path)
    return {
        name: list(zip(found.prompts, policy.responses, strict=True))
        for name, policy in found.policies.items()
        if name != found.baseline and policy.responses
    }


def summary(card: RewardCard | None) -> dict[str, object]:
    """The head of a card, for the command line."""
    if card is None:
        return {}
    return {
        "passes": card.passes, "accuracy": card.accuracy, "pairs": card.pairs, "length_baseline": card.length_baseline,
        "agreement": card.agreement, "ceiling": card.ceiling, "calibration_error": card.calibration.error,
        "uniform_slice": card.uniform, "says": " ".join([*card.failures, *card.remarks, card.learning_says]).strip(),
    }  # fmt: skip
