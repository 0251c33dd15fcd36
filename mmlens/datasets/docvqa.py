"""DocVQA, single page (Mathew et al., arXiv 2007.00398): questions on scanned pages.

Official layout::

    train_v1.0.json, val_v1.0.json, test_v1.0.json     {"data": [{"questionId", "question", "image",
                                                       "docId", "ucsf_document_id",
                                                       "ucsf_document_page_no", "answers"}, ...]}
    documents/ffbf0023_4.png                           as "image" says

The current download calls them ``spdocvqa_qas/train_v1.0_withQT.json`` (with ``question_types``) and
``spdocvqa_images/``; older ones have ``train/train_v1.0.json`` and ``train/documents/``. All are found.

From Hugging Face: pixparse/docvqa-single-page-questions (``question_id, question, answers, image,
other_metadata``), the one MMNeuron uses, or lmms-lab/DocVQA (``questionId, question, answers, image,
docId, ...``). The answers of the test split are not published.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmlens.data.media.pictures import Picture
from mmlens.datasets.folders import json_list, medium_file, value
from mmlens.datasets.prompts import short_answer
from mmlens.datasets.rows import Benchmark, Row, Rows, check_answered, datasets_order
from mmlens.datasets.sources import OfficialFile, file_or_table, record_rows, table_rows
from mmlens.datasets.tables import Table

UNLABELLED = ("test",)


def rows(source: Any, split: str) -> Rows:
    """The questions of a split; see :class:`mmlens.datasets.rows.Benchmark`."""
    names = [f"{split}_v1.0{kind}.json" for kind in ("", "_withQT")]
    places = ("", "spdocvqa_qas/", f"{split}/")
    found = file_or_table(source, split, "DocVQA", [p + name for p in places for name in names])
    labelled = split not in UNLABELLED
    if not isinstance(found, OfficialFile):
        return _from_table(found, labelled)

    def build(record: Mapping[str, Any], number: str, where: str) -> Row:
        name = str(value(record, "image", where))
        stem = Path(name).name
        places = [name, f"documents/{stem}", f"spdocvqa_images/{stem}", f"{split}/{name}"]
        image = medium_file(found.folder, [*places, str(found.file.parent / name)])
        return _row(record, number, (image,), where, labelled)

    records = json_list(found.file, "data")
    return record_rows(found.file, records, "questionId", build, shared="image")


def _from_table(table: Table, labelled: bool) -> Rows:
    key = "questionId" if "questionId" in table.names else "question_id"

    def whole(record: Mapping[str, Any]) -> dict[str, Any]:
        return {**(record.get("other_metadata") or {}), **record}

    return table_rows(
        table,
        "image",
        lambda record, number, images, where: _row(whole(record), number, images, where, labelled),
        key=key,
        needed=(key, "question", *(["answers"] if labelled else [])),
        optional=[name for name in table.names if name not in ("image", "ocr_results")],
        shared=lambda record, number: _page(whole(record), number),
    )


def _page(record: Mapping[str, Any], otherwise: str) -> str:
    """What the page is called: by its file, by document and page, or by the question alone."""
    if isinstance(record.get("image"), str):
        return record["image"]
    document, page = record.get("ucsf_document_id"), record.get("ucsf_document_page_no")
    return f"{document}_{page}" if document is not None else f"of question {otherwise}"


def _row(
    record: Mapping[str, Any],
    number: str,
    images: tuple[Picture, ...],
    where: str,
    labelled: bool,
) -> Row:
    answers = tuple(str(one) for one in record.get("answers") or ())
    check_answered(answers, labelled, where)
    page, types = _page(record, number), record.get("question_types")
    kept = ("docId", "ucsf_document_id", "ucsf_document_page_no")
    return Row(
        question=str(value(record, "question", where)),
        images=images,
        answers=answers,
        fields={
            "source": str(record.get("ucsf_document_id") or page),
            "question_id": number,
            "page": page,
            **{name: str(record[name]) for name in kept if record.get(name) is not None},
            **({"question_type": ", ".join(map(str, types))} if types else {}),
        },
    )


BENCHMARK = Benchmark(
    name="docvqa",
    title="DocVQA",
    domain="doc",
    unlabelled=UNLABELLED,
    paper_splits=("train", "val"),
    metric="anls",
    paper_metric="levenshtein_similarity",
    rows=rows,
    text=lambda row, prompt: short_answer(row.question, prompt),
    paper_order=datasets_order(42),
    one_per_picture=True,
    paper="MMNeuron",
)
