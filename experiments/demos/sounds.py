"""What is done to a sound, and what is measured on it.

Every demo sound is *developed* in the same way whatever its domain: its timbre is tilted, it grows
or fades, it lies on a little noise, and it is set to a level. The questions about level, length,
timbre and course are answered by measuring the finished sound, so that their answers stay true
under augmentation: measure again afterwards.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import soundfile

RATE = 16_000
#: The longest sound, in samples; longer ones are cut.
LIMIT = 2 * RATE
#: Seconds of short and of long sounds.
SPANS: dict[str, tuple[float, float]] = {"short": (0.62, 1.0), "long": (1.45, 1.98)}
#: Level of the loudest parts in decibels below full scale.
LEVELS: dict[str, tuple[float, float]] = {"loud": (-15.0, -10.0), "soft": (-38.0, -32.0)}
#: The frequency on whose two sides the power decides whether a sound is bright or dull.
PIVOT = 1000.0


@dataclass(frozen=True)
class Measured:
    """Answers measured on a finished sound; None where it does not settle the question."""

    level: str | None
    length: str | None
    half: str | None
    tone: str | None


@lru_cache(maxsize=256)
def frequencies(size: int) -> np.ndarray:
    """The frequencies of the spectrum of `size` samples, in Hz."""
    return np.fft.rfftfreq(size, 1 / RATE).astype(np.float32)


@lru_cache(maxsize=256)
def slope(size: int) -> np.ndarray:
    """The course of a tilt over the spectrum: from -1 to 1 around the pivot."""
    return np.tanh(1.5 * np.log2(np.maximum(frequencies(size), 20) / PIVOT))


def level(sound: np.ndarray) -> float:
    """Decibels of the loudest parts: the 95th percentile of the power of 20 ms frames."""
    frames = sound[: len(sound) // 320 * 320].reshape(-1, 320)
    return 10 * float(np.log10(np.percentile((frames**2).mean(1), 95) + 1e-12))


def high_share(sound: np.ndarray) -> float:
    """The share of the power that lies above the pivot."""
    power = np.abs(np.fft.rfft(sound)) ** 2
    frequency = frequencies(len(sound))
    audible = frequency > 50
    return float(power[frequency > PIVOT].sum() / (power[audible].sum() + 1e-12))


def measure(sound: np.ndarray) -> Measured:
    """Measure a sound `[samples]` in -1..1."""
    loudness, seconds, share = level(sound), len(sound) / RATE, high_share(sound)
    middle = len(sound) // 2
    first, second = (float((part**2).mean()) + 1e-12 for part in (sound[:middle], sound[middle:]))
    rise = 10 * np.log10(second / first)
    return Measured(
        level="loud" if loudness > -20 else "soft" if loudness < -27 else None,
        length="short" if seconds < 1.1 else "long" if seconds > 1.35 else None,
        half="end" if rise > 4 else "start" if rise < -4 else None,
        tone="bright" if share > 0.7 else "dull" if share < 0.3 else None,
    )


def shape(sound: np.ndarray, decibels: np.ndarray) -> np.ndarray:
    """Give the sound's spectrum a gain."""
    return np.fft.irfft(np.fft.rfft(sound) * 10 ** (decibels / 20), len(sound))


def tilt(size: int, decibels: float) -> np.ndarray:
    """A gain that raises what lies above the pivot by half of `decibels`, and lowers the rest."""
    return decibels / 2 * slope(size)


def ramp(sound: np.ndarray, decibels: float) -> np.ndarray:
    """Let the sound grow by `decibels` from its start to its end, or fade."""
    return sound * 10 ** (
        np.linspace(-decibels / 2, decibels / 2, len(sound), dtype=np.float32) / 20
    )


def set_level(sound: np.ndarray, decibels: float) -> np.ndarray:
    """Bring the sound to a level; peaks are rounded off below full scale."""
    sound = sound * 10 ** ((decibels - level(sound)) / 20)
    return np.where(np.abs(sound) > 0.6, np.sign(sound) * _knee(np.abs(sound)), sound)


def _knee(size: np.ndarray) -> np.ndarray:
    return 0.6 + 0.38 * np.tanh((size - 0.6) / 0.38)


def add_noise(sound: np.ndarray, below: float, rng: np.random.Generator) -> np.ndarray:
    """Lay the sound on pinkish noise `below` decibels under its level."""
    frequency = np.maximum(frequencies(len(sound)), 40)
    phase = np.exp(2j * np.pi * rng.random(len(frequency), dtype=np.float32))
    noise = np.fft.irfft(phase * frequency ** -float(rng.uniform(0, 0.5)), len(sound))
    noise /= np.sqrt((noise**2).mean()) + 1e-12
    return sound + noise * 10 ** ((level(sound) - below) / 20)


def fade_edges(sound: np.ndarray, seconds: float = 0.008) -> np.ndarray:
    """Take the clicks off both ends."""
    width = int(seconds * RATE)
    window = np.ones(len(sound), dtype=np.float32)
    window[:width] = np.linspace(0, 1, width)
    window[-width:] = np.linspace(1, 0, width)
    return sound * window


def find_tilt(sound: np.ndarray, bright: bool) -> float:
    """The smallest tilt that makes the sound clearly bright, or clearly dull."""
    power = np.abs(np.fft.rfft(sound)) ** 2
    audible = frequencies(len(sound)) > 50
    power, course = power[audible], slope(len(sound))[audible]
    high = course > 0
    decibels = 0.0
    for decibels in np.arange(0.0, 42.1, 3.0) * (1 if bright else -1):
        tilted = power * 10 ** (decibels * course / 20)
        share = tilted[high].sum() / (tilted.sum() + 1e-12)
        if share > 0.78 if bright else share < 0.22:
            break
    return float(decibels)


def find_ramp(sound: np.ndarray, end: bool) -> float:
    """The smallest ramp that makes the sound's end, or its start, clearly louder."""
    power, middle, size = sound**2, len(sound) // 2, 0.0
    for size in np.arange(6.0, 36.1, 3.0) * (1 if end else -1):
        grown = power * 10 ** (np.linspace(-size, size, len(sound)) / 20)
        rise = 10 * np.log10((grown[middle:].sum() + 1e-12) / (grown[:middle].sum() + 1e-12))
        if rise > 6 if end else rise < -6:
            break
    return float(size)


def whole(sound: np.ndarray) -> np.ndarray:
    """The sound cut to whole frames of 20 ms, at most the limit."""
    return sound[: min(len(sound), LIMIT) // 320 * 320]


def develop(
    sound: np.ndarray, rng: np.random.Generator, tone: str, half: str, loudness: str
) -> np.ndarray:
    """Timbre, course, noise and level of a source sound, asked for independently of its domain."""
    sound = whole(sound)
    sound = shape(sound, tilt(len(sound), find_tilt(sound, tone == "bright")))
    stretch = float(rng.uniform(1.0, 1.4))
    sound = ramp(sound, stretch * find_ramp(sound, half == "end"))
    sound = add_noise(fade_edges(sound), float(rng.uniform(28, 45)), rng)
    return set_level(sound, float(rng.uniform(*LEVELS[loudness])))


def resample(sound: np.ndarray, speed: float) -> np.ndarray:
    """Play the sound faster or slower; its pitch goes with it."""
    places = np.arange(0, len(sound) - 1, speed)
    return np.interp(places, np.arange(len(sound)), sound).astype(np.float32)


def response(size: int, rng: np.random.Generator, strength: float) -> np.ndarray:
    """A random smooth gain, as of another room or microphone."""
    octaves = np.log2(np.maximum(frequencies(size), 60) / 60)
    return np.interp(octaves, np.arange(8), rng.normal(0, strength, size=8)).astype(np.float32)


def augment(sound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A training variant of a finished sound.

    What it is and its domain stay; everything else is to be measured anew.
    """
    sound = resample(sound, float(np.exp(rng.uniform(-0.16, 0.16))))
    start = int(rng.integers(max(0, len(sound) - LIMIT) + 1))
    sound = whole(sound[start:])
    sound = np.roll(sound, int(rng.integers(-800, 801))) if rng.random() < 0.5 else sound
    gain = response(len(sound), rng, 4.0)
    if rng.random() < 0.5:
        gain = gain + tilt(len(sound), float(rng.uniform(-25, 25)))
    sound = shape(sound, gain)
    if rng.random() < 0.7:
        sound = ramp(sound, float(rng.uniform(-32, 32)))
    sound = add_noise(fade_edges(sound), float(rng.uniform(22, 45)), rng)
    name = "loud" if rng.random() < 0.5 else "soft"
    return set_level(sound, float(rng.uniform(*LEVELS[name])))


def plain_sounds(found: Sequence[np.ndarray], seed: int = 0) -> dict[str, list[np.ndarray]]:
    """Silence and white noise of the length of each sound, for controls."""
    rng = np.random.default_rng(seed)
    sizes = {len(sound) for sound in found}
    silence = {size: np.zeros(size, dtype=np.float32) for size in sizes}
    noise = {size: rng.normal(0, 0.1, size).astype(np.float32) for size in sizes}
    return {
        "silence": [silence[len(sound)] for sound in found],
        "noise": [noise[len(sound)] for sound in found],
    }


def encode(sound: np.ndarray) -> bytes:
    """A sound in -1..1 as Opus in Ogg, about 18 kbit/s."""
    stream = io.BytesIO()
    soundfile.write(stream, sound, RATE, format="OGG", subtype="OPUS", compression_level=0.97)
    return stream.getvalue()


def decode(data: bytes) -> np.ndarray:
    """The bytes of a sound as `[samples]`, single precision, in -1..1."""
    sound, rate = soundfile.read(io.BytesIO(data), dtype="float32")
    if rate != RATE or sound.ndim != 1:
        raise ValueError(f"Expected mono at {RATE} Hz, found {sound.shape} at {rate} Hz.")
    return sound
