"""The parts of a section as HTML. Texts are shown as they are: none of them is read as markup."""

from __future__ import annotations

import json
from string import Template
from typing import Any

import plotly.graph_objects as go

from mmlens.report.html import picture, table, text, unbroken
from mmlens.report.sections import (
    Answer,
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
