import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mmlens.data.media.pictures import SideBySide, open_picture, picture_size
from mmlens.errors import MediaError
from tests.helpers.media import RED, damaged, encoded, half_and_half


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
