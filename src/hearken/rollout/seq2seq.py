"""Decoding steps of an encoder-decoder: each prompt encoded once for its n samples, the decoder with its own cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from hearken.models.head import forbid
from hearken.models.loading import switch_adapter
from hearken.models.scorers import TokenScorer
from hearken.models.seq2seq import network, start_token


class Seq2SeqSteps:
    """Steps through a T5- or BART-like model; all rows have read equally much, so there is no padding.

    Args:
        scorer: the policy.
        prompts: token ids.
        n: samples of each prompt.
    """

    def __init__(self, scorer: TokenScorer, prompts: Sequence[Sequence[int]], n: int) -> None:
        self.scorer = scorer
        model, device = scorer.model, scorer.device
        switch_adapter(model, scorer.adapter)
        rows = [torch.tensor(list(p), device=device) for p in prompts]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([len(r) for r in rows], device=device)
        keep = (torch.arange(ids.shape[1], device=device)[None] < lengths[:, None]).long()
        memory = network(model).get_encoder()(input_ids=ids, attention_mask=keep).last_hidden_state
        self.memory, self.seen = memory.repeat_interleave(n, 0), keep.repeat_interleave(n, 0)
        self.cache = EncoderDecoderCache(DynamicCache(), DynamicCache())

    def start(self) -> Tensor:
        """Logits of each row's first token: (rows, V)."""
        return self.step(self.seen.new_full((len(self.seen),), start_token(self.scorer.model)))

    def step(self, tokens: Tensor) -> Tensor:
        """Feed (rows,) tokens, get the next logits (rows, V)."""
        model = self.scorer.model
        if self.scorer.whole:
            logits = model(
                encoder_outputs=BaseModelOutput(last_hidden_state=self.memory), attention_mask=self.seen,
                decoder_input_ids=tokens[:, None], past_key_values=self.cache, use_cache=True,
            ).logits[:, -1]  # fmt: skip
            return forbid(logits, self.scorer.forbidden)
        states = network(model).get_decoder()(
            input_ids=tokens[:, None], encoder_hidden_states=self.memory, encoder_attention_mask=self.seen,
            past_key_values=self.cache, use_cache=True,
        ).last_hidden_state  # fmt: skip
        return self.scorer.logits(states[:, -1])

    def keep(self, rows: Tensor) -> None:
        """Drop finished rows."""
        self.memory, self.seen = self.memory[rows], self.seen[rows]
        self.cache.batch_select_indices(rows)
