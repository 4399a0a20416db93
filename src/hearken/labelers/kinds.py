"""Whom a project can ask, and the kinds of labeler in the database that each name stands for."""

from __future__ import annotations

from typing import Literal

Who = Literal["people", "ai", "simulated"]

Score = Literal["auto", "gold", "reward"]
"""What decides without labelers; auto: gold where a world knows it, else the reward model."""

JudgeName = Literal["auto", "gold", "reward", "people", "ai", "simulated"]
"""Who decides which policy is better."""

KINDS: dict[Who, tuple[str, ...]] = {"people": ("person", "import"), "ai": ("ai",), "simulated": ("simulated",)}

WORDS: dict[Who, str] = {"people": "people", "ai": "an AI labeler", "simulated": "simulated labelers"}
"""In a sentence."""
