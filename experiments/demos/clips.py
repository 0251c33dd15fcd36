"""Short videos drawn from a picture: it moves, grows or shrinks, and gets brighter or darker.

All of it is drawn independently of what the picture shows, so the answers to questions about it
say nothing about the domain.
"""

from __future__ import annotations

import io
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageSequence

from experiments.demos.pictures import TONES, as_array, as_image, luminance, tone

FRAMES = 4
#: Frames per second, written to the file.
RATE = 2
#: Width and height of the four layouts.
SIZES: tuple[tuple[int, int], ...] = ((32, 32), (48, 32), (32, 48), (48, 48))
#: Steps to the right and down of each direction.
DIRECTIONS: dict[str, tuple[int, int]] = {
    "left": (-1, 0),
    "right": (1, 0),
    "up": (0, -1),
    "down": (0, 1),
}
#: Pixels a frame, from and to.
SPEEDS: dict[str, tuple[float, float]] = {"slow": (0.8, 1.3), "fast": (2.5, 3.3)}
#: The side of the moving picture in the first and in the last frame, as shares of its mean.
GROWTH: dict[str, tuple[float, float]] = {"grows": (0.82, 1.18), "shrinks": (1.18, 0.82)}
FADING: dict[str, float] = {"brighter": 1.0, "darker": -1.0}


@dataclass(frozen=True)
class Clip:
    """Frames `[4, height, width, 3]` in 0..255 and what happens in them."""

    frames: np.ndarray
    color: str
    motion: str
    speed: str
    growth: str
    fading: str

    def answers(self) -> dict[str, str]:
        """What happens and in which colour, by question."""
        names = ("color", "motion", "speed", "growth", "fading")
        return {name: getattr(self, name) for name in names}


def _pick(options: Collection[str], rng: np.random.Generator) -> str:
    return list(options)[int(rng.integers(len(options)))]


def draw(picture: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> Clip:
    """A clip of `size` (width, height) in which a square picture, `[h, w, 3]` in 0..1, moves."""
    motion, speed = _pick(DIRECTIONS, rng), _pick(SPEEDS, rng)
    growth, fading = _pick(GROWTH, rng), _pick(FADING, rng)
    steps = np.linspace(-0.5, 0.5, FRAMES)
    travel = rng.uniform(*SPEEDS[speed]) * (FRAMES - 1)
    side = rng.uniform(20, 24)
    sides = side * np.linspace(*GROWTH[growth], FRAMES)
    direction = np.array(DIRECTIONS[motion], dtype=float)
    room = np.maximum(np.array(size) - side * 1.1 - travel * np.abs(direction), 0)
    middle = np.array(size) / 2 + rng.uniform(-0.5, 0.5, size=2) * room
    color = _pick(TONES, rng)
    colors = tone(picture, color, float(rng.uniform(0.6, 1.0)))
    shade = _background(float(luminance(colors).mean()), rng)
    change = FADING[fading] * rng.uniform(0.18, 0.3)
    moving = as_image(colors)
    frames = []
    for step, length in zip(steps, sides, strict=True):
        center = middle + direction * travel * step
        frame = _paste(moving, size, center, float(length), shade)
        frames.append(np.clip(frame + change * step, 0, 1))
    found = np.round(np.stack(frames) * 255).astype(np.uint8)
    return Clip(found, color, motion, speed, growth, fading)


def _background(mean: float, rng: np.random.Generator) -> float:
    """A grey that differs from the mean of what moves on it."""
    return float(rng.uniform(0.12, 0.35) if mean > 0.5 else rng.uniform(0.65, 0.88))


def _paste(
    picture: Image.Image, size: tuple[int, int], center: np.ndarray, side: float, shade: float
) -> np.ndarray:
    """The picture, scaled to `side` and moved by parts of a pixel, on a grey ground."""
    scale = picture.width / side
    left, top = center - side / 2
    coefficients = (scale, 0.0, -left * scale, 0.0, scale, -top * scale)
    moved = picture.transform(size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)
    covered = Image.new("L", picture.size, 255).transform(
        size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR
    )
    share = as_array(covered)[..., None]
    return share * np.asarray(moved, dtype=np.float32) / 255 + (1 - share) * shade


def encode(frames: np.ndarray) -> bytes:
    """Frames as an animated WebP without loss."""
    first, *others = [Image.fromarray(frame) for frame in frames]
    stream = io.BytesIO()
    first.save(
        stream,
        format="WEBP",
        save_all=True,
        append_images=others,
        duration=1000 // RATE,
        lossless=True,
        quality=100,
        method=6,
        minimize_size=True,
    )
    return stream.getvalue()


def decode(data: bytes) -> np.ndarray:
    """The frames of an animated WebP, `[frames, height, width, 3]` in 0..255."""
    with Image.open(io.BytesIO(data)) as file:
        frames = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(file)]
    return np.stack(frames)
