"""Figures of the lens: they draw the numbers they are given, where they belong."""

import numpy as np
import pandas as pd
import pytest
import torch

import mmlens
from mmlens import plots
from mmlens.data.media.spectrogram import MelBank, spectrogram
from mmlens.lens.figures.picture import lens_on_picture
from mmlens.lens.figures.sound import spectrogram_figure
from mmlens.lens.figures.stages import stages_figure
from mmlens.lens.stages import find_stages
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


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    rows = [
        (f"{key}{i}", key, group, layer, 5, rng.uniform(0, 4), 3.0, rng.uniform())
        for key in ("red", "blue")
        for i in range(4)
        for group in ("image", "text", "last")
        for layer in range(6)
    ]
    names = ["id", "key", "group", "layer", "tokens", "entropy", "answer_rank", "answer_p"]
    return pd.DataFrame(rows, columns=names)


def lines(figure):
    return [
        trace for trace in figure.data if trace.type == "scatter" and trace.mode == "lines+markers"
    ]


def test_entropy_lines_are_means_and_bands_quantiles(frame):
    figure = plots.entropy_by_layer(frame, ["image", "video", "text"], ["blue", "red"])
    assert [trace.name for trace in lines(figure)] == ["blue", "red"] * 2
    own = frame[(frame.key == "red") & (frame.group == "text")]
    np.testing.assert_allclose(lines(figure)[3].y, own.groupby("layer").entropy.mean())
    bands = [trace for trace in figure.data if trace.fill == "toself"]
    assert len(bands) == 4
    upper = own.groupby("layer").entropy.quantile(0.9)
    np.testing.assert_allclose(bands[3].y[:6], upper)
    assert "4 samples per domain" in figure.layout.title.subtitle.text


def test_answers_are_those_of_the_last_token(frame):
    figure = plots.answer_by_layer(frame)
    own = frame[(frame.key == "red") & (frame.group == "last")]
    np.testing.assert_allclose(lines(figure)[0].y, own.groupby("layer").answer_p.mean())
    with pytest.raises(ValueError, match="no answers"):
        plots.answer_by_layer(frame.assign(answer_p=np.nan))
    with pytest.raises(ValueError, match="no tokens of audio"):
        plots.entropy_by_layer(frame, ["audio"])


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


def test_the_table_shows_the_words_of_the_lens(demo, result):
    (table,) = result.plot(1).data
    groups = result.batch.groups
    shown = (groups.mask("text") | groups.mask("special"))[1].nonzero()[:, 0].tolist()
    assert len(table.x) == len(shown)
    np.testing.assert_allclose(table.z, result.entropy[:, 1, shown])
    ids = [i for i in result.top_ids[2, 1, shown[-1]].tolist() if i not in result.special]
    assert table.text[2][-1] == demo.tokenizer.decode([ids[0]])
    with pytest.raises(ValueError, match="No position of video"):
        result.plot(1, groups=["video"])


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


def test_frames_of_a_video_have_panels_of_their_own():
    tiny = family("qwen2_vl")
    hf = next(iter(tiny.variants.values()))(0)
    model = mmlens.splice(hf, tiny.processor(), check=False)
    sample = next(s for s in tiny.samples() if s.videos)
    found = mmlens.logit_lens(model, model.prepare(sample))
    places = places_of(model, found.batch, 0)
    moments = sorted({tuple(pair) for pair in places.frames[places.kind == 1].tolist()})
    figure = found.plot_picture(model, kind="video")
    titles = [note.text.split(" (")[0] for note in figure.layout.annotations]
    assert titles == [f"frames {a + 1} to {b}" if b - a > 1 else f"frame {b}" for a, b in moments]
    # Every token's entropy is drawn once, in the lower panel of its moment, where it lies.
    size = mmlens.data.media.videos.video_size(sample.videos[0])
    for number, (first, _) in enumerate(moments):
        (trace,) = [t for t in figure.data if t.type == "heatmap"][number : number + 1]
        own = ((places.kind == 1) & (places.frames[:, 0] == first)).nonzero()[:, 0].tolist()
        for pos in own:
            left, top, right, bottom = places.boxes[pos].tolist()
            column = np.searchsorted(trace.x, (left + right) / 2 * size[2]) - 1
            line = np.searchsorted(trace.y, (top + bottom) / 2 * size[1]) - 1
            assert trace.z[line][column] == pytest.approx(float(found.entropy[0, 0, pos]))
        assert np.size(trace.z) == len(own)
    drawn = [i for i in figure.layout.images if i.yref == "y"]  # the first moment's own frames
    assert len(drawn) == moments[0][1] - moments[0][0]


@pytest.fixture(scope="module")
def heard():
    model = models.demo("qwen2-audio")
    samples = mmlens.load_samples("demo/qwen2-audio", "validation")
    return model, mmlens.logit_lens(model, model.prepare([samples[0], samples[40]]))


@pytest.mark.parametrize("row", [0, 1])
def test_words_stand_under_their_stretch_of_the_sound(heard, row):
    model, found = heard
    figure = found.plot_picture(model, row)
    places = places_of(model, found.batch, row)
    drawn = {}
    for trace in figure.data:
        if trace.type == "heatmap":
            for column, (value, word, said) in enumerate(
                zip(trace.z[0], trace.text[0], trace.customdata[0], strict=True)
            ):
                drawn[tuple(trace.x[column : column + 2])] = (value, word, said)
    audio = found.batch.groups.mask("audio")[row].nonzero()[:, 0].tolist()
    assert len(drawn) == len(audio)
    for pos, (start, end) in zip(audio, sorted(drawn), strict=True):
        value, word, said = drawn[start, end]
        assert (start, end) == pytest.approx(places.seconds[pos].tolist(), abs=6e-4)
        assert value == pytest.approx(float(found.entropy[0, row, pos]))
        ids = [i for i in found.top_ids[0, row, pos].tolist() if i not in found.special]
        assert found.word(ids[0]).strip().startswith(word.strip().rstrip("\u2026"))
        assert said.startswith(f"{places.seconds[pos, 0]:.2f} to {places.seconds[pos, 1]:.2f} s")
    # Lines have one scale, and the pictures of the sound lie where their seconds are.
    lines = len(figure.layout.images)
    spans = [figure.layout["xaxis" + (str(n) if n > 1 else "")].range for n in range(1, lines + 1)]
    assert np.ptp([b - a for a, b in spans]) == pytest.approx(0, abs=1e-6)
    for image, (start, end) in zip(figure.layout.images, spans, strict=True):
        assert image.x == start and image.x + image.sizex <= end + 1e-9
    values, _ = figure.layout.sliders[0].steps[4].args
    late = [z for line in values["z"] for z in line[0]]
    np.testing.assert_allclose(late, found.entropy[4, row, audio])


def test_a_silent_end_has_no_words():
    pytest.importorskip("mistral_common", reason="Voxtral's processor needs mistral-common")
    tiny = family("voxtral")
    model = mmlens.splice(tiny.variants["llama"](0), tiny.processor(), check=False)
    found = mmlens.logit_lens(model, model.prepare(tiny.samples()[0]))  # 0.11 of 0.32 seconds
    figure = found.plot_picture(model)
    (trace,) = [t for t in figure.data if t.type == "heatmap"]
    assert np.size(trace.z) == 2
    assert trace.x[-1] == pytest.approx(0.11)


def test_the_spectrogram_has_seconds_and_hertz():
    wave = np.sin(2 * np.pi * 1000 * np.arange(8000) / 16000).astype(np.float32)
    found = spectrogram(wave, MelBank.plain(16000))
    figure = spectrogram_figure(found)
    (trace,) = figure.data
    loudest = np.asarray(trace.z).mean(1).argmax()
    assert abs(trace.customdata[loudest][0] - 1000) < 40
    marks = dict(zip(figure.layout.yaxis.ticktext, figure.layout.yaxis.tickvals, strict=True))
    assert abs(marks["1 kHz"] - trace.y[loudest]) < 1 / 64
    assert trace.x[-1] == pytest.approx(0.49)
    assert tuple(figure.layout.xaxis.range) == (0, 0.5)
    places = sorted(place for place, _ in found.ticks())
    assert (np.diff(places) >= 0.12).all()


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
