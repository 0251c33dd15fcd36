"""LingoQA: frames, references, the places of its files."""

import numpy as np
import pandas as pd
import pytest

from mmlens import datasets
from mmlens.errors import SampleError
from tests.helpers import benchmarks_on_disk as disk
from tests.helpers.benchmarks_read import pixels, same_picture


def test_lingoqa(tmp_path):
    one, *_ = datasets.read("lingoqa", disk.lingoqa(tmp_path), "val")
    assert one.answers == ("answer 0.0", "answer 0.1")
    assert one.get("source") == "seg0"
    assert "ego vehicle" in one.text
    expected = np.concatenate([np.asarray(disk.picture(i)) for i in range(3)], axis=1)
    assert np.array_equal(pixels(one.images[0]), expected)


def test_lingoqa_frames_as_pictures_and_a_question_for_each_reference(tmp_path):
    folder = disk.lingoqa(tmp_path)
    apart = datasets.read("lingoqa", folder, "val", frames="separate", references="apart")
    assert [len(s.images) for s in apart] == [3] * 8
    assert all(same_picture(image, 10 + i) for i, image in enumerate(apart[-1].images))
    assert [s.id for s in apart[:3]] == ["lingoqa/val0-1", "lingoqa/val0-2", "lingoqa/val1-1"]
    assert [s.answers for s in apart[:2]] == [("answer 0.0",), ("answer 0.1",)]
    assert {s.get("question_id") for s in apart} == {f"val{i}" for i in range(4)}
    with pytest.raises(SampleError, match="frames='all' was given .* give 'joined' or 'separate'"):
        datasets.read("lingoqa", folder, "val", frames="all")


def test_lingoqa_training_sets_are_read_one_after_the_other(tmp_path):
    disk.lingoqa(tmp_path, "action", "train")
    scenery = pd.DataFrame(disk.lingoqa_rows("train"))[:2]
    scenery["question_id"] = "other"
    (tmp_path / "scenery").mkdir()
    scenery.to_parquet(tmp_path / "scenery/train.parquet")
    samples = datasets.read("lingoqa", tmp_path, "train")
    assert [s.get("question_id") for s in samples] == [*(f"train{i}" for i in range(4)), "other"]
    assert "action/images" in samples[0].images[0].pictures[0]
    assert "scenery/images" in samples[-1].images[0].pictures[0]


@pytest.mark.parametrize("place", ["", "val", "evaluation"])
def test_lingoqa_places(tmp_path, place):
    samples = datasets.read("lingoqa", disk.lingoqa(tmp_path, place), "validation")
    assert same_picture(samples[0].images[0].pictures[2], 2)


def test_a_question_id_used_in_two_segments_is_told_apart(tmp_path):
    rows = pd.DataFrame(disk.lingoqa_rows())
    rows["question_id"] = "same"
    rows["question"] = rows["question"].where(rows["segment_id"] == "seg0", "Other?")
    rows = rows[rows["question"].isin(["Other?", rows["question"][0]])]
    rows.to_parquet(tmp_path / "val.parquet")
    samples = datasets.read("lingoqa", tmp_path, "val")
    assert [s.id for s in samples] == ["lingoqa/same-seg0", "lingoqa/same-seg1"]
    assert [len(s.answers) for s in samples] == [2, 4]


def test_lingoqa_paper_order(tmp_path):
    folder = disk.lingoqa(tmp_path)
    shuffled = pd.read_parquet(folder / "evaluation/val.parquet").sample(frac=1, random_state=42)
    samples = datasets.read("lingoqa", folder, "val", references="apart", subset="paper")
    assert [s.answers[0] for s in samples] == list(shuffled["answer"])


def test_a_missing_column_is_named(tmp_path):
    pd.DataFrame(disk.lingoqa_rows()).drop(columns="segment_id").to_parquet(
        tmp_path / "val.parquet"
    )
    with pytest.raises(SampleError, match=r"val\.parquet has no column 'segment_id'; it has quest"):
        datasets.read("lingoqa", tmp_path, "val")
    (tmp_path / "val.parquet").write_bytes(b"no parquet")
    with pytest.raises(SampleError, match=r"val\.parquet is not readable parquet"):
        datasets.read("lingoqa", tmp_path, "val")
