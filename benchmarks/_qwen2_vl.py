"""Qwen2-VL: one picture at its own resolution, 28 x 28 pixels to a token; Qwen2 decoder, M-RoPE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import Qwen2VLConfig, Qwen2VLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from benchmarks._sizes import Family, ModelSize, Shape, Widths
from tests.tiny import qwen2_vl as tiny
from tests.tiny.common import picture

_MERGE = 2
#: What opens and closes a picture.
_BRACKETS = 2
#: The longest side of a picture, in tokens.
_LONGEST = 100


def _config(size: ModelSize) -> Qwen2VLConfig:
    # Time, height and width share the axes of a head's rotation as in the published 16, 24, 24.
    half = size.d_model // size.heads // 2
    sections = [half - 2 * (3 * half // 8), 3 * half // 8, 3 * half // 8]
    return Qwen2VLConfig(
        text_config=size.decoder(
            rope_parameters={
                "rope_type": "default",
                "rope_theta": 1_000_000.0,
                "mrope_section": sections,
            },
            bos_token_id=None,
            eos_token_id=tiny.WORDS.index("<|im_end|>"),
            pad_token_id=tiny.WORDS.index("<|endoftext|>"),
        ),
        vision_config={
            "depth": size.tower.layers,
            "embed_dim": size.tower.width,
            "hidden_size": size.d_model,
            "mlp_ratio": size.tower.mlp // size.tower.width,
            "num_heads": size.tower.heads,
            "patch_size": size.patch,
            "spatial_merge_size": _MERGE,
        },
        **tiny.media_tokens(),
        tie_word_embeddings=False,
    )


def _processor(size: ModelSize) -> Qwen2VLProcessor:
    token = (size.patch * _MERGE) ** 2
    pictures = Qwen2VLImageProcessorPil(
        patch_size=size.patch,
        merge_size=_MERGE,
        size={"shortest_edge": token, "longest_edge": _LONGEST**2 * token},
    )
    return Qwen2VLProcessor(
        **{**tiny.visual_processors(), "image_processor": pictures},
        tokenizer=tiny.qwen_tokenizer(),
        chat_template=tiny.CHAT,
    )


def _shapes(_size: ModelSize) -> Sequence[Shape]:
    """One picture, square or nearly."""
    return [
        (high * wide + _BRACKETS, high, wide)
        for high in range(2, _LONGEST)
        for wide in (high, high + 1)
    ]


def _media(size: ModelSize, shape: Shape, seed: int) -> Mapping[str, Any]:
    _, high, wide = shape
    side = size.patch * _MERGE
    return {"images": (picture(wide * side, high * side, seed),)}


FAMILY = Family(
    name="qwen2-vl",
    sizes={
        "tiny": ModelSize(
            layers=2,
            d_model=64,
            d_mlp=96,
            heads=4,
            kv_heads=2,
            vocab=600,
            tower=Widths(layers=2, width=16, mlp=32, heads=2),
            patch=4,
        ),
        "small": ModelSize(
            layers=6,
            d_model=768,
            d_mlp=2048,
            heads=12,
            kv_heads=4,
            vocab=32_000,
            tower=Widths(layers=3, width=128, mlp=512, heads=2),
        ),
        # Qwen2-VL-7B.
        "7b": ModelSize(
            layers=28,
            d_model=3584,
            d_mlp=18_944,
            heads=28,
            kv_heads=4,
            vocab=152_064,
            tower=Widths(layers=32, width=1280, mlp=5120, heads=16),
            positions=32_768,
        ),
    },
    config=_config,
    processor=_processor,
    shapes=_shapes,
    media=_media,
)
