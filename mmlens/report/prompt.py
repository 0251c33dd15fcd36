"""A prompt with its token groups highlighted: HTML for reports and notebooks, and plain text.

A group has a colour and, for greyscale and for whoever sees colours differently, a line of its own:
dotted below (text), dashed around (special), thick around (image), double around (video), wavy below
(audio). Nothing here needs a model; :func:`mmlens.show_groups` fills it.
"""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

from mmlens.storage.assets import asset
from mmlens.tokens.groups import BASE_GROUPS

BLANK, LINE_END = "\u2423", "\u21b5"
#: Groups whose tokens are read; runs of the others, placeholders of media, are shown as one.
WRITTEN = ("text", "special")
_SIGNS = {" ": BLANK, "\n": LINE_END, "\t": "\u21e5", "\r": "\u240d"}


@dataclass(frozen=True)
class Piece:
    """A token of a prompt, or a run of placeholder tokens.

    Attributes:
        group: the base group that it is in.
        text: of the token, blanks and line ends made visible; of a run, the group's name.
        position: of its first token in the row of the batch.
        count: tokens.
    """

    group: str
    text: str
    position: int
    count: int = 1

    @property
    def said(self) -> str:
        """The text; of a run, with the number of its tokens."""
        return self.text if self.group in WRITTEN else f"{self.text} \u00d7 {self.count:,}"


@dataclass(frozen=True)
class Prompt:
    """A prompt with its token groups highlighted; a part of a report, and shown by notebooks.

    Attributes:
        title: above it; may be empty.
        pieces: its tokens in their order, padding left out.
        template: how many text tokens the chat template wrote; None where that is not known.
    """

    title: str
    pieces: tuple[Piece, ...]
    template: int | None = None

    @property
    def counts(self) -> Mapping[str, int]:
        """Tokens of each base group that occurs, in the order of ``BASE_GROUPS``."""
        found = {name: sum(p.count for p in self.pieces if p.group == name) for name in BASE_GROUPS}
        return {name: number for name, number in found.items() if number}

    def html(self) -> str:
        """The legend and the prompt, to be shown with ``prompt.css``; no text in it is markup."""
        counts = self.counts
        legend = "".join(
            f'<li><span class="t {name}">{name}</span> {self._share(name, number)}</li>'
            for name, number in counts.items()
        )
        title = f"<h3>{html.escape(self.title)}</h3>" if self.title else ""
        return (
            f'<div class="mmlens-prompt">{title}<ul class="legend">{legend}'
            f"<li>together {_tokens(sum(counts.values()))}</li></ul>"
            f'<p class="tokens">{"".join(map(_span, self.pieces))}</p></div>'
        )

    def _share(self, name: str, number: int) -> str:
        if name != "text" or self.template is None:
            return _tokens(number)
        return f"{_tokens(number)}, {self.template:,} of them written by the template"

    def _repr_html_(self) -> str:
        return f"<style>{asset('mmlens.report', 'prompt.css')}</style>{self.html()}"

    def __str__(self) -> str:
        """The counts, then the tokens with a blank between two; all but text in brackets."""
        counts = self.counts
        listed = ", ".join(f"{name} {self._share(name, n)}" for name, n in counts.items())
        parts = [p.said if p.group == "text" else f"[{p.said}]" for p in self.pieces]
        lines = " ".join(parts).replace(f"{LINE_END} ", f"{LINE_END}\n")
        head = f"{self.title}\n" if self.title else ""
        return f"{head}{listed}; together {_tokens(sum(counts.values()))}\n{lines}"


def visible(text: str) -> str:
    """Text in which nothing is unseen: blanks, line ends and control characters have a sign.

    Characters that have no width, or that turn the direction of writing, are written as their code.
    """
    return "".join(map(_sign, text))


def _sign(character: str) -> str:
    if character in _SIGNS:
        return _SIGNS[character]
    # Cf: no width or turns the writing; Z: blanks of other widths; the rest is control or no text.
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp", "Zs"):
        return f"\\u{ord(character):04x}"
    return character


def _tokens(number: int) -> str:
    return f"{number:,} {'token' if number == 1 else 'tokens'}"


def _span(piece: Piece) -> str:
    first, last = piece.position, piece.position + piece.count - 1
    place = f"position {first}" if first == last else f"positions {first} to {last}"
    # The sign of a blank is fainter than letters.
    said = html.escape(piece.said).replace(BLANK, f"<i>{BLANK}</i>")
    end = "<br>" if piece.said.endswith(LINE_END) else ""
    return f'<span class="t {piece.group}" title="{piece.group}, {place}">{said}</span>{end}'
