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
from mmlens.datasets.rows import Benchmark, Row, Rows, datasets_order
from mmlens.datasets.tables import Table, find_table, hub_aliases
from mmlens.errors import SampleError

UNLABELLED = ("test",)


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
    folder = checked_folder(source, "DocVQA")
    names = _names(split)
    if not any((folder / name).is_file() for name in names):
        table = find_table(folder, split, hub_aliases(split))
        if table is not None:
            return _from_table(table, split)
    file = first_file(folder, [*names, f"data/{split}-*.parquet"], f"DocVQA, {split}")
    records = json_list(file, "data")

    def build(i: int) -> Row:
        record = records[i]
        where = f"Question {record.get('questionId')} of {file}"
        name = str(value(record, "image", where))
        stem = Path(name).name
        places = [name, f"documents/{stem}", f"spdocvqa_images/{stem}", f"{split}/{name}"]
        return Row(
            question=str(value(record, "question", where)),
            images=(medium_file(folder, [*places, str(file.parent / name)]),),
            answers=_answers(record.get("answers"), split, where),
            fields=_fields(record, str(record.get("questionId")), name),
        )

    ids = [str(value(one, "questionId", f"Entry {n} of {file}")) for n, one in enumerate(records)]
    check_unique(ids, file)
    return Rows(ids, [str(one.get("image")) for one in records], build)


def _names(split: str) -> list[str]:
    names = [f"{split}_v1.0{kind}.json" for kind in ("", "_withQT")]
    return [f"{place}{name}" for place in ("", "spdocvqa_qas/", f"{split}/") for name in names]


def _from_table(table: Table, split: str) -> Rows:
    check_columns(table.names, ("question", "image"), table.where)
    if split not in UNLABELLED:
        check_columns(table.names, ("answers",), table.where)
    id_name = "questionId" if "questionId" in table.names else "question_id"
    check_columns(table.names, (id_name,), table.where)
    heavy = ("image", "ocr_results")
    columns = {name: table.column(name) for name in table.names if name not in heavy}
    ids = [str(one) for one in columns[id_name]]
    check_unique(ids, table.where)

    def record(i: int) -> Mapping[str, Any]:
        plain = {name: values[i] for name, values in columns.items()}
        return {**(plain.get("other_metadata") or {}), **plain}

    def build(i: int) -> Row:
        one, where = record(i), f"Question {ids[i]} of {table.where}"
        images = table.media("image", i)
        if not images:
            raise SampleError(f"{where} has no picture.")
        return Row(
            question=str(value(one, "question", where)),
            images=images,
            answers=_answers(one.get("answers"), split, where),
            fields=_fields(one, ids[i], _page(one, ids[i])),
        )

    return Rows(ids, [_page(record(i), ids[i]) for i in range(len(ids))], build)


def _page(record: Mapping[str, Any], otherwise: str) -> str:
    """What the page is called: by its file, by document and page, or by the question alone."""
    if isinstance(record.get("image"), str):
        return record["image"]
    document, page = record.get("ucsf_document_id"), record.get("ucsf_document_page_no")
    return f"{document}_{page}" if document is not None else f"of question {otherwise}"


def _answers(given: Any, split: str, where: str) -> tuple[str, ...]:
    answers = tuple(str(one) for one in given) if given is not None else ()
    if not answers and split not in UNLABELLED:
        raise SampleError(f"{where} has no answers.")
    return answers


def _fields(record: Mapping[str, Any], question_id: str, page: str) -> dict[str, Any]:
    kept = ("docId", "ucsf_document_id", "ucsf_document_page_no")
    return {
        "source": str(record.get("ucsf_document_id") or page),
        "question_id": question_id,
        "page": page,
        **{name: str(record[name]) for name in kept if record.get(name) is not None},
        **(
            {"question_type": ", ".join(map(str, record["question_types"]))}
            if record.get("question_types")
            else {}
        ),
    }


BENCHMARK = Benchmark(
    name="docvqa",
    title="DocVQA",
    domain="doc",
    splits=("train", "val", "test"),
    unlabelled=UNLABELLED,
    paper_splits=("train", "val"),
    metric="anls",
    paper_metric="levenshtein_similarity",
    rows=rows,
    text=lambda row, prompt: short_answer(row.question, prompt),
    paper_order=datasets_order(42),
    one_per_picture=True,
)
