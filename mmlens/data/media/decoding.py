"""Pictures, videos and sounds: decoded, or measured from their headers alone."""

from __future__ import annotations

import io
import logging
import math
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import soundfile
import soxr
from jaxtyping import Float32, UInt8
from PIL import Image, ImageOps, ImageSequence, UnidentifiedImageError

from mmlens.data.media.containers import MATROSKA, check_length, has_boxes
from mmlens.errors import MediaError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SideBySide:
    """Pictures of one height joined from left to right, only when the whole is decoded.

    Attributes:
        pictures: at least one, the leftmost first.
    """

    pictures: tuple[Picture, ...]


#: A picture: decoded, its encoded bytes, or the file that holds them; several of them side by side;
#: or a function that reads its encoded bytes when it is asked (a row of a table on disk).
Picture = Image.Image | bytes | str | PathLike[str] | SideBySide | Callable[[], bytes]

#: A video: its frames as pictures, or as a UInt8 array [frame, height, width, 3]; the encoded bytes
#: of an animated picture (WebP, GIF, PNG, TIFF) or of an MP4, MOV, MKV, WebM or AVI; the file that
#: holds them; a function that reads these bytes when it is asked; or a folder of frame pictures.
Video = Sequence[Picture] | np.ndarray | bytes | str | PathLike[str] | Callable[[], bytes]

#: A sound: a waveform [time] or [time, channel], as soundfile lays it out, with its rate; the
#: Hugging Face datasets form ``{"array": waveform [time], "sampling_rate": rate}``; the encoded
#: bytes of a WAV, FLAC, OGG or MP3; the file that holds them; or a function that reads them when it
#: is asked.
Audio = (
    tuple[np.ndarray, int] | Mapping[str, Any] | bytes | str | PathLike[str] | Callable[[], bytes]
)

_READABLE = {
    "picture": "give one that Pillow reads, such as PNG, JPEG or WebP",
    "video": "give an animated WebP, GIF, PNG or TIFF, or an MP4, MOV, MKV, WebM or AVI",
    "sound": "give a WAV, FLAC, OGG or MP3",
}

#: What counts as a frame in a folder; other files there (notes, thumbnails' indices) are left alone.
_FRAME_FILES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}

_Size = TypeVar("_Size")


@dataclass(frozen=True, eq=False)
class VideoFrames:
    """A decoded video.

    Attributes:
        frames: RGB.
        fps: frames per second, the mean where it varies; None where nothing tells it.
    """

    frames: UInt8[np.ndarray, "frame height width 3"]
    fps: float | None


# Pictures


def open_picture(picture: Picture) -> Image.Image:
    """Decode a picture to RGB, turned upright by its EXIF orientation.

    Raises:
        MediaError: the file is missing, truncated or not a picture; pictures side by side have
            different heights, or there are none.
    """
    if isinstance(picture, SideBySide):
        return _joined([open_picture(one) for one in picture.pictures])
    with _decoding(picture, "picture"), _opened(picture, "picture") as image:
        return _upright(image)


def picture_size(picture: Picture) -> tuple[int, int]:
    """(height, width) of a picture in pixels, read from its header alone where it can be.

    Raises:
        MediaError: the file is missing or not a picture; else as :func:`open_picture`.
    """
    if isinstance(picture, SideBySide):
        return _joined_size([picture_size(one) for one in picture.pictures])
    with _decoding(picture, "picture"), _opened(picture, "picture") as image:
        return _upright_size(image)


def _joined(parts: Sequence[Image.Image]) -> Image.Image:
    height, width = _joined_size([(one.height, one.width) for one in parts])
    whole, left = Image.new("RGB", (width, height)), 0
    for one in parts:
        whole.paste(one, (left, 0))
        left += one.width
    return whole


def _joined_size(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    heights = sorted({height for height, _ in sizes})
    if len(heights) != 1:
        raise MediaError(
            f"Pictures of the heights {', '.join(map(str, heights)) or '(none given)'} cannot stand "
            "side by side; give at least one, all of one height."
        )
    return heights[0], sum(width for _, width in sizes)


def _upright(image: Image.Image) -> Image.Image:
    return ImageOps.exif_transpose(image).convert("RGB")


def _upright_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    # Pillow turns TIFF by itself, its size included.
    # Asking a PNG without a leading EXIF chunk for it would decode the whole picture.
    asked = image.format not in ("TIFF", "PNG") or "exif" in image.info
    turned = asked and image.getexif().get(0x0112) in (5, 6, 7, 8)
    return (width, height) if turned else (height, width)


@contextmanager
def _opened(picture: Any, noun: str) -> Iterator[Image.Image]:
    if isinstance(picture, Image.Image):
        yield picture.copy()
    else:
        stream: Any = _stream(picture, noun)
        with stream, Image.open(stream) as image:
            yield image


# Videos


def open_video(video: Video) -> VideoFrames:
    """Decode every frame of a video to RGB, turned upright.

    An array is handed on, not copied. The frames of a folder are its pictures in the order of their
    names, numbers in them by value: ``2.png`` comes before ``10.png``.

    Raises:
        MediaError: the file is missing, truncated or not a video; it has no frames, or frames of
            different sizes; it needs PyAV, which is not installed.
    """
    if isinstance(video, np.ndarray):
        return VideoFrames(_checked_frames(video), None)
    if (pictures := _pictures(video)) is not None:
        frames = _per_frame(video, pictures, lambda one: np.asarray(open_picture(one)))
        return VideoFrames(_stacked(video, frames), None)
    with _decoding(video, "video"), _container_or_none(video) as container:
        if container is not None:
            frames, fps = _decoded(container)
        else:
            with _opened(video, "video") as image:
                frames, fps = _animation(image)
    return VideoFrames(_stacked(video, frames), fps)


def video_size(video: Video) -> tuple[int, int, int]:
    """(frames, height, width) of a video, without decoding more than one frame where it can be.

    Raises:
        MediaError: as :func:`open_video`, for what can be seen without decoding.
    """
    if isinstance(video, np.ndarray):
        frames, height, width, _ = _checked_frames(video).shape
        return frames, height, width
    if (pictures := _pictures(video)) is not None:
        sizes = _per_frame(video, pictures, picture_size)
        return len(sizes), *_one_size(video, sizes)
    with _decoding(video, "video"), _container_or_none(video) as container:
        if container is not None:
            number, size = _measured(container)
        else:
            with _opened(video, "video") as image:
                number = getattr(image, "n_frames", 1) - _is_still(image)
                size = _upright_size(image)
    return number, *_one_size(video, [size] * min(number, 1))


def _checked_frames(array: np.ndarray) -> UInt8[np.ndarray, "frame height width 3"]:
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[-1] != 3 or 0 in array.shape:
        raise MediaError(
            f"A video array of type {array.dtype} and shape {list(array.shape)} was given; give "
            "uint8 [frame, height, width, 3] with at least one frame."
        )
    return array


def _pictures(video: Any) -> Sequence[Picture] | None:
    """The pictures a video is made of; None for an encoded one."""
    if isinstance(video, str | PathLike):
        folder = Path(video)
        if not folder.is_dir():
            return None
        files = [p for p in folder.iterdir() if p.suffix.lower() in _FRAME_FILES]
        return sorted((p for p in files if not p.name.startswith(".")), key=_natural)
    if isinstance(video, bytes) or callable(video):
        return None
    if isinstance(video, Sequence):
        return video
    raise MediaError(
        f"A video of type {type(video).__name__} was given; give pictures, an array, bytes, a file "
        "or a folder."
    )


def _natural(path: Path) -> tuple[list[tuple[int, str]], str]:
    parts = re.findall(r"[0-9]+|[^0-9]+", path.name)
    return [(int(part), "") if part[0] in "0123456789" else (-1, part) for part in parts], path.name


def _per_frame(
    video: Video, pictures: Sequence[Picture], look: Callable[[Picture], _Size]
) -> list[_Size]:
    found = []
    for number, picture in enumerate(pictures, start=1):
        try:
            found.append(look(picture))
        except MediaError as error:
            raise MediaError(
                f"Frame {number} of {_described(video, 'video', 'the')}: {error}"
            ) from error
    return found


def _one_size(video: Video, sizes: Sequence[tuple[int, ...]]) -> tuple[int, int]:
    if not sizes:
        raise MediaError(
            f"{_described(video, 'video')} has no frames; give a video with at least one."
        )
    for number, size in enumerate(sizes, start=1):
        if size[:2] != sizes[0][:2]:
            raise MediaError(
                f"{_described(video, 'video')} has frames of different sizes, "
                f"{list(sizes[0][:2])} first and {list(size[:2])} at frame {number}; make them one "
                "size [height, width]."
            )
    return sizes[0][0], sizes[0][1]


def _stacked(
    video: Video, frames: Sequence[np.ndarray]
) -> UInt8[np.ndarray, "frame height width 3"]:
    _one_size(video, [frame.shape for frame in frames])
    return np.stack(frames)


# Animated pictures


def _animation(image: Image.Image) -> tuple[list[np.ndarray], float | None]:
    frames, milliseconds = [], 0.0
    for frame in ImageSequence.Iterator(image):
        # A PNG may open with a still for viewers that cannot animate; it is no frame.
        if _is_still(image) and image.tell() == 0:
            continue
        frames.append(np.asarray(_upright(frame)))
        milliseconds += float(frame.info.get("duration") or math.nan)
    timed = len(frames) > 1 and milliseconds > 0
    return frames, 1000 * len(frames) / milliseconds if timed else None


def _is_still(image: Image.Image) -> bool:
    return bool(getattr(image, "default_image", False)) and getattr(image, "n_frames", 1) > 1


# Video containers, through PyAV


@contextmanager
def _container_or_none(video: Any) -> Iterator[Any]:
    """The video opened by PyAV; None where it is no container, but a picture for Pillow.

    Chosen by content: FFmpeg takes almost any bytes for some video, plain text included.
    """
    with _stream(video, "video") as opened:
        if not _is_container(opened.read(12)):
            yield None
            return
        check_length(opened)
        av = _pyav()
        try:
            # An open file, not its name: FFmpeg would follow names to other files and hosts.
            with av.open(opened) as container:
                if not container.streams.video:
                    raise ValueError("it has no pictures, only sound")
                yield container
        except av.FFmpegError as error:
            raise ValueError(error.strerror or str(error)) from error


def _is_container(head: bytes) -> bool:
    if has_boxes(head):
        return head[4:12] not in (b"ftypavif", b"ftypavis")  # pictures, to Pillow
    return head[:4] == MATROSKA or (head[:4] == b"RIFF" and head[8:12] == b"AVI ")


def _pyav() -> Any:
    try:
        import av
    except ImportError as error:
        raise MediaError(
            "Reading MP4, MOV, MKV, WebM and AVI needs PyAV, which is not installed; install it with "
            'pip install "mmlens[video]", or give the frames as pictures.'
        ) from error
    return av


def _decoded(container: Any) -> tuple[list[np.ndarray], float | None]:
    stream = container.streams.video[0]
    frames = []
    for packet in container.demux(stream):
        _check_packet(packet)
        frames += [_turned(frame) for frame in packet.decode()]
    return frames, float(stream.average_rate) if stream.average_rate else None


def _measured(container: Any) -> tuple[int, tuple[int, int]]:
    """Packets hold one shown frame each; the header's own count may be absent, or before editing."""
    stream = container.streams.video[0]
    number, size = 0, (0, 0)
    for packet in container.demux(stream):
        _check_packet(packet)
        number += packet.size > 0 and not packet.is_discard
        if size == (0, 0):
            for frame in packet.decode():
                turned = frame.rotation % 180 != 0
                size = (frame.width, frame.height) if turned else (frame.height, frame.width)
                break
    return (number, size) if size != (0, 0) else (0, size)


def _check_packet(packet: Any) -> None:
    if packet.is_corrupt:
        raise ValueError("it is truncated or damaged")


def _turned(frame: Any) -> np.ndarray:
    # Telephones film lying and say how far to turn, as they do in a photograph's EXIF.
    return np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))


# Sounds


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
        waveform, own = _waveform(audio)
        waveform = _scaled(waveform)
    else:
        with _sound(audio) as file:
            own = file.samplerate
            waveform = file.read(dtype="float32", always_2d=True)
            if len(waveform) != file.frames:
                raise ValueError(
                    f"it is truncated, with {len(waveform)} of {file.frames} samples there"
                )
    mono = waveform.mean(axis=1, dtype=np.float32) if waveform.ndim == 2 else waveform
    if not np.isfinite(mono).all():
        raise MediaError(
            f"{_described(audio, 'sound')} has samples that are not finite; replace NaN and infinity."
        )
    if own == rate:
        return mono
    _say_resampled(own, rate)
    length = _resampled_length(len(mono), own, rate)
    resampled = soxr.resample(np.ascontiguousarray(mono), own, rate)[:length]
    return np.pad(resampled, (0, length - len(resampled)))


def audio_length(audio: Audio, rate: int) -> int:
    """Samples that :func:`open_audio` gives, from the header alone.

    Raises:
        MediaError: as :func:`open_audio`, for what the header shows.
    """
    rate = _checked_rate(rate)
    if isinstance(audio, tuple | Mapping):
        waveform, own = _waveform(audio)
        return _resampled_length(len(waveform), own, rate)
    with _sound(audio) as file:
        return _resampled_length(file.frames, file.samplerate, rate)


@contextmanager
def _sound(audio: Any) -> Iterator[soundfile.SoundFile]:
    with _decoding(audio, "sound"), _stream(audio, "sound") as opened:
        check_length(opened)
        # The file's name would choose the format where it ends in .raw; the content shall.
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
        # libsndfile asks for places before the start of a damaged file; raising inside its callback
        # would only print.
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError):
            return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def tell(self) -> int:
        return self._file.tell()


def _waveform(audio: tuple[Any, ...] | Mapping[str, Any]) -> tuple[np.ndarray, int]:
    """A decoded sound's own samples, [time] or [time, channel], and its rate."""
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
        # datasets' own decoders disagree on where the channels lie, so none are taken here.
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


def _resampled_length(length: int, own: int, rate: int) -> int:
    # Rounded up as librosa does, so that the shortest sound has a sample; soxr alone may give none.
    return -(-length * rate // own)


@cache
def _say_resampled(own: int, rate: int) -> None:
    log.info("Sounds of %d Hz are resampled to the %d Hz that the model takes.", own, rate)


# Files


@contextmanager
def _decoding(source: Any, noun: str) -> Iterator[None]:
    """Whatever a decoder has to say against a medium, as one MediaError."""
    try:
        yield
    except MediaError:
        raise
    except (
        OSError,
        EOFError,
        SyntaxError,
        ValueError,
        TypeError,  # these three come from Pillow's readers of damaged files
        LookupError,
        struct.error,
        soundfile.SoundFileError,
        Image.DecompressionBombError,
    ) as error:
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "no decoder knows its format" if unknown else str(error).rstrip(".")
        raise MediaError(
            f"{_described(source, noun)} is not a readable {noun}: {reason}; {_READABLE[noun]}."
        ) from error


def _stream(medium: Any, noun: str) -> io.BufferedIOBase:
    """An encoded medium, open for reading."""
    if callable(medium):
        medium = medium()
    if isinstance(medium, bytes):
        return io.BytesIO(medium)
    if not isinstance(medium, str | PathLike):
        raise MediaError(
            f"A {noun} of type {type(medium).__name__} was given; give a path, bytes, or it decoded."
        )
    path = Path(medium)
    if not path.exists():
        raise MediaError(f"The {noun} {path} does not exist; give the path of a file.")
    if not path.is_file():
        raise MediaError(f"The {noun} {path} is not a file; {_READABLE[noun]}.")
    return path.open("rb")


def _described(medium: Any, noun: str, article: str = "The") -> str:
    if isinstance(medium, str | PathLike):
        return str(medium)
    return f"{article} {'embedded ' if isinstance(medium, bytes) else ''}{noun}"
