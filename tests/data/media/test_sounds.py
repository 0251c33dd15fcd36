import io
import logging

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given
from hypothesis import strategies as st

from mmlens.data.media import sounds
from mmlens.data.media.sounds import audio_length, open_audio
from mmlens.errors import MediaError
from tests.helpers.media import damaged

RATES = [8000, 11025, 16000, 22050, 44100, 48000]


def noise(samples=3001, channels=1, seed=0):
    wave = np.random.default_rng(seed).uniform(-0.5, 0.5, (samples, channels)).astype(np.float32)
    return wave[:, 0] if channels == 1 else wave


def recorded(wave, rate=16000, kind="WAV", subtype=None):
    out = io.BytesIO()
    soundfile.write(out, wave, rate, format=kind, subtype=subtype)
    return out.getvalue()


@pytest.mark.parametrize("form", ["waveform", "mapping", "list", "bytes", "file", "text"])
def test_every_form_of_sound(tmp_path, form):
    wave = noise()
    (tmp_path / "a.raw").write_bytes(recorded(wave, subtype="FLOAT"))  # whatever its name
    sound = {
        "waveform": (wave, 16000),
        "mapping": {"array": wave, "sampling_rate": 16000},
        "list": {"array": wave.tolist(), "sampling_rate": 16000, "path": None},
        "bytes": recorded(wave, subtype="FLOAT"),
        "file": tmp_path / "a.raw",
        "text": str(tmp_path / "a.raw"),
    }[form]
    assert np.array_equal(open_audio(sound, 16000), wave)
    assert audio_length(sound, 16000) == len(wave)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("own", [16000, 44100])
def test_the_length_is_known_from_the_header(tmp_path, kind, channels, own):
    content = recorded(noise(5003, channels), own, kind)
    (tmp_path / "a").write_bytes(content)
    for rate in RATES:
        for sound in (content, tmp_path / "a"):
            assert audio_length(sound, rate) == len(open_audio(sound, rate))


def test_the_length_of_an_mp3_without_a_count_of_its_frames():
    content = recorded(noise(44100), 44100, "MP3")
    start = content.index(b"Xing") if b"Xing" in content else content.index(b"Info")
    later = content.index(content[:2], start)  # the next frame begins as the first did
    assert audio_length(content[later:], 16000) == len(open_audio(content[later:], 16000))


@given(st.integers(1, 400), st.sampled_from(RATES), st.sampled_from(RATES))
def test_the_length_of_a_waveform(samples, own, rate):
    decoded = open_audio((noise(samples), own), rate)
    assert decoded.dtype == np.float32
    assert len(decoded) == audio_length((noise(samples), own), rate) == -(-samples * rate // own)
    assert np.isfinite(decoded).all()


def test_channels_are_averaged():
    wave = noise(500, 3)
    expected = wave.mean(axis=1)
    assert np.allclose(open_audio((wave, 8000), 8000), expected, atol=1e-7)
    assert np.allclose(open_audio(recorded(wave, 8000, subtype="FLOAT"), 8000), expected, atol=1e-7)


@pytest.mark.parametrize(("own", "rate"), [(44100, 16000), (8000, 16000), (22050, 16000)])
def test_a_tone_keeps_its_pitch(own, rate):
    def tone(rate):
        return np.sin(2 * np.pi * 440 * np.arange(rate) / rate).astype(np.float32)

    decoded = open_audio((tone(own), own), rate)
    middle = slice(rate // 4, 3 * rate // 4)
    assert np.abs(decoded - tone(rate))[middle].max() < 1e-3
    assert np.array_equal(decoded, soxr.resample(tone(own), own, rate, quality="HQ"))


def test_resampling_is_said_once_for_each_pair(caplog):
    sounds._log_resampling.cache_clear()
    with caplog.at_level(logging.INFO, "mmlens.data.media.sounds"):
        for own in (8000, 8000, 16000, 22050, 8000):
            open_audio((noise(50), own), 16000)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert all(
        str(own) in one and "16000" in one for own, one in zip((8000, 22050), said, strict=True)
    )


@pytest.mark.parametrize(
    ("kind", "subtype"), [("uint8", "PCM_U8"), ("int16", "PCM_16"), ("int32", "PCM_32")]
)
def test_integers_are_scaled_as_files_of_them_are(kind, subtype):
    limits = np.iinfo(kind)
    wave = np.linspace(limits.min, limits.max, 257).astype(kind)
    decoded = open_audio((wave, 16000), 16000)
    assert decoded[0] == -1
    assert decoded.max() <= 1
    # soundfile writes no uint8, and keeps the upper bits of what it is given.
    upper = (wave.astype(np.int16) - 128) * 256 if kind == "uint8" else wave
    content = recorded(upper.astype(np.int16) if kind == "uint8" else upper, subtype=subtype)
    assert np.array_equal(open_audio(content, 16000), decoded)


def test_bytes_as_integers_are_scaled():
    decoded = open_audio((np.array([-128, 0, 64], np.int8), 16000), 16000)
    assert decoded.tolist() == [-1, 0, 0.5]


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
@pytest.mark.parametrize("part", [0.9, 0.5, 0.1])
def test_a_truncated_sound(tmp_path, kind, part):
    content = recorded(noise(40000), 16000, kind)
    cut = content[: int(len(content) * part)]
    (tmp_path / "cut.wav").write_bytes(cut)
    with pytest.raises(MediaError, match=r"cut\.wav is not a readable sound"):
        open_audio(tmp_path / "cut.wav", 16000)
    with pytest.raises(MediaError, match="The embedded sound is not a readable sound"):
        open_audio(cut, 16000)


def test_a_wave_file_written_to_a_pipe_tells_no_length():
    content = bytearray(recorded(noise()))
    content[4:8] = b"\xff" * 4
    content[content.index(b"data") + 4 :][:4] = b"\xff" * 4
    assert len(open_audio(bytes(content), 16000)) == audio_length(bytes(content), 16000) == 3001


BAD = np.array([0.0, np.nan])


@pytest.mark.parametrize(
    ("sound", "message"),
    [
        ((BAD, 16000), "The sound has samples that are not finite"),
        ((np.array([0, np.inf]), 16000), "not finite"),
        ((np.array([1e300]), 16000), "not finite"),
        (recorded(BAD, subtype="FLOAT"), "The embedded sound has samples that are not finite"),
    ],
)
def test_sounds_that_are_not_finite(sound, message):
    with pytest.raises(MediaError, match=message):
        open_audio(sound, 16000)


@pytest.mark.parametrize("look", [open_audio, audio_length])
@pytest.mark.parametrize(
    ("sound", "message"),
    [
        ((np.zeros(0), 16000), "empty"),
        ((np.zeros((5, 0)), 16000), "empty"),
        (recorded(np.zeros(0)), "not a readable sound: it is empty; give a WAV"),
        (
            (np.zeros((2, 2, 2)), 16000),
            r"\[2, 2, 2\] was given; give \[time\] or \[time, channel\]",
        ),
        ((np.zeros(()), 16000), r"shape \[\]"),
        ((np.zeros((2, 100)), 16000), "more channels than samples; .* transpose"),
        ((np.zeros(5), 0), "rate 0 was given"),
        ((np.zeros(5), -8000), "rate -8000"),
        ({"array": np.zeros(5), "sampling_rate": 0.5}, r"rate 0\.5"),
        ({"array": np.zeros(5), "sampling_rate": float("nan")}, "rate nan"),
        ({"array": np.zeros(5), "sampling_rate": "high"}, "rate 'high'"),
        ({"array": np.zeros(5)}, "give 'array' and 'sampling_rate'"),
        ({"array": np.zeros((5, 2)), "sampling_rate": 8000}, r"give \[time\] with a rate"),
        ({"array": [[0.0], [0.0, 1.0]], "sampling_rate": 8000}, "no array"),
        ("nowhere/a.wav", r"The sound nowhere/a\.wav does not exist"),
        (b"", "not a readable sound"),
        (b"no sound", "give a WAV, FLAC, OGG or MP3"),
    ],
)
def test_sounds_that_cannot_be_used(look, sound, message):
    with pytest.raises(MediaError, match=message):
        look(sound, 16000)


@pytest.mark.parametrize("kind", ["int64", "bool", "complex64", "U3"])
def test_waveforms_of_other_types(kind):
    with pytest.raises(MediaError, match="give floats"):
        open_audio((np.zeros(4).astype(kind), 16000), 16000)


@pytest.mark.parametrize("rate", [0, -1])
def test_a_model_rate_that_is_not_positive(rate):
    for look in (open_audio, audio_length):
        with pytest.raises(MediaError, match=f"rate {rate} was given"):
            look((noise(5), 8000), rate)


SOUNDS = {kind: recorded(noise(600), 16000, kind) for kind in ("WAV", "FLAC", "OGG", "MP3")}


@given(st.sampled_from(sorted(SOUNDS)), st.data())
def test_a_damaged_sound_gives_a_sound_or_a_media_error(kind, data):
    broken = damaged(SOUNDS[kind], data)
    for look in (open_audio, audio_length):
        try:
            assert look(broken, 16000) is not None
        except MediaError as error:
            assert "sound" in str(error)
