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

from mmlens.adapter import Media, MediaSizes, numbered
from mmlens.errors import SampleError
from mmlens.hook_names import LANGUAGE
from mmlens.tokens.places import Box, Places
from mmlens_adapters.anyres import scaled
from mmlens_adapters.base import AS_DECODED
from mmlens_adapters.llava import squared
from mmlens_adapters.llava_next import LlavaNextAdapter
from mmlens_adapters.squares import frame_places, square_rows


class LlavaOnevisionAdapter(LlavaNextAdapter):
    """``LlavaOnevisionForConditionalGeneration``.

    Every frame of a video is given to the model, or as many as the processor's
    ``video_processor.num_frames`` says, evenly spaced. The model takes several videos at once only if
    they have equally many frames: set that number where they have not.
    """

    model_types = ("llava_onevision",)
    modalities = ("image", "video")

    def feature_counts(self, inputs: Mapping[str, Any]) -> dict[str, Int[Tensor, " medium"]]:
        """Features per picture, by the model's own packing of tiles, and per video."""
        ratio = self.hf.config.vision_aspect_ratio
        packed = [len(one) for one in self._pack(inputs, vision_aspect_ratio=ratio)]
        counts = {"image": packed, "video": self._video_features(inputs)}
        return {kind: torch.tensor(one, dtype=torch.long) for kind, one in counts.items()}

    def tower_rows(
        self, module: str, inputs: Mapping[str, Any], media_rows: Mapping[str, Sequence[int]]
    ) -> list[Int[Tensor, ...]]:
        """Pictures' tiles, then videos' frames; padding tiles never reach the tower."""
        passes = []
        for kind, name in (("image", "pixel_values"), ("video", "pixel_values_videos")):
            if (pixels := inputs.get(name)) is not None:
                frames = self._tiles(inputs) if kind == "image" else [pixels.shape[1]] * len(pixels)
                positions = self.positions(pixels, module)
                passes.append(square_rows(media_rows[kind], positions, pixels, frames))
        return passes

    def places(
        self, module: str, processor: Any, inputs: Mapping[str, Any], sizes: Sequence[MediaSizes]
    ) -> list[Places] | None:
        """Patches of tiles and frames; newlines at the ends of rows, and after videos.

        A scaled-down grid's patches are the cells that divide the picture evenly.
        """
        pictures = self._picture_places(module, inputs, sizes)
        videos = [
            self._video_places(module, processor, number, video[0])
            for number, video in numbered(sizes, "video")
        ]
        if module == LANGUAGE:
            rows, columns = self.patch_grid()
            pictures = [
                one if grid is None else scaled(one, rows * columns, *grid)
                for one, grid in zip(pictures, self._scaled_grids(inputs), strict=True)
            ]
            return [Places.joined(pictures), Places.joined(videos)]
        return [Places.joined(parts) for parts in (pictures, videos) if parts]

    def _boxes(self, size: tuple[int, int], row: MediaSizes) -> list[Box]:
        """What each tile of a picture of a row shows; one of several pictures is a single square."""
        return super()._boxes(size, row) if len(row.images) == 1 else [squared(size)]

    def _video_places(self, module: str, processor: Any, number: int, total: int) -> Places:
        rows, columns, classes = self.grid(module)
        if module == LANGUAGE:
            rows, columns = math.ceil(rows / 2), math.ceil(columns / 2)
        shown = evenly(total, _frames(processor))
        places = Places.joined(frame_places(shown, (rows, columns, classes), number))
        if module == LANGUAGE:
            places = Places.joined([places, places[slice(-1, None)].newlines()])
        return places

    def arguments(self, processor: Any, media: Media) -> dict[str, Any]:
        """Pictures row by row, since one alone in its prompt is treated otherwise than several.

        Raises:
            SampleError: videos with different numbers of frames.
        """
        given: dict[str, Any] = {}
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
            given |= {"videos": chosen, "videos_kwargs": AS_DECODED}
        return given

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

    def _packed(self, inputs: Mapping[str, Any]) -> list[Int[Tensor, " feature"]]:
        """See :meth:`LlavaNextAdapter._packed`; as if no grid were scaled, or the numbers mean nothing."""
        return self._pack(inputs, vision_aspect_ratio=f"anyres_max_{10**9}")

    def _scaled_grids(self, inputs: Mapping[str, Any]) -> list[tuple[int, int] | None]:
        """(rows, columns) of each picture's grid where it is scaled down, else None."""
        rows, columns = self.patch_grid()
        ratio = self.hf.config.vision_aspect_ratio
        found: list[tuple[int, int] | None] = []
        for before, after in zip(
            self._packed(inputs), self._pack(inputs, vision_aspect_ratio=ratio), strict=True
        ):
            down = int((after < 0).sum())
            across = (len(after) - rows * columns) // down - 1
            found.append(None if len(before) == len(after) else (down, across))
        return found

    def _video_features(self, inputs: Mapping[str, Any]) -> list[int]:
        encoded = (inputs.get("mm_encoder_outputs") or {}).get("video")
        if encoded is not None:
            return [len(one) for one in encoded.pooler_output]
        pixels = inputs.get("pixel_values_videos")
        if pixels is None:
            return []
        rows, columns = (math.ceil(one / 2) for one in self.patch_grid())
        return [pixels.shape[1] * rows * columns + 1] * len(pixels)

    def _tiles(self, inputs: Mapping[str, Any]) -> list[int]:
        """Tiles of each picture; only one that is alone in its row is cut."""
        cut, together = super()._tiles(inputs), inputs.get("batch_num_images")
        counts = [1] * len(cut) if together is None else together.tolist()
        alone = [count == 1 for count in counts for _ in range(count)]
        return [tiles if one else 1 for tiles, one in zip(cut, alone, strict=True)]


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
