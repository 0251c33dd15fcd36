import io
import json

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from mmlens.data.media.pictures import picture_size
from mmlens.data.media.sounds import open_audio
from mmlens.data.media.videos import open_video
from mmlens.data.samples import Sample, load_samples, take_per_value
from mmlens.errors import SampleError
from tests.helpers.media import encoded, half_and_half


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


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


def waves(number=1600, rate=16000):
    content = io.BytesIO()
    soundfile.write(content, np.linspace(-0.5, 0.5, number), rate, format="WAV")
    return content.getvalue()


def test_videos_and_sounds_of_jsonl(tmp_path):
    rows = [
        {"id": "a", "text": "t", "videos": ["1.webp", "/abs/2.mp4"], "audios": ["1.wav", "2.ogg"]},
        {"id": "b", "text": "t", "video": "1.webp", "audio": "1.wav"},
        {"id": "c", "text": "t", "videos": [["1.png", "2.png"], "1.webp"]},
        {"id": "d", "text": "t", "videos": [["1.png"], ["2.png"]]},
        {"id": "e", "text": "t", "audio": {"array": [0.5, -0.5], "sampling_rate": 8000}},
        {"id": "f", "text": "t", "video": None, "videos": [], "audio": None},
    ]
    a, b, c, d, e, f = load_samples(write_jsonl(tmp_path / "a.jsonl", rows))

    def here(name):
        return str(tmp_path / name)

    assert a.videos == (here("1.webp"), "/abs/2.mp4")
    assert a.audios == (here("1.wav"), here("2.ogg"))
    assert (b.videos, b.audios) == ((here("1.webp"),), (here("1.wav"),))
    assert c.videos == ((here("1.png"), here("2.png")), here("1.webp"))
    assert d.videos == ((here("1.png"),), (here("2.png"),))
    assert np.array_equal(open_audio(e.audios[0], 8000), np.float32([0.5, -0.5]))
    assert (f.videos, f.audios, dict(f.fields)) == ((), (), {})
    (moved, *_) = load_samples(tmp_path / "a.jsonl", images_from=tmp_path / "media")
    assert moved.videos == (here("media/1.webp"), "/abs/2.mp4")
    assert moved.audios == (here("media/1.wav"), here("media/2.ogg"))


def test_videos_and_sounds_of_hugging_face_datasets(tmp_path):
    picture, wave = encoded(half_and_half()), waves()
    (tmp_path / "1.png").write_bytes(picture)
    (tmp_path / "1.wav").write_bytes(wave)
    frame = pd.DataFrame(
        {
            "id": ["a", "b"],
            "text": ["x", "y"],
            "video": [
                {"bytes": encoded(half_and_half(), "GIF"), "path": None},
                {"bytes": None, "path": "1.png"},
            ],
            "audio": [{"bytes": wave, "path": "1.wav"}, {"bytes": None, "path": "1.wav"}],
        }
    )
    frame.to_parquet(tmp_path / "encoded.parquet")
    arrays = [{"array": [0.5, 0.25, -1.0], "sampling_rate": 16000}] * 2
    pictures = [[[{"bytes": picture, "path": None}, {"bytes": None, "path": "1.png"}]]] * 2
    frame = frame.drop(columns="video").assign(audio=arrays, videos=pictures)
    frame.to_parquet(tmp_path / "decoded.parquet")
    for sample in load_samples(tmp_path / "encoded.parquet"):
        assert open_video(sample.videos[0]).frames.shape == (1, 10, 30, 3)
        assert open_audio(sample.audios[0], 16000).shape == (1600,)
    for sample in load_samples(tmp_path / "decoded.parquet"):
        assert sample.videos == ((picture, str(tmp_path / "1.png")),)
        assert open_video(sample.videos[0]).frames.shape == (2, 10, 30, 3)
        assert open_audio(sample.audios[0], 16000).tolist() == [0.5, 0.25, -1.0]


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
        ([{"id": "a", "text": "t", "videos": [3]}], "Row 1 .* video of type int"),
        ([{"id": "a", "text": "t", "videos": [["a.png", 3]]}], "Row 1 .* frame of type int"),
        ([{"id": "a", "text": "t", "videos": [["a.png", None]]}], "frame of type NoneType"),
        ([{"id": "a", "text": "t", "audio": [0.5, 0.1]}], "sound of type float; .*sampling_rate"),
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
