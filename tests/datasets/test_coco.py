"""COCO captions: Karpathy's split, and copies with a row for each caption."""

import pytest

from mmlens import datasets
from mmlens.errors import SampleError
from tests.helpers import benchmarks_on_disk as disk
from tests.helpers import miner_benchmarks_on_disk as miner_disk
from tests.helpers.benchmarks_read import same_picture

hub = pytest.importorskip("datasets")


def test_coco(tmp_path):
    samples = datasets.read("coco", miner_disk.coco(tmp_path), "test")
    assert [s.get("image_id") for s in samples] == ["1003", "1004", "1005", "1006"]
    one = samples[0]
    assert one.answers == ("A cat number 3 sits.", *(f"Cat 3, caption {k}." for k in range(1, 5)))
    assert one.images[0].endswith("val2014/COCO_val2014_000000000003.jpg")
    assert same_picture(one.images[0], 3)
    lines = one.text.split("\n")
    assert lines[0] == one.get("question") and "one short" in lines[0]
    examples = lines[2:-1]
    assert len(set(examples)) == 4 and not set(examples) & set(one.answers)
    (train,) = datasets.read("coco", tmp_path, "train")
    assert "train2014" in train.images[0]
    (restval,) = datasets.read("coco", tmp_path, "restval")
    assert "val2014" in restval.images[0]


def test_coco_of_another_file(tmp_path):
    miner_disk.coco(tmp_path, "val")
    with pytest.raises(SampleError, match="has no picture of the split 'test'; give Karpathy's"):
        datasets.read("coco", tmp_path, "test")
    images = [{"cocoid": 1, "split": "test", "filepath": "val2014", "filename": "a.jpg"}]
    disk.write_json(tmp_path / "dataset_coco.json", {"images": images})
    with pytest.raises(
        SampleError, match=r"Picture 1 of .*\.json has no 'sentences'; it has cocoid"
    ):
        datasets.read("coco", tmp_path, "test")
    images[0]["sentences"] = []
    disk.write_json(tmp_path / "dataset_coco.json", {"images": images})
    with pytest.raises(SampleError, match="Picture 1 of .* has no captions"):
        datasets.read("coco", tmp_path, "test")


def test_coco_with_a_row_for_each_caption(tmp_path):
    expected = datasets.read("coco", miner_disk.coco(tmp_path / "official"), "test")
    data = hub.Dataset.from_list(miner_disk.coco_caption_columns()).cast_column(
        "image", hub.Image()
    )
    samples = datasets.read("coco", data, "test")
    assert [s.answers for s in samples] == [s.answers for s in expected]
    rows = [{**one, "sentences_raw": None} for one in miner_disk.coco_columns()]
    rows[0]["sentences_raw"] = ["a"]  # so that the column has a type
    with pytest.raises(SampleError, match="Picture 1004 of .* has no captions"):
        datasets.read("coco", hub.Dataset.from_list(rows), "test")


def test_coco_without_captions():
    data = hub.Dataset.from_list(miner_disk.coco_columns()).remove_columns("sentences_raw")
    with pytest.raises(SampleError, match="The data set given has no column 'sentences'"):
        datasets.read("coco", data, "test")
