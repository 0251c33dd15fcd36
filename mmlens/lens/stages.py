"""The three stages, found by a rule: change points of the lens's entropy over the layers (MM-9).

MMNeuron finds three stages by eye (methods 2.7): features are aligned (entropy is high), understood
(it falls sharply), put into words (it rises a little). Here the mean curve over samples is fitted
by a continuous line with two bends at layers, the pair of layers with the smallest squared error;
resampling shows how sure the bends and the slopes are. The rule is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
from jaxtyping import Float, Int

from mmlens.errors import StatisticsError
from mmlens.statistics.bootstrap import drawn_counts

#: Slopes below this, in nats per layer, are rounding.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Stage:
    """One straight piece of the curve.

    Attributes:
        first, last: the layers where it begins and ends; pieces share their ends.
        slope: nats per layer.
        low, high: bootstrap 95 % interval of the slope.
    """

    first: int
    last: int
    slope: float
    low: float
    high: float

    @property
    def direction(self) -> str:
        """``falls`` or ``rises`` where the interval says so, else ``flat or unsure``."""
        if self.high < -ROUNDING:
            return "falls"
        return "rises" if self.low > ROUNDING else "flat or unsure"


@dataclass(frozen=True, eq=False)
class Stages:
    """Bends of an entropy curve and how sure they are.

    Attributes:
        layers: the layers of the curve.
        mean: the curve, nats.
        fitted: the bent line.
        bends: the two layers where it bends.
        intervals: bootstrap 95 % interval of each bend, in layers.
        shares: per layer, in what share of the draws a bend lay there.
        stages: the three pieces, at the bends of the whole data.
        explained: share of the curve's variance that 0, 1 and 2 bends explain.
        n_samples: curves that went into it.
    """

    layers: tuple[int, ...]
    mean: Float[np.ndarray, " layer"]
    fitted: Float[np.ndarray, " layer"]
    bends: tuple[int, int]
    intervals: tuple[tuple[int, int], tuple[int, int]]
    shares: Float[np.ndarray, " layer"]
    stages: tuple[Stage, Stage, Stage]
    explained: tuple[float, float, float]
    n_samples: int

    @property
    def three_stages(self) -> bool:
        """Whether the paper's account holds here: a fall in the middle, then a rise."""
        return self.stages[1].direction == "falls" and self.stages[2].direction == "rises"


def find_stages(
    curves: Float[np.ndarray, "sample layer"],
    layers: Sequence[int] | None = None,
    *,
    draws: int = 2000,
    seed: int = 0,
) -> Stages:
    """Two bends in the mean of entropy curves.

    The model is ``e(l) = b0 + b1 l + b2 (l - k1)+ + b3 (l - k2)+`` with ``k1 < k2`` among the inner
    layers, by least squares; ties go to the earliest pair. Intervals are percentiles over draws of
    samples with replacement: of the bends with the fit repeated, of the slopes at the bends found.

    Args:
        curves: entropy in nats, a row per sample.
        layers: their numbers; default: 0, 1, ...
        draws: bootstrap draws.
        seed: of the draws.

    Raises:
        StatisticsError: fewer than five layers, or no sample.
    """
    n_samples, n_layers = curves.shape
    if n_layers < 5 or not n_samples:
        raise StatisticsError(
            f"Two bends need at least five layers and one sample; given: {n_layers} layers, {n_samples} "
            "samples."
        )
    numbers = np.arange(n_layers) if layers is None else np.asarray(layers)
    pairs = np.array(list(combinations(range(1, n_layers - 1), 2)))
    mean = curves.mean(0)
    rng = np.random.default_rng(seed)
    weights = drawn_counts(rng, n_samples, draws) / n_samples
    drawn = weights @ curves

    best = pairs[_errors(mean[None], numbers, pairs).argmin(1)[0]]
    chosen = pairs[_errors(drawn, numbers, pairs).argmin(1)]
    edges = [int(numbers[one]) for one in (0, *best, -1)]
    slopes = _slopes(drawn, numbers, best)
    own = _slopes(mean[None], numbers, best)[0]
    low, high = np.quantile(slopes, [0.025, 0.975], axis=0)
    ends = np.quantile(chosen, [0.025, 0.975], axis=0, method="nearest").T
    design = _design(numbers, best)
    shares = np.bincount(chosen.ravel(), minlength=n_layers) / draws
    return Stages(
        layers=tuple(int(one) for one in numbers),
        mean=mean,
        fitted=design @ np.linalg.lstsq(design, mean, rcond=None)[0],
        bends=(edges[1], edges[2]),
        intervals=tuple((int(numbers[a]), int(numbers[b])) for a, b in ends),  # type: ignore[arg-type]
        shares=shares,
        stages=tuple(  # type: ignore[arg-type]
            Stage(*piece, *map(float, slope))
            for piece, slope in zip(pairwise(edges), zip(own, low, high, strict=True), strict=True)
        ),
        explained=_explained(mean, numbers, pairs),
        n_samples=n_samples,
    )


def _design(
    layers: Int[np.ndarray, " layer"], bends: Int[np.ndarray, " bend"]
) -> Float[np.ndarray, "layer term"]:
    x = layers.astype(float)
    hinges = [np.maximum(x - x[bend], 0) for bend in bends]
    return np.stack([np.ones_like(x), x, *hinges], axis=1)


def _errors(
    curves: Float[np.ndarray, "draw layer"],
    layers: Int[np.ndarray, " layer"],
    choices: Int[np.ndarray, "choice bend"],
) -> Float[np.ndarray, "draw choice"]:
    """Squared error of the best line with each choice of bends."""
    errors = []
    for bends in choices:
        design = _design(layers, bends)
        left = curves - curves @ (design @ np.linalg.pinv(design)).T
        errors.append((left**2).sum(1))
    return np.stack(errors, axis=1)


def _slopes(
    curves: Float[np.ndarray, "draw layer"],
    layers: Int[np.ndarray, " layer"],
    bends: Int[np.ndarray, " bend"],
) -> Float[np.ndarray, "draw piece"]:
    coefficients = curves @ np.linalg.pinv(_design(layers, bends)).T
    return coefficients[:, 1:].cumsum(1)


def _explained(
    mean: Float[np.ndarray, " layer"],
    layers: Int[np.ndarray, " layer"],
    pairs: Int[np.ndarray, "choice bend"],
) -> tuple[float, float, float]:
    inner = np.arange(1, len(layers) - 1)
    total = float(((mean - mean.mean()) ** 2).sum())
    if total == 0:
        return (1.0, 1.0, 1.0)
    choices = (np.empty((1, 0), dtype=int), inner[:, None], pairs)
    errors = [float(_errors(mean[None], layers, one).min()) for one in choices]
    zero, one, two = (1 - error / total for error in errors)
    return zero, one, two
