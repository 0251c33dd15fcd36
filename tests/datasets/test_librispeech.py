"""LibriSpeech: transcriptions, and the configurations of its copies."""

import pandas as pd
import pytest

from mmlens import datasets
from mmlens.data.media.sounds import audio_length
from mmlens.errors import SampleError
from tests.helpers import miner_benchmarks_on_disk as miner_disk
from tests.helpers.benchmarks_read import same_sound


def test_librispeech(tmp_path):
    samples = datasets.read("librispeech", miner_disk.librispeech(tmp_path), "test-clean")
    assert [s.get("question_id") for s in samples] == [one[2] for one in miner_disk.LIBRISPEECH]
    four = samples[4]
    assert four.answers == ("HE SAID 121 1",)
    assert (four.get("source"), four.get("chapter")) == ("121", "123852")
    assert "nothing else" in four.text
    assert same_sound(four.audios[0], 4) and not same_sound(four.audios[0], 3)
    assert audio_length(four.audios[0], miner_disk.RATE) == len(miner_disk.sound(4))
    (tmp_path / "LibriSpeech/test-clean").rename(tmp_path / "test-clean")
    assert [s.id for s in datasets.read("librispeech", tmp_path, "test-clean")] == [
        s.id for s in samples
    ]


def test_librispeech_lines_without_what_is_said(tmp_path):
    folder = miner_disk.librispeech(tmp_path)
    file = folder / "LibriSpeech/test-clean/121/123852/121-123852.trans.txt"
    said = file.read_text()
    file.write_text(said + "121-123852-0009\n")
    with pytest.raises(SampleError, match="Line 4 of .* is '121-123852-0009'; give an utterance's"):
        datasets.read("librispeech", folder, "test-clean")
    file.write_text(said * 2)
    with pytest.raises(SampleError, match="the question id 121-123852-0000 more than once"):
        datasets.read("librispeech", folder, "test-clean")
    with pytest.raises(SampleError, match="no LibriSpeech/dev-other/<speaker>"):
        datasets.read("librispeech", folder, "dev-other")


def test_librispeech_configurations(tmp_path):
    folder = tmp_path / "clean"
    folder.mkdir()
    pd.DataFrame(miner_disk.librispeech_columns()).to_parquet(
        folder / "test-00000-of-00001.parquet"
    )
    assert len(datasets.read("librispeech", tmp_path, "test-clean")) == 6
    with pytest.raises(SampleError, match="no LibriSpeech/test-other/<speaker>"):
        datasets.read("librispeech", tmp_path, "test-other")
    with pytest.raises(SampleError, match="no split dev-clean or validation.clean or validation; "):
        datasets.read("librispeech", {"test": None}, "dev-clean")
