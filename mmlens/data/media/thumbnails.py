"""Small pictures for pages, encoded so that an HTML file can hold them."""

from __future__ import annotations

import base64
import io

from PIL import Image

#: Longest side, in pixels, of pictures whose every pixel counts: they are kept without loss.
TINY = 72


def shrunk(image: Image.Image, side: int) -> Image.Image:
    """The picture with its longest side at most ``side`` pixels."""
    if max(image.size) <= side:
        return image
    scale = side / max(image.size)
    width, height = (max(1, round(n * scale)) for n in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def encoded(image: Image.Image, quality: int = 80, *, lossless: bool = False) -> bytes:
    """A picture as PNG where it is tiny or is to be kept ``lossless``, else as JPEG of ``quality``."""
    stream = io.BytesIO()
    if lossless or max(image.size) <= TINY:
        image.save(stream, "PNG", optimize=True)
    else:
        image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def data_uri(image: Image.Image) -> str:
    """A picture as a data URI: PNG where it is tiny, else JPEG."""
    content = encoded(image)
    kind = "png" if content.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
