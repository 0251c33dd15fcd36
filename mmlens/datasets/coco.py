"""COCO captions (Chen et al., arXiv 1504.00325) in the split of Karpathy: describe a photograph.

Official layout of the split, with the pictures of COCO 2014::

    dataset_coco.json       {"images": [{"filepath": "val2014", "filename", "split", "cocoid",
                            "sentences": [{"raw"}, ...]}, ...]}; split is train, restval, val or test
    train2014/COCO_train2014_000000057870.jpg
    val2014/COCO_val2014_000000522418.jpg       pictures of restval, val and test

From Hugging Face: a picture (``image``) with its ``cocoid`` and captions, as strings or as mappings
with ``raw``, in ``sentences``, ``sentences_raw`` or ``captions``. Copies with a row for each caption
(such as HuggingFaceM4/COCO) are put together by picture.

The files have no questions: the one that is asked is ours, and so are the four captions in the prompt
(methods 3.6 says that there are four, not which). MINER asks about the 5,000 pictures of test, and
finds its neurons on the same. Here neurons are found on val.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmlens.data.media.pictures import Picture
from mmlens.datasets.folders import check_columns, json_list, medium_file, value
from mmlens.datasets.prompts import CAPTION, caption
from mmlens.datasets.rows import Benchmark, Row, Rows
from mmlens.datasets.sources import OfficialFile, file_or_table, record_rows, row_media
from mmlens.datasets.tables import Table
from mmlens.errors import SampleError

_FILES = ("dataset_coco.json", "annotations/dataset_coco.json", "karpathy/dataset_coco.json")
_CAPTIONS = ("sentences", "sentences_raw", "captions")


def rows(source: Any, split: str) -> Rows:
    """The pictures of a split, each with all its reference captions as answers."""
    found = file_or_table(source, split, "COCO captions", _FILES)
    if not isinstance(found, OfficialFile):
        return _from_table(found)
    records = [one for one in json_list(found.file, "images") if one.get("split") == split]
    if not records:
        raise SampleError(
            f"{found.file} has no picture of the split {split!r}; give Karpathy's file."
        )

    def build(record: Mapping[str, Any], number: str, where: str) -> Row:
        place = str(value(record, "filepath", where))
        name = f"{place}/{value(record, 'filename', where)}"
        image = medium_file(found.folder, [name, f"images/{name}", f"Images/mscoco/{name}"])
        return _row(number, (image,), _captions(value(record, "sentences", where), where), where)

    return record_rows(found.file, records, "cocoid", build, noun="Picture")


def _from_table(table: Table) -> Rows:
    named = next((name for name in _CAPTIONS if name in table.names), _CAPTIONS[0])
    check_columns(table.names, ("cocoid", "image", named), table.where)
    given = table.column(named)
    grouped: dict[str, list[int]] = {}
    for number, one in enumerate(table.column("cocoid")):
        grouped.setdefault(str(one), []).append(number)
    ids = list(grouped)

    def build(i: int) -> Row:
        where, numbers = f"Picture {ids[i]} of {table.where}", grouped[ids[i]]
        images = row_media(table, "image", numbers[0], where)
        captions = [one for number in numbers for one in _captions(given[number], where)]
        return _row(ids[i], images, captions, where)

    return Rows(ids, ids, build)


def _captions(given: Any, where: str) -> list[str]:
    """Captions as text: one or several, each a string or a mapping with ``raw``."""
    if isinstance(given, list | tuple):
        return [text for one in given for text in _captions(one, where)]
    if isinstance(given, Mapping):
        return _captions(value(given, "raw", f"A caption of {where}"), where)
    return [str(given).strip()] if given is not None else []


def _row(picture: str, images: tuple[Picture, ...], captions: Sequence[str], where: str) -> Row:
    if not captions:
        raise SampleError(f"{where} has no captions.")
    return Row(
        question=CAPTION,
        images=images,
        answers=tuple(captions),
        fields={"source": picture, "question_id": picture, "image_id": picture},
    )


BENCHMARK = Benchmark(
    name="coco",
    title="COCO captions",
    domain="coco",
    splits=("train", "restval", "val", "test"),
    paper_splits=("val", "test"),
    metric="cider",
    paper_metric="tfidf_cosine",
    rows=rows,
    text=lambda row, prompt: caption(row.question, prompt),
    sizes={"train": 82783, "restval": 30504, "val": 5000, "test": 5000},
)
