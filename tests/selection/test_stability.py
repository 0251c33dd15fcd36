"""Stability of the sets against tokens: parts, their sums, and Jaccard recomputed by hand."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import mmlens
from mmlens import plots
from mmlens.data.halves import split, sum_of
from mmlens.data.samples import Sample
from mmlens.errors import SampleError, StatisticsError, TooManyFailuresError
from mmlens.selection.stability import stability
from mmlens.statistics.neuron_statistics import ModuleStatistics, NeuronStatistics
from mmlens.streaming.batching import Batching
from mmlens.streaming.collect import collect_parts

DOMAINS = ("red", "blue")


def questions(counts):
    return [Sample(f"{d}{i}", "?", domain=d) for d, n in counts.items() for i in range(n)]


@given(
    st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(2, 70), min_size=1),
    st.integers(1, 7),
)
def test_parts_are_disjoint_and_double_the_data(counts, levels):
    samples = questions(counts)
    halves = split(samples, levels=levels)
    ids = [s.id for half in halves for part in half for s in part]
    assert sorted(ids) == sorted(s.id for s in samples)
    assert len({len(half) for half in halves}) == 1
    assert all(part for half in halves for part in half)
    for half in halves:
        seen = Counter()
        for j, part in enumerate(half):
            seen.update(s.domain for s in part)
            if len(half) == levels:
                for domain, n in counts.items():
                    whole = sum(s.domain == domain for p in half for s in p)
                    share = whole / 2 ** (levels - 1 - j)
                    assert abs(seen[domain] - max(share, 1)) <= 0.5
                    assert abs(whole - n / 2) <= 0.5
        assert set(seen) == set(counts)


def test_splitting_is_drawn_with_a_seed():
    samples = questions({"a": 40})
    ids = [
        [[s.id for s in part] for half in split(samples, seed=n) for part in half] for n in (0, 1)
    ]
    assert ids[0] != ids[1]
    assert ids[0] == [[s.id for s in part] for half in split(samples) for part in half]


def test_a_domain_needs_two_samples():
    with pytest.raises(SampleError, match="'a' has one sample"):
        split(questions({"a": 1, "b": 9}))
    with pytest.raises(SampleError, match="levels"):
        split(questions({"a": 4}), levels=0)


# Selection on made-up counts


def statistics(counts, tokens):
    """Counts [layer, neuron, domain] as collected statistics."""
    positive = torch.as_tensor(counts).permute(2, 0, 1)[:, None]
    empty = ModuleStatistics.empty(len(DOMAINS), 1, *positive.shape[2:])
    one = replace(empty, positive=positive, tokens=torch.tensor(tokens)[:, None])
    samples = torch.ones(len(DOMAINS), dtype=torch.int64)
    return NeuronStatistics(
        {"language": one}, DOMAINS, {"language": ("prompt",)}, "domain", samples, {}
    )


def drawn(rng, p, sizes):
    return [statistics(rng.binomial(n, p), [n, n]) for n in sizes]


def by_hand(counts, tokens, fraction, quantile):
    """Sets as plain Python sets: sorted lists instead of tensors."""
    layers, width, k = counts.shape
    p = {
        (a, b): [counts[a, b, i] / tokens[i] for i in range(k)]
        for a, b in np.ndindex(layers, width)
    }
    ordered = sorted(v for values in p.values() for v in values)
    tau = ordered[round(quantile * len(ordered)) - 1]

    def entropy(values):
        shares = [v / sum(values) for v in values if v]
        return -sum(s * math.log(s) for s in shares)

    passing = [u for u, values in p.items() if max(values) > tau]
    passing.sort(key=lambda u: (round(entropy(p[u]), 12), u))
    chosen = passing[: round(fraction * len(p))]
    sets = {d: {u for u in chosen if p[u][i] > tau} for i, d in enumerate(DOMAINS)}
    return {**sets, "all": set(chosen)}


def test_every_row_is_that_of_sets_by_hand():
    rng = np.random.default_rng(3)
    p = rng.beta(0.6, 4, size=(2, 60, 2))
    sizes = [40, 40, 80]
    halves = [drawn(rng, p, sizes) for _ in range(2)]
    table = stability(halves, DOMAINS, fraction=0.1, quantile=0.9)
    raw = [[one.counts("language", keys=DOMAINS) for one in half] for half in halves]
    arrays = [[(c.numpy(), n.numpy()) for c, n in half] for half in raw]

    def sets(parts):
        counts, tokens = (sum(one[i] for one in parts) for i in (0, 1))
        return by_hand(counts, tokens, 0.1, 0.9)

    everything = sets(arrays[0] + arrays[1])
    assert len(table) == 3 * 3 * 3
    different = set()
    for row in table.itertuples():
        upto = [sets(half[: row.part + 1]) for half in arrays]
        a, b = upto if row.comparison == "halves" else (upto[row.half], everything)
        one, other = a[row.domain], b[row.domain]
        assert (row.n_neurons, row.n_reference) == (len(one), len(other))
        assert row.jaccard == pytest.approx(len(one & other) / len(one | other))
        assert row.tokens == sum(sizes[: row.part + 1])
        different.add(row.jaccard)
    assert len(different) > 5
    assert {(r.comparison, r.half) for r in table.itertuples()} == {
        ("full", 0),
        ("full", 1),
        ("halves", -1),
    }


def test_more_tokens_make_sets_more_alike():
    rng = np.random.default_rng(0)
    p = rng.beta(0.6, 4, size=(4, 250, 2))
    halves = [drawn(rng, p, [50, 450, 4500, 45000]) for _ in range(2)]
    table = stability(halves, DOMAINS, fraction=0.05)
    for comparison in ("full", "halves"):
        chosen = table[(table.comparison == comparison) & (table.domain == "all")]
        means = list(chosen.groupby("part").jaccard.mean())
        assert means == sorted(means)
        assert means[0] < 0.6
        assert means[-1] > 0.9


def test_a_part_without_tokens_of_a_domain_is_refused():
    rng = np.random.default_rng(0)
    halves = [drawn(rng, rng.uniform(size=(1, 20, 2)), [10]) for _ in range(2)]
    empty = statistics(np.zeros((1, 20, 2), dtype=np.int64), [0, 10])
    with pytest.raises(StatisticsError, match="at least one token"):
        stability([[empty], halves[1]], DOMAINS)


# Collection


def test_the_parts_add_up_to_one_collection(mistral_model, samples, tmp_path, monkeypatch):
    halves = split(samples, levels=2)
    parts = collect_parts(
        mistral_model,
        halves,
        tmp_path,
        groups=("prompt", "image"),
        batching=Batching(progress=False),
    )
    whole = mmlens.collect(
        mistral_model, samples, groups=("prompt", "image"), batching=Batching(progress=False)
    )
    total = sum_of(parts)
    assert torch.equal(total.samples, whole.samples)
    ours, theirs = total.modules["language"], whole.modules["language"]
    assert torch.equal(ours.tokens, theirs.tokens)
    assert torch.equal(ours.positive, theirs.positive)
    assert torch.allclose(ours.total, theirs.total, atol=1e-3)
    table = stability(parts, total.keys, fraction=0.1, quantile=0.8)
    assert len(table) == 3 * len(parts[0]) * 3
    monkeypatch.setattr(type(mistral_model), "forward", lambda *a, **k: pytest.fail("ran again"))
    again = collect_parts(
        mistral_model,
        halves,
        tmp_path,
        groups=("prompt", "image"),
        batching=Batching(progress=False),
    )
    assert torch.equal(sum_of(again).modules["language"].positive, ours.positive)


def test_the_cap_on_unreadable_samples_is_on_all_of_them(mistral_model, samples, tmp_path):
    broken = Sample("gone", "what ?", (str(tmp_path / "nowhere.png"),), domain="red")
    halves = split([*samples, broken], levels=2)
    parts = collect_parts(
        mistral_model, halves, batching=Batching(max_failures=0.1, progress=False)
    )
    assert set(sum_of(parts).skipped) == {"gone"}
    with pytest.raises(TooManyFailuresError, match="1 of 11"):
        collect_parts(mistral_model, halves, batching=Batching(max_failures=0.05, progress=False))


# Its figure


def test_the_figure_draws_means_over_halves():
    rng = np.random.default_rng(3)
    halves = [drawn(rng, rng.beta(0.6, 4, size=(2, 60, 2)), [40, 40, 80]) for _ in range(2)]
    table = stability(halves, DOMAINS, fraction=0.1, quantile=0.9)
    figure = plots.stability_curves(table)
    lines = {(t.legendgroup, t.xaxis): t for t in figure.data}
    assert set(lines) == {(d, x) for d in (*DOMAINS, "all", "chance") for x in ("x", "x2")}
    for (domain, axis), line in lines.items():
        if domain == "chance":
            continue
        chosen = table[
            (table.domain == domain) & (table.comparison == ("full" if axis == "x" else "halves"))
        ]
        assert list(line.y) == pytest.approx(list(chosen.groupby("part").jaccard.mean()))
        assert list(line.x) == [40, 80, 160]
    assert figure.layout.xaxis.type == figure.layout.xaxis2.type == "log"
    looks = {(t.line.dash, t.marker.symbol) for t in figure.data}
    assert len(looks) == 4
    with pytest.raises(ValueError, match="'vision' was asked for"):
        plots.stability_curves(table, "vision")
    with pytest.raises(ValueError, match="0.5 was asked for"):
        plots.stability_curves(table, fraction=0.5)
