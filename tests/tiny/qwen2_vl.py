"""Tiny Qwen2-VL: patches of 4 pixels, merged two by two; Qwen2 decoder with M-RoPE."""

from __future__ import annotations

from typing import Any

from transformers import (
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLProcessor,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from mmlens._torchvision import declare_missing_operators
from mmlens.data.samples import Sample
from tests.tiny.common import TinyFamily, picture, pictures, sharpened, tokenizer, video, vocabulary

PATCH, MERGE = 4, 2
#: Smallest and largest picture, in pixels.
PIXELS = {"shortest_edge": (PATCH * MERGE) ** 2, "longest_edge": 24 * (PATCH * MERGE) ** 2}
SPECIAL = [
    "<|endoftext|>",
    "<unk>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
WORDS = vocabulary(SPECIAL)
CHAT = (
    "{% for m in messages %}"
    "{% if loop.first and m['role'] != 'system' %}<|im_start|> system answer <|im_end|>\n{% endif %}"
    "<|im_start|> {{ m['role'] }}\n{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif c['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|> assistant\n{% endif %}"
)


def qwen_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with the special tokens of Qwen's format."""
    named = {f"special_{i}_token": token for i, token in enumerate(SPECIAL[2:])}
    return tokenizer(
        SPECIAL, eos_token="<|im_end|>", pad_token="<|endoftext|>", extra_special_tokens=named
    )


def visual_processors() -> dict[str, Any]:
    """The family's real processors of pictures (through Pillow) and videos, for small patches."""
    declare_missing_operators()
    from transformers import Qwen2VLVideoProcessor

    small = {"patch_size": PATCH, "merge_size": MERGE, "size": PIXELS}
    return {
        "image_processor": Qwen2VLImageProcessorPil(**small),
        "video_processor": Qwen2VLVideoProcessor(**small, cap_pixels_per_frame=False),
    }


def processor() -> Qwen2VLProcessor:
    """The real processor."""
    return Qwen2VLProcessor(**visual_processors(), tokenizer=qwen_tokenizer(), chat_template=CHAT)


def text_settings(**more: Any) -> dict[str, Any]:
    """Settings of a small decoder of Qwen's."""
    return {
        "vocab_size": len(WORDS),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [2, 1, 1],
        },
        "bos_token_id": None,
        "eos_token_id": WORDS.index("<|im_end|>"),
        "pad_token_id": WORDS.index("<|endoftext|>"),
        **more,
    }


def media_tokens() -> dict[str, Any]:
    """The config's ids of what stands for media, and around them."""
    return {
        "image_token_id": WORDS.index("<|image_pad|>"),
        "video_token_id": WORDS.index("<|video_pad|>"),
        "vision_start_token_id": WORDS.index("<|vision_start|>"),
        "vision_end_token_id": WORDS.index("<|vision_end|>"),
    }


def model(seed: int = 0, tied: bool = False, **text: Any) -> Qwen2VLForConditionalGeneration:
    """A random model; ``text`` overrides settings of its decoder."""
    config = Qwen2VLConfig(
        text_config=text_settings(**text),
        vision_config={
            "depth": 2,
            "embed_dim": 16,
            "hidden_size": 32,
            "mlp_ratio": 2,
            "num_heads": 2,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
        },
        **media_tokens(),
        tie_word_embeddings=tied,
    )
    built = sharpened(lambda: Qwen2VLForConditionalGeneration(config), seed)
    assert isinstance(built, Qwen2VLForConditionalGeneration)
    return built


def samples() -> list[Sample]:
    """Pictures and videos of several sizes, two of them, one of each, and none in a prompt."""
    rows = pictures([(16, 16), (40, 16), (15, 37), (31, 33)], 4)
    two, still, clip = (
        (picture(24, 8, 8), picture(17, 30, 9)),
        picture(20, 20, 10),
        video(5, 16, 24),
    )
    more: list[dict[str, Any]] = [
        {"text": "w4 w5", "images": two},
        {"text": "what is here ?", "videos": (video(4, 24, 16, 1),)},
        {"text": "w6", "videos": (video(3, 15, 40, 2), clip)},
        {"text": "a red cat", "images": (still,), "videos": (video(2, 16, 16, 3),)},
        {"text": "what is a dog ?"},
    ]
    return rows + [
        Sample(id=f"m{i}", answers=("a",), domain="red" if i % 2 else "blue", **one)
        for i, one in enumerate(more)
    ]


FAMILY = TinyFamily(
    name="qwen2-vl",
    variants={
        "untied": model,
        "tied": lambda seed: model(seed, tied=True),
        "ungrouped": lambda seed: model(seed, num_key_value_heads=4),
        "window": lambda seed: model(
            seed, use_sliding_window=True, sliding_window=6, max_window_layers=1
        ),
    },
    processor=processor,
    samples=samples,
)
