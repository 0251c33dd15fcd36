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
from mmlens.datasets.folders import first_file, json_list, medium_file, value
from mmlens.datasets.prompts import short_answer
from mmlens.datasets.rows import Benchmark, Row, Rows, check_answered, python_order
from mmlens.datasets.sources import OfficialFile, file_or_table, record_rows, table_rows
from mmlens.errors import SampleError

UNLABELLED = ("test",)
_YEARS = {"train": "train2014", "val": "val2014", "test": "test2015"}
_KEPT = ("question_type", "answer_type", "multiple_choice_answer")


def rows(source: Any, split: str) -> Rows:
    """The questions of a split; see :class:`mmlens.datasets.rows.Benchmark`."""
    year, labelled = _YEARS[split], split not in UNLABELLED
    name = f"v2_OpenEnded_mscoco_{year}_questions.json"
    found = file_or_table(source, split, "VQAv2", [name, f"Questions/{name}"])
    if not isinstance(found, OfficialFile):
        return table_rows(
            found,
            "image",
            lambda record, _, images, where: _row(record, images, where, labelled),
            key="question_id",
            needed=("question_id", "question", "image_id", *(["answers"] if labelled else [])),
            optional=("answers", *_KEPT),
            shared=lambda record, _: str(record["image_id"]),
        )
    annotations, annotated = _annotations(found.folder, split) if labelled else ({}, None)

    def build(record: Mapping[str, Any], _: str, where: str) -> Row:
        picture = f"COCO_{year}_{int(value(record, 'image_id', where)):012d}.jpg"
        places = (year, f"Images/mscoco/{year}", f"images/{year}")
        image = medium_file(found.folder, [f"{place}/{picture}" for place in places])
        annotation = annotations.get(record["question_id"])
        if annotation is None and labelled:
            raise SampleError(f"{where} has no annotation in {annotated}.")
        return _row({**(annotation or {}), **record}, (image,), where, labelled)

    records = json_list(found.file, "questions")
    return record_rows(found.file, records, "question_id", build, shared="image_id")


def _annotations(folder: Path, split: str) -> tuple[dict[Any, dict[str, Any]], Path]:
    name = f"v2_mscoco_{_YEARS[split]}_annotations.json"
    file = first_file(folder, [name, f"Annotations/{name}"], f"VQAv2, answers of {split}")
    return {one.get("question_id"): one for one in json_list(file, "annotations")}, file


def _row(record: Mapping[str, Any], images: tuple[Picture, ...], where: str, labelled: bool) -> Row:
    answers = record.get("answers") or []
    check_answered(answers, labelled, where)
    return Row(
        question=str(value(record, "question", where)),
        images=images,
        # All ten, repetitions kept: the metric counts how many people agree.
        answers=tuple(str(value(one, "answer", where)) for one in answers),
        fields={
            "source": str(record["image_id"]),
            "question_id": str(record["question_id"]),
            "image_id": str(record["image_id"]),
            **{name: str(record[name]) for name in _KEPT if record.get(name) is not None},
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
    unlabelled=UNLABELLED,
    paper_splits=("train", "val"),
    metric="vqa_accuracy",
    paper_metric="confident_member",
    rows=rows,
    text=lambda row, prompt: short_answer(row.question, prompt),
    paper_order=python_order(4),
    one_per_picture=True,
    paper="MMNeuron",
)
