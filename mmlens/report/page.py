"""The page that every experiment's report is: sections of parts, in one HTML file on its own."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from plotly.offline import get_plotlyjs

from mmlens.report.html import text
from mmlens.report.parts import section_html
from mmlens.report.sections import Figure, Section
from mmlens.storage.assets import asset
from mmlens.storage.atomic import write_text


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
    contents, body = [], []
    for number, section in enumerate(page.sections):
        title = text(section.title)
        contents.append(f'<li><a href="#part-{number}">{title}</a></li>')
        body.append(
            f'<section id="part-{number}">\n<h2>{title}</h2>\n{section_html(section)}\n</section>'
        )
    return Template(asset("mmlens.report", "report.html")).substitute(
        title=text(page.title),
        css=asset("mmlens.report", "report.css") + asset("mmlens.report", "prompt.css"),
        plotly=f"<script>{get_plotlyjs()}</script>",
        subtitle=text(page.subtitle),
        contents="".join(contents),
        sections="\n".join(body),
    )


def write(page: Page, path: str | os.PathLike[str]) -> Path:
    """Render to ``path``, in one step: a reader sees the old page or the new one, never a half."""
    target = Path(path)
    write_text(target, render(page))
    return target
