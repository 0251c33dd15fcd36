"""TextVQA: ten answers, and a test split without any."""

import pandas as pd
import pytest

from mmlens import datasets
from mmlens.errors import SampleError
from tests.helpers import benchmarks_on_disk as disk
from tests.helpers import miner_benchmarks_on_disk as miner_disk
from tests.helpers.benchmarks_read import same_picture


@pytest.mark.parametrize("place", ["train_images", "train_val_images"])
def test_textvqa(tmp_path, place):
    samples = datasets.read("textvqa", miner_disk.textvqa(tmp_path, place=place), "val")
    three = samples[3]
    assert three.text == "what does sign 3 say?"  # nothing appended, as methods 3.6 says
    assert three.answers == ("stop 3",) * 7 + ("halt", "go", "Stop")
    assert (three.id, three.get("source")) == ("textvqa/34605", "pic1")
    assert three.get("image_classes") == ("Sign", "Street")
    assert same_picture(three.images[0], 1)
    assert not same_picture(three.images[0], 2)
    one, *_ = datasets.read("textvqa", tmp_path, "val", prompt="instructblip")
    assert one.text == "Question: what does sign 0 say? Short Answer:"


def test_textvqa_answers_that_are_not_published(tmp_path):
    folder = miner_disk.textvqa(tmp_path, "test", "test_images")
    assert [s.answers for s in datasets.read("textvqa", folder, "test")] == [()] * 6
    with pytest.raises(SampleError, match="TextVQA's split 'test' are not published.*train or val"):
        datasets.read("textvqa", folder, "test", scored=True)
    pd.DataFrame(miner_disk.textvqa_columns("test")).to_parquet(tmp_path / "test.parquet")
    (tmp_path / "TextVQA_0.5.1_test.json").unlink()
    assert [s.answers for s in datasets.read("textvqa", tmp_path, "test")] == [()] * 6
    records = miner_disk.textvqa_records("test")
    disk.write_json(tmp_path / "TextVQA_0.5.1_val.json", {"data": records})
    with pytest.raises(SampleError, match=r"Question 34602 of .*val\.json has no answers"):
        datasets.read("textvqa", tmp_path, "val")
