"""Where the questions of a split are: in an official file, or in a table that stands for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmlens.datasets.folders import (
    check_columns,
    checked_folder,
    first_file,
    unique_ids,
    value,
)
from mmlens.datasets.rows import Row, Rows
from mmlens.datasets.tables import Table, find_table, hub_aliases
from mmlens.errors import SampleError

_NOUNS = {"image": "picture", "video": "video", "audio": "sound"}


@dataclass(frozen=True)
class OfficialFile:
    """The file that lists the questions of a split.

    Attributes:
        folder: of the data set, where the media are.
        file: one of the official names.
    """

    folder: Path
    file: Path


def file_or_table(
    source: Any,
    split: str,
    title: str,
    names: Sequence[str],
    aliases: Sequence[str] | None = None,
) -> OfficialFile | Table:
    """The official file of a split where the folder has one, else a table.

    Args:
        source: a folder, or a Hugging Face data set.
        split: the split.
        title: of the data set, for messages.
        names: of the official file, the first that is there counts.
        aliases: what else Hugging Face copies call the split; default: as nearly all do.

    Raises:
        SampleError: there is no such folder, or it has neither; or the data set lacks the split.
    """
    aliases = hub_aliases(split) if aliases is None else aliases
    if not isinstance(source, str | Path):
        table = find_table(source, split, aliases)
        assert table is not None  # only a folder may hold none
        return table
    folder = checked_folder(source, title)
    if not any((folder / name).is_file() for name in names):
        table = find_table(folder, split, aliases)
        if table is not None:
            return table
    return OfficialFile(
        folder, first_file(folder, [*names, f"data/{split}-*.parquet"], f"{title}, {split}")
    )


def record_rows(
    file: Path,
    records: Sequence[Mapping[str, Any]],
    key: str,
    build: Callable[[Mapping[str, Any], str, str], Row],
    *,
    shared: str | None = None,
    noun: str = "Question",
) -> Rows:
    """The questions of an official JSON file.

    Args:
        file: the file, for messages.
        records: its records.
        key: of a record's id.
        build: (record, id, what messages call it) to its question.
        shared: key of what a record's medium is called; default: by its id.
        noun: what messages call a record.

    Raises:
        SampleError: a record has no id, or one occurs twice.
    """
    ids = unique_ids(
        [value(one, key, f"Entry {n} of {file}") for n, one in enumerate(records)], file
    )
    media = ids if shared is None else [str(one.get(shared)) for one in records]
    return Rows(ids, media, lambda i: build(records[i], ids[i], f"{noun} {ids[i]} of {file}"))


def table_rows(
    table: Table,
    medium: str,
    build: Callable[[Mapping[str, Any], str, tuple[Any, ...], str], Row],
    *,
    needed: Sequence[str],
    optional: Iterable[str] = (),
    key: str | None,
    shared: Callable[[Mapping[str, Any], str], str] | None = None,
    noun: str = "Question",
) -> Rows:
    """The questions of a table with a row for each.

    Args:
        table: the table.
        medium: the column of the media: ``image``, ``video`` or ``audio``.
        build: (row without its media, id, media, what messages call it) to its question.
        needed: columns that have to be there besides the media's.
        optional: columns that are read where they are there.
        key: the column of the ids; None: the number of the row.
        shared: what a row's medium is called, from the row and its id; default: by its id.
        noun: what messages call a row.

    Raises:
        SampleError: a column is missing or an id occurs twice; a row without media, once it is built.
    """
    check_columns(table.names, (*needed, medium), table.where)
    kept = dict.fromkeys([*needed, *(name for name in optional if name in table.names)])
    columns = {name: table.column(name) for name in kept}
    count = range(len(columns[needed[0]]))
    ids = unique_ids(count if key is None else columns[key], table.where)

    def record(i: int) -> dict[str, Any]:
        return {name: values[i] for name, values in columns.items()}

    def row(i: int) -> Row:
        where = f"{noun} {ids[i]} of {table.where}"
        return build(record(i), ids[i], row_media(table, medium, i, where), where)

    media = ids if shared is None else [shared(record(i), ids[i]) for i in count]
    return Rows(ids, media, row)


def row_media(table: Table, medium: str, row: int, where: str) -> tuple[Any, ...]:
    """The media of a row.

    Raises:
        SampleError: it has none; ``where`` says which row of which table.
    """
    media = table.media(medium, row)
    if not media:
        raise SampleError(f"{where} has no {_NOUNS[medium]}.")
    return media
