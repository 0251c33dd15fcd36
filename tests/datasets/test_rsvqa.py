"""RSVQA-HR: entries of its own split, pictures, the paper's order."""

import random

import pytest
from PIL import Image

from mmlens import datasets
from mmlens.errors import SampleError
from tests.helpers import benchmarks_on_disk as disk
from tests.helpers.benchmarks_read import same_picture


def test_rsvqa_takes_active_entries_only(tmp_path):
    samples = datasets.read("rsvqa", disk.rsvqa(tmp_path), "val")
    assert [s.get("question_id") for s in samples] == ["0", "1", "2", "4", "5", "6"]
    two = samples[2]
    assert (two.answers, two.get("question_type")) == (("2",), "presence")
    assert (two.get("source"), two.get("tile")) == ("1", "tile0")
    assert two.text == (
        "Question: How many roads, 2?\nAnswer the question using a single word or phrase."
    )
    assert same_picture(two.images[0], 1)


def test_rsvqa_pictures_that_are_not_active_and_files_of_mmneuron(tmp_path):
    folder = disk.rsvqa(tmp_path)
    images = [{"id": i, "original_name": "t", "active": i != 1} for i in range(4)]
    disk.write_json(folder / "USGS_split_val_images.json", {"images": images})
    assert len(datasets.read("rsvqa", folder, "val")) == 5
    (folder / "USGS_split_val_images.json").unlink()  # its tree has none for some splits
    for file in (folder / "Data").iterdir():
        Image.open(file).save(file.with_suffix(".png"))
        file.unlink()
    samples = datasets.read("rsvqa", folder, "val")
    assert len(samples) == 6 and samples[0].images[0].endswith("Data/0.png")
    assert "tile" not in samples[0].fields


def test_rsvqa_paper_order(tmp_path):
    folder = disk.rsvqa(tmp_path)
    numbers = ["0", "1", "2", "4", "5", "6"]
    random.Random(4).shuffle(numbers)
    seen, expected = set(), []
    for number in numbers:  # the first question of each picture
        if int(number) // 2 not in seen:
            seen.add(int(number) // 2)
            expected.append(number)
    samples = datasets.read("rsvqa", folder, "val", subset="paper")
    assert [s.get("question_id") for s in samples] == expected
    assert datasets.read("rsvqa", folder, "val", subset="paper", limit=2) == samples[:2]


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        ("questions", {"question": []}, "no list of records 'questions'; it has 'question'"),
        ("questions", {"questions": []}, "no active question"),
        ("questions", {"questions": [{"id": 1, "active": True}]}, "Question 1 .* no 'answers_ids'"),
        ("answers", {"answers": []}, r"Question 0 .* has the answers \[0\], which .*lacks"),
        ("answers", {"answers": [{"id": 0}] * 9}, "Answer 0 of .* has no 'answer'"),
    ],
)
def test_rsvqa_files_that_are_not_as_described(tmp_path, kind, content, message):
    folder = disk.rsvqa(tmp_path)
    (folder / "USGS_split_val_images.json").unlink()
    disk.write_json(folder / f"USGS_split_val_{kind}.json", content)
    with pytest.raises(SampleError, match=message):
        datasets.read("rsvqa", folder, "val")
    (folder / f"USGS_split_val_{kind}.json").write_text("{")
    with pytest.raises(SampleError, match=f"{kind}.json is not JSON"):
        datasets.read("rsvqa", folder, "val")
