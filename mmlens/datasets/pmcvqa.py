"""PMC-VQA (Zhang et al., arXiv 2305.10415): four-option questions on figures of medical papers.

Official layout (hub data set RadGenome/PMC-VQA, which is plain files)::

    train.csv, test.csv, test_clean.csv     version 1; pictures from images.zip
    train_2.csv, test_2.csv                 version 2; pictures from images_2.zip
    images/PMC1064097_F1.jpg                also found in figures/, images_2/ or the folder itself

Columns: ``Figure_path, Question, Choice A`` to ``Choice D`` ("A:Diffuse uptake pattern", often with a
space before it), ``Answer`` (the option's text in version 1, its letter in version 2; some files
spell it ``Anwser``) and, in version 1, ``Answer_label``. There is no question id; the number of the
row, from 0, is used. A loaded Hugging Face data set with these columns and pictures in ``image`` is
read too.

MMNeuron evaluates on a "val" that is not among the public files; ``test`` stands in for it. Its code
reads the same file twice before it shuffles, which is not copied: its order is not ours.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mmlens.data.media.pictures import Picture
from mmlens.datasets.folders import check_columns, checked_folder, first_file, medium_file, read_csv
from mmlens.datasets.prompts import multiple_choice
from mmlens.datasets.rows import Benchmark, Row, Rows, pandas_order
from mmlens.datasets.tables import loaded_table
from mmlens.errors import SampleError
from mmlens.metrics.text import normalised

log = logging.getLogger(__name__)

_LETTERS = "ABCD"
_CHOICES = tuple(f"Choice {letter}" for letter in _LETTERS)
_ANSWERS = ("Answer_label", "Answer", "Anwser")
_FOLDERS = ("images", "figures", "images_2", ".")


def rows(source: Any, split: str) -> Rows:
    """The questions of a split whose answer is one of their options; others are counted and logged.

    Args:
        source: a folder, or a Hugging Face data set.
        split: the name of a csv file.

    Raises:
        SampleError: a file or column is missing, or no question has its answer among its options.
    """
    data, where, pictures_of = _data(source, split)
    check_columns(data.columns, ("Figure_path", "Question", *_CHOICES), where)
    choices = [
        tuple(_text(str(one), letter) for one, letter in zip(row, _LETTERS, strict=True))
        for row in data[list(_CHOICES)].itertuples(index=False)
    ]
    letters = _letters(data, choices, where)
    numbers = list(letters)

    def build(i: int) -> Row:
        number, letter = numbers[i], letters[numbers[i]]
        return Row(
            question=str(data["Question"].iloc[number]).strip(),
            images=pictures_of(number),
            answers=(letter, choices[number][_LETTERS.index(letter)]),
            choices=choices[number],
            fields={
                "source": str(data["Figure_path"].iloc[number]),
                "question_id": str(number),
                "letter": letter,
            },
        )

    figures = [str(data["Figure_path"].iloc[number]) for number in numbers]
    return Rows([str(number) for number in numbers], figures, build)


def _data(
    source: Any, split: str
) -> tuple[pd.DataFrame, str, Callable[[int], tuple[Picture, ...]]]:
    """The rows without their pictures, where they are, and how to get the pictures of one."""
    if not isinstance(source, str | Path):
        table = loaded_table(source, (split,))
        check_columns(table.names, ["image"], table.where)
        wanted = [n for n in ("Figure_path", "Question", *_CHOICES, *_ANSWERS) if n in table.names]
        data = pd.DataFrame({n: table.column(n) for n in wanted})
        return data, table.where, lambda number: table.media("image", number)
    folder = checked_folder(source, "PMC-VQA")
    file = first_file(folder, [f"{split}.csv"], f"PMC-VQA, {split}")
    # "None" and "N/A" are options here, not holes.
    data = read_csv(file, keep_default_na=False)

    def pictures_of(number: int) -> tuple[Picture, ...]:
        name = str(data["Figure_path"].iloc[number])
        return (medium_file(folder, [f"{place}/{name}" for place in _FOLDERS]),)

    return data, str(file), pictures_of


def _letters(data: pd.DataFrame, choices: Sequence[tuple[str, ...]], where: str) -> dict[int, str]:
    """Row -> the letter of its right option; rows without one are counted and logged.

    Raises:
        SampleError: no row has one.
    """
    named = [name for name in _ANSWERS if name in data.columns]
    if not named:
        check_columns(data.columns, ["Answer"], where)
    given = list(data[named].astype(str).itertuples(index=False, name=None))
    letters = [_letter(one, options) for one, options in zip(given, choices, strict=True)]
    found = {row: letter for row, letter in enumerate(letters) if letter is not None}
    if len(found) == len(letters):
        return found
    first = letters.index(None)
    said = (
        f"row {first} has the answer {', '.join(map(repr, given[first]))} and the options "
        f"{', '.join(map(repr, choices[first]))}"
    )
    if not found:
        raise SampleError(
            f"{where} has no question whose answer is one of its options: {said}; answers must "
            "be a letter from A to D, or the text of an option."
        )
    log.warning(
        "%d of %d questions of %s are left out, their answer is none of their options: %s.",
        len(letters) - len(found),
        len(letters),
        where,
        said,
    )
    return found


def _text(choice: str, letter: str) -> str:
    """An option without its letter."""
    return re.sub(rf"^\s*{letter}\s*[:.)]\s*", "", choice).strip()


def _letter(given: tuple[str, ...], choices: tuple[str, ...]) -> str | None:
    """The letter of the right option: as it stands in one of the columns, or found by its text."""
    for one in given:
        if one.strip() in tuple(_LETTERS):
            return one.strip()
    for one in given:
        same = [
            letter
            for letter, choice in zip(_LETTERS, choices, strict=True)
            if normalised(choice) and normalised(_text(one, letter)) == normalised(choice)
        ]
        if len(same) == 1:
            return same[0]
    return None


BENCHMARK = Benchmark(
    name="pmcvqa",
    title="PMC-VQA",
    domain="med",
    splits=("train", "test", "test_clean", "train_2", "test_2"),
    paper_splits=("train", "test"),
    metric="option_letter",
    paper_metric="option_letter",
    rows=rows,
    text=lambda row, prompt: multiple_choice(row.question, row.choices, prompt),
    paper_order=pandas_order(42),
    one_per_picture=True,
    paper="MMNeuron",
)
