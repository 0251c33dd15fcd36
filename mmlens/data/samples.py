"""Samples: one question with its media and its answers, and the files they are read from."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmlens.data.demos import demo_data
from mmlens.data.media.pictures import Picture
from mmlens.data.media.sounds import Audio
from mmlens.data.media.videos import Video
from mmlens.errors import SampleError


@dataclass(frozen=True)
class Sample:
    """One question with its media and its answers.

    Attributes:
        id: unique in its data set.
        text: the question, without placeholders; media come before it in the prompt.
        images: pictures; every medium is decoded only when a batch is prepared.
        videos, audios: the same for models that take them; see :data:`mmlens.data.media.videos.Video` and
            :data:`mmlens.data.media.sounds.Audio` for what one may be.
        answers: accepted answers; any of them counts.
        choices: the answers to choose from, of a multiple-choice question.
        domain: what MMNeuron compares; a data set's domain.
        fields: any further columns of the data set.
    """

    id: str
    text: str
    images: tuple[Picture, ...] = ()
    videos: tuple[Video, ...] = ()
    audios: tuple[Audio, ...] = ()
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


def load_samples(
    path: str | PathLike[str],
    split: str | None = None,
    *,
    images_from: str | PathLike[str] | None = None,
) -> list[Sample]:
    """Read samples from a parquet or JSON-lines file, or from ``{split}`` in a folder of such files.

    Columns: ``id``, ``text`` and ``domain``; ``images``, ``videos`` and ``audios`` (each one or a
    list of: a path relative to the file, encoded bytes, or the Hugging Face datasets form
    ``{"bytes": ..., "path": ...}``; a sound also ``{"array": ..., "sampling_rate": ...}``);
    ``answers`` and ``choices`` (lists, or one string). ``question`` stands in for a missing
    ``text``, ``image`` for ``images``, ``video`` for ``videos``, ``audio`` for ``audios``,
    ``answer`` for ``answers``. Every other column becomes a field of the sample.

    A video may also be a list of pictures, its frames, but only inside a list of videos:
    ``[["1.png", "2.png"]]`` is one video of two frames, ``["1.webp", "2.webp"]`` are two videos.

    Args:
        path: a ``.parquet`` or ``.jsonl`` file, a folder, or a shipped demo (``demo/llava-next``).
        split: which file of the folder: ``train``, ``validation``, ``test``, ...
        images_from: folder that relative paths of pictures, videos and sounds start from; default:
            the file's own.

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


def data_file(path: Path, split: str | None) -> Path:
    """The file that :func:`load_samples` reads; errors as there."""
    if (data := demo_data(path.as_posix())) is not None and not path.exists():
        path = data
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
                        raise SampleError(f"Line {number} of {file} is not a JSON object.")
                    yield row
    else:
        raise SampleError(
            f"{file} is neither .parquet nor .jsonl; samples are read from these two."
        )


def _sample(row: Mapping[str, Any], base: Path, where: str) -> Sample:
    row = {key: value for key, value in row.items() if not _is_missing(value)}
    if "text" not in row and "question" in row:
        row["text"] = row.pop("question")
    for one in ("image", "video", "audio", "answer"):
        many = f"{one}s"
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
        images=tuple(_encoded(one, "picture", base, where) for one in _listed(row.get("images"))),
        videos=tuple(_video(one, base, where) for one in _listed(row.get("videos"))),
        audios=tuple(_audio(one, base, where) for one in _listed(row.get("audios"))),
        answers=tuple(str(one) for one in _listed(row.get("answers"))),
        choices=tuple(str(one) for one in _listed(row.get("choices"))),
        domain=str(row["domain"]) if "domain" in row else None,
        fields={key: value for key, value in row.items() if key not in known},
    )


def _video(value: Any, base: Path, where: str) -> Video:
    if isinstance(value, list | tuple | np.ndarray):
        return tuple(_encoded(one, "frame", base, where) for one in value)
    return _encoded(value, "video", base, where)


def _audio(value: Any, base: Path, where: str) -> Audio:
    if isinstance(value, Mapping) and value.get("array") is not None:
        return {"array": value["array"], "sampling_rate": value.get("sampling_rate")}
    return _encoded(value, "sound", base, where)


def _encoded(value: Any, noun: str, base: Path, where: str) -> bytes | str:
    """The encoded bytes of a medium, or the path of its file."""
    if isinstance(value, Mapping):
        content, path = value.get("bytes"), value.get("path")
        if isinstance(content, bytes) and content:
            return content
        value = path
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        more = "'array' and 'sampling_rate', " if noun == "sound" else ""
        raise SampleError(
            f"{where} has a {noun} of type {type(value).__name__}; give a path, or a mapping with "
            f"{more}'bytes' or 'path'."
        )
    return str(base / value)


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    values = list(value) if isinstance(value, list | tuple | np.ndarray) else [value]
    return [one for one in values if not _is_missing(one)]


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
