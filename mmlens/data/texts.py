"""Texts by language: read from files, cut into chunks of a number of tokens (LAPE, arXiv 2402.16438)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from mmlens.data.samples import Sample, data_file, load_samples
from mmlens.errors import SampleError

#: Characters of a text file that are tokenised at once, at least.
_PIECE = 1 << 16


def load_texts(path: str | PathLike[str], split: str | None = None) -> list[Sample]:
    """Texts with their language as ``domain``, from one of two layouts.

    - ``{split}.jsonl`` or ``{split}.parquet`` in a folder, or such a file itself, with the columns
      ``id``, ``text`` and ``language``;
    - a folder ``{split}`` (or the folder itself) of one ``{language}.txt`` per language, UTF-8.

    Args:
        path: a file or a folder.
        split: which part of the folder.

    Raises:
        SampleError: neither layout is there, a row without language, a text file that is empty or not
            UTF-8.
    """
    folder = Path(path) / split if split and (Path(path) / split).is_dir() else Path(path)
    if folder.is_dir() and (files := sorted(folder.glob("*.txt"))):
        return [one for file in files for one in _pieces(file)]
    texts = []
    for sample in load_samples(data_file(Path(path), split)):
        language = sample.fields.get("language", sample.domain)
        if language is None:
            raise SampleError(
                f"Text {sample.id!r} has no language; give a column 'language', or one .txt file per "
                "language."
            )
        texts.append(replace(sample, domain=str(language)))
    return texts


def chunked(texts: Sequence[Sample], tokenizer: Any, tokens: int) -> list[Sample]:
    """The texts cut into chunks of at most ``tokens`` tokens each, in order.

    They are cut where the tokenizer's tokens begin, so that no character is lost; tokenised alone,
    a chunk may come out a token or two longer or shorter at its ends. Ids: ``{id}#{number}``. Chunks
    without two tokens to predict one from the other are left out.

    Args:
        texts: texts of any length.
        tokenizer: the model's; a fast one, since only fast ones know where tokens begin.
        tokens: tokens per chunk, the tokenizer's special ones not counted.

    Raises:
        SampleError: fewer than two tokens per chunk, or a text must be cut and the tokenizer is slow.
    """
    if tokens < 2:
        raise SampleError(f"A chunk needs at least two tokens, {tokens} was given.")
    return [
        replace(text, id=f"{text.id}#{number}", text=part)
        for text in texts
        for number, part in enumerate(_parts(text, tokenizer, tokens))
    ]


def _parts(text: Sample, tokenizer: Any, tokens: int) -> list[str]:
    ids = tokenizer(text.text, add_special_tokens=False, verbose=False)["input_ids"]
    if len(ids) <= tokens:
        starts = [0]
    elif getattr(tokenizer, "is_fast", False):
        offsets = tokenizer(
            text.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )["offset_mapping"]
        starts = [0, *(start for start, _ in offsets[tokens::tokens])]
    else:
        raise SampleError(
            f"Text {text.id!r} has {len(ids)} tokens, more than the {tokens} of a chunk, and this slow "
            "tokenizer does not know where to cut it; give shorter texts."
        )
    ends = [*starts[1:], len(text.text)]
    parts = [text.text[start:end] for start, end in zip(starts, ends, strict=True)]
    return [
        part
        for part in parts
        if part.strip() and len(tokenizer(part, verbose=False)["input_ids"]) > 1
    ]


def _pieces(file: Path) -> Iterator[Sample]:
    """A text file in pieces that end at line ends, so that no tokenizer is given all of it at once."""
    lines: list[str] = []
    size = number = 0

    def piece() -> Sample:
        return Sample(f"{file.stem}-{number}", "".join(lines), domain=file.stem)

    try:
        with file.open(encoding="utf-8") as text:
            for line in text:
                lines.append(line)
                size += len(line)
                if size >= _PIECE:
                    yield piece()
                    lines, size, number = [], 0, number + 1
    except UnicodeDecodeError as error:
        raise SampleError(f"{file} is not UTF-8 text: {error}.") from error
    if "".join(lines).strip():
        yield piece()
    elif not number:
        raise SampleError(f"{file} holds no text.")
