"""What is done to a picture, and what is measured on it.

Every demo picture is *developed* in the same way whatever its domain: exposure, an illumination
that falls off to one side, and a tone. The questions about light, sides and colour are answered by
measuring the finished picture, so that their answers stay true under augmentation: measure again
afterwards.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
#: Colour casts, as offsets from grey in RGB.
TONES: dict[str, tuple[float, float, float]] = {
    "gray": (0.0, 0.0, 0.0),
    "red": (0.22, -0.09, -0.09),
    "green": (-0.12, 0.12, -0.12),
    "blue": (-0.06, -0.06, 0.25),
    "yellow": (0.08, 0.08, -0.22),
}
#: Hue ranges in degrees called by a colour's name; what lies between them is not asked about.
HUES = {
    "red": (-18.0, 18.0),
    "yellow": (42.0, 75.0),
    "green": (95.0, 150.0),
    "blue": (205.0, 265.0),
}
#: Width and height of the three layouts.
SIZES: dict[str, tuple[int, int]] = {"square": (32, 32), "wide": (64, 32), "tall": (32, 64)}


@dataclass(frozen=True)
class Measured:
    """Answers measured on a finished picture; None where it does not settle the question."""

    light: str | None
    side: str | None
    half: str | None
    color: str | None


def luminance(picture: np.ndarray) -> np.ndarray:
    """`[h, w, 3]` in 0..1 to `[h, w]`."""
    return picture @ LUMA


def measure(picture: np.ndarray) -> Measured:
    """Measure a `[h, w, 3]` picture in 0..1."""
    light = luminance(picture)
    height, width = light.shape
    mean = float(light.mean())
    right_left = float(light[:, width // 2 :].mean() - light[:, : width // 2].mean())
    bottom_top = float(light[height // 2 :].mean() - light[: height // 2].mean())
    return Measured(
        light="bright" if mean > 0.56 else "dark" if mean < 0.44 else None,
        side="right" if right_left > 0.05 else "left" if right_left < -0.05 else None,
        half="bottom" if bottom_top > 0.05 else "top" if bottom_top < -0.05 else None,
        color=_color(picture.reshape(-1, 3).mean(0)),
    )


def _color(rgb: np.ndarray) -> str | None:
    """Name of a mean colour, None between names."""
    red, green, blue = (float(value) for value in rgb)
    high, low = max(red, green, blue), min(red, green, blue)
    chroma = high - low
    if chroma < 0.03:
        return "gray"
    if chroma < 0.10:
        return None
    if high == red:
        hue = 60 * (green - blue) / chroma
    elif high == green:
        hue = 120 + 60 * (blue - red) / chroma
    else:
        hue = 240 + 60 * (red - green) / chroma
    for name, (start, end) in HUES.items():
        if start <= hue <= end or start <= hue - 360 <= end:
            return name
    return None


def expose(picture: np.ndarray, contrast: float, mean: float) -> np.ndarray:
    """Scale the picture's contrast and move its mean luminance to `mean`."""
    return (picture - float(luminance(picture).mean())) * contrast + mean


def illuminate(picture: np.ndarray, across: float, down: float) -> np.ndarray:
    """Add a linear illumination; its halves then differ by `across` and `down` in luminance."""
    height, width = picture.shape[:2]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :, None]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None, None]
    return picture + across * x + down * y


def tone(picture: np.ndarray, name: str, strength: float) -> np.ndarray:
    """Turn a picture grey and give it a colour cast."""
    return luminance(picture)[..., None] + strength * np.array(TONES[name], dtype=np.float32)


def _signed(rng: np.random.Generator, low: float, high: float) -> float:
    return float(rng.uniform(low, high) * rng.choice([-1.0, 1.0]))


def develop(
    picture: np.ndarray, rng: np.random.Generator, natural: bool, negative: bool
) -> np.ndarray:
    """Exposure, illumination and tone of a source picture, all drawn independently of its domain.

    `natural`: the colours of the source may be kept (a quarter of the time).
    `negative`: dark on bright is as good as bright on dark for this kind of picture.
    """
    if negative and rng.random() < 0.5:
        picture = 1 - picture
    if not (natural and rng.random() < 0.25):
        picture = tone(picture, str(rng.choice(list(TONES))), float(rng.uniform(0.75, 1.25)))
    mean = rng.uniform(0.22, 0.37) if rng.random() < 0.5 else rng.uniform(0.63, 0.78)
    picture = expose(picture, float(rng.uniform(0.5, 0.75)), float(mean))
    picture = illuminate(picture, _signed(rng, 0.07, 0.16), _signed(rng, 0.07, 0.16))
    return np.clip(picture, 0, 1).astype(np.float32)


def augment(
    picture: np.ndarray, rng: np.random.Generator, *, flip: bool, negative: bool
) -> np.ndarray:
    """A training variant of a finished picture.

    What it shows and its domain stay; everything else is to be measured anew.
    """
    if flip and rng.random() < 0.5:
        picture = picture[:, ::-1]
    picture = _warp(picture, rng)
    if negative and rng.random() < 0.5:
        picture = 1 - picture
    if rng.random() < 0.6:
        picture = tone(picture, str(rng.choice(list(TONES))), float(rng.uniform(0.75, 1.25)))
    picture = expose(picture, float(rng.uniform(0.8, 1.15)), float(rng.uniform(0.22, 0.78)))
    picture = illuminate(picture, float(rng.uniform(-0.2, 0.2)), float(rng.uniform(-0.2, 0.2)))
    return np.clip(picture, 0, 1).astype(np.float32)


def _warp(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A small rotation, scaling and shift; the border continues its edge."""
    height, width = picture.shape[:2]
    angle, scale = np.deg2rad(rng.uniform(-10, 10)), rng.uniform(0.88, 1.12, size=2)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * scale
    pad = 8
    padded = np.pad(picture, ((pad, pad), (pad, pad), (0, 0)), mode="edge")
    centre = np.array([width / 2, height / 2])
    offset = centre + pad - matrix @ centre + rng.uniform(-2.5, 2.5, size=2)
    coefficients = (*matrix[0], offset[0], *matrix[1], offset[1])
    image = as_image(padded).transform(
        (width, height), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR
    )
    return as_array(image)


def as_image(picture: np.ndarray) -> Image.Image:
    """A picture in 0..1 as 8-bit RGB; what lies outside is clipped."""
    return Image.fromarray(np.uint8(np.round(np.clip(picture, 0, 1) * 255)))


def as_array(image: Image.Image) -> np.ndarray:
    """An image as `[h, w, 3]` in 0..1, single precision."""
    return np.asarray(image, dtype=np.float32) / 255


def encode(picture: np.ndarray) -> bytes:
    """A picture in 0..1 as JPEG of quality 92 without chroma subsampling."""
    stream = io.BytesIO()
    as_image(picture).save(stream, format="JPEG", quality=92, subsampling=0)
    return stream.getvalue()


def decode(data: bytes) -> np.ndarray:
    """The bytes of a picture as `[h, w, 3]` in 0..1."""
    return as_array(Image.open(io.BytesIO(data)).convert("RGB"))
