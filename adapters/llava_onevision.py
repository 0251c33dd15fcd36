"""LLaVA-OneVision: SigLIP tower, any-resolution tiles, several pictures, video; Qwen2 (arXiv 2408.03326).

A picture that is alone in its prompt is cut into a base tile and a grid of tiles, whose features are
put back in place, freed of padding, scaled down where they are too many ("anyres_max_9"), and ended
row by row by the learned ``image_newline``. Where a prompt has several pictures, each is one square
tile and one newline. The features of a video's frames are halved in both directions, one newline
ends them all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers.models.llava_onevision.modeling_llava_onevision import image_size_to_num_patches

from mmlens.adapter import Media, MediaSizes
from mmlens.errors import SampleError
from mmlens.hook_names import LANGUAGE
from mmlens.tokens.places import Box, Places, cells, class_and_patches
from mmlens_adapters.anyres import packed_places, scaled, tile_boxes
from mmlens_adapters.llava import CLASS_TOKENS, LlavaAdapter, squared


class LlavaOnevisionAdapter(LlavaAdapter):
    """``LlavaOnevisionForConditionalGeneration``.

    Every frame of a video is given to the model, or as many as the processor's
    ``video_processor.num_frames`` says, evenly spaced. The model takes several videos at once only if
    they have equally many frames: set that number where they have not.
    """

    model_types = ("llava_onevision",)
    modalities = ("image", "video")

    def feature_counts(self, inputs: Mapping[str, Any]) -> dict[str, Int[Tensor, " medium"]]:
        """Features per picture, by the model's own packing of tiles, and per video."""
        return {
            "image": self._image_features(inputs),
            "video": torch.tensor(self._video_features(inputs), dtype=torch.long),
        }

    def tower_rows(
        self, module: str, inputs: Mapping[str, Any], media_rows: Mapping[str, Sequence[int]]
    ) -> list[Int[Tensor, ...]]:
        """Pictures' tiles, then videos' frames; padding tiles never reach the tower."""
        passes = []
        for kind, name in (("image", "pixel_values"), ("video", "pixel_values_videos")):
            pixels = inputs.get(name)
            if pixels is not None:
                frames = self._tiles(inputs) if kind == "image" else [pixels.shape[1]] * len(pixels)
                rows = torch.tensor(media_rows[kind]).repeat_interleave(torch.tensor(frames))
                positions = self._positions(pixels, module)
                passes.append(rows.to(pixels.device)[:, None].expand(-1, positions))
        return passes

    def places(
        self,
        module: str,
        processor: Any,
        inputs: Mapping[str, Any],
        sizes: Sequence[MediaSizes],
    ) -> list[Places] | None:
        """Patches of tiles and frames; newlines at the ends of rows, and behind videos.

        A scaled-down grid's patches are the cells that divide the picture evenly.
        """
        pictures = self._picture_places(module, inputs, sizes)
        videos = [
            self._video_places(module, processor, number, video[0])
            for row in sizes
            for number, video in enumerate(row.videos)
        ]
        if module == LANGUAGE:
            return [Places.joined(pictures), Places.joined(videos)]
        return [Places.joined(parts) for parts in (pictures, videos) if parts]

    def _picture_places(
        self, module: str, inputs: Mapping[str, Any], sizes: Sequence[MediaSizes]
    ) -> list[Places]:
        config: Any = self.hf.config
        side, classes = self._square(module)
        found = []
        media = [(number, one, row) for row in sizes for number, one in enumerate(row.images)]
        packed = self._packed(inputs, None)
        for (number, size, row), order, rows in zip(
            media, packed, self._scaled_rows(inputs), strict=True
        ):
            boxes: list[Box] = [squared(size)]
            if len(row.images) == 1:
                pixels = config.vision_config.image_size
                boxes = tile_boxes(size, config.image_grid_pinpoints, pixels)
            parts = [
                class_and_patches(classes, side, side, box, medium=number, tile=tile)
                for tile, box in enumerate(boxes)
            ]
            whole = Places.joined(parts)
            if module == LANGUAGE:
                whole = packed_places(whole, order)
                whole = whole if rows is None else scaled(whole, side * side, *rows)
            found.append(whole.clipped())
        return found

    def _video_places(self, module: str, processor: Any, number: int, total: int) -> Places:
        side, classes = self._square(module)
        found = []
        for frame in evenly(total, _frames(processor)):
            which: dict[str, Any] = {
                "kind": "video",
                "medium": number,
                "frames": (frame, frame + 1),
            }
            found.append(Places.of(cells(1, 1).expand(classes, 4), "class", **which))
            divided = math.ceil(side / 2) if module == LANGUAGE else side
            found.append(Places.of(cells(divided, divided), **which))
        places = Places.joined(found)
        if module == LANGUAGE:
            places = Places.joined([places, places[slice(-1, None)].newlines()])
        return places

    def _square(self, module: str) -> tuple[int, int]:
        """Patches along a tile's side, and class tokens before them."""
        config: Any = self.hf.config
        vision = config.vision_config
        dropped = module == LANGUAGE or config.vision_feature_select_strategy == "default"
        classes = CLASS_TOKENS[vision.model_type] - (module != "vision" and dropped)
        return vision.image_size // vision.patch_size, max(classes, 0)

    def process(
        self, processor: Any, prompts: Sequence[str], media: Media, side: str
    ) -> dict[str, Any]:
        """See :meth:`Adapter.process`.

        Raises:
            SampleError: videos with different numbers of frames.
        """
        given: dict[str, Any] = {}
        # Row by row, since a picture alone in its prompt is treated otherwise than several.
        if images := [list(row) for row in media.images if row]:
            given["images"] = images
        if videos := [one.frames for one in media.flat("video")]:
            chosen = [frames[evenly(len(frames), _frames(processor))] for frames in videos]
            counts = sorted({len(one) for one in chosen})
            if len(counts) > 1:
                raise SampleError(
                    f"Videos of {' and '.join(map(str, counts))} frames are in one batch, but "
                    f"{type(self.hf).__name__} takes equally many of each; set "
                    "model.processor.video_processor.num_frames to take that many, evenly spaced."
                )
            given["videos"] = chosen
            given["videos_kwargs"] = {
                "do_sample_frames": False,
                "input_data_format": "channels_last",
            }
        return dict(
            processor(
                text=list(prompts),
                **given,
                padding=True,
                padding_side=side,
                return_tensors="pt",
            )
        )

    def media_tokens(self, processor: Any, sizes: MediaSizes) -> int:
        """See :meth:`Adapter.media_tokens`."""
        count = 0
        if len(sizes.images) == 1:
            found = processor._get_num_multimodal_tokens([list(sizes.images[0])])
            count += sum(found.num_image_tokens)
        elif sizes.images:  # one tile and one newline each
            dropped = processor.vision_feature_select_strategy == "default"
            count += len(sizes.images) * (processor.num_image_tokens + 1 - dropped)
        frames = [(len(evenly(n, _frames(processor))), h, w) for n, h, w in sizes.videos]
        return count + sum(
            processor._get_num_multimodal_tokens(video_sizes=frames).num_video_tokens
        )

    def _image_features(self, inputs: Mapping[str, Any]) -> Int[Tensor, " picture"]:
        packed = self._packed(inputs, self.hf.config.vision_aspect_ratio)
        return torch.tensor([len(one) for one in packed], dtype=torch.long)

    def _packed(
        self, inputs: Mapping[str, Any], scaling: str | None
    ) -> list[Int[Tensor, " feature"]]:
        """For each feature of a picture, the patch it is of all its tiles' patches; -1: a newline.

        Where the grid is scaled the numbers of its patches mean nothing; None: it is not scaled.
        """
        sizes = inputs.get("image_sizes")
        if sizes is None:
            return []
        vision: Any = self.hf.config.vision_config
        side = vision.image_size // vision.patch_size
        # Packing moves, drops and scales positions, never channels; numbers can be packed instead.
        packed, _ = self.hf.model.pack_image_features(
            [
                torch.arange(n * side * side, dtype=torch.float64).view(n, side * side, 1)
                for n in self._tiles(inputs)
            ],
            sizes,
            image_newline=-torch.ones(1, dtype=torch.float64),
            vision_aspect_ratio=scaling or f"anyres_max_{10**9}",
        )
        return [one[:, 0].round().long() for one in packed]

    def _scaled_rows(self, inputs: Mapping[str, Any]) -> list[tuple[int, int] | None]:
        """(rows, columns) of each picture's grid where it is scaled down, else None."""
        vision: Any = self.hf.config.vision_config
        base = (vision.image_size // vision.patch_size) ** 2
        plain = self._packed(inputs, None)
        found: list[tuple[int, int] | None] = []
        for before, after in zip(
            plain, self._packed(inputs, self.hf.config.vision_aspect_ratio), strict=True
        ):
            if len(before) == len(after):
                found.append(None)
                continue
            rows = int((after < 0).sum())
            found.append((rows, (len(after) - base) // rows - 1))
        return found

    def _video_features(self, inputs: Mapping[str, Any]) -> list[int]:
        encoded = (inputs.get("mm_encoder_outputs") or {}).get("video")
        if encoded is not None:
            return [len(one) for one in encoded.pooler_output]
        pixels = inputs.get("pixel_values_videos")
        if pixels is None:
            return []
        vision: Any = self.hf.config.vision_config
        side = math.ceil(vision.image_size // vision.patch_size / 2)
        return [pixels.shape[1] * side * side + 1] * len(pixels)

    def _tiles(self, inputs: Mapping[str, Any]) -> list[int]:
        """Tiles per picture; only a picture alone in its row is cut."""
        config: Any = self.hf.config
        sizes = inputs["image_sizes"]
        together = inputs.get("batch_num_images")
        counts = [1] * len(sizes) if together is None else together.tolist()
        alone = [count == 1 for count in counts for _ in range(count)]
        return [
            image_size_to_num_patches(
                size, config.image_grid_pinpoints, config.vision_config.image_size
            )
            if cut
            else 1
            for size, cut in zip(sizes, alone, strict=True)
        ]


def evenly(total: int, wanted: int | None) -> list[int]:
    """The indices of ``wanted`` evenly spaced frames of ``total``; all of them where it is None.

    A shorter video shows some frames more than once.

    >>> evenly(7, 3), evenly(2, 3), evenly(2, None)
    ([0, 2, 4], [0, 0, 1], [0, 1])
    """
    wanted = total if wanted is None else wanted
    return [i * total // wanted for i in range(wanted)]


def _frames(processor: Any) -> int | None:
    return getattr(processor.video_processor, "num_frames", None)
