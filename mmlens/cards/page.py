"""Neuron cards as one HTML page that needs nothing beside it; nothing here needs a model."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from string import Template

from PIL import Image

from mmlens.cards.card import Card, CardPage, Entry
from mmlens.cards.spread import spread
from mmlens.cards.strip_svg import drawn_strip, encoded, extremes, shaded_tokens
from mmlens.data.media.thumbnails import TINY, data_uri, shrunk
from mmlens.report.html import text
from mmlens.storage.assets import asset
from mmlens.tokens.places import Box

#: (longest side of a picture, of a crop) in pixels, tried in turn until the page is small enough.
SIDES = ((224, 96), (160, 72), (112, 56), (72, 40))
#: Samples per second that sounds are given at most, at each of these steps.
RATES = (16000, 12000, 8000, 8000)
#: Width and height in pixels that a picture, and a crop, has on the page.
_ROOM = {False: (104, 88), True: (80, 88)}


def render(page: CardPage, max_bytes: int = 20_000_000) -> str:
    """The page as HTML, its pictures and sounds inside it, each once.

    Pictures are made smaller and sounds duller, in the steps of :data:`SIDES` and :data:`RATES`, until
    those of the page are below ``max_bytes``; the last step is kept whatever it weighs.
    """
    symbols, sounds = "", "[]"
    for sides, rate in zip(SIDES, RATES, strict=True):
        symbols = _symbols(page, sides)
        sounds = json.dumps([encoded(one, rate) for one in page.sounds.values()])
        if len(symbols) + len(sounds) <= max_bytes:
            break
    layers = sorted({card.layer for card in page.cards})
    labels = list(dict.fromkeys(label for card in page.cards for label in card.labels))
    return Template(asset("mmlens.cards", "cards.html")).substitute(
        title=text(page.title),
        css=asset("mmlens.cards", "cards.css"),
        about="\n".join(f"<p>{text(one)}</p>" for one in page.about),
        layers=_options((str(n), f"layer {n}") for n in layers),
        labels=_options((one, one) for one in labels),
        count=len(page.cards),
        symbols=symbols,
        sounds=sounds,
        cards="\n".join(_card(page, card) for card in page.cards),
    )


def _options(pairs: Iterable[tuple[str, str]]) -> str:
    return "".join(f'<option value="{text(a)}">{text(b)}</option>' for a, b in pairs)


def _symbols(page: CardPage, sides: tuple[int, int]) -> str:
    parts = []
    # A strip is wide and low.
    kinds = [("p", page.pictures, sides[0]), ("c", page.crops, sides[1])]
    for prefix, images, side in [*kinds, ("t", page.strips, 2 * sides[0])]:
        for number, image in enumerate(images.values()):
            uri = data_uri(shrunk(image, side))
            # The size is that of drawing alone: 100 high, as wide as the picture's shape wants; a
            # strip fills whatever width it is given.
            wide = 100.0 if prefix == "t" else _wide(image)
            parts.append(
                f'<image id="{prefix}{number}" width="{wide:.2f}" height="100" '
                f'preserveAspectRatio="none" href="{uri}"/>'
            )
    return "\n".join(parts)


def _wide(image: Image.Image) -> float:
    return 100 * image.width / image.height


def _drawn(page: CardPage, crop: bool, name: str, box: Box | None, alt: str) -> str:
    """One picture by reference, a box marked in it, white within black to be seen on any ground."""
    images = page.crops if crop else page.pictures
    image, number = images[name], list(images).index(name)
    wide = _wide(image)
    # Small pictures are shown pixel by pixel.
    kind = "pic" + (" crop" if crop else "") + (" tiny" if max(image.size) <= TINY else "")
    marks = ""
    if box is not None:
        x, y, right, bottom = box[0] * wide, box[1] * 100, box[2] * wide, box[3] * 100
        shape = f'x="{x:.2f}" y="{y:.2f}" width="{right - x:.2f}" height="{bottom - y:.2f}"'
        marks = f'<rect class="outer" {shape}/><rect class="inner" {shape}/>'
    room = _ROOM[crop]
    scale = min(room[0] / wide, room[1] / 100)
    size = f"width:{max(8, scale * wide):.0f}px;height:{max(8, scale * 100):.0f}px"
    return (
        f'<svg class="{kind}" viewBox="0 0 {wide:.2f} 100" style="{size}" role="img" '
        f'aria-label="{text(alt)}"><use href="#{"c" if crop else "p"}{number}"/>{marks}</svg>'
    )


def _card(page: CardPage, card: Card) -> str:
    own = [key for key in page.keys if key in card.labels]
    others = [key for key in page.keys if key not in own]
    name = f"{card.module}, layer {card.layer}, neuron {card.index}"
    chips = "".join(f'<span class="chip">{text(one)}</span>' for one in card.labels)
    scale = _scale(card)
    blocks = [_examples(page, card, key, scale) for key in (own or others)]
    rest = [_examples(page, card, key, scale) for key in others] if own else []
    more = ""
    if rest:
        more = (
            f"<details><summary>Largest activations elsewhere: {text(', '.join(others))}</summary>"
            f"{''.join(rest)}</details>"
        )
    return (
        f'<article class="card" id="n{card.layer}-{card.index}" data-layer="{card.layer}" '
        f'data-index="{card.index}" data-labels="{text(json.dumps(card.labels))}">'
        f'<h2>{text(name)} {chips}</h2><div class="columns"><div class="facts">'
        f"{spread(page, card)}{_tokens(card)}</div>"
        f'<div class="examples">{"".join(blocks)}{more}</div></div></article>'
    )


def _digits(value: float) -> str:
    """Three digits, zeros at the end too."""
    return f"{value:#.3g}".rstrip(".") if abs(value) < 1000 else f"{value:,.0f}"


def _scale(card: Card) -> tuple[float, float]:
    """Smallest and largest activation that the card's strips and texts show."""
    entries = [one for listed in card.entries.values() for one in listed]
    values = [v for one in entries for _, v, _ in one.tokens or () if not math.isnan(v)]
    return extremes([one.strip for one in entries if one.strip is not None], values)


def _examples(page: CardPage, card: Card, key: str, scale: tuple[float, float]) -> str:
    entries = card.entries.get(key, ())
    if not entries:
        return f'<h3>{text(key)}</h3><p class="soft">No position of this {text(page.by)}.</p>'
    wide = ' class="wide"' if any(one.strip is not None for one in entries) else ""
    listed = "".join(_entry(page, one, scale) for one in entries)
    return f"<h3>{text(key)}</h3><ol{wide}>{listed}</ol>"


def _entry(page: CardPage, entry: Entry, scale: tuple[float, float]) -> str:
    shown = ""
    if entry.picture is not None:
        alt = f"picture of {entry.sample}, {entry.place}"
        shown = _drawn(page, False, entry.picture, entry.box, alt)
        if entry.crop is not None:
            shown += _drawn(page, True, entry.crop[0], entry.crop[1], f"enlarged: {entry.place}")
        shown = f'<div class="pictures">{shown}</div>'
    if (strip := entry.strip) is not None:
        image, symbol = page.strips[strip.picture], list(page.strips).index(strip.picture)
        sounds = {name: number for number, name in enumerate(page.sounds)}
        shown += drawn_strip(strip, f"t{symbol}", scale, sounds, max(image.size) <= TINY)
    words = ""
    if entry.tokens is not None:
        words = shaded_tokens(entry.tokens, scale[1])
    elif entry.words is not None:
        before, token, after = (text(one) for one in entry.words)
        words = f'<p class="words">{before}<mark>{token}</mark>{after}</p>'
    answers = f"answer: {' / '.join(entry.answers)}" if entry.answers else "no answer given"
    return (
        f'<li><p class="value">{_digits(entry.value)} <span class="soft">{text(entry.place)}</span></p>'
        f'{shown}{words}<p class="asked">{text(entry.question)}</p>'
        f'<p class="soft">{text(answers)}</p></li>'
    )


def _tokens(card: Card) -> str:
    if card.promoted is None or card.suppressed is None:
        return ""

    def listed(title: str, tokens: Sequence[tuple[str, float]]) -> str:
        items = "".join(
            f'<li><span class="token">{text(token)}</span> <span class="soft">{value:+.2f}</span></li>'
            for token, value in tokens
        )
        return f'<div><h3>{title}</h3><ul class="tokens">{items}</ul></div>'

    return (
        f'<div class="promoted">{listed("Promotes", card.promoted)}'
        f"{listed('Suppresses', card.suppressed)}</div>"
    )
