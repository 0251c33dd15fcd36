"""The percentile bootstrap: how often each unit is drawn, and the interval of what the draws give."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int


def drawn_counts(rng: np.random.Generator, units: int, draws: int) -> Int[np.ndarray, "draw unit"]:
    """How often each unit is in each draw of as many units with replacement."""
    return rng.multinomial(units, np.full(units, 1 / units), size=draws)


def interval(
    drawn: Float[np.ndarray, "draw ..."], confidence: float = 0.95
) -> Float[np.ndarray, "2 ..."]:
    """Both ends of the percentile interval over the draws; a draw of NaN does not count."""
    tail = (1 - confidence) / 2
    return np.nanquantile(drawn, [tail, 1 - tail], axis=0)
