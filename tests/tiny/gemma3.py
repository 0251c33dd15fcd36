"""Tiny Gemma 3: squares of 24 pixels, 3 x 3 features; window layers and a full one."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer, processors
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3Processor,
    Gemma3TextConfig,
    SiglipVisionConfig,
)
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

from mmlens.data.samples import Sample
from tests.tiny.common import TINY, TinyFamily, picture, pictures, sharpened, tokenizer, vocabulary

SIDE, PATCH = 24, 4
FEATURES = 9  # of 6 x 6 patches
SPECIAL = [
    "<pad>",
    "<unk>",
    "<bos>",
    "<eos>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<start_of_image>",
    "<end_of_image>",
    "<image_soft_token>",
]
WORDS = vocabulary(SPECIAL)
CHAT = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn> {{ m['role'] }}\n"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}<start_of_image>"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn> assistant\n{% endif %}"
)


def processor() -> Gemma3Processor:
    """The real processor, its pictures handled by Pillow."""
    words = tokenizer(
        SPECIAL,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        extra_special_tokens={
            "start_token": "<start_of_turn>",
            "end_token": "<end_of_turn>",
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": "<image_soft_token>",
        },
    )
    backend: Tokenizer = words.backend_tokenizer
    # As the family's tokenizer does, it begins every text with the start token.
    backend.post_processor = processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single="<bos> $A", special_tokens=[("<bos>", WORDS.index("<bos>"))]
    )
    return Gemma3Processor(
        image_processor=Gemma3ImageProcessorPil(size={"height": SIDE, "width": SIDE}),
        tokenizer=words,
        image_seq_length=FEATURES,
        chat_template=CHAT,
    )


def model(seed: int = 0, tied: bool = True, **text: Any) -> Gemma3ForConditionalGeneration:
    """A random model; ``text`` overrides settings of its decoder."""
    settings: dict[str, Any] = {
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
        "sliding_window": 6,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "tie_word_embeddings": tied,
    }
    config = Gemma3Config(
        vision_config=SiglipVisionConfig(
            **TINY.tower.settings(image_size=SIDE, patch_size=PATCH, vision_use_head=False)
        ),
        text_config=Gemma3TextConfig(**TINY.decoder(WORDS, **{**settings, **text})),
        mm_tokens_per_image=FEATURES,
        boi_token_index=WORDS.index("<start_of_image>"),
        eoi_token_index=WORDS.index("<end_of_image>"),
        image_token_index=WORDS.index("<image_soft_token>"),
        tie_word_embeddings=tied,
    )
    built = sharpened(lambda: Gemma3ForConditionalGeneration(config), seed)
    assert isinstance(built, Gemma3ForConditionalGeneration)
    return built


def samples() -> list[Sample]:
    """Pictures of several sizes and shapes, prompts of several lengths, none and two pictures."""
    rows = pictures([(24, 24), (40, 16), (15, 37), (31, 33)], 8)
    two = (picture(16, 16, 8), picture(33, 16, 9))
    rows.append(Sample("two", "w4 w5", two, answers=("a",), domain="red"))
    rows.append(Sample("none", "what is a dog ?", (), answers=("a",), domain="blue"))
    return rows


FAMILY = TinyFamily(
    name="gemma3",
    variants={
        "windows": model,
        "untied": lambda seed: model(seed, tied=False, num_key_value_heads=1),
    },
    processor=processor,
    samples=samples,
)
