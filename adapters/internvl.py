"""InternVL (2.5, 3, 3.5): InternViT tower, pixel shuffle, tiles, video (arXiv 2504.10479).

A picture is resized to the grid of tiles whose shape is nearest its own, with a thumbnail after them;
a frame of a video is one tile. The tower sees each tile's patches and a class token. The class token
is left out, 2 x 2 neighbouring patches are stacked (pixel shuffle), and the projector, an MLP behind a
LayerNorm, gives one feature for each stack.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers.models.got_ocr2.image_processing_got_ocr2 import get_optimal_tiled_canvas

from mmlens.adapter import Media, MediaSizes, Towers
from mmlens.errors import UnsupportedModelError
from mmlens.hook_names import LANGUAGE
from mmlens.tokens.places import WHOLE, Box, Places, cells, class_and_patches, tiles
from mmlens_adapters.base import FamilyAdapter, plain_tower
from mmlens_adapters.expansion import expanded
from mmlens_adapters.llava import last_layer_read


class InternVLAdapter(FamilyAdapter):
    """``InternVLForConditionalGeneration`` with any decoder.

    Every frame of a video is given to the model, as ``Frame1: <img>...</img>`` and so on. The model
    knows no difference between a frame and a tile of a picture: both stand at the same placeholder,
    so the token group of both is ``image``, and a medium is one tile.
    """

    model_types = ("internvl",)
    modalities = ("image", "video")

    def towers(self) -> Towers:
        """InternViT's MLPs and the projector's one.

        Raises:
            UnsupportedModelError: a tower of another kind.
        """
        kind = self.hf.config.vision_config.model_type
        if kind != "internvl_vision":
            raise UnsupportedModelError(
                f"The vision tower of this {type(self.hf).__name__} is a {kind!r}; its adapter knows "
                "internvl_vision."
            )
        layers = self.hf.model.vision_tower.encoder.layer
        last = last_layer_read(self.hf.config.vision_feature_layer, len(layers))
        projector = self.hf.model.multi_modal_projector
        return Towers(
            {
                "vision": plain_tower(layers, on_path=lambda layer: layer < last),
                "projector": plain_tower([projector], "linear_1", "linear_2"),
            }
        )

    def feature_counts(self, inputs: Mapping[str, Any]) -> dict[str, Int[Tensor, " medium"]]:
        """Features per tile, all alike; tiles of pictures and frames of videos in their order."""
        if (encoded := inputs.get("mm_encoder_outputs")) is not None:
            counts = [len(tile) for tile in encoded["image"].pooler_output]
            return {"image": torch.tensor(counts, dtype=torch.long)}
        pixels = inputs.get("pixel_values")
        if pixels is None:
            return {"image": torch.zeros(0, dtype=torch.long)}
        return {"image": torch.full((len(pixels),), self._positions(pixels, "projector"))}

    def tower_rows(
        self, module: str, inputs: Mapping[str, Any], media_rows: Mapping[str, Sequence[int]]
    ) -> list[Int[Tensor, ...]]:
        """No padding: the tower sees a tile's patches and class token, the projector stacks of patches."""
        pixels = inputs["pixel_values"]
        rows = torch.tensor(media_rows["image"], device=pixels.device)
        return [rows[:, None].expand(-1, self._positions(pixels, module))]

    def places(
        self,
        module: str,
        processor: Any,
        inputs: Mapping[str, Any],  # noqa: ARG002
        sizes: Sequence[MediaSizes],
    ) -> list[Places] | None:
        """The grid's tiles, then the thumbnail of the whole picture; frames of videos as they are."""
        config: Any = self.hf.config
        height, width = config.vision_config.image_size
        tall, wide = config.vision_config.patch_size
        rows, columns, classes = height // tall, width // wide, int(module == "vision")
        if module != "vision":
            rows, columns = (int(n * config.downsample_ratio) for n in (rows, columns))
        found = []
        for row in sizes:
            for number, size in enumerate(row.images):
                for tile, box in _tile_boxes(processor, size):
                    found.append(
                        class_and_patches(classes, rows, columns, box, medium=number, tile=tile)
                    )
            for number, (frames, _, _) in enumerate(row.videos):
                for i in range(frames):
                    which: dict[str, Any] = {
                        "kind": "video",
                        "medium": number,
                        "frames": (i, i + 1),
                    }
                    whole = torch.tensor([WHOLE]).expand(classes, 4)
                    found.append(Places.of(whole, "class", **which))
                    found.append(Places.of(cells(rows, columns), **which))
        return [Places.joined(found)] if found or module == LANGUAGE else []

    def process(
        self, processor: Any, prompts: Sequence[str], media: Media, side: str
    ) -> dict[str, Any]:
        """See :meth:`Adapter.process`.

        The processor's own call stacks videos, so it takes only such of equally many frames; they
        are processed one by one here.
        """
        settings = _settings(processor)
        tiles: dict[str, list[Tensor]] = {"image": [], "video": []}
        texts: dict[str, list[str]] = {"image": [], "video": []}
        if images := media.flat("image"):
            done = processor.image_processor(images, **{**settings, "return_tensors": "pt"})
            numbers = done["num_patches"].tolist()
            tiles["image"] = list(done["pixel_values"].split(numbers))
            texts["image"] = [_picture_text(processor, number) for number in numbers]
        for video in media.flat("video"):
            done = processor.video_processor(
                [video.frames],
                do_sample_frames=False,
                input_data_format="channels_last",
                return_tensors="pt",
            )
            tiles["video"].append(done["pixel_values_videos"][0])
            texts["video"].append(_video_text(processor, len(video.frames)))
        written, orders = expanded(prompts, _placeholders(processor), texts)
        inputs = dict(
            processor.tokenizer(written, padding=True, padding_side=side, return_tensors="pt")
        )
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

    def _positions(self, pixels: Tensor, module: str) -> int:
        """Positions of one tile in a tower's activations."""
        config: Any = self.hf.config
        height, width = config.vision_config.patch_size
        positions = (pixels.shape[-2] // height) * (pixels.shape[-1] // width) + 1
        if module == "vision":
            return positions
        side = int((positions - (config.vision_feature_select_strategy == "default")) ** 0.5)
        return int(side * config.downsample_ratio) ** 2


def _settings(processor: Any) -> dict[str, Any]:
    """The arguments with which the processor calls its image processor."""
    return processor._merge_kwargs(tokenizer_init_kwargs=processor.tokenizer.init_kwargs)[
        "images_kwargs"
    ]


def _tiles(processor: Any, size: tuple[int, int]) -> int:
    return processor.image_processor.get_number_of_image_patches(*size, _settings(processor))


def _tile_boxes(processor: Any, size: tuple[int, int]) -> list[tuple[int, Box]]:
    """(number, box) of the tiles a picture is cut into, and of its thumbnail, number 0."""
    images, settings = processor.image_processor, _settings(processor)

    def setting(name: str) -> Any:
        value = settings.get(name)
        return getattr(images, name) if value is None else value

    if not setting("crop_to_patches") or setting("max_patches") <= 1:
        return [(0, WHOLE)]
    side = setting("size")
    columns, rows = get_optimal_tiled_canvas(
        size,
        (side["height"], side["width"]),
        setting("min_patches"),
        setting("max_patches"),
    )
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
