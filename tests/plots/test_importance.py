"""Figures of importance carry the numbers of their tensors and sets, recomputed here."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmlens import plots
from mmlens.errors import StatisticsError
from mmlens.importance.correlation import correlate_scores
from mmlens.neurons import NeuronSet
from mmlens.selection.overlap import combinations_table, cross_table

SCORES = ("prob", "mean", "max", "attn_k", "attn_q")
GROUPS = ("text", "special", "image", "video")


def matrix(scores: int = 5, groups: int = 4, layers: int = 3, neurons: int = 40) -> torch.Tensor:
    return torch.rand(
        scores, groups, layers, neurons, generator=torch.Generator().manual_seed(1)
    ).double()


def heats(figure: Any) -> list[Any]:
    return [trace for trace in figure.data if trace.type == "heatmap"]


def drawn(trace: Any) -> np.ndarray:
    return np.array([[np.nan if v is None else v for v in line] for line in trace.z], dtype=float)


# --- correlations of scores


@given(
    seed=st.integers(0, 2**16),
    layers=st.integers(1, 3),
    neurons=st.integers(2, 9),
    levels=st.integers(2, 5),
)
def test_correlations_are_scipys_in_ties_too(
    seed: int, layers: int, neurons: int, levels: int
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, levels, size=(3, 2, layers, neurons)) * 1e-3
    frame = correlate_scores(torch.from_numpy(values), SCORES[:3], GROUPS[:2])
    assert len(frame) == 2 * 9
    for row in frame.itertuples():
        g = GROUPS.index(str(row.group))
        a = values[SCORES.index(str(row.score_a)), g].ravel()
        b = values[SCORES.index(str(row.score_b)), g].ravel()
        if np.ptp(a) == 0 or np.ptp(b) == 0:
            assert math.isnan(row.pearson)  # type: ignore[arg-type]
            assert math.isnan(row.spearman)  # type: ignore[arg-type]
            assert "the same for every neuron" in str(row.note)
            continue
        assert row.pearson == pytest.approx(scipy.stats.pearsonr(a, b)[0], abs=1e-9)
        assert row.spearman == pytest.approx(scipy.stats.spearmanr(a, b)[0], abs=1e-9)
        assert row.note == ""


def test_a_score_that_is_not_finite_has_no_correlation_and_the_others_keep_theirs() -> None:
    values = matrix(3, 1)
    whole = correlate_scores(values, SCORES[:3], ["text"]).set_index(["score_a", "score_b"])
    values[1, 0, 0, 0] = float("nan")
    frame = correlate_scores(values, SCORES[:3], ["text"]).set_index(["score_a", "score_b"])
    assert frame.loc[("mean", "prob"), "note"] == "mean is not finite for some neurons"
    assert frame["pearson"].isna().sum() == 5
    kept = ("max", "prob")
    assert frame.loc[kept, "spearman"] == whole.loc[kept, "spearman"]


def test_correlations_of_tiny_scores_do_not_vanish() -> None:
    values = matrix(2, 1) * 1e-200
    frame = correlate_scores(values, SCORES[:2], ["text"])
    wanted = scipy.stats.pearsonr(*(matrix(2, 1)[:, 0].flatten(1).numpy()))[0]
    assert frame["pearson"][1] == pytest.approx(wanted, abs=1e-9)


def test_names_that_do_not_fit_are_refused() -> None:
    with pytest.raises(StatisticsError, match="axis of 5"):
        correlate_scores(matrix(), SCORES[:4], GROUPS)
    with pytest.raises(StatisticsError, match="name of its own"):
        correlate_scores(matrix(2), ("mean", "mean"), GROUPS)
    with pytest.raises(StatisticsError, match="two neurons or more"):
        correlate_scores(matrix(neurons=1, layers=1), SCORES, GROUPS)


def test_pearson_stands_below_the_diagonal_and_spearman_above() -> None:
    values = matrix()
    values[3] = values[1] + 1e-6 * values[2]
    values[4, 2] = 0.25
    frame = correlate_scores(values, SCORES, GROUPS)
    figure = plots.score_correlations(frame)
    table = frame.set_index(["group", "score_a", "score_b"])
    assert [trace.name for trace in heats(figure)] == list(GROUPS)
    for trace in heats(figure):
        z = drawn(trace)
        for i, a in enumerate(SCORES):
            assert math.isnan(z[i, i])
            for j, b in enumerate(SCORES[:i]):
                cell = table.loc[(trace.name, a, b)]
                assert z[i, j] == pytest.approx(cell["pearson"], nan_ok=True)
                assert z[j, i] == pytest.approx(cell["spearman"], nan_ok=True)
    image = heats(figure)[2]
    assert image.text[3][1] == "1.0"
    assert image.text[4][0] == ""
    assert "same for every neuron" in image.customdata[4][0]
    (dashes,) = [trace for trace in figure.data if trace.name == "not defined"]
    wanted = {(i, 4) for i in range(4)} | {(4, i) for i in range(4)}
    assert set(zip(dashes.x, dashes.y, strict=True)) == wanted


# --- maps


def test_maps_show_every_neuron_where_there_is_room() -> None:
    values = matrix(neurons=30)
    figure = plots.importance_maps(values, SCORES, GROUPS)
    assert [trace.name for trace in heats(figure)] == [f"{s}, {g}" for s in SCORES for g in GROUPS]
    for k, trace in enumerate(heats(figure)):
        np.testing.assert_allclose(drawn(trace), values[k // 4, k % 4], atol=5e-5)
        assert list(trace.x) == list(range(30))
        assert trace.coloraxis == f"coloraxis{k // 4 + 1 if k >= 4 else ''}"
    assert figure.layout.coloraxis2.cmax == pytest.approx(float(values[1].max()))
    assert "every neuron shown" in figure.layout.title.subtitle.text


@pytest.mark.parametrize(
    ("width", "groups", "bins"), [(18944, 4, None), (1001, 2, 10), (9, 1, 3), (9, 1, 4), (9, 2, 9)]
)
def test_wide_layers_are_binned_by_maximum(width: int, groups: int, bins: int | None) -> None:
    values = matrix(1, groups, 2, width)
    figure = plots.importance_maps(values, SCORES[:1], GROUPS[:groups], bins=bins)
    columns = sum(len(trace.x) for trace in heats(figure))
    assert columns <= (600 if bins is None else bins * groups)
    size = math.ceil(width / (bins or 600 // groups))
    for g, trace in enumerate(heats(figure)):
        parts = [values[0, g, :, i : i + size].amax(1) for i in range(0, width, size)]
        np.testing.assert_allclose(drawn(trace), torch.stack(parts, 1), atol=5e-5)
        assert trace.x[-1] <= width - 1
    told = "every neuron shown" if size == 1 else f"largest of up to {size} neurons"
    assert told in figure.layout.title.subtitle.text


def test_sorting_uses_one_order_for_all_maps() -> None:
    values = matrix(2, 2, 3, 20)
    figure = plots.importance_maps(values, SCORES[:2], GROUPS[:2], sort_by=("mean", "text"))
    by = heats(figure)[2]
    assert (np.diff(drawn(by), axis=1) <= 0).all()
    other = drawn(heats(figure)[1])
    for layer in range(3):
        order = sorted(range(20), key=lambda n: -float(values[1, 0, layer, n]))
        np.testing.assert_allclose(other[layer], values[0, 1, layer, order], atol=5e-5)
    with pytest.raises(ValueError, match="sort_by was"):
        plots.importance_maps(values, SCORES[:2], GROUPS[:2], sort_by=("max", "text"))


def test_maps_without_values_or_of_one_value_say_so() -> None:
    values = matrix()
    values[0, 0], values[1, 1], values[2, 2, 0, 3] = 0.0, float("nan"), float("inf")
    figure = plots.importance_maps(values, SCORES, GROUPS)
    notes = [str(note.text) for note in figure.layout.annotations]
    assert "all 0" in notes
    assert notes.count("no values") == 1
    assert f"{3 * 40 + 1} values are not finite" in figure.layout.title.subtitle.text
    assert np.isnan(drawn(heats(figure)[5])).all()
    assert math.isnan(drawn(heats(figure)[10])[0, 3])
    assert figure.layout.coloraxis3.cmax <= 1


def test_maps_refuse_names_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="each needs a name"):
        plots.importance_maps(matrix(), SCORES, GROUPS[:2])
    with pytest.raises(ValueError, match="no axis is empty"):
        plots.importance_maps(torch.zeros(1, 1, 2, 0), SCORES[:1], GROUPS[:1])
    with pytest.raises(ValueError, match="bins must be 1 or more"):
        plots.importance_maps(matrix(), SCORES, GROUPS, bins=0)


# --- selected neurons


def make_sets(names: tuple[str, ...], layers: int, width: int = 50) -> dict[str, NeuronSet]:
    rng = np.random.default_rng(3)
    return {
        name: NeuronSet.from_mask(
            torch.from_numpy(rng.random((layers, width)) < 0.1), "language", "hash"
        )
        for name in names
    }


@pytest.mark.parametrize(("names", "layers"), [(GROUPS, 6), (GROUPS, 28), (("image",), 4)])
def test_bars_count_the_neurons_of_every_layer(names: tuple[str, ...], layers: int) -> None:
    sets = make_sets(names, layers)
    figure = plots.selected_by_layer(sets, layers + 1)
    assert [str(bar.name).split(" ")[0] for bar in figure.data] == list(names)
    for bar, one in zip(figure.data, sets.values(), strict=True):
        assert list(bar.y) == [*one.mask().sum(1).tolist(), 0]
        assert f"({len(one)})" in bar.name
    assert len({bar.marker.pattern.shape for bar in figure.data}) == len(names)
    assert len({bar.marker.color for bar in figure.data}) == len(names)
    panels = {bar.yaxis for bar in figure.data}
    assert len(panels) == (len(names) if (layers + 1) * len(names) > 60 else 1)


def test_modalities_keep_their_look_by_their_place() -> None:
    sets = make_sets(GROUPS, 6)
    every = plots.selected_by_layer(sets, 6)
    part = plots.selected_by_layer({"video": sets["video"]}, 6, modalities=GROUPS)
    assert part.data[0].marker.color == every.data[3].marker.color
    assert part.data[0].marker.pattern.shape == every.data[3].marker.pattern.shape


def test_selected_neurons_outside_the_layers_are_refused() -> None:
    with pytest.raises(ValueError, match="layer 3, and 3 layers were given"):
        plots.selected_by_layer(make_sets(("image",), 6), 3)
    with pytest.raises(ValueError, match="No neuron sets"):
        plots.selected_by_layer({}, 3)
    with pytest.raises(ValueError, match="not in"):
        plots.selected_by_layer(make_sets(("image",), 6), 6, modalities=["text"])


def test_subsets_of_modalities_read_as_combinations() -> None:
    sets = make_sets((*GROUPS, "audio"), 6)
    figure = plots.upset(combinations_table(sets), domains=(*GROUPS, "audio"))
    (sizes,) = [trace for trace in figure.data if trace.name == "sizes"]
    assert list(sizes.x) == [len(one) for one in sets.values()]
    assert list(sizes.customdata) == [*GROUPS, "audio"]


def test_cross_table_counts_what_both_methods_find() -> None:
    first, second = make_sets(("a", "b"), 4), make_sets(("x", "y", "z"), 4)
    frame = cross_table(first, second)
    assert len(frame) == 6
    for row in frame.itertuples():
        one, other = set(first[str(row.domain)]), set(second[str(row.modality)])
        assert row.both == len(one & other)
        assert (row.n_domain, row.n_modality) == (len(one), len(other))
        assert row.expected == pytest.approx(len(one) * len(other) / 200)
        assert row.jaccard == pytest.approx(len(one & other) / len(one | other))


# --- convergence


def convergence(**changes: Any) -> pd.DataFrame:
    rng = np.random.default_rng(2)
    rows = [
        {
            "n_samples": n,
            "group": group,
            "comparison": kind,
            "jaccard": rng.random(),
            "correlation": rng.uniform(-0.2, 1),
            "chance": 0.01 * n,
            "draw": draw,
        }
        for kind in ("full", "halves")
        for group in (*GROUPS, "all")
        for n in (40, 10, 20)
        for draw in range(2)
    ]
    return pd.DataFrame(rows).assign(**changes)


def test_convergence_draws_means_over_draws_in_order() -> None:
    frame = convergence()
    figure = plots.convergence_curves(frame)
    for j, kind in enumerate(("full", "halves")):
        for measure, axis in (("jaccard", 1), ("correlation", 3)):
            place = f"y{axis + j}" if axis + j > 1 else "y"
            for group in (*GROUPS, "all"):
                name = "all together" if group == "all" else group
                (line,) = [t for t in figure.data if t.name == name and t.yaxis == place]
                own = frame[(frame.comparison == kind) & (frame.group == group)]
                wanted = own.groupby("n_samples")[measure].mean()
                assert list(line.x) == [10, 20, 40]
                np.testing.assert_allclose(line.y, wanted)
    chance = [t for t in figure.data if str(t.name).startswith("by chance")]
    assert [list(t.y) for t in chance] == [pytest.approx([0.1, 0.2, 0.4])] * 2
    lowest = frame.correlation.min()
    assert figure.layout.yaxis3.range[0] < lowest


def test_convergence_survives_missing_numbers_and_one_comparison() -> None:
    frame = convergence(correlation=math.nan).drop(columns="chance")
    frame = frame[(frame.comparison == "full") & (frame.group == "text")]
    figure = plots.convergence_curves(frame)
    assert [t.name for t in figure.data] == ["text", "text"]
    assert list(figure.data[1].y) == [None] * 3
    with pytest.raises(ValueError, match="'thirds' was given"):
        plots.convergence_curves(convergence(comparison="thirds"))


@pytest.mark.parametrize(
    ("draw", "make", "column"),
    [
        (plots.convergence_curves, convergence, "jaccard"),
        (
            plots.score_correlations,
            lambda: correlate_scores(matrix(), SCORES, GROUPS),
            "spearman",
        ),
    ],
)
def test_missing_columns_and_empty_frames_are_named(draw: Any, make: Any, column: str) -> None:
    frame = make()
    with pytest.raises(ValueError, match=f"lacks \\['{column}'\\]"):
        draw(frame.drop(columns=column))
    with pytest.raises(ValueError, match="is empty"):
        draw(frame.iloc[:0])
