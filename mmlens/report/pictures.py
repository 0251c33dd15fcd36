"""A sample's media as small pictures for a page: pictures, frames of a video, a sound's spectrogram."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float32
from PIL import Image

from mmlens.cards.page import shrunk
from mmlens.data.media.decoding import open_audio, open_picture, open_video
from mmlens.data.media.spectrogram import MelBank, spectrogram
from mmlens.data.samples import Sample
from mmlens.report.sections import Shown

#: Frames of a video that are shown at most.
FRAMES = 4
#: Samples per second that a sound is shown at.
RATE = 16_000
#: Height of a spectrogram, and its width: so many for each second, within bounds; in pixels.
_HEIGHT, _PER_SECOND, _WIDTHS = 64, 64, (64, 224)
#: Longest side, in pixels, of pictures that are kept pixel by pixel.
_TINY = 72


def pictures_of(sample: Sample, side: int = 224) -> list[Shown]:
    """The media of a sample as pictures of at most ``side`` pixels, in their order.

    Of a video: the first and the last frame and those evenly between, :data:`FRAMES` at most; of a
    sound: its spectrogram. A sample without media has none.

    Raises:
        MediaError: a medium is missing or unreadable.
    """
    return [
        Shown(_encoded(shrunk(image, side)), words, caption)
        for image, words, caption in _opened(sample)
    ]


def _opened(sample: Sample) -> Iterator[tuple[Image.Image, str, str]]:
    """Each picture, what it shows, and its caption."""
    for number, one in enumerate(sample.images, start=1):
        yield open_picture(one), _named("picture", number, len(sample.images)), ""
    for number, one in enumerate(sample.videos, start=1):
        frames = open_video(one).frames
        name = _named("video", number, len(sample.videos))
        for place in np.unique(np.linspace(0, len(frames) - 1, FRAMES).round().astype(int)):
            said = f"{name}, frame {place + 1} of {len(frames)}"
            yield Image.fromarray(frames[place]), said, f"frame {place + 1}"
    for number, one in enumerate(sample.audios, start=1):
        wave = open_audio(one, RATE)
        name = _named("sound", number, len(sample.audios))
        said = f"{name}, {len(wave) / RATE:.1f} s, up to {RATE // 2000} kHz, mel scale"
        drawn = spectrogram(wave, MelBank.plain(RATE)).image(_width(wave), _HEIGHT)
        yield drawn, f"spectrogram of {said}", said


def _named(noun: str, number: int, of: int) -> str:
    return noun if of == 1 else f"{noun} {number}"


def _width(wave: Float32[np.ndarray, " time"]) -> int:
    low, high = _WIDTHS
    return min(high, max(low, round(_PER_SECOND * len(wave) / RATE)))


def _encoded(image: Image.Image) -> bytes:
    """PNG for what is tiny or a spectrogram, whose every pixel counts; else JPEG."""
    stream = io.BytesIO()
    if image.mode == "L" or max(image.size) <= _TINY:
        image.save(stream, "PNG", optimize=True)
    else:
        image.save(stream, "JPEG", quality=85)
    return stream.getvalue()
