"""Stages stand over the neurons of their layers."""

import numpy as np
import pytest

from mmlens.lens.figures.stages import stages_figure
from mmlens.lens.stages import find_stages
from tests.helpers.lens_frame import lens_frame, lines


@pytest.fixture(scope="module")
def frame():
    return lens_frame()


def test_stages_stand_over_the_neurons_of_their_layers(frame):
    curves = frame[frame.group == "image"].pivot(index="id", columns="layer", values="entropy")
    stages = find_stages(curves.to_numpy())
    figure = stages_figure(stages, {"red": [0, 1, 2, 3, 4, 5], "blue": [1] * 6})
    bars = {trace.name: list(trace.y) for trace in figure.data if trace.type == "bar"}
    assert bars == {"red": [0, 1, 2, 3, 4, 5], "blue": [1] * 6}
    (mean,) = lines(figure)
    np.testing.assert_allclose(mean.y, curves.mean())
    upright = [shape.x0 for shape in figure.layout.shapes if shape.type == "line"]
    assert upright == list(stages.bends)
