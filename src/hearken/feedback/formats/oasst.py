"""OpenAssistant's conversation trees: sibling replies ranked by people (Köpf et al., 2023)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hearken.errors import UserError
from hearken.feedback.examples import Comparison, Message, Role

_ROLES: dict[str, Role] = {"prompter": "user", "assistant": "assistant"}


def comparisons(tree: dict[str, Any]) -> Iterator[Comparison]:
    """Every group of two or more ranked assistant siblings, as one comparison.

    The prompt is the dialogue from the root to their parent. A sibling without a rank keeps None; deleted messages, and
    all below them, are left out and the ranks closed up. The metadata names the tree and the messages.

    Raises:
        UserError: the tree or a message in it lacks what it needs.
    """
    root = tree.get("prompt")
    if not isinstance(root, dict):
        raise UserError("the tree has no root message in 'prompt'", "Each line is one tree {message_tree_id, prompt}")
    # A stack instead of recursion: trees may be deeper than Python's own stack.
    stack: list[tuple[dict[str, Any], tuple[Message, ...]]] = [(root, ())]
    while stack:
        node, path = stack.pop()
        if node.get("deleted"):
            continue
        dialogue = (*path, _message(node))
        replies = node.get("replies") or []
        if not isinstance(replies, list) or not all(isinstance(reply, dict) for reply in replies):
            raise UserError("'replies' must be a list of messages", f"Message {node.get('message_id')}")
        siblings = [reply for reply in replies if not reply.get("deleted") and reply.get("role") == "assistant"]
        ranks = [_rank(reply) for reply in siblings]
        levels = sorted({rank for rank in ranks if rank is not None})
        if sum(rank is not None for rank in ranks) >= 2:
            yield Comparison(
                prompt=dialogue,
                responses=tuple(_message(reply).content for reply in siblings),
                ranks=tuple(None if rank is None else levels.index(rank) for rank in ranks),
                metadata={
                    "message_tree_id": tree.get("message_tree_id"),
                    "parent_id": node.get("message_id"),
                    "message_ids": [reply.get("message_id") for reply in siblings],
                },
            )
        stack.extend((reply, dialogue) for reply in reversed(replies))


def _rank(node: dict[str, Any]) -> int | None:
    rank = node.get("rank")
    if rank is not None and (isinstance(rank, bool) or not isinstance(rank, int)):
        raise UserError("'rank' must be a whole number or null", f"Message {node.get('message_id')}")
    return rank


def _message(node: dict[str, Any]) -> Message:
    where = f"Message {node.get('message_id')}"
    role, text = node.get("role"), node.get("text")
    if not isinstance(role, str) or role not in _ROLES:
        raise UserError(f"a message has the unknown role '{role}'", f"{where}; known: {', '.join(_ROLES)}")
    if not isinstance(text, str) or not text.strip():
        raise UserError("a message of the tree is empty", where)
    return Message(_ROLES[role], text)
