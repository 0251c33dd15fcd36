"""Tiny SmolVLM: Idefics3's tiles of 16 pixels, and videos; Llama decoder."""

from __future__ import annotations

from typing import Any

from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration, SmolVLMProcessor
from transformers.models.smolvlm.configuration_smolvlm import SmolVLMVisionConfig
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from mmlens._torchvision import declare_missing_operators
from mmlens.data.samples import Sample
from tests.tiny.common import TinyFamily, picture, pictures, sharpened, video
from tests.tiny.idefics3 import CHAT, FEATURES, SIDE, TILE, TOWER, idefics_tokenizer, settings


def processor() -> SmolVLMProcessor:
    """The real processor, its pictures handled by Pillow."""
    declare_missing_operators()
    from transformers import SmolVLMVideoProcessor

    edges: dict[str, Any] = {
        "size": {"longest_edge": SIDE},
        "max_image_size": {"longest_edge": TILE},
    }
    return SmolVLMProcessor(
        SmolVLMImageProcessorPil(**edges),
        idefics_tokenizer(),
        # Its chat template needs the two numbers, which are for sampling from files.
        SmolVLMVideoProcessor(**edges, num_frames=8, fps=1),
        image_seq_len=FEATURES,
        chat_template=CHAT,
    )


def model(seed: int = 0, tied: bool = True, **text: Any) -> SmolVLMForConditionalGeneration:
    """A random model; ``text`` overrides settings of its decoder."""
    config = SmolVLMConfig(vision_config=SmolVLMVisionConfig(**TOWER), **settings(tied, **text))
    built = sharpened(lambda: SmolVLMForConditionalGeneration(config), seed)
    assert isinstance(built, SmolVLMForConditionalGeneration)
    return built


def samples() -> list[Sample]:
    """Pictures of several sizes and shapes, videos of different lengths, both, two, and none."""
    rows = pictures([(16, 16), (48, 9), (15, 37), (31, 33)], 4)
    two = (picture(60, 16, 8), picture(16, 50, 9))
    rows.append(Sample("two", "w4 w5", two, answers=("a",), domain="red"))
    clips = (tuple(video(3, 32, 24, 1)), tuple(video(2, 9, 20, 2)))
    rows.append(Sample("video", "w7 w8", videos=clips[:1], answers=("a",), domain="red"))
    rows.append(Sample("videos", "w9", videos=clips, answers=("a",), domain="blue"))
    both = Sample("both", "w10", (picture(20, 24, 11),), clips[1:], answers=("a",), domain="red")
    rows.append(both)
    rows.append(Sample("none", "what is a dog ?", (), answers=("a",), domain="blue"))
    return rows


FAMILY = TinyFamily(
    name="smolvlm",
    variants={
        "llama-tied": model,
        "llama": lambda seed: model(seed, tied=False, num_key_value_heads=4),
    },
    processor=processor,
    samples=samples,
)
