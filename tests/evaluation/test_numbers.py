from __future__ import annotations

import math

import pytest

from hearken.evaluation.numbers import duration, fixed, number, percent, with_interval
from hearken.statistics.intervals import Interval


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (1.2345, "1.23"), (-0.5, "−0.500"), (12.34, "12.3"), (1234.5, "1,234"), (12345678, "12,345,678"),
        (0.01234, "0.0123"), (1.2e-6, "1.2e−6"), (None, "–"), (math.nan, "–"), (math.inf, "–"),
    ],
)  # fmt: skip
def test_number(value: float | None, text: str) -> None:
    assert number(value) == text


def test_fixed_has_no_negative_zero() -> None:
    assert fixed(-0.001, 2) == "0.00"
    assert fixed(-1234.5, 1) == "−1,234.5"


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0"), (1, "100"), (0.834, "83"), (0.999, "99.9"), (0.9999, "99.9"), (0.0001, "0.1"), (-0.1, "−10")],
)
def test_percent_keeps_all_and_none_for_all_and_none(share: float, text: str) -> None:
    assert percent(share) == f"{text}\u202f%"


def test_intervals_are_rounded_by_their_own_width() -> None:
    assert with_interval(Interval(0.834, 0.786, 0.871), as_percent=True) == "83\u202f% [79, 87]"
    assert with_interval(Interval(1.2345, 1.1, 1.38)) == "1.23 [1.10, 1.38]"
    assert with_interval(Interval(12345.6, 12000, 12700)) == "12,346 [12,000, 12,700]"
    assert with_interval(Interval(0.5, math.nan, math.nan)) == "0.500"
    assert with_interval(0.25, as_percent=True) == "25\u202f%"
    assert with_interval(None) == "–"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.42, "0.4 s"), (48.3, "48 s"), (59.7, "1 min 0 s"), (185, "3 min 5 s"), (4320, "1 h 12 min")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds).replace("\u202f", " ") == text
