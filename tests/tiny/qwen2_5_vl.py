"""Tiny Qwen2.5-VL: window attention over two by two merged patches, gated vision MLPs."""

from __future__ import annotations

from typing import Any

from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
)

from tests.tiny.common import TinyFamily, sharpened
from tests.tiny.qwen2_vl import (
    CHAT,
    MERGE,
    PATCH,
    media_tokens,
    qwen_tokenizer,
    samples,
    text_settings,
    visual_processors,
)


def processor() -> Qwen2_5_VLProcessor:
    """The real processor."""
    return Qwen2_5_VLProcessor(
        **visual_processors(), tokenizer=qwen_tokenizer(), chat_template=CHAT
    )


def vision_settings() -> dict[str, Any]:
    """A small tower whose first and last block attend within windows."""
    return {
        "depth": 3,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_heads": 2,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "window_size": 2 * MERGE * PATCH,
        "fullatt_block_indexes": [1],
        "out_hidden_size": 32,
    }


def model(seed: int = 0, tied: bool = False, **text: Any) -> Qwen2_5_VLForConditionalGeneration:
    """A random model; ``text`` overrides settings of its decoder."""
    config = Qwen2_5_VLConfig(
        text_config=text_settings(**text),
        vision_config={**vision_settings(), "tokens_per_second": 4},
        **media_tokens(),
        tie_word_embeddings=tied,
    )
    built = sharpened(lambda: Qwen2_5_VLForConditionalGeneration(config), seed)
    assert isinstance(built, Qwen2_5_VLForConditionalGeneration)
    return built


FAMILY = TinyFamily(
    name="qwen2.5-vl",
    variants={
        "untied": model,
        "tied": lambda seed: model(seed, tied=True),
        "window": lambda seed: model(
            seed, use_sliding_window=True, sliding_window=6, max_window_layers=1
        ),
    },
    processor=processor,
    samples=samples,
)
