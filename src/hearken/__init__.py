"""Hearken: reinforcement learning from human feedback, the whole loop in one package.

The functions named here are the Python API of the commands; each is loaded when it is first used, so that
``import hearken`` loads neither torch nor transformers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hearken.algorithms.stage import train as train
    from hearken.domains.text.respond import respond as respond
    from hearken.errors import UserError as UserError
    from hearken.evaluation.results import read_evaluation as read_evaluation
    from hearken.feedback.formats import read_examples as read_examples
    from hearken.feedback.formats import write_examples as write_examples
    from hearken.feedback.store import FeedbackStore as FeedbackStore
    from hearken.loop.project import Project as Project
    from hearken.loop.quickstart import quickstart as quickstart
    from hearken.loop.rounds import Loop as Loop
    from hearken.loop.trace import trace as trace

    __version__: str

_WHERE = {
    "FeedbackStore": "hearken.feedback.store",
    "Loop": "hearken.loop.rounds",
    "Project": "hearken.loop.project",
    "UserError": "hearken.errors",
    "quickstart": "hearken.loop.quickstart",
    "read_evaluation": "hearken.evaluation.results",
    "read_examples": "hearken.feedback.formats",
    "respond": "hearken.domains.text.respond",
    "trace": "hearken.loop.trace",
    "train": "hearken.algorithms.stage",
    "write_examples": "hearken.feedback.formats",
}

__all__ = ["__version__", *sorted(_WHERE)]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("hearken")
    if name not in _WHERE:
        raise AttributeError(f"module 'hearken' has no attribute '{name}'")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_WHERE]
