"""Encoder-decoder models (T5, BART and their kin) over a `Layout`: the encoder reads prompts, the decoder responses.

The decoder's first position has read the start token and the prompt, position t the first t response tokens: what a
causal model knows at the prompt's last token and at response token t - 1. So its states are laid down where a causal
model's would stand, and everything above (log-probabilities, rewards, values) reads them without knowing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hearken.models.layout import Layout


def is_seq2seq(model: PreTrainedModel) -> bool:
    """Whether a model has an encoder of its own."""
    return bool(model.config.is_encoder_decoder)


def network(model: PreTrainedModel) -> Any:
    """The model without its head; of T5 with a language head, which has no such part, the model itself."""
    return getattr(model, model.base_model_prefix, model)


def start_token(model: PreTrainedModel) -> int:
    """What the decoder reads first."""
    settings = (model.config, getattr(model, "generation_config", None))
    named = (getattr(s, "decoder_start_token_id", None) for s in settings)
    return next((i for i in named if i is not None), model.config.pad_token_id or 0)


@dataclass(frozen=True, slots=True)
class Reading:
    """A layout as an encoder-decoder reads it: P prompts of at most S tokens, R responses of at most T.

    Attributes:
        prompts, keep: (P, S) token ids and attention mask.
        responses: (R, T + 1) the start token, then the response.
        parent: (R,) the prompt of each response.
        source: (N,) the cell of (R, T + 1) that each token of the layout's row takes its state from; a prompt's last
            token has that of the start token, and its others, which nobody reads, have cell 0.
    """

    prompts: Tensor
    keep: Tensor
    responses: Tensor
    parent: Tensor
    source: Tensor


def read(layout: Layout, start: int) -> Reading:
    """Cut a layout into what goes to the encoder and what to the decoder."""
    first = torch.searchsorted(layout.parent, torch.arange(int(layout.parent[-1]) + 1, device=layout.ids.device))
    lengths, last = layout.prompt_lengths[first], layout.state[first, 0]
    column = torch.arange(int(lengths.max()), device=layout.ids.device)
    keep = column < lengths[:, None]
    where = (last - lengths + 1)[:, None] + column
    responses = torch.cat([torch.full_like(layout.targets[:, :1], start), layout.targets], 1)
    cells = torch.arange(responses.numel(), device=layout.ids.device).view(responses.shape)
    source = torch.zeros_like(layout.ids)
    source[last] = cells[first, 0]
    source[layout.token[layout.mask]] = cells[:, 1:][layout.mask]
    prompts = torch.where(keep, layout.ids[torch.where(keep, where, 0)], 0)
    return Reading(prompts, keep.long(), responses, layout.parent, source)


def hidden(model: PreTrainedModel, layout: Layout) -> Tensor:
    """Last hidden states of the decoder in the order of the layout's row: (N, d). Every prompt is encoded once."""
    reading, net = read(layout, start_token(model)), network(model)
    memory = net.get_encoder()(input_ids=reading.prompts, attention_mask=reading.keep).last_hidden_state
    states = net.get_decoder()(
        input_ids=reading.responses, encoder_hidden_states=memory[reading.parent],
        encoder_attention_mask=reading.keep[reading.parent], use_cache=False,
    ).last_hidden_state  # fmt: skip
    return states.flatten(0, 1)[reading.source]


def logits(model: PreTrainedModel, layout: Layout) -> Tensor:
    """The model's own logits in the order of the layout's row: (N, V); for heads that are more than a linear map."""
    reading = read(layout, start_token(model))
    found = model(
        input_ids=reading.prompts[reading.parent], attention_mask=reading.keep[reading.parent],
        decoder_input_ids=reading.responses, use_cache=False,
    ).logits  # fmt: skip
    return found.flatten(0, 1)[reading.source]


def before_head(model: PreTrainedModel, states: Tensor) -> Tensor:
    """What T5 does to the states before its head: divide by the square root of their width."""
    config = model.config
    return states * config.hidden_size**-0.5 if getattr(config, "scale_decoder_outputs", False) else states


def after_head(model: PreTrainedModel, scores: Tensor) -> Tensor:
    """What BART does to the logits after its head: add a bias."""
    bias = getattr(model, "final_logits_bias", None)
    return scores if bias is None else scores + bias[0]


def one(model: PreTrainedModel, net: nn.Module, prompt: Sequence[int], response: Sequence[int]) -> Any:
    """What the model (or, as ``net``, a part of it) itself says of one response; for `scorers.probe`."""
    device = next(model.parameters()).device
    ids = torch.tensor([list(prompt)], device=device)
    read_so_far = torch.tensor([[start_token(model), *response]], device=device)
    return net(input_ids=ids, decoder_input_ids=read_so_far, use_cache=False)
