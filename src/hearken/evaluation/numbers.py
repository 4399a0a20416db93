"""Numbers as a person reads them: sensible rounding, thousands separators, a true minus sign, intervals."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer

from hearken.statistics.intervals import Interval

MISSING = "–"


def _to_json(interval: Interval) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in interval._asdict().items()}


def interval_of(value: object) -> object:
    """An interval from either of the forms that JSON holds it in; anything else as it is."""
    if isinstance(value, dict) and value.keys() == set(Interval._fields):
        return Interval(**{name: _known(v) for name, v in value.items()})
    if isinstance(value, list) and len(value) == len(Interval._fields):
        return Interval(*map(_known, value))
    return value


def _known(value: float | None) -> float:
    return math.nan if value is None else value


JsonInterval = Annotated[Interval, PlainSerializer(_to_json), BeforeValidator(interval_of)]
"""An interval that stands in JSON by name, ``{"estimate": …, "low": …, "high": …}``, a missing bound as null.

``[estimate, low, high]`` is read too.
"""
JsonFloat = Annotated[float, BeforeValidator(_known)]
"""A number for which JSON's null is read as NaN."""

_THIN = "\u202f"  # narrow no-break space, between a number and its unit


def number(value: float | None, digits: int = 3) -> str:
    """``value`` to ``digits`` significant digits, whole above 1,000: ``0.0123``, ``12,346``, ``−1.5``."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if size < -4:
        mantissa, exponent = f"{value:.{max(digits - 2, 0)}e}".split("e")
        return f"{mantissa}e{int(exponent)}".replace("-", "−")
    return fixed(value, max(0, digits - 1 - size))


def fixed(value: float | None, decimals: int) -> str:
    """``value`` with exactly ``decimals`` places; what rounds to zero carries no sign."""
    if value is None or not math.isfinite(value):
        return MISSING
    text = f"{value:,.{decimals}f}"
    return (text.lstrip("-") if float(text.replace(",", "")) == 0 else text).replace("-", "−")


def _percent_digits(share: float) -> str:
    """A share as a percentage without its sign; 100 and 0 are kept for exactly all and exactly none."""
    whole = round(100 * share)
    if (whole == 100 and share < 1) or (whole == 0 and share > 0):
        rough = min(max(100 * share, 0.1), 99.9)
        return f"{rough:.1f}"
    return fixed(100 * share, 0)


def percent(share: float | None) -> str:
    """A share 0..1 as ``83 %``."""
    if share is None or not math.isfinite(share):
        return MISSING
    return f"{_percent_digits(share)}{_THIN}%"


def _decimals(interval: Interval) -> int:
    """Places that leave two significant digits of a half-width up to 35, else one (the Particle Data Group's rule)."""
    half = (interval.high - interval.low) / 2
    if half <= 0:
        return 2
    size = math.floor(math.log10(half))
    return min(max(0, (1 if half < 3.5 * 10.0**size else 0) - size), 6)


def with_interval(value: Interval | float | None, as_percent: bool = False) -> str:
    """An estimate and its interval, ``83 % [79, 87]`` or ``1.24 [1.10, 1.38]``; a bare number has none."""
    if value is None:
        return MISSING
    if not isinstance(value, Interval):
        return percent(value) if as_percent else number(value)
    if not math.isfinite(value.estimate):
        return MISSING
    if not (math.isfinite(value.low) and math.isfinite(value.high)):
        return with_interval(value.estimate, as_percent)
    if as_percent:
        return f"{percent(value.estimate)} [{_percent_digits(value.low)}, {_percent_digits(value.high)}]"
    places = _decimals(value)
    return f"{fixed(value.estimate, places)} [{fixed(value.low, places)}, {fixed(value.high, places)}]"


def estimate(value: Interval | float | None) -> float | None:
    """The point estimate of a number that may carry an interval."""
    return value.estimate if isinstance(value, Interval) else value


def duration(seconds: float | None) -> str:
    """``0.4 s``, ``48 s``, ``3 min 5 s``, ``1 h 12 min``."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds < 10:
        return f"{seconds:.1f}{_THIN}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}{_THIN}s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}{_THIN}min {rest}{_THIN}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}{_THIN}h {minutes}{_THIN}min"
