"""Scores against plain loops over tokens in float64, written from methods 3.2; matrix algebra."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmlens.errors import SampleError, StatisticsError
from mmlens.importance import (
    SCORES,
    WEIGHTS,
    ImportanceScores,
    min_max,
    token_set_scores,
    weight_vector,
)
from mmlens.importance.attention_weights import Heads, set_weights
from mmlens.importance.formulas import check_scores
from mmlens.importance.reduction import TokenSets, row_scores

MODES = ("paper", "causal")


def looped(x, attention, mode):
    """Every score of one set by loops: no identity, no matrix product."""
    n, neurons = x.shape
    prob, mean, attn_k, attn_q = (np.zeros(neurons) for _ in range(4))
    largest = np.full(neurons, -np.inf)
    for t in range(n):
        prob += (x[t] > 0) / n
        mean += x[t] / n
        largest = np.where(x[t] > largest, x[t], largest)
    if mode == "paper":
        over_queries = np.array(
            [sum(math.exp(attention[q, k]) for q in range(n)) for k in range(n)]
        )
        over_keys = np.array([sum(math.exp(attention[q, k]) for k in range(n)) for q in range(n)])
    for q in range(n):
        for k in range(n):
            a = attention[q, k]
            if mode == "paper":
                attn_k += math.exp(a) / over_queries[k] * x[q]
                attn_q += math.exp(a) / over_keys[q] * x[k]
            else:
                attn_k += a * x[q]
                attn_q += a * x[k]
    rows = []
    for score in (prob, mean, largest, attn_k, attn_q):
        span = score.max() - score.min()
        rows.append((score - score.min()) / span if span else np.zeros(neurons))
    return np.stack(rows)


def random_set(tokens, neurons=5, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(tokens, neurons))
    scores = rng.normal(size=(tokens, tokens + 3)) * 2  # keys outside the set take their share
    attention = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    return x, attention[:, :tokens]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("tokens", [1, 2, 7, 300])
def test_scores_equal_loops_over_tokens(tokens, mode):
    x, attention = random_set(tokens, 3)
    expected = looped(x, attention, mode)
    for dtype, tolerance in ((torch.float32, 2e-5), (torch.float64, 1e-10)):
        given = (torch.tensor(one, dtype=dtype) for one in (x, attention))
        got = token_set_scores(*given, mode).double().numpy()
        assert np.abs(got - expected).max() < tolerance


@given(tokens=st.integers(1, 12), seed=st.integers(0, 10_000), mode=st.sampled_from(MODES))
def test_row_and_column_sums_are_the_official_double_sums(tokens, seed, mode):
    """The identity: sum_k sum_q K_qk X_qj = sum_q (sum_k K_qk) X_qj, and its twin."""
    x, attention = random_set(tokens, 3, seed)
    if mode == "paper":
        paid = np.exp(attention) / np.exp(attention).sum(0, keepdims=True)
        received = np.exp(attention) / np.exp(attention).sum(1, keepdims=True)
    else:
        paid = received = attention
    # The sums as the official code forms them: a matrix [token, neuron] first, then its sum.
    by_queries = (paid[:, :, None] * x[:, None, :]).sum(0).sum(0)
    by_keys = (received[:, :, None] * x[None, :, :]).sum(1).sum(0)
    got = token_set_scores(
        torch.tensor(x), torch.tensor(attention), mode, ["attn_k", "attn_q"]
    ).numpy()
    for row, expected in zip(got, (by_queries, by_keys), strict=True):
        span = np.ptp(expected)
        assert np.allclose(row, (expected - expected.min()) / span if span else 0.0, atol=1e-9)


def test_uniform_attention_weighs_all_tokens_alike():
    x, _ = random_set(6)
    uniform = torch.full((6, 6), 1 / 6, dtype=torch.float64)
    for mode in MODES:
        got = token_set_scores(torch.tensor(x), uniform, mode)
        for row in (3, 4):
            assert torch.allclose(got[row], got[SCORES.index("mean")])


def test_the_two_modes_differ_where_attention_has_a_sink():
    x, _ = random_set(5)
    sink = torch.full((5, 5), 0.01, dtype=torch.float64)
    sink[:, 0] = 0.9
    paper, causal = (token_set_scores(torch.tensor(x), sink, mode) for mode in MODES)
    assert (paper[4] - causal[4]).abs().max() > 0.1


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=8))
def test_min_max_lies_in_0_to_1_and_is_never_nan(values):
    got = min_max(torch.tensor([values]))
    assert bool(((got >= 0) & (got <= 1)).all())
    if max(values) == min(values):
        assert not got.any()
    else:
        assert float(got.max()) == 1 and float(got.min()) == 0


def test_constant_activations_give_zero():
    constant = torch.full((4, 6), 0.3)
    got = token_set_scores(constant, torch.full((4, 4), 0.25), "causal")
    assert not got.any() and not got.isnan().any()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((torch.ones(0, 3), None, "paper", ["mean"]), "at least one token"),
        ((torch.ones(2, 3), None, "paper"), "reads attention"),
        ((torch.ones(2, 3), None, "causal", ["sum"]), "some of prob"),
        ((torch.ones(2, 3), None, "causal", []), "none"),
        ((torch.ones(2, 3), None, "causal", ["mean", "mean"]), "each once"),
    ],
)
def test_bad_sets_are_refused(arguments, words):
    with pytest.raises(SampleError, match=words):
        token_set_scores(*arguments)


def test_an_unknown_attention_mode_is_refused():
    with pytest.raises(SampleError, match="'paper' .* or 'causal' .*'full' was given"):
        check_scores(SCORES, "full")


# -- streamed pieces ------------------------------------------------------------------------------


def heads_of(tokens, *, heads=4, key_heads=2, size=8, seed=0, mask=None, cap=None):
    rng = torch.Generator().manual_seed(seed)
    q = torch.randn(heads, tokens, size, generator=rng)
    k = torch.randn(key_heads, tokens, size, generator=rng)
    return Heads(q, k, size**-0.5, cap, mask)


def dense(heads, mode):
    """The attention by numpy, head by head, in float64."""
    q, k = heads.queries.double().numpy(), heads.keys.double().numpy()
    tokens, total = q.shape[1], 0
    for h in range(len(q)):
        s = q[h] @ k[h * len(k) // len(q)].T * heads.scale
        if heads.soft_cap is not None:
            s = heads.soft_cap * np.tanh(s / heads.soft_cap)
        if mode == "causal":
            if heads.mask is None:
                s = np.where(np.tril(np.ones((tokens, tokens))) > 0, s, -np.inf)
            elif heads.mask.dtype == torch.bool:
                s = np.where(heads.mask[0].numpy(), s, -np.inf)
            else:
                s = s + heads.mask[0].double().numpy()
        e = np.exp(s - s.max(1, keepdims=True))
        total = total + e / e.sum(1, keepdims=True)
    return total / len(q)


def masks(tokens):
    window = torch.ones(tokens, tokens, dtype=torch.bool).tril().triu(-3)
    prefix = torch.ones(tokens, tokens, dtype=torch.bool).tril()
    prefix[:4, :4] = True
    added = torch.zeros(tokens, tokens).masked_fill(~window, torch.finfo(torch.float32).min)
    return {"none": None, "window": window[None], "prefix": prefix[None], "added": added[None]}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("mask", ["none", "window", "prefix", "added"])
@pytest.mark.parametrize(("block", "held"), [(1 << 21, 1 << 24), (150, 1 << 24), (150, 0)])
def test_blocked_attention_equals_dense(monkeypatch, mode, mask, block, held):
    """Also where a block is a few queries, so that nothing of size tokens x tokens exists."""
    monkeypatch.setattr("mmlens.importance.attention_weights._BLOCK", {"cpu": block})
    monkeypatch.setattr("mmlens.importance.attention_weights._HELD", held)
    tokens = 23
    heads = heads_of(tokens, mask=masks(tokens)[mask], cap=3.0 if mask == "window" else None)
    rng = np.random.default_rng(0)
    sets = torch.tensor(rng.random((3, tokens)) < 0.4)
    sets[2] = True
    got = set_weights(heads, sets, mode).double().numpy()
    attention = dense(heads, mode)
    for number, chosen in enumerate(sets.numpy()):
        a = attention[np.ix_(chosen, chosen)]
        if mode == "paper":
            e = np.exp(a)
            paid, received = (e / e.sum(0)).sum(1), (e / e.sum(1, keepdims=True)).sum(0)
        else:
            paid, received = a.sum(1), a.sum(0)
        assert np.abs(got[0, number][chosen] - paid).max() < 1e-5
        assert np.abs(got[1, number][chosen] - received).max() < 1e-5
        assert not got[:, number][:, ~chosen].any()


@given(
    tokens=st.integers(1, 20),
    seed=st.integers(0, 1000),
    mode=st.sampled_from(MODES),
    step=st.sampled_from([7, 1 << 18]),
)
def test_row_scores_equal_the_reference_for_every_set(tokens, seed, mode, step):
    """Overlapping sets, in any order, through classes and slices."""
    from mmlens.importance import reduction

    rng = np.random.default_rng(seed)
    sets = rng.random((4, tokens)) < 0.5
    sets[0] = True
    sets = sets[sets.any(1)]
    pre = torch.tensor(rng.normal(size=(tokens, 6)), dtype=torch.float32)
    heads = heads_of(tokens, seed=seed)
    before = reduction._SLICE
    reduction._SLICE = {"cpu": step}
    try:
        got = row_scores(
            pre, torch.nn.functional.silu, TokenSets.of(torch.tensor(sets)), heads, mode, SCORES
        )
    finally:
        reduction._SLICE = before
    attention = dense(heads, mode)
    x = (pre.double() / (1 + torch.exp(-pre.double()))).numpy()
    for number, chosen in enumerate(sets):
        a = attention[np.ix_(chosen, chosen)]
        assert np.abs(got[:, number].numpy() - looped(x[chosen], a, mode)).max() < 1e-3


# -- the matrix -----------------------------------------------------------------------------------


def scores_of(datasets, samples, seed=0, groups=("text", "image"), **more):
    rng = torch.Generator().manual_seed(seed)
    shape = (len(datasets), len(SCORES), len(groups), 2, 3)
    number = torch.tensor(samples)
    sums = torch.rand(shape, generator=rng, dtype=torch.float64) * number[:, None, :, None, None]
    known = dict(
        sums=sums,
        samples=number,
        datasets=tuple(datasets),
        scores=SCORES,
        groups=tuple(groups),
        by="domain",
        attention_mode="causal",
        skipped={},
        model_hash="m",
    )
    return ImportanceScores(**{**known, **more})


def test_matrix_is_the_mean_over_samples_then_over_data_sets_that_have_the_group():
    scores = scores_of(["a", "b", "c"], [[4, 2], [3, 0], [1, 5]])
    got = scores.matrix()
    sums = scores.sums.numpy()
    text = (sums[0, :, 0] / 4 + sums[1, :, 0] / 3 + sums[2, :, 0] / 1) / 3
    image = (sums[0, :, 1] / 2 + sums[2, :, 1] / 5) / 2
    assert np.allclose(got[:, 0], text) and np.allclose(got[:, 1], image)
    assert np.allclose(scores.matrix(["b"])[:, 0], sums[1, :, 0] / 3)
    assert scores.present() == ("text", "image") and scores.present(["b"]) == ("text",)


def test_weights_combine_scores():
    scores = scores_of(["a"], [[2, 2]])
    matrix = scores.matrix().numpy()
    paper = 0.25 * matrix[1] + 0.25 * matrix[2] + 0.5 * matrix[3]
    assert np.allclose(scores.combine(), paper)
    assert np.allclose(scores.combine([0.2] * 5, ["image"]), matrix.mean(0)[1:])
    assert np.allclose(scores.combine({"max": 0.5, "prob": 0.5})[0], (matrix[2] + matrix[0])[0] / 2)
    assert all(abs(sum(w) - 1) < 1e-12 for w in WEIGHTS.values())


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ("best", "no weights 'best'"),
        ([0.5, 0.5], "one number for each"),
        ([0.5, 0.6, 0.0, 0.0, 0.0], "sum 1"),
        ([0.5, float("nan"), 0.5, 0.0, 0.0], "sum 1"),
        ([1.5, -0.5, 0.0, 0.0, 0.0], "none negative"),
        ({"sum": 1.0}, "was not collected"),
    ],
)
def test_bad_weights_are_refused(weights, words):
    with pytest.raises(StatisticsError, match=words):
        weight_vector(weights)


def test_weights_of_attention_need_attention():
    with pytest.raises(StatisticsError, match="'attn_k', which was not collected"):
        weight_vector("paper", ("mean", "max"))


def test_parts_merge_exactly_in_any_order_and_grouping():
    a = scores_of(["a", "b"], [[4, 2], [3, 0]], 1)
    b = scores_of(["b", "c"], [[1, 1], [2, 2]], 2)
    both = a + b
    assert both.datasets == ("a", "b", "c")
    assert torch.equal(both.samples, torch.tensor([[4, 2], [4, 1], [2, 2]]))
    assert torch.equal(both.sums, (b + a).sums)
    assert torch.equal(both.sums[1], a.sums[1] + b.sums[0])


@pytest.mark.parametrize(
    "change",
    [
        {"model_hash": "other"},
        {"attention_mode": "paper"},
        {"by": "task"},
        {"template": "plain"},
        {"groups": ("text", "video")},
    ],
)
def test_parts_of_different_models_or_settings_do_not_merge(change):
    a, b = scores_of(["a"], [[1, 1]]), scores_of(["a"], [[1, 1]], **change)
    with pytest.raises(StatisticsError, match="do not belong together"):
        a + b


def test_a_group_that_never_occurs_is_named():
    scores = scores_of(["a", "b"], [[4, 0], [3, 0]])
    with pytest.raises(StatisticsError, match="No sample of a, b has a token of group 'image'"):
        scores.combine()
    assert scores.combine(groups=scores.present()).shape == (1, 2, 3)
    with pytest.raises(StatisticsError, match="'video' was not collected"):
        scores.combine(groups=["video"])
    with pytest.raises(StatisticsError, match="'z' was not collected"):
        scores.matrix(["z"])
    with pytest.raises(StatisticsError, match="No data set was named; name some of a, b"):
        scores.matrix([])
    with pytest.raises(StatisticsError, match="No group was named; .* of which text occur"):
        scores.combine(groups=[])


def test_files_give_back_what_was_saved(tmp_path):
    scores = scores_of(["a", "b"], [[4, 1], [3, 2]], skipped={"x": "torn"})
    scores.save(tmp_path / "i.safetensors")
    back = ImportanceScores.load(tmp_path / "i.safetensors")
    assert torch.equal(back.sums, scores.sums) and torch.equal(back.samples, scores.samples)
    assert (back.datasets, back.groups, back.skipped) == (
        ("a", "b"),
        ("text", "image"),
        {"x": "torn"},
    )
    (tmp_path / "i.safetensors").write_bytes(b"nothing")
    with pytest.raises(StatisticsError, match="damaged"):
        ImportanceScores.load(tmp_path / "i.safetensors")
    with pytest.raises(FileNotFoundError):
        ImportanceScores.load(tmp_path / "none.safetensors")
