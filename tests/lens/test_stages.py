"""Change points of entropy curves: against brute force, and on curves whose bends are known."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import lsq_linear

from mmlens.errors import StatisticsError
from mmlens.lens.stages import find_stages


def bent(layers, bends, slopes, start=5.0):
    """A continuous line with the given slopes between bends."""
    edges = [0, *bends, layers - 1]
    values = [start]
    for layer in range(1, layers):
        piece = next(i for i in range(3) if edges[i] < layer <= edges[i + 1])
        values.append(values[-1] + slopes[piece])
    return np.array(values)


@given(st.integers(0, 2**32 - 1), st.integers(5, 9), st.integers(1, 6))
@settings(deadline=None, max_examples=40)
def test_bends_are_those_of_the_smallest_squared_error(seed, layers, samples):
    curves = np.random.default_rng(seed).normal(size=(samples, layers))
    found = find_stages(curves, draws=5)
    mean, x = curves.mean(0), np.arange(layers, dtype=float)
    errors = {}
    for a, b in combinations(range(1, layers - 1), 2):
        terms = np.stack([np.ones(layers), x, np.maximum(x - a, 0), np.maximum(x - b, 0)], 1)
        errors[a, b] = 2 * lsq_linear(terms, mean, tol=1e-12).cost
    least = min(errors.values())
    assert errors[found.bends] == pytest.approx(least, abs=1e-9)
    assert ((found.fitted - mean) ** 2).sum() == pytest.approx(least, abs=1e-9)


@pytest.mark.parametrize("bends", [(2, 5), (1, 2), (3, 8), (7, 8)])
def test_known_bends_are_found_again(bends):
    slopes = (-0.05, -0.6, 0.1)
    noise = np.random.default_rng(0).normal(scale=0.02, size=(60, 10))
    found = find_stages(bent(10, bends, slopes) + noise)
    assert found.bends == bends
    assert [
        low <= bend <= high for (low, high), bend in zip(found.intervals, bends, strict=True)
    ] == [True] * 2
    for stage, slope in zip(found.stages, slopes, strict=True):
        assert stage.slope == pytest.approx(slope, abs=0.02)
        assert stage.low <= stage.slope <= stage.high
    assert [(s.first, s.last) for s in found.stages] == [(0, bends[0]), bends, (bends[1], 9)]
    assert found.three_stages
    assert found.explained[2] > 0.99
    assert found.shares.sum() == pytest.approx(2)


def test_a_straight_fall_is_no_account_of_three_stages():
    noise = np.random.default_rng(0).normal(scale=0.05, size=(40, 8))
    found = find_stages(5 - 0.3 * np.arange(8) + noise)
    assert not found.three_stages
    assert found.explained[0] > 0.99
    low, high = found.intervals[0][0], found.intervals[1][1]
    assert high - low >= 3  # nothing tells where it bends


def test_uncertain_bends_have_wide_intervals():
    rng = np.random.default_rng(1)
    curve = bent(12, (4, 8), (-0.1, -0.5, 0.1))
    sure = find_stages(curve + rng.normal(scale=0.05, size=(200, 12)))
    unsure = find_stages(curve + rng.normal(scale=2.0, size=(10, 12)))
    width = [max(high - low for low, high in one.intervals) for one in (sure, unsure)]
    assert width[0] <= 1 < width[1]


def test_numbers_of_layers_are_kept():
    curves = bent(6, (2, 4), (0.0, -1.0, 0.5))[None] + np.zeros((3, 1))
    found = find_stages(curves, [0, 4, 8, 12, 16, 20])
    assert found.bends == (8, 16)
    assert found.stages[1].slope == pytest.approx(-0.25)  # nats per layer, not per point


def test_a_flat_curve():
    found = find_stages(np.ones((3, 6)))
    assert found.explained == (1.0, 1.0, 1.0)
    assert {stage.direction for stage in found.stages} == {"flat or unsure"}


@pytest.mark.parametrize("shape", [(0, 8), (3, 4)])
def test_too_little_is_refused(shape):
    with pytest.raises(StatisticsError, match="at least five layers and one sample; given"):
        find_stages(np.zeros(shape))
