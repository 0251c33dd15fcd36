"""Spectrograms: tones lie at their frequency, clicks at their time, in numbers and in the picture."""

import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import WhisperFeatureExtractor

from mmlens.data.media.spectrogram import FLOOR, MelBank, spectrogram
from mmlens.errors import MediaError

RATE = 16000
BANKS = {
    "plain": MelBank.plain(RATE),
    "whisper": MelBank.of(WhisperFeatureExtractor(feature_size=128)),
    "few": MelBank.of(WhisperFeatureExtractor(feature_size=40)),
}


def tone(hz, seconds=0.5, rate=RATE):
    return np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate).astype(np.float32)


@pytest.mark.parametrize("bank", BANKS)
@pytest.mark.parametrize("hz", [250, 1000, 3000, 6000])
def test_a_tone_is_loudest_at_its_frequency(bank, hz):
    found = spectrogram(tone(hz), BANKS[bank])
    band = int(found.levels.mean(1).argmax())
    width = np.gradient(found.frequencies)[band]
    assert abs(found.frequencies[band] - hz) <= width + 1
    # And so it is in the picture, whose lowest row is the lowest band.
    shades = np.asarray(found.image())
    assert shades.shape == (len(found.frequencies), 50)
    assert int(shades.mean(1).argmin()) == len(found.frequencies) - 1 - band
    # The axis's mark at that frequency stands in the middle of that band, or beside it.
    marks = {name: place for place, name in found.ticks(apart=0.0)}
    if hz in (250, 1000):
        place = marks[f"{hz} Hz" if hz < 1000 else "1 kHz"]
        # Whisper's 128 bands lie closer than the spectrum's frequencies there.
        assert abs(place * len(found.frequencies) - (band + 0.5)) <= 2


@pytest.mark.parametrize("bank", BANKS)
@pytest.mark.parametrize("at", [0.0, 0.1, 0.33, 0.499])
def test_a_click_lies_at_its_time(bank, at):
    wave = np.zeros(RATE // 2, np.float32)
    wave[round(at * RATE)] = 1.0
    found = spectrogram(wave, BANKS[bank])
    loud = found.levels.mean(0)
    middle = np.flatnonzero(loud == loud.max()) * found.hop
    assert abs(middle.mean() - at) <= found.hop
    shades = np.asarray(found.image(width=500), float).mean(0)
    dark = np.flatnonzero(shades == shades.min())
    assert abs(dark.mean() + 0.5 - 1000 * at) <= 10


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40000), st.integers(0, 5))
def test_it_is_what_the_models_extractor_gives(samples, seed):
    extractor = WhisperFeatureExtractor(feature_size=80, chunk_length=3)
    wave = np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)
    theirs = extractor(wave, sampling_rate=RATE, return_tensors="np")["input_features"][0]
    found = spectrogram(wave, MelBank.of(extractor))
    theirs = 10 * (4 * theirs - 4)
    theirs = np.maximum(theirs - theirs.max(), FLOOR)[:, : found.levels.shape[1]]
    np.testing.assert_allclose(found.levels, theirs, atol=0.05)


def test_levels_are_those_of_a_plain_transform():
    wave = (tone(700) + 0.3 * tone(2300)).astype(np.float32)
    bank = BANKS["plain"]
    found = spectrogram(wave, bank)
    window = scipy.signal.get_window("hann", bank.window)
    for frame in (5, 20, 30):
        start = frame * bank.hop - bank.window // 2
        piece = np.fft.rfft(window * wave[start : start + bank.window])
        own = 10 * np.log10(bank.weights.numpy().T @ np.abs(piece) ** 2)
        mine = found.levels[:, frame]
        kept = mine > FLOOR + 20
        assert kept.sum() > 5
        np.testing.assert_allclose(
            (mine - mine.max())[kept], (own - own.max())[kept], rtol=0, atol=0.05
        )


def test_silence_is_silent_and_nothing_is_refused():
    found = spectrogram(np.zeros(1000, np.float32), BANKS["plain"])
    assert (found.levels == FLOOR).all()
    assert (np.asarray(found.image(10, 10)) == 255).all()
    with pytest.raises(MediaError, match="without samples"):
        spectrogram(np.zeros(0, np.float32), BANKS["plain"])


def test_an_extractor_that_does_not_tell_gets_a_plain_bank():
    bank = MelBank.of(object())
    assert (bank.rate, bank.window, bank.hop) == (16000, 512, 160)
    hz = bank.frequencies()
    assert (np.diff(hz) >= 0).all() and 20 < hz[0] < 100 and 7000 < hz[-1] < 8000
    assert bool((bank.weights.sum(0) > 0).all())  # every band hears something
    assert torch.equal(bank.weights, MelBank.plain(16000).weights)
