"""A neuron's card as data: its sets, how often it is active, where most, which tokens it promotes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Int
from PIL import Image
from torch import Tensor

from mmlens.cards.strip_svg import Sound, Strip
from mmlens.tokens.places import Box


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
        words: the text before the position, the token itself, the text after it; None elsewhere.
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
