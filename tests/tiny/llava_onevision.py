"""Tiny LLaVA-OneVision: any-resolution tiles of 24 pixels, videos, Qwen2 decoder."""

from __future__ import annotations

from typing import Any

from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionProcessor,
    Qwen2Config,
    SiglipVisionConfig,
)
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)

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

TILE, PATCH = 24, 8
PINPOINTS = [[TILE * rows, TILE * columns] for rows in (1, 2, 3, 4) for columns in (1, 2, 3, 4)]
#: Grids of more than two tiles' worth of features are scaled down.
ASPECT_RATIO = "anyres_max_2"
SPECIAL = ["<pad>", "<unk>", "<|im_start|>", "<|im_end|>", "<image>", "<video>"]
WORDS = vocabulary(SPECIAL)
CHAT = (
    "{% for m in messages %}<|im_start|> {{ m['role'] }} "
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}<image>{% endif %}{% endfor %}"
    "{% for c in m['content'] %}{% if c['type'] == 'video' %}<video>{% endif %}{% endfor %}"
    "{% for c in m['content'] %}{% if c['type'] == 'text' %}\n{{ c['text'] }}{% endif %}{% endfor %}"
    "<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|> assistant\n{% endif %}"
)


def processor(frames: int | None = None) -> LlavaOnevisionProcessor:
    """The real processor, its pictures handled by Pillow; ``frames`` to take of each video."""
    declare_missing_operators()
    from transformers import LlavaOnevisionVideoProcessor

    square = {"height": TILE, "width": TILE}
    return LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessorPil(
            size=square, image_grid_pinpoints=PINPOINTS
        ),
        video_processor=LlavaOnevisionVideoProcessor(size=square, num_frames=frames),
        tokenizer=tokenizer(
            SPECIAL,
            eos_token="<|im_end|>",
            pad_token="<pad>",
            extra_special_tokens={
                "im_start_token": "<|im_start|>",
                "image_token": "<image>",
                "video_token": "<video>",
            },
        ),
        num_image_tokens=(TILE // PATCH) ** 2,
        vision_feature_select_strategy="full",
        vision_aspect_ratio=ASPECT_RATIO,
        chat_template=CHAT,
    )


def model(
    seed: int = 0, tied: bool = True, read: int | list[int] = -1, **text: Any
) -> LlavaOnevisionForConditionalGeneration:
    """A random model; ``read`` as in LLaVA; ``text`` overrides settings of its decoder."""
    settings = {"bos_token_id": None, "tie_word_embeddings": tied, **text}
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(
            **TINY.tower.settings(image_size=TILE, patch_size=PATCH, vision_use_head=False)
        ),
        text_config=Qwen2Config(**TINY.decoder(WORDS, **settings)),
        image_token_index=WORDS.index("<image>"),
        video_token_index=WORDS.index("<video>"),
        image_grid_pinpoints=PINPOINTS,
        vision_aspect_ratio=ASPECT_RATIO,
        vision_feature_layer=read,
        tie_word_embeddings=tied,
    )
    built = sharpened(lambda: LlavaOnevisionForConditionalGeneration(config), seed)
    assert isinstance(built, LlavaOnevisionForConditionalGeneration)
    return built


def samples() -> list[Sample]:
    """Pictures of several sizes and shapes, two and three in a prompt, videos, both, and none."""
    rows = pictures([(24, 24), (90, 20), (15, 37), (75, 80)], 4)
    two = (picture(16, 16, 8), picture(33, 16, 9))
    rows.append(Sample("two", "w4 w5", two, answers=("a",), domain="red"))
    three = (*two, picture(60, 30, 10))
    rows.append(Sample("three", "w6", three, answers=("a",), domain="blue"))
    clips = [
        tuple(video(3, width, height, seed)) for seed, width, height in ((1, 32, 24), (2, 9, 20))
    ]
    rows.append(Sample("video", "w7 w8", videos=(clips[0],), answers=("a",), domain="red"))
    rows.append(Sample("videos", "w9", videos=tuple(clips), answers=("a",), domain="blue"))
    both = Sample("both", "w10", (picture(50, 24, 11),), (clips[1],), answers=("a",), domain="red")
    rows.append(both)
    rows.append(Sample("none", "what is a dog ?", (), answers=("a",), domain="blue"))
    return rows


FAMILY = TinyFamily(
    name="llava-onevision",
    variants={
        "qwen2": model,
        "qwen2-untied": lambda seed: model(seed, tied=False, read=-2),
    },
    processor=processor,
    samples=samples,
)
