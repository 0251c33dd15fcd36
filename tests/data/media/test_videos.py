import io
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mmlens.data.media.videos import open_video, video_size
from mmlens.errors import MediaError
from tests.helpers.media import damaged, encoded, half_and_half


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
