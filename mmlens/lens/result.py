"""The lens's readings with their figures: what :func:`mmlens.logit_lens` returns."""

from __future__ import annotations

from typing import Any

from mmlens.lens.figures.medium import lens_on_medium
from mmlens.lens.figures.table import lens_table
from mmlens.lens.readings import Readings
from mmlens.model.hooked_mllm import HookedMLLM


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
        return lens_on_medium(self, model, row, kind, medium, **options)
