"""Tiny Qwen3-VL: two DeepStack mergers, interleaved M-RoPE, timestamps before the frames of a video."""

from __future__ import annotations

from typing import Any

from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLProcessor

from tests.tiny.common import TinyFamily, sharpened
from tests.tiny.qwen2_vl import (
    CHAT,
    MERGE,
    PATCH,
    PIXELS,
    media_tokens,
    qwen_tokenizer,
    samples,
    text_settings,
    visual_processors,
)


def processor() -> Qwen3VLProcessor:
    """The real processor."""
    from transformers import Qwen3VLVideoProcessor

    videos = Qwen3VLVideoProcessor(
        patch_size=PATCH,
        merge_size=MERGE,
        size={**PIXELS, "longest_edge": 2 * PIXELS["longest_edge"]},
        cap_pixels_per_frame=False,
    )
    return Qwen3VLProcessor(
        **{**visual_processors(), "video_processor": videos},
        tokenizer=qwen_tokenizer(),
        chat_template=CHAT,
    )


def model(
    seed: int = 0, tied: bool = False, deepstack: tuple[int, ...] = (0, 1), **text: Any
) -> Qwen3VLForConditionalGeneration:
    """A random model; ``text`` overrides settings of its decoder."""
    settings = text_settings(**{"head_dim": 8, **text})
    settings["rope_parameters"] = {**settings["rope_parameters"], "mrope_interleaved": True}
    config = Qwen3VLConfig(
        text_config=settings,
        vision_config={
            "depth": 3,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_heads": 2,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "out_hidden_size": 32,
            "num_position_embeddings": 36,
            "deepstack_visual_indexes": list(deepstack),
        },
        **media_tokens(),
        tie_word_embeddings=tied,
    )
    built = sharpened(lambda: Qwen3VLForConditionalGeneration(config), seed)
    assert isinstance(built, Qwen3VLForConditionalGeneration)
    return built


FAMILY = TinyFamily(
    name="qwen3-vl",
    variants={
        "untied": model,
        "tied": lambda seed: model(seed, tied=True),
        "wide-heads": lambda seed: model(
            seed,
            head_dim=12,
            num_key_value_heads=4,
            rope_parameters={
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [2, 2, 2],
            },
        ),
    },
    processor=processor,
    samples=samples,
)
