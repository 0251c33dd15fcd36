"""Idefics3 and SmolVLM: SigLIP tower, pixel shuffle, tiles with their places, Llama decoder.

A picture (arXiv 2408.12637, 2504.05299) is cut into a grid of tiles, each announced by its place
(``<row_1_col_2>``), followed by the whole picture, shrunk to a tile. Neighbouring patches are
stacked (pixel shuffle), and the connector, one Linear, gives one feature for each stack. SmolVLM shows
a video as its frames, each one a tile with its time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers.models.idefics3.image_processing_pil_idefics3 import (
    get_resize_output_image_size,
)

from mmlens.adapter import Media, MediaSizes, Towers
from mmlens.hook_names import LANGUAGE
from mmlens.tokens.places import WHOLE, Box, tiles
from mmlens_adapters.base import (
    AS_DECODED,
    image_settings,
    picture_rows,
    plain_tower,
    video_metadata,
)
from mmlens_adapters.expansion import expanded, tokenized
from mmlens_adapters.squares import Pixels, SquareAdapter

#: Frames per second of a video that does not say; SmolVLM's processor assumes the same.
_FRAME_RATE = 24.0


class Idefics3Adapter(SquareAdapter):
    """``Idefics3ForConditionalGeneration``; a medium is one tile."""

    model_types = ("idefics3",)

    def towers(self) -> Towers:
        """The tower's MLPs, whose end is read; the connector has no non-linearity."""
        return Towers(
            {"vision": plain_tower(self.hf.model.vision_model.encoder.layers)},
            {"projector": "the connector is a single Linear, without a non-linearity"},
        )

    def squares(self, pixels: Pixels) -> int:
        """Tiles that are not padding."""
        return int(_real(pixels).sum())

    def positions(self, pixels: Pixels, module: str) -> int:
        """The patches of a tile; a feature stands for a square of them."""
        return self.patches(pixels) // self._stack(module) ** 2

    def grid(self, module: str) -> tuple[int, int, int]:
        """The patches of a tile; a feature stands for a square of them."""
        rows, columns = self.patch_grid()
        return rows // self._stack(module), columns // self._stack(module), 0

    def tiles(self, processor: Any, size: tuple[int, int]) -> Sequence[tuple[int, Box]]:
        """The grid's tiles, then the whole picture."""
        rows, columns = _grid(processor, size)
        return [*enumerate(tiles(rows, columns) if rows else [], start=1), (0, WHOLE)]

    def tower_rows(
        self, module: str, inputs: Mapping[str, Any], media_rows: Mapping[str, Sequence[int]]
    ) -> list[Int[Tensor, ...]]:
        """The patches of each tile; -1 at patches of padding. Padding tiles never reach the tower."""
        assert module == "vision"
        pixels = inputs["pixel_values"]
        rows = torch.tensor(media_rows["image"], device=pixels.device)
        patch = self.hf.config.vision_config.patch_size
        shown = inputs.get("pixel_attention_mask")
        if shown is None:
            shown = torch.ones_like(pixels[:, :, 0], dtype=torch.long)
        # As the model has it: a patch is real if any pixel of it is.
        patches = shown[_real(pixels)].unfold(1, patch, patch).unfold(2, patch, patch)
        seen = (patches.sum((-1, -2)) > 0).flatten(1)
        return [torch.where(seen, rows[:, None], -1)]

    def arguments(self, processor: Any, media: Media) -> dict[str, Any]:
        """Pictures row by row."""
        return picture_rows(media)

    def media_tokens(self, processor: Any, sizes: MediaSizes) -> int | None:
        """See :meth:`Adapter.media_tokens`; what stands around the placeholders is left out."""
        grids = [_grid(processor, size) for size in sizes.images]
        tiles = sum(rows * columns + 1 for rows, columns in grids)
        return processor.image_seq_len * (tiles + sum(frames for frames, _, _ in sizes.videos))

    def prompt_tokens(self, processor: Any, prompt: str, sizes: MediaSizes) -> int | None:
        """See :meth:`Adapter.prompt_tokens`."""
        grids = [_grid(processor, size) for size in sizes.images]
        shape = {"rows": [[rows for rows, _ in grids]], "cols": [[columns for _, columns in grids]]}
        texts = [processor.replace_image_token(shape, number) for number in range(len(grids))]
        (written,), _ = expanded([prompt], {"image": processor.image_token}, {"image": texts})
        return len(processor.tokenizer(written)["input_ids"])

    def _stack(self, module: str) -> int:
        """Patches along a side of what a position of a module stands for."""
        return self.hf.config.scale_factor if module == LANGUAGE else 1


class SmolVLMAdapter(Idefics3Adapter):
    """``SmolVLMForConditionalGeneration``.

    Every frame of a video is given to the model. The model knows no difference between a frame and a
    tile of a picture: both stand at the same placeholder, so the token group of both is ``image``.
    """

    model_types = ("smolvlm",)
    modalities = ("image", "video")

    def process(
        self, processor: Any, prompts: Sequence[str], media: Media, side: str
    ) -> dict[str, Any]:
        """See :meth:`Adapter.process`.

        The processor's own call loses the pictures where there are videos too, and pads short videos
        with frames that it masks for the model; with videos the media are processed one by one here.
        """
        if not media.flat("video"):
            return super().process(processor, prompts, media, side)
        tiles: dict[str, list[tuple[Tensor, Tensor]]] = {"image": [], "video": []}
        texts: dict[str, list[str]] = {"image": [], "video": []}
        settings = {**image_settings(processor), "return_tensors": "pt"}
        for picture in media.flat("image"):
            done = processor.image_processor([[picture]], **settings)
            tiles["image"].append((done["pixel_values"][0], done["pixel_attention_mask"][0]))
            texts["image"].append(processor.replace_image_token(done, 0))
        for video in media.flat("video"):
            done = processor.video_processor(
                [video.frames],
                **AS_DECODED,
                video_metadata=[video_metadata(video, _FRAME_RATE)],
                return_metadata=True,
                return_tensors="pt",
            )
            tiles["video"].append((done["pixel_values"][0], done["pixel_attention_mask"][0]))
            texts["video"].append(processor.replace_video_token(done, 0))
        inputs, orders = tokenized(processor, prompts, texts, side)
        shown = [[tiles[kind][number] for kind, number in order] for order in orders]
        inputs["pixel_values"] = _stacked([[pixels for pixels, _ in row] for row in shown])
        inputs["pixel_attention_mask"] = _stacked([[mask for _, mask in row] for row in shown])
        return inputs

    def prompt_tokens(self, processor: Any, prompt: str, sizes: MediaSizes) -> int | None:
        """See :meth:`Adapter.prompt_tokens`; a video's prompt has the times of its frames."""
        return None if sizes.videos else super().prompt_tokens(processor, prompt, sizes)


def _real(pixels: Tensor) -> Bool[Tensor, "row tile"]:
    """The tiles that the model looks at: it takes those that are zero throughout for padding."""
    return (pixels != 0).flatten(2).any(-1)


def _stacked(rows: Sequence[Sequence[Tensor]]) -> Tensor:
    """Tiles [row, tile, ...] of rows that have several media each, padded with zeros."""
    some = next(one for row in rows for one in row)
    joined = [torch.cat([some[:0], *row]) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(joined, batch_first=True)


def _grid(processor: Any, size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of tiles that a picture is cut into; none where it is one tile.

    The image processor's own count, ``get_number_of_image_patches``, is not that of its cutting
    where the longer side is no whole number of tiles before it is made one.
    """
    images = processor.image_processor
    settings = image_settings(processor)
    if not settings.get("do_image_splitting", images.do_image_splitting):
        return 0, 0
    tile = (settings.get("max_image_size") or images.max_image_size)["longest_edge"]
    height, width = size
    if settings.get("do_resize", images.do_resize):
        target = settings.get("size") or images.size
        if target["longest_edge"]:
            nothing = np.broadcast_to(np.zeros(1), size)
            height, width = get_resize_output_image_size(nothing, target["longest_edge"])
        else:
            height, width = target["height"], target["width"]
    # The longer side becomes a whole number of tiles; the shorter follows it, then does as well.
    aspect = width / height
    if width >= height:
        width = math.ceil(width / tile) * tile
        height = math.ceil(int(width / aspect) / tile) * tile
    else:
        height = math.ceil(height / tile) * tile
        width = math.ceil(int(height * aspect) / tile) * tile
    if height <= tile and width <= tile:
        return 0, 0
    return height // tile, width // tile
