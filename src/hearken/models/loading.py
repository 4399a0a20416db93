"""Loading and saving, in the ecosystem's own layout: a policy is a causal LM folder, a reward model a classifier's.

Names of local folders and of the Hub are the same to `transformers`; what is wrong with either is said in one line.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    logging,
)

from hearken.config import located
from hearken.errors import UserError
from hearken.models.gguf import plain
from hearken.models.names import check_model

if "TRANSFORMERS_VERBOSITY" not in os.environ:  # our own progress bars and messages say what a person needs
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _checked(name: str) -> str:
    check_model(name)
    return plain(name)


def _load(loader: Any, name: str, what: str, **more: Any) -> Any:
    try:  # code that lies in a model's folder is not run
        return loader.from_pretrained(_checked(name), trust_remote_code=False, **more)
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        first = str(error).strip().splitlines()[0]
        if isinstance(error, SafetensorError):
            raise UserError(f"the weights of {name} are cut or no weights: {first}", "Copy the model again") from None
        raise UserError(
            f"cannot load {what} from {name}: {first}", "Check the name; without a network, name a folder"
        ) from None


def _load_weights(loader: Any, name: str, what: str, *, head: tuple[str, ...] = (), **more: Any) -> Any:
    """A model in fp32 that has all its weights from its file, but those of a ``head`` that is to be made.

    Raises:
        UserError: it has not: transformers would make up what is missing.
    """
    model, info = _load(loader, name, what, dtype=torch.float32, output_loading_info=True,
                        ignore_mismatched_sizes=True, **more)  # fmt: skip
    _check_weights(name, info["missing_keys"], info["mismatched_keys"], head)
    if info["unexpected_keys"] and not head:
        count, first = len(info["unexpected_keys"]), min(info["unexpected_keys"])
        warnings.warn(f"{name}: its configuration has no place for {count} of its weights ({first})", stacklevel=3)
    return model


def _check_weights(name: str, missing: Iterable[str], mismatched: Iterable[Any], head: tuple[str, ...] = ()) -> None:
    for key, stored, wanted in sorted(mismatched):
        if not key.startswith(head):
            sizes = " and ".join(" x ".join(map(str, size)) for size in (stored, wanted))
            raise UserError(
                f"{name}: {key} is stored and described in two sizes, {sizes}", "Its weights and configuration differ"
            )
    if lost := sorted(key for key in missing if not key.startswith(head)):
        raise UserError(
            f"{name}: {len(lost)} weights are missing in its files, the first {lost[0]}",
            "They would be random numbers; copy the whole model, with the configuration that belongs to it",
        )


def load_adapter(model: Any, name: str, called: str = "default", **how: Any) -> None:
    """Put the adapter in the folder ``name`` on its base, beside others that have other names there.

    Raises:
        UserError: it does not fit the base: some of its weights are missing there, or here.
    """
    try:
        info = model.load_adapter(name, adapter_name=called, **how)
    except RuntimeError as error:
        if "ignore_mismatched_sizes" not in str(error):
            raise
        raise UserError(f"{name}: the adapter's weights have other sizes than its base asks for", _OTHER_BASE) from None
    _check_weights(name, [key for key in info.missing_keys if f".{called}." in f"{key}."], ())
    if info.unexpected_keys:
        count, first = len(info.unexpected_keys), min(info.unexpected_keys)
        raise UserError(f"{name}: {count} of the adapter's weights have no place in its base, as {first}", _OTHER_BASE)


def load_tokenizer(name: str, eos: str = "") -> PreTrainedTokenizerBase:
    """A model's own tokenizer; it must know a token that ends a response.

    Raises:
        UserError: no tokenizer, or no end-of-sequence token, or ``eos`` is not one of its tokens.
    """
    tokenizer = _load(AutoTokenizer, name, "a tokenizer")
    if eos:
        if tokenizer.convert_tokens_to_ids(eos) in (None, tokenizer.unk_token_id):
            raise UserError(f"the tokenizer of {name} has no token '{eos}'", "Name an existing token as eos")
        tokenizer.eos_token = eos
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"the tokenizer of {name} has no end-of-sequence token", "Name one of its tokens, for example: --eos '</s>'"
        )
    return tokenizer


_OTHER_BASE = "Name the base that it was made for: base_model_name_or_path in its adapter_config.json"
_REWARD_HEADS = ("score.", "classification_head.")

MEDIA = re.compile("image|audio|video", re.IGNORECASE)
"""What tokens are called that stand for no text: Gemma 3's small models have none of their embeddings."""


def check_size(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, what: str = "the model") -> None:
    """Every token of text has an embedding.

    Raises:
        UserError: some have not; both sizes are named.
    """
    rows, vocabulary = _rows(model.get_input_embeddings()), tokenizer.get_vocab()
    beyond = [token for token, i in vocabulary.items() if i >= rows]
    if any(not MEDIA.search(token) for token in beyond):
        raise UserError(
            f"the tokenizer of {tokenizer.name_or_path} has {max(vocabulary.values()) + 1} tokens, "
            f"but {what} has embeddings for {rows}: not for {sorted(beyond, key=vocabulary.__getitem__)[0]!r}",
            "Use the model's own tokenizer; or, where tokens were added: "
            "model.resize_token_embeddings(len(tokenizer)), and save_pretrained both",
        )


def other_tokens(tokenizer: PreTrainedTokenizerBase, name: str) -> str:
    """Where the model ``name``, given the ids of ``tokenizer``, reads other words: a sentence; empty where nowhere.

    Added tokens may have other names there (reserved ones are given names), and a folder without a tokenizer is taken
    for a copy.
    """
    try:
        other = _load(AutoTokenizer, name, "a tokenizer")
    except UserError:
        return ""
    added = tokenizer.added_tokens_decoder.keys() | other.added_tokens_decoder.keys()
    its, mine = ({i: token for token, i in one.get_vocab().items()} for one in (other, tokenizer))
    for i in sorted((mine.keys() & its.keys()) - added):
        if its[i] != mine[i]:
            return f"its token {i} is {its[i]!r}, the policy's {mine[i]!r}"
    return ""


def _rows(embedding: Any) -> int:
    return int(embedding.weight.shape[0])


def fit(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
    """Let a language model know which ids its tokenizer has.

    Many models have more embeddings than their tokenizer has tokens, for speed. The ids beyond mean nothing: they
    have no probability, and the others share what theirs would be: log p(y) = z_y - log Σ over known ids of exp z.

    Raises:
        UserError: as `check_size`.
    """
    check_size(tokenizer, model)
    head = model.get_output_embeddings()
    if head is None:  # a reward model
        return
    known = set(tokenizer.get_vocab().values())
    unknown = [i for i in range(_rows(head)) if i not in known]
    found = torch.tensor(unknown, device=model.device) if unknown else None
    model.register_buffer("forbidden_ids", found, persistent=False)


def stop_tokens(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> list[int]:
    """Token ids that end a response: the tokenizer's EOS and those that the model's configuration names."""
    return sorted(_ends(tokenizer, getattr(model, "generation_config", None) or model.config))


def stop_tokens_of(name: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """`stop_tokens` of a model that is not loaded; the tokenizer's EOS where ``name`` holds a tokenizer only."""
    base = _base_of(name)
    try:
        config = load_generation(name) or load_generation(base) or AutoConfig.from_pretrained(plain(base))
    except (OSError, ValueError):
        return [tokenizer.eos_token_id]
    return sorted(_ends(tokenizer, config))


def _ends(tokenizer: PreTrainedTokenizerBase, config: Any) -> list[int]:
    """The tokenizer's EOS first, then those that the configuration names besides."""
    more = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    return list(dict.fromkeys([tokenizer.eos_token_id, *(i for i in more if i is not None and i < len(tokenizer))]))


def _one_or_more(ids: list[int]) -> int | list[int]:
    return ids[0] if len(ids) == 1 else ids


def context_length(model: PreTrainedModel) -> int:
    """Most tokens a sequence may have."""
    config = model.config.get_text_config()
    return int(getattr(config, "max_position_embeddings", None) or 1 << 20)


def load_policy(name: str, *, device: torch.device | str = "cpu") -> PreTrainedModel:
    """A causal or encoder-decoder language model in fp32 (an adapter folder comes with its base).

    Raises:
        UserError: there is none, or it is a reward model, whose language head would be made up.
    """
    config = _load(AutoConfig, _base_of(_checked(name)), "a model configuration")
    kinds = config.architectures or []
    if any("SequenceClassification" in kind for kind in kinds):
        raise UserError(f"--model {name} is a reward model ({kinds[0]})", "Name the language model it was made from")
    loader = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    name = _checked(name)
    model = _load_weights(loader, _base_of(name), "a language model")
    if _is_adapter(name):
        names = getattr(model, "_weight_conversions", None)
        load_adapter(model, name)
        model._weight_conversions = names  # else what it is merged into would be saved under the adapter's names
    if _is_adapter(name) and (own := load_generation(name)) is not None:  # transformers reads the base's alone
        model.generation_config = own
    return model.to(device)


def load_reward(name: str, *, device: torch.device | str = "cpu") -> PreTrainedModel:
    """A trained reward model: a sequence classifier with one label, or with one for each rated attribute.

    Raises:
        UserError: it has labels that are not attributes, or no trained score head.
    """
    config = _load(AutoConfig, name, "a model configuration")
    kinds = config.architectures or []
    if kinds and not any("SequenceClassification" in kind for kind in kinds):
        raise UserError(f"--reward {name} is a {kinds[0]}, not a reward model", "Train one with: hearken train reward")
    model = _load_weights(AutoModelForSequenceClassification, name, "a reward model")
    if model.config.num_labels != 1 and not hasattr(model.config, "hearken_attribute_weights"):
        raise UserError(
            f"--reward {name} has {model.config.num_labels} labels", "A reward model has one (num_labels=1)"
        )
    return model.to(device)


def score_head(model: PreTrainedModel) -> nn.Module:
    """A sequence classifier's head: ``score``, or the two layers that encoder-decoders have.

    Raises:
        AttributeError: it has neither.
    """
    return model.get_submodule("score" if hasattr(model, "score") else "classification_head")


def last_linear(head: nn.Module) -> Any:
    """A head's last layer."""
    return getattr(head, "out_proj", head)


def new_reward(
    name: str, seed: int, *, eos: str = "", device: torch.device | str = "cpu",
    attributes: Mapping[str, float] | None = None, by: str = "",
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:  # fmt: skip
    """A reward model on a language model's backbone with a fresh head: N(0, 1/(d+1)), no bias (Stiennon et al. 2020).

    With ``attributes``, and how each weighs in the score, it has a head for each of them. Where they are the values of
    ``by``, something that labelers say about themselves, the heads begin as one.

    Where ``name`` is a reward model already, its head stays: training goes on from it.

    Its pad token is not EOS: with pad == EOS, transformers would read the score before the end-of-sequence token.
    """
    tokenizer = load_tokenizer(name, eos)
    config = _load(AutoConfig, _base_of(name), "a model configuration")
    kinds, heads = config.architectures or [], len(attributes or "1")
    trained = any("SequenceClassification" in kind for kind in kinds) and config.num_labels == heads
    if attributes and trained:  # as many heads may still be of something else
        trained = [config.id2label[i] for i in range(heads)] == list(attributes)
    config.num_labels = heads
    if attributes:
        config.id2label = dict(enumerate(attributes))
        config.label2id = {attribute: i for i, attribute in enumerate(attributes)}
        config.hearken_attribute_weights = dict(attributes)
        config.hearken_heads_by = by
    torch.manual_seed(seed)
    if _is_adapter(name):
        merged = merge_adapter(load_policy(name))
        model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
        backbone = getattr(model, model.base_model_prefix)
        weights = getattr(merged, merged.base_model_prefix, merged).state_dict()  # T5's is the model itself
        backbone.load_state_dict({key: weights[key] for key in backbone.state_dict()})
    else:
        model = _load_weights(
            AutoModelForSequenceClassification, name, "a reward model's backbone", config=config,
            head=() if trained else _REWARD_HEADS,
        )  # fmt: skip
    try:
        head = last_linear(score_head(model))
    except AttributeError:
        head = None
    if not isinstance(head, nn.Linear):
        raise UserError(f"{type(model).__name__} has no linear head named score", "Use another architecture")
    if not trained:
        nn.init.normal_(head.weight, std=(model.config.get_text_config().hidden_size + 1) ** -0.5)
        if by:
            head.weight.data[:] = head.weight.data[0]
        if head.bias is not None:
            nn.init.zeros_(head.bias)
    check_size(tokenizer, model)
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        tokenizer.add_special_tokens({"pad_token": "<|hearken_pad|>"})
        size = model.config.get_text_config().vocab_size
        if len(tokenizer) > size:
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.config.pad_token_id = tokenizer.pad_token_id
    stop = load_generation(name) or load_generation(_base_of(name))
    model.config.eos_token_id = _one_or_more(_ends(tokenizer, stop or model.config))
    return model.to(device), tokenizer


def load_generation(name: str) -> GenerationConfig | None:
    """A model's generation settings, where it has any."""
    try:
        return GenerationConfig.from_pretrained(plain(name))
    except OSError:
        return None


def _is_adapter(name: str) -> bool:
    return (Path(name) / ADAPTER).is_file()


def _base_of(name: str) -> str:
    """What to load under ``name``: an adapter's base, as a path in full where it is a folder; else itself.

    Raises:
        UserError: the base's folder is not there.
    """
    if not _is_adapter(name):
        return name
    base = str(json.loads((Path(name) / ADAPTER).read_text("utf-8"))["base_model_name_or_path"])
    made = Path(name) / "manifest.json"
    before = json.loads(made.read_text("utf-8")).get("folder") if made.is_file() else None
    if before and os.path.isabs(base) and before != os.path.abspath(name):  # what belongs together moved together
        moved = os.path.normpath(os.path.join(os.path.abspath(name), os.path.relpath(base, before)))
        base = moved if os.path.exists(moved) else base
    if os.path.exists(base):
        return os.path.abspath(base)
    beside = Path(name).absolute().parent / Path(base).name
    if (beside / "config.json").is_file():
        return str(beside)
    if os.path.isabs(base) or base.startswith(".") or base.count("/") > 1:
        raise UserError(
            f"{name} is an adapter of the base model {base}, which is not there",
            f"Put the base back, or write where it is now into {Path(name) / ADAPTER}: base_model_name_or_path",
        )
    return base


# Adapters, by transformers' own PEFT integration

ADAPTER = "adapter_config.json"
HEADS = ("lm_head", "embed_out", "score", "classification_head.dense", "classification_head.out_proj")


def add_adapter(
    model: PreTrainedModel, name: str, rank: int, *, alpha: float = 0, targets: str = "all-linear", seed: int = 0
) -> None:
    """Freeze ``model`` and add a trainable LoRA adapter called ``name``, drawn by ``seed``; the head is left alone.

    Raises:
        UserError: ``targets`` name a layer whose weights are another's too.
    """
    from peft import LoraConfig

    modules: str | list[str] = targets if targets == "all-linear" else targets.split(",")
    if (shared := _shared(model, modules)) is not None:
        raise UserError(
            f"--lora-targets: {shared[0]} and {shared[1]} are one matrix in this model, and an adapter would part them",
            "Leave both out, as all-linear does; or train all weights: --lora 0",
        )
    named = {path for path, _ in model.named_modules()}
    heads = [n for n in HEADS if modules == "all-linear" and n in named]
    model.requires_grad_(False)
    kind = "CAUSAL_LM"
    if model.config.is_encoder_decoder:
        kind = "SEQ_2_SEQ_LM"
    if "SequenceClassification" in type(model).__name__:
        kind = "SEQ_CLS"
    config = LoraConfig(
        task_type=kind,
        r=rank,
        lora_alpha=alpha or 2 * rank,  # type: ignore[arg-type]  # a fraction is fine
        target_modules=modules,
        lora_dropout=0.0,
        exclude_modules=heads or None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model.add_adapter(config, adapter_name=name)


def _shared(model: PreTrainedModel, targets: str | list[str]) -> tuple[str, str] | None:
    """A layer among ``targets`` with another that has the same weights, by their names."""
    for paths in _owners(model).values():
        for path in paths:
            named = not isinstance(targets, str) and any(f".{path}".endswith(f".{one.strip()}") for one in targets)
            if named and len(paths) > 1:
                return path, next(other for other in paths if other != path)
    return None


def _owners(model: PreTrainedModel) -> dict[int, list[str]]:
    """The names of the layers that have each weight, by its id."""
    found: dict[int, list[str]] = {}
    for path, module in model.named_modules():
        if isinstance(weight := getattr(module, "weight", None), nn.Parameter):
            found.setdefault(id(weight), []).append(path)
    return found


def has_adapter(model: PreTrainedModel) -> bool:
    """Whether ``model`` carries any adapter."""
    return bool(getattr(model, "_hf_peft_config_loaded", False))


def switch_adapter(model: PreTrainedModel, name: str | None) -> None:
    """Compute with the adapter ``name``, or without any (None). Models without adapters are left as they are.

    Which parameters are trained does not change: PEFT's own switches freeze every adapter but the active one, and the
    reward model (adapters off) would freeze the value model's adapter on the same network.
    """
    if not has_adapter(model):
        return
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    if name is not None and name not in model.peft_config:
        raise ValueError(f"no adapter '{name}' among {', '.join(model.peft_config)}")
    for module in model.modules():
        if isinstance(module, BaseTunerLayer | ModulesToSaveWrapper):
            module._disable_adapters = name is None
            if name is not None:
                module._active_adapter = [name]


def merge_adapter(model: PreTrainedModel) -> PreTrainedModel:
    """Fold the active adapter into the weights and forget it.

    Where it parted a head from the embeddings that it shared, they stay apart.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    if not has_adapter(model):
        return model
    owners = _owners(model)
    module: Any
    for path, module in list(model.named_modules()):
        if isinstance(module, AuxiliaryTrainingWrapper):  # modules that were trained whole, and single tokens
            whole: Any = module.unload_and_optionally_merge_module(merge=True, safe_merge=True, adapter_names=None)
        elif isinstance(module, BaseTunerLayer):
            whole = module.get_base_layer()
            if len(owners.get(id(whole.weight), ())) > 1:
                whole.weight = nn.Parameter(whole.weight.detach().clone())
            module.merge(safe_merge=True)
        else:
            continue
        parent, _, leaf = path.rpartition(".")
        setattr(model.get_submodule(parent), leaf, whole)
    head: Any = model.get_output_embeddings()
    embeddings: Any = model.get_input_embeddings()
    if head is not None and not torch.equal(head.weight, embeddings.weight):
        model.config.get_text_config().tie_word_embeddings = model.config.tie_word_embeddings = False
    model._hf_peft_config_loaded = False
    if hasattr(model, "peft_config"):
        del model.peft_config
    return model.requires_grad_(True)


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, out: Path) -> None:
    """Write a folder that ``from_pretrained`` loads (an adapter's, where an adapter is active).

    Whoever generates with it stops where training ended responses: the tokenizer's EOS stands in every configuration.
    """
    native = model.config._attn_implementation
    model.set_attn_implementation("sdpa" if native == "hearken" else native)
    for config in (model.config, getattr(model, "generation_config", None)):
        if config is not None:
            config.eos_token_id = _one_or_more(_ends(tokenizer, config))
    if has_adapter(model):
        for one in model.peft_config.values():
            one.base_model_name_or_path = located(str(one.base_model_name_or_path))
        base = str(model.peft_config[model.active_adapters()[0]].base_model_name_or_path)
        stop = getattr(load_generation(base), "eos_token_id", None)
        if tokenizer.eos_token_id not in (stop if isinstance(stop, list) else [stop]):
            warnings.warn(
                f"responses end with {tokenizer.eos_token!r}, which the settings of the base {base} do not name: "
                f"outside hearken, give generate the adapter's own, GenerationConfig.from_pretrained({str(out)!r})",
                stacklevel=2,
            )
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    model.set_attn_implementation(native)
