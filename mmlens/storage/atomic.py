"""Files that are there whole or not at all, so that a kill or a full disk loses nothing finished."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmlens.errors import RunFolderError


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a file beside ``path``, then move it into place in one step.

    Raises:
        RunFolderError: the disk is full or the folder cannot be written; ``path`` is as before.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(beside)
        with beside.open("rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(beside, path)
    except Exception as error:
        if (reason := _disk_trouble(error)) is None:
            raise
        raise RunFolderError(f"{path} could not be written ({reason}). {_KEPT}") from error
    finally:
        with suppress(OSError):  # a disk that cannot be written refuses this too
            beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    write_atomically(path, lambda to: to.write_text(text, encoding="utf-8"))


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write JSON whole or not at all."""
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def append_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append rows to a JSON-lines file and wait until they are on the disk.

    A line that a kill cut in the middle is ended first, so that the rows after it stay readable.

    Raises:
        RunFolderError: the disk is full or the file cannot be written; earlier rows are intact.
    """
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as handle:
            if handle.tell():
                handle.seek(-1, os.SEEK_END)
                if handle.read(1) != b"\n":
                    handle.write(b"\n")
            handle.write(text.encode())
            handle.flush()
            os.fsync(handle.fileno())
    except OSError as error:
        raise RunFolderError(f"{path} could not be written ({error.strerror}). {_KEPT}") from error


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file; a line that a kill cut in the middle is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


_KEPT = "What was finished before is intact: make room and run the same command again."
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENOTDIR, errno.EEXIST}
# safetensors reports its own error type, with the operating system's words in it.
_DISK_WORDS = ("No space left on device", "Disk quota exceeded", "Read-only file system")


def _disk_trouble(error: Exception) -> str | None:
    if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        return error.strerror
    return next((words for words in _DISK_WORDS if words in str(error)), None)
