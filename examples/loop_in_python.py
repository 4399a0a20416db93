"""The whole loop in Python, cell by cell: from plain text to a policy that people (here, simulated ones) prefer.

Run it as a script (`python examples/loop_in_python.py`, ten minutes on two cores), or cell by cell in an editor that
knows `# %%`. It writes into the folder `loop-in-python`. HEARKEN_EXAMPLE=small makes it a smoke test of seconds.
"""

# %% [markdown]
# The world: short tales. `world.gold` is the true reward; only the last cell looks at it.

# %%
import os
from pathlib import Path

import hearken

SMALL = os.environ.get("HEARKEN_EXAMPLE") == "small"
home = Path("loop-in-python")
home.mkdir(exist_ok=True)
world = hearken.TaleWorld(seed=0)
documents, demonstrated, asked, held_out = (64, 32, 16, 8) if SMALL else (6000, 1200, 400, 100)

# %% [markdown]
# Files in the layouts that every trainer reads: plain text, demonstrations, prompts.

# %%
prompts = world.prompts(demonstrated + asked)
texts = world.corpus(documents)
hearken.write_examples([hearken.Document(text) for text in texts], home / "corpus.jsonl", "text", overwrite=True)
hearken.write_examples(
    [hearken.Demonstration(prompt, tale) for prompt, tale in world.demonstrations(prompts[:demonstrated])],
    home / "demonstrations.jsonl", "sft", overwrite=True,
)  # fmt: skip
hearken.write_examples([hearken.PromptOnly(p) for p in prompts], home / "prompts.jsonl", "prompts", overwrite=True)

# %% [markdown]
# A language model: a tokenizer trained on the spot, fresh weights, then pretraining, which is SFT on plain text.
# With a model of your own, leave this cell out and name its folder.

# %%
size = hearken.TinyModelSize(vocabulary=1200, context=192)
if SMALL:
    size = hearken.TinyModelSize(vocabulary=400, hidden=32, layers=2, heads=2)
untrained = hearken.make_tiny_model(texts, home / "untrained", size)
pretraining = hearken.SFTConfig(lr=3e-3, batch_size=16, warmup=0.05, beta2=0.98, max_length=160)
base = hearken.train(pretraining, model=untrained, data=home / "corpus.jsonl", out=home / "base", overwrite=True)
print("pretraining:", base.metrics)

# %% [markdown]
# Supervised fine-tuning on the demonstrations.

# %%
tuning = hearken.SFTConfig(lr=1e-3, warmup=0.05)
sft = hearken.train(tuning, model=base.path, data=home / "demonstrations.jsonl", out=home / "sft", overwrite=True)
print("SFT:", sft.metrics)

# %% [markdown]
# Four responses to each prompt, ranked by a panel of simulated labelers of two tastes, with noise, ties and biases.
# This is where people come in: their rankings are the same rows.

# %%
new_tokens = 24 if SMALL else 112
to_judge = prompts[demonstrated:]
responses = hearken.sample(sft.path, to_judge, n=4, max_new_tokens=new_tokens, seed=1)
panel = hearken.make_panel(world.utility, world.groups)
judged = []
for number, (prompt, four) in enumerate(zip(to_judge, responses, strict=True)):
    shown = tuple(dict.fromkeys(text for text in four if text.strip()))  # equal or empty ones teach nothing
    if len(shown) > 1:
        _, ranking = panel.rank(prompt, shown, seed=number)
        judged.append(hearken.Comparison(prompt, shown, ranking.ranks))
hearken.write_examples(judged, home / "rankings.jsonl", "rankings", overwrite=True)

# %% [markdown]
# The reward model; the demonstrations score 0 on average.

# %%
reward = hearken.train(
    hearken.RewardConfig(lr=5e-4, batch_size=16, epochs=2, warmup=0.05), model=sft.path, data=home / "rankings.jsonl",
    references=home / "demonstrations.jsonl", out=home / "reward", overwrite=True,
)  # fmt: skip
print("reward model:", reward.metrics)

# %% [markdown]
# PPO with a KL penalty against the SFT policy, and the pretraining text as a third term (PPO-ptx).

# %%
config = hearken.PPOConfig(
    lr=3e-4, schedule="constant", episodes=32 if SMALL else 2880, batch_size=16 if SMALL else 96,
    minibatches=1 if SMALL else 3, epochs=2, max_new_tokens=new_tokens, missing_eos=-4.0, ptx_coef=0.5, ptx_batch=8,
)  # fmt: skip
ppo = hearken.train(
    config, model=sft.path, reward=reward.path, data=home / "prompts.jsonl", ptx=home / "corpus.jsonl",
    out=home / "ppo", overwrite=True,
)  # fmt: skip
print("PPO:", ppo.metrics)

# %% [markdown]
# What really changed, by the true reward, on prompts that no step has seen.

# %%
unseen = world.prompts(held_out, "heldout")
before, after = (
    [one for (one,) in hearken.sample(policy.path, unseen, n=1, max_new_tokens=new_tokens, seed=2)]
    for policy in (sft, ppo)
)
result = hearken.head_to_head(unseen, after, before, world.gold)
print("PPO's win rate against SFT:", result.win_rate)
print("\nbefore:", before[0], "\nafter: ", after[0], sep="\n")
