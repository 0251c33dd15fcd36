"""A sample's media as small pictures for a page: pictures, frames of a video, a sound's spectrogram."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Float32
from PIL import Image

from mmlens.media import open_audio, open_picture, open_video
from mmlens.reporting.card_page import shrunk
from mmlens.reporting.sections import Shown
from mmlens.samples import Sample

#: Frames of a video that are shown at most.
FRAMES = 4
#: Samples per second that a sound is shown at, and the length of one of its windows, in seconds.
RATE, WINDOW = 16_000, 0.025
#: Decibels below the loudest that are still told from silence.
DEPTH = 70.0
#: Columns of a spectrogram's picture at most.
COLUMNS = 320
#: Longest side, in pixels, of pictures that are kept pixel by pixel.
_TINY = 72


def pictures_of(sample: Sample, side: int = 224) -> list[Shown]:
    """The media of a sample as pictures of at most ``side`` pixels, in their order.

    Of a video: the first and the last frame and those evenly between, :data:`FRAMES` at most; of a
    sound: its :func:`spectrogram`. A sample without media has none.

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
        said = f"{name}, {len(wave) / RATE:.1f} s, 0 to {RATE // 2000} kHz upwards"
        yield drawn(spectrogram(wave)), f"spectrogram of {said}", said


def _named(noun: str, number: int, of: int) -> str:
    return noun if of == 1 else f"{noun} {number}"


def spectrogram(wave: Float32[np.ndarray, " time"]) -> Float[np.ndarray, "frequency window"]:
    """The power of a sound at :data:`RATE` samples per second, in decibels, the loudest at 0.

    |FFT(hann * x)|^2 over windows of :data:`WINDOW` seconds, each half over the next; in long sounds
    the mean of as many neighbours as leaves :data:`COLUMNS` columns. Power below -:data:`DEPTH` is
    set to it, silence too. Frequencies from 0 to half the rate.
    """
    size = round(RATE * WINDOW)
    padded = np.pad(wave, (0, max(0, size - len(wave))))
    windows = np.lib.stride_tricks.sliding_window_view(padded, size)[:: size // 2]
    power = np.abs(np.fft.rfft(windows * np.hanning(size), axis=-1)).T ** 2
    starts = np.arange(0, power.shape[1], -(-power.shape[1] // COLUMNS))
    neighbours = np.diff(np.append(starts, power.shape[1]))
    power = np.add.reduceat(power, starts, axis=1) / neighbours
    loudest = power.max()
    if loudest == 0:
        return np.full(power.shape, -DEPTH)
    return 10 * np.log10(np.maximum(power / loudest, 10 ** (-DEPTH / 10)))


def drawn(decibels: Float[np.ndarray, "frequency window"]) -> Image.Image:
    """A spectrogram in grey, loud is dark, time to the right and frequency upwards; at least 64 wide."""
    shade = (255 * -decibels[::-1] / DEPTH).round().clip(0, 255).astype(np.uint8)
    image = Image.fromarray(shade)
    return image.resize((max(64, image.width), image.height // 2), Image.Resampling.BILINEAR)


def _encoded(image: Image.Image) -> bytes:
    """PNG for what is tiny or a spectrogram, whose every pixel counts; else JPEG."""
    stream = io.BytesIO()
    if image.mode == "L" or max(image.size) <= _TINY:
        image.save(stream, "PNG", optimize=True)
    else:
        image.save(stream, "JPEG", quality=85)
    return stream.getvalue()
