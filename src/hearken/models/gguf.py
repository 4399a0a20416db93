"""GGUF files, which hold quantised weights and their tokenizer, as plain model folders.

transformers reads a GGUF file, slowly, and refuses to save what it read. So a file is unpacked once, into a folder of
fp32 weights that any loader opens, and every other part of the package sees that folder only.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import warnings
from contextlib import redirect_stderr
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hearken.config import cache_folder
from hearken.errors import UserError
from hearken.progress import progress

SUFFIX = ".gguf"
LIKE_GPT2 = ("", "default", "gpt-2")
"""Pre-tokenizers of byte-level vocabularies that split text as GPT-2's does."""


def gguf_file(name: str | Path) -> Path | None:
    """The GGUF file that ``name`` means: itself, or the only one in a folder that is no model folder; else None.

    Raises:
        UserError: the folder holds several, or a part of a model that was cut in pieces.
    """
    path = Path(name).expanduser()
    if path.is_dir() and not any((path / f).exists() for f in ("config.json", "adapter_config.json")):
        found = sorted(path.glob(f"*{SUFFIX}"))
        if len(found) > 1:
            raise UserError(f"{path} holds {len(found)} GGUF files", f"Name one, for example {found[0]}")
        path = found[0] if found else path
    return path if path.suffix.lower() == SUFFIX and path.is_file() else None


def plain(name: str) -> str:
    """``name``, or where it means a GGUF file the plain folder that is kept of it; made by the first who asks.

    Raises:
        UserError: the file cannot be read.
    """
    file = gguf_file(name)
    if file is None:
        return name
    stat = file.stat()
    key = hashlib.sha256(f"{file.resolve()}\n{stat.st_size}\n{stat.st_mtime_ns}".encode()).hexdigest()[:16]
    folder = cache_folder("gguf") / f"{file.stem}-{key}"
    if not folder.exists():
        unpack(file, folder)
    return str(folder)


def unpack(file: Path | str, out: Path | str) -> None:
    """Write a GGUF file's model, in fp32 and so without loss, as a folder that ``from_pretrained`` loads.

    Args:
        file: with a causal language model and its tokenizer.
        out: a folder that is not there yet; it appears whole or not at all.

    Raises:
        UserError: the package gguf is missing, or the file holds no model that transformers knows.
    """
    file, out = Path(file), Path(out)
    if find_spec("gguf") is None:
        raise UserError(f"{file} is a GGUF file, and the package gguf is not installed", "Run: pip install gguf")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}-{os.getpid()}")
    try:
        partial.mkdir()
        with progress(f"Unpacking {file.name}", 3, "part") as bar:
            tokenizer = _read("tokenizer", file)
            _mend_splitting(tokenizer, file)
            tokenizer.save_pretrained(partial)
            bar.advance(note="tokenizer")
            model = _read("model", file)
            bar.advance(note="weights")
            model.generation_config.pad_token_id = tokenizer.pad_token_id
            model.save_pretrained(partial)
            bar.advance(note="saved")
        try:
            os.rename(partial, out)
        except OSError:
            if not out.is_dir():  # else another process was quicker
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _read(what: str, file: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.quantization_config import GgufConfig

    folder, name = str(file.parent), file.name
    how = GgufConfig(gguf_file=name, dequantize=True)
    try:
        with redirect_stderr(io.StringIO()):  # its bars; ours is there
            if what == "tokenizer":
                return AutoTokenizer.from_pretrained(folder, gguf_file=name)
            model: Any = AutoModelForCausalLM.from_pretrained(
                folder, gguf_file=name, dtype=torch.float32, quantization_config=how
            )
    except Exception as error:  # a reader of a broken file fails in many ways
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None):
            raise
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"cannot read the {what} of {file}: {first}", "Name a GGUF file of a causal language model, in one piece"
        ) from None
    if odd := {p.dtype for p in model.parameters()} - {torch.float32}:
        raise UserError(f"{file} was not unpacked whole: some weights are {odd.pop()}", "Use another quantisation")
    # With these transformers would not save it: it takes the weights for packed ones still.
    for entry in ("hf_quantizer", "quantization_method"):
        model.__dict__.pop(entry, None)
    model.is_quantized = False
    model.config.__dict__.pop("quantization_config", None)
    return model


def _mend_splitting(tokenizer: Any, file: Path) -> None:
    """Split text as the vocabulary's own tokenizer does, where transformers has not seen to it."""
    from gguf import GGUFReader
    from tokenizers import pre_tokenizers
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    fields = GGUFReader(str(file)).fields
    kind, name = (
        str(fields[key].contents()) if key in fields else "" for key in ("tokenizer.ggml.model", "tokenizer.ggml.pre")
    )
    if kind != "gpt2" or name in LIKE_GPT2 or name in GGUF_PRE_TOKENIZER_SPLITS:
        return
    if name == "smollm":  # each digit by itself, then as GPT-2
        backend = tokenizer.backend_tokenizer
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        return
    warnings.warn(
        f"{file}: text is split as GPT-2 does, for want of the rule '{name}' that the file names; "
        "its tokens may differ a little from those that the model was trained on",
        stacklevel=2,
    )


__all__ = ["gguf_file", "plain", "unpack"]
