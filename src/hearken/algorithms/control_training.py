"""What the ways to improve a policy in an environment share: environments that pay a learned reward, and their log."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from hearken.domains.control.environment import EXTRA, OWN, Environment, features
from hearken.domains.control.policy import FILE, load_policy
from hearken.domains.control.rewarding import Ensemble
from hearken.errors import UserError
from hearken.progress import progress
from hearken.rewards.trust import check_card
from hearken.training.artifact import NOTICES, finish, write_json

try:
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.vec_env import DummyVecEnv, VecEnvWrapper

    from hearken.domains.control.recording import Recorded
except ModuleNotFoundError:
    raise UserError("training in an environment needs Stable-Baselines3, which is not installed", EXTRA) from None

if TYPE_CHECKING:
    from hearken.algorithms.control_online import Online
    from hearken.algorithms.stage import Inputs
    from hearken.training.artifact import Artifact

LAST = 20
"""Episodes over which returns are averaged."""
RECENT = 25_000
"""Steps of all environments from which clips are cut."""


class Optimiser(Protocol):
    """Makes an algorithm of Stable-Baselines3 for a stage's options, in environments; starts it from a policy."""

    def __call__(self, options: Any, paid: Paid, start: Path) -> Any: ...


class Paid(VecEnvWrapper):
    """Environments that pay what a reward model says, and that remember what was done in them.

    Attributes:
        pay: (N, F) steps -> (N,) rewards; None: the environments' own.
        true: the return of each ended episode by the environments' own reward.
        predicted: the same by what was paid.
        terminated: how many of them ended other than by their time limit.
    """

    def __init__(self, environment: Environment, options: Any) -> None:
        keep = -(-RECENT // options.environments)
        self.recorded = [Recorded(environment, keep) for _ in range(options.environments)]
        makers: list[Callable[[], Any]] = [lambda one=one: one for one in self.recorded]  # type: ignore[misc]
        venv = DummyVecEnv(makers)
        venv.seed(options.seed)
        super().__init__(venv)
        self.environment = environment
        self.pay: Callable[[NDArray[np.float32]], NDArray[np.float64]] | None = None
        self.true: list[float] = []
        self.predicted: list[float] = []
        self.terminated = 0
        self._sums = np.zeros((2, venv.num_envs))

    def reset(self) -> Any:
        """All of them."""
        self._seen: Any = self.venv.reset()
        self._sums[:] = 0
        return self._seen

    def step_async(self, actions: Any) -> None:
        """Begin a step."""
        self._acts = actions
        self.venv.step_async(actions)

    def step_wait(self) -> Any:
        """Finish it; the reward is the model's."""
        seen: Any
        seen, own, done, infos = self.venv.step_wait()
        paid = own if self.pay is None else self.pay(features(self.action_space, self._seen, self._acts))
        self._seen = seen
        self._sums += (own, paid)
        for number in np.flatnonzero(done):
            self.true.append(float(self._sums[0, number]))
            self.predicted.append(float(self._sums[1, number]))
            self.terminated += not infos[number].get("TimeLimit.truncated", False)
            self._sums[:, number] = 0
        return seen, paid.astype(np.float32), done, infos


class Log(BaseCallback):
    """A row of ``metrics.jsonl`` now and then."""

    def __init__(self, paid: Paid, every: int, bar: Any, file: Any) -> None:
        super().__init__()
        self.paid, self.every, self.bar, self.file = paid, every, bar, file
        self.row: dict[str, float] = {}
        self.answers: Sequence[Any] | None = None
        """Labels that have arrived, where some are asked for."""

    def _on_step(self) -> bool:
        self.bar.advance(self.paid.num_envs)
        return True

    def _on_rollout_end(self) -> None:
        if self.paid.true and self.num_timesteps - self.row.get("step", 0) >= self.every:
            self.row = {
                "step": self.num_timesteps, "return": float(np.mean(self.paid.true[-LAST:])),
                "predicted": float(np.mean(self.paid.predicted[-LAST:])), "episodes": len(self.paid.true),
            }  # fmt: skip
            if self.answers is not None:
                self.row["labels"] = len(self.answers)
            self.file.write(json.dumps(self.row) + "\n")
            self.file.flush()


def improve(
    inputs: Inputs, options: Any, out: Path, optimiser: Optimiser, save: Callable[[Any, Path], None],
    online: Online | None = None,
) -> Artifact:  # fmt: skip
    """Train a policy in ``inputs.model``'s environment on ``inputs.reward``, and write it to ``out``.

    Args:
        inputs: the policy or environment, and the reward; with ``online`` there need be none.
        options: of the stage.
        out: an artifact's folder.
        optimiser: makes the algorithm.
        save: writes what it made.
        online: who is asked on the way; None: the reward stays as it is.

    Raises:
        UserError: the reward model is of another environment, or the policy cannot be read.
    """
    began = time.monotonic()
    environment = Environment.named(inputs.model)
    ensemble = _reward(inputs, environment, options)
    with _one_thread(), closing(Paid(environment, options)) as paid:
        if inputs.reward != OWN:
            paid.pay = ensemble.pay if ensemble is not None else lambda steps: np.zeros(len(steps))
        algorithm = optimiser(options, paid, Path(inputs.model))
        with progress(options.stage.upper(), options.steps) as bar, (out / "run" / "metrics.jsonl").open("w") as file:
            callbacks: list[BaseCallback] = [log := Log(paid, options.log_every, bar, file)]
            if online is not None:
                callbacks.append(labels := online.start(inputs, paid, ensemble, options.seed, out))
                log.answers = labels.answers
                labels.begin(algorithm, _first_acts(algorithm, Path(inputs.model), options.seed))
            algorithm.learn(options.steps, callback=callbacks)
        save(algorithm, out)
    environment.write(out)
    figures: dict[str, Any] = {name: value for name, value in log.row.items() if name not in ("step", "labels")}
    figures["steps"] = algorithm.num_timesteps
    if online is not None:
        figures |= labels.figures
        if online.keep is not None:
            online.keep(lambda folder: labels.ensemble.save(folder, environment), labels.figures)
        else:
            labels.ensemble.save(out / "reward", environment)
    if paid.terminated:
        write_json(
            out / "run" / NOTICES,
            [f"{paid.terminated} of {len(paid.true)} episodes ended by themselves: when an episode ends tells what is "
             "wanted, beside the comparisons"],
        )  # fmt: skip
    seconds = time.monotonic() - began
    data = {"environment": environment.id}
    return finish(out, options.stage, inputs=inputs, options=options, data=data, metrics=figures, seconds=seconds)


def _reward(inputs: Inputs, environment: Environment, options: Any) -> Ensemble | None:
    """The reward model that is named, checked against the environment; None where none is, or the environment's own."""
    with closing(environment.open()) as opened:
        load_policy(inputs.model, environment, opened)  # says what is wrong with it
        size = size_of(opened)
    if not inputs.reward or inputs.reward == OWN:
        return None
    check_card(inputs.reward, trust=options.trust_reward)
    ensemble = Ensemble.load(inputs.reward)
    if (learnt_in := Environment.named(inputs.reward)).key != environment.key:
        what = f"{inputs.reward} is a reward for {learnt_in.id}, not for {environment.id} as it is set up here"
        raise UserError(what, "Train a reward model on clips of this environment")
    if size != ensemble.size:
        what = f"{inputs.reward} reads {ensemble.size} numbers a step, {environment.id} gives {size}"
        raise UserError(what, "Train it anew on clips of this version")
    return ensemble


def _first_acts(algorithm: Any, start: Path, seed: int) -> Callable[[Any], Any]:
    """How the policy acts as it starts: at random where it begins anew."""
    if (start / FILE).is_file():
        return lambda seen: algorithm.predict(seen)[0]
    space = algorithm.action_space
    space.seed(seed)
    return lambda seen: np.array([space.sample() for _ in seen])


def size_of(opened: Any) -> int:
    """F: numbers of a step that a reward model sees."""
    acts = opened.action_space
    return int(np.prod(opened.observation_space.shape)) + int(acts.n if hasattr(acts, "n") else np.prod(acts.shape))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Networks as small as these are slower on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
