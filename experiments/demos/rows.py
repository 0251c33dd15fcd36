"""The rows of a demo's data: their columns, and files in which a shared medium is stored once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

SPLITS = ("train", "validation", "test")
_FILES = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))


def schema(first: str, *more: str) -> pa.Schema:
    """Columns of the data, for media columns such as ``images``."""
    return pa.schema(
        [
            ("id", pa.string()),
            ("domain", pa.string()),
            ("text", pa.string()),
            (first, _FILES),
            ("answers", pa.list_(pa.string())),
            ("choices", pa.list_(pa.string())),
            ("question", pa.string()),
            ("picture", pa.string()),
            ("source", pa.string()),
            *((one, _FILES) for one in more),
        ]
    )


def write(rows: Sequence[Mapping[str, Any]], path: Path, columns: pa.Schema) -> None:
    """Write rows so that a medium shared by several questions is stored once."""
    pq.write_table(
        pa.Table.from_pylist(list(rows), schema=columns),
        path,
        compression="zstd",
        compression_level=19,
        use_dictionary=True,
        dictionary_pagesize_limit=1 << 26,
        row_group_size=len(rows),
        data_page_size=1 << 24,
    )


def answers_of(table: pd.DataFrame) -> list[str]:
    """All answers that occur."""
    return sorted({answer for answers in table.answers for answer in answers})


def answers_by_question(table: pd.DataFrame) -> dict[str, list[str]]:
    """Question type -> the answers that occur."""
    return {str(key): answers_of(group) for key, group in table.groupby("question")}
