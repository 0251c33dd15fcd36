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

import pandas as pd

from mmlens.data.media.sounds import Audio
from mmlens.datasets.folders import (
    check_columns,
    check_unique,
    checked_folder,
    first_file,
    json_list,
    medium_file,
    value,
)
from mmlens.datasets.prompts import VOCAL, one_of
from mmlens.datasets.rows import Benchmark, Row, Rows, file_order
from mmlens.datasets.tables import Table, find_table, hub_aliases
from mmlens.errors import SampleError

#: The six classes, as the official list spells them.
CLASSES = ("Laughter", "Sigh", "Cough", "Throat clearing", "Sneeze", "Sniff")
_FILES = {"train": "tr", "val": "val", "test": "te", "all": "all"}
_PLACES = ("audio_16k", "audio_44k", "data/audio_16k", "data/audio_44k")
_LABELS = "class_labels_indices_vs.csv"


def rows(source: Any, split: str) -> Rows:
    """The recordings of a split.

    Args:
        source: a folder, or a Hugging Face data set.
        split: ``train``, ``val``, ``test`` or ``all``.

    Raises:
        SampleError: a file, column or value is missing, or a label is none of the six.
    """
    name = f"datafiles/{_FILES[split]}.json"
    names = [name, f"data/{name}"]
    if not isinstance(source, str | Path) or not any((Path(source) / n).is_file() for n in names):
        if isinstance(source, str | Path):
            checked_folder(source, "VocalSound")
        table = find_table(source, split, hub_aliases(split))
        if table is not None:
            return _from_table(table)
    folder = checked_folder(source, "VocalSound")
    file = first_file(folder, [*names, f"data/{split}-*.parquet"], f"VocalSound, {split}")
    records = json_list(file, "data")
    classes = _classes(first_file(folder, [_LABELS, f"data/{_LABELS}"], "VocalSound, its classes"))
    stems = [
        Path(str(value(one, "wav", f"Entry {n} of {file}"))).stem for n, one in enumerate(records)
    ]
    check_unique(stems, file)

    def build(i: int) -> Row:
        where = f"Recording {stems[i]} of {file}"
        label = str(value(records[i], "labels", where))
        sound = medium_file(folder, [f"{place}/{stems[i]}.wav" for place in _PLACES])
        return _row(stems[i], sound, classes.get(label, label), stems[i].partition("_")[0], where)

    return Rows(stems, stems, build)


def _classes(file: Path) -> Mapping[str, str]:
    """Label of AudioSet -> the class's name."""
    try:
        data = pd.read_csv(file, dtype=str)
    except (OSError, ValueError) as error:
        raise SampleError(f"{file} is not readable csv: {error}.") from error
    check_columns(data.columns, ("mid", "display_name"), file)
    return dict(zip(data["mid"], data["display_name"], strict=True))


def _from_table(table: Table) -> Rows:
    check_columns(table.names, ("audio", "answer"), table.where)
    answers = list(map(str, table.column("answer")))
    named = next((name for name in ("id", "file_name") if name in table.names), None)
    ids = list(map(str, table.column(named) if named else range(len(answers))))
    check_unique(ids, table.where)
    # Without a speaker, what is known to be one person's is the recording alone.
    speakers = list(map(str, table.column("spk_id"))) if "spk_id" in table.names else ids

    def build(i: int) -> Row:
        where = f"Recording {ids[i]} of {table.where}"
        sounds = table.media("audio", i)
        if not sounds:
            raise SampleError(f"{where} has no sound.")
        return _row(ids[i], sounds[0], answers[i], speakers[i], where)

    return Rows(ids, ids, build)


def _row(name: str, sound: Audio, label: str, speaker: str, where: str) -> Row:
    return Row(
        question=VOCAL,
        audios=(sound,),
        answers=(_class(label, where),),
        choices=CLASSES,
        fields={"source": speaker, "question_id": name, "speaker": speaker},
    )


def _class(label: str, where: str) -> str:
    """The class that a label spells in its own way: ``throatclearing``, ``Throat Clearing``."""
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
    unlabelled=(),
    paper_splits=("val", "test"),
    metric="contains_class",
    paper_metric="contains_class",
    rows=rows,
    text=lambda row, prompt: one_of(row.question, row.choices, prompt),
    paper_order=file_order,
    one_per_picture=False,
    paper="MINER",
    paper_limit=None,
    modalities=("audio",),
    sizes={"all": 20977},
)
