"""How numbers are written: shares in per cent, differences in percentage points, counts as spans."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Unit:
    """What scores are counted in, and how a figure writes that.

    Attributes:
        factor: what a score is multiplied by to be drawn.
        name: of the axis.
        lost: what a drop is, for the subtitle.
        digits: behind the point.
    """

    factor: float
    name: str
    lost: str
    digits: int

    def text(self, value: float) -> str:
        """A difference with its sign, in this unit."""
        if math.isnan(value):
            return "n/a"
        drawn = self.factor * value
        text = f"{drawn:+.{self.digits}f}"
        return text if float(text) else text[1:]


POINTS = Unit(100.0, "points", "Percentage points of accuracy lost", 1)
NATS = Unit(1.0, "nats per token", "Log-probability lost, nats per token,", 3)


def percent(share: float) -> str:
    """0.01 as '1%'."""
    return f"{100 * share:g}%"


def points(share: float, sign: bool = False) -> str:
    """A share in percentage points: 0.0213 as '2.1', not a number as 'n/a'."""
    value = 100 * share
    if math.isnan(value):
        return "n/a"
    text = f"{value:.1f}"
    if float(text) == 0:
        return "0.0"
    return f"+{text}" if sign and value > 0 else text


def bound(share: float) -> str:
    """An end of an interval in percentage points, as :func:`points`.

    A small end keeps a digit that is not 0, so that an interval that excludes 0 is never printed
    as one that touches it.
    """
    text = points(share)
    return f"{100 * share:.1g}" if text == "0.0" and abs(share) > 1e-12 else text


def interval(low: float, high: float) -> str:
    """Both ends in percentage points: '[-0.4, 2.1]'."""
    return f"[{bound(low)}, {bound(high)}]"


def span(values: Sequence[int | float]) -> str:
    """Counts as '120', or '80 to 120' where they differ."""
    low, high = int(min(values)), int(max(values))
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
