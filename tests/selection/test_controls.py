from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmlens.errors import StatisticsError
from mmlens.neurons import NeuronSet
from mmlens.selection.controls import (
    NEAREST,
    matched_like,
    mean_measure,
    random_like,
    root_mean_square,
)

LAYERS, WIDTH = 3, 40


def of(pairs, module="language"):
    return NeuronSet(pairs, module, (LAYERS, WIDTH), "hash")


def per_layer(neurons):
    return Counter(layer for layer, _ in neurons)


def frequencies(seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.beta(0.5, 2, size=(LAYERS, WIDTH)))


def draw(kind, neurons, avoid, seed):
    if kind == "random":
        return random_like(neurons, avoid=avoid, seed=seed)
    return matched_like(neurons, frequencies(), avoid=avoid, seed=seed)


KINDS = pytest.mark.parametrize("kind", ["random", "matched"])
few = st.sets(st.tuples(st.integers(0, LAYERS - 1), st.integers(0, WIDTH - 1)), max_size=15)


@KINDS
@given(few, few, st.integers(0, 100))
def test_a_control_is_like_its_set_and_apart_from_the_selected(kind, pairs, others, seed):
    neurons, avoid = of(pairs), of(pairs | others)
    control = draw(kind, neurons, avoid, seed)
    assert per_layer(control) == per_layer(neurons)  # a set, so none is there twice
    assert not set(control) & (pairs | others)
    assert (control.module, control.shape, control.model_hash) == (
        "language",
        (LAYERS, WIDTH),
        "hash",
    )
    assert control == draw(kind, neurons, avoid, seed)


@KINDS
def test_seeds_give_different_controls(kind):
    neurons = of([(0, i) for i in range(6)] + [(2, i) for i in range(3)])
    assert len({draw(kind, neurons, neurons, seed) for seed in range(30)}) >= 28


@KINDS
def test_the_last_free_neurons_are_found(kind):
    neurons = of([(1, i) for i in range(0, WIDTH, 2)])
    control = draw(kind, neurons, neurons, 0)
    assert set(control) == {(1, i) for i in range(1, WIDTH, 2)}


@KINDS
def test_too_few_others(kind):
    neurons = of([(1, i) for i in range(WIDTH // 2 + 1)])
    with pytest.raises(StatisticsError) as caught:
        draw(kind, neurons, neurons, 0)
    for part in ("Layer 1", "only 19 neurons", "control of 21"):
        assert part in str(caught.value)


@KINDS
def test_what_to_avoid_must_be_of_the_same_module(kind):
    neurons = of([(0, 1)])
    for avoid in (
        of([(0, 1)], module="vision"),
        NeuronSet([(0, 1)], "language", (LAYERS, WIDTH + 1)),
    ):
        with pytest.raises(StatisticsError):
            draw(kind, neurons, avoid, 0)


def test_random_controls_are_uniform():
    neurons = of([(0, 0), (0, 1)])
    counts = Counter()
    for seed in range(760):
        counts.update(random_like(neurons, avoid=neurons, seed=seed))
    assert set(counts) == {(0, i) for i in range(2, WIDTH)}
    # 40 expected of each, standard deviation just above 6.
    assert min(counts.values()) > 12
    assert max(counts.values()) < 72


def test_matched_controls_are_closer_in_frequency():
    values = torch.from_numpy(np.random.default_rng(0).beta(0.5, 2, size=(2, 400)))
    strong = values[0].argsort(descending=True)[5:15].tolist()
    weak = values[1].argsort()[5:10].tolist()
    neurons = NeuronSet([(0, i) for i in strong] + [(1, i) for i in weak], "language", (2, 400))

    def mean(chosen, layer):
        return np.mean([values[pair].item() for pair in chosen if pair[0] == layer])

    gaps = {"random": [], "matched": []}
    for seed in range(20):
        plain = random_like(neurons, avoid=neurons, seed=seed)
        near = matched_like(neurons, values, avoid=neurons, seed=seed)
        for kind, control in (("random", plain), ("matched", near)):
            gaps[kind].append([abs(mean(control, x) - mean(neurons, x)) for x in (0, 1)])
    for layer in (0, 1):
        random, matched = (np.mean([g[layer] for g in gaps[k]]) for k in ("random", "matched"))
        assert matched < 0.3 * random


def test_a_matched_neuron_is_one_of_the_nearest():
    values = frequencies(3)
    neurons = of([(1, 7)])
    others = sorted(set(range(WIDTH)) - {7}, key=lambda i: abs(values[1, i] - values[1, 7]))
    drawn = {
        matched_like(neurons, values, avoid=neurons, seed=s).pairs()[0, 1].item()
        for s in range(200)
    }
    assert drawn == set(others[:NEAREST])


def test_single_precision_frequencies_do():
    neurons = of([(0, 3)])
    assert len(matched_like(neurons, frequencies().float(), avoid=neurons, seed=0)) == 1


def test_mean_measure():
    values = frequencies()
    neurons = of([(0, 3), (2, 8), (2, 9)])
    expected = (values[0, 3] + values[2, 8] + values[2, 9]).item() / 3
    assert mean_measure([neurons], {"language": values}) == pytest.approx(expected, abs=1e-12)
    assert mean_measure([of([])], {"language": values}) == 0
    others = {"language": values, "vision": 2 * values}
    both = mean_measure([neurons, of([(0, 3)], "vision")], others)
    assert both == pytest.approx((3 * expected + 2 * values[0, 3].item()) / 4, abs=1e-12)


def test_root_mean_square():
    a = np.random.default_rng(0).normal(size=(5, 2, 3))
    got = root_mean_square(torch.tensor((a**2).sum(0)), 5)
    assert np.allclose(got, np.sqrt(np.mean(a**2, axis=0)))
