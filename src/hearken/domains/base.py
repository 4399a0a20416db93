"""A domain: what responses are, how they are drawn, stored, shown and read. Everything else is the same for all.

A response has a *content*, a string: of text the text itself, of media the path of its file in the project (which is
named by the hash of what it holds, so that equal files are one content). What worlds, simulated labelers and rewards
read of it is `Domain.read`: the text, or what the domain decodes of the file.

A package outside names its domains under the entry-point group ``hearken.domains``, a program gives them to `register`.
This module needs no torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from hearken import domains
from hearken.domains.best_of import BestOf
from hearken.errors import UserError
from hearken.feedback.examples import Comparison, Content, Example, Metadata
from hearken.feedback.formats import read_examples
from hearken.feedback.media import Media, MediaFolder, Viewer, sniff, viewer_of
from hearken.feedback.records import ItemKind, Response
from hearken.rollout.sampler import SamplingParameters
from hearken.statistics.intervals import Interval, cluster_bootstrap
from hearken.training.artifact import Artifact

if TYPE_CHECKING:
    from hearken.domains.text.loading import TextPolicy

SCORES = "Its scores mean nothing by themselves; their differences are log-odds of being preferred."

Facts = Mapping[Content, Metadata]
"""What is known of prompts besides, for samplers and rewards that read it."""


@dataclass(frozen=True)
class Drawn:
    """One response as it was drawn from a policy."""

    prompt: Content
    content: str
    seed: int
    number: int
    """Which of the prompt's samples it is (0, 1, ...)."""
    finish_reason: str | None = None
    token_ids: tuple[int, ...] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """How a policy answered, one response a prompt, in their order."""

    responses: tuple[str, ...]
    """Contents."""
    finished: tuple[bool, ...]
    """Whether each ended by itself; True of what always does."""
    figures: Mapping[str, Interval]
    """What the domain measures of them, by name."""
    log_ratios: tuple[float, ...] = ()
    """log π - log π_ref of each, nats; empty where the domain does not know it."""


def mean(values: Sequence[float], prompts: Sequence[Content]) -> Interval:
    """Mean with a 95 % interval by bootstrap over prompts."""
    return cluster_bootstrap(np.asarray(values, float), np.array([repr(p) for p in prompts]))


@dataclass(frozen=True, kw_only=True)
class Published:
    """What a model card says of every model of a sort. Texts are Markdown."""

    library: str = ""
    """That loads it, as the Hub calls it."""
    task: str = ""
    """The Hub's pipeline tag."""
    tags: tuple[str, ...] = ()
    on_hub: bool = False
    """What it began with may be a model of the Hub."""
    load: str = ""
    """How it is loaded: a block of code."""
    use: str
    """What it is for."""
    limits: tuple[str, ...] = ()
    """What it was not tested for, beside what is true of all."""


class Scorer(Protocol):
    """A reward that scores contents: for each prompt one score for each of its responses."""

    def __call__(
        self, prompts: Sequence[Content], responses: Sequence[Sequence[Any]],
        finished: Sequence[Sequence[bool]] | None = None,
    ) -> list[list[float]]: ...  # fmt: skip


class Looked(NamedTuple):
    """What a reward model sees in some responses."""

    features: NDArray[np.float64]
    """(N, F)."""
    widths: NDArray[np.float64]
    """(N,) of the confidence in each score."""
    length: float
    """Mean length of the responses, in words."""
    score: float
    """Mean."""


class Told(NamedTuple):
    """What a reward model sees in what labelers told apart: one row a pair."""

    differences: NDArray[np.float64]
    """(P, F) features of the better response minus those of the worse."""
    labelers: list[str]
    prompts: list[str]
    """Keys."""


class Along(NamedTuple):
    """A response that takes time, and what a policy is paid along it."""

    picture: bytes
    """A file: some of its moments from left to right."""
    rewards: list[float]
    """Of each step."""


class Probed(NamedTuple):
    """One question put to a reward model: its answer, and what it means."""

    name: str
    value: Interval
    says: str


class Details:
    """What a domain can tell of a reward model beside its scores, for its card; unless it says otherwise, nothing."""

    @property
    def parameters(self) -> int | None:
        """Its weights; None where that is unknown."""
        return None

    def heads(self, rows: Sequence[Comparison]) -> list[list[list[float]]]:
        """Scores of the rows' responses by heads fitted to bootstrap samples of the model's comparisons."""
        return []

    def own(self, rows: Sequence[Comparison]) -> list[list[float]] | None:
        """Scores of the rows' responses by the taste of each row's labeler's group, where the model has such."""
        return None

    def look(self, some: Sequence[tuple[Content, str]]) -> Looked | None:
        """What it sees in responses to prompts; None where it cannot be looked into.

        Raises:
            UserError: what it was trained on is gone.
        """
        return None

    def told(self, rows: Sequence[Comparison]) -> Told | None:
        """What it sees in what the rows' labelers told apart; None where it cannot be looked into."""
        return None

    def along(self, contents: Sequence[str]) -> list[Along]:
        """What it pays for along responses; none where they are no sequences that can be drawn.

        Raises:
            UserError: they cannot be drawn here.
        """
        return []

    def probes(self, rows: Sequence[Comparison], scored: Sequence[Sequence[float]]) -> list[Probed]:
        """Whether it goes by something else than worth. Of texts the card itself asks.

        Args:
            rows: held-out comparisons.
            scored: scores of their responses.
        """
        return []


class Domain(ABC):
    """What is particular to one sort of response. The stages that train it name it (`algorithms.stage.Stage`)."""

    name: str
    """In ``hearken.yaml``, in the database and in evaluations."""
    viewer: Viewer = "text"
    """How a person is shown a response; anything but text is a file."""
    sampling: type[SamplingParameters] = SamplingParameters
    """How responses are drawn: a subclass adds options, which stand in ``hearken.yaml`` under ``sample.more``."""
    kinds: tuple[ItemKind, ...] = ("comparison", "rating", "thumb", "critique")
    """The kinds of judgment that people can be asked for."""
    figures: Mapping[str, str] = {}
    """The figures of `measure` and `compare` that evaluations and reports show, and their titles."""
    offers: frozenset[Literal["chat", "ai"]] = frozenset()
    """What else it can: people may talk to its policies, AI labelers read its responses."""

    # -- policies ----------------------------------------------------------------------------------------------------

    @abstractmethod
    def recognises(self, model: str) -> bool:
        """Whether a folder, file or Hub name is a policy of this domain."""

    def check_model(self, name: str, flag: str = "--model") -> None:
        """Refuse what is no policy here, before anything slow begins.

        Raises:
            UserError: it is none.
        """
        if not self.recognises(name):
            raise UserError(f"{flag} {name} is no {self.name} model", "Check the path")

    def check_reward(self, name: str) -> None:
        """Refuse what is no reward model here.

        Raises:
            UserError: it is none.
        """
        if not Path(name).exists():
            raise UserError(f"--reward {name} does not exist", "Train one with: hearken train")

    def prompts(self, model: str) -> list[Content]:
        """Prompts of its own, for a project on a policy that names none.

        Raises:
            UserError: the domain has none.
        """
        raise UserError("--prompts is missing", "Name the file of the prompts")

    @abstractmethod
    def sample(
        self, policy: str, prompts: Sequence[Content], k: int, how: Any, seed: int, files: MediaFolder, *,
        facts: Facts | None = None,
    ) -> Iterator[list[Drawn]]:  # fmt: skip
        """``k`` responses of a policy to each prompt, some prompts at a time, so that work can be stored as it comes.

        A prompt's responses stand together, numbered from 0. They depend on policy, prompt and seed alone, not on the
        other prompts: interrupted sampling goes on where it was.

        Args:
            policy: a folder or Hub name.
            prompts: what is answered.
            k: responses to each.
            how: of the class `sampling`.
            seed: fixes the draws.
            files: where media are kept (`MediaFolder.keep`).
            facts: metadata of the prompts.
        """

    def best_of(
        self, policy: str, prompts: Sequence[Content], k: int, how: Any, seed: int, files: MediaFolder, choice: BestOf,
        *, facts: Facts | None = None,
    ) -> Iterator[list[Drawn]]:  # fmt: skip
        """As `sample`, but each of the ``k`` responses is the best of ``choice.n`` by its reward.

        Raises:
            UserError: pessimism, where the domain's rewards have no confidence.
        """
        if choice.pessimism:
            raise UserError(f"{self.name} rewards have no confidence", "Leave --pessimism out")
        score = self.scorer(choice.reward, files, facts)
        n = choice.n
        for part in self.sample(policy, prompts, k * n, how, seed, files, facts=facts):
            asked = [part[i : i + k * n] for i in range(0, len(part), k * n)]
            scores = score([some[0].prompt for some in asked], [[one.content for one in some] for some in asked])
            best = np.array(scores).reshape(-1, n).argmax(1).tolist()
            yield [replace(part[row * n + at], number=row % k) for row, at in enumerate(best)]

    # -- responses ---------------------------------------------------------------------------------------------------

    def fields(self, content: str) -> dict[str, Any]:
        """The fields of a `records.Response` that hold a content."""
        return {"text": content} if self.viewer == "text" else {"payload": Media(content)}

    def response(self, drawn: Drawn, prompt_id: str, how: SamplingParameters, **more: Any) -> Response:
        """A drawn response as the database keeps it, with ``more`` of its fields."""
        metadata = {**more.pop("metadata", {}), **drawn.metadata}
        return Response(
            prompt_id=prompt_id, **self.fields(drawn.content), token_ids=drawn.token_ids, sampling=how.model_dump(),
            finish_reason=drawn.finish_reason, seed=drawn.seed, sample=drawn.number, metadata=metadata, **more,
        )  # fmt: skip

    def read(self, content: str, files: MediaFolder) -> Any:
        """What a world, a simulated labeler or a reward reads of a response.

        Raises:
            UserError: its file is not here, or was changed.
        """
        return content if self.viewer == "text" else self.decode(files.read(Media(content)))

    def decode(self, data: bytes) -> Any:
        """What a file of this domain holds."""
        return data

    def admit(self, data: bytes, model: str = "") -> str:
        """The suffix under which a file that comes from elsewhere is kept, where its type does not say one.

        Args:
            data: what it holds.
            model: the policy that a project begins with.

        Raises:
            UserError: it is no response of this domain, by its first bytes and by what `decode` makes of it.
        """
        kind = sniff(data[:16])
        if self.viewer == "text" or viewer_of(kind) != self.viewer:
            raise UserError(
                f"a file of the type {kind} is no response of the domain {self.name}",
                f"Its responses are of the sort: {self.viewer}",
            )
        try:
            self.decode(data)
        except UserError:
            raise
        except Exception as error:  # whatever reads such files
            raise UserError(f"this file cannot be read ({error})", "Write it again") from None
        return ""

    def shown(self, media: Media, files: MediaFolder) -> Path | None:
        """The file that a person is shown of a response, None where there is none.

        A domain may make it when it is asked for, as a video of a recorded clip; it is then kept beside the response's
        own, with another suffix, and erased with it.
        """
        return files.find(media)

    def stills(self, media: Media, files: MediaFolder) -> Path | None:
        """A picture of several moments of a video, for browsers that cannot play it; None where there is none."""
        return None

    # -- rewards and figures -----------------------------------------------------------------------------------------

    @abstractmethod
    def scorer(self, reward: str, files: MediaFolder, facts: Facts | None = None) -> Scorer:
        """What ``--reward`` names, opened as a scorer of contents.

        Raises:
            UserError: it cannot be opened.
        """

    def measure(
        self, policy: str, reference: str, prompts: Sequence[Content], how: Any, seed: int, files: MediaFolder, *,
        choice: BestOf | None = None, facts: Facts | None = None,
    ) -> Measured:  # fmt: skip
        """Answer each prompt once, and measure what the domain can of it.

        Args:
            policy: who answers.
            reference: the policy that distances are measured to.
            prompts: held-out ones.
            how: of the class `sampling`.
            seed: of the samples.
            files: where media are kept.
            choice: where the best of several is taken.
            facts: metadata of the prompts.
        """
        if choice is None:
            parts = self.sample(policy, prompts, 1, how, seed, files, facts=facts)
        else:
            parts = self.best_of(policy, prompts, 1, how, seed, files, choice, facts=facts)
        drawn = [one for part in parts for one in part]
        return Measured(
            tuple(one.content for one in drawn), tuple(one.finish_reason != "length" for one in drawn), {}
        )  # fmt: skip

    def compare(
        self, prompts: Sequence[Content], responses: Sequence[str], before: Sequence[str], files: MediaFolder
    ) -> dict[str, Any]:
        """Figures of a policy's responses beside the baseline's to the same prompts, by name."""
        return {}

    # -- reward models -----------------------------------------------------------------------------------------------

    def trained_on(self, reward: str) -> list[Example]:
        """The rows that a reward model was trained on, as far as its manifest says.

        Raises:
            UserError: it has no manifest, or its data are gone.
        """
        return self._rows(reward, "data")

    def held_out_from(self, reward: str) -> list[Example]:
        """The rows that its training held out; the same holds."""
        return self._rows(reward, "validation")

    def _rows(self, reward: str, role: str) -> list[Example]:
        paths = Artifact.load(reward).inputs[role]
        if gone := [path for path in paths if not Path(path).exists()]:
            raise UserError(f"{reward} was trained on {gone[0]}, which is not here", "Run this where its data are")
        return [row for path in paths for row in read_examples(path)]

    def details(self, reward: str, scorer: Any, files: MediaFolder) -> Details:
        """What a reward model, opened by `scorer`, tells of itself."""
        return Details()

    # -- publishing and inspecting ---------------------------------------------------------------------------------

    def published(self, folder: Path, name: str, *, reward: bool) -> Published:
        """What the card of a policy or a reward model says.

        Args:
            folder: the model's.
            name: where readers get it: of a repository, or of the folder.
            reward: whether it is a reward model.
        """
        if reward:
            use = f"To rank or score responses of the domain {self.name} like those it was fitted on."
            return Published(use=f"{use} {SCORES}")
        return Published(use=f"To be sampled from, as a policy of the domain {self.name}.")

    def describe(self, content: str, files: MediaFolder) -> dict[str, Any]:
        """What a world, a simulated labeler or a reward sees of a response, for `hearken inspect`.

        Raises:
            UserError: its file is not here, or was changed.
        """
        return {"holds": self.read(content, files)}

    # -- what only some domains offer --------------------------------------------------------------------------------

    def language_model(self, name: str, **more: Any) -> TextPolicy:
        """The language model behind a policy, which capability tasks, AI judges and readers put their questions to.

        Raises:
            UserError: policies of this domain are none.
        """
        raise UserError(f"{name} is no language model: this is of the domain {self.name}", "Leave it out")

    def nll(self, policy: str, documents: Sequence[str]) -> tuple[float, int]:
        """Negative log-likelihood of plain texts in nats, and their tokens.

        Raises:
            UserError: as `language_model`.
        """
        raise UserError(f"{policy} is no language model: this is of the domain {self.name}", "Leave --perplexity out")

    def likelihood_change(self, policy: str, reference: str, rows: Sequence[Comparison]) -> tuple[Interval, Interval]:
        """How much likelier a policy finds the better and the worse responses of comparisons than its reference does.

        Raises:
            UserError: the domain's policies give no likelihoods.
        """
        raise UserError(f"{self.name} policies give no likelihood", "Choose another stage")

    def watch(self, policy: str, out: Path | None, **how: Any) -> dict[str, Any]:
        """Show whole episodes of a policy: in a video, or (``out`` None) in a window; figures of each.

        Args:
            policy: who acts.
            out: the file.
            how: ``episodes``, ``seed``, ``steps`` (the most), ``greedy``.

        Raises:
            UserError: policies of this domain do not act.
        """
        raise UserError(f"a {self.name} policy does not act", "Look at its responses: hearken sample, hearken report")

    def talker(self, newest: Any) -> Any:
        """Somebody to talk to: see `server.chat.Policy`.

        Raises:
            UserError: one cannot talk to policies of this domain.
        """
        raise UserError(f"one cannot talk to a {self.name} policy", "Switch conversations off in the settings")


# -- finding them ------------------------------------------------------------------------------------------------

_BUILTIN = tuple(sorted(name for _, name, is_package in iter_modules(domains.__path__) if is_package))
_registered: dict[str, Domain] = {}


def register(domain: Domain) -> None:
    """Make a domain known in this process; one of the same name is replaced."""
    _registered[domain.name] = domain


@cache
def _outside() -> tuple[Domain, ...]:
    """Domains of other packages."""
    return tuple(point.load() for point in entry_points(group="hearken.domains"))


@cache
def _builtin(name: str) -> Domain:
    found: Domain = import_module(f"{domains.__name__}.{name}.domain").DOMAIN
    return found


def find_domain(name: str) -> Domain:
    """The domain called ``name``.

    Raises:
        UserError: there is none; the known ones are named.
    """
    if name in _registered:
        return _registered[name]
    if name in _BUILTIN:
        return _builtin(name)
    known = {domain.name: domain for domain in _outside()}
    if name not in known:
        every = ", ".join(dict.fromkeys([*_BUILTIN, *known, *_registered]))
        raise UserError(f"there is no domain '{name}'", f"Known domains: {every}")
    return known[name]


def domain_of(model: str) -> Domain:
    """The domain that recognises a model; text, where none does: a Hub name, or a model that is made later."""
    others = [*_registered.values(), *_outside(), *(_builtin(name) for name in _BUILTIN if name != "text")]
    return next((domain for domain in others if domain.recognises(model)), _builtin("text"))
