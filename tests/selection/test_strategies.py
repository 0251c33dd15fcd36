"""Every strategy against a plain sort, written from methods 3.4, with ties."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmlens.errors import StatisticsError
from mmlens.neurons import union
from mmlens.selection.strategies import STRATEGIES, select_neurons, smallest_ratio

NAMES = ("text", "special", "image", "video", "audio")


def by_sorting(w, ratio, strategy):
    """(modality, layer, index) of every label, by Python's sort over tuples."""
    modalities, layers, width = w.shape
    k = int(ratio * layers * width)
    every = [(layer, j) for layer in range(layers) for j in range(width)]
    labels = set()
    if strategy == "adaptive":
        total = {p: sum(w[m][p] for m in range(modalities)) for p in every}
        for p in sorted(every, key=lambda p: (-total[p], p))[:k]:
            labels.add((max(range(modalities), key=lambda m: (w[m][p], -m)), *p))
    elif strategy == "LA_MU":
        for m in range(modalities):
            for p in sorted(every, key=lambda p: (-w[m][p], p))[: k // modalities]:
                labels.add((m, *p))
    elif strategy == "LU_MA":
        for layer in range(layers):
            table = [(m, j) for m in range(modalities) for j in range(width)]
            table.sort(key=lambda e: (-w[e[0]][layer, e[1]], e))
            labels.update((m, layer, j) for m, j in table[: k // layers])
    else:
        for layer in range(layers):
            for m in range(modalities):
                row = sorted(range(width), key=lambda j: (-w[m][layer, j], j))
                labels.update((m, layer, j) for j in row[: k // (modalities * layers)])
    return labels


@given(
    modalities=st.integers(1, 4),
    layers=st.integers(1, 3),
    width=st.integers(2, 9),
    ratio=st.sampled_from([0.1, 0.2, 0.35, 0.5, 1.0]),
    strategy=st.sampled_from(STRATEGIES[:-1]),
    levels=st.sampled_from([2, 4, 1000]),
    seed=st.integers(0, 10_000),
)
def test_every_strategy_equals_a_plain_sort(
    modalities, layers, width, ratio, strategy, levels, seed
):
    """Few levels make many ties."""
    rng = np.random.default_rng(seed)
    # Integers, so that the sums of `adaptive` tie exactly in any order of adding.
    w = rng.integers(0, levels, size=(modalities, layers, width)).astype(float)
    names = NAMES[:modalities]
    least = smallest_ratio(modalities, layers, width, strategy)
    if int(ratio * layers * width) < round(least * layers * width):
        with pytest.raises(StatisticsError, match="selects nothing"):
            select_neurons(torch.tensor(w), names, ratio, strategy)
        return
    found = select_neurons(torch.tensor(w), names, ratio, strategy, model_hash="h")
    assert tuple(found) == names
    got = {(m, *pair) for m, name in enumerate(names) for pair in found[name]}
    assert got == by_sorting(w, ratio, strategy)
    assert {one.model_hash for one in found.values()} == {"h"}


def test_numbers_are_those_of_the_paper():
    """2% of Qwen2-VL-7B's and Qwen2-Audio-7B's neurons, three sets (methods 3.4)."""
    for layers, width, k in ((28, 18_944, 10_608), (32, 11_008, 7_045)):
        w = torch.rand(3, layers, width)
        adaptive = select_neurons(w, NAMES[:3], 0.02, "adaptive")
        assert sum(map(len, adaptive.values())) == len(union(list(adaptive.values()))) == k
        shared = select_neurons(w, NAMES[:3], 0.02)
        assert {len(one) for one in shared.values()} == {k // 3}
        assert len(union(list(shared.values()))) <= k


def test_random_is_uniform_without_replacement_or_the_papers_way():
    w = torch.zeros(2, 3, 50)
    plain = select_neurons(w, NAMES[:2], 0.4, "random", seed=3)
    assert list(plain) == ["random"] and len(plain["random"]) == 60
    assert plain == select_neurons(w, NAMES[:2], 0.4, "random", seed=3)
    assert plain != select_neurons(w, NAMES[:2], 0.4, "random", seed=4)
    again = select_neurons(w, NAMES[:2], 0.4, "random", seed=3, replacement=True)["random"]
    assert len(again) < 60  # 60 of 150 with replacement meet twice, nearly surely
    counts = Counter()
    for seed in range(300):
        counts.update(select_neurons(w, NAMES[:2], 0.1, "random", seed=seed)["random"])
    expected = 300 * 15 / 150
    assert (
        sum((counts[(a, b)] - expected) ** 2 for a in range(3) for b in range(50)) / expected < 220
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"strategy": "uniform", "ratio": 0.1}, r"selects nothing.* give at least 0.2"),
        ({"ratio": 0.0}, "above 0 and at most 1; 0.0 was given"),
        ({"ratio": 1.5}, "1.5 was given"),
        ({"importance": torch.rand(0, 2, 10), "modalities": ()}, "no modality to select"),
        ({"modalities": ("text",)}, "2 modalities, and 1 names"),
        ({"modalities": ("text", "text")}, "all different"),
        ({"importance": torch.full((2, 2, 10), torch.nan)}, "not a finite number"),
    ],
)
def test_bad_selections_are_refused(change, words):
    known = {"importance": torch.rand(2, 2, 10), "modalities": ("text", "image"), "ratio": 0.2}
    with pytest.raises(StatisticsError, match=words):
        select_neurons(**{**known, **change})


@given(
    modalities=st.integers(1, 7),
    layers=st.integers(1, 40),
    width=st.integers(7, 2000),
    strategy=st.sampled_from(STRATEGIES),
)
def test_the_ratio_that_is_advised_selects_something(modalities, layers, width, strategy):
    """Also where it has more digits than are said."""
    w, names = torch.zeros(modalities, layers, width), [str(m) for m in range(modalities)]
    with pytest.raises(StatisticsError, match="selects nothing") as refused:
        select_neurons(w, names, 1e-9, strategy)
    advised = float(str(refused.value).split("at least ")[1].rstrip("."))
    assert len(union(list(select_neurons(w, names, advised, strategy).values())))
    least = smallest_ratio(modalities, layers, width, strategy)
    assert least <= advised <= 1.02 * least


def test_a_union_of_nothing_is_refused():
    with pytest.raises(StatisticsError, match="at least one set"):
        union([])
