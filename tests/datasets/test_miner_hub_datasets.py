"""MINER's benchmarks as Hugging Face copies: the same samples as from the official files."""

import numpy as np
import pandas as pd
import pytest

from mmlens import datasets
from mmlens.data.media.pictures import open_picture
from mmlens.data.media.sounds import open_audio
from mmlens.data.media.videos import open_video, video_size
from mmlens.errors import MediaError, SampleError
from tests.helpers import miner_benchmarks_on_disk as disk

hub = pytest.importorskip("datasets")

#: Rows, the column of media, their feature, the split there, ours, its official form.
COPIES = {
    "textvqa": (disk.textvqa_columns, "image", hub.Image, "validation", "val", disk.textvqa),
    "coco": (disk.coco_columns, "image", hub.Image, "test", "test", disk.coco),
    "msvd_qa": (disk.msvd_qa_columns, "video", hub.Video, "test", "test", disk.msvd_qa),
    "librispeech": (
        disk.librispeech_columns,
        "audio",
        hub.Audio,
        "test.clean",
        "test-clean",
        disk.librispeech,
    ),
    "vocalsound": (disk.vocalsound_columns, "audio", hub.Audio, "test", "test", disk.vocalsound),
}


def same_media(one, other):
    """Whether two samples show the same, decoded; pictures of the official form are JPEG."""
    for a, b in zip(one.images, other.images, strict=True):
        difference = np.asarray(open_picture(a)).astype(int) - np.asarray(open_picture(b))
        assert np.abs(difference).mean() < 3  # of 255: JPEG
    for a, b in zip(one.videos, other.videos, strict=True):
        assert video_size(a) == video_size(b)
        assert np.array_equal(open_video(a).frames, open_video(b).frames)
    for a, b in zip(one.audios, other.audios, strict=True):
        assert np.allclose(open_audio(a, disk.RATE), open_audio(b, disk.RATE), atol=1e-4)


def rows_of(name, official):
    columns = COPIES[name][0]
    return columns(official) if name == "msvd_qa" else columns()


@pytest.mark.parametrize("name", COPIES)
def test_loaded_saved_and_parquet_give_the_same(name, tmp_path):
    _, column, feature, theirs, ours, write = COPIES[name]
    official = write(tmp_path / "official")
    expected = datasets.read(name, official, ours)
    rows = rows_of(name, official)
    data = hub.Dataset.from_list(rows).cast_column(column, feature())
    splits = hub.DatasetDict({theirs: data})
    splits.save_to_disk(tmp_path / "saved")
    shards = tmp_path / "shards" / "data"
    shards.mkdir(parents=True)
    for i, part in enumerate((rows[:4], rows[4:])):
        if part:
            pd.DataFrame(part).to_parquet(shards / f"{theirs}-0000{i}-of-00002.parquet")
    for source in (data, splits, tmp_path / "saved", tmp_path / "shards"):
        samples = datasets.read(name, source, ours)
        for number, (got, official_one) in enumerate(zip(samples, expected, strict=True)):
            # The copy of VocalSound has no names, so the number of the row is the id.
            official_id = f"vocalsound/{number}" if name == "vocalsound" else official_one.id
            assert got.id == official_id
            assert (got.text, got.answers, got.choices) == (
                official_one.text,
                official_one.answers,
                official_one.choices,
            )
            assert got.get("source") == official_one.get("source")
            same_media(got, official_one)
        if source is data:
            media = samples[0].images + samples[0].videos + samples[0].audios
            assert callable(media[0])  # stays on disk until it is asked for


def test_mmlu_from_a_dictionary_of_splits(tmp_path):
    expected = datasets.read("mmlu", disk.mmlu(tmp_path / "official"), "val")
    named = {"dev": "dev", "validation": "val", "test": "test"}
    splits = hub.DatasetDict(
        {name: hub.Dataset.from_list(disk.mmlu_columns(own)) for name, own in named.items()}
    )
    labels = hub.ClassLabel(names=["A", "B", "C", "D"])
    splits = splits.cast_column("answer", labels)
    splits.save_to_disk(tmp_path / "saved")
    (tmp_path / "shards" / "all").mkdir(parents=True)
    for name, own in named.items():
        file = tmp_path / "shards" / "all" / f"{name}-00000-of-00001.parquet"
        pd.DataFrame(disk.mmlu_columns(own)).to_parquet(file)
    for source in (splits, tmp_path / "saved", tmp_path / "shards"):
        assert datasets.read("mmlu", source, "val") == expected
    with pytest.raises(
        SampleError, match="One split of MMLU was given.*DatasetDict with dev and val"
    ):
        datasets.read("mmlu", splits["validation"], "val")
    alone = datasets.read("mmlu", splits["validation"], "val", shots="0")
    assert [s.id for s in alone] == [s.id for s in expected]
    splits["validation"].save_to_disk(tmp_path / "one")
    with pytest.raises(SampleError, match="one has no data/dev"):
        datasets.read("mmlu", tmp_path / "one", "val")
    with pytest.raises(SampleError, match="no split dev; it has test"):
        datasets.read("mmlu", {"test": splits["test"]}, "test")


def test_mmlu_rows_that_are_not_as_described():
    rows = disk.mmlu_columns("test")
    rows[1]["choices"] = ["x", "y"]
    with pytest.raises(SampleError, match="Row 1 of The data set given has 2 choices"):
        datasets.read("mmlu", hub.Dataset.from_list(rows), "test", shots="0")
    rows = disk.mmlu_columns("test")
    rows[0]["answer"] = 4
    with pytest.raises(
        SampleError, match="Row 0 of .* has the answer 4; give a letter .* or 0 to 3"
    ):
        datasets.read("mmlu", hub.Dataset.from_list(rows), "test", shots="0")


def test_coco_with_a_row_for_each_caption(tmp_path):
    expected = datasets.read("coco", disk.coco(tmp_path / "official"), "test")
    data = hub.Dataset.from_list(disk.coco_caption_columns()).cast_column("image", hub.Image())
    samples = datasets.read("coco", data, "test")
    assert [s.answers for s in samples] == [s.answers for s in expected]
    rows = [{**one, "sentences_raw": None} for one in disk.coco_columns()]
    rows[0]["sentences_raw"] = ["a"]  # so that the column has a type
    with pytest.raises(SampleError, match="Picture 1004 of .* has no captions"):
        datasets.read("coco", hub.Dataset.from_list(rows), "test")


def test_decoded_sounds_and_videos_by_their_names(tmp_path, monkeypatch):
    rows = [
        {**one, "audio": {"array": disk.sound(n).tolist(), "sampling_rate": disk.RATE}}
        for n, one in enumerate(disk.librispeech_columns())
    ]
    samples = datasets.read("librispeech", hub.Dataset.from_list(rows), "test-clean")
    assert np.allclose(open_audio(samples[2].audios[0], disk.RATE), disk.sound(2), atol=1e-6)
    folder = disk.msvd_qa(tmp_path)
    rows = [
        {**one, "video": f"clip{one['video_id'] - 1301}_5_15.avi"} for one in disk.msvd_qa_records()
    ]
    (folder / "test_qa.json").unlink()
    pd.DataFrame(rows).to_parquet(folder / "test.parquet")
    monkeypatch.chdir("/")
    samples = datasets.read("msvd_qa", folder, "test")
    assert video_size(samples[5].videos[0]) == (4, 32, 48)
    assert samples[5].get("source") == "vid1303"
    (folder / "YouTubeClips/clip2_5_15.avi").unlink()
    again = datasets.read("msvd_qa", folder, "test")  # reading does not mind
    with pytest.raises(MediaError, match="clip2_5_15.avi does not exist"):
        video_size(again[5].videos[0])


def test_librispeech_configurations(tmp_path):
    folder = tmp_path / "clean"
    folder.mkdir()
    pd.DataFrame(disk.librispeech_columns()).to_parquet(folder / "test-00000-of-00001.parquet")
    assert len(datasets.read("librispeech", tmp_path, "test-clean")) == 6
    with pytest.raises(SampleError, match="no LibriSpeech/test-other/<speaker>"):
        datasets.read("librispeech", tmp_path, "test-other")
    with pytest.raises(SampleError, match="no split dev-clean or validation.clean or validation; "):
        datasets.read("librispeech", {"test": None}, "dev-clean")


def test_vocalsound_spellings():
    rows = disk.vocalsound_columns()
    rows[3]["answer"] = "throatclearing"
    samples = datasets.read("vocalsound", hub.Dataset.from_list(rows), "test")
    assert samples[3].answers == ("Throat clearing",)
    rows[3]["answer"] = "Yawn"
    with pytest.raises(SampleError, match="Recording 3 of .* the label 'Yawn'; there are Laughter"):
        datasets.read("vocalsound", hub.Dataset.from_list(rows), "test")


@pytest.mark.parametrize(
    ("name", "drop"),
    [
        ("textvqa", "image_id"),
        ("textvqa", "answers"),
        ("coco", "cocoid"),
        ("msvd_qa", "video"),
        ("librispeech", "speaker_id"),
        ("vocalsound", "answer"),
    ],
)
def test_copies_that_lack_a_column_or_a_medium(name, drop, tmp_path):
    _, column, _, _, ours, write = COPIES[name]
    rows = rows_of(name, write(tmp_path))
    data = hub.Dataset.from_list(rows).remove_columns(drop)
    with pytest.raises(SampleError, match=f"The data set given has no column '{drop}'; it has"):
        datasets.read(name, data, ours)
    rows[0][column] = None
    with pytest.raises(SampleError, match="of .* has no (picture|video|sound)"):
        datasets.read(name, hub.Dataset.from_list(rows), ours)


def test_coco_without_captions():
    data = hub.Dataset.from_list(disk.coco_columns()).remove_columns("sentences_raw")
    with pytest.raises(SampleError, match="The data set given has no column 'sentences'"):
        datasets.read("coco", data, "test")
