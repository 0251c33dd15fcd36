"""Words of the lens stand under their stretch of the sound."""

import base64
import io

import numpy as np
import pytest
from PIL import Image
from plotly.subplots import make_subplots

import mmlens
from mmlens.data.media.spectrogram import MelBank, spectrogram
from mmlens.lens.figures.sound import _show_line
from mmlens.model.places import places_of
from tests.helpers import models
from tests.tiny import family


@pytest.fixture(scope="module")
def sound_lens():
    model = models.demo("qwen2-audio")
    samples = mmlens.load_samples("demo/qwen2-audio", "validation")
    return model, mmlens.logit_lens(model, model.prepare([samples[0], samples[40]]))


@pytest.mark.parametrize("row", [0, 1])
def test_words_stand_under_their_stretch_of_the_sound(sound_lens, row):
    model, found = sound_lens
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


def test_ticks_of_the_frequency_axis_stand_where_the_spectrogram_draws_them():
    wave = np.sin(2 * np.pi * 1000 * np.arange(8000) / 16000).astype(np.float32)
    sound = spectrogram(wave, MelBank.plain(16000))
    assert sound.seconds == 0.5
    assert (sound.levels.shape[1] - 1) * sound.hop == pytest.approx(0.49)
    figure = make_subplots()
    _show_line(figure, sound, (0.0, 0.5), 1, 1)
    (drawn,) = figure.layout.images
    picture = Image.open(io.BytesIO(base64.b64decode(drawn.source.split(",")[1]))).convert("L")
    darkest = np.asarray(picture, float).mean(1).argmin()
    tone = drawn.y - drawn.sizey * (darkest + 0.5) / picture.height
    marks = dict(zip(figure.layout.yaxis.ticktext, figure.layout.yaxis.tickvals, strict=True))
    assert abs(marks["1 kHz"] - tone) < 1 / 64
    assert (drawn.x, drawn.sizex) == (0, 0.5)
    assert tuple(figure.layout.xaxis.range) == (0, 0.5)
    assert (np.diff(sorted(marks.values())) >= 0.12).all()
