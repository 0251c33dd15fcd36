"""Maps of importance show every neuron, or the largest of its neighbours."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from mmlens import plots

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
    shown = "every neuron shown" if size == 1 else f"largest of up to {size} neurons"
    assert shown in figure.layout.title.subtitle.text


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
