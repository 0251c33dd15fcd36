"""VQAv2 (Goyal et al., arXiv 1612.00837): questions on COCO photographs, ten answers each.

Official layout::

    v2_OpenEnded_mscoco_val2014_questions.json    {"questions": [{"image_id", "question",
                                                  "question_id"}, ...]}
    v2_mscoco_val2014_annotations.json            {"annotations": [{"question_id", "question_type",
                                                  "answer_type", "multiple_choice_answer", "answers":
                                                  [{"answer", "answer_confidence", "answer_id"}]}]}
    val2014/COCO_val2014_000000262148.jpg         the picture's number in twelve digits

and the same for train2014; test2015 has questions only. The folders of the official helper
(``Questions/``, ``Annotations/``, ``Images/mscoco/``) are found too. From Hugging Face: lmms-lab/VQAv2
(``question_id, question, image_id, image, answers, question_type, answer_type``).
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
from mmlens.datasets.prompts import short_answer
from mmlens.datasets.rows import Benchmark, Row, Rows, python_order
from mmlens.datasets.tables import Table, find_table, hub_aliases
from mmlens.errors import SampleError

UNLABELLED = ("test",)
_YEARS = {"train": "train2014", "val": "val2014", "test": "test2015"}


def rows(source: Any, split: str) -> Rows:
    """The questions of a split.

    Args:
        source: a folder, or a Hugging Face data set.
        split: ``train``, ``val`` or ``test``.

    Raises:
        SampleError: a file, column or value is missing.
    """
    if not isinstance(source, str | Path):
        table = find_table(source, split, hub_aliases(split))
        assert table is not None  # only a folder may hold none
        return _from_table(table, split)
    folder, year = checked_folder(source, "VQAv2"), _YEARS[split]
    name = f"v2_OpenEnded_mscoco_{year}_questions.json"
    names = [name, f"Questions/{name}"]
    if not any((folder / one).is_file() for one in names):
        table = find_table(folder, split, hub_aliases(split))
        if table is not None:
            return _from_table(table, split)
    file = first_file(folder, names, f"VQAv2, questions of {split}")
    questions = json_list(file, "questions")
    annotations, annotated = _annotations(folder, split)

    def build(i: int) -> Row:
        record = questions[i]
        where = f"Question {record.get('question_id')} of {file}"
        number = value(record, "image_id", where)
        name = f"COCO_{year}_{int(number):012d}.jpg"
        places = (year, f"Images/mscoco/{year}", f"images/{year}")
        found = annotations.get(record["question_id"])
        if found is None and split not in UNLABELLED:
            raise SampleError(f"{where} has no annotation in {annotated}.")
        picture = medium_file(folder, [f"{place}/{name}" for place in places])
        return _row({**(found or {}), **record}, (picture,), where, split)

    ids = [
        str(value(one, "question_id", f"Entry {n} of {file}")) for n, one in enumerate(questions)
    ]
    check_unique(ids, file)
    return Rows(ids, [str(one.get("image_id")) for one in questions], build)


def _annotations(folder: Path, split: str) -> tuple[dict[Any, dict[str, Any]], Path | None]:
    if split in UNLABELLED:
        return {}, None
    name = f"v2_mscoco_{_YEARS[split]}_annotations.json"
    file = first_file(folder, [name, f"Annotations/{name}"], f"VQAv2, answers of {split}")
    records = json_list(file, "annotations")
    return {one.get("question_id"): one for one in records}, file


def _from_table(table: Table, split: str) -> Rows:
    needed = ("question_id", "question", "image_id", "image")
    check_columns(table.names, needed, table.where)
    if split not in UNLABELLED:
        check_columns(table.names, ("answers",), table.where)
    columns = {name: table.column(name) for name in table.names if name != "image"}
    ids = [str(one) for one in columns["question_id"]]
    check_unique(ids, table.where)

    def build(i: int) -> Row:
        where = f"Question {ids[i]} of {table.where}"
        images = table.media("image", i)
        if not images:
            raise SampleError(f"{where} has no picture.")
        return _row({n: values[i] for n, values in columns.items()}, images, where, split)

    return Rows(ids, [str(one) for one in columns["image_id"]], build)


def _row(record: Mapping[str, Any], images: tuple[Picture, ...], where: str, split: str) -> Row:
    given = record.get("answers")
    answers = list(given) if given is not None else []
    if not answers and split not in UNLABELLED:
        raise SampleError(f"{where} has no answers.")
    kept = ("question_type", "answer_type", "multiple_choice_answer")
    return Row(
        question=str(value(record, "question", where)),
        images=images,
        # All ten, repetitions kept: the metric counts how many people agree.
        answers=tuple(str(value(one, "answer", where)) for one in answers),
        fields={
            "source": str(record["image_id"]),
            "question_id": str(record["question_id"]),
            "image_id": str(record["image_id"]),
            **{name: str(record[name]) for name in kept if record.get(name) is not None},
            **(
                {"confidence": tuple(str(one["answer_confidence"]) for one in answers)}
                if answers and all(one.get("answer_confidence") for one in answers)
                else {}
            ),
        },
    )


BENCHMARK = Benchmark(
    name="vqav2",
    title="VQAv2",
    domain="com",
    splits=("train", "val", "test"),
    unlabelled=UNLABELLED,
    paper_splits=("train", "val"),
    metric="vqa_accuracy",
    paper_metric="confident_member",
    rows=rows,
    text=lambda row, prompt: short_answer(row.question, prompt),
    paper_order=python_order(4),
    one_per_picture=True,
)
