import io
import logging
import sys

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mmlens.data.media import decoding as media
from mmlens.data.media.decoding import (
    SideBySide,
    audio_length,
    open_audio,
    open_picture,
    open_video,
    picture_size,
    video_size,
)
from mmlens.errors import MediaError

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


# Pictures


@pytest.mark.parametrize("form", ["file", "text path", "bytes", "decoded", "read when asked"])
def test_every_form_of_picture(tmp_path, form):
    image = half_and_half()
    (tmp_path / "a.png").write_bytes(encoded(image))
    picture = {
        "read when asked": (tmp_path / "a.png").read_bytes,
        "file": tmp_path / "a.png",
        "text path": str(tmp_path / "a.png"),
        "bytes": encoded(image),
        "decoded": image,
    }[form]
    opened = open_picture(picture)
    assert opened.mode == "RGB"
    assert np.array_equal(np.asarray(opened), np.asarray(image))
    assert picture_size(picture) == (10, 30)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "CMYK", "I;16"])
def test_every_mode_becomes_rgb(mode):
    image = Image.new(mode, (5, 4))
    opened = open_picture(encoded(image, "TIFF" if mode == "CMYK" else "PNG"))
    assert (opened.mode, opened.size) == ("RGB", (5, 4))


def test_a_decoded_picture_is_left_as_it_was():
    image = Image.new("L", (3, 2), 7)
    open_picture(image).putpixel((0, 0), (1, 2, 3))
    picture_size(image)
    assert image.mode == "L"
    assert image.getpixel((0, 0)) == 7


# Where the red half lies once the picture stands upright, by the EXIF standard.
RED_SIDE = {
    1: "left",
    2: "right",
    3: "right",
    4: "left",
    5: "top",
    6: "top",
    7: "bottom",
    8: "bottom",
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation(kind, orientation):
    content = encoded(half_and_half(), kind, orientation)
    opened = open_picture(content)
    side = RED_SIDE[orientation]
    assert opened.size == ((30, 10) if side in ("left", "right") else (10, 30))
    width, height = opened.size
    middle = {
        "left": (2, height // 2),
        "right": (width - 3, height // 2),
        "top": (width // 2, 2),
        "bottom": (width // 2, height - 3),
    }
    red, _, blue = opened.getpixel(middle[side])
    assert red > 200
    assert blue < 60
    assert picture_size(content) == (height, width)


@pytest.mark.parametrize("orientation", [0, 9, 200])
def test_an_orientation_that_does_not_exist_is_ignored(orientation):
    content = encoded(half_and_half(), "JPEG", orientation)
    assert open_picture(content).size == (30, 10)
    assert picture_size(content) == (10, 30)


@pytest.mark.parametrize("orientation", [1, 6, 8])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_exif_orientation_of_a_decoded_picture(kind, orientation):
    image = Image.open(io.BytesIO(encoded(half_and_half(), kind, orientation)))
    width, height = open_picture(image).size
    assert picture_size(image) == (height, width)
    image.load()
    assert picture_size(image) == (height, width)


def test_pictures_side_by_side(tmp_path):
    red = Image.new("RGB", (7, 10), RED)
    (tmp_path / "b.png").write_bytes(encoded(half_and_half()))
    lying = encoded(half_and_half(10, 4), "JPEG", orientation=6)  # upright 10 high, 4 wide
    joined = SideBySide((red, str(tmp_path / "b.png"), lying))
    whole = open_picture(joined)
    assert picture_size(joined) == (10, 41) == (whole.height, whole.width)
    parts = [np.asarray(open_picture(one)) for one in joined.pictures]
    assert np.array_equal(np.asarray(whole), np.concatenate(parts, axis=1))


@pytest.mark.parametrize("look", [open_picture, picture_size])
def test_pictures_that_cannot_stand_side_by_side(look, tmp_path):
    with pytest.raises(MediaError, match="heights 10, 12 cannot stand side by side"):
        look(SideBySide((half_and_half(), half_and_half(height=12))))
    with pytest.raises(MediaError, match="none given"):
        look(SideBySide(()))
    with pytest.raises(MediaError, match="gone.png does not exist"):
        look(SideBySide((half_and_half(), tmp_path / "gone.png")))


@pytest.mark.parametrize("look", [open_picture, picture_size])
def test_a_picture_that_cannot_be_read_when_asked(look, tmp_path):
    with pytest.raises(MediaError, match="The picture is not a readable picture: .*No such file"):
        look((tmp_path / "gone.png").read_bytes)
    with pytest.raises(MediaError, match="type NoneType"):
        look(lambda: None)


def test_a_missing_picture():
    for look in (open_picture, picture_size):
        with pytest.raises(MediaError, match=r"nowhere/a\.png does not exist"):
            look("nowhere/a.png")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_a_truncated_picture(tmp_path, kind):
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(noise), kind)
    path = tmp_path / "cut.bin"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(MediaError, match=r"cut\.bin is not a readable picture"):
        open_picture(path)
    with pytest.raises(MediaError, match="The embedded picture is not a readable picture"):
        open_picture(content[: len(content) // 2])


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"])
def test_bytes_that_are_no_picture(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    for look in (open_picture, picture_size):
        for picture in (content, tmp_path / "a.png"):
            with pytest.raises(MediaError):
                look(picture)


def test_a_folder_is_no_picture(tmp_path):
    with pytest.raises(MediaError):
        open_picture(tmp_path)


NOISE = Image.fromarray(np.random.default_rng(1).integers(0, 256, (9, 11, 3), dtype=np.uint8))
FUZZED = {kind: encoded(NOISE, kind, 6) for kind in ("PNG", "JPEG", "TIFF", "WEBP")}


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@given(st.sampled_from(sorted(FUZZED)), st.data())
def test_a_damaged_picture_gives_a_picture_or_a_media_error(kind, data):
    broken = damaged(FUZZED[kind], data)
    for look in (open_picture, picture_size):
        try:
            assert look(broken) is not None
        except MediaError as error:
            assert "not a readable picture" in str(error)


def test_a_picture_too_large_to_decode_is_a_media_error(monkeypatch):
    content = encoded(half_and_half())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow refuses twice that
    with pytest.raises(MediaError):
        open_picture(content)


# Videos


def moving(frames=5, height=24, width=32):
    """Smooth pictures that differ, one of [height, width, 3] a frame."""
    rows, columns = np.mgrid[0:height, 0:width]
    shades = [np.stack([rows * 8, columns * 6, rows * 0 + 40 * t], -1) for t in range(frames)]
    return np.stack(shades).clip(0, 255).astype(np.uint8)


def animated(frames, kind="PNG", **options):
    first, *rest = [Image.fromarray(frame) for frame in frames]
    return encoded(first, kind, save_all=True, append_images=rest, **options)


def filmed(frames, kind="mp4", codec="libx264", rotation=0, **options):
    """Encoded by PyAV; the test is skipped where it is not installed."""
    av = pytest.importorskip("av")
    out = io.BytesIO()
    with av.open(out, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=10, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        if rotation:
            stream.set_display_rotation(rotation)
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return out.getvalue()


@pytest.mark.parametrize("form", ["array", "pictures", "list", "folder", "bytes", "file", "text"])
def test_every_form_of_video(tmp_path, form):
    frames = moving()
    files = []
    (tmp_path / "frames").mkdir()
    for number, frame in enumerate(frames):
        files.append(tmp_path / "frames" / f"{number}.png")
        Image.fromarray(frame).save(files[-1])
    (tmp_path / "a.png").write_bytes(animated(frames))
    video = {
        "array": frames,
        "pictures": tuple(Image.fromarray(frame) for frame in frames),
        "list": files,
        "folder": tmp_path / "frames",
        "bytes": animated(frames),
        "file": tmp_path / "a.png",
        "text": str(tmp_path / "a.png"),
    }[form]
    assert np.array_equal(open_video(video).frames, frames)
    assert video_size(video) == (5, 24, 32)


def test_frames_of_a_folder_go_by_name(tmp_path):
    for number in (10, 9, 1, 2):
        Image.new("RGB", (4, 3), (number, 0, 0)).save(tmp_path / f"f{number}.png")
    (tmp_path / "notes.txt").write_text("no frame")
    (tmp_path / ".f0.png").write_text("no frame")
    assert open_video(tmp_path).frames[:, 0, 0, 0].tolist() == [1, 2, 9, 10]
    assert video_size(str(tmp_path)) == (4, 3, 4)


@pytest.mark.parametrize("kind", ["WEBP", "GIF", "PNG", "TIFF"])
def test_animated_pictures(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    content = animated(moving(), kind, duration=200, **options)
    video = open_video(content)
    assert np.abs(video.frames.astype(int) - moving()).mean() < (20 if kind == "GIF" else 1e-9)
    assert video.fps == (None if kind == "TIFF" else pytest.approx(5))
    assert video_size(content) == video.frames.shape[:3]


def test_an_animation_of_changing_speed_has_its_mean_rate():
    assert open_video(animated(moving(3), duration=[100, 200, 300])).fps == pytest.approx(5)
    assert open_video(animated(moving(3))).fps is None


@pytest.mark.parametrize("kind", ["WEBP", "GIF", "PNG", "TIFF", "JPEG"])
def test_a_still_picture_is_a_video_of_one_frame(kind):
    content = encoded(half_and_half(), kind)
    video = open_video(content)
    assert video.frames.shape == (1, 10, 30, 3)
    assert video.fps is None
    assert video_size(content) == (1, 10, 30)


def test_the_still_of_an_animated_png_is_no_frame():
    frames = moving()
    content = animated(frames, default_image=True)
    assert np.array_equal(open_video(content).frames, frames[1:])
    assert video_size(content) == (4, 24, 32)


def test_frames_are_turned_upright():
    content = encoded(half_and_half(), "JPEG", 6)
    assert open_video([content] * 2).frames.shape == (2, 30, 10, 3)
    assert video_size([content] * 2) == (2, 30, 10)


CONTAINERS = [
    ("mp4", "libx264"),
    ("mp4", "mpeg4"),
    ("mov", "mpeg4"),
    ("matroska", "libx264"),
    ("webm", "libvpx-vp9"),
    ("avi", "mpeg4"),
]


@pytest.mark.parametrize(("kind", "codec"), CONTAINERS)
@pytest.mark.parametrize("form", ["bytes", "file"])
def test_video_files(tmp_path, kind, codec, form):
    frames = moving(12, 48, 64)
    content = filmed(frames, kind, codec)
    (tmp_path / "video").write_bytes(content)  # known by its content, whatever its name
    video = open_video(content if form == "bytes" else tmp_path / "video")
    assert video.frames.shape == frames.shape
    assert np.abs(video.frames.astype(int) - frames).mean() < 12
    assert video.fps == pytest.approx(10)
    assert video_size(content) == (12, 48, 64)


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_a_film_made_lying_is_turned_upright(rotation):
    frames = np.stack([np.asarray(half_and_half(64, 32))] * 3)
    content = filmed(frames, rotation=rotation)
    turned = open_video(content).frames
    assert video_size(content) == turned.shape[:3]
    expected = np.rot90(frames, rotation // 90, axes=(1, 2))
    assert turned.shape == expected.shape
    assert np.abs(turned.astype(int) - expected).mean() < 12


@pytest.mark.parametrize(("kind", "codec"), CONTAINERS)
@pytest.mark.parametrize("movflags", ["", "faststart"])
def test_a_truncated_video_file(tmp_path, kind, codec, movflags):
    options = {"movflags": movflags} if movflags and kind in ("mp4", "mov") else {}
    content = filmed(moving(12, 48, 64), kind, codec, **options)
    for part in (0.95, 0.5, 0.1):
        (tmp_path / "cut.mp4").write_bytes(content[: int(len(content) * part)])
        for look in (open_video, video_size):
            with pytest.raises(MediaError, match=r"cut\.mp4 is not a readable video"):
                look(tmp_path / "cut.mp4")


def test_a_video_file_without_pyav(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    for look in (open_video, video_size):
        with pytest.raises(MediaError, match=r'pip install "mmlens\[video\]"'):
            look(b"\0\0\0\x20ftypisom" + bytes(100))
    assert open_video(animated(moving())).frames.shape == (5, 24, 32, 3)


@pytest.mark.parametrize("kind", ["WEBP", "GIF", "PNG", "TIFF"])
def test_a_truncated_animation(kind):
    noise = np.random.default_rng(0).integers(0, 256, (4, 24, 32, 3), dtype=np.uint8)
    content = animated(noise, kind)
    with pytest.raises(MediaError, match="The embedded video is not a readable video"):
        open_video(content[: len(content) * 2 // 3])


SMALL, LARGE = Image.new("RGB", (4, 3)), Image.new("RGB", (5, 3))


@pytest.mark.parametrize("look", [open_video, video_size])
@pytest.mark.parametrize(
    ("video", "message"),
    [
        ([], "The video has no frames"),
        ([SMALL, SMALL, LARGE], r"different sizes, \[3, 4\] first and \[3, 5\] at frame 3"),
        ([SMALL, b"none"], "Frame 2 of the video: The embedded picture is not a readable picture"),
        (np.zeros((2, 3, 4), np.uint8), r"shape \[2, 3, 4\] .* give uint8 \[frame"),
        (np.zeros((2, 3, 4, 5), np.uint8), r"\[2, 3, 4, 5\]"),
        (np.zeros((0, 3, 4, 3), np.uint8), "at least one frame"),
        (np.zeros((2, 3, 4, 3), np.float32), "type float32"),
        ("nowhere/a.mp4", r"The video nowhere/a\.mp4 does not exist"),
        (b"", "not a readable video: no decoder knows its format; give an animated WebP"),
        (b"plain words are a video to FFmpeg", "no decoder knows"),
    ],
)
def test_videos_that_cannot_be_used(look, video, message):
    with pytest.raises(MediaError, match=message):
        look(video)


def test_a_folder_without_frames(tmp_path):
    (tmp_path / "notes.txt").write_text("no frame")
    for look in (open_video, video_size):
        with pytest.raises(MediaError, match="has no frames"):
            look(tmp_path)


def test_pages_of_different_sizes_are_no_video():
    content = encoded(SMALL, "TIFF", save_all=True, append_images=[LARGE])
    with pytest.raises(MediaError, match="different sizes"):
        open_video(content)


MOVING = {kind: animated(moving(2, 6, 8), kind) for kind in ("PNG", "GIF", "WEBP", "TIFF")}


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@given(st.sampled_from(sorted(MOVING)), st.data())
def test_a_damaged_animation_gives_a_video_or_a_media_error(kind, data):
    broken = damaged(MOVING[kind], data)
    for look in (open_video, video_size):
        try:
            assert look(broken) is not None
        except MediaError as error:
            assert "video" in str(error)


# Sounds

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
    heard = open_audio((noise(samples), own), rate)
    assert heard.dtype == np.float32
    assert len(heard) == audio_length((noise(samples), own), rate) == -(-samples * rate // own)
    assert np.isfinite(heard).all()


def test_channels_are_averaged():
    wave = noise(500, 3)
    expected = wave.mean(axis=1)
    assert np.allclose(open_audio((wave, 8000), 8000), expected, atol=1e-7)
    assert np.allclose(open_audio(recorded(wave, 8000, subtype="FLOAT"), 8000), expected, atol=1e-7)


@pytest.mark.parametrize(("own", "rate"), [(44100, 16000), (8000, 16000), (22050, 16000)])
def test_a_tone_keeps_its_pitch(own, rate):
    def tone(rate):
        return np.sin(2 * np.pi * 440 * np.arange(rate) / rate).astype(np.float32)

    heard = open_audio((tone(own), own), rate)
    middle = slice(rate // 4, 3 * rate // 4)
    assert np.abs(heard - tone(rate))[middle].max() < 1e-3
    assert np.array_equal(heard, soxr.resample(tone(own), own, rate, quality="HQ"))


def test_resampling_is_said_once_for_each_pair(caplog):
    media._say_resampled.cache_clear()
    with caplog.at_level(logging.INFO, "mmlens.data.media.decoding"):
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
    heard = open_audio((wave, 16000), 16000)
    assert heard[0] == -1
    assert heard.max() <= 1
    # soundfile writes no uint8, and keeps the upper bits of what it is given.
    upper = (wave.astype(np.int16) - 128) * 256 if kind == "uint8" else wave
    content = recorded(upper.astype(np.int16) if kind == "uint8" else upper, subtype=subtype)
    assert np.array_equal(open_audio(content, 16000), heard)


def test_bytes_as_integers_are_scaled():
    heard = open_audio((np.array([-128, 0, 64], np.int8), 16000), 16000)
    assert heard.tolist() == [-1, 0, 0.5]


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
