"""VocalSound (Gong et al., arXiv 2205.03433): which of six sounds a person makes.

Official layout, of the 16 kHz release::

    class_labels_indices_vs.csv         index, mid, display_name; mid is the label of AudioSet
    audio_16k/f0003_0_cough.wav         f or m with the speaker's number, recording, sound
    datafiles/tr.json                   {"data": [{"wav": ".../f0003_0_cough.wav", "labels": "/m/01b_21"},
                                        ...]}; tr, val, te and all are the splits train, val, test, all

Only the file's name is taken of "wav", whose folder was the authors'; ``audio_44k/`` does as well. From
Hugging Face: lmms-lab/vocalsound (``audio``, ``answer``; the speaker is ``spk_id``, and ids are the
number of the row where there is no ``id``).

MINER asks about the 20,977 recordings of all, and finds its neurons on the same. Here neurons are found
on val (the copy has no train), and test is asked; no speaker is in both. ``all`` contains them: never
find on one and ask the other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmlens.data.media.sounds import Audio
from mmlens.datasets.folders import (
    check_columns,
    first_file,
    json_list,
    medium_file,
    read_csv,
    value,
)
from mmlens.datasets.prompts import VOCAL, one_of
from mmlens.datasets.rows import Benchmark, Row, Rows
from mmlens.datasets.sources import OfficialFile, file_or_table, record_rows, table_rows
from mmlens.datasets.tables import Table
from mmlens.errors import SampleError

#: The six classes, as the official list spells them.
CLASSES = ("Laughter", "Sigh", "Cough", "Throat clearing", "Sneeze", "Sniff")
_FILES = {"train": "tr", "val": "val", "test": "te", "all": "all"}
_PLACES = ("audio_16k", "audio_44k", "data/audio_16k", "data/audio_44k")
_LABELS = "class_labels_indices_vs.csv"


def rows(source: Any, split: str) -> Rows:
    """The recordings of a split; see :class:`mmlens.datasets.rows.Benchmark`."""
    name = f"datafiles/{_FILES[split]}.json"
    found = file_or_table(source, split, "VocalSound", [name, f"data/{name}"])
    if not isinstance(found, OfficialFile):
        return _from_table(found)
    folder, file = found.folder, found.file
    labels = first_file(folder, [_LABELS, f"data/{_LABELS}"], "VocalSound, its classes")
    named = read_csv(labels)
    check_columns(named.columns, ("mid", "display_name"), labels)
    classes = dict(zip(named["mid"], named["display_name"], strict=True))
    # A recording is called what its file is, wherever the authors had it.
    records = [
        {**one, "wav": Path(str(value(one, "wav", f"Entry {n} of {file}"))).stem}
        for n, one in enumerate(json_list(file, "data"))
    ]

    def build(record: Mapping[str, Any], stem: str, where: str) -> Row:
        label = str(value(record, "labels", where))
        sound = medium_file(folder, [f"{place}/{stem}.wav" for place in _PLACES])
        return _row(stem, sound, classes.get(label, label), stem.partition("_")[0], where)

    return record_rows(file, records, "wav", build, noun="Recording")


def _from_table(table: Table) -> Rows:
    return table_rows(
        table,
        "audio",
        # Without a speaker, what is known to be one person's is the recording alone.
        lambda record, name, sounds, where: _row(
            name, sounds[0], str(record["answer"]), str(record.get("spk_id", name)), where
        ),
        key=next((name for name in ("id", "file_name") if name in table.names), None),
        needed=("answer",),
        optional=("id", "file_name", "spk_id"),
        noun="Recording",
    )


def _row(name: str, sound: Audio, label: str, speaker: str, where: str) -> Row:
    return Row(
        question=VOCAL,
        audios=(sound,),
        answers=(_class(label, where),),
        choices=CLASSES,
        fields={"source": speaker, "question_id": name, "speaker": speaker},
    )


def _class(label: str, where: str) -> str:
    """The class of a label, however it is spelt: ``throatclearing``, ``Throat Clearing``."""
    letters = re.sub(r"[^a-z]", "", label.lower())
    for one in CLASSES:
        if one.lower().replace(" ", "") == letters:
            return one
    raise SampleError(f"{where} has the label {label!r}; there are {', '.join(CLASSES)}.")


BENCHMARK = Benchmark(
    name="vocalsound",
    title="VocalSound",
    domain="vocalsound",
    splits=tuple(_FILES),
    paper_splits=("val", "test"),
    metric="contains_class",
    paper_metric="contains_class",
    rows=rows,
    text=lambda row, prompt: one_of(row.question, row.choices, prompt),
    modalities=("audio",),
    sizes={"all": 20977},
)
