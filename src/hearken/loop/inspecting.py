"""What worlds, simulated labelers and rewards see of responses that are files, for ``hearken inspect``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from hearken.domains.base import Domain
from hearken.errors import UserError
from hearken.feedback.examples import Comparison, Content, Document, Example, PromptOnly, verdicts
from hearken.feedback.formats import iter_examples
from hearken.feedback.formats.files import is_data
from hearken.feedback.media import FOLDER, MediaFolder
from hearken.feedback.reading import ReadingOptions


@dataclass(frozen=True, slots=True)
class Seen:
    """A response."""

    content: str
    """Path of its file, as seen from the data or the project."""
    note: str
    """What the example says about it: ``rank 0``, ``thumb up``, ..."""
    facts: dict[str, object]
    """See `Domain.describe`."""
    score: float | None
    """By a reward model, where one is named."""


@dataclass(frozen=True, slots=True)
class View:
    """An example with its responses."""

    example: int
    """Its number in the data, from 1."""
    kind: str
    prompt: Content
    responses: tuple[Seen, ...]

    def to_json(self) -> dict[str, object]:
        """As plain lists and dictionaries."""
        return asdict(self)


def inspect_media(
    data: str, domain: Domain, *, reward: str = "", count: int = 3, start: int = 1,
    reading: ReadingOptions | None = None,
) -> list[View]:  # fmt: skip
    """What is seen of some examples.

    Args:
        data: examples, as `hearken.feedback.formats.read_examples` takes; or the file of one response.
        domain: of the responses.
        reward: a reward model to score them.
        count: how many examples.
        start: number of the first one, counted from 1.
        reading: how ``data`` are read.

    Raises:
        UserError: data or a file cannot be read, or there is no example number ``start``.
    """
    if Path(data).is_file() and not is_data(data):
        file = Path(data).absolute()
        root = next((place.parent for place in file.parents if place.name == FOLDER), file.parent)
        return [_view(1, "file", "", [(file.relative_to(root).as_posix(), "")], domain, MediaFolder(root), reward)]
    files = MediaFolder.beside(data)
    examples = iter_examples(data, **(reading or ReadingOptions()).reading())
    views = []
    for number, example in enumerate(islice(examples, start - 1 + count), 1):
        if number >= start:
            prompt = example.text if isinstance(example, Document) else example.prompt
            views.append(_view(number, type(example).__name__, prompt, _noted(example), domain, files, reward))
    if not views:
        raise UserError(f"{data} has no example {start}", f"It has {number}")
    return views


def _noted(example: Example) -> list[tuple[str, str]]:
    """Responses of an example, each with what it says about it."""
    if isinstance(example, Document | PromptOnly):
        return []
    responses = example.responses if isinstance(example, Comparison) else (example.response,)
    return list(zip(responses, verdicts(example), strict=True))


def _view(
    number: int, kind: str, prompt: Content, noted: list[tuple[str, str]], domain: Domain, files: MediaFolder,
    reward: str,
) -> View:  # fmt: skip
    contents = [content for content, _ in noted]
    scores: list[float] | list[None] = [None] * len(noted)
    if reward and contents:
        (scores,) = domain.scorer(reward, files)([prompt], [contents])
    seen = [
        Seen(content, note, domain.describe(content, files), score)
        for (content, note), score in zip(noted, scores, strict=True)
    ]
    return View(number, kind, prompt, tuple(seen))
