"""Small encoded pictures, and damage done to them."""

import io

from hypothesis import strategies as st
from PIL import Image

RED, BLUE = (255, 0, 0), (0, 0, 255)


def half_and_half(width=30, height=10):
    """Left half red, right half blue."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    return image


def encoded(image, kind="PNG", orientation=None, **options):
    out = io.BytesIO()
    if orientation is not None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif
    image.save(out, kind, **options)
    return out.getvalue()


def damaged(content, data):
    """Some bytes changed and the end cut off, as hypothesis draws it."""
    broken = bytearray(content)
    for _ in range(data.draw(st.integers(0, 4))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    return bytes(broken[: data.draw(st.integers(0, len(broken)))])
