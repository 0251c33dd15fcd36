"""InstructBLIP: a picture of a fixed size, 32 queries in a Q-Former that reads the question; Llama.

A picture takes 32 tokens whatever its size, so long prompts are text for the greatest part. The
Q-Former reads that text too and here has a position for all of it, where the published one has 512.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import (
    InstructBlipConfig,
    InstructBlipProcessor,
    InstructBlipQFormerConfig,
    InstructBlipVisionConfig,
    LlamaConfig,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from benchmarks._sizes import Family, ModelSize, Shape, Widths
from tests.tiny import instructblip as tiny
from tests.tiny.common import picture

_QUERIES = 32


def _config(size: ModelSize) -> InstructBlipConfig:
    assert size.qformer is not None
    return InstructBlipConfig(
        vision_config=InstructBlipVisionConfig(
            hidden_size=size.tower.width,
            intermediate_size=size.tower.mlp,
            num_hidden_layers=size.tower.layers,
            num_attention_heads=size.tower.heads,
            image_size=size.side,
            patch_size=size.patch,
            initializer_range=0.02,  # the default leaves next to nothing of a picture
        ),
        qformer_config=InstructBlipQFormerConfig(
            hidden_size=size.qformer.width,
            intermediate_size=size.qformer.mlp,
            num_hidden_layers=size.qformer.layers,
            num_attention_heads=size.qformer.heads,
            cross_attention_frequency=2,
            encoder_hidden_size=size.tower.width,
            max_position_embeddings=size.positions,
        ),
        text_config=LlamaConfig(
            **size.decoder(
                bos_token_id=tiny.WORDS.index("<s>"),
                eos_token_id=tiny.WORDS.index("</s>"),
                pad_token_id=tiny.WORDS.index("<pad>"),
            )
        ),
        num_query_tokens=_QUERIES,
        image_token_index=tiny.WORDS.index("<image>"),
    )


def _processor(size: ModelSize) -> InstructBlipProcessor:
    processor: Any = tiny.processor(_QUERIES)
    processor.image_processor = BlipImageProcessorPil(
        size={"height": size.side, "width": size.side}
    )
    return processor


def _shapes(_size: ModelSize) -> Sequence[Shape]:
    return [(_QUERIES,)]


def _media(size: ModelSize, _shape: Shape, seed: int) -> Mapping[str, Any]:
    return {"images": (picture(size.side, size.side, seed),)}


FAMILY = Family(
    name="instructblip",
    sizes={
        "tiny": ModelSize(
            layers=2,
            d_model=64,
            d_mlp=96,
            heads=4,
            kv_heads=4,
            vocab=600,
            tower=Widths(layers=2, width=16, mlp=32, heads=2),
            side=28,
            qformer=Widths(layers=2, width=16, mlp=32, heads=2),
            positions=1024,
        ),
        "small": ModelSize(
            layers=6,
            d_model=768,
            d_mlp=2048,
            heads=12,
            kv_heads=12,
            vocab=32_000,
            tower=Widths(layers=3, width=128, mlp=512, heads=2),
            side=112,
            qformer=Widths(layers=2, width=128, mlp=512, heads=2),
        ),
        # instructblip-vicuna-7b.
        "7b": ModelSize(
            layers=32,
            d_model=4096,
            d_mlp=11_008,
            heads=32,
            kv_heads=32,
            vocab=32_001,
            tower=Widths(layers=39, width=1408, mlp=6144, heads=16),
            side=224,
            qformer=Widths(layers=12, width=768, mlp=3072, heads=12),
        ),
    },
    config=_config,
    processor=_processor,
    shapes=_shapes,
    media=_media,
)
