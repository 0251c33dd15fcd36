"""PMC-VQA: both versions, and questions whose answer is none of their options."""

import pandas as pd
import pytest

from mmlens import datasets
from mmlens.errors import SampleError
from mmlens.metrics.scoring import scorer
from tests.helpers import benchmarks_on_disk as disk


@pytest.mark.parametrize("version", [1, 2])
def test_pmcvqa(tmp_path, version):
    split = ("test", "test_2")[version - 1]
    samples = datasets.read("pmcvqa", disk.pmcvqa(tmp_path, split, version), split)
    two = samples[2]
    assert two.choices == ("Diffuse uptake", "Focal uptake", "None", "N/A")
    assert two.answers == ("C", "None")
    assert (two.id, two.get("letter"), two.get("source")) == ("pmcvqa/2", "C", "PMC1_F1.jpg")
    assert two.text == (
        "Question: What is the pattern, 2?\nContext: N/A\nOptions: A: Diffuse uptake, B: Focal "
        "uptake, C: None, D: N/A\nAnswer with the option's letter from the given choices directly."
    )
    score = scorer("option_letter")
    assert [score("C", one) for one in samples] == [0, 0, 1, 0, 0, 0]
    assert scorer("exact_match")("none", two) == 1.0


def test_prompts_for_instructblip(tmp_path):
    folder = disk.pmcvqa(tmp_path / "pmc")
    one, *_ = datasets.read("pmcvqa", folder, "test", prompt="instructblip")
    assert "Context" not in one.text and "Options: A: Diffuse" in one.text
    one, *_ = datasets.read("vqav2", disk.vqav2(tmp_path / "vqa"), "val", prompt="instructblip")
    assert one.text == "Question: Is it red, 0? Short Answer:"


def test_answers_that_are_none_of_the_options_are_left_out_and_said(tmp_path, caplog):
    rows = disk.pmcvqa_rows(2)
    rows[1]["Answer"], rows[4]["Answer"] = "E", "Focal uptake"  # not an option; one by its text
    pd.DataFrame(rows).to_csv(tmp_path / "test.csv", index=False)
    samples = datasets.read("pmcvqa", tmp_path, "test")
    assert [s.get("question_id") for s in samples] == ["0", "2", "3", "4", "5"]
    assert samples[3].get("letter") == "B"
    assert "1 of 6 questions of" in caplog.text and "row 1 has the answer 'E'" in caplog.text
    pd.DataFrame(rows[1:2]).to_csv(tmp_path / "test.csv", index=False)
    with pytest.raises(SampleError, match="no question whose answer is one of its options: row 0"):
        datasets.read("pmcvqa", tmp_path, "test")


def test_pmcvqa_wrong_columns(tmp_path):
    frame = pd.DataFrame(disk.pmcvqa_rows())
    frame.drop(columns="Choice C").to_csv(tmp_path / "test.csv", index=False)
    with pytest.raises(SampleError, match=r"test\.csv has no column 'Choice C'; it has Figure_pa"):
        datasets.read("pmcvqa", tmp_path, "test")
    frame.drop(columns=["Answer", "Answer_label"]).to_csv(tmp_path / "test.csv", index=False)
    with pytest.raises(SampleError, match=r"test\.csv has no column 'Answer'"):
        datasets.read("pmcvqa", tmp_path, "test")
    frame.rename(columns={"Answer": "Anwser"}).drop(columns="Answer_label").to_csv(
        tmp_path / "test.csv", index=False
    )
    assert datasets.read("pmcvqa", tmp_path, "test")[1].answers == ("B", "Focal uptake")
