"""What a card shows of one activation: where it is in its medium, or in which words it stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, cast

from PIL import Image
from torch import Tensor

from mmlens.cards.card import Entry
from mmlens.cards.page import SIDES
from mmlens.cards.strips import StripMaker
from mmlens.data.identity import media_identity
from mmlens.data.media.pictures import open_picture
from mmlens.data.media.thumbnails import shrunk
from mmlens.data.media.videos import open_video
from mmlens.data.samples import Sample
from mmlens.errors import SampleError, UnsupportedModelError
from mmlens.hook_names import LANGUAGE
from mmlens.model.batch import Batch
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.model.places import places_of
from mmlens.neurons import NeuronSet
from mmlens.statistics.top_activations import TopActivations
from mmlens.streaming.activations import activations_of
from mmlens.streaming.batching import Template
from mmlens.tokens.places import KINDS, ROLES, Box, Places
from mmlens.tokens.text import prompt_tokens, token_text

#: Tokens shown before and after one that is marked.
_AROUND = 14


class EntryMaker:
    """Turns places of activations into pictures and words, each sample prepared once and alone."""

    def __init__(self, model: HookedMLLM, module: str, template: Template) -> None:
        self.model, self.module = model, module
        self.template: Template = template
        self.pictures: dict[str, Image.Image] = {}
        self.crops: dict[str, Image.Image] = {}
        self.strips = StripMaker(model)

    def entries(
        self, found: TopActivations, samples: Mapping[str, Sample]
    ) -> dict[tuple[int, int], list[Entry]]:
        """(neuron, key) -> entries, the largest first."""
        where: dict[int, list[tuple[int, int, int]]] = {}
        for spot in (found.samples >= 0).nonzero().tolist():
            where.setdefault(int(found.samples[tuple(spot)]), []).append(tuple(spot))
        ready: dict[tuple[int, int, int], Entry] = {}
        for sample, spots in where.items():
            one = samples.get(found.ids[sample])
            if one is None:
                raise SampleError(
                    f"The sample {found.ids[sample]!r} of the top activations is not among the samples "
                    "given; give those they were found on."
                )
            batch = self.model.prepare(one, template=self.template)
            places = self._places(batch)
            opened: dict[tuple[int, int, int], tuple[str, Image.Image]] = {}
            along = self._along(found, one, batch, spots) if places is not None else {}
            for spot in spots:
                position, value = int(found.positions[spot]), float(found.values[spot])
                entry = self._entry(one, batch, places, position, value, opened)
                values = along.get(tuple(found.neurons[spot[0]].tolist()))
                if places is not None and values is not None:
                    entry = self._with_strip(entry, one, batch, places, position, values)
                ready[spot] = entry
        n, keys, k = found.values.shape
        return {
            (i, j): [ready[i, j, r] for r in range(k) if (i, j, r) in ready]
            for i in range(n)
            for j in range(keys)
        }

    def _along(
        self,
        found: TopActivations,
        sample: Sample,
        batch: Batch,
        spots: Sequence[tuple[int, int, int]],
    ) -> dict[tuple[int, int], Tensor]:
        """The activations of the neurons that a sample is shown for; only where it has time."""
        if not (sample.audios or sample.videos):
            return {}
        rows = sorted({spot[0] for spot in spots})
        neurons = NeuronSet(found.neurons[rows], found.module, found.shape)
        return activations_of(self.model, batch, neurons)

    def _with_strip(
        self,
        entry: Entry,
        sample: Sample,
        batch: Batch,
        places: Places,
        position: int,
        values: Tensor,
    ) -> Entry:
        """The entry with the neuron's activation along the sample's sound or video, and its text."""
        strip = self.strips.strip(sample, places, values, position)
        if strip is None:
            return entry
        tokens = None
        if self.module == LANGUAGE:
            ids, tokenizer = batch.input_ids[0].tolist(), self.model.tokenizer
            named = {t: f" [{k}]" for k, t in self.model.adapter.placeholders().items()}
            tokens = prompt_tokens(tokenizer, ids, values, position, named)
        return replace(entry, strip=strip, tokens=tokens)

    def _places(self, batch: Batch) -> Places | None:
        try:
            return places_of(self.model, batch, 0, self.module)
        except UnsupportedModelError:  # an adapter that knows no places
            return Places.nowhere(batch.shape[1]) if self.module == LANGUAGE else None

    def _entry(
        self,
        sample: Sample,
        batch: Batch,
        places: Places | None,
        position: int,
        value: float,
        opened: dict[tuple[int, int, int], tuple[str, Image.Image]],
    ) -> Entry:
        role = "none" if places is None else ROLES[int(places.role[position])]
        words, picture, box, crop = None, None, None, None
        said = f"position {position} of {self.module}"
        if places is not None and int(places.kind[position]) == KINDS.index("audio"):
            said = _said_of_sound(places, position, len(sample.audios))
        elif places is not None and role != "none":
            kind, medium = int(places.kind[position]), int(places.medium[position])
            first, end = places.frames[position].tolist()
            at = (kind, medium, first)
            if at not in opened:
                opened[at] = self._opened(sample, *at)
            picture, image = opened[at]
            said = _said(places, position, len(sample.images), len(sample.videos))
            if role in ("patch", "newline"):
                box = cast(Box, tuple(places.boxes[position].tolist()))
                if role == "patch":
                    crop = self._crop(picture, image, box)
            elif role == "class" and int(places.tile[position]) > 0:
                box = cast(Box, tuple(places.boxes[position].clamp(0, 1).tolist()))
        else:
            listed = self._token_ids(batch)
            if listed is not None:
                said, words = self._read(*listed, position)
            if sample.images:
                picture, _ = self._opened(sample, 0, 0, 0)
        return Entry(
            value=value,
            sample=sample.id,
            question=sample.text,
            answers=sample.answers,
            place=said,
            picture=picture,
            box=box,
            crop=crop,
            words=words,
        )

    def _read(
        self, tokenizer: Any, ids: list[int], position: int
    ) -> tuple[str, tuple[str, str, str] | None]:
        """What a position of the prompt is, and its words; a placeholder has none."""
        kinds = self.model.adapter.placeholders() if self.module == LANGUAGE else {}
        for kind, token in kinds.items():
            if ids[position] == token:
                number = ids[: position + 1].count(token)
                return f"{kind} token {number} of {ids.count(token)}", None
        named = {token: f"[{kind}]" for kind, token in kinds.items()}
        return "text", words_around(tokenizer, ids, position, named)

    def _token_ids(self, batch: Batch) -> tuple[Any, list[int]] | None:
        """The tokenizer and ids that the module's positions are, where they are tokens."""
        if self.module == LANGUAGE:
            return self.model.tokenizer, batch.input_ids[0].tolist()
        return self.model.adapter.tower_tokens(self.module, self.model.processor, batch.inputs)

    def _opened(
        self, sample: Sample, kind: int, medium: int, frame: int
    ) -> tuple[str, Image.Image]:
        """A picture, or a frame of a video, as it was given, and the name that it is shown under."""
        if KINDS[kind] == "image":
            image = open_picture(sample.images[medium])
        else:
            image = Image.fromarray(open_video(sample.videos[medium]).frames[frame])
        name = media_identity(Sample("", "", (image,)))
        self.pictures.setdefault(name, shrunk(image, SIDES[0][0]))
        return name, image

    def _crop(self, name: str, image: Image.Image, box: Box) -> tuple[str, Box]:
        """The part around a box, half as much again on each side, and the box within it."""
        across, down = (box[2] - box[0]) / 2, (box[3] - box[1]) / 2
        wide, tall = image.size
        left = int(max(0, box[0] - across) * wide)
        top = int(max(0, box[1] - down) * tall)
        right = max(left + 1, round(min(1, box[2] + across) * wide))
        bottom = max(top + 1, round(min(1, box[3] + down) * tall))
        part = image.crop((left, top, right, bottom))
        label = f"{name}:{left},{top},{right},{bottom}"
        self.crops.setdefault(label, shrunk(part, SIDES[0][1]))
        x, y = right - left, bottom - top
        inside = (
            (box[0] * wide - left) / x,
            (box[1] * tall - top) / y,
            (box[2] * wide - left) / x,
            (box[3] * tall - top) / y,
        )
        return label, inside


def _said(places: Places, position: int, pictures: int, videos: int) -> str:
    """What a position in a medium is, in a few words."""
    role, tile = ROLES[int(places.role[position])], int(places.tile[position])
    number = int(places.medium[position]) + 1
    if int(places.kind[position]) == KINDS.index("video"):
        first, end = places.frames[position].tolist()
        picture = f"frame {end}" if end == first + 1 else f"frames {first + 1} to {end}"
        picture += f" of video {number}" if videos > 1 else ""
    else:
        picture = f"picture {number}" if pictures > 1 else "whole picture"
    tiled = f"tile {tile}" if picture == "whole picture" else f"{picture}, tile {tile}"
    part = tiled if tile else picture
    return {
        "patch": f"patch, {part}",
        "newline": f"newline behind a row of patches, {part}",
        "class": f"class token, {part}",
        "query": f"query {position}, reads the {picture}",
        "padding": f"padding, {part}: beyond the picture",
    }[role]


def _said_of_sound(places: Places, position: int, sounds: int) -> str:
    """The stretch of a sound that a position reads, in a few words."""
    sound = f"sound {int(places.medium[position]) + 1}" if sounds > 1 else "the sound"
    if places.are("padding")[position]:
        return f"silence behind {sound}"
    start, end = places.seconds[position].tolist()
    return f"{start:.2f} to {end:.2f} s of {sound}"


def words_around(
    tokenizer: Any, ids: Sequence[int], position: int, placeholders: Mapping[int, str]
) -> tuple[str, str, str]:
    """The text before a token, the token, and the text after it; placeholders of a medium as one word."""
    before, after = ids[:position], ids[position + 1 :]
    start, end = before[-_AROUND:], after[:_AROUND]
    token = token_text(tokenizer, ids[position]).replace("\u2423", " ")
    head = _decoded(tokenizer, start, placeholders)
    tail = _decoded(tokenizer, end, placeholders)
    # Tokenizers drop the blank in front of a text, which here stands between two of its parts.
    joined = tokenizer.decode([*start[-1:], ids[position]]) if start else token
    inner = start and start[-1] not in placeholders
    if inner and " " in joined.strip() and not token.startswith(" "):
        head += " "
    if end and end[0] not in placeholders:
        pair = tokenizer.decode([ids[position], end[0]])
        if " " in pair.strip() and not tail.startswith(" "):
            tail = " " + tail
    return (
        ("\u2026" if len(before) > len(start) else "") + head,
        token,
        tail + ("\u2026" if len(after) > len(end) else ""),
    )


def _decoded(tokenizer: Any, ids: Sequence[int], placeholders: Mapping[int, str]) -> str:
    runs = groupby(ids, placeholders.get)
    return " ".join(tokenizer.decode(list(run)) if word is None else word for word, run in runs)
