"""The lens's readings with their figures: what :func:`mmlens.logit_lens` returns."""

from __future__ import annotations

from typing import Any

from PIL import Image

from mmlens.adapter import KINDS
from mmlens.data.media.pictures import open_picture
from mmlens.data.media.videos import open_video
from mmlens.data.samples import Sample
from mmlens.errors import SampleError
from mmlens.lens.figures.picture import lens_on_picture
from mmlens.lens.figures.sound import lens_on_sound
from mmlens.lens.figures.table import lens_table
from mmlens.lens.figures.video import lens_on_video
from mmlens.lens.readings import Readings
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.model.places import model_spectrogram, places_of


class LensResult(Readings):
    """The readings of a batch, which draw themselves; their data are those of :class:`Readings`."""

    def plot(self, row: int = 0, **options: Any) -> Any:
        """The lens of one row as a figure; see :func:`mmlens.lens.figures.table.lens_table`."""
        return lens_table(self, row, **options)

    def plot_picture(
        self,
        model: HookedMLLM,
        row: int = 0,
        *,
        kind: str | None = None,
        medium: int = 0,
        **options: Any,
    ) -> Any:
        """The lens of one row drawn over its picture, video or sound, with a slider for the layer (MM-8).

        Args:
            model: the model that the result is of; it knows where tokens lie.
            row: the sample.
            kind: ``image``, ``video`` or ``audio``; default: the first of these that the row has.
            medium: which of the row's media of that kind.
            options: see :func:`mmlens.lens.figures.picture.lens_on_picture`,
                :func:`mmlens.lens.figures.video.lens_on_video` and
                :func:`mmlens.lens.figures.sound.lens_on_sound`.

        Raises:
            SampleError: the batch was not made from samples, or the row has no such medium.
            UnsupportedModelError: the model's adapter knows no places.
            ValueError: the lens has read no token of the medium.
        """
        places = places_of(model, self.batch, row)
        assert self.batch.samples is not None  # places_of has asked for them
        sample = self.batch.samples[row]
        kind = kind or _first_kind(sample)
        if kind not in KINDS:
            raise SampleError(f"There is no kind of media {kind!r}; there are {', '.join(KINDS)}.")
        media = getattr(sample, f"{kind}s")
        if not 0 <= medium < len(media):
            noun = {"image": "pictures", "video": "videos", "audio": "sounds"}[kind]
            raise SampleError(
                f"Sample {sample.id!r} has {len(media)} {noun}; number {medium} was asked for."
            )
        given, options = media[medium], {"medium": medium, **options}
        if kind == "image":
            return lens_on_picture(self, row, places, open_picture(given), **options)
        if kind == "video":
            video = open_video(given)
            frames = [Image.fromarray(frame) for frame in video.frames]
            return lens_on_video(self, row, places, frames, fps=video.fps, **options)
        return lens_on_sound(self, row, places, model_spectrogram(model, given), **options)


def _first_kind(sample: Sample) -> str:
    for kind in KINDS:
        if getattr(sample, f"{kind}s"):
            return kind
    raise SampleError(
        f"Sample {sample.id!r} has no picture, video or sound that the lens could be drawn over; use "
        "plot()."
    )
