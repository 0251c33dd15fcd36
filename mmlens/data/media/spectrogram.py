"""Spectrograms: how loud a sound is at every moment and frequency, in decibels below its loudest.

Numbers and small pictures; :mod:`mmlens.lens.figures.sound` and the neuron cards draw on them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from PIL import Image
from torch import Tensor

from mmlens.errors import MediaError

#: Levels further than this below the loudest are drawn as silence, in decibels. Whisper's
#: kind of feature extractor cuts at the same level.
FLOOR = -80.0
#: Power below which a sound is silent.
_SILENT = 1e-10
#: Frequencies that an axis names, in Hz.
_TICKS = (125, 250, 500, 1000, 2000, 4000, 8000, 16000)


@dataclass(frozen=True, eq=False)
class MelBank:
    """How a spectrogram is taken: windows of the sound, and the bands that their spectrum is added to.

    Attributes:
        weights: of each frequency of the spectrum in each band.
        rate: of the sound, in samples per second.
        window: samples of a (Hann) window.
        hop: samples from one window to the next.
    """

    weights: Float[Tensor, "frequency band"]
    rate: int
    window: int
    hop: int

    @classmethod
    def of(cls, extractor: Any) -> MelBank:
        """That of a Hugging Face feature extractor; :meth:`plain` where it lacks a part of it."""
        names = ("mel_filters", "sampling_rate", "n_fft", "hop_length")
        weights, rate, window, hop = (getattr(extractor, name, None) for name in names)
        if weights is None or rate is None or window is None or hop is None:
            return cls.plain(int(rate or 16000))
        bank = torch.as_tensor(np.asarray(weights), dtype=torch.float32)
        if bank.ndim != 2 or len(bank) != window // 2 + 1:
            return cls.plain(int(rate))
        return cls(bank, int(rate), int(window), int(hop))

    @classmethod
    def plain(cls, rate: int, bands: int = 64) -> MelBank:
        """Triangles on the mel scale up to half the rate; windows of 32 ms, every 10 ms.

        The scale is ``2595 log10(1 + f / 700)`` (HTK's; O'Shaughnessy, Speech Communication, 1987).
        A triangle reaches from the middle of the band below to that of the band above, at least
        to the next frequency of the spectrum.
        """
        window = round(0.032 * rate)
        top = 2595 * math.log10(1 + rate / 2 / 700)
        edges = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
        frequencies = np.arange(window // 2 + 1) * rate / window
        below, middle, above = edges[:-2], edges[1:-1], edges[2:]
        step = rate / window
        rise = (frequencies[:, None] - middle) / np.maximum(middle - below, step)
        fall = (frequencies[:, None] - middle) / np.maximum(above - middle, step)
        weights = np.clip(np.minimum(1 + rise, 1 - fall), 0, None)
        return cls(torch.tensor(weights, dtype=torch.float32), rate, window, round(0.01 * rate))

    def frequencies(self) -> Float[np.ndarray, " band"]:
        """The mean frequency of each band in Hz, weighted as the band weighs them; never falling."""
        weights = self.weights.double().numpy()
        hz = np.arange(len(weights)) * self.rate / self.window
        total = weights.sum(0)
        known = total > 0  # narrow bands of some extractors hold no frequency of the spectrum
        means = (weights * hz[:, None]).sum(0)[known] / total[known]
        every = np.interp(np.arange(len(total)), known.nonzero()[0], means)
        return np.maximum.accumulate(every)


@dataclass(frozen=True, eq=False)
class Spectrogram:
    """How loud a sound is.

    Attributes:
        levels: in decibels below the loudest field, 0 to :data:`FLOOR`; the lowest band first. Frame
            f is centred at ``f * hop`` seconds.
        frequencies: of the bands, in Hz.
        hop: seconds from one frame to the next.
        seconds: how long the sound is.
    """

    levels: Float32[np.ndarray, "band frame"]
    frequencies: Float[np.ndarray, " band"]
    hop: float
    seconds: float

    def image(self, width: int | None = None, height: int | None = None) -> Image.Image:
        """In grey: dark is loud, low frequencies lie below; from the sound's start to its end.

        Args:
            width, height: in pixels; default: a pixel for each frame and band.
        """
        bands, frames = self.levels.shape
        shades = np.round(255 * self.levels[::-1] / FLOOR).astype(np.uint8)
        # Frame 0 is centred at the sound's start; half of it lies before.
        shades = np.concatenate([shades, shades[:, -1:]], axis=1)
        across = min(self.seconds / self.hop, frames)
        size = (width or max(1, round(across)), height or bands)
        return Image.fromarray(shades).resize(
            size, Image.Resampling.BOX, box=(0.5, 0, 0.5 + across, bands)
        )

    def ticks(self, apart: float = 0.12) -> list[tuple[float, str]]:
        """Where an axis of frequency has its marks, from 0 (lowest edge) to 1, and what they say.

        Args:
            apart: marks that lie nearer to a higher one than this are left out.
        """
        low, high = self.frequencies[0], self.frequencies[-1]
        middles = (np.arange(len(self.frequencies)) + 0.5) / len(self.frequencies)
        marks: list[tuple[float, str]] = []
        for hz in reversed(_TICKS):
            place = float(np.interp(hz, self.frequencies, middles))
            if low <= hz <= high and (not marks or marks[0][0] - place >= apart):
                marks.insert(0, (place, f"{hz} Hz" if hz < 1000 else f"{hz // 1000} kHz"))
        return marks


def spectrogram(
    wave: Float32[np.ndarray, " time"] | Float32[Tensor, " time"], bank: MelBank
) -> Spectrogram:
    """The log-mel spectrogram of a sound.

    ``10 log10(sum_f w[f, b] |STFT[f, t]|^2)``, less its largest value, cut at :data:`FLOOR`: up to a
    linear map what Whisper's kind of extractor gives a model (Radford et al., 2022, section 2.2),
    where ``bank`` is the extractor's own.

    Args:
        wave: one channel, at the bank's rate.
        bank: how it is taken.

    Raises:
        MediaError: the sound has no samples.
    """
    sound = torch.as_tensor(wave, dtype=torch.float32)
    if not len(sound):
        raise MediaError("A sound without samples has no spectrogram; give one with at least one.")
    frames = -(-len(sound) // bank.hop)
    # Extractors pad with silence after the sound, and mirror what is before its start.
    padded = torch.nn.functional.pad(sound, (0, bank.window + bank.hop))
    spectrum = torch.stft(
        padded, bank.window, bank.hop, window=torch.hann_window(bank.window), return_complex=True
    )
    power = bank.weights.T @ spectrum[:, :frames].abs().square()
    loudest = float(power.max())
    if loudest <= _SILENT:
        levels = torch.full_like(power, FLOOR)
    else:
        levels = (10 * torch.log10(power.clamp(min=_SILENT) / loudest)).clamp(FLOOR, 0)
    return Spectrogram(
        levels.numpy(), bank.frequencies(), bank.hop / bank.rate, len(sound) / bank.rate
    )
