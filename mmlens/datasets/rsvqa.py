"""RSVQA-HR (Lobry et al. 2020; Zenodo record 6344367): questions on aerial pictures of the USGS.

Official layout::

    USGS_split_<split>_questions.json   {"questions": [{"id", "img_id", "type", "question",
                                        "answers_ids", "active"}, ...]}
    USGS_split_<split>_answers.json     {"answers": [{"id", "question_id", "answer", "active"}, ...]}
    USGS_split_<split>_images.json      {"images": [{"id", "original_name", "active", ...}, ...]}
    Data/<img_id>.tif                   from Images.tar

Each file lists the questions of all splits; only entries that are ``active`` belong to this one, the
others have little more than an id. The images file is used where it is there. Pictures are also
found in ``Images/`` and ``images/``, as .tif or as .png (MMNeuron converts them to .png). There is
no Hugging Face form to rely on.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmlens.datasets.folders import checked_folder, first_file, json_list, medium_file, value
from mmlens.datasets.prompts import short_answer
from mmlens.datasets.rows import Benchmark, Row, Rows, python_order
from mmlens.datasets.sources import record_rows
from mmlens.errors import SampleError

_FOLDERS = ("Data", "Images", "images", ".")


def rows(source: Any, split: str) -> Rows:
    """The active questions of a split, in the order of the file; the source is a folder."""
    if not isinstance(source, str | Path):
        raise SampleError(
            f"RSVQA-HR is read from its own JSON files; a {type(source).__name__} was given. Give "
            "the folder with USGS_split_<split>_questions.json."
        )
    folder = checked_folder(source, "RSVQA-HR")
    files = {
        kind: first_file(folder, [f"USGS_split_{split}_{kind}.json"], f"RSVQA-HR, {split}")
        for kind in ("questions", "answers")
    }
    questions = [one for one in json_list(files["questions"], "questions") if one.get("active")]
    answers = {one.get("id"): one for one in json_list(files["answers"], "answers")}
    names = dict[Any, str]()
    if (file := folder / f"USGS_split_{split}_images.json").is_file():
        active = [one for one in json_list(file, "images") if one.get("active")]
        names = {one.get("id"): str(one.get("original_name", "")) for one in active}
        questions = [one for one in questions if one.get("img_id") in names]
    if not questions:
        raise SampleError(
            f"{files['questions']} has no active question; give the file of another split."
        )

    def build(record: Mapping[str, Any], number: str, where: str) -> Row:
        given = value(record, "answers_ids", where)
        if not given or given[0] not in answers:
            raise SampleError(f"{where} has the answers {given}, which {files['answers']} lacks.")
        answer = value(answers[given[0]], "answer", f"Answer {given[0]} of {files['answers']}")
        picture = str(value(record, "img_id", where))
        places = [f"{f}/{picture}{kind}" for f in _FOLDERS for kind in (".tif", ".png")]
        return Row(
            question=str(value(record, "question", where)),
            images=(medium_file(folder, places),),
            answers=(str(answer),),
            fields={
                "source": picture,
                "question_id": number,
                "question_type": str(record.get("type", "")),
                "image_id": picture,
                **({"tile": names[record["img_id"]]} if names else {}),
            },
        )

    return record_rows(files["questions"], questions, "id", build, shared="img_id")


BENCHMARK = Benchmark(
    name="rsvqa",
    title="RSVQA-HR",
    domain="rs",
    splits=("train", "val", "test", "test_phili"),
    paper_splits=("train", "val"),
    metric="exact_match",
    paper_metric="same_lowered",
    rows=rows,
    text=lambda row, prompt: short_answer(row.question, prompt),
    paper_order=python_order(4),
    one_per_picture=True,
    paper="MMNeuron",
)
