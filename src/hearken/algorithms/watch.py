"""Watching a run with a judge that it is not trained on: where the reward is fooled, and which weights were best.

Every few steps the judge scores the responses that the policy has just sampled. The weights that sampled the best ones
are kept; and where the judge's mean has fallen from its peak while the reward's rose, beyond noise, the run is fooled.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from hearken.models.scorers import TokenScorer
from hearken.rewards.learned import Reward
from hearken.statistics.divergence import Divergence, find_divergence


class Watch:
    """A judge beside a run; part of its checkpoint.

    Args:
        judge: scores responses; never the reward that is optimised.
        policy: whose trained weights are kept where they are best.
        every: steps between two questions.
        stop: whether being fooled ends the run.
    """

    def __init__(self, judge: Reward, policy: TokenScorer, every: int, stop: bool) -> None:
        self.judge, self.policy, self.every, self.stop = judge, policy, every, stop
        self.steps: list[int] = []
        self.proxy: list[float] = []
        self.judged: list[float] = []
        self.best: dict[str, Tensor] = {}

    def look(self, step: int, groups: Any, proxy: float) -> dict[str, float]:
        """Ask the judge, where it is time, before the policy learns from these responses; figures for the log."""
        if step % self.every:
            return {}
        value = self.judge(groups).mean().item()
        if not self.judged or value > max(self.judged):
            self.best = {name: p.detach().cpu().clone() for name, p in self._weights()}
        self.steps.append(step)
        self.proxy.append(proxy)
        self.judged.append(value)
        return {"judge": value}

    def verdict(self) -> Divergence | None:
        """Proxy against judge so far; None while little is known."""
        return find_divergence(self.steps, self.proxy, self.judged)

    def fooled(self) -> bool:
        """Whether the run shall end here."""
        found = self.verdict() if self.stop else None
        return found is not None and found.fooled

    def restore(self) -> dict[str, Any]:
        """Give the policy its best weights back; figures for the manifest."""
        if not self.judged:
            return {}
        top = max(range(len(self.judged)), key=self.judged.__getitem__)
        for name, parameter in self._weights():
            parameter.data.copy_(self.best[name])
        found = self.verdict()
        return {
            "judge": self.judged[top], "judge_last": self.judged[-1], "best_step": self.steps[top],
            "fooled": bool(found and found.fooled),
        }  # fmt: skip

    def _weights(self) -> list[tuple[str, Any]]:
        return [(name, p) for name, p in self.policy.named_parameters() if p.requires_grad]

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"steps": self.steps, "proxy": self.proxy, "judged": self.judged, "best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.steps, self.proxy, self.judged = (list(state[k]) for k in ("steps", "proxy", "judged"))
        self.best = dict(state["best"])
