"""Overlap of neuron sets against Python's own sets, and its figures against the tables."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import distance

from mmlens import plots
from mmlens.errors import StatisticsError
from mmlens.neurons import NeuronSet
from mmlens.selection import overlap

SHAPE = (3, 8)
some_pairs = st.sets(st.tuples(st.integers(0, 2), st.integers(0, 7)))
some_sets = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d"]), some_pairs, min_size=1, max_size=4
)


def made(sets):
    return {name: NeuronSet(pairs, "language", SHAPE) for name, pairs in sets.items()}


@given(some_sets)
def test_every_pair_is_that_of_python_sets(sets):
    table = overlap.overlap_table(made(sets))
    assert len(table) == len(sets) ** 2
    for row in table.itertuples():
        a, b = sets[row.a], sets[row.b]
        assert (row.n_a, row.n_b, row.both) == (len(a), len(b), len(a & b))
        if b:
            assert row.share_of_b == pytest.approx(sum(x in a for x in b) / len(b))
        else:
            assert math.isnan(row.share_of_b)
        if a | b:
            grid = [[p in one for p in np.ndindex(SHAPE)] for one in (a, b)]
            assert row.jaccard == pytest.approx(1 - distance.jaccard(*grid))
        else:
            assert math.isnan(row.jaccard)


@given(some_sets)
def test_labels_and_combinations_are_those_of_a_counter(sets):
    neurons = made(sets)
    carried = Counter(pair for pairs in sets.values() for pair in pairs)
    expected = Counter(carried.values())
    table = overlap.multiplicity_table(neurons)
    assert list(table.n_labels) == list(range(1, len(sets) + 1))
    assert list(table.n_neurons) == [expected[n] for n in table.n_labels]
    if carried:
        assert table.share.sum() == pytest.approx(1)
    exact = Counter(";".join(n for n, pairs in sets.items() if p in pairs) for p in carried)
    combinations = overlap.combinations_table(neurons)
    assert dict(zip(combinations.domains, combinations.n_neurons, strict=True)) == exact
    assert list(combinations.n_neurons) == sorted(exact.values(), reverse=True)
    counts = overlap.counts_table(neurons).set_index("domain")
    for name, pairs in sets.items():
        alone = sum(carried[p] == 1 for p in pairs)
        assert counts.loc[name, "exclusive"] == alone
        assert counts.loc[name, "shared"] == len(pairs) - alone
        assert counts.loc[name, "share"] == pytest.approx(len(pairs) / 24)


def test_chance_is_what_random_sets_share():
    rng = np.random.default_rng(0)
    a, b = (NeuronSet([(0, i) for i in range(n)], "m", (4, 500)) for n in (300, 200))
    drawn = []
    for _ in range(300):
        x, y = (set(rng.choice(2000, n, replace=False)) for n in (300, 200))
        drawn.append(len(x & y) / len(x | y))
    assert overlap.chance_jaccard(a, b) == pytest.approx(np.mean(drawn), rel=0.03)
    everything = ~NeuronSet([], "m", (4, 500))
    assert overlap.chance_jaccard(everything, everything) == 1


def test_what_is_refused():
    a = NeuronSet([(0, 1)], "language", SHAPE)
    with pytest.raises(StatisticsError, match="No neuron sets"):
        overlap.overlap_table({})
    with pytest.raises(StatisticsError, match="different modules"):
        overlap.combinations_table({"a": a, "b": NeuronSet([], "vision", SHAPE)})
    with pytest.raises(StatisticsError, match="a;b"):
        overlap.combinations_table({"a;b": a})


# Figures

SETS = {
    "x": {(0, 0), (0, 1), (0, 2), (1, 1)},
    "y": {(0, 1), (0, 2), (2, 2)},
    "z": {(0, 2)},
    "none": set(),
}


def test_the_heat_map_writes_its_numbers():
    figure = plots.overlap_heatmap(overlap.overlap_table(made(SETS)))
    share, index = figure.data
    assert list(share.x) == list(SETS)
    assert list(share.y) == ["x (4)", "y (3)", "z (1)", "none (0)"]
    for i, a in enumerate(SETS.values()):
        for j, b in enumerate(SETS.values()):
            expected = f"{len(a & b) / len(b):.2f}" if b else "-"
            assert share.text[i][j] == expected
            either = len(a | b)
            assert index.text[i][j] == (f"{len(a & b) / either:.2f}" if either else "-")


def test_the_colours_of_the_heat_map_survive_greyscale():
    levels = []
    for _, colour in plots.overlap_heatmap(overlap.overlap_table(made(SETS))).data[0].colorscale:
        red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
        levels.append(0.299 * red + 0.587 * green + 0.114 * blue)
    assert all(a - b > 60 for a, b in zip(levels, levels[1:], strict=False))


def test_the_upset_plot_draws_each_combination_once():
    table = overlap.combinations_table(made(SETS))
    figure = plots.upset(table, domains=list(SETS))
    bars, sizes, _, dots = figure.data
    assert list(bars.y) == list(table.n_neurons)
    assert list(sizes.x) == [4, 3, 1, 0]
    columns = [[]]
    for x, y in zip(dots.x, dots.y, strict=True):
        if x is None:
            columns.append([])
        else:
            assert x == len(columns) - 1
            columns[-1].append(list(SETS)[y])
    assert [";".join(one) for one in columns[:-1]] == list(table.domains)
    assert "not shown" not in figure.layout.title.subtitle.text
    cut = plots.upset(table, domains=list(SETS), most=1)
    assert list(cut.data[0].y) == [table.n_neurons[0]]
    left = table.n_neurons[1:].sum()
    assert (
        f"{len(table) - 1} smaller combinations with {left} neurons"
        in cut.layout.title.subtitle.text
    )


def test_figures_say_what_is_missing():
    table = overlap.overlap_table(made(SETS))
    with pytest.raises(ValueError, match=r"lacks \['jaccard'\]"):
        plots.overlap_heatmap(table.drop(columns="jaccard"))
    with pytest.raises(ValueError, match="'vision' was asked for"):
        plots.overlap_heatmap(table, "vision")
    with pytest.raises(ValueError, match="no 'w'"):
        plots.overlap_heatmap(table, domains=["w"])
    combinations = overlap.combinations_table(made(SETS))
    other = combinations.assign(module="vision")
    with pytest.raises(ValueError, match="say which"):
        plots.upset(np_concat(combinations, other))
    with pytest.raises(ValueError, match="'x', which is not in"):
        plots.upset(combinations, domains=["y", "z"])


def np_concat(*frames):
    import pandas as pd

    return pd.concat(frames, ignore_index=True)
