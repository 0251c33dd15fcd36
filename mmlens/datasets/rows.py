"""What all benchmarks share: questions by number, made only when chosen, and how some are chosen."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from mmlens.datasets.prompts import Prompt
from mmlens.errors import SampleError
from mmlens.media import Picture

#: MMNeuron's evaluation stops after the question with this number, from 0.
PAPER_LIMIT = 1001


@dataclass(frozen=True)
class Row:
    """One question as its data set has it, before a prompt is made of it.

    Attributes:
        question: as it stands in the files.
        images: its pictures.
        answers: accepted answers, repetitions kept.
        choices: texts of the options, without letters.
        fields: official ids and what metrics need; ``source`` names the scene, page or picture that
            questions share.
    """

    question: str
    images: tuple[Picture, ...]
    answers: tuple[str, ...]
    choices: tuple[str, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rows:
    """The questions of a split, of which only the chosen ones are made.

    Attributes:
        ids: official id of each question, unique.
        pictures: what each question's picture is called; questions that share one have the same.
        build: makes the question of a number.
    """

    ids: Sequence[str]
    pictures: Sequence[str]
    build: Callable[[int], Row]

    def __len__(self) -> int:
        """Questions of the split."""
        return len(self.ids)


@dataclass(frozen=True)
class Benchmark:
    """What a data set is, and how it is read.

    Attributes:
        name: what :func:`mmlens.datasets.read` calls it.
        title: what people call it.
        domain: MMNeuron's code for its domain.
        splits: official names.
        unlabelled: those of them whose answers are not published.
        paper_splits: the ones MMNeuron finds its neurons on, and evaluates on; where its files are
            not public, the nearest that are.
        metric: the official one.
        paper_metric: what MMNeuron's code computes.
        rows: (source, split, options) to its questions.
        text: question and prompt form to the text that the model is asked.
        paper_order: the order in which MMNeuron's code takes n questions.
        one_per_picture: whether that code asks one question of each picture.
        options: what else ``rows`` takes, with the allowed values, the default first.
    """

    name: str
    title: str
    domain: str
    splits: tuple[str, ...]
    unlabelled: tuple[str, ...]
    paper_splits: tuple[str, str]
    metric: str
    paper_metric: str
    rows: Callable[..., Rows]
    text: Callable[[Row, Prompt], str]
    paper_order: Callable[[int], list[int]]
    one_per_picture: bool
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def python_order(seed: int) -> Callable[[int], list[int]]:
    """The order that Python's own shuffle gives to n things."""

    def order(n: int) -> list[int]:
        numbers = list(range(n))
        random.Random(seed).shuffle(numbers)
        return numbers

    return order


def pandas_order(seed: int) -> Callable[[int], list[int]]:
    """The order that a shuffled table of pandas has."""
    return lambda n: [
        int(i) for i in pd.Series(np.arange(n)).sample(frac=1, random_state=seed).to_numpy()
    ]


def datasets_order(seed: int) -> Callable[[int], list[int]]:
    """The order that a shuffled Hugging Face data set has."""
    return lambda n: [int(i) for i in np.random.default_rng(seed).permutation(n)]


def chosen(
    rows: Rows,
    *,
    subset: str,
    limit: int | None,
    seed: int,
    one_per_picture: bool,
    paper_order: Callable[[int], list[int]],
) -> list[int]:
    """Numbers of the chosen questions.

    Args:
        rows: a split.
        subset: ``seed``: ``limit`` questions drawn over their sorted ids, so that the order of the
            file does not matter and a smaller draw is part of a larger one; handed back in the
            file's order. ``paper``: the first ``limit`` of the paper code's order, in that order.
        limit: questions at most; None is all, or the paper's 1,001.
        seed: of the draw.
        one_per_picture: keep the first question of each picture only.
        paper_order: the paper code's order of n questions.

    Raises:
        SampleError: the limit is not positive, or there is no such subset.
    """
    if limit is not None and limit < 1:
        raise SampleError(f"The limit {limit} was given; give a positive number, or None for all.")
    if subset == "paper":
        order = paper_order(len(rows))
        limit = limit or PAPER_LIMIT
    elif subset == "seed":
        by_id = sorted(range(len(rows)), key=lambda i: rows.ids[i])
        order = [by_id[int(i)] for i in np.random.default_rng(seed).permutation(len(rows))]
    else:
        raise SampleError(f"There is no subset {subset!r}; there are seed and paper.")
    if one_per_picture:
        seen: set[str] = set()
        order = [i for i in order if not (rows.pictures[i] in seen or seen.add(rows.pictures[i]))]
    order = order[:limit]
    return order if subset == "paper" else sorted(order)
