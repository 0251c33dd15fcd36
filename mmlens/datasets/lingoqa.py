"""LingoQA (Marcu et al., arXiv 2312.14115): questions on five frames from a driving car.

Official layout (checked against the published val.parquet)::

    evaluation/val.parquet        question_id, segment_id, images, question, answer
    evaluation/images/val/<segment_id>/0.jpg ... 4.jpg        as the column images says
    action/train.parquet, scenery/train.parquet               the two training sets, read one after
    action/images/..., scenery/images/...                     the other

``val.parquet`` and ``train.parquet`` may also lie in the folder itself or in ``val/`` and ``train/``
(MMNeuron's tree). A row is a question with one reference answer; val has two for each of its 500
questions. There is no official copy among Hugging Face data sets; tables with the same columns and
pictures in ``images``, or in ``image_1`` to ``image_5``, are read.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from mmlens.data.media.pictures import Picture, SideBySide
from mmlens.datasets.folders import check_columns, medium_file, unique_ids
from mmlens.datasets.prompts import driving
from mmlens.datasets.rows import Benchmark, Row, Rows, pandas_order
from mmlens.datasets.sources import OfficialFile, file_or_table
from mmlens.datasets.tables import Table
from mmlens.errors import SampleError

_COLUMNS = ("question_id", "segment_id", "question", "answer")


def rows(source: Any, split: str, *, frames: str = "joined", references: str = "together") -> Rows:
    """The questions of a split.

    Args:
        source: a folder, or a Hugging Face data set.
        split: ``train`` or ``val``.
        frames: ``joined``: the frames side by side as one picture, as MMNeuron's code joins them;
            ``separate``: a picture each.
        references: ``together``: a question once, with all its reference answers; ``apart``: once
            for each, as MMNeuron's code asks (see :func:`mmlens.metrics.lingo_judge.any_row_right`).

    Raises:
        SampleError: a file or column is missing.
    """
    data, pictures_of, where = _frame(source, split)
    members = _members(data, references == "apart", where)
    ids = list(members)

    def build(i: int) -> Row:
        numbers = members[ids[i]]
        record, found = data.iloc[numbers[0]], pictures_of(numbers[0])
        return Row(
            question=str(record["question"]),
            images=(SideBySide(found),) if frames == "joined" else found,
            answers=tuple(str(data["answer"].iloc[number]) for number in numbers),
            fields={
                "source": str(record["segment_id"]),
                "question_id": str(record["question_id"]),
                "segment_id": str(record["segment_id"]),
            },
        )

    shared = data["segment_id"].astype(str)
    if "images" in data.columns:  # the names of the frames are sure, those of segments nearly
        shared = data["folder"] + "/" + data["images"].map(",".join)
    return Rows(ids, [str(shared.iloc[numbers[0]]) for numbers in members.values()], build)


def _members(data: pd.DataFrame, apart: bool, where: Any) -> dict[str, list[int]]:
    """Id of each question -> its rows; ``apart``: one row each, in the order of the rows."""
    grouped: dict[tuple[str, ...], list[int]] = {}
    columns = (data[name].astype(str) for name in ("question_id", "segment_id", "question"))
    for number, key in enumerate(zip(*columns, strict=True)):
        grouped.setdefault(key, []).append(number)
    # The id of a question was made for its segment; where it was not, both together are one.
    names = [question_id for question_id, _, _ in grouped]
    if len(set(names)) != len(names):
        names = [f"{question_id}-{segment}" for question_id, segment, _ in grouped]
    together = dict(zip(unique_ids(names, where), grouped.values(), strict=True))
    if not apart:
        return together
    split_up = sorted(
        (number, f"{name}-{i}")
        for name, numbers in together.items()
        for i, number in enumerate(numbers, start=1)
    )
    return {name: [number] for number, name in split_up}


def _frame(
    source: Any, split: str
) -> tuple[pd.DataFrame, Callable[[int], tuple[Picture, ...]], Any]:
    """The rows without their pictures, how to get the pictures of one, and where it all lies."""
    aliases = ("validation", "test") if split == "val" else ()
    table = file_or_table(source, split, "LingoQA", _names(split), aliases)
    if isinstance(table, OfficialFile):
        return _official(table.folder, _files(table.folder, split))
    check_columns(table.names, _COLUMNS, table.where)
    data = pd.DataFrame({name: table.column(name) for name in _COLUMNS})
    return data, _pictures(table), table.where


def _names(split: str) -> list[str]:
    own = ["evaluation/val"] if split == "val" else ["action/train", "scenery/train"]
    return [f"{name}.parquet" for name in (split, f"{split}/{split}", *own)]


def _files(folder: Path, split: str) -> list[Path]:
    """The official files of a split that are there; of the training sets, both."""
    there = [folder / name for name in _names(split) if (folder / name).is_file()]
    both = [file for file in there if file.parent.name in ("action", "scenery")]
    return both or there[:1]


def _official(
    folder: Path, files: list[Path]
) -> tuple[pd.DataFrame, Callable[[int], tuple[Picture, ...]], Any]:
    parts = []
    for file in files:
        try:
            part = pd.read_parquet(file)
        except (OSError, ValueError) as error:
            raise SampleError(f"{file} is not readable parquet: {error}.") from error
        check_columns(part.columns, (*_COLUMNS, "images"), file)
        parts.append(part.assign(folder=str(file.parent)))
    data = pd.concat(parts, ignore_index=True)

    def pictures_of(number: int) -> tuple[Picture, ...]:
        record = data.iloc[number]
        if len(record["images"]) == 0:
            raise SampleError(
                f"Question {record['question_id']!r} of {record['folder']} has no frames."
            )
        places = (Path(record["folder"]), folder)
        return tuple(
            medium_file(folder, [str(place / str(name)) for place in places])
            for name in record["images"]
        )

    where = files[0] if len(files) == 1 else folder
    return data, pictures_of, where


def _pictures(table: Table) -> Callable[[int], tuple[Picture, ...]]:
    names = sorted(name for name in table.names if name.startswith("image_"))
    if "images" in table.names or not names:
        check_columns(table.names, ["images"], table.where)
        names = ["images"]
    return lambda number: tuple(one for name in names for one in table.media(name, number))


BENCHMARK = Benchmark(
    name="lingoqa",
    title="LingoQA",
    domain="ad",
    splits=("train", "val"),
    paper_splits=("train", "val"),
    metric="lingo_judge",
    paper_metric="lingo_judge",
    rows=rows,
    text=lambda row, prompt: driving(row.question, prompt),
    paper_order=pandas_order(42),
    options={"frames": ("joined", "separate"), "references": ("together", "apart")},
    paper="MMNeuron",
)
