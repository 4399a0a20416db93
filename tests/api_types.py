"""The Python API as an editor knows it: mypy checks this file with the package, and nobody runs it.

Where a call is wrong, ``type: ignore`` says which error it has to be; without that error mypy complains.
"""

from pathlib import Path
from typing import assert_type

import hearken

sft = hearken.train(hearken.SFTConfig(lr=1e-4), model="base", data="demonstrations.jsonl", out="sft")
assert_type(sft, hearken.Artifact)
assert_type(sft.path, Path)
reward = hearken.train("reward", model=sft.path, data=["a.jsonl", Path("b.jsonl")], out="rm", validation=0.1, epochs=2)
config = hearken.PPOConfig(episodes=20_000, kl_target=6.0)
assert_type(config.kl_target, float)
hearken.train(config, model=sft.path, reward=reward.path, data="prompts.jsonl", out="ppo")
assert_type(hearken.sample("ppo", ["Once"], n=2, max_new_tokens=8), list[list[str]])
project = hearken.Project("my-project")
assert_type(project.store(), hearken.FeedbackStore)
result = hearken.evaluate(project, hearken.EvaluationRequest(policies=["r01-ppo"], judge="reward"))
assert_type(result, hearken.EvaluationResult)
assert_type(result.policies["r01-ppo"], hearken.PolicyResult)
assert_type(hearken.read_evaluation("my-project"), hearken.EvaluationResult)
assert_type(hearken.Comparison((hearken.Message("user", "?"),), ("a", "b"), (0, 1)).responses, tuple[str, ...])
hearken.write_examples([hearken.Thumb("p", "r", True), hearken.Rating("p", "r", {"overall": 4})], "x.jsonl", "raw")

hearken.PPOConfig(betta=0.1)  # type: ignore[call-arg]
hearken.DPOConfig(loss="dop")  # type: ignore[arg-type]
hearken.train(config, model="m", data="d", out="o", overwrite="yes")  # type: ignore[call-overload]
hearken.sample("m", ["p"], temprature=1.0)  # type: ignore[call-arg]
hearken.Message("user")  # type: ignore[call-arg]
hearken.Projekt("p")  # type: ignore[attr-defined]
