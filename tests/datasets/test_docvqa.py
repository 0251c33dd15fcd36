"""DocVQA: its layouts, pages that questions share, answers that are not published."""

import pandas as pd
import pytest

from mmlens import datasets
from mmlens.errors import SampleError
from tests.helpers import benchmarks_on_disk as disk
from tests.helpers.benchmarks_read import loaded, same_picture


@pytest.mark.parametrize(
    ("file", "pictures"),
    [
        ("val_v1.0.json", "documents"),
        ("spdocvqa_qas/val_v1.0_withQT.json", "spdocvqa_images"),
        ("val/val_v1.0.json", "val/documents"),
    ],
)
def test_docvqa_layouts(tmp_path, file, pictures):
    folder = disk.docvqa(tmp_path)
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / "val_v1.0.json").rename(folder / file)
    (folder / "documents").rename(folder / pictures)
    samples = datasets.read("docvqa", folder, "val")
    assert samples[3].answers == ("3 May", "May 3")
    assert samples[3].get("source") == "doc1" and samples[3].get("docId") == "1"
    assert same_picture(samples[3].images[0], 1)
    assert pictures in samples[3].images[0]


def test_answers_that_are_not_published(tmp_path):
    samples = datasets.read("docvqa", disk.docvqa(tmp_path, "test"), "test")
    assert [s.answers for s in samples] == [()] * 6
    with pytest.raises(SampleError, match="DocVQA's split 'test' are not published.*train or val"):
        datasets.read("docvqa", tmp_path, "test", scored=True)
    records = disk.docvqa_records("test")
    disk.write_json(tmp_path / "val_v1.0.json", {"data": records})
    with pytest.raises(SampleError, match=r"Question 100 of .*val_v1\.0\.json has no answers"):
        datasets.read("docvqa", tmp_path, "val")


def test_ids_that_occur_twice(tmp_path):
    disk.write_json(tmp_path / "val_v1.0.json", {"data": disk.docvqa_records() * 2})
    with pytest.raises(SampleError, match="the question id 100 more than once"):
        datasets.read("docvqa", tmp_path, "val")


def test_questions_on_one_page_share_its_bytes(tmp_path):
    pd.DataFrame(disk.docvqa_columns()).to_parquet(tmp_path / "val.parquet")
    samples = datasets.read("docvqa", tmp_path, "val")
    assert samples[0].images[0] is samples[1].images[0]
    assert samples[0].images[0] != samples[2].images[0]


def test_docvqa_paper_order_is_that_of_a_shuffled_data_set(tmp_path):
    data = loaded(disk.docvqa_columns())
    shuffled = data.shuffle(seed=42)
    seen, expected = set(), []
    for row in shuffled:
        if row["other_metadata"]["image"] not in seen:
            seen.add(row["other_metadata"]["image"])
            expected.append(f"docvqa/{row['question_id']}")
    assert [s.id for s in datasets.read("docvqa", data, "val", subset="paper")] == expected
