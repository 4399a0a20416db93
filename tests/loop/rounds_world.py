"""Settings of a small project that goes round in seconds, and a way to change them."""

from __future__ import annotations

from typing import Any

import yaml

from hearken.loop.project import Project

QUICK = {"trackers": "none", "precision": "fp32"}
PPO = QUICK | {"episodes": 8, "batch_size": 4, "max_new_tokens": 5, "epochs": 1, "lr": 1e-3, "checkpoint_seconds": 0}
STAGES = {"reward": QUICK | {"batch_size": 8, "lr": 1e-3, "checkpoint_seconds": 0}, "ppo": PPO}
LOOP = {"rounds": 2, "prompts": 6, "held_out": 4, "labelers": "simulated", "evaluate": 4, "poll_seconds": 0.05}
LOOP |= {"trust_reward": True}  # what a model of random weights learns in a second passes no card


def change(project: Project, **loop: Any) -> Project:
    """The project with other settings of its loop."""
    path = project.path / "hearken.yaml"
    config = yaml.safe_load(path.read_text("utf-8"))
    config["loop"] |= loop
    path.write_text(yaml.safe_dump(config), "utf-8")
    return Project(project.path)
