"""Sounds: decoded to one channel at a model's rate, or measured from their headers alone."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from os import PathLike
from typing import Any

import numpy as np
import soundfile
import soxr
from jaxtyping import Float32

from mmlens.data.media.containers import check_length
from mmlens.data.media.decoding import decoding, described, opened_file
from mmlens.errors import MediaError

log = logging.getLogger(__name__)

#: A sound: a waveform [time] or [time, channel], as soundfile lays it out, with its rate; the
#: Hugging Face datasets form ``{"array": waveform [time], "sampling_rate": rate}``; the encoded
#: bytes of a WAV, FLAC, OGG or MP3; the file that holds them; or a function that reads them when it
#: is asked.
Audio = (
    tuple[np.ndarray, int] | Mapping[str, Any] | bytes | str | PathLike[str] | Callable[[], bytes]
)


def open_audio(audio: Audio, rate: int) -> Float32[np.ndarray, " time"]:
    """Decode a sound to one channel, the mean of all, at ``rate`` samples per second.

    Integer waveforms are scaled to [-1, 1). A sound of another rate is resampled as librosa does it
    (soxr, high quality), which is logged once for each pair of rates.

    Raises:
        MediaError: the file is missing, truncated or not a sound; the waveform is empty, not finite,
            or of another shape or type than :data:`Audio` says; a rate is not positive.
    """
    rate = _checked_rate(rate)
    if isinstance(audio, tuple | Mapping):
        waveform, recorded = _waveform(audio)
        waveform = _scaled(waveform)
    else:
        with _sound(audio) as file:
            recorded = file.samplerate
            waveform = file.read(dtype="float32", always_2d=True)
            if len(waveform) != file.frames:
                raise ValueError(
                    f"it is truncated, with {len(waveform)} of {file.frames} samples there"
                )
    mono = waveform.mean(axis=1, dtype=np.float32) if waveform.ndim == 2 else waveform
    if not np.isfinite(mono).all():
        raise MediaError(
            f"{described(audio, 'sound')} has samples that are not finite; replace NaN and infinity."
        )
    if recorded == rate:
        return mono
    _log_resampling(recorded, rate)
    length = _resampled_length(len(mono), recorded, rate)
    resampled = soxr.resample(np.ascontiguousarray(mono), recorded, rate)[:length]
    return np.pad(resampled, (0, length - len(resampled)))


def audio_length(audio: Audio, rate: int) -> int:
    """How many samples :func:`open_audio` gives, from the header alone.

    Raises:
        MediaError: as :func:`open_audio`, for what the header shows.
    """
    rate = _checked_rate(rate)
    if isinstance(audio, tuple | Mapping):
        waveform, recorded = _waveform(audio)
        return _resampled_length(len(waveform), recorded, rate)
    with _sound(audio) as file:
        return _resampled_length(file.frames, file.samplerate, rate)


@contextmanager
def _sound(audio: Any) -> Iterator[soundfile.SoundFile]:
    with decoding(audio, "sound"), opened_file(audio, "sound") as opened:
        check_length(opened)
        # By its content: soundfile would take a name that ends in .raw for the format.
        unnamed: Any = _Unnamed(opened)
        with soundfile.SoundFile(unnamed) as file:
            if file.frames == 0:
                raise ValueError("it is empty")
            yield file


class _Unnamed:
    """An open file without its name, as soundfile reads it."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        self._file = file

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        # libsndfile seeks before the start of a damaged file; an exception inside its callback would
        # only be printed.
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError):
            return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def tell(self) -> int:
        return self._file.tell()


def _waveform(audio: tuple[Any, ...] | Mapping[str, Any]) -> tuple[np.ndarray, int]:
    """The samples of a decoded sound, [time] or [time, channel], and its rate."""
    if isinstance(audio, Mapping):
        if audio.get("array") is None or audio.get("sampling_rate") is None:
            raise MediaError(
                f"A sound with {' and '.join(map(repr, audio)) or 'nothing'} was given; give 'array' "
                "and 'sampling_rate'."
            )
        try:
            waveform = np.asarray(audio["array"])
        except ValueError as error:
            raise MediaError(f"A waveform is no array: {error}; give numbers [time].") from error
        rate = audio["sampling_rate"]
        # Decoders of Hugging Face datasets disagree on the axis of the channels: one channel only.
        shapes, allowed = (1,), "[time]"
    else:
        if len(audio) != 2 or not isinstance(audio[0], np.ndarray):
            raise MediaError(
                f"A sound of {' and '.join(type(one).__name__ for one in audio) or 'nothing'} was "
                "given; give (array, rate)."
            )
        waveform, rate = audio
        shapes, allowed = (1, 2), "[time] or [time, channel]"
    if waveform.ndim not in shapes:
        raise MediaError(
            f"A waveform of shape {list(waveform.shape)} was given; give {allowed} with a rate."
        )
    if waveform.size == 0:
        raise MediaError("The waveform is empty; give one with at least one sample.")
    if waveform.ndim == 2 and waveform.shape[1] > waveform.shape[0]:
        raise MediaError(
            f"A waveform of shape {list(waveform.shape)} has more channels than samples; give "
            "[time, channel], so transpose [channel, time]."
        )
    return waveform, _checked_rate(rate)


def _scaled(waveform: np.ndarray) -> Float32[np.ndarray, " time *channel"]:
    """Float samples as they are; integers on the scale that soundfile reads such files to."""
    name = waveform.dtype.name
    if waveform.dtype.kind == "f":
        with np.errstate(over="ignore"):  # infinity is refused by the caller
            return waveform.astype(np.float32)
    if name in ("int8", "int16", "int32"):
        return waveform.astype(np.float32) / np.float32(2 ** (8 * waveform.dtype.itemsize - 1))
    if name == "uint8":
        return (waveform.astype(np.float32) - 128) / 128
    raise MediaError(
        f"A waveform of type {name} was given; give floats in [-1, 1], or int8, int16, int32 or uint8."
    )


def _checked_rate(rate: Any) -> int:
    try:
        if not isinstance(rate, bool) and int(rate) == rate and rate > 0:
            return int(rate)
    except (TypeError, ValueError, OverflowError):
        pass
    raise MediaError(
        f"The rate {rate!r} was given; give a positive whole number of samples a second."
    )


def _resampled_length(length: int, recorded: int, rate: int) -> int:
    # Rounded up as librosa does, so that the shortest sound has a sample; soxr alone may give none.
    return -(-length * rate // recorded)


@cache
def _log_resampling(recorded: int, rate: int) -> None:
    log.info("Sounds of %d Hz are resampled to the %d Hz that the model takes.", recorded, rate)
