"""The HTML that every page of a report is made of: escaped text, tables, pictures inside the page."""

from __future__ import annotations

import base64
import html
import math
import re
from collections.abc import Sequence

from mmlens.report.sections import Cell

#: First bytes of the pictures that a page can hold -> their kind.
_KINDS = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg"}


def text(value: object) -> str:
    """Text as HTML that shows it as it is."""
    return html.escape(str(value))


def unbroken(escaped: str) -> str:
    """Keep an interval on one line."""
    return re.sub(r"\[([^][, ]+), ([^][, ]+)\]", "[\\1,&nbsp;\\2]", escaped)


def table(head: Sequence[str], rows: Sequence[Sequence[object]], kind: str = "") -> str:
    """A table that scrolls on its own; without ``head`` it has none."""
    first = rows[0] if rows else [""] * len(head)
    top = "".join(
        f'<th scope="col"{_aligned(cell)}>{text(name)}</th>'
        for name, cell in zip(head, first, strict=False)
    )
    thead = f"<thead><tr>{top}</tr></thead>" if head else ""
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f'<div class="scroll"><table class="{kind}">{thead}<tbody>{body}</tbody></table></div>'


def _aligned(below: object) -> str:
    """A column of texts has its name where they start."""
    return ' class="text"' if isinstance(below, Cell) and below.kind == "text" else ""


def _cell(value: object) -> str:
    """Numbers as they are read: at most three digits behind the point."""
    if isinstance(value, Cell):
        return f'<td class="{value.kind}">{text(value.value)}</td>'
    if isinstance(value, float):
        value = "" if math.isnan(value) else f"{value:.3f}".rstrip("0").rstrip(".")
    return f"<td>{text(value)}</td>"


def picture(content: object, alt: str) -> str:
    """An inline picture.

    Raises:
        ValueError: the bytes are neither PNG nor JPEG.
    """
    for magic, kind in _KINDS.items():
        if isinstance(content, bytes) and content.startswith(magic):
            data = base64.b64encode(content).decode("ascii")
            return f'<img src="data:image/{kind};base64,{data}" alt="{text(alt)}">'
    raise ValueError(
        f"The image of the example {alt!r} is {type(content).__name__}: PNG or JPEG bytes, or "
        "None, are needed."
    )
