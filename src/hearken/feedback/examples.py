"""What training reads: one self-contained row per judgment, as files and dataset snapshots hold it.

A row carries its prompt and responses inline. The feedback database holds the same things by id (`records`);
`snapshot` turns the one into the other, and `formats` reads and writes rows in the layouts trainers know.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a dialogue."""

    role: Role
    content: str
    """Its words; of calls of tools, the calls as text, for people and for whatever has no template."""
    more: str = ""
    """The whole message as a chat template takes it, as JSON, where it is more than role and content."""

    def plain(self) -> dict[str, Any]:
        """The message as chat templates and other programs take it."""
        return dict(json.loads(self.more)) if self.more else {"role": self.role, "content": self.content}

    def to_row(self) -> dict[str, str]:
        """Its fields, ``more`` only where there is more: ``Message(**row)`` is the message again."""
        return {"role": self.role, "content": self.content} | ({"more": self.more} if self.more else {})


Content = str | tuple[Message, ...]
"""A prompt: plain text, or the dialogue so far."""
Metadata = dict[str, Any]
"""What a row of a file, or a prompt, says besides: whatever its author wrote there."""


def content_key(content: Content) -> str:
    """A stable 32-digit hexadecimal key of a prompt's content; equal contents have equal keys."""
    plain = content if isinstance(content, str) else [list(m.to_row().values()) for m in content]
    return hashlib.sha256(json.dumps(plain, ensure_ascii=False).encode()).hexdigest()[:32]


CUT = "cut_responses"
"""Of an example's metadata: keys (`content_key`) of those of its responses that were cut, and so have no end."""


def finished(example: Answered, response: str) -> bool:
    """Whether a response of an example ended by itself, as far as its metadata say."""
    cut = example.metadata.get(CUT)
    return not (isinstance(cut, list) and content_key(response) in cut)


SAMPLED = "sampled_tokens"
"""Of an example's metadata: by key of a response its token ids, where its text is not written so by the tokenizer."""


def sampled(example: Answered, response: str, tokenizer: str) -> list[int] | None:
    """The token ids that a response was sampled as, where ``tokenizer`` would write its text otherwise; else None."""
    kept = example.metadata.get(SAMPLED)
    one = kept.get(content_key(response)) if isinstance(kept, dict) else None
    return one["ids"] if isinstance(one, dict) and one.get("tokenizer") == tokenizer else None


CALLS = "tool_calls"
"""Of an example's metadata: by key of a response that calls tools the whole message (`Message.more`)."""


def spoken(example: Answered, response: str) -> Message:
    """A response of an example as the assistant's message, with the tools that it calls."""
    calls = example.metadata.get(CALLS)
    more = calls.get(content_key(response)) if isinstance(calls, dict) else None
    return Message("assistant", response, more if isinstance(more, str) else "")


MEDIA = "hearken_media"
"""Of an example's metadata: the type of the files that its responses are (``audio/wav``); they are then paths."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A judgment over 2..K responses to one prompt: a ranking with ties, perhaps partial.

    ``ranks[i]`` is the rank of ``responses[i]``: 0 is best, equal numbers are ties, None was not ranked.
    ``strength`` (pairs only) is how much better the better one is, 0 (equal) to 1 (far better).
    ``share`` (pairs only) is the share of votes, 0..1, for ``responses[0]`` where several people voted (a soft label).
    """

    prompt: Content
    responses: tuple[str, ...]
    ranks: tuple[int | None, ...]
    strength: float | None = None
    share: float | None = None
    weight: float = 1.0
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rating:
    """One response scored on one or several attributes, as ``{"overall": 4}``, each on the scale ``low``..``high``."""

    prompt: Content
    response: str
    ratings: dict[str, float]
    low: float = 1.0
    high: float = 5.0
    weight: float = 1.0
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Thumb:
    """One response marked good (True) or bad (False)."""

    prompt: Content
    response: str
    label: bool
    weight: float = 1.0
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A response written (or edited) by a person, to be imitated."""

    prompt: Content
    response: str
    weight: float = 1.0
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Document:
    """Plain text, for pretraining and the ptx term."""

    text: str
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PromptOnly:
    """A prompt without a response, for sampling and PPO."""

    prompt: Content
    metadata: Metadata = field(default_factory=dict)


Said = str | Message
"""A response: its words, or the assistant's message that it is, which may call tools."""


def answers(example: Comparison) -> tuple[Said, ...]:
    """The responses of a comparison as a model reads them: as messages, where they call tools."""
    if CALLS not in example.metadata:
        return example.responses
    return tuple(spoken(example, response) for response in example.responses)


Graded = Comparison | Rating | Thumb
"""Examples that say how good responses are: what a reward model is fitted to."""

Answered = Graded | Demonstration
"""Examples with a response."""

Example = Answered | Document | PromptOnly


def verdicts(example: Answered) -> list[str]:
    """What an example says about each response, in words: ``rank 0``, ``thumb up``; of a demonstration nothing."""
    match example:
        case Comparison():
            return ["not ranked" if rank is None else f"rank {rank}" for rank in example.ranks]
        case Rating():
            return [", ".join(f"{name} {value:g}" for name, value in example.ratings.items())]
        case Thumb():
            return ["thumb up" if example.label else "thumb down"]
        case Demonstration():
            return [""]
