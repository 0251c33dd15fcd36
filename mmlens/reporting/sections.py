"""Further sections of a report: figures with captions, tables, links; what an analysis hands over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd
import plotly.graph_objects as go


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


@dataclass(frozen=True, eq=False)
class Table:
    """A table of a section: its title, and a frame whose columns are named as they are to be read."""

    title: str
    frame: pd.DataFrame


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
    parts: Sequence[Figure | Table] = ()
    links: Mapping[str, str] = field(default_factory=dict)
