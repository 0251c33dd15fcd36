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
from typing import Any

from mmlens.data.media.pictures import Picture
from mmlens.datasets.folders import json_list, medium_file, value
from mmlens.datasets.prompts import scene_text
from mmlens.datasets.rows import Benchmark, Row, Rows, check_answered
from mmlens.datasets.sources import OfficialFile, file_or_table, record_rows, table_rows

UNLABELLED = ("test",)
_TRAINING = ("train_images", "train_val_images", "train_val_images/train_images")
_PLACES = {"train": _TRAINING, "val": _TRAINING, "test": ("test_images",)}


def rows(source: Any, split: str) -> Rows:
    """The questions of a split; see :class:`mmlens.datasets.rows.Benchmark`."""
    found = file_or_table(source, split, "TextVQA", [f"TextVQA_0.5.1_{split}.json"])
    labelled = split not in UNLABELLED
    if not isinstance(found, OfficialFile):
        return table_rows(
            found,
            "image",
            lambda record, _, images, where: _row(record, images, where, labelled),
            key="question_id",
            needed=("question_id", "question", "image_id", *(["answers"] if labelled else [])),
            optional=("answers", "image_classes"),
            shared=lambda record, _: str(record["image_id"]),
        )

    def build(record: Mapping[str, Any], _: str, where: str) -> Row:
        picture = f"{value(record, 'image_id', where)}.jpg"
        image = medium_file(found.folder, [f"{place}/{picture}" for place in _PLACES[split]])
        return _row(record, (image,), where, labelled)

    records = json_list(found.file, "data")
    return record_rows(found.file, records, "question_id", build, shared="image_id")


def _row(record: Mapping[str, Any], images: tuple[Picture, ...], where: str, labelled: bool) -> Row:
    # The copies fill the answers of the test split with empty strings.
    answers = tuple(str(one) for one in record.get("answers") or () if str(one))
    check_answered(answers, labelled, where)
    classes = record.get("image_classes")
    return Row(
        question=str(value(record, "question", where)),
        images=images,
        # All ten, repetitions kept: the official metric counts how many people agree.
        answers=answers if labelled else (),
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
    unlabelled=UNLABELLED,
    paper_splits=("train", "val"),
    metric="vqa_accuracy",
    paper_metric="contains_answer",
    rows=rows,
    text=lambda row, prompt: scene_text(row.question, prompt),
    sizes={"train": 34602, "val": 5000, "test": 5734},
)
