"""Gemma 3: SigLIP tower, pooled and projected by one matrix, windows and images in both directions.

A picture becomes one square (arXiv 2503.19786); the tower's patches are averaged down to a fixed number
of features, normalised, and multiplied by one matrix. In the decoder five of six layers attend within
a window, and a picture's tokens attend to one another in both directions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmlens.adapter import Media, MediaSizes, Towers
from mmlens.hook_names import LANGUAGE
from mmlens.tokens.places import Places
from mmlens_adapters.base import image_settings, picture_rows, plain_tower
from mmlens_adapters.squares import Pixels, SquareAdapter


class Gemma3Adapter(SquareAdapter):
    """``Gemma3ForConditionalGeneration``.

    Pan and scan, crops of long pictures beside the whole, is off as in the processor's own default;
    where it is switched on in the processor, every crop is a medium of its own.
    """

    model_types = ("gemma3",)

    def towers(self) -> Towers:
        """SigLIP's MLPs, whose end is read; the projector has no non-linearity."""
        return Towers(
            {"vision": plain_tower(self.hf.model.vision_tower.encoder.layers)},
            {"projector": "Gemma 3's projector is one matrix, without a non-linearity"},
        )

    def positions(self, pixels: Pixels, module: str) -> int:
        """The patches; of the features what is left of them after pooling."""
        rows, columns, _ = self.grid(module)
        return rows * columns

    def grid(self, module: str) -> tuple[int, int, int]:
        """The patches; a feature averages a square of them."""
        projector = self.hf.model.multi_modal_projector
        side = projector.patches_per_image
        side //= projector.kernel_size if module == LANGUAGE else 1
        return side, side, 0

    def places(
        self, module: str, processor: Any, inputs: Mapping[str, Any], sizes: Sequence[MediaSizes]
    ) -> list[Places] | None:
        """See :meth:`SquareAdapter.places`; None where pan and scan cuts pictures into crops."""
        if _pan_and_scan(processor):
            return None
        return super().places(module, processor, inputs, sizes)

    def arguments(self, processor: Any, media: Media) -> dict[str, Any]:
        """Pictures row by row."""
        return picture_rows(media)

    def media_tokens(self, processor: Any, sizes: MediaSizes) -> int | None:
        """See :meth:`Adapter.media_tokens`; the same for every picture, but for pan and scan."""
        if sizes.images and _pan_and_scan(processor):
            return None
        return len(sizes.images) * processor.image_seq_length

    def prompt_tokens(self, processor: Any, prompt: str, sizes: MediaSizes) -> int | None:
        """See :meth:`Adapter.prompt_tokens`.

        The processor puts blank lines around a picture, which the tokenizer joins with line breaks
        that stand there already.
        """
        if self.media_tokens(processor, sizes) is None:
            return None
        written = prompt.replace(processor.image_token, processor.full_image_sequence)
        return len(processor.tokenizer(written)["input_ids"])


def _pan_and_scan(processor: Any) -> bool:
    return bool(image_settings(processor).get("do_pan_and_scan"))
