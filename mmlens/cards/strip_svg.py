"""Strips of neuron cards: a neuron's activation along a sound or a video, and the sound itself."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import soundfile
import soxr
from jaxtyping import Float32

#: A sound that a page plays: its waveform, and samples per second.
Sound = tuple[Float32[np.ndarray, " time"], int]
#: Drawing: width, height of the picture, height of the curve below it.
_WIDE, _PICTURE, _CURVE = 300.0, 46.0, 30.0
#: Width of a strip's picture over its height.
SHAPE = _WIDE / _PICTURE


@dataclass(frozen=True)
class Strip:
    """A neuron's activation along a medium.

    Attributes:
        picture: name of the medium's picture, whose width is its time: a spectrogram, or frames.
        unit: ``s`` or ``frames``.
        length: of the medium, in that unit.
        curve: (start, end, activation) of each position or moment, in that unit.
        mark: start and end of what the entry is about; None where that lies elsewhere.
        sound: name of the sound; None for a video.
    """

    picture: str
    unit: str
    length: float
    curve: tuple[tuple[float, float, float], ...]
    mark: tuple[float, float] | None = None
    sound: str | None = None


def encoded(sound: Sound, rate: int) -> str:
    """A sound as a data URI: MP3, at ``rate`` samples per second at most.

    WAV where the sound library was built without MP3.
    """
    wave, own = sound
    if own > rate:
        wave, own = soxr.resample(wave, own, rate), rate
    stream, mp3 = io.BytesIO(), "MP3" in soundfile.available_formats()
    soundfile.write(stream, np.clip(wave, -1, 1), own, format="MP3" if mp3 else "WAV")
    data = base64.b64encode(stream.getvalue()).decode("ascii")
    return f"data:audio/{'mpeg' if mp3 else 'wav'};base64,{data}"


def extremes(strips: Sequence[Strip], values: Sequence[float] = ()) -> tuple[float, float]:
    """The smallest and largest activation of several strips and tokens, with zero between them."""
    every = [value for strip in strips for _, _, value in strip.curve] + list(values)
    return min([0.0, *every]), max([0.0, *every])


def drawn_strip(
    strip: Strip, symbol: str, scale: tuple[float, float], sounds: Mapping[str, int], tiny: bool
) -> str:
    """A strip as HTML: the picture, the curve below it, its axis, and a button that plays the sound.

    Args:
        strip: the strip.
        symbol: id of its picture on the page, which is drawn 100 high.
        scale: smallest and largest activation of the card.
        sounds: name -> number of the sound on the page.
        tiny: show the picture pixel by pixel.
    """
    low, high = scale
    per_unit = _WIDE / max(strip.length, 1e-9)
    height = _CURVE / max(high - low, 1e-9)
    zero = _PICTURE + 2 + high * height
    bars = "".join(_bar(one, per_unit, zero, height) for one in strip.curve)
    line = f'<line class="zero" x1="0" x2="{_WIDE:g}" y1="{zero:.2f}" y2="{zero:.2f}"/>'
    marks = ""
    if strip.mark is not None:
        left, right = (one * per_unit for one in strip.mark)
        shape = (
            f'x="{left:.2f}" y="0" width="{max(right - left, 1):.2f}" '
            f'height="{_PICTURE + _CURVE + 4:g}"'
        )
        marks = f'<rect class="outer" {shape}/><rect class="inner" {shape}/>'
    said = f"{strip.length:.2f} s" if strip.unit == "s" else f"{strip.length:g} frames"
    peak = max((value for _, _, value in strip.curve), default=float("nan"))
    play = ""
    if strip.sound is not None:
        play = (
            f'<button type="button" class="play" data-sound="{sounds[strip.sound]}">'
            "\u25b6 hear it</button>"
        )
    drawing = (
        f'<svg class="strip{" tiny" if tiny else ""}" viewBox="0 0 {_WIDE:g} {_PICTURE + _CURVE + 4:g}" '
        f'preserveAspectRatio="none" role="img" aria-label="activation along the medium, at most '
        f'{peak:.3g}"><svg x="0" y="0" width="{_WIDE:g}" height="{_PICTURE:g}" viewBox="0 0 100 100" '
        f'preserveAspectRatio="none"><use href="#{symbol}"/></svg>{bars}{line}{marks}</svg>'
    )
    return (
        f'<div class="along"><div class="stage">{drawing}<i class="cursor"></i></div>'
        f'<div class="ends"><span>0</span><span>at most {peak:.3g}</span><span>{said}</span></div>'
        f"{play}</div>"
    )


def _bar(one: tuple[float, float, float], per_unit: float, zero: float, height: float) -> str:
    start, end, value = one
    top = zero - value * height if value > 0 else zero
    return (
        f'<rect class="{"on" if value > 0 else "off"}" x="{start * per_unit:.2f}" y="{top:.2f}" '
        f'width="{(end - start) * per_unit:.2f}" height="{abs(value) * height:.2f}"/>'
    )


def shaded_tokens(tokens: Sequence[tuple[str, float, bool]], high: float) -> str:
    """The text of a prompt, each token as dark as the neuron is active there.

    Args:
        tokens: (text, activation, whether the entry is about it); activation NaN where a word stands
            for a medium.
        high: the largest activation of the card, drawn darkest.
    """
    parts = []
    for text, value, marked in tokens:
        known = not math.isnan(value)
        share = max(0.0, value) / max(high, 1e-9) if known else 0.0
        tag = "mark" if marked else "span"
        title = f' title="{value:.3g}"' if known else ""
        parts.append(
            f'<{tag} style="background:rgba(0,114,178,{0.5 * share:.2f})"{title}>'
            f"{html.escape(text)}</{tag}>"
        )
    return f'<p class="words shaded">{"".join(parts)}</p>'
