"""Neuron cards as one HTML page that needs nothing beside it; nothing here needs a model."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from string import Template

from jaxtyping import Int
from PIL import Image
from torch import Tensor

from mmlens.cards.strip_svg import Sound, Strip, drawn_strip, encoded, extremes, shaded_tokens
from mmlens.data.media.thumbnails import TINY, data_uri, shrunk
from mmlens.statistics.top_activations import bin_edges
from mmlens.storage.assets import asset
from mmlens.tokens.places import Box

#: (longest side of a picture, of a crop) in pixels, tried in turn until the page is small enough.
SIDES = ((224, 96), (160, 72), (112, 56), (72, 40))
#: Samples per second that sounds are given at most, at each of these steps.
RATES = (16000, 12000, 8000, 8000)
#: Width and height in pixels that a picture, and a crop, has on the page.
_ROOM = {False: (104, 88), True: (80, 88)}


@dataclass(frozen=True)
class Entry:
    """One of the largest activations of a neuron, and where it occurred.

    Attributes:
        value: the activation.
        sample, question, answers: the sample.
        place: what the position is, in words.
        picture: name of the picture that the position lies in or belongs to; None without one.
        box: what is marked in it, in fractions of it.
        crop: name of the enlarged part, and the box within that; None where all of it is meant.
        words: the text before the position, the token itself, the text behind it; None elsewhere.
        strip: the neuron's activation along the sample's sound or video; None without one.
        tokens: beside a strip, the text of the prompt, the neuron's activation on each token, and
            whether the entry is about it; None outside the language module.
    """

    value: float
    sample: str
    question: str
    answers: tuple[str, ...]
    place: str
    picture: str | None = None
    box: Box | None = None
    crop: tuple[str, Box] | None = None
    words: tuple[str, str, str] | None = None
    strip: Strip | None = None
    tokens: tuple[tuple[str, float, bool], ...] | None = None


@dataclass(frozen=True, eq=False)
class Card:
    """What is known of one neuron.

    Attributes:
        module, layer, index: the neuron.
        labels: the sets it is in.
        probabilities: per key, the share of positions on which it is active.
        histogram: per key, positions per bin of :func:`mmlens.statistics.top_activations.bin_edges`.
        entries: key -> its largest activations, the largest first.
        promoted, suppressed: tokens with the change of their logit, the strongest first; None for
            neurons whose output is not read as tokens.
    """

    module: str
    layer: int
    index: int
    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    histogram: Int[Tensor, "key bin"]
    entries: Mapping[str, tuple[Entry, ...]]
    promoted: tuple[tuple[str, float], ...] | None = None
    suppressed: tuple[tuple[str, float], ...] | None = None


@dataclass(frozen=True, eq=False)
class CardPage:
    """A page of cards.

    Attributes:
        title, about: what the page shows, in words; ``about`` may be several paragraphs.
        keys: domains, in the order in which they are shown.
        by: the field that the keys are values of.
        cards: the neurons.
        pictures, crops: name -> picture, already small.
        strips: name -> picture of a medium whose width is its time, already small.
        sounds: name -> sound.
    """

    title: str
    about: tuple[str, ...]
    keys: tuple[str, ...]
    by: str
    cards: tuple[Card, ...]
    pictures: Mapping[str, Image.Image]
    crops: Mapping[str, Image.Image]
    strips: Mapping[str, Image.Image] = field(default_factory=dict)
    sounds: Mapping[str, Sound] = field(default_factory=dict)


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
        title=_text(page.title),
        css=asset("mmlens.cards", "cards.css"),
        about="\n".join(f"<p>{_text(one)}</p>" for one in page.about),
        layers=_options((str(n), f"layer {n}") for n in layers),
        labels=_options((one, one) for one in labels),
        count=len(page.cards),
        symbols=symbols,
        sounds=sounds,
        cards="\n".join(_card(page, card) for card in page.cards),
    )


def _options(pairs: Iterable[tuple[str, str]]) -> str:
    return "".join(f'<option value="{_text(a)}">{_text(b)}</option>' for a, b in pairs)


def _text(value: object) -> str:
    return html.escape(str(value))


# Pictures


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
        f'aria-label="{_text(alt)}"><use href="#{"c" if crop else "p"}{number}"/>{marks}</svg>'
    )


# Cards


def _card(page: CardPage, card: Card) -> str:
    own = [key for key in page.keys if key in card.labels]
    others = [key for key in page.keys if key not in own]
    name = f"{card.module}, layer {card.layer}, neuron {card.index}"
    chips = "".join(f'<span class="chip">{_text(one)}</span>' for one in card.labels)
    scale = _scale(card)
    blocks = [_examples(page, card, key, scale) for key in (own or others)]
    rest = [_examples(page, card, key, scale) for key in others] if own else []
    more = ""
    if rest:
        more = (
            f"<details><summary>Largest activations elsewhere: {_text(', '.join(others))}</summary>"
            f"{''.join(rest)}</details>"
        )
    return (
        f'<article class="card" id="n{card.layer}-{card.index}" data-layer="{card.layer}" '
        f'data-index="{card.index}" data-labels="{_text(json.dumps(card.labels))}">'
        f'<h2>{_text(name)} {chips}</h2><div class="columns"><div class="facts">'
        f"{_spread(page, card)}{_tokens(card)}</div>"
        f'<div class="examples">{"".join(blocks)}{more}</div></div></article>'
    )


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


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
        return f'<h3>{_text(key)}</h3><p class="soft">No position of this {_text(page.by)}.</p>'
    wide = ' class="wide"' if any(one.strip is not None for one in entries) else ""
    listed = "".join(_entry(page, one, scale) for one in entries)
    return f"<h3>{_text(key)}</h3><ol{wide}>{listed}</ol>"


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
        before, token, after = (_text(one) for one in entry.words)
        words = f'<p class="words">{before}<mark>{token}</mark>{after}</p>'
    answers = f"answer: {' / '.join(entry.answers)}" if entry.answers else "no answer given"
    return (
        f'<li><p class="value">{_digits(entry.value)} <span class="soft">{_text(entry.place)}</span></p>'
        f'{shown}{words}<p class="asked">{_text(entry.question)}</p>'
        f'<p class="soft">{_text(answers)}</p></li>'
    )


def _tokens(card: Card) -> str:
    if card.promoted is None or card.suppressed is None:
        return ""

    def listed(title: str, tokens: Sequence[tuple[str, float]]) -> str:
        items = "".join(
            f'<li><span class="token">{_text(token)}</span> <span class="soft">{value:+.2f}</span></li>'
            for token, value in tokens
        )
        return f'<div><h3>{title}</h3><ul class="tokens">{items}</ul></div>'

    return (
        f'<div class="promoted">{listed("Promotes", card.promoted)}'
        f"{listed('Suppresses', card.suppressed)}</div>"
    )


# Spread of activations

_WIDE, _HIGH = 150.0, 26.0


def _spread(page: CardPage, card: Card) -> str:
    """One row per key: its name, how often the neuron is active, and its activations' histogram."""
    first, last = _range(card.histogram)
    edges = bin_edges().tolist()
    total = card.histogram.sum(-1, keepdim=True).clamp(min=1)
    shares = (card.histogram / total)[:, first : last + 1]
    peak = max(float(shares.max()), 1e-9)
    rows = []
    for key, probability, share in zip(page.keys, card.probabilities, shares.tolist(), strict=True):
        own = " own" if key in card.labels else ""
        said = "none" if math.isnan(probability) else f"{100 * probability:.1f}%"
        width = 0.0 if math.isnan(probability) else 100 * probability
        rows.append(
            f'<div class="key{own}">{_text(key)}</div>'
            f'<div class="bar"><i style="width:{width:.1f}%"></i><b>{said}</b></div>'
            f"{_bars(share, peak, first, edges)}"
        )
    return (
        '<h3>Activation</h3><div class="spread"><div class="head">' + _text(page.by) + "</div>"
        '<div class="head">active on</div><div class="head">distribution</div>'
        + "".join(rows)
        + f"<div></div><div></div>{_axis(first, last, edges)}</div>"
    )


def _range(histogram: Int[Tensor, "key bin"]) -> tuple[int, int]:
    """First and last bin that any key uses; never none, and always both sides of zero."""
    used = histogram.sum(0).nonzero()[:, 0].tolist()
    zero = len(bin_edges()) // 2
    return min([*used, zero]), max([*used, zero + 1])


def _bars(shares: Sequence[float], peak: float, first: int, edges: Sequence[float]) -> str:
    step = _WIDE / len(shares)
    zero = (edges.index(0.0) + 1 - first) * step
    parts = []
    for number, share in enumerate(shares):
        if share > 0:
            high = max(_HIGH * share / peak, 0.6)
            kind = "on" if number * step >= zero - 1e-6 else "off"
            parts.append(
                f'<rect class="{kind}" x="{number * step:.2f}" y="{_HIGH - high:.2f}" '
                f'width="{step:.2f}" height="{high:.2f}"/>'
            )
    line = f'<line x1="{zero:.2f}" x2="{zero:.2f}" y1="0" y2="{_HIGH}"/>'
    return (
        f'<svg class="histogram" viewBox="0 0 {_WIDE:g} {_HIGH:g}" preserveAspectRatio="none">'
        f"{''.join(parts)}{line}</svg>"
    )


def _axis(first: int, last: int, edges: Sequence[float]) -> str:
    """Zero and the outermost edges, in numbers."""
    number = last - first + 1
    zero = edges.index(0.0) + 1 - first
    ticks = [(zero, "0")]
    low, high = first, last - 1
    if low < edges.index(0.0):
        ticks.append((low + 1 - first, _number(edges[low])))
    if high > edges.index(0.0):
        ticks.append((high + 1 - first, _number(edges[high])))
    marks = "".join(
        f'<span style="left:{100 * place / number:.1f}%">{label}</span>' for place, label in ticks
    )
    return f'<div class="axis">{marks}</div>'
