"""`hearken quickstart --model M`: the whole loop on a pretrained chat model, which learns to write short messages.

The three steps of InstructGPT: the model answers requests, and simulated labelers of two tastes (or the person at this
machine) rank what it wrote; it imitates what was ranked first; a reward model is fitted to the rankings, and RLOO goes
on by it. A judge that had no part in any of this (see `evaluation.reader`) compares old and new answers to requests
about other topics.
"""

from __future__ import annotations

from pathlib import Path

from hearken.algorithms.stage import Inputs
from hearken.errors import UserError
from hearken.evaluation.results import EvaluationResult, JudgedBy
from hearken.evaluation.summary import Finished, NotesFigures, NotesPerplexity, NotesSummary, RewardFigures
from hearken.feedback.examples import Content, Message, PromptOnly
from hearken.feedback.formats import write_examples
from hearken.feedback.records import Prompt
from hearken.loop import human, taste
from hearken.loop.labelling_target import Goal
from hearken.loop.project import Project, ProjectConfig, SampleConfig
from hearken.loop.quickstart_plans import NOTES_FAST, NotesPlan, notes_in_person
from hearken.loop.quickstart_steps import concluded, held_out_figures, judged, open_project, steps
from hearken.models.loading import load_tokenizer
from hearken.models.packaged import PACKAGED, installed, make_model
from hearken.training.artifact import Artifact, seen_from
from hearken.worlds.notes.world import NoteWorld, good_message, traits
from hearken.worlds.tales.world import TaleWorld

POLICY = "r01-rloo"
JUDGE = JudgedBy(kind="reader", words="an untuned model that reads both answers", remark="no labeler, no reward model")


STEPS = {
    "Sampling": "The model is writing its first messages.",
    "Your judgments": "",
    "Judgments": "Simulated labelers judge what you left.",
    "SFT": "The model imitates the messages that you liked best.",
    "Reward model": "A reward model is learning your taste.",
    "RLOO": "The model is learning to write messages that you like.",
    "Evaluation": "Old and new messages are compared.",
    "Card of the reward model": "What was learnt of your taste is looked at closely.",
}
"""What the person reads while a step runs."""

GUIDELINE = """Choose the message that **you** would rather send. There is no right answer: your taste is to be learned.

Most will be odd: too long, cut off, with gaps to fill in, or about something else. You decide how much that matters."""

TRAITS = {
    "said": "says what was asked", "does": "thanks, asks or is sorry as asked", "whole": "is whole",
    "gaps": "gaps to fill in", "beside": "talks about the message", "letter": "letter forms", "kind": "a kind word",
    "copied": "repeats the request", "words": "length",
}  # fmt: skip
"""What can be told apart in messages, in words."""


def setting(world: NoteWorld) -> human.Setting:
    """What the person is asked."""
    shown: list[human.Practice] = []
    for best, why, flawed in (
        (0, "The second one says nothing of what was asked for.", "I hope you are well! Have a lovely day."),
        (
            1,
            "The first one still has gaps to fill in.",
            "Dear [Name], this is about [reason]. Regards, [Your name]",
        ),
        (0, "The second one breaks off. From now on only your own taste counts.", "Hello! I just wanted to let you"),
    ):
        request = world.prompts(len(shown) + 1)[-1]
        pair = [good_message(request), flawed]
        shown.append(
            {"prompt": request, "responses": pair if best == 0 else pair[::-1], "best": best, "explanation": why}
        )
    return human.Setting("Which message would you rather send?", GUIDELINE, shown, STEPS)


def view(world: NoteWorld, base: str) -> taste.View:
    """What can be told apart in messages."""
    from hearken.domains.best_of import label_of

    return taste.View(
        TRAITS, lambda request, text: {name: float(getattr(traits(request, text), name)) for name in TRAITS},
        world.gold, (label_of(base), POLICY),
    )  # fmt: skip


def quickstart_notes(
    directory: Path | str, model: str, *, seed: int = 0, fast: bool = False, seat: human.Seat | None = None
) -> Finished:
    """Run (or go on with) the whole loop on a pretrained chat model in ``directory``.

    Args:
        directory: a new folder, or one that an interrupted run left.
        model: a name in `models.packaged.PACKAGED`, or a chat model's folder, GGUF file or Hub name.
        seed: fixes every draw.
        fast: a smoke test.
        seat: opens the labelling page for the person at this machine, who then judges; without it simulated labelers
            do.

    Raises:
        UserError: the folder holds something else; there is no such model here.
    """
    plan = NOTES_FAST if fast else NotesPlan()
    plan = plan if seat is None else notes_in_person(plan)
    project = _open(Path(directory), model, plan, seed)
    world = NoteWorld(seed)
    if seat is None or human.record(project) is not None:
        return _run(project, world, plan, None)
    with human.seated(project, setting(world), plan.needed, seat) as goal:
        return _run(project, world, plan, goal)


def _run(project: Project, world: NoteWorld, plan: NotesPlan, goal: Goal | None) -> Finished:
    base = project.model
    step = steps(project, goal, STEPS)
    prompts = _write_data(project, world, plan)
    judged(project, step, plan, base, goal)
    train, held_out = ((project.snapshot(split),) for split in ("train", "validation"))
    with step("SFT"):
        imitator = str(project.train("sft", "r01-sft", Inputs(base, train), **plan.sft).path)
    with step("Reward model"):
        reward = project.train("reward", "r01-reward", Inputs(base, train, held_out), **plan.reward)
    with step("RLOO"):
        inputs = Inputs(imitator, (prompts,), reward=str(reward.path), ref=imitator)
        policy = project.train("rloo", POLICY, inputs, **plan.rloo)
    return concluded(
        project, step, reward, lambda: _compare(project, plan, base, policy.path),
        lambda found: _summary(project, reward, found), view(world, base) if plan.needed else None,
    )  # fmt: skip


def _open(path: Path, model: str, plan: NotesPlan, seed: int) -> Project:
    """A new project with its model, or the one that an interrupted run with the same settings left."""
    folder = path / model if model in PACKAGED else Path(model)
    config = ProjectConfig(
        model=seen_from(path.absolute(), str(folder.absolute())) if model in PACKAGED or folder.exists() else model,
        world="notes", seed=seed,
        sample=SampleConfig(
            k=plan.k, overlap=plan.overlap, max_new_tokens=plan.max_new_tokens, temperature=plan.temperature
        ),
        stages={"sft": plan.sft, "reward": plan.reward, "rloo": plan.rloo},
    )  # fmt: skip
    if not folder.exists() and model in PACKAGED:
        installed(PACKAGED[model])
    elif load_tokenizer(str(folder) if folder.exists() else model).chat_template is None:
        raise UserError(f"--model {model} has no chat template", "Name a chat model: it is asked for messages")
    project = open_project(path, config)
    if model in PACKAGED and not folder.exists():
        with project.timed("Model"):
            make_model(model, folder)
    return project


def asked(request: str) -> Content:
    """A request as a chat model gets it."""
    return (Message("user", request),)


def _write_data(project: Project, world: NoteWorld, plan: NotesPlan) -> str:
    """Requests into the database, and those that RLOO draws from into a file; its path."""
    file = project.path / "data" / "prompts.jsonl"
    if not file.exists():
        requests = [asked(r) for r in world.prompts(plan.prompts)]
        held_out = [asked(r) for r in world.prompts(plan.heldout, "heldout")]
        with project.store() as store:
            store.add_prompts(Prompt(content=r, split="train") for r in requests[: plan.judged])
            store.add_prompts(Prompt(content=r, split="validation") for r in held_out)
        file.parent.mkdir(exist_ok=True)
        write_examples([PromptOnly(r) for r in requests], file, overwrite=True)
    return str(file)


def _compare(project: Project, plan: NotesPlan, base: str, policy: Path) -> EvaluationResult:
    """Figures by the independent judge, and beside them by the reward model and by the labelers' own taste."""
    from hearken.domains.best_of import label_of
    from hearken.domains.text.measuring import text_perplexity
    from hearken.evaluation.answers import assess
    from hearken.evaluation.reader import Reader, reader_win_rates
    from hearken.feedback.examples import content_key
    from hearken.loop.evaluating import conditions
    from hearken.statistics.winrate import outcomes, win_rate

    prompts = project.held_out(plan.heldout)
    found = assess([base, str(policy)], conditions(project, prompts, project.config.seed + 1))
    before, after = (found.policies[name] for name in (found.baseline, policy.name))
    keys = [content_key(p) for p in prompts]
    reader = Reader(base)
    read_after, read_before = (reader.read(prompts, side.responses) for side in (after, before))
    overall, single = reader_win_rates(read_after, read_before, keys)
    by_reward = win_rate(outcomes(after.scores, before.scores).tolist(), keys)
    texts = TaleWorld(project.config.seed).corpus(plan.documents, "heldout")
    before = before.but(says=[one.says for one in read_before], perplexity=text_perplexity(base, texts))
    after = after.but(
        win_rate=overall, win_rate_by_reading=single,
        win_rate_by_judge={"judge": overall, "labelers": after.win_rate, "reward": by_reward},
        says=[one.says for one in read_after], perplexity=text_perplexity(str(policy), texts),
    )  # fmt: skip
    return found.but(judge=JUDGE.but(name=label_of(base)), policies={found.baseline: before, policy.name: after})


def _summary(project: Project, reward: Artifact, found: EvaluationResult) -> NotesSummary:
    before, after = found.policies[found.baseline], found.policies[POLICY]
    assert before.gold and before.length and before.eos_share and before.perplexity
    assert after.kl and after.gold and after.length and after.eos_share and after.perplexity
    return NotesSummary(
        seed=project.config.seed,
        model=Path(project.config.model).name,
        reward=RewardFigures(**held_out_figures(reward), ceiling=found.ceiling),
        policy=NotesFigures(
            win_rates=after.win_rate_by_judge, win_rates_by_reading=after.win_rate_by_reading,
            win_rate_by_group={group: rate.estimate for group, rate in after.win_rate_by_group.items()},
            kl=after.kl.estimate,
            ended=after.eos_share.estimate, ended_before=before.eos_share.estimate,
            gold=after.gold.estimate, gold_before=before.gold.estimate,
            length=after.length.estimate, length_before=before.length.estimate,
            says=sum(after.says) / len(after.says), says_before=sum(before.says) / len(before.says),
            distinct_2=after.distinct_2, distinct_2_before=before.distinct_2,
        ),
        perplexity=NotesPerplexity(before=before.perplexity, after=after.perplexity),
    )  # fmt: skip


__all__ = ["JUDGE", "POLICY", "quickstart_notes"]
