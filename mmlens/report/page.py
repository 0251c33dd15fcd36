"""The page that every experiment's report is: sections of parts, in one HTML file on its own.

An experiment hands over a :class:`Page`; :mod:`mmlens.report` is MMNeuron's. The sections that any
run ends with, its data, its stages and its manifest, are made here.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from mmlens.plots.frames import SAMPLE_COLUMNS, STAGE_COLUMNS, checked_rows
from mmlens.report.html import picture, table, text, unbroken
from mmlens.report.sections import (
    Answer,
    Cell,
    Example,
    Examples,
    Figure,
    Links,
    Packaged,
    Part,
    Section,
    Shown,
    Table,
    Text,
    Verdicts,
)
from mmlens.storage.assets import asset
from mmlens.storage.atomic import write_text

BADGES: dict[Answer, str] = {
    "yes": "Yes",
    "no": "No",
    "opposite": "No: the control costs more",
    "unknown": "Not known",
}
# Nothing that sends a figure anywhere.
CONFIG = {
    "responsive": True,
    "displaylogo": False,
    "modeBarButtons": [["toImage", "zoom2d", "resetScale2d"]],
}


@dataclass(frozen=True, eq=False)
class Page:
    """A report.

    Attributes:
        title: of the page.
        subtitle: a sentence or two below it.
        sections: in their order; the contents list them.
    """

    title: str
    subtitle: str
    sections: Sequence[Section]


def render(page: Page) -> str:
    """The page as HTML that needs nothing beside it: plotly.js, figures and pictures are inside.

    Same page, same HTML. Texts are shown as they are: none of them is read as markup.

    Raises:
        ValueError: two figures of one name, or a picture that is neither PNG nor JPEG.
    """
    names = Counter(p.name for s in page.sections for p in s.parts if isinstance(p, Figure))
    if twice := [name for name, number in names.items() if number > 1]:
        raise ValueError(
            f"The page has more than one figure named {twice[0]!r}: names must be unique."
        )
    body = "\n".join(
        f'<section id="part-{number}">\n<h2>{text(section.title)}</h2>\n{section_html(section)}\n'
        "</section>"
        for number, section in enumerate(page.sections)
    )
    contents = "".join(
        f'<li><a href="#part-{number}">{text(section.title)}</a></li>'
        for number, section in enumerate(page.sections)
    )
    return Template(asset("mmlens.report", "report.html")).substitute(
        title=text(page.title),
        css=asset("mmlens.report", "report.css") + asset("mmlens.report", "prompt.css"),
        plotly=f"<script>{get_plotlyjs()}</script>",
        subtitle=text(page.subtitle),
        contents=contents,
        sections=body,
    )


def write(page: Page, path: str | os.PathLike[str]) -> Path:
    """Render to ``path``, in one step: a reader sees the old page or the new one, never a half."""
    target = Path(path)
    write_text(target, render(page))
    return target


def section_html(section: Section) -> str:
    """The text of a section, its parts, its links."""
    first = [Text(section.text)] if section.text else []
    last = [Links(section.links)] if section.links else []
    return "\n".join(part_html(part) for part in (*first, *section.parts, *last))


def part_html(part: Part) -> str:
    """One part of a section as HTML."""
    if isinstance(part, Text):
        kind = f' class="{part.kind}"' if part.kind else ""
        return f"<p{kind}>{unbroken(text(part.text))}</p>"
    if isinstance(part, Packaged):
        words = {name: text(value) for name, value in part.words.items()}
        return Template(asset("mmlens.report", part.name)).substitute(words)
    if isinstance(part, Figure):
        return _figure(part)
    if isinstance(part, Table):
        head = [] if part.kind == "pairs" else [str(name) for name in part.frame.columns]
        title = f"<h3>{text(part.title)}</h3>\n" if part.title else ""
        return title + table(head, part.frame.to_numpy().tolist(), part.kind)
    if isinstance(part, Verdicts):
        return _verdicts(part)
    if isinstance(part, Examples):
        return "\n".join(('<div class="examples">', *map(_example, part.items), "</div>"))
    if isinstance(part, Links):
        pages = part.pages.items()
        return "\n".join(
            f'<p><a href="{text(path)}">{text(words)}</a></p>' for words, path in pages
        )
    return part.html()


def _figure(part: Figure) -> str:
    """A figure whose title stands in the page's own type, where a narrow window can wrap it."""
    look: Any = part.figure.layout
    title, subtitle = look.title.text, look.title.subtitle.text
    above = look.margin.t or look.template.layout.margin.t
    bare = go.Figure(part.figure).update_layout(title=None, margin={"t": above - 65})
    plot = bare.to_html(
        full_html=False, include_plotlyjs=False, div_id=f"figure-{part.name}", config=CONFIG
    )
    caption = Template(
        json.loads(asset("mmlens.report", "captions.json"))[part.caption]
    ).substitute(part.words)
    return (
        f'<figure>\n<h3>{title}</h3>\n<p class="note">{subtitle}</p>\n<div class="plot">{plot}'
        f'</div>\n<figcaption class="swipe">{text(caption)}</figcaption>\n</figure>'
    )


def _verdicts(part: Verdicts) -> str:
    items = "\n".join(
        f'<li class="{one.answer}"><div><span class="domain">{text(one.name)}</span>'
        f'<span class="answer">{BADGES[one.answer]}</span></div>'
        f"<div>{unbroken(text(one.sentence))}</div></li>"
        for one in part.items
    )
    return f'<ul class="verdicts">\n{items}\n</ul>'


def _example(one: Example) -> str:
    changed = [answer != one.before for answer in one.after.values()]
    said = "changed" if any(changed) else "unchanged"
    if len(changed) > 1 and any(changed):
        said += f" in {sum(changed)} of {len(changed)}"
    shown = "".join(map(_shown, one.pictures))
    if len(one.pictures) > 1:
        shown = f'<div class="strip">{shown}</div>'
    after = "".join(
        f"<dt>{text(name)}</dt><dd{_marked(differs and len(changed) > 1)}>{text(answer)}</dd>"
        for (name, answer), differs in zip(one.after.items(), changed, strict=True)
    )
    label = f"{text(one.label)}, {said}" if one.label else said
    return (
        f'<div class="example">{shown}<div class="domain">{label}</div>'
        f'<div class="question">{text(one.question)}</div><dl>'
        f"<dt>true</dt><dd>{text(one.true)}</dd><dt>before</dt><dd>{text(one.before)}</dd>"
        f"{after}</dl></div>"
    )


def _shown(one: Shown) -> str:
    image = picture(one.content, one.words)
    caption = f"<span>{text(one.caption)}</span>"
    return f'<div class="shown">{image}{caption}</div>' if one.caption else image


def _marked(changed: bool) -> str:
    return ' class="changed"' if changed else ""


# What any run ends with


def data_section(samples: pd.DataFrame | None) -> Section:
    """How many samples of each domain and split were used and left out.

    Args:
        samples: columns :data:`mmlens.plots.frames.SAMPLE_COLUMNS`, and ``reason`` (why samples were left out) where
            that is known; None: not counted, and the section says so.

    Raises:
        ValueError: a column is missing, or there is no row.
    """
    if samples is None:
        return Section("Data", "", [Text("No counts of samples were given.", "missing")])
    rows = checked_rows(samples, SAMPLE_COLUMNS, "samples")
    skipped = sum(int(row["n_skipped"]) for row in rows)
    reasons = "reason" in samples.columns
    lines = [
        [
            row["domain"],
            Cell(row["split"], "text"),
            f"{int(row['n_questions']):,}",
            f"{int(row['n_skipped']):,}",
            *([Cell(row["reason"] if row["n_skipped"] else "", "text")] if reasons else []),
        ]
        for row in rows
    ]
    head = ["domain", "split", "questions", "skipped", *(["reason"] if reasons else [])]
    said = (
        "No sample was skipped."
        if not skipped
        else f"{skipped:,} samples were skipped"
        + ("." if reasons else "; the reasons were not recorded.")
    )
    return Section("Data", said, [Table("", pd.DataFrame(lines, columns=head))])


def stage_section(stages: pd.DataFrame | None) -> Section:
    """What each stage of the run took; columns :data:`mmlens.plots.frames.STAGE_COLUMNS`. Errors as for the data."""
    title = "Time and memory"
    if stages is None:
        return Section(title, "", [Text("Time and memory were not measured.", "missing")])
    forms = dict(zip(STAGE_COLUMNS[1:], (",.1f", ",.0f", ",.0f", ",.0f"), strict=True))
    lines = [
        [row["stage"], *(_number(row[key], form) for key, form in forms.items())]
        for row in checked_rows(stages, STAGE_COLUMNS, "stages")
    ]
    head = ["stage", "seconds", "tokens", "tokens/s", "peak memory (MB)"]
    return Section(title, "", [Table("", pd.DataFrame(lines, columns=head))])


def manifest_section(manifest: Mapping[str, Any]) -> Section:
    """The settings and versions of the run, nested ones under dotted names."""
    title = "Settings and versions"
    if not manifest:
        said = "No manifest was given: this page cannot say how to repeat the run."
        return Section(title, "", [Text(said, "missing")])
    frame = pd.DataFrame(_flat(manifest), columns=["name", "value"])
    return Section(title, "", [Table("", frame, kind="pairs")])


def _number(value: Any, form: str) -> str:
    return "n/a" if value is None or math.isnan(value) else format(value, form)


def _flat(values: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    """Nested settings as dotted names and text."""
    lines = []
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            lines += _flat(value, f"{before}{key}.")
        elif isinstance(value, (list, tuple, dict, bool, float)) or value is None:
            lines.append((f"{before}{key}", json.dumps(value, default=str, ensure_ascii=False)))
        else:
            lines.append((f"{before}{key}", str(value)))
    return lines
