"""Tables of neurons and accuracies, by hand."""

import numpy as np
import pytest
import torch

from mmlens.ablation.tables import accuracy_table, neurons_table
from mmlens.entropy import select
from tests.helpers.masks import DOMAINS, QUESTIONS, answers, hand_made, selected


def test_accuracy_table():
    table = accuracy_table(answers(), hand_made(), QUESTIONS.samples)
    assert list(table.columns) == [
        "mask",
        "kind",
        "seed",
        "fraction",
        "evaluated",
        "n",
        "correct",
        "accuracy",
        "n_neurons",
        "frequency",
    ]
    assert len(table) == 14
    rows = {(r.mask, r.kind, r.seed, r.evaluated): r for r in table.itertuples()}
    untouched = rows["none", "none", -1, "red"]
    assert (untouched.n, untouched.correct, untouched.accuracy) == (4, 3.0, 0.75)
    assert (untouched.n_neurons, untouched.fraction) == (0, 0.0)
    assert np.isnan(untouched.frequency)
    one = rows["red", "random", 1, "red"]
    assert (one.n, one.correct, one.accuracy, one.n_neurons) == (4, 2.0, 0.5, 2)
    assert (one.frequency, one.fraction) == (0.2, 0.01)
    one = rows["all", "mask", -1, "blue"]
    assert (one.n, one.correct, one.accuracy, one.n_neurons) == (1, 0.0, 0.0, 3)


def test_neurons_table():
    selections, probabilities = {}, {}
    for fraction in (1.0, 0.02, 0.05):
        selections[fraction], probabilities = selected(fraction)
    table = neurons_table(selections, probabilities, DOMAINS)
    assert list(table.columns) == [
        "module",
        "layer",
        "index",
        "fraction",
        "entropy",
        "domains",
        "p_red",
        "p_blue",
    ]
    rows = {(r.module, r.layer, r.index): r for r in table.itertuples()}
    assert len(rows) == len(table)
    largest = {
        (module, *pair)
        for module, one in selections[1.0].items()
        for name in DOMAINS
        for pair in one.sets[name]
    }
    assert set(rows) == largest
    for (module, layer, index), row in rows.items():
        holders = {
            fraction: [d for d in DOMAINS if (layer, index) in set(by[module].sets[d])]
            for fraction, by in selections.items()
        }
        smallest = min(fraction for fraction, labels in holders.items() if labels)
        assert row.fraction == smallest
        assert row.domains == ";".join(holders[smallest])
        p = probabilities[module][layer, index].tolist()
        assert [row.p_red, row.p_blue] == p
        share = [x / sum(p) for x in p]
        expected = -sum(x * np.log(x) for x in share if x)
        assert row.entropy == pytest.approx(expected, abs=1e-9)
    assert {0.02, 0.05, 1.0} == set(table["fraction"])
    assert (table["domains"] == "red;blue").any()


def test_a_table_of_no_neurons_has_its_columns():
    counts = torch.ones((1, 4, 2), dtype=torch.int64)
    selection = select(counts, torch.tensor([2, 2]), DOMAINS)
    table = neurons_table({0.01: {"language": selection}}, {"language": counts / 2}, DOMAINS)
    assert table.empty
    assert {"module", "domains", "p_red", "p_blue"} <= set(table.columns)
