"""Tiny LLaVA-NeXT: any-resolution tiles of 16 pixels, Mistral, Vicuna or Qwen2 decoder."""

from __future__ import annotations

from typing import Any

from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)
from transformers.models.llava_next.image_processing_pil_llava_next import (
    LlavaNextImageProcessorPil,
)

from mmlens.data.samples import Sample
from tests.tiny.common import (
    TINY,
    ModelSize,
    TinyFamily,
    picture,
    pictures,
    sharpened,
    tokenizer,
    vocabulary,
)

TILE, PATCH = TINY.side, TINY.patch
PINPOINTS = [[16, 32], [32, 16], [32, 32], [16, 16]]
SPECIAL = ["<pad>", "<unk>", "<s>", "</s>", "<image>"]
WORDS = vocabulary(SPECIAL)
CHAT = (
    "{{ bos_token }}user : {% for m in messages %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %} assistant :{% endif %}"
)


def processor(
    words: PreTrainedTokenizerFast | None = None,
    size: ModelSize = TINY,
    pinpoints: list[list[int]] = PINPOINTS,
) -> LlavaNextProcessor:
    """The real processor, its pictures handled by Pillow; with another tokenizer if given."""
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": size.side},
        crop_size={"height": size.side, "width": size.side},
        image_grid_pinpoints=pinpoints,
    )
    return LlavaNextProcessor(
        image_processor=images,
        tokenizer=words
        or tokenizer(
            SPECIAL,
            bos_token="<s>",
            eos_token="</s>",
            pad_token="<pad>",
            extra_special_tokens={"image_token": "<image>"},
        ),
        patch_size=size.patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT,
    )


def config(
    decoder: str = "mistral",
    size: ModelSize = TINY,
    pinpoints: list[list[int]] = PINPOINTS,
    **text: Any,
) -> LlavaNextConfig:
    """The config of a model; ``text`` overrides settings of its decoder."""
    settings = size.decoder(WORDS, **text)
    if decoder == "mistral":  # grouped keys, a window shorter than the prompts
        text_config: Any = MistralConfig(**{"sliding_window": 6, **settings})
    elif decoder == "qwen2":  # biases at queries, keys and values
        text_config = Qwen2Config(**settings)
    else:  # Vicuna is a Llama without grouped keys
        text_config = LlamaConfig(**{**settings, "num_key_value_heads": size.heads, **text})
    return LlavaNextConfig(
        vision_config=CLIPVisionConfig(
            **size.tower.settings(image_size=size.side, patch_size=size.patch)
        ),
        text_config=text_config,
        image_token_index=WORDS.index("<image>"),
        image_grid_pinpoints=pinpoints,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=text_config.tie_word_embeddings,
    )


def model(
    decoder: str = "mistral", seed: int = 0, tied: bool = False, **text: Any
) -> LlavaNextForConditionalGeneration:
    """A random model; ``text`` overrides settings of its decoder."""
    made = config(decoder, tie_word_embeddings=tied, **text)
    built = sharpened(lambda: LlavaNextForConditionalGeneration(made), seed)
    assert isinstance(built, LlavaNextForConditionalGeneration)
    return built


def samples() -> list[Sample]:
    """Pictures of several sizes and shapes, prompts of several lengths, none and two pictures."""
    rows = pictures([(16, 16), (40, 16), (15, 37), (31, 33)], 8)
    two = (picture(16, 16, 8), picture(33, 16, 9))
    rows.append(Sample("two", "w4 w5", two, answers=("a",), domain="red"))
    rows.append(Sample("none", "what is a dog ?", (), answers=("a",), domain="blue"))
    return rows


FAMILY = TinyFamily(
    name="llava-next",
    variants={
        "mistral": lambda seed: model("mistral", seed),
        "vicuna": lambda seed: model("vicuna", seed),
        "vicuna-tied": lambda seed: model("vicuna", seed, tied=True),
        "qwen2": lambda seed: model("qwen2", seed),
    },
    processor=processor,
    samples=samples,
)
