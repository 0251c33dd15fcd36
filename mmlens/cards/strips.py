"""What a neuron does along a sample's sound or video: the strips of neuron cards."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mmlens.cards.strip_svg import SHAPE, Sound, Strip
from mmlens.data.identity import media_identity
from mmlens.data.media.sounds import Audio, open_audio
from mmlens.data.media.videos import Video, open_video
from mmlens.data.samples import Sample
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.model.places import model_spectrogram
from mmlens.tokens.places import KINDS, Places

#: Pixels of a strip's picture, and frames of a video that are shown.
_WIDEST, _HIGH, _FRAMES = 448, 64, 8


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
        timed = [KINDS.index("video"), KINDS.index("audio")]
        inside = kind in timed
        if not inside:
            present = [one for one in timed if bool((places.kind == one).any())]
            if not present:
                return None
            kind, medium = present[0], 0
        own = (places.kind == kind) & (places.medium == medium)
        marked = position if inside else None
        if KINDS[kind] == "audio":
            return self._of_sound(sample.audios[medium], places, values, own, marked)
        return self._of_video(sample.videos[medium], places, values, own, marked)

    def _of_sound(
        self,
        audio: Audio,
        places: Places,
        values: Float[Tensor, " pos"],
        own: Tensor,
        position: int | None,
    ) -> Strip:
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

    def _of_video(
        self,
        video: Video,
        places: Places,
        values: Float[Tensor, " pos"],
        own: Tensor,
        position: int | None,
    ) -> Strip:
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
