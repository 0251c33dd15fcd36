"""The source sounds of `demo/qwen2-audio`, split before anything is made of them.

Needed only to rebuild the shipped data: the Debian packages `espeak-ng`, `flite`, `libfluidsynth3`
and `fluid-soundfont-gm`.

Speech is synthesised, music is recorded instruments played from a score drawn at random, nature and
machines are synthesised by the functions below.
"""

from __future__ import annotations

import ctypes
import io
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

from experiments.demos.sounds import RATE

#: The classes of each domain, in the words of the answers.
CLASSES: dict[str, tuple[str, ...]] = {
    "speech": ("yes", "stop", "water", "seven", "hello", "paper", "garden", "left"),
    "music": ("organ", "guitar", "brass", "flute", "strings", "bells"),
    "nature": ("rain", "wind", "bird", "cricket", "fire", "frog"),
    "machine": ("siren", "engine", "clock", "phone", "alarm", "drill"),
}
ACCENTS = ("en-gb", "en-us", "en-gb-scotland", "en-gb-x-rp", "en-029", "en-gb-x-gbclan")
#: Voices of espeak-ng by split; what sounds alike (klatt2, klatt3, ...) is one voice.
VOICES: dict[str, str] = {
    "train": (
        "Alex Alicia Lee Marco Mario Nguyen RicishayMax Storm Tweaky Diogo adam anika antonio aunty "
        "boris caleb ed edward f1 f3 grandpa gustave iven john kaukovalta klatt m1 m2 m4 m6 m8 "
        "marcelo max miguel pablo quincy rob sandro shelby zac announcer UniRobot flite/kal16 "
        "flite/slt"
    ),
    "validation": "Andrea Hugo f4 linda m5 Denis michel victor flite/awb",
    "test": (
        "Annie Andy Gene Henrique Jacky Michael Mike belinda benjamin david f2 f5 grandma m3 m7 "
        "norbert paul pedro robert steph travis flite/rms"
    ),
}
#: Instruments of FluidR3 (General MIDI programs from 0) by class and split.
PROGRAMS: dict[str, dict[str, tuple[int, ...]]] = {
    "organ": {"train": (17, 18, 19), "validation": (20,), "test": (16,)},
    "guitar": {"train": (24, 26, 28), "validation": (27,), "test": (25,)},
    "brass": {"train": (57, 58, 59, 60), "validation": (61,), "test": (56,)},
    "flute": {"train": (72, 74, 79), "validation": (75,), "test": (73,)},
    "strings": {"train": (40, 42, 44, 48), "validation": (49,), "test": (41, 43)},
    "bells": {"train": (8, 10, 14), "validation": (112,), "test": (9,)},
}
#: Lowest and highest note (MIDI numbers) of each class.
RANGES = {
    "organ": (48, 76),
    "guitar": (43, 74),
    "brass": (48, 72),
    "flute": (67, 91),
    "strings": (48, 79),
    "bells": (72, 96),
}
SOUNDFONT = Path("/usr/share/sounds/sf2/FluidR3_GM.sf2")


@dataclass(frozen=True)
class Raw:
    """A sound before it is developed, and where it comes from."""

    sound: np.ndarray
    source: str


def _trim(sound: np.ndarray, share: float = 0.02) -> np.ndarray:
    """Take the silence off both ends."""
    loud = np.flatnonzero(np.abs(sound) > share * np.abs(sound).max())
    return sound[max(0, loud[0] - 160) : loud[-1] + 320]


def _shrink(sound: np.ndarray, rate: int) -> np.ndarray:
    """Resample to the demo's rate through the spectrum."""
    count = round(len(sound) * RATE / rate)
    spectrum = np.fft.rfft(sound)[: count // 2 + 1]
    return np.fft.irfft(spectrum, count) * (RATE / rate)


def speak(word: str, voice: str, rng: np.random.Generator) -> np.ndarray:
    """A word by a voice of espeak-ng, in an accent, at a speed and a pitch; or of flite."""
    kind, _, name = voice.rpartition("/")
    if kind == "flite":
        stretch = rng.uniform(0.85, 1.2)
        with tempfile.NamedTemporaryFile(suffix=".wav") as file:
            options = ["-voice", name, "--setf", f"duration_stretch={stretch:.3f}"]
            subprocess.run(["flite", *options, "-t", word, "-o", file.name], check=True)
            sound, rate = soundfile.read(file.name)
    else:
        accent = str(rng.choice(ACCENTS))
        speed, pitch = int(rng.integers(125, 190)), int(rng.integers(30, 71))
        command = ["espeak-ng", "-v", f"{accent}+{name}", "-s", str(speed), "-p", str(pitch)]
        found = subprocess.run([*command, "--stdout", word], check=True, capture_output=True)
        sound, rate = soundfile.read(io.BytesIO(found.stdout))
    return _trim(_shrink(sound, rate) if rate != RATE else sound)


def speech(word: str, split: str, seconds: float, index: int, rng: np.random.Generator) -> Raw:
    """A word, said as often as there is time for it, with pauses."""
    voices = VOICES[split].split()
    voice = voices[index % len(voices)]
    said = speak(word, voice, rng)
    size = round(seconds * RATE)
    if len(said) > size - 320:  # a slow voice in a short clip: said faster
        said = np.interp(np.linspace(0, len(said) - 1, size - 640), np.arange(len(said)), said)
    count = max(1, min(3, int(size / (len(said) + 0.12 * RATE))))
    sound = np.zeros(size)
    gaps = rng.dirichlet(np.full(count + 1, 4.0)) * (size - count * len(said))
    place = 0
    for number in range(count):
        place += int(gaps[number])
        sound[place : place + len(said)] += said[: size - place]
        place += len(said)
    return Raw(sound, f"speech/{voice}")


class Synthesizer:
    """FluidSynth without a sound card: plays notes of a sound font into an array."""

    def __init__(self, font: Path = SOUNDFONT) -> None:
        self.library = library = ctypes.CDLL("libfluidsynth.so.3")
        library.new_fluid_settings.restype = ctypes.c_void_p
        library.new_fluid_synth.restype = ctypes.c_void_p
        library.new_fluid_synth.argtypes = [ctypes.c_void_p]
        settings = ctypes.c_void_p(library.new_fluid_settings())
        library.fluid_settings_setnum(settings, b"synth.sample-rate", ctypes.c_double(RATE))
        for effect in (b"synth.reverb.active", b"synth.chorus.active"):
            library.fluid_settings_setint(settings, effect, 0)
        self.synth = ctypes.c_void_p(library.new_fluid_synth(settings))
        if library.fluid_synth_sfload(self.synth, str(font).encode(), 1) < 0:
            raise FileNotFoundError(f"No sound font {font}; install fluid-soundfont-gm.")

    def play(self, program: int, notes: list[tuple[int, int, int]], size: int) -> np.ndarray:
        """Notes of (key, velocity, samples) one after the other, `[size]`."""
        library, synth = self.library, self.synth
        library.fluid_synth_system_reset(synth)
        library.fluid_synth_program_change(synth, 0, program)
        parts = []
        for key, velocity, length in notes:
            library.fluid_synth_noteon(synth, 0, key, velocity)
            parts.append(self._render(length))
            library.fluid_synth_noteoff(synth, 0, key)
        rest = size - sum(map(len, parts))
        if rest > 0:
            parts.append(self._render(rest))
        return np.concatenate(parts)[:size]

    def _render(self, size: int) -> np.ndarray:
        buffer = np.zeros((size, 2), dtype=np.int16)  # left and right
        place = ctypes.c_void_p(buffer.ctypes.data)
        self.library.fluid_synth_write_s16(self.synth, size, place, 0, 2, place, 1, 2)
        return buffer.mean(1) / 32768


def music(
    synthesizer: Synthesizer,
    label: str,
    split: str,
    seconds: float,
    index: int,
    rng: np.random.Generator,
) -> Raw:
    """A few notes of an instrument, up, down or to and fro."""
    programs = PROGRAMS[label][split]
    program = programs[index % len(programs)]
    size = round(seconds * RATE)
    low, high = RANGES[label]
    key, notes, filled = int(rng.integers(low, high + 1)), [], 0
    while filled < size:
        length = min(int(rng.uniform(0.18, 0.5) * RATE), size - filled)
        notes.append((key, int(rng.integers(70, 120)), length))
        filled += length
        key = int(np.clip(key + rng.choice([-7, -5, -4, -3, -2, 2, 3, 4, 5, 7]), low, high))
    sound = synthesizer.play(program, notes, size)
    return Raw(sound, f"music/program {program}")


# Nature and machines. Each generator draws a design of its own for every sound.


def _noise(size: int, low: float, high: float, rng: np.random.Generator) -> np.ndarray:
    """Noise of a band, of unit power."""
    frequency = np.fft.rfftfreq(size, 1 / RATE)
    shape = 1 / (1 + (low / np.maximum(frequency, 1)) ** 4) / (1 + (frequency / high) ** 4)
    noise = np.fft.irfft(np.fft.rfft(rng.normal(size=size)) * shape, size)
    return noise / noise.std()


def _wander(size: int, per_second: float, rng: np.random.Generator) -> np.ndarray:
    """A smooth random course between 0 and 1."""
    count = max(3, int(size / RATE * per_second) + 2)
    return np.interp(np.linspace(0, count - 1, size), np.arange(count), rng.uniform(size=count))


def _phase(frequency: np.ndarray | float, size: int) -> np.ndarray:
    return 2 * np.pi * np.cumsum(np.broadcast_to(frequency, size)) / RATE


def _decay(size: int, seconds: float) -> np.ndarray:
    return np.exp(-np.arange(size) / (seconds * RATE))


def _add(sound: np.ndarray, event: np.ndarray, place: int) -> None:
    """Add an event where it fits."""
    part = event[: max(0, len(sound) - place)]
    sound[place : place + len(part)] += part


def _places(size: int, gap: float, jitter: float, rng: np.random.Generator) -> list[int]:
    """Starts of events about `gap` seconds apart."""
    places, place = [], rng.uniform(0, 0.3 * gap)
    while place * RATE < size - 400:
        places.append(int(place * RATE))
        place += gap * float(np.exp(rng.normal(0, jitter)))
    return places


def rain(size: int, rng: np.random.Generator) -> np.ndarray:
    """Steady wide noise with many small drops."""
    sound = _noise(size, rng.uniform(300, 900), rng.uniform(5000, 7500), rng)
    for _ in range(int(size / RATE * rng.uniform(60, 160))):
        length = int(rng.uniform(0.003, 0.012) * RATE)
        drop = np.sin(_phase(rng.uniform(1500, 6000), length)) * _decay(length, 0.002)
        _add(sound, drop * rng.uniform(1, 4), int(rng.integers(size - length)))
    return sound


def wind(size: int, rng: np.random.Generator) -> np.ndarray:
    """Gusts: narrow noise whose pitch and strength wander together."""
    course = _wander(size, rng.uniform(2, 5), rng)
    parts = [
        _noise(size, centre * 0.8, centre * 1.25, rng)
        for centre in rng.uniform(220, 700) * 1.4 ** np.arange(4)
    ]
    weights = [np.exp(-(((course * 3 - number) / 0.8) ** 2)) for number in range(4)]
    sound = sum(part * weight for part, weight in zip(parts, weights, strict=True))
    return np.asarray(sound) * (0.35 + course)


def bird(size: int, rng: np.random.Generator) -> np.ndarray:
    """Whistled syllables that glide, repeated."""
    sound = np.zeros(size)
    base, length = rng.uniform(2000, 4200), int(rng.uniform(0.06, 0.18) * RATE)
    start, end = rng.uniform(0.7, 1.4, size=2)
    trill, depth = rng.uniform(20, 60), rng.uniform(0, 0.12)
    time = np.linspace(0, 1, length)
    for place in _places(size, length / RATE + rng.uniform(0.05, 0.16), 0.15, rng):
        glide = base * (start + (end - start) * time) * rng.uniform(0.92, 1.08)
        glide = glide * (1 + depth * np.sin(2 * np.pi * trill * time * length / RATE))
        note = np.sin(_phase(glide, length)) + 0.15 * np.sin(2 * _phase(glide, length))
        _add(sound, note * np.sin(np.pi * time) * rng.uniform(0.6, 1), place)
    return sound


def cricket(size: int, rng: np.random.Generator) -> np.ndarray:
    """Chirps of a few fast pulses of one high pitch."""
    sound = np.zeros(size)
    pitch, rate = rng.uniform(3000, 5200), rng.uniform(38, 70)
    pulses, length = int(rng.integers(3, 7)), int(0.6 / rate * RATE)
    pulse = np.sin(_phase(pitch, length)) * np.hanning(length)
    for place in _places(size, pulses / rate + rng.uniform(0.04, 0.14), 0.05, rng):
        for number in range(pulses):
            _add(sound, pulse * (0.5 + 0.5 * number / pulses), place + int(number * RATE / rate))
    return sound


def fire(size: int, rng: np.random.Generator) -> np.ndarray:
    """A low roar with irregular crackles."""
    sound = _noise(size, 60, rng.uniform(250, 700), rng) * rng.uniform(0.1, 0.25)
    for _ in range(int(size / RATE * rng.uniform(12, 30))):
        length = int(rng.uniform(0.006, 0.03) * RATE)
        crackle = rng.normal(size=length) * _decay(length, float(rng.uniform(0.0008, 0.005)))
        _add(sound, crackle * rng.pareto(2.5) * 2, int(rng.integers(size - length)))
    return sound


def frog(size: int, rng: np.random.Generator) -> np.ndarray:
    """Croaks: bursts of slow pulses with two resonances."""
    sound = np.zeros(size)
    low, high = rng.uniform(350, 800), rng.uniform(1200, 2200)
    rate, length = rng.uniform(22, 38), int(rng.uniform(0.18, 0.36) * RATE)
    pulse_size = int(RATE / rate)
    pulse = np.sin(_phase(low, pulse_size)) + 0.6 * np.sin(_phase(high, pulse_size))
    pulse = pulse * _decay(pulse_size, 0.007)
    croak = np.resize(pulse, length) * np.hanning(length) ** 0.5
    for place in _places(size, length / RATE + rng.uniform(0.06, 0.25), 0.15, rng):
        _add(sound, croak * rng.uniform(0.7, 1), place)
    return sound


def siren(size: int, rng: np.random.Generator) -> np.ndarray:
    """One tone with overtones that goes up and down."""
    low, swing, rate = rng.uniform(450, 800), rng.uniform(1.5, 2.2), rng.uniform(0.8, 3.0)
    time = np.arange(size) / RATE * rate + rng.uniform()
    course = 1 - np.abs(2 * (time % 1) - 1)
    phase = _phase(low * swing**course, size)
    return sum(np.sin(k * phase) / k**1.2 for k in range(1, 6)) + np.zeros(size)


def engine(size: int, rng: np.random.Generator) -> np.ndarray:
    """Explosions in quick order, with the ring of the pipe."""
    rate = rng.uniform(28, 70) * (0.9 + 0.25 * _wander(size, 2, rng))
    phase = _phase(rate, size) / (2 * np.pi)
    within = phase % 1
    strokes = np.exp(-6 * within) * np.sin(2 * np.pi * within * rng.uniform(2, 6))
    uneven = 1 + 0.3 * np.sin(np.pi * np.floor(phase))
    ring = np.sin(_phase(rng.uniform(150, 400), size)) * np.exp(-4 * within)
    return strokes * uneven + 0.4 * ring + 0.12 * _noise(size, 100, 2500, rng) * np.exp(-3 * within)


def clock(size: int, rng: np.random.Generator) -> np.ndarray:
    """Ticks and tocks."""
    sound = np.zeros(size)
    pitches = rng.uniform(1200, 3800) * np.array([1.0, rng.uniform(0.65, 0.9)])
    length, gap = int(0.05 * RATE), rng.uniform(0.12, 0.26)
    damping = rng.uniform(0.003, 0.009)
    for number, place in enumerate(_places(size, gap, 0.01, rng)):
        tick = np.sin(_phase(pitches[number % 2], length)) * _decay(length, damping)
        tick += 0.8 * rng.normal(size=length) * _decay(length, 0.0015)
        _add(sound, tick, place)
    return sound


def phone(size: int, rng: np.random.Generator) -> np.ndarray:
    """A warble between two tones, in rings."""
    low, step, rate = rng.uniform(700, 1500), rng.uniform(1.18, 1.4), rng.uniform(14, 26)
    time = np.arange(size) / RATE
    pitch = np.where((time * rate) % 1 < 0.5, low, low * step)
    phase = _phase(pitch, size)
    sound = np.sin(phase) + 0.3 * np.sin(3 * phase)
    period, share = rng.uniform(0.4, 0.8), rng.uniform(0.65, 0.85)
    return sound * (((time + rng.uniform(0, 0.1)) / period) % 1 < share)


def alarm(size: int, rng: np.random.Generator) -> np.ndarray:
    """Equal beeps of one pitch."""
    pitch, rate, share = rng.uniform(900, 2600), rng.uniform(3, 7), rng.uniform(0.4, 0.6)
    time = np.arange(size) / RATE
    phase = _phase(pitch, size)
    beep = np.sin(phase) + 0.35 * np.sin(3 * phase) * (rng.random() < 0.7)
    return beep * ((time * rate + rng.uniform(0, 0.2)) % 1 < share)


def drill(size: int, rng: np.random.Generator) -> np.ndarray:
    """A rough buzz whose speed gives way under load."""
    speed = rng.uniform(110, 260) * (0.8 + 0.35 * _wander(size, 3, rng))
    phase = _phase(speed, size)
    buzz = sum(np.sin(k * phase + k) / k**0.6 for k in range(1, 24)) + np.zeros(size)
    return buzz / buzz.std() + rng.uniform(0.3, 0.7) * _noise(size, 1000, 6000, rng)


GENERATORS: dict[str, Callable[[int, np.random.Generator], np.ndarray]] = {
    maker.__name__: maker
    for maker in (
        rain, wind, bird, cricket, fire, frog, siren, engine, clock, phone, alarm, drill,
    )
}  # fmt: skip


@dataclass
class Studio:
    """Makes a source sound of any domain."""

    rng: np.random.Generator
    synthesizer: Synthesizer = field(default_factory=Synthesizer)

    def make(self, domain: str, label: str, split: str, seconds: float, index: int) -> Raw:
        """The `index`-th sound of a label in a split."""
        if domain == "speech":
            return speech(label, split, seconds, index, self.rng)
        if domain == "music":
            return music(self.synthesizer, label, split, seconds, index, self.rng)
        sound = GENERATORS[label](round(seconds * RATE), self.rng)
        return Raw(sound, f"{domain}/{split} {label} {index}")
