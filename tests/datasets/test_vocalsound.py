"""VocalSound: six classes, spelt in several ways."""

import json

import pandas as pd
import pytest

from mmlens import datasets
from mmlens.errors import SampleError
from tests.helpers import benchmarks_on_disk as disk
from tests.helpers import miner_benchmarks_on_disk as miner_disk
from tests.helpers.benchmarks_read import same_sound

hub = pytest.importorskip("datasets")


def test_vocalsound(tmp_path):
    samples = datasets.read("vocalsound", miner_disk.vocalsound(tmp_path), "test")
    assert [s.answers for s in samples] == [(name,) for name in miner_disk.MIDS] * 2
    nine = samples[9]
    assert (nine.id, nine.get("source")) == ("vocalsound/m0012_0_throatclearing", "m0012")
    assert nine.choices == tuple(miner_disk.MIDS) and nine.answers == ("Throat clearing",)
    assert nine.text.endswith(
        "Answer with one of these: Laughter, Sigh, Cough, Throat clearing, Sneeze, Sniff."
    )
    assert same_sound(nine.audios[0], 9) and not same_sound(nine.audios[0], 8)
    miner_disk.vocalsound(tmp_path / "all", "all")
    assert len(datasets.read("vocalsound", tmp_path / "all", "all")) == 12
    (tmp_path / "audio_16k").rename(tmp_path / "audio_44k")
    assert same_sound(datasets.read("vocalsound", tmp_path, "test")[3].audios[0], 3)


def test_vocalsound_labels(tmp_path):
    folder = miner_disk.vocalsound(tmp_path)
    file = folder / "datafiles/te.json"
    data = json.loads(file.read_text())
    data["data"][1]["labels"] = "/m/0"
    disk.write_json(file, data)
    with pytest.raises(
        SampleError, match="Recording f0003_0_sigh of .* the label '/m/0'; there are"
    ):
        datasets.read("vocalsound", folder, "test")
    table = pd.read_csv(folder / "class_labels_indices_vs.csv")
    table.drop(columns="mid").to_csv(folder / "class_labels_indices_vs.csv", index=False)
    with pytest.raises(SampleError, match=r"indices_vs\.csv has no column 'mid'; it has index"):
        datasets.read("vocalsound", folder, "test")
    (folder / "class_labels_indices_vs.csv").unlink()
    with pytest.raises(SampleError, match=r"no class_labels_indices_vs\.csv or .*its classes"):
        datasets.read("vocalsound", folder, "test")


def test_vocalsound_spellings():
    rows = miner_disk.vocalsound_columns()
    rows[3]["answer"] = "throatclearing"
    samples = datasets.read("vocalsound", hub.Dataset.from_list(rows), "test")
    assert samples[3].answers == ("Throat clearing",)
    rows[3]["answer"] = "Yawn"
    with pytest.raises(SampleError, match="Recording 3 of .* the label 'Yawn'; there are Laughter"):
        datasets.read("vocalsound", hub.Dataset.from_list(rows), "test")
