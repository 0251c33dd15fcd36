"""Samples: one question with its media and its answers, and the files they are read from."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageOps, UnidentifiedImageError

from mmlens.demos import demo_path
from mmlens.errors import MediaError, SampleError

#: A picture: decoded, its encoded bytes, or the file that holds them.
Picture = Image.Image | bytes | str | PathLike[str]


@dataclass(frozen=True)
class Sample:
    """One question with its media and its answers.

    Attributes:
        id: unique in its data set.
        text: the question, without placeholders; media come before it in the prompt.
        images: pictures, decoded only when a batch is prepared.
        videos, audios: other media, for the adapters that take them.
        answers: accepted answers; any of them counts.
        choices: the answers to choose from, where the question has such.
        domain: what MMNeuron compares; a data set's domain.
        fields: any further columns of the data set.
    """

    id: str
    text: str
    images: tuple[Picture, ...] = ()
    videos: tuple[Any, ...] = ()
    audios: tuple[Any, ...] = ()
    answers: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    domain: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)

    def get(self, name: str) -> Any:
        """The value of any field of this sample, by name.

        Raises:
            SampleError: the sample has no such field, or it is empty.
        """
        value = self.fields.get(name) if name in self.fields else getattr(self, name, None)
        if value is None or callable(value):
            allowed = sorted({"id", "domain", *self.fields})
            raise SampleError(
                f"Sample {self.id!r} has no value for field {name!r}; it has {', '.join(allowed)}."
            )
        return value


def open_picture(picture: Picture) -> Image.Image:
    """Decode a picture to RGB, turned upright by its EXIF orientation.

    Raises:
        MediaError: the file is missing, truncated or not a picture.
    """
    with _decoding(picture), _opened(picture) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def picture_size(picture: Picture) -> tuple[int, int]:
    """(height, width) of a picture in pixels, read from its header alone where it can be.

    Raises:
        MediaError: the file is missing or not a picture.
    """
    with _decoding(picture), _opened(picture) as image:
        width, height = image.size
        # Pillow turns TIFF by itself, its size included.
        # Asking a PNG without a leading EXIF chunk for it would decode the whole picture.
        asked = image.format not in ("TIFF", "PNG") or "exif" in image.info
        turned = asked and image.getexif().get(0x0112) in (5, 6, 7, 8)
    return (width, height) if turned else (height, width)


def load_samples(
    path: str | PathLike[str],
    split: str | None = None,
    *,
    images_from: str | PathLike[str] | None = None,
) -> list[Sample]:
    """Read samples from a parquet or JSON-lines file, or from ``{split}`` in a folder of such.

    Columns: ``id``, ``text`` and ``domain``; ``images`` (one or a list of: a path relative to the
    file, or the Hugging Face datasets form ``{"bytes": ..., "path": ...}``); ``answers`` and
    ``choices`` (lists, or one string); ``videos`` and ``audios``. ``question`` stands in for a
    missing ``text``, ``image`` for ``images``, ``answer`` for ``answers``. Every other column
    becomes a field of the sample.

    Args:
        path: a ``.parquet`` or ``.jsonl`` file, a folder, or a shipped demo (``demo/llava-next``).
        split: which file of the folder: ``train``, ``validation``, ``test``, ...
        images_from: folder that relative picture paths start from; default: the file's own.

    Raises:
        SampleError: no such file, a row without id or text, or an id that occurs twice.
    """
    file = data_file(Path(path), split)
    base = Path(images_from) if images_from is not None else file.parent
    samples, seen = [], set()
    for number, row in enumerate(_rows(file), start=1):
        sample = _sample(row, base, f"Row {number} of {file}")
        if sample.id in seen:
            raise SampleError(
                f"{file} has the id {sample.id!r} more than once; ids must be unique."
            )
        seen.add(sample.id)
        samples.append(sample)
    if not samples:
        raise SampleError(f"{file} holds no samples.")
    return samples


def take_per_value(
    samples: Sequence[Sample], by: str, limit: int | None, *, seed: int = 0
) -> list[Sample]:
    """At most ``limit`` samples of each value of field ``by``, drawn with ``seed``, in their order."""
    if limit is None:
        return list(samples)
    positions: dict[Any, list[int]] = {}
    for position, sample in enumerate(samples):
        positions.setdefault(sample.get(by), []).append(position)
    generator = np.random.default_rng(seed)
    kept = [
        chosen
        for value in sorted(positions, key=str)
        for chosen in generator.permutation(positions[value])[:limit]
    ]
    return [samples[position] for position in sorted(kept)]


@contextmanager
def _decoding(picture: Picture) -> Iterator[None]:
    """Whatever Pillow has to say against a picture, as one MediaError."""
    try:
        yield
    except MediaError:
        raise
    except (
        OSError,
        UnidentifiedImageError,
        SyntaxError,
        ValueError,
        Image.DecompressionBombError,
    ) as error:
        raise MediaError(f"{_described(picture)} is not a readable picture: {error}.") from error


def _opened(picture: Picture) -> Image.Image:
    if isinstance(picture, Image.Image):
        return picture.copy()
    if isinstance(picture, bytes):
        return Image.open(io.BytesIO(picture))
    if not Path(picture).is_file():
        raise MediaError(f"The picture {picture} does not exist.")
    return Image.open(picture)


def _described(picture: Picture) -> str:
    return str(picture) if isinstance(picture, str | PathLike) else "The embedded picture"


def data_file(path: Path, split: str | None) -> Path:
    """The file that :func:`load_samples` reads; errors as there."""
    if (demo := demo_path(path.as_posix())) is not None and not path.exists():
        path = demo / "data"
    if path.is_file():
        return path
    if path.is_dir():
        names = [f"{split}{suffix}" for suffix in (".parquet", ".jsonl")] if split else []
        for name in names:
            if (path / name).is_file():
                return path / name
        found = sorted(p.name for p in path.iterdir() if p.suffix in (".parquet", ".jsonl"))
        raise SampleError(
            f"{path} has no {' or '.join(names) or 'split chosen'}; it holds "
            f"{', '.join(found) or 'no .parquet or .jsonl file'}."
        )
    raise SampleError(f"The data {path} do not exist; give a .parquet or .jsonl file, or a folder.")


def _rows(file: Path) -> Iterator[Mapping[str, Any]]:
    if file.suffix == ".parquet":
        try:
            frame = pd.read_parquet(file)
        except (OSError, ValueError) as error:
            raise SampleError(f"{file} is not readable parquet: {error}.") from error
        yield from ({str(k): v for k, v in row.items()} for row in frame.to_dict(orient="records"))
    elif file.suffix == ".jsonl":
        with file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    try:
                        row = json.loads(line)
                    except ValueError as error:
                        raise SampleError(
                            f"Line {number} of {file} is not JSON: {error}."
                        ) from error
                    if not isinstance(row, dict):
                        raise SampleError(f"Line {number} of {file} is no JSON object.")
                    yield row
    else:
        raise SampleError(
            f"{file} is neither .parquet nor .jsonl; samples are read from these two."
        )


def _sample(row: Mapping[str, Any], base: Path, where: str) -> Sample:
    row = {key: value for key, value in row.items() if not _is_missing(value)}
    if "text" not in row and "question" in row:
        row["text"] = row.pop("question")
    for one, many in (("image", "images"), ("answer", "answers")):
        if one in row and many not in row:
            row[many] = row.pop(one)
    if "id" not in row or "text" not in row:
        raise SampleError(
            f"{where} lacks 'id' or 'text'; it has {', '.join(map(str, row)) or 'nothing'}."
        )
    known = {"id", "text", "images", "videos", "audios", "answers", "choices", "domain"}
    return Sample(
        id=str(row["id"]),
        text=str(row["text"]),
        images=tuple(_picture(one, base, where) for one in _listed(row.get("images"))),
        videos=tuple(_listed(row.get("videos"))),
        audios=tuple(_listed(row.get("audios"))),
        answers=tuple(str(one) for one in _listed(row.get("answers"))),
        choices=tuple(str(one) for one in _listed(row.get("choices"))),
        domain=str(row["domain"]) if "domain" in row else None,
        fields={key: value for key, value in row.items() if key not in known},
    )


def _picture(value: Any, base: Path, where: str) -> Picture:
    if isinstance(value, Mapping):
        content, path = value.get("bytes"), value.get("path")
        if isinstance(content, bytes) and content:
            return content
        value = path
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise SampleError(
            f"{where} has a picture of type {type(value).__name__}; give a path, or a mapping with "
            "'bytes' or 'path'."
        )
    return str(base / value)


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    values = list(value) if isinstance(value, list | tuple | np.ndarray) else [value]
    return [one for one in values if not _is_missing(one)]


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
