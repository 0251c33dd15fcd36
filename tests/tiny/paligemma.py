"""Tiny PaliGemma: squares of 24 pixels; Gemma or, as in PaliGemma 2, Gemma 2 decoder."""

from __future__ import annotations

from typing import Any

from transformers import (
    Gemma2Config,
    GemmaConfig,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    SiglipVisionConfig,
)
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from mmlens.data.samples import Sample
from tests.tiny.common import TINY, TinyFamily, picture, pictures, sharpened, tokenizer, vocabulary

SIDE, PATCH = 24, 8
FEATURES = (SIDE // PATCH) ** 2
SPECIAL = ["<pad>", "<unk>", "<bos>", "<eos>", "<image>"]
WORDS = vocabulary(SPECIAL)


def processor() -> PaliGemmaProcessor:
    """The real processor, its pictures handled by Pillow."""
    settings = {"size": {"height": SIDE, "width": SIDE}, "image_seq_length": FEATURES}
    images = SiglipImageProcessorPil.from_dict(settings)
    return PaliGemmaProcessor(
        image_processor=images,
        tokenizer=tokenizer(
            SPECIAL,
            bos_token="<bos>",
            eos_token="<eos>",
            pad_token="<pad>",
            extra_special_tokens={"image_token": "<image>"},
        ),
    )


def model(decoder: str = "gemma", seed: int = 0) -> PaliGemmaForConditionalGeneration:
    """A random model, its head tied to its embedding as in all of the family."""
    # The processor adds its location and segment tokens behind the tokenizer's own.
    words = range(len(processor().tokenizer))
    groups = 1 if decoder == "gemma" else 2
    common = TINY.decoder(words, num_key_value_heads=groups, head_dim=8, tie_word_embeddings=True)
    if decoder == "gemma2":  # windows in every other layer, soft caps, norms around both halves
        text_config: Any = Gemma2Config(**common, sliding_window=6, query_pre_attn_scalar=8)
    else:
        text_config = GemmaConfig(**common)
    config = PaliGemmaConfig(
        vision_config=SiglipVisionConfig(
            **TINY.tower.settings(image_size=SIDE, patch_size=PATCH, vision_use_head=False)
        ),
        text_config=text_config,
        image_token_index=WORDS.index("<image>"),
        projection_dim=32,
        hidden_size=32,
    )
    built = sharpened(lambda: PaliGemmaForConditionalGeneration(config), seed)
    assert isinstance(built, PaliGemmaForConditionalGeneration)
    return built


def samples() -> list[Sample]:
    """Pictures of several sizes and shapes, two in a prompt; the family takes no prompt without."""
    rows = pictures([(24, 24), (40, 16), (15, 37), (31, 33)], 7)
    two = (picture(16, 16, 8), picture(33, 16, 9))
    rows.append(Sample("two", "w4 w5", two, answers=("a",), domain="red"))
    return rows


FAMILY = TinyFamily(
    name="paligemma",
    variants={
        "gemma": lambda seed: model("gemma", seed),
        "gemma2": lambda seed: model("gemma2", seed),
    },
    processor=processor,
    samples=samples,
)
