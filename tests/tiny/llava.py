"""Tiny LLaVA-1.5: squares of 24 pixels; CLIP or SigLIP tower; Vicuna or Qwen2 decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    Qwen2Config,
    SiglipVisionConfig,
)
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from mmlens.data.samples import Sample
from tests.tiny.common import TINY, TinyFamily, picture, pictures, sharpened, tokenizer, vocabulary

SIDE, PATCH = 24, 8
SPECIAL = ["<pad>", "<unk>", "<s>", "</s>", "<image>"]
WORDS = vocabulary(SPECIAL)
CHAT = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'] }} : "
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}<image>\n{% endif %}{% endfor %}"
    "{% for c in m['content'] %}{% if c['type'] == 'text' %}{{ c['text'] }} {% endif %}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}assistant :{% endif %}"
)


def processor() -> LlavaProcessor:
    """The real processor, its pictures handled by Pillow."""
    images = LlavaImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer(
            SPECIAL,
            bos_token="<s>",
            eos_token="</s>",
            pad_token="<pad>",
            extra_special_tokens={"image_token": "<image>"},
        ),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT,
    )


def model(
    tower: str = "clip",
    decoder: str = "vicuna",
    seed: int = 0,
    tied: bool = False,
    read: int | Sequence[int] = -2,
    bias: bool = True,
) -> LlavaForConditionalGeneration:
    """A random model; ``read`` is the hidden state, or states, of the tower that LLaVA takes."""
    common = {"tie_word_embeddings": tied}
    if decoder == "qwen2":  # grouped keys, biases at queries, keys and values
        text_config: Any = Qwen2Config(**TINY.decoder(WORDS, **common))
    else:  # Vicuna is a Llama without grouped keys
        text_config = LlamaConfig(**TINY.decoder(WORDS, num_key_value_heads=4, **common))
    vision = SiglipVisionConfig if tower == "siglip" else CLIPVisionConfig
    config = LlavaConfig(
        vision_config=vision(**TINY.tower.settings(image_size=SIDE, patch_size=PATCH)),
        text_config=text_config,
        image_token_index=WORDS.index("<image>"),
        vision_feature_layer=read if isinstance(read, int) else list(read),
        # SigLIP has no class token to leave out.
        vision_feature_select_strategy="full" if tower == "siglip" else "default",
        multimodal_projector_bias=bias,
        tie_word_embeddings=tied,
    )
    built = sharpened(lambda: LlavaForConditionalGeneration(config), seed)
    assert isinstance(built, LlavaForConditionalGeneration)
    return built


def samples() -> list[Sample]:
    """Pictures of several sizes and shapes, prompts of several lengths, none and two pictures."""
    rows = pictures([(24, 24), (40, 16), (15, 37), (31, 33)], 8)
    two = (picture(16, 16, 8), picture(33, 16, 9))
    rows.append(Sample("two", "w4 w5", two, answers=("a",), domain="red"))
    rows.append(Sample("none", "what is a dog ?", (), answers=("a",), domain="blue"))
    return rows


FAMILY = TinyFamily(
    name="llava",
    variants={
        "clip-vicuna": lambda seed: model("clip", "vicuna", seed),
        "clip-vicuna-tied": lambda seed: model("clip", "vicuna", seed, tied=True, bias=False),
        "clip-two-states": lambda seed: model("clip", "vicuna", seed, read=(1, -2)),
        "siglip-qwen2": lambda seed: model("siglip", "qwen2", seed, read=-1),
    },
    processor=processor,
    samples=samples,
)
