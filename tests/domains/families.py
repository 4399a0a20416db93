"""Tokenizers and chat templates of every family, trained and written on the spot."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import ByT5Tokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

TEXT = [
    "The fox runs home, and the owl sings at night.", "What is two plus two? The answer is 4.", "user assistant system",
    "Name a bird. A wren is a bird, a bat is not.", "think prompt response model INST", "Ça va? Él está aquí.",
] * 20  # fmt: skip
SPECIAL = [
    "<unk>", "<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>", "<|eot|>", "<start_of_turn>", "<end_of_turn>",
    "<think>", "</think>",
]  # fmt: skip
SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
BYTES = [f"<0x{i:02X}>" for i in range(256)]
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_level(prefix: bool = False, split: str = "") -> Tokenizer:
    """GPT-2's kind; with ``split`` as Llama 3 and Qwen split words."""
    made = Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=not split)
    cut = [pre_tokenizers.Split(Regex(split), "isolated"), level] if split else [level]
    made.pre_tokenizer = pre_tokenizers.Sequence(cut)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(TEXT, trainers.BpeTrainer(
        vocab_size=420, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False))  # fmt: skip
    return made


def sentencepiece(scheme: str = "") -> Tokenizer:
    """Llama 2's kind: by normalizer, or where ``scheme`` is given by pre-tokenizer."""
    made = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    swap = [normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)]
    made.normalizer = normalizers.Sequence(swap)
    made.pre_tokenizer = pre_tokenizers.Split(SPACE, "merged_with_next")
    made.train_from_iterator(TEXT, trainers.BpeTrainer(
        vocab_size=600, special_tokens=[*SPECIAL, *BYTES], show_progress=False))  # fmt: skip
    made.pre_tokenizer = None  # type: ignore[assignment]
    if scheme:
        made.normalizer = None  # type: ignore[assignment]
        made.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme=scheme, split=False)
    strip = [] if scheme == "never" else [decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    return made


def unigram() -> Tokenizer:
    """T5's kind: scores instead of merges; here with bytes as fallback, so that nothing is unknown."""
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="always")
    made.decoder = decoders.Metaspace(SPACE, prepend_scheme="always")
    made.train_from_iterator(TEXT, trainers.UnigramTrainer(
        vocab_size=300, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False))  # fmt: skip
    return made


def word_piece() -> Tokenizer:
    """BERT's kind."""
    made = Tokenizer(models.WordPiece(unk_token="<unk>"))  # type: ignore[call-arg]
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.train_from_iterator(TEXT, trainers.WordPieceTrainer(
        vocab_size=400, special_tokens=SPECIAL, show_progress=False))  # fmt: skip
    return made


MADE: dict[str, Callable[[], Tokenizer]] = {
    "byte-level": byte_level,
    "byte-level, prefix": lambda: byte_level(prefix=True),
    "byte-level, llama3": lambda: byte_level(split=LLAMA3_SPLIT),
    "sp normalizer": sentencepiece,
    "sp first": lambda: sentencepiece("first"),
    "sp always": lambda: sentencepiece("always"),
    "sp never": lambda: sentencepiece("never"),
    "unigram": unigram,
    "wordpiece": word_piece,
}
LOSSLESS = [name for name in MADE if name not in ("unigram", "wordpiece")]
"""Tokenizers that can give back any text."""


@cache
def core(name: str) -> str:
    """A tokenizer as its JSON; training it once is enough."""
    return MADE[name]().to_str()


def family(name: str, template: str = "", *, bos: bool = True, close: bool = False) -> PreTrainedTokenizerBase:
    """A tokenizer of a family with a chat template.

    Args:
        name: of the family; ``bytes`` is ByT5's, which is written in Python.
        template: name of a chat template.
        bos: it puts ``<s>`` before every text.
        close: it puts ``</s>`` behind every text.
    """
    end, source = TEMPLATES.get(template, ("</s>", ""))
    if name == "bytes":
        return ByT5Tokenizer()
    made = Tokenizer.from_str(core(name))
    if bos or close:
        single = " ".join(["<s>"] * bos + ["$A"] + ["</s>"] * close)
        made.post_processor = processors.TemplateProcessing(
            single=single, special_tokens=[(t, made.token_to_id(t)) for t in ("<s>", "</s>")]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", bos_token="<s>", eos_token=end, pad_token="<pad>"
    )
    if source:
        tokenizer.chat_template = source
    return tokenizer


_TURNS = "{% for m in messages %}"
CHATML = (
    _TURNS + "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA2 = (
    "{{ bos_token }}" + _TURNS + "{% if m.role == 'assistant' %}{{ ' ' + m.content + ' ' + eos_token }}"
    "{% else %}{{ '[INST] ' + m.content + ' [/INST]' }}{% endif %}{% endfor %}"
)
TRIMMING = (
    "{{ bos_token }}" + _TURNS + "{{ '<start_of_turn>' + m.role + '\n' + m.content | trim + '<|eot|>' }}{% endfor %}"
    "{{ '<start_of_turn>assistant\n' if add_generation_prompt else '' }}"
)
REFUSING = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{{ bos_token }}"
    + _TURNS + "{{ '<start_of_turn>' + m.role + '\n' + m.content | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{{ '<start_of_turn>assistant\n' if add_generation_prompt else '' }}"
)  # fmt: skip
DROPPING = (
    "{{ bos_token }}" + _TURNS + "{% set c = m.content.split('</think>')[-1] if m.role == 'assistant' else m.content %}"
    "{{ '<|im_start|>' + m.role + '\n' + c + eos_token }}{% endfor %}"
    "{{ '<|im_start|>assistant\n' if add_generation_prompt else '' }}"
)
OPENING = DROPPING.replace("'<|im_start|>assistant\n' if", "'<|im_start|>assistant\n<think>\n' if")
HEADLESS = _TURNS + "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
PROMPTING = "{% if messages[0].role != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}" + CHATML
ENDLESS = (
    _TURNS + "{{ '### ' + m.role + ':\n' + m.content + '\n\n' }}{% endfor %}"
    "{{ '### assistant:\n' if add_generation_prompt else '' }}"
)
MARKING = (
    _TURNS + "<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>"
    "{% endgeneration %}{% else %}{{ m.content }}<|im_end|>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
REASONING = (
    "{% set ns = namespace(last=0) %}" + _TURNS + "{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}"
    "{% endfor %}" + _TURNS + "{% set c = m.content %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' %}{% set r = '' %}{% if '</think>' in c %}"
    "{% set r = c.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set c = c.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{% if loop.index0 > ns.last %}{{ '<think>\n' + r + '\n</think>\n\n' }}{% endif %}{% endif %}"
    "{{ c + '<|im_end|>\n' }}{% endfor %}{{ '<|im_start|>assistant\n' if add_generation_prompt else '' }}"
)

TEMPLATES: dict[str, tuple[str, str]] = {
    "chatml": ("<|im_end|>", CHATML),
    "chatml, other eos": ("</s>", CHATML),
    "llama2": ("</s>", LLAMA2),
    "trimming": ("<|eot|>", TRIMMING),
    "refusing": ("</s>", REFUSING),
    "dropping": ("</s>", DROPPING),
    "opening": ("</s>", OPENING),
    "headless": ("<|im_end|>", HEADLESS),
    "prompting": ("<|im_end|>", PROMPTING),
    "endless": ("</s>", ENDLESS),
    "marking": ("<|im_end|>", MARKING),
    "reasoning": ("<|im_end|>", REASONING),
}
"""By name: the tokenizer's EOS with it, and the template."""
