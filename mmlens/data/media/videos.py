"""Videos, given as frames, as animated pictures or as files: decoded, or measured cheaply."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageSequence

from mmlens.data.media.decoding import decoding, described
from mmlens.data.media.pictures import (
    Picture,
    open_picture,
    opened,
    picture_size,
    upright,
    upright_size,
)
from mmlens.data.media.video_files import container_or_none, decoded, measured
from mmlens.errors import MediaError

#: A video: its frames as pictures, or as a UInt8 array [frame, height, width, 3]; the encoded bytes
#: of an animated picture (WebP, GIF, PNG, TIFF) or of an MP4, MOV, MKV, WebM or AVI; the file that
#: holds them; a function that reads these bytes when it is asked; or a folder of frame pictures.
Video = Sequence[Picture] | np.ndarray | bytes | str | PathLike[str] | Callable[[], bytes]

#: What counts as a frame in a folder; other files there (notes, indices of thumbnails) are ignored.
_FRAME_FILES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}

_Size = TypeVar("_Size")


@dataclass(frozen=True, eq=False)
class VideoFrames:
    """A decoded video.

    Attributes:
        frames: RGB.
        fps: frames per second, the mean where it varies; None where it is not known.
    """

    frames: UInt8[np.ndarray, "frame height width 3"]
    fps: float | None


def open_video(video: Video) -> VideoFrames:
    """Decode every frame of a video to RGB, turned upright.

    An array is not copied. The frames of a folder are its pictures in the order of their
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
    with decoding(video, "video"), container_or_none(video) as container:
        if container is not None:
            frames, fps = decoded(container)
        else:
            with opened(video, "video") as image:
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
    with decoding(video, "video"), container_or_none(video) as container:
        if container is not None:
            number, size = measured(container)
        else:
            with opened(video, "video") as image:
                number = getattr(image, "n_frames", 1) - _is_still(image)
                size = upright_size(image)
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
                f"Frame {number} of {described(video, 'video', 'the')}: {error}"
            ) from error
    return found


def _one_size(video: Video, sizes: Sequence[tuple[int, ...]]) -> tuple[int, int]:
    if not sizes:
        raise MediaError(
            f"{described(video, 'video')} has no frames; give a video with at least one."
        )
    for number, size in enumerate(sizes, start=1):
        if size[:2] != sizes[0][:2]:
            raise MediaError(
                f"{described(video, 'video')} has frames of different sizes, "
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
        frames.append(np.asarray(upright(frame)))
        milliseconds += float(frame.info.get("duration") or math.nan)
    timed = len(frames) > 1 and milliseconds > 0
    return frames, 1000 * len(frames) / milliseconds if timed else None


def _is_still(image: Image.Image) -> bool:
    return bool(getattr(image, "default_image", False)) and getattr(image, "n_frames", 1) > 1
