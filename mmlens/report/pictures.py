"""A sample's media as small pictures for a page: pictures, frames of a video, a sound's spectrogram."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float32
from PIL import Image

from mmlens.data.media.pictures import open_picture
from mmlens.data.media.sounds import open_audio
from mmlens.data.media.spectrogram import MelBank, spectrogram
from mmlens.data.media.thumbnails import encoded, shrunk
from mmlens.data.media.videos import open_video
from mmlens.data.samples import Sample
from mmlens.report.sections import Shown

#: Frames of a video that are shown at most.
FRAMES = 4
#: Samples per second that a sound is shown at.
RATE = 16_000
#: Height of a spectrogram, and its width: so many for each second, within bounds; in pixels.
_HEIGHT, _PER_SECOND, _WIDTHS = 64, 64, (64, 224)


def pictures_of(sample: Sample, side: int = 224) -> list[Shown]:
    """The media of a sample as pictures of at most ``side`` pixels, in their order.

    Of a video: the first and the last frame and those evenly between, :data:`FRAMES` at most; of a
    sound: its spectrogram. A sample without media has none.

    Raises:
        MediaError: a medium is missing or unreadable.
    """
    return [
        # Every pixel of a spectrogram (mode L) counts.
        Shown(encoded(shrunk(image, side), 85, lossless=image.mode == "L"), words, caption)
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
