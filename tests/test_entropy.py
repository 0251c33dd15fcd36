"""Checked against exact rational arithmetic in plain Python, and against scipy."""

import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmlens.entropy import (
    activation_entropy,
    activation_probability,
    domain_neurons,
    select,
    selectivity,
)
from mmlens.errors import StatisticsError
from mmlens.neurons import NeuronSet

NAMES = ("ad", "med", "rs", "com", "doc")


def reference(counts, tokens, fraction, quantile):
    """Section 2.4 of the methods, in exact fractions: (labels per neuron, tau)."""
    layers, neurons, domains = len(counts), len(counts[0]), len(tokens)
    p = {
        (layer, u): [Fraction(int(counts[layer][u][i]), int(tokens[i])) for i in range(domains)]
        for layer in range(layers)
        for u in range(neurons)
    }
    every = sorted(value for row in p.values() for value in row)
    tau = every[max(1, round(quantile * len(every))) - 1]
    survivors = []
    for place, row in p.items():
        if any(value > tau for value in row):
            shares = [value / sum(row) for value in row]
            # fsum is exact in any order: equal entropies come out equal.
            entropy = -math.fsum(float(s) * math.log(float(s)) for s in shares if s)
            survivors.append((entropy, place))
    survivors.sort()
    kept = [place for _, place in survivors[: round(fraction * layers * neurons)]]
    return {place: {i for i in range(domains) if p[place][i] > tau} for place in kept}, float(tau)


def labels(selection):
    found = {}
    for i, domain in enumerate(selection.sets):
        for place in selection.sets[domain]:
            found.setdefault(place, set()).add(i)
    return found


def check(counts, tokens, fraction, quantile):
    counts, tokens = torch.as_tensor(counts), torch.as_tensor(tokens)
    names = NAMES[: len(tokens)]
    got = select(counts, tokens, names, fraction=fraction, quantile=quantile)
    expected, tau = reference(counts.tolist(), tokens.tolist(), fraction, quantile)
    assert labels(got) == expected
    assert got.tau == tau
    assert set(got.union) == set(expected)
    assert list(got.sets) == list(names)
    if expected:
        entropies = [float(got.entropy[place]) for place in expected]
        assert got.cut == pytest.approx(max(entropies), abs=1e-9)
    else:
        assert math.isnan(got.cut)
    return got


@st.composite
def problems(draw, largest=6, most=5):
    layers, neurons, domains = (draw(st.integers(1, n)) for n in (3, 12, most))
    tokens = draw(st.lists(st.integers(1, largest), min_size=domains, max_size=domains))
    counts = [
        [[draw(st.integers(0, n)) for n in tokens] for _ in range(neurons)] for _ in range(layers)
    ]
    fraction = draw(st.sampled_from([0.01, 0.1, 0.25, 0.5, 1.0]))
    quantile = draw(st.sampled_from([0.01, 0.5, 0.8, 0.95, 1.0]))
    return counts, tokens, fraction, quantile


# Probability and entropy


@given(problems())
def test_probability_is_the_share_of_tokens(problem):
    counts, tokens, *_ = problem
    p = activation_probability(torch.tensor(counts), torch.tensor(tokens))
    assert p.dtype == torch.float64
    assert np.array_equal(p.numpy(), np.array(counts) / np.array(tokens))


def test_probability_keeps_large_counts_apart():
    n = 2**40 + 1
    p = activation_probability(torch.tensor([[[2**39], [2**39 + 1]]]), torch.tensor([n]))
    assert p[0, 1, 0] > p[0, 0, 0]


@given(problems(largest=1000))
def test_entropy_is_scipys(problem):
    counts, tokens, *_ = problem
    p = np.array(counts) / np.array(tokens)
    got = activation_entropy(torch.from_numpy(p)).numpy()
    alive = p.sum(-1) > 0
    assert got.shape == p.shape[:2]
    assert (got[~alive] == 0).all()
    if alive.any():
        expected = scipy.stats.entropy(p[alive], axis=-1)
        np.testing.assert_allclose(got[alive], expected, rtol=0, atol=1e-12)
    assert (got >= 0).all()
    assert (got <= math.log(p.shape[-1]) + 1e-12).all()


def test_entropy_at_its_ends():
    rows = [[0.0, 0.0, 0.3, 0.0], [0.2, 0.2, 0.2, 0.2], [0.0] * 4, [1e-300] * 4]
    entropy = activation_entropy(torch.tensor([rows], dtype=torch.float64))
    expected = [[0.0, math.log(4), 0.0, math.log(4)]]
    np.testing.assert_allclose(entropy, expected, rtol=0, atol=1e-12)


def test_entropy_of_one_domain_is_zero():
    assert (activation_entropy(torch.rand(2, 3, 1, dtype=torch.float64)) == 0).all()


def test_entropy_in_bits():
    p = torch.rand(2, 7, 5, dtype=torch.float64)
    expected = scipy.stats.entropy(p.numpy(), axis=-1, base=2)
    np.testing.assert_allclose(activation_entropy(p, unit="bits"), expected, rtol=0, atol=1e-12)
    half = torch.tensor([[[0.1, 0.1]]], dtype=torch.float64)
    assert float(activation_entropy(half, unit="bits")) == pytest.approx(1.0, abs=1e-12)


def test_a_selection_is_shown_in_bits():
    counts = torch.randint(0, 900, (2, 40, 3), generator=torch.Generator().manual_seed(0))
    selection = select(counts, torch.tensor([1000] * 3), "abc", fraction=0.2, quantile=0.5)
    bits = selection.in_unit("bits")
    assert (selection.unit, bits.unit) == ("nats", "bits")
    p = counts.double() / 1000
    expected = scipy.stats.entropy(p.numpy(), axis=-1, base=2)
    np.testing.assert_allclose(bits.entropy, expected, rtol=0, atol=1e-12)
    assert bits.cut == pytest.approx(selection.cut / math.log(2), abs=1e-12)
    assert bits.sets == selection.sets
    np.testing.assert_allclose(bits.in_unit("nats").entropy, selection.entropy, atol=1e-12)
    assert selection.in_unit("nats").entropy.equal(selection.entropy)


def test_selectivity_lies_between_even_and_exclusive():
    rows = [[0.2, 0.2, 0.2], [0.0, 0.7, 0.0], [0.0, 0.0, 0.0], [0.5, 0.25, 0.25]]
    got = selectivity(torch.tensor([rows], dtype=torch.float64))[0].tolist()
    by_hand = 1 - (0.5 * math.log(2) + 0.5 * math.log(4)) / math.log(3)
    assert got == pytest.approx([0.0, 1.0, 0.0, by_hand], abs=1e-12)
    with pytest.raises(StatisticsError, match="two at least, 1"):
        selectivity(torch.ones(1, 2, 1))


@given(problems(largest=1000), st.floats(1e-3, 1.0))
def test_entropy_ignores_scale(problem, scale):
    counts, tokens, *_ = problem
    p = torch.tensor(counts).double() / torch.tensor(tokens)
    torch.testing.assert_close(
        activation_entropy(p * scale), activation_entropy(p), rtol=0, atol=1e-9
    )


# Selection


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("fraction", [0.01, 0.05, 1.0])
def test_selection_on_random_counts(seed, fraction):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(10_000, 90_000, size=5)
    rate = rng.beta(0.3, 3, size=(4, 75, 5))
    counts = rng.binomial(tokens, rate)
    got = check(counts, tokens, fraction, 0.95)
    assert set(got.union)
    many = [place for place, domains in labels(got).items() if len(domains) > 1]
    if fraction == 1.0:
        assert many  # multi-label does occur


@given(problems())
def test_selection_on_counts_full_of_ties(problem):
    check(*problem)


@given(problems(most=1))
def test_selection_with_one_domain(problem):
    check(*problem)


def test_a_probability_at_the_percentile_does_not_pass():
    # Ten values; the 8th smallest is 0.5, shared by the 7th to the 9th.
    counts = [[[0, 1], [1, 2], [3, 4], [5, 5], [5, 9]]]
    got = check(counts, [10, 10], 1.0, 0.8)
    assert got.tau == 0.5
    assert labels(got) == {(0, 4): {1}}
    assert got.passes.tolist() == [[False, False, False, False, True]]


def test_no_neuron_passes_when_all_are_equal():
    got = check([[[3, 3]] * 4] * 2, [10, 10], 0.5, 0.95)
    assert labels(got) == {}
    assert not got.passes.any()
    assert math.isnan(got.cut)
    assert len(got.union) == 0


def test_no_neuron_passes_when_all_are_silent():
    got = check([[[0, 0, 0]] * 4], [10, 20, 30], 1.0, 0.95)
    assert labels(got) == {}
    assert (got.entropy == 0).all()


def test_nothing_lies_above_the_whole():
    counts = np.random.default_rng(0).integers(0, 100, size=(2, 9, 3))
    assert labels(check(counts, [100, 100, 100], 1.0, 1.0)) == {}


def test_the_filter_goes_before_entropy():
    # Neuron 0 is rare but pure; neuron 1 is strong and mixed, and the only one to pass.
    counts = [[[1, 0], [90, 80], [1, 1], [1, 1]]]
    got = check(counts, [100, 100], 0.25, 0.75)
    assert labels(got) == {(0, 1): {0, 1}}


def test_the_number_is_a_share_of_all_neurons():
    rng = np.random.default_rng(1)
    counts = rng.integers(0, 1000, size=(2, 50, 4))
    got = select(
        torch.from_numpy(counts), torch.full((4,), 1000), NAMES[:4], fraction=0.05, quantile=0.5
    )
    assert len(got.union) == 5  # of 100 neurons; those that pass are fewer
    few = select(
        torch.from_numpy(counts), torch.full((4,), 1000), NAMES[:4], fraction=1.0, quantile=0.95
    )
    assert len(few.union) == int(few.passes.sum()) < 100


@pytest.mark.parametrize(("neurons", "expected"), [(49, 0), (50, 0), (51, 1), (149, 1), (250, 2)])
def test_the_number_is_rounded_as_python_rounds(neurons, expected):
    counts = torch.arange(neurons * 2).reshape(1, neurons, 2)
    got = select(counts, torch.full((2,), 2 * neurons), ("a", "b"), fraction=0.01, quantile=0.1)
    assert len(got.union) == expected == round(0.01 * neurons)


def test_equal_entropies_are_taken_in_order():
    counts = torch.tensor([[[0, 0], [9, 1], [8, 0]], [[0, 7], [6, 0], [0, 0]]])
    got = select(counts, torch.tensor([10, 10]), ("a", "b"), fraction=1 / 3, quantile=0.5)
    assert labels(got) == {(0, 2): {0}, (1, 0): {1}}  # (1, 1) is as pure, but comes later


@st.composite
def mirrored(draw):
    """Neurons that are each other's mirror images or multiples: equal entropies, written anew."""
    domains = draw(st.integers(2, 5))
    row = draw(st.lists(st.integers(0, 49), min_size=domains, max_size=domains))
    orders = draw(st.lists(st.permutations(range(domains)), min_size=2, max_size=12))
    factors = [draw(st.sampled_from([1, 1, 2, 3, 7])) for _ in orders]
    counts = [[row[i] * f for i in order] for order, f in zip(orders, factors, strict=True)]
    return [counts], [350] * domains, draw(st.sampled_from([0.1, 0.25, 0.5, 0.75])), 0.01


@given(mirrored())
def test_equal_entropies_of_mirrored_neurons_are_taken_in_order(problem):
    check(*problem)


@given(mirrored(), st.randoms())
def test_the_order_of_domains_does_not_break_ties(problem, random):
    same_in_any_order(problem, random)


@given(problems(largest=1000), st.data())
def test_larger_fractions_contain_smaller_ones(problem, data):
    counts, tokens, _, quantile = problem
    counts, tokens = torch.tensor(counts), torch.tensor(tokens)
    names = NAMES[: len(tokens)]
    small = data.draw(st.floats(0.01, 1.0))
    large = data.draw(st.floats(small, 1.0))
    a = select(counts, tokens, names, fraction=small, quantile=quantile)
    b = select(counts, tokens, names, fraction=large, quantile=quantile)
    assert a.tau == b.tau
    for name in names:
        assert set(a.sets[name]) <= set(b.sets[name])


@given(problems(), st.randoms())
def test_the_order_of_domains_changes_nothing(problem, random):
    same_in_any_order(problem, random)


def same_in_any_order(problem, random):
    counts, tokens, fraction, quantile = problem
    counts, tokens = torch.tensor(counts), torch.tensor(tokens)
    order = list(range(len(tokens)))
    random.shuffle(order)
    names = NAMES[: len(tokens)]
    a = select(counts, tokens, names, fraction=fraction, quantile=quantile)
    b = select(
        counts[..., order],
        tokens[order],
        [names[i] for i in order],
        fraction=fraction,
        quantile=quantile,
    )
    assert a.sets == b.sets
    assert a.tau == b.tau


def test_module_and_model_are_kept():
    counts = torch.tensor([[[9, 0], [0, 1]]])
    got = select(
        counts, torch.tensor([10, 10]), ("a", "b"), quantile=0.5, module="vision", model_hash="h"
    )
    for one in (*got.sets.values(), got.union):
        assert (one.module, one.shape, one.model_hash) == ("vision", (1, 2), "h")


def test_domain_neurons_are_the_sets_alone():
    rng = np.random.default_rng(5)
    counts = torch.from_numpy(rng.integers(0, 500, size=(2, 60, 3)))
    tokens = torch.full((3,), 500)
    sets = domain_neurons(counts, tokens, NAMES[:3], 0.1, 0.9, "projector")
    expected, _ = reference(counts.tolist(), tokens.tolist(), 0.1, 0.9)
    for i, name in enumerate(NAMES[:3]):
        assert set(sets[name]) == {place for place, found in expected.items() if i in found}
        assert sets[name].module == "projector"


# What is refused

COUNTS, TOKENS = torch.tensor([[[1, 2], [3, 4]]]), torch.tensor([5, 5])


@pytest.mark.parametrize("names", [("a",), ("a", "b", "c"), ("a", "a"), ()])
def test_names_must_fit_the_counts(names):
    with pytest.raises(StatisticsError, match="2 domains were counted"):
        select(COUNTS, TOKENS, names)


@pytest.mark.parametrize("value", [0.0, -0.1, 1.01, float("nan")])
@pytest.mark.parametrize("name", ["fraction", "quantile"])
def test_shares_must_be_shares(name, value):
    with pytest.raises(StatisticsError, match=rf"{name} must lie in \(0, 1\]"):
        select(COUNTS, TOKENS, ("a", "b"), **{name: value})


def test_a_domain_needs_tokens():
    with pytest.raises(StatisticsError, match=r"\[5, 0\]"):
        select(COUNTS, torch.tensor([5, 0]), ("a", "b"))


@pytest.mark.parametrize("counts", [[[[6, 0]]], [[[-1, 0]]]])
def test_counts_must_lie_between_none_and_all(counts):
    with pytest.raises(StatisticsError, match="between 0 and the tokens"):
        select(torch.tensor(counts), TOKENS, ("a", "b"))


def test_neurons_can_be_left_out_of_quantile_share_and_sets():
    generator = torch.Generator().manual_seed(3)
    positive = torch.randint(0, 100, (4, 25, 3), generator=generator)
    tokens = torch.tensor([100, 100, 100])
    domains = ["a", "b", "c"]
    kept = NeuronSet([(layer, i) for layer in (0, 2) for i in range(25)], "language", (4, 25))
    ours = select(positive, tokens, domains, fraction=0.2, quantile=0.5, among=kept)
    # The same as the smaller module that has the two layers alone.
    small = select(positive[[0, 2]], tokens, domains, fraction=0.2, quantile=0.5)
    assert ours.tau == small.tau
    for domain in domains:
        expected = [(2 * layer, index) for layer, index in small.sets[domain]]
        assert list(ours.sets[domain]) == expected
    with pytest.raises(StatisticsError, match="does not fit"):
        select(positive[:2], tokens, domains, among=kept)
