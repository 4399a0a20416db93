"""Who watches a policy while it trains in a round: gold, people, an AI or simulated labelers (see `algorithms.watch`).

People and machines are shown the policy's and the reference's answers to held-out prompts, in random order and without
names, as items of the project's queue. Training waits for people: what it does next hangs on what they say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from hearken.algorithms.sampled import Setup
from hearken.algorithms.stage import Inputs
from hearken.algorithms.watch import Answered, Judge, Verdicts, looks_of, watched
from hearken.config import Options
from hearken.errors import UserError
from hearken.feedback.examples import PromptOnly, content_key
from hearken.feedback.formats import write_examples
from hearken.feedback.pairs import pairs_of
from hearken.feedback.records import Prompt, QueueItem, Response, hash_id
from hearken.feedback.store import FeedbackStore
from hearken.labelers.kinds import KINDS, Who
from hearken.labelers.simulated import dialogue_text
from hearken.loop.asking import ask
from hearken.statistics.winrate import outcomes
from hearken.training.artifact import Artifact, claim_folder, release_folder
from hearken.training.run import Callback
from hearken.worlds.world import open_world

if TYPE_CHECKING:
    from hearken.loop.project import Project
    from hearken.loop.rounds import Loop


def watcher(loop: Loop, name: str, reference: str) -> Judge | None:
    """The judge that only a project has; None where the stage opens its own, or nobody watches.

    Args:
        loop: whose ``watch`` says who.
        name: of the policy that trains.
        reference: path of the one that it is compared with.
    """
    who = loop.config.watch.judge
    if who == "gold":
        return by_gold(loop.project)
    if who in KINDS:
        return lambda step, answered: asked(loop, who, name, Path(reference).name, step, answered)  # type: ignore[arg-type]
    return None


def by_gold(project: Project) -> Judge:
    """The world's true reward decides."""
    world, read = open_world(project.config.world, project.config.seed), project.read

    def judge(step: int, answered: Sequence[Answered]) -> Verdicts:
        prompts = [dialogue_text(one.content) for one in answered]
        mine = [world.gold(prompt, read(one.mine)) for prompt, one in zip(prompts, answered, strict=True)]
        theirs = [world.gold(prompt, read(one.theirs)) for prompt, one in zip(prompts, answered, strict=True)]
        return Verdicts(outcomes(mine, theirs).tolist())

    return judge


def asked(loop: Loop, who: Who, name: str, reference: str, step: int, answered: Sequence[Answered]) -> Verdicts:
    """Have both answers to each prompt compared; equal answers are ties that nobody is asked about.

    Returns:
        For each prompt the mean over its judgments (prompts that nobody judged are left out), and these judgments.

    Raises:
        Waiting: people are needed, and nobody wants to wait.
    """
    project = loop.project
    pairs: list[tuple[str, str] | None] = []
    items: list[QueueItem] = []
    with project.store() as store:
        prompts = _known(store, project.domain.name, answered)
        for one in answered:
            if one.mine == one.theirs:
                pairs.append(None)
                continue
            prompt = prompts[content_key(one.content)]
            mine, theirs = (
                # The same response has the same id whenever it is shown, so that no pair is asked about twice.
                Response(
                    id=hash_id("watch", prompt.id, said), prompt_id=prompt.id, **project.domain.fields(said),
                    policy=policy, metadata={"evaluation": True, "step": step},
                )
                for said, policy in ((one.mine, name), (one.theirs, reference))
            )  # fmt: skip
            store.add_responses([mine, theirs])
            pairs.append((mine.id, theirs.id))
            items.append(
                QueueItem(
                    id=hash_id("watch", who, *sorted((mine.id, theirs.id))), prompt_id=prompt.id,
                    response_ids=(mine.id, theirs.id), selection="evaluation", propensity=1.0,
                    slots=project.config.sample.overlap, metadata={"evaluation": True, "step": step},
                )
            )  # fmt: skip
    ask(
        project, items, who, label=f"Watching {name}: after {step} iterations",
        wait=loop.wait, seed=project.config.seed, announce=loop.announce,
    )  # fmt: skip
    with project.store() as store:
        told, heard = _outcomes(store, who, {pair for pair in pairs if pair})
    found = [[0.5] if pair is None else told.get(pair, []) for pair in pairs]
    return Verdicts([sum(some) / len(some) for some in found if some], heard)


def _known(store: FeedbackStore, domain: str, answered: Sequence[Answered]) -> dict[str, Prompt]:
    """The database's prompts, with those of files of prompts that are not there yet, held out."""
    known = {content_key(p.content): p for p in store.prompts(domain=domain)}
    new = [
        Prompt(content=a.content, domain=domain, split="validation")
        for a in answered
        if content_key(a.content) not in known
    ]
    store.add_prompts(new)
    return known | {content_key(p.content): p for p in new}


def _outcomes(
    store: FeedbackStore, who: Who, pairs: set[tuple[str, str]]
) -> tuple[dict[tuple[str, str], list[float]], list[str]]:
    """What was said of each pair, for its first response; and the ids of the judgments that say so."""
    found: dict[tuple[str, str], list[float]] = {}
    heard: list[str] = []
    for pair in pairs_of(store, KINDS[who]):
        for both, outcome in (((pair.a, pair.b), pair.outcome), ((pair.b, pair.a), 1 - pair.outcome)):
            if both in pairs:
                found.setdefault(both, []).append(outcome)
                heard.append(pair.judgment)
    return found, heard


def hold_out(project: Project, out: Path, evaluated: int, count: int) -> None:
    """Write held-out prompts for whoever watches: those on which policies are not compared afterwards, if enough.

    A policy that was chosen on the prompts it is then judged on would look better than it is. What is there stays:
    prompts have no number by which a later look could leave new ones out.
    """
    if out.exists():
        return
    prompts = project.held_out()
    prompts = prompts[evaluated:] if len(prompts) - evaluated >= count else prompts
    out.parent.mkdir(exist_ok=True)
    write_examples([PromptOnly(prompt) for prompt in prompts], out)


def train_watched(
    loop: Loop, inputs: Inputs, options: Options, out: Path, judge: Judge | None,
    further: Callable[[Setup], list[Callback]] = lambda setup: [],
) -> Artifact:  # fmt: skip
    """Run the stage that improves the policy with a judge of the project's beside it, if any.

    ``further`` makes other callbacks. Where something cannot be read, the folder is free again.
    """
    watch, stage = loop.config.watch, loop.project.stage(loop.config.improve)
    if watch.judge in KINDS and not out.exists():
        looks = looks_of(options)
        count = looks * watch.prompts * loop.project.config.sample.overlap
        loop.announce(
            f"{watch.judge} will compare answers of {out.name} to {watch.prompts} held-out prompts {looks} times: "
            f"{count:,} judgments at most"
        )
    claim_folder(out, stage.name, inputs, options)
    method = import_module(stage.module)
    try:
        setup, callbacks = watched(method.load, inputs, options, judge)
    except UserError:
        release_folder(out)
        raise
    made: Artifact = method.improve(setup, inputs, options, out, [*callbacks, *further(setup)])
    return made
