"""Control as a domain: clips of policies that act in Gymnasium environments. Torch is loaded by what needs it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import model_validator

from hearken.domains.base import SCORES, Details, Domain, Drawn, Facts, Measured, Published, Scorer, mean
from hearken.domains.best_of import BestOf
from hearken.domains.control.clips import SUFFIX, Clip, check_clip
from hearken.domains.control.environment import FILE, OWN, Environment, is_id
from hearken.domains.control.playing import cut, horizon, play
from hearken.domains.control.policy import FILE as POLICY
from hearken.domains.control.policy import load_policy
from hearken.errors import UserError
from hearken.feedback.examples import Content, content_key
from hearken.feedback.media import Media, MediaFolder
from hearken.rollout.sampler import SamplingParameters

STARTS = 500
"""Prompts that a project gets where it names none."""
REWARD = "reward.safetensors"


LOAD = """```python
from pathlib import Path

import gymnasium
import numpy as np
from huggingface_hub import snapshot_download
from stable_baselines3 import PPO

folder = Path("{name}")
if not folder.is_dir():
    folder = Path(snapshot_download("{name}"))
policy, seen = PPO.load(folder / "policy.zip", device="cpu"), np.load(folder / "normalisation.npz")
mean, deviation = seen["mean"], np.sqrt(seen["variance"] + 1e-8)

environment = gymnasium.make("{environment.id}", **{environment.kwargs})
observation, _ = environment.reset(seed=1)
total, over = 0.0, False
while not over:
    normal = np.clip((observation.reshape(-1) - mean) / deviation, -10, 10).reshape(observation.shape)
    action, _ = policy.predict(normal, deterministic=True)
    observation, reward, terminated, truncated, _ = environment.step(action)
    total, over = total + reward, terminated or truncated
print(total)
```
"""
"""Loads and plays a policy without this package."""


class ClipSampling(SamplingParameters):
    """How clips are drawn: ``temperature`` 1 acts as the policy is trained to, 0 takes the likeliest action."""

    @model_validator(mode="after")
    def _of_text(self) -> Self:
        """Refuse what only texts have."""
        plain = SamplingParameters()
        for name in ("max_new_tokens", "top_p", "top_k"):
            if getattr(self, name) != getattr(plain, name):
                raise ValueError(f"{name} is of texts; a clip has none")
        if self.temperature not in (0.0, 1.0):
            raise ValueError("temperature: 1 acts as the policy is trained to, 0 takes the likeliest action")
        return self


class Control(Domain):
    """Policies are Stable-Baselines3's, or an environment's id, which acts at random; a response is a clip."""

    name = "control"
    viewer = "video"
    sampling = ClipSampling
    figures = {"return": "True return of an episode, by the environment's own reward"}

    def recognises(self, model: str) -> bool:
        """Whether it is a folder with an ``environment.json``, or the id of an environment."""
        return (Path(model) / FILE).is_file() or (is_id(model) and not Path(model).exists())

    def check_model(self, name: str, flag: str = "--model") -> None:
        """Refuse what names no environment that can be learnt in."""
        super().check_model(name, flag)
        Environment.named(name).open().close()

    def check_reward(self, name: str) -> None:
        """Refuse a folder without a reward model of clips; ``environment`` means the environment's own reward."""
        if name == OWN:
            return
        super().check_reward(name)
        if not (Path(name) / REWARD).is_file():
            raise UserError(f"--reward {name} holds no reward model of clips", "Train one with: hearken train reward")

    def prompts(self, model: str) -> list[Content]:
        """Starts: the question, and the number of each, which is the seed that the environment begins with."""
        environment = Environment.named(model)
        environment.open().close()
        return [f"{environment.question} (start {number})" for number in range(1, STARTS + 1)]

    def sample(
        self, policy: str, prompts: Sequence[Content], k: int, how: Any, seed: int, files: MediaFolder, *,
        facts: Facts | None = None,
    ) -> Iterator[list[Drawn]]:  # fmt: skip
        """Clips from the starts that the prompts name: of each, at a place of the episode that is the same for all."""
        for prompt, clips in self._play(policy, prompts, k, how, seed, whole=False):
            yield [self._drawn(prompt, clip, seed, number, files) for number, (clip, _) in enumerate(clips)]

    def measure(
        self, policy: str, reference: str, prompts: Sequence[Content], how: Any, seed: int, files: MediaFolder, *,
        choice: BestOf | None = None, facts: Facts | None = None,
    ) -> Measured:  # fmt: skip
        """The clips that `sample` gives, and the true return of the whole episodes that they are of."""
        if choice is not None:
            return super().measure(policy, reference, prompts, how, seed, files, choice=choice, facts=facts)
        drawn, returns = [], []
        for prompt, clips in self._play(policy, prompts, 1, how, seed, whole=True):
            (clip, total) = clips[0]
            drawn.append(self._drawn(prompt, clip, seed, 0, files))
            returns.append(total)
        ended = tuple(one.finish_reason != "length" for one in drawn)
        return Measured(tuple(one.content for one in drawn), ended, {"return": mean(returns, prompts)})

    def _play(
        self, policy: str, prompts: Sequence[Content], k: int, how: Any, seed: int, *, whole: bool
    ) -> Iterator[tuple[Content, list[tuple[Clip, float]]]]:
        """Clips of each prompt, and the return of what was played: to the end of the episode, or of the clip."""
        environment = Environment.named(policy)
        with closing(environment.open()) as opened:
            acts = load_policy(policy, environment, opened)
            length = environment.steps(opened)
            latest = max(horizon(opened) - length, 0)
            greedy = getattr(how, "temperature", 1.0) == 0
            for prompt in prompts:
                start, clips = start_of(prompt), []
                for number in range(k):
                    rng = np.random.default_rng([seed, number, _number(prompt)])
                    first = int(rng.integers(latest + 1))
                    until = 0 if whole else first + length
                    episode = play(environment, opened, acts, start, rng, greedy=greedy, until=until)
                    clips.append((cut(environment, episode, start, first, length), sum(episode.rewards)))
                yield prompt, clips

    @staticmethod
    def _drawn(prompt: Content, clip: Clip, seed: int, number: int, files: MediaFolder) -> Drawn:
        media = files.keep(clip.to_bytes(), SUFFIX)
        return Drawn(prompt, media.path, seed, number, "stop" if clip.terminated else "length", metadata={})

    def admit(self, data: bytes, model: str = "") -> str:
        """A whole clip of the project's environment; its video is made here.

        No other environment is opened: what a file names could be any module that is installed.
        """
        if not model:
            raise UserError("nobody says which environment clips are of", "Bring them to a project")
        environment, observations, actions = _spaces(model)
        check_clip(self.decode(data), environment, observations, actions)
        return SUFFIX

    def decode(self, data: bytes) -> Clip:
        """See `Clip.from_bytes`."""
        return Clip.from_bytes(data)

    def describe(self, content: str, files: MediaFolder) -> dict[str, Any]:
        """Where a clip begins, how long it is, and what the environment itself paid."""
        clip = self.read(content, files)
        return {
            "environment": clip.environment.id, "start": clip.seed, "from step": len(clip.before), "steps": len(clip),
            "true return": round(clip.total, 3), "ends": "the episode ends" if clip.terminated else "cut off",
        }  # fmt: skip

    def published(self, folder: Path, name: str, *, reward: bool) -> Published:
        """A policy that Stable-Baselines3 loads by itself; a reward model that only this package reads."""
        environment = Environment.named(str(folder))
        if reward:
            load = (
                "```python\nfrom pathlib import Path\n\nfrom hearken.domains.base import find_domain\n"
                "from hearken.feedback.media import MediaFolder\n\n"
                f'score = find_domain("{self.name}").scorer("{name}", MediaFolder(Path()))\n```\n'
            )
            use = f"To score clips of {environment.id}, and to train policies there."
            return Published(library="hearken", task="reinforcement-learning", load=load, use=f"{use} {SCORES}")
        return Published(
            library="stable-baselines3", task="reinforcement-learning", tags=("deep-reinforcement-learning",),
            load=LOAD.format(name=name, environment=environment) if (folder / POLICY).is_file() else "",
            use=f"To act in {environment.id}, asked for by: {environment.question}",
            limits=("It was only ever in simulation, in one environment: it is fit for no real machine.",),
        )  # fmt: skip

    def watch(self, policy: str, out: Path | None, **how: Any) -> dict[str, Any]:
        """See `watching.watch`."""
        from hearken.domains.control.watching import watch

        return watch(policy, out, **how)

    def details(self, reward: str, scorer: Any, files: MediaFolder) -> Details:
        """Members, features and probes: see `details.ClipDetails`."""
        from hearken.domains.control.details import ClipDetails

        return ClipDetails(self, reward, files)

    def shown(self, media: Media, files: MediaFolder) -> Path | None:
        """A video of the clip, made when it is first asked for; None where the clip is not here.

        Raises:
            UserError: it cannot be drawn here.
        """
        from hearken.domains.control.video import write_video

        return self._made(media, files, ".webm", write_video)

    def stills(self, media: Media, files: MediaFolder) -> Path | None:
        """A film strip of the clip, made as its video is."""
        from hearken.domains.control.video import write_strip

        return self._made(media, files, ".jpg", write_strip)

    def _made(self, media: Media, files: MediaFolder, suffix: str, write: Callable[[Clip, Path], None]) -> Path | None:
        if (path := files.find(media)) is None or not media.path.endswith(SUFFIX):
            return path
        made = path.with_suffix(suffix)
        if not made.is_file() or not made.stat().st_size:
            write(self.decode(files.read(media)), made)
        return made

    def scorer(self, reward: str, files: MediaFolder, facts: Facts | None = None) -> Scorer:
        """The sums of a reward model over clips, in log-odds."""
        from hearken.domains.control.rewarding import Ensemble, features_of

        ensemble, environment = Ensemble.load(reward), Environment.named(reward)
        opened = environment.open()

        def score(
            prompts: Sequence[Content], responses: Sequence[Sequence[Any]],
            finished: Sequence[Sequence[bool]] | None = None,
        ) -> list[list[float]]:  # fmt: skip
            clips = [self.read(content, files) for some in responses for content in some]
            scores = iter(ensemble.score(features_of(clips, environment, opened, ensemble.size)) if clips else ())
            return [[float(next(scores)) for _ in some] for some in responses]

        return score


@lru_cache(8)
def _spaces(model: str) -> tuple[Environment, tuple[int, ...], tuple[int, ...]]:
    """The environment of a policy, and the shapes of its observations and actions."""
    environment = Environment.named(model)
    with closing(environment.open()) as opened:
        return environment, opened.observation_space.shape, opened.action_space.shape


def start_of(prompt: Content) -> int:
    """The seed of the environment that a prompt means: the number in ``(start 17)``, else one made of its words."""
    text = prompt if isinstance(prompt, str) else prompt[-1].content
    found = re.search(r"\(start (\d+)\)\s*$", text)
    return int(found[1]) % 2**31 if found else _number(prompt)


def _number(prompt: Content) -> int:
    return int.from_bytes(hashlib.sha256(content_key(prompt).encode()).digest()[:4], "big") >> 1


DOMAIN = Control()
