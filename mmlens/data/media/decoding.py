"""What the readers of pictures, videos and sounds share: opening a medium, and one kind of error."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import soundfile
from PIL import Image, UnidentifiedImageError

from mmlens.errors import MediaError

#: What can be given instead, by the noun of the medium.
READABLE = {
    "picture": "give one that Pillow reads, such as PNG, JPEG or WebP",
    "video": "give an animated WebP, GIF, PNG or TIFF, or an MP4, MOV, MKV, WebM or AVI",
    "sound": "give a WAV, FLAC, OGG or MP3",
}


@contextmanager
def decoding(source: Any, noun: str) -> Iterator[None]:
    """Turn whatever a decoder raises into one MediaError.

    Args:
        source: the medium, which the message names.
        noun: ``picture``, ``video`` or ``sound``.

    Raises:
        MediaError: the block raised an error that decoders raise at unreadable files.
    """
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
            f"{described(source, noun)} is not a readable {noun}: {reason}; {READABLE[noun]}."
        ) from error


def opened_file(medium: Any, noun: str) -> io.BufferedIOBase:
    """An encoded medium, open for reading.

    Raises:
        MediaError: it is neither bytes nor the path of a file.
    """
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
        raise MediaError(f"The {noun} {path} is not a file; {READABLE[noun]}.")
    return path.open("rb")


def described(medium: Any, noun: str, article: str = "The") -> str:
    """The medium as a message names it: by its path, or as *the (embedded) video*."""
    if isinstance(medium, str | PathLike):
        return str(medium)
    return f"{article} {'embedded ' if isinstance(medium, bytes) else ''}{noun}"
