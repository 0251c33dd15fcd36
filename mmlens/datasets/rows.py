"""What all benchmarks share: questions by number, made only when chosen, and how some are chosen."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd

from mmlens.data.media.pictures import Picture
from mmlens.data.media.sounds import Audio
from mmlens.data.media.videos import Video
from mmlens.datasets.prompts import Prompt
from mmlens.errors import SampleError

#: MMNeuron's evaluation stops after the question with this number, from 0.
PAPER_LIMIT = 1001


@dataclass(frozen=True)
class Row:
    """One question as its data set has it, before a prompt is made of it.

    Attributes:
        question: as it stands in the files; where they have none, the plainest one that asks for
            what is there.
        answers: accepted answers, repetitions kept.
        images, videos, audios: its media.
        choices: texts of the options, without letters.
        examples: questions with their answers, as text, that its prompt may open with.
        fields: official ids and what metrics need; ``source`` names the scene, page, picture, video,
            speaker or subject that questions share.
    """

    question: str
    answers: tuple[str, ...]
    images: tuple[Picture, ...] = ()
    videos: tuple[Video, ...] = ()
    audios: tuple[Audio, ...] = ()
    choices: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rows:
    """The questions of a split, of which only the chosen ones are made.

    Attributes:
        ids: official id of each question, unique.
        media: a name of each question's picture, video or sound; questions that share one have the
            same name, questions without any have their ids.
        build: makes the question of a number.
    """

    ids: Sequence[str]
    media: Sequence[str]
    build: Callable[[int], Row]

    def __len__(self) -> int:
        """Questions of the split."""
        return len(self.ids)


def check_answered(answers: Sequence[Any], labelled: bool, where: str) -> None:
    """Refuse a question without answers where they are published.

    Raises:
        SampleError: it has none.
    """
    if labelled and not answers:
        raise SampleError(f"{where} has no answers.")


def file_order(n: int) -> list[int]:
    """The order of the files: no shuffle is described for MINER's code (methods 3.6)."""
    return list(range(n))


@dataclass(frozen=True)
class Benchmark:
    """What a data set is, and how it is read.

    Attributes:
        name: its key in :data:`mmlens.datasets.DATASETS`.
        title: its usual name.
        domain: MMNeuron's code for its domain; for MINER's, which has none, the name.
        paper_splits: the ones to find neurons on, and to ask. MMNeuron's own; where its files are
            not public, the nearest that are. MINER finds its neurons on the questions that it asks;
            here the second is what it asks, the first another split, so that no question is both.
        metric: the official one.
        paper_metric: what the paper's code computes.
        rows: (source, split, options) to its questions; the source is a folder or, where one
            exists, a Hugging Face data set. It raises a SampleError where a file, column or value
            is missing.
        text: question and prompt form to the text that the model is asked.
        splits: official names.
        unlabelled: those of them whose answers are not published.
        paper_order: the order in which the paper's code takes n questions.
        one_per_picture: whether that code asks one question of each picture.
        paper: MMNeuron or MINER.
        modalities: the kinds of media that its questions have.
        sizes: published number of questions of the splits where it is known to us.
        options: what else ``rows`` takes, with the allowed values, the default first.
        functions: what else ``rows`` takes that is a function.
    """

    name: str
    title: str
    domain: str
    paper_splits: tuple[str, str]
    metric: str
    paper_metric: str
    rows: Callable[..., Rows]
    text: Callable[[Row, Prompt], str]
    splits: tuple[str, ...] = ("train", "val", "test")
    unlabelled: tuple[str, ...] = ()
    paper_order: Callable[[int], list[int]] = file_order
    one_per_picture: bool = False
    paper: Literal["MMNeuron", "MINER"] = "MINER"
    modalities: tuple[str, ...] = ("image",)
    sizes: Mapping[str, int] = field(default_factory=dict)
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    functions: tuple[str, ...] = ()

    @property
    def paper_limit(self) -> int | None:
        """How many questions the paper's code asks at most; None is all."""
        return PAPER_LIMIT if self.paper == "MMNeuron" else None


def python_order(seed: int) -> Callable[[int], list[int]]:
    """The order that Python's own shuffle gives to n things."""

    def order(n: int) -> list[int]:
        numbers = list(range(n))
        random.Random(seed).shuffle(numbers)
        return numbers

    return order


def pandas_order(seed: int) -> Callable[[int], list[int]]:
    """The order that a shuffled table of pandas has."""
    return lambda n: pd.Series(range(n)).sample(frac=1, random_state=seed).tolist()


def datasets_order(seed: int) -> Callable[[int], list[int]]:
    """The order that a shuffled Hugging Face data set has."""
    return lambda n: np.random.default_rng(seed).permutation(n).tolist()


def chosen(
    rows: Rows,
    benchmark: Benchmark,
    *,
    subset: str,
    limit: int | None,
    seed: int,
    one_per_picture: bool,
) -> list[int]:
    """Numbers of the chosen questions.

    Args:
        rows: a split.
        benchmark: whose order and limit the subset ``paper`` takes.
        subset: ``seed``: ``limit`` questions drawn over their sorted ids, so that the order of the
            file does not matter and a smaller draw is part of a larger one; handed back in the
            file's order. ``paper``: the first ``limit`` of the paper code's order, in that order.
        limit: questions at most; None is all, or those that the paper's code asks.
        seed: of the draw.
        one_per_picture: keep the first question of each picture only.

    Raises:
        SampleError: the limit is not positive, or there is no such subset.
    """
    if limit is not None and limit < 1:
        raise SampleError(f"The limit {limit} was given; give a positive number, or None for all.")
    if subset == "paper":
        order = benchmark.paper_order(len(rows))
        limit = limit or benchmark.paper_limit
    elif subset == "seed":
        by_id = sorted(range(len(rows)), key=lambda i: rows.ids[i])
        order = np.random.default_rng(seed).permutation(by_id).tolist()
    else:
        raise SampleError(f"There is no subset {subset!r}; there are seed and paper.")
    if one_per_picture:
        first = {rows.media[i]: i for i in reversed(order)}
        order = [i for i in order if first[rows.media[i]] == i]
    order = order[:limit]
    return order if subset == "paper" else sorted(order)
