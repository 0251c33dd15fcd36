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
from tests.tiny.common import TinyFamily, picture, pictures, sharpened, tokenizer, vocabulary

TILE, PATCH = 16, 8
PINPOINTS = [[16, 32], [32, 16], [32, 32], [16, 16]]
SPECIAL = ["<pad>", "<unk>", "<s>", "</s>", "<image>"]
WORDS = vocabulary(SPECIAL)
CHAT = (
    "{{ bos_token }}user : {% for m in messages %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %} assistant :{% endif %}"
)


def processor(words: PreTrainedTokenizerFast | None = None) -> LlavaNextProcessor:
    """The real processor, its pictures handled by Pillow; with another tokenizer if given."""
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": TILE},
        crop_size={"height": TILE, "width": TILE},
        image_grid_pinpoints=PINPOINTS,
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
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT,
    )


def model(
    decoder: str = "mistral", seed: int = 0, **text: Any
) -> LlavaNextForConditionalGeneration:
    """A random model; ``text`` overrides settings of its decoder."""
    tied = text.pop("tied", False)
    common = {
        "vocab_size": len(WORDS),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "pad_token_id": 0,
        "tie_word_embeddings": tied,
    }
    if decoder == "mistral":  # grouped keys, a window shorter than the prompts
        text_config: Any = MistralConfig(
            **{**common, "num_key_value_heads": 2, "sliding_window": 6, **text}
        )
    elif decoder == "qwen2":  # biases at queries, keys and values
        text_config = Qwen2Config(**{**common, "num_key_value_heads": 2, **text})
    else:  # Vicuna is a Llama without grouped keys
        text_config = LlamaConfig(**{**common, "num_key_value_heads": 4, **text})
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=24,
            intermediate_size=40,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=TILE,
            patch_size=PATCH,
        ),
        text_config=text_config,
        image_token_index=WORDS.index("<image>"),
        image_grid_pinpoints=PINPOINTS,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=tied,
    )
    built = sharpened(lambda: LlavaNextForConditionalGeneration(config), seed)
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
