"""TextVQA (Singh et al., arXiv 1904.08920): questions on photographs that only the words in them answer.

Official layout, version 0.5.1::

    TextVQA_0.5.1_val.json          {"data": [{"question_id", "image_id", "question", "answers": ten,
                                    "image_classes", ...}, ...]}; the same for train and test
    train_images/003a8ae2ef43b901.jpg       the picture's id; train and val share the folder, which
                                            other copies call train_val_images/
    test_images/...

From Hugging Face: lmms-lab/textvqa or facebook/textvqa (``question_id, image_id, question, image,
answers, image_classes, ...``). The answers of the test split are not published.

MINER asks the 5,000 questions of val, and finds its neurons on the same. Here neurons are found on
train.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmlens.data.media.pictures import Picture
from mmlens.datasets.folders import (
    check_columns,
    check_unique,
    checked_folder,
    first_file,
    json_list,
    medium_file,
    value,
)
from mmlens.datasets.prompts import scene_text
from mmlens.datasets.rows import Benchmark, Row, Rows, file_order
from mmlens.datasets.tables import Table, find_table, hub_aliases
from mmlens.errors import SampleError

UNLABELLED = ("test",)
_PLACES = {
    "train": ("train_images", "train_val_images", "train_val_images/train_images"),
    "val": ("train_images", "train_val_images", "train_val_images/train_images"),
    "test": ("test_images",),
}


def rows(source: Any, split: str) -> Rows:
    """The questions of a split.

    Args:
        source: a folder, or a Hugging Face data set.
        split: ``train``, ``val`` or ``test``.

    Raises:
        SampleError: a file, column or value is missing.
    """
    name = f"TextVQA_0.5.1_{split}.json"
    if not isinstance(source, str | Path) or not (Path(source) / name).is_file():
        if isinstance(source, str | Path):
            checked_folder(source, "TextVQA")
        table = find_table(source, split, hub_aliases(split))
        if table is not None:
            return _from_table(table, split)
    folder = checked_folder(source, "TextVQA")
    file = first_file(folder, [name, f"data/{split}-*.parquet"], f"TextVQA, {split}")
    records = json_list(file, "data")

    def build(i: int) -> Row:
        where = f"Question {records[i].get('question_id')} of {file}"
        picture = f"{value(records[i], 'image_id', where)}.jpg"
        image = medium_file(folder, [f"{place}/{picture}" for place in _PLACES[split]])
        return _row(records[i], (image,), where, split)

    ids = [str(value(one, "question_id", f"Entry {n} of {file}")) for n, one in enumerate(records)]
    check_unique(ids, file)
    return Rows(ids, [str(one.get("image_id")) for one in records], build)


def _from_table(table: Table, split: str) -> Rows:
    needed = ("question_id", "question", "image_id", "image")
    check_columns(table.names, needed, table.where)
    if split not in UNLABELLED:
        check_columns(table.names, ("answers",), table.where)
    kept = [name for name in (*needed[:3], "answers", "image_classes") if name in table.names]
    columns = {name: table.column(name) for name in kept}
    ids = [str(one) for one in columns["question_id"]]
    check_unique(ids, table.where)

    def build(i: int) -> Row:
        where = f"Question {ids[i]} of {table.where}"
        images = table.media("image", i)
        if not images:
            raise SampleError(f"{where} has no picture.")
        return _row({name: values[i] for name, values in columns.items()}, images, where, split)

    return Rows(ids, [str(one) for one in columns["image_id"]], build)


def _row(record: Mapping[str, Any], images: tuple[Picture, ...], where: str, split: str) -> Row:
    given = record.get("answers")
    # The copies fill the answers of the test split with empty strings.
    answers = [str(one) for one in given if str(one)] if given is not None else []
    if not answers and split not in UNLABELLED:
        raise SampleError(f"{where} has no answers.")
    classes = record.get("image_classes")
    return Row(
        question=str(value(record, "question", where)),
        images=images,
        # All ten, repetitions kept: the official metric counts how many people agree.
        answers=() if split in UNLABELLED else tuple(answers),
        fields={
            "source": str(record["image_id"]),
            "question_id": str(record["question_id"]),
            "image_id": str(record["image_id"]),
            **({"image_classes": tuple(map(str, classes))} if classes is not None else {}),
        },
    )


BENCHMARK = Benchmark(
    name="textvqa",
    title="TextVQA",
    domain="textvqa",
    splits=("train", "val", "test"),
    unlabelled=UNLABELLED,
    paper_splits=("train", "val"),
    metric="vqa_accuracy",
    paper_metric="contains_answer",
    rows=rows,
    text=lambda row, prompt: scene_text(row.question, prompt),
    paper_order=file_order,
    one_per_picture=False,
    paper="MINER",
    paper_limit=None,
    sizes={"train": 34602, "val": 5000, "test": 5734},
)
