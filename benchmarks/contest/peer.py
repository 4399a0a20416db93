"""The peers' side: TRL's trainers and transformers' ``generate``, each with the settings the task names.

Runs in the peer's own environment, which need not hold Hearken.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import torch
from clock import BETA, KL, Clock, Task, main
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
    TrainerCallback,
)
from transformers.utils import logging

logging.set_verbosity_error()
logging.disable_progress_bar()


class Laps(TrainerCallback):
    """Tells the clock where steps end; the first step (of PPO: the first iteration) warms up and is not timed."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.trainer: Any = None
        self.before = 0

    def on_train_begin(self, *_: Any, optimizer: Any = None, **__: Any) -> None:
        if self.trainer is not None:
            self.clock.wrap(optimizer, "step", "optimiser")

    def on_step_end(self, *_: Any, **__: Any) -> None:
        if self.clock.marks:
            self.clock.lap()
        else:
            self.before = self.tokens()
            self.clock.begin()

    def tokens(self) -> int:
        """Real tokens that the trainer has read so far."""
        return int(getattr(self.trainer, "_total_train_tokens", 0))


def arguments(task: Task) -> dict[str, Any]:
    """Settings of every trainer: those of our own optimiser, nothing saved, nothing reported."""
    return {
        "output_dir": task.work,
        "seed": task.seed,
        "learning_rate": task.lr,
        "lr_scheduler_type": "constant",
        "adam_epsilon": 1e-5,
        "weight_decay": 0.0,
        "bf16": task.precision == "bf16",
        "gradient_checkpointing": False,
        "use_cpu": task.device == "cpu",
        "logging_steps": 1 if task.in_order else 10,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def training(task: Task) -> dict[str, Any]:
    """Settings of SFT and reward training. ``accumulate`` of the task's setting cuts a batch into so many pieces."""
    setting = dict(task.setting)
    pieces = setting.pop("accumulate", 1)
    setting.pop("dtype", None)
    if task.in_order:
        setting["train_sampling_strategy"] = "sequential"
    return arguments(task) | {
        "per_device_train_batch_size": task.batch // pieces, "gradient_accumulation_steps": pieces,
        "num_train_epochs": 1, "max_grad_norm": 1.0, "max_length": None, "remove_unused_columns": False, **setting,
    }  # fmt: skip


def language_model(task: Task, dtype: str = "float32") -> Any:
    """The task's model; of an adapter's folder its base with the adapter."""
    return AutoModelForCausalLM.from_pretrained(task.model, dtype=getattr(torch, dtype))


def adapter(task: Task) -> dict[str, Any]:
    """What a trainer is given where an adapter is trained instead of all weights."""
    if not task.lora:
        return {}
    from peft import LoraConfig

    config = LoraConfig(r=task.lora, lora_alpha=2 * task.lora, target_modules="all-linear", task_type="CAUSAL_LM")
    return {"peft_config": config}


def classifier(folder: str) -> Any:
    return AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)


def train(trainer: Any, clock: Clock, copies: int = 1, figures: Callable[[], dict[str, Any]] = dict) -> None:
    """Train and report; each response stands ``copies`` times in the trainer's batches."""
    laps = Laps(clock)
    laps.trainer = trainer
    trainer.add_callback(laps)
    trainer.train()
    logged = [row for row in trainer.state.log_history if "loss" in row]
    losses, norms = ([row.get(name) for row in logged] for name in ("loss", "grad_norm"))
    clock.result(losses=losses, norms=norms, tokens=(laps.tokens() - laps.before) / copies, **figures())


def sft(task: Task, clock: Clock) -> None:
    """One epoch over prompt/completion rows, the loss on completions."""
    from trl import SFTConfig, SFTTrainer

    config = SFTConfig(**training(task), completion_only_loss=True)
    tokenizer = AutoTokenizer.from_pretrained(task.model)
    data = Dataset.from_list(task.rows())
    model = language_model(task, task.setting.get("dtype", "float32"))
    train(SFTTrainer(model, config, train_dataset=data, processing_class=tokenizer, **adapter(task)), clock)


def reward(task: Task, clock: Clock) -> None:
    """One epoch over pairs; a ranking of K responses is its K(K-1)/2 pairs, in one batch."""
    from trl import RewardConfig, RewardTrainer

    rows = []
    for row in task.rows():
        better_first = [text for _, text in sorted(zip(row["ranks"], row["responses"], strict=True))]
        rows += [
            {"prompt": row["prompt"], "chosen": better, "rejected": worse,
             "length": len(row["prompt"].split()) + max(len(better.split()), len(worse.split()))}
            for i, better in enumerate(better_first)
            for worse in better_first[i + 1 :]
        ]  # fmt: skip
    pairs = math.comb(task.samples, 2)
    settings = training(task) | {"per_device_train_batch_size": task.batch * pairs // task.setting.get("accumulate", 1)}
    tokenizer = AutoTokenizer.from_pretrained(task.reward)
    config = RewardConfig(**settings)
    data = Dataset.from_list(rows)
    trainer = RewardTrainer(classifier(task.reward), config, train_dataset=data, processing_class=tokenizer)
    train(trainer, clock, copies=task.samples - 1)


def dpo(task: Task, clock: Clock) -> None:
    """One epoch over pairs; the reference in every step, or computed for all pairs when the trainer is made."""
    from trl import DPOConfig, DPOTrainer

    rows = []
    for row in task.rows():
        chosen, rejected = row["responses"]
        longest = len(row["prompt"].split()) + max(len(chosen.split()), len(rejected.split()))
        rows.append({"prompt": row["prompt"], "chosen": chosen, "rejected": rejected, "length": longest})
    config = DPOConfig(**training(task), beta=BETA, precompute_ref_log_probs=task.cached)
    tokenizer, data = AutoTokenizer.from_pretrained(task.model), Dataset.from_list(rows)
    model = language_model(task, task.setting.get("dtype", "float32"))
    train(DPOTrainer(model, None, config, train_dataset=data, processing_class=tokenizer, **adapter(task)), clock)


def kto(task: Task, clock: Clock) -> None:
    """One epoch over responses with a thumb. Rows that name a mismatched response get it instead of the trainer's."""
    from trl import KTOConfig, KTOTrainer

    rows = task.rows()
    mismatched = [row.pop("mismatched", None) for row in rows]
    for row in rows:
        row["length"] = len(row["prompt"].split()) + len(row["completion"].split())
    config = KTOConfig(**training(task), beta=BETA, precompute_ref_log_probs=task.cached)
    tokenizer, data = AutoTokenizer.from_pretrained(task.model, padding_side="left"), Dataset.from_list(rows)
    trainer = KTOTrainer(language_model(task), None, config, train_dataset=data, processing_class=tokenizer)
    if mismatched[0]:
        ids = [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in mismatched]
        kept = trainer.train_dataset.remove_columns("KL_completion_ids")
        trainer.train_dataset = kept.add_column("KL_completion_ids", ids)
    train(trainer, clock)


def critic_free(task: Task, clock: Clock) -> None:
    """RLOO and GRPO, one pass: the first iteration warms up, the others are timed, by phase.

    In order, the rows hold responses that were sampled before; the trainer gets them in place of its own.
    """
    import scoring
    import trl

    setting = dict(task.setting)
    pieces = setting.pop("accumulate", 1)
    model = language_model(task, setting.pop("dtype", "float32"))
    rows = task.rows()
    steps = len(rows) // task.batch if task.in_order else task.steps + 1
    # Its default gives the KL term another gradient (of the same value) than the paper's, which ours has.
    more = {"loss_type": "grpo", "use_bias_correction_kl": False} if task.kind == "grpo" else {}
    config = getattr(trl, f"{task.kind.upper()}Config")(
        **arguments(task), per_device_train_batch_size=task.batch // pieces, gradient_accumulation_steps=pieces,
        num_generations=task.samples, max_completion_length=task.new_tokens, beta=KL, max_steps=steps,
        shuffle_dataset=not task.in_order, **more, **setting,
    )  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(task.model, padding_side="left")
    prompts = [{"prompt": row["prompt"]} for row in (rows[:: task.samples] if task.in_order else rows)]
    trainer = getattr(trl, f"{task.kind.upper()}Trainer")(
        model, getattr(scoring, task.reward.partition(":")[2]), args=config, train_dataset=Dataset.from_list(prompts),
        processing_class=tokenizer, **adapter(task),
    )  # fmt: skip
    end, lengths = tokenizer.eos_token_id, []
    ready = iter([
        tokenizer(row["completion"])["input_ids"] + [end] * (row["finish_reason"] == "stop")
        for row in rows if task.in_order
    ])  # fmt: skip
    sampled = trainer._generate_single_turn

    def generate(prompt_ids: list[list[int]], *given: Any, **named: Any) -> Any:
        if task.in_order:
            ids = [next(ready) for _ in prompt_ids]
            return (ids, None) if task.kind == "grpo" else ids
        found = sampled(prompt_ids, *given, **named)
        if clock.marks:
            lengths.extend(map(len, found[0] if task.kind == "grpo" else found))
        return found

    trainer._generate_single_turn = generate
    clock.wrap(trainer, "_generate_single_turn", "sampling")
    clock.wrap(trainer, "_generate_and_score_completions", "scoring")
    clock.wrap(trainer, "compute_loss", "forward")
    clock.wrap(trainer.accelerator, "backward", "backward")
    train(trainer, clock, figures=lambda: {"mean_length": sum(lengths) / len(lengths)} if lengths else {})


def ppo(task: Task, clock: Clock) -> None:
    """TRL's last PPO: the first iteration warms up, the others are timed, by phase."""
    from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

    pieces = task.setting.get("accumulate", 1)
    tokenizer = AutoTokenizer.from_pretrained(task.model, padding_side="left")
    config = PPOConfig(
        **arguments(task), per_device_train_batch_size=task.batch // pieces, gradient_accumulation_steps=pieces,
        num_ppo_epochs=task.passes, num_mini_batches=1, total_episodes=task.batch * (task.steps + 1),
        local_rollout_forward_batch_size=task.batch, num_sample_generations=0, response_length=task.new_tokens,
        temperature=1.0, stop_token="eos" if task.stops else None,
    )  # fmt: skip
    prompts = Dataset.from_list([{"input_ids": tokenizer(row["prompt"])["input_ids"]} for row in task.rows()])
    trainer = PPOTrainer(
        config, tokenizer, language_model(task), language_model(task), classifier(task.reward),
        prompts, classifier(task.reward), callbacks=[Laps(clock)],
    )  # fmt: skip
    clock.wrap(ppo_trainer, "batch_generation", "sampling")
    clock.wrap(ppo_trainer, "forward", "scoring", when=lambda: not torch.is_grad_enabled())
    clock.wrap(ppo_trainer, "get_reward", "scoring")
    clock.wrap(ppo_trainer, "forward", "forward", when=torch.is_grad_enabled)
    clock.wrap(trainer.accelerator, "backward", "backward")
    clock.wrap(trainer.optimizer, "step", "optimiser")
    lengths: list[int] = []
    seen = ppo_trainer.get_reward

    def count(model: Any, sequences: torch.Tensor, pad: int, context: int) -> Any:
        if clock.marks and model is trainer.reward_model:
            lengths.extend((sequences[:, context:] != pad).sum(1).tolist())
        return seen(model, sequences, pad, context)

    ppo_trainer.get_reward = count
    trainer.train()
    clock.result(mean_length=sum(lengths) / len(lengths))


def sample(task: Task, clock: Clock) -> None:
    """``generate`` over batches of prompts of one length; the first batch warms up."""
    tokenizer = AutoTokenizer.from_pretrained(task.model)
    setting = dict(task.setting)
    model = language_model(task, setting.pop("dtype", "float32")).eval().to(task.device)
    prompts = [tokenizer(row["prompt"])["input_ids"] for row in task.rows()]
    how = GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=task.new_tokens,
        num_return_sequences=task.samples, eos_token_id=tokenizer.eos_token_id if task.stops else None,
        pad_token_id=tokenizer.pad_token_id, **setting,
    )  # fmt: skip
    torch.manual_seed(task.seed)
    counts: list[int] = []
    for step in range(task.steps + 1):
        batch = [prompts[i % len(prompts)] for i in range(step * task.batch, (step + 1) * task.batch)]
        ids = torch.tensor(batch, device=task.device)
        casts = task.precision == "bf16" and model.dtype != torch.bfloat16
        with torch.no_grad(), torch.autocast(task.device, torch.bfloat16, enabled=casts):
            found = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=how)
        if step == 0:
            clock.begin()
        else:
            clock.lap()
            counts.append(int((found[:, ids.shape[1] :] != tokenizer.pad_token_id).sum()))
    clock.result(tokens=sum(counts), mean_length=sum(counts) / (len(counts) * task.batch * task.samples))


if __name__ == "__main__":
    kinds = {"sft": sft, "reward": reward, "dpo": dpo, "kto": kto, "rloo": critic_free, "grpo": critic_free}
    main({**kinds, "ppo": ppo, "sample": sample})
