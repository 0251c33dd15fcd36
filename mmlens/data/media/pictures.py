"""Pictures: decoded, or measured from their headers alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from typing import Any

from PIL import Image, ImageOps

from mmlens.data.media.decoding import decoding, opened_file
from mmlens.errors import MediaError


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


def open_picture(picture: Picture) -> Image.Image:
    """Decode a picture to RGB, turned upright by its EXIF orientation.

    Raises:
        MediaError: the file is missing, truncated or not a picture; pictures side by side have
            different heights, or there are none.
    """
    if isinstance(picture, SideBySide):
        return _joined([open_picture(one) for one in picture.pictures])
    with decoding(picture, "picture"), opened(picture, "picture") as image:
        return upright(image)


def picture_size(picture: Picture) -> tuple[int, int]:
    """(height, width) of a picture in pixels, read from its header alone where it can be.

    Raises:
        MediaError: the file is missing or not a picture; else as :func:`open_picture`.
    """
    if isinstance(picture, SideBySide):
        return _joined_size([picture_size(one) for one in picture.pictures])
    with decoding(picture, "picture"), opened(picture, "picture") as image:
        return upright_size(image)


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


def upright(image: Image.Image) -> Image.Image:
    """The image in RGB, turned as its EXIF orientation says."""
    return ImageOps.exif_transpose(image).convert("RGB")


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(height, width) of what :func:`upright` gives, without decoding the image."""
    width, height = image.size
    # Pillow turns TIFF by itself, its size included.
    # Asking a PNG without a leading EXIF chunk for it would decode the whole picture.
    asked = image.format not in ("TIFF", "PNG") or "exif" in image.info
    turned = asked and image.getexif().get(0x0112) in (5, 6, 7, 8)
    return (width, height) if turned else (height, width)


@contextmanager
def opened(picture: Any, noun: str) -> Iterator[Image.Image]:
    """The picture as Pillow opens it, not yet decoded if it is encoded; a copy of a decoded one."""
    if isinstance(picture, Image.Image):
        yield picture.copy()
    else:
        stream: Any = opened_file(picture, noun)
        with stream, Image.open(stream) as image:
            yield image
