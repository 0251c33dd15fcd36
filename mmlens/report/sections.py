"""Sections of a report and the parts that they are made of; what an analysis hands over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import pandas as pd
import plotly.graph_objects as go

from mmlens.report.prompt import Prompt

#: Does the mask cost more than the control? "opposite": the control costs more; "unknown": there
#: was no control, or no interval.
Answer = Literal["yes", "no", "opposite", "unknown"]


@dataclass(frozen=True)
class Text:
    """A paragraph.

    Attributes:
        text: as it is read; nothing in it is HTML.
        kind: ``lead`` is larger, ``note`` smaller; ``missing`` stands for what was not run.
    """

    text: str
    kind: Literal["", "lead", "note", "missing"] = ""


@dataclass(frozen=True)
class Packaged:
    """Text with HTML that lies beside the reporting code, such as ``method.html``.

    Attributes:
        name: of the file.
        words: what stands for its names; plain text.
    """

    name: str
    words: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Figure:
    """A figure of a section.

    Attributes:
        name: unique in the report; also of the page of its own in the run folder.
        figure: drawn, with title and subtitle.
        caption: the key of its caption in ``captions.json``.
        words: what stands for the caption's names.
    """

    name: str
    figure: go.Figure
    caption: str
    words: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """A cell of a table with a look of its own.

    Attributes:
        value: what it says.
        kind: classes of the style sheet: ``text`` wraps and starts at the left, ``lines`` keeps its
            line ends, ``yes`` and ``opposite`` have the colours of the verdicts.
    """

    value: object
    kind: str


@dataclass(frozen=True, eq=False)
class Table:
    """A table of a section.

    Attributes:
        title: above it; may be empty.
        frame: its columns are named as they are to be read; values may be :class:`Cell`.
        kind: ``pairs`` are names and values, shown without the columns' names.
    """

    title: str
    frame: pd.DataFrame
    kind: Literal["", "pairs"] = ""


@dataclass(frozen=True)
class Badge:
    """One verdict: what is judged, the answer in a word or two, and a sentence that says how much."""

    name: str
    answer: Answer
    sentence: str


@dataclass(frozen=True)
class Verdicts:
    """A list of verdicts."""

    items: Sequence[Badge]


@dataclass(frozen=True)
class Shown:
    """A picture inside the page.

    Attributes:
        content: PNG or JPEG.
        words: what it shows, for whoever does not see it.
        caption: below it; may be empty.
    """

    content: bytes = field(repr=False)
    words: str
    caption: str = ""


@dataclass(frozen=True)
class Example:
    """One question and its answers.

    Attributes:
        question: as it was asked.
        true: the accepted answer.
        before: the answer of the untouched model.
        after: name of what was done -> the answer then, in their order.
        label: what kind of question it is, such as its domain; may be empty.
        pictures: of its media; see :func:`mmlens.report.pictures.pictures_of`.
    """

    question: str
    true: str
    before: str
    after: Mapping[str, str]
    label: str = ""
    pictures: Sequence[Shown] = ()


@dataclass(frozen=True)
class Examples:
    """Answers before and after, as cards."""

    items: Sequence[Example]


@dataclass(frozen=True)
class Links:
    """Words -> the relative path of a page beside the report."""

    pages: Mapping[str, str]


Part = Text | Packaged | Figure | Table | Verdicts | Examples | Prompt | Links


@dataclass(frozen=True, eq=False)
class Section:
    """A part of a report.

    Attributes:
        title: of the section.
        text: what is seen, in a sentence or two.
        parts: in their order.
        links: words -> relative path of a page beside the report.
    """

    title: str
    text: str
    parts: Sequence[Part] = ()
    links: Mapping[str, str] = field(default_factory=dict)
