"""Tiny InstructBLIP: pictures of 16 pixels, a Q-Former of three layers, Llama decoders."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from tokenizers.processors import TemplateProcessing
from transformers import (
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
    InstructBlipQFormerConfig,
    InstructBlipVisionConfig,
    LlamaConfig,
    MistralConfig,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from mmlens.data.samples import Sample
from tests.tiny.common import (
    ModelSize,
    TinyFamily,
    Widths,
    pictures,
    sharpened,
    tokenizer,
    vocabulary,
)

SIZE = ModelSize(kv_heads=4, tower=Widths(layers=2))
QUERIES = 5
SPECIAL = ["<pad>", "<unk>", "<s>", "</s>", "<image>"]
WORDS = vocabulary(SPECIAL)
#: The Q-Former has a tokenizer of its own, BERT's in the published models.
QFORMER_SPECIAL = ["[PAD]", "<unk>", "[CLS]", "[SEP]"]


def processor(queries: int | None = QUERIES, size: ModelSize = SIZE) -> InstructBlipProcessor:
    """The real processor, its pictures handled by Pillow; no chat template, as published."""
    text = tokenizer(SPECIAL, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    text.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", SPECIAL.index("<s>"))]
    )
    question = tokenizer(QFORMER_SPECIAL, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]")
    question.backend_tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(one, QFORMER_SPECIAL.index(one)) for one in ("[CLS]", "[SEP]")],
    )
    return InstructBlipProcessor(
        image_processor=BlipImageProcessorPil(size={"height": size.side, "width": size.side}),
        tokenizer=text,
        qformer_tokenizer=question,
        num_query_tokens=queries,
    )


def config(
    decoder: str = "vicuna",
    size: ModelSize = SIZE,
    queries: int = QUERIES,
    question: int = 64,
    vision: Mapping[str, Any] = MappingProxyType({}),
    **text: Any,
) -> InstructBlipConfig:
    """The config of a model; ``vision`` and ``text`` override settings of its tower and decoder.

    ``question`` is the longest text that the Q-Former reads.
    """
    settings = size.decoder(WORDS, **text)
    if decoder == "mistral":  # grouped keys, a window shorter than the prompts
        grouped = {"num_key_value_heads": 2, "sliding_window": 6, **text}
        text_config: Any = MistralConfig(**{**settings, **grouped})
    else:
        text_config = LlamaConfig(**settings)
    return InstructBlipConfig(
        vision_config=InstructBlipVisionConfig(
            **size.tower.settings(image_size=size.side, patch_size=size.patch, **vision)
        ),
        qformer_config=InstructBlipQFormerConfig(
            **size.qformer.settings(
                vocab_size=len(vocabulary(QFORMER_SPECIAL)),
                cross_attention_frequency=2,
                encoder_hidden_size=size.tower.width,
                max_position_embeddings=question,
                pad_token_id=0,
            )
        ),
        text_config=text_config,
        num_query_tokens=queries,
        image_token_index=WORDS.index("<image>"),
    )


def model(
    decoder: str = "vicuna", seed: int = 0, tied: bool = False, **text: Any
) -> InstructBlipForConditionalGeneration:
    """A random model; ``text`` overrides settings of its decoder."""
    made = config(decoder, tie_word_embeddings=tied, **text)
    built = sharpened(lambda: InstructBlipForConditionalGeneration(made), seed)
    assert isinstance(built, InstructBlipForConditionalGeneration)
    return built


def samples() -> list[Sample]:
    """One picture each, of several sizes and shapes; questions of several lengths."""
    return pictures([(16, 16), (40, 16), (15, 37), (31, 33), (64, 48)], 9)


FAMILY = TinyFamily(
    name="instructblip",
    variants={
        "vicuna": lambda seed: model("vicuna", seed),
        "vicuna-tied": lambda seed: model("vicuna", seed, tied=True),
        "llama-grouped": lambda seed: model("llama", seed, num_key_value_heads=2),
        "mistral": lambda seed: model("mistral", seed),
    },
    processor=processor,
    samples=samples,
)
