"""Benchmarks as tables: the same samples from loaded data sets, saved ones and parquet."""

import sys

import numpy as np
import pandas as pd
import pytest

from mmlens import datasets
from mmlens.data.media.pictures import picture_size
from mmlens.data.media.sounds import open_audio
from mmlens.data.media.videos import video_size
from mmlens.errors import MediaError, SampleError
from tests.helpers import benchmarks_on_disk as disk
from tests.helpers import miner_benchmarks_on_disk as miner_disk
from tests.helpers.benchmarks_read import (
    COPIES,
    FIXTURES,
    loaded,
    rows_of,
    same_media,
    same_picture,
)

hub = pytest.importorskip("datasets")


@pytest.mark.parametrize("name", COPIES)
def test_loaded_saved_and_parquet_give_the_same(name, tmp_path):
    _, column, feature, theirs = COPIES[name]
    write, ours, *_ = FIXTURES[name]
    expected = datasets.read(name, write(tmp_path / "official"), ours)
    rows = rows_of(name, tmp_path / "official")
    data = loaded(rows, column, feature)
    splits = hub.DatasetDict({theirs: data})
    data.save_to_disk(tmp_path / "one")
    splits.save_to_disk(tmp_path / "splits")
    shards = tmp_path / "shards" / "data"
    shards.mkdir(parents=True)
    for i, part in enumerate((rows[:4], rows[4:])):
        if part:
            file = shards / f"{theirs}-0000{i}-of-00002.parquet"
            pd.DataFrame(part).to_parquet(file, row_group_size=3)
    paper = [s.id for s in datasets.read(name, data, ours, subset="paper")]
    assert len(paper) == (3 if datasets.DATASETS[name].paper == "MMNeuron" else len(rows))
    for source in (data, splits, *(tmp_path / form for form in ("one", "splits", "shards"))):
        samples = datasets.read(name, source, ours)
        for number, (got, official) in enumerate(zip(samples, expected, strict=True)):
            # The copy of VocalSound has no names, so the number of the row is the id.
            assert got.id == (f"vocalsound/{number}" if name == "vocalsound" else official.id)
            for field in ("text", "answers", "choices"):
                assert getattr(got, field) == getattr(official, field)
            assert got.get("source") == official.get("source")
            assert got.fields.get("confidence") == official.fields.get("confidence")
            same_media(got, official)
        assert [s.id for s in datasets.read(name, source, ours, subset="paper")] == paper
        if source is data:
            media = samples[0].images + samples[0].videos + samples[0].audios
            assert callable(media[0])  # stays on disk until it is asked for


@pytest.mark.parametrize(
    ("name", "drop"),
    [
        ("docvqa", "answers"),
        ("docvqa", "question_id"),
        ("vqav2", "image_id"),
        ("textvqa", "image_id"),
        ("textvqa", "answers"),
        ("coco", "cocoid"),
        ("msvd_qa", "video"),
        ("librispeech", "speaker_id"),
        ("vocalsound", "answer"),
    ],
)
def test_copies_that_lack_a_column_or_a_medium(name, drop, tmp_path):
    _, column, feature, _ = COPIES[name]
    write, ours, *_ = FIXTURES[name]
    rows = rows_of(name, write(tmp_path))
    data = loaded(rows, column, feature).remove_columns(drop)
    with pytest.raises(SampleError, match=f"The data set given has no column '{drop}'; it has"):
        datasets.read(name, data, ours)
    rows[0][column] = None
    with pytest.raises(SampleError, match="of .* has no (picture|video|sound)"):
        datasets.read(name, hub.Dataset.from_list(rows), ours)


def test_lingoqa_and_pmcvqa_with_pictures_in_tables(tmp_path):
    rows = [
        {
            **{k: v for k, v in row.items() if k != "images"},
            **{
                f"image_{i + 1}": {"bytes": disk.encoded(i + 10 * (n // 4)), "path": None}
                for i in range(3)
            },
        }
        for n, row in enumerate(disk.lingoqa_rows())
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "test-00000-of-00001.parquet")
    samples = datasets.read("lingoqa", tmp_path, "val")
    assert len(samples) == 4 and picture_size(samples[0].images[0]) == (16, 72)
    assert all(same_picture(one, 10 + i) for i, one in enumerate(samples[3].images[0].pictures))
    image = {"bytes": disk.encoded(3), "path": None}
    data = loaded([{**row, "image": image} for row in disk.pmcvqa_rows()])
    samples = datasets.read("pmcvqa", data, "test")
    assert samples[1].answers == ("B", "Focal uptake")
    assert same_picture(samples[5].images[0], 3)


def test_lists_of_pictures_in_a_data_set(tmp_path):
    rows = [
        {**row, "images": [{"bytes": disk.encoded(i), "path": None} for i in range(3)]}
        for row in disk.lingoqa_rows()
    ]
    data = hub.Dataset.from_list(rows)
    data = data.cast_column("images", hub.List(hub.Image()))
    samples = datasets.read("lingoqa", data, "val", frames="separate")
    assert all(same_picture(image, i) for i, image in enumerate(samples[2].images))
    assert callable(samples[0].images[0])  # its bytes stay on disk until they are asked for


def test_data_sets_that_cannot_be_used(tmp_path, monkeypatch):
    data = loaded(disk.docvqa_columns())
    with pytest.raises(SampleError, match="no split val or validation; it has train"):
        datasets.read("docvqa", hub.DatasetDict({"train": data}), "val")
    with pytest.raises(SampleError, match="IterableDataset were given; .*not a streaming one"):
        datasets.read("docvqa", data.to_iterable_dataset(), "val")
    with pytest.raises(SampleError, match="RSVQA-HR is read from its own JSON files"):
        datasets.read("rsvqa", data, "val")
    nothing = [{**row, "image": None} for row in disk.docvqa_columns()]
    with pytest.raises(SampleError, match="Question 100 of .* has no picture"):
        datasets.read("docvqa", loaded(nothing), "val")
    data.save_to_disk(tmp_path / "saved")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(SampleError, match=r"not installed; install it with .*mmlens\[datasets\]"):
        datasets.read("docvqa", tmp_path / "saved", "val")


def test_shards_that_do_not_belong_together(tmp_path):
    pd.DataFrame(disk.docvqa_columns()).to_parquet(tmp_path / "val-0.parquet")
    pd.DataFrame({"x": [1]}).to_parquet(tmp_path / "val-1.parquet")
    with pytest.raises(SampleError, match=r"val-1\.parquet has other columns than .*val-0"):
        datasets.read("docvqa", tmp_path, "val")
    (tmp_path / "val-1.parquet").write_bytes(b"no")
    with pytest.raises(SampleError, match="holds parquet that cannot be read"):
        datasets.read("docvqa", tmp_path, "val")


def test_decoded_sounds_and_videos_by_their_names(tmp_path, monkeypatch):
    rows = [
        {**one, "audio": {"array": miner_disk.sound(n).tolist(), "sampling_rate": miner_disk.RATE}}
        for n, one in enumerate(miner_disk.librispeech_columns())
    ]
    samples = datasets.read("librispeech", hub.Dataset.from_list(rows), "test-clean")
    assert np.allclose(
        open_audio(samples[2].audios[0], miner_disk.RATE), miner_disk.sound(2), atol=1e-6
    )
    folder = miner_disk.msvd_qa(tmp_path)
    rows = [
        {**one, "video": f"clip{one['video_id'] - 1301}_5_15.avi"}
        for one in miner_disk.msvd_qa_records()
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
