"""Qwen2.5-VL: Qwen2-VL with gated vision MLPs, window attention and real time (arXiv 2502.13923).

All but a few vision blocks attend within windows of 112 pixels. For that the tower reorders the
merged patches of each picture or frame window by window, before its first block; the projector sees
them in that order too, and only its output is put back. Temporal rotary positions follow seconds,
not frames, so the rate of a video counts.
"""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from mmlens.adapter import Towers
from mmlens.hook_names import LANGUAGE
from mmlens_adapters.base import gated_tower, plain_tower
from mmlens_adapters.qwen2_vl import Qwen2VLAdapter


class Qwen2_5VLAdapter(Qwen2VLAdapter):  # noqa: N801
    """``Qwen2_5_VLForConditionalGeneration``.

    Windows never reach across two pictures or videos, so the rows that :meth:`tower_rows` gives are
    the same in the tower's order as in the processor's. A video that does not say its rate is
    taken to have two frames a second, as in Qwen's own tools.
    """

    model_types = ("qwen2_5_vl",)

    def towers(self) -> Towers:
        """The vision blocks' gated MLPs and the merger's plain one."""
        visual = self.hf.model.visual
        return Towers(
            {
                "vision": gated_tower(visual.blocks),
                "projector": plain_tower([visual.merger], "mlp.0", "mlp.2"),
            }
        )

    def _order(self, rows: int, columns: int, module: str) -> Int[Tensor, " square"]:
        """Window by window, row by row within each; the projector's output is put back in order."""
        if module == LANGUAGE:
            return super()._order(rows, columns, module)
        vision = self._vision
        side = vision.window_size // vision.spatial_merge_size // vision.patch_size
        places = [(i // side, j // side, i, j) for i in range(rows) for j in range(columns)]
        return torch.tensor([i * columns + j for _, _, i, j in sorted(places)])
