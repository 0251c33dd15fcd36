import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mmlens.ablation.paired import paired_effect
from mmlens.errors import SampleError


def test_by_hand():
    effect = paired_effect(
        np.array([1.0, 1.0, 0.0, 1.0]),
        np.array([0.0, 1.0, 0.0, 0.0]),
        np.array([[1.0, 1.0, 0.0, 1.0], [1.0, 0.0, 0.0, 1.0]]),
    )
    assert (effect.n_questions, effect.n_seeds) == (4, 2)
    assert effect.baseline == 0.75
    assert effect.masked == 0.25
    assert effect.control_mean == 0.625
    assert effect.control_sd == pytest.approx(0.125 * 2**0.5)
    assert effect.drop == 0.5
    assert effect.control_drop == 0.125
    assert effect.difference == 0.375
    assert effect.low <= 0.375 <= effect.high


scores = st.integers(1, 3).flatmap(
    lambda seeds: st.integers(1, 8).flatmap(
        lambda n: arrays(float, (seeds + 2, n), elements=st.sampled_from([0.0, 0.25, 1.0]))
    )
)


@given(scores)
def test_the_identities_that_hold_for_any_scores(rows):
    baseline, masked, controls = rows[0], rows[1], rows[2:]
    effect = paired_effect(baseline, masked, controls, draws=50)
    expected = float(
        np.mean([[c - m for c, m in zip(row, masked, strict=True)] for row in controls])
    )
    assert effect.difference == pytest.approx(expected, abs=1e-12)
    assert effect.drop - effect.control_drop == pytest.approx(expected, abs=1e-12)
    assert effect.low <= effect.high
    per_question = controls - masked
    assert per_question.min() - 1e-12 <= effect.low
    assert effect.high <= per_question.max() + 1e-12
    again = paired_effect(baseline, masked, controls, draws=50)
    assert again == effect
    # The interval does not depend on the untouched model.
    other = paired_effect(1 - baseline, masked, controls, draws=50)
    assert (other.low, other.high) == (effect.low, effect.high)


def test_one_control_has_no_spread():
    effect = paired_effect(np.ones(3), np.zeros(3), np.ones((1, 3)))
    assert effect.control_sd == 0.0
    assert (effect.difference, effect.low, effect.high) == (1.0, 1.0, 1.0)


def exact_quantiles(values, confidence):
    """Quantiles of a finite distribution of equally likely values, not at a step."""
    ordered = sorted(values)
    tail = (1 - confidence) / 2
    return ordered[int(tail * len(ordered))], ordered[int((1 - tail) * len(ordered))]


@pytest.mark.parametrize("confidence", [0.95, 0.8, 0.5])
def test_the_interval_over_questions_is_that_of_all_resamples(confidence):
    gains = np.array([0.0, 1.0, 4.0])
    expected = exact_quantiles(
        [np.mean(drawn) for drawn in itertools.product(gains, repeat=3)], confidence
    )
    effect = paired_effect(
        np.zeros(3), np.zeros(3), gains[None], draws=20_000, confidence=confidence
    )
    assert (effect.low, effect.high) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("confidence", [0.95, 0.8, 0.4])
def test_the_interval_over_control_sets_is_that_of_all_resamples(confidence):
    values = [0.0, 0.3, 1.0]
    expected = exact_quantiles(
        [np.mean(drawn) for drawn in itertools.product(values, repeat=3)], confidence
    )
    effect = paired_effect(
        np.zeros(1), np.zeros(1), np.array(values)[:, None], draws=20_000, confidence=confidence
    )
    assert (effect.low, effect.high) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("confidence", [0.95, 0.4])
def test_the_interval_over_clusters_is_that_of_all_resamples(confidence):
    clusters = {"a": [0.0], "b": [1.0, 1.0, 0.5], "c": [0.25, 0.0]}
    outcomes = [
        np.mean([gain for name in drawn for gain in clusters[name]])
        for drawn in itertools.product(clusters, repeat=3)
    ]
    gains = np.array([gain for name in clusters for gain in clusters[name]])
    names = [name for name in clusters for _ in clusters[name]]
    effect = paired_effect(
        np.zeros(6), np.zeros(6), gains[None], names, draws=20_000, confidence=confidence
    )
    expected = exact_quantiles(outcomes, confidence)
    assert (effect.low, effect.high) == pytest.approx(expected, abs=1e-12)


def simulated(rng, questions, seeds):
    """Scores whose true difference is 0.6 - 0.45, paired through each question's difficulty."""
    ease = rng.uniform(-0.3, 0.3, size=questions)
    masked = (rng.random(questions) < 0.45 + ease).astype(float)
    controls = (rng.random((seeds, questions)) < 0.6 + ease).astype(float)
    baseline = (rng.random(questions) < 0.65 + ease).astype(float)
    return baseline, masked, controls


def test_the_interval_holds_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(0)
    hits = []
    for repetition in range(300):
        effect = paired_effect(*simulated(rng, 80, 8), draws=300, seed=repetition)
        hits.append(effect.low <= 0.15 <= effect.high)
    assert 0.90 <= np.mean(hits) <= 0.99


def test_no_effect_is_seldom_taken_for_one():
    rng = np.random.default_rng(1)
    missed = []
    for repetition in range(200):
        baseline, _, controls = simulated(rng, 80, 9)
        effect = paired_effect(baseline, controls[0], controls[1:], draws=300, seed=repetition)
        missed.append(not effect.low <= 0 <= effect.high)
    assert np.mean(missed) <= 0.11


def test_symmetric_scores_have_a_symmetric_interval():
    masked = np.tile([0.0, 1.0], 50)
    effect = paired_effect(np.ones(100), masked, 1 - masked[None])
    assert effect.difference == 0
    assert effect.low < 0 < effect.high
    assert effect.low == pytest.approx(-effect.high, abs=0.05)
    # The mean of 100 draws of -1 and 1: 1.96 standard errors.
    assert effect.high == pytest.approx(0.196, abs=0.03)


def test_copies_in_clusters_tell_nothing_new():
    baseline, masked, controls = simulated(np.random.default_rng(2), 40, 4)
    plain = paired_effect(baseline, masked, controls)
    names = [f"q{i:03}" for i in range(40)]
    copies = 5
    doubled = [np.repeat(values, copies, axis=-1) for values in (baseline, masked, controls)]
    clustered = paired_effect(*doubled, np.repeat(names, copies).tolist())
    assert (clustered.low, clustered.high) == pytest.approx((plain.low, plain.high), abs=1e-12)
    assert clustered.difference == pytest.approx(plain.difference, abs=1e-12)
    assert clustered.n_questions == 200
    alone = paired_effect(*doubled)
    assert clustered.high - clustered.low > 1.5 * (alone.high - alone.low)


def test_clusters_of_one_are_no_clusters():
    scores = simulated(np.random.default_rng(3), 30, 3)
    names = [f"q{i:03}" for i in range(30)]
    assert paired_effect(*scores, names) == paired_effect(*scores)


def test_clusters_may_be_of_any_kind_and_order():
    baseline, masked, controls = simulated(np.random.default_rng(4), 60, 3)
    numbers = [i % 12 for i in range(60)]
    a = paired_effect(baseline, masked, controls, numbers)
    order = np.random.default_rng(5).permutation(60)
    b = paired_effect(
        baseline[order], masked[order], controls[:, order], [numbers[i] for i in order]
    )
    assert (a.low, a.high) == pytest.approx((b.low, b.high), abs=1e-12)


def test_a_higher_confidence_is_a_wider_interval():
    scores = simulated(np.random.default_rng(6), 50, 4)
    narrow, wide = (paired_effect(*scores, confidence=c) for c in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_seeds_of_the_draws():
    scores = simulated(np.random.default_rng(7), 50, 4)
    one, two = paired_effect(*scores, seed=1), paired_effect(*scores, seed=2)
    assert (one.low, one.high) != (two.low, two.high)
    assert one.difference == two.difference


def test_what_is_refused():
    with pytest.raises(SampleError, match="at least one question"):
        paired_effect(np.zeros(0), np.zeros(0), np.zeros((2, 0)))
    with pytest.raises(SampleError, match="one control set"):
        paired_effect(np.zeros(2), np.zeros(2), np.zeros((0, 2)))
    with pytest.raises(SampleError, match="3 clusters were given for 2 questions"):
        paired_effect(np.zeros(2), np.zeros(2), np.zeros((1, 2)), ["a", "b", "c"])
