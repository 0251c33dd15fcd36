"""InternVL (2.5, 3, 3.5): InternViT tower, pixel shuffle, tiles, video (arXiv 2504.10479).

A picture is resized to the grid of tiles whose shape is nearest its own, with a thumbnail after them;
a frame of a video is one tile. The tower sees each tile's patches and a class token. The class token
is left out, 2 x 2 neighbouring patches are stacked (pixel shuffle), and the projector, an MLP after a
LayerNorm, gives one feature for each stack.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.models.got_ocr2.image_processing_got_ocr2 import get_optimal_tiled_canvas

from mmlens.adapter import Media, MediaSizes
from mmlens.tokens.places import WHOLE, Box, tiles
from mmlens_adapters.base import AS_DECODED, image_settings
from mmlens_adapters.expansion import expanded, tokenized
from mmlens_adapters.llava import LlavaAdapter
from mmlens_adapters.squares import Pixels


class InternVLAdapter(LlavaAdapter):
    """``InternVLForConditionalGeneration`` with any decoder.

    Every frame of a video is given to the model, as ``Frame1: <img>...</img>`` and so on. The model
    knows no difference between a frame and a tile of a picture: both stand at the same placeholder,
    so the token group of both is ``image``, and a medium is one tile.
    """

    model_types = ("internvl",)
    modalities = ("image", "video")
    class_tokens = {"internvl_vision": 1}

    def positions(self, pixels: Pixels, module: str) -> int:
        """A tile's patches and class token in the tower, stacks of patches behind it."""
        patches = super().positions(pixels, module)
        if module == "vision":
            return patches
        return int(int(patches**0.5) * self.hf.config.downsample_ratio) ** 2

    def grid(self, module: str) -> tuple[int, int, int]:
        """A tile's patches and class token in the tower, stacks of patches behind it."""
        rows, columns = self.patch_grid()
        if module == "vision":
            return rows, columns, 1
        ratio = self.hf.config.downsample_ratio
        return int(rows * ratio), int(columns * ratio), 0

    def tiles(self, processor: Any, size: tuple[int, int]) -> Sequence[tuple[int, Box]]:
        """The grid's tiles, then the thumbnail of the whole picture."""
        return _tile_boxes(processor, size)

    def process(
        self, processor: Any, prompts: Sequence[str], media: Media, side: str
    ) -> dict[str, Any]:
        """See :meth:`Adapter.process`.

        The processor's own call stacks videos, so it takes only such of equally many frames; they
        are processed one by one here.
        """
        settings = image_settings(processor)
        tiles: dict[str, list[Tensor]] = {"image": [], "video": []}
        texts: dict[str, list[str]] = {"image": [], "video": []}
        if images := media.flat("image"):
            done = processor.image_processor(images, **{**settings, "return_tensors": "pt"})
            numbers = done["num_patches"].tolist()
            tiles["image"] = list(done["pixel_values"].split(numbers))
            texts["image"] = [_picture_text(processor, number) for number in numbers]
        for video in media.flat("video"):
            done = processor.video_processor([video.frames], **AS_DECODED, return_tensors="pt")
            tiles["video"].append(done["pixel_values_videos"][0])
            texts["video"].append(_video_text(processor, len(video.frames)))
        inputs, orders = tokenized(processor, prompts, texts, side)
        if shown := [tiles[kind][number] for order in orders for kind, number in order]:
            inputs["pixel_values"] = torch.cat(shown)
        return inputs

    def media_tokens(self, processor: Any, sizes: MediaSizes) -> int:
        """See :meth:`Adapter.media_tokens`; what stands around the placeholders is left out."""
        tiles = sum(_tiles(processor, size) for size in sizes.images)
        return processor.image_seq_length * (tiles + sum(frames for frames, _, _ in sizes.videos))

    def prompt_tokens(self, processor: Any, prompt: str, sizes: MediaSizes) -> int:
        """See :meth:`Adapter.prompt_tokens`."""
        texts = {
            "image": [_picture_text(processor, _tiles(processor, one)) for one in sizes.images],
            "video": [_video_text(processor, frames) for frames, _, _ in sizes.videos],
        }
        (written,), _ = expanded([prompt], _placeholders(processor), texts)
        return len(processor.tokenizer(written)["input_ids"])


def _tiles(processor: Any, size: tuple[int, int]) -> int:
    return processor.image_processor.get_number_of_image_patches(*size, image_settings(processor))


def _tile_boxes(processor: Any, size: tuple[int, int]) -> list[tuple[int, Box]]:
    """(number, box) of the tiles a picture is cut into, and of its thumbnail, number 0."""
    images, settings = processor.image_processor, image_settings(processor)

    def setting(name: str) -> Any:
        value = settings.get(name)
        return getattr(images, name) if value is None else value

    if not setting("crop_to_patches") or setting("max_patches") <= 1:
        return [(0, WHOLE)]
    side = setting("size")
    tile, least, most = (
        (side["height"], side["width"]),
        setting("min_patches"),
        setting("max_patches"),
    )
    columns, rows = get_optimal_tiled_canvas(size, tile, least, most)
    cut = list(enumerate(tiles(rows, columns), start=1))
    if len(cut) == 1:
        return [(0, WHOLE)]
    return [*cut, (0, WHOLE)] if len(cut) < _tiles(processor, size) else cut


def _placeholders(processor: Any) -> dict[str, str]:
    return {"image": processor.image_token, "video": processor.video_token}


def _picture_text(processor: Any, tiles: int) -> str:
    return processor.replace_image_token({"num_patches": [tiles]}, 0)


def _video_text(processor: Any, frames: int) -> str:
    return processor.replace_video_token({"pixel_values_videos": [torch.empty(frames, 0)]}, 0)
