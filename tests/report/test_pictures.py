"""A sample's media as pictures of a page: as many as there are, in order, small, and captioned."""

import io

import numpy as np
import pytest
from PIL import Image

from mmlens.data.samples import Sample
from mmlens.errors import MediaError
from mmlens.report.pictures import RATE, pictures_of


def opened(shown):
    return Image.open(io.BytesIO(shown.content))


def tone(hz, seconds):
    return np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE).astype(np.float32), RATE


def test_a_text_has_no_pictures():
    assert pictures_of(Sample("a", "what?")) == []


def test_pictures_keep_their_order_and_small_ones_their_pixels():
    small = Image.fromarray(np.arange(27, dtype=np.uint8).reshape(3, 3, 3))
    large = Image.new("RGB", (1000, 500), "red")
    first, second = pictures_of(Sample("a", "?", images=(small, large)))
    assert opened(first).format == "PNG"
    assert np.array_equal(np.asarray(opened(first)), np.asarray(small))
    assert opened(second).format == "JPEG"
    assert opened(second).size == (224, 112)
    assert [one.words for one in (first, second)] == ["picture 1", "picture 2"]
    assert first.caption == ""


@pytest.mark.parametrize(
    ("number", "expected"), [(1, [1]), (2, [1, 2]), (4, [1, 2, 3, 4]), (10, [1, 4, 7, 10])]
)
def test_frames_of_a_video_from_the_first_to_the_last(number, expected):
    frames = np.stack([np.full((8, 8, 3), 20 * i, dtype=np.uint8) for i in range(number)])
    shown = pictures_of(Sample("a", "?", videos=(frames,)))
    assert [one.caption for one in shown] == [f"frame {n}" for n in expected]
    assert [one.words for one in shown] == [f"video, frame {n} of {number}" for n in expected]
    assert [int(np.asarray(opened(one))[0, 0, 0]) for one in shown] == [
        20 * (n - 1) for n in expected
    ]


@pytest.mark.parametrize(("seconds", "width"), [(0.2, 64), (2, 128), (60, 224)])
def test_a_sound_is_a_spectrogram_of_its_length(seconds, width):
    (shown,) = pictures_of(Sample("a", "?", audios=(tone(1000, seconds),)))
    assert opened(shown).size == (width, 64)
    assert shown.caption == f"sound, {seconds:.1f} s, up to 8 kHz, mel scale"
    assert shown.words == f"spectrogram of {shown.caption}"


def test_a_tone_is_dark_where_its_frequency_is():
    # Rows are even on the mel scale, the lowest below.
    def rows(hz):
        (shown,) = pictures_of(Sample("a", "?", audios=(tone(hz, 2),)))
        return np.asarray(opened(shown))[:, 32:96].mean(1)

    for hz in (500, 1000, 4000):
        mel = np.log(1 + hz / 700) / np.log(1 + 8000 / 700)
        assert abs(int(rows(hz).argmin()) - (63.5 - 64 * mel)) <= 2


def test_what_cannot_be_read_is_refused():
    with pytest.raises(MediaError):
        pictures_of(Sample("a", "?", audios=(b"no sound",)))
