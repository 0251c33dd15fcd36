"""Tiny Idefics3: tiles of 16 pixels, stacks of 2 x 2 patches, Llama decoder."""

from __future__ import annotations

from typing import Any

from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    LlamaConfig,
    PreTrainedTokenizerFast,
)
from transformers.models.idefics3.configuration_idefics3 import Idefics3VisionConfig
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

from mmlens.data.samples import Sample
from tests.tiny.common import TINY, TinyFamily, picture, pictures, sharpened, tokenizer, vocabulary

TILE, PATCH, STACK = 16, 4, 2
FEATURES = (TILE // PATCH // STACK) ** 2
#: The longer side of a picture, before it is cut.
SIDE = 48
PLACES = [f"<row_{row}_col_{column}>" for row in (1, 2, 3) for column in (1, 2, 3)]
SPECIAL = [
    "<pad>",
    "<unk>",
    "<|im_start|>",
    "<end_of_utterance>",
    "<fake_token_around_image>",
    "<image>",
    "<video>",
    "<global-img>",
    *PLACES,
]
WORDS = vocabulary(SPECIAL)
CHAT = (
    "<|im_start|>{% for m in messages %}{{ m['role'] }} : {% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}{% endif %}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}assistant :{% endif %}"
)


def idefics_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with the family's special tokens."""
    named = {
        "fake_image_token": "<fake_token_around_image>",
        "image_token": "<image>",
        "video_token": "<video>",
        "global_image_token": "<global-img>",
        "end_of_utterance_token": "<end_of_utterance>",
        **{f"place_{number}_token": place for number, place in enumerate(PLACES)},
    }
    return tokenizer(
        SPECIAL,
        bos_token="<|im_start|>",
        eos_token="<end_of_utterance>",
        pad_token="<pad>",
        extra_special_tokens=named,
    )


def processor() -> Idefics3Processor:
    """The real processor, its pictures handled by Pillow."""
    images = Idefics3ImageProcessorPil(
        size={"longest_edge": SIDE}, max_image_size={"longest_edge": TILE}
    )
    return Idefics3Processor(
        images, tokenizer=idefics_tokenizer(), image_seq_len=FEATURES, chat_template=CHAT
    )


def settings(tied: bool, **text: Any) -> dict[str, Any]:
    """What the configs of Idefics3 and SmolVLM have in common, but for the tower."""
    common = {"tie_word_embeddings": tied, **text}
    return {
        "text_config": LlamaConfig(**TINY.decoder(WORDS, **common)),
        "image_token_id": WORDS.index("<image>"),
        "scale_factor": STACK,
        "tie_word_embeddings": tied,
        "pad_token_id": 0,
    }


#: Settings of the towers.
TOWER = TINY.tower.settings(image_size=TILE, patch_size=PATCH)


def model(seed: int = 0, tied: bool = False, **text: Any) -> Idefics3ForConditionalGeneration:
    """A random model; ``text`` overrides settings of its decoder."""
    config = Idefics3Config(
        vision_config=Idefics3VisionConfig(**TOWER), **settings(tied=tied, **text)
    )
    built = sharpened(lambda: Idefics3ForConditionalGeneration(config), seed)
    assert isinstance(built, Idefics3ForConditionalGeneration)
    return built


def samples() -> list[Sample]:
    """Pictures of several sizes and shapes, prompts of several lengths, none and two pictures."""
    rows = pictures([(16, 16), (48, 9), (15, 37), (31, 33)], 6)
    two = (picture(60, 16, 8), picture(16, 50, 9))
    rows.append(Sample("two", "w4 w5", two, answers=("a",), domain="red"))
    rows.append(Sample("none", "what is a dog ?", (), answers=("a",), domain="blue"))
    return rows


FAMILY = TinyFamily(
    name="idefics3",
    variants={
        "llama": model,
        "llama-tied": lambda seed: model(seed, tied=True, num_key_value_heads=4),
    },
    processor=processor,
    samples=samples,
)
