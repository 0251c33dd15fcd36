"""MMLU: what is shown before a question, and how much of it fits."""

import csv

import pandas as pd
import pytest

from mmlens import datasets
from mmlens.datasets.mmlu import LONGEST, estimated_tokens
from mmlens.errors import SampleError
from tests.helpers import miner_benchmarks_on_disk as miner_disk

hub = pytest.importorskip("datasets")


def answered(subject):
    """The five questions of dev, as they stand in a prompt."""
    return [
        f"{q}\nA. {a}\nB. {b}\nC. {c}\nD. {d}\nAnswer: {right}"
        for q, a, b, c, d, right in miner_disk.mmlu_rows(subject, "dev", 5)
    ]


def test_mmlu(tmp_path):
    samples = datasets.read("mmlu", miner_disk.mmlu(tmp_path), "test")
    four = samples[4]
    assert four.id == "mmlu/world_religions/1"
    assert four.choices == ("w1x", "w1y", "w1z", "N/A")
    assert four.answers == ("B", "w1y") and four.get("letter") == "B"
    assert (four.get("subject"), four.get("source")) == ("world_religions",) * 2
    assert (four.images, four.videos, four.audios) == ((), (), ())
    head, *parts = four.text.split("\n\n")
    assert "world religions" in head
    assert parts[:5] == answered("world_religions") and four.get("shots") == 5
    assert parts[5:] == ["Which world_religions,\ntest 1?\nA. w1x\nB. w1y\nC. w1z\nD. N/A\nAnswer:"]
    none = datasets.read("mmlu", tmp_path, "test", shots="0")[4]
    assert none.text.split("\n\n") == [head, parts[5]] and none.get("shots") == 0
    two = datasets.read("mmlu", tmp_path, "test", shots="2")[4]
    assert two.text.split("\n\n") == [head, *parts[:2], parts[5]]
    (tmp_path / "data").rename(tmp_path / "d")
    assert datasets.read("mmlu", tmp_path / "d", "test")[4] == four


def test_mmlu_shows_as_many_as_fit(tmp_path):
    folder = miner_disk.mmlu(tmp_path)
    whole = datasets.read("mmlu", folder, "test")[0].text
    parts = whole.split("\n\n")
    for kept in range(6):
        expected = "\n\n".join([parts[0], *parts[1 : kept + 1], parts[-1]])
        # As many tokens as there may be, for just so many characters.
        longest = len(expected)
        sample = datasets.read(
            "mmlu", folder, "test", count_tokens=lambda t, n=longest: LONGEST + len(t) - n
        )[0]
        assert sample.text == expected and sample.get("shots") == kept
    # A question that is too long alone is asked alone.
    sample = datasets.read("mmlu", folder, "test", count_tokens=lambda _: LONGEST + 1)[0]
    assert sample.get("shots") == 0
    with pytest.raises(
        SampleError, match="count_tokens='gpt2' was given for MMLU; give a function"
    ):
        datasets.read("mmlu", folder, "test", count_tokens="gpt2")
    with pytest.raises(SampleError, match="shots='6' was given for MMLU; give '5' or '4'"):
        datasets.read("mmlu", folder, "test", shots="6")


def test_the_estimate_of_tokens():
    # By hand: Which(2) of(1) these(2) ?(1) \n(1) A(1) .(1) 4(1) 2(1) √(3 bytes)
    assert estimated_tokens("Which of these?\nA. 42 √") == 14
    assert estimated_tokens("") == 0
    # GPT-2's own vocabulary gives 79 of this one (counted once, with it).
    text = (
        "A 32-year-old woman comes to the physician because of dysmenorrhea; physical examination "
        "shows endometriosis and hyperprolactinemia. Which of the following is the most appropriate "
        "pharmacotherapy?\nA. Bromocriptine\nB. Spironolactone\nC. Acetaminophen\nD. Ceftriaxone\n"
        "Answer: A\n"
    )
    assert 79 <= estimated_tokens(text) <= 1.2 * 79


def test_mmlu_without_what_is_shown(tmp_path):
    folder = miner_disk.mmlu(tmp_path, ("val", "test"))
    with pytest.raises(SampleError, match=r"has no data/dev/\*_dev\.csv or dev-\*\.parquet"):
        datasets.read("mmlu", folder, "test")
    assert len(datasets.read("mmlu", folder, "test", shots="0")) == 6
    miner_disk.mmlu(tmp_path, ("dev",))
    (folder / "data/dev/world_religions_dev.csv").unlink()
    with pytest.raises(SampleError, match="'dev' has no questions of world_religions to show"):
        datasets.read("mmlu", folder, "test")
    with pytest.raises(SampleError, match="'dev' is what is shown with answers.*shots='0'"):
        datasets.read("mmlu", folder, "dev")
    assert len(datasets.read("mmlu", folder, "dev", shots="0")) == 5


def test_mmlu_files_that_are_not_as_described(tmp_path):
    folder = miner_disk.mmlu(tmp_path)
    file = folder / "data/test/abstract_algebra_test.csv"
    row = miner_disk.mmlu_rows("abstract_algebra", "test")[0]
    for content, message in (
        (row[:5], r"abstract_algebra_test\.csv has 5 columns; MMLU's have 6 and no header"),
        ([*row[:5], "E"], r"Row 0 of .*_test\.csv has the answer 'E'; give a letter from A to D"),
    ):
        with file.open("w", newline="") as opened:
            csv.writer(opened).writerow(content)
        with pytest.raises(SampleError, match=message):
            datasets.read("mmlu", folder, "test")


def test_mmlu_from_a_dictionary_of_splits(tmp_path):
    expected = datasets.read("mmlu", miner_disk.mmlu(tmp_path / "official"), "val")
    named = {"dev": "dev", "validation": "val", "test": "test"}
    splits = hub.DatasetDict(
        {name: hub.Dataset.from_list(miner_disk.mmlu_columns(own)) for name, own in named.items()}
    )
    labels = hub.ClassLabel(names=["A", "B", "C", "D"])
    splits = splits.cast_column("answer", labels)
    splits.save_to_disk(tmp_path / "saved")
    (tmp_path / "shards" / "all").mkdir(parents=True)
    for name, own in named.items():
        file = tmp_path / "shards" / "all" / f"{name}-00000-of-00001.parquet"
        pd.DataFrame(miner_disk.mmlu_columns(own)).to_parquet(file)
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
    rows = miner_disk.mmlu_columns("test")
    rows[1]["choices"] = ["x", "y"]
    with pytest.raises(SampleError, match="Row 1 of The data set given has 2 choices"):
        datasets.read("mmlu", hub.Dataset.from_list(rows), "test", shots="0")
    rows = miner_disk.mmlu_columns("test")
    rows[0]["answer"] = 4
    with pytest.raises(
        SampleError, match="Row 0 of .* has the answer 4; give a letter .* or 0 to 3"
    ):
        datasets.read("mmlu", hub.Dataset.from_list(rows), "test", shots="0")
