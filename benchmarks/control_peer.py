"""Preference comparisons of imitation 1.0.1, with the labelers of control.py; run by it, in imitation's own Python.

PPO as ours. What else there is to choose is as in imitation's own example: 3 epochs an iteration, hyperbolic schedule,
normalised observations; a quarter of the labels first and 30 iterations, which did well when it was tried.
"""

import json
import sys
import time

import gymnasium
import numpy as np
import torch
from imitation.algorithms import preference_comparisons as pc
from imitation.policies.base import NormalizeFeaturesExtractor
from imitation.rewards.reward_nets import BasicRewardNet
from imitation.util.networks import RunningNorm
from imitation.util.util import make_vec_env
from stable_baselines3 import PPO
from stable_baselines3.ppo import MlpPolicy

about = json.loads(sys.argv[1])
torch.set_num_threads(1)
torch.manual_seed(about["seed"])
rng = np.random.default_rng(about["seed"])
answers = np.random.default_rng([about["seed"], 2])


class Labelers(pc.PreferenceGatherer):
    """Boltzmann by the fragments' true returns, and a share at random."""

    def __call__(self, fragment_pairs):
        gaps = np.array([first.rews.sum() - second.rews.sum() for first, second in fragment_pairs])
        chance = 1 / (1 + np.exp(-np.clip(about["slope"] * gaps / about["unit"], -30, 30)))
        chance = (1 - about["random"]) * chance + about["random"] / 2
        return (answers.random(len(gaps)) < chance).astype(np.float32)


began, spent = time.monotonic(), time.process_time()
venv = make_vec_env(about["environment"], rng=rng, n_envs=8, env_make_kwargs=about["kwargs"])
reward = BasicRewardNet(venv.observation_space, venv.action_space, normalize_input_layer=RunningNorm)
normalised = {
    "features_extractor_class": NormalizeFeaturesExtractor,
    "features_extractor_kwargs": {"normalize_class": RunningNorm},
}
agent = PPO(MlpPolicy, venv, n_steps=256, batch_size=256, n_epochs=10, gamma=0.99, gae_lambda=0.95, learning_rate=3e-4,
            seed=about["seed"], device="cpu", policy_kwargs=normalised)  # fmt: skip
trainer = pc.BasicRewardTrainer(
    pc.PreferenceModel(reward, noise_prob=about["random"]), loss=pc.CrossEntropyRewardLoss(), epochs=3, rng=rng
)
learner = pc.PreferenceComparisons(
    pc.AgentTrainer(algorithm=agent, reward_fn=reward, venv=venv, exploration_frac=0.05, rng=rng),
    reward, num_iterations=30, fragmenter=pc.RandomFragmenter(warning_threshold=0, rng=rng),
    preference_gatherer=Labelers(rng=rng), reward_trainer=trainer, fragment_length=about["clip"],
    transition_oversampling=1, initial_comparison_frac=0.25, allow_variable_horizon=False, initial_epoch_multiplier=4,
    query_schedule="hyperbolic",
)  # fmt: skip
learner.train(total_timesteps=about["steps"], total_comparisons=about["labels"])
took = {"seconds": time.monotonic() - began, "processor": time.process_time() - spent}
returns = []
env = gymnasium.make(about["environment"], **about["kwargs"])
for seed in range(about["episodes"]):
    seen, _ = env.reset(seed=10_000 + seed)
    total, over = 0.0, False
    while not over:
        action, _ = agent.predict(seen, deterministic=True)
        seen, paid, ended, cut_off, _ = env.step(action)
        total, over = total + float(paid), ended or cut_off
    returns.append(total)
print(json.dumps({"returns": returns, "return": float(np.mean(returns))} | took))
