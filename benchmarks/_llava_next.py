"""LLaVA-NeXT: pictures of up to 8 x 8 tiles before a CLIP tower; Mistral decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import CLIPVisionConfig, LlavaNextConfig, LlavaNextProcessor, MistralConfig
from transformers.models.llava_next.image_processing_pil_llava_next import (
    LlavaNextImageProcessorPil,
)

from benchmarks._sizes import Family, ModelSize, Shape, Widths
from tests.tiny.common import picture, tokenizer

_SPECIAL = ["<pad>", "<unk>", "<s>", "</s>", "<image>"]
_CHAT = (
    "{{ bos_token }} {% for m in messages %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}"
)


def _grids(size: ModelSize) -> list[list[int]]:
    """Every grid of up to 8 x 8 tiles, so that a picture can be made for any length of prompt."""
    return [[size.side * high, size.side * wide] for high in range(1, 9) for wide in range(1, 9)]


def _config(size: ModelSize) -> LlavaNextConfig:
    return LlavaNextConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=size.tower.width,
            intermediate_size=size.tower.mlp,
            num_hidden_layers=size.tower.layers,
            num_attention_heads=size.tower.heads,
            image_size=size.side,
            patch_size=size.patch,
        ),
        text_config=MistralConfig(**size.decoder(sliding_window=None)),
        image_token_index=_SPECIAL.index("<image>"),
        image_grid_pinpoints=_grids(size),
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )


def _processor(size: ModelSize) -> LlavaNextProcessor:
    return LlavaNextProcessor(
        image_processor=LlavaNextImageProcessorPil(
            size={"shortest_edge": size.side},
            crop_size={"height": size.side, "width": size.side},
            image_grid_pinpoints=_grids(size),
        ),
        tokenizer=tokenizer(
            _SPECIAL,
            bos_token="<s>",
            eos_token="</s>",
            pad_token="<pad>",
            extra_special_tokens={"image_token": "<image>"},
        ),
        patch_size=size.patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_CHAT,
    )


def _shapes(size: ModelSize) -> Sequence[Shape]:
    """One picture that fills its grid of tiles.

    Its tokens: the base tile's patches, then the grid's, with a newline after every row.
    """
    patch, base = size.patch, (size.side // size.patch) ** 2
    return [(base + (h // patch) * (w // patch + 1), h, w) for h, w in _grids(size)]


def _media(_size: ModelSize, shape: Shape, seed: int) -> Mapping[str, Any]:
    _, high, wide = shape
    return {"images": (picture(wide, high, seed),)}


FAMILY = Family(
    name="llava-next",
    sizes={
        "tiny": ModelSize(
            layers=2,
            d_model=64,
            d_mlp=96,
            heads=4,
            kv_heads=2,
            vocab=600,
            tower=Widths(layers=2, width=16, mlp=64, heads=1),
            side=64,
            patch=8,
        ),
        "small": ModelSize(
            layers=6,
            d_model=768,
            d_mlp=2048,
            heads=12,
            kv_heads=4,
            vocab=32_000,
            tower=Widths(layers=3, width=128, mlp=512, heads=2),
            side=64,
            patch=8,
        ),
        # llava-v1.6-mistral-7b; its own grids are fewer.
        "7b": ModelSize(
            layers=32,
            d_model=4096,
            d_mlp=14_336,
            heads=32,
            kv_heads=8,
            vocab=32_064,
            tower=Widths(layers=24, width=1024, mlp=4096, heads=16),
            side=336,
            patch=14,
            positions=32_768,
        ),
    },
    config=_config,
    processor=_processor,
    shapes=_shapes,
    media=_media,
)
