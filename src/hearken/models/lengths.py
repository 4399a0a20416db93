"""What in a model depends on how long a sequence is: rotary embeddings by length, and thresholds of the config.

Some rotary embeddings (transformers' "dynamic" and "longrope") turn all positions by factors that depend on the longest
sequence of the call, so a sequence's log-probabilities would depend on what lies beside it. Sequences whose factors are
the same are of one *regime*; only they are computed together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

Regime = Callable[[int], int]
"""Length of a sequence to a number that is the same for all lengths with the same factors."""

NAMES = ("window", "max_position", "n_positions", "n_ctx", "max_seq", "seq_length", "chunk_size", "block_size")
"""Parts of the names of settings that are a length in tokens."""


def regime(config: Any) -> Regime | None:
    """The regimes of a model's rotary embeddings; None where they do not depend on the length."""
    config = config.get_text_config()
    limits: list[tuple[str, int]] = []
    for rope in _ropes(getattr(config, "rope_parameters", None) or {}):
        kind = str(rope.get("rope_type", ""))
        if "dynamic" in kind:  # each length beyond the limit has factors of its own
            limits.append(("dynamic", int(config.max_position_embeddings)))
        elif kind == "longrope":
            first = rope.get("original_max_position_embeddings") or config.max_position_embeddings
            limits.append(("longrope", int(first)))
    if not limits:
        return None

    def of(length: int) -> int:
        if any(kind == "dynamic" and length > limit for kind, limit in limits):
            return length
        return -sum(length > limit for _, limit in limits)

    return of


def _ropes(parameters: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One, or one for each type of layer."""
    if "rope_type" in parameters:
        yield parameters
    else:
        yield from (one for one in parameters.values() if isinstance(one, dict))


def forget(module: nn.Module) -> None:
    """Let "dynamic" rotary embeddings begin anew: they keep the factors of the longest sequence that they have seen."""
    for part in module.modules():
        if not hasattr(part, "original_max_seq_len"):
            continue
        for name in [n for n in dir(part) if n.endswith("max_seq_len_cached")]:
            setattr(part, name, part.original_max_seq_len)
        for name, buffer in list(part.named_buffers(recurse=False)):
            if name.endswith("original_inv_freq"):
                used = name.removesuffix("original_inv_freq") + "inv_freq"
                part.register_buffer(used, buffer.clone(), persistent=False)


def thresholds(config: Any, longest: int) -> list[int]:
    """Lengths below ``longest`` at which a model of this config may begin to compute otherwise."""

    def found(settings: Any) -> Iterator[int]:
        for name, value in settings.items():
            if isinstance(value, dict):
                yield from found(value)
            elif any(part in str(name) for part in NAMES):
                for one in value if isinstance(value, list | tuple) else [value]:
                    if isinstance(one, int) and not isinstance(one, bool) and 1 < one < longest:
                        yield one

    return sorted(set(found(config.get_text_config().to_dict())))
