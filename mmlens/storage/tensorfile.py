"""Tensors in one safetensors file, with everything else about them as JSON in its header."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mmlens.errors import StatisticsError
from mmlens.storage.atomic import write_atomically

#: The entry of the safetensors metadata that holds the JSON.
_ENTRY = "mmlens"


def write_tensors(
    path: str | PathLike[str],
    file_format: str,
    tensors: Mapping[str, Tensor],
    header: Mapping[str, Any],
) -> None:
    """Write a file whole or not at all.

    Args:
        path: a ``.safetensors`` file.
        file_format: name and version of the format, such as ``mmlens.statistics/2``.
        tensors: by name.
        header: everything else, as JSON has it.

    Raises:
        RunFolderError: the disk is full or the folder cannot be written.
    """
    text = json.dumps({"format": file_format, **header})
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    write_atomically(Path(path), lambda to: save_file(whole, to, metadata={_ENTRY: text}))


@contextmanager
def open_tensors(
    path: str | PathLike[str],
    file_format: str,
    noun: str,
    refused: Mapping[str, str] | None = None,
) -> Iterator[tuple[dict[str, Any], Callable[[str], Tensor]]]:
    """Open a file that :func:`write_tensors` wrote: its header, and a function from name to tensor.

    Whatever the block misses in the header or among the tensors is reported as damage of the file.

    Args:
        path: the file.
        file_format: the format that it must have.
        noun: what messages call the file, such as ``statistics file``.
        refused: other format -> why files of that one cannot be read, to follow the file's name.

    Raises:
        FileNotFoundError: there is no such file.
        StatisticsError: it is damaged or not of this format.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no {noun} {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(_ENTRY, "{}"))
            found = header.pop("format", None)
            if reason := (refused or {}).get(found):
                raise StatisticsError(f"{path} {reason}")
            if found != file_format:
                raise StatisticsError(f"{path} is not a {noun} of mmlens ({file_format}).")
            yield header, file.get_tensor
    except SafetensorError as error:
        raise StatisticsError(f"{path} is damaged or not safetensors: {error}.") from error
    except (json.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
        raise StatisticsError(
            f"{path} is damaged: its header cannot be read ({error!r})."
        ) from error
