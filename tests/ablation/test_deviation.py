"""Deviation of hidden states against plain Hugging Face with zeroed columns, sample by sample."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial import distance

import mmlens
from mmlens import plots
from mmlens.ablation.deviation import cosine_distance, deviation, group_means, relative_l2
from mmlens.ablation.intervention import Intervention
from mmlens.ablation.masks import Mask
from mmlens.errors import SampleError
from mmlens.neurons import NeuronSet
from mmlens.selection.recipe import Recipe
from mmlens.statistics.moments import Moments
from mmlens.streaming.batching import Batching
from tests.helpers.reference import zeroed_columns
from tests.tiny import llava_next as tiny

ZERO = Intervention()

# The formulas


@given(st.integers(0, 10**6), st.floats(1e-4, 10))
def test_both_metrics_are_those_of_numpy_and_scipy(seed, size):
    rng = np.random.default_rng(seed)
    h = rng.normal(size=(5, 12))
    changed = h + size * rng.normal(size=h.shape)
    moved = relative_l2(torch.tensor(h), torch.tensor(changed))
    turned = cosine_distance(torch.tensor(h), torch.tensor(changed))
    for i in range(5):
        expected = math.dist(h[i], changed[i]) / math.hypot(*h[i])
        assert float(moved[i]) == pytest.approx(expected, rel=1e-9)
        assert float(turned[i]) == pytest.approx(distance.cosine(h[i], changed[i]), abs=1e-12)


def test_what_did_not_move_is_exactly_zero():
    h = torch.randn(4, 7, generator=torch.Generator().manual_seed(0))
    h[2] = 0
    assert relative_l2(h, h).tolist() == [0] * 4
    assert cosine_distance(h, h).tolist() == [0] * 4
    assert relative_l2(h, h + 1)[2] == math.inf
    assert cosine_distance(h, -h)[0] == pytest.approx(2)


def test_half_precision_is_read_in_single():
    h = torch.full((1, 4), 300.0, dtype=torch.float16)  # its square is beyond float16
    assert relative_l2(h, 2 * h).tolist() == [1.0]
    assert relative_l2(h.double(), 2 * h.double()).dtype == torch.float64


def test_padding_is_in_no_group_whatever_it_holds():
    before = torch.ones(2, 3, 4)
    after = before * torch.tensor([2.0, 3.0, 5.0])[None, :, None]
    after[0, 0] = torch.nan
    groups = torch.tensor([[[0, 1, 1], [1, 0, 0]], [[0, 0, 0], [0, 1, 0]]], dtype=torch.bool)
    found = group_means(before, after, groups)[:, 0]
    assert found[0].tolist() == [3.0, 1.0]  # (|3-1| + |5-1|) / 2, |2-1|
    assert math.isnan(found[1, 0])
    assert found[1, 1] == 2.0


@given(st.lists(st.lists(st.floats(-100, 100) | st.just(math.nan), max_size=6), min_size=1))
def test_moments_in_parts_are_those_of_the_whole(parts):
    whole = np.array([v for part in parts for v in part if not math.isnan(v)])
    first, *rest = [Moments.of(torch.tensor(part, dtype=torch.float64)) for part in parts]
    for one in rest:
        first = first + one
    assert int(first.n) == len(whole)
    if len(whole):
        assert float(first.mean) == pytest.approx(whole.mean(), abs=1e-9)
    if len(whole) > 1:
        assert float(first.standard_error()) == pytest.approx(stats.sem(whole), abs=1e-7)
    else:
        assert math.isnan(first.standard_error())


# A model


def mask(
    name="red",
    kind="mask",
    seed=-1,
    pairs=((0, 3), (1, 7), (1, 30)),
    module="language",
    intervention=ZERO,
):
    shape = {"language": (3, 48), "vision": (3, 40)}[module]
    neurons = (NeuronSet(pairs, module, shape),)
    return Mask(name, neurons, Recipe.of_domains(0.01), intervention, kind, seed)


def hidden_states(model, batch):
    """What every decoder layer gives, on plain Hugging Face."""
    kept = []
    handles = [
        layer.register_forward_hook(
            lambda _m, _i, out: kept.append(out if isinstance(out, torch.Tensor) else out[0])
        )
        for layer in model.hf.model.language_model.layers
    ]
    try:
        with torch.no_grad():
            model.hf(**batch.inputs)
    finally:
        for handle in handles:
            handle.remove()
    return [h[0].double().numpy() for h in kept]


def expected(model, samples, neurons):
    """(layer, group, metric) -> values per sample, one sample at a time."""
    values = {}
    for sample in samples:
        batch = model.prepare(sample)
        before = hidden_states(model, batch)
        with zeroed_columns(model.hf, neurons):
            after = hidden_states(model, batch)
        for layer, (h, changed) in enumerate(zip(before, after, strict=True)):
            moved = [math.dist(a, b) / math.hypot(*a) for a, b in zip(h, changed, strict=True)]
            turned = [distance.cosine(a, b) for a, b in zip(h, changed, strict=True)]
            for group in ("image", "text", "last"):
                chosen = batch.groups.mask(group)[0].numpy()
                if not chosen.any():
                    continue
                for metric, one in (("relative_l2", moved), ("cosine_distance", turned)):
                    values.setdefault((layer, group, metric), []).append(
                        np.mean(np.array(one)[chosen])
                    )
    return values


@pytest.mark.parametrize("backbone", ["auto", "bridge"])
def test_it_is_what_hugging_face_gives_with_zeroed_columns(samples, backbone):
    model = mmlens.splice(tiny.model("mistral"), tiny.processor(), backbone=backbone)
    masks = [mask("red"), mask("red", "random", 0, [(2, 5)]), mask("all", pairs=[(0, 1), (2, 2)])]
    table = deviation(model, samples, masks, batching=Batching(token_budget=150))
    red = [s for s in samples if s.domain == "red"]
    for one in masks:
        asked = samples if one.label == "all" else red
        values = expected(model, asked, one.neurons[0])
        rows = table[(table["mask"] == one.label) & (table.kind == one.kind)]
        assert len(rows) == len(values) == 3 * 3 * 2
        for row in rows.itertuples():
            own = values[row.layer, row.group, row.metric]
            assert row.n_samples == len(own)
            assert row.mean == pytest.approx(np.mean(own), rel=1e-3, abs=1e-6)
            assert row.se == pytest.approx(stats.sem(own), rel=1e-3, abs=1e-6)
    # The sample without a picture is no sample of the group image.
    everyone = table[table["mask"] == "all"].groupby("group").n_samples.first()
    assert everyone["image"] == len(samples) - 1 < everyone["text"] == len(samples)


def test_layers_before_the_first_neuron_do_not_move(mistral_model, samples):
    table = deviation(mistral_model, samples, [mask(pairs=[(1, 4), (1, 5)])])
    by_layer = table.groupby("layer")["mean"]
    assert by_layer.max()[0] == 0
    assert by_layer.min()[1] > 0
    assert by_layer.min()[2] > 0
    none = deviation(mistral_model, samples, [mask(pairs=[])])
    assert none["mean"].max() == 0


def test_masks_of_a_tower_move_what_the_picture_is_read_from(mistral_model, samples):
    pictured = [s for s in samples if s.images]
    table = deviation(mistral_model, pictured, [mask(pairs=[(0, 2), (1, 3)], module="vision")])
    first = table[(table.layer == 0) & (table.metric == "relative_l2")].set_index("group")["mean"]
    assert first["image"] > 0.001


def test_full_runs_every_mask_on_every_sample(mistral_model, samples):
    own, every = (
        deviation(mistral_model, samples, [mask("blue")], full=full, groups=("last",))
        for full in (False, True)
    )
    assert set(own.n_samples) == {sum(s.domain == "blue" for s in samples)}
    assert set(every.n_samples) == {len(samples)}


def test_what_is_refused(mistral_model, samples):
    with pytest.raises(SampleError, match="'green' has no sample.*blue, red"):
        deviation(mistral_model, samples, [mask("green")])
    with pytest.raises(SampleError, match="same name"):
        deviation(mistral_model, samples, [mask(), mask()])
    with pytest.raises(SampleError, match="token group 'pixels'"):
        deviation(mistral_model, samples, [mask()], groups=("pixels",))


# Its figure


def frame():
    rng = np.random.default_rng(0)
    kinds = [("mask", -1), *((k, s) for k in ("random", "matched") for s in range(3))]
    return pd.DataFrame(
        [
            {
                "mask": name,
                "kind": kind,
                "seed": seed,
                "fraction": 0.01,
                "layer": layer,
                "group": group,
                "metric": metric,
                "mean": float(rng.uniform(0.1, 1)),
                "se": 0.05,
                "n_samples": 20,
            }
            for name in ("a", "b", "all")
            for kind, seed in kinds
            for layer in range(4)
            for group in ("image", "last")
            for metric in ("relative_l2", "cosine_distance")
        ]
    )


def test_the_figure_draws_sets_and_means_of_controls():
    table = frame()
    figure = plots.deviation_by_layer(table, "cosine_distance")
    table = table[table.metric == "cosine_distance"]
    titles = [note.text for note in figure.layout.annotations]
    assert titles == ["image tokens", "last token", "a", "b", "all domains"]
    panels = [(m, g) for m in ("a", "b", "all") for g in ("image", "last")]
    drawn = {"mask": [], "random": [], "matched": []}
    bands = []
    for trace in figure.data:
        if trace.x[0] is None:
            continue
        kind = str(trace.name).split()[0]
        if trace.name.endswith("band"):
            bands.append((kind, trace))
        elif kind in drawn:
            drawn[kind].append(trace)
    for kind, traces in drawn.items():
        assert len(traces) == len(panels)
        for (name, group), trace in zip(panels, traces, strict=True):
            here = table[(table["mask"] == name) & (table.group == group) & (table.kind == kind)]
            wanted = here.groupby("layer")["mean"].mean()
            assert list(trace.y) == pytest.approx(list(wanted))
    spread = table[(table["mask"] == "a") & (table.group == "image") & (table.kind == "random")]
    wanted = spread.groupby("layer")["mean"].agg(lambda v: v.mean() + v.std(ddof=1))
    assert list(bands[0][1].y[:4]) == pytest.approx(list(wanted))
    assert len({t.line.dash for t in (drawn[k][0] for k in drawn)}) == 3  # told without colour
    assert "20 samples, 3 control sets" in figure.layout.title.subtitle.text


def test_the_figure_says_what_is_missing():
    with pytest.raises(ValueError, match="'l1' was asked for"):
        plots.deviation_by_layer(frame(), "l1")
    with pytest.raises(ValueError, match="0.05 was asked for"):
        plots.deviation_by_layer(frame(), fraction=0.05)
    with pytest.raises(ValueError, match=r"lacks \['se'\]"):
        plots.deviation_by_layer(frame().drop(columns="se"))
