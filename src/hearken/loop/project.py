"""The project folder: one configuration, one feedback database, artifacts with their lineage.

A step resolves references ("the newest reward model") into inputs, runs a stage, and leaves an artifact. Finished
artifacts are not made again; unfinished ones are resumed.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

import yaml
from pydantic import Field

from hearken.algorithms.stage import Inputs, Stage, find_stage, makes_reward, run_stage, stage_of
from hearken.config import Options, read_yaml
from hearken.domains.base import Domain, Drawn, domain_of, find_domain
from hearken.domains.best_of import BestOf
from hearken.errors import UserError
from hearken.feedback import privacy
from hearken.feedback.database import has_password
from hearken.feedback.examples import Content, Document, PromptOnly
from hearken.feedback.formats import read_as
from hearken.feedback.media import MediaFolder
from hearken.feedback.reading import ReadingOptions
from hearken.feedback.records import Judgment, Prompt, QueueItem, Response, hash_id
from hearken.feedback.records import Labeler as LabelerRecord
from hearken.feedback.snapshot import inline_examples, snapshot
from hearken.feedback.splits import side
from hearken.feedback.store import FeedbackStore
from hearken.feedback.transfer import keep_prompt, say_disputed
from hearken.labelers.simulated import Panel, SimulatedLabeler, dialogue_text, make_panel
from hearken.loop.artifacts import ArtifactStore
from hearken.loop.rounds_options import AIOptions, LoopOptions
from hearken.progress import Bar, progress
from hearken.rollout.sampler import SamplingParameters
from hearken.training.artifact import HERE, Artifact, write_json
from hearken.worlds.world import World, check_world, open_world

if TYPE_CHECKING:
    from hearken.labelers.ai import AILabeler

T = TypeVar("T")
CONFIG = "hearken.yaml"
NO_TEXT = {"length": 0.0}
"""How simulated labelers lean where responses have no words: not to the longer ones."""
MAX_TOKENS = 512
"""Of an AI labeler's reasoning, critique or revision."""


class SampleConfig(SamplingParameters):
    """How responses for judgment are drawn."""

    k: int = Field(4, ge=2)
    """Responses per prompt."""
    overlap: int = Field(1, ge=1)
    """Labelers who judge the same responses."""
    more: dict[str, object] = {}
    """Options of sampling that the project's domain has beside those of all."""

    @property
    def parameters(self) -> SamplingParameters:
        """Those of the sampler alone."""
        return SamplingParameters(**self.model_dump(include=set(SamplingParameters.model_fields)))


class ProjectConfig(Options):
    """hearken.yaml."""

    model: str
    """The policy to begin with: a folder or a Hub name."""
    prompts: str = ""
    """File, folder or Hub name of the prompts."""
    domain: str = ""
    """What responses are (`domains.base`); empty: told from the model."""
    world: str = ""
    """A world that knows the true reward, such as the built-in ones, tales and notes; empty for real use."""
    database: str = "feedback.db"
    """File in the project folder, or a PostgreSQL URL."""
    seed: int = 0
    """Fixes every draw."""
    validation: float = Field(0.2, gt=0, lt=1)
    """Share of the prompts held out from training."""
    sample: SampleConfig = SampleConfig()
    """How responses are drawn."""
    stages: dict[str, dict[str, object]] = {}
    """Options of the training stages, by name."""
    loop: LoopOptions = LoopOptions()
    """How rounds follow each other: see ``hearken loop``."""


def model_in(root: Path, model: str) -> str:
    """The ``model`` of a project's configuration: a folder as seen from ``root`` or in full, or a Hub name.

    In projects of before, a folder of the project itself stood there in full: it is looked for where the project is.
    """
    if not os.path.isabs(model) and (model.startswith(HERE) or (root / model).exists()):
        return os.path.abspath(root / model)
    place = Path(model)
    own = root / place.name
    moved = not place.exists() or (place.parent / CONFIG).exists()  # or a copy of that project
    return os.path.abspath(own) if place.is_absolute() and moved and (own / "config.json").exists() else model


class Fading(TypedDict):
    """Which judgments a data set holds, and what they weigh: see `Project.snapshot`."""

    as_of: int
    round: int | None
    decay: float
    latest: int


class Project:
    """A project folder.

    Raises:
        UserError: ``path`` is not a project, or its configuration is wrong.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if not (self.path / CONFIG).is_file():
            raise UserError(
                f"{self.path} is not a project (no {CONFIG})", "Make one with: hearken init DIR --model M --prompts F"
            )
        self.config = ProjectConfig.parse(read_yaml(self.path / CONFIG), where=CONFIG)
        if self.config.world:
            check_world(self.config.world)
        if has_password(self.config.database):
            privacy.private(self.path / CONFIG)

    @classmethod
    def init(
        cls, path: Path | str, *, model: str, prompts: str = "", seed: int = 0, reading: ReadingOptions | None = None,
        domain: str = "",
    ) -> Project:  # fmt: skip
        """Make a project folder and bring the prompts into its database, read as ``reading`` says, or the domain's."""
        kind = find_domain(domain) if domain else domain_of(model)
        config = ProjectConfig(
            model=_absolute(model),
            prompts=prompts and _absolute(prompts),
            seed=seed,
            domain="" if kind.name == "text" else kind.name,
        )
        found: dict[str, Prompt] = {}
        disputed: Counter[str] = Counter()
        if not prompts:
            for content in kind.prompts(model):
                prompt = Prompt(content=content, domain=kind.name, split=side(content, config.validation, seed))
                found[prompt.id] = prompt
        for row in read_as(prompts, reading or ReadingOptions())[0] if prompts else ():
            if not isinstance(row, Document):
                split = side(row.prompt, config.validation, seed)
                prompt = Prompt(content=row.prompt, domain=kind.name, split=split, metadata=row.metadata)
                if isinstance(row, PromptOnly):
                    keep_prompt(found, prompt, disputed)
                else:
                    found.setdefault(prompt.id, prompt)
        if not found:
            raise UserError(f"{prompts} holds no prompts", "Give rows with a prompt column")
        say_disputed(str(prompts), disputed)
        project = cls.create(path, config)
        with project.store() as store:
            store.add_prompts(found.values())
        return project

    @classmethod
    def create(cls, path: Path | str, config: ProjectConfig) -> Project:
        """Write the folder and its configuration."""
        path = Path(path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UserError(f"{path} exists and is not empty", "Name a new folder")
        path.mkdir(privacy.FOLDER, parents=True, exist_ok=True)
        text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        privacy.private(path / CONFIG).write_text(text, "utf-8")
        return cls(path)

    def store(self) -> FeedbackStore:
        """The feedback database."""
        url = self.config.database
        return FeedbackStore(url if "://" in url else self.path / url)

    @cached_property
    def domain(self) -> Domain:
        """What responses are here."""
        return find_domain(self.config.domain) if self.config.domain else domain_of(self.model)

    def stage(self, name: str) -> Stage:
        """A stage of this project's domain.

        Raises:
            UserError: the domain has none of that name.
        """
        return find_stage(name, self.domain.name)

    @property
    def model(self) -> str:
        """The policy to begin with, where it is now: a folder or a Hub name."""
        return model_in(self.path, self.config.model)

    @property
    def media(self) -> MediaFolder:
        """The files that responses are."""
        return MediaFolder(self.path)

    @property
    def how(self) -> SamplingParameters:
        """How responses are drawn, with what the domain has beside the options of all."""
        sample = self.config.sample
        given = sample.parameters.model_dump() | sample.more
        return self.domain.sampling.parse(given, where=f"{CONFIG}: sample.more")

    def world(self) -> World | None:
        """The world that knows the true reward here, if there is one."""
        return open_world(self.config.world, self.config.seed) if self.config.world else None

    def read(self, content: str) -> object:
        """What worlds and simulated labelers read of a response (see `Domain.read`)."""
        return self.domain.read(content, self.media)

    def admit(self, data: bytes) -> str:
        """See `Domain.admit`."""
        return self.domain.admit(data, self.config.model)

    # Artifacts

    @property
    def artifacts(self) -> Path:
        """Their folder."""
        return self.path / "artifacts"

    @property
    def replies(self) -> Path:
        """The folder of what AI labelers replied (see `labelers.judges.CachedJudge`)."""
        return self.path / "runs" / "judge"

    @property
    def made(self) -> ArtifactStore:
        """What is in that folder."""
        return ArtifactStore(self.artifacts)

    def artifact(self, name: str) -> Artifact | None:
        """A finished artifact of this project, or None."""
        return self.made.get(name)

    def finished(self, *, records: bool = False) -> dict[str, Artifact]:
        """All finished artifacts by name, oldest first: models, and with ``records`` what rounds left besides."""
        return self.made.finished(records=records)

    def policy(self, name: str | None = None) -> str:
        """Path or Hub name of a policy: an artifact's name, anything else as it is, by default the newest one."""
        if name is not None:
            return str(self.artifacts / name) if self.artifact(name) else name
        made = self.policies()
        return str(made[-1].path) if made else self.model

    def policies(self) -> list[Artifact]:
        """The policies that were trained here, the oldest first."""
        return self.made.policies()

    def rewards(self) -> list[Artifact]:
        """The reward models that policies are improved by, the one in use last."""
        return self.made.rewards()

    def reward(self) -> str:
        """Path of the reward model in use."""
        if not (made := self.rewards()):
            raise UserError("this project has no reward model yet", "Run: hearken train reward (after labelling)")
        return str(made[-1].path)

    def train(self, stage: str, name: str, inputs: Inputs, **overrides: object) -> Artifact:
        """Run a stage into the artifact ``name``, or return it if it is finished."""
        if (done := self.artifact(name)) is not None:
            return done
        found = self.stage(stage)
        given, values = self.section(found)
        options = found.options.parse(values | overrides, where=f"{CONFIG}: stages.{stage}")
        return run_stage(found, inputs.joined(**given), options, self.artifacts / name)

    def section(self, stage: Stage) -> tuple[dict[str, str | tuple[str, ...]], dict[str, object]]:
        """Inputs and options of a stage that hearken.yaml names (paths as seen from there), and the project's seed."""
        inputs, options = stage.split({"seed": self.config.seed, **self.config.stages.get(stage.name, {})})

        def here(named: str | tuple[str, ...]) -> str | tuple[str, ...]:
            if isinstance(named, tuple):
                return tuple(str(here(one)) for one in named)
            return str(self.path / named) if (self.path / named).exists() else named

        return {name: here(value) for name, value in inputs.items()}, options

    def request(self, stage: str, named: Collection[str] = ()) -> tuple[str, Inputs, dict[str, object]]:
        """What ``hearken train STAGE`` means here: the artifact's name, its inputs, and the options of hearken.yaml.

        Args:
            stage: its name.
            named: inputs that are given otherwise: they are not looked for here, and left empty.

        Raises:
            UserError: the project holds nothing yet for one of the others.
        """
        found = self.stage(stage)
        given, values = self.section(found)
        kind = self._first_kind("train", found.reads)
        model = self.model if found.first else self.first_policy()

        def wanted(name: str) -> bool:
            return found.takes(name) and name not in given and name not in named

        if wanted("data"):
            given["data"] = (self.snapshot("train", kinds=(kind,)),)
        if wanted("model"):
            given["model"] = model
        if found.first:
            return f"r00-{stage}", Inputs().joined(**given), values
        if wanted("validation") and kind != "prompt":
            given["validation"] = self._optional("validation", kind)
        if wanted("references"):
            given["references"] = self._optional("train", "demonstration")
        if wanted("reward") and found.needs("reward"):
            given["reward"] = self.reward()
        if wanted("ref"):
            given["ref"] = model
        return f"r01-{stage}", Inputs().joined(**given), values

    def _first_kind(self, split: str, kinds: Sequence[str]) -> str:
        """The first kind of example that the database holds, else the first of all."""
        with self.store() as store:
            return next((k for k in kinds if self._some(store, k, split)), kinds[0])

    def _optional(self, split: str, kind: str) -> tuple[str, ...]:
        """A snapshot, or nothing where the database has no such examples."""
        with self.store() as store:
            if not self._some(store, kind, split):
                return ()
        return (self.snapshot(split, kinds=(kind,)),)

    @staticmethod
    def _some(store: FeedbackStore, kind: str, split: str) -> bool:
        """Whether a snapshot of this kind would hold anything."""
        return next(inline_examples(store, (kind,), split, None, evaluations=False), None) is not None

    # The steps of a round

    def sample(
        self, k: int | None = None, *, prompts: int | None = None, policy: str | None = None, seed: int | None = None,
        split: str | None = None, round: int = 1, best_of: BestOf | None = None,
    ) -> dict[str, object]:  # fmt: skip
        """Responses of a policy into the database, queued for judgment. Prompts that have theirs are left alone.

        With ``best_of`` each is the best of so many by its reward, where it names none by the one in use; they are kept
        as those of a policy of its own, NAME-best-of-N.

        Raises:
            UserError: no reward model to choose by.
        """
        domain, how = self.domain, self.how
        k, seed, name = k or self.config.sample.k, self.config.seed if seed is None else seed, self.policy(policy)
        choice = best_of and replace(best_of, reward=best_of.reward or self.reward())
        label = Path(name).name + (f"-{choice.name}" if choice else "")
        with self.store() as store:
            wanted = list(store.prompts(split=split, domain=domain.name))[:prompts]
            have: dict[str, int] = {}
            for response in store.responses(policy=label, round=round):
                have[response.prompt_id] = have.get(response.prompt_id, 0) + 1
            todo = {p.content: p for p in wanted if have.get(p.id, 0) < k}
            if todo:
                known = {"facts": {content: p.metadata for content, p in todo.items()}}
                with progress("Sampling responses", len(wanted), "prompt") as bar:
                    bar.advance(len(wanted) - len(todo))
                    if choice is not None:
                        parts = domain.best_of(name, list(todo), k, how, seed, self.media, choice, **known)
                    else:
                        parts = domain.sample(name, list(todo), k, how, seed, self.media, **known)
                    for part in parts:
                        responses = as_responses(domain, part, todo, label, how, round)
                        store.add_responses(responses)
                        store.enqueue(as_items(responses, k, round, self.config.sample.overlap))
                        bar.advance(len(part) // k)
            progress_now = store.progress(round)
        return {"policy": label, "prompts": len(wanted), "responses": len(wanted) * k, "queued": progress_now.items}

    def label(
        self, labeler: str = "simulated", *, seed: int | None = None, round: int | None = None,
        only: Collection[str] | None = None,
    ) -> dict[str, object]:  # fmt: skip
        """Let labelers that are not people answer the queue, or ``only`` the items with these ids."""
        if not self.config.world:
            raise UserError(
                "simulated labelers need a world that knows the true reward; this project has none",
                "Import judgments (hearken import), or set world: tales in hearken.yaml for the built-in one",
            )
        panel = self.panel()
        seed = self.config.seed if seed is None else seed
        with self.store() as store:
            found = {r.name: r for r in store.labelers(kind="simulated")}
            for one in panel.labelers:
                if one.name not in found:
                    record = LabelerRecord(name=one.name, kind="simulated", id=one.id, attributes=dict(one.attributes))
                    found[one.name] = store.add_labeler(record)
            turns = _after_last(store, [(one, found[one.name].id) for one in panel.labelers])
            open_items = store.items(round=round, done=False)
            waiting = sum(i.slots - i.filled for i in open_items if not i.is_gold and (only is None or i.id in only))
            with progress("Simulated labelers", waiting, "judgment") as bar:
                done = 0
                answered = -1
                while answered:
                    answered = sum(self._answer(store, one, labeler_id, seed, bar, only) for one, labeler_id in turns)
                    done += answered
            return {"judgments": store.last_seq(), "labelers": len(panel.labelers), "new": done}

    def ai_labels(
        self, ai: AIOptions, *, revise: bool = False, seed: int | None = None, round: int | None = None,
        dry_run: bool = False, announce: Callable[[str], None] = lambda _: None, only: Collection[str] | None = None,
    ) -> dict[str, object]:  # fmt: skip
        """Let a model answer the queue (or ``only`` some items) by a constitution, or revise responses (``revise``).

        A revision heeds people's critiques; where there are none, the model's own, by a principle. The cost is
        estimated first and said to ``announce``; with ``dry_run`` nothing is asked. Replies are cached in
        ``runs/judge``, with their tokens and price, from which the report sums what was spent. How far the model agrees
        with people who judged the same pairs is part of the result and of ``runs/ai-labels.json``.
        """
        from hearken.labelers import answering
        from hearken.labelers.constitution import load_constitution
        from hearken.labelers.judges import CHOICE_TOKENS

        if "ai" not in self.domain.offers:
            what = f"AI labelers read text, and this project is of the domain {self.domain.name}"
            raise UserError(what, "Ask people")
        load_constitution(ai.constitution)  # a wrong name is said before anything is counted
        out = MAX_TOKENS if ai.reasoning else CHOICE_TOKENS
        seed = self.config.seed if seed is None else seed
        with self.store() as store:
            if revise:
                cost = answering.estimate_revisions(
                    store,
                    tokens_out=MAX_TOKENS,
                    round=round,
                    price_in=ai.price_in,
                    price_out=ai.price_out,
                    domain=self.domain.name,
                )
            else:
                cost = answering.estimate(
                    store, tokens_out=out, round=round, price_in=ai.price_in, price_out=ai.price_out, only=only
                )
            announce(cost.say())
            if dry_run:
                return asdict(cost)
            labeler = self.ai_labeler(ai)
            if revise:
                found = answering.revise(
                    store, labeler, seed=seed, workers=ai.workers, round=round, domain=self.domain.name
                )
            else:
                found = answering.answer_queue(store, labeler, seed=seed, workers=ai.workers, round=round, only=only)
        write_json(self.path / "runs" / "ai-labels.json", found)
        announce(answering.say(found))
        return found

    def ai_labeler(self, ai: AIOptions) -> AILabeler:
        """A model that judges by a constitution; its replies are cached in ``runs/judge``, with what they took."""
        from hearken.labelers.ai import AILabeler
        from hearken.labelers.constitution import load_constitution
        from hearken.labelers.judges import CachedJudge, open_judge

        judge = open_judge(ai.judge, ai.url, per_minute=ai.per_minute)
        opened = CachedJudge(judge, self.replies, ai.price_in, ai.price_out)
        return AILabeler(opened, load_constitution(ai.constitution), ai.reasoning, max_tokens=MAX_TOKENS)

    @staticmethod
    def _answer(
        store: FeedbackStore,
        labeler: SimulatedLabeler,
        labeler_id: str,
        seed: int,
        bar: Bar,
        only: Collection[str] | None,
    ) -> int:
        """One labeler takes and answers a few items."""
        from hearken.labelers.answering import claim_some

        claims = claim_some(store, labeler_id, 8, only)
        answers = []
        for claim in claims:
            ranking = labeler.judge(claim.prompt.content, [r.content for r in claim.responses], seed)
            answers.append(
                Judgment(
                    id=hash_id("simulated", claim.item.id, labeler_id), prompt_id=claim.prompt.id,
                    labeler_id=labeler_id, item_id=claim.item.id, order=ranking.order, order_seed=seed,
                    payload=ranking.payload([r.id for r in claim.responses]),
                )
            )  # fmt: skip
        if answers:
            store.submit_all(answers)
            bar.advance(len(answers))
        return len(answers)

    def panel(self) -> Panel:
        """The simulated labelers of this project's world."""
        world = open_world(self.config.world, self.config.seed)
        leanings: dict[str, Any] = {**({} if self.domain.viewer == "text" else NO_TEXT), **world.leanings}
        return make_panel(
            world.utility, world.groups, seed=self.config.seed, reads=dialogue_text, opens=self.read, **leanings
        )

    def snapshot(
        self, split: str, *, kinds: Sequence[str] = ("comparison",), as_of: int | None = None,
        round: int | None = None, decay: float = 1.0, latest: int = 0,
    ) -> str:  # fmt: skip
        """A frozen data set of the judgments so far (or as of one), as a file that stages read.

        Args:
            split: of the prompts.
            kinds: of examples.
            as_of: number of a judgment.
            round: only judgments of this round.
            decay: weight of a judgment for each round between its own and ``latest``.
            latest: the newest round; judgments without a round (imported ones) count as of round 0.
        """
        folder = self.path / "snapshots"
        folder.mkdir(exist_ok=True)
        with self.store() as store:
            as_of = store.last_seq() if as_of is None else as_of
            out = self.snapshot_path(split, kinds=kinds, as_of=as_of, round=round, decay=decay, latest=latest)
            weights = None if decay == 1.0 else {n: decay ** (latest - n) for n in range(latest + 1)}
            made = snapshot(
                store, kinds, split, as_of, out, round=round, round_weights=weights, attributes=self._asks_who
            )
            return str(made.path)

    def snapshot_path(
        self, split: str, *, as_of: int, kinds: Sequence[str] = ("comparison",), round: int | None = None,
        decay: float = 1.0, latest: int = 0,
    ) -> Path:  # fmt: skip
        """Where `snapshot` freezes what it is asked for."""
        only = "" if round is None else f"-round{round}"
        faded = "" if decay == 1.0 else f"-round{latest}-decay{decay:g}"
        who = "-labelers" if self._asks_who else ""
        return self.path / "snapshots" / f"{'-'.join(kinds)}-{split}-{as_of}{only}{faded}{who}.parquet"

    @property
    def _asks_who(self) -> bool:
        """Whether the reward's options ask what labelers say about themselves; else no data set holds it."""
        sections = [values for name, values in self.config.stages.items() if makes_reward(name)]
        return any(values.get(key) for values in sections for key in ("by", "only", "population"))

    def first_policy(self) -> str:
        """What the newest policy is compared with: the first fine-tuned one, else the configured model."""
        made = [a for a in self.finished().values() if (stage := stage_of(a.kind)) is not None and stage.first]
        return str(made[-1].path) if made else self.model

    def held_out(self, count: int | None = None) -> list[Content]:
        """Prompts that training never saw."""
        with self.store() as store:
            found = [p.content for p in store.prompts(split="validation", domain=self.domain.name)][:count]
        if not found:
            raise UserError("no held-out prompts in the database", "Import prompts with a validation split")
        return found

    # Bookkeeping

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Add the seconds of a step to the project's record, whatever interrupts it."""
        record = self.path / "runs" / "steps.json"
        begun = time.monotonic()
        try:
            yield
        finally:
            known = json.loads(record.read_text()) if record.exists() else {}
            known[step] = round(known.get(step, 0.0) + time.monotonic() - begun, 2)
            write_json(record, known)

    def step_seconds(self) -> dict[str, float]:
        """Seconds spent in each step so far."""
        record = self.path / "runs" / "steps.json"
        return json.loads(record.read_text()) if record.exists() else {}


def _absolute(name: str) -> str:
    return str(Path(name).resolve()) if Path(name).exists() else name


def _after_last(store: FeedbackStore, turns: list[tuple[T, str]]) -> list[tuple[T, str]]:
    """Begin with whose turn it is after the newest judgment: an interrupted panel goes on as one that was not."""
    mine = [labeler_id for _, labeler_id in turns]
    newest = max(store.last_seq() - 500, 0)
    last = [j.labeler_id for j in store.judgments(since=newest, checks=None) if j.labeler_id in mine]
    first = mine.index(last[-1]) + 1 if last else 0
    return turns[first:] + turns[:first]


def as_responses(
    domain: Domain, part: Sequence[Drawn], prompts: dict[Content, Prompt], policy: str, how: SamplingParameters,
    round: int | None, **more: object,
) -> list[Response]:  # fmt: skip
    """Samples as the database keeps them, with ``more`` metadata."""
    return [
        domain.response(one, prompts[one.prompt].id, how, policy=policy, round=round, metadata=more) for one in part
    ]


def as_items(
    responses: Sequence[Response], k: int, round: int | None, overlap: int, *, selection: str = "uniform",
    propensity: float = 1.0,
) -> list[QueueItem]:  # fmt: skip
    """A queue item for every ``k`` responses to a prompt; distinct ones only are worth a comparison."""
    items = []
    for i in range(0, len(responses), k):
        distinct: dict[str, str] = {}
        for response in responses[i : i + k]:
            distinct.setdefault(response.content, response.id)
        if len(distinct) > 1:
            items.append(
                QueueItem(
                    prompt_id=responses[i].prompt_id, response_ids=tuple(distinct.values()), round=round, slots=overlap,
                    selection=selection, propensity=propensity,
                )
            )  # fmt: skip
    return items
