"""What a neuron does along a sample's sound or video: the strips of neuron cards."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from mmlens.cards.strip_svg import SHAPE, Sound, Strip
from mmlens.data.identity import media_identity
from mmlens.data.media.decoding import open_audio, open_video
from mmlens.data.samples import Sample
from mmlens.hook_names import LANGUAGE
from mmlens.model.batch import Batch
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.model.places import model_spectrogram, tower_rows
from mmlens.neurons import NeuronSet
from mmlens.tokens.places import KINDS, Places

#: Pixels of a strip's picture, and frames of a video that are shown.
_WIDEST, _HIGH, _FRAMES = 448, 64, 8


def token_text(tokenizer: Any, token: int) -> str:
    """A token as a reader sees it; a blank in front of a word as an open box."""
    text = tokenizer.decode([token])
    raw = tokenizer.convert_ids_to_tokens(token)
    blank = isinstance(raw, str) and raw[:1] in ("\u0120", "\u2581") and not text.startswith(" ")
    text = text or str(raw)
    return (" " + text if blank else text).replace(" ", "\u2423").replace("\n", "\u21b5")


@torch.no_grad()
def activations_of(
    model: HookedMLLM, batch: Batch, neurons: NeuronSet
) -> dict[tuple[int, int], Float[Tensor, " pos"]]:
    """What some neurons of a module do on every position of one sample.

    The activation is that of :class:`mmlens.statistics.top_activations.TopActivations`, and so is the order of
    the positions: those of the prompt without padding, or the sample's real ones in a tower.

    Args:
        model: a hooked model.
        batch: of one sample.
        neurons: of one module.
    """
    module = neurons.module
    seen: dict[int, list[Tensor]] = defaultdict(list)

    def keeper(layer: int, activation: Callable[[Tensor], Tensor] | None) -> Any:
        columns = neurons.per_layer()[layer]

        def keep(tensor: Tensor, hook: HookPoint) -> None:  # noqa: ARG001
            flat = tensor.detach().flatten(0, -2).index_select(1, columns.to(tensor.device))
            seen[layer].append((flat if activation is None else activation(flat)).float().cpu())

        return keep

    hooks = []
    for layer in neurons.per_layer():
        activation = model.activation(module, layer)
        point = model.module(module).hook(layer, "post" if activation is None else "pre")
        hooks.append((point, keeper(layer, activation)))
    with model.hooks(fwd_hooks=hooks):
        model.forward(batch.to(model.device), logits_to_keep=1)
    if module == LANGUAGE:
        rows = [torch.where(batch.groups.attention.flatten().cpu(), 0, -1)]
    else:
        rows = tower_rows(model, batch, module)
    found = {}
    for layer, columns in neurons.per_layer().items():
        real = [flat[row == 0] for flat, row in zip(seen[layer], rows, strict=True)]
        values = torch.cat(real)
        found |= {(layer, int(n)): values[:, i] for i, n in enumerate(columns)}
    return found


@dataclass
class StripMaker:
    """Makes strips, and keeps the pictures and sounds that they name."""

    model: HookedMLLM
    pictures: dict[str, Image.Image] = field(default_factory=dict)
    sounds: dict[str, Sound] = field(default_factory=dict)
    frames: dict[str, int] = field(default_factory=dict)

    def strip(
        self, sample: Sample, places: Places, values: Float[Tensor, " pos"], position: int
    ) -> Strip | None:
        """The strip of the medium that a position lies in, else of the sample's first.

        None where positions of the module lie in no sound and no video of it.
        """
        kind, medium = int(places.kind[position]), int(places.medium[position])
        along = [KINDS.index("video"), KINDS.index("audio")]
        inside = kind in along
        if not inside:
            present = [one for one in along if bool((places.kind == one).any())]
            if not present:
                return None
            kind, medium = present[0], 0
        own = (places.kind == kind) & (places.medium == medium)
        if KINDS[kind] == "audio":
            return self._heard(sample, medium, places, values, own, position if inside else None)
        return self._seen(sample, medium, places, values, own, position if inside else None)

    def _heard(
        self,
        sample: Sample,
        medium: int,
        places: Places,
        values: Float[Tensor, " pos"],
        own: Tensor,
        position: int | None,
    ) -> Strip:
        audio = sample.audios[medium]
        name = media_identity(Sample("", "", audios=(audio,)))
        if name not in self.pictures:
            spectrum = model_spectrogram(self.model, audio)
            rate = self.model.adapter.sampling_rate(self.model.processor)
            self.sounds[name] = (open_audio(audio, rate), rate)
            wide = min(_WIDEST, max(1, round(spectrum.seconds / spectrum.hop)))
            self.pictures[name] = spectrum.image(wide, _HIGH)
        wave, rate = self.sounds[name]
        spans = (own & places.are("span")).nonzero()[:, 0].tolist()
        curve = [(*places.seconds[p].tolist(), float(values[p])) for p in spans]
        mark = None if position not in spans else tuple(places.seconds[position].tolist())
        return Strip(name, "s", len(wave) / rate, tuple(curve), mark, name)

    def _seen(
        self,
        sample: Sample,
        medium: int,
        places: Places,
        values: Float[Tensor, " pos"],
        own: Tensor,
        position: int | None,
    ) -> Strip:
        video = sample.videos[medium]
        name = media_identity(Sample("", "", videos=(video,)))
        if name not in self.pictures:
            frames = open_video(video).frames
            self.pictures[name], self.frames[name] = contact_sheet(frames), len(frames)
        largest: dict[tuple[int, int], float] = {}
        for p in own.nonzero()[:, 0].tolist():
            first, end = places.frames[p].tolist()
            largest[first, end] = max(largest.get((first, end), -np.inf), float(values[p]))
        curve = tuple((float(a), float(b), value) for (a, b), value in sorted(largest.items()))
        mark = None
        if position is not None:
            first, end = places.frames[position].tolist()
            mark = (float(first), float(end))
        return Strip(name, "frames", float(self.frames[name]), curve, mark)


def contact_sheet(frames: np.ndarray) -> Image.Image:
    """Frames of a video side by side, each in the middle of the part of the video that it stands for.

    The sheet has the shape of a strip's picture (:data:`mmlens.cards.strip_svg.SHAPE`).

    Args:
        frames: UInt8[frame, height, width, 3]; of many, some at even distances are shown.
    """
    number = min(len(frames), _FRAMES)
    room = _HIGH * SHAPE / number
    sheet = Image.new("RGB", (round(room * number), _HIGH), "white")
    for i in range(number):
        frame = Image.fromarray(frames[int((i + 0.5) * len(frames) / number)])
        scale = min((room - 2) / frame.width, _HIGH / frame.height)
        width, height = (max(1, round(scale * n)) for n in frame.size)
        left, top = round(room * (i + 0.5) - width / 2), (_HIGH - height) // 2
        sheet.paste(frame.resize((width, height)), (left, top))
    return sheet


def spaced_texts(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """The text of each token, with the blank before it that the tokenizer writes between the two."""
    alone = [token_text(tokenizer, one).replace("\u2423", " ") for one in ids]
    texts = alone[:1]
    for i in range(1, len(ids)):
        pair = tokenizer.decode([ids[i - 1], ids[i]])
        blank = " " in pair.strip() and pair.endswith(" " + alone[i])
        texts.append(" " + alone[i] if blank else alone[i])
    return texts


def prompt_tokens(
    tokenizer: Any,
    ids: Sequence[int],
    values: Float[Tensor, " pos"],
    position: int,
    placeholders: Mapping[int, str],
    around: int = 40,
) -> tuple[tuple[str, float, bool], ...]:
    """The text of a prompt with a neuron's activation on each token.

    Args:
        tokenizer: whose tokens they are.
        ids: of the prompt's tokens.
        values: of the neuron.
        position: the token that is marked.
        placeholders: id of a medium's placeholder -> the one word that all of them become, without a
            value.
        around: tokens of text kept on either side of the marked one.
    """
    found: list[tuple[str, float, bool]] = []
    marked = 0
    for i, (text, token) in enumerate(zip(spaced_texts(tokenizer, ids), ids, strict=True)):
        if i == position:
            marked = len(found)
        if token not in placeholders:
            found.append((text, float(values[i]), i == position))
        elif not found or found[-1][0] != placeholders[token]:
            found.append((placeholders[token], float("nan"), False))
    return tuple(found[max(0, marked - around) : marked + around + 1])
