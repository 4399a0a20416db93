"""Answers of a policy while they are being written, for people who talk to it.

Speed matters less here than that every model works, so the model is called as transformers calls it, with its own
cache.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import torch

from hearken.domains.text.encoder import TextEncoder
from hearken.domains.text.loading import text_encoder
from hearken.domains.text.sampling import Sampled, as_sampled
from hearken.feedback.examples import Message
from hearken.models.guided import GuidedScorer, with_guidance
from hearken.models.head import forbid
from hearken.models.lengths import forget
from hearken.models.loading import context_length, load_policy, load_tokenizer
from hearken.models.precision import to_read
from hearken.models.scorers import TokenScorer
from hearken.models.seq2seq import is_seq2seq
from hearken.rollout.native import draw
from hearken.rollout.sampler import SamplingParameters
from hearken.rollout.seq2seq import Seq2SeqSteps
from hearken.training.options import TextOptions
from hearken.training.precision import device_of, recorded

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""How a character decodes whose last bytes are still to come."""


class Talker:
    """One can talk to the policy that ``newest`` names; it is loaded when first spoken to, and again when it changes.

    Args:
        newest: path or Hub name of the policy that shall answer now.
        how: how answers are drawn.
        device: as in training.
    """

    def __init__(
        self, newest: Callable[[], str], how: SamplingParameters | None = None, *, device: str = "auto"
    ) -> None:
        self._newest, self._device = newest, device
        self._how = how or SamplingParameters(max_new_tokens=256)
        self._turn = threading.Lock()  # one answer at a time: the processor is shared with whoever trains
        self._opened: tuple[str, TokenScorer, TextEncoder] | None = None

    @property
    def name(self) -> str:
        """Name of the policy that answers."""
        return Path(self._newest()).name

    def _open(self) -> tuple[TokenScorer, TextEncoder]:
        name = self._newest()
        if self._opened is None or self._opened[0] != name:
            text = TextOptions(long_prompts="truncate")
            tokenizer = load_tokenizer(name, text.eos)
            model = load_policy(name, device=device_of(self._device)).eval()
            reserve = min(self._how.max_new_tokens, context_length(model) // 2)
            scorer = TokenScorer(model, path="padded", adapter="default").requires_grad_(False)
            scorer = with_guidance(scorer, name)
            scorer.compute_in(to_read(model, recorded(name)))
            self._opened = name, scorer, text_encoder(tokenizer, model, text, reserve)
        return self._opened[1:]

    @torch.no_grad()
    def stream(
        self, messages: Sequence[Message] | str, n: int, seed: int
    ) -> Generator[tuple[int, str], None, list[Sampled]]:
        """``n`` answers to a dialogue, drawn together.

        Args:
            messages: the dialogue, the last one from the user; or plain text to go on from.
            n: how many answers.
            seed: the same seed gives the same answers on the same machine.

        Yields:
            Which answer, and the text that is added to it.

        Returns:
            The whole answers, as they are stored.
        """
        with self._turn:
            scorer, encoder = self._open()
            model, device = scorer.model, scorer.device
            content = messages if isinstance(messages, str) else tuple(messages)
            prompt = encoder.prompt(content) or [encoder.eos]
            tokens = every = torch.tensor([prompt] * n, device=device)
            generator = torch.Generator().manual_seed(seed)
            said: list[list[int]] = [[] for _ in range(n)]
            shown = [""] * n
            live, cache = set(range(n)), None
            with scorer.autocast():
                steps = Seq2SeqSteps(scorer, [prompt], n) if is_seq2seq(model) else None
            for step in range(min(self._how.max_new_tokens, encoder.max_length - len(prompt))):
                if scorer.regime and scorer.regime(every.shape[1]) != scorer.regime(every.shape[1] - 1):
                    tokens, cache = every, None  # what was kept is turned by other factors
                    forget(scorer)
                with scorer.autocast():
                    if steps is not None:
                        logits = steps.start() if step == 0 else steps.step(tokens[:, 0])
                    elif isinstance(scorer, GuidedScorer):
                        out = scorer.backbone(input_ids=tokens, past_key_values=cache, use_cache=True)
                        logits, cache = scorer.logits(out.last_hidden_state[:, -1]), out.past_key_values
                    else:
                        out = model(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
                        logits, cache = forbid(out.logits[:, -1], scorer.forbidden), out.past_key_values
                uniform = torch.rand(n, 1, generator=generator).to(device)
                choice, _ = draw(logits, uniform, self._how)
                for row in sorted(live):
                    token = int(choice[row])
                    said[row].append(token)
                    if token in encoder.stop:
                        live.discard(row)
                        continue
                    text = encoder.decode(said[row], content)
                    if not text.endswith(UNFINISHED) and text.startswith(shown[row]) and text != shown[row]:
                        yield row, text[len(shown[row]) :]
                        shown[row] = text
                if not live:
                    break
                tokens = choice[:, None]
                every = torch.cat([every, tokens], 1)
            whole = [as_sampled(encoder, content, said[row], seed, row) for row in range(n)]
            for row, one in enumerate(whole):
                if one.text.startswith(shown[row]) and one.text != shown[row]:
                    yield row, one.text[len(shown[row]) :]
            return whole
