"""Tiny Qwen2-VL: patches of 4 pixels, merged two by two; Qwen2 decoder with M-RoPE."""

from __future__ import annotations

from collections.abc import Mapping
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
from tests.tiny.common import (
    ModelSize,
    TinyFamily,
    Widths,
    picture,
    pictures,
    sharpened,
    tokenizer,
    video,
    vocabulary,
)

PATCH, MERGE = 4, 2
SIZE = ModelSize(tower=Widths(layers=2, width=16, mlp=32), patch=PATCH)
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


def visual_processors(patch: int = PATCH, pixels: Mapping[str, int] = PIXELS) -> dict[str, Any]:
    """The family's real processors of pictures (through Pillow) and videos, for small patches."""
    declare_missing_operators()
    from transformers import Qwen2VLVideoProcessor

    small: dict[str, Any] = {"patch_size": patch, "merge_size": MERGE, "size": dict(pixels)}
    return {
        "image_processor": Qwen2VLImageProcessorPil(**small),
        "video_processor": Qwen2VLVideoProcessor(**small, cap_pixels_per_frame=False),
    }


def processor(patch: int = PATCH, pixels: Mapping[str, int] = PIXELS) -> Qwen2VLProcessor:
    """The real processor."""
    visual = visual_processors(patch, pixels)
    return Qwen2VLProcessor(**visual, tokenizer=qwen_tokenizer(), chat_template=CHAT)


def text_settings(size: ModelSize = SIZE, **more: Any) -> dict[str, Any]:
    """Settings of a decoder of Qwen's; its head is tied by the whole model's config."""
    # Time, height and width share the axes of a head's rotation as in the published 16, 24, 24.
    half = size.d_model // size.heads // 2
    side = 3 * half // 8
    rope = {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "mrope_section": [half - 2 * side, side, side],
    }
    roles = {
        "bos_token_id": None,
        "eos_token_id": WORDS.index("<|im_end|>"),
        "pad_token_id": WORDS.index("<|endoftext|>"),
    }
    settings = size.decoder(WORDS, **{"rope_parameters": rope, **roles, **more})
    return {n: v for n, v in settings.items() if n in more or n != "tie_word_embeddings"}


def media_tokens() -> dict[str, Any]:
    """The config's ids of what stands for media, and around them."""
    return {
        "image_token_id": WORDS.index("<|image_pad|>"),
        "video_token_id": WORDS.index("<|video_pad|>"),
        "vision_start_token_id": WORDS.index("<|vision_start|>"),
        "vision_end_token_id": WORDS.index("<|vision_end|>"),
    }


def config(size: ModelSize = SIZE, tied: bool = False, **text: Any) -> Qwen2VLConfig:
    """The config of a model; ``text`` overrides settings of its decoder."""
    return Qwen2VLConfig(
        text_config=text_settings(size, **text),
        vision_config={
            "depth": size.tower.layers,
            "embed_dim": size.tower.width,
            "hidden_size": size.d_model,
            "mlp_ratio": size.tower.mlp // size.tower.width,
            "num_heads": size.tower.heads,
            "patch_size": size.patch,
            "spatial_merge_size": MERGE,
        },
        **media_tokens(),
        tie_word_embeddings=tied,
    )


def model(seed: int = 0, tied: bool = False, **text: Any) -> Qwen2VLForConditionalGeneration:
    """A random model; ``text`` overrides settings of its decoder."""
    built = sharpened(lambda: Qwen2VLForConditionalGeneration(config(tied=tied, **text)), seed)
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
