"""Qwen3-VL: DeepStack features, interleaved M-RoPE, timestamps in text, Qwen3 decoder (arXiv 2511.21631).

DeepStack (arXiv 2406.04334): besides the merger after the last vision block, others read the
patches after a few earlier blocks; what they give is added to the residual stream at the visual
tokens, after the decoder's first layers. A video's frames each stand between their own
``<|vision_start|>`` and ``<|vision_end|>``, after their time in seconds, written as text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import nn

from mmlens.adapter import Media, MediaSizes, Towers
from mmlens.errors import MediaError
from mmlens_adapters.base import plain_tower
from mmlens_adapters.qwen2_vl import Qwen2VLAdapter


class Qwen3VLAdapter(Qwen2VLAdapter):
    """``Qwen3VLForConditionalGeneration``.

    The layers of ``projector`` are the mergers in the order in which the decoder reads them: layer 0
    is the merger after the tower, whose output takes the place of the placeholders' embeddings;
    layer i is the i-th DeepStack merger, whose output is added after decoder layer i - 1. So layer
    l writes into ``blocks.{l}.hook_resid_pre``, and ``blocks.{l - 1}.hook_resid_post`` is without it.

    Timestamps count as text. Around all frames of a video the processor leaves the pair of
    ``<|vision_start|>`` and ``<|vision_end|>`` that the chat template writes.
    """

    model_types = ("qwen3_vl",)
    per_layer: ClassVar[tuple[str, ...]] = (*Qwen2VLAdapter.per_layer, "deepstack_features")

    def towers(self) -> Towers:
        """The vision blocks' MLPs and the mergers'."""
        layers = self.hf.model.visual.blocks
        # DeepStack features beyond the decoder's layers are thrown away.
        read = self.decoder().config.num_hidden_layers
        return Towers(
            {
                "vision": plain_tower(layers, "mlp.linear_fc1", "mlp.linear_fc2"),
                "projector": plain_tower(
                    self._mergers(),
                    "linear_fc1",
                    "linear_fc2",
                    on_path=lambda layer: layer <= read,
                ),
            }
        )

    def process(
        self, processor: Any, prompts: Sequence[str], media: Media, side: str
    ) -> dict[str, Any]:
        """See :meth:`Qwen2VLAdapter.process`.

        Raises:
            MediaError: also: a video has fewer frames than one patch is deep.
        """
        for video in media.flat("video"):
            if len(video.frames) < processor.video_processor.temporal_patch_size:
                raise MediaError(
                    f"The video has {len(video.frames)} frame, but the model's processor takes no "
                    f"fewer than {processor.video_processor.temporal_patch_size}; give it as a "
                    "picture."
                )
        return super().process(processor, prompts, media, side)

    def media_tokens(self, processor: Any, sizes: MediaSizes) -> int | None:
        """See :meth:`Adapter.media_tokens`; None for videos, whose timestamps depend on their rate."""
        return None if sizes.videos else super().media_tokens(processor, sizes)

    def _mergers(self) -> list[nn.Module]:
        visual = self.hf.model.visual
        places = list(visual.deepstack_visual_indexes)
        # The tower meets them in the order of its blocks, however the config lists them; a place
        # after its last block is never met.
        met = [places.index(block) for block in range(len(visual.blocks)) if block in places]
        return [visual.merger, *(visual.deepstack_merger_list[place] for place in met)]
