"""Qwen2-VL: pictures and videos at their own resolution, M-RoPE, Qwen2 decoder (arXiv 2409.12191).

A picture is resized to multiples of 28 pixels and cut into patches of 14; two frames of a video
make one patch of depth two, and a picture stands for two equal frames. The tower's patches of all
pictures follow one another, without a batch dimension. A merger (LayerNorm, then an MLP over
2 x 2 neighbouring patches) is the projector. In the decoder a token's rotary position has three
axes, time, height and width (M-RoPE), which need the ``mm_token_type_ids`` of the processor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from einops import rearrange
from jaxtyping import Int
from torch import Tensor

from mmlens.adapter import Media, MediaSizes, Towers, numbered
from mmlens.errors import MediaError, UnsupportedModelError
from mmlens.hook_names import LANGUAGE
from mmlens.tokens.places import Places, cells
from mmlens_adapters.base import FamilyAdapter, plain_tower

#: Placeholder group -> its pixels and its grid of patches among the inputs, in the order in which
#: the model encodes them.
_VISUAL = {
    "image": ("pixel_values", "image_grid_thw"),
    "video": ("pixel_values_videos", "video_grid_thw"),
}
#: The longest side over the shortest that the family's processors accept.
_ASPECT = 200


class Qwen2VLAdapter(FamilyAdapter):
    """``Qwen2VLForConditionalGeneration``.

    Every frame of a video is given to the model: take out frames beforehand to see fewer.
    """

    model_types = ("qwen2_vl",)
    modalities: ClassVar[tuple[str, ...]] = ("image", "video")
    #: What the prompt format puts around the placeholder of a kind of media.
    brackets: ClassVar[Mapping[str, tuple[str, str]]] = dict.fromkeys(
        ("image", "video"), ("<|vision_start|>", "<|vision_end|>")
    )
    #: The tokens of the prompt format that form the group ``special`` (MINER).
    special_tokens: ClassVar[tuple[str, ...] | None] = (
        "<|im_start|>",
        "<|im_end|>",
        *brackets["image"],
    )

    def towers(self) -> Towers:
        """The vision blocks' MLPs and the merger's one."""
        visual = self.hf.model.visual
        return Towers(
            {
                "vision": plain_tower(visual.blocks),
                "projector": plain_tower([visual.merger], "mlp.0", "mlp.2"),
            }
        )

    def feature_counts(self, inputs: Mapping[str, Any]) -> dict[str, Int[Tensor, " medium"]]:
        """Merged patches per picture and per video.

        Raises:
            UnsupportedModelError: the processor's patches are not those of the model.
        """
        self._check_patches(inputs)
        merged = self._vision.spatial_merge_size**2
        empty = torch.zeros((0, 3), dtype=torch.long)
        grids = {k: inputs.get(grid) for k, (_, grid) in _VISUAL.items()}
        return {k: (empty if g is None else g).prod(-1) // merged for k, g in grids.items()}

    def tower_rows(
        self, module: str, inputs: Mapping[str, Any], media_rows: Mapping[str, Sequence[int]]
    ) -> list[Int[Tensor, ...]]:
        """Pictures, then videos: the patches of each, or what is merged of them; no padding."""
        merged = self._vision.spatial_merge_size**2 if module == "projector" else 1
        passes = []
        for kind, (pixels, grid) in _VISUAL.items():
            if inputs.get(pixels) is not None:
                positions = inputs[grid].prod(-1) // merged
                rows = torch.tensor(media_rows[kind], device=positions.device)
                passes.append(rows.repeat_interleave(positions))
        return passes

    def places(
        self, module: str, processor: Any, inputs: Mapping[str, Any], sizes: Sequence[MediaSizes]
    ) -> list[Places] | None:
        """Patches of pictures and of pairs of frames, or squares of them that are merged into one.

        Media are stretched to whole patches, so a patch's box is its cell in the grid.
        """
        passes = []
        for kind, (_, name) in _VISUAL.items():
            if (grids := inputs.get(name)) is None:
                passes += [Places.nowhere(0)] if module == LANGUAGE else []
                continue
            media = [
                (number, size[0] if kind == "video" else 1)
                for number, size in numbered(sizes, kind)
            ]
            found = [
                self._frame_places(module, kind, number, frames, grid)
                for (number, frames), grid in zip(media, grids.tolist(), strict=True)
            ]
            passes.append(Places.joined(found))
        return passes

    def _frame_places(
        self, module: str, kind: str, medium: int, frames: int, grid: Sequence[int]
    ) -> Places:
        """The places of one medium in a module."""
        times, rows, columns = grid
        merge, depth = self._vision.spatial_merge_size, self._vision.temporal_patch_size
        down, across = rows // merge, columns // merge
        # The tower's patches stand square by square, so that the merger reads neighbours.
        boxes, squares = cells(down, across), self._order(down, across, module)
        if module == "vision":
            boxes = rearrange(
                cells(rows, columns),
                "(down row across column) edge -> (down across) row column edge",
                down=down,
                across=across,
                row=merge,
            )
        boxes = boxes[squares].reshape(-1, 4)
        found = []
        for time in range(times):
            first = min(time * depth, frames - 1)
            span = (0, 1) if kind == "image" else (first, min(first + depth, frames))
            found.append(Places.of(boxes, kind=kind, medium=medium, frames=span))
        return Places.joined(found)

    def _order(self, rows: int, columns: int, module: str) -> Int[Tensor, " square"]:
        """The order in which a module meets the squares of merged patches of one frame."""
        return torch.arange(rows * columns)

    def process(
        self, processor: Any, prompts: Sequence[str], media: Media, side: str
    ) -> dict[str, Any]:
        """See :meth:`Adapter.process`.

        Raises:
            MediaError: a medium is more than 200 times as long as wide.
        """
        _check_shapes([one.size for one in media.flat("image")])
        _check_shapes([one.frames.shape[1:3] for one in media.flat("video")])
        return super().process(processor, prompts, media, side)

    def placeholder_text(self, kind: str, processor: Any) -> str:
        """The placeholder between its brackets, without which neighbours would run together."""
        start, end = self.brackets[kind]
        return start + getattr(processor, f"{kind}_token") + end

    def media_tokens(self, processor: Any, sizes: MediaSizes) -> int | None:
        """See :meth:`Adapter.media_tokens`.

        None for videos where their processor shares a budget of pixels among frames: its own count
        leaves that out.

        Raises:
            MediaError: a medium is more than 200 times as long as wide.
        """
        if sizes.videos and getattr(processor.video_processor, "cap_pixels_per_frame", None):
            return None
        _check_shapes(sizes.images)
        _check_shapes([video[1:] for video in sizes.videos])
        found = processor._get_num_multimodal_tokens(
            image_sizes=[list(one) for one in sizes.images],
            video_sizes=[list(one) for one in sizes.videos],
        )
        return sum(found.num_image_tokens) + sum(found.num_video_tokens)

    @property
    def _vision(self) -> Any:
        return self.hf.config.vision_config

    def _check_patches(self, inputs: Mapping[str, Any]) -> None:
        vision = self._vision
        size = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        for pixels, _ in _VISUAL.values():
            if inputs.get(pixels) is not None and inputs[pixels].shape[-1] != size:
                raise UnsupportedModelError(
                    f"The processor cuts media into patches of {inputs[pixels].shape[-1]} values, but "
                    f"the model reads {size} ({vision.in_channels} channels of "
                    f"{vision.temporal_patch_size} frames of {vision.patch_size} x "
                    f"{vision.patch_size} pixels); use the processor of this model."
                )


def _check_shapes(sizes: Sequence[Sequence[int]]) -> None:
    for one, other in sizes:
        if max(one, other) > _ASPECT * min(one, other):
            raise MediaError(
                f"A picture or video of {max(one, other)} by {min(one, other)} pixels is more than "
                f"{_ASPECT} times as long as wide, which the model's processor refuses; crop it."
            )
