"""Bars count the selected neurons of every layer; sets are compared by combination."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmlens import plots
from mmlens.neurons import NeuronSet
from mmlens.selection.overlap import combinations_table, cross_table

GROUPS = ("text", "special", "image", "video")


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
