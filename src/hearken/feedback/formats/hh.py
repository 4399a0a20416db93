r"""HH-RLHF's dialogues ``"\n\nHuman: …\n\nAssistant: …"``, a chosen and a rejected one (Bai et al., 2022)."""

from __future__ import annotations

import re

from hearken.errors import UserError
from hearken.feedback.examples import Content, Message, Role

_TURN = re.compile(r"\n\n(Human|Assistant): ")
_ROLES: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}
_SPEAKERS = {role: speaker for speaker, role in _ROLES.items()}


def parse(chosen: str, rejected: str) -> tuple[tuple[Message, ...], str, str]:
    """The shared prompt and the two responses.

    The dialogues are split at the last Assistant turn up to which they agree, nearly always the last turn of both.
    Where one of them goes on for another turn, that stays in its response as it stands, so that nothing is lost.

    Raises:
        UserError: not such a dialogue, or no turn is shared.
    """
    dialogues = []
    for name, text in (("chosen", chosen), ("rejected", rejected)):
        parts = _TURN.split(text)
        if parts[0] or len(parts) < 5:
            raise UserError(
                f"'{name}' is no dialogue",
                "Write '\\n\\nHuman: …\\n\\nAssistant: …' or give the prompt in a column 'prompt'",
            )
        dialogues.append([(parts[i], parts[i + 1]) for i in range(1, len(parts), 2)])
    first, second = dialogues
    cut = 0
    while cut < min(len(first), len(second)) - 1 and first[cut] == second[cut]:
        cut += 1
    while cut and not first[cut][0] == second[cut][0] == "Assistant":
        cut -= 1
    if not cut:
        raise UserError("chosen and rejected share no prompt", "Both must begin with the same turns")
    prompt = tuple(Message(_ROLES[speaker], text) for speaker, text in first[:cut])
    responses = [_render(turns[cut:]).removeprefix("\n\nAssistant: ") for turns in dialogues]
    return prompt, responses[0], responses[1]


def turns(text: str) -> tuple[Message, ...]:
    """The turns of one dialogue; an Assistant's turn at its end that says nothing yet is left out.

    Raises:
        UserError: not such a dialogue.
    """
    parts = _TURN.split(text.removesuffix("\n\nAssistant:").removesuffix("\n\nAssistant: "))
    if parts[0] or len(parts) < 3:
        raise UserError("the prompt is no dialogue", "Write '\\n\\nHuman: …\\n\\nAssistant: …'")
    return tuple(Message(_ROLES[parts[i]], parts[i + 1]) for i in range(1, len(parts), 2))


def render(prompt: Content, chosen: str, rejected: str) -> tuple[str, str]:
    """The two dialogues of a comparison; the inverse of `parse`.

    Raises:
        UserError: a plain prompt, a system turn, or a text that contains a turn marker.
    """
    if isinstance(prompt, str) or any(message.role not in _SPEAKERS for message in prompt):
        raise UserError("HH dialogues have user and assistant turns only", "Write the layout 'pairs'")
    shared = [(_SPEAKERS[message.role], message.content) for message in prompt]
    texts = _render([*shared, ("Assistant", chosen)]), _render([*shared, ("Assistant", rejected)])
    if parse(*texts) != (prompt, chosen, rejected):
        raise UserError("a text holds a turn marker such as '\\n\\nHuman: '", "Write the layout 'pairs'")
    return texts


def _render(turns: list[tuple[str, str]]) -> str:
    return "".join(f"\n\n{speaker}: {text}" for speaker, text in turns)
