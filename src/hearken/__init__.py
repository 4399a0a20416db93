"""Hearken: reinforcement learning from human feedback, the whole loop in one package.

The names here are the Python API; ``docs/api.md`` says what each is. Every one is loaded when it is first used, so that
``import hearken`` loads neither torch nor transformers.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what editors and type checkers read; a test holds it equal to the table below
    from hearken.algorithms.a2c_options import A2CConfig as A2CConfig
    from hearken.algorithms.control_ppo_options import ControlPPOConfig as ControlPPOConfig
    from hearken.algorithms.control_reward_options import ClipRewardConfig as ClipRewardConfig
    from hearken.algorithms.control_sac_options import ControlSACConfig as ControlSACConfig
    from hearken.algorithms.dpo_options import DPOConfig as DPOConfig
    from hearken.algorithms.dpo_options import IPOConfig as IPOConfig
    from hearken.algorithms.dpo_options import ORPOConfig as ORPOConfig
    from hearken.algorithms.dpo_options import SimPOConfig as SimPOConfig
    from hearken.algorithms.ilql_options import ILQLConfig as ILQLConfig
    from hearken.algorithms.kto_options import KTOConfig as KTOConfig
    from hearken.algorithms.nlpo_options import NLPOConfig as NLPOConfig
    from hearken.algorithms.online_dpo_options import OnlineDPOConfig as OnlineDPOConfig
    from hearken.algorithms.policy_gradient_options import GRPOConfig as GRPOConfig
    from hearken.algorithms.policy_gradient_options import ReinforceConfig as ReinforceConfig
    from hearken.algorithms.policy_gradient_options import RLOOConfig as RLOOConfig
    from hearken.algorithms.ppo_options import PPOConfig as PPOConfig
    from hearken.algorithms.reward_options import RewardConfig as RewardConfig
    from hearken.algorithms.rft_options import RFTConfig as RFTConfig
    from hearken.algorithms.sft_options import SFTConfig as SFTConfig
    from hearken.algorithms.stage import train as train
    from hearken.algorithms.trpo_options import TRPOConfig as TRPOConfig
    from hearken.domains.text.respond import sample as sample
    from hearken.errors import UserError as UserError
    from hearken.evaluation.compare import HeadToHead as HeadToHead
    from hearken.evaluation.compare import head_to_head as head_to_head
    from hearken.evaluation.request import EvaluationRequest as EvaluationRequest
    from hearken.evaluation.request import evaluate_models as evaluate_models
    from hearken.evaluation.results import EvaluationResult as EvaluationResult
    from hearken.evaluation.results import PolicyResult as PolicyResult
    from hearken.evaluation.results import read_evaluation as read_evaluation
    from hearken.evaluation.reward_card import RewardCard as RewardCard
    from hearken.feedback.examples import Comparison as Comparison
    from hearken.feedback.examples import Demonstration as Demonstration
    from hearken.feedback.examples import Document as Document
    from hearken.feedback.examples import Message as Message
    from hearken.feedback.examples import PromptOnly as PromptOnly
    from hearken.feedback.examples import Rating as Rating
    from hearken.feedback.examples import Thumb as Thumb
    from hearken.feedback.formats import read_examples as read_examples
    from hearken.feedback.formats import write_examples as write_examples
    from hearken.feedback.records import ComparisonPayload as ComparisonPayload
    from hearken.feedback.records import Judgment as Judgment
    from hearken.feedback.records import Labeler as Labeler
    from hearken.feedback.records import Prompt as Prompt
    from hearken.feedback.records import QueueItem as QueueItem
    from hearken.feedback.records import RatingPayload as RatingPayload
    from hearken.feedback.records import Response as Response
    from hearken.feedback.records import ThumbPayload as ThumbPayload
    from hearken.feedback.store import FeedbackStore as FeedbackStore
    from hearken.labelers.simulated import make_panel as make_panel
    from hearken.loop.cards import evaluate_reward as evaluate_reward
    from hearken.loop.evaluating import evaluate as evaluate
    from hearken.loop.project import Project as Project
    from hearken.loop.project import ProjectConfig as ProjectConfig
    from hearken.loop.quickstart import quickstart as quickstart
    from hearken.loop.reporting import write_report as write_report
    from hearken.loop.rounds import Loop as Loop
    from hearken.loop.tiny_model import TinyModelSize as TinyModelSize
    from hearken.loop.tiny_model import make_tiny_model as make_tiny_model
    from hearken.loop.trace import trace as trace
    from hearken.server.client import HearkenClient as HearkenClient
    from hearken.training.artifact import Artifact as Artifact
    from hearken.worlds.tales.world import TaleWorld as TaleWorld

    __version__: str

_NAMES = {
    "hearken.algorithms.a2c_options": "A2CConfig",
    "hearken.algorithms.control_ppo_options": "ControlPPOConfig",
    "hearken.algorithms.control_reward_options": "ClipRewardConfig",
    "hearken.algorithms.control_sac_options": "ControlSACConfig",
    "hearken.algorithms.dpo_options": "DPOConfig IPOConfig ORPOConfig SimPOConfig",
    "hearken.algorithms.ilql_options": "ILQLConfig",
    "hearken.algorithms.kto_options": "KTOConfig",
    "hearken.algorithms.nlpo_options": "NLPOConfig",
    "hearken.algorithms.online_dpo_options": "OnlineDPOConfig",
    "hearken.algorithms.policy_gradient_options": "GRPOConfig ReinforceConfig RLOOConfig",
    "hearken.algorithms.ppo_options": "PPOConfig",
    "hearken.algorithms.reward_options": "RewardConfig",
    "hearken.algorithms.rft_options": "RFTConfig",
    "hearken.algorithms.sft_options": "SFTConfig",
    "hearken.algorithms.stage": "train",
    "hearken.algorithms.trpo_options": "TRPOConfig",
    "hearken.domains.text.respond": "sample",
    "hearken.errors": "UserError",
    "hearken.evaluation.compare": "HeadToHead head_to_head",
    "hearken.evaluation.request": "EvaluationRequest evaluate_models",
    "hearken.evaluation.results": "EvaluationResult PolicyResult read_evaluation",
    "hearken.evaluation.reward_card": "RewardCard",
    "hearken.feedback.examples": "Comparison Demonstration Document Message PromptOnly Rating Thumb",
    "hearken.feedback.formats": "read_examples write_examples",
    "hearken.feedback.records": "ComparisonPayload Judgment Labeler Prompt QueueItem RatingPayload Response "
    "ThumbPayload",
    "hearken.feedback.store": "FeedbackStore",
    "hearken.labelers.simulated": "make_panel",
    "hearken.loop.cards": "evaluate_reward",
    "hearken.loop.evaluating": "evaluate",
    "hearken.loop.project": "Project ProjectConfig",
    "hearken.loop.quickstart": "quickstart",
    "hearken.loop.reporting": "write_report",
    "hearken.loop.rounds": "Loop",
    "hearken.loop.tiny_model": "TinyModelSize make_tiny_model",
    "hearken.loop.trace": "trace",
    "hearken.server.client": "HearkenClient",
    "hearken.training.artifact": "Artifact",
    "hearken.worlds.tales.world": "TaleWorld",
}
"""The names of each module."""
_WHERE = {name: module for module, names in _NAMES.items() for name in names.split()}
_RENAMED = {"respond": "sample"}

__all__ = ["__version__", *sorted(_WHERE)]


if not TYPE_CHECKING:  # it would give a type to names that are not there

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            from importlib.metadata import version

            return version("hearken")
        if name in _RENAMED:
            warnings.warn(f"hearken.{name} is now hearken.{_RENAMED[name]}", DeprecationWarning, stacklevel=2)
            name = _RENAMED[name]
        if name not in _WHERE:
            raise AttributeError(f"module 'hearken' has no attribute '{name}'")
        found = globals()[name] = getattr(import_module(_WHERE[name]), name)
        return found


def __dir__() -> list[str]:
    return [*globals(), *_WHERE]
