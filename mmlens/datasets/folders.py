"""Files of a benchmark: found, read and checked, with one sentence for what is missing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mmlens.errors import SampleError

HELP = "see docs/benchmarks-data.md for what to fetch"


def checked_folder(folder: Any, title: str) -> Path:
    """The folder of a data set.

    Raises:
        SampleError: it is not a folder.
    """
    path = Path(folder)
    if not path.is_dir():
        what = "is not a folder" if path.exists() else "does not exist"
        raise SampleError(f"{path}, given for {title}, {what}; {HELP}.")
    return path


def first_file(folder: Path, names: Sequence[str], what: str) -> Path:
    """The first of the files that is there.

    Raises:
        SampleError: none is.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise nothing_found(folder, " or ".join(names), what)


def nothing_found(folder: Path, missing: str, what: str) -> SampleError:
    """The error of a folder that lacks files, with some of what it holds in their place."""
    there = sorted(p.name for p in folder.iterdir())
    shown = ", ".join(there[:8]) + (", ..." if len(there) > 8 else "")
    return SampleError(
        f"{folder} has no {missing} ({what}); it holds {shown or 'nothing'}; {HELP}."
    )


def medium_file(folder: Path, names: Iterable[str]) -> str:
    """The path of a picture, video or sound: the first of the names that is there.

    Where none is, the first name: a missing medium is reported for its sample when that is
    prepared, so that one of them does not stop a run.
    """
    paths = [str(folder / name) for name in names]
    return next((path for path in paths if Path(path).is_file()), paths[0])


def json_list(file: Path, key: str | None) -> list[dict[str, Any]]:
    """The list of records under a key of a JSON file; None where the file is that list itself.

    Raises:
        SampleError: the file is not JSON, or has no such list of records.
    """
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise SampleError(f"{file} is not JSON: {error}.") from error
    fields = content if isinstance(content, dict) else None
    records = content if key is None else (fields or {}).get(key)
    if isinstance(records, list) and all(isinstance(one, dict) for one in records):
        return records
    if key is None:
        raise SampleError(f"{file} is not a list of records, but {type(content).__name__}.")
    there = "no object" if fields is None else ", ".join(map(repr, fields))
    raise SampleError(f"{file} has no list of records {key!r}; it has {there or 'nothing'}.")


def read_csv(file: Path, **options: Any) -> pd.DataFrame:
    """A csv file as pandas reads it, every value as text.

    Raises:
        SampleError: it cannot be read.
    """
    try:
        return pd.read_csv(file, dtype=str, **options)
    except (OSError, ValueError) as error:
        raise SampleError(f"{file} is not readable csv: {error}.") from error


def value(record: Mapping[str, Any], key: str, where: str) -> Any:
    """One value of a record.

    Raises:
        SampleError: it has none; ``where`` says which record of which file.
    """
    if record.get(key) is None:
        raise SampleError(f"{where} has no {key!r}; it has {', '.join(map(str, record))}.")
    return record[key]


def check_columns(there: Iterable[str], needed: Iterable[str], where: Any) -> None:
    """Refuse a table that lacks a column.

    Raises:
        SampleError: the column is named.
    """
    there = [str(name) for name in there]
    if missing := [name for name in needed if name not in there]:
        raise SampleError(
            f"{where} has no column {' and '.join(map(repr, missing))}; it has "
            f"{', '.join(there) or 'none'}."
        )


def unique_ids(ids: Iterable[Any], where: Any) -> list[str]:
    """The ids as text.

    Raises:
        SampleError: one occurs twice.
    """
    found = [str(one) for one in ids]
    repeated = pd.Index(found, dtype=object).duplicated()
    if repeated.any():
        raise SampleError(
            f"{where} has the question id {found[repeated.argmax()]} more than once; ids must be unique."
        )
    return found
