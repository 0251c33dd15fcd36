import io
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mmlens.errors import MediaError, SampleError
from mmlens.samples import Sample, load_samples, open_picture, picture_size, take_per_value

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


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


# Pictures


@pytest.mark.parametrize("form", ["file", "text path", "bytes", "decoded"])
def test_every_form_of_picture(tmp_path, form):
    image = half_and_half()
    (tmp_path / "a.png").write_bytes(encoded(image))
    picture = {
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
    content = bytearray(FUZZED[kind])
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    broken = bytes(content[: data.draw(st.integers(0, len(content)))])
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


# Files


def test_jsonl(tmp_path):
    rows = [
        {
            "id": "a",
            "text": "what?",
            "images": ["p/1.png", "p/2.png"],
            "answers": ["yes", "no"],
            "choices": ["x"],
            "domain": "red",
            "source": "web",
            "year": 1999,
        },
        {"id": 7, "text": "none", "domain": None},
    ]
    path = write_jsonl(tmp_path / "train.jsonl", rows)
    path.write_text(path.read_text() + "\n\n")  # empty lines are no rows
    one, two = load_samples(path)
    assert one.id == "a"
    assert one.text == "what?"
    assert one.images == (str(tmp_path / "p/1.png"), str(tmp_path / "p/2.png"))
    assert one.answers == ("yes", "no")
    assert one.choices == ("x",)
    assert one.domain == "red"
    assert dict(one.fields) == {"source": "web", "year": 1999}
    assert two == Sample("7", "none")


def test_parquet_lists_come_as_arrays(tmp_path):
    frame = pd.DataFrame(
        {
            "id": ["a", "b", "c"],
            "text": ["x", "y", "z"],
            "images": [["1.png", "2.png"], [], None],
            "answers": [["yes"], ["no", "never"], None],
            "choices": [None, ["p", "q"], []],
            "domain": ["red", None, "blue"],
            "score": [1.5, float("nan"), 2.0],
        }
    )
    path = tmp_path / "data.parquet"
    frame.to_parquet(path)
    assert isinstance(pd.read_parquet(path)["answers"][1], np.ndarray)  # the case under test
    a, b, c = load_samples(path)
    assert a.images == (str(tmp_path / "1.png"), str(tmp_path / "2.png"))
    assert (b.images, c.images) == ((), ())
    assert (a.answers, b.answers, c.answers) == (("yes",), ("no", "never"), ())
    assert (a.choices, b.choices, c.choices) == ((), ("p", "q"), ())
    assert (a.domain, b.domain, c.domain) == ("red", None, "blue")
    assert dict(a.fields) == {"score": 1.5}
    assert dict(b.fields) == {}


def test_pictures_of_hugging_face_datasets(tmp_path):
    content = encoded(half_and_half())
    (tmp_path / "disk.png").write_bytes(content)
    frame = pd.DataFrame(
        {
            "id": ["a", "b", "c"],
            "text": ["x", "y", "z"],
            "image": [
                {"bytes": content, "path": "elsewhere.png"},
                {"bytes": None, "path": "disk.png"},
                {"bytes": b"", "path": "disk.png"},
            ],
        }
    )
    frame.to_parquet(tmp_path / "one.parquet")
    several = [[row, row] for row in frame["image"]]
    frame.drop(columns="image").assign(images=several).to_parquet(tmp_path / "many.parquet")
    for name, number in (("one", 1), ("many", 2)):
        samples = load_samples(tmp_path / f"{name}.parquet")
        assert samples[0].images == (content,) * number
        assert samples[1].images == (str(tmp_path / "disk.png"),) * number
        assert samples[2].images == (str(tmp_path / "disk.png"),) * number
        for sample in samples:
            assert picture_size(sample.images[0]) == (10, 30)


def test_other_names_of_columns(tmp_path):
    path = write_jsonl(
        tmp_path / "a.jsonl",
        [{"id": "a", "question": "what?", "image": "1.png", "answer": "yes"}],
    )
    (one,) = load_samples(path)
    assert (one.text, one.images, one.answers) == ("what?", (str(tmp_path / "1.png"),), ("yes",))
    assert dict(one.fields) == {}


def test_the_proper_name_wins_over_its_stand_in(tmp_path):
    row = {"id": "a", "text": "t", "question": "q", "answers": ["A"], "answer": "b"}
    (one,) = load_samples(write_jsonl(tmp_path / "a.jsonl", [row]))
    assert (one.text, one.answers) == ("t", ("A",))
    assert one.get("question") == "q"


def test_an_empty_proper_name_leaves_the_stand_in(tmp_path):
    row = {"id": "a", "text": None, "question": "q", "images": None, "image": "1.png"}
    (one,) = load_samples(write_jsonl(tmp_path / "a.jsonl", [row]))
    assert (one.text, one.images) == ("q", (str(tmp_path / "1.png"),))


def test_where_relative_pictures_lie(tmp_path):
    path = write_jsonl(
        tmp_path / "a.jsonl", [{"id": "a", "text": "t", "images": ["1.png", "/abs/2.png"]}]
    )
    (one,) = load_samples(path, images_from=tmp_path / "pictures")
    assert one.images == (str(tmp_path / "pictures" / "1.png"), "/abs/2.png")


def test_a_split_of_a_folder(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", [{"id": "j", "text": "t"}])
    write_jsonl(tmp_path / "test.jsonl", [{"id": "k", "text": "t"}])
    pd.DataFrame({"id": ["p"], "text": ["t"]}).to_parquet(tmp_path / "train.parquet")
    assert [s.id for s in load_samples(tmp_path, "train")] == ["p"]
    assert [s.id for s in load_samples(tmp_path, "test")] == ["k"]
    with pytest.raises(SampleError, match="validation") as caught:
        load_samples(tmp_path, "validation")
    for name in ("train.parquet", "train.jsonl", "test.jsonl"):
        assert name in str(caught.value)
    with pytest.raises(SampleError, match="split"):
        load_samples(tmp_path)


def test_data_that_are_not_there(tmp_path):
    with pytest.raises(SampleError, match="do not exist"):
        load_samples(tmp_path / "none.jsonl")
    (tmp_path / "a.csv").write_text("id,text\n")
    with pytest.raises(SampleError, match=r"neither \.parquet nor \.jsonl"):
        load_samples(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": "a", "text": "t"}, {"id": "a", "text": "u"}], "'a' more than once"),
        ([{"id": 1, "text": "t"}, {"id": "1", "text": "u"}], "'1' more than once"),
        ([{"id": "a", "text": "t"}, {"text": "u"}], "Row 2 .* lacks 'id' or 'text'; it has text"),
        ([{"id": "a"}], "Row 1 .* lacks 'id' or 'text'; it has id"),
        ([{"id": None, "text": "t"}], "lacks 'id'"),
        ([{}], "it has nothing"),
        ([{"id": "a", "text": "t", "images": [3]}], "Row 1 .* picture of type int"),
        ([], "holds no samples"),
        ([["a", "t"]], "Row 1|Line 1"),
        (["text"], "Row 1|Line 1"),
    ],
)
def test_rows_that_cannot_be_used(tmp_path, rows, message):
    with pytest.raises(SampleError, match=message):
        load_samples(write_jsonl(tmp_path / "a.jsonl", rows))


def test_a_line_that_is_not_json(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"id": "a", "text": "t"}\n{"id": "b", "te')
    with pytest.raises(SampleError, match="Line 2 of .* is not JSON"):
        load_samples(tmp_path / "a.jsonl")


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl"])
def test_a_damaged_file(tmp_path, name):
    (tmp_path / name).write_bytes(b"PAR1\xff\xfe damaged \xff")
    with pytest.raises(SampleError, match=name.replace(".", r"\.")):
        load_samples(tmp_path / name)


# Fields


def test_get():
    sample = Sample("a", "t", domain="red", fields={"source": "web", "empty": None})
    assert sample.get("source") == "web"
    assert sample.get("domain") == "red"
    assert sample.get("id") == "a"
    for name in ("nothing", "empty", "get"):
        with pytest.raises(SampleError) as caught:
            sample.get(name)
        assert f"'{name}'" in str(caught.value)
        assert "source" in str(caught.value)
    with pytest.raises(SampleError, match="'domain'"):
        Sample("a", "t").get("domain")


def many(values):
    return [Sample(f"s{i}", "t", domain=value) for i, value in enumerate(values)]


@given(
    st.lists(st.sampled_from(["red", "blue", "green"]), max_size=30),
    st.integers(0, 12),
    st.integers(0, 5),
)
def test_take_per_value(values, limit, seed):
    samples = many(values)
    taken = take_per_value(samples, "domain", limit, seed=seed)
    assert taken == take_per_value(samples, "domain", limit, seed=seed)
    for value in ("red", "blue", "green"):
        assert sum(s.domain == value for s in taken) == min(limit, values.count(value))
    order = [int(s.id[1:]) for s in taken]
    assert order == sorted(set(order))


def test_taking_without_a_limit_or_with_a_large_one():
    samples = many(["red", "blue"] * 5)
    assert take_per_value(samples, "domain", None) == samples
    assert take_per_value(samples, "domain", 5) == samples
    assert take_per_value(samples, "domain", None) is not samples


def test_every_sample_can_be_taken_and_seeds_differ():
    samples = many(["red"] * 20)
    draws = [{s.id for s in take_per_value(samples, "domain", 4, seed=seed)} for seed in range(60)]
    assert set.union(*draws) == {s.id for s in samples}
    assert len({frozenset(draw) for draw in draws}) > 50


def test_taking_by_a_field_that_a_sample_lacks():
    with pytest.raises(SampleError, match="'s1' has no value for field 'domain'"):
        take_per_value(many(["red", None]), "domain", 1)
