"""The last token's attention against the whole pattern, on both backbones; contributions by hand."""

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import mmlens
from mmlens.backbone.build import has_hooked_transformer
from mmlens.errors import SampleError, SpliceError
from mmlens.states.contributions import contribution_table, group_shares, mean_interval, split_last
from mmlens.states.last_token import attention_mass, last_weights, listening, value_norms
from tests.helpers.decoders import IMAGE, LAYERS, build, gemma3
from tests.tiny import family

CASES = [("qwen2_vl", "hooked_transformer"), ("qwen2_vl", "bridge")]
CASES += [("qwen2_audio", "hooked_transformer"), ("qwen2_audio", "bridge"), ("gemma3", "bridge")]


@cache
def spliced(name, backbone):
    if backbone == "hooked_transformer" and not has_hooked_transformer():
        pytest.skip("transformer-lens 4 has no HookedTransformer")
    tiny = family(name)
    hf = tiny.variants[next(iter(tiny.variants))](0)
    with torch.no_grad():  # sharper, so that tokens differ in their weight
        for parameter_name, parameter in hf.named_parameters():
            if "q_proj" in parameter_name and parameter.dim() > 1:
                parameter.mul_(8)
    return mmlens.splice(hf, tiny.processor(), backbone=backbone), tiny.samples()[:3]


def heard(model, batch, layers):
    found = {}

    def keep(layer, last):
        found[layer] = (attention_mass(last), value_norms(last), last)

    with listening(model, batch.groups.mask("last"), layers, keep) as hooks, torch.no_grad():
        model.run_with_hooks(batch, fwd_hooks=hooks)
    return found


def expected(model, batch, layer):
    """From the whole pattern, W_V's output and W_O, a token and a head at a time, in numpy."""
    names = [f"blocks.{layer}.attn.hook_{one}" for one in ("pattern", "v")]
    with torch.no_grad():
        _, cache_ = model.run_with_cache(batch, names)
    pattern, v = (cache_[name].double().numpy() for name in names)
    w_o = model.backbone.blocks[layer].attn.W_O.detach().double().numpy()
    at = batch.groups.mask("last").int().argmax(-1).tolist()
    heads, groups = pattern.shape[1], v.shape[2]
    mass, norms = np.zeros(batch.shape), np.zeros(batch.shape)
    for row in range(batch.shape[0]):
        for t in range(batch.shape[1]):
            weights = [pattern[row, h, at[row], t] for h in range(heads)]
            mass[row, t] = sum(weights) / heads
            parts = [w * v[row, t, h * groups // heads] @ w_o[h] for h, w in enumerate(weights)]
            norms[row, t] = np.linalg.norm(np.sum(parts, axis=0))
    return mass, norms


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(("name", "backbone"), CASES)
def test_equals_the_whole_pattern(name, backbone, side):
    model, samples = spliced(name, backbone)
    batch = model.prepare(samples, padding_side=side)
    assert not bool(batch.groups.attention.all())
    layers = range(model.cfg.n_layers)
    found = heard(model, batch, layers)
    assert list(found) == list(layers)
    for layer in layers:
        mass, norms = expected(model, batch, layer)
        np.testing.assert_allclose(found[layer][0], mass, atol=2e-6)
        np.testing.assert_allclose(found[layer][1], norms, rtol=1e-4, atol=1e-6)
        assert mass.max() > 1.5 / batch.groups.attention.sum(-1).min()  # not flat
        assert not found[layer][0][~batch.groups.attention].any()


def test_without_padding_there_is_no_mask():
    model, samples = spliced("qwen2_audio", "bridge")
    batch = model.prepare(samples[:1])
    assert bool(batch.groups.attention.all())
    mass, _ = expected(model, batch, 0)
    np.testing.assert_allclose(heard(model, batch, [0])[0][0], mass, atol=2e-6)


def test_a_window_hides_what_lies_before_it():
    hf = build(gemma3)
    model = mmlens.splice(hf, backbone="bridge")
    ids = torch.tensor([[1, *[IMAGE] * 4, *range(20, 29)]])
    inputs = {"input_ids": ids, "token_type_ids": (ids == IMAGE).int()}
    inputs |= {"attention_mask": torch.ones_like(ids), "pixel_values": torch.randn(1, 3, 16, 16)}
    batch = model.as_batch(inputs)
    found = heard(model, batch, range(LAYERS))
    assert (found[0][0][0, :-4] == 0).all()
    assert (found[1][0][0, :-4] > 0).all()
    for layer in range(LAYERS):
        np.testing.assert_allclose(found[layer][0], expected(model, batch, layer)[0], atol=2e-6)


def test_it_leaves_no_hook_behind():
    model, samples = spliced("qwen2_vl", "bridge")
    batch = model.prepare(samples)
    layer = model.adapter.decoder().layers[0]
    before = len(layer._forward_pre_hooks)
    heard(model, batch, [0])
    assert len(layer._forward_pre_hooks) == before


def test_sinks_are_refused(monkeypatch):
    model, samples = spliced("qwen2_vl", "bridge")
    attention = model.adapter.decoder().layers[1].self_attn
    monkeypatch.setattr(attention, "sinks", torch.zeros(4), raising=False)
    with pytest.raises(SpliceError, match="layer 1 has sinks"):
        heard(model, model.prepare(samples), [1])


def test_the_cap_and_an_added_mask():
    q, k = torch.randn(2, 4, 8), torch.randn(2, 5, 2, 8)
    allowed = torch.tensor([[True] * 5, [False, False, True, True, True]])
    added = torch.where(allowed, 0.0, torch.finfo(torch.float32).min)
    capped = last_weights(q, k, allowed, 3.0, softcap=0.5)
    torch.testing.assert_close(last_weights(q, k, added, 3.0, softcap=0.5), capped)
    for row in range(2):
        for head in range(4):
            scores = 3 * k[row, :, head // 2].double() @ q[row, head].double()
            scores = 0.5 * torch.tanh(scores / 0.5)
            weights = scores.exp() * allowed[row]
            torch.testing.assert_close(capped[row, head].double(), weights / weights.sum())
    nothing = last_weights(q, k, torch.zeros(2, 5, dtype=torch.bool), 1.0)
    assert (nothing == 0).all()


@given(st.integers(0, 1000))
def test_shares_sum_to_one(seed):
    generator = torch.Generator().manual_seed(seed)
    amounts = torch.rand(3, 7, generator=generator)
    kind = torch.randint(0, 3, (3, 7), generator=generator)
    last = torch.zeros(3, 7, dtype=torch.bool)
    last[:, -1] = True
    groups = split_last({str(g): kind == g for g in range(3)}, last)
    assert torch.equal(torch.stack(list(groups.values())).sum(0), torch.ones(3, 7).long())
    shares = group_shares(amounts, torch.stack(list(groups.values())))
    torch.testing.assert_close(shares.sum(-1), torch.ones(3))
    for row in range(3):
        own = sum(float(amounts[row, t]) for t in range(6) if kind[row, t] == 1)
        assert float(shares[row, 1]) == pytest.approx(own / float(amounts[row].sum()), rel=1e-5)


def test_intervals_against_scipy():
    from scipy.stats import bootstrap

    values = np.random.default_rng(0).gamma(1.0, size=(60, 2))
    mean, low, high = mean_interval(values, draws=4000)
    for cell in range(2):
        theirs = bootstrap(
            (values[:, cell],), np.mean, n_resamples=4000, method="percentile", rng=1
        ).confidence_interval
        assert mean[cell] == pytest.approx(values[:, cell].mean())
        assert low[cell] == pytest.approx(theirs.low, abs=0.03)
        assert high[cell] == pytest.approx(theirs.high, abs=0.03)
    values[:, 1] = np.nan
    assert np.isnan(np.array(mean_interval(values))[:, 1]).all()
    with pytest.raises(SampleError, match="at least one sample"):
        mean_interval(values[:0])


def test_delta_is_paired():
    """Samples differ far more than the setting changes each: only pairing shows the change."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(30):
        share = float(rng.uniform(0.1, 0.8))
        for setting, moved in (("none", 0.0), ("mask", 0.05 + 0.001 * rng.normal())):
            curve = [share + moved, share]
            shares = {"image": curve, "text": [1 - x for x in curve], "video": [0.0, 0.0]}
            row = {"setting": setting, "id": str(i), "attention_layers": [3, 5]}
            rows.append(row | {"shares": {"attention": shares}})
    rows = [row for row in rows if (row["setting"], row["id"]) != ("none", "7")]
    table = contribution_table(rows, "none").set_index(["setting", "group", "layer"])
    assert set(table.index.get_level_values("group")) == {"image", "text"}  # video never occurs
    moved = table.loc[("mask", "image", 3)]
    assert 0.045 < moved.delta_low < moved.delta < moved.delta_high < 0.055
    assert moved.high - moved.low > 0.1
    assert table.loc[("mask", "image", 5)].delta == 0
    assert table.loc[("mask", "text", 3)].delta == pytest.approx(-moved.delta)
    assert np.isnan(table.loc["none"].delta).all()
    assert set(table.loc["none"].n_samples) == {29}
    assert set(table.loc["mask"].n_samples) == {30}
    assert set(table.loc["mask"].n_paired) == {29}
    assert np.isnan(contribution_table(rows, None).delta).all()
