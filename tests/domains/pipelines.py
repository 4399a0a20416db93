"""Tiny random pipelines of diffusers, written to disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, PreTrainedTokenizerFast

WORDS = ["<pad>", "a", "red", "blue", "circle", "square", "above", "below", "</s>"]


def pixel_flow(folder: Path, noise_scale: float = 1.0, shift: float = 1.0) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, PRXPixelPipeline, PRXTransformer2DModel

    torch.manual_seed(0)
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 8)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>")
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=9, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
            max_position_embeddings=12, bos_token_id=1, eos_token_id=8, pad_token_id=0,
        )
    )  # fmt: skip
    net = PRXTransformer2DModel(
        in_channels=3, patch_size=4, context_in_dim=16, hidden_size=32, mlp_ratio=2.0, num_heads=2, depth=2,
        axes_dim=[8, 8],
    )  # fmt: skip
    for parameter in net.parameters():  # its last layer begins with zeros
        torch.nn.init.normal_(parameter, std=0.1)
    pipe = PRXPixelPipeline(
        net, FlowMatchEulerDiscreteScheduler(shift=shift), text, tokenizer, default_sample_size=16,
        prompt_max_tokens=10, noise_scale=noise_scale,
    )  # fmt: skip
    pipe.save_pretrained(folder)
    return pipe


def stable_diffusion(folder: Path, **scheduler: Any) -> Any:
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

    torch.manual_seed(0)
    letters = sorted(set("".join(WORDS[1:8])))
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    n = len(vocabulary)
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=n, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
            max_position_embeddings=77, bos_token_id=n - 2, eos_token_id=n - 1, pad_token_id=n - 1,
        )
    )  # fmt: skip
    tokenizer = CLIPTokenizer(vocab={word: i for i, word in enumerate(vocabulary)}, merges=[], model_max_length=77)
    net = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 16), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16, attention_head_dim=4, norm_num_groups=4,
    )  # fmt: skip
    vae = AutoencoderKL(block_out_channels=(8, 8), latent_channels=4, norm_num_groups=4, sample_size=16,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    settings = {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1} | scheduler
    schedule = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", **settings)
    pipe = StableDiffusionPipeline(vae, text, tokenizer, net, schedule, None, None, requires_safety_checker=False)
    pipe.save_pretrained(folder)
    return pipe
