"""Token states over a data set: against single prompts; batches, restarts, bad input; tables, sections."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

import mmlens
from mmlens import plots
from mmlens.ablation.conditions import Condition
from mmlens.ablation.intervention import Intervention
from mmlens.errors import RunFolderError, SampleError
from mmlens.neurons import NeuronSet
from mmlens.report.sections import Figure, Table
from mmlens.report.states import convergence_table, state_sections
from mmlens.states.conditions import mask_conditions
from mmlens.states.reduction import chosen_tokens
from mmlens.states.study import study_states
from mmlens.states.tables import METRIC_COLUMNS, contributions, metric_table, scatter_table
from mmlens.storage.assets import asset
from mmlens.streaming.batching import Batching
from mmlens.tokens.groups import BASE_GROUPS
from tests.helpers import models

LAYERS = (-1, 1, 5)
OPTIONS = dict(layers=LAYERS, permutations=6, group_tokens=10, pooled_tokens=60)


@pytest.fixture(scope="module")
def demo():
    return models.demo("qwen2-audio")


@pytest.fixture(scope="module")
def samples():
    every = mmlens.load_samples("demo/qwen2-audio", "validation")
    return [every[i] for i in (0, 7, 900, 1500, 2600)]


@pytest.fixture(scope="module")
def settings(demo, samples):
    rng = np.random.default_rng(0)
    layers, width = demo.module("language").shape
    pairs = [(i, int(j)) for i in range(layers) for j in rng.choice(width, 20, replace=False)]
    neurons = NeuronSet(pairs, "language", (layers, width))
    return mask_conditions(samples, [neurons])


@pytest.fixture(scope="module")
def study(demo, samples, settings, tmp_path_factory):
    return study_states(demo, samples, settings, tmp_path_factory.mktemp("states"), **OPTIONS)


def row_of(study, setting, sample):
    return next(r for r in study.rows if (r["setting"], r["id"]) == (setting, sample.id))


def states_of(model, sample, setting):
    """The states of one prompt alone, after each layer of LAYERS, float64."""
    batch = model.prepare([sample])
    names = [
        "blocks.0.hook_resid_pre" if layer < 0 else f"blocks.{layer}.hook_resid_post"
        for layer in LAYERS
    ]
    hooks = setting.intervention.hooks(setting.neurons, model, batch)
    with torch.no_grad(), model.hooks(fwd_hooks=hooks):
        _, cache = model.run_with_cache(batch, names)
    labels = np.full(batch.shape[1], -1)
    for group, mask in batch.groups.base.items():
        labels[mask[0].numpy()] = BASE_GROUPS.index(group)
    return labels, [cache[name][0].double().numpy() for name in names]


def test_the_settings(settings, samples):
    none, mask, complement, random = settings
    assert [s.name for s in settings] == ["none", "mask", "complement", "random"]
    assert none.neurons == () and complement.intervention == Intervention("keep_only")
    assert complement.neurons == mask.neurons
    (one,), (other,) = mask.neurons, random.neurons
    assert len(one & other) == 0 and len(one) == len(other)
    assert all(s.ids == {x.id for x in samples} for s in settings)


def test_indices_equal_plain_loops(demo, samples, settings, study):
    for setting in settings:
        labels, states = states_of(demo, samples[1], setting)
        found = row_of(study, setting.name, samples[1])["indices"]
        audio, special, text = (BASE_GROUPS.index(g) for g in ("audio", "special", "text"))
        probing, telomere = found["probing"]["audio"], found["telomere"]["special"]
        assert probing["of"] == min(10, int((labels == audio).sum()))
        assert telomere["of"] == int((labels == special).sum())
        assert len(probing["hits"]) == len(LAYERS)
        assert all(len(hits) == 7 for hits in probing["hits"] + telomere["hits"])
        for layer, h in enumerate(states):
            unit = h / np.linalg.norm(h, axis=1, keepdims=True)
            d = 1 - unit @ unit.T
            np.fill_diagonal(d, np.inf)
            near = d.argmin(1)
            hangs = [i for i in np.flatnonzero(labels == special) if labels[near[i]] == text]
            assert found["telomere_any"]["special"]["hits"][layer][0] == len(hangs)
            close = sum(abs(int(near[i]) - int(i)) <= 2 for i in hangs)
            assert telomere["hits"][layer][0] == close


def test_probing_of_all_tokens(demo, samples, settings, tmp_path):
    """Of a group that is short enough nothing is drawn."""
    options = {**OPTIONS, "group_tokens": 500}
    study = study_states(
        demo, samples[:1], [Condition("none", (), frozenset({samples[0].id}))], tmp_path, **options
    )
    labels, states = states_of(demo, samples[0], settings[0])
    own = labels == BASE_GROUPS.index("audio")
    for layer, h in enumerate(states):
        unit = h / np.linalg.norm(h, axis=1, keepdims=True)
        d = 1 - unit @ unit.T
        median = np.median(d[own][:, own][np.triu_indices(own.sum(), 1)])
        hits = (d[own][:, ~own].min(1) < median).sum()
        assert study.rows[0]["indices"]["probing"]["audio"]["hits"][layer][0] == hits


def test_kept_tokens_are_the_states(demo, samples, settings, study):
    assert study.plan.kept_tokens == 60 // (5 * 3)
    for setting in settings[:3]:
        for i, layer in enumerate(LAYERS):
            kept = study.kept(setting.name, layer)
            assert kept.ids == tuple(s.id for s in samples)
            own = kept.samples == 2
            labels, states = states_of(demo, samples[2], setting)
            places = kept.positions[own].numpy()
            assert (labels[places] == kept.labels[own].numpy()).all()
            assert len(places) == 12
            np.testing.assert_allclose(kept.states[own].numpy(), states[i][places], atol=2e-4)
    first, masked = (study.kept(name, 5) for name in ("none", "mask"))
    assert torch.equal(first.positions, masked.positions)
    assert not torch.allclose(first.states, masked.states)
    with pytest.raises(SampleError, match="condition 'other' at layer 5"):
        study.kept("other", 5)


def test_shares_of_the_untouched_model(demo, samples, study):
    batch = demo.prepare([samples[3]])
    with torch.no_grad():
        _, cache = demo.run_with_cache(batch, ["blocks.1.attn.hook_pattern"])
    row = cache["blocks.1.attn.hook_pattern"][0, :, -1].mean(0)
    found = row_of(study, "none", samples[3])
    assert found["attention_layers"] == [1, 5]
    shares = found["shares"]["attention"]
    assert shares["audio"][0] == pytest.approx(
        float(row[batch.groups.mask("audio")[0]].sum()), abs=1e-5
    )
    assert shares["last"][0] == pytest.approx(float(row[-1]), abs=1e-5)
    for measure in found["shares"].values():
        assert np.sum([curve for curve in measure.values()], axis=0) == pytest.approx([1, 1])


def test_batches_do_not_matter(demo, samples, settings, study, tmp_path):
    alone = study_states(
        demo, samples, settings, tmp_path, batching=Batching(max_batch=1), **OPTIONS
    )
    a, b = metric_table(study), metric_table(alone)
    pd.testing.assert_frame_equal(
        a, b, atol=0.03, rtol=1e-3
    )  # one neighbour may change in rounding
    assert (a.value - b.value).abs().median() < 1e-4
    pd.testing.assert_frame_equal(contributions(study), contributions(alone), atol=1e-4)


def test_goes_on_where_it_stopped(demo, samples, settings, study, tmp_path):
    whole = study_states(
        demo, samples, settings, tmp_path, batching=Batching(max_batch=2), **OPTIONS
    )
    path = tmp_path / "states.jsonl"
    lines = path.read_text().splitlines()
    assert len(lines) == 1 + 4 * len(samples)
    path.write_text("\n".join(lines[:6]) + "\n" + lines[6][:40])  # a kill in the middle of a line
    again = study_states(
        demo, samples, settings, tmp_path, batching=Batching(max_batch=2), **OPTIONS
    )
    assert 0 < again.tokens < whole.tokens
    assert again.rows == whole.rows
    pd.testing.assert_frame_equal(metric_table(again), metric_table(whole))
    third = study_states(
        demo, samples, settings, tmp_path, batching=Batching(max_batch=2), **OPTIONS
    )
    assert (third.tokens, third.rows) == (0, whole.rows)


def test_another_plan_or_set_is_refused(demo, samples, settings, study):
    with pytest.raises(RunFolderError, match="another plan, model or set"):
        study_states(demo, samples, settings, study.folder, **{**OPTIONS, "seed": 1})
    others = [Condition("mask", settings[3].neurons, settings[3].ids)]
    with pytest.raises(RunFolderError, match="another plan, model or set"):
        study_states(demo, samples, others, study.folder, **OPTIONS)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(layers=(0, 6)), r"-1 \(what enters the first block\) and 0 to 5"),
        (dict(layers=(3, 1)), "rising order"),
        (dict(permutations=0), "at least one permutation"),
    ],
)
def test_bad_plans(demo, samples, settings, tmp_path, change, words):
    with pytest.raises(SampleError, match=words):
        study_states(demo, samples, settings, tmp_path, **{**OPTIONS, **change})


def test_bad_settings(demo, samples, settings, tmp_path):
    for wrong, words in (
        ([], "one condition"),
        ([settings[0], settings[0]], "same name"),
        ([Condition("none", (), frozenset({"x"}))], "unknown sample 'x'"),
    ):
        with pytest.raises(SampleError, match=words):
            study_states(demo, samples, wrong, tmp_path, **OPTIONS)
    with pytest.raises(SampleError, match="no neurons"):
        mask_conditions(samples, [NeuronSet([], "language", (6, 896))])
    silent = study_states(
        demo, samples[:1], [Condition("none", (), frozenset({samples[0].id}))], tmp_path / "s",
        **OPTIONS, contributions=False,
    )  # fmt: skip
    with pytest.raises(SampleError, match="contributions=False"):
        contributions(silent)


def test_the_metric_table(study, samples):
    table = metric_table(study)
    assert tuple(table.columns) == METRIC_COLUMNS
    separation = table[table.metric == "silhouette"]
    assert set(separation.groups) == {"text+audio", "text+special+audio"}
    assert len(separation) == 4 * 3 * 2
    kept = study.kept("mask", 5)
    both = torch.isin(kept.labels, torch.tensor([0, BASE_GROUPS.index("audio")]))
    metrics = pytest.importorskip("sklearn.metrics")
    expected = metrics.silhouette_score(kept.states[both], kept.labels[both], metric="cosine")
    own = separation.query("setting == 'mask' and layer == 5 and groups == 'text+audio'").iloc[0]
    assert own.value == pytest.approx(expected, abs=1e-5)
    assert own.n_tokens == int(both.sum()) and own.n_samples == 5
    assert own.baseline_low <= own.baseline <= own.baseline_high < own.value
    rows = [row_of(study, "none", s)["indices"]["probing"]["audio"] for s in samples]
    share = np.mean([r["hits"][1][0] / r["of"] for r in rows])
    chance = [np.mean([r["hits"][1][p] / r["of"] for r in rows]) for p in range(1, 7)]
    probing = table.query("setting == 'none' and metric == 'probing' and layer == 1").iloc[0]
    assert probing.value == pytest.approx(share)
    assert probing.baseline == pytest.approx(np.mean(chance))
    assert probing.baseline_high == pytest.approx(np.quantile(chance, 0.975))
    assert probing.low <= probing.value <= probing.high


def test_a_pair_is_compared_in_samples_that_have_both(tmp_path):
    model = mmlens.load("demo/qwen2-vl")
    every = mmlens.load_samples("demo/qwen2-vl", "validation")
    chosen = [s for s in every if s.images][:3] + [s for s in every if s.videos][:2]
    settings = [Condition("none", (), frozenset(s.id for s in chosen))]
    study = study_states(model, chosen, settings, tmp_path, **OPTIONS)
    table = metric_table(study, permutations=2)
    sizes = table[table.metric == "probe"].groupby("groups").n_samples.unique().to_dict()
    assert sizes == {"text+image": [3], "text+video": [2], "text+special+image+video": [5]}
    shares = contributions(study).query("measure == 'attention' and layer == 1").set_index("group")
    own = [row["shares"]["attention"]["video"][0] for row in study.rows]
    assert own[:3] == [0, 0, 0] and min(own[3:]) > 0
    assert shares.value["video"] == pytest.approx(sum(own) / 5)
    assert shares.value.sum() == pytest.approx(1)


def test_scatter_sections_and_captions(study):
    table = scatter_table(study, [-1, 5], max_tokens=30)
    sizes = table.groupby(["setting", "layer", "method"]).size()
    assert set(sizes) == {30} and len(sizes) == 3 * 2 * 2
    assert list(table.setting.unique()) == ["none", "mask", "complement"]
    embedded = table[(table.layer == -1) & (table.method == "pca")]
    same = [embedded[embedded.setting == s].x.to_numpy() for s in ("none", "mask")]
    np.testing.assert_allclose(*same)  # nothing was masked yet
    metrics = metric_table(study, permutations=3)
    sections = state_sections(metrics, contributions(study), table)
    assert [s.title for s in sections] == [
        "How modalities meet", "Probing and telomeres", "Contributions to the last token",
    ]  # fmt: skip
    captions = json.loads(asset("mmlens.report", "captions.json"))
    figures = [p for s in sections for p in s.parts if isinstance(p, Figure)]
    assert len({f.name for f in figures}) == len(figures) == 6
    assert all("ur definition" in captions[f.caption] or "ur choice" in captions[f.caption]
               or "ours" in captions[f.caption] for f in figures)  # fmt: skip
    assert all("ours" in section.text for section in sections)
    lines = [t for t in figures[0].figure.data if t.mode == "lines+markers" and t.x[0] is not None]
    shown = metrics.query("metric == 'silhouette' and groups == 'text+audio' and setting == 'mask'")
    assert any(tuple(t.y) == tuple(shown.value) for t in lines)
    (converging,) = (p for p in sections[0].parts if isinstance(p, Table))
    pd.testing.assert_frame_equal(converging.frame, convergence_table(metrics))
    first = metrics.query("metric == 'silhouette' and groups == 'text+audio' and setting == 'none'")
    assert f"silhouette {first.value.iloc[0]:.2f} to {first.value.iloc[1]:.2f}" in sections[0].text
    bars = [t for t in figures[-1].figure.data if t.type == "bar"]
    assert np.sum([t.y for t in bars], axis=0) == pytest.approx([2, 2])  # two measures


def test_figures_of_frames_that_lack_something(study):
    metrics = metric_table(study, permutations=2)
    with pytest.raises(ValueError, match=r"\['text\+audio', 'text\+special\+audio'\], and 'x'"):
        plots.separation_by_layer(metrics, "x")
    with pytest.raises(ValueError, match="none of the indices"):
        plots.indices_by_layer(metrics[metrics.metric == "probe"])
    with pytest.raises(ValueError, match="methods"):
        plots.state_scatter(scatter_table(study, [5], methods=("pca",)), "tsne")


def test_chosen_tokens():
    labels = torch.tensor([0, 0, 0, 0, 1, 2, 2, 0])
    chosen = chosen_tokens(labels, 2, 3)
    assert labels[chosen].tolist().count(0) == 2 and {4, 5, 6} <= set(chosen.tolist())
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert len({tuple(chosen_tokens(labels, 2, s).tolist()) for s in range(30)}) == 10
