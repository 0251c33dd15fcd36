"""Every token of the lens stands where it lies in the picture."""

import numpy as np
import pytest
import torch

import mmlens
from mmlens.lens.figures.picture import lens_on_picture
from mmlens.model.places import places_of
from mmlens.tokens.places import Places
from tests.helpers import models
from tests.tiny import family


@pytest.fixture(scope="module")
def demo():
    return models.demo("llava-next")


@pytest.fixture(scope="module")
def result(demo):
    samples = mmlens.load_samples("demo/llava-next", "validation")
    wide = next(s for s in samples if s.domain == "document")
    return mmlens.logit_lens(demo, demo.prepare([wide, samples[0]]))


def cells(figure):
    """(axis, centre of a field in pixels) -> its entropy."""
    found = {}
    for trace in figure.data:
        if trace.type == "heatmap":
            x, y = (np.asarray(edges, float) for edges in (trace.x, trace.y))
            for row, line in enumerate(trace.z):
                for column, value in enumerate(line):
                    place = x[column : column + 2].mean(), y[row : row + 2].mean()
                    found[trace.xaxis, *place] = value
    return found


@pytest.mark.parametrize("row", [0, 1])
def test_every_token_stands_where_it_lies_in_the_picture(demo, result, row):
    figure = result.plot_picture(demo, row)
    places = places_of(demo, result.batch, row)
    found = cells(figure)
    picture = result.batch.samples[row].images[0]
    width, height = mmlens.data.media.pictures.picture_size(picture)[::-1]
    checked = 0
    for pos in (places.are("patch")).nonzero()[:, 0].tolist():
        left, top, right, bottom = places.boxes[pos].tolist()
        axis = "x3" if places.tile[pos] > 0 else "x2"
        centre = (left + right) / 2 * width, (top + bottom) / 2 * height
        near = [
            (abs(x - centre[0]) + abs(y - centre[1]), value)
            for (a, x, y), value in found.items()
            if a == axis and not np.isnan(value)
        ]
        assert min(near)[1] == pytest.approx(float(result.entropy[0, row, pos]))
        checked += 1
    newlines = int(places.are("newline").sum())
    beside = [value for (_, x, _), value in found.items() if x > width and not np.isnan(value)]
    assert len(beside) == newlines
    assert checked + newlines == int(result.batch.groups.mask("image")[row].sum())


def test_the_slider_puts_in_the_values_of_its_layer(demo, result):
    figure = result.plot_picture(demo, 0)
    maps = [trace for trace in figure.data if trace.type == "heatmap"]
    (slider,) = figure.layout.sliders
    assert [step.label for step in slider.steps] == [str(layer) for layer in result.layers]
    values, traces = slider.steps[4].args
    assert [figure.data[i].type for i in traces] == ["heatmap"] * len(maps)
    drawn = np.concatenate([np.asarray(z, float).ravel() for z in values["z"]])
    image = result.batch.groups.mask("image")[0]
    expected = result.entropy[4, 0, image].numpy()
    assert set(np.unique(drawn[~np.isnan(drawn)])) == set(expected.astype(float))
    assert np.nanmax(drawn) <= maps[0].zmax


def test_queries_stand_below_the_picture():
    tiny = family("instructblip")
    hf = next(iter(tiny.variants.values()))(0)
    model = mmlens.splice(hf, tiny.processor(), check=False)
    found = mmlens.logit_lens(model, model.prepare(tiny.samples()[0]))
    figure = found.plot_picture(model)
    height = mmlens.data.media.pictures.picture_size(found.batch.samples[0].images[0])[0]
    values = [v for (_, _, y), v in cells(figure).items() if not np.isnan(v)]
    assert all(y > height for (_, _, y), v in cells(figure).items() if not np.isnan(v))
    assert len(values) == int(found.batch.groups.mask("image").sum())


def test_what_cannot_be_drawn_is_said(demo, result):
    with pytest.raises(mmlens.errors.SampleError, match="has 1 pictures; number 3"):
        result.plot_picture(demo, 0, medium=3)
    with pytest.raises(mmlens.errors.SampleError, match="has 0 videos"):
        result.plot_picture(demo, 0, kind="video")
    with pytest.raises(mmlens.errors.SampleError, match="no kind of media 'smell'"):
        result.plot_picture(demo, 0, kind="smell")
    text = mmlens.logit_lens(demo, result.batch, positions="text")
    with pytest.raises(ValueError, match="No token of image 0"):
        text.plot_picture(demo, 0)
    nowhere = Places.nowhere(result.batch.shape[1])
    with pytest.raises(ValueError, match="No token of image 0"):
        lens_on_picture(result, 0, nowhere, torch_picture())


def torch_picture():
    from PIL import Image

    return Image.fromarray(torch.zeros(8, 8, 3, dtype=torch.uint8).numpy())
