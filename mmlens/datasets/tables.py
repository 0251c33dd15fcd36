"""Tables with media: a Hugging Face data set, loaded or saved to disk, or its parquet shards.

The package ``datasets`` is needed only for what it wrote itself (``save_to_disk``); parquet is read
without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mmlens.datasets.folders import HELP
from mmlens.errors import SampleError


class ParquetTable:
    """Parquet shards, in the order of their names.

    Media are read with their group of rows, of which one is kept: fast in the order of the file.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        try:
            self._files = [pq.ParquetFile(file) for file in files]
        except (OSError, pa.ArrowInvalid) as error:
            raise SampleError(
                f"{files[0].parent} holds parquet that cannot be read: {error}."
            ) from error
        self.where = str(files[0] if len(files) == 1 else files[0].parent)
        for shard, file in zip(files, self._files, strict=True):
            if file.schema_arrow.names != self.names:
                raise SampleError(
                    f"{shard} has other columns than {files[0]}: {', '.join(file.schema_arrow.names)} "
                    f"and {', '.join(self.names)}; leave shards of one data set in the folder."
                )
        self._groups = [
            (file, group, file.metadata.row_group(group).num_rows)
            for file in self._files
            for group in range(file.metadata.num_row_groups)
        ]
        self._kept: tuple[tuple[int, str], list[Any]] | None = None

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return list(self._files[0].schema_arrow.names)

    def column(self, name: str) -> list[Any]:
        """All values of a column."""
        return [one for f in self._files for one in f.read(columns=[name]).column(name).to_pylist()]

    def media(self, name: str, row: int) -> tuple[Any, ...]:
        """The encoded media of a row, in memory."""
        for number, (file, group, size) in enumerate(self._groups):
            if row < size:
                if self._kept is None or self._kept[0] != (number, name):
                    read = file.read_row_group(group, columns=[name]).column(name)
                    self._kept = ((number, name), read.to_pylist())
                return tuple(_content(one, self.where) for one in _listed(self._kept[1][row]))
            row -= size
        raise IndexError(row)


class LoadedTable:
    """A data set of Hugging Face datasets; media stay on its disk until they are asked for."""

    def __init__(self, data: Any) -> None:
        self._data = _undecoded(data)
        self.where = "The data set given"

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return list(self._data.column_names)

    def column(self, name: str) -> list[Any]:
        """All values of a column."""
        return list(self._data[name])

    def media(self, name: str, row: int) -> tuple[Any, ...]:
        """Functions that read the encoded media of a row; decoded sounds and paths as they are."""
        return tuple(
            _content(one, self.where)
            if isinstance(one, str) or _is_waveform(one)
            else partial(_read, self._data, name, row, number)
            for number, one in enumerate(_listed(self._data[row][name]))
        )


#: Columns by name, and the media of one row at a time.
Table = ParquetTable | LoadedTable


def hub_aliases(split: str) -> tuple[str, ...]:
    """Other names of a split in Hugging Face copies."""
    return ("validation",) if split == "val" else ()


def find_table(source: Any, split: str, aliases: Sequence[str] = ()) -> Table | None:
    """The table behind a source; None for a folder that holds none.

    Args:
        source: a loaded data set or a dictionary of splits; a folder written by ``save_to_disk``; or
            a folder with parquet shards, ``{split}-*.parquet`` or ``{split}.parquet``, there, in
            ``data/`` or in ``{split}/``.
        split: the split.
        aliases: other names of that split.

    Raises:
        SampleError: it is a data set without that split, or ``datasets`` is needed and not installed.
    """
    splits = (split, *aliases)
    if not isinstance(source, str | Path):
        return loaded_table(source, splits)
    folder = Path(source)
    if any((folder / name).is_file() for name in ("dataset_dict.json", "state.json")):
        return loaded_table(_datasets().load_from_disk(str(folder)), splits)
    for name in splits:
        for place in (folder, folder / "data", folder / "default"):
            files = [*place.glob(f"{name}-*.parquet"), *place.glob(f"{name}.parquet")]
            if files := sorted(files) or sorted(place.glob(f"{name}/*.parquet")):
                return ParquetTable(files)
    return None


def _read(data: Any, name: str, row: int, number: int) -> bytes:
    content = _content(_listed(data[row][name])[number], "The data set given")
    assert not isinstance(content, dict)  # decoded sounds are handed out as they are
    return content if isinstance(content, bytes) else Path(content).read_bytes()


def _is_waveform(one: Any) -> bool:
    return isinstance(one, dict) and one.get("array") is not None


def _content(one: Any, where: str) -> bytes | str | dict[str, Any]:
    """What a medium's cell holds: a decoded sound, encoded bytes, or else a path."""
    if _is_waveform(one):
        return {"array": one["array"], "sampling_rate": one.get("sampling_rate")}
    if isinstance(one, dict):
        one = one.get("bytes") or one.get("path")
    if isinstance(one, bytes | str):
        return one
    raise SampleError(
        f"{where} holds a picture, video or sound of type {type(one).__name__}; give encoded bytes, "
        "or mappings with 'bytes' or 'path' (a sound also 'array' and 'sampling_rate')."
    )


def _listed(cell: Any) -> list[Any]:
    if cell is None:
        return []
    return list(cell) if isinstance(cell, list | tuple) else [cell]


def loaded_table(data: Any, splits: Sequence[str]) -> LoadedTable:
    """A loaded data set, or the first of the splits that a dictionary of them has.

    Raises:
        SampleError: it has none of the splits, or is no data set.
    """
    if isinstance(data, dict):
        for name in splits:
            if name in data:
                return LoadedTable(data[name])
        raise SampleError(
            f"The data set given has no split {' or '.join(splits)}; it has {', '.join(data)}."
        )
    if hasattr(data, "column_names") and hasattr(data, "cast_column") and hasattr(data, "__len__"):
        return LoadedTable(data)
    raise SampleError(
        f"Data of type {type(data).__name__} were given; give a folder, or a Dataset or DatasetDict "
        "of the package datasets (not a streaming one)."
    )


def _undecoded(data: Any) -> Any:
    """The same data set, its media handed out as they are encoded."""
    datasets = _datasets()
    media = tuple(
        found
        for kind in ("Image", "Audio", "Video")
        if (found := getattr(datasets, kind, None)) is not None
    )
    for name, feature in data.features.items():
        inner: Any = getattr(feature, "feature", None)
        if isinstance(feature, media):
            data = data.cast_column(name, type(feature)(decode=False))
        elif isinstance(inner, media):
            data = data.cast_column(name, type(feature)(type(inner)(decode=False)))
    return data.with_format(None)


def _datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise SampleError(
            "Reading what Hugging Face datasets saved needs the package datasets, which is not "
            f'installed; install it with pip install "mmlens[datasets]", or give parquet; {HELP}.'
        ) from error
    return datasets
