"""VQAv2: annotations joined by id, and the layout of the official helper."""

import pytest

from mmlens import datasets
from mmlens.data.media.pictures import picture_size
from mmlens.errors import SampleError
from mmlens.metrics.scoring import scorer
from tests.helpers import benchmarks_on_disk as disk


def test_vqav2(tmp_path):
    samples = datasets.read("vqav2", disk.vqav2(tmp_path), "val")
    two = samples[2]
    assert two.answers == ("yes",) * 3 + ("No",) * 7
    assert two.get("confidence") == disk.CONFIDENCE
    assert (two.get("question_type"), two.get("answer_type")) == ("is it", "yes/no")
    assert two.get("source") == "43"
    assert two.images[0].endswith("val2014/COCO_val2014_000000000043.jpg")
    accuracy = scorer("vqa_accuracy")
    assert [accuracy("yes", one) for one in samples] == pytest.approx([0.3, 0.6, 0.9, 1, 1, 0])
    member = scorer("confident_member")
    assert [member("No", one) for one in samples] == [1, 1, 1, 1, 1, 0]
    # Unanswerable questions stay questions, and the word is their answer.
    assert accuracy("unanswerable", samples[5]) == 1.0


def test_vqav2_of_the_official_helper_and_its_test_split(tmp_path):
    folder = disk.vqav2(tmp_path)
    for place, pattern in (
        ("Questions", "*_questions.json"),
        ("Annotations", "*_annotations.json"),
    ):
        (folder / place).mkdir()
        for file in folder.glob(pattern):
            file.rename(folder / place / file.name)
    (folder / "Images/mscoco").mkdir(parents=True)
    (folder / "val2014").rename(folder / "Images/mscoco/val2014")
    samples = datasets.read("vqav2", folder, "val")
    assert picture_size(samples[0].images[0]) == (16, 24)
    disk.vqav2(tmp_path / "t", "test", "test2015")
    assert [s.answers for s in datasets.read("vqav2", tmp_path / "t", "test")] == [()] * 6
    with pytest.raises(SampleError, match="VQAv2's split 'test' are not published"):
        datasets.read("vqav2", tmp_path / "t", "test", scored=True)


def test_vqav2_without_annotations(tmp_path):
    folder = disk.vqav2(tmp_path)
    file = folder / "v2_mscoco_val2014_annotations.json"
    disk.write_json(file, {"annotations": []})
    with pytest.raises(SampleError, match="Question 42000 .* has no annotation in .*annotations"):
        datasets.read("vqav2", folder, "val")
    file.unlink()
    with pytest.raises(
        SampleError, match=r"no v2_mscoco_val2014_annotations\.json or Annotations/"
    ):
        datasets.read("vqav2", folder, "val")
