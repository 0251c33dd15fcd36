"""Tiny InternVL: tiles of 24 pixels, stacks of 2 x 2 patches, videos; Qwen2 or Llama decoder."""

from __future__ import annotations

from typing import Any

from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVisionConfig,
    LlamaConfig,
    Qwen2Config,
)
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

from mmlens._torchvision import declare_missing_operators
from mmlens.data.samples import Sample
from tests.tiny.common import (
    TINY,
    TinyFamily,
    picture,
    pictures,
    sharpened,
    tokenizer,
    video,
    vocabulary,
)

TILE, PATCH = 24, 4
#: Patches of a tile, two by two.
FEATURES = (TILE // PATCH // 2) ** 2
SPECIAL = [
    "<pad>",
    "<unk>",
    "<|im_start|>",
    "<|im_end|>",
    "<IMG_CONTEXT>",
    "<img>",
    "</img>",
    "<video>",
]
WORDS = vocabulary(SPECIAL)
CHAT = (
    "{% for m in messages %}<|im_start|> {{ m['role'] }}\n{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<IMG_CONTEXT>\n{% elif c['type'] == 'video' %}<video>\n"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|> assistant\n{% endif %}"
)


def processor() -> InternVLProcessor:
    """The real processor, its pictures handled by Pillow."""
    declare_missing_operators()
    from transformers import InternVLVideoProcessor

    square = {"height": TILE, "width": TILE}
    return InternVLProcessor(
        image_processor=GotOcr2ImageProcessorPil(size=square, max_patches=4),
        video_processor=InternVLVideoProcessor(size=square),
        tokenizer=tokenizer(
            SPECIAL,
            eos_token="<|im_end|>",
            pad_token="<pad>",
            extra_special_tokens={
                "im_start_token": "<|im_start|>",
                "context_image_token": "<IMG_CONTEXT>",
                "start_image_token": "<img>",
                "end_image_token": "</img>",
                "video_token": "<video>",
            },
        ),
        image_seq_length=FEATURES,
        chat_template=CHAT,
    )


def model(
    decoder: str = "qwen2", seed: int = 0, read: int = -1, **vision: Any
) -> InternVLForConditionalGeneration:
    """A random model; ``read`` is the tower's hidden state taken, ``vision`` sets its config."""
    common = {"bos_token_id": None, "tie_word_embeddings": decoder == "qwen2"}
    settings = TINY.tower.settings(
        image_size=[TILE, TILE], patch_size=[PATCH, PATCH], attention_bias=True
    )
    if decoder == "qwen2":  # grouped keys, biases at queries, keys and values
        text_config: Any = Qwen2Config(**TINY.decoder(WORDS, **common))
    else:
        text_config = LlamaConfig(**TINY.decoder(WORDS, num_key_value_heads=4, **common))
    config = InternVLConfig(
        vision_config=InternVLVisionConfig(**{**settings, **vision}),
        text_config=text_config,
        image_token_id=WORDS.index("<IMG_CONTEXT>"),
        image_seq_length=FEATURES,
        vision_feature_layer=read,
        tie_word_embeddings=decoder == "qwen2",
    )
    built = sharpened(lambda: InternVLForConditionalGeneration(config), seed)
    assert isinstance(built, InternVLForConditionalGeneration)
    return built


def samples() -> list[Sample]:
    """Pictures of several sizes and shapes, two in a prompt, videos of different lengths, and none."""
    rows = pictures([(24, 24), (90, 20), (15, 37), (75, 80)], 4)
    two = (picture(16, 16, 8), picture(33, 16, 9))
    rows.append(Sample("two", "w4 w5", two, answers=("a",), domain="red"))
    clips = (tuple(video(3, 32, 24, 1)), tuple(video(2, 9, 20, 2)))
    rows.append(Sample("video", "w7 w8", videos=clips[:1], answers=("a",), domain="red"))
    rows.append(Sample("videos", "w9", videos=clips, answers=("a",), domain="blue"))
    both = Sample("both", "w10", (picture(50, 24, 11),), clips[1:], answers=("a",), domain="red")
    rows.append(both)
    rows.append(Sample("none", "what is a dog ?", (), answers=("a",), domain="blue"))
    return rows


FAMILY = TinyFamily(
    name="internvl",
    variants={
        "qwen2": lambda seed: model("qwen2", seed),
        "llama": lambda seed: model(
            "llama", seed, read=-2, attention_bias=False, use_qk_norm=True, norm_type="rms_norm"
        ),
    },
    processor=processor,
    samples=samples,
)
